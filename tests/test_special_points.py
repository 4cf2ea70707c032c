"""Gradients where functions bend, tie or end: fixed by convention, which is PyTorch's; and accuracy of sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import cuframe as cf
from cuframe.ops import activation as act

INF, NAN = math.inf, math.nan


def slope(function: Callable, *values: list) -> list[list[float]]:
    """The gradients of the sum of `function` with respect to each argument."""
    tensors = [cf.tensor(v, dtype="float64", requires_grad=True) for v in values]
    return [g.tolist() for g in cf.autograd.grad(function(*tensors).sum(), tensors)]


@pytest.mark.parametrize(
    "function, points, expected",
    [
        (cf.abs, [-2.0, 0.0, -0.0, 3.0], [-1.0, 0.0, 0.0, 1.0]),
        (cf.relu, [-1.0, 0.0, 2.0], [0.0, 0.0, 1.0]),
        (cf.sqrt, [0.0, 4.0], [INF, 0.25]),
        (cf.sign, [-1.0, 0.0], [0.0, 0.0]),
        (cf.floor, [1.0, 1.5], [0.0, 0.0]),
        (cf.round, [0.5, 1.4], [0.0, 0.0]),
        (cf.frac, [1.0, -1.5], [1.0, 1.0]),
        (cf.sinc, [0.0], [0.0]),
        (cf.asin, [1.0, -1.0], [INF, INF]),
        (lambda x: x**0, [0.0, 2.0], [0.0, 0.0]),
        (lambda x: x**2, [0.0, 3.0], [0.0, 6.0]),
        (lambda x: x**0.5, [0.0, 4.0], [INF, 0.25]),
        (lambda x: x**1, [0.0], [1.0]),
        (lambda x: 0.0**x, [0.0, 2.0], [0.0, 0.0]),
        (lambda x: cf.clamp(x, -1, 1), [-2.0, -1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 1.0, 0.0]),
        (lambda x: cf.nan_to_num(x, posinf=1.0), [NAN, INF, 2.0], [0.0, 0.0, 1.0]),
        (lambda x: cf.logit(x, 0.25), [0.0, 0.5], [0.0, 4.0]),
        (act.hardtanh, [-1.0, 0.5, 1.0], [0.0, 1.0, 0.0]),
        (act.relu6, [0.0, 3.0, 6.0], [0.0, 1.0, 0.0]),
        (act.hardswish, [-3.0, 0.0, 3.0], [0.0, 0.5, 1.0]),
        (act.leaky_relu, [0.0], [0.01]),
        (cf.amax, [1.0, 3.0, 3.0], [0.0, 0.5, 0.5]),
        (cf.max, [3.0, 1.0, 3.0, 3.0], [1 / 3, 0.0, 1 / 3, 1 / 3]),
        (lambda x: cf.max(x, 0).values, [3.0, 1.0, 3.0], [1.0, 0.0, 0.0]),
        (cf.min, [1.0, 1.0], [0.5, 0.5]),
        (cf.median, [1.0, 2.0, 2.0, 5.0], [0.0, 0.5, 0.5, 0.0]),
        (cf.prod, [0.0, 2.0, 3.0], [6.0, 0.0, 0.0]),
        (cf.prod, [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]),
        (lambda x: cf.cumprod(x, 0), [2.0, 0.0, 3.0, 4.0], [1.0, 32.0, 0.0, 0.0]),
        (cf.std, [2.0, 2.0], [0.0, 0.0]),
        (cf.norm, [0.0, 0.0], [0.0, 0.0]),
        (lambda x: cf.norm(x, 1), [0.0, -2.0], [0.0, -1.0]),
        (lambda x: cf.norm(x, INF), [1.0, -3.0, 3.0], [0.0, -0.5, 0.5]),
        (lambda x: cf.logsumexp(x, 0), [-INF, -INF], [0.0, 0.0]),
        (lambda x: cf.logsumexp(x, 0), [-INF, 1.0], [0.0, 1.0]),
        (lambda x: cf.cummax(x, 0).values, [1.0, 3.0, 3.0, 2.0], [1.0, 1.0, 2.0, 0.0]),
        (cf.nansum, [1.0, NAN], [1.0, 0.0]),
        (cf.nanmean, [1.0, NAN, 5.0], [0.5, 0.0, 0.5]),
    ],
)
def test_slope_at_special_points(function: Callable, points: list, expected: list) -> None:
    assert slope(function, points) == [expected]


@pytest.mark.parametrize(
    "function, x, y, expected",
    [
        (cf.maximum, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]),
        (cf.minimum, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]),
        (cf.fmax, [2.0, NAN, 1.0], [2.0, 1.0, NAN], [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
        (cf.fmin, [2.0, NAN, 1.0], [2.0, 1.0, NAN], [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
        (cf.pow, [0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        (cf.atan2, [0.0, 1.0], [0.0, 0.0], [[0.0, 0.0], [0.0, -1.0]]),
        (cf.xlogy, [0.0, 2.0], [0.0, 1.0], [[0.0, 0.0], [NAN, 2.0]]),
        (cf.logaddexp, [-INF, INF], [-INF, INF], [[0.5, 0.5], [0.5, 0.5]]),
        (cf.copysign, [0.0, 2.0], [1.0, -1.0], [[0.0, -1.0], [0.0, 0.0]]),
        (cf.floor_divide, [7.0], [2.0], [[0.0], [0.0]]),
        (cf.remainder, [7.0], [2.0], [[1.0], [-3.0]]),
        (lambda x, y: cf.clamp(x, min=y), [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]),
    ],
)
def test_slopes_of_two_at_special_points(function: Callable, x: list, y: list, expected: list) -> None:
    np.testing.assert_array_equal(slope(function, x, y), expected)


def test_step_functions_stop_infinite_gradients() -> None:
    assert slope(lambda x: cf.sqrt(cf.floor(x)), [0.5]) == [[0.0]]


def test_double_backward_of_products_with_zeros() -> None:
    """d2(abc)/da db = c, also where a and b are 0."""
    for function in (cf.prod, lambda t: cf.cumprod(t, 0)[-1]):
        x = cf.tensor([0.0, 0.0, 5.0], dtype="float64", requires_grad=True)
        (g,) = cf.autograd.grad(function(x), x, create_graph=True)
        (h,) = cf.autograd.grad(g[0], x)
        assert h.tolist() == [0.0, 5.0, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_long_sums_of_halves_do_not_stall(dtype: str) -> None:
    ones = cf.ones(4096, dtype=dtype)
    assert ones.sum().item() == 4096
    assert ones.mean().item() == 1
    assert ones.cumsum(0)[-1].item() == 4096
    assert cf.norm(ones).item() == 64


def test_float32_sums_are_as_exact_as_pairwise_summation() -> None:
    x = np.random.default_rng(0).uniform(0, 1, 1_000_000).astype(np.float32)
    exact = math.fsum(x.tolist())
    assert abs(cf.Tensor(x).sum().item() - exact) / exact < 3e-7
    assert abs(cf.Tensor(x).mean().item() - exact / x.size) / (exact / x.size) < 3e-7


def test_variance_far_from_zero_does_not_cancel() -> None:
    x = cf.tensor([1e6 + 1, 1e6 + 2, 1e6 + 3], dtype="float32")
    assert x.var().item() == 1


def test_named_results_have_names() -> None:
    x = cf.tensor([[1.0, 5.0], [7.0, 2.0]])
    for result in (x.max(1), x.min(1), x.median(1), x.mode(1), x.cummax(1)):
        values, indices = result
        assert result.values is values and result.indices is indices
        assert indices.dtype == np.int64
    low, high = cf.aminmax(x)
    assert (low.item(), high.item()) == (1.0, 7.0)


def test_numpy_spelling_of_reductions() -> None:
    x = cf.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    a = x.detach().numpy()
    for name in ("sum", "mean", "prod", "amax", "amin", "var", "std", "any", "all", "argmax", "argmin", "nansum"):
        function = getattr(np, name)
        axis = {"axis": 1} if name != "prod" else {"axis": 0}
        got = function(x, **axis)
        assert isinstance(got, cf.Tensor), name
        np.testing.assert_allclose(got.detach().numpy(), function(a, **axis), rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(np.cumsum(x).detach().numpy(), np.cumsum(a))
    np.testing.assert_array_equal(np.max(x, axis=0, keepdims=True).detach().numpy(), a.max(0, keepdims=True))
    assert np.sum(x, axis=0).requires_grad


@pytest.mark.parametrize(
    "function",
    [
        cf.relu,
        lambda x: cf.clamp(x, min=0),
        lambda x: cf.maximum(x, cf.tensor(0.0, dtype="float64")),
        lambda x: act.threshold(x, 0.0, 0.0),
    ],
)
def test_infinite_gradients_stop_at_masks(function: Callable) -> None:
    """sqrt'(0) is infinite, and 0 * inf would be NaN."""
    assert slope(lambda x: cf.sqrt(function(x)), [-2.0]) == [[0.0]]
