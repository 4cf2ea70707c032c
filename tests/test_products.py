"""Products under NumPy's names, what they keep for backward, and what they do beside other features."""

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(0)


def t(*shape):
    return cf.Tensor(RNG.standard_normal(shape)).requires_grad_()


NUMPY = [
    (np.matmul, (t(2, 3), t(3, 4)), ()),
    (np.dot, (t(3), t(3)), ()),
    (np.dot, (t(2, 3), t(3, 4)), ()),
    (np.dot, (t(2, 2, 3), t(2, 3, 4)), ()),
    (np.dot, (t(2, 2, 3), t(3)), ()),
    (np.dot, (t(), t(2, 3)), ()),
    (np.vdot, (t(3), t(3)), ()),
    (np.inner, (t(2, 3), t(4, 3)), ()),
    (np.outer, (t(2, 2), t(3)), ()),
    (np.tensordot, (t(2, 3), t(3, 4)), (1,)),
    (np.kron, (t(2, 2), t(2, 1)), ()),
    (np.linalg.matrix_power, (t(2, 2),), (3,)),
    (np.linalg.inv, (cf.Tensor(np.eye(2) * 3 + 1).requires_grad_(),), ()),
]


@pytest.mark.parametrize("function, operands, rest", NUMPY, ids=lambda v: getattr(v, "__name__", None))
def test_numpy_functions_take_tensors(function, operands, rest):
    result = function(*operands, *rest)
    assert isinstance(result, cf.Tensor) and result.requires_grad
    np.testing.assert_allclose(result.array, function(*(o.array for o in operands), *rest), 1e-12)
    assert gradcheck(lambda *x: function(*x, *rest), operands)
    assert gradgradcheck(lambda *x: function(*x, *rest), operands)


def test_numpy_einsum_takes_tensors_and_its_optimize_argument():
    a, b, c = t(2, 3), t(3, 4), t(4, 2)
    for optimize in (False, True):
        result = np.einsum("ij,jk,kl->il", a, b, c, optimize=optimize)
        np.testing.assert_allclose(result.array, a.array @ b.array @ c.array)


def test_arrays_are_operands_too():
    x, w = t(2, 3), RNG.standard_normal((3, 4))
    np.testing.assert_array_equal((x @ w).array, x.array @ w)
    np.testing.assert_array_equal((w.T @ x.T).array, w.T @ x.array.T)
    (x @ w).sum().backward()
    np.testing.assert_allclose(x.grad.array, np.broadcast_to(w.sum(1), (2, 3)))


def saved_arrays(out):
    return [item for item in out.node.saved if isinstance(item, np.ndarray)]


def test_only_what_a_gradient_needs_is_kept():
    x, w, b = t(2, 3), t(4, 3), t(4)
    kept = saved_arrays(F.linear(x.detach(), w, b))
    assert len(kept) == 1 and kept[0] is x.array
    kept = saved_arrays(F.linear(x, w.detach(), b))
    assert len(kept) == 1 and kept[0] is w.array
    assert len(saved_arrays(F.linear(x, w, b))) == 2
    kept = saved_arrays(cf.matmul(x, w.detach().T))
    assert len(kept) == 1 and np.shares_memory(kept[0], w.array)
    kept = saved_arrays(cf.addmm(b.detach(), x, w.detach().T))
    assert len(kept) == 1 and np.shares_memory(kept[0], w.array)


def test_only_gradients_that_are_needed_are_computed(monkeypatch):
    from cuframe.ops import linear as module

    calls = []
    product = module.product
    monkeypatch.setattr(module, "product", lambda a, b: (calls.append((a.shape, b.shape)), product(a, b))[1])
    out = F.linear(t(2, 3).detach(), t(4, 3), t(4))
    calls.clear()
    out.sum().backward()
    assert calls == [((4, 2), (2, 3)), ((1, 2), (2, 4))]  # of the weight and of the bias, none of the input


def test_linear_is_one_node():
    x, w, b = t(2, 5, 3), t(4, 3), t(4)
    out = F.linear(x, w, b)
    assert out.node.inputs == (x.node, w.node, b.node)


def test_changing_a_kept_operand_is_noticed():
    x, w = t(2, 3), t(3, 4)
    h = x * 2
    out = h @ w
    h += 1
    with pytest.raises(RuntimeError, match=r"backward: an array that matmul saved .* was changed in place by add_"):
        out.sum().backward()


def test_half_precision_is_summed_in_float32():
    for dtype in ("float16", "bfloat16"):
        x = cf.ones(1, 5000, dtype=dtype)
        assert (x @ x.T).item() == np.float32(5000).astype(cf.float16 if dtype == "float16" else cf.bfloat16)
        assert F.linear(x, x).dtype == x.dtype


def test_beta_zero_leaves_the_input_out():
    nan = cf.full((2,), float("nan"), requires_grad=True)
    out = cf.addmm(nan, cf.ones(2, 3), cf.ones(3, 2), beta=0)
    assert out.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    out.sum().backward()
    assert nan.grad.tolist() == [0.0, 0.0]


def test_einsum_of_many_operands_goes_pair_by_pair():
    chain = [t(6, 6).detach() for _ in range(6)]
    out = cf.einsum("ab,bc,cd,de,ef,fg->ag", *chain)
    expected = np.linalg.multi_dot([c.array for c in chain])
    np.testing.assert_allclose(out.array, expected, 1e-10)


def test_cross_entropy_keeps_precision_where_probabilities_are_near_one():
    x = cf.tensor([[14.0, 0.0], [90.0, 60.0], [-14.0, 0.0], [1000.0, 0.0]])
    loss = F.cross_entropy(x, cf.tensor([0, 0, 0, 1]), reduction="none")
    expected = [np.log1p(np.exp(-14)), np.exp(-30), 14 + np.log1p(np.exp(-14)), 1000]
    np.testing.assert_allclose(loss.array, expected, rtol=1e-6, atol=6e-8)
    assert (loss.array >= 0).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_bad_row_leaves_the_others_alone(value):
    x = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    good = F.cross_entropy(cf.Tensor(x), cf.tensor([0, 1]), reduction="none").array[1]
    same = F.softmax(cf.Tensor(x), 1).array[1]
    x[0, 1] = value
    loss = F.cross_entropy(cf.Tensor(x), cf.tensor([0, 1]), reduction="none")
    np.testing.assert_allclose(loss.array[1], good, 1e-6)
    np.testing.assert_allclose(F.softmax(cf.Tensor(x), 1).array[1], same, 1e-6)
    x[0] = -np.inf
    assert np.isnan(F.softmax(cf.Tensor(x), 1).array[0]).all()


def test_softmax_without_dim_warns():
    for shape, dim in (((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)):
        x = t(*shape)
        with pytest.warns(DeprecationWarning, match=rf"softmax: without dim, dimension {dim} is taken"):
            out = F.softmax(x)
        np.testing.assert_array_equal(out.array, F.softmax(x, dim).array)
