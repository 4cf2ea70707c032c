"""The modules of padding."""

from __future__ import annotations

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn import functional as F

KINDS = {
    nn.ReflectionPad1d: (1, "reflect"), nn.ReflectionPad2d: (2, "reflect"), nn.ReflectionPad3d: (3, "reflect"),
    nn.ReplicationPad1d: (1, "replicate"), nn.ReplicationPad2d: (2, "replicate"), nn.ReplicationPad3d: (3, "replicate"),
    nn.CircularPad1d: (1, "circular"), nn.CircularPad2d: (2, "circular"), nn.CircularPad3d: (3, "circular"),
    nn.ZeroPad1d: (1, "constant"), nn.ZeroPad2d: (2, "constant"), nn.ZeroPad3d: (3, "constant"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_module_is_function(kind: type) -> None:
    dims, mode = KINDS[kind]
    padding = (2, 1, 0, 1, 1, 2)[: 2 * dims]
    x = cf.randn(2, 2, *(3,) * dims)
    module = kind(padding)
    assert repr(module) == f"{kind.__name__}({padding})"
    np.testing.assert_array_equal(module(x).numpy(), F.pad(x, padding, mode).numpy())
    np.testing.assert_array_equal(kind(1)(x[0]).numpy(), F.pad(x, (1,) * 2 * dims, mode).numpy()[0])
    assert not module.state_dict()


@pytest.mark.parametrize("kind", [nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d], ids=lambda k: k.__name__)
def test_constant(kind: type) -> None:
    dims = int(kind.__name__[-2])
    module = kind(1, 2.5)
    assert repr(module) == f"{kind.__name__}(padding={(1,) * 2 * dims}, value=2.5)"
    out = module(cf.zeros(1, 1, *(1,) * dims)).numpy()
    assert out.shape == (1, 1, *(3,) * dims)
    assert (out == 2.5).sum() == 3**dims - 1


@pytest.mark.parametrize("kind", [nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d], ids=lambda k: k.__name__)
def test_circular_takes_images_only(kind: type) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}: input must be .*got shape \(3,\)"):
        kind(1)(cf.zeros(3))


def test_zero_pads_are_constant_pads() -> None:
    for dims in (1, 2, 3):
        module = getattr(nn, f"ZeroPad{dims}d")(1)
        assert isinstance(module, getattr(nn, f"ConstantPad{dims}d")) and module.value == 0


def test_length_of_padding() -> None:
    with pytest.raises(ValueError, match="ReflectionPad2d: padding must be an int or 4 ints"):
        nn.ReflectionPad2d((1, 2))


def test_result_is_a_copy() -> None:
    x = cf.zeros(1, 3)
    for mode in ("constant", "reflect", "replicate", "circular"):
        y = F.pad(x, (0, 0), mode)
        y += 1
        assert not x.numpy().any()
