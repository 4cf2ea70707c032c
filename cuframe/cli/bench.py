"""Measure how fast cuframe is: against PyTorch, and against what this machine's memory and arithmetic allow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuframe.bench.run import Options, Outcome
    from cuframe.bench.selection import Chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="what can be measured")
    listing.add_argument("pattern", nargs="*", metavar="PATTERN", help="group, family, or part of a case's name")
    listing.add_argument("--device", default="", metavar="cuda|cpu", help="whose cases (default: this machine's)")
    run = commands.add_parser("run", help="measure and print a table")
    add = run.add_argument
    add("pattern", nargs="*", metavar="PATTERN", help="group, family, or part of a case's name, with * if you like")
    add("--device", default="", metavar="cuda|cpu", help="default: cuda where there is a GPU")
    add("--dtype", default=None, metavar="NAMES", help="instead of each family's own, such as float32,bfloat16")
    add("--baseline", choices=("torch",), help="take turns with PyTorch on the same device")
    add("--json", type=Path, metavar="FILE", help="write every row there; rows that it has are not measured again")
    add("--budget", default="7m", metavar="TIME", help="begin no case after so long, such as 20m, or none "
        "(default: %(default)s); the first size of every family comes first")
    add("--timer", choices=("event", "graph", "wall", "process"),
        help="event (cuda's default), graph, wall (cpu's default), process: processor time of all threads (cpu)")
    add("--cold", action="store_true", help="only with caches overwritten (cuda's default: both)")
    add("--warm", action="store_true", help="only with what the last call left in caches (cpu's default)")
    add("--threads", type=int, metavar="N", help="of both libraries on the CPU (default: all cores)")
    add("--ranks", type=int, default=2, metavar="N", help="processes of collectives (default: %(default)s)")
    add("--row-time", default="0.6s", metavar="TIME", help="for the samples of a row (default: %(default)s)")
    add("--retry", action="store_true", help="measure again what failed in FILE")
    show = commands.add_parser("show", help="print the table of a file")
    show.add_argument("file", type=Path)
    compare = commands.add_parser("compare", help="what became slower from file A to file B")
    compare.add_argument("a", type=Path, metavar="A")
    compare.add_argument("b", type=Path, metavar="B")
    compare.add_argument("--fail-over", metavar="5%", help="exit with 1 if a row surely became slower by this or more")
    compare.add_argument("--relative", action="store_true", help="compare ratios to the baseline, not times")
    compare.add_argument("--all", action="store_true", help="print rows that did not change, too")
    plot = commands.add_parser("plot", help="draw roofline and ratios of a file")
    plot.add_argument("file", type=Path)
    plot.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="default: %(default)s")
    plot.add_argument("--format", default="png,svg", help="default: %(default)s")
    past = commands.add_parser("history", help="a row's median over the files of a folder")
    past.add_argument("folder", type=Path)
    past.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="part of the rows' names")
    readme = commands.add_parser("readme", help="README's tables from benchmarks/results/; without --write, check them")
    readme.add_argument("--write", action="store_true")


def run(args: argparse.Namespace) -> int:
    from cuframe.bench.results import BadResults
    from cuframe.bench.run import Refused
    from cuframe.bench.selection import UnknownName

    commands = {"list": _list, "run": _run, "show": _show, "compare": _compare, "plot": _plot, "history": _history,
                "readme": _readme}
    try:
        return commands[args.command](args)
    except (BadResults, Refused, UnknownName) as error:
        print(f"cuframe bench {args.command}: {error}", file=sys.stderr)
        return 2


def _kind(device: str) -> str:
    if device:
        return device
    import cuframe as cf

    return "cuda" if cf.cuda.is_available() else "cpu"


def _option(name: str, read: Any, text: str) -> Any:
    from cuframe.bench.run import Refused

    try:
        return read(text)
    except ValueError as error:
        raise Refused(f"{name}: {error}") from None


def _list(args: argparse.Namespace) -> int:
    from rich.table import Table

    from cuframe.bench.selection import choose
    from cuframe.bench.table import wide_console

    kind = "cuda" if _kind(args.device).startswith("cuda") else "cpu"
    chosen = choose(args.pattern, kind)
    table = Table("group", "family", f"cases on {kind}", "dtypes")
    families = list(dict.fromkeys(c.family.name for c in chosen.cases))
    for name in families:
        own = [c for c in chosen.cases if c.family.name == name]
        table.add_row(own[0].family.group, name, "\n".join(dict.fromkeys(c.label for c in own)),
                      " ".join(dict.fromkeys(c.dtype for c in own)))
    if chosen.collectives:
        table.add_row("collectives", "\n".join(chosen.collectives), "from 4 KiB on, among --ranks processes", "float32")
    wide_console().print(table)
    return 0


def _run(args: argparse.Namespace) -> int:
    from cuframe.bench.run import Options, open_session
    from cuframe.bench.selection import choose, dtypes_of, seconds

    device = _kind(args.device)
    dtypes = None if args.dtype is None else dtypes_of(args.dtype)
    both = args.cold == args.warm
    budget = None if args.budget == "none" else _option("--budget", seconds, args.budget)
    options = Options(
        device, args.timer, args.baseline, both or args.cold, both or args.warm,
        _option("--row-time", seconds, args.row_time), budget, args.threads, args.ranks, args.json, args.retry)
    session = open_session(options) if device.startswith("sim") else None  # before a pattern that it has no case for
    chosen = choose(args.pattern, "cuda" if device.startswith("cuda") else "cpu", dtypes)
    return _measure(options, chosen, session or open_session(options))


def _measure(options: Options, chosen: Chosen, session: Any) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cuframe.bench import clocks
    from cuframe.bench.results import title
    from cuframe.bench.run import go
    from cuframe.bench.table import print_rows

    where = Console(stderr=True)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   console=where, transient=True, disable=not where.is_terminal)
    with bar:
        task = bar.add_task("", total=None)

        def say(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total)

        outcome = go(chosen, session, options, say)
    shown = set(chosen.collectives) | {c.key for c in chosen.cases}
    rows = [r for r in outcome.results.rows if r.get("case", r["key"].rpartition(" ")[0]) in shown
            or r.get("group") == "collectives" and r["family"] in shown]
    print(title(outcome.results.data))
    print(f"timer: {clocks.methods(session.clock)}; contestants take turns; limits measured here: copy "
          f"{session.copy / 1e9:.1f} GB/s" + "".join(f", products {d} {r / 1e12:.3g} TFLOP/s"
                                                     for d, r in session.products.items()))
    print_rows(rows)
    return _end(outcome, options)


def _end(outcome: Outcome, options: Options) -> int:
    again = "the same command goes on" if options.path else "with --json FILE the same command would go on"
    if outcome.left:
        print(f"no time left for {len(outcome.left)} cases, from {outcome.left[0]}; {again}")
    if outcome.stopped:
        print(f"stopped; {again}")
    for note in outcome.notes:
        print(note)
    if outcome.off:
        print(f"{outcome.off} rows are further from the reference than their tolerance", file=sys.stderr)
    return 130 if outcome.stopped else 1 if outcome.failed or outcome.off else 0


def _show(args: argparse.Namespace) -> int:
    from cuframe.bench.results import read, title
    from cuframe.bench.table import print_rows

    data = read(args.file)
    print(title(data))
    print_rows(data["rows"])
    return 0


def _compare(args: argparse.Namespace) -> int:
    from rich.table import Table

    from cuframe.bench.compare import changes, differences, percentage, regressions
    from cuframe.bench.results import BadResults, read, title
    from cuframe.bench.statistics import EFFECT
    from cuframe.bench.table import duration, wide_console

    least = EFFECT if args.fail_over is None else _option("--fail-over", percentage, args.fail_over)
    before, after = read(args.a), read(args.b)
    found = changes(before, after, least, args.relative)
    if not found:
        raise BadResults(f"{args.a} and {args.b} have no row in common" +
                         (" that has the same baseline" if args.relative else ""))
    print(f"A: {title(before)}\nB: {title(after)}")
    if other := differences(before, after):
        print(f"A and B differ in {', '.join(other)}")
    show = (lambda v: f"{v:.3f}") if args.relative else duration
    table = Table("row", "A", "B", "B / A", "99%", "verdict")
    for c in found:
        if args.all or c.kind in ("faster", "slower"):
            table.add_row(c.key, show(c.before), show(c.after), f"{c.ratio:.3f}", f"{c.low:.3f} - {c.high:.3f}", c.kind)
    if table.row_count:
        wide_console().print(table)
    slower = regressions(found)
    counts = {kind: sum(c.kind == kind for c in found) for kind in ("faster", "same", "unclear", "slower")}
    print(f"{len(found)} rows, at least {least:.0%}: " + ", ".join(f"{n} {k}" for k, n in counts.items()))
    return 1 if slower and args.fail_over is not None else 0


def _plot(args: argparse.Namespace) -> int:
    from cuframe import _paths
    from cuframe.bench.results import BadResults, read
    from cuframe.bench.run import Refused

    forms = [f.strip() for f in args.format.split(",") if f.strip()]
    if not forms or any(f not in ("png", "svg", "pdf") for f in forms):
        raise Refused(f"--format must be of png, svg, pdf, got {args.format!r}")
    data = read(args.file)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Refused(f"plot needs matplotlib: {_paths.install_command('plot')}") from None
    from cuframe.bench.plot import draw

    made = draw(data, args.out, args.file.stem, forms)
    if not made:
        raise BadResults(f"{args.file}: no row with a baseline or with bytes and operations, so nothing to draw")
    for path in made:
        print(path)
    return 0


def _history(args: argparse.Namespace) -> int:
    from rich.table import Table

    from cuframe.bench import history
    from cuframe.bench.results import BadResults
    from cuframe.bench.table import duration, wide_console

    if not args.folder.is_dir():
        raise BadResults(f"{args.folder}: no such folder")
    found, others = history.files(args.folder)
    for text in others:
        print(f"left out: {text}", file=sys.stderr)
    rows = history.medians([data for _, data in found], args.pattern)
    if not rows:
        raise BadResults(f"{args.folder}: no row whose name contains {args.pattern!r} in {len(found)} files")
    for i, (path, data) in enumerate(found, 1):
        print(f"{i}: {path.name}, {data['started'][:16]}, commit {(data['facts'].get('commit') or 'unknown')[:10]}")
    table = Table("row", *map(str, range(1, len(found) + 1)), "", "last / first")
    for key, values in rows.items():
        known = [v for v in values if v is not None]
        change = f"{known[-1] / known[0]:.2f}" if len(known) > 1 else ""
        table.add_row(key, *("" if v is None else duration(v) for v in values), history.spark(values), change)
    wide_console().print(table)
    return 0


def _readme(args: argparse.Namespace) -> int:
    from cuframe import _paths
    from cuframe.bench import readme
    from cuframe.bench.results import BadResults
    from cuframe.bench.run import Refused

    root = _paths.checkout_root()
    if root is None:
        raise Refused("README.md is made in a checkout; this is an installed wheel")
    path = root / "README.md"
    text = path.read_text()
    try:
        made = readme.replaced(text, readme.tables(root / "benchmarks" / "results"))
    except ValueError as error:
        raise BadResults(str(error)) from None
    if args.write:
        path.write_text(made)
        print(f"{path}: {'already so' if made == text else 'written'}")
        return 0
    if made != text:
        print("README.md differs from benchmarks/results/: `make readme` writes its tables", file=sys.stderr)
        return 1
    return 0
