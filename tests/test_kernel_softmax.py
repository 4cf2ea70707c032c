"""`kernels/softmax.cu` against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

import cuframe as cf
from cuframe.gpu import softmax
from tests.kernels import FLOATS, MANY_ROWS, SIZES, Array, assert_near, fetch, numbers, put


def reference(x: Array, axis: int, log: bool) -> Array:
    x = x.astype(np.float64)
    d = x - x.max(axis=axis, keepdims=True)
    s = np.exp(d).sum(axis=axis, keepdims=True)
    return d - np.log(s) if log else np.exp(d) / s


def gradient(g: Array, y: Array, axis: int, log: bool) -> Array:
    g, y = g.astype(np.float64), y.astype(np.float64)
    if log:
        return g - np.exp(y) * g.sum(axis=axis, keepdims=True)
    return y * (g - (g * y).sum(axis=axis, keepdims=True))


def check(shape: tuple[int, ...], axis: int, dtype: str, device: str) -> None:
    x, g = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    for log in (False, True):
        y = softmax.forward(put(x, device), axis, log)
        assert y.dtype == x.dtype
        assert_near(y, reference(x, axis, log), dtype, what=f"forward, log={log}")
        gx = softmax.backward(put(g, device), y, axis, log)
        assert_near(gx, gradient(g, fetch(y), axis, log), dtype, 2, what=f"backward, log={log}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_rows(size: int, dtype: str, device: str) -> None:
    check((3, size), 1, dtype, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 7, 33), (3, 1, 2), (1, 5, 257)])
def test_columns(shape: tuple[int, ...], dtype: str, device: str) -> None:
    check(shape, 1, dtype, device)


def test_many_rows(device: str) -> None:
    check((MANY_ROWS, 2), 1, "float32", device)


def test_extremes(device: str) -> None:
    inf = np.inf
    x = np.array([[1e30, 0, -1e30], [-inf, 0, -inf], [-inf, -inf, 1], [336, -336, 0], [-inf, -inf, -inf]], np.float32)
    y = fetch(softmax.forward(put(x, device), 1, False))
    np.testing.assert_allclose(y[:4], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert np.isnan(y[4]).all()
    bad = np.array([[1, np.nan, 2]], np.float32)
    assert np.isnan(fetch(softmax.forward(put(bad, device), 1, False))).all()


def test_strided_and_empty(device: str) -> None:
    x = put(numbers(4, 6), device)
    assert_near(softmax.forward(x[:, ::2], 1, False), reference(numbers(4, 6)[:, ::2], 1, False), "float32")
    assert softmax.forward(x[:0], 1, False).shape == (0, 6)
    assert softmax.forward(x[:, :0], 1, False).shape == (4, 0)


@pytest.mark.parametrize("function", [cf.softmax, cf.log_softmax])
def test_function_uses_the_kernel(function: object, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("forward", "backward"):
        true = getattr(softmax, name)
        monkeypatch.setattr(softmax, name, lambda *a, true=true, name=name, **k: (calls.append(name), true(*a, **k))[1])
    x = cf.tensor(numbers(3, 5), device=device, requires_grad=True)
    function(x, 1)[:, 0].sum().backward()  # type: ignore[operator]
    assert calls == ["forward", "backward"]
    assert cf.autograd.gradgradcheck(lambda t: function(t, 0), (x.detach().double().requires_grad_(),))  # type: ignore[operator]
