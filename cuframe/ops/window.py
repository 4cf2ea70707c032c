"""Parts of a tensor as views: narrow, select, diagonals and sliding windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import backend_of
from ..tensor import Tensor
from .convert import clone
from .define import Op, need_tensor, record, zeros_like
from .inplace import view as _view
from .shape import as_int, wrap_dim

__all__ = ["diagonal", "diagonal_scatter", "narrow", "select", "select_scatter", "slice_scatter", "unfold"]


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` entries of dimension `dim` from `start` on, as a view.

    Args:
        input: tensor with at least one dimension.
        start: an int (negative counts from the end) or a 0-d integer tensor.
        length: how many.

    Raises:
        IndexError: start is outside the dimension.
        RuntimeError: start + length goes beyond it, or length is negative.

    >>> import cuframe as cf
    >>> cf.narrow(cf.arange(5), 0, 1, 3)
    tensor([1, 2, 3])
    """
    need_tensor("narrow", "input", input)
    shape = input.array.shape
    if not shape:
        raise RuntimeError("narrow: input must have at least one dimension, got a 0-d tensor")
    d = wrap_dim("narrow", "dim", dim, len(shape))
    first, n = as_int("narrow", "start", start), as_int("narrow", "length", length)
    size = shape[d]
    if n < 0:
        raise RuntimeError(f"narrow: length must not be negative, got {n}")
    if not -size <= first <= size:
        raise IndexError(f"narrow: start must be in [{-size}, {size}] for dim {dim} of size {size}, got {first}")
    if first < 0:
        first += size
    if first + n > size:
        raise RuntimeError(f"narrow: start ({first}) + length ({n}) goes beyond dim {dim} of size {size}")
    return input[(slice(None),) * d + (slice(first, first + n),)]  # type: ignore[index]


def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """Entry `index` of dimension `dim`, as a view without that dimension.

    Raises:
        IndexError: no such dimension or entry.

    >>> import cuframe as cf
    >>> cf.select(cf.tensor([[1, 2], [3, 4]]), 1, 0)
    tensor([1, 3])
    """
    need_tensor("select", "input", input)
    shape = input.array.shape
    if not shape:
        raise IndexError("select: input must have at least one dimension, got a 0-d tensor")
    d = wrap_dim("select", "dim", dim, len(shape))
    i = as_int("select", "index", index)
    if not -shape[d] <= i < shape[d]:
        raise IndexError(f"select: index must be in [{-shape[d]}, {shape[d] - 1}] for dim {dim}, got {i}")
    return input[(slice(None),) * d + (i,)]  # type: ignore[index]


def _strided(x: Any, shape: tuple, strides: tuple) -> Any:
    return backend_of(x).xp.lib.stride_tricks.as_strided(x, shape, strides)


def _diagonal_array(x: Any, offset: int, a: int, b: int) -> Any:
    """The diagonal as a writable view (NumPy's own is read-only)."""
    n = min(x.shape[a] + min(offset, 0), x.shape[b] - max(offset, 0))
    start = [slice(None)] * x.ndim
    start[a], start[b] = slice(max(-offset, 0), None), slice(max(offset, 0), None)
    x = x[tuple(start)]
    rest = [i for i in range(x.ndim) if i not in (a, b)]
    shape = tuple([x.shape[i] for i in rest] + [max(n, 0)])
    strides = tuple([x.strides[i] for i in rest] + [x.strides[a] + x.strides[b]])
    return _strided(x, shape, strides)


def _diagonal_vjp(g: Any, needs: tuple, shape: tuple, offset: int, a: int, b: int) -> tuple:
    return (diagonal_place(g, shape, offset, a, b),)


_DIAGONAL = Op("diagonal", _diagonal_vjp, (None, None, None, None))


def diagonal_place(g: Any, shape: tuple, offset: int, a: int, b: int) -> Any:
    """Zeros of a shape with `g` on a diagonal."""
    values = g.array if isinstance(g, Tensor) else g
    r = zeros_like(values, shape)
    _diagonal_array(r, offset, a, b)[...] = values
    return record(r, _DIAGONAL_PLACE, (g,), (offset, a, b)) if isinstance(g, Tensor) else r


def _diagonal_place_vjp(g: Any, needs: tuple, offset: int, a: int, b: int) -> tuple:
    return (diagonal(g, offset, a, b) if isinstance(g, Tensor) else _diagonal_array(g, offset, a, b),)


_DIAGONAL_PLACE = Op("diagonal_backward", _diagonal_place_vjp, (None, None, None))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions, as a view with that dimension last.

    Args:
        input: tensor with at least two dimensions.
        offset: 0 the main diagonal, above it if positive, below it if negative.
        dim1, dim2: the two dimensions.

    Raises:
        IndexError: no such dimension.
        RuntimeError: dim1 and dim2 are the same.

    >>> import cuframe as cf
    >>> cf.diagonal(cf.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    need_tensor("diagonal", "input", input)
    x = input.array
    a = wrap_dim("diagonal", "dim1", dim1, x.ndim)
    b = wrap_dim("diagonal", "dim2", dim2, x.ndim)
    if a == b:
        raise RuntimeError(f"diagonal: dim1 and dim2 must differ, got {dim1} and {dim2}")
    offset = as_int("diagonal", "offset", offset)
    r = _diagonal_array(x, offset, a, b)
    return _view(r, _DIAGONAL, input, (x.shape, offset, a, b), diagonal, offset, a, b)


def _unfold_array(x: Any, d: int, size: int, step: int) -> Any:
    if not x.ndim:
        return _strided(x, (size,), (x.dtype.itemsize,))
    shape = x.shape[:d] + ((x.shape[d] - size) // step + 1,) + x.shape[d + 1 :] + (size,)
    return _strided(x, shape, x.strides[:d] + (x.strides[d] * step,) + x.strides[d + 1 :] + (x.strides[d],))


def _unfold_vjp(g: Any, needs: tuple, shape: tuple, d: int, size: int, step: int) -> tuple:
    return (_fold(g, shape, d, size, step),)


_UNFOLD = Op("unfold", _unfold_vjp, (None, None, None, None))


def _fold(g: Any, shape: tuple, d: int, size: int, step: int) -> Any:
    """Windows added back where they came from; one strided addition for each place in a window."""
    values = g.array if isinstance(g, Tensor) else g
    r = zeros_like(values, shape)
    if not shape:
        r[...] = values.sum()
    else:
        count = values.shape[d]
        for i in range(size):
            r[(slice(None),) * d + (slice(i, i + step * (count - 1) + 1, step),)] += values[..., i]
    return record(r, _FOLD, (g,), (d, size, step)) if isinstance(g, Tensor) else r


def _fold_vjp(g: Any, needs: tuple, d: int, size: int, step: int) -> tuple:
    return (unfold(g, d, size, step) if isinstance(g, Tensor) else _unfold_array(g, d, size, step),)


_FOLD = Op("unfold_backward", _fold_vjp, (None, None, None))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` entries along a dimension, each `step` after the last, as a view.

    Returns:
        Tensor whose dimension `dimension` counts the windows, with the window as a new last dimension.

    Raises:
        RuntimeError: size is larger than the dimension or negative, or step is not positive.

    >>> import cuframe as cf
    >>> cf.arange(5).unfold(0, 3, 2)
    tensor([[0, 1, 2],
            [2, 3, 4]])
    """
    need_tensor("unfold", "input", input)
    x = input.array
    d = wrap_dim("unfold", "dimension", dimension, x.ndim)
    size, step = as_int("unfold", "size", size), as_int("unfold", "step", step)
    whole = x.shape[d] if x.ndim else 1
    if not 0 <= size <= whole:
        raise RuntimeError(f"unfold: size must be in [0, {whole}] for dimension {dimension}, got {size}")
    if step <= 0:
        raise RuntimeError(f"unfold: step must be positive, got {step}")
    r = _unfold_array(x, d, size, step)
    return _view(r, _UNFOLD, input, (x.shape, d, size, step), unfold, d, size, step)


# -- the same windows, written into a copy ------------------------------------------------------------------------
def _into_copy(name: str, input: Tensor, src: Any, window: Callable[[Tensor], Tensor]) -> Tensor:
    need_tensor(name, "input", input)
    need_tensor(name, "src", src)
    out = clone(input)
    place = window(out)
    if src.array.shape != place.array.shape:
        raise RuntimeError(f"{name}: src must have shape {tuple(place.array.shape)}, got {tuple(src.array.shape)}")
    place.copy_(src)  # type: ignore[attr-defined]
    return out


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy whose entry `index` of dimension `dim` is `src`.

    Raises:
        IndexError: no such dimension or entry.
        RuntimeError: src has another shape than `input.select(dim, index)`.

    >>> import cuframe as cf
    >>> cf.select_scatter(cf.zeros(2, 2), cf.ones(2), 0, 1)
    tensor([[0., 0.],
            [1., 1.]])
    """
    return _into_copy("select_scatter", input, src, lambda t: select(t, dim, index))


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy whose entries start:end:step of dimension `dim` are `src`.

    Raises:
        IndexError: no such dimension.
        RuntimeError: src has another shape than the slice.

    >>> import cuframe as cf
    >>> cf.slice_scatter(cf.zeros(4), cf.ones(2), 0, 0, 4, 2)
    tensor([1., 0., 1., 0.])
    """
    need_tensor("slice_scatter", "input", input)
    d = wrap_dim("slice_scatter", "dim", dim, input.array.ndim)
    where = (slice(None),) * d + (slice(start, end, step),)
    return _into_copy("slice_scatter", input, src, lambda t: t[where])  # type: ignore[index]


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy whose diagonal of two dimensions is `src`.

    Raises:
        IndexError: no such dimension.
        RuntimeError: src has another shape than `input.diagonal(offset, dim1, dim2)`.

    >>> import cuframe as cf
    >>> cf.diagonal_scatter(cf.zeros(2, 2), cf.ones(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    return _into_copy("diagonal_scatter", input, src, lambda t: diagonal(t, offset, dim1, dim2))
