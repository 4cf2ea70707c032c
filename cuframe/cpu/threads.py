"""Python's functions in several threads, and memory that a thread keeps for its next kernel."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from itertools import accumulate
from queue import SimpleQueue
from typing import Any

import numpy as np

__all__ = ["give_back", "parallel", "places", "scratch", "take"]

_KEEP = 1 << 21  # numbers that a thread keeps for its next call


class _Own(threading.local):
    """Memory of a thread."""

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


def places(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where arrays of so many float32 numbers lie in scratch memory, in bytes, a cache line's beginning each; and how
    many numbers they take."""
    *found, end = accumulate((-(-size // 16) * 16 for size in sizes), initial=0)
    return [4 * place for place in found], end


class _Call:
    """One use of the threads; it holds what `run` refers to until the last of them is through."""

    def __init__(self, run: Callable[[int, int], None], threads: int) -> None:
        self.run, self.threads = run, threads
        self.open = list(range(1, threads))  # parts that no thread has begun
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
        threading.Thread(target=self._serve, name="cuframe-worker", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self.calls.get().serve()


_workers: list[_Worker] = []
_busy = threading.Lock()  # held by whoever has the cores: these threads, or those of `pool`


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _busy
    _workers.clear()
    _busy = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def take() -> bool:
    """Take the cores, unless another caller has them; `give_back` must follow."""
    return _busy.acquire(blocking=False)


def give_back() -> None:
    """The cores are free for others."""
    _busy.release()


def parallel(run: Callable[[int, int], None], threads: int) -> None:
    """`run(i, n)` for i < n at the same time; n is `threads`, or 1 while another caller has the cores.

    Should the caller's own run end by an exception, such as Ctrl-C, parts that have not begun are left out.
    """
    if threads == 1 or not take():
        run(0, 1)
        return
    try:
        while len(_workers) < threads - 1:
            _workers.append(_Worker())
        call = _Call(run, threads)
        try:
            for worker in _workers[: threads - 1]:
                worker.calls.put(call)
            run(0, threads)
        except BaseException:
            call.open.clear()
            raise
        failures = [call.done.get() for _ in range(threads - 1)]
        for failure in failures:
            if failure is not None:
                raise failure
    finally:
        give_back()
