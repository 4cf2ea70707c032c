"""Other shapes of the same elements: reshape, permute, squeeze, expand and their kin. All are views where NumPy can.

Joining and splitting stand in `join.py`, copies in another order in `rearrange.py`, dtypes and devices in `convert.py`.
"""

from __future__ import annotations

import math
from operator import index as _as_int
from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..tensor import Size, Tensor
from .define import Op, fit, need_tensor, numpy_name, record
from .inplace import view as _view

__all__ = [
    "adjoint", "broadcast_shapes", "broadcast_tensors", "broadcast_to", "expand", "expand_as", "flatten",
    "moveaxis", "movedim", "permute", "ravel", "reshape", "reshape_as", "squeeze", "swapaxes",
    "swapdims", "t", "transpose", "unflatten", "unsqueeze", "view", "view_as",
]  # fmt: skip


def wrap_dim(name: str, argument: str, dim: Any, ndim: int) -> int:
    """`dim` counted from the front; a 0-d tensor counts as having one dimension.

    Raises:
        TypeError: not an integer.
        IndexError: no such dimension.
    """
    try:
        d = _as_int(dim)
    except TypeError:
        raise TypeError(f"{name}: {argument} must be an int, got {type(dim).__name__}") from None
    n = ndim or 1
    if d < -n or d >= n:
        raise IndexError(f"{name}: {argument} must be in [{-n}, {n - 1}] for a {ndim}-d tensor, got {d}")
    return d + n if d < 0 else d


def as_int(name: str, argument: str, value: Any) -> int:
    """A Python int of an int, a NumPy integer or a 0-d integer tensor.

    Raises:
        TypeError: anything else, bools included.
    """
    bad = isinstance(value, bool) or (isinstance(value, Tensor) and (value.ndim or value.dtype.kind not in "iu"))
    try:
        if not bad:
            return _as_int(value)
    except TypeError:
        pass
    what = f"a tensor of {value.dtype.name} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise TypeError(f"{name}: {argument} must be an int, got {what}")


def sizes_of(name: str, sizes: tuple) -> tuple:
    """Sizes given one by one or as one sequence."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    for s in sizes:
        if s.__class__ is not int:
            break
    else:
        return sizes
    try:
        return tuple([_as_int(s) for s in sizes])
    except TypeError:
        raise TypeError(f"{name}: sizes must be ints, got {sizes!r}") from None


def shares_memory(r: Any, x: Any) -> bool:
    """True if `r` is a view of `x` (or of what `x` views): NumPy and CuPy both keep the owner in `.base`."""
    base = r.base
    return base is not None and (base is x or base is x.base)


# -- reshape ------------------------------------------------------------------------------------------------------
def _reshape_vjp(g: Any, needs: tuple, shape: tuple) -> tuple:
    return (g.reshape(shape),)


_RESHAPE = Op("view", _reshape_vjp, (None,))
_RESHAPE_COPY = Op("reshape", _reshape_vjp, (None,))


def _reshaped(name: str, input: Tensor, shape: tuple) -> Any:
    x = input.array
    for size in shape:
        if size < -1:
            raise RuntimeError(f"{name}: sizes must not be negative, got {shape}")
    try:
        return x.reshape(shape)
    except ValueError:
        pass
    if sum(s == -1 for s in shape) > 1:
        raise RuntimeError(f"{name}: only one size can be -1, got {shape}")
    if -1 in shape and 0 in shape:
        raise RuntimeError(f"{name}: -1 cannot be worked out beside a size of 0, got {shape}")
    raise RuntimeError(f"{name}: a tensor of shape {tuple(x.shape)} ({x.size} elements) has no shape {shape}")


@numpy_name(np.reshape)
def reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """The elements in row-major order under another shape; a view where strides allow it, else a copy.

    Args:
        input: any tensor.
        sizes: the new sizes, one by one or as a tuple (`shape=` works too); one of them may be -1.

    Returns:
        Tensor of the new shape.

    Raises:
        RuntimeError: the number of elements differs, or more than one size is -1.

    >>> import cuframe as cf
    >>> cf.reshape(cf.arange(6), (2, -1))
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    if not isinstance(input, Tensor):
        need_tensor("reshape", "input", input)
    return _reshape("reshape", input, sizes_of("reshape", sizes if shape is None else (shape,)))


def _reshape(name: str, input: Tensor, sizes: tuple) -> Tensor:
    r = _reshaped(name, input, sizes)
    x = input.array
    if shares_memory(r, x):
        return _view(r, _RESHAPE, input, (x.shape,), reshape, sizes)
    return record(r, _RESHAPE_COPY, (input,), (x.shape,))


def view(input: Tensor, *sizes: Any) -> Tensor:
    """The same memory under another shape, or under another dtype.

    Args:
        input: any tensor.
        sizes: the new sizes, one by one or as a tuple, one of them may be -1; or one dtype, whose bytes are then read
            anew (no gradient passes).

    Returns:
        Tensor on the memory of `input`.

    Raises:
        RuntimeError: the number of elements differs, or the strides do not allow it without a copy.

    >>> import cuframe as cf
    >>> cf.zeros(2, 3).view(6).shape
    cuframe.Size([6])
    """
    need_tensor("view", "input", input)
    if len(sizes) == 1 and not isinstance(sizes[0], (int, tuple, list, np.integer)):
        return _view_dtype(input, as_dtype(sizes[0]))
    return _viewed("view", input, sizes_of("view", sizes))


def _viewed(name: str, input: Tensor, shape: tuple) -> Tensor:
    r = _reshaped(name, input, shape)
    x = input.array
    if not shares_memory(r, x) and x.size:
        raise RuntimeError(
            f"{name}: a tensor of shape {tuple(x.shape)} and strides {_strides(x)} cannot be seen as {shape} without "
            "a copy; use reshape()"
        )
    return _view(r, _RESHAPE, input, (x.shape,), view, shape)


def _strides(x: Any) -> tuple:
    return tuple(s // x.dtype.itemsize for s in x.strides)


def _view_dtype(input: Tensor, dtype: np.dtype) -> Tensor:
    x = input.array
    if dtype == x.dtype:
        return _view(x.view(), _RESHAPE, input, (x.shape,), view, dtype)
    try:
        return Tensor(x.view(dtype))
    except (ValueError, TypeError):
        raise RuntimeError(
            f"view: shape {tuple(x.shape)} of {x.dtype.name} cannot be read as {dtype.name}: the last dimension must "
            "be contiguous and its bytes divisible by the new item size"
        ) from None


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.view(other.shape)`.

    >>> import cuframe as cf
    >>> cf.arange(4).view_as(cf.ones(2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    need_tensor("view_as", "input", input)
    need_tensor("view_as", "other", other)
    return _viewed("view_as", input, other.array.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.reshape(other.shape)`.

    >>> import cuframe as cf
    >>> cf.arange(4).reshape_as(cf.ones(2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    need_tensor("reshape_as", "input", input)
    need_tensor("reshape_as", "other", other)
    return _reshape("reshape_as", input, other.array.shape)


@numpy_name(np.ravel)
def ravel(input: Tensor) -> Tensor:
    """`input.reshape(-1)`.

    >>> import cuframe as cf
    >>> cf.ravel(cf.tensor([[1, 2], [3, 4]]))
    tensor([1, 2, 3, 4])
    """
    return reshape(input, -1)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` (included) as one.

    Args:
        input: any shape and dtype.
        start_dim, end_dim: the first and the last dimension that become one.

    Returns:
        Tensor; a 0-d tensor becomes 1-d.

    Raises:
        IndexError: no such dimension.
        RuntimeError: start_dim comes after end_dim.

    >>> import cuframe as cf
    >>> cf.flatten(cf.zeros(2, 3, 4), 1).shape
    cuframe.Size([2, 12])
    """
    need_tensor("flatten", "input", input)
    shape = input.array.shape
    first = wrap_dim("flatten", "start_dim", start_dim, len(shape))
    last = wrap_dim("flatten", "end_dim", end_dim, len(shape))
    if first > last:
        raise RuntimeError(f"flatten: start_dim must not come after end_dim, got {start_dim} and {end_dim}")
    if first == last and shape:
        return input
    return _reshape("flatten", input, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Dimension `dim` split into several of the given sizes, one of which may be -1.

    Raises:
        RuntimeError: the sizes do not multiply to the size of `dim`.

    >>> import cuframe as cf
    >>> cf.unflatten(cf.zeros(2, 12), 1, (3, -1)).shape
    cuframe.Size([2, 3, 4])
    """
    need_tensor("unflatten", "input", input)
    shape = input.array.shape
    d = wrap_dim("unflatten", "dim", dim, len(shape))
    sizes = sizes_of("unflatten", (sizes,))
    if not sizes:
        raise RuntimeError("unflatten: sizes must not be empty")
    known = Size(s for s in sizes if s != -1).numel()
    free = sum(s == -1 for s in sizes)
    whole = shape[d] if shape else 1
    if free > 1 or (known != whole if free == 0 else known == 0 or whole % known):
        raise RuntimeError(f"unflatten: sizes {sizes} do not multiply to {whole}, the size of dim {dim}")
    return reshape(input, shape[:d] + tuple(whole // known if s == -1 else s for s in sizes) + shape[d + 1 :])


# -- order of dimensions ------------------------------------------------------------------------------------------
def _permute_vjp(g: Any, needs: tuple, axes: tuple) -> tuple:
    return (np.transpose(g, axes),)


_PERMUTE = Op("permute", _permute_vjp, (None,))


def permute(input: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order, as a view.

    Args:
        input: any tensor.
        dims: every dimension once, one by one or as a tuple.

    Raises:
        RuntimeError: not a permutation of the dimensions.

    >>> import cuframe as cf
    >>> cf.permute(cf.zeros(2, 3, 4), (2, 0, 1)).shape
    cuframe.Size([4, 2, 3])
    """
    need_tensor("permute", "input", input)
    dims = sizes_of("permute", dims)
    x = input.array
    n = x.ndim
    try:
        r = x.transpose(dims)
    except ValueError:
        raise RuntimeError(f"permute: dims must hold each dimension of a {n}-d tensor once, got {dims}") from None
    inverse = [0] * n
    for i, axis in enumerate(dims):
        inverse[axis] = i
    return _view(r, _PERMUTE, input, (tuple(inverse),), permute, dims)


def _swap_vjp(g: Any, needs: tuple, a: int, b: int) -> tuple:
    return (g.swapaxes(a, b),)


_SWAP = Op("transpose", _swap_vjp, (None, None))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged, as a view.

    Args:
        input: any shape and dtype.
        dim0, dim1: the dimensions.

    Raises:
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.transpose(cf.zeros(2, 3, 4), 0, -1).shape
    cuframe.Size([4, 3, 2])
    """
    need_tensor("transpose", "input", input)
    x = input.array
    a = wrap_dim("transpose", "dim0", dim0, x.ndim)
    b = wrap_dim("transpose", "dim1", dim1, x.ndim)
    if not x.ndim:
        return input
    return _view(x.swapaxes(a, b), _SWAP, input, (a, b), transpose, a, b)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` under NumPy's name.

    Args:
        input, axis0, axis1: `transpose`'s input, dim0 and dim1.

    >>> import cuframe as cf
    >>> cf.swapaxes(cf.ones(2, 3, 4), 0, 2).shape
    cuframe.Size([4, 3, 2])
    """
    return transpose(input, axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose` under another name.

    Args:
        input, dim0, dim1: as in `transpose`.

    >>> import cuframe as cf
    >>> cf.swapdims(cf.ones(2, 3, 4), 0, 1).shape
    cuframe.Size([3, 2, 4])
    """
    return transpose(input, dim0, dim1)


def _t_vjp(g: Any, needs: tuple) -> tuple:
    return (g.T,)


_T = Op("t", _t_vjp)


def t(input: Tensor) -> Tensor:
    """A matrix transposed, as a view; tensors with fewer dimensions as they are.

    Raises:
        RuntimeError: more than two dimensions.

    >>> import cuframe as cf
    >>> cf.t(cf.zeros(2, 3)).shape
    cuframe.Size([3, 2])
    """
    need_tensor("t", "input", input)
    x = input.array
    if x.ndim != 2:
        if x.ndim > 2:
            raise RuntimeError(f"t: input must have at most 2 dimensions, got shape {tuple(x.shape)}")
        return input
    return _view(x.T, _T, input, (), t)


def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged (real tensors have nothing to conjugate).

    Args:
        input: (..., M, N).

    Returns:
        (..., N, M), a view.

    Raises:
        RuntimeError: fewer than two dimensions.

    >>> import cuframe as cf
    >>> cf.adjoint(cf.tensor([[1, 2], [3, 4]]))
    tensor([[1, 3],
            [2, 4]])
    """
    need_tensor("adjoint", "input", input)
    if input.array.ndim < 2:
        raise RuntimeError(f"adjoint: input must have at least 2 dimensions, got shape {tuple(input.array.shape)}")
    return transpose(input, -2, -1)


def reversed_dims(input: Tensor) -> Tensor:
    """What `.T` gives: the dimensions in reverse order.

    >>> import cuframe as cf
    >>> cf.ones(2, 3).T.shape
    cuframe.Size([3, 2])
    """
    n = input.array.ndim
    return t(input) if n <= 2 else permute(input, tuple(range(n))[::-1])


@numpy_name(np.moveaxis)
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions moved to other places, the others keeping their order.

    Args:
        input: any tensor.
        source, destination: ints, or tuples of equal length.

    Raises:
        RuntimeError: lengths differ, or a dimension occurs twice.

    >>> import cuframe as cf
    >>> cf.movedim(cf.zeros(2, 3, 4), 0, -1).shape
    cuframe.Size([3, 4, 2])
    """
    need_tensor("movedim", "input", input)
    n = input.array.ndim
    starts = source if isinstance(source, (tuple, list)) else (source,)
    ends = destination if isinstance(destination, (tuple, list)) else (destination,)
    if len(starts) != len(ends):
        raise RuntimeError(f"movedim: source and destination must be equally long, got {source} and {destination}")
    src = [wrap_dim("movedim", "source", d, n) for d in starts]
    dst = [wrap_dim("movedim", "destination", d, n) for d in ends]
    if len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise RuntimeError(f"movedim: a dimension occurs twice in source {source} or destination {destination}")
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src)):
        order.insert(d, s)
    return permute(input, tuple(order))


def moveaxis(input: Tensor, source: Any, destination: Any) -> Tensor:
    """`movedim` under NumPy's name.

    Args:
        input, source, destination: as in `movedim`.

    >>> import cuframe as cf
    >>> cf.moveaxis(cf.ones(2, 3, 4), 0, -1).shape
    cuframe.Size([3, 4, 2])
    """
    return movedim(input, source, destination)


# -- dimensions of size one ---------------------------------------------------------------------------------------
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without its dimensions of size one, as a view.

    Args:
        input: any tensor.
        dim: an int or a tuple: only these, and only where their size is one. None: all.

    Raises:
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.squeeze(cf.zeros(1, 3, 1), 0).shape
    cuframe.Size([3, 1])
    """
    need_tensor("squeeze", "input", input)
    x = input.array
    shape = x.shape
    if dim is None:
        new = tuple([s for s in shape if s != 1])
    elif isinstance(dim, (tuple, list)):
        dims = [wrap_dim("squeeze", "dim", d, len(shape)) for d in dim]
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"squeeze: a dimension occurs twice in dim {tuple(dim)}")
        new = tuple([s for i, s in enumerate(shape) if s != 1 or i not in dims])
    else:
        d = wrap_dim("squeeze", "dim", dim, len(shape))
        new = shape[:d] + shape[d + 1 :] if shape and shape[d] == 1 else shape
    return _view(x.reshape(new), _SQUEEZE, input, (shape,), _replay_squeeze, new)


def _replay_squeeze(input: Tensor, shape: tuple) -> Tensor:
    return _view(input.array.reshape(shape), _SQUEEZE, input, (input.array.shape,), _replay_squeeze, shape)


_SQUEEZE = Op("squeeze", _reshape_vjp, (None,))
_UNSQUEEZE = Op("unsqueeze", _reshape_vjp, (None,))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size one put before dimension `dim` (of the result), as a view.

    Args:
        input: any shape and dtype.
        dim: where the new dimension stands in the result.

    Raises:
        IndexError: dim is not in [-(ndim + 1), ndim].

    >>> import cuframe as cf
    >>> cf.unsqueeze(cf.zeros(2, 3), -1).shape
    cuframe.Size([2, 3, 1])
    """
    need_tensor("unsqueeze", "input", input)
    x = input.array
    shape = x.shape
    d = wrap_dim("unsqueeze", "dim", dim, len(shape) + 1)
    return _view(x.reshape(shape[:d] + (1,) + shape[d:]), _UNSQUEEZE, input, (shape,), unsqueeze, d)


# -- broadcasting -------------------------------------------------------------------------------------------------
def _expand_vjp(g: Any, needs: tuple, shape: tuple) -> tuple:
    return (fit(g, shape),)


_EXPAND = Op("expand", _expand_vjp, (None,))


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Dimensions of size one repeated without copying; new ones may come in front.

    Args:
        input: any tensor.
        sizes: the new sizes, one by one or as a tuple; -1 keeps a size.

    Returns:
        A view in which several elements share memory: clone() it before writing in place.

    Raises:
        RuntimeError: fewer sizes than dimensions, or a size other than one would change.

    >>> import cuframe as cf
    >>> cf.expand(cf.tensor([[1], [2]]), -1, 3)
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    return _expanded("expand", input, sizes_of("expand", sizes))


def _broadcast(x: Any, shape: tuple) -> Any:
    if x.__class__ is np.ndarray and x.flags.c_contiguous and x.dtype.kind in "fiub" and x.size:
        # np.broadcast_to takes eight times as long.
        extra = len(shape) - x.ndim
        strides = [0 if a != b else s for a, b, s in zip(x.shape, shape[extra:], x.strides)]
        return np.ndarray(shape, x.dtype, x, 0, (0,) * extra + tuple(strides))
    return np.broadcast_to(x, shape)


def _expanded(name: str, input: Tensor, sizes: tuple) -> Tensor:
    need_tensor(name, "input", input)
    x = input.array
    shape = x.shape
    extra = len(sizes) - len(shape)
    if extra < 0:
        raise RuntimeError(f"{name}: {len(sizes)} sizes are too few for a tensor of shape {tuple(shape)}")
    new = tuple([shape[i - extra] if s == -1 and i >= extra else s for i, s in enumerate(sizes)])
    for i, s in enumerate(new):
        if s < 0 or (i >= extra and s != shape[i - extra] != 1):
            raise RuntimeError(f"{name}: a tensor of shape {tuple(shape)} cannot be expanded to {sizes}")
    return _view(_broadcast(x, new), _EXPAND, input, (shape,), expand, new)


@numpy_name(np.broadcast_to)
def broadcast_to(input: Tensor, shape: Any) -> Tensor:
    """`input.expand(shape)`.

    >>> import cuframe as cf
    >>> cf.broadcast_to(cf.tensor([1, 2]), (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return _expanded("broadcast_to", input, sizes_of("broadcast_to", (shape,)))


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.expand(other.shape)`.

    >>> import cuframe as cf
    >>> cf.tensor([[1], [2]]).expand_as(cf.ones(2, 3))
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    need_tensor("expand_as", "other", other)
    return _expanded("expand_as", input, other.array.shape)


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of these shapes broadcast to.

    Raises:
        RuntimeError: they do not broadcast together.

    >>> import cuframe as cf
    >>> cf.broadcast_shapes((2, 1), (3,))
    cuframe.Size([2, 3])
    """
    try:
        return Size(np.broadcast_shapes(*[s if isinstance(s, int) else tuple(s) for s in shapes]))
    except ValueError:
        raise RuntimeError(
            f"broadcast_shapes: shapes {', '.join(str(s) for s in shapes)} cannot be broadcast together"
        ) from None


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor expanded to the shape they all broadcast to.

    Raises:
        RuntimeError: they do not broadcast together.

    >>> import cuframe as cf
    >>> [t.shape for t in cf.broadcast_tensors(cf.zeros(2, 1), cf.zeros(3))]
    [cuframe.Size([2, 3]), cuframe.Size([2, 3])]
    """
    for i, x in enumerate(tensors):
        need_tensor("broadcast_tensors", f"tensors[{i}]", x)
    try:
        shape = np.broadcast_shapes(*[x.array.shape for x in tensors])
    except ValueError:
        shapes = ", ".join(str(tuple(x.array.shape)) for x in tensors)
        raise RuntimeError(f"broadcast_tensors: shapes {shapes} cannot be broadcast together") from None
    return tuple(expand(x, shape) for x in tensors)
