"""Making tensors: from data, and filled."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import index as _as_int
from typing import Any

import numpy as np

from ..backend import Device, backend_for, backend_of
from ..dtypes import as_dtype, get_default_dtype
from ..tensor import Tensor
from .define import need_tensor, numpy_name

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like", "linspace",
    "logspace", "ones", "ones_like", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like",
]  # fmt: skip


def _kind(data: Any) -> str:
    """The type of data that are no numbers; of a list, that of what is in it."""
    inner = data
    while isinstance(inner, (list, tuple)) and inner:
        inner = next((item for item in inner if not isinstance(item, (int, float, complex))), inner[0])
    if isinstance(inner, np.ndarray):
        return f"an array of {inner.dtype.name}"
    return type(data).__name__ if inner is data else f"{type(data).__name__} with {type(inner).__name__}"


def _is_array(name: str, data: Any) -> bool:
    """True for arrays of NumPy and CuPy; what is only like one (a column of pandas, say) goes through np.array."""
    if not isinstance(data, np.ndarray) and not hasattr(data, "__cuda_array_interface__"):
        return False
    if data.dtype.kind in "OUSMm":
        raise TypeError(f"{name}: data must be numbers, got {_kind(data)}")
    return True


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
        raise TypeError(f"{name}: data must be numbers, got {_kind(data)}")
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


def tensor(data: Any, *, dtype: Any = None, device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
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
    if _is_array("tensor", data):
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
    """`data` as a tensor, sharing its memory where dtype and device allow it.

    Args:
        data: a tensor, an array, a number or nested lists.
        dtype: of the result; by default that of the data.
        device: of the result; by default that of the data, or the CPU.

    Returns:
        `data` itself where it is such a tensor, else a tensor.

    >>> import numpy as np
    >>> import cuframe as cf
    >>> a = np.zeros(2, np.float32)
    >>> x = cf.as_tensor(a)
    >>> a[0] = 5.0
    >>> x
    tensor([5., 0.])
    """
    if isinstance(data, Tensor):
        out = data
    elif _is_array("as_tensor", data):
        out = Tensor(data)
    else:
        out = Tensor(_host_array("as_tensor", data, dtype))
    if dtype is not None and out.array.dtype != as_dtype(dtype):
        out = Tensor(out.array.astype(as_dtype(dtype)))
    return Tensor(_place(out.array, device)) if device is not None and out.device != Device(device) else out


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on the memory of a NumPy array.

    Args:
        ndarray: of any shape.

    Raises:
        TypeError: it is not a NumPy array, or of a dtype without a counterpart (strings, objects).

    >>> import numpy as np
    >>> import cuframe as cf
    >>> a = np.arange(3)
    >>> x = cf.from_numpy(a)
    >>> a[0] = 7
    >>> x
    tensor([7, 1, 2])
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(ndarray).__name__}")
    if ndarray.dtype.kind in "OUSMm":
        raise TypeError(f"from_numpy: arrays of {ndarray.dtype.name} have no tensor counterpart")
    return Tensor(ndarray)


# -- filled -------------------------------------------------------------------------------------------------------
def sizes_given(name: str, size: tuple) -> tuple:
    """Sizes given one by one or as one sequence, checked."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    try:
        sizes = tuple([_as_int(s) for s in size])
    except TypeError:
        raise TypeError(f"{name}: sizes must be ints, got {size!r}") from None
    if any(s < 0 for s in sizes):
        raise RuntimeError(f"{name}: sizes must not be negative, got {sizes}")
    return sizes


def _finish(array: Any, device: Any, requires_grad: bool) -> Tensor:
    out = Tensor(array if device is None else _place(array, device))
    return out.requires_grad_() if requires_grad else out


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros.

    Args:
        size: the sizes, one by one or as a tuple.
        dtype: by default float32 (the default dtype).
        device: by default the CPU.
        requires_grad: record operations on it.

    >>> import cuframe as cf
    >>> cf.zeros(2, 2)
    tensor([[0., 0.],
            [0., 0.]])
    """
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    return _finish(np.zeros(sizes_given("zeros", size), kind), device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones; arguments as for `zeros`.

    >>> import cuframe as cf
    >>> cf.ones(2)
    tensor([1., 1.])
    """
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    return _finish(np.ones(sizes_given("ones", size), kind), device, requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor whose values are whatever the memory held; arguments as for `zeros`.

    >>> import cuframe as cf
    >>> cf.empty(2, 3).shape, cf.empty((4,), dtype=cf.int64).dtype
    (cuframe.Size([2, 3]), dtype('int64'))
    """
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    return _finish(np.empty(sizes_given("empty", size), kind), device, requires_grad)


def _number_dtype(name: str, value: Any) -> np.dtype:
    """The dtype PyTorch gives a tensor filled with a Python number."""
    if isinstance(value, (bool, np.bool_)):
        return np.dtype(np.bool_)
    if isinstance(value, (int, np.integer)):
        return np.dtype(np.int64)
    if isinstance(value, (float, np.floating)):
        return get_default_dtype()
    if isinstance(value, complex):
        return as_dtype("complex128" if get_default_dtype() == np.float64 else "complex64")
    raise TypeError(f"{name}: expected a number, got {type(value).__name__}")


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with one number.

    Args:
        size: a tuple of sizes.
        fill_value: the number.
        dtype: by default that of the number (float32, int64 or bool).
        device: by default the CPU.
        requires_grad: record operations on it.

    >>> import cuframe as cf
    >>> cf.full((2,), 7)
    tensor([7, 7])
    """
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    kind = _number_dtype("full", fill_value) if dtype is None else as_dtype(dtype)
    return _finish(np.full(sizes_given("full", (size,)), fill_value, kind), device, requires_grad)


def scalar_tensor(value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor of the default dtype.

    Args:
        value: a number.
        dtype, device: of the tensor.
        requires_grad: record what is done with it.

    >>> import cuframe as cf
    >>> cf.scalar_tensor(3)
    tensor(3.)
    """
    try:
        number = float(value) if dtype is None else value
    except (TypeError, ValueError):
        raise TypeError(f"scalar_tensor: value must be a number, got {type(value).__name__}") from None
    return full((), number, dtype=dtype, device=device, requires_grad=requires_grad)


def _like(name: str, input: Tensor, dtype: Any, device: Any) -> tuple[np.dtype, Any]:
    need_tensor(name, "input", input)
    return (input.array.dtype if dtype is None else as_dtype(dtype)), (input.device if device is None else device)


@numpy_name(np.zeros_like)
def zeros_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, shape: Any = None
) -> Tensor:
    """Zeros of the shape, dtype and device of another tensor, unless given otherwise.

    Args:
        input: the tensor.
        dtype, device: in the place of its own.
        requires_grad: record what is done with the new one.

    >>> import cuframe as cf
    >>> cf.zeros_like(cf.tensor([1, 2]))
    tensor([0, 0])
    """
    kind, where = _like("zeros_like", input, dtype, device)
    return zeros(input.array.shape if shape is None else shape, dtype=kind, device=where, requires_grad=requires_grad)


@numpy_name(np.ones_like)
def ones_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, shape: Any = None
) -> Tensor:
    """Ones of the shape, dtype and device of another tensor, unless given otherwise.

    Args:
        input: the tensor.
        dtype, device: in the place of its own.
        requires_grad: record what is done with the new one.

    >>> import cuframe as cf
    >>> cf.ones_like(cf.tensor([1.0, 2.0]))
    tensor([1., 1.])
    """
    kind, where = _like("ones_like", input, dtype, device)
    return ones(input.array.shape if shape is None else shape, dtype=kind, device=where, requires_grad=requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of the shape, dtype and device of another, its values whatever the memory held.

    Args:
        input: the tensor.
        dtype, device: in the place of its own.
        requires_grad: record what is done with the new one.

    >>> import cuframe as cf
    >>> x = cf.ones(2, 3, dtype=cf.float16)
    >>> y = cf.empty_like(x)
    >>> y.shape, y.dtype
    (cuframe.Size([2, 3]), dtype('float16'))
    """
    kind, where = _like("empty_like", input, dtype, device)
    return empty(input.array.shape, dtype=kind, device=where, requires_grad=requires_grad)


@numpy_name(np.full_like)
def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    shape: Any = None,
) -> Tensor:
    """One number in the shape, dtype and device of another tensor, unless given otherwise.

    Args:
        input: the tensor.
        fill_value: the number.
        dtype, device, shape: in the place of its own.
        requires_grad: record what is done with the new one.

    >>> import cuframe as cf
    >>> cf.full_like(cf.zeros(2), 3)
    tensor([3., 3.])
    """
    kind, where = _like("full_like", input, dtype, device)
    sizes = input.array.shape if shape is None else shape
    return full(sizes, fill_value, dtype=kind, device=where, requires_grad=requires_grad)


# -- ranges -------------------------------------------------------------------------------------------------------
def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The numbers start, start + step, ... below `end`.

    Args:
        start: the first; with one argument that is the end, and 0 the start.
        end: where to stop (excluded).
        step: not zero.
        dtype: by default int64, or the default dtype if an argument is a float.
        device: by default the CPU.
        requires_grad: record operations on it.

    Raises:
        RuntimeError: step is zero, or leads away from `end`.

    >>> import cuframe as cf
    >>> cf.arange(1, 2.5, 0.5)
    tensor([1.0000, 1.5000, 2.0000])
    """
    if end is None:
        start, end = 0, start
    start, end, step = [v.item() if isinstance(v, (Tensor, np.generic)) else v for v in (start, end, step)]
    if not all(math.isfinite(v) for v in (start, end, step)):
        raise RuntimeError(f"arange: start, end and step must be finite, got {start}, {end} and {step}")
    given = None if dtype is None else as_dtype(dtype)
    if given is not None and given.kind in "iu":
        start, end, step = int(start), int(end), int(step)
    if step == 0:
        raise RuntimeError("arange: step must not be zero")
    if (end - start) * step < 0:
        raise RuntimeError(f"arange: step {step} leads away from end {end}, starting at {start}")
    if given is not None:
        kind = given
    else:
        kind = get_default_dtype() if any(isinstance(v, float) for v in (start, end, step)) else np.dtype(np.int64)
    if kind.kind == "i" and all(isinstance(v, int) for v in (start, end, step)):
        return _finish(np.arange(start, end, step, dtype=kind), device, requires_grad)
    count = max(math.ceil((end - start) / step), 0)
    values = start + step * np.arange(count, dtype=np.float64)
    return _finish(values.astype(kind), device, requires_grad)


def _ends(name: str, start: Any, end: Any, steps: Any) -> tuple[Any, Any, int]:
    """The arguments of linspace and logspace as numbers, checked."""
    try:
        count = _as_int(steps)
    except TypeError:
        raise TypeError(f"{name}: steps must be an int, got {type(steps).__name__}") from None
    if count < 0:
        raise RuntimeError(f"{name}: steps must not be negative, got {count}")
    ends = []
    for argument, v in (("start", start), ("end", end)):
        if isinstance(v, Tensor):
            if v.array.ndim:
                raise RuntimeError(f"{name}: {argument} must be a number or a 0-d tensor, got {tuple(v.array.shape)}")
            v = v.array.item()
        ends.append(v)
    return ends[0], ends[1], count


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` evenly spaced numbers from `start` to `end`, both included.

    Args:
        start, end: numbers.
        steps: how many, an int.
        dtype: floating point by default.
        device: of the tensor.
        requires_grad: record what is done with it.

    Returns:
        (steps,).

    Raises:
        RuntimeError: steps is negative.

    >>> import cuframe as cf
    >>> cf.linspace(0, 1, 5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    start, end, steps = _ends("linspace", start, end, steps)
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    if kind.kind in "iu":
        start, end = int(start), int(end)
    return _finish(np.linspace(start, end, steps).astype(kind), device, requires_grad)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` numbers from base ** start to base ** end, evenly spaced in the exponent.

    Args:
        dtype, device, requires_grad: as in `linspace`.

    Raises:
        RuntimeError: steps is negative.

    >>> import cuframe as cf
    >>> cf.logspace(0, 2, 3)
    tensor([  1.,  10., 100.])
    """
    start, end, steps = _ends("logspace", start, end, steps)
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    return _finish(np.logspace(start, end, steps, base=base).astype(kind), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an n x m matrix (m = n by default), zeros elsewhere.

    Args:
        n, m: the numbers of rows and columns.
        dtype, device: of the tensor.
        requires_grad: record what is done with it.

    Returns:
        (n, m).

    Raises:
        RuntimeError: a negative size.

    >>> import cuframe as cf
    >>> cf.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    rows, columns = sizes_given("eye", (n, n if m is None else m))
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    return _finish(np.eye(rows, columns).astype(kind), device, requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: Any = None) -> Tensor:
    """Row and column numbers of the lower triangle of a row x col matrix, as a (2, n) tensor.

    Args:
        row, col: the sizes of the matrix.
        offset: the last diagonal that counts.

    >>> import cuframe as cf
    >>> cf.tril_indices(2, 2)
    tensor([[0, 1, 1],
            [0, 0, 1]])
    """
    row, col = sizes_given("tril_indices", (row, col))
    return _finish(np.stack(np.tril_indices(row, offset, col)).astype(as_dtype(dtype)), device, False)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: Any = None) -> Tensor:
    """Row and column numbers of the upper triangle of a row x col matrix, as a (2, n) tensor.

    Args:
        row, col: the sizes of the matrix.
        offset: the first diagonal that counts.

    >>> import cuframe as cf
    >>> cf.triu_indices(2, 2)
    tensor([[0, 0, 1],
            [0, 1, 1]])
    """
    row, col = sizes_given("triu_indices", (row, col))
    return _finish(np.stack(np.triu_indices(row, offset, col)).astype(as_dtype(dtype)), device, False)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of another library's array, through the DLPack protocol.

    Raises:
        TypeError: it does not speak DLPack.

    Args:
        ext_tensor: with `__dlpack__` and `__dlpack_device__`: an array of NumPy, CuPy, PyTorch, JAX and others.

    >>> import numpy as np
    >>> import cuframe as cf
    >>> cf.from_dlpack(np.arange(3))
    tensor([0, 1, 2])
    """
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"from_dlpack: expected an object with __dlpack__, got {type(ext_tensor).__name__}")
    kind, _ = ext_tensor.__dlpack_device__()
    return Tensor((np if kind == 1 else backend_for("cuda").xp).from_dlpack(ext_tensor))


# -- beside a tensor ----------------------------------------------------------------------------------------------
def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`cf.tensor(data)` in the dtype and on the device of this tensor, unless given otherwise.

    >>> import cuframe as cf
    >>> cf.ones(2, dtype=cf.float16).new_tensor([1, 2])
    tensor([1., 2.], dtype=cuframe.float16)
    """
    where = self.device if device is None else device
    return tensor(data, dtype=self.array.dtype if dtype is None else dtype, device=where, requires_grad=requires_grad)


def _new(creation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    name = f"new_{creation.__name__}"

    def method(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return creation(
            *size,
            dtype=self.array.dtype if dtype is None else dtype,
            device=self.device if device is None else device,
            requires_grad=requires_grad,
        )

    method.__name__ = method.__qualname__ = name
    size = "(2,), 7" if creation is full else "2"
    method.__doc__ = f"""`cf.{creation.__name__}` in the dtype and on the device of this tensor, unless given otherwise.

>>> import cuframe as cf
>>> x = cf.zeros(3, dtype=cf.float16).{name}({size})
>>> x.shape, x.dtype
(cuframe.Size([2]), dtype('float16'))
"""
    return method


METHODS: dict[str, Callable] = {
    "new_empty": _new(empty), "new_full": _new(full), "new_ones": _new(ones), "new_tensor": new_tensor,
    "new_zeros": _new(zeros),
}  # fmt: skip
