"""Times families with the harness behind `cuframe bench`, a row as soon as it is measured.

    python -m benchmarks.gpu.timing softmax [layer_norm ...] [--sizes first|other|all]
    python -m benchmarks.gpu.timing --sizes grid --seconds 600

How times are taken stands in `cuframe/bench/clocks.py`, Note [Timing on a GPU].
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from math import inf

from benchmarks.gpu.runner import TRIES, Rows, status_of
from cuframe.bench.case import Case, Family
from cuframe.bench.clocks import HostClock
from cuframe.bench.families import FAMILIES, family
from cuframe.bench.measure import Session, rows_of
from cuframe.bench.run import Options, open_session
from cuframe.bench.selection import first_size

# that the samples of a row may take; the grid has so many rows that their number makes up for it
SECONDS, GRID_SECONDS = 0.3, 0.1
_LONGEST = 90                           # seconds after which a case is taken for one that hangs


def cases_of(chosen: Iterable[Family], kind: str, sizes: str = "all") -> list[Case]:
    """What is timed: the "first" of the families' sizes, the "other" ones, "all", or those of their "grid".

    The grid's order is that of a fixed draw within each round, and groups take turns: whenever time ends, what has been
    measured is a fair sample.
    """
    if sizes != "grid":
        return [c for f in chosen for c in f.cases(kind) if sizes == "all" or (sizes == "first") == first_size(c, kind)]
    groups: dict[str, list[tuple[int, Case]]] = {}
    for f in chosen:
        groups.setdefault(f.group, []).extend(f.grid_cases())
    ranked = []
    for place, members in enumerate(groups.values()):
        members.sort(key=lambda m: (m[0], zlib.crc32(m[1].key.encode())))
        ranked += [(turn, i, place, case) for i, (turn, case) in enumerate(members)]
    return [case for *_, case in sorted(ranked, key=lambda r: r[:3])]


def time_cases(cases: Sequence[Case], rows: Rows, session: Session, until: float = inf, longest: int = 0) -> bool:
    """Rows for each case, a mode after another, that has none yet; whether there was time for all.

    After `longest` seconds in one case an alarm ends the process, if it is not 0.
    """
    for case in cases:
        known = {row["key"]: row for row in rows.found}
        own = [row for key, row in known.items() if key.rpartition(" ")[0] == case.key]
        if own and len(own) >= len(own[0].get("modes", [1])):
            continue
        if time.monotonic() > until:
            return False
        signal.alarm(longest)
        try:
            if rows.begin(case.key) > TRIES:
                raise RuntimeError(f"the process ended within it {TRIES} times")
            for row in rows_of(case, session, known):
                rows.add(**row)
        except Exception as error:
            rows.add(f"{case.key} error", error_text=f"{type(error).__name__}: {error}"[:1000])
            try:
                session.clock.turn()
            except Exception:  # after an error of the device nothing works in this process: another one goes on
                print(f"{case.key}: {type(error).__name__}: {error}", file=sys.stderr)
                return False
        finally:
            signal.alarm(0)
    return True


def rehearsal(cases: Iterable[Case]) -> tuple[list[Case], Session]:
    """The same in the simulator and of small sizes; its times mean nothing."""
    clock = HostClock()
    clock.rounds = 1  # type: ignore[misc]
    small = {(c := Case(case.family, case.family.small, case.family.small_dtypes[0])).key: c for case in cases}
    return list(small.values()), Session("cuda", "sim", clock, cold=False, seconds=0.01, copy=1e12, exact=False)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*", choices=[*(f.name for f in FAMILIES), []], metavar="FAMILY")
    parser.add_argument("--sizes", choices=("first", "other", "all", "grid"), default="all")
    parser.add_argument("--seconds", type=float, default=inf, help="begin no case after so long")
    parser.add_argument("--device", choices=("cuda", "sim"), default="cuda")
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    until = time.monotonic() + args.seconds
    chosen = [family(name) for name in args.families] or FAMILIES
    cases = cases_of(chosen, "cuda", args.sizes)
    if args.device == "sim":
        cases, session = rehearsal(cases)
    else:
        grid = args.sizes == "grid"
        session = open_session(Options("cuda", baseline="torch" if find_spec("torch") else None,
                                       seconds=GRID_SECONDS if grid else SECONDS))
        session = replace(session, exact=not grid)
    rows = Rows(args.rows)
    finished = time_cases(cases, rows, session, until, _LONGEST if args.device == "cuda" else 0)
    if "limits" not in rows:
        rows.add("limits", copy=session.copy, products=session.products)
    failed = [r for r in rows.found if "error_text" in r or r.get("within") is False]
    for row in failed:
        print(f"{row['key']}: {row.get('error_text', 'further from the reference than the tolerance')}")
    return status_of(bool(failed), finished)


if __name__ == "__main__":
    sys.exit(main())
