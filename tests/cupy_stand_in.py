"""A stand-in for the small part of CuPy that `cuframe.cuda` calls: it writes down each call, and needs no GPU.

`SURFACE` names that part, with the parameters each call is given; `tests/test_cupy_surface.py` holds it against the
CuPy that is installed, so that the stand-in cannot promise what CuPy does not have.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

# name -> the positional parameters it is called with
SURFACE = {
    "cupy_backends.cuda.api.driver.launchKernel": 11,
    "cupy_backends.cuda.api.driver.launchCooperativeKernel": 10,
    "cupy_backends.cuda.api.driver.moduleLoadData": 1,
    "cupy_backends.cuda.api.driver.moduleGetFunction": 2,
    "cupy_backends.cuda.api.driver.funcSetAttribute": 3,
    "cupy_backends.cuda.api.driver.occupancyMaxActiveBlocksPerMultiprocessor": 3,
    "cupy_backends.cuda.api.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": None,
    "cupy_backends.cuda.api.runtime.deviceGetAttribute": 2,
    "cupy_backends.cuda.api.runtime.getDevice": 0,
    "cupy_backends.cuda.api.runtime.getDeviceCount": 0,
    "cupy_backends.cuda.api.runtime.getDeviceProperties": 1,
    "cupy_backends.cuda.api.runtime.deviceSynchronize": 0,
    "cupy_backends.cuda.api.runtime.memGetInfo": 0,
    "cupy.cuda.runtime.getDevice": 0,
    "cupy.cuda.runtime.getDeviceCount": 0,
    "cupy.cuda.runtime.getDeviceProperties": 1,
    "cupy.cuda.runtime.deviceSynchronize": 0,
    "cupy.cuda.runtime.memGetInfo": 0,
    "cupy.cuda.Device": 1,
    "cupy.cuda.Device.use": 1,
    "cupy.cuda.Stream": None,
    "cupy.cuda.Stream.synchronize": 1,
    "cupy.cuda.Stream.wait_event": 2,
    "cupy.cuda.Stream.done": None,
    "cupy.cuda.Stream.null.ptr": None,
    "cupy.cuda.Event": None,
    "cupy.cuda.Event.record": 2,
    "cupy.cuda.Event.synchronize": 1,
    "cupy.cuda.Event.done": None,
    "cupy.cuda.get_current_stream": 1,
    "cupy.array": 1,
    "cupy.cuda.get_elapsed_time": 2,
    "cupy.ndarray._c_contiguous": None,
    "cupy.cuda.MemoryPointer.ptr": None,
    "cupy.cuda.MemoryPointer.device_id": None,
    "cupy.where": 3,
    "cupy.clip": 4,
    "cupy.get_default_memory_pool": 0,
    "cupy.cuda.MemoryPool.used_bytes": 1,
    "cupy.cuda.MemoryPool.total_bytes": 1,
    "cupy.cuda.MemoryPool.free_all_blocks": None,
}

ATTRIBUTES = {16: 132, 97: 227 * 1024, 75: 9, 76: 0}  # an H100's


class Array(np.ndarray):
    """Host memory that calls itself a GPU's."""

    device_index = 0

    @property
    def _c_contiguous(self) -> bool:
        return self.flags.c_contiguous

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.__array_interface__["data"][0], device_id=self.device_index)

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=self.device_index)


class Streamed:
    """A stream that is current somewhere."""

    done = True

    def __init__(self, outer: StandIn, ptr: int) -> None:
        self.outer, self.ptr = outer, ptr

    def __enter__(self) -> Streamed:
        self.outer.stream_stack.append(self.ptr)
        return self

    def __exit__(self, *_: Any) -> None:
        self.outer.stream_stack.pop()

    def synchronize(self) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        self.outer.calls.append(("stream.wait_event", (self.ptr, event)))


class StandIn:
    """The fake modules, and what was called: (name, arguments)."""

    def __init__(self, devices: int = 2) -> None:
        self.calls: list[tuple[str, tuple]] = []
        self.current = 0
        self.stack: list[int] = []
        self.resident = 2
        self.stream_stack: list[int] = [0]
        self.devices = devices
        self.cupy = self._cupy()

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _call(self, name: str, result: Any = None) -> Any:
        wanted = SURFACE.get(name)

        def function(*args: Any) -> Any:
            assert wanted is None or len(args) == wanted, f"{name} takes {wanted} arguments, got {len(args)}"
            self.calls.append((name.rpartition(".")[2], args))
            return result(*args) if callable(result) else result

        return function

    def _api(self, module: str, **results: Any) -> ModuleType:
        made = ModuleType(module)
        for name, result in results.items():
            setattr(made, name, self._call(f"{module}.{name}", result))
        return made

    def _cupy(self) -> ModuleType:
        outer = self
        cupy = ModuleType("cupy")
        driver = self._api(
            "cupy_backends.cuda.api.driver", launchKernel=None, launchCooperativeKernel=None,
            moduleLoadData=lambda image: 77, moduleGetFunction=lambda module, name: 78, funcSetAttribute=None,
            occupancyMaxActiveBlocksPerMultiprocessor=lambda *_: outer.resident)
        driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # type: ignore[attr-defined]
        runtime = self._api(
            "cupy_backends.cuda.api.runtime", deviceGetAttribute=lambda attribute, device: ATTRIBUTES[attribute],
            getDevice=lambda: outer.current, getDeviceCount=lambda: outer.devices, deviceSynchronize=None,
            getDeviceProperties=lambda i: {"name": b"Stand-in", "totalGlobalMem": 80 << 30},
            memGetInfo=lambda: (60 << 30, 80 << 30))
        runtime.CUDARuntimeError = RuntimeError  # type: ignore[attr-defined]

        class Device:
            def __init__(self, index: int) -> None:
                self.id = index

            def __enter__(self) -> Device:
                outer.stack.append(outer.current)
                outer.current = self.id
                return self

            def __exit__(self, *_: Any) -> None:
                outer.current = outer.stack.pop()

            def use(self) -> None:
                outer.current = self.id

        class Stream:
            made = 0

            def __init__(self, null: bool = False, non_blocking: bool = False, priority: int = 0) -> None:
                Stream.made += 1
                self.ptr, self.done = 1000 + Stream.made, True

            def __enter__(self) -> Stream:
                outer.stream_stack.append(self.ptr)
                return self

            def __exit__(self, *_: Any) -> None:
                outer.stream_stack.pop()

            def synchronize(self) -> None:
                outer.calls.append(("stream.synchronize", (self.ptr,)))

            def wait_event(self, event: Any) -> None:
                outer.calls.append(("stream.wait_event", (self.ptr, event)))

        class Event:
            done = True

            def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
                self.timed = not disable_timing

            def record(self, stream: Any = None) -> None:
                outer.calls.append(("event.record", (None if stream is None else stream.ptr,)))

            def synchronize(self) -> None:
                outer.calls.append(("event.synchronize", ()))

        pool = SimpleNamespace(
            used_bytes=lambda: 300, total_bytes=lambda: 512, free_all_blocks=self._call("free_all_blocks"))
        cupy.ndarray = Array  # type: ignore[attr-defined]
        cupy.where, cupy.clip = np.where, np.clip  # type: ignore[attr-defined]
        cupy.array = self._array  # type: ignore[attr-defined]
        cupy.get_default_memory_pool = lambda: pool  # type: ignore[attr-defined]
        cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
            Device=Device, Stream=Stream, Event=Event, runtime=runtime, driver=driver,
            get_current_stream=self._current_stream,
            get_elapsed_time=lambda a, b: 1.5)
        self.driver, self.runtime = driver, runtime
        return cupy

    def _current_stream(self, device: int | None = None) -> Any:
        """The stream that the test has entered; else the default one of a device, with the number 100 * index."""
        ptr = self.stream_stack[-1] or 100 * (self.current if device is None else device)
        return Streamed(self, ptr)

    def _array(self, given: Array) -> Array:
        self.calls.append(("array", (given.device_index, self.current)))
        made = np.array(given).view(Array)
        made.device_index = self.current
        return made

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the fake modules where `import` finds them."""
        api = ModuleType("cupy_backends.cuda.api")
        api.driver, api.runtime = self.driver, self.runtime  # type: ignore[attr-defined]
        for name, module in {"cupy": self.cupy, "cupy_backends": ModuleType("cupy_backends"),
                             "cupy_backends.cuda": ModuleType("cupy_backends.cuda"), "cupy_backends.cuda.api": api,
                             "cupy_backends.cuda.api.driver": self.driver,
                             "cupy_backends.cuda.api.runtime": self.runtime}.items():
            monkeypatch.setitem(sys.modules, name, module)


def array(*shape: int, dtype: str = "float32", device: int = 0) -> Array:
    made = np.zeros(shape, dtype).view(Array)
    made.device_index = device
    return made
