"""Compiled attention against NumPy in float64: every mask, sizes that end within a tile, threads and layouts."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.cpu import attention, attention_compiled, jit

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

# L, S, E, D: less than a tile, whole tiles, several blocks of rows and of keys
SIZES = [(1, 1, 1, 1), (9, 5, 3, 2), (64, 64, 32, 32), (70, 600, 20, 70), (530, 300, 17, 64)]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUFRAME_CPU_JIT says, and for few scores, too."""
    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(attention_compiled, "_LEAST", 1)
    monkeypatch.setattr(attention_compiled, "_THREAD", 1)


def operands(length: int, keys: int, size: int, width: int, scale: float = 1.0) -> list[np.ndarray]:
    """q, k, v and g."""
    rng = np.random.default_rng(0)
    shapes = ((2, 3, length, size), (2, 3, keys, size), (2, 3, keys, width), (2, 3, length, width))
    return [rng.standard_normal(s, dtype=np.float32) * np.float32(scale) for s in shapes]


def some_mask(kind: str, length: int, keys: int) -> np.ndarray | None:
    rng = np.random.default_rng(1)
    if kind == "padding":
        return np.arange(keys) < np.array([keys, keys // 2])[:, None, None, None]
    if kind == "bool":
        return rng.random((1, 3, length, keys)) < 0.7
    if kind == "numbers":
        return np.where(rng.random((2, 1, 1, keys)) < 0.2, -np.inf, rng.standard_normal((2, 1, length, keys))).astype(
            "f"
        )
    return None


def passes(dtype: type, arrays: list[np.ndarray], mask: np.ndarray | None, causal: bool, drop: float | None) -> list:
    """out, lse and the gradients of q, k, v, computed in a dtype."""
    q, k, v, g = (a.astype(dtype, copy=False) for a in arrays)
    if mask is not None and mask.dtype != bool:
        mask = mask.astype(dtype, copy=False)
    options = (mask, causal, 0.3, None if drop is None else attention.Dropout(3, 5, drop))
    out, lse = attention.forward(q, k, v, *options)
    return [out, lse, *attention.backward(g, q, k, v, *options, out, lse, False)[:3]]


def check(results: list, expected: list, rtol: float = 2e-5) -> None:
    for a, e in zip(results, expected, strict=True):
        assert a.dtype == np.float32 and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * max(1, np.abs(e[e < 1e29]).max(initial=0)))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["plain", "causal", "padding", "bool", "numbers", "dropout", "causal dropout"])
def test_equals_float64(kind: str, sizes: tuple) -> None:
    arrays, causal, drop = operands(*sizes), "causal" in kind, 0.3 if "dropout" in kind else None
    mask = some_mask(kind, *sizes[:2])
    check(passes(np.float32, arrays, mask, causal, drop), passes(np.float64, arrays, mask, causal, drop))


def test_scores_beyond_the_range_of_exp() -> None:
    arrays = operands(40, 300, 8, 8, scale=12.0)
    results = passes(np.float32, arrays, None, False, None)
    assert np.abs(results[1]).max() > 89
    check(results, passes(np.float64, arrays, None, False, None), 2e-3)


def test_rows_that_see_nothing_give_zeros() -> None:
    arrays = operands(20, 30, 8, 8)
    mask = np.ones((20, 30), bool)
    mask[3] = False
    for m in (mask, np.where(mask, 0, -np.inf).astype(np.float32)):
        out, lse, gq, gk, _ = passes(np.float32, arrays, m, False, None)
        assert not out[:, :, 3].any() and not gq[:, :, 3].any() and out[:, :, 4].all()
        assert np.isfinite(gk).all() and (lse[:, :, 3] > 1e29).all()


def test_nan_is_not_hidden() -> None:
    q, k, v, _ = operands(20, 40, 8, 8)
    q[0, 1, 5, 2] = np.nan
    out, _ = attention.forward(q, k, v, None, False, 1.0, None)
    assert np.isnan(out[0, 1, 5]).all() and np.isfinite(out[0, 1, 6]).all()


def test_threads_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, results = operands(300, 300, 16, 16), []
    for threads in (1, 2, 3):
        monkeypatch.setattr(jit, "cpus", lambda threads=threads: threads)
        results.append(passes(np.float32, arrays, None, True, 0.1))
    for other in results[1:]:
        for a, e in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(a, e)


def test_layout_does_not_change_the_result() -> None:
    arrays = operands(40, 50, 8, 6)
    expected = passes(np.float32, arrays, None, False, None)
    for order in ((2, 0, 1, 3), (3, 0, 1, 2)):  # heads beside each other, and columns apart
        back = tuple(np.argsort(order))
        moved = [np.ascontiguousarray(a.transpose(order)).transpose(back) for a in arrays]
        for a, e in zip(passes(np.float32, moved, None, False, None), expected, strict=True):
            np.testing.assert_array_equal(a, e)
    halves = [np.ascontiguousarray(a[:, ::2]) for a in arrays]
    for a, e in zip(passes(np.float32, [a[:, ::2] for a in arrays], None, False, None),
                    passes(np.float32, halves, None, False, None), strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, e)


def test_fewer_heads_of_keys() -> None:
    q, k, v, g = operands(40, 50, 8, 6)
    few = [k[:, :1], v[:, :1]]
    whole = [np.repeat(a, 3, 1) for a in few]
    results = passes(np.float32, [q, *few, g], None, False, None)
    expected = passes(np.float64, [q, *whole, g], None, False, None)
    expected[3:] = [a.sum(1, keepdims=True) for a in expected[3:]]
    check(results, expected)


def test_second_derivatives() -> None:
    q, k, v = (cf.Tensor(a[:1, :1]).requires_grad_() for a in operands(12, 20, 4, 4)[:3])
    (g,) = cf.autograd.grad(F.scaled_dot_product_attention(q, k, v).square().sum(), q, create_graph=True)
    (second,) = cf.autograd.grad(g.square().sum(), k)
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    (g,) = cf.autograd.grad(F.scaled_dot_product_attention(*wide).square().sum(), wide[0], create_graph=True)
    (expected,) = cf.autograd.grad(g.square().sum(), wide[1])
    np.testing.assert_allclose(second.array, expected.array, 1e-3, 1e-4)
