"""Matrix products on our own threads."""

import threading

import numpy as np
import pytest

from cuframe.cpu import blas, jit


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 4, 5), (100, 70, 90), (700, 200, 300), (65, 900, 900), (1, 4096, 4096)])
def test_product_equals_numpy(m, k, n, dtype, monkeypatch):
    monkeypatch.setattr(jit, "cpus", lambda: 3)  # an odd number of parts, whatever the machine has
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4, 5, (m, k)).astype(dtype), rng.integers(-4, 5, (k, n)).astype(dtype)
    expected = a @ b  # small integers: exact in any order of summation
    np.testing.assert_array_equal(blas.product(a, b), expected)
    np.testing.assert_array_equal(blas.product(np.asfortranarray(a), b.T.copy().T), expected)
    padded = np.full((m, n + 5), 7, dtype)
    assert blas.product(a, b, padded[:, :n]) is not None
    np.testing.assert_array_equal(padded[:, :n], expected)
    assert (padded[:, n:] == 7).all()


def test_number_of_blas_threads_is_put_back():
    control = blas._control()
    if control is None:
        pytest.skip("NumPy's BLAS here is not OpenBLAS")
    get, put = control.get, control.put
    before = get()
    try:
        put(2)
        a = np.ones((400, 400), np.float32)
        seen = []
        with blas._single(control) as allowed:
            seen.append((allowed, get()))
            with blas._single(control):
                seen.append(get())
            seen.append(get())
        assert seen == [(2, 1), 1, 1]
        workers = [threading.Thread(target=blas.product, args=(a, a)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert get() == 2
    finally:
        put(before)


def test_the_number_of_blas_threads_can_be_set():
    control = blas._control()
    if control is None:
        pytest.skip("NumPy's BLAS here is not OpenBLAS")
    before = control.get()
    try:
        blas.limit(1)
        assert control.get() == 1
    finally:
        control.put(before)


def test_shapes_that_do_not_fit_leave_the_threads_alone():
    control = blas._control()
    before = control.get() if control else None
    with pytest.raises(ValueError, match="mismatch"):
        blas.product(np.ones((300, 300), np.float32), np.ones((301, 300), np.float32))
    assert control is None or control.get() == before


@pytest.fixture
def small_batches(monkeypatch):
    pytest.importorskip("llvmlite", reason="the calls are compiled by llvmlite")
    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(jit, "cpus", lambda: 3)
    monkeypatch.setattr(blas, "_WORTH_BATCH", 1)


def whole(*shape, dtype="float32"):
    """Integers, whose products and sums are exact in any order."""
    return np.random.default_rng(sum(shape)).integers(-4, 5, shape).astype(dtype)


LEADS = [((7,), (7,)), ((2, 3), (2, 3)), ((2, 1), (3,)), ((), (5,)), ((4, 1, 3), (2, 1)), ((1,), (1,)), ((0,), (0,))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("first", "second"), LEADS)
def test_batches_equal_numpy(first, second, dtype, small_batches):
    a, b = whole(*first, 6, 5, dtype=dtype), whole(*second, 5, 9, dtype=dtype)
    expected = a @ b
    column = whole(*expected.shape[:-1], dtype=dtype)
    turned = [np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2) for x in (a, b)]
    apart = [np.repeat(x, 2, -1)[..., ::2] for x in (a, b)]
    for left, right in ((a, b), turned, apart):
        np.testing.assert_array_equal(blas.batched(left, right), expected)
    wide = np.full((*expected.shape[:-1], 12), 7, dtype)
    blas.batched(a, b, wide[..., :9], column)
    np.testing.assert_array_equal(wide[..., :9], expected + column[..., None])
    assert (wide[..., 9:] == 7).all()


def test_heads_that_lie_beside_each_other(small_batches):
    q, k = (whole(2, 6, 3, 8).swapaxes(1, 2) for _ in range(2))  # [N, H, S, E] in memory [N, S, H, E]
    np.testing.assert_array_equal(blas.batched(q, k.swapaxes(-1, -2)), q @ k.swapaxes(-1, -2))


def test_few_large_matrices_are_divided(small_batches):
    a, b = whole(2, 150, 120), whole(2, 120, 130)
    np.testing.assert_array_equal(blas.batched(a, b, column=whole(2, 150)), a @ b + whole(2, 150)[..., None])


def test_batches_that_do_not_fit(small_batches):
    with pytest.raises(ValueError, match="mismatch"):
        blas.batched(whole(5, 8, 8), whole(5, 9, 8))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shares", [1, 2, 3, 100])
def test_sums_over_a_batch(shares, dtype, small_batches):
    a, b = whole(7, 2, 6, 5, dtype=dtype), whole(7, 2, 9, 5, dtype=dtype).swapaxes(-1, -2)
    np.testing.assert_array_equal(blas.summed(a, b, shares), (a @ b).sum(axis=0))
    np.testing.assert_array_equal(blas.summed(a[:, 0], b[:, 0], shares), (a[:, 0] @ b[:, 0]).sum(axis=0))
