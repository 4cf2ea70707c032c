"""`kernels/dropout.cu`: the masks of the CPU, drawn again in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.cpu import philox
from cuframe.gpu import dropout as fused
from tests.kernels import FLOATS, MANY_ROWS, SIZES, assert_near, fetch, numbers, put


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [*SIZES, 8 * 256 * 2 + 5])
def test_elements(n: int, dtype: str, device: str) -> None:
    x = numbers(n, dtype=dtype)
    for seed, offset, p in ((0, 0, 0.5), (2**64 - 1, 2**40, 0.1), (7, 3, 0.999)):
        y = fused.dropout(put(x, device), seed, offset, 1 - p, 1, 1 / (1 - p), None)
        assert y.dtype == x.dtype
        mask = philox.bernoulli(seed, offset, n, 1 - p)
        np.testing.assert_array_equal(fetch(y) != 0, mask & (x != 0))
        assert_near(y, np.where(mask, x.astype(np.float64) / (1 - p), 0), dtype, 2)


@pytest.mark.parametrize("each", [2, 3, 7, 8, 9, 100])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_channels(each: int, dtype: str, device: str) -> None:
    x = numbers(41 * each, dtype=dtype, low=1)
    y = fused.dropout(put(x, device), 5, 9, 0.5, each, 2.0, (0.25, -3.0))
    mask = philox.bernoulli(5, 9, 41, 0.5).repeat(each)
    assert_near(y, np.where(mask, 2 * x.astype(np.float64) + 0.25, -3.0), dtype)


def test_many_rows(device: str) -> None:
    x = np.ones(8 * MANY_ROWS, np.float32)
    y = fetch(fused.dropout(put(x, device), 1, 0, 0.5, 1, 2.0, None))
    np.testing.assert_array_equal(y != 0, philox.bernoulli(1, 0, x.size, 0.5))


def test_extremes(device: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1.0] * 4, np.float32)
    y = fetch(fused.dropout(put(x, device), 0, 0, 0.5, 1, 2.0, None))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(y, x * (philox.bernoulli(0, 0, 16, 0.5) * 2))
    np.testing.assert_array_equal(fetch(fused.dropout(put(x[3:4], device), 0, 0, 1.0, 1, 2.0, None)), [2.0])


def test_strided_unaligned_and_empty(device: str) -> None:
    x = put(numbers(6, 9), device)
    mask = philox.bernoulli(0, 0, 54, 0.5)
    turned = fused.dropout(x.T, 0, 0, 0.5, 1, 2.0, None)
    assert_near(turned, np.where(mask.reshape(9, 6), 2 * numbers(6, 9).T.astype(np.float64), 0), "float32")
    flat = fused.dropout(x.reshape(-1)[1:], 0, 0, 0.5, 1, 2.0, None)
    assert_near(flat, np.where(mask[:53], 2 * numbers(6, 9).reshape(-1)[1:].astype(np.float64), 0), "float32")
    assert fused.dropout(x[:0], 0, 0, 0.5, 1, 2.0, None).shape == (0, 9)


FUNCTIONS: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
    (F.dropout, (5, 7)), (F.dropout, ()), (F.dropout, (0,)), (F.dropout1d, (3, 5, 4)), (F.dropout2d, (3, 5, 2, 3)),
    (F.dropout3d, (3, 5, 2, 2, 3)), (F.dropout2d, (2, 3, 0, 2)), (F.alpha_dropout, (5, 7)),
    (F.feature_alpha_dropout, (3, 5, 4)),
]


@pytest.mark.parametrize(("function", "shape"), FUNCTIONS, ids=lambda v: getattr(v, "__name__", str(v)))
@pytest.mark.parametrize("dtype", FLOATS)
def test_same_as_cpu(function: Callable[..., Any], shape: tuple[int, ...], dtype: str, device: str) -> None:
    def run(where: str) -> tuple[Any, ...]:
        cf.manual_seed(3)
        x = cf.tensor(numbers(*shape, dtype=dtype), device=where, requires_grad=True)
        y = function(x, 0.4, training=True)
        after = cf.get_rng_state()["offset"]
        (g,) = cf.autograd.grad(y, x, cf.tensor(numbers(*shape, dtype=dtype, seed=1), device=where))
        return y.detach().array, g.array, after

    y, g, after = run(device)
    y_cpu, g_cpu, after_cpu = run("cpu")
    assert after == after_cpu
    assert_near(y, fetch(y_cpu), dtype, 2)
    assert_near(g, fetch(g_cpu), dtype, 2)


def test_backward_draws_again_and_keeps_no_mask(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    true = fused.dropout
    monkeypatch.setattr(fused, "dropout", lambda *a: (calls.append(a[1:3]), true(*a))[1])
    x = cf.ones(100, device=device, requires_grad=True)
    y = F.dropout(x, 0.5)
    assert not any(hasattr(s, "shape") for s in y.node.saved)
    y.sum().backward()
    assert calls[0] == calls[1]
    np.testing.assert_array_equal(fetch(x.grad.array), fetch(y.detach().array))


def test_second_derivative(device: str) -> None:
    x = cf.tensor(numbers(3, 5, dtype="float64"), device=device, requires_grad=True)

    def function(t: cf.Tensor) -> cf.Tensor:
        cf.manual_seed(1)
        return F.alpha_dropout(t, 0.3, training=True)

    assert cf.autograd.gradgradcheck(function, (x,))


def test_inplace(device: str) -> None:
    cf.manual_seed(1)
    expected = fetch(F.dropout(cf.ones(20, device=device), 0.5).array)
    cf.manual_seed(1)
    x = cf.ones(20, device=device)
    assert F.dropout(x, 0.5, inplace=True) is x
    np.testing.assert_array_equal(fetch(x.array), expected)


@pytest.mark.parametrize("order", ["forward", "reverse", "random:3"])
def test_any_order_of_threads(order: str, device: str) -> None:
    if device != "sim":
        pytest.skip("the order of threads is the simulator's to choose")
    from cuframe.cuda import sim

    x = numbers(3000)
    with sim.order(order):
        y = fetch(fused.dropout(put(x, device), 0, 0, 0.5, 3, 2.0, None))
    np.testing.assert_array_equal(y != 0, philox.bernoulli(0, 0, 1000, 0.5).repeat(3))
