"""Picking and writing entries by index tensors, as functions. What masks do stands in `mask.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.graph import Op
from ..backend import backend_of
from ..tensor import Tensor, record
from .convert import clone
from .define import need_tensor
from .index import check_positions, clear, getitem, keep_written, put_at, row_major, setitem
from .shape import expand, reshape, wrap_dim

__all__ = ["index_add", "index_copy", "index_fill", "index_put", "index_select", "put", "take"]

_FULL = slice(None)


# -- checks -------------------------------------------------------------------------------------------------------
def need_index(name: str, argument: str, index: Any, beside: Tensor) -> Any:
    """The array of an integer tensor on the device of another."""
    need_tensor(name, argument, index)
    i = index.array
    if i.dtype.kind not in "iu":
        raise TypeError(f"{name}: {argument} must be an integer tensor, got {i.dtype.name}")
    same_device(name, argument, index, beside)
    return row_major(i)


def same_device(name: str, argument: str, t: Tensor, beside: Tensor) -> None:
    """Raise RuntimeError unless both tensors live on one device."""
    if t.array.__class__ is not beside.array.__class__ or t.device != beside.device:
        raise RuntimeError(f"{name}: {argument} must be on {beside.device}, got {t.device}")


def same_dtype(name: str, argument: str, t: Tensor, beside: Tensor) -> None:
    if t.array.dtype != beside.array.dtype:
        raise RuntimeError(
            f"{name}: {argument} must have the dtype of input, {beside.array.dtype.name}, got {t.array.dtype.name}"
        )


def _vector_index(name: str, input: Tensor, dim: Any, index: Any) -> tuple[int, Any]:
    """The dimension, and a 1-d index into it, checked."""
    need_tensor(name, "input", input)
    shape = input.array.shape
    d = wrap_dim(name, "dim", dim, len(shape))
    i = need_index(name, "index", index, input)
    if i.ndim > 1:
        raise IndexError(f"{name}: index must be 0-d or 1-d, got shape {tuple(i.shape)}")
    backend_of(i).check_index(name, f"index for dim {dim}", i, shape[d] if shape else 1)
    return d, i.reshape(-1)


def _at(d: int, index: Any) -> tuple:
    return (_FULL,) * d + (index,)


# -- along one dimension, one index for all -----------------------------------------------------------------------
def _select_vjp(g: Any, needs: tuple, index: Any, shape: tuple, d: int) -> tuple:
    return (put_at(g, shape, _at(d, index)),)


_SELECT = Op("index_select", _select_vjp, (None, None, None))


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries at some positions of a dimension, as a copy.

    Args:
        input: any tensor.
        dim: the dimension.
        index: 0-d or 1-d integer tensor of positions in [0, size of dim); they may repeat.

    Returns:
        Tensor whose dimension `dim` has as many entries as `index`.

    Raises:
        IndexError: a position out of range, or no such dimension.
        TypeError: index is not an integer tensor.

    >>> import cuframe as cf
    >>> cf.index_select(cf.tensor([[1, 2], [3, 4]]), 1, cf.tensor([1, 1]))
    tensor([[2, 2],
            [4, 4]])
    """
    d, i = _vector_index("index_select", input, dim, index)
    x = input.array
    r = x.reshape(-1).take(i).reshape(x.shape) if not x.ndim else x.take(i, axis=d)
    return record(r, _SELECT, (input,), (i, x.shape, d)) if x.ndim else getitem(reshape(input, 1), 0)


def _select_like(source: Any, index: Any, d: int) -> Any:
    """`source[..., index, ...]` of an array or Tensor."""
    return index_select(source, d, Tensor(index)) if isinstance(source, Tensor) else source.take(index, axis=d)


def _need_source(name: str, input: Tensor, d: int, i: Any, source: Any) -> None:
    need_tensor(name, "source", source)
    same_device(name, "source", source, input)
    same_dtype(name, "source", source, input)
    shape = input.array.shape
    expected = shape[:d] + i.shape + shape[d + 1 :] if shape else i.shape
    given = source.array.shape
    if given != expected and not (not shape and given == ()) and not (given == () and expected == (1,)):
        raise RuntimeError(f"{name}: source must have shape {tuple(expected)}, got {tuple(given)}")


def _index_add_vjp(g: Any, needs: tuple, index: Any, d: int, alpha: Any, shape: tuple) -> tuple:
    g_source = None
    if needs[1] is not None:
        g_source = _select_like(g.reshape(-1) if not g.ndim else g, index, d)
        if alpha != 1:
            g_source = (g_source * alpha).astype(g.dtype)
        g_source = g_source.reshape(shape)
    return (g, g_source)


_INDEX_ADD = Op("index_add", _index_add_vjp, (None, None, None, None))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with alpha * source added at some positions of a dimension.

    Args:
        input: any tensor.
        dim: the dimension.
        index: 1-d integer tensor of positions; where one repeats, all its entries are added, in order.
        source: the shape of `input` with as many entries in `dim` as `index`; its dtype.
        alpha: a number.

    Raises:
        IndexError: a position out of range, or no such dimension.
        RuntimeError: shapes, dtypes or devices do not fit.

    >>> import cuframe as cf
    >>> cf.index_add(cf.zeros(3), 0, cf.tensor([0, 2, 2]), cf.ones(3))
    tensor([1., 0., 2.])
    """
    d, i = _vector_index("index_add", input, dim, index)
    _need_source("index_add", input, d, i, source)
    x = input.array
    values = source.array if alpha == 1 else (source.array * alpha).astype(x.dtype)
    r = x.reshape(x.shape or (1,)).copy()
    backend_of(r).add_at(r, _at(d, i), values.reshape(r.shape[:d] + i.shape + r.shape[d + 1 :]))
    return record(r.reshape(x.shape), _INDEX_ADD, (input, source), (i, d, alpha, source.array.shape))


def _index_copy_vjp(g: Any, needs: tuple, index: Any, d: int, shape: tuple) -> tuple:
    g_source = None
    if needs[1] is not None:
        whole = g if g.ndim else g.reshape(-1)
        g_source = keep_written(_select_like(whole, index, d), whole.shape, _at(d, index)).reshape(shape)
    return (clear(g, None, _at(d, index) if g.ndim else (...,)) if needs[0] is not None else None, g_source)


_INDEX_COPY = Op("index_copy", _index_copy_vjp, (None, None, None))


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with the entries of `source` written at some positions of a dimension.

    Args:
        input: any tensor.
        dim: the dimension.
        index: 1-d integer tensor of positions; where one repeats, the last written stays.
        source: the shape of `input` with as many entries in `dim` as `index`; its dtype.

    Raises:
        IndexError: a position out of range, or no such dimension.
        RuntimeError: shapes, dtypes or devices do not fit.

    >>> import cuframe as cf
    >>> cf.index_copy(cf.zeros(3), 0, cf.tensor([2, 0]), cf.tensor([1.0, 2.0]))
    tensor([2., 0., 1.])
    """
    d, i = _vector_index("index_copy", input, dim, index)
    _need_source("index_copy", input, d, i, source)
    x = input.array
    r = x.reshape(x.shape or (1,)).copy()
    r[_at(d, i)] = row_major(source.array.reshape(r.shape[:d] + i.shape + r.shape[d + 1 :]))
    return record(r.reshape(x.shape), _INDEX_COPY, (input, source), (i, d, source.array.shape))


def _index_fill_vjp(g: Any, needs: tuple, index: Any, d: int, dtype: Any) -> tuple:
    g_value = None
    if needs[1] is not None:
        g_value = _select_like(g if g.ndim else g.reshape(-1), index, d).sum().astype(dtype)
    return (clear(g, None, _at(d, index) if g.ndim else (...,)) if needs[0] is not None else None, g_value)


_INDEX_FILL = Op("index_fill", _index_fill_vjp, (None, None, None))


def scalar_value(name: str, value: Any, input: Tensor) -> tuple[Any, Tensor | None]:
    """A number or 0-d tensor to fill with: what to write, and the tensor if it is one."""
    if not isinstance(value, Tensor):
        if isinstance(value, np.generic):
            value = value.item()
        if not isinstance(value, (bool, int, float, complex)):
            raise TypeError(f"{name}: value must be a number or a 0-d Tensor, got {type(value).__name__}")
        return value, None
    if value.array.ndim:
        raise RuntimeError(f"{name}: value must be a number or a 0-d Tensor, got shape {tuple(value.array.shape)}")
    if value.array.__class__ is not input.array.__class__:
        value = value.to(input.device)  # type: ignore[attr-defined]
    return value.array, value


def check_value_dtype(name: str, value: Any, dtype: np.dtype) -> None:
    """Raise RuntimeError where a value would lose its fraction or its imaginary part."""
    kind = value.dtype.kind if hasattr(value, "dtype") else "c" if isinstance(value, complex) else ""
    lost = kind == "c" and dtype.kind != "c"
    if dtype.kind in "biu":
        lost = lost or kind in ("f", "V") or (isinstance(value, float) and not value.is_integer())
    if lost:
        raise RuntimeError(f"{name}: value {value} does not fit a tensor of {dtype.name}")


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with one value written at some positions of a dimension.

    Args:
        input: any tensor.
        dim: the dimension.
        index: 1-d integer tensor of positions.
        value: a number or a 0-d tensor.

    Raises:
        IndexError: a position out of range, or no such dimension.
        RuntimeError: value has dimensions, or does not fit the dtype.

    >>> import cuframe as cf
    >>> cf.index_fill(cf.zeros(3), 0, cf.tensor([0, 2]), 5)
    tensor([5., 0., 5.])
    """
    d, i = _vector_index("index_fill", input, dim, index)
    number, tensor = scalar_value("index_fill", value, input)
    check_value_dtype("index_fill", number, input.array.dtype)
    x = input.array
    if tensor is not None:
        i = backend_of(i).xp.unique(i)  # each position takes the value once, and so gives its gradient
    r = x.reshape(x.shape or (1,)).copy()
    r[_at(d, i)] = number
    dtype = None if tensor is None else tensor.array.dtype
    return record(r.reshape(x.shape), _INDEX_FILL, (input, tensor), (i, d, dtype))


# -- by flat position ---------------------------------------------------------------------------------------------
def take(input: Tensor, index: Tensor) -> Tensor:
    """Entries of the flattened tensor, in the shape of `index`.

    Args:
        input: any tensor.
        index: integer tensor of positions in [-numel, numel).

    Raises:
        IndexError: a position out of range.
        TypeError: index is not an integer tensor.

    >>> import cuframe as cf
    >>> cf.take(cf.tensor([[1, 2], [3, 4]]), cf.tensor([3, 0]))
    tensor([4, 1])
    """
    need_tensor("take", "input", input)
    i = need_index("take", "index", index, input)
    _check_flat("take", i, input.array.size)
    return reshape(getitem(reshape(input, -1), reshape(index, -1)), i.shape)


def _check_flat(name: str, i: Any, size: int) -> None:
    check_positions(name, i, f"{size} elements", size)


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with values written (or added) at positions of the flattened tensor.

    Args:
        input: any tensor.
        index: integer tensor of positions in [-numel, numel).
        source: as many values, of the dtype of `input`.
        accumulate: add instead of write.

    Raises:
        IndexError: a position out of range.
        RuntimeError: numbers of elements or dtypes do not fit.

    >>> import cuframe as cf
    >>> cf.put(cf.zeros(2, 2), cf.tensor([3]), cf.ones(1))
    tensor([[0., 0.],
            [0., 1.]])
    """
    need_tensor("put", "input", input)
    i = need_index("put", "index", index, input)
    need_tensor("put", "source", source)
    same_dtype("put", "source", source, input)
    if i.size != source.array.size:
        raise RuntimeError(f"put: source must have {i.size} elements as index, got {source.array.size}")
    n = input.array.size
    _check_flat("put", i, n)
    positions = Tensor(backend_of(i).xp.where(i < 0, i + n, i).reshape(-1))
    operation = index_add if accumulate else index_copy
    flat = operation(reshape(input, -1), 0, positions, reshape(source, -1))
    return reshape(flat, input.array.shape)


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `values` written (or added) at `input[indices]`.

    Args:
        input: any tensor.
        indices: a tuple of integer or bool tensors.
        values: tensor that broadcasts to `input[indices]`, of the dtype of `input`.
        accumulate: add where a position repeats, instead of keeping the last written.

    Raises:
        IndexError: a position out of range.
        RuntimeError: shapes or dtypes do not fit.

    >>> import cuframe as cf
    >>> cf.index_put(cf.zeros(3), (cf.tensor([0, 0]),), cf.ones(2), accumulate=True)
    tensor([2., 0., 0.])
    """
    need_tensor("index_put", "input", input)
    need_tensor("index_put", "values", values)
    same_dtype("index_put", "values", values, input)
    where = tuple(indices)
    if not accumulate:
        r = clone(input)
        setitem(r, where, values)
        return r
    picked = getitem(Tensor(input.array), where)
    try:
        values = expand(values, picked.array.shape)
    except RuntimeError:
        raise RuntimeError(
            f"index_put: values of shape {tuple(values.array.shape)} do not fit the indexed shape "
            f"{tuple(picked.array.shape)}"
        ) from None
    numbers = Tensor(backend_of(input.array).xp.arange(input.array.size).reshape(input.array.shape))
    return put(input, getitem(numbers, where), values, accumulate=True)
