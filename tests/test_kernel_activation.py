"""`kernels/elementwise.cu` against the same functions on the CPU in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.gpu import activation as fused
from tests.kernels import FLOATS, MANY_ROWS, SIZES, Array, assert_near, fetch, numbers, put

# the kernel's name, its settings, the public function with the same settings
FUNCTIONS: dict[str, tuple[str, tuple[float, ...], Callable[..., Any]]] = {
    "gelu": ("gelu", (), F.gelu),
    "gelu_tanh": ("gelu_tanh", (), lambda x: F.gelu(x, approximate="tanh")),
    "silu": ("silu", (), F.silu),
    "mish": ("mish", (), F.mish),
    "softplus": ("softplus", (1.5, 2.0), lambda x: F.softplus(x, 1.5, 2.0)),
    "elu": ("elu", (0.7, 1, 1), lambda x: F.elu(x, 0.7)),
    "celu": ("elu", (1.3, 1, 1 / 1.3), lambda x: F.celu(x, 1.3)),
    "selu": ("elu", (1.6732632423543772, 1.0507009873554805, 1), F.selu),
    "hardswish": ("hardswish", (), F.hardswish),
    "logsigmoid": ("logsigmoid", (), F.logsigmoid),
}


def on_cpu(function: Callable[..., Any], x: Array, g: Array) -> tuple[Array, Array]:
    """Value and gradient in float64."""
    t = cf.tensor(x.astype(np.float64), requires_grad=True)
    y = function(t)
    (gx,) = cf.autograd.grad(y, t, cf.tensor(g.astype(np.float64)))
    return y.detach().numpy(), gx.numpy()


def check(case: str, x: Array, device: str) -> None:
    name, settings, function = FUNCTIONS[case]
    dtype = x.dtype.name
    g = numbers(*x.shape, dtype=dtype, seed=1)
    y, gx = on_cpu(function, x, g)
    ours = fused.forward(name, put(x, device), *settings)
    assert ours.dtype == x.dtype
    # cancellation near the zeros of GELU's parts costs a few roundings
    assert_near(ours, y, dtype, 2, what=f"{case} forward")
    assert_near(fused.backward(name, put(g, device), put(x, device), *settings), gx, dtype, 4, what=f"{case} backward")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions(case: str, dtype: str, device: str) -> None:
    for size in SIZES:
        check(case, numbers(size, dtype=dtype, low=-8, high=8), device)


def test_many_blocks(device: str) -> None:
    check("silu", numbers(4 * MANY_ROWS), device)


@pytest.mark.parametrize("case", FUNCTIONS)
def test_extremes(case: str, device: str) -> None:
    name, settings, function = FUNCTIONS[case]
    x = np.array([100, -100, 1e4, -1e4, 0, -0.0, 19, 21, 1e-30, np.nan], np.float32)
    y, gx = on_cpu(function, x, np.ones_like(x))
    np.testing.assert_allclose(fetch(fused.forward(name, put(x, device), *settings)), y, rtol=1e-6, atol=1e-7)
    ones = put(np.ones_like(x), device)
    np.testing.assert_allclose(fetch(fused.backward(name, ones, put(x, device), *settings)), gx, rtol=1e-6, atol=1e-6)


def test_strided_unaligned_and_empty(device: str) -> None:
    x = numbers(6, 9)
    for part in (lambda a: a.T, lambda a: a[:, ::2], lambda a: a.reshape(-1)[1:]):
        y, gx = on_cpu(F.silu, part(x), np.ones_like(part(x)))
        here = part(put(x, device))
        assert_near(fused.forward("silu", here), y, "float32")
        one = np.broadcast_to(put(np.ones((), np.float32), device), here.shape)
        assert_near(fused.backward("silu", one, here), gx, "float32")
    assert fused.forward("silu", put(x[:0], device)).shape == (0, 9)


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_use_the_kernels(case: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = FUNCTIONS[case][2]
    calls = []
    for name in ("forward", "backward"):
        true = getattr(fused, name)
        monkeypatch.setattr(fused, name, lambda *a, true=true, name=name: (calls.append((name, *a[:1])), true(*a))[1])
    x = cf.tensor(numbers(7, dtype="float64"), device=device, requires_grad=True)
    function(x).sum().backward()
    assert calls == [("forward", FUNCTIONS[case][0]), ("backward", FUNCTIONS[case][0])]
    assert cf.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), [((6,), 0), ((4, 33), 0), ((3, 66), 1), ((2, 4, 5), 1), ((513, 2), 1)])
def test_glu(shape: tuple[int, ...], axis: int, dtype: str, device: str) -> None:
    x = numbers(*shape, dtype=dtype)
    half = (*shape[:axis], shape[axis] // 2, *shape[axis + 1:])
    g = numbers(*half, dtype=dtype, seed=1)
    y, gx = on_cpu(lambda t: F.glu(t, axis), x, g)
    t = cf.tensor(x, device=device, requires_grad=True)
    ours = F.glu(t, axis)
    (grad,) = cf.autograd.grad(ours, t, cf.tensor(g, device=device))
    assert_near(ours.detach().array, y, dtype, what="forward")
    assert_near(grad.array, gx, dtype, what="backward")


def test_glu_of_nothing_and_twice(device: str) -> None:
    assert F.glu(cf.zeros(0, 4, device=device)).shape == (0, 2)
    assert F.glu(cf.zeros(3, 0, device=device)).shape == (3, 0)
    x = cf.tensor(numbers(3, 4, dtype="float64"), device=device, requires_grad=True)
    assert cf.autograd.gradgradcheck(F.glu, (x,))


@pytest.mark.parametrize("order", ["reverse", "random:3"])
def test_any_order_of_threads(order: str, device: str) -> None:
    if device != "sim":
        pytest.skip("the order of threads is the simulator's to choose")
    from cuframe.cuda import sim

    expected = fetch(fused.forward("gelu", put(numbers(1025), device)))
    with sim.order(order):
        np.testing.assert_array_equal(fetch(fused.forward("gelu", put(numbers(1025), device))), expected)
