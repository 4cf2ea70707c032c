"""Operands of operations with three and more of them: promotion, devices, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of, is_array
from ..dtypes import get_default_dtype, result_type
from ..tensor import Tensor
from .define import cast, is_number, need_tensor

__all__ = ["broadcast_check", "operands_of"]


def operands_of(name: str, arguments: dict[str, Any], floating: bool = False) -> list[Any]:
    """Several operands, by argument name, as Tensors of their common dtype on the device of the first; None stays None.

    Args:
        floating: bools and integers are cast to the default dtype.

    Raises:
        TypeError: the first is not a Tensor, or another neither a tensor nor a number.
        RuntimeError: they live on different devices.
    """
    first, *_ = arguments.values()
    need_tensor(name, "input", first)
    given = {k: v for k, v in arguments.items() if v is not None}
    for k, v in given.items():
        if is_array(v):
            arguments[k] = given[k] = Tensor(v)
        elif not isinstance(v, Tensor) and not is_number(v):
            raise TypeError(f"{name}: {k} must be a Tensor or a number, got {type(v).__name__}")
    dtype = result_type(*given.values())
    if floating and dtype.kind in "iub":
        dtype = get_default_dtype()
    out: list[Any] = []
    for v in arguments.values():
        if isinstance(v, Tensor):
            if v.array.__class__ is not first.array.__class__:
                if v.array.ndim:
                    raise RuntimeError(
                        f"{name}: tensors must be on one device, got {first.device} and {v.device}"
                    )
                v = v.to(first.device)
            out.append(cast(v, dtype))
        else:
            out.append(
                None if v is None else Tensor(backend_of(first.array).asarray(v, first.array).astype(dtype))
            )
    return out


def broadcast_check(name: str, operands: list[Any]) -> None:
    """Raise RuntimeError unless the shapes of the operands (Tensors or None) broadcast."""
    shape = operands[0].array.shape
    for other in operands[1:]:
        if other is not None:
            try:
                shape = np.broadcast_shapes(shape, other.array.shape)
            except ValueError:
                raise RuntimeError(
                    f"{name}: shapes {tuple(shape)} and {tuple(other.array.shape)} cannot be broadcast together"
                ) from None
