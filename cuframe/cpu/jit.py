"""Machine code for kernels that NumPy cannot express: LLVM IR compiled for the host through llvmlite, if installed."""
from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["Kernel", "address", "available", "compiled", "cpus", "lanes", "load", "yield_address"]


_first = ctypes.c_char.from_buffer


@lru_cache(1)
def available() -> bool:
    """Whether kernels are to be compiled: on POSIX, with llvmlite, unless `CUFRAME_CPU_JIT` is 0.

    On x86 only with FMA: without, the C library would have to multiply and add, a number at a time.
    """
    if os.name != "posix" or os.environ.get("CUFRAME_CPU_JIT", "1") == "0" or find_spec("llvmlite") is None:
        return False
    from llvmlite import binding

    x86 = "86" in binding.get_default_triple().split("-")[0]
    return not x86 or bool(binding.get_host_cpu_features().get("fma"))


def address(a: Any) -> int:
    """Of an array's first element; 0 for None."""
    if a is None:
        return 0
    try:
        return ctypes.addressof(_first(a))
    except (TypeError, ValueError):  # not contiguous, not to be written to, or empty: five times as slow
        return a.__array_interface__["data"][0]


_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in a period, and the period


def _quota() -> int | None:
    """Whole cores' worth of time that a container may use, as by `docker run --cpus`."""
    try:
        most, period = _QUOTA.read_text().split()
        return None if most == "max" else max(1, int(most) // int(period))
    except (OSError, ValueError):
        return None


@lru_cache(1)
def cpus() -> int:
    """Threads a kernel may use: a core each of those that the process may run on, and no more than OMP_NUM_THREADS, or
    than a container's processor time is enough for: threads that wait for each other must run at the same time."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(8, count, _quota() or count, int(wanted) if wanted.isdecimal() and int(wanted) else count)


@lru_cache(1)
def lanes() -> int:
    """Float32 lanes of a vector register, at least 8."""
    from llvmlite import binding

    return 16 if binding.get_host_cpu_features().get("avx512f") else 8


def _machine() -> Any:
    """A description of the host; an engine owns the one it is made with."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3, jit=True)


def compiled(module: Any) -> Any:
    """The engine that holds the machine code of an `llvmlite.ir` module."""
    from llvmlite import binding

    machine = _machine()
    module.triple = machine.triple
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


class Kernel:
    """A compiled function `(arguments, call, room)`: the addresses of its int64 words and of scratch memory, and a
    number. Calls release the GIL."""

    __slots__ = ("_engine", "_function", "address")

    def __init__(self, engine: Any, name: str) -> None:
        self._engine = engine  # the code lives as long
        self.address: int = engine.get_function_address(name)
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(self.address)

    def __call__(self, words: int, call: int, room: int = 0) -> None:
        self._function(words, call, room)


def load(module: Any, name: str) -> Kernel:
    """Compile an `llvmlite.ir` module and return its function of that name."""
    return Kernel(compiled(module), name)


@lru_cache(1)
def yield_address() -> int:
    """Address of `sched_yield`, for a thread that has waited long."""
    return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
