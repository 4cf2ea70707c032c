"""PyTorch's older constructors, one for each dtype, for scripts that call them; `cuframe.tensor` is the newer way."""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..tensor import Tensor
from .create import empty, tensor

__all__ = [
    "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor", "IntTensor", "LongTensor",
    "ShortTensor",
]  # fmt: skip


def _constructor(name: str, dtype: str) -> Callable[..., Tensor]:
    kind = as_dtype(dtype)

    def make(*data: Any) -> Tensor:
        if len(data) == 1 and not isinstance(data[0], (int, np.integer)):
            return tensor(data[0], dtype=kind)
        try:
            sizes = [index(size) for size in data]
        except TypeError:
            raise TypeError(
                f"{name}: expected sizes, or one sequence or array, got {', '.join(type(d).__name__ for d in data)}"
            ) from None
        return empty(*(sizes or [0]), dtype=kind)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"""A tensor of {kind.name}: of the given data, or of the given sizes and not initialised.

    Raises:
        TypeError: neither sizes nor one sequence or array.

    >>> import cuframe as cf
    >>> cf.{name}([1, 0]).dtype
    dtype({kind.name!r})
    >>> cf.{name}(2, 3).shape
    cuframe.Size([2, 3])
    """
    return make


BoolTensor = _constructor("BoolTensor", "bool")
ByteTensor = _constructor("ByteTensor", "uint8")
CharTensor = _constructor("CharTensor", "int8")
ShortTensor = _constructor("ShortTensor", "int16")
IntTensor = _constructor("IntTensor", "int32")
LongTensor = _constructor("LongTensor", "int64")
HalfTensor = _constructor("HalfTensor", "float16")
FloatTensor = _constructor("FloatTensor", "float32")
DoubleTensor = _constructor("DoubleTensor", "float64")
