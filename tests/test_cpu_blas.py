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


def test_shapes_that_do_not_fit_leave_the_threads_alone():
    control = blas._control()
    before = control.get() if control else None
    with pytest.raises(ValueError, match="mismatch"):
        blas.product(np.ones((300, 300), np.float32), np.ones((301, 300), np.float32))
    assert control is None or control.get() == before
