"""Times a family beside PyTorch on the same GPU.

Note [Timing] Both libraries put their work on the default stream, so CuPy's events time either.  Before the first event
a kernel spins for as long as the host takes to put the work into the queue: what lies between the events is the GPU's
time without gaps.  What the host takes is a column of its own, and so is the time from call to call when calls follow
one another ("wall"), which is the larger of the two in the long run.  `cold` overwrites twice the L2 cache before each
sample.  Libraries take turns, A B A B.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.gpu.cases import FAMILIES, Family, Side, Work, family
from benchmarks.gpu.runner import Rows
from cuframe.bench.case import host_arrays

SECONDS = 0.5                           # that the samples of a row may take
LEAST, MOST = 30, 100                   # samples of a library in a row
ROUNDS = 5
MODES = ("forward", "training")

_SPIN = 'extern "C" __global__ void spin(long long n) { long long s = clock64(); while (clock64() - s < n) {} }'


class Clock:
    """GPU time of what is launched in between."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        facts = cupy.cuda.runtime.getDeviceProperties(0)
        self._flushed = cupy.zeros(2 * facts["l2CacheSize"], np.uint8)
        self._spin = cupy.RawKernel(_SPIN, "spin")
        self._cycles = facts["clockRate"] if facts.get("clockRate") else 2_000_000  # of a millisecond
        self._pairs: list[tuple[Any, Any]] = []
        self.bandwidth = self._copy_bandwidth()

    def _copy_bandwidth(self) -> float:
        """Bytes a second of a copy on the GPU, read and written counted."""
        size = min(1 << 30, self._cupy.cuda.runtime.memGetInfo()[0] // 8)
        a, b = (self._cupy.ones(size // 4, np.float32) for _ in range(2))
        times = [self.sample(lambda: self._cupy.copyto(b, a), 0.0002) for _ in range(12)]
        return 2 * size / (float(np.median(times[2:])) * 1e-3)

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
            self._cupy.cuda.runtime.deviceSynchronize()
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        self._cupy.cuda.runtime.deviceSynchronize()
        return float(best)

    def wall(self, call: Callable[[], Any], count: int) -> float:
        """Milliseconds from call to call, one after the other."""
        self._cupy.cuda.runtime.deviceSynchronize()
        start = time.perf_counter()
        for _ in range(count):
            call()
        self._cupy.cuda.runtime.deviceSynchronize()
        return (time.perf_counter() - start) / count * 1e3


def stats(samples: list[float]) -> dict[str, float]:
    """Microseconds: median and spread of samples in milliseconds."""
    us = np.asarray(samples) * 1e3
    low, q1, median, q3, high = np.percentile(us, (5, 25, 50, 75, 95))
    return {k: round(float(v), 3) for k, v in
            {"median": median, "iqr": q3 - q1, "p5": low, "p95": high, "n": len(us)}.items()}


def runs(work: Work, lib: Any) -> dict[str, Callable[[], Any]]:
    """What is timed: by mode."""
    if work.stateful:
        return {"step": work.call}

    def forward() -> Any:
        with lib.no_grad():
            return work.call()

    if not work.inputs:
        return {"forward": forward}
    out = work.call()
    g = lib.ones_like(out)

    def training() -> Any:
        return lib.autograd.grad(work.call(), list(work.inputs), g)

    return {"forward": forward, "training": training}


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest value or 1."""
    worst = 0.0
    for a, b in zip(host_arrays(ours), host_arrays(theirs)):
        if a.shape != b.shape:
            return float("inf")
        if a.size:
            off = np.abs(a - b).max() / max(1.0, np.abs(b).max())
            worst = max(worst, float("inf") if np.isnan(off) else float(off))
    return worst


def cases(chosen: Family) -> Iterator[tuple[tuple[int, ...], str]]:
    for sizes in chosen.sizes:
        for dtype in chosen.dtypes:
            yield sizes, dtype


def time_family(chosen: Family, rows: Rows, clock: Clock, cf: Any, torch: Any, device: str = "cuda") -> int:
    """A row for each size, dtype and mode; returns how many failed."""
    failed = 0
    for sizes, dtype in cases(chosen):
        name = f"{chosen.name} {'x'.join(map(str, sizes))} {dtype}"
        if any(f"{name} {mode}" in rows for mode in (*MODES, "step")):
            continue
        try:
            _time_case(chosen, sizes, dtype, name, rows, clock, cf, torch, device)
        except Exception as error:
            failed += 1
            rows.add(f"{name} error", error=f"{type(error).__name__}: {error}"[:1000])
            # after an error of the device nothing works in this process
            clock._cupy.cuda.runtime.deviceSynchronize()
    return failed


def _time_case(chosen: Family, sizes: tuple[int, ...], dtype: str, name: str, rows: Rows, clock: Clock, cf: Any,
               torch: Any, device: str) -> None:
    sides = {"cuframe": runs(chosen.build(Side(cf, device, dtype), *sizes), cf)}
    first = next(iter(sides["cuframe"]))
    sides["cuframe"][first]()
    notes = {}
    for variant in chosen.variants if torch is not None else ():
        try:
            sides[variant] = runs(chosen.build(Side(torch, device, dtype), *sizes, variant=variant), torch)
            sides[variant][first]()     # as often as ours: a step changes what it works on
        except Exception as error:      # PyTorch cannot do this one
            sides.pop(variant, None)
            notes[variant] = f"{type(error).__name__}: {error}"[:200]
    traffic = chosen.traffic(np.dtype(dtype).itemsize if dtype != "bfloat16" else 2, *sizes)
    flops = chosen.flops(1, *sizes) if chosen.flops else (0, 0)
    for i, mode in enumerate(sides["cuframe"]):
        calls = {label: modes[mode] for label, modes in sides.items()}
        results = {label: call() for label, call in calls.items()}
        others = [label for label in calls if label != "cuframe"]
        worst = max((difference(results["cuframe"], results[label]) for label in others), default=None)
        del results
        row: dict[str, Any] = {"family": chosen.name, "sizes": list(sizes), "dtype": dtype, "mode": mode,
                               "timer": chosen.timer, "bytes": traffic[i], "flops": flops[i], "difference": worst,
                               "within": worst is None or worst <= chosen.tolerance[dtype]}
        row |= _measure(calls, clock, chosen.cold)
        figure = "cold" if chosen.cold else "wall" if chosen.timer == "wall" else "warm"
        ours = row["us"]["cuframe"][figure]["median"]
        best = min(others, key=lambda o: row["us"][o][figure]["median"], default=None)
        floor = traffic[i] / clock.bandwidth * 1e6
        if flops[i]:
            row["tflops"] = round(flops[i] / ours / 1e6, 2)
        row |= {"figure": figure, "floor_us": round(floor, 3), "of_floor": round(floor / ours, 3), "baseline": best,
                "ratio": round(row["us"][best][figure]["median"] / ours, 3) if best else None}
        if notes:
            row["notes"] = notes
        rows.add(f"{name} {mode}", **row)


def _measure(calls: dict[str, Callable[[], Any]], clock: Clock, cold: bool) -> dict[str, Any]:
    host, length = {}, {}
    for label, call in calls.items():
        call()
        host[label] = clock.host(call)
        length[label] = max(clock.wall(call, 3) * 1e-3, host[label])
    kinds = ("warm", "cold", "wall") if cold else ("warm", "wall")
    one = sum(length.values()) * 1.5 + sum(host.values())
    count = int(np.clip(SECONDS / max(one, 1e-6) / len(kinds), LEAST, MOST))
    each = -(-count // ROUNDS)
    found: dict[str, dict[str, list[float]]] = {label: {k: [] for k in kinds} for label in calls}
    for _ in range(ROUNDS):
        for label, call in calls.items():
            for kind in kinds:
                if kind == "wall":
                    found[label][kind] += [clock.wall(call, 2) for _ in range(each)]
                else:
                    found[label][kind] += [clock.sample(call, min(1.2 * host[label], 0.02), kind == "cold")
                                           for _ in range(each)]
    return {"us": {label: {**{k: stats(v) for k, v in samples.items()}, "host": round(host[label] * 1e6, 2)}
                   for label, samples in found.items()}}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("family", choices=[f.name for f in FAMILIES])
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    import cupy

    import cuframe as cf

    try:
        import torch
        import torch.nn.attention
    except ImportError:
        torch = None
    if torch is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    cf.ones(1, device="cuda")
    clock, rows = Clock(cupy), Rows(args.rows)
    failed = time_family(family(args.family), rows, clock, cf, torch)
    if "copy bandwidth" not in rows:
        rows.add("copy bandwidth", gigabytes_per_second=round(clock.bandwidth / 1e9, 1))
    off = [r["key"] for r in rows.found if r.get("within") is False]
    if off:
        print("further from PyTorch than the tolerance:", *off, sep="\n  ")
    return 1 if failed or off else 0


if __name__ == "__main__":
    sys.exit(main())
