"""Streams, events and memory of GPUs, with PyTorch's names, over CuPy's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = [
    "Event", "Stream", "current_device", "current_stream", "device", "empty_cache", "get_device_name",
    "get_device_properties", "max_memory_allocated", "mem_get_info", "memory_allocated", "memory_reserved",
    "memory_stats", "reset_peak_memory_stats", "set_device", "stream", "synchronize",
]  # fmt: skip


def _cupy() -> Any:
    """CuPy, or the error that says why there is no GPU."""
    from ..backend import backend_for

    return backend_for("cuda").xp


def _index(where: Any) -> int:
    from ..backend import Device

    cupy = _cupy()
    if where is None:
        return cupy.cuda.runtime.getDevice()
    index = where if isinstance(where, int) else Device(where).index
    count = cupy.cuda.runtime.getDeviceCount()
    if index is None or not 0 <= index < count:
        raise RuntimeError(f"cuda: no device {where!r}; this machine has {count} GPU(s)")
    return index


class Stream:
    """A queue of work on a GPU; work on different streams may overlap.

    Kernels, CuPy's functions and library calls go to the stream that is current in their thread: see `stream`.

    Args:
        device: index or device; by default the current one.
        priority: lower runs first.

    Note:
        Memory that one stream's work reads must not be freed while it waits: keep the tensors until `synchronize`, or
        until the stream that goes on using the memory has `wait_stream`ed.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     side = cf.cuda.Stream()
    ...     with cf.cuda.stream(side):
    ...         y = cf.ones(2, device="cuda") * 2
    ...     cf.cuda.current_stream().wait_stream(side)
    ...     assert y.tolist() == [2.0, 2.0]
    """

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        cupy = _cupy()
        self.device_index = _index(device)
        with cupy.cuda.Device(self.device_index):
            self._stream = cupy.cuda.Stream(non_blocking=True, priority=priority)

    @property
    def cuda_stream(self) -> int:
        """The `cudaStream_t` as a number."""
        return self._stream.ptr

    def synchronize(self) -> None:
        """Wait on the host until all work given so far is done."""
        self._stream.synchronize()

    def query(self) -> bool:
        """Whether all work given so far is done."""
        return bool(self._stream.done)

    def record_event(self, event: Event | None = None) -> Event:
        """Mark this place in the stream."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let later work wait for `event`; the host goes on."""
        self._stream.wait_event(event._event)

    def wait_stream(self, stream: Stream) -> None:
        """Let later work wait for what `stream` has been given so far."""
        self.wait_event(stream.record_event())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.cuda_stream == other.cuda_stream

    def __hash__(self) -> int:
        return hash((self.device_index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<cuframe.cuda.Stream device=cuda:{self.device_index} cuda_stream={self.cuda_stream:#x}>"


class Event:
    """A place in a stream, to wait for or to take the time at.

    Args:
        enable_timing: `elapsed_time` will be asked.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     start, end = cf.cuda.Event(enable_timing=True), cf.cuda.Event(enable_timing=True)
    ...     start.record()
    ...     x = cf.randn(1000, 1000, device="cuda")
    ...     end.record()
    ...     end.synchronize()
    ...     assert start.elapsed_time(end) > 0
    """

    def __init__(self, enable_timing: bool = False) -> None:
        self._event = _cupy().cuda.Event(block=False, disable_timing=not enable_timing)

    def record(self, stream: Stream | None = None) -> None:
        """Stand behind the work given to `stream` (by default the current one) so far."""
        self._event.record(None if stream is None else stream._stream)

    def synchronize(self) -> None:
        """Wait on the host until the work before it is done."""
        self._event.synchronize()

    def query(self) -> bool:
        """Whether the work before it is done."""
        return bool(self._event.done)

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event to `end`; both must have happened."""
        return float(_cupy().cuda.get_elapsed_time(self._event, end._event))


def current_stream() -> Stream:
    """The stream that work of this thread goes to.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     cf.cuda.current_stream().synchronize()
    """
    made = Stream.__new__(Stream)
    cupy = _cupy()
    made.device_index, made._stream = _index(None), cupy.cuda.get_current_stream()
    return made


@contextlib.contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Give the work inside the context to `stream`; None changes nothing.

    Args:
        stream: a `Stream`, or None.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     side = cf.cuda.Stream()
    ...     with cf.cuda.stream(side):
    ...         assert cf.cuda.current_stream() == side
    """
    if stream is None:
        yield
        return
    with _cupy().cuda.Device(stream.device_index), stream._stream:
        yield


def synchronize(device: Any = None) -> None:
    """Wait on the host until all work of a GPU is done.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     x = cf.ones(2, device="cuda") * 2
    ...     cf.cuda.synchronize()
    """
    cupy = _cupy()
    with cupy.cuda.Device(_index(device)):
        cupy.cuda.runtime.deviceSynchronize()


@contextlib.contextmanager
def device(device: Any) -> Iterator[None]:
    """Make a GPU the current one inside the context.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     with cf.cuda.device(0):
    ...         assert cf.cuda.current_device() == 0
    """
    with _cupy().cuda.Device(_index(device)):
        yield


def set_device(device: Any) -> None:
    """Make a GPU the current one of this thread.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     cf.cuda.set_device(0)
    """
    _cupy().cuda.Device(_index(device)).use()


def current_device() -> int:
    """The index of the current GPU.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     assert 0 <= cf.cuda.current_device() < cf.cuda.device_count()
    """
    return _index(None)


def get_device_properties(device: Any = None) -> dict[str, Any]:
    """What the runtime tells of a GPU: name, totalGlobalMem, multiProcessorCount, major, minor and more.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     assert cf.cuda.get_device_properties(0)["totalGlobalMem"] > 0
    """
    return dict(_cupy().cuda.runtime.getDeviceProperties(_index(device)))


def get_device_name(device: Any = None) -> str:
    """The name of a GPU.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     assert isinstance(cf.cuda.get_device_name(0), str)
    """
    name = get_device_properties(device)["name"]
    return name.decode() if isinstance(name, bytes) else name


# -- memory -------------------------------------------------------------------------------------------------------
_peaks: dict[int, int] = {}


def _pool(device: Any) -> tuple[Any, int]:
    cupy = _cupy()
    index = _index(device)
    with cupy.cuda.Device(index):
        return cupy.get_default_memory_pool(), index


def memory_allocated(device: Any = None) -> int:
    """Bytes that arrays of a GPU hold now.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     x = cf.ones(1000, device="cuda")
    ...     assert cf.cuda.memory_allocated() >= 4000
    """
    return memory_stats(device)["allocated"]


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that `memory_stats`, and what calls it, has seen held since `reset_peak_memory_stats`.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     x = cf.ones(1000, device="cuda")
    ...     assert cf.cuda.max_memory_allocated() >= cf.cuda.memory_allocated()
    """
    return memory_stats(device)["peak"]


def reset_peak_memory_stats(device: Any = None) -> None:
    """Begin `max_memory_allocated` anew.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     cf.cuda.reset_peak_memory_stats()
    ...     assert cf.cuda.max_memory_allocated() == cf.cuda.memory_allocated()
    """
    _peaks.pop(_index(device), None)


def memory_reserved(device: Any = None) -> int:
    """Bytes that the pool has taken from a GPU, in use or free.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     assert cf.cuda.memory_reserved() >= cf.cuda.memory_allocated()
    """
    return memory_stats(device)["reserved"]


def memory_stats(device: Any = None) -> dict[str, int]:
    """Bytes: "allocated" to arrays, "reserved" by the pool, "free" in the pool, "peak" seen allocated.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     stats = cf.cuda.memory_stats()
    ...     assert stats["allocated"] + stats["free"] == stats["reserved"]
    """
    cupy = _cupy()
    pool, index = _pool(device)
    with cupy.cuda.Device(index):
        allocated, reserved = pool.used_bytes(), pool.total_bytes()
    _peaks[index] = max(allocated, _peaks.get(index, 0))
    return {"allocated": allocated, "reserved": reserved, "free": reserved - allocated, "peak": _peaks[index]}


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of a GPU, by the driver.

    Args:
        device: an index, a `Device` or a name such as `"cuda:1"`; by default the current one.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     free, total = cf.cuda.mem_get_info()
    ...     assert 0 <= free <= total
    """
    cupy = _cupy()
    with cupy.cuda.Device(_index(device)):
        free, total = cupy.cuda.runtime.memGetInfo()
    return free, total


def empty_cache() -> None:
    """Give the pool's free memory back to the driver.

    Raises:
        RuntimeError: there is no GPU, or no CuPy; the message says what to install.

    >>> import cuframe as cf
    >>> if cf.cuda.is_available():
    ...     cf.cuda.empty_cache()
    """
    _cupy().get_default_memory_pool().free_all_blocks()
