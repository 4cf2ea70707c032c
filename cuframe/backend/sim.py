"""Simulated GPUs: NumPy arrays that behave as CuPy's do, on which hand-written kernels run in the simulator.

Note [As strict as CuPy] A `SimArray` refuses what a CuPy array refuses: host arrays among the operands, operands on
two devices, silent conversion to the host; and a reduction gives a 0-d array, not a scalar.  So code that runs on
`sim` in tests has no such mistake left when it first meets a GPU.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cpu.scatter import add_at, sum_at
from .base import Backend, Device, register_backend

if TYPE_CHECKING:
    from ..cuda.launch import Loaded
    from ..cuda.sources import Source

__all__ = ["SimArray", "SimBackend", "set_sim_device_count", "sim_device_count"]

_MOST_DEVICES = 64
_count: int | None = None


class _Current(threading.local):
    index = 0


_current = _Current()


def sim_device_count() -> int:
    """How many simulated GPUs there are: `CUFRAME_SIM_DEVICES`, 1 by default, or what was set.

    Raises:
        ValueError: `CUFRAME_SIM_DEVICES` is no number from 1 to 64.

    >>> import cuframe as cf
    >>> cf.cuda.sim_device_count() >= 1
    True
    """
    global _count
    if _count is None:
        given = os.environ.get("CUFRAME_SIM_DEVICES", "1")
        if not given.isdigit() or not 1 <= int(given) <= _MOST_DEVICES:
            raise ValueError(f"CUFRAME_SIM_DEVICES must be a number from 1 to {_MOST_DEVICES}, got {given!r}")
        _count = int(given)
    return _count


def set_sim_device_count(count: int) -> None:
    """Set how many simulated GPUs there are, from 1 to 64.

    Args:
        count: how many.

    >>> import cuframe as cf
    >>> cf.cuda.set_sim_device_count(2)
    >>> cf.ones(2, device="sim:1").device
    device(type='sim', index=1)
    >>> cf.cuda.set_sim_device_count(1)
    """
    global _count
    if not isinstance(count, int) or not 1 <= count <= _MOST_DEVICES:
        raise ValueError(f"set_sim_device_count: count must be from 1 to {_MOST_DEVICES}, got {count!r}")
    _count = count


class SimArray(np.ndarray):
    """An array in the memory of a simulated GPU, which is the host's."""

    device_index: int

    def __array_finalize__(self, obj: Any) -> None:
        self.device_index = getattr(obj, "device_index", 0)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        operands = (inputs[0], *inputs[2:]) if method == "at" else inputs
        device = _one_device(ufunc.__name__, (*operands, *(out or ())))
        plain = [_plain(i) for i in inputs]
        if "where" in kwargs:
            kwargs["where"] = _plain(kwargs["where"])
        if out is not None:
            getattr(ufunc, method)(*plain, out=tuple(_plain(o) for o in out), **kwargs)
            return out[0] if len(out) == 1 else out
        return _wrap(getattr(ufunc, method)(*plain, **kwargs), device)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _call(func, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(found, np.ndarray):
            return found
        # a 0-d view of the same memory, as on a GPU
        return super().__getitem__((*index, ...) if isinstance(index, tuple) else (index, ...))

    def __setitem__(self, index: Any, value: Any) -> None:
        if type(value) is np.ndarray and value.ndim:
            raise TypeError("setitem: a host array cannot be written into a 'sim' array; move it there first")
        super().__setitem__(index, value)

    def nonzero(self) -> Any:
        return _wrap(self.view(np.ndarray).nonzero(), self.device_index)

    def argsort(self, *args: Any, **kwargs: Any) -> Any:
        return _wrap(self.view(np.ndarray).argsort(*args, **kwargs), self.device_index)

    def argmax(self, *args: Any, **kwargs: Any) -> Any:
        return _wrap(self.view(np.ndarray).argmax(*args, **kwargs), self.device_index)

    def argmin(self, *args: Any, **kwargs: Any) -> Any:
        return _wrap(self.view(np.ndarray).argmin(*args, **kwargs), self.device_index)

    def get(self) -> np.ndarray:
        """A copy in host memory."""
        return np.array(self.view(np.ndarray))

    def __reduce__(self) -> Any:
        raise TypeError("arrays of a 'sim' device cannot be pickled; move them to the CPU first")


def _plain(x: Any) -> Any:
    """`x` with every SimArray seen as an ordinary array."""
    if isinstance(x, SimArray):
        return x.view(np.ndarray)
    if isinstance(x, (tuple, list)):
        return type(x)(_plain(i) for i in x) if not hasattr(x, "_fields") else x
    return x


def _arrays(values: Any) -> Iterator[np.ndarray]:
    for v in values:
        if isinstance(v, np.ndarray):
            yield v
        elif isinstance(v, (tuple, list)):
            yield from _arrays(v)


def _one_device(name: str, values: Any) -> int:
    """The device of all SimArrays among `values`; where there are none, the current one."""
    device = None
    for v in _arrays(values):
        if isinstance(v, SimArray):
            if device is None:
                device = v.device_index
            elif device != v.device_index:
                raise ValueError(f"{name}: arrays on devices sim:{device} and sim:{v.device_index}")
        elif v.ndim:
            raise TypeError(f"{name}: a host array of shape {v.shape} among arrays of a 'sim' device")
    return _current.index if device is None else device


def _wrap(x: Any, device: int) -> Any:
    """Arrays and scalars of a result as arrays of `device`."""
    if isinstance(x, SimArray):
        return x
    if isinstance(x, np.ndarray):
        out = x.view(SimArray)
    elif isinstance(x, np.generic):
        out = np.asarray(x).view(SimArray)
    elif isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(_wrap(i, device) for i in x))
    elif isinstance(x, (tuple, list)):
        return type(x)(_wrap(i, device) for i in x)
    else:
        return x
    out.device_index = device
    return out


# these speak of arrays, not about what is in them
_HOST_RESULT = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.may_share_memory, np.shares_memory}


def _call(func: Callable, args: Any, kwargs: Any) -> Any:
    if kwargs.get("shape") == ():
        raise ValueError(f"{func.__name__}: CuPy takes shape=() for no shape given; use (1,) and reshape")
    device = _one_device(func.__name__, (*args, *kwargs.values()))
    out = kwargs.get("out")
    result = func(*_plain(args), **{k: _plain(v) for k, v in kwargs.items()})
    if out is not None:
        return out
    return result if func in _HOST_RESULT else _wrap(result, device)


class _SimModule(ModuleType):
    """NumPy's functions with results on a simulated GPU: what CuPy's module is to CuPy arrays."""

    ndarray = SimArray

    def __init__(self, module: ModuleType, name: str) -> None:
        super().__init__(name)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, ModuleType):
            value: Any = _SimModule(found, f"{self.__name__}.{name}")
        elif callable(found) and not isinstance(found, (type, np.ufunc)):
            def value(*args: Any, **kwargs: Any) -> Any:
                # creation from host data is allowed, as cupy.asarray is
                if name in ("array", "asarray", "ascontiguousarray"):
                    device = _one_device(name, [a for a in args if isinstance(a, SimArray)])
                    return _wrap(found(*_plain(args), **kwargs), device)
                return _call(found, args, kwargs)
            value.__name__ = name
        else:
            value = found
        setattr(self, name, value)
        return value


class _SimLauncher:
    """Runs kernels on SimArrays in the simulator."""

    look = attrgetter("dtype", "size", "flags.c_contiguous", "device_index")

    def __init__(self) -> None:
        self._programs: dict[Any, Any] = {}

    def device(self, array: SimArray) -> int:
        return array.device_index

    def address(self, array: SimArray) -> int:
        return array.__array_interface__["data"][0]

    def facts(self, device: int) -> tuple[str, int, int]:
        from ..cuda.sim import limits

        now = limits()
        return now.arch, now.multiprocessors, now.block_shared

    def stream(self, device: int) -> int:
        return 0

    def load(self, source: Source, expression: str, device: int, options: tuple[str, ...],
             siblings: Sequence[str]) -> Loaded:
        from ..cuda import sim

        # the compiler's start is dear: all instances of a file at once
        key = (source.path, source.key, options, tuple(siblings))
        if key not in self._programs:
            self._programs[key] = sim.load(source.path, siblings, source.folders, options)
        return self._programs[key].loaded(expression)


class SimBackend(Backend):
    """Simulated GPUs."""

    name = "sim"
    array_type = SimArray

    def __init__(self) -> None:
        from ..cuda.launch import register_launcher

        self.xp = _SimModule(np, "sim")
        register_launcher(SimArray, _SimLauncher())

    def _index(self, where: Device) -> int:
        index = where.index or 0
        if index >= sim_device_count():
            raise RuntimeError(f"device '{where}': there are {sim_device_count()} simulated GPU(s); "
                               "set CUFRAME_SIM_DEVICES, or call cf.cuda.set_sim_device_count")
        return index

    def device_of(self, array: Any) -> Device:
        return Device("sim", array.device_index)

    def devices(self) -> list[Device]:
        return [Device("sim", i) for i in range(sim_device_count())]

    def current(self) -> Device:
        return Device("sim", _current.index)

    def use(self, where: Device) -> None:
        _current.index = self._index(where)

    def follow(self, array: Any) -> None:
        _current.index = array.device_index

    @contextmanager
    def on(self, where: Device) -> Iterator[None]:
        before, _current.index = _current.index, self._index(where)
        try:
            yield
        finally:
            _current.index = before

    def from_host(self, array: np.ndarray, where: Device) -> Any:
        return _wrap(np.array(array), self._index(where))

    def empty(self, shape: tuple, dtype: np.dtype, where: Device) -> Any:
        return _wrap(np.empty(shape, dtype), self._index(where))

    def to_host(self, array: Any) -> np.ndarray:
        return array.get()

    def copy_to(self, array: Any, where: Device) -> Any:
        index = self._index(where)
        return array if array.device_index == index else _wrap(np.array(array.view(np.ndarray)), index)

    def asarray(self, value: Any, like: Any) -> Any:
        return value if isinstance(value, SimArray) else _wrap(np.asarray(value), like.device_index)

    def kernel(self, name: str) -> Any:
        from ..gpu import family

        return family(name)

    def matmul(self, a: Any, b: Any) -> Any:
        """As cuBLAS does it: 16-bit operands accumulate in float32 and are rounded once."""
        if a.dtype.itemsize == 2:
            return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
        return np.matmul(a, b)

    def special(self) -> Any:
        import scipy.special

        return _SimModule(scipy.special, "sim.special")

    def add_at(self, target: Any, index: Any, values: Any) -> None:
        _one_device("add_at", (target, values))
        if self.kernel("embedding").takes(values) and values.dtype == target.dtype:
            target += self.sum_at(target.shape, index, values)
        else:
            add_at(_plain(target), _plain(index), _plain(values))

    def sum_at(self, shape: tuple, index: Any, values: Any) -> Any:
        kernel = self.kernel("embedding")
        if kernel.takes(values):
            return kernel.sum_at(shape, index, values)
        return _wrap(sum_at(shape, _plain(index), _plain(values)), values.device_index)

    def check_index(self, name: str, argument: str, index: Any, size: int) -> None:
        """Nothing, as on a GPU: kernels check their indices where it matters."""


register_backend("sim", SimBackend)
