"""Compiled kernels in several threads."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

from llvmlite import ir

from cuframe.cpu import jit, pool, threads
from cuframe.cpu.ir import Emitter

THREADS = [1, 2, 3, 8]


@lru_cache(None)
def counting() -> jit.Kernel:
    """counts[i] += step, and room[0] becomes i for the time of a call; broken[0] counts calls in which it changed."""
    e = Emitter("counting", ("counts", "step", "turns", "broken", "room_"), 8, own=("room_",))
    place = e.add(e.a["counts"], e.mul(e.thread, 8))
    e.store(e.add(e.index(place), e.a["step"]), place)
    room = e.b.inttoptr(e.a["room_"], ir.IntType(64).as_pointer())
    e.b.store_atomic(e.thread, room, "seq_cst", 8)
    with e.loop(e.i(0), e.a["turns"]):
        with e.b.if_then(e.b.icmp_signed("!=", e.b.load_atomic(room, "seq_cst", 8), e.thread)):
            broken = e.b.inttoptr(e.a["broken"], ir.IntType(64).as_pointer())
            e.b.atomic_rmw("add", broken, e.i(1), "seq_cst")
    e.b.ret_void()
    return jit.load(e.module, "counting")


@lru_cache(None)
def meeting() -> jit.Kernel:
    """Calls that wait for each other: `wanted` of them."""
    e = Emitter("meeting", ("counter", "yield_", "wanted"), 8)
    e.barrier(e.a["wanted"])
    e.b.ret_void()
    return jit.load(e.module, "meeting")


def count(calls: int, workers: int, step: int = 1, turns: int = 100) -> np.ndarray:
    counts, broken = np.zeros(max(1, calls), np.int64), np.zeros(1, np.int64)
    words = np.array([jit.address(counts), step, turns, jit.address(broken), 0], np.int64)
    pool.run(counting(), words, calls, workers, scratch=20)
    assert broken[0] == 0
    return counts[:calls]


@pytest.mark.parametrize("workers", THREADS)
@pytest.mark.parametrize("calls", [0, 1, 2, 7, 1000])
def test_every_call_once(calls: int, workers: int) -> None:
    assert (count(calls, workers) == 1).all()


def test_often() -> None:
    for i in range(2000):
        assert (count(5, 3, step=i, turns=i % 7) == i).all()


def test_a_row_of_words_for_each_call() -> None:
    counts, broken = np.zeros((5, 5), np.int64), np.zeros(1, np.int64)
    words = np.array([[jit.address(row), 10 + i, 0, jit.address(broken), 0] for i, row in enumerate(counts)], np.int64)
    pool.run(counting(), words, 5, 2, scratch=20)
    np.testing.assert_array_equal(counts, np.diag(np.arange(10, 15)))


@pytest.mark.parametrize("workers", THREADS)
def test_calls_that_wait_for_each_other(workers: int) -> None:
    for _ in range(50):
        counter = np.zeros(1, np.int64)
        words = np.array([jit.address(counter), jit.yield_address(), workers], np.int64)
        pool.run(meeting(), words, workers, workers, alone=words)
        assert counter[0] == workers


def test_alone_while_others_have_the_cores() -> None:
    counter = np.zeros(1, np.int64)
    together, alone = (np.array([jit.address(counter), jit.yield_address(), n], np.int64) for n in (3, 1))
    assert threads.take()
    try:
        pool.run(meeting(), together, 3, 3, alone=alone)
        assert counter[0] == 1
        assert (count(100, 3) == 1).all()
    finally:
        threads.give_back()


def test_workers_that_have_gone_to_sleep_are_woken() -> None:
    for _ in range(5):
        time.sleep(0.02)
        counter = np.zeros(1, np.int64)
        words = np.array([jit.address(counter), jit.yield_address(), 3], np.int64)
        pool.run(meeting(), words, 3, 3, alone=words)
        assert counter[0] == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_much_scratch_stays_until_the_call_is_over(workers: int) -> None:
    """More than a thread keeps for its next call, and than the C library would keep."""
    large = 1 << 24
    counts, broken = np.zeros(4, np.int64), np.zeros(1, np.int64)
    words = np.array([jit.address(counts), 1, 10, jit.address(broken), 4 * large - 8], np.int64)
    before = threads.scratch(1)
    pool.run(counting(), words, 4, workers, scratch=large)
    assert (counts == 1).all() and broken[0] == 0
    assert threads.scratch(1) is before


def test_callers_in_many_threads() -> None:
    wrong: list[int] = []

    def caller() -> None:
        for _ in range(200):
            if not (count(9, 3) == 1).all():
                wrong.append(1)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong


def process(code: str) -> subprocess.Popen[str]:
    start = "import sys; sys.path.insert(0, '.'); from tests.test_pool import *\n"
    command = [sys.executable, "-W", "ignore", "-c", start + code]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork() -> None:
    code = """
count(9, 3)
pid = os.fork()
if pid == 0:
    os._exit(0 if all((count(9, 3) == 1).all() for _ in range(9)) else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    with process(code) as running:
        assert running.wait(60) == 0


@pytest.mark.parametrize("pause", [0, 0.02], ids=["workers awake", "workers asleep"])
def test_the_process_ends(pause: float) -> None:
    for _ in range(2):
        with process(f"count(9, 3); time.sleep({pause})") as running:
            assert running.wait(60) == 0


def test_interrupt_waits_for_the_kernel() -> None:
    """No thread is at work in arrays that the interrupted caller has freed."""
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
count(2, 2)
counts, broken = np.zeros(2, np.int64), np.zeros(1, np.int64)
words = np.array([jit.address(counts), 1, 300_000_000, jit.address(broken), 0], np.int64)

def interrupt():
    while not counts.any():
        time.sleep(0.001)
    signal.raise_signal(signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    pool.run(counting(), words, 2, 2, scratch=20)
    time.sleep(60)
except KeyboardInterrupt:
    assert threads.take() and (count(9, 1) == 1).all()
    threads.give_back()
    assert (counts == 1).all() and (count(9, 3) == 1).all()
    sys.exit(7)
"""
    with process(code) as running:
        assert running.wait(60) == 7
