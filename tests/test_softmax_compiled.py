"""The compiled softmax and log-softmax: against NumPy in float64, special rows, layouts, threads, and its users."""

from __future__ import annotations

import importlib.util

import ml_dtypes
import numpy as np
import pytest
import scipy.special

import cuframe as cf
from cuframe.cpu import jit, pool, softmax

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

TYPES = ("float32", "float64")
# whole vectors, less than one, all kinds of ends; along rows and along columns
SHAPES = [((5, 128), 1), ((3, 1), 1), ((40, 7), 1), ((2, 3, 203), 2), ((6, 33), 0), ((2, 5, 3, 7), 1), ((4, 3, 1), 1)]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUFRAME_CPU_JIT says, and for small arrays, too."""
    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(softmax, "_LEAST", 1)


def numbers(shape: tuple, dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(4 * rng.standard_normal(shape)).astype(getattr(ml_dtypes, dtype, dtype)) for _ in range(2)]


def reference(x: np.ndarray, g: np.ndarray, axis: int, log: bool) -> tuple[np.ndarray, np.ndarray]:
    x, g = x.astype(np.float64), g.astype(np.float64)
    y = scipy.special.softmax(x, axis)
    if log:
        return scipy.special.log_softmax(x, axis), g - y * g.sum(axis, keepdims=True)
    return y, y * (g - (g * y).sum(axis, keepdims=True))


@pytest.mark.parametrize("dtype", (*TYPES, "float16", "bfloat16"))
@pytest.mark.parametrize("log", (False, True))
def test_values_and_gradients(log: bool, dtype: str) -> None:
    tolerance = {"float32": 2e-6, "float64": 1e-14, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    for shape, axis in SHAPES:
        x, g = numbers(shape, dtype)
        y = softmax.forward(x, axis, log)
        results = y, softmax.backward(g, y, axis, log)
        for a, b in zip(results, reference(x, g, axis, log), strict=True):
            assert a.dtype == x.dtype and a.shape == shape
            np.testing.assert_allclose(a.astype(np.float64), b, rtol=tolerance, atol=20 * tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", (0, 1))
def test_special_rows(axis: int, dtype: str) -> None:
    inf, nan = np.inf, np.nan
    rows = np.array([[1e30, 0, -1e30], [-inf, 0, 0], [-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1], [0, 1, nan]], dtype)
    rows = np.tile(rows, (4, 1))
    x = rows if axis else np.ascontiguousarray(rows.T)
    with np.errstate(all="ignore"):
        y = x - x.max(axis, keepdims=True)
        e = np.exp(y)
        s = e.sum(axis, keepdims=True)
        np.testing.assert_allclose(softmax.forward(x, axis, log=False), e / s, rtol=1e-6)
        np.testing.assert_allclose(softmax.forward(x, axis, log=True), y - np.log(s), rtol=1e-6)


@pytest.mark.parametrize("shape, axis", [((300, 37), 1), ((9, 5, 90), 1)])
def test_threads_change_no_bit(shape: tuple, axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = numbers(shape, "float32")

    def results() -> bytes:
        y = softmax.forward(x, axis, log=True)
        return y.tobytes() + softmax.backward(g, y, axis, log=True).tobytes()

    one = results()
    monkeypatch.setattr(pool, "_THREAD", 1)
    monkeypatch.setattr(pool, "_CHUNK", 500)
    monkeypatch.setattr(jit, "cpus", lambda: 3)
    assert results() == one


def test_any_layout_and_nothing_at_all() -> None:
    x, g = numbers((8, 12, 20), "float64")
    y = softmax.forward(x, 1, log=False)
    expected = softmax.backward(g, y, 1, log=False)
    turned = [np.asfortranarray(a).transpose(2, 1, 0) for a in (g, y)]
    np.testing.assert_allclose(softmax.backward(*turned, 1, log=False), expected.transpose(2, 1, 0), rtol=1e-14)
    np.testing.assert_array_equal(softmax.backward(g[::2], y[::2], 1, log=False), expected[::2])
    for shape in ((0, 3), (3, 0), (2, 0, 4)):
        assert softmax.forward(np.empty(shape), 1, log=True).shape == shape


@pytest.mark.parametrize("name", ("softmax", "log_softmax"))
def test_operations_use_it_and_agree_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = numbers((30, 200), "float32")
    calls = []
    run = softmax._run
    monkeypatch.setattr(softmax, "_run", lambda *args: (calls.append(1), run(*args))[1])

    def both() -> tuple[np.ndarray, np.ndarray]:
        t = cf.Tensor(x).requires_grad_()
        out = getattr(cf, name)(t, -1)
        out.backward(cf.Tensor(g))
        return out.array, t.grad.array

    mine = both()
    assert len(calls) == 2
    monkeypatch.setattr(jit, "available", lambda: False)
    for a, b in zip(mine, both(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert len(calls) == 2
