"""weight_norm and spectral_norm: by hooks, and spectral_norm as a parametrization."""

import copy
import pickle

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.autograd import gradcheck, gradgradcheck
from cuframe.nn.utils import parametrizations, parametrize, remove_spectral_norm, remove_weight_norm

X = np.random.default_rng(0).standard_normal((2, 3))
weight_norm, spectral_norm = nn.utils.weight_norm, nn.utils.spectral_norm
HOOKS = pytest.mark.parametrize(
    ("add", "remove"), [(weight_norm, remove_weight_norm), (spectral_norm, remove_spectral_norm)],
    ids=["weight_norm", "spectral_norm"],
)  # fmt: skip


def linear():
    cf.manual_seed(0)
    return nn.Linear(3, 4, dtype="float64")


def x():
    return cf.tensor(X)


def largest(w):
    return np.linalg.norm(w.detach().array.reshape(w.shape[0], -1), 2)


def test_weight_norm_keeps_the_value_and_trains_its_length():
    m = linear()
    before, out, v = m.weight.detach().array.copy(), m(x()).detach().array, m.weight
    assert weight_norm(m) is m
    assert list(m.state_dict()) == ["bias", "weight_g", "weight_v"] and m.weight_v is v
    assert not isinstance(m.weight, nn.Parameter)
    np.testing.assert_allclose(m.weight_g.array[:, 0], np.linalg.norm(before, axis=1))
    np.testing.assert_allclose(m(x()).detach().array, out)
    m.weight_g.array[...] *= 2
    m.weight_v.array[...] *= 5
    m(x()).sum().backward()
    np.testing.assert_allclose(m.weight.detach().array, 2 * before)
    assert m.weight_g.grad is not None
    np.testing.assert_allclose((m.weight_v.grad * m.weight_v.detach()).sum(1).array, 0, atol=1e-12)  # across v only


@pytest.mark.parametrize(("dim", "shape"), [(0, (4, 1)), (1, (1, 3)), (-2, (4, 1)), (-1, ()), (None, ())])
def test_dimension_of_weight_norm(dim, shape):
    m = linear()
    before = m.weight.detach().array.copy()
    weight_norm(m, dim=dim)
    assert tuple(m.weight_g.shape) == shape
    np.testing.assert_allclose(m.weight.detach().array, before)
    assert tuple(parametrizations.weight_norm(linear(), dim=dim).parametrizations.weight.original0.shape) == shape


def test_weight_norm_of_a_vector():
    m = weight_norm(linear(), "bias")
    np.testing.assert_allclose(m.bias_g.array, abs(m.bias_v.array))
    assert list(m.state_dict()) == ["weight", "bias_g", "bias_v"]


@HOOKS
def test_recurrent_weights(add, remove):
    m = nn.LSTM(3, 4)
    for name in ("weight_hh_l0", "weight_ih_l0"):
        add(m, name)
    out, _ = m(cf.ones(5, 2, 3))
    out.sum().backward()
    assert all(p.grad is not None for p in m.parameters())
    for name in ("weight_hh_l0", "weight_ih_l0"):
        remove(m, name)
    m.eval()
    np.testing.assert_allclose(m(cf.ones(5, 2, 3))[0].detach().array, out.detach().array, rtol=1e-4, atol=1e-6)


def test_spectral_norm_converges_in_training_and_rests_in_evaluation():
    m = spectral_norm(linear())
    assert list(m.state_dict()) == ["bias", "weight_orig", "weight_u", "weight_v"]
    assert [n for n, _ in m.named_buffers()] == ["weight_u", "weight_v"]
    for _ in range(100):
        m(x())
    np.testing.assert_allclose(largest(m.weight), 1, rtol=1e-9)
    np.testing.assert_allclose(m.weight.detach().array * largest(m.weight_orig), m.weight_orig.array)
    m.weight_orig.array[0] += 1
    u, v = m.weight_u.array.copy(), m.weight_v.array.copy()
    m.eval()(x())
    np.testing.assert_array_equal(m.weight_u.array, u)
    np.testing.assert_array_equal(m.weight_v.array, v)
    sigma = u @ m.weight_orig.array @ v
    np.testing.assert_allclose(m.weight.detach().array, m.weight_orig.array / sigma)


def test_two_forwards_before_one_backward():
    m = spectral_norm(linear())
    (m(x()) - m(2 * x())).sum().backward()  # as a discriminator is trained
    assert m.weight_orig.grad is not None
    p = parametrizations.spectral_norm(linear())
    (p(x()) - p(2 * x())).sum().backward()
    assert p.parametrizations.weight.original.grad is not None


def test_spectral_norm_of_transposed_weights_and_of_given_dimension():
    m = nn.Bilinear(2, 3, 4)
    assert tuple(spectral_norm(m, dim=1).weight_u.shape) == (2,) and tuple(m.weight_v.shape) == (12,)
    assert tuple(spectral_norm(nn.Conv1d(2, 5, 3)).weight_u.shape) == (5,)
    assert tuple(spectral_norm(nn.ConvTranspose1d(2, 5, 3)).weight_u.shape) == (5,)
    m = parametrizations.spectral_norm(nn.ConvTranspose1d(2, 5, 3))
    assert tuple(m.parametrizations.weight[0]._u.shape) == (5,)


@HOOKS
def test_remove(add, remove):
    m = add(linear())
    m(x())
    value = m.weight.detach().array.copy()
    assert remove(m) is m
    assert sorted(m.state_dict()) == ["bias", "weight"] and isinstance(m.weight, nn.Parameter) and not m._hooks
    np.testing.assert_allclose(m.weight.array, value, rtol=1e-12)
    with pytest.raises(ValueError, match=f"{remove.__name__}: Linear has no {add.__name__} of 'weight'"):
        remove(m)


@HOOKS
@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_live_on_their_own(add, remove, twin_of):
    m = add(linear())
    m(x()).sum().backward()
    twin = twin_of(m)
    assert twin.weight.array is not m.weight.array
    np.testing.assert_array_equal(twin.eval()(x()).detach().array, m.eval()(x()).detach().array)
    next(p for n, p in twin.named_parameters() if n != "bias").array[...] += 1
    assert (twin(x()).array != m(x()).array).any()
    remove(twin)
    assert not twin._hooks and m._hooks


@HOOKS
def test_shallow_copy(add, remove):
    m = add(linear()).eval()
    twin = copy.copy(m)
    m.bias.array[...] = 0
    np.testing.assert_array_equal(twin(x()).detach().array, m(x()).detach().array)


@HOOKS
def test_frozen_weights_stay_frozen(add, remove):
    m = linear()
    m.weight.requires_grad_(False)
    add(m)
    assert [n for n, p in m.named_parameters() if p.requires_grad] == ["bias"]
    remove(m)
    assert not m.weight.requires_grad


@HOOKS
def test_dtype_moves_with_the_module(add, remove):
    m = add(linear()).float()
    assert m(x().float()).dtype == np.float32
    assert add(nn.Linear(3, 4).bfloat16())(x().bfloat16()).dtype == cf.bfloat16


@HOOKS
def test_errors_change_nothing(add, remove):
    name = add.__name__
    m = add(linear())
    for another in (weight_norm, spectral_norm):
        text = f"{another.__name__}: 'weight' of Linear has {name} already; {remove.__name__} takes it off"
        with pytest.raises(RuntimeError, match=text):
            another(m)
    m = nn.Linear(3, 4, bias=False)
    for bad, error, text in (
        ({"name": "w"}, AttributeError, "Linear has no parameter 'w'"),
        ({"name": "bias"}, ValueError, f"{name}: 'bias' of Linear is None"),
        ({"dim": 2}, IndexError, rf"{name}: dim must be in \[-2, 1\], got 2"),
    ):
        with pytest.raises(error, match=text):
            add(m, **bad)
    assert list(m.state_dict()) == ["weight"] and not m._hooks


@pytest.mark.parametrize("add", [spectral_norm, parametrizations.spectral_norm])
def test_errors_of_spectral_norm(add):
    m = linear()
    with pytest.raises(ValueError, match="n_power_iterations must be positive, got 0"):
        add(m, n_power_iterations=0)
    with pytest.raises(IndexError, match=r"dim must be in \[-2, 1\], got -3"):
        add(m, dim=-3)
    with pytest.raises((AttributeError, ValueError), match="Linear has no parameter .*'w'"):
        add(m, "w")
    assert isinstance(m.weight, nn.Parameter)


def test_parametrized_spectral_norm():
    m = linear().eval()
    assert parametrizations.spectral_norm(m) is m
    prefix = "parametrizations.weight."
    assert list(m.state_dict()) == ["bias", prefix + "original", prefix + "0._u", prefix + "0._v"]
    np.testing.assert_allclose(largest(m.weight), 1, rtol=1e-3)
    assert not m.parametrizations.weight[0].training  # as the module when it was added
    first = m.weight.detach().array
    np.testing.assert_array_equal(m.weight.detach().array, first)
    m.train()
    for _ in range(100):
        m.weight  # noqa: B018
    np.testing.assert_allclose(largest(m.weight), 1, rtol=1e-9)
    twin = copy.deepcopy(m).eval()
    np.testing.assert_array_equal(twin.weight.detach().array, m.eval().weight.detach().array)
    m.weight = 3 * m.parametrizations.weight.original.detach()
    np.testing.assert_allclose(m.weight.detach().array, twin.weight.detach().array)
    parametrize.remove_parametrizations(m, "weight")
    np.testing.assert_allclose(m.weight.detach().array, twin.weight.detach().array)


def test_parametrized_spectral_norm_of_a_vector():
    m = parametrizations.spectral_norm(linear(), "bias")
    np.testing.assert_allclose(np.linalg.norm(m.bias.detach().array), 1)
    assert not list(m.parametrizations.bias[0].buffers())


def test_state_of_the_hook_loads_into_the_parametrization():
    m = weight_norm(linear())
    m.weight_g.array[...] = 3
    p = parametrizations.weight_norm(linear())
    p.load_state_dict(m.state_dict())
    np.testing.assert_allclose(np.linalg.norm(p.weight.detach().array, axis=1), 3)


def test_spectral_norm_reads_states_without_v():
    m = spectral_norm(linear())
    for _ in range(3):
        m(x())
    old = {**m.state_dict(), "weight": m.weight.detach().clone()}
    del old["weight_v"]
    twin = spectral_norm(linear()).eval()
    twin.load_state_dict(old)
    twin(x())
    np.testing.assert_allclose(twin.weight.detach().array, old["weight"].array)
    del old["weight_orig"]
    with pytest.raises(RuntimeError, match='missing key.*"weight_orig"'):
        twin.load_state_dict(old)


@pytest.mark.parametrize(
    ("add", "names"),
    [(weight_norm, ["weight_g", "weight_v"]), (lambda m: weight_norm(m, dim=None), ["weight_g", "weight_v"]),
     (spectral_norm, ["weight_orig"])],
    ids=["weight_norm", "weight_norm-all", "spectral_norm"],
)  # fmt: skip
def test_gradients_through_hooks(add, names):
    m = add(linear()).eval()

    def f(x, *parameters):
        m._parameters.update(zip(names, parameters))
        return m(x)

    inputs = (cf.tensor(X, requires_grad=True), *(getattr(m, name) for name in names))
    assert gradcheck(f, inputs) and gradgradcheck(f, inputs, fast_mode=True)


def test_gradients_through_the_parametrization():
    m = parametrizations.spectral_norm(linear()).eval()
    table = m.parametrizations.weight

    def f(original):
        table._parameters["original"] = original
        return m(x())

    assert gradcheck(f, (table.original,)) and gradgradcheck(f, (table.original,), fast_mode=True)
