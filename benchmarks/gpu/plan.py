"""The stages of `make gpu-check` and the units they consist of."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence

from benchmarks.gpu import pytest_rows
from benchmarks.gpu.runner import ROOT, Unit, python
from cuframe.bench.case import Family
from cuframe.bench.families import FAMILIES

__all__ = ["SHARES", "STAGES", "TOGETHER", "by_interest", "plan"]

# of the time; what a stage leaves over, the next gets
SHARES = {"environment": 0.06, "compile": 0.12, "correctness": 0.34, "repeats": 0.10, "timings": 0.28,
          "sanitizer": 0.10}
STAGES = tuple(SHARES)
TOGETHER = {"correctness": 4, "repeats": 4, "sanitizer": 2}

TOOLS = ("memcheck", "racecheck", "synccheck")
_SANITIZED = ("softmax", "ctc", "lstm", "layer_norm", "cross_entropy", "embedding", "dropout",
              "attention", "adam")

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


def plan(arch: str) -> list[Unit]:
    """All units for a GPU of architecture `arch`, in the order they run in."""
    families = by_interest()
    cores = os.cpu_count() or 1
    units = [Unit("compile", arch, python("-m", "benchmarks.gpu.compile", arch), 300)]
    for name in device_tests():
        workers = ("-n", str(min(8, max(2, cores // 2)))) if name == _TABLE and _has_xdist() else ()
        units.append(Unit("correctness", name, python(
            "-m", "pytest", "-q", "-p", "benchmarks.gpu.pytest_rows", "-p", "no:cacheprovider", "-W", "default",
            "-m", "not parity", "--device", "cuda", *workers, f"tests/{name}"), 420, pytest_rows.fold))
    for ranks in (1, 2):
        argv = python("-m", "benchmarks.gpu.nccl", str(ranks))
        units.append(Unit("correctness", f"nccl-{ranks}", argv, 120))
    for family in families:
        units.append(Unit("repeats", family.name, python("-m", "benchmarks.gpu.repeats", family.name), 120))
    # to start a process takes longer than a row; and the first size of all families tells more than all sizes of a few
    for sizes, mark in (("first", ""), ("other", "-more")):
        for group in dict.fromkeys(f.group for f in families):
            members = [f.name for f in families if f.group == group and (sizes == "first" or len(f.cuda) > 1)]
            if members:
                argv = python("-m", "benchmarks.gpu.timing", *members, "--sizes", sizes)
                units.append(Unit("timings", f"{group}{mark}", argv, 240))
    if shutil.which("compute-sanitizer"):
        for name in _SANITIZED:
            for tool in TOOLS:
                units.append(Unit("sanitizer", f"{name}-{tool}", (
                    "compute-sanitizer", "--tool", tool, "--error-exitcode", "99", "--report-api-errors", "no",
                    *python("-m", "benchmarks.gpu.repeats", name, "--count", "1", "--plain")), 120))
    return units


def chosen(units: list[Unit], only: list[str]) -> list[Unit]:
    """The units that `only` names: a stage, `stage:item`, or the beginning of one; `timings:softmax` for one family.

    Raises:
        ValueError: one that names nothing.
    """
    alone = [Unit("timings", f.name, python("-m", "benchmarks.gpu.timing", f.name), 240) for f in by_interest()]
    for name in only:
        if not any(u.name.startswith(name) for u in units):
            units = units + [u for u in alone if u.name == name]
        if not any(u.name.startswith(name) for u in units):
            raise ValueError(f"--only: no stage or unit {name!r}; there are: {', '.join(u.name for u in units)}")
    return [u for u in units if not only or any(u.name.startswith(name) for name in only)]


def environment_unit() -> Unit:
    return Unit("environment", "", python("-m", "benchmarks.gpu.environment"), 120)


def arch_of(facts: Mapping[str, Mapping[str, object]]) -> str:
    """The architecture of the GPU that the environment stage found."""
    return f"sm_{facts['device']['major']}{facts['device']['minor']}"


def _has_xdist() -> bool:
    import importlib.util

    return importlib.util.find_spec("xdist") is not None
