"""Making tensors: from data, and filled."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Device, backend_for, backend_of
from ..dtypes import as_dtype, get_default_dtype
from ..tensor import Tensor

__all__ = ["as_tensor", "from_numpy", "tensor"]


def _host_array(name: str, data: Any, dtype: Any) -> np.ndarray:
    """`data` as a NumPy array of its own, with PyTorch's dtypes: Python floats take the default dtype."""
    given = None if dtype is None else as_dtype(dtype)
    if isinstance(data, (list, tuple)) and any(isinstance(item, Tensor) for item in data):
        data = [item.array.tolist() if isinstance(item, Tensor) else item for item in data]
    try:
        array = np.array(data)
    except ValueError as error:
        raise ValueError(f"{name}: data must be a rectangular nest of numbers ({error})") from None
    if array.dtype.kind in "OUSMm":
        raise TypeError(f"{name}: data must be numbers, got {type(data).__name__} of {array.dtype.name}")
    if given is None and not hasattr(data, "dtype"):
        if array.dtype.kind == "f" and not _holds_arrays(data):
            given = get_default_dtype()
        elif array.dtype.kind == "c":
            given = as_dtype("complex128" if get_default_dtype() == np.float64 else "complex64")
        elif array.size == 0 and array.dtype.kind == "f":
            given = get_default_dtype()
    return array if given is None else array.astype(given, copy=False)


def _holds_arrays(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return hasattr(data, "dtype")


def tensor(
    data: Any, *, dtype: Any = None, device: Device | str | None = None, requires_grad: bool = False
) -> Tensor:
    """A new tensor that copies `data`.

    Args:
        data: a number, nested lists of numbers, a NumPy or CuPy array, or a Tensor.
        dtype: by default that of an array; for Python data float32 (the default dtype), int64 or bool.
        device: by default that of an array, else the CPU.
        requires_grad: record operations on it.

    Raises:
        ValueError: nested lists of different lengths.
        TypeError: something that is not a number.

    >>> import cuframe as cf
    >>> cf.tensor([[1.0, 2.0], [3.0, 4.0]])
    tensor([[1., 2.],
            [3., 4.]])
    """
    if isinstance(data, Tensor):
        data = data.array
    if hasattr(data, "dtype") and hasattr(data, "shape") and not isinstance(data, np.generic):
        array = data.astype(as_dtype(dtype)) if dtype is not None else data.copy()  # both copy
    else:
        array = _host_array("tensor", data, dtype)
    out = Tensor(_place(array, device))
    return out.requires_grad_() if requires_grad else out


def _place(array: Any, device: Device | str | None) -> Any:
    """`array` on `device`; where it is if that is None."""
    if device is None:
        return array
    where = Device(device)
    here, there = backend_of(array), backend_for(where)
    return here.copy_to(array, where) if here is there else there.from_host(here.to_host(array), where)


def as_tensor(data: Any, dtype: Any = None, device: Device | str | None = None) -> Tensor:
    """`data` as a tensor, sharing its memory where dtype and device allow it."""
    if isinstance(data, Tensor):
        out = data
    elif hasattr(data, "dtype") and hasattr(data, "shape") and not isinstance(data, np.generic):
        out = Tensor(data)
    else:
        out = Tensor(_host_array("as_tensor", data, dtype))
    if dtype is not None and out.array.dtype != as_dtype(dtype):
        out = Tensor(out.array.astype(as_dtype(dtype)))
    return Tensor(_place(out.array, device)) if device is not None and out.device != Device(device) else out


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on the memory of a NumPy array.

    Raises:
        TypeError: it is not a NumPy array, or of a dtype without a counterpart (strings, objects).
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(ndarray).__name__}")
    if ndarray.dtype.kind in "OUSMm":
        raise TypeError(f"from_numpy: arrays of {ndarray.dtype.name} have no tensor counterpart")
    return Tensor(ndarray)
