"""How long data-parallel all-reduces take, and how much of that backward hides: an alpha-beta model.

Note [The model]
    Sending m bytes over a link takes alpha + m / beta: latency and bandwidth. An all-reduce of S bytes among n ranks, g
    in each of k nodes, is one of two:

    ring    2 (n-1) steps along a ring that visits a node's ranks one after the other, so that k of n links lead to
            another node:
            2 (n-1)/n (k alpha_between + (n - k) alpha_inside) + 2 (n-1)/n S / min(beta_inside, beta_between)
    tree    in each node a ring of its own, 2 (g-1) alpha_inside + 2 (g-1)/g S / beta_inside; then up and down a double
            binary tree of nodes, 2 ceil(log2 k) alpha_between + 2 S / beta_between

    beta_inside is one rank's, beta_between a whole node's. Each all-reduce costs its launch as well. Gradients become
    ready at an even pace while backward runs, in buckets of one size; all-reduces run one after the other, beside
    backward and at no cost to it. What is left of them when backward ends is exposed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Cluster", "Fit", "Link", "Overlap", "best_cap", "fit", "overlap", "parse_bytes"]

_UNITS = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for power, letter in enumerate("KMGT", 1)
    for prefix, suffix, base in ((letter, "", 1000), (letter, "B", 1000), (letter, "iB", 1024))
}
_UNITS |= {"k": 1000, "kB": 1000}


def parse_bytes(text: str) -> float:
    """The number of bytes that `1.34GB`, `25MiB` or `1000` means.

    Raises:
        ValueError: it is no number above 0 with a unit of bytes.

    >>> parse_bytes("25MiB"), parse_bytes("1.34 GB")
    (26214400.0, 1340000000.0)
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE]\+?[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise ValueError(f"must be a number above 0 with a unit such as B, MB, MiB or GB, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Link:
    """A way from rank to rank, or from node to node.

    Attributes:
        latency: seconds until the first byte is there.
        bandwidth: bytes a second, as all-reduces get it.
    """

    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Cluster:
    """What the ranks run on; the defaults are nodes of eight H100s with eight 400 Gb/s network cards.

    Attributes:
        ranks: how many there are.
        per_node: how many of them share a node.
        inside: between ranks of a node. Default: NVLink 4, 4 us, 370 of 450 GB/s.
        between: between nodes. Default: eight cards together, 14 us, 350 of 400 GB/s.
        launch: seconds each all-reduce costs beside.

    >>> node = Cluster(4, 4, Link(1e-6, 1e9), launch=0.0)
    >>> round(1e3 * node.ring(4e6), 6)  # 6 steps of 1 us, and 2 * 3/4 * 4 MB at 1 GB/s
    6.006
    """

    ranks: int
    per_node: int = 8
    inside: Link = Link(4e-6, 370e9)
    between: Link = Link(14e-6, 350e9)
    launch: float = 5e-6

    @property
    def nodes(self) -> int:
        return -(-self.ranks // self.per_node)

    def ring(self, size: float) -> float:
        """Seconds of an all-reduce of `size` bytes along a ring."""
        n, k = self.ranks, self.nodes
        if n == 1:
            return 0.0
        crossing = k if k > 1 else 0
        steps = 2 * (n - 1) / n
        latency = crossing * self.between.latency + (n - crossing) * self.inside.latency
        bandwidth = min(self.inside.bandwidth, self.between.bandwidth) if k > 1 else self.inside.bandwidth
        return self.launch + steps * latency + steps * size / bandwidth

    def tree(self, size: float) -> float:
        """Seconds of an all-reduce of `size` bytes: rings in the nodes, and a double binary tree of nodes."""
        if self.ranks == 1:
            return 0.0
        g, k = min(self.ranks, self.per_node), self.nodes
        time = self.launch + 2 * (g - 1) * self.inside.latency + 2 * (g - 1) / g * size / self.inside.bandwidth
        if k > 1:
            time += 2 * math.ceil(math.log2(k)) * self.between.latency + 2 * size / self.between.bandwidth
        return time

    def all_reduce(self, size: float) -> float:
        """Seconds of the faster of both."""
        return min(self.ring(size), self.tree(size))


@dataclass(frozen=True)
class Overlap:
    """How the all-reduces of a step fit beside its backward.

    Attributes:
        buckets: how many.
        size: bytes of one.
        each: seconds of one all-reduce.
        exposed: seconds that the step waits for after backward.
    """

    buckets: int
    size: float
    each: float
    exposed: float

    @property
    def hidden(self) -> float:
        """The part of the all-reduces' time that backward hides, 0 to 1."""
        total = self.buckets * self.each
        return max(0.0, 1 - self.exposed / total) if total else 1.0


def overlap(total: float, backward: float, cap: float, time: Callable[[float], float]) -> Overlap:
    """All-reduce `total` bytes in the fewest equal buckets of at most `cap` bytes.

    Args:
        total: bytes of gradients.
        backward: seconds.
        cap: bytes.
        time: seconds of an all-reduce from its bytes.

    >>> overlap(100.0, 0.1, 25.0, lambda size: 0.04).exposed  # ready at 25 ms and then every 25 ms; done at 185 ms
    0.085
    """
    count = max(1, math.ceil(total / cap - 1e-9))
    each = time(total / count)
    end = 0.0
    for i in range(count):
        end = max(end, backward * (i + 1) / count) + each
    return Overlap(count, total / count, each, round(end - backward, 12))


def best_cap(total: float, backward: float, time: Callable[[float], float], least: float = 65536.0) -> float:
    """The cap in bytes that exposes least: of those that do, the largest; caps are tried in steps of a tenth."""
    caps = [least * 1.1**i for i in range(1 + math.ceil(math.log(max(1.0, total / least), 1.1)))]
    return min(reversed(caps), key=lambda cap: overlap(total, backward, cap, time).exposed)


@dataclass(frozen=True)
class Fit:
    """A line through measured all-reduces: seconds = latency + bytes / bandwidth."""

    latency: float
    bandwidth: float

    def time(self, size: float) -> float:
        return self.latency + size / self.bandwidth


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """The line with the least sum of squares of relative errors; its latency is not negative.

    Args:
        points: (bytes, seconds) of all-reduces; at least two, of different sizes.

    Raises:
        ValueError: the times do not grow with the sizes.

    >>> line = fit([(0.0, 1e-3), (1e6, 2e-3), (3e6, 4e-3)])
    >>> round(line.latency, 9), round(line.bandwidth)
    (0.001, 1000000000)
    """
    # weights 1 / t^2 make it the relative error that counts
    w, ws, wss, wt, wst = (
        math.fsum(s**power / t**over for s, t in points) for power, over in ((0, 2), (1, 2), (2, 2), (0, 1), (1, 1))
    )
    det = w * wss - ws * ws
    slope = (w * wst - ws * wt) / det if det > 0 else 0.0
    latency = (wt - slope * ws) / w
    if latency < 0:
        latency, slope = 0.0, wst / wss
    if slope <= 0:
        raise ValueError("fit: needs times that grow with the sizes")
    return Fit(latency, 1 / slope)
