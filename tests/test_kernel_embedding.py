"""`kernels/embedding.cu` against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.backend import backend_of
from cuframe.gpu import embedding as fused
from tests.kernels import FLOATS, MANY_ROWS, SIZES, Array, assert_near, fetch, numbers, put


def indices(n: int, rows: int, dtype: str = "int64", low: int = 0) -> Array:
    return np.random.default_rng([n, rows]).integers(low, rows, n).astype(dtype)


def table(index: Array, values: Array, rows: int) -> Array:
    out = np.zeros((rows, values.shape[1]))
    np.add.at(out, index, values.astype(np.float64))
    return out


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 8, 31, 33])
def test_forward(width: int, dtype: str, device: str) -> None:
    weight, index = numbers(50, width, dtype=dtype), indices(70, 50, "int32")
    out = fused.forward(put(weight, device), put(index.reshape(7, 10), device))
    assert out.dtype == weight.dtype
    np.testing.assert_array_equal(fetch(out), weight[index].astype(np.float64).reshape(7, 10, width))


@pytest.mark.parametrize("width", [3, 4])
def test_out_of_range(width: int, device: str) -> None:
    index = np.array([0, -1, 5, 2, 2**40, -(2**62), 4], np.int64)
    out = fetch(fused.forward(put(numbers(5, width), device), put(index, device)))
    known = np.array([1, 0, 0, 1, 0, 0, 1], bool)
    np.testing.assert_array_equal(out[known], numbers(5, width)[index[known]].astype(np.float64))
    assert np.isnan(out[~known]).all()
    values = numbers(7, width)
    sums = fused.sums(put(values, device), put(index, device), 5)
    assert_near(sums, table(index[known], values[known], 5), "float32")
    wrapped = fused.sums(put(values, device), put(index, device), 5, wrap=True)
    known[1] = True
    assert_near(wrapped, table(index[known], values[known], 5), "float32")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("rows", "width"), [(7, 3), (1, 8), (2000, 16), (40, 1)])
def test_sums(n: int, rows: int, width: int, dtype: str, device: str) -> None:
    index, values = indices(n, rows), numbers(n, width, dtype=dtype)
    expected = table(index, values, rows)
    found = [fused.sums(put(values, device), put(index, device), rows) for _ in range(2)]
    assert found[0].dtype == values.dtype
    # the sum of absolute values is what errors are relative to; float32 sums of half precision round once at the end
    assert_near(found[0], expected, dtype, 1 if dtype in ("float16", "bfloat16") else 8, floor=1e-6 if n > 1000 else 0)
    np.testing.assert_array_equal(fetch(found[0]), fetch(found[1]))


@pytest.mark.parametrize("width", [1, 4])
def test_runs_of_every_length_and_place(width: int, device: str) -> None:
    # tiles have 16 entries here: runs that end, begin and go on at their ends, and over several
    for lengths in ((16, 16, 16), (15, 1, 17), (1, 48, 3), (8, 16, 8, 40), (100,), (33, 1, 1, 31)):
        index = np.repeat(np.arange(len(lengths)), lengths)
        values = numbers(len(index), width, dtype="float64")
        assert_near(fused.sums(put(values, device), put(index, device), 9), table(index, values, 9), "float64", 10)


def test_many_rows(device: str) -> None:
    index = indices(3000, MANY_ROWS, "int32")
    values = numbers(3000, 2)
    assert_near(fused.sums(put(values, device), put(index, device), MANY_ROWS), table(index, values, MANY_ROWS),
                "float32")
    out = fused.forward(put(numbers(9, 1), device), put(indices(MANY_ROWS, 9), device))
    np.testing.assert_array_equal(fetch(out), numbers(9, 1)[indices(MANY_ROWS, 9)].astype(np.float64))


def test_strided_and_empty(device: str) -> None:
    values, index = numbers(8, 12), indices(24, 5)
    here, places = put(values, device), put(index, device)
    assert_near(fused.sums(here.T, places[::2], 5), table(index[::2], values.T, 5), "float32", 2)
    assert_near(fused.sums(here.reshape(-1)[1:93].reshape(23, 4), places[1:], 5),
                table(index[1:], values.reshape(-1)[1:93].reshape(23, 4), 5), "float32", 2)
    np.testing.assert_array_equal(fetch(fused.forward(here.T, places[::2] % 5)), values.T[index[::2]].astype(float))
    assert fused.sums(here[:0], places[:0], 5).shape == (5, 12)
    assert fused.sums(here[:, :0], places[:8], 5).shape == (5, 0)
    assert fused.sums(here, places[:8], 0).shape == (0, 12)
    assert fused.forward(here, places[:0]).shape == (0, 12)


FULL = slice(None)
I, J = np.array([[0, -1, 2], [2, 2, 1]]), np.array([1, 0, -2])
INDICES: list[Any] = [
    I, (I,), (I, J), (FULL, I), (FULL, I, J), (FULL, FULL, J), (I, FULL, J), (FULL, I, FULL, J), (slice(1, 3), J),
    (J, slice(0, 4, 2)), (np.array([True, False, True, False]),), (FULL, np.array([True, False, True])),
    (np.array(2),), (np.array([[1], [0]]), J),
]


@pytest.mark.parametrize("index", INDICES, ids=lambda i: "")
@pytest.mark.parametrize("dtype", ["float64", "float16", "int64"])
def test_sum_at_any_index(index: Any, dtype: str, device: str) -> None:
    shape = (4, 3, 4, 3)
    part = np.zeros(shape)[index].shape
    values = numbers(*part, dtype=dtype, low=-5, high=5)
    expected = np.zeros(shape)
    np.add.at(expected, index, values.astype(np.float64))
    backend = cf.backend.backend_for(device)
    moved = tuple(put(i, device) if isinstance(i, np.ndarray) else i for i in index) if isinstance(
        index, tuple) else put(index, device)
    found = backend.sum_at(shape, moved, put(values, device))
    assert found.dtype == values.dtype
    np.testing.assert_allclose(fetch(found), expected, rtol=2e-3 if dtype == "float16" else 1e-12, atol=1e-12)
    target = put(np.ones(shape, values.dtype), device)
    backend.add_at(target, moved, put(values, device))
    np.testing.assert_allclose(fetch(target), expected + 1, rtol=4e-3 if dtype == "float16" else 1e-12, atol=4e-3
                               if dtype == "float16" else 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["int64", "int32"])
@pytest.mark.parametrize(("padding", "by_freq"), [(None, False), (2, False), (-1, True), (None, True)])
def test_embedding_as_on_cpu(padding: int | None, by_freq: bool, kind: str, dtype: str, device: str,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("forward", "backward"):
        true = getattr(fused, name)
        monkeypatch.setattr(fused, name, lambda *a, true=true, name=name: (calls.append(name), true(*a))[1])

    def run(where: str) -> tuple[Any, Any]:
        weight = cf.tensor(numbers(6, 8, dtype=dtype), device=where, requires_grad=True)
        index = cf.tensor(indices(40, 6, kind).reshape(5, 8), device=where)
        y = F.embedding(index, weight, padding, scale_grad_by_freq=by_freq)
        y.backward(cf.tensor(numbers(5, 8, 8, dtype=dtype, seed=1), device=where))
        return y.detach().array, weight.grad.array

    for ours, expected in zip(run(device), run("cpu")):
        assert_near(ours, fetch(expected), dtype, 8)
    assert calls == ["forward", "backward"]


def test_second_derivative(device: str) -> None:
    weight = cf.tensor(numbers(5, 3, dtype="float64"), device=device, requires_grad=True)
    index = cf.tensor(indices(9, 5), device=device)
    assert cf.autograd.gradgradcheck(lambda w: F.embedding(index, w, 1), (weight,))


def test_index_gradients_use_the_kernel(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    true = fused.sums
    monkeypatch.setattr(fused, "sums", lambda *a, **k: (calls.append(a[0].dtype.name), true(*a, **k))[1])
    x = cf.tensor(numbers(6, 4), device=device, requires_grad=True)
    i = cf.tensor([0, 3, 3, 5], device=device)
    for y in (x[i], cf.index_select(x, 1, i % 4), cf.gather(x, 0, i.reshape(1, 4)), cf.take(x, i)):
        y.sum().backward()
    cf.index_add(x.detach(), 0, i, cf.ones(4, 4, device=device))
    cf.scatter_add(x.detach(), 0, i.reshape(1, 4), cf.ones(1, 4, device=device))
    assert calls == ["float32"] * 6
    assert backend_of(x.array).name == device


@pytest.mark.parametrize("order", ["forward", "reverse", "random:3"])
def test_any_order_of_threads(order: str, device: str) -> None:
    if device != "sim":
        pytest.skip("the order of threads is the simulator's to choose")
    from cuframe.cuda import sim

    values, index = numbers(1025, 3), indices(1025, 7)
    expected = fetch(fused.sums(put(values, device), put(index, device), 7))
    with sim.order(order):
        np.testing.assert_array_equal(fetch(fused.sums(put(values, device), put(index, device), 7)), expected)
