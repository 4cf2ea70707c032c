"""Row-sparse gradients, and what embeddings do to their tables' gradients."""

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn
from cuframe.sparse import SparseGrad

ROWS = np.array([3, 0, 3, 1])
DATA = np.arange(8.0).reshape(4, 2)
DENSE = np.zeros((5, 2))
np.add.at(DENSE, ROWS, DATA)


def sparse():
    return SparseGrad(ROWS, DATA, (5, 2))


def test_coalesce_sorts_rows_and_adds_their_values():
    g = sparse()
    assert g.is_sparse and not g.is_coalesced()
    c = g.coalesce()
    assert c.is_coalesced() and c.coalesce() is c
    assert c.indices().tolist() == [[0, 1, 3]]
    np.testing.assert_array_equal(c.values().array, DENSE[[0, 1, 3]])
    assert (c.shape, c.ndim, c.dtype, c.device) == ((5, 2), 2, np.float64, "cpu")


def test_dense_form():
    np.testing.assert_array_equal(sparse().to_dense().array, DENSE)
    np.testing.assert_array_equal(sparse().coalesce().to_dense().array, DENSE)


def test_sums():
    double = sparse() + sparse()
    assert isinstance(double, SparseGrad)
    np.testing.assert_array_equal(double.to_dense().array, 2 * DENSE)
    other = np.ones((5, 2))
    for total in (sparse() + cf.Tensor(other), sparse() + other, other + sparse()):
        np.testing.assert_array_equal(np.asarray(getattr(total, "array", total)), DENSE + 1)
    accumulated = other.copy()
    accumulated += sparse()
    np.testing.assert_array_equal(accumulated, DENSE + 1)
    with pytest.raises(RuntimeError, match=r"add: sparse gradients must agree in shape, got \(5, 2\) and \(6, 2\)"):
        sparse() + SparseGrad(ROWS, DATA, (6, 2))


def test_scaling_and_copies():
    np.testing.assert_array_equal((sparse() * 3).to_dense().array, 3 * DENSE)
    np.testing.assert_array_equal((0.5 * sparse()).to_dense().array, DENSE / 2)
    np.testing.assert_array_equal((sparse() / 2).to_dense().array, DENSE / 2)
    copy = sparse().clone()
    copy.values().array[...] = 0
    np.testing.assert_array_equal(sparse().to_dense().array, DENSE)
    assert repr(sparse()).startswith("SparseGrad(indices=tensor([[3, 0, 3, 1]]), values=tensor(")


def test_data_must_fit_the_table():
    with pytest.raises(ValueError, match=r"SparseGrad: data must be \(4, 3\) for 4 rows of a table of \(5, 3\)"):
        SparseGrad(ROWS, DATA, (5, 3))


@pytest.mark.parametrize("kwargs", [{}, {"padding_idx": 3}, {"scale_grad_by_freq": True}], ids=str)
def test_sparse_gradient_equals_the_dense_one(kwargs):
    index = cf.tensor([[3, 0, 3], [1, 3, 0]])
    seed = cf.Tensor(np.random.default_rng(0).standard_normal((2, 3, 2)))
    grads = []
    for sparse_grad in (False, True):
        weight = cf.zeros(5, 2, dtype="float64", requires_grad=True)
        F.embedding(index, weight, sparse=sparse_grad, **kwargs).backward(seed)
        grads.append(weight.grad)
    assert isinstance(grads[1], SparseGrad)
    np.testing.assert_allclose(grads[1].to_dense().array, grads[0].array, 1e-12)


def test_sparse_gradients_accumulate():
    weight = cf.zeros(5, 2, requires_grad=True)
    for _ in range(2):
        F.embedding(cf.tensor([1, 1]), weight, sparse=True).sum().backward()
    assert weight.grad.is_sparse
    assert weight.grad.coalesce().values().tolist() == [[4.0, 4.0]]
    (weight * 1).sum().backward()
    assert weight.grad.tolist() == [[1, 1], [5, 5], [1, 1], [1, 1], [1, 1]]


def test_sparse_after_dense():
    weight = cf.zeros(3, 1, requires_grad=True)
    (weight * 2).sum().backward()
    F.embedding(cf.tensor([1, 1]), weight, sparse=True).sum().backward()
    assert weight.grad.tolist() == [[2], [4], [2]]


def test_sparse_and_dense_uses_in_one_pass():
    weight = cf.zeros(5, 2, requires_grad=True)
    (F.embedding(cf.tensor([1, 1]), weight, sparse=True).sum() + (weight * 3).sum()).backward()
    assert weight.grad.tolist() == [[3, 3], [5, 5], [3, 3], [3, 3], [3, 3]]


def test_padding_row_takes_no_gradient():
    weight = cf.ones(4, 2, requires_grad=True)
    F.embedding(cf.tensor([0, 3, 3, 1]), weight, padding_idx=-1).sum().backward()
    assert weight.grad.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_gradient_is_divided_by_frequency():
    weight = cf.ones(3, 1, requires_grad=True)
    F.embedding(cf.tensor([0, 2, 2, 2]), weight, scale_grad_by_freq=True).sum().backward()
    np.testing.assert_allclose(weight.grad.array, [[1], [0], [1]])


def test_double_backward_through_padding_and_frequency():
    weight = cf.ones(3, 1, dtype="float64", requires_grad=True)
    out = F.embedding(cf.tensor([0, 2, 2, 1]), weight, padding_idx=1, scale_grad_by_freq=True)
    (g,) = cf.autograd.grad((out * out).sum(), weight, create_graph=True)
    np.testing.assert_allclose(g.array, [[2], [0], [2]])
    # The way back to the table divides by the frequency a second time.
    (gg,) = cf.autograd.grad(g.sum(), weight)
    np.testing.assert_allclose(gg.array, [[2], [0], [1]])


def test_max_norm_scales_used_rows_in_place():
    table = np.array([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]])
    weight = cf.Tensor(table.copy()).requires_grad_()
    out = F.embedding(cf.tensor([0, 1, 0]), weight, max_norm=1.0)
    np.testing.assert_allclose(out.array, [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]], 1e-6)
    np.testing.assert_allclose(weight.array, [[0.6, 0.8], [0.3, 0.4], [30.0, 40.0]], 1e-6)
    out.sum().backward()
    np.testing.assert_allclose(weight.grad.array, [[2, 2], [1, 1], [0, 0]])


@pytest.mark.parametrize("optimizer", [cf.optim.SGD, cf.optim.Adagrad, cf.optim.SparseAdam], ids=lambda o: o.__name__)
def test_optimizers_change_only_the_rows_used(optimizer):
    cf.manual_seed(0)
    layer = nn.Embedding(6, 3, sparse=True)
    before = layer.weight.array.copy()
    opt = optimizer(layer.parameters(), lr=0.1)
    layer(cf.tensor([2, 5, 2])).sum().backward()
    opt.step()
    changed = (layer.weight.array != before).any(axis=1)
    assert changed.tolist() == [False, False, True, False, False, True]


def test_clipping_reaches_sparse_gradients():
    layer = nn.Embedding(6, 4, sparse=True)
    layer(cf.tensor([2, 2])).sum().backward()
    norm = nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    assert norm.item() == pytest.approx(4.0)
    assert np.linalg.norm(layer.weight.grad.to_dense().array) == pytest.approx(1.0, rel=1e-5)


def test_embedding_layer_matches_pytorch_in_name_and_start():
    layer = nn.Embedding(7, 3, padding_idx=-2)
    assert list(layer.state_dict()) == ["weight"]
    assert layer.padding_idx == 5 and not layer.weight.array[5].any()
    assert repr(layer) == "Embedding(7, 3, padding_idx=5)"
    table = cf.tensor([[1.0, 2.0], [3.0, 4.0]])
    frozen = nn.Embedding.from_pretrained(table)
    assert not frozen.weight.requires_grad and frozen.weight.array is table.array
    with pytest.raises(ValueError, match=r"Embedding: padding_idx must be in \[-7, 7\), got 7"):
        nn.Embedding(7, 3, padding_idx=7)
