"""nn.EmbeddingBag; the function itself is in the table."""

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn

INDEX = cf.tensor([1, 2, 4, 2, 2, 0])
OFFSETS = cf.tensor([0, 3, 3])


def bags(**kwargs):
    cf.manual_seed(0)
    return nn.EmbeddingBag(5, 3, **kwargs)


def test_layer_is_the_function_of_its_settings():
    layer = bags(mode="sum", padding_idx=-1, include_last_offset=True)
    assert list(layer.state_dict()) == ["weight"] and layer.padding_idx == 4
    assert (layer.weight.array[4] == 0).all() and (layer.weight.array[:4] != 0).all()
    w = cf.tensor(np.arange(6, dtype=np.float32))
    out = layer(INDEX, cf.tensor([0, 3, 6]), w)
    table = layer.weight.detach().array
    np.testing.assert_allclose(out.detach().array, [table[2], 3 * table[2] + 4 * table[2] + 5 * table[0]], rtol=1e-6)
    np.testing.assert_array_equal(bags()(INDEX.reshape(2, 3)).array, bags()(INDEX, cf.tensor([0, 3])).array)


def test_empty_bags_are_zeros_and_take_no_gradient():
    for mode in ("sum", "mean", "max"):
        layer = bags(mode=mode)
        out = layer(INDEX, OFFSETS)
        assert (out.array[1] == 0).all() and (out.array[[0, 2]] != 0).all()
        out[1].sum().backward()
        assert (layer.weight.grad.array == 0).all()


def test_the_first_of_equal_rows_takes_the_gradient_of_a_maximum():
    table = cf.zeros(4, 2, requires_grad=True)
    F.embedding_bag(cf.tensor([3, 0, 1]), table, cf.tensor([0, 2]), mode="max").sum().backward()
    assert table.grad.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]


def test_nan_is_the_largest():
    table = cf.tensor([[0.0], [float("nan")], [2.0]], requires_grad=True)
    out = F.embedding_bag(cf.tensor([[0, 1, 2]]), table, mode="max")
    assert np.isnan(out.item())
    out.sum().backward()
    assert table.grad.tolist() == [[0], [1], [0]]


def test_gradient_by_frequency():
    # PyTorch's own CPU kernel divides by the wrong row's count here; this is what its documentation says.
    layer = bags(mode="sum", scale_grad_by_freq=True)
    layer(INDEX, OFFSETS).sum().backward()
    assert layer.weight.grad.tolist() == [[1] * 3, [1] * 3, [1] * 3, [0] * 3, [1] * 3]


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_sparse_gradient_is_the_dense_one(mode):
    dense, sparse = bags(mode=mode, padding_idx=2), bags(mode=mode, padding_idx=2, sparse=True)
    for layer in (dense, sparse):
        (layer(INDEX, OFFSETS) ** 2).sum().backward()
    assert sparse.weight.grad.is_sparse and sorted(sparse.weight.grad.rows.tolist()) == [0, 1, 4]
    np.testing.assert_array_equal(sparse.weight.grad.to_dense().array, dense.weight.grad.array)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, np.inf])
def test_max_norm_shortens_the_rows_used(norm_type):
    layer = bags(max_norm=0.5, norm_type=norm_type)
    before = layer.weight.detach().clone().array
    layer(INDEX, OFFSETS).sum().backward()
    after = layer.weight.detach().array
    np.testing.assert_array_equal(after[3], before[3])
    norms = np.linalg.norm(before, norm_type, axis=1)
    for row in (0, 1, 2, 4):
        np.testing.assert_allclose(after[row], before[row] * min(1, 0.5 / norms[row]), rtol=1e-5)


def test_from_pretrained():
    table = cf.tensor([[1.0, 2.0], [3.0, 5.0]])
    frozen = nn.EmbeddingBag.from_pretrained(table)
    assert not frozen.weight.requires_grad and frozen.weight.array is table.array
    assert frozen(cf.tensor([[0, 1]])).tolist() == [[2, 3.5]]
    layer = nn.EmbeddingBag.from_pretrained(table, freeze=False, mode="max", padding_idx=1, include_last_offset=True)
    assert layer.weight.requires_grad and layer.padding_idx == 1 and table.tolist() == [[1, 2], [3, 5]]
    assert layer(cf.tensor([0, 1]), cf.tensor([0, 1, 2])).tolist() == [[1, 2], [0, 0]]
    with pytest.raises(ValueError, match=r"embeddings must have 2 dimensions, got \(2,\)"):
        nn.EmbeddingBag.from_pretrained(cf.ones(2))


def test_repr():
    layer = bags(max_norm=1.0, norm_type=1.0, scale_grad_by_freq=True, mode="sum", padding_idx=2)
    assert repr(layer) == (
        "EmbeddingBag(5, 3, max_norm=1.0, norm_type=1.0, scale_grad_by_freq=True, mode='sum', padding_idx=2)"
    )


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"mode": "min"}, "EmbeddingBag: mode must be 'sum', 'mean' or 'max', got 'min'"),
        ({"padding_idx": 5}, r"EmbeddingBag: padding_idx must be in \[-5, 5\), got 5"),
        ({"_weight": cf.ones(3, 5)}, r"EmbeddingBag: _weight must be \(5, 3\), got \(3, 5\)"),
    ],
)
def test_settings_are_checked(kwargs, text):
    with pytest.raises(ValueError, match=text):
        bags(**kwargs)
