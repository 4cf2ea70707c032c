"""Runs each family many times on one input and asks for the same bits.

    python -m benchmarks.gpu.repeats softmax [layer_norm ...] [--count 250] [--device cuda|sim] [--plain]

`--plain` takes each array straight from the driver, so that a sanitizer sees its end; with `--count 1` that is what the
sanitizers run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.gpu.runner import TRIES, Rows
from cuframe.bench.case import Family, Side, passes
from cuframe.bench.families import FAMILIES, family

COUNT = 250
_LONGEST = 90                           # seconds after which a family is taken for one that hangs


def _several(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (tuple, list)) else (result,)


def _bits(result: Any) -> list[Any]:
    """Raw arrays of a result as bytes, on their device."""
    return [r.array.copy(order="C").reshape(-1).view(np.uint8) for r in _several(result)]


def different(chosen: Family, dtype: str, cf: Any, device: str, count: int) -> dict[str, int]:
    """By mode, how many of `count` runs after the first gave other bits."""
    side = Side(cf, device, dtype)
    work = chosen.build(side, *chosen.small)
    found = {}
    if work.stateful:
        # three steps from the start, several times
        def steps() -> Any:
            call = chosen.build(side, *chosen.small).call
            return [r.clone() for _ in range(3) for r in _several(call())]

        modes = {"step": steps}
        count = min(count, 50)
    else:
        modes = passes(work, cf)
    for mode, call in modes.items():
        first = _bits(call())
        wrong = 0
        pending = None
        for _ in range(count):
            same = None
            for a, b in zip(first, _bits(call())):
                equal = (a == b).all()
                same = equal if same is None else same & equal
            # the sum stays on the device: asking at each run would slow it and hide what happens between runs
            bad = (~same).astype(np.int64)
            pending = bad if pending is None else pending + bad
        wrong = 0 if pending is None else int(pending)
        found[mode] = wrong
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="+", choices=[f.name for f in FAMILIES], metavar="FAMILY")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    import cuframe as cf

    if args.plain and args.device == "cuda":
        import cupy

        cupy.cuda.set_allocator(None)
    rows = Rows(args.rows)
    for chosen in map(family, args.families):
        for dtype in chosen.small_dtypes[:1] if args.device == "sim" else chosen.small_dtypes:
            key = f"{chosen.name} {dtype}"
            if key in rows:
                continue
            if rows.begin(key) > TRIES:
                rows.add(key, error=f"the process ended within it {TRIES} times")
                continue
            signal.alarm(_LONGEST if args.device == "cuda" else 0)
            try:
                found = different(chosen, dtype, cf, args.device, args.count)
                rows.add(key, sizes=list(chosen.small), runs=args.count, different=found)
            except Exception as error:
                rows.add(key, error=f"{type(error).__name__}: {error}"[:1000])
            signal.alarm(0)
    bad = [row for row in rows.found if "error" in row or any(row.get("different", {}).values())]
    for row in bad:
        print(f"{row['key']}: {row.get('error') or row['different']}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
