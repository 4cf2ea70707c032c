"""Distances of all pairs where they are 0, tie or are many; the functions themselves are in the table."""

import math

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F

MODES = ("use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, math.inf])
@pytest.mark.parametrize("mode", MODES)
def test_no_nan_at_distance_zero(p, mode):
    x = cf.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0]], dtype="float64", requires_grad=True)
    d = cf.cdist(x, x.detach(), p, mode)
    assert d[0, 1].item() == 0 and d[2, 2].item() == 0
    (g,) = cf.autograd.grad(d.sum(), x, create_graph=True)
    assert np.isfinite(g.array).all()
    # Of each row only the pairs that lie apart pull, here along the first coordinate.
    slope = 0 if p == 0 else 1
    np.testing.assert_allclose(g.detach().array, [[-slope, 0], [-slope, 0], [2 * slope, 0]], atol=1e-12)
    if p != 0:
        (h,) = cf.autograd.grad((g * g).sum(), x)
        assert np.isfinite(h.array).all()


def test_pdist_of_equal_rows_has_gradient_zero():
    x = cf.ones(3, 2, requires_grad=True)
    F.pdist(x).sum().backward()
    assert x.grad.tolist() == [[0, 0]] * 3


def test_all_of_several_largest_coordinates_take_the_gradient():
    x = cf.tensor([[2.0, -2.0, 1.0]], requires_grad=True)
    cf.cdist(x, cf.zeros(1, 3), math.inf).backward()
    assert x.grad.tolist() == [[1, -1, 0]]


def test_blocks_make_no_difference():
    # More differences than are held at a time.
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 70, 40)), rng.standard_normal((2, 90, 40))
    x, y = cf.tensor(a, requires_grad=True), cf.tensor(b, requires_grad=True)
    d = cf.cdist(x, y, 3)
    diff = a[:, :, None] - b[:, None]
    expected = (np.abs(diff) ** 3).sum(-1) ** (1 / 3)
    np.testing.assert_allclose(d.detach().array, expected, rtol=1e-12)
    d.sum().backward()
    pull = np.sign(diff) * (np.abs(diff) / expected[..., None]) ** 2
    np.testing.assert_allclose(x.grad.array, pull.sum(2), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(y.grad.array, -pull.sum(1), rtol=1e-9, atol=1e-12)


def test_products_far_from_the_origin_are_accurate():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((40, 3)).astype(np.float32) + 1000 for _ in range(2))
    exact = np.sqrt(((a.astype(np.float64)[:, None] - b) ** 2).sum(-1))
    np.testing.assert_allclose(cf.cdist(cf.tensor(a), cf.tensor(b)).array, exact, rtol=0, atol=2e-3)


def test_operands_are_promoted():
    x, y = cf.ones(2, 3, requires_grad=True), cf.zeros(1, 3, dtype="float64")
    d = cf.cdist(x, y)
    assert d.dtype == np.float64
    d.sum().backward()
    assert x.grad.dtype == np.float32
