"""What a Tensor is: creation, conversion, questions, NumPy's view of it, indexing as PyTorch indexes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import cuframe as cf


# -- creation and dtypes ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "data, dtype",
    [
        (1, "int64"), (1.0, "float32"), (True, "bool"), ([1, 2.0], "float32"), ([[1], [2]], "int64"), ([], "float32"),
        (np.float64(1), "float64"), (np.ones(2, np.int8), "int8"), ([np.float64(1.0)], "float64"),
        ([np.ones(2), np.ones(2)], "float64"), (np.ones(2, np.float16), "float16"),
    ],
)  # fmt: skip
def test_dtype_of_data(data: Any, dtype: str) -> None:
    assert cf.tensor(data).dtype == dtype


def test_tensor_copies_and_as_tensor_shares() -> None:
    array = np.zeros(3)
    assert not np.shares_memory(cf.tensor(array).array, array)
    assert cf.as_tensor(array).array is array and cf.from_numpy(array).array is array
    t = cf.tensor(array)
    assert cf.as_tensor(t) is t
    assert cf.as_tensor(t, dtype=cf.float32).dtype == np.float32


def test_tensor_of_tensors() -> None:
    a = cf.tensor([cf.tensor(1.0), cf.tensor(2.0)])
    assert a.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["zeros", "ones", "empty", "rand", "randn"])
def test_sizes_in_every_spelling(name: str) -> None:
    make = getattr(cf, name)
    for t in (make(2, 3), make((2, 3)), make([2, 3]), make(cf.zeros(2, 3).shape)):
        assert t.shape == (2, 3) and t.dtype == np.float32
    assert make(()).shape == () and make(0).shape == (0,)
    assert make(2, dtype="float64", requires_grad=True).requires_grad


def test_new_follows_the_tensor() -> None:
    t = cf.zeros(2, dtype=cf.float16)
    assert t.new_zeros(2, 3).dtype == np.float16 and t.new_ones((2,)).tolist() == [1.0, 1.0]
    assert t.new_full((2,), 3).tolist() == [3.0, 3.0] and t.new_full((2,), 3).dtype == np.float16
    assert t.new_empty(4).shape == (4,)
    assert t.new_tensor([1, 2]).dtype == np.float16
    assert t.new_zeros(1, dtype=cf.int64).dtype == np.int64


# -- conversion ---------------------------------------------------------------------------------------------------
def test_dtype_methods() -> None:
    t = cf.tensor([0.0, 1.5])
    names = {"half": "float16", "float": "float32", "double": "float64", "bfloat16": "bfloat16", "int": "int32",
             "long": "int64", "short": "int16", "byte": "uint8", "char": "int8", "bool": "bool"}  # fmt: skip
    for method, dtype in names.items():
        assert getattr(t, method)().dtype.name == dtype
    assert t.bool().tolist() == [False, True] and t.long().tolist() == [0, 1]
    assert t.type() == "cuframe.float32" and t.type(cf.int8).dtype == np.int8
    assert t.type_as(cf.zeros(1, dtype=cf.float64)).dtype == np.float64
    assert t.astype("float64").dtype == np.float64


def test_to_in_every_spelling() -> None:
    t = cf.tensor([1.5, 2.5], requires_grad=True)
    for out in (t.to(cf.float64), t.to("float64"), t.to(dtype=cf.float64), t.to("cpu", cf.float64),
                t.to(cf.device("cpu"), dtype=cf.float64), t.to(cf.zeros(1, dtype=cf.float64)),
                t.to(cf.float64, True), t.to(cf.float64, non_blocking=True, copy=False)):  # fmt: skip
        assert out.dtype == np.float64 and out.requires_grad
    assert t.to("cpu") is t and t.to(cf.float32) is t and t.to(t) is t
    copied = t.to("cpu", copy=True)
    assert copied is not t and copied.requires_grad
    assert not t.to(cf.int64).requires_grad
    with pytest.raises(TypeError, match="to: expected"):
        t.to(cf.float64, True, False, 1)
    with pytest.raises(TypeError, match="^to: 'nothing' is neither a dtype nor a device"):
        t.to("nothing")
    t.to(cf.float64).sum().backward()
    assert t.grad.dtype == np.float32


def test_items_and_lists() -> None:
    assert cf.tensor([[2]]).item() == 2 and isinstance(cf.tensor(2.0).item(), float)
    assert cf.tensor([[1, 2]]).tolist() == [[1, 2]] and cf.tensor(True).tolist() is True
    assert float(cf.tensor(2)) == 2.0 and int(cf.tensor([2.9])) == 2 and bool(cf.tensor([0])) is False
    assert [10, 20, 30][cf.tensor(1)] == 20 and list(range(cf.tensor(2))) == [0, 1]
    assert f"{cf.tensor(1.23456):.2f}" == "1.23"
    with pytest.raises(RuntimeError, match=r"item: needs a tensor with one element, got shape \(2,\)"):
        cf.zeros(2).item()
    with pytest.raises(RuntimeError, match="^bool: needs a tensor with one element"):
        bool(cf.zeros(2))
    with pytest.raises(TypeError, match="only integer tensors"):
        [1, 2][cf.tensor(1.0)]  # type: ignore[call-overload]


def test_length_and_iteration() -> None:
    t = cf.arange(6).reshape(3, 2)
    assert len(t) == 3 and [r.tolist() for r in t] == [[0, 1], [2, 3], [4, 5]]
    for broken in (lambda: len(cf.tensor(1)), lambda: list(cf.tensor(1))):
        with pytest.raises(TypeError, match="0-d tensor"):
            broken()
    x = cf.ones(1000, 2, requires_grad=True)
    total = sum(row.sum() for row in x)
    assert len({id(row.grad_fn) for row in x}) == 1
    total.backward()
    assert (x.grad.array == 1).all()


def test_questions() -> None:
    t = cf.zeros(2, 3, 4)
    assert t.size() == (2, 3, 4) and t.size(1) == 3 and t.size(-1) == 4 and t.dim() == t.ndimension() == t.ndim == 3
    assert t.numel() == t.nelement() == cf.numel(t) == 24 and t.shape.numel() == 24
    assert t.stride() == (12, 4, 1) and t.stride(0) == 12
    assert t.is_contiguous() and not t.transpose(0, 1).is_contiguous()
    assert t.transpose(0, 1).contiguous().is_contiguous()
    assert t.element_size() == 4 and t.itemsize == 4 and t.nbytes == 96
    assert t.is_floating_point() and not t.long().is_floating_point() and t.bfloat16().is_floating_point()
    assert cf.is_tensor(t) and not cf.is_tensor(t.array)
    assert t.data_ptr() == t[0].data_ptr() != t[1].data_ptr()
    assert repr(t.shape) == "cuframe.Size([2, 3, 4])"
    assert t.shape[1:].numel() == 12 and t.shape[-1] == 4 and [*t.shape] == [2, 3, 4]
    with pytest.raises(IndexError, match=r"size: dim must be in \[-3, 2\] for a 3-d tensor, got 3"):
        t.size(3)
    with pytest.raises(IndexError, match="0-d tensor"):
        cf.tensor(1).size(0)


def test_transposes() -> None:
    t = cf.arange(24).reshape(2, 3, 4)
    assert t.T.shape == (4, 3, 2) and t.mT.shape == (2, 4, 3) and t[0].T.shape == (4, 3) and t[0].H.shape == (4, 3)
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        _ = t[0, 0].mT


def test_view_of_other_strides_and_dtypes() -> None:
    t = cf.arange(6.0).reshape(2, 3)
    with pytest.raises(RuntimeError, match=r"shape \(3, 2\) and strides \(1, 3\) cannot be seen as \(6,\)"):
        t.t().view(6)
    assert t.t().view(3, 1, 2).shape == (3, 1, 2)
    assert t.view(cf.int32).dtype == np.int32 and t.view(cf.float32).array is not t.array
    assert t.view(cf.float16).shape == (2, 6)
    with pytest.raises(RuntimeError, match="cannot be read as float64"):
        t.view(cf.float64)
    assert t[:, :0].view(0).shape == (0,)


# -- out to other libraries ---------------------------------------------------------------------------------------
def test_numpy() -> None:
    t = cf.arange(3.0)
    assert t.numpy() is t.array and np.asarray(t) is t.array
    assert np.array(t).tolist() == [0.0, 1.0, 2.0] and np.asarray(t, np.int64).dtype == np.int64
    x = cf.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"use t.detach\(\).numpy\(\)"):
        x.numpy()
    assert x.detach().numpy().tolist() == [1.0, 1.0] and x.numpy(force=True).tolist() == [1.0, 1.0]


def test_numpy_functions_stay_in_the_graph() -> None:
    x = cf.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=cf.float64, requires_grad=True)
    a = x.detach().numpy()
    calls = [
        lambda t: np.reshape(t, (4,)), lambda t: np.transpose(t), lambda t: np.transpose(t, (1, 0)),
        lambda t: np.swapaxes(t, 0, 1), lambda t: np.moveaxis(t, 0, 1), lambda t: np.broadcast_to(t, (3, 2, 2)),
        lambda t: np.expand_dims(t, 1), lambda t: np.expand_dims(t, (0, 3)), lambda t: np.squeeze(t[None], axis=0),
        lambda t: np.concatenate((t, t), axis=1), lambda t: np.concatenate([t, t], axis=None),
        lambda t: np.stack([t, t], axis=-1), lambda t: np.split(t, 2, axis=1)[1], lambda t: np.flip(t),
        lambda t: np.flip(t, axis=1), lambda t: np.roll(t, 1, axis=0), lambda t: np.roll(t, 1),
        lambda t: np.tile(t, (2, 1)), lambda t: np.repeat(t, 2, axis=0), lambda t: np.tril(t, k=-1),
        lambda t: np.triu(t, 1), lambda t: np.diag(t), lambda t: np.diagonal(t, axis1=1, axis2=0),
        lambda t: np.take(t, [1, 1], axis=1), lambda t: np.take_along_axis(t, np.array([[1], [0]]), 1),
        lambda t: np.sort(-t, axis=0), lambda t: np.where(a > 2, t, 0.0), lambda t: np.copy(t), lambda t: np.ravel(t),
    ]  # fmt: skip
    for call in calls:
        out, expected = call(x), call(a)
        assert isinstance(out, cf.Tensor) and out.requires_grad
        np.testing.assert_array_equal(out.array, expected)
        (g,) = cf.autograd.grad(out.sum(), x)
        assert g.shape == (2, 2)
    for make in (np.zeros_like, np.ones_like, lambda t: np.full_like(t, 3), lambda t: np.zeros_like(t, shape=(3,))):
        out = make(x)
        assert isinstance(out, cf.Tensor) and not out.requires_grad and out.dtype == np.float64
        np.testing.assert_array_equal(out.array, make(a))
    assert np.shape(x) == (2, 2) and np.ndim(x) == 2 and np.size(x) == 4
    assert np.argsort(x, axis=0).tolist() == [[0, 0], [1, 1]]
    with pytest.raises(TypeError):
        np.linalg.svd(x)


def test_dlpack_both_ways() -> None:
    t = cf.arange(3.0)
    assert np.from_dlpack(t).tolist() == [0.0, 1.0, 2.0]
    array = np.arange(4)
    shared = cf.from_dlpack(array)
    array[0] = 9
    assert shared.tolist() == [9, 1, 2, 3]
    with pytest.raises(BufferError, match="requires a gradient"):
        np.from_dlpack(cf.ones(1, requires_grad=True))


def test_copies() -> None:
    x = cf.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.requires_grad and twin.is_leaf and twin.grad.tolist() == [2.0, 4.0]
    assert not np.shares_memory(twin.array, x.array)
    back = pickle.loads(pickle.dumps(x))  # noqa: S301
    assert back.requires_grad and back.tolist() == [1.0, 2.0]
    with pytest.raises(RuntimeError, match="only leaf tensors"):
        copy.deepcopy(x * 2)
    c = x.clone()
    assert c.requires_grad and c.grad_fn is not None


def test_fill_and_copy_in_place() -> None:
    t = cf.zeros(2, 3)
    assert t.fill_(2) is t and t.copy_(cf.tensor([1, 2, 3])) is t and t.tolist() == [[1.0, 2.0, 3.0]] * 2
    assert t.zero_().tolist() == [[0.0] * 3] * 2 and t.copy_(np.ones(3)).sum().item() == 6
    with pytest.raises(RuntimeError, match=r"copy_: src of shape \(2,\) does not broadcast to \(2, 3\)"):
        t.copy_(cf.zeros(2))
    with pytest.raises(RuntimeError, match=r"fill_: value must be a number or a 0-d tensor, got shape \(1,\)"):
        t.fill_(cf.zeros(1))


def test_fill_diagonal_and_questions_of_kind() -> None:
    assert cf.zeros(3, 2).fill_diagonal_(1).tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert cf.zeros(2, 3).fill_diagonal_(1).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert cf.zeros(5, 2).fill_diagonal_(1, wrap=True).sum(1).tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert cf.zeros(2, 2, 2).fill_diagonal_(2).nonzero().tolist() == [[0, 0, 0], [1, 1, 1]]
    for bad in (cf.zeros(2), cf.zeros(2, 3, 2)):
        with pytest.raises(RuntimeError, match="fill_diagonal_: the tensor must be 2-d"):
            bad.fill_diagonal_(1)
    t = cf.tensor([-1])
    assert t.is_nonzero() and not (t * 0).is_nonzero() and t.get_device() == -1
    assert t.is_same_size(cf.zeros(1)) and t.is_signed() and not t.byte().is_signed()


def test_in_and_reversed() -> None:
    t = cf.tensor([[1, 2], [3, 4]])
    assert 3 in t and 5 not in t and cf.tensor([1, 2]) in t and cf.tensor(9) not in t
    with pytest.raises(TypeError, match="only a number or a Tensor can be in a tensor, got str"):
        _ = "a" in t
    assert [r.tolist() for r in reversed(t)] == [[3, 4], [1, 2]]
    assert t.is_cpu and not t.is_cuda and not t.is_sparse


# -- indexing -----------------------------------------------------------------------------------------------------
def test_index_spellings() -> None:
    t = cf.arange(12).reshape(3, 4)
    assert t[cf.tensor(1)].tolist() == [4, 5, 6, 7] and np.shares_memory(t[cf.tensor(1)].array, t.array)
    assert t[np.int64(1), np.array(2)].item() == 6
    assert t[range(2)].shape == (2, 4) and t[[True, False, True]].shape == (2, 4)
    assert t[cf.tensor(1) : cf.tensor(3)].shape == (2, 4)
    assert t[True].shape == (1, 3, 4) and t[False].shape == (0, 3, 4) and t[None, ..., None].shape == (1, 3, 4, 1)
    assert t[[]].shape == (0, 4) and t[np.array([0, 1], np.int32)].shape == (2, 4)
    assert t[t.bool()].shape == (11,) and t[..., cf.tensor([True, False, False, True])].shape == (3, 2)


def test_index_array_changed_later_is_noticed() -> None:
    x = cf.ones(3, requires_grad=True) * 1
    where = cf.tensor([0, 1])
    y = x[where]
    where.add_(1)
    with pytest.raises(RuntimeError, match="index saved for its gradient was changed in place"):
        y.sum().backward()


def test_setitem_takes_and_casts() -> None:
    t = cf.zeros(3, dtype=cf.int64)
    t[0], t[1:] = 1.9, cf.tensor([2.5, 3.5])
    assert t.tolist() == [1, 2, 3]
    t[t > 1] = 0
    t[[0]] = np.array([7])
    assert t.tolist() == [7, 0, 0]
    f = cf.zeros(2, 2)
    f[0] = [1, 2]
    f[:, 1] = cf.ones(1, 2)
    f[1, 0] = True
    assert f.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    f[1:] = f[:1]
    with pytest.raises(RuntimeError, match="complex128 value cannot be written into float32"):
        f[0] = np.array([1j, 2j])


def index_program(rng: np.random.Generator, shape: tuple) -> tuple:
    """A random index: ints, slices, None, one ellipsis, index arrays that broadcast, masks."""
    items: list[Any] = []
    length = int(rng.integers(1, 4))
    d = 0
    dots = False
    while d < len(shape) and rng.random() < 0.85:
        kind = rng.integers(0, 8)
        n = shape[d]
        if kind == 0:
            items.append(int(rng.integers(-n, n)))
        elif kind in (1, 2):
            a, b = (None if rng.random() < 0.3 else int(rng.integers(-n - 1, n + 2)) for _ in range(2))
            items.append(slice(a, b, None if rng.random() < 0.5 else int(rng.integers(1, 3))))
        elif kind == 3:
            items.append(None)
            continue
        elif kind == 4 and not dots:
            items.append(...)
            dots = True
            d += int(rng.integers(0, len(shape) - d + 1))
            break
        elif kind in (5, 6):
            items.append(rng.integers(-n, n, (length,) if rng.random() < 0.7 else (2, length)))
        elif kind == 7:
            mask = np.zeros(n, bool)
            mask[rng.permutation(n)[: min(length, n)]] = True
            items.append(mask)
        else:
            continue
        d += 1
    return tuple(items)


def test_indexing_against_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, the reference of this test, is not installed")
    rng = np.random.default_rng(0)
    tried = {"same": 0, "both refuse": 0}
    for _ in range(1500):
        shape = tuple(rng.integers(1, 5, int(rng.integers(1, 5))))
        array = rng.normal(size=shape)
        index = index_program(rng, shape)
        ours, theirs = (
            tuple(make(i) if isinstance(i, np.ndarray) else i for i in index) for make in (cf.tensor, torch.tensor)
        )
        a, b = cf.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        try:
            expected = b[theirs]
        except (IndexError, RuntimeError):
            with pytest.raises(IndexError):
                a[ours]
            tried["both refuse"] += 1
            continue
        actual = a[ours]
        np.testing.assert_array_equal(actual.detach().numpy(), expected.detach().numpy(), err_msg=str(index))
        weights = rng.normal(size=tuple(expected.shape))
        (actual * cf.tensor(weights)).sum().backward()
        (expected * torch.tensor(weights)).sum().backward()
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-12, 1e-12, err_msg=str(index))
        c, d = cf.tensor(array), torch.tensor(array)
        c[ours] = 1.5
        d[theirs] = 1.5
        np.testing.assert_array_equal(c.numpy(), d.numpy(), err_msg=str(index))
        tried["same"] += 1
    assert tried["same"] > 1000 and tried["both refuse"] > 10, tried


def test_long_loops_over_slices() -> None:
    """Views of one tensor in a loop: neither time nor memory of the bookkeeping grows out of hand."""
    x = cf.ones(2000, 2, requires_grad=True)
    base = x * 1
    h = cf.zeros(2)
    for row in base:
        h = h * 0.5 + row
    h.sum().backward()
    assert x.grad[-1].tolist() == [1.0, 1.0]


# -- order --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "uint32", "bool"])
def test_order_is_stable_with_ties_nan_and_infinities(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (4, 50)).astype(dtype)
    if x.dtype.kind == "f":
        x -= 3
        x[rng.random(x.shape) < 0.3] = -0.0
        for value in (np.inf, -np.inf, np.nan, -np.nan):
            x[rng.random(x.shape) < 0.05] = value
    for d in (0, 1):
        for descending in (False, True):
            values, indices = cf.from_numpy(x).sort(d, descending)
            np.testing.assert_array_equal(values.array, np.take_along_axis(x, indices.array, d))
            for line, order in zip(np.moveaxis(x, d, -1), np.moveaxis(indices.array, d, -1)):
                rank = [(np.inf if v != v else float(v), v != v) for v in line]  # NaN above infinity
                expected = sorted(range(len(line)), key=rank.__getitem__, reverse=False)
                if descending:
                    expected = sorted(range(len(line)), key=lambda i: (-rank[i][0], not rank[i][1]))
                assert order.tolist() == expected


# -- large sums of gradients --------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_repeated_rows_add_up_the_same_every_time(dtype: str) -> None:
    """Large enough for the sparse product; in order, so it equals a loop bit for bit in float32 and float64."""
    rng = np.random.default_rng(0)
    index = rng.integers(0, 50, 500)
    g = rng.normal(size=(500, 64)).astype(cf.dtypes.as_dtype(dtype))
    table = cf.zeros(50, 64, dtype=dtype, requires_grad=True)
    for pick in (lambda: table[cf.tensor(index)], lambda: table.index_select(0, cf.tensor(index))):
        (actual,) = cf.autograd.grad(pick(), table, cf.from_numpy(g))
        expected = np.zeros((50, 64), np.float64 if dtype == "float64" else np.float32)
        for i, row in zip(index, g):
            expected[i] += row.astype(expected.dtype)
        np.testing.assert_array_equal(actual.array, expected.astype(g.dtype))


def test_sum_at_every_layout() -> None:
    from cuframe.cpu.scatter import sum_at

    rng = np.random.default_rng(0)
    full = slice(None)
    for index in (
        rng.integers(-6, 6, (40, 30)), (full, rng.integers(0, 7, (40, 30))), (full, full, rng.integers(0, 8, (40, 30))),
        (rng.integers(0, 6, (40, 30)), rng.integers(-7, 7, 30)), (full, rng.integers(0, 7, 90), rng.integers(0, 8, 90)),
        (rng.integers(0, 6, 90), full, rng.integers(0, 8, 90)), (rng.random((6, 7)) < 0.5, rng.integers(0, 8, 1)),
    ):  # fmt: skip
        x = np.zeros((6, 7, 8))
        values = rng.normal(size=x[index].shape)
        np.add.at(x, index, values)
        np.testing.assert_allclose(sum_at(x.shape, index, values), x, 1e-12, 1e-12)
        np.testing.assert_allclose(sum_at(x.shape, index, values.astype(np.float32)), x, 1e-4, 1e-4)


def test_equality_with_what_is_no_number():
    t = cf.ones(2)
    assert (t == None) is False and (t != None) is True and (t == "a") is False  # noqa: E711
    assert (t == 1).tolist() == [True, True] and (t != cf.ones(2)).tolist() == [False, False]


def test_round():
    assert round(cf.tensor([1.4, 2.6])).tolist() == [1, 3]
    assert round(cf.tensor(1.26), 1).item() == pytest.approx(1.3)
