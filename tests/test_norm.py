"""Normalisation layers beyond the table: running statistics, parameters, precision far from zero."""

from __future__ import annotations

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn


def test_running_statistics_follow_the_momentum() -> None:
    layer = nn.BatchNorm1d(2, momentum=0.25)
    x = cf.tensor([[1.0, 0.0], [3.0, 8.0]])
    layer(x)
    np.testing.assert_allclose(layer.running_mean.array, [0.5, 1.0])
    np.testing.assert_allclose(layer.running_var.array, [0.75 + 0.25 * 2, 0.75 + 0.25 * 32])  # unbiased
    assert layer.num_batches_tracked.item() == 1 and layer.num_batches_tracked.dtype == cf.int64


def test_momentum_none_is_the_mean_over_all_batches() -> None:
    layer = nn.BatchNorm2d(3, momentum=None)
    batches = [cf.Tensor(np.random.default_rng(i).normal(i, 1, (4, 3, 5, 5))) for i in range(5)]
    layer.double()
    for x in batches:
        layer(x)
    means = [x.array.mean(axis=(0, 2, 3)) for x in batches]
    np.testing.assert_allclose(layer.running_mean.array, np.mean(means, axis=0))


def test_evaluation_uses_running_statistics_and_leaves_them() -> None:
    layer = nn.BatchNorm1d(2).eval()
    x = cf.tensor([[1.0, 2.0]])
    np.testing.assert_allclose(layer(x).array, x.array / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert layer.num_batches_tracked.item() == 0 and not layer.running_mean.array.any()


def test_without_tracking_evaluation_uses_the_batch() -> None:
    layer = nn.BatchNorm1d(1, track_running_stats=False).eval()
    assert list(layer.state_dict()) == ["weight", "bias"]
    np.testing.assert_allclose(layer(cf.tensor([[1.0], [3.0]])).array, [[-1], [1]], atol=1e-4)


def test_reset_running_stats() -> None:
    layer = nn.InstanceNorm1d(2, track_running_stats=True)
    layer(cf.tensor([[[1.0, 3.0], [5.0, 9.0]]]))
    assert layer.running_mean.array.any()
    layer.reset_running_stats()
    np.testing.assert_array_equal(layer.running_mean.array, 0)
    np.testing.assert_array_equal(layer.running_var.array, 1)


@pytest.mark.parametrize(
    "layer, keys",
    [
        (nn.BatchNorm3d(2), ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]),
        (nn.BatchNorm1d(2, affine=False), ["running_mean", "running_var", "num_batches_tracked"]),
        (nn.BatchNorm1d(2, bias=False, track_running_stats=False), ["weight"]),
        (nn.InstanceNorm2d(2), []),
        (nn.InstanceNorm3d(2, affine=True), ["weight", "bias"]),
        (nn.LayerNorm((2, 3)), ["weight", "bias"]),
        (nn.LayerNorm(2, bias=False), ["weight"]),
        (nn.LayerNorm(2, elementwise_affine=False), []),
        (nn.RMSNorm(2), ["weight"]),
        (nn.GroupNorm(2, 4), ["weight", "bias"]),
        (nn.GroupNorm(2, 4, bias=False), ["weight"]),
        (nn.LocalResponseNorm(2), []),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None,
)
def test_state_dict_keys(layer: nn.Module, keys: list[str]) -> None:
    assert list(layer.state_dict()) == keys


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: nn.BatchNorm1d(2)(cf.ones(2)), ValueError, r"BatchNorm1d: .* 2D or 3D, got 1D of shape \(2,\)"),
        (lambda: nn.BatchNorm2d(2)(cf.ones(2, 2)), ValueError, "BatchNorm2d: input must be 4D, got 2D"),
        (lambda: nn.BatchNorm1d(2)(cf.ones(3, 4)), RuntimeError, r"must have 2 channels, got shape \(3, 4\)"),
        (lambda: nn.InstanceNorm1d(2, affine=True)(cf.ones(3, 4, 5)), ValueError, "must have 2 channels"),
        (lambda: nn.InstanceNorm3d(2)(cf.ones(2, 2)), ValueError, "InstanceNorm3d: input must be 4D or 5D, got 2D"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "GroupNorm: num_groups must divide num_channels 4, got 3"),
    ],
)  # fmt: skip
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


def test_instance_norm_warns_of_channels_that_play_no_role() -> None:
    with pytest.warns(UserWarning, match="must have 2 channels"):
        nn.InstanceNorm1d(2)(cf.ones(1, 3, 4))


def test_dtype_and_repr() -> None:
    layer = nn.LayerNorm(3, dtype=cf.float64)
    assert layer.weight.dtype == cf.float64
    assert repr(layer) == "LayerNorm((3,), eps=1e-05, elementwise_affine=True)"
    assert repr(nn.RMSNorm(3)) == "RMSNorm((3,), eps=None, elementwise_affine=True)"
    assert repr(nn.GroupNorm(1, 2)) == "GroupNorm(1, 2, eps=1e-05, affine=True)"
    assert repr(nn.LocalResponseNorm(2)) == "LocalResponseNorm(2, alpha=0.0001, beta=0.75, k=1.0)"
    assert repr(nn.BatchNorm1d(2, bias=False)).endswith("affine=True, bias=False, track_running_stats=True)")
    assert repr(nn.InstanceNorm1d(2)).startswith("InstanceNorm1d(2, eps=1e-05, momentum=0.1, affine=False, bias=False")


@pytest.mark.parametrize("function", [
    lambda x: F.layer_norm(x, (x.shape[-1],)),
    lambda x: F.group_norm(x, 2),
    lambda x: F.batch_norm(x, None, None, training=True),
    lambda x: F.instance_norm(x),
])  # fmt: skip
def test_a_large_mean_does_not_cancel_the_variance(function) -> None:
    noise = np.random.default_rng(0).standard_normal((4, 6, 500))
    far = np.float32(noise + 3000)
    exact = function(cf.Tensor(far.astype(np.float64))).array
    np.testing.assert_allclose(function(cf.Tensor(far)).array, exact, atol=2e-3)


def test_many_blocks_of_rows_equal_one() -> None:
    x = np.random.default_rng(1).standard_normal((5000, 96))
    whole = cf.Tensor(x).requires_grad_()
    w, b = (cf.Tensor(np.random.default_rng(i).standard_normal(96)).requires_grad_() for i in (2, 3))
    out = F.layer_norm(whole, 96, w, b)
    (out * out).sum().backward()
    d = x - x.mean(1, keepdims=True)
    h = d / np.sqrt((d * d).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(out.array, h * w.array + b.array)
    g = 2 * out.array
    np.testing.assert_allclose(w.grad.array, (g * h).sum(0))
    np.testing.assert_allclose(b.grad.array, g.sum(0))


def test_float32_parameters_of_half_precision_input() -> None:
    x = cf.Tensor(np.random.default_rng(0).standard_normal((4, 8)).astype(cf.bfloat16)).requires_grad_()
    layer = nn.LayerNorm(8)
    out = layer(x)
    assert out.dtype == cf.bfloat16
    out.sum().backward()
    assert x.grad.dtype == cf.bfloat16 and layer.weight.grad.dtype == cf.float32


# -- SyncBatchNorm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (4, 3, 2, 2), (2, 3, 2, 2, 2), (2, 3, 1, 2, 2, 2)])
def test_sync_batch_norm_of_one_process_is_batch_norm(shape):
    x = cf.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
    layer, plain = nn.SyncBatchNorm(3, dtype="float64"), nn.BatchNorm1d(3, dtype="float64")
    assert list(layer.state_dict()) == list(plain.state_dict()) and layer.process_group is None
    y = layer(x)
    flat = x.detach().transpose(0, 1).reshape(3, -1).t()
    np.testing.assert_allclose(y.detach().transpose(0, 1).reshape(3, -1).t().array, plain(flat).detach().array)
    np.testing.assert_allclose(layer.running_var.array, plain.running_var.array)
    assert cf.autograd.gradcheck(layer, (x,), fast_mode=True)


def test_convert_sync_batchnorm_keeps_tensors_and_modes():
    net = nn.Sequential(
        nn.Linear(2, 3), nn.BatchNorm1d(3, momentum=None), nn.ModuleDict({"n": nn.BatchNorm2d(2, affine=False)}),
        nn.InstanceNorm1d(3, affine=True), nn.BatchNorm3d(2, track_running_stats=False, bias=False).eval(),
    )  # fmt: skip
    shared = nn.BatchNorm1d(2)
    net.add_module("a", shared)
    net.add_module("b", shared)
    state, parameters, text = net.state_dict(), dict(net.named_parameters()), repr(net)
    assert nn.SyncBatchNorm.convert_sync_batchnorm(net) is net
    assert repr(net) == text.replace("BatchNorm1d", "SyncBatchNorm").replace("BatchNorm2d", "SyncBatchNorm").replace(
        "BatchNorm3d", "SyncBatchNorm"
    )
    assert all(parameters[name] is p for name, p in net.named_parameters())
    assert list(net.state_dict()) == list(state) and all(v.array is state[k].array for k, v in net.state_dict().items())
    assert net[1].training and not net[4].training and net[4].bias is None and net[1].momentum is None
    assert net.a.weight is net.b.weight
    single = nn.BatchNorm1d(2)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(single)
    assert type(converted) is nn.SyncBatchNorm and converted.weight is single.weight


def test_sync_batch_norm_errors():
    with pytest.raises(TypeError, match="SyncBatchNorm: process_group must be a ProcessGroup or None, got str"):
        nn.SyncBatchNorm(2, process_group="world")
    with pytest.raises(ValueError, match=r"SyncBatchNorm: input must have at least 2 dimensions, got 1D"):
        nn.SyncBatchNorm(2)(cf.ones(2))
