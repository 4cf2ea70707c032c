"""nn.init: the distributions that are filled in, and their errors."""

import math

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn import init
from cuframe.random import Generator


@pytest.fixture(autouse=True)
def seeded():
    cf.manual_seed(0)


def filled(function, *shape, dtype="float32", **kwargs):
    p = nn.Parameter(cf.zeros(*shape, dtype=dtype))
    assert function(p, **kwargs) is p
    assert p.requires_grad and p.is_leaf and p.grad is None
    return p.array


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_dtypes(dtype):
    for function in (init.uniform_, init.normal_, init.xavier_normal_, init.orthogonal_, init.trunc_normal_):
        a = filled(function, 8, 8, dtype=dtype)
        assert a.dtype.name == dtype and a.astype(np.float64).std() > 0


def test_constants():
    assert (filled(init.constant_, 2, 3, val=2.5) == 2.5).all()
    assert (filled(init.ones_, 2) == 1).all()
    p = nn.Parameter([3.0])
    assert init.zeros_(p).item() == 0
    np.testing.assert_array_equal(filled(init.eye_, 2, 3), np.eye(2, 3))


def test_uniform_and_normal():
    a = filled(init.uniform_, 100_000, a=-2.0, b=3.0)
    assert -2 <= a.min() < -1.99 and 2.99 < a.max() < 3 and abs(a.mean() - 0.5) < 0.02
    a = filled(init.normal_, 100_000, mean=1.0, std=2.0)
    assert abs(a.mean() - 1) < 0.03 and abs(a.std() - 2) < 0.03


def test_the_seed_decides():
    first = filled(init.normal_, 5).copy()
    assert not np.array_equal(first, filled(init.normal_, 5))
    cf.manual_seed(0)
    np.testing.assert_array_equal(first, filled(init.normal_, 5))
    mine = [filled(init.xavier_uniform_, 3, 3, generator=Generator(5)).copy() for _ in range(2)]
    np.testing.assert_array_equal(*mine)


@pytest.mark.parametrize(
    ("function", "kwargs", "bound"),
    [
        (init.xavier_uniform_, {"gain": 2.0}, 2 * math.sqrt(6 / (300 + 200))),
        (init.kaiming_uniform_, {"a": math.sqrt(5)}, math.sqrt(3) * math.sqrt(2 / 6) / math.sqrt(300)),
        (init.kaiming_uniform_, {"mode": "fan_out", "nonlinearity": "relu"}, math.sqrt(6 / 200)),
    ],
)
def test_uniform_bounds(function, kwargs, bound):
    a = filled(function, 200, 300, **kwargs)
    assert 0.999 * bound < a.max() <= bound and -bound <= a.min() < -0.999 * bound


@pytest.mark.parametrize(
    ("function", "kwargs", "std"),
    [
        (init.xavier_normal_, {}, math.sqrt(2 / (5 * (30 + 20)))),
        (init.kaiming_normal_, {}, math.sqrt(2 / (30 * 5))),
        (init.kaiming_normal_, {"mode": "fan_out", "nonlinearity": "tanh"}, 5 / 3 / math.sqrt(20 * 5)),
    ],
)
def test_normal_std_counts_the_kernel(function, kwargs, std):
    a = filled(function, 20, 30, 5, **kwargs)
    assert a.std() == pytest.approx(std, rel=0.05)


def test_trunc_normal():
    a = filled(init.trunc_normal_, 100_000, mean=1.0, std=2.0, a=-1.0, b=2.0)
    assert -1 <= a.min() < -0.99 and 1.99 < a.max() <= 2
    # Mean of the normal distribution cut at z = -1 and z = 0.5.
    phi = [math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (-1, 0.5)]
    mass = 0.5 * (math.erf(0.5 / math.sqrt(2)) - math.erf(-1 / math.sqrt(2)))
    assert a.mean() == pytest.approx(1 + 2 * (phi[0] - phi[1]) / mass, abs=0.02)
    with pytest.warns(UserWarning, match="more than two std outside"):
        filled(init.trunc_normal_, 10, mean=10.0)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 2, 3)])
def test_orthogonal(shape):
    a = filled(init.orthogonal_, *shape, dtype="float64", gain=2.0).reshape(shape[0], -1)
    product = a @ a.T if a.shape[0] <= a.shape[1] else a.T @ a
    np.testing.assert_allclose(product, 4 * np.eye(min(a.shape)), atol=1e-12)


def test_sparse():
    a = filled(init.sparse_, 10, 50, sparsity=0.33, std=2.0)
    assert ((a == 0).sum(axis=0) == 4).all()
    assert a[a != 0].std() == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac(groups):
    a = filled(init.dirac_, 4, 2, 3, groups=groups)
    x = np.arange(2.0)
    # Channel c of each group passes input channel c through at the kernel's centre.
    out = (a[:, :, 1] @ x).reshape(groups, -1)
    for row in out:
        assert list(row[:2]) == [0, 1]
    assert a.sum() == 2 * groups


def test_gains():
    assert init.calculate_gain("relu") == math.sqrt(2)
    assert init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("leaky_relu", 2) == math.sqrt(2 / 5)
    assert init.calculate_gain("sigmoid") == init.calculate_gain("conv2d") == 1
    assert init.calculate_gain("selu") == 0.75


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda: init.calculate_gain("rleu"), ValueError, "unknown nonlinearity 'rleu'; known: .*relu"),
        (lambda: init.calculate_gain("leaky_relu", "x"), ValueError, "slope must be a number"),
        (lambda: init.uniform_(np.ones(2)), TypeError, "uniform_: expected a Tensor, got ndarray"),
        (lambda: init.normal_(cf.tensor([1])), TypeError, "normal_: tensor must be floating point, got int64"),
        (lambda: init.eye_(cf.ones(2)), ValueError, r"eye_: tensor must have 2 dimensions, got shape \(2,\)"),
        (lambda: init.xavier_uniform_(cf.ones(2)), ValueError, "at least 2 dimensions"),
        (lambda: init.kaiming_normal_(cf.ones(2, 2), mode="fan"), ValueError, "mode must be 'fan_in' or 'fan_out'"),
        (lambda: init.orthogonal_(cf.ones(2)), ValueError, "at least 2 dimensions"),
        (lambda: init.dirac_(cf.ones(2, 2)), ValueError, "3, 4 or 5 dimensions"),
        (lambda: init.dirac_(cf.ones(3, 2, 1), groups=2), ValueError, "divisible by groups 2"),
        (lambda: init.sparse_(cf.ones(2), 0.5), ValueError, "2 dimensions"),
        (lambda: init.sparse_(cf.ones(2, 2), 1.5), ValueError, r"sparsity must be in \[0, 1\]"),
        (lambda: init.trunc_normal_(cf.ones(2), a=1, b=1), ValueError, "a must be below b"),
    ],
)
def test_errors(act, error, text):
    with pytest.raises(error, match=text):
        act()


def test_empty_tensors():
    for function in (init.uniform_, init.xavier_uniform_, init.orthogonal_):
        assert filled(function, 0, 3).shape == (0, 3)
    with pytest.warns(UserWarning, match="no elements"):
        filled(init.kaiming_uniform_, 0, 3)


def test_backward_notices_a_new_value():
    p = nn.Parameter([2.0])
    y = p * p
    init.ones_(p)
    with pytest.raises(RuntimeError, match="changed in place by ones_"):
        y.backward()
