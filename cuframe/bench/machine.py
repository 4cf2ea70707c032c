"""What the machine is, what others do on it, and the limits that it sets, measured on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cuframe import _paths

__all__ = ["Load", "commit", "cores", "cpu", "device", "load", "machine", "noise", "peak_copy", "peak_products"]

PACKAGES = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "ml_dtypes", "scipy", "llvmlite", "pytest",
            "pytest-xdist", "hypothesis", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc-cu13",
            "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
_SMI = ("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit",
        "temperature.gpu", "ecc.mode.current", "memory.total")


def _output(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=_paths.checkout_root(), text=True, capture_output=True, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else None


def cpu() -> str:
    """The CPU's model."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What needs no CUDA in this process."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    smi = _output("nvidia-smi", f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader")
    return {"python": platform.python_version(), "platform": platform.platform(), "cpu": cpu(), "cores": cores(),
            "packages": versions,
            "nvidia-smi": dict(zip(_SMI, (v.strip() for v in smi.splitlines()[0].split(",")))) if smi else None,
            "compute-sanitizer": shutil.which("compute-sanitizer"), "g++": shutil.which("g++")}


def commit() -> dict[str, Any]:
    """The commit, and whether the files differ from it; None where there is no checkout or no git."""
    if _paths.checkout_root() is None:
        return {"commit": None, "dirty": None}
    revision = _output("git", "rev-parse", "HEAD")
    changed = _output("git", "status", "--porcelain", "--untracked-files=no")
    return {"commit": revision, "dirty": None if changed is None else bool(changed)}


def device() -> dict[str, Any]:
    """The current GPU and the CUDA libraries on it."""
    import cupy

    from cuframe.cuda import nvrtc

    runtime = cupy.cuda.runtime
    facts = runtime.getDeviceProperties(runtime.getDevice())
    name = facts["name"].decode() if isinstance(facts["name"], bytes) else facts["name"]
    wanted = ("major", "minor", "multiProcessorCount", "totalGlobalMem", "l2CacheSize", "sharedMemPerBlockOptin",
              "regsPerMultiprocessor", "clockRate", "memoryClockRate", "memoryBusWidth")
    return {"gpu": name, "driver cuda": runtime.driverGetVersion(), "runtime cuda": runtime.runtimeGetVersion(),
            "cupy": cupy.__version__, "nvrtc": ".".join(map(str, nvrtc.version())),
            **{k: facts[k] for k in wanted if k in facts}}


class Load(NamedTuple):
    """Processor time so far, in seconds of one core: of all, busy, taken by the hypervisor, of this process."""

    all: float
    busy: float
    steal: float
    own: float


def load(path: Path = Path("/proc/stat")) -> Load | None:
    """The counters of Linux; None elsewhere."""
    try:
        ticks = [int(n) for n in path.read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    second = os.sysconf("SC_CLK_TCK")
    own = os.times()
    user, nice, system, idle, waiting, interrupts, soft, steal = (t / second for t in ticks)
    return Load(sum(ticks) / second, user + nice + system + interrupts + soft, steal,
                own.user + own.system + own.children_user + own.children_system)


def noise(before: Load | None, after: Load | None) -> dict[str, Any]:
    """Shares of the machine's time that the hypervisor and other programs took, with a warning where it shows.

    `much`: so much that libraries whose threads wait for one another by spinning take many times as long.
    """
    if before is None or after is None or after.all - before.all < 0.2:
        return {}
    span = after.all - before.all
    steal = max(0.0, (after.steal - before.steal) / span)
    others = max(0.0, (after.busy - before.busy - (after.own - before.own)) / span)
    found: dict[str, Any] = {"steal": round(steal, 3), "others": round(others, 3),
                             "much": steal > 0.1 or others > 0.25}
    causes = [text for text, much in ((f"{steal:.0%} stolen by the hypervisor", steal > 0.02),
                                      (f"{others:.0%} taken by other programs", others > 0.1)) if much]
    if causes:
        found["warning"] = ", ".join(causes)
    return found


def _best(run: Callable[[], Any], now: Callable[[], float], count: int = 5) -> float:
    """Seconds of the quickest of several runs: a limit is what was reached at least once."""
    best = np.inf
    for _ in range(count):
        start = now()
        run()
        best = min(best, now() - start)
    return float(best)


def peak_copy(clock: Any = None, cupy: Any = None, now: Callable[[], float] = time.perf_counter) -> float:
    """Bytes a second of a copy, read and written counted: on the GPU by its clock, else on all cores of the CPU.

    `now` is the clock of the CPU's timer; with processor time it is the rate of one core.
    """
    if clock is not None:
        size = min(1 << 30, cupy.cuda.runtime.memGetInfo()[0] // 8)
        a, b = (cupy.ones(size // 4, np.float32) for _ in range(2))
        times = [clock.sample(lambda: cupy.copyto(b, a), 0.0002) for _ in range(12)]
        return 2 * size / (float(np.median(times[2:])) * 1e-3)
    size, count = 128 << 20, cores()
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = [slice(size * i // count, size * (i + 1) // count) for i in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return 2 * size / _best(lambda: list(pool.map(lambda p: np.copyto(target[p], source[p]), parts)), now)


def peak_products(dtype: str, clock: Any = None, now: Callable[[], float] = time.perf_counter) -> float:
    """Operations a second of square matrix products, by cuframe's own path to the device's BLAS."""
    import cuframe as cf

    size = 1536 if clock is None else 8192
    where = "cpu" if clock is None else "cuda"
    a = cf.rand(size, size, device=where).to(getattr(cf, dtype))
    with cf.no_grad():
        _ = a @ a
        if clock is None:
            return 2 * size**3 / _best(lambda: a @ a, now)
        times = [clock.sample(lambda: a @ a, 0) for _ in range(5)]
    return 2 * size**3 / (float(np.median(times)) * 1e-3)
