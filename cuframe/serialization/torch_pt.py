"""Reads PyTorch's zip checkpoints (``.pt``, ``.pth``) with neither torch nor pickle.

A ``.pt`` file is a zip: ``<name>/data.pkl`` is a pickle of the saved object in which a tensor is a call that
names a storage, and ``<name>/data/<key>`` are the storages' bytes.  The pickle is executed by
`pickle_machine`, with the functions of this file behind the names on the allow-list.  Bounded here: what the
zip unpacks to, the pickle's size, and each tensor's reach inside its storage.
"""

from __future__ import annotations

import math
import os
import re
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from .files import Array, CheckpointError, Path, open_checkpoint, tensor_of
from .pickle_machine import Global, Machine

__all__ = ["load_torch", "read_torch"]

_MAX_PICKLE = 64 << 20  # bytes of data.pkl; a tensor takes some 200 of them
_FREE, _MAX_RATIO = 64 << 20, 100  # a zip may unpack to 64 MiB and 100 times its own size
_MAX_EXPANDED = 2**28  # elements of a tensor larger than its storage (strides of 0)
_LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    struct.error,
    ValueError,
)  # what zipfile raises on damaged archives


class _Storage:
    """A storage of the archive: its key, its size, and the element type it was saved with (None: bytes)."""

    __slots__ = ("dtype", "key", "nbytes")

    def __init__(self, key: str, nbytes: int, dtype: np.dtype[Any] | None) -> None:
        self.key, self.nbytes, self.dtype = key, nbytes, dtype


class _NumpyDtype:
    """A NumPy dtype under construction: a pickle gives its byte order in a second step."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


class _Archive:
    """The zip file, with every size checked before anything of that size is made."""

    def __init__(self, zf: zipfile.ZipFile, size: int, refuse: Callable[[str], NoReturn]) -> None:
        self.zf, self.refuse = zf, refuse
        self.entries: dict[str, zipfile.ZipInfo] = {}
        self.storages: dict[str, tuple[Array, int]] = {}  # key -> bytes, unit of byte swapping
        packed = unpacked = 0
        for info in zf.infolist():
            if info.filename in self.entries:
                refuse(f"has two entries named {info.filename!r}")
            if info.flag_bits & 1:
                refuse(f"has an encrypted entry {info.filename!r}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                refuse(f"has an entry {info.filename!r} compressed by a method other than deflate")
            self.entries[info.filename] = info
            packed, unpacked = packed + info.compress_size, unpacked + info.file_size
        if packed > size:
            refuse(
                f"claims {packed} bytes of entries in a file of {size}: they overlap, or the file is damaged"
            )
        if unpacked > _FREE + _MAX_RATIO * size:
            refuse(f"would unpack to {unpacked} bytes, more than {_MAX_RATIO} times its {size}: a zip bomb")
        pickles = [name for name in self.entries if re.fullmatch(r"[^/]*/data\.pkl", name)]
        if len(pickles) != 1:
            refuse(f"is a zip archive but not a PyTorch checkpoint: it has {len(pickles)} data.pkl, not one")
        self.prefix = pickles[0].removesuffix("data.pkl")
        if self.prefix + "constants.pkl" in self.entries:
            refuse("is a TorchScript program; save its state_dict() with torch.save instead")
        order = self.prefix + "byteorder"
        text = self.read(order, 16).tobytes() if order in self.entries else b"little"
        if text not in (b"little", b"big"):
            refuse(f"has byteorder {text!r}, expected b'little' or b'big'")
        self.swap = text.decode() != sys.byteorder

    def read(self, name: str, limit: int) -> Array:
        """The bytes of an entry, read straight into the array that is returned."""
        info = self.entries[name]
        if info.file_size > limit:
            self.refuse(f"has an entry {name!r} of {info.file_size} bytes, more than the {limit} allowed")
        out = np.empty(info.file_size, np.uint8)
        view, done = out.data, 0
        with self.zf.open(info) as file:
            while done < len(out):
                got = file.readinto(view[done : done + (1 << 20)])  # type: ignore[attr-defined]
                if not got:
                    self.refuse(f"has an entry {name!r} that ends after {done} of its {len(out)} bytes")
                done += got
            file.read(1)  # at the end zipfile checks the CRC-32
        return out

    def storage(self, key: str, dtype: np.dtype[Any]) -> Array:
        """A storage's bytes in this machine's order, read once: tensors that share it share its memory."""
        unit = dtype.itemsize // (2 if dtype.kind == "c" else 1)
        if key not in self.storages:
            raw = self.read(f"{self.prefix}data/{key}", sys.maxsize)
            if self.swap:
                raw[: len(raw) // unit * unit].view(f"u{unit}").byteswap(inplace=True)
            self.storages[key] = raw, unit
        raw, swapped = self.storages[key]
        if self.swap and swapped != unit:
            self.refuse(
                f"has a storage {key!r} of the other byte order that is used as elements of {swapped} and "
                f"{unit} bytes"
            )
        return raw


class _TorchMachine(Machine):
    """The pickle machine, with tensors."""

    def __init__(self, archive: _Archive, wrap: Callable[[Array], Any]) -> None:
        super().__init__(_GLOBALS, archive.refuse)
        self.archive, self.wrap = archive, wrap
        self.values = (np.dtype, np.ndarray, type(wrap(np.empty(0, np.float32))))

    def is_value(self, obj: Any) -> bool:
        return isinstance(obj, self.values) or super().is_value(obj)

    def persistent(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            self.refuse("has a damaged pickle: a persistent id is not that of a storage")
        _, kind, key, _, count = pid
        if not isinstance(kind, Global) or not isinstance(kind.value, _Storage):
            self.refuse("has a damaged pickle: a storage is of a type that is none")
        if not isinstance(key, str) or not re.fullmatch(r"[0-9A-Za-z_]{1,64}", key):
            self.refuse(f"has a storage with the key {str(key)[:80]!r}")
        if type(count) is not int or not 0 <= count < 2**60:
            self.refuse(f"has a storage of {str(count)[:40]} elements")
        name = f"{self.archive.prefix}data/{key}"
        if name not in self.archive.entries:
            self.refuse(f"has no entry {name!r}, a storage that its tensors need")
        dtype = kind.value.dtype
        nbytes, held = count * (dtype.itemsize if dtype else 1), self.archive.entries[name].file_size
        if held < nbytes:
            self.refuse(f"has a storage {key!r} that should hold {nbytes} bytes and holds {held}")
        return _Storage(key, nbytes, dtype)

    def tensor(self, storage: Any, dtype: Any, offset: Any, size: Any, stride: Any) -> Any:
        """A view of the storage, once it is certain that no element of it lies outside."""
        if not isinstance(storage, _Storage) or not isinstance(dtype, np.dtype):
            self.refuse("has a damaged pickle: a tensor without a storage or a dtype")
        if (
            type(offset) is not int
            or offset < 0
            or not _is_size(size)
            or not _is_size(stride)
            or (len(size) != len(stride))
        ):
            self.refuse(
                "has a tensor with an impossible layout: "
                f"offset {str(offset)[:40]}, size {str(size)[:80]}, stride {str(stride)[:80]}"
            )
        held = storage.nbytes // dtype.itemsize
        end = offset if 0 in size else offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1
        if end > held:
            self.refuse(
                f"has a tensor of size {size}, stride {stride}, offset {offset} that needs {end} elements "
                f"of a storage that has {held}"
            )
        if math.prod(size) > max(held, _MAX_EXPANDED):
            self.refuse(
                f"has a tensor of size {size} on a storage of {held} elements, which is expanded too far"
            )
        if 0 in size:
            return self.wrap(np.empty(size, dtype))
        raw = self.archive.storage(storage.key, dtype)
        strides = [s * dtype.itemsize for s in stride]
        return self.wrap(np.ndarray(size, dtype, raw, offset * dtype.itemsize, strides))

    def set_state(self, target: Any, state: Any) -> None:
        if (
            isinstance(target, _NumpyDtype)
            and isinstance(state, tuple)
            and state[1:2]
            and state[1] in list("<>=|")
        ):
            target.dtype = target.dtype.newbyteorder(state[1])
        elif (
            type(target) is np.ndarray
            and target.shape == (0,)
            and isinstance(state, tuple)
            and len(state) == 5
        ):
            self.fill(target, *state[1:])
        else:
            super().set_state(target, state)

    def fill(self, target: Array, shape: Any, kind: Any, fortran: Any, data: Any) -> None:
        """Gives an empty NumPy array, which the memo may already refer to, its shape and values."""
        if not _is_size(shape) or not isinstance(kind, _NumpyDtype) or not isinstance(data, bytes):
            self.refuse("holds a NumPy array in a form that is not understood")
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            self.refuse(f"holds a NumPy array of shape {shape} and dtype {kind.dtype} in {len(data)} bytes")
        self.count(len(data))
        values = np.frombuffer(data, kind.dtype).astype(kind.dtype.newbyteorder("="))
        target.__setstate__((1, shape, values.dtype, fortran is True, values.tobytes()))  # type: ignore[arg-type]


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= 64
        and all(type(v) is int and 0 <= v < 2**60 for v in value)
    )


def _arguments(m: Machine, name: str, args: tuple[Any, ...], least: int, most: int) -> tuple[Any, ...]:
    """The arguments padded with None, or an error where there are fewer or more than the function takes."""
    if not least <= len(args) <= most:
        m.refuse(f"has a damaged pickle: {name} with {len(args)} arguments")
    return (*args, *[None] * (most - len(args)))


def _rebuild_tensor(m: _TorchMachine, args: tuple[Any, ...]) -> Any:
    storage, offset, size, stride, *_, math_bits = _arguments(m, "_rebuild_tensor", args, 4, 7)
    if math_bits:
        m.refuse("has a tensor with its conjugate or negative bit set; save t.resolve_conj().resolve_neg()")
    return m.tensor(storage, getattr(storage, "dtype", None), offset, size, stride)


def _rebuild_tensor_v3(m: _TorchMachine, args: tuple[Any, ...]) -> Any:
    storage, offset, size, stride, _, _, dtype, math_bits = _arguments(m, "_rebuild_tensor_v3", args, 7, 8)
    if math_bits:
        m.refuse("has a tensor with its conjugate or negative bit set; save t.resolve_conj().resolve_neg()")
    return m.tensor(storage, dtype, offset, size, stride)


def _rebuild_parameter(m: _TorchMachine, args: tuple[Any, ...]) -> Any:
    data = _arguments(m, "_rebuild_parameter", args, 1, 4)[0]
    if not isinstance(data, m.values[1:]):
        m.refuse("has a damaged pickle: a parameter that is not a tensor")
    return data


def _rebuild_from_type(m: _TorchMachine, args: tuple[Any, ...]) -> Any:
    function, kind, inner, _ = _arguments(m, "_rebuild_from_type_v2", args, 4, 4)
    if (
        not isinstance(kind, Global)
        or kind.name not in _TENSOR_TYPES
        or not isinstance(inner, tuple)
        or (not isinstance(function, Global) or function.call not in (_rebuild_tensor, _rebuild_tensor_v3))
    ):
        m.refuse("has a tensor of a subclass that is not on the allow-list")
    return function.call(m, inner)


def _ordered_dict(m: Machine, args: tuple[Any, ...]) -> Any:
    pairs = _arguments(m, "OrderedDict", args, 0, 1)[0] or []
    if not isinstance(pairs, list) or any(not isinstance(p, (list, tuple)) or len(p) != 2 for p in pairs):
        m.refuse("has a damaged pickle: OrderedDict of something not a list of pairs")
    out: dict[Any, Any] = OrderedDict()
    for key, value in pairs:
        m.set_items(out, [key, value])
    return out


def _default_dict(m: Machine, args: tuple[Any, ...]) -> Any:
    _arguments(m, "defaultdict", args, 0, 1)
    return {}


def _set(kind: Callable[[set[Any]], Any]) -> Callable[[Machine, tuple[Any, ...]], Any]:
    def make(m: Machine, args: tuple[Any, ...]) -> Any:
        items = _arguments(m, "set", args, 0, 1)[0]
        if items is not None and not isinstance(items, (list, tuple)):
            m.refuse("has a damaged pickle: a set of something not a list")
        return kind(m.add_items(set(), list(items or ())))

    return make


def _size(m: Machine, args: tuple[Any, ...]) -> Any:
    value = _arguments(m, "torch.Size", args, 1, 1)[0]
    if not _is_size(value):
        m.refuse("has a damaged pickle: torch.Size of something not a tuple of sizes")
    return value


def _device(m: Machine, args: tuple[Any, ...]) -> Any:
    kind, index = _arguments(m, "torch.device", args, 1, 2)
    if not isinstance(kind, str) or len(kind) > 64 or type(index) not in (int, type(None)):
        m.refuse("has a damaged pickle: torch.device of something not a name and a number")
    return kind if index is None else f"{kind}:{index}"


def _encode(m: Machine, args: tuple[Any, ...]) -> Any:
    """How protocol 2 writes bytes."""
    text, codec = _arguments(m, "_codecs.encode", args, 2, 2)
    if not isinstance(text, str) or codec != "latin1":
        m.refuse("has a damaged pickle: bytes that are not latin1 text")
    m.count(len(text))
    return text.encode("latin1")


def _bytes(m: Machine, args: tuple[Any, ...]) -> Any:
    _arguments(m, "bytes", args, 0, 0)
    return b""


def _complex(m: Machine, args: tuple[Any, ...]) -> Any:
    real, imag = _arguments(m, "complex", args, 2, 2)
    if type(real) is not float or type(imag) is not float:
        m.refuse("has a damaged pickle: complex of something not two floats")
    return complex(real, imag)


def _numpy_dtype(m: Machine, args: tuple[Any, ...]) -> Any:
    code = _arguments(m, "numpy.dtype", args, 1, 3)[0]
    if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16", code):
        m.refuse(
            f"has a NumPy dtype {str(code)[:40]!r}; bool, integer, float and complex are on the allow-list"
        )
    return _NumpyDtype(np.dtype(code))


def _numpy_scalar(m: Machine, args: tuple[Any, ...]) -> Any:
    kind, data = _arguments(m, "numpy scalar", args, 2, 2)
    if not isinstance(kind, _NumpyDtype) or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        m.refuse("has a damaged pickle: a NumPy scalar without its dtype and bytes")
    return np.frombuffer(data, kind.dtype)[0].item()


def _numpy_array(m: Machine, args: tuple[Any, ...]) -> Any:
    kind = _arguments(m, "numpy _reconstruct", args, 3, 3)[0]
    if not isinstance(kind, Global) or kind.name != "numpy.ndarray":
        m.refuse("has a NumPy array of a subclass that is not on the allow-list")
    return np.empty(0, np.uint8)


_STORAGES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
    "ComplexFloat": np.complex64, "ComplexDouble": np.complex128,
}  # fmt: skip
_DTYPES = {
    "bool": np.bool_, "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64,
    "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64, "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64, "complex64": np.complex64,
    "complex128": np.complex128,
}  # fmt: skip
_TENSOR_TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_CALLS: dict[str, Callable[..., Any] | None] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "argparse.Namespace": None,
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_dtype,
    "numpy.ndarray": None,
    **{f"{np_core}.multiarray.scalar": _numpy_scalar for np_core in ("numpy.core", "numpy._core")},
    **{f"{np_core}.multiarray._reconstruct": _numpy_array for np_core in ("numpy.core", "numpy._core")},
    **{
        f"{module}.{name}": call
        for module in ("builtins", "__builtin__")
        for name, call in (
            ("set", _set(set)),
            ("frozenset", _set(frozenset)),
            ("bytes", _bytes),
            ("complex", _complex),
            ("list", None),
            ("dict", None),
            ("int", None),
            ("float", None),
        )
    },  # the last: factories of defaultdict
    **dict.fromkeys(_TENSOR_TYPES),
}
_GLOBALS: dict[str, Any] = {
    **{name: Global(name, call) for name, call in _CALLS.items()},
    **{
        f"torch.{name}Storage": Global(f"torch.{name}Storage", value=_Storage("", 0, np.dtype(dtype)))
        for name, dtype in _STORAGES.items()
    },
    **{
        f"torch.{module}UntypedStorage": Global("torch.UntypedStorage", value=_Storage("", 0, None))
        for module in ("", "storage.")
    },
    **{f"torch.{name}": np.dtype(dtype) for name, dtype in _DTYPES.items()},
}


def read_torch(path: Path, wrap: Callable[[Array], Any]) -> Any:
    """`load_torch`, with ``wrap`` making what stands for a tensor out of the NumPy view of its storage."""

    def refuse(why: str) -> NoReturn:
        raise CheckpointError(f"load_torch: {os.fspath(path)} {why}")

    with open_checkpoint("load_torch", path) as file:
        start = file.read(64)
        if start[:2] != b"PK":
            if start[:1] == b"\x80" and _LEGACY_MAGIC in start:
                refuse("is in PyTorch's format from before 1.6; load it in PyTorch and torch.save it again")
            if start[:1] == b"\x80":
                refuse("is a plain pickle, not a PyTorch zip checkpoint")
            if start[8:9] == b"{":
                refuse("looks like a safetensors file; cf.load reads those")
            refuse("is not a zip archive, so not a PyTorch checkpoint" if start else "is empty")
        size = file.seek(0, 2)
        try:
            with zipfile.ZipFile(file) as zf:
                archive = _Archive(zf, size, refuse)
                program = archive.read(archive.prefix + "data.pkl", _MAX_PICKLE).tobytes()
                return _TorchMachine(archive, wrap).run(program)
        except CheckpointError:
            raise
        except _DAMAGE as e:
            raise CheckpointError(f"load_torch: {os.fspath(path)} is truncated or damaged: {e}") from e


def load_torch(path: Path, device: Any = None) -> Any:
    """Loads a checkpoint written by ``torch.save`` (PyTorch 1.6 or newer) without torch; it cannot run code.

    Tensors and Parameters come back as Tensors with their dtype, shape and strides; those that shared a
    storage share memory (on the CPU).  OrderedDict and dict, list, tuple, set, str, bytes, numbers, None and
    NumPy arrays come back as they were; a defaultdict and an argparse.Namespace as a dict, torch.Size as a
    tuple, torch.dtype as a NumPy dtype, torch.device as a str, a NumPy scalar as a number.  requires_grad,
    hooks and attributes of tensors are left out.

    Args:
        path: a ``.pt`` or ``.pth`` file.
        device: where the Tensors go; by default the CPU, wherever they were saved from.

    Returns:
        the saved object.

    Raises:
        FileNotFoundError: no such file. CheckpointError: the file is damaged or hostile, of another format,
        or asks for something that is not on the
            allow-list, such as a class of yours, or a sparse or quantised tensor; the message names it.

    Example:
        >>> load_torch("nowhere.pt")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] load_torch: cannot open: No such file or directory: 'nowhere.pt'
    """
    return read_torch(path, lambda array: tensor_of(array, device))
