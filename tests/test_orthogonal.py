"""Orthogonal matrices as parametrizations."""

import copy

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn.utils import parametrizations, parametrize
from cuframe.nn.utils.orthogonal import MAPS

orthogonal = parametrizations.orthogonal
SHAPES = [(4, 4), (5, 3), (3, 5), (2, 4, 3), (1, 1)]
every_map = pytest.mark.parametrize("name", MAPS)


def made(shape, name=None, dtype="float64", **kwargs):
    w = np.random.default_rng(0).standard_normal(shape)
    module = nn.ParameterDict({"w": cf.tensor(w, dtype=dtype)})
    return orthogonal(module, "w", name, **kwargs)


def original_of(m):
    return m.parametrizations.w.original


def off(q):
    """How far the shorter side is from orthonormal."""
    q = q.detach().array.astype(np.float64)
    q = q.swapaxes(-1, -2) if q.shape[-2] < q.shape[-1] else q
    return abs(q.swapaxes(-1, -2) @ q - np.eye(q.shape[-1])).max()


def moved(m, size=0.7):
    """Somewhere else; the diagonal holds the signs of reflections."""
    t = original_of(m).array
    step = np.random.default_rng(1).uniform(-size, size, t.shape)
    rows, columns = np.indices(t.shape[-2:])
    t += np.where(rows == columns, 0, step)
    return m


@every_map
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("trivial", [True, False])
def test_orthogonal_wherever_training_leads(name, shape, trivial):
    m = made(shape, name, use_trivialization=trivial)
    assert off(m.w) < 1e-12 and off(moved(m).w) < 1e-12 and off(moved(m, 30).w) < 1e-9
    keys = ["parametrizations.w.original", *(["parametrizations.w.0.base"] if trivial else [])]
    assert list(m.state_dict()) == keys


@every_map
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 2)])
def test_gradients(name, shape):
    m = moved(made(shape, name))
    table = m.parametrizations.w

    def f(original):
        table._parameters["original"] = original
        return m.w

    assert cf.autograd.gradcheck(f, (table.original,))
    assert cf.autograd.gradgradcheck(f, (table.original,), fast_mode=True)


@every_map
@pytest.mark.parametrize("shape", SHAPES)
def test_assigned_matrices_come_back(name, shape):
    m = moved(made(shape, name))
    q = moved(made(shape, name, use_trivialization=True), 2).w.detach()
    m.w = q
    np.testing.assert_allclose(m.w.detach().array, q.array, atol=1e-12)
    assert m.parametrizations.w[0].base.shape == (*shape[:-2], max(shape[-2:]), max(shape[-2:]))


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (1, 1)])
def test_reflections_can_be_inverted_without_a_base(shape):
    m = made(shape, "householder", use_trivialization=False)
    q = moved(made(shape, "householder"), 2).w.detach()
    m.w = q
    np.testing.assert_allclose(m.w.detach().array, q.array, atol=1e-12)
    m.w = cf.tensor(np.eye(*shape))  # reflections that LAPACK leaves out
    np.testing.assert_allclose(m.w.detach().array, np.eye(*shape), atol=1e-12)


@pytest.mark.parametrize("name", ["matrix_exp", "cayley"])
def test_other_maps_cannot_be_assigned_without_a_base(name):
    m = made((3, 3), name, use_trivialization=False)
    with pytest.raises(NotImplementedError, match=f"cannot be assigned through {name}, only through 'householder'"):
        m.w = cf.tensor(np.eye(3))


def test_signs_of_reflections_outlive_weight_decay():
    m = made((3, 2), "householder")
    before = m.w.detach().array
    rows = np.arange(2)
    original_of(m).array[rows, rows] *= 0.9  # PyTorch's would be cut off to 0
    np.testing.assert_array_equal(m.w.detach().array, before)


def test_default_maps():
    assert made((3, 3)).parametrizations.w[0].orthogonal_map == "matrix_exp"
    assert made((3, 2)).parametrizations.w[0].orthogonal_map == "householder"


def test_matrix_exp_is_the_exponential():
    from scipy.linalg import expm

    m = moved(made((4, 4), "matrix_exp", use_trivialization=False), 40)
    x = np.tril(original_of(m).detach().array)
    np.testing.assert_allclose(m.w.detach().array, expm(x - x.T), atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@every_map
def test_other_dtypes(name, dtype):
    m = made((4, 3), name, dtype)
    assert m.w.dtype.name == dtype and off(m.w) < (1e-5 if dtype == "float32" else 0.05)
    m.w.sum().backward()
    assert original_of(m).grad.dtype.name == dtype


def test_it_trains_copies_and_comes_off():
    cf.manual_seed(0)
    net = orthogonal(nn.Linear(6, 6))
    target = moved(made((6, 6)), 0.3).w.detach().float()
    optimizer = cf.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((net.weight - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0] and off(net.weight) < 1e-5
    twin = copy.deepcopy(net)
    np.testing.assert_array_equal(twin.weight.detach().array, net.weight.detach().array)
    parametrize.remove_parametrizations(net, "weight")
    assert isinstance(net.weight, nn.Parameter)
    np.testing.assert_array_equal(twin.weight.detach().array, net.weight.array)


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: orthogonal(nn.Linear(2, 2), "w"), "orthogonal: Linear has no parameter or buffer 'w'"),
        (lambda: orthogonal(nn.Linear(2, 2), "bias"), r"'bias' must have at least 2 dimensions, got shape \(2,\)"),
        (lambda: made((2, 2), "qr"), "must be one of 'matrix_exp', 'cayley', 'householder', got 'qr'"),
        (lambda: setattr(made((2, 2)), "w", cf.ones(3, 2)), r"matrix must have shape \(2, 2\), got \(3, 2\)"),
    ],
)
def test_errors(act, text):
    with pytest.raises(ValueError, match=text):
        act()
