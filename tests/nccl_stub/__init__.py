"""NCCL without GPUs: a library of our own in C, built once, and a device whose memory is the host's.

`library()` is its path. `HostDevice` has the interface of `cuframe.distributed.nccl_device.CudaDevice`, with NumPy
arrays; its streams are the stub's, but the one that is current is the host itself: what NumPy computes is done when it
returns, so waiting for an event is waiting.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cuframe._paths import cache_dir
from cuframe.backend import Device

SOURCE = Path(__file__).with_name("nccl.c")
COMMAND = ("gcc", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread")


@cache
def library() -> str:
    """The path of the stub's libnccl.so.2."""
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(COMMAND).encode()).hexdigest()[:16]
    folder = cache_dir() / "tests" / f"nccl-stub-{key}"
    made = folder / "libnccl.so.2"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"building-{os.getpid()}.so"
        subprocess.run([*COMMAND, "-o", temporary, SOURCE], check=True)
        os.replace(temporary, made)
    return str(made)


@cache
def stub() -> Any:
    """The stub's own functions."""
    made = ctypes.CDLL(library())
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name in ("stub_stream_create", "stub_event_create"):
        getattr(made, name).restype = pointer
    for name in ("stub_event_record", "stub_stream_wait"):
        getattr(made, name).argtypes = (pointer, pointer)
    made.stub_event_done.argtypes = (pointer,)
    made.stub_kernel.argtypes = (pointer, pointer, pointer, size, ctypes.c_float, ctypes.c_long)
    made.stub_log.restype = ctypes.c_char_p
    return made


def log() -> list[str]:
    """What was called so far, a line each."""
    return stub().stub_log().decode().splitlines()


class Event:
    def __init__(self) -> None:
        self.ptr = stub().stub_event_create()

    @property
    def done(self) -> bool:
        return bool(stub().stub_event_done(self.ptr))

    def record(self, stream: Any) -> None:
        stub().stub_event_record(self.ptr, stream.ptr)


class Stream:
    def __init__(self) -> None:
        self.ptr = stub().stub_stream_create()

    def wait_event(self, event: Event) -> None:
        stub().stub_stream_wait(self.ptr, event.ptr)

    def kernel(self, to: np.ndarray, add: float, source: np.ndarray | None = None, seconds: float = 0.0) -> None:
        """`to = source + add`, or `add`, once `seconds` have passed."""
        address = None if source is None else source.ctypes.data
        stub().stub_kernel(self.ptr, to.ctypes.data, address, to.size, add, int(1e6 * seconds))

    def synchronize(self) -> None:
        event = Event()
        event.record(self)
        while not event.done:
            time.sleep(0.001)


class HostStream:
    ptr = None

    def wait_event(self, event: Event) -> None:
        while not event.done:
            time.sleep(0.0005)


class HostDevice:
    """A GPU whose arrays are NumPy's. `now` is the stream that is current."""

    xp = np

    def __init__(self, index: int = 0) -> None:
        self.index, self.where, self.now = index, Device("cpu"), HostStream()

    @classmethod
    def of_rank(cls, local_rank: int) -> HostDevice:
        return cls(local_rank)

    def identity(self) -> str:
        return f"host {self.index}"

    def active(self) -> Any:
        return contextlib.nullcontext()

    def stream(self) -> Stream:
        return Stream()

    def event(self) -> Event:
        return Event()

    def current(self) -> Any:
        return self.now

    def complaint(self, array: Any) -> str | None:
        return None if isinstance(array, np.ndarray) else "lives elsewhere"

    def pointer(self, array: np.ndarray) -> int:
        return array.ctypes.data

    def from_host(self, array: np.ndarray) -> np.ndarray:
        return array
