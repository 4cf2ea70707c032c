"""NumPy's calls to the shape, index and creation functions, for formulas that run on arrays and Tensors alike.

`define.numpy_name` serves a NumPy function by the operation itself where their arguments agree; here stand those that
need an adapter, each with NumPy's argument names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor
from . import gather, join, pick, rearrange, shape, sort, window
from .define import numpy_name

__all__: list[str] = []


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor(value)


@numpy_name(np.transpose)
def _transpose(a: Tensor, axes: Any = None) -> Tensor:
    return shape.permute(a, tuple(range(a.ndim))[::-1] if axes is None else axes)


@numpy_name(np.swapaxes)
def _swapaxes(a: Tensor, axis1: int, axis2: int) -> Tensor:
    return shape.transpose(a, axis1, axis2)


@numpy_name(np.squeeze)
def _squeeze(a: Tensor, axis: Any = None) -> Tensor:
    return shape.squeeze(a, axis)


@numpy_name(np.expand_dims)
def _expand_dims(a: Tensor, axis: Any) -> Tensor:
    axes = axis if isinstance(axis, tuple) else (axis,)
    n = a.ndim + len(axes)
    for d in sorted(d % n for d in axes):
        a = shape.unsqueeze(a, d)
    return a


@numpy_name(np.diagonal)
def _diagonal(a: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    return window.diagonal(a, offset, axis1, axis2)


@numpy_name(np.concatenate)
def _concatenate(arrays: Any, axis: int | None = 0) -> Tensor:
    parts = [_tensor(a) for a in arrays]
    return join.cat([shape.reshape(p, -1) for p in parts]) if axis is None else join.cat(parts, axis)


@numpy_name(np.stack)
def _stack(arrays: Any, axis: int = 0) -> Tensor:
    return join.stack([_tensor(a) for a in arrays], axis)


@numpy_name(np.split)
def _split(ary: Tensor, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    if isinstance(indices_or_sections, int) and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"split: {ary.shape[axis]} entries cannot be cut into {indices_or_sections} equal pieces")
    return list(join.tensor_split(ary, indices_or_sections, axis))


@numpy_name(np.flip)
def _flip(m: Tensor, axis: Any = None) -> Tensor:
    return rearrange.flip(m, tuple(range(m.ndim)) if axis is None else axis)


@numpy_name(np.roll)
def _roll(a: Tensor, shift: Any, axis: Any = None) -> Tensor:
    return rearrange.roll(a, shift, axis)


@numpy_name(np.tile)
def _tile(A: Tensor, reps: Any) -> Tensor:
    return rearrange.tile(A, reps)


@numpy_name(np.repeat)
def _repeat(a: Tensor, repeats: Any, axis: int | None = None) -> Tensor:
    return rearrange.repeat_interleave(a, Tensor(repeats) if isinstance(repeats, np.ndarray) else repeats, axis)


@numpy_name(np.tril)
def _tril(m: Tensor, k: int = 0) -> Tensor:
    return rearrange.tril(m, k)


@numpy_name(np.triu)
def _triu(m: Tensor, k: int = 0) -> Tensor:
    return rearrange.triu(m, k)


@numpy_name(np.diag)
def _diag(v: Tensor, k: int = 0) -> Tensor:
    return rearrange.diag(v, k)


@numpy_name(np.take)
def _take(a: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    index = _tensor(np.asarray(indices) if isinstance(indices, (int, list)) else indices)
    if axis is None:
        return pick.take(a, index)
    d = axis % a.ndim
    return a[(slice(None),) * d + (index,)]  # type: ignore[index]


@numpy_name(np.take_along_axis)
def _take_along_axis(arr: Tensor, indices: Any, axis: int | None = -1) -> Tensor:
    if axis is None:
        return gather.gather(shape.reshape(arr, -1), 0, _tensor(indices))
    return gather.take_along_dim(arr, _tensor(indices), axis)


@numpy_name(np.sort)
def _sort(a: Tensor, axis: int = -1) -> Tensor:
    return sort.sort(a, axis).values


@numpy_name(np.argsort)
def _argsort(a: Tensor, axis: int = -1, kind: Any = None) -> Tensor:
    return sort.argsort(a, axis)


@numpy_name(np.shape)
def _shape(a: Tensor) -> tuple:
    return tuple(a.array.shape)


@numpy_name(np.ndim)
def _ndim(a: Tensor) -> int:
    return a.array.ndim


@numpy_name(np.size)
def _size(a: Tensor) -> int:
    return a.array.size
