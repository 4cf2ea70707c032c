"""gather and scatter: along a dimension, an index for every entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.graph import Op
from ..backend import backend_of
from ..tensor import Tensor, record
from .define import need_tensor
from .index import clear, keep_written, put_at, row_major
from .pick import check_value_dtype, need_index, same_device, same_dtype, scalar_value
from .shape import expand, reshape, wrap_dim

__all__ = ["gather", "scatter", "scatter_add", "take_along_dim"]

_FULL = slice(None)


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
    same_dtype(name, "src", src, input)
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
