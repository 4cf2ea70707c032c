"""The same values in another dtype, place or memory; and what a tensor tells of its layout.

What PyTorch has as methods only stands in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.graph import CLONE, mode
from ..backend import Device, backend_for, backend_of, device_types
from ..dtypes import as_dtype, bfloat16, is_floating
from ..tensor import Size, Tensor
from .define import Op, cast, need_tensor, numpy_name, record
from .inplace import check_writable, overwrite, write
from .shape import expand, wrap_dim

__all__ = ["clone", "is_floating_point", "is_tensor", "numel"]


@numpy_name(np.copy)
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy on memory of its own, through which gradients pass.

    >>> import cuframe as cf
    >>> cf.clone(cf.tensor([1, 2]))
    tensor([1, 2])
    """
    need_tensor("clone", "input", input)
    return record(input.array.copy(), CLONE, (input,), ())


def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor in row-major memory: itself where it is so already, else a copy.

    >>> import cuframe as cf
    >>> x = cf.ones(2, 3).T
    >>> x.is_contiguous(), x.contiguous().is_contiguous()
    (False, True)
    """
    x = self.array
    if x.flags.c_contiguous:
        return self
    return record(backend_of(x).xp.ascontiguousarray(x), CLONE, (self,), ())


def is_contiguous(self: Tensor) -> bool:
    """True if the elements lie in memory in row-major order without gaps.

    >>> import cuframe as cf
    >>> cf.ones(2, 3).is_contiguous(), cf.ones(2, 3).T.is_contiguous()
    (True, False)
    """
    return bool(self.array.flags.c_contiguous)


def _move_vjp(g: Any, needs: tuple, where: Device) -> tuple:
    if isinstance(g, Tensor):
        return (move(g, where),)
    here, there = backend_of(g), backend_for(where)
    return (here.copy_to(g, where) if here is there else there.from_host(here.to_host(g), where),)


_MOVE = Op("to_copy", _move_vjp, (None,))


def move(t: Tensor, where: Device) -> Tensor:
    """`t` on a device; `t` itself where it is there."""
    old = t.device
    if old == where:
        return t
    here, there = backend_of(t.array), backend_for(where)
    x = here.copy_to(t.array, where) if here is there else there.from_host(here.to_host(t.array), where)
    return record(x, _MOVE, (t,), (old,))


def _is_device(value: Any) -> bool:
    if isinstance(value, Device):
        return True
    return isinstance(value, str) and value.partition(":")[0] in device_types()


def target_dtype(value: Any) -> np.dtype:
    """The dtype that `to` is asked for; it may have been meant as a device."""
    try:
        return as_dtype(value)
    except TypeError:
        known = ", ".join(device_types())
        raise TypeError(f"to: {value!r} is neither a dtype nor a device; devices are {known}") from None


def to(
    self: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """The tensor with another dtype, on another device, or both; itself where nothing would change.

    Args:
        args: a dtype, a device, a device and a dtype, or another tensor to agree with; then `non_blocking`, `copy`.
        dtype, device: the same by name.
        non_blocking: accepted for PyTorch's sake; copies keep the order of the stream anyway.
        copy: copy even where nothing would change.

    Raises:
        TypeError: an argument that is none of these.
        RuntimeError: the device cannot be used here.

    >>> import cuframe as cf
    >>> cf.tensor([1.7]).to(cf.int64)
    tensor([1])
    """
    rest = list(args)
    if rest and isinstance(rest[0], Tensor):
        other = rest.pop(0)
        dtype, device = other.array.dtype, other.device
    else:
        if rest and (_is_device(rest[0]) or (rest[0] is None and len(rest) > 1)):
            device = rest.pop(0)
        if rest and not isinstance(rest[0], bool):
            dtype = rest.pop(0)
            if dtype is not None:
                dtype = target_dtype(dtype)
    if len(rest) == 2:
        copy = rest[1]
    if len(rest) > 2:
        raise TypeError(f"to: expected (dtype), (device, dtype) or (tensor), got {len(args)} positional arguments")
    out = self
    if device is not None:
        out = move(out, Device(device))
    if dtype is not None:
        out = cast(out, as_dtype(dtype))
    return clone(self) if copy and out is self else out


def cpu(self: Tensor) -> Tensor:
    """The tensor in host memory; itself where it is there.

    >>> import cuframe as cf
    >>> cf.ones(2, device="sim").cpu().device
    device(type='cpu')
    """
    return move(self, Device("cpu"))


def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a CUDA device; itself where it is there.

    Args:
        device: an index, a device or its name; by default the first.

    Raises:
        RuntimeError: there is no GPU, or no CuPy.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     assert cf.ones(2).cuda().is_cuda
    """
    if device is None or isinstance(device, int):
        return move(self, Device("cuda", device))
    return move(self, Device(device))


def astype(self: Tensor, dtype: Any, copy: bool = True) -> Tensor:
    """The tensor in another dtype (NumPy's name for `to`).

    >>> import cuframe as cf
    >>> cf.tensor([1.7]).astype(cf.int32)
    tensor([1], dtype=cuframe.int32)
    """
    return cast(self, as_dtype(dtype))


def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The tensor in another dtype; without an argument the name of its own.

    >>> import cuframe as cf
    >>> cf.ones(1).type(), cf.ones(1).type(cf.int64)
    ('cuframe.float32', tensor([1]))
    """
    return f"cuframe.{self.array.dtype.name}" if dtype is None else cast(self, as_dtype(dtype))


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype and on the device of another.

    >>> import cuframe as cf
    >>> cf.tensor([1.7]).type_as(cf.arange(2))
    tensor([1])
    """
    need_tensor("type_as", "other", other)
    return to(self, other)


def _to_dtype(name: str, kind: Any) -> Callable[[Tensor], Tensor]:
    dtype = np.dtype(kind)

    def method(self: Tensor) -> Tensor:
        return cast(self, dtype)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"""The tensor as {dtype.name}; itself where it is that already.

>>> import cuframe as cf
>>> cf.tensor([1, 0]).{name}().dtype
{dtype!r}
"""
    return method


def numel(input: Tensor) -> int:
    """The number of elements.

    >>> import cuframe as cf
    >>> cf.numel(cf.zeros(2, 3))
    6
    """
    need_tensor("numel", "input", input)
    return int(input.array.size)


def size(self: Tensor, dim: int | None = None) -> Any:
    """The sizes of all dimensions, or of one.

    >>> import cuframe as cf
    >>> cf.ones(2, 3).size(), cf.ones(2, 3).size(1)
    (cuframe.Size([2, 3]), 3)
    """
    shape = self.array.shape
    if dim is None:
        return Size(shape)
    if not shape:
        raise IndexError(f"size: dim {dim} does not exist in a 0-d tensor")
    return shape[wrap_dim("size", "dim", dim, len(shape))]


def dim(self: Tensor) -> int:
    """The number of dimensions.

    >>> import cuframe as cf
    >>> cf.ones(2, 3).dim()
    2
    """
    return self.array.ndim


def stride(self: Tensor, dim: int | None = None) -> Any:
    """How many elements apart neighbours in each dimension lie, or in one.

    >>> import cuframe as cf
    >>> cf.ones(2, 3).stride(), cf.ones(2, 3).T.stride(1)
    ((3, 1), 3)
    """
    x = self.array
    strides = tuple([s // x.dtype.itemsize for s in x.strides])
    return strides if dim is None else strides[wrap_dim("stride", "dim", dim, x.ndim)]


def element_size(self: Tensor) -> int:
    """Bytes of one element.

    >>> import cuframe as cf
    >>> cf.ones(2, dtype=cf.float16).element_size()
    2
    """
    return self.array.dtype.itemsize


def data_ptr(self: Tensor) -> int:
    """The address of the first element.

    >>> import cuframe as cf
    >>> x = cf.ones(2)
    >>> x.data_ptr() == x.array.ctypes.data
    True
    """
    x = self.array
    return x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr


def is_floating_point(input: Tensor) -> bool:
    """True for float16, bfloat16, float32 and float64 tensors.

    >>> import cuframe as cf
    >>> cf.is_floating_point(cf.zeros(1)), cf.is_floating_point(cf.tensor([1]))
    (True, False)
    """
    need_tensor("is_floating_point", "input", input)
    return is_floating(input.array.dtype)


def is_tensor(obj: Any) -> bool:
    """True if `obj` is a Tensor.

    >>> import cuframe as cf
    >>> cf.is_tensor(1.0)
    False
    """
    return isinstance(obj, Tensor)


# -- written in place ---------------------------------------------------------------------------------------------
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Write the values of another tensor (broadcast, cast and moved as needed) into this one; returns self.

    Raises:
        RuntimeError: the shapes do not broadcast, or self is a leaf that requires a gradient.

    >>> import cuframe as cf
    >>> cf.zeros(2, 2).copy_(cf.tensor([1, 2]))
    tensor([[1., 2.],
            [1., 2.]])
    """
    check_writable(self, "copy_")
    if not isinstance(src, Tensor):
        src = Tensor(backend_of(self.array).asarray(src, self.array))
    try:
        if src.node is None or not mode.grad:
            return overwrite(self, move(src, self.device).array, "copy_")
        result = src if src.array.shape == self.array.shape else expand(src, self.array.shape)
    except (RuntimeError, ValueError):
        if _fits(src.array.shape, self.array.shape):
            raise
        raise RuntimeError(
            f"copy_: src of shape {tuple(src.array.shape)} does not broadcast to {tuple(self.array.shape)}"
        ) from None
    result = cast(result, self.array.dtype)
    if result.array.__class__ is not self.array.__class__ or result.device != self.device:
        result = move(result, self.device)
    return write(self, record(result.array, CLONE, (result,), ()), "copy_")


def _fits(shape: tuple, into: tuple) -> bool:
    try:
        return np.broadcast_shapes(shape, into) == into
    except ValueError:
        return False


def fill_(self: Tensor, value: Any) -> Tensor:
    """Write one number, or a 0-d tensor (which then gets a gradient), everywhere; returns self.

    >>> import cuframe as cf
    >>> cf.zeros(2).fill_(7.0)
    tensor([7., 7.])
    """
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError(f"fill_: value must be a number or a 0-d tensor, got shape {tuple(value.array.shape)}")
        return copy_(self, value)
    return overwrite(self, value, "fill_")


def zero_(self: Tensor) -> Tensor:
    """Write zeros everywhere; returns self.

    >>> import cuframe as cf
    >>> cf.ones(2).zero_()
    tensor([0., 0.])
    """
    return overwrite(self, 0, "zero_")


def fill_diagonal_(self: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Write one number on the main diagonal; returns self.

    Args:
        fill_value: the number.
        wrap: start again below, a row apart, in a tall matrix.

    Raises:
        RuntimeError: fewer than two dimensions, or more than two of different sizes.

    >>> import cuframe as cf
    >>> cf.zeros(2, 2).fill_diagonal_(1.0)
    tensor([[1., 0.],
            [0., 1.]])
    """
    check_writable(self, "fill_diagonal_")
    shape = self.array.shape
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise RuntimeError(
            f"fill_diagonal_: the tensor must be 2-d, or have dimensions of one size, got shape {tuple(shape)}"
        )
    xp = backend_of(self.array).xp
    if len(shape) > 2:
        places = (Tensor(xp.arange(shape[0])),) * len(shape)
    else:
        flat = xp.arange(0, self.array.size if wrap else min(shape[1] * shape[1], self.array.size), shape[1] + 1)
        places = (Tensor(flat // shape[1]), Tensor(flat % shape[1]))
    self[places] = fill_value  # type: ignore[index]
    return self


def get_device(self: Tensor) -> int:
    """The index of the CUDA device that holds the tensor; -1 on the CPU.

    >>> import cuframe as cf
    >>> cf.ones(2).get_device()
    -1
    """
    index = self.device.index
    return -1 if index is None else index


def is_nonzero(self: Tensor) -> bool:
    """True unless the single element is zero.

    Raises:
        RuntimeError: the tensor has another number of elements than one.

    >>> import cuframe as cf
    >>> cf.tensor([0.5]).is_nonzero()
    True
    """
    return bool(self)


def contains(self: Tensor, element: Any) -> bool:
    """`element in tensor`: True if any element equals this number, or any matches this tensor by broadcasting."""
    if not isinstance(element, (bool, int, float, complex, np.generic, Tensor)):
        raise TypeError(f"in: only a number or a Tensor can be in a tensor, got {type(element).__name__}")
    return bool((self == element).any())  # type: ignore[attr-defined]


def reverse(self: Tensor) -> Tensor:
    """`reversed(tensor)`: a copy flipped along dimension 0."""
    return self.flip(0) if self.array.ndim else self  # type: ignore[attr-defined]


def is_cpu(self: Tensor) -> bool:
    """True if the array lives in host memory.

    >>> import cuframe as cf
    >>> cf.ones(2).is_cpu, cf.ones(2, device="sim").is_cpu
    (True, False)
    """
    return self.device.type == "cpu"


def is_sparse(self: Tensor) -> bool:
    """False: a Tensor is dense; the gradient of a sparse embedding is of a type of its own.

    >>> import cuframe as cf
    >>> cf.ones(2).is_sparse
    False
    """
    return False


def is_same_size(self: Tensor, other: Tensor) -> bool:
    """True if both tensors have the same shape.

    >>> import cuframe as cf
    >>> cf.ones(2).is_same_size(cf.zeros(2))
    True
    """
    need_tensor("is_same_size", "other", other)
    return self.array.shape == other.array.shape


def is_signed(self: Tensor) -> bool:
    """True if the dtype holds negative numbers.

    >>> import cuframe as cf
    >>> cf.arange(2).is_signed(), cf.arange(2, dtype=cf.uint8).is_signed()
    (True, False)
    """
    return self.array.dtype.kind not in "ub"


PROPERTIES: dict[str, Callable] = {"is_cpu": is_cpu, "is_sparse": is_sparse}
METHODS: dict[str, Callable] = {
    "__contains__": contains, "__reversed__": reverse,
    "astype": astype, "bfloat16": _to_dtype("bfloat16", bfloat16), "bool": _to_dtype("bool", np.bool_),
    "byte": _to_dtype("byte", np.uint8), "char": _to_dtype("char", np.int8), "contiguous": contiguous, "copy_": copy_,
    "cpu": cpu, "cuda": cuda, "data_ptr": data_ptr, "dim": dim, "double": _to_dtype("double", np.float64),
    "element_size": element_size, "fill_": fill_, "fill_diagonal_": fill_diagonal_, "get_device": get_device,
    "is_nonzero": is_nonzero, "is_same_size": is_same_size, "is_signed": is_signed,
    "float": _to_dtype("float", np.float32), "half": _to_dtype("half", np.float16), "int": _to_dtype("int", np.int32),
    "is_contiguous": is_contiguous, "long": _to_dtype("long", np.int64), "ndimension": dim, "nelement": numel,
    "short": _to_dtype("short", np.int16), "size": size, "stride": stride, "to": to, "type": type_,
    "type_as": type_as, "zero_": zero_,
}  # fmt: skip
