"""Devices, and the registry that finds the backend of an array by its type."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

__all__ = [
    "Backend", "Device", "backend_for", "backend_of", "backends_in_use", "device", "device_types", "is_array",
    "register_backend",
]  # fmt: skip


class Device:
    """Where arrays live: a type (`cpu`, `cuda`) and an index.

    >>> from cuframe.backend import Device
    >>> Device("cpu")
    device(type='cpu')
    >>> Device("cuda:1").index
    1
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __init__(self, type: str | Device, index: int | None = None) -> None:
        if isinstance(type, Device):
            index = type.index if index is None else index
            type = type.type
        if not isinstance(type, str):
            raise TypeError(f"device: expected a string such as 'cpu' or 'cuda:0', got {type!r}")
        kind, colon, number = type.partition(":")
        if colon:
            if index is not None:
                raise ValueError(f"device: the index is given twice, in {type!r} and as {index}")
            if not number.isdigit():
                raise ValueError(f"device: expected a form such as 'cuda:0', got {type!r}")
            index = int(number)
        if kind not in _factories:
            known = ", ".join(sorted(_factories))
            raise ValueError(f"device: unknown type {kind!r} in {type!r}; known: {known}")
        if index is None and kind != "cpu":
            index = 0
        if kind == "cpu":
            if index not in (None, 0):
                raise ValueError(f"device: there is one CPU device, got index {index}")
            index = None
        self.type = kind
        self.index = index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Device(other)
        return isinstance(other, Device) and self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"


device = Device


class Backend:
    """The operations on arrays that differ with the place they live in.

    Attributes:
        name: the device type.
        xp: the array module (NumPy or CuPy).
        array_type: the type of its arrays.
        host: values can be looked at without waiting for a device.
    """

    name: str
    xp: Any
    array_type: type
    host = False

    def device_of(self, array: Any) -> Device:
        """The device that holds `array`."""
        raise NotImplementedError

    def devices(self) -> list[Device]:
        """All devices of this kind."""
        return [Device(self.name)]

    def current(self) -> Device:
        """The device on which this thread's new arrays are made."""
        return Device(self.name)

    def use(self, where: Device) -> None:
        """Make `where` the current device of this thread."""

    def follow(self, array: Any) -> None:
        """Make the device of `array` the current one of this thread."""

    def on(self, where: Device) -> AbstractContextManager:
        """A context in which `where` is current, with the stream that is current there for the caller.

        Another thread than the caller may enter it.
        """
        return nullcontext()

    def from_host(self, array: np.ndarray, where: Device) -> Any:
        """A copy of a NumPy array on device `where` (the array itself where that is host memory)."""
        raise NotImplementedError

    def empty(self, shape: tuple, dtype: np.dtype, where: Device) -> Any:
        """An array on device `where` with whatever its memory held."""
        raise NotImplementedError

    def to_host(self, array: Any) -> np.ndarray:
        """The values as a NumPy array, on the same memory where that is possible."""
        raise NotImplementedError

    def copy_to(self, array: Any, where: Device) -> Any:
        """`array` on another device of this backend."""
        raise NotImplementedError

    def asarray(self, value: Any, like: Any) -> Any:
        """A number, sequence or host array as an array beside `like`."""
        raise NotImplementedError

    def kernel(self, name: str) -> Any:
        """The device's own implementation of a fused operation; None where the composite is to be used."""
        return None

    def matmul(self, a: Any, b: Any) -> Any:
        """The product of large matrices; 16-bit floats are multiplied and summed in float32, and rounded once."""
        return self.xp.matmul(a, b)

    def matmul_add(self, a: Any, b: Any, row: Any) -> Any:
        """`a @ b + row`; rounded once where the device has a product that does so."""
        r = self.matmul(a, b)
        r += row
        return r

    def special(self) -> Any:
        """The module of special functions: `scipy.special`, or its counterpart for the backend's arrays."""
        raise NotImplementedError

    def add_at(self, target: Any, index: Any, values: Any) -> None:
        """`target[index] += values` where an index may occur several times; the order of additions is fixed."""
        raise NotImplementedError

    def combine_at(self, ufunc: str, target: Any, index: Any, values: Any) -> None:
        """`target[index] = ufunc(target[index], values)` where an index may occur several times."""
        getattr(self.xp, ufunc).at(target, index, values)

    def sum_at(self, shape: tuple, index: Any, values: Any) -> Any:
        """Zeros of `shape` with `values` added at `index`, as `add_at` does."""
        target = self.xp.zeros(shape, values.dtype)
        self.add_at(target, index, values)
        return target

    def check_index(self, name: str, argument: str, index: Any, size: int) -> None:
        """Raise IndexError unless 0 <= index < size; where looking would stall a device, it is left out."""
        raise NotImplementedError


_factories: dict[str, Callable[[], Backend]] = {}
_by_name: dict[str, Backend] = {}
_by_type: dict[type, Backend] = {}


def register_backend(name: str, factory: Callable[[], Backend]) -> None:
    """Make device type `name` known; `factory` runs at its first use."""
    _factories[name] = factory


def device_types() -> tuple[str, ...]:
    """The device types that are known, usable here or not."""
    return tuple(_factories)


def backends_in_use() -> list[Backend]:
    """The backends that something has asked for."""
    return list(_by_name.values())


def backend_for(where: Device | str) -> Backend:
    """The backend of a device, loaded if need be.

    Raises:
        RuntimeError: the device cannot be used here; the message says what to install.
    """
    kind = where.type if isinstance(where, Device) else Device(where).type
    backend = _by_name.get(kind)
    if backend is None:
        backend = _by_name[kind] = _factories[kind]()
        _by_type[backend.array_type] = backend
    return backend


def is_array(value: Any) -> bool:
    """Whether it is an array of a backend in use."""
    return value.__class__ in _by_type or isinstance(value, np.ndarray)


def backend_of(array: Any) -> Backend:
    """The backend that `array` belongs to, by its type.

    Raises:
        TypeError: it is not an array of any backend in use.
    """
    backend = _by_type.get(array.__class__)
    if backend is not None:
        return backend
    if isinstance(array, (np.ndarray, np.generic)):
        return backend_for("cpu")
    if type(array).__module__.partition(".")[0] == "cupy":
        return backend_for("cuda")
    raise TypeError(f"expected an array, got {type(array).__name__}")
