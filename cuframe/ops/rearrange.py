"""Copies of the same elements in another order or number: repeat, flip, roll, triangles, diagonals."""

from __future__ import annotations

import math
from operator import index as _as_int
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .convert import clone
from .create import zeros
from .define import Op, need_tensor, record
from .join import atleast_2d, cat, stack
from .pick import index_select
from .shape import expand, reshape, sizes_of, transpose, wrap_dim
from .window import diagonal, diagonal_place

__all__ = [
    "block_diag", "cartesian_prod", "diag", "diag_embed", "diagflat", "flip", "fliplr", "flipud", "meshgrid", "repeat",
    "repeat_interleave", "roll", "rot90", "tile", "trace", "tril", "triu",
]  # fmt: skip


# -- repeat -------------------------------------------------------------------------------------------------------
def _repeat_vjp(g: Any, needs: tuple, shape: tuple, counts: tuple) -> tuple:
    padded = (1,) * (len(counts) - len(shape)) + shape
    apart = tuple(n for pair in zip(counts, padded) for n in pair)
    summed = g.reshape(apart).sum(axis=tuple(range(0, len(apart), 2)))
    return (summed.reshape(shape),)


_REPEAT = Op("repeat", _repeat_vjp, (None, None))


def _repeated(name: str, input: Tensor, counts: tuple) -> Tensor:
    x = input.array
    if any(n < 0 for n in counts):
        raise RuntimeError(f"{name}: counts must not be negative, got {counts}")
    return record(np.tile(x, counts), _REPEAT, (input,), (x.shape, counts))


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The whole tensor several times along each dimension.

    Args:
        input: any tensor.
        repeats: a count for every dimension, one by one or as a tuple; there may be more counts than dimensions, for
            new ones in front.

    Raises:
        RuntimeError: fewer counts than dimensions, or a negative one.

    >>> import cuframe as cf
    >>> cf.tensor([1, 2]).repeat(2, 2)
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    need_tensor("repeat", "input", input)
    counts = sizes_of("repeat", repeats)
    if len(counts) < input.array.ndim:
        raise RuntimeError(
            f"repeat: repeats {counts} are fewer than the dimensions of a tensor of shape {tuple(input.array.shape)}"
        )
    return _repeated("repeat", input, counts)


def tile(input: Tensor, *dims: Any) -> Tensor:
    """As `repeat`, with ones put in front where there are fewer counts than dimensions.

    Args:
        input: any shape and dtype.
        dims: how often, for each dimension, the last ones at least.

    >>> import cuframe as cf
    >>> cf.tile(cf.tensor([[1], [2]]), (2,))
    tensor([[1, 1],
            [2, 2]])
    """
    need_tensor("tile", "input", input)
    counts = sizes_of("tile", dims)
    return _repeated("tile", input, (1,) * (input.array.ndim - len(counts)) + counts)


def _interleave_vjp(g: Any, needs: tuple, shape: tuple, d: int, n: int) -> tuple:
    return (g.reshape(shape[: d + 1] + (n,) + shape[d + 1 :]).sum(axis=d + 1),)


_INTERLEAVE = Op("repeat_interleave", _interleave_vjp, (None, None, None))


def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each entry along a dimension several times in a row.

    Args:
        input: any tensor; alone, it holds the counts, and the result the positions.
        repeats: an int, or a 1-d integer tensor with a count for each entry.
        dim: the dimension; None flattens first.
        output_size: the size of the result along `dim`, checked if given.

    Raises:
        RuntimeError: counts that are negative or do not fit.

    >>> import cuframe as cf
    >>> cf.repeat_interleave(cf.tensor([1, 2]), 2)
    tensor([1, 1, 2, 2])
    >>> cf.repeat_interleave(cf.tensor([1, 2]), cf.tensor([0, 3]))
    tensor([2, 2, 2])
    """
    need_tensor("repeat_interleave", "input", input)
    if repeats is None:
        x = input.array
        return repeat_interleave(Tensor(backend_of(x).xp.arange(x.size)), input)
    if dim is None:
        input, dim = reshape(input, -1), 0
    shape = input.array.shape or (1,)
    d = wrap_dim("repeat_interleave", "dim", dim, input.array.ndim)
    if not isinstance(repeats, Tensor) or repeats.array.size == 1:
        n = _as_int(repeats)
        if n < 0:
            raise RuntimeError(f"repeat_interleave: repeats must not be negative, got {n}")
        _check_output(shape[d] * n, output_size)
        r = np.repeat(input.array.reshape(shape), n, axis=d)
        return record(r, _INTERLEAVE, (input,), (input.array.shape or (1,), d, n))
    counts = repeats.array
    if counts.dtype.kind not in "iu":
        raise RuntimeError(f"repeat_interleave: repeats must be integers, got {counts.dtype.name}")
    if counts.shape != (shape[d],):
        raise RuntimeError(
            f"repeat_interleave: repeats must have shape ({shape[d]},) to fit dim {dim}, got {tuple(counts.shape)}"
        )
    if bool((counts < 0).any()):
        raise RuntimeError("repeat_interleave: repeats must not be negative")
    xp = backend_of(counts).xp
    where = xp.repeat(xp.arange(shape[d]), counts.tolist())
    _check_output(where.size, output_size)
    return index_select(input, d, Tensor(where))


def _check_output(size: int, expected: int | None) -> None:
    if expected is not None and size != expected:
        raise RuntimeError(f"repeat_interleave: output_size must be {size}, the sum of the repeats, got {expected}")


# -- flip and roll ------------------------------------------------------------------------------------------------
def _flip_vjp(g: Any, needs: tuple, dims: tuple) -> tuple:
    return (np.flip(g, dims),)


_FLIP = Op("flip", _flip_vjp, (None,))


def _dims(name: str, dims: tuple, ndim: int) -> tuple:
    wrapped = tuple([wrap_dim(name, "dims", d, ndim) for d in sizes_of(name, dims)])
    if len(set(wrapped)) != len(wrapped):
        raise RuntimeError(f"{name}: a dimension occurs twice in dims {dims}")
    return wrapped


def flip(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """A copy with the order along some dimensions reversed.

    Args:
        input: any tensor.
        order: the dimensions, one by one or as a tuple.
        dims: the same by keyword.

    Raises:
        IndexError: no such dimension.
        RuntimeError: a dimension occurs twice.

    >>> import cuframe as cf
    >>> cf.flip(cf.tensor([[1, 2], [3, 4]]), (0,))
    tensor([[3, 4],
            [1, 2]])
    """
    need_tensor("flip", "input", input)
    x = input.array
    axes = _dims("flip", order if dims is None else (dims,), x.ndim)
    if not x.ndim:
        return clone(input)
    return record(np.flip(x, axes).copy(), _FLIP, (input,), (axes,))


def fliplr(input: Tensor) -> Tensor:
    """`flip` along dimension 1.

    Args:
        input: at least two dimensions.

    Raises:
        RuntimeError: fewer than two dimensions.

    >>> import cuframe as cf
    >>> cf.fliplr(cf.tensor([[1, 2], [3, 4]]))
    tensor([[2, 1],
            [4, 3]])
    """
    need_tensor("fliplr", "input", input)
    if input.array.ndim < 2:
        raise RuntimeError(f"fliplr: input must have at least 2 dimensions, got shape {tuple(input.array.shape)}")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """`flip` along dimension 0.

    Args:
        input: at least one dimension.

    Raises:
        RuntimeError: a 0-d tensor.

    >>> import cuframe as cf
    >>> cf.flipud(cf.tensor([[1, 2], [3, 4]]))
    tensor([[3, 4],
            [1, 2]])
    """
    need_tensor("flipud", "input", input)
    if input.array.ndim < 1:
        raise RuntimeError("flipud: input must have at least 1 dimension, got a 0-d tensor")
    return flip(input, 0)


def _roll_vjp(g: Any, needs: tuple, shifts: Any, dims: Any) -> tuple:
    back = -shifts if isinstance(shifts, int) else tuple([-s for s in shifts])
    return (np.roll(g, back, dims),)


_ROLL = Op("roll", _roll_vjp, (None, None))


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """A copy with the entries moved along some dimensions; what leaves at one end enters at the other.

    Args:
        input: any tensor.
        shifts: an int, or a tuple with one for each of `dims`.
        dims: an int or a tuple; None rolls the flattened tensor.

    Raises:
        RuntimeError: shifts and dims differ in number.
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.roll(cf.arange(5), 2)
    tensor([3, 4, 0, 1, 2])
    """
    need_tensor("roll", "input", input)
    x = input.array
    moves = sizes_of("roll", (shifts,))
    if dims is None:
        if len(moves) != 1:
            raise RuntimeError(f"roll: several shifts need as many dims, got {moves} and None")
        return record(np.roll(x, moves[0]), _ROLL, (input,), (moves[0], None))
    axes = tuple([wrap_dim("roll", "dims", d, x.ndim) for d in sizes_of("roll", (dims,))])
    if len(moves) != len(axes):
        raise RuntimeError(f"roll: shifts and dims must be equally many, got {moves} and {dims}")
    if axes and not x.ndim:
        raise IndexError(f"roll: dims must be empty for a 0-d tensor, got {dims}")
    return record(np.roll(x, moves, axes), _ROLL, (input,), (moves, axes))


def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """A copy turned by k quarters in the plane of two dimensions, from the first towards the second.

    Raises:
        RuntimeError: dims are not two different dimensions.

    >>> import cuframe as cf
    >>> cf.rot90(cf.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    need_tensor("rot90", "input", input)
    if len(dims) != 2:
        raise RuntimeError(f"rot90: dims must be two dimensions, got {tuple(dims)}")
    a, b = [wrap_dim("rot90", "dims", d, input.array.ndim) for d in dims]
    if a == b or input.array.ndim < 2:
        raise RuntimeError(f"rot90: dims must be two different dimensions of the tensor, got {tuple(dims)}")
    k %= 4
    if k == 0:
        return clone(input)
    if k == 2:
        return flip(input, a, b)
    return flip(transpose(input, a, b), a if k == 1 else b)


# -- triangles and diagonals --------------------------------------------------------------------------------------
def _tril_vjp(g: Any, needs: tuple, diagonal: int) -> tuple:
    return (np.tril(g, diagonal),)


def _triu_vjp(g: Any, needs: tuple, diagonal: int) -> tuple:
    return (np.triu(g, diagonal),)


_TRIL = Op("tril", _tril_vjp, (None,))
_TRIU = Op("triu", _triu_vjp, (None,))


def _need_matrix(name: str, input: Any) -> None:
    need_tensor(name, "input", input)
    if input.array.ndim < 2:
        raise RuntimeError(f"{name}: input must have at least 2 dimensions, got shape {tuple(input.array.shape)}")


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of (a batch of) matrices, zeros above.

    Args:
        input: (..., n, m).
        diagonal: the last diagonal that is kept: 0 the main one, above it if positive.

    Raises:
        RuntimeError: fewer than two dimensions.

    >>> import cuframe as cf
    >>> cf.tril(cf.ones(2, 2))
    tensor([[1., 0.],
            [1., 1.]])
    """
    _need_matrix("tril", input)
    return record(np.tril(input.array, diagonal), _TRIL, (input,), (diagonal,))


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of (a batch of) matrices, zeros below.

    Args:
        input: (..., n, m).
        diagonal: the first diagonal that is kept: 0 the main one, above it if positive.

    Raises:
        RuntimeError: fewer than two dimensions.

    >>> import cuframe as cf
    >>> cf.triu(cf.ones(2, 2))
    tensor([[1., 1.],
            [0., 1.]])
    """
    _need_matrix("triu", input)
    return record(np.triu(input.array, diagonal), _TRIU, (input,), (diagonal,))


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension of `input` on a diagonal, zeros elsewhere.

    Args:
        input: (..., n).
        offset: which diagonal: 0 the main one, above it if positive.
        dim1, dim2: where the matrices' dimensions stand in the result.

    Raises:
        IndexError: no such dimension.
        RuntimeError: dim1 and dim2 are the same.

    >>> import cuframe as cf
    >>> cf.diag_embed(cf.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    need_tensor("diag_embed", "input", input)
    x = input.array
    if not x.ndim:
        raise RuntimeError("diag_embed: input must have at least 1 dimension, got a 0-d tensor")
    a = wrap_dim("diag_embed", "dim1", dim1, x.ndim + 1)
    b = wrap_dim("diag_embed", "dim2", dim2, x.ndim + 1)
    if a == b:
        raise RuntimeError(f"diag_embed: dim1 and dim2 must differ, got {dim1} and {dim2}")
    n = x.shape[-1] + abs(offset)
    shape = list(x.shape[:-1])
    for d in sorted((a, b)):
        shape.insert(d, n)
    return diagonal_place(input, tuple(shape), offset, a, b)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix with a vector on its diagonal, or a copy of a matrix's diagonal.

    Args:
        input: (n,) or (n, m).
        diagonal: which one; 0 is the main diagonal, above it positive.

    Raises:
        RuntimeError: neither one nor two dimensions.

    >>> import cuframe as cf
    >>> cf.diag(cf.tensor([1, 2]), 1)
    tensor([[0, 1, 0],
            [0, 0, 2],
            [0, 0, 0]])
    """
    need_tensor("diag", "input", input)
    if input.array.ndim not in (1, 2):
        raise RuntimeError(f"diag: input must have 1 or 2 dimensions, got shape {tuple(input.array.shape)}")
    return diag_embed(input, diagonal) if input.array.ndim == 1 else clone(_diagonal(input, diagonal))


_diagonal = diagonal


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal.

    Args:
        input: (n, m).

    Returns:
        A 0-d tensor.

    Raises:
        RuntimeError: not two dimensions.

    >>> import cuframe as cf
    >>> cf.trace(cf.tensor([[1, 2], [3, 4]]))
    tensor(5)
    """
    need_tensor("trace", "input", input)
    if input.array.ndim != 2:
        raise RuntimeError(f"trace: input must have 2 dimensions, got shape {tuple(input.array.shape)}")
    return _diagonal(input).sum()  # type: ignore[attr-defined]


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with the flattened tensor on a diagonal.

    >>> import cuframe as cf
    >>> cf.diagflat(cf.tensor([[1], [2]]))
    tensor([[1, 0],
            [0, 2]])
    """
    need_tensor("diagflat", "input", input)
    return diag_embed(reshape(input, -1), offset)


def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along the diagonal of a larger one, zeros elsewhere.

    Args:
        tensors: at most 2-d; vectors count as rows.

    Raises:
        RuntimeError: more than two dimensions, or different devices.

    >>> import cuframe as cf
    >>> cf.block_diag(cf.tensor([[1, 2]]), cf.tensor([3]))
    tensor([[1, 2, 0],
            [0, 0, 3]])
    """
    for i, x in enumerate(tensors):
        need_tensor("block_diag", f"tensors[{i}]", x)
        if x.array.ndim > 2:
            raise RuntimeError(f"block_diag: tensors[{i}] must be at most 2-d, got shape {tuple(x.array.shape)}")
    if not tensors:
        return reshape(zeros(0), 1, 0)
    blocks = [atleast_2d(x) for x in tensors]
    width = sum(b.array.shape[1] for b in blocks)
    rows, left = [], 0
    for b in blocks:
        n, m = b.array.shape
        sides = [zeros(n, w, dtype=b.array.dtype, device=b.device) for w in (left, width - left - m)]
        rows.append(cat([sides[0], b, sides[1]], 1))
        left += m
    return cat(rows, 0)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """Every combination of one entry from each vector, as rows.

    Raises:
        RuntimeError: a tensor that is not 1-d, or different dtypes.

    >>> import cuframe as cf
    >>> cf.cartesian_prod(cf.tensor([1, 2]), cf.tensor([3, 4]))
    tensor([[1, 3],
            [1, 4],
            [2, 3],
            [2, 4]])
    """
    for i, x in enumerate(tensors):
        need_tensor("cartesian_prod", f"tensors[{i}]", x)
        if x.array.ndim != 1:
            raise RuntimeError(f"cartesian_prod: tensors[{i}] must be 1-d, got shape {tuple(x.array.shape)}")
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(x, -1) for x in meshgrid(*tensors)], 1)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of a grid: each vector along a dimension of its own, expanded over the others.

    Args:
        tensors: 0-d or 1-d tensors, one by one or as a list.
        indexing: `"ij"`: the first vector runs along dimension 0; `"xy"`: along dimension 1, the second along 0.

    Raises:
        RuntimeError: more than one dimension, or different dtypes.
        ValueError: another indexing.

    >>> import cuframe as cf
    >>> cf.meshgrid(cf.arange(2), cf.arange(3))[1]
    tensor([[0, 1, 2],
            [0, 1, 2]])
    """
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    for i, x in enumerate(given):
        need_tensor("meshgrid", f"tensors[{i}]", x)
        if x.array.ndim > 1:
            raise RuntimeError(f"meshgrid: tensors[{i}] must be 0-d or 1-d, got shape {tuple(x.array.shape)}")
        if x.array.dtype != given[0].array.dtype:
            raise RuntimeError(
                f"meshgrid: tensors must have one dtype, got {given[0].array.dtype.name} and {x.array.dtype.name}"
            )
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: indexing must be 'ij' or 'xy', got {indexing!r}")
    order = list(range(len(given)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = 1, 0
    sizes = [0] * len(given)
    for d, x in zip(order, given):
        sizes[d] = math.prod(x.array.shape)
    return tuple(
        expand(reshape(x, (1,) * d + (x.array.size,) + (1,) * (len(given) - 1 - d)), tuple(sizes))
        for d, x in zip(order, given)
    )
