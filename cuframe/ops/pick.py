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

__all__ = [
    "gather", "index_add", "index_copy", "index_fill", "index_put", "index_select", "put", "scatter", "scatter_add",
    "take", "take_along_dim",
]  # fmt: skip

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


def _same_dtype(name: str, argument: str, t: Tensor, beside: Tensor) -> None:
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
    _same_dtype(name, "source", source, input)
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


# -- along one dimension, an index for every entry ----------------------------------------------------------------
def grid(index: Any, d: int) -> tuple:
    """The index that reaches entry [i, j, index[i, j, k], ...] for every entry of `index`."""
    xp = backend_of(index).xp
    n = index.ndim
    ranges = [xp.arange(s).reshape((1,) * k + (s,) + (1,) * (n - 1 - k)) for k, s in enumerate(index.shape)]
    ranges[d] = index
    return tuple(ranges)


def _gather_array(x: Any, d: int, index: Any) -> Any:
    if x.shape[:d] + x.shape[d + 1 :] != index.shape[:d] + index.shape[d + 1 :]:
        x = x[tuple([_FULL if k == d else slice(s) for k, s in enumerate(index.shape)])]
    return np.take_along_axis(x, index, d)


def place_along(g: Any, shape: tuple, d: int, index: Any, once: bool = False) -> Any:
    """Zeros of a shape with `g` added along a dimension: the transpose of gather. `once`: no position repeats."""
    if isinstance(g, Tensor):
        return record(place_along(g.array, shape, d, index, once), _GATHER_BACK, (g,), (index, d))
    if once:
        r = backend_of(g).xp.zeros(shape, g.dtype)
        r[grid(index, d)] = g
        return r
    return backend_of(g).sum_at(shape, grid(index, d), g)


def _gather_vjp(g: Any, needs: tuple, index: Any, shape: tuple, d: int) -> tuple:
    return (place_along(g, shape, d, index),)


def _gather_back_vjp(g: Any, needs: tuple, index: Any, d: int) -> tuple:
    return (gathered(g, d, index),)


_GATHER = Op("gather", _gather_vjp, (None, None, None))
_GATHER_BACK = Op("gather_backward", _gather_back_vjp, (None, None))


def gathered(g: Any, d: int, index: Any) -> Any:
    """gather of an array or Tensor that was checked before."""
    if isinstance(g, Tensor):
        return record(_gather_array(g.array, d, index), _GATHER, (g,), (index, g.array.shape, d))
    return _gather_array(g, d, index)


def along(name: str, input: Tensor, dim: Any, index: Any) -> tuple[int, Any]:
    """Dimension and index of gather and its kin, checked; a 0-d input must have been made 1-d before."""
    need_tensor(name, "input", input)
    d = wrap_dim(name, "dim", dim, input.array.ndim)
    i = need_index(name, "index", index, input)
    shape = input.array.shape
    if i.ndim != len(shape):
        raise RuntimeError(
            f"{name}: index must have as many dimensions as input, got shapes {tuple(i.shape)} and {tuple(shape)}"
        )
    for k, (a, b) in enumerate(zip(i.shape, shape)):
        if k != d and a > b:
            raise RuntimeError(
                f"{name}: index of shape {tuple(i.shape)} is larger than input of shape {tuple(shape)} in dim {k}"
            )
    if i.size:
        backend_of(i).check_index(name, f"index for dim {dim}", i, shape[d])
    return d, i


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Entries picked along a dimension: out[i, j] = input[index[i, j], j] for dim 0, and so on.

    Args:
        input: any tensor.
        dim: the dimension.
        index: integer tensor with as many dimensions, no larger than `input` in the others.
        sparse_grad: accepted for PyTorch's sake; the gradient is dense.

    Returns:
        Tensor of the shape of `index`. Where an entry is picked several times, its gradients are added in order.

    Raises:
        IndexError: a position out of range, or no such dimension.
        RuntimeError: shapes or devices do not fit.
        TypeError: index is not an integer tensor.

    >>> import cuframe as cf
    >>> cf.gather(cf.tensor([[1, 2], [3, 4]]), 1, cf.tensor([[0, 0], [1, 0]]))
    tensor([[1, 1],
            [4, 3]])
    """
    need_tensor("gather", "input", input)
    if not input.array.ndim:
        need_index("gather", "index", index, input)
        flat = gather(reshape(input, 1), dim, reshape(index, -1))
        return reshape(flat, index.array.shape)
    d, i = along("gather", input, dim, index)
    return gathered(input, d, i)


def _from_start(index: Any, n: int) -> Any:
    return np.where(index < 0, index + n, index) if index.dtype.kind == "i" else index


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with the other dimensions of both broadcast; it takes what argsort and argmax(keepdim=True) give.

    Args:
        input: any tensor.
        indices: integer tensor; a negative position counts from the end.
        dim: the dimension; None picks from the flattened tensor.

    Raises:
        IndexError: a position out of range.
        RuntimeError: the shapes do not broadcast together.

    >>> import cuframe as cf
    >>> t = cf.tensor([[3, 1], [2, 4]])
    >>> cf.take_along_dim(t, cf.tensor([[1], [0]]), 1)
    tensor([[1],
            [2]])
    """
    need_tensor("take_along_dim", "input", input)
    i = need_index("take_along_dim", "indices", indices, input)
    x = input.array
    if dim is None:
        return gather(reshape(input, -1), 0, Tensor(_from_start(i, x.size).reshape(-1)))
    if i.ndim != x.ndim:
        raise RuntimeError(
            "take_along_dim: indices must have as many dimensions as input, "
            f"got shapes {tuple(i.shape)} and {tuple(x.shape)}"
        )
    d = wrap_dim("take_along_dim", "dim", dim, x.ndim)
    try:
        rest = np.broadcast_shapes(x.shape[:d] + (1,) + x.shape[d + 1 :], i.shape[:d] + (1,) + i.shape[d + 1 :])
    except ValueError:
        raise RuntimeError(
            f"take_along_dim: shapes {tuple(x.shape)} and {tuple(i.shape)} do not broadcast beside dim {dim}"
        ) from None
    wide = expand(input, rest[:d] + (x.shape[d],) + rest[d + 1 :])
    places = Tensor(_from_start(i, x.shape[d]))
    return gather(wide, d, expand(places, rest[:d] + (i.shape[d],) + rest[d + 1 :]))


def _scatter_vjp(g: Any, needs: tuple, index: Any, d: int, shape: tuple | None) -> tuple:
    g_src = None
    if needs[1] is not None:
        g_src = pad_to(keep_written(gathered(g, d, index), g.shape, grid(index, d)), shape)
    return (clear(g, None, grid(index, d)) if needs[0] is not None else None, g_src)


def pad_to(g: Any, shape: Any) -> Any:
    """`g` in the first corner of zeros of a shape: entries of src beyond the index get no gradient."""
    if g.shape == shape:
        return g
    return put_at(g, shape, tuple([slice(s) for s in g.shape]))


_SCATTER = Op("scatter", _scatter_vjp, (None, None, None))


def need_src(name: str, input: Tensor, index: Any, src: Tensor) -> Any:
    same_device(name, "src", src, input)
    _same_dtype(name, "src", src, input)
    s = src.array
    if s.ndim != index.ndim or any(a > b for a, b in zip(index.shape, s.shape)):
        raise RuntimeError(
            f"{name}: src must be at least as large as index of shape {tuple(index.shape)}, got {tuple(s.shape)}"
        )
    return row_major(s[tuple([slice(n) for n in index.shape])] if s.shape != index.shape else s)


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """A copy with values written along a dimension: out[index[i, j], j] = src[i, j] for dim 0, and so on.

    Args:
        input: any tensor.
        dim: the dimension.
        index: integer tensor with as many dimensions; where a position repeats, the last written stays.
        src: tensor at least as large as `index`, of the dtype of `input`; or a number (`value=` works too).
        reduce: `"add"` or `"multiply"` to combine with what is there.

    Raises:
        IndexError: a position out of range, or no such dimension.
        RuntimeError: shapes, dtypes or devices do not fit.
        ValueError: an unknown reduce.

    >>> import cuframe as cf
    >>> cf.scatter(cf.zeros(2, 3), 1, cf.tensor([[2], [0]]), 1.0)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    if (src is None) == (value is None):
        raise TypeError("scatter: exactly one of src and value must be given")
    given = value if src is None else src
    if reduce not in (None, "add", "multiply"):
        raise ValueError(f"scatter: reduce must be 'add', 'multiply' or None, got {reduce!r}")
    need_tensor("scatter", "input", input)
    if not input.array.ndim:
        need_tensor("scatter", "index", index)
        flat = reshape(given, -1) if isinstance(given, Tensor) else given
        return reshape(scatter(reshape(input, 1), dim, reshape(index, -1), flat, reduce=reduce), ())
    d, i = along("scatter", input, dim, index)
    x = input.array
    if not isinstance(given, Tensor):
        number, _ = scalar_value("scatter", given, input)
        check_value_dtype("scatter", number, x.dtype)
        if reduce is not None:
            given = Tensor(backend_of(x).xp.full(i.shape, number, x.dtype))
    if reduce is not None:
        from .scatter_reduce import scatter_reduce

        return scatter_reduce(input, dim, index, given, "sum" if reduce == "add" else "prod")
    r = x.copy()
    if isinstance(given, Tensor):
        r[grid(i, d)] = need_src("scatter", input, i, given)
        return record(r, _SCATTER, (input, given), (i, d, given.array.shape))
    r[grid(i, d)] = number
    return record(r, _SCATTER, (input, None), (i, d, None))


def _scatter_add_vjp(g: Any, needs: tuple, index: Any, d: int, shape: tuple) -> tuple:
    return (g, pad_to(gathered(g, d, index), shape) if needs[1] is not None else None)


_SCATTER_ADD = Op("scatter_add", _scatter_add_vjp, (None, None, None))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with values added along a dimension: out[index[i, j], j] += src[i, j] for dim 0, and so on.

    Args:
        input: any tensor.
        dim: the dimension.
        index: integer tensor with as many dimensions; where a position repeats, all are added, in order.
        src: tensor at least as large as `index`, of the dtype of `input`.

    Raises:
        IndexError: a position out of range, or no such dimension.
        RuntimeError: shapes, dtypes or devices do not fit.

    >>> import cuframe as cf
    >>> cf.scatter_add(cf.zeros(3), 0, cf.tensor([0, 0, 2]), cf.ones(3))
    tensor([2., 0., 1.])
    """
    need_tensor("scatter_add", "input", input)
    need_tensor("scatter_add", "src", src)
    if not input.array.ndim:
        need_tensor("scatter_add", "index", index)
        return reshape(scatter_add(reshape(input, 1), dim, reshape(index, -1), reshape(src, -1)), ())
    d, i = along("scatter_add", input, dim, index)
    values = need_src("scatter_add", input, i, src)
    r = input.array.copy()
    backend_of(r).add_at(r, grid(i, d), values)
    return record(r, _SCATTER_ADD, (input, src), (i, d, src.array.shape))


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
    _same_dtype("put", "source", source, input)
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
    _same_dtype("index_put", "values", values, input)
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
