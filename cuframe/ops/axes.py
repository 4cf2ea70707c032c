"""Dimensions to reduce: what `dim` names, the shape that is left, and NumPy's spelling of the arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from ..backend import backend_of
from ..dtypes import as_dtype
from ..tensor import Tensor
from .define import cast, need_tensor

__all__ = [
    "Dims", "add_up", "array_of", "axes_of", "axis_of", "count_of", "kept_shape", "multiply_up", "numpy_spelling",
    "real_axes", "with_dtype",
]  # fmt: skip

Dims = int | tuple[int, ...] | list[int] | None
F = TypeVar("F", bound=Callable[..., Any])


def axis_of(name: str, dim: Any, ndim: int) -> int:
    """The dimension `dim` as a non-negative axis; a 0-d tensor counts as having one dimension.

    Raises:
        IndexError: it is out of range.
        TypeError: it is not an int.
    """
    try:
        axis = dim.__index__()
    except AttributeError:
        raise TypeError(f"{name}: dim must be an int, got {type(dim).__name__}") from None
    size = ndim or 1
    if not -size <= axis < size:
        raise IndexError(f"{name}: dim must be in [{-size}, {size - 1}], got {axis}")
    return axis % size


def axes_of(name: str, dim: Any, ndim: int) -> tuple[int, ...] | None:
    """The dimensions that `dim` (an int, several, or None for all) names, as non-negative axes.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: a dimension is given twice.
        TypeError: something that is not an int.
    """
    if dim is None:
        return None
    if isinstance(dim, (tuple, list)):
        axes = tuple([axis_of(name, d, ndim) for d in dim])
        if len(set(axes)) != len(axes):
            raise RuntimeError(f"{name}: dim must not name a dimension twice, got {tuple(dim)}")
        return axes or None
    return (axis_of(name, dim, ndim),)


def real_axes(axes: tuple[int, ...] | None, ndim: int) -> tuple[int, ...] | None:
    """`axes` for NumPy, where a 0-d array has no dimension 0."""
    return axes if ndim else None


def kept_shape(shape: tuple, axes: tuple[int, ...] | None) -> tuple:
    """`shape` after reducing `axes` with `keepdim=True`."""
    if axes is None:
        return (1,) * len(shape)
    return tuple([1 if i in axes else size for i, size in enumerate(shape)])


def count_of(shape: tuple, axes: tuple[int, ...] | None) -> int:
    """How many elements are reduced to one."""
    return math.prod(shape) if axes is None or not shape else math.prod([shape[i] for i in axes])


def add_up(x: Any, axes: tuple[int, ...] | None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The sum over axes. `x.sum()` would warn of inf - inf from a frame of NumPy's, which is not ours to silence."""
    return backend_of(x).xp.add.reduce(x, axis=axes, dtype=dtype, keepdims=keepdim)


def multiply_up(x: Any, axes: tuple[int, ...] | None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The product over axes; see `add_up`."""
    return backend_of(x).xp.multiply.reduce(x, axis=axes, dtype=dtype, keepdims=keepdim)


def array_of(name: str, input: Any) -> Any:
    """The array of the argument `input`.

    Raises:
        TypeError: it is not a Tensor.
    """
    need_tensor(name, "input", input)
    return input.array


def with_dtype(name: str, input: Any, dtype: Any, integers: np.dtype | None) -> Tensor:
    """`input` in the dtype it is to be reduced in; bools and integers go to `integers` where none is asked for."""
    x = array_of(name, input)
    if dtype is not None:
        return cast(input, as_dtype(dtype))
    if integers is not None and x.dtype.kind in "iub":
        return cast(input, integers)
    return input


def numpy_spelling(operation: F) -> F:
    """Let a reduction be called with `axis` and `keepdims`, too."""

    @wraps(operation)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "axis" in kwargs:
            kwargs["dim"] = kwargs.pop("axis")
        if "keepdims" in kwargs:
            kwargs["keepdim"] = bool(kwargs.pop("keepdims"))
        return operation(*args, **kwargs)

    return call  # type: ignore[return-value]
