"""Clocks: how a call is timed on a CPU and on a GPU.

Note [Timing on a GPU] Both libraries put their work on the default stream, so CuPy's events time either. Before the
first event a kernel spins for as long as the host takes to put the work into the queue: what lies between the events is
the GPU's time without gaps ("warm"). What the host takes is a figure of its own, and so is the time from call to call
when calls follow one another ("wall"), which is the larger of the two in the long run. "cold" overwrites twice the L2
cache before each sample. With the timer `graph` the call is captured once and its graph replayed between the events.

Note [Timing on a CPU] A sample is as many calls as take 0.2 ms. Libraries change after a pause in which the threads of
the other go to sleep. "warm" is the time on the wall, "process" what all threads of the process spent in the meantime,
waiting not counted: on a machine that others use it is the steadier one. "cold" overwrites twice the last cache first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["TIMERS", "Clock", "Contestant", "DeviceClock", "HostClock", "methods"]

TIMERS = {"cuda": ("event", "graph", "wall"), "cpu": ("wall", "process")}
_SAMPLE = 2e-4  # seconds of a sample on the CPU at least
_PAUSE = 0.01
_LONG = 0.3  # seconds after which one call tells enough of how long it takes
_MOST_CALLS = 1000
_SPIN = 'extern "C" __global__ void spin(long long n) { long long s = clock64(); while (clock64() - s < n) {} }'


@dataclass
class Contestant:
    """A call with what is known of it: seconds on the host until it comes back, and in all."""

    call: Callable[[], Any]
    host: float = 0.0
    length: float = 0.0
    calls: int = 1
    replay: Callable[[], Any] | None = None


class Clock(Protocol):
    """What measures."""

    timer: str
    rounds: int

    def kinds(self, cold: bool, warm: bool, wall: bool) -> tuple[str, ...]:
        """What is measured; a case that only the wall tells has no other figure."""

    def figure(self, kinds: tuple[str, ...], wall: bool) -> str:
        """The one that counts."""

    def prepare(self, call: Callable[[], Any], library: str) -> Contestant:
        """Warm up, and find out how long it takes."""

    def turn(self) -> None:
        """Another library has its turn."""

    def take(self, who: Contestant, kind: str) -> dict[str, float]:
        """Microseconds of a call, by kind."""


class HostClock:
    """Times on this machine's CPU: Note [Timing on a CPU]."""

    rounds = 15

    def __init__(self, timer: str = "wall") -> None:
        self.timer = timer
        self._flushed: np.ndarray | None = None

    def kinds(self, cold: bool, warm: bool, wall: bool) -> tuple[str, ...]:
        return ("cold",) if cold and not warm else ("warm", "cold") if cold else ("warm",)

    def figure(self, kinds: tuple[str, ...], wall: bool) -> str:
        return "process" if self.timer == "process" else kinds[0]

    def prepare(self, call: Callable[[], Any], library: str) -> Contestant:
        call()
        best, spent = np.inf, 0.0
        for _ in range(3):
            start = time.perf_counter()
            call()
            took = time.perf_counter() - start
            best, spent = min(best, took), spent + took
            if spent > _LONG:
                break
        return Contestant(call, best, best, int(np.clip(_SAMPLE / best, 1, _MOST_CALLS)))

    def turn(self) -> None:
        time.sleep(_PAUSE)

    def take(self, who: Contestant, kind: str) -> dict[str, float]:
        calls = who.calls
        if kind == "cold":
            calls = 1
            self._flush()
        wall, work = time.perf_counter(), time.process_time()
        for _ in range(calls):
            who.call()
        took, spent = time.perf_counter() - wall, time.process_time() - work
        return {kind: took / calls * 1e6, "process": spent / calls * 1e6}

    def _flush(self) -> None:
        if self._flushed is None:
            self._flushed = np.zeros(2 * last_cache(), np.uint8)
        self._flushed += 1


def last_cache() -> int:
    """Bytes of the largest cache of the CPU; 32 MiB where Linux does not tell."""
    sizes = [32 << 20]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K"):
            sizes.append(int(text[:-1]) << 10)
    return max(sizes)


class DeviceClock:
    """Times on the current GPU: Note [Timing on a GPU]."""

    rounds = 11

    def __init__(self, cupy: Any, timer: str = "event") -> None:
        self.timer = timer
        self._cupy = cupy
        facts = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        self._flushed = cupy.zeros(2 * facts["l2CacheSize"], np.uint8)
        self._spin = cupy.RawKernel(_SPIN, "spin")
        self._cycles = facts["clockRate"] if facts.get("clockRate") else 2_000_000  # of a millisecond

    def kinds(self, cold: bool, warm: bool, wall: bool) -> tuple[str, ...]:
        if self.timer == "wall":
            return ("wall",)
        return tuple(k for k, asked in (("warm", warm), ("cold", cold), ("wall", True)) if asked)

    def figure(self, kinds: tuple[str, ...], wall: bool) -> str:
        return "wall" if wall or self.timer == "wall" else "cold" if "cold" in kinds else "warm"

    def prepare(self, call: Callable[[], Any], library: str) -> Contestant:
        call()
        host = self.host(call)
        who = Contestant(call, host, max(self.wall(call, 3), host))
        if self.timer == "graph":
            who.replay = self._capture(call, library)
        return who

    def turn(self) -> None:
        self._cupy.cuda.runtime.deviceSynchronize()

    def take(self, who: Contestant, kind: str) -> dict[str, float]:
        if kind == "wall":
            return {kind: self.wall(who.call, 2) * 1e6}
        call, spin = (who.call, min(1.2 * who.host, 0.02)) if who.replay is None else (who.replay, 2e-5)
        return {kind: self.sample(call, spin, kind == "cold") * 1e3}

    def sample(self, call: Callable[[], Any], spin: float, cold: bool = False) -> float:
        """Milliseconds of the GPU; `spin`: the seconds that the host needs."""
        events = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        if cold:
            self._flushed.fill(1)
        self._spin((1,), (1,), (np.int64(spin * 1e3 * self._cycles),))
        events[0].record()
        call()
        events[1].record()
        events[1].synchronize()
        return float(self._cupy.cuda.get_elapsed_time(*events))

    def host(self, call: Callable[[], Any], count: int = 5) -> float:
        """Seconds until `call` comes back, its work queued; and it has waited for what was queued before."""
        best = np.inf
        for _ in range(count):
            self.turn()
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        self.turn()
        return float(best)

    def wall(self, call: Callable[[], Any], count: int) -> float:
        """Seconds from call to call, one after the other."""
        self.turn()
        start = time.perf_counter()
        for _ in range(count):
            call()
        self.turn()
        return (time.perf_counter() - start) / count

    def _capture(self, call: Callable[[], Any], library: str) -> Callable[[], Any]:
        """A replay of what `call` launches; an error where something in it cannot be captured."""
        if library != "cuframe":
            import torch

            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept = call()

            def again() -> Any:
                graph.replay()
                return kept

            return again
        stream = self._cupy.cuda.Stream(non_blocking=True)
        with stream:
            call()
            stream.synchronize()
            stream.begin_capture()
            try:
                kept = call()
            finally:
                made = stream.end_capture()

        def replay() -> Any:
            made.launch(self._cupy.cuda.get_current_stream())
            return kept

        return replay


def methods(clock: Clock) -> str:
    """How times are taken, in a line, for the head of a table."""
    return {
        "event": "CUDA events around the call, the host's part hidden behind a spinning kernel",
        "graph": "CUDA events around the replay of a captured graph",
        "process": "processor time of all threads, waiting not counted",
        "wall": "time on the wall" + ("" if isinstance(clock, HostClock) else " from call to call"),
    }[clock.timer]


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """No collection of garbage in the middle of a sample."""
    import gc

    on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
