"""The modules of pooling, and what the table does not show: NaN, ties, values at the edge, many taps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn import functional as F

CALLS: list[tuple[Any, Any, str]] = [
    (nn.MaxPool1d(2, 1), lambda x: F.max_pool1d(x, 2, 1),
     "kernel_size=2, stride=1, padding=0, dilation=1, ceil_mode=False"),
    (nn.MaxPool2d((2, 1), dilation=2, ceil_mode=True), lambda x: F.max_pool2d(x, (2, 1), None, 0, 2, True),
     "kernel_size=(2, 1), stride=(2, 1), padding=0, dilation=2, ceil_mode=True"),
    (nn.MaxPool3d(2, padding=1), lambda x: F.max_pool3d(x, 2, None, 1),
     "kernel_size=2, stride=2, padding=1, dilation=1, ceil_mode=False"),
    (nn.AvgPool1d(3, 2, 1), lambda x: F.avg_pool1d(x, 3, 2, 1), "kernel_size=(3,), stride=(2,), padding=(1,)"),
    (nn.AvgPool2d(2, padding=1, count_include_pad=False), lambda x: F.avg_pool2d(x, 2, None, 1, False, False),
     "kernel_size=2, stride=2, padding=1"),
    (nn.AvgPool3d(2, divisor_override=5), lambda x: F.avg_pool3d(x, 2, divisor_override=5),
     "kernel_size=2, stride=2, padding=0"),
    (nn.LPPool1d(2, 3), lambda x: F.lp_pool1d(x, 2, 3), "norm_type=2, kernel_size=3, stride=None, ceil_mode=False"),
    (nn.LPPool2d(4, 2, ceil_mode=True), lambda x: F.lp_pool2d(x, 4, 2, None, True),
     "norm_type=4, kernel_size=2, stride=None, ceil_mode=True"),
    (nn.LPPool3d(2.0, 2, 1), lambda x: F.lp_pool3d(x, 2.0, 2, 1),
     "norm_type=2.0, kernel_size=2, stride=1, ceil_mode=False"),
    (nn.AdaptiveAvgPool1d(2), lambda x: F.adaptive_avg_pool1d(x, 2), "output_size=2"),
    (nn.AdaptiveAvgPool2d((None, 3)), lambda x: F.adaptive_avg_pool2d(x, (None, 3)), "output_size=(None, 3)"),
    (nn.AdaptiveAvgPool3d(2), lambda x: F.adaptive_avg_pool3d(x, 2), "output_size=2"),
    (nn.AdaptiveMaxPool1d(2), lambda x: F.adaptive_max_pool1d(x, 2), "output_size=2"),
    (nn.AdaptiveMaxPool2d(3), lambda x: F.adaptive_max_pool2d(x, 3), "output_size=3"),
    (nn.AdaptiveMaxPool3d((1, 2, None)), lambda x: F.adaptive_max_pool3d(x, (1, 2, None)), "output_size=(1, 2, None)"),
]  # fmt: skip


def dims_of(module: nn.Module) -> int:
    return int(type(module).__name__[-2])


@pytest.mark.parametrize("module, function, shown", CALLS, ids=lambda v: type(v).__name__ if callable(v) else "")
def test_module_is_function(module: nn.Module, function: Any, shown: str) -> None:
    cf.manual_seed(0)
    x = cf.randn(2, 3, *(5,) * dims_of(module))
    out = module(x).numpy()
    np.testing.assert_array_equal(out, function(x).numpy())
    np.testing.assert_array_equal(module(x[0]).numpy(), out[0])
    assert repr(module) == f"{type(module).__name__}({shown})"
    assert not module.state_dict()


@pytest.mark.parametrize("kind", [nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d], ids=lambda k: k.__name__)
def test_unpool_restores_the_maxima(kind: type) -> None:
    unpool = kind(2)
    dims = dims_of(unpool)
    pool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
    x = cf.arange(1.0, 2 * 4**dims + 1).reshape(1, 2, *(4,) * dims)
    out, indices = pool(x)
    back = unpool(out, indices).numpy()
    assert back.shape == tuple(x.shape)
    np.testing.assert_array_equal(back[back > 0], np.sort(out.numpy().reshape(-1)))
    np.testing.assert_array_equal(pool(cf.tensor(back))[0].numpy(), out.numpy())
    assert unpool(out, indices, output_size=x.shape).shape == x.shape
    assert repr(unpool) == f"MaxUnpool{dims}d(kernel_size={(2,) * dims}, stride={(2,) * dims}, padding={(0,) * dims})"


@pytest.mark.parametrize("kind", [nn.FractionalMaxPool2d, nn.FractionalMaxPool3d], ids=lambda k: k.__name__)
def test_fractional(kind: type) -> None:
    dims = int(kind.__name__[-2])
    x = cf.randn(2, 3, *(6,) * dims)
    cf.manual_seed(1)
    first, index = kind(2, output_size=3, return_indices=True)(x)
    cf.manual_seed(1)
    np.testing.assert_array_equal(first.numpy(), kind(2, output_ratio=0.5)(x).numpy())
    flat = x.numpy().reshape(2, 3, -1)
    picked = np.take_along_axis(flat, index.numpy().reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(picked.reshape(first.shape), first.numpy())
    with pytest.raises(ValueError, match=f"{kind.__name__}: needs either"):
        kind(2)
    with pytest.raises(ValueError, match=r"output_ratio must be in \(0, 1\)"):
        kind(2, output_ratio=1.0)


def test_nan_goes_through_maxima() -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 0, 1] = x[0, 0, 3, 2] = np.nan
    t = cf.tensor(x).requires_grad_()
    out, index = F.max_pool2d(t, 2, return_indices=True)
    np.testing.assert_array_equal(np.isnan(out.detach().numpy()[0, 0]), [[True, False], [False, True]])
    np.testing.assert_array_equal(index.numpy()[0, 0], [[1, 2], [8, 14]])
    np.testing.assert_array_equal(np.isnan(F.max_pool2d(cf.tensor(x), 2).numpy()), np.isnan(out.detach().numpy()))
    for size in (1, 3):
        out, index = F.adaptive_max_pool2d(cf.tensor(x), size, return_indices=True)
        assert np.isnan(out.numpy()[0, 0, 0, 0]) and np.isnan(out.numpy()[0, 0, -1, -1])
        assert index.numpy()[0, 0, -1, -1] == 14


def test_first_of_equal_maxima() -> None:
    x = cf.tensor([[[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]]).requires_grad_()
    out, index = F.max_pool2d(x, (2, 3), return_indices=True)
    out.sum().backward()
    assert index.item() == 1
    np.testing.assert_array_equal(x.grad.numpy(), [[[0, 1, 0], [0, 0, 0]]])


def test_infinite_input_in_padded_windows() -> None:
    x = cf.full((1, 1, 3), -np.inf).requires_grad_()
    out, index = F.max_pool1d(x, 2, 1, 1, return_indices=True)
    assert (out.detach().numpy() == -np.inf).all()
    np.testing.assert_array_equal(index.numpy()[0, 0], [0, 0, 1, 2])
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy()[0, 0], [2, 1, 1])


def test_windows_of_many_elements() -> None:
    x = cf.arange(700.0).reshape(1, 700).requires_grad_()
    out, index = F.max_pool1d(x, 600, 50, return_indices=True)
    np.testing.assert_array_equal(index.numpy(), [[599, 649, 699]])
    out.sum().backward()
    assert np.flatnonzero(x.grad.numpy()[0]).tolist() == [599, 649, 699]


def test_lp_gradient_of_zeros_is_zero() -> None:
    x = cf.zeros(1, 4).requires_grad_()
    F.lp_pool1d(x, 2, 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 0)


def test_means_do_not_touch_the_gradient() -> None:
    """Backward divides in place, and the array it is given may be shared."""
    x = cf.ones(1, 2, 4, 4).requires_grad_()
    g = cf.ones(1, 2, 2, 2)
    F.avg_pool2d(x, 2).backward(g)
    F.adaptive_avg_pool2d(x, (2, 4)).backward(cf.ones(1, 2, 2, 4))
    np.testing.assert_array_equal(g.numpy(), 1)
    np.testing.assert_array_equal(x.grad.numpy(), 0.75)
