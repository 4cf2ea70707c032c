"""nn.utils: clipping, vectors, packed sequences, parametrizations."""

import copy
import math
import pickle

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
    parameters_to_vector,
    parametrize,
    vector_to_parameters,
)
from cuframe.nn.utils.parametrizations import weight_norm
from cuframe.nn.utils.rnn import (
    PackedSequence,
    invert_permutation,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)
from cuframe.sparse import SparseGrad


def with_grads(*grads, dtype="float32"):
    params = []
    for g in grads:
        g = np.asarray(g, dtype)
        p = nn.Parameter(np.zeros_like(g))
        p.grad = cf.tensor(g)
        params.append(p)
    return params


# -- clipping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, 0.5, math.inf, -math.inf, 0.0])
def test_norm_of_any_order(order):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(s) for s in ((3, 4), (5,), ())]
    norms = [float(np.linalg.norm(g.ravel(), order)) for g in grads]
    expected = float(np.linalg.norm(norms, order))
    params = with_grads(*grads, dtype="float64")
    assert get_total_norm([p.grad for p in params], order).item() == pytest.approx(expected, rel=1e-12)
    total = clip_grad_norm_(params, expected / 2, order)
    assert total.item() == pytest.approx(expected, rel=1e-12) and total.shape == ()
    for p, g in zip(params, grads):
        np.testing.assert_allclose(p.grad.array, g * (expected / 2 / (expected + 1e-6)), rtol=1e-12)


def test_a_known_norm():
    params = with_grads([3.0], [4.0])
    clip_grads_with_norm_(params, 1.0, get_total_norm([p.grad for p in params]))
    np.testing.assert_allclose([p.grad.item() for p in params], [0.6, 0.8], rtol=1e-5)


def test_small_gradients_stay_as_they_are():
    (p,) = with_grads([3.0, 4.0])
    array = p.grad.array
    assert clip_grad_norm_(p, 100.0).item() == 5
    assert p.grad.array is array and p.grad.tolist() == [3, 4]


def test_no_gradients():
    assert clip_grad_norm_([nn.Parameter([1.0])], 1.0).item() == 0
    assert clip_grad_norm_([], 1.0).item() == 0
    clip_grad_value_([nn.Parameter([1.0])], 1.0)


def test_nonfinite_norms():
    params = with_grads([1.0], [math.inf])
    with pytest.raises(RuntimeError, match="clip_grad_norm_: the norm of order 2 of the gradients is inf"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad.item() == 1
    with pytest.raises(RuntimeError, match="get_total_norm: .* nan"):
        get_total_norm([cf.tensor(math.nan)], error_if_nonfinite=True)
    assert clip_grad_norm_(params, 1.0).item() == math.inf
    assert params[0].grad.item() == 0 and math.isnan(params[1].grad.item())


def test_squares_may_overflow_where_the_norm_does_not():
    params = with_grads([3e25, 4e25])
    assert clip_grad_norm_(params, 1.0).item() == pytest.approx(5e25)
    np.testing.assert_allclose(params[0].grad.array, [0.6, 0.8], rtol=1e-5)
    params = with_grads([3e-25, 4e-25])
    assert clip_grad_norm_(params, 1.0).item() == pytest.approx(5e-25)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    params = with_grads([300.0] * 100, dtype=dtype)
    assert clip_grad_norm_(params, 1.0).item() == pytest.approx(3000, rel=1e-2)
    assert params[0].grad.dtype.name == dtype and float(params[0].grad.array[0]) == pytest.approx(0.1, rel=1e-2)


def test_sparse_gradients_count_rows_once():
    p = nn.Parameter(np.zeros((4, 2), np.float32))
    p.grad = SparseGrad(np.array([1, 3, 1]), np.array([[1.0, 0.0], [0.0, 4.0], [2.0, 0.0]], np.float32), (4, 2))
    assert clip_grad_norm_([p], 2.5).item() == 5
    np.testing.assert_allclose(p.grad.to_dense().array, [[0, 0], [1.5, 0], [0, 0], [0, 2]], rtol=1e-5)


def test_clip_value():
    (p,) = with_grads([-3.0, 0.5, 2.0])
    clip_grad_value_(p, 1.0)
    assert p.grad.tolist() == [-1, 0.5, 1]
    with pytest.raises(TypeError, match="parameters must be Tensors, got int"):
        clip_grad_value_([3], 1.0)


def test_norm_of_tensors_of_any_kind():
    rows = SparseGrad(np.array([1, 1]), np.array([[1.0], [2.0]], np.float32), (4, 1))
    total = get_total_norm([rows, cf.tensor([4.0], dtype="float64")])
    assert total.item() == 5 and total.dtype == np.float64
    with pytest.raises(TypeError, match="get_total_norm: tensors must be floating point, got int64"):
        get_total_norm([cf.tensor([3])])
    with pytest.raises(TypeError, match="get_total_norm: tensors must be a Tensor, got int"):
        get_total_norm([3])


# -- vectors ------------------------------------------------------------------------------------------------------


def test_vector_and_back():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    v = parameters_to_vector(net.parameters())
    assert v.shape == (13,)
    (v * v).sum().backward()
    np.testing.assert_array_equal(net[0].weight.grad.array, 2 * net[0].weight.array)
    vector_to_parameters(cf.tensor(np.arange(13.0)), net.parameters())
    assert net[0].weight.tolist() == [[0, 1], [2, 3], [4, 5]] and net[1].bias.tolist() == [12]
    assert net[0].weight.dtype == np.float32
    for bad in (cf.ones(12), cf.ones(14)):
        with pytest.raises(ValueError, match=r"vec must have shape \(13,\)"):
            vector_to_parameters(bad, net.parameters())
    assert net[1].bias.tolist() == [12]
    with pytest.raises(TypeError, match="must be a Tensor"):
        vector_to_parameters(np.ones(13), net.parameters())
    with pytest.raises(ValueError, match="no parameters"):
        parameters_to_vector([])


def test_skip_init_draws_nothing():
    cf.manual_seed(0)
    state = str(cf.get_rng_state())
    m = nn.utils.skip_init(nn.LSTM, 2, 3, num_layers=2, dtype="float64")
    assert str(cf.get_rng_state()) == state
    assert m.weight_hh_l1.shape == (12, 3) and m.weight_hh_l1.dtype == np.float64 and m.weight_hh_l1.requires_grad
    nn.Linear(1, 1)
    assert str(cf.get_rng_state()) != state
    with pytest.raises(TypeError, match="skip_init: module_cls must be a subclass of Module, got 3"):
        nn.utils.skip_init(3)


# -- sequences ----------------------------------------------------------------------------------------------------

LENGTHS = [2, 5, 1, 5, 3]


def padded(batch_first):
    x = np.random.default_rng(0).standard_normal((5, 5, 2))
    return cf.tensor(x if batch_first else x.swapaxes(0, 1).copy(), dtype="float64", requires_grad=True)


@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_rows_by_hand(batch_first):
    x = padded(batch_first)
    p = pack_padded_sequence(x, LENGTHS, batch_first, enforce_sorted=False)
    assert p.sorted_indices.tolist() == [1, 3, 4, 0, 2] and p.unsorted_indices.tolist() == [3, 0, 4, 1, 2]
    assert p.batch_sizes.tolist() == [5, 4, 3, 2, 2]
    table = x.detach().array if batch_first else x.detach().array.swapaxes(0, 1)
    rows = [table[b, t] for t in range(5) for b in [1, 3, 4, 0, 2] if t < LENGTHS[b]]
    np.testing.assert_array_equal(p.data.detach().array, rows)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("total", [None, 7])
def test_pack_and_pad_are_inverse(batch_first, total):
    x = padded(batch_first)
    p = pack_padded_sequence(x, cf.tensor(LENGTHS), batch_first, enforce_sorted=False)
    y, lengths = pad_packed_sequence(p, batch_first, padding_value=-1.0, total_length=total)
    assert lengths.tolist() == LENGTHS and lengths.dtype == np.int64
    steps = total or 5
    assert y.shape == ((5, steps, 2) if batch_first else (steps, 5, 2))
    inside = np.arange(steps)[None, :] < np.array(LENGTHS)[:, None]
    table = y.detach().array if batch_first else y.detach().array.swapaxes(0, 1)
    given = x.detach().array if batch_first else x.detach().array.swapaxes(0, 1)
    np.testing.assert_array_equal(table[inside], given[inside[:, :5]])
    assert (table[~inside] == -1).all()
    (y * y).sum().backward()
    grad = x.grad.array if batch_first else x.grad.array.swapaxes(0, 1)
    np.testing.assert_array_equal(grad, 2 * given * inside[:, :5, None])


def test_second_derivatives_pass():
    def f(x):
        p = pack_padded_sequence(x, LENGTHS, True, enforce_sorted=False)
        return pad_packed_sequence(PackedSequence(p.data**3, *p[1:]), True)[0]

    x = padded(True)
    assert cf.autograd.gradcheck(f, (x,)) and cf.autograd.gradgradcheck(f, (x,))


def test_sorted_sequences_need_no_order():
    x = cf.ones(3, 2, 1)
    p = pack_padded_sequence(x, [3, 1])
    assert p.sorted_indices is None and p.unsorted_indices is None and p.batch_sizes.tolist() == [2, 1, 1]
    assert p.to("float64").data.dtype == np.float64 and p.double().half().data.dtype == np.float16
    assert p.float() is p and p.cpu() is p and not p.is_cuda
    data, sizes, order, back = p
    assert data is p.data and sizes is p.batch_sizes and order is back is None


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda x: pack_padded_sequence(x, [1, 3]), ValueError, r"sorted.*got \[1, 3\]; enforce_sorted=False"),
        (lambda x: pack_padded_sequence(x, [3]), ValueError, "lengths must have 2 entries.*got 1"),
        (lambda x: pack_padded_sequence(x, [4, 1]), ValueError, r"lengths must be in \[1, 3\], got 4"),
        (lambda x: pack_padded_sequence(x, [3, 0]), ValueError, r"lengths must be in \[1, 3\], got 0"),
        (lambda x: pack_padded_sequence(x, [3.0, 1.0]), TypeError, "list of integers.*float64"),
        (lambda x: pack_padded_sequence(x.array, [3, 1]), TypeError, "input must be a Tensor, got ndarray"),
        (lambda x: pack_padded_sequence(cf.ones(3), [3]), ValueError, "at least 2 dimensions"),
        (lambda x: pad_packed_sequence(pack_padded_sequence(x, [3, 1]), total_length=2), ValueError,
         "at least the longest sequence's 3, got 2"),
        (lambda x: pad_sequence([]), ValueError, "no sequences"),
        (lambda x: pad_sequence(3), TypeError, "list of Tensors, got int"),
        (lambda x: pad_sequence([cf.ones(2, 3), cf.ones(2, 4)]), ValueError, "agree in all dimensions"),
        (lambda x: pad_sequence([x], padding_side="top"), ValueError, "'left' or 'right', got 'top'"),
        (lambda x: unpad_sequence(x, [1]), ValueError, "must have 2 entries, got 1"),
        (lambda x: PackedSequence(x, [1]), TypeError, "must be Tensors.*list"),
    ],
)  # fmt: skip
def test_sequence_errors(act, error, text):
    with pytest.raises(error, match=text):
        act(cf.ones(3, 2, 1))


def test_lists_of_sequences():
    parts = [cf.tensor(np.arange(n * 2.0).reshape(n, 2), requires_grad=True) for n in (2, 3, 0, 1)]
    y = pad_sequence(parts, batch_first=True, padding_value=9)
    assert y.shape == (4, 3, 2) and (y.array[2] == 9).all() and (y.array[3, 1:] == 9).all()
    left = pad_sequence(parts, batch_first=True, padding_side="left")
    np.testing.assert_array_equal(left.array[0], [[0, 0], [0, 1], [2, 3]])
    np.testing.assert_array_equal(pad_sequence(parts).array, pad_sequence(parts, batch_first=True).array.swapaxes(0, 1))
    for whole, part in zip(unpad_sequence(y, [2, 3, 0, 1], batch_first=True), parts):
        np.testing.assert_array_equal(whole.detach().array, part.detach().array)
    y.sum().backward()
    assert all((p.grad.array == 1).all() for p in parts)
    kept = [parts[0], parts[1], parts[3]]
    for whole, part in zip(unpack_sequence(pack_sequence(kept, enforce_sorted=False)), kept):
        np.testing.assert_array_equal(whole.detach().array, part.detach().array)
    assert invert_permutation(cf.tensor([2, 0, 1])).tolist() == [1, 2, 0] and invert_permutation(None) is None


# -- parametrizations ---------------------------------------------------------------------------------------------


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, a):
        return a.triu()


class Scaled(nn.Module):
    def forward(self, x):
        return 2 * x


def symmetric_linear():
    return parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())


def test_symmetric_weight():
    m = nn.Linear(3, 3)
    p = m.weight
    assert parametrize.register_parametrization(m, "weight", Symmetric()) is m
    assert type(m.parametrizations.weight) is parametrize.ParametrizationList
    assert m.parametrizations.weight.original is p
    np.testing.assert_array_equal(m.weight.detach().array, m.weight.detach().array.T)
    assert [n for n, _ in m.named_parameters()] == ["bias", "parametrizations.weight.original"]
    assert list(m.state_dict()) == ["bias", "parametrizations.weight.original"]
    m(cf.ones(2, 3)).sum().backward()
    assert p.grad is not None and (np.tril(p.grad.array, -1) == 0).all()
    assert parametrize.is_parametrized(m) and parametrize.is_parametrized(m, "weight")
    assert not parametrize.is_parametrized(m, "bias") and not parametrize.is_parametrized(nn.Linear(1, 1))
    assert type(m).__name__ == "ParametrizedLinear" and isinstance(m, nn.Linear)
    assert parametrize.type_before_parametrizations(m) is nn.Linear
    assert repr(m).startswith("ParametrizedLinear(\n  in_features=3, out_features=3, bias=True\n  (parametrizations)")


def test_other_modules_of_the_class_stay_as_they_are():
    symmetric_linear()
    assert isinstance(nn.Linear(1, 1).weight, nn.Parameter) and "weight" not in vars(nn.Linear)


def test_assigning_goes_through_right_inverse():
    m = symmetric_linear()
    a = np.arange(9.0, dtype=np.float32).reshape(3, 3)
    m.weight = cf.tensor(a + a.T)
    np.testing.assert_array_equal(m.weight.detach().array, a + a.T)
    np.testing.assert_array_equal(m.parametrizations.weight.original.array, np.triu(a + a.T))
    parametrize.register_parametrization(m, "weight", Scaled())
    np.testing.assert_array_equal(m.weight.detach().array, 2 * (a + a.T))
    with pytest.raises(RuntimeError, match="Scaled has no right_inverse"):
        m.weight = cf.tensor(a)
    np.testing.assert_array_equal(m.weight.detach().array, 2 * (a + a.T))


def test_an_inverse_that_is_not_implemented_is_none():
    class OneWay(nn.Module):
        def forward(self, x):
            return x * x

        def right_inverse(self, y):
            raise NotImplementedError("OneWay: no inverse")

    m = nn.Linear(2, 2)
    before = m.weight.detach().array.copy()
    parametrize.register_parametrization(m, "weight", OneWay())
    np.testing.assert_array_equal(m.weight.detach().array, before**2)
    with pytest.raises(NotImplementedError, match="OneWay: no inverse"):
        m.weight = cf.ones(2, 2)


def test_remove_parametrizations():
    m = symmetric_linear()
    p, value = m.parametrizations.weight.original, m.weight.detach().array.copy()
    parametrize.remove_parametrizations(m, "weight")
    assert type(m) is nn.Linear and m.weight is p and not hasattr(m, "parametrizations")
    np.testing.assert_array_equal(m.weight.array, value)
    m = symmetric_linear()
    p, value = m.parametrizations.weight.original, m.parametrizations.weight.original.array.copy()
    parametrize.remove_parametrizations(m, "weight", leave_parametrized=False)
    assert m.weight is p
    np.testing.assert_array_equal(p.array, value)
    with pytest.raises(ValueError, match="'weight' of Linear is not parametrized"):
        parametrize.remove_parametrizations(m, "weight")


def test_two_tensors_and_a_buffer():
    m = symmetric_linear()
    m.register_buffer("buf", cf.ones(2))
    parametrize.register_parametrization(m, "buf", Scaled())
    assert m.buf.tolist() == [2, 2] and list(m.state_dict())[-1] == "parametrizations.buf.original"
    parametrize.remove_parametrizations(m, "weight")
    assert parametrize.is_parametrized(m, "buf") and m.buf.tolist() == [2, 2]
    parametrize.remove_parametrizations(m, "buf")
    assert m._buffers["buf"].tolist() == [2, 2] and type(m) is nn.Linear


def test_cached_computes_once():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x * 1

    m = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Counted())
    calls.clear()
    with parametrize.cached():
        with parametrize.cached():
            assert m.weight is m.weight
        assert len(calls) == 1
        m(cf.ones(1, 2))
    assert len(calls) == 1
    m.weight  # noqa: B018
    m.weight  # noqa: B018
    assert len(calls) == 3


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_weight_norm(dim):
    m = nn.Linear(3, 4)
    before = m.weight.array.copy()
    weight_norm(m, dim=dim)
    assert list(m.state_dict()) == [
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]  # fmt: skip
    np.testing.assert_allclose(m.weight.detach().array, before, rtol=1e-6)
    g, v = m.parametrizations.weight.original0, m.parametrizations.weight.original1
    axes = None if dim in (None, -1) else 1 - dim  # -1 is all dimensions, as in PyTorch
    np.testing.assert_allclose(g.array, np.sqrt((before**2).sum(axis=axes, keepdims=axes is not None)), rtol=1e-6)
    g.array[...] = g.array * 2
    np.testing.assert_allclose(m.weight.detach().array, 2 * before, rtol=1e-6)
    m(cf.ones(1, 3)).sum().backward()
    assert g.grad is not None and v.grad is not None
    with pytest.raises(ValueError, match="has 2 originals"):
        parametrize.remove_parametrizations(m, "weight", leave_parametrized=False)
    parametrize.remove_parametrizations(m, "weight")
    assert isinstance(m.weight, nn.Parameter) and m.weight.requires_grad


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies(twin_of):
    m = symmetric_linear()
    twin = twin_of(m)
    assert type(twin) is not type(m) and type(twin).__name__ == "ParametrizedLinear"
    np.testing.assert_array_equal(twin.weight.detach().array, m.weight.detach().array)
    twin.load_state_dict({k: v.array * 0 for k, v in m.state_dict().items()})
    assert (twin.weight.array == 0).all() and (m.weight.array != 0).any()
    parametrize.remove_parametrizations(twin, "weight")
    assert parametrize.is_parametrized(m, "weight") and type(twin) is nn.Linear


class Transposed(nn.Module):
    def forward(self, x):
        return x.t()


class Widened(nn.Module):
    def forward(self, x):
        return x.double()


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda m: parametrize.register_parametrization(m, "w", Scaled()), ValueError,
         "Linear has no parameter or buffer 'w'"),
        (lambda m: parametrize.register_parametrization(m, "weight", 3), TypeError, "expected a Module, got int"),
        (lambda m: parametrize.register_parametrization(m, "weight", Transposed()), ValueError,
         r"must keep shape \(3, 2\).*got \(2, 3\)"),
        (lambda m: parametrize.register_parametrization(m, "weight", Widened()), ValueError,
         "dtype float32, got .* float64"),
    ],
)  # fmt: skip
def test_parametrization_errors_change_nothing(act, error, text):
    m = nn.Linear(2, 3)
    with pytest.raises(error, match=text):
        act(m)
    assert type(m) is nn.Linear and list(m.state_dict()) == ["weight", "bias"]


def test_unsafe_allows_another_shape():
    m = parametrize.register_parametrization(nn.Linear(2, 3), "weight", Transposed(), unsafe=True)
    assert m.weight.shape == (2, 3)
    with pytest.raises(ValueError, match="must keep shape"):
        parametrize.register_parametrization(m, "weight", Transposed())
    assert len(m.parametrizations.weight) == 1
