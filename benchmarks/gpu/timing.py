"""Times a family with the harness behind `cuframe bench`, a row as soon as it is measured.

    python -m benchmarks.gpu.timing softmax [layer_norm ...] [--sizes first|other|all]

How times are taken stands in `cuframe/bench/clocks.py`, Note [Timing on a GPU].
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from benchmarks.gpu.runner import Rows
from cuframe.bench.case import Family
from cuframe.bench.families import FAMILIES, family
from cuframe.bench.measure import Session, rows_of
from cuframe.bench.run import Options, open_session
from cuframe.bench.selection import first_size

SECONDS = 0.5                           # that the samples of a row may take
_TRIES = 2                              # for a case that ended the process, or was cut off


def time_family(chosen: Family, rows: Rows, session: Session, sizes: str = "all") -> int:
    """A row for each size, dtype and mode that has none yet; returns how many cases failed.

    Args:
        sizes: the "first" of them, the "other" ones, or "all".
    """
    failed = 0
    for case in chosen.cases(session.kind):
        known = {row["key"]: row for row in rows.found}
        own = [row for key, row in known.items() if key.rpartition(" ")[0] == case.key]
        done = own and len(own) >= len(own[0].get("modes", [1]))
        if done or (sizes != "all" and (sizes == "first") != first_size(case, session.kind)):
            continue
        try:
            if begun(case.key, rows) > _TRIES:
                raise RuntimeError(f"the process ended within it {_TRIES} times")
            for row in rows_of(case, session, known):
                rows.add(**row)
        except Exception as error:
            failed += 1
            rows.add(f"{case.key} error", error_text=f"{type(error).__name__}: {error}"[:1000])
            # after an error of the device nothing works in this process
            session.clock.turn()
    return failed


def begun(key: str, rows: Rows) -> int:
    """Note that a case is under way, which remains should the process die of it; and count how often it was."""
    count = 1 + sum(row.get("begun") == key for row in rows.found)
    rows.add(f"begun {count}: {key}", begun=key)
    return count


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="+", choices=[f.name for f in FAMILIES], metavar="FAMILY")
    parser.add_argument("--sizes", choices=("first", "other", "all"), default="all")
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    session = open_session(Options("cuda", baseline="torch" if find_spec("torch") else None, seconds=SECONDS))
    rows = Rows(args.rows)
    failed = sum(time_family(family(name), rows, session, args.sizes) for name in args.families)
    if "limits" not in rows:
        rows.add("limits", copy=session.copy, products=session.products)
    off = [r["key"] for r in rows.found if r.get("within") is False]
    if off:
        print("further from the reference than the tolerance:", *off, sep="\n  ")
    return 1 if failed or off else 0


if __name__ == "__main__":
    sys.exit(main())
