"""Flatten and Unflatten, and the activations that write into their input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn import functional as F


def test_flatten() -> None:
    x = cf.arange(48.0).reshape(2, 3, 4, 2)
    for settings, shape in (((), (2, 24)), ((0,), (48,)), ((2,), (2, 3, 8)), ((1, 2), (2, 12, 2)), ((-2,), (2, 3, 8))):
        y = nn.Flatten(*settings)(x)
        assert y.shape == shape and y.numpy().reshape(-1).tolist() == x.numpy().reshape(-1).tolist()
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
    with pytest.raises(IndexError, match="flatten: start_dim"):
        nn.Flatten()(cf.ones(3))


def test_unflatten() -> None:
    x = cf.randn(2, 12, requires_grad=True)
    for sizes, shape in (((3, 4), (2, 3, 4)), ([2, -1, 3], (2, 2, 2, 3)), ((12,), (2, 12))):
        assert nn.Unflatten(1, sizes)(x).shape == shape
        assert cf.equal(nn.Sequential(nn.Unflatten(-1, sizes), nn.Flatten())(x), x)
    assert repr(nn.Unflatten(1, (3, 4))) == "Unflatten(dim=1, unflattened_size=(3, 4))"
    assert cf.autograd.gradcheck(nn.Unflatten(1, (3, 4)), (cf.randn(2, 12, dtype="float64", requires_grad=True),))
    with pytest.raises(RuntimeError, match=r"unflatten: sizes \(5, 2\) do not multiply to 12"):
        nn.Unflatten(1, (5, 2))(x)
    with pytest.raises(TypeError, match="Unflatten: unflattened_size must be a tuple of ints, got 12"):
        nn.Unflatten(1, 12)
    with pytest.raises(TypeError, match="Unflatten: dim must be an int, got str"):
        nn.Unflatten("features", (3, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("relu_", ()), ("leaky_relu_", (0.2,)), ("rrelu_", (0.1, 0.3)), ("threshold_", (0.5, 2.0)),
        ("hardtanh_", (-0.5, 0.5)), ("elu_", (1.5,)), ("celu_", (0.5,)), ("selu_", ()),
    ],
)  # fmt: skip
def test_in_place(name: str, args: tuple[Any, ...]) -> None:
    """The values and gradients of the function, in the input's memory."""
    function, plain = getattr(F, name), getattr(F, name[:-1])
    x = cf.tensor(np.linspace(-2, 2, 9), requires_grad=True)
    work = x.clone()
    memory = work.array
    result = function(work, *args)
    assert result is work and np.shares_memory(work.array, memory)
    expected = plain(x, *args)
    assert np.array_equal(result.detach().numpy(), expected.detach().numpy())
    (ours,) = cf.autograd.grad((result * result).sum(), x)
    (theirs,) = cf.autograd.grad((expected * expected).sum(), x)
    assert np.array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(RuntimeError, match="in.?place"):
        function(x, *args)  # a leaf that requires a gradient


@pytest.mark.parametrize(
    "kind",
    [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU, nn.Mish, nn.Hardtanh, nn.Hardsigmoid,
     nn.Hardswish],
)  # fmt: skip
def test_layers_in_place_have_gradients(kind: type) -> None:
    """What backward needs of the input is kept before the input is written over."""
    x = cf.tensor(np.linspace(-4, 4, 12), requires_grad=True)
    work = x * 1.5
    assert kind(inplace=True)(work) is work
    (ours,) = cf.autograd.grad((work * work).sum(), x)
    plain = kind()(x * 1.5)
    (theirs,) = cf.autograd.grad((plain * plain).sum(), x)
    assert np.array_equal(ours.numpy(), theirs.numpy())
    assert cf.autograd.gradgradcheck(lambda t: kind(inplace=True)(t * 1.5), (x.detach()[1:4].requires_grad_(),))
