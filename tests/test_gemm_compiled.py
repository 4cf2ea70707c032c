"""Compiled products of matrices: exact sums of integers in every layout and size, threads, and who uses them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import cuframe as cf
from cuframe.cpu import blas, gemm, jit

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

# whole tiles and all kinds of ends; one part of the depth and several; so few rows that tiles are turned
SIZES = [
    (24, 256, 32), (16, 1, 16), (97, 70, 45), (30, 601, 530), (130, 300, 17), (33, 129, 77), (64, 512, 90), (12, 9, 40),
]  # fmt: skip


@pytest.fixture(autouse=True, params=[16, 8])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUFRAME_CPU_JIT says, for small matrices, too, and with vectors of either length."""
    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(jit, "lanes", lambda: request.param)
    monkeypatch.setattr(gemm, "_LANES", request.param)
    monkeypatch.setattr(gemm, "_LEAST", 1)
    monkeypatch.setattr(gemm, "_DEEP", 1)


def integers(*shape: int) -> np.ndarray:
    """Whose products and sums are exact in any order."""
    return np.random.default_rng(sum(shape)).integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("a_rows", (True, False))
@pytest.mark.parametrize("b_rows", (True, False))
def test_every_layout_and_size(a_rows: bool, b_rows: bool) -> None:
    for m, k, n in SIZES:
        a, b, row = integers(m, k), integers(k, n), integers(n)
        expected = a @ b
        a, b = a if a_rows else np.asfortranarray(a), b if b_rows else np.asfortranarray(b)
        for start in (None, row):
            wide = np.full((m, n + 3), np.nan, np.float32)
            gemm.product(a, b, start, wide[:, :n], 1)
            np.testing.assert_array_equal(wide[:, :n], expected if start is None else expected + row)
            assert np.isnan(wide[:, n:]).all()


def test_parts_of_larger_matrices() -> None:
    a, b = integers(90, 400)[5:80, 3:300], integers(200, 400)[::2, 3:300].T
    assert gemm.applies(a, b, None)
    np.testing.assert_array_equal(blas.product(a, b), a @ b)
    reversed_ = a[::-1]
    np.testing.assert_array_equal(blas.product(reversed_, b), reversed_ @ b)
    same = np.broadcast_to(a[:1], a.shape)
    np.testing.assert_array_equal(blas.product(same, b), same @ b)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for m, k, n in ((200, 300, 90), (40, 300, 200), (70, 513, 400)):
        a, b = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((n, k), dtype=np.float32).T
        results = []
        for threads in (1, 3):
            monkeypatch.setattr(gemm, "_THREAD", 1)
            out = np.empty((m, n), np.float32)
            gemm.product(a, b, None, out, threads)
            results.append(out)
        assert results[0].tobytes() == results[1].tobytes()
        np.testing.assert_allclose(results[0], a.astype(np.float64) @ b, atol=1e-4)


def test_nan_and_infinity_stay_in_their_rows() -> None:
    a, b = integers(40, 50), np.asfortranarray(integers(50, 33))
    a[7, 3], a[20, 49] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(blas.product(a, b), a @ b)


def test_what_it_leaves_to_blas() -> None:
    a, b = integers(40, 50), integers(50, 40)
    turned = np.asfortranarray(b)
    assert gemm.applies(a, turned, None) and gemm.applies(np.asfortranarray(a), b, None) and gemm.applies(a, b, None)
    assert not gemm.applies(a.astype(np.float64), turned.astype(np.float64), None)
    assert not gemm.applies(a[:, ::2], turned[::2], None)
    assert not gemm.applies(a, turned, np.empty((40, 40), np.float32).T)
    assert not gemm.applies(a, np.asfortranarray(integers(51, 40)), None)
    with pytest.raises(ValueError, match="mismatch"):
        blas.product(a, np.asfortranarray(integers(51, 40)))


def test_a_layer_uses_it_and_agrees_without(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, b, g = integers(3, 40, 130), integers(150, 130), integers(150), integers(3, 40, 150)
    calls = []
    product = gemm.product
    monkeypatch.setattr(gemm, "product", lambda *args: (calls.append(args[2] is None), product(*args))[1])

    def passes() -> list[np.ndarray]:
        tensors = [cf.Tensor(a).requires_grad_() for a in (x, w, b)]
        out = cf.nn.functional.linear(*tensors)
        out.backward(cf.Tensor(g))
        return [out.array, *(t.grad.array for t in tensors)]

    mine = passes()
    assert calls == [False, True, True]  # the bias goes with the product
    monkeypatch.setattr(jit, "available", lambda: False)
    for one, other in zip(mine, passes(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(calls) == 3
