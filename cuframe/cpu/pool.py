"""Calls of compiled kernels in several threads.

Note [Native threads]
    A thread of Python's that has waited must be woken and then get the interpreter's lock, which takes some 20 us at
    best; small kernels take no longer. So the workers never leave compiled code: they look for a job for a millisecond
    or two before they sleep, and take it within a microsecond while they look; to wake one costs the caller 30 us.
    After the first tenth of a millisecond they offer the core to others at each turn: two processes that share two
    cores then run twice as fast as with cores that are kept.

    The caller posts a job, takes part in it, and withdraws it from those who have not come when all calls have begun:
    a worker that the system lets wait costs nothing. Calls are numbered; each thread takes the next one, so that a
    slow core does less, and the same call does the same wherever it runs.

    The caller is back only when all are through: nobody uses its arrays afterwards, and Ctrl-C waits for that, too.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from . import jit
from . import threads as python_threads

__all__ = ["run", "spread"]

_THREAD = 1 << 15  # elements that keep a thread busy for long enough
_CHUNK = 1 << 13  # elements between two times that a thread asks for more


@lru_cache(1)
def _code() -> Any:
    """`alone`, `together` and `serve` of `pool_ir`."""
    from . import pool_ir

    library = ctypes.CDLL(None)
    addresses = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in pool_ir.FUNCTIONS}
    engine = jit.compiled(pool_ir.build(addresses))

    def function(name: str, count: int) -> Any:
        return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(engine.get_function_address(name))

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))  # workers are in its code until the process has ended
    return function("alone", 5), function("together", 8), function("serve", 3)


class _Workers:
    """Threads that run `serve`, and the memory through which they get jobs."""

    def __init__(self) -> None:
        from . import pool_ir as code

        self.code, self.count = code, 0
        words = code.FIRST + code.WORKER["end"] * _MOST
        memory = np.zeros(words + 8, np.int64)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        self.mail = jit.address(memory) + -jit.address(memory) % 64

    def have(self, count: int) -> None:
        """See to it that there are so many."""
        if self.count >= count:
            return
        serve, library = _code()[2], ctypes.CDLL(None)
        while self.count < count:
            worker = self.mail + 8 * (self.code.FIRST + self.code.WORKER["end"] * self.count)
            for name, place in (("mutex", "mutex"), ("cond", "condition")):
                start = ctypes.c_void_p(worker + 8 * self.code.WORKER[place])
                if getattr(library, f"pthread_{name}_init")(start, None):
                    raise OSError(f"pthread_{name}_init failed")
            arguments = (self.mail, worker, self.count + 1)
            threading.Thread(target=serve, args=arguments, name="cuframe-kernel", daemon=True).start()
            self.count += 1


_MOST = 64  # workers
_workers: _Workers | None = None


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _workers
    _workers = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(kernel: jit.Kernel, words: Any, calls: int = 1, threads: int = 1, scratch: int = 0, alone: Any = None) -> None:
    """`kernel(words, i)` for all i < calls, in `threads` threads, or in one while another caller has them.

    Args:
        kernel: from `jit.load`.
        words: int64 [n], or [calls, n], a row for each call; contiguous.
        calls: how many. Calls may wait for each other if there are no more of them than threads, and `alone` is given.
        threads: how many to use at most.
        scratch: float32 numbers that each thread needs for its own, at the address that the kernel gets as `room`.
        alone: words of a single call that stands for all, should there be but one thread.
    """
    stride = words.strides[0] if words.ndim == 2 else 0
    threads = min(threads, calls, _MOST + 1)
    if threads > 1 and python_threads.take():
        try:
            _together(kernel, words, stride, calls, threads, scratch)
        finally:
            python_threads.give_back()
        return
    if alone is not None and calls > 1:
        words, stride, calls = alone, 0, 1
    room = python_threads.scratch(scratch) if scratch else None
    _code()[0](kernel.address, jit.address(words), stride, calls, jit.address(room))


def _together(kernel: jit.Kernel, words: Any, stride: int, calls: int, threads: int, scratch: int) -> None:
    global _workers
    if _workers is None:
        _workers = _Workers()
    _workers.have(threads - 1)
    each = -(-scratch // 16) * 16
    room = python_threads.scratch(each * threads) if scratch else None
    place = jit.address(room)
    _code()[1](_workers.mail, kernel.address, jit.address(words), stride, calls, place, 4 * each, threads)


def spread(kernel: jit.Kernel, arrays: Sequence[Any], words: Sequence[int], things: int, width: int) -> None:
    """A kernel over `things` of `width` elements each, of which call i sees to those from i * chunk on.

    Its arguments are the addresses of `arrays`, `words`, the number of things and the chunk.
    """
    threads = max(1, min(jit.cpus(), things * width // _THREAD))
    chunk = max(1, things if threads == 1 else -(-_CHUNK // width))
    table = np.array([*map(jit.address, arrays), *words, things, chunk], np.int64)
    run(kernel, table, -(-things // chunk), threads)
