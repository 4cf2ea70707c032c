"""Views with strides of one's own.

Note [Gradients of strided views]
    A view with free strides may show an element of its input several times or not at all, and show memory that is not
    the input's. So its gradient is added up by place in memory and then read at the places of the input; where the
    input itself shows a place several times, each gets its share.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd.graph import mode
from ..autograd.modes import set_grad_enabled
from ..backend import backend_of
from ..tensor import Tensor
from .convert import data_ptr
from .define import Op, need_tensor, record, zeros_like
from .inplace import mark_view
from .shape import sizes_of

__all__ = ["as_strided"]

_NAME = "as_strided"


def _places(like: Any, shape: tuple, strides: tuple, offset: int = 0) -> Any:
    """Where the elements of a view lie, counted in elements: an array of its shape."""
    xp = backend_of(like).xp
    places = xp.full((1,) * len(shape), offset, np.int64)
    for dim, (size, stride) in enumerate(zip(shape, strides)):
        places = places + (xp.arange(size) * stride).reshape((-1,) + (1,) * (len(shape) - dim - 1))
    return places


def _exchange(g: Any, given: Any, wanted: Any, span: int) -> Any:
    """Add `g` up by the places `given` and read the sums at the places `wanted`."""
    values = g.array if isinstance(g, Tensor) else g
    memory = backend_of(values).sum_at((span,), given.reshape(-1), values.reshape(-1))
    r = memory[wanted.reshape(-1)].reshape(wanted.shape)
    return record(r, _EXCHANGE, (g,), (given, wanted, span)) if isinstance(g, Tensor) else r


def _exchange_vjp(g: Any, needs: tuple, given: Any, wanted: Any, span: int) -> tuple:
    return (_exchange(g, wanted, given, span),)


_EXCHANGE = Op("as_strided_backward", _exchange_vjp, (None, None, None))


def _strided_vjp(g: Any, needs: tuple, shape: tuple, own: tuple, strides: tuple, offset: int) -> tuple:
    values = g.array if isinstance(g, Tensor) else g
    given, wanted = _places(values, g.shape, strides, offset), _places(values, shape, own)
    if not given.size or not wanted.size:
        return (zeros_like(g, shape),)
    low = min(int(given.min()), int(wanted.min()))
    span = max(int(given.max()), int(wanted.max())) + 1 - low
    given, wanted = given - low, wanted - low
    r = _exchange(g, given, wanted, span)
    if any(step == 0 and size > 1 for step, size in zip(own, shape)):
        times = backend_of(values).xp.bincount(wanted.reshape(-1))[wanted].astype(values.dtype)
        r = r / (Tensor(times) if isinstance(g, Tensor) else times)
    return (r,)


_STRIDED = Op(_NAME, _strided_vjp, (None,) * 4)


def _steps(x: Any) -> tuple[int, ...]:
    return tuple([s // x.dtype.itemsize for s in x.strides])


def _memory(x: Any) -> tuple[Any, int]:
    """All of the memory that an array looks into, as a 1-d array of its dtype, and the place of its first element."""
    root, base, kind = x, x.base, backend_of(x).array_type
    while base is not None:  # as_strided puts an object of its own between a view and its base
        root = base if isinstance(base, kind) else root
        base = getattr(base, "base", None)
    root = root.transpose(sorted(range(root.ndim), key=lambda i: -root.strides[i]))  # results keep their input's order
    if not root.flags.c_contiguous:
        raise RuntimeError(f"{_NAME}: the tensor's memory is another library's and has gaps; clone() it first")
    flat = root.reshape(-1)
    if flat.dtype != x.dtype:
        flat = flat.view(x.dtype)
    return flat, (data_ptr(Tensor(x)) - data_ptr(Tensor(flat))) // x.dtype.itemsize if x.size else 0


def _shown(memory: Any, size: tuple, stride: tuple, start: int) -> Any:
    """The view of a 1-d array that begins at `start`."""
    part = memory[start:] if 0 not in size else memory[:0]
    strides = tuple([step * memory.dtype.itemsize for step in stride])
    return backend_of(memory).xp.lib.stride_tricks.as_strided(part, size, strides)


def _row_major(shape: tuple) -> tuple[int, ...]:
    return tuple([math.prod(shape[i + 1 :]) for i in range(len(shape))])


def _replay(base: Tensor, size: tuple, stride: tuple, start: int) -> Tensor:
    """The view again, of a tensor of the base's shape, whose elements are counted row by row."""
    x = backend_of(base.array).xp.ascontiguousarray(base.array)
    saved = (x.shape, _row_major(x.shape), stride, start)
    return record(_shown(x.reshape(-1), size, stride, start), _STRIDED, (base,), saved)


def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the tensor's memory with a shape and strides of one's own; elements may be shown several times.

        out[i, j, ...] = memory[storage_offset + i * stride[0] + j * stride[1] + ...]

    Args:
        input: whose memory is looked into: all of it, where the input is a view itself.
        size: the shape of the view.
        stride: for each dimension, how many elements of memory neighbours lie apart; 0 or more.
        storage_offset: the place of the first element in memory; by default that of the input.

    Raises:
        RuntimeError: sizes and strides differ in number, one is negative, or the view would reach beyond the memory.

    >>> import cuframe as cf
    >>> cf.as_strided(cf.arange(5), (3, 3), (1, 1))
    tensor([[0, 1, 2],
            [1, 2, 3],
            [2, 3, 4]])
    """
    need_tensor(_NAME, "input", input)
    size, stride = sizes_of(_NAME, (size,)), sizes_of(_NAME, (stride,))
    if len(size) != len(stride):
        raise RuntimeError(f"{_NAME}: size and stride must be of one length, got {size} and {stride}")
    for name, values in (("size", size), ("stride", stride)):
        if any(v < 0 for v in values):
            raise RuntimeError(f"{_NAME}: {name} must not be negative, got {values}")
    if storage_offset is not None and storage_offset < 0:
        raise RuntimeError(f"{_NAME}: storage_offset must not be negative, got {storage_offset}")
    x = input.array
    memory, first = _memory(x)
    start = first if storage_offset is None else storage_offset
    last = start + sum((n - 1) * step for n, step in zip(size, stride))
    if 0 not in size and last >= memory.size:
        raise RuntimeError(
            f"{_NAME}: size {size} and stride {stride} from place {start} on need {last + 1} elements of memory, "
            f"the tensor has {memory.size}"
        )
    r = _shown(memory, size, stride, start)
    out = record(r, _STRIDED, (input,), (x.shape, _steps(x), stride, start - first))
    base = (input.__dict__.get("_view") or (input,))[0]
    begin = _memory(base.array)[1]
    # Writes are followed where they stay within the base and its places are its elements in order.
    inside = base.array.flags.c_contiguous and (0 in size or begin <= start <= last < begin + base.array.size)
    with set_grad_enabled(mode.grad and inside):
        mark_view(out, base, _replay, size, stride, start - begin)
    return out
