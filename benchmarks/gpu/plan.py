"""The stages of `make gpu-check` and the units they consist of."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu import pytest_rows
from benchmarks.gpu.runner import ROOT, SECONDS, Unit, python
from cuframe.bench.case import Family
from cuframe.bench.families import FAMILIES

__all__ = ["RESULTS", "SHARES", "STAGES", "TOGETHER", "by_interest", "plan"]

RESULTS = ROOT / "benchmarks" / "results"
# of the time; what a stage leaves over, the next gets.  The grid ends with no budget, so it comes last
SHARES = {"environment": 0.06, "compile": 0.10, "correctness": 0.32, "repeats": 0.08, "tune": 0.11, "timings": 0.20,
          "sanitizer": 0.08, "grid": 0.05}
STAGES = tuple(SHARES)
TOGETHER = {"correctness": 4, "repeats": 4, "sanitizer": 2}

TOOLS = ("memcheck", "racecheck", "synccheck")
_SANITIZED = ("lstm", "attention", "ctc", "gru_bidirectional", "lstm_lengths", "attention_lengths", "softmax",
              "layer_norm", "cross_entropy", "embedding", "dropout", "adam", "lstm_tf32", "attention_decoding")

# a test that asks for the fixture `device` runs where it is told to
_ON_DEVICE = re.compile(r"^def test_\w+\([^)]*\bdevice: str", re.MULTILINE)
# the long one: an operation after another, each with kernels of CuPy's to compile
_TABLE = "test_device_ops.py"


def device_tests() -> list[str]:
    """The files of tests that run on the device they are given, the kernels' first."""
    found = [p.name for p in sorted((ROOT / "tests").glob("test_*.py")) if _ON_DEVICE.search(p.read_text())]
    return sorted(found, key=lambda name: (name == _TABLE, not name.startswith("test_kernel_"), name))


def by_interest(families: Sequence[Family] = FAMILIES) -> list[Family]:
    """Those that are timed on a GPU, the first of each group before the second of any."""
    groups: dict[str, list[Family]] = {}
    for family in families:
        if family.cuda:
            groups.setdefault(family.group, []).append(family)
    order = {f.name: (i, place) for place, some in enumerate(groups.values()) for i, f in enumerate(some)}
    return sorted((f for some in groups.values() for f in some), key=lambda f: order[f.name])


def plan(arch: str, device: str = "cuda", results: Path = RESULTS) -> list[Unit]:
    """All units for a GPU of architecture `arch`, in the order they run in.

    Args:
        device: "sim" for the same in the simulator, and of small sizes: a rehearsal.
        results: the folder of results; where it is not the repository's, the tuned table is put there, too.
    """
    families = by_interest()
    cores = os.cpu_count() or 1
    there = ("--device", device)
    repeated = ("--count", "1") if device == "sim" else ()
    tables = results.resolve() / "tuned"
    kept = ("--output", str(tables / f"{arch}.json")) if device == "sim" else (
        "--copy", str(tables)) if tables.parent != RESULTS else ()
    some = ("--pattern", "softmax") if device == "sim" else ()
    units = [Unit("compile", arch, python("-m", "benchmarks.gpu.compile", arch, *some), 300)]
    for name in device_tests():
        workers = ("-n", str(min(8, max(2, cores // 2)))) if name == _TABLE and _has_xdist() else ()
        units.append(Unit("correctness", name, python(
            "-m", "pytest", "-q", "-p", "benchmarks.gpu.pytest_rows", "-p", "no:cacheprovider", "-W", "default",
            "-m", "not parity", *there, *workers, f"tests/{name}"), 420, pytest_rows.fold))
    for ranks in (1, 2) if device == "cuda" else ():
        argv = python("-m", "benchmarks.gpu.nccl", str(ranks))
        units.append(Unit("correctness", f"nccl-{ranks}", argv, 120))
    # to start a process takes longer than a row of most
    groups = {f.group: [m.name for m in families if m.group == f.group] for f in families}
    for group, members in groups.items():
        argv = python("-m", "benchmarks.gpu.repeats", *members, *there, *repeated)
        units.append(Unit("repeats", group, argv, 240, again=True))
    units.append(Unit("tune", "", python("-m", "benchmarks.gpu.tune", "--seconds", SECONDS, *there, *kept), 320,
                      again=True))
    # the first size of all families tells more than all sizes of a few
    for sizes in ("first", "other"):
        units.append(Unit("timings", sizes, python(
            "-m", "benchmarks.gpu.timing", *(f.name for f in families), "--sizes", sizes, "--seconds", SECONDS, *there),
            3600, again=True))
    if shutil.which("compute-sanitizer"):
        for name in _SANITIZED:
            for tool in TOOLS:
                units.append(Unit("sanitizer", f"{name}-{tool}", (
                    "compute-sanitizer", "--tool", tool, "--error-exitcode", "99", "--report-api-errors", "no",
                    *python("-m", "benchmarks.gpu.repeats", name, "--count", "1", "--plain", *there)), 120))
    argv = python("-m", "benchmarks.gpu.timing", "--sizes", "grid", "--seconds", SECONDS, *there)
    units.append(Unit("grid", "", argv, 3600, again=True))
    return units


def chosen(units: list[Unit], only: list[str], device: str = "cuda") -> list[Unit]:
    """The units that `only` names: a stage, `stage:item`, or the beginning of one; `timings:softmax` for one family.

    Raises:
        ValueError: one that names nothing.
    """
    there = ("--device", device)
    alone = [Unit(stage, f.name, python("-m", f"benchmarks.gpu.{module}", f.name, *there), 240, again=True)
             for stage, module in (("timings", "timing"), ("repeats", "repeats")) for f in by_interest()]
    for name in only:
        if not any(u.name.startswith(name) for u in units):
            units = units + [u for u in alone if u.name == name]
        if not any(u.name.startswith(name) for u in units):
            raise ValueError(f"--only: no stage or unit {name!r}; there are: {', '.join(u.name for u in units)}")
    return [u for u in units if not only or any(u.name.startswith(name) for name in only)]


def environment_unit(device: str = "cuda") -> Unit:
    return Unit("environment", "", python("-m", "benchmarks.gpu.environment", "--device", device), 120)


def arch_of(facts: Mapping[str, Mapping[str, object]]) -> str:
    """The architecture of the GPU that the environment stage found."""
    return f"sm_{facts['device']['major']}{facts['device']['minor']}"


def _has_xdist() -> bool:
    import importlib.util

    return importlib.util.find_spec("xdist") is not None
