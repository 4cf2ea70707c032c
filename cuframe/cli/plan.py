"""Estimate how much of data-parallel communication backward hides, by size of buckets, for any number of ranks."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cuframe.distributed.plan import Cluster, Link

_MIB = 1 << 20
_CAPS, _RANKS = "1,2,5,10,25,50,100,250", "8,64,512,8192"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bytes", metavar="MODEL_BYTES", help="bytes of gradients of one replica, such as 1.34GB or 25MiB")
    add("--backward", type=float, default=200.0, metavar="MS", help="time of backward alone, in ms (default: 200)")
    add("--ranks", metavar="N,...", help=f"numbers of ranks (default: {_RANKS}; with --measure, one for each core)")
    add("--ranks-per-node", type=int, default=8, metavar="N", help="(default: 8)")
    add("--bandwidth-inside", default="370GB", metavar="BYTES", help="a second, of a rank in its node (default: 370GB)")
    add("--latency-inside", type=float, default=4.0, metavar="US", help="between its ranks, in us (default: 4)")
    add("--bandwidth-between", default="350GB", metavar="BYTES", help="a second, of a whole node (default: 350GB)")
    add("--latency-between", type=float, default=14.0, metavar="US", help="between nodes, in us (default: 14)")
    add("--launch", type=float, default=5.0, metavar="US", help="cost of each all-reduce beside, in us (default: 5)")
    add("--algorithm", choices=("auto", "ring", "tree"), default="auto", help="auto: the faster (default)")
    add("--caps", default=_CAPS, metavar="MIB,...", help=f"sizes of buckets, in MiB (default: {_CAPS})")
    add("--measure", action="store_true",
        help="time all-reduces among processes of this machine, and plan for these with what they took")


def run(args: argparse.Namespace) -> int:
    from cuframe.distributed.errors import DistributedError

    try:
        return _run(args)
    except (ValueError, DistributedError) as error:
        print(f"cuframe plan: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    from cuframe.distributed.plan import Cluster, Link, fit

    total, backward = _bytes("MODEL_BYTES", args.bytes), _positive("--backward", args.backward) / 1e3
    caps = [_positive("--caps", text) * _MIB for text in args.caps.split(",")]
    here = str(max(2, len(os.sched_getaffinity(0)))) if args.measure else _RANKS
    ranks = [_count("--ranks", text) for text in (args.ranks or here).split(",")]
    inside = Link(_time("--latency-inside", args.latency_inside), _bytes("--bandwidth-inside", args.bandwidth_inside))
    between = Link(
        _time("--latency-between", args.latency_between), _bytes("--bandwidth-between", args.bandwidth_between)
    )
    per_node, launch = _count("--ranks-per-node", args.ranks_per_node), _time("--launch", args.launch)
    print(f"{_size(total)} of gradients, {1e3 * backward:g} ms of backward")
    if args.measure:
        if len(ranks) > 1 or ranks[0] < 2:
            raise ValueError(f"--measure: --ranks must be one number above 1, got {args.ranks}")
        points = _measured(ranks[0])
        line = fit(points[::2])
        _print_fit(points, line.time, ranks[0])
        print(f"fitted: {1e6 * line.latency:.0f} us + bytes / {_size(line.bandwidth)} a second")
        _print_plan(f"{ranks[0]} ranks of this machine", total, backward, caps, line.time, None)
        return 0
    for n in ranks:
        cluster = Cluster(n, per_node, inside, between, launch)
        where = f"{n} ranks in {cluster.nodes} nodes of {per_node}" if cluster.nodes > 1 else f"{n} ranks in one node"
        time = {"auto": cluster.all_reduce, "ring": cluster.ring, "tree": cluster.tree}[args.algorithm]
        _print_plan(where, total, backward, caps, time, cluster)
    _print_assumptions(inside, between, launch)
    return 0


def _print_plan(
    where: str, total: float, backward: float, caps: list[float], time: Callable[[float], float],
    cluster: "Cluster | None",
) -> None:  # fmt: skip
    from cuframe.distributed.plan import best_cap, overlap

    head = f"{'cap MiB':>10}{'buckets':>9}{'ms each':>10}{'by':>6}{'ms all':>10}{'hidden':>9}{'exposed ms':>12}"
    print(f"\n{where}\n{head}")
    best = best_cap(total, backward, time)
    for cap in [*sorted(cap for cap in caps if cap < total), total]:
        found = overlap(total, backward, cap, time)
        way = "" if cluster is None or cluster.ranks == 1 else _way(cluster, found.size, time)
        name = "one bucket" if cap == total else f"{cap / _MIB:g}"
        print(f"{name:>10}{found.buckets:>9}{1e3 * found.each:>10.3f}{way:>6}{1e3 * found.buckets * found.each:>10.1f}"
              f"{100 * found.hidden:>8.1f}%{1e3 * found.exposed:>12.2f}")  # fmt: skip
    least = overlap(total, backward, best, time)
    print(f"best: {best / _MIB:.3g} MiB, {1e3 * least.exposed:.2f} ms exposed")


def _way(cluster: "Cluster", size: float, time: Callable[[float], float]) -> str:
    return "ring" if time(size) == cluster.ring(size) else "tree"


def _print_fit(points: list[tuple[float, float]], time: Callable[[float], float], ranks: int) -> None:
    print(f"\nall-reduce among {ranks} processes of this machine, load {os.getloadavg()[0]:.1f}")
    print(f"{'KiB':>10}{'measured ms':>13}{'model ms':>10}{'error':>9}")
    errors = []
    for i, (size, seconds) in enumerate(points):
        error = time(size) / seconds - 1
        if i % 2:
            errors.append(abs(error))
        mark = "" if i % 2 else "  fitted"
        print(f"{size / 1024:>10.0f}{1e3 * seconds:>13.3f}{1e3 * time(size):>10.3f}{100 * error:>8.1f}%{mark}")
    middle = sorted(errors)[len(errors) // 2]
    print(f"error at the sizes that were not fitted: median {100 * middle:.0f}%, largest {100 * max(errors):.0f}%")


def _print_assumptions(inside: "Link", between: "Link", launch: float) -> None:
    print(f"""
assumed: a rank in its node has {1e6 * inside.latency:g} us and {_size(inside.bandwidth)} a second to others, a node
{1e6 * between.latency:g} us and {_size(between.bandwidth)} a second; launching an all-reduce takes {1e6 * launch:g} us.
Gradients become ready at an even pace, in buckets of one size; all-reduces run one after the other, beside backward,
and slow it down not at all. Ring: 2(n-1) steps, k of n links between k nodes. Tree: rings in the nodes, and a double
binary tree of nodes. No congestion, no stragglers, no failures.""")


def _measured(ranks: int) -> list[tuple[float, float]]:
    import tempfile
    from pathlib import Path

    from cuframe.distributed.errors import DistributedError
    from cuframe.distributed.launcher import Plan, launch

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "points.json"
        status = launch(Plan([sys.executable, "-m", "cuframe.distributed.measure", str(file)], ranks))
        if status:
            raise DistributedError(f"--measure: the ranks ended with status {status}")
        return [(float(size), float(seconds)) for size, seconds in json.loads(file.read_text())]


def _bytes(name: str, text: str) -> float:
    from cuframe.distributed.plan import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _positive(name: str, value: str | float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
    return number


def _time(name: str, microseconds: float) -> float:
    if not 0 <= microseconds < float("inf"):
        raise ValueError(f"{name} must not be negative, got {microseconds:g}")
    return microseconds / 1e6


def _count(name: str, value: str | int) -> int:
    text = str(value)
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {value!r}")
    return int(text)


def _size(count: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count:g} B"
