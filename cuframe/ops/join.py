"""Tensors put together and taken apart along a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..dtypes import promote_types
from ..tensor import Tensor, record_outputs
from .define import Op, cast, need_tensor, record
from .inplace import mark_view
from .shape import as_int, reshape, unsqueeze, wrap_dim
from .window import narrow, select

__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "cat", "chunk", "column_stack", "concat", "concatenate", "dsplit",
    "dstack", "hsplit", "hstack", "row_stack", "split", "stack", "tensor_split", "unbind", "vsplit", "vstack",
]  # fmt: skip


def _tensors(name: str, tensors: Any) -> list[Tensor]:
    """The members of a sequence of tensors, in their common dtype."""
    if tensors.__class__ not in (list, tuple) and not (isinstance(tensors, Sequence)):
        raise TypeError(f"{name}: tensors must be a tuple or list of Tensors, got {type(tensors).__name__}")
    if not tensors:
        # PyTorch's types: join along what is there, or along a dimension yet to be made.
        raise (ValueError if name == "cat" else RuntimeError)(f"{name}: tensors must not be empty")
    first = tensors[0]
    need_tensor(name, "tensors[0]", first)
    place, dtype = first.array.__class__, first.array.dtype
    same, many = True, place is not np.ndarray
    for i, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            need_tensor(name, f"tensors[{i}]", x)
        if x.array.dtype is not dtype:
            same = False
        if x.array.__class__ is not place or (many and x.device != first.device):
            raise RuntimeError(f"{name}: tensors must be on one device, got {first.device} and {x.device}")
    if same:
        return list(tensors)
    for x in tensors[1:]:
        dtype = promote_types(dtype, x.array.dtype)
    return [cast(x, dtype) for x in tensors]


def _cat_vjp(g: Any, needs: tuple, ends: list, d: int) -> tuple:
    before = (slice(None),) * d
    grads: list[Any] = []
    start = 0
    for need, end in zip(needs, ends):
        # A 1-d empty tensor takes part whatever the other shapes are; its place is empty, and so is its gradient.
        grads.append(None if need is None else g[(*before, slice(start, end))])
        start = end
    return tuple(grads)


_CAT = Op("cat", _cat_vjp, (None, None))


def cat(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors one behind the other along a dimension they have.

    Args:
        tensors: tuple or list of tensors of equal shape but for dimension `dim`; 1-d empty ones are passed over.
        dim: the dimension.

    Returns:
        Tensor in the common dtype.

    Raises:
        ValueError: no tensors.
        RuntimeError: shapes or devices that do not fit.
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.cat((cf.zeros(1, 2), cf.ones(2, 2)))
    tensor([[0., 0.],
            [1., 1.],
            [1., 1.]])
    """
    return _cat("cat", _tensors("cat", tensors), dim)


def _cat(name: str, given: list[Tensor], dim: int) -> Tensor:
    parts = [x for x in given if x.array.shape != (0,)] or given[:1]
    first = parts[0].array
    if not first.ndim:
        raise RuntimeError(f"{name}: 0-d tensors have no dimension to join along; use stack")
    d = wrap_dim(name, "dim", dim, first.ndim)
    try:
        r = np.concatenate([x.array for x in parts], axis=d)
    except ValueError:
        raise _cat_error(name, given, parts, d) from None
    ends = list(accumulate(x.array.shape[d] for x in parts))
    return record(r, _CAT, tuple(parts), (ends, d))


def _cat_error(name: str, given: list, parts: list, d: int) -> Exception:
    first = parts[0].array.shape
    for i, x in enumerate(given):
        shape = x.array.shape
        if shape == (0,):
            continue
        if not shape:
            return RuntimeError(f"{name}: 0-d tensors have no dimension to join along; use stack")
        if len(shape) != len(first) or any(a != b for k, (a, b) in enumerate(zip(shape, first)) if k != d):
            return RuntimeError(
                f"{name}: tensors[{i}] has shape {tuple(shape)}, which differs from {tuple(first)} elsewhere than in "
                f"dim {d}"
            )
    return RuntimeError(f"{name}: the tensors cannot be joined")


def concat(tensors: Any, dim: int = 0) -> Tensor:
    """`cat` under another name.

    Args:
        tensors, dim: as in `cat`.

    >>> import cuframe as cf
    >>> cf.concat([cf.tensor([1, 2]), cf.tensor([3])])
    tensor([1, 2, 3])
    """
    return cat(tensors, dim)


def concatenate(tensors: Any, dim: int = 0, axis: int | None = None) -> Tensor:
    """`cat` under NumPy's name.

    Args:
        tensors, dim: as in `cat`.
        axis: NumPy's name of dim.

    >>> import cuframe as cf
    >>> cf.concatenate([cf.ones(1, 2), cf.zeros(1, 2)], axis=1)
    tensor([[1., 1., 0., 0.]])
    """
    return cat(tensors, dim if axis is None else axis)


def _stack_vjp(g: Any, needs: tuple, d: int) -> tuple:
    before = (slice(None),) * d
    return tuple([None if need is None else g[(*before, i)] for i, need in enumerate(needs)])


_STACK = Op("stack", _stack_vjp, (None,))


def stack(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new dimension.

    Args:
        tensors: tuple or list of tensors.
        dim: where the new dimension stands in the result.

    Raises:
        RuntimeError: no tensors, or shapes or devices differ.
        IndexError: dim is not in [-(ndim + 1), ndim].

    >>> import cuframe as cf
    >>> cf.stack((cf.tensor([1, 2]), cf.tensor([3, 4])), 1)
    tensor([[1, 3],
            [2, 4]])
    """
    parts = _tensors("stack", tensors)
    shape = parts[0].array.shape
    d = wrap_dim("stack", "dim", dim, len(shape) + 1)
    for i, x in enumerate(parts):
        if x.array.shape != shape:
            raise RuntimeError(
                f"stack: tensors must have one shape, got {tuple(shape)} and {tuple(x.array.shape)} (tensors[{i}])"
            )
    raised = shape[:d] + (1,) + shape[d:]
    r = np.concatenate([x.array.reshape(raised) for x in parts], axis=d)
    return record(r, _STACK, tuple(parts), (d,))


# -- taking apart -------------------------------------------------------------------------------------------------
def _split_vjp(g: list, needs: tuple, shape: tuple, ends: list, d: int) -> tuple:
    like = next(x for x in g if x is not None)
    parts = []
    start = 0
    for x, end in zip(g, ends):
        parts.append(np.zeros_like(like, shape=shape[:d] + (end - start,) + shape[d + 1 :]) if x is None else x)
        start = end
    return (np.concatenate(parts, axis=d),)


_SPLIT = Op("split", _split_vjp, (None, None, None))


def _split_at(input: Tensor, ends: list, d: int) -> tuple[Tensor, ...]:
    """Pieces between consecutive ends; one node for all of them, so that backward joins and does not add."""
    x = input.array
    before = (slice(None),) * d
    starts = [0, *ends[:-1]]
    pieces = tuple([x[(*before, slice(a, b))] for a, b in zip(starts, ends)])
    outs = record_outputs(pieces, _SPLIT, (input,), (x.shape, ends, d))
    for out, a, b in zip(outs, starts, ends):
        mark_view(out, input, narrow, d, a, b - a)
    return tuple(outs)


def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along a dimension, as views.

    Args:
        input: tensor with at least one dimension.
        split_size_or_sections: an int, the size of every piece but perhaps the last; or the sizes of all.
        dim: the dimension.

    Raises:
        RuntimeError: a negative size, or sizes that do not add up to the dimension.

    >>> import cuframe as cf
    >>> cf.split(cf.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    size, d = _splittable("split", input, dim)
    if isinstance(split_size_or_sections, (tuple, list)):
        sections = [as_int("split", "sections", s) for s in split_size_or_sections]
        if sum(sections) != size or any(s < 0 for s in sections):
            raise RuntimeError(f"split: sections {sections} must be >= 0 and add up to {size}, the size of dim {dim}")
        return _split_at(input, list(accumulate(sections)), d)
    piece = as_int("split", "split_size", split_size_or_sections)
    if piece < 0 or (piece == 0 and size):
        raise RuntimeError(f"split: split_size must be positive for dim {dim} of size {size}, got {piece}")
    count = max(-(-size // piece), 1) if piece else 1
    return _split_at(input, [min((i + 1) * piece, size) for i in range(count)], d)


def _splittable(name: str, input: Tensor, dim: int) -> tuple[int, int]:
    need_tensor(name, "input", input)
    shape = input.array.shape
    if not shape:
        raise RuntimeError(f"{name}: input must have at least one dimension, got a 0-d tensor")
    d = wrap_dim(name, "dim", dim, len(shape))
    return shape[d], d


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (but the last) along a dimension, as views.

    Args:
        input: at least one dimension.
        chunks: how many pieces at most.
        dim: along which.

    Raises:
        RuntimeError: chunks is not positive.

    >>> import cuframe as cf
    >>> cf.chunk(cf.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    size, d = _splittable("chunk", input, dim)
    chunks = as_int("chunk", "chunks", chunks)
    if chunks <= 0:
        raise RuntimeError(f"chunk: chunks must be positive, got {chunks}")
    if not size:
        return _split_at(input, [0] * chunks, d)
    return split(input, -(-size // chunks), d)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along a dimension by number or by the indices where to cut, as views.

    Args:
        input: tensor with at least one dimension.
        indices_or_sections: an int n: n pieces whose sizes differ by at most one; or a tuple or 1-d tensor of indices.
        dim: the dimension.

    Raises:
        RuntimeError: the number of pieces is not positive.

    >>> import cuframe as cf
    >>> cf.tensor_split(cf.arange(5), (1, 3))
    (tensor([0]), tensor([1, 2]), tensor([3, 4]))
    """
    return _tensor_split("tensor_split", input, indices_or_sections, dim)


def _tensor_split(name: str, input: Tensor, indices_or_sections: Any, dim: int) -> tuple[Tensor, ...]:
    size, d = _splittable(name, input, dim)
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, (tuple, list)):
        pieces = []
        start = 0
        for cut in [*indices_or_sections, size]:
            end = as_int(name, "indices", cut)
            a, b, _ = slice(start, end).indices(size)
            pieces.append(narrow(input, d, a, max(b - a, 0)))
            start = end
        return tuple(pieces)
    sections = as_int(name, "indices_or_sections", indices_or_sections)
    if sections <= 0:
        raise RuntimeError(f"{name}: the number of sections must be positive, got {sections}")
    each, more = divmod(size, sections)
    return _split_at(input, list(accumulate(each + (i < more) for i in range(sections))), d)


def _even_split(name: str, input: Tensor, indices_or_sections: Any, dim: int, least: int) -> tuple[Tensor, ...]:
    need_tensor(name, "input", input)
    if input.array.ndim < least:
        raise RuntimeError(f"{name}: input must have at least {least} dimension(s), got shape {tuple(input.shape)}")
    if isinstance(indices_or_sections, int) and (
        indices_or_sections <= 0 or input.array.shape[dim] % indices_or_sections
    ):
        raise RuntimeError(
            f"{name}: dim {dim} of size {input.array.shape[dim]} cannot be cut into {indices_or_sections} equal pieces"
        )
    return _tensor_split(name, input, indices_or_sections, dim)


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 1 (0 of a vector) into equal pieces or at indices.

    Args:
        input: at least one dimension.
        indices_or_sections: a number of pieces that divides the size, or the places to cut at.

    Raises:
        RuntimeError: a 0-d tensor, or pieces that are not equal.

    >>> import cuframe as cf
    >>> cf.hsplit(cf.tensor([1, 2, 3, 4]), [1, 3])
    (tensor([1]), tensor([2, 3]), tensor([4]))
    """
    return _even_split("hsplit", input, indices_or_sections, 1 if input.ndim > 1 else 0, 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 0 into equal pieces or at indices.

    Args:
        input: at least two dimensions.
        indices_or_sections: a number of pieces that divides the size, or the places to cut at.

    Raises:
        RuntimeError: fewer dimensions, or pieces that are not equal.

    >>> import cuframe as cf
    >>> cf.vsplit(cf.tensor([[1, 2], [3, 4]]), 2)
    (tensor([[1, 2]]), tensor([[3, 4]]))
    """
    return _even_split("vsplit", input, indices_or_sections, 0, 2)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 2 into equal pieces or at indices.

    Args:
        input: at least three dimensions.
        indices_or_sections: a number of pieces that divides the size, or the places to cut at.

    Raises:
        RuntimeError: fewer dimensions, or pieces that are not equal.

    >>> import cuframe as cf
    >>> [piece.shape for piece in cf.dsplit(cf.ones(1, 2, 6), 3)]
    [cuframe.Size([1, 2, 2]), cuframe.Size([1, 2, 2]), cuframe.Size([1, 2, 2])]
    """
    return _even_split("dsplit", input, indices_or_sections, 2, 3)


def _unbind_vjp(g: list, needs: tuple, d: int) -> tuple:
    like = next(x for x in g if x is not None)
    return (np.stack([np.zeros_like(like) if x is None else x for x in g], axis=d),)


_UNBIND = Op("unbind", _unbind_vjp, (None,))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All entries along a dimension, as views without it.

    One node serves all of them: a loop over time steps has a backward pass linear in their number, which indexing
    each step would not.

    Args:
        input: at least one dimension.
        dim: the dimension that is taken apart.

    Raises:
        IndexError: a 0-d tensor, or no such dimension.

    >>> import cuframe as cf
    >>> cf.unbind(cf.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    need_tensor("unbind", "input", input)
    if not input.array.ndim:
        raise IndexError("unbind: input must have at least one dimension, got a 0-d tensor")
    size, d = _splittable("unbind", input, dim)
    x = input.array
    before = (slice(None),) * d
    outs = record_outputs(tuple([x[(*before, i, ...)] for i in range(size)]), _UNBIND, (input,), (d,))
    for i, out in enumerate(outs):
        mark_view(out, input, select, d, i)
    return tuple(outs)


# -- by number of dimensions --------------------------------------------------------------------------------------
def _atleast(name: str, tensors: tuple, n: int) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        return tuple(_atleast_one(name, x, n) for x in tensors[0])
    return _atleast_one(name, tensors[0], n) if len(tensors) == 1 else tuple(_atleast_one(name, x, n) for x in tensors)


def _atleast_one(name: str, x: Tensor, n: int) -> Tensor:
    need_tensor(name, "tensors", x)
    ndim = x.array.ndim
    if ndim >= n:
        return x
    if ndim == 0:
        return reshape(x, (1,) * n)
    if n == 2:
        return unsqueeze(x, 0)
    return unsqueeze(unsqueeze(x, 0), -1) if ndim == 1 else unsqueeze(x, -1)


def atleast_1d(*tensors: Any) -> Any:
    """Each tensor with at least one dimension: a 0-d one gets one of size one.

    Args:
        tensors: one or several, of any shape.

    Returns:
        A tensor for one, a tuple for several or a sequence; views.

    >>> import cuframe as cf
    >>> cf.atleast_1d(cf.tensor(3.0))
    tensor([3.])
    """
    return _atleast("atleast_1d", tensors, 1)


def atleast_2d(*tensors: Any) -> Any:
    """Each tensor with at least two dimensions, new ones in front.

    Args:
        tensors: one or several, of any shape.

    Returns:
        A tensor for one, a tuple for several or a sequence; views.

    >>> import cuframe as cf
    >>> cf.atleast_2d(cf.tensor([1, 2]), cf.tensor(3))
    (tensor([[1, 2]]), tensor([[3]]))
    """
    return _atleast("atleast_2d", tensors, 2)


def atleast_3d(*tensors: Any) -> Any:
    """Each tensor with at least three dimensions: (n,) becomes (1, n, 1) and (n, m) becomes (n, m, 1).

    Args:
        tensors: one or several, of any shape.

    Returns:
        A tensor for one, a tuple for several or a sequence; views.

    >>> import cuframe as cf
    >>> cf.atleast_3d(cf.ones(2)).shape, cf.atleast_3d(cf.ones(2, 3)).shape
    (cuframe.Size([1, 2, 1]), cuframe.Size([2, 3, 1]))
    """
    return _atleast("atleast_3d", tensors, 3)


def hstack(tensors: Any) -> Tensor:
    """`cat` along dimension 1, of vectors along dimension 0.

    Args:
        tensors: a sequence of tensors that agree in all other dimensions; 0-d ones count as (1,).

    >>> import cuframe as cf
    >>> cf.hstack((cf.tensor([1]), cf.tensor([2, 3])))
    tensor([1, 2, 3])
    """
    parts = [_atleast_one("hstack", x, 1) for x in _tensors("hstack", tensors)]
    return _cat("hstack", parts, 0 if parts[0].array.ndim == 1 else 1)


def vstack(tensors: Any) -> Tensor:
    """`cat` along dimension 0, vectors counting as rows.

    Args:
        tensors: a sequence of tensors that agree in all other dimensions.

    >>> import cuframe as cf
    >>> cf.vstack((cf.tensor([1, 2]), cf.tensor([3, 4])))
    tensor([[1, 2],
            [3, 4]])
    """
    return _cat("vstack", [_atleast_one("vstack", x, 2) for x in _tensors("vstack", tensors)], 0)


def row_stack(tensors: Any) -> Tensor:
    """`vstack` under another name.

    Args:
        tensors: as in `vstack`.

    >>> import cuframe as cf
    >>> cf.row_stack([cf.tensor([1, 2]), cf.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    return vstack(tensors)


def dstack(tensors: Any) -> Tensor:
    """`cat` along dimension 2, after `atleast_3d`.

    Args:
        tensors: a sequence of tensors that agree in all other dimensions.

    >>> import cuframe as cf
    >>> cf.dstack([cf.tensor([1, 2]), cf.tensor([3, 4])])
    tensor([[[1, 3],
             [2, 4]]])
    """
    return _cat("dstack", [_atleast_one("dstack", x, 3) for x in _tensors("dstack", tensors)], 2)


def column_stack(tensors: Any) -> Tensor:
    """`hstack` with vectors counting as columns.

    Args:
        tensors: vectors (n,) and matrices (n, m), of one n.

    >>> import cuframe as cf
    >>> cf.column_stack([cf.tensor([1, 2]), cf.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    parts = [reshape(x, x.array.size, 1) if x.array.ndim <= 1 else x for x in _tensors("column_stack", tensors)]
    return _cat("column_stack", parts, 1)
