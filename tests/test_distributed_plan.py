"""`cuframe plan`: the model against values computed by hand, and against all-reduces of this machine."""

from __future__ import annotations

import json
import os
import re

import pytest

from cuframe.cli import main
from cuframe.distributed.plan import Cluster, Link, best_cap, fit, overlap, parse_bytes
from tests.ranks import check_ranks

MIB = 1 << 20


def test_sizes_have_units():
    known = {"1": 1, "1.34GB": 1.34e9, "25MiB": 25 * MIB, " 2 kB ": 2000, "1e3 K": 1e6, "0.5TiB": 2**39, ".5G": 5e8}
    for text, value in known.items():
        assert parse_bytes(text) == value, text
    for text in ("", "GB", "-1GB", "0", "1 furlong", "1.2.3", "1 Gb"):
        with pytest.raises(ValueError, match="must be a number above 0 with a unit"):
            parse_bytes(text)


def test_a_ring_takes_what_it_takes_by_hand():
    inside, between = Link(1e-6, 2e9), Link(10e-6, 1e9)
    node = Cluster(4, 4, inside, between, launch=0)
    assert node.ring(4e6) == pytest.approx(6 * 1e-6 + 6 * 1e6 / 2e9)  # 6 steps of a quarter each
    assert node.all_reduce(4e6) == node.ring(4e6) == node.tree(4e6)  # one node has no tree
    two = Cluster(4, 2, inside, between, launch=5e-6)  # 2 of the 4 links lead to the other node
    assert two.ring(4e6) == pytest.approx(5e-6 + 6 / 4 * (2 * 10e-6 + 2 * 1e-6) + 6 * 1e6 / 1e9)
    assert Cluster(1).ring(1e9) == Cluster(1).tree(1e9) == Cluster(1).all_reduce(1e9) == 0


def test_a_tree_takes_what_it_takes_by_hand():
    four = Cluster(8, 2, Link(1e-6, 2e9), Link(10e-6, 1e9), launch=0)
    # in the node 2 steps of half the bytes; 2 levels up and 2 down, and twice the bytes
    assert four.tree(1e6) == pytest.approx(2 * 1e-6 + 2 * 0.5e6 / 2e9 + 4 * 10e-6 + 2 * 1e6 / 1e9)
    five = Cluster(9, 2, Link(0, 1e12), Link(1.0, 1e12), launch=0)
    assert five.nodes == 5 and five.tree(1) == pytest.approx(6)  # 3 levels, the last not full
    large = Cluster(8192)
    assert large.all_reduce(MIB) == large.tree(MIB) < large.ring(MIB)


def test_overlap_by_hand():
    def all_reduce(size: float) -> float:
        return 10.0 + size

    hidden = overlap(100.0, 200.0, 25.0, all_reduce)  # ready at 50, 100, 150 and 200, 35 each
    assert (hidden.buckets, hidden.size, hidden.each, hidden.exposed) == (4, 25, 35, 35)
    assert hidden.hidden == pytest.approx(0.75)
    late = overlap(100.0, 100.0, 25.0, all_reduce)  # 25 to 60, 95, 130, 165
    assert late.exposed == 65 and overlap(100.0, 100.0, 1000.0, all_reduce).exposed == 110
    assert overlap(100.0, 100.0, 40.0, all_reduce).buckets == 3
    assert overlap(100.0, 100.0, 10.0, lambda size: 0.0).hidden == 1
    # 100 / n each and 10 more for each of n: fewest exposed while n (10 + 100 / n) <= 200
    best = best_cap(100.0, 200.0, all_reduce, least=1.0)
    assert overlap(100.0, 200.0, best, all_reduce).exposed == min(
        overlap(100.0, 200.0, 1.1**i, all_reduce).exposed for i in range(50)
    )


def test_what_the_design_found_for_8192_gpus():
    """Exposed ms were 246, 0.45, 0.67 and 14.3: an earlier model, with latencies of its own."""
    time = Cluster(8192).all_reduce
    exposed = {cap: 1e3 * overlap(1.34e9, 0.2, cap * MIB, time).exposed for cap in (1, 5, 25, 1e9)}
    assert exposed[1] == pytest.approx(246, rel=0.02) and exposed[1e9] == pytest.approx(14.3, rel=0.01)
    assert exposed[5] == pytest.approx(0.396, abs=1e-3)  # launch, 14 steps inside, 20 between, and 5.2 MB
    assert exposed[25] == pytest.approx(0.610, abs=1e-3)
    assert 1 < best_cap(1.34e9, 0.2, time) / MIB < 5


def test_a_line_is_found():
    line = fit([(s, 3e-5 + s / 2e9) for s in (1e3, 1e5, 1e7)])
    assert line.latency == pytest.approx(3e-5) and line.bandwidth == pytest.approx(2e9)
    assert line.time(1e6) == pytest.approx(5.3e-4)
    convex = fit([(1e6, 1e-3), (2e6, 4e-3)])  # a line through both would start below 0
    assert convex.latency == 0 and convex.bandwidth == pytest.approx(1e9 * (1 + 0.25) / (1 + 0.5))
    with pytest.raises(ValueError, match="times that grow with the sizes"):
        fit([(1.0, 1.0)])


def test_all_reduces_are_measured():
    out = check_ranks(2, """
import json
from cuframe.distributed import measure
def main(rank, size):
    dist.init_process_group(timeout=60)
    points = measure.measure(rounds=2)
    if rank == 0:
        print(json.dumps(points))
    dist.destroy_process_group()
""")  # fmt: skip
    points = json.loads(out)
    assert [size for size, _ in points] == [1 << p for p in range(15, 26)] and all(t > 0 for _, t in points)
    assert points[-1][1] > points[0][1]


def test_the_command_prints_tables_and_assumptions(capfd):
    assert main(["plan", "1.34GB", "--ranks", "8,8192", "--caps", "25,1,5"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("1.34 GB of gradients, 200 ms of backward\n\n8 ranks in one node\n")
    rows = out.partition("8192 ranks in 1024 nodes of 8")[2].splitlines()[2:6]
    assert [row.split()[0] for row in rows] == ["1", "5", "25", "one"]
    assert rows[1].split() == ["5", "256", "0.396", "tree", "101.3", "99.6%", "0.40"]
    assert rows[3].split() == ["one", "bucket", "1", "14.336", "tree", "14.3", "0.0%", "14.34"]
    assert "4 us and 370 GB a second" in out and "double\nbinary tree" in out
    assert main(["plan", "1GB", "--ranks", "1", "--algorithm", "ring"]) == 0
    assert re.search(r"one bucket +1 +0.000 +0.0 +100.0% +0.00", capfd.readouterr().out)


def test_the_command_measures_this_machine(capfd, monkeypatch):
    points = [(float(1 << p), 1e-4 + (1 << p) / 4e9) for p in range(15, 26)]
    asked = []
    monkeypatch.setattr("cuframe.cli.plan._measured", lambda ranks: asked.append(ranks) or points)
    assert main(["plan", "100MB", "--measure"]) == 0
    out = capfd.readouterr().out
    assert asked == [max(2, len(os.sched_getaffinity(0)))] and out.count(" 0.0%") + out.count("-0.0%") >= 11
    assert "fitted: 100 us + bytes / 4 GB a second" in out and "median 0%, largest 0%" in out


@pytest.mark.slow
def test_ranks_are_started_to_measure(capfd):
    assert main(["plan", "100MB", "--measure", "--ranks", "2"]) == 0
    assert re.search(r"fitted: \d+ us \+ bytes / [\d.]+ GB a second", capfd.readouterr().out)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["lots"], "MODEL_BYTES must be a number above 0 with a unit such as B, MB, MiB or GB, got 'lots'"),
        (["1GB", "--backward", "0"], "--backward must be a number above 0, got 0.0"),
        (["1GB", "--ranks", "8,x"], "--ranks must be a whole number above 0, got 'x'"),
        (["1GB", "--caps", "1,-2"], "--caps must be a number above 0, got '-2'"),
        (["1GB", "--ranks-per-node", "0"], "--ranks-per-node must be a whole number above 0, got 0"),
        (["1GB", "--latency-inside", "-1"], "--latency-inside must not be negative, got -1"),
        (["1GB", "--bandwidth-between", "fast"], "--bandwidth-between must be a number above 0 with a unit"),
        (["1GB", "--measure", "--ranks", "2,4"], "--measure: --ranks must be one number above 1, got 2,4"),
    ],
)
def test_options_are_checked(options, text, capfd):
    assert main(["plan", *options]) == 2
    assert text in capfd.readouterr().err
