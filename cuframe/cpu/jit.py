"""Machine code for kernels that NumPy cannot express: LLVM IR compiled for the host through llvmlite, if installed."""
from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import count
from queue import SimpleQueue
from typing import Any

import numpy as np

__all__ = [
    "address", "available", "cpus", "lanes", "load", "parallel", "scratch", "spread",
    "yield_address",
]  # fmt: skip


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
    return 0 if a is None else a.__array_interface__["data"][0]


@lru_cache(1)
def cpus() -> int:
    """Threads a kernel may use: a core each of those that the process may run on, and no more than OMP_NUM_THREADS."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(8, count, int(wanted) if wanted.isdecimal() and int(wanted) else count)


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


def load(module: Any, name: str) -> Callable[[int, int], None]:
    """Compile an `llvmlite.ir` module and return its function `name(arguments, thread)`; calls release the GIL."""
    from llvmlite import binding

    machine = _machine()
    module.triple = machine.triple
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address(name))
    function.engine = engine  # type: ignore[attr-defined]  # the code lives as long as the engine
    return function


_THREAD = 1 << 16  # elements that keep a thread busy for long enough
_CHUNK = 1 << 14  # elements between two times that a thread asks for more


def spread(kernel: Callable[[int, int], None], arrays: Sequence[Any], words: Sequence[int], things: int,
           width: int) -> None:  # fmt: skip
    """A kernel over `things` of `width` elements each, of which call i sees to those from i * chunk on.

    Its arguments are the addresses of `arrays`, `words`, the number of things and the chunk. Threads take the next
    call when they are through with one.
    """
    threads = max(1, min(cpus(), things * width // _THREAD))
    chunk = max(1, things if threads == 1 else -(-_CHUNK // width))
    table = np.array([*map(address, arrays), *words, things, chunk], np.int64)
    calls, numbers = -(-things // chunk), count()

    def run(_: int, __: int, held: Any = arrays) -> None:  # a thread may go on after Ctrl-C has ended the call
        while (i := next(numbers)) < calls:
            kernel(address(table), i)

    parallel(run, threads)


@lru_cache(1)
def yield_address() -> int:
    """Address of `sched_yield`, for a thread that has waited long."""
    return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0


_KEEP = 1 << 21  # numbers that a thread keeps for its next call


class _Own(threading.local):
    """Memory that a thread keeps for its next kernel."""

    room: Any = np.empty(0, np.float32)


_own = _Own()


def scratch(count: int) -> Any:
    """At least `count` float32 numbers of this thread's own, as some kernel left them; fresh memory costs page faults.

    They begin a cache line: a vector that crosses two takes twice as long.
    """
    room = _own.room
    if room.size < count:
        room = np.zeros(count + 16, np.float32)
        room = room[-room.ctypes.data // 4 % 16 :]
        if room.size <= _KEEP:
            _own.room = room
    return room


class _Call:
    """One use of the threads; it holds what `run` refers to until the last of them is through."""

    def __init__(self, run: Callable[[int, int], None], threads: int) -> None:
        self.run, self.threads = run, threads
        self.open = list(range(1, threads))     # parts that no thread has begun
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()

    def serve(self) -> None:
        """Run a part, unless they have been withdrawn."""
        try:
            part = self.open.pop()
        except IndexError:
            return
        failure = None
        try:
            self.run(part, self.threads)
        except BaseException as error:  # handed to the caller; the thread goes on serving
            failure = error
        self.done.put(failure)


class _Worker:
    """A thread that serves one call at a time."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        threading.Thread(target=self._serve, name="cuframe-kernel", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self.calls.get().serve()


_workers: list[_Worker] = []
_busy = threading.Lock()


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _busy
    _workers.clear()
    _busy = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def parallel(run: Callable[[int, int], None], threads: int, release: Callable[[], None] | None = None) -> None:
    """`run(i, n)` for i < n at the same time; n is `threads`, or 1 while another caller has the threads.

    The runs may wait for each other: each has a thread of its own.  Should the caller's own run end by an exception,
    such as Ctrl-C before it has begun, `release` is called, after which the others must not wait any more.
    """
    if threads == 1 or not _busy.acquire(blocking=False):
        run(0, 1)
        return
    try:
        while len(_workers) < threads - 1:
            _workers.append(_Worker())
        call = _Call(run, threads)
        try:
            for worker in _workers[:threads - 1]:
                worker.calls.put(call)
            run(0, threads)
        except BaseException:
            call.open.clear()
            if release is not None:
                release()
            raise
        failures = [call.done.get() for _ in range(threads - 1)]
        for failure in failures:
            if failure is not None:
                raise failure
    finally:
        _busy.release()
