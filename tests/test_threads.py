"""Python's functions in several threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from cuframe.cpu import threads


def test_a_failing_part_is_raised_and_the_threads_live_on() -> None:
    def run(i: int, count: int) -> None:
        if i == 1:
            raise KeyError("part 1")

    for _ in range(2):
        with pytest.raises(KeyError, match="part 1"):
            threads.parallel(run, 3)
    done: list[tuple[int, int]] = []
    threads.parallel(lambda i, count: done.append((i, count)), 3)
    assert sorted(done) == [(0, 3), (1, 3), (2, 3)]


def test_parts_that_have_not_begun_are_withdrawn() -> None:
    released, seen = threading.Event(), []

    def wait(i: int, count: int) -> None:
        if i == 0:
            raise KeyboardInterrupt
        assert released.wait(10)

    with pytest.raises(KeyboardInterrupt):
        threads.parallel(wait, 3)
    released.set()
    threads.parallel(lambda i, count: seen.append(i), 3)
    assert sorted(seen) == [0, 1, 2]


def test_one_thread_while_others_have_the_cores() -> None:
    assert threads.take()
    try:
        assert not threads.take()
        seen: list[tuple[int, int]] = []
        threads.parallel(lambda i, count: seen.append((i, count)), 3)
        assert seen == [(0, 1)]
    finally:
        threads.give_back()


def test_scratch_begins_a_cache_line_and_stays_with_the_thread() -> None:
    rooms = [threads.scratch(n) for n in (1000, 10, 3000, 3000)]
    assert all(room.ctypes.data % 64 == 0 and room.dtype == np.float32 for room in rooms)
    assert all(room.size >= n for room, n in zip(rooms, (1000, 10, 3000, 3000)))
    assert rooms[2] is rooms[3]
    other: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: other.append(threads.scratch(3000)))
    thread.start()
    thread.join()
    assert not np.shares_memory(other[0], rooms[3])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork() -> None:
    code = """
import os
from cuframe.cpu.threads import parallel
seen = []
parallel(lambda i, n: seen.append(i), 2)
pid = os.fork()
if pid == 0:
    parallel(lambda i, n: seen.append(i), 2)
    os._exit(0 if sorted(seen) == [0, 0, 1, 1] else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
