"""Measures launches for the GPU that is here, and puts the table where timings find it and a commit takes it.

    python -m benchmarks.gpu.tune --seconds 270 [--copy FOLDER]

The table is `kernels/tuned/<arch>.json`.  A size is a row as soon as it is measured, and not measured again; one that
ended the process is left out.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.gpu.runner import TRIES, Rows, status_of
from cuframe import _paths
from cuframe.cuda import tune, tuned
from cuframe.cuda.persistent import Plan
from cuframe.cuda.tune import Case

_LONGEST = 20                           # seconds after which a launch is taken for one that hangs


def name_of(case: Case) -> str:
    return f"{case.cell} {case.kind} H{case.hidden} N{case.batch} x{case.directions}"


class Noting:
    """A bench that notes the sizes it begins, which remains should the process die of one, or an alarm end it."""

    def __init__(self, bench: tune.Bench, rows: Rows, longest: int) -> None:
        self._bench, self._rows, self._longest = bench, rows, longest
        self._now: Case | None = None
        self.facts, self.engine, self.stack = bench.facts, bench.engine, bench.stack

    def layer(self, case: Case, plan: Plan) -> float:
        if case != self._now:
            self._now = case
            self._rows.begin(name_of(case))
        signal.alarm(self._longest)
        try:
            return self._bench.layer(case, plan)
        finally:
            signal.alarm(0)


def run(bench: tune.Bench, rows: Rows, seconds: float, path: Path, every: Iterable[Case], longest: int = 0,
        **where: Any) -> int:
    """Add to the rows, and write the table of all of them; returns how many sizes had no time.

    After `longest` seconds in one launch an alarm ends the process, if it is not 0.
    """
    def keep(row: dict[str, Any]) -> None:
        rows.add(name_of(Case(*(row[k] for k in ("cell", "dtype", "hidden", "batch", "directions")))), measured=row)

    begun = Counter(row["begun"] for row in rows.found if "begun" in row)
    remaining = [c for c in every if name_of(c) not in rows and begun[name_of(c)] < TRIES]
    found, left = tune.search(Noting(bench, rows, longest), seconds, remaining, keep=keep,
                              say=lambda text: print(text, flush=True))
    found["measured"] = [row["measured"] for row in rows.found if "measured" in row]
    tuned.write(path, tune.report(found, **where))
    if "table" not in rows:
        rows.add("table", path=str(path), **{k: v for k, v in found.items() if k != "measured"})
    return left


def wall_time(work: Callable[[], Any]) -> float:
    """Microseconds on the wall, which in the simulator mean nothing."""
    start = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - start)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=270)
    parser.add_argument("--copy", type=Path, help="another folder to put the table into")
    parser.add_argument("--device", choices=("cuda", "sim"), default="cuda")
    parser.add_argument("--output", type=Path, help="instead of kernels/tuned/<arch>.json")
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    import cuframe as cf

    like = cf.zeros(1, device=args.device).array
    if args.device == "sim":
        bench, every = tune.GpuBench(like, wall_time, (8, 2, 40), 1, 3), [Case("lstm", "float16", 16, 3, 1)]
        where: dict[str, Any] = {"gpu": "none"}
    else:
        bench, every = tune.GpuBench(like, tune.event_time), list(tune.cases())
        where = {"gpu": cf.cuda.get_device_name(0)}
    arch = bench.facts.arch
    own = tuned.tuned_path(arch)
    if own.exists() and args.device == "cuda":
        print(f"{own}: this table of the user's own comes before the one that is written; move it away",
              file=sys.stderr)
        return 1
    path = args.output or _paths.kernels_dir() / "tuned" / f"{arch}.json"
    left = run(bench, Rows(args.rows), args.seconds, path, every, _LONGEST if args.device == "cuda" else 0,
               **where, arch=arch, cuframe=cf.__version__, date=date.today().isoformat())
    if args.copy is not None:
        args.copy.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, args.copy)
    return status_of(False, left == 0)


if __name__ == "__main__":
    sys.exit(main())
