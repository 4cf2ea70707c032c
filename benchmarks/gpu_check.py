"""Checks and measures cuframe on an NVIDIA GPU, from a bare checkout: `make gpu-check`.

    python benchmarks/gpu_check.py [--budget 8m] [--only STAGE[:UNIT]] [--resume] [--results DIR]
    python benchmarks/gpu_check.py --show benchmarks/results/nvidia-h200-2026-11-23.json
    python benchmarks/gpu_check.py --list
    python benchmarks/gpu_check.py --rehearse [--only STAGE[:UNIT]]

Stages: environment, compile, correctness (the tests that run on a device), repeats (250 runs, bit for bit), tune (which
launches are fastest here), timings (against PyTorch where it is installed), sanitizer (compute-sanitizer where it is
found), grid (as many sizes of recurrent layers and attention as time allows).  Each unit is a process with a time
limit; results are in the JSON file as soon as a unit ends, and `--resume` runs what has none yet.  The exit status is 0
when all passed, 1 when something failed, 2 when there is no GPU to ask.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# first, or what else is called `benchmarks` would be found; the folder of this script is no place to import from
sys.path[:] = [str(ROOT), *(p for p in sys.path if p != str(Path(__file__).resolve().parent))]

from benchmarks.gpu import plan, report  # noqa: E402
from benchmarks.gpu.environment import commit  # noqa: E402
from benchmarks.gpu.runner import Results, run  # noqa: E402
from cuframe.bench import selection  # noqa: E402


def seconds(text: str) -> float:
    """`90`, `90s`, `8m`, `1.5h` in seconds."""
    try:
        return selection.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=seconds, default=480, help="time for all, such as 8m (default)")
    parser.add_argument("--only", action="append", default=[], metavar="STAGE[:UNIT]",
                        help="run only this, again if it has run, without --resume (several times: each)")
    parser.add_argument("--resume", action="store_true", help="go on with the latest results of this GPU")
    parser.add_argument("--results", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print a file of results as Markdown")
    parser.add_argument("--list", action="store_true", help="print the units and run none")
    parser.add_argument("--rehearse", action="store_true",
                        help="in the simulator, of small sizes and without PyTorch: shows that units run, and no more")
    args = parser.parse_args(argv)
    args.results = args.results or (ROOT / "runs" / "rehearsal" if args.rehearse else plan.RESULTS)
    return args


def place(folder: Path, gpu: str, date: str, again: bool) -> tuple[Path, bool]:
    """Where the results go, and whether they are to be added to what is there."""
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    if again:
        earlier = sorted(folder.glob(f"{slug}-20*.json"))
        if earlier:
            return earlier[-1], True
    path, number = folder / f"{slug}-{date}.json", 2
    while path.exists():
        path, number = folder / f"{slug}-{date}-{number}.json", number + 1
    return path, False


def now() -> str:
    return datetime.datetime.now().isoformat("T", "seconds")


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.show:
        print(report.markdown(Results.load(args.show).data))
        return 0
    if args.list:
        for unit in (plan.environment_unit(), *plan.plan("sm_NN")):
            print(f"{unit.name:45} {unit.limit:4.0f} s")
        return 0
    device = "sim" if args.rehearse else "cuda"
    today = datetime.date.today().isoformat()
    fresh = Results.new(args.results / f"unknown-{today}.json")
    fresh.save = lambda: None  # type: ignore[method-assign]  # it has no name before the GPU has told its own
    passed = run([plan.environment_unit(device)], fresh, budget=min(120, args.budget / 2))
    found = fresh.units["environment"]
    facts = {row["key"]: row for row in found.get("rows", [])}
    if "device" not in facts:
        print("gpu-check: no GPU can be used here; nothing was run:", file=sys.stderr)
        print("  " + found.get("error", "").strip().replace("\n", "\n  "), file=sys.stderr)
        return 2
    path, again = place(args.results, facts["device"]["gpu"], today, args.resume or bool(args.only))
    results = Results.load(path) if again else Results.new(
        path, gpu=facts["device"]["gpu"], date=today, started=now(), **commit())
    results.units["environment"] = found
    results.save()
    print(f"results: {path}")
    try:
        units = plan.chosen(plan.plan(plan.arch_of(facts), device, args.results),
                            [o for o in args.only if o != "environment"], device)
    except ValueError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    if args.only and not args.resume:
        for unit in units:
            results.units.pop(unit.name, None)
    if args.only != ["environment"]:
        left = args.budget - found["seconds"]
        passed &= run(units, results, budget=left, shares=plan.SHARES, together=plan.TOGETHER)
    results.data["finished"] = now()
    results.save()
    print(report.summary(results.data))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
