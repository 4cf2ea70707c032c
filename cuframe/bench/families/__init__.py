"""What is measured: families of cases in groups, the most telling first; with a budget these get the time."""

from __future__ import annotations

from ..case import Family
from . import layers, overhead, pointwise, recurrent, sequence, training

__all__ = ["COLLECTIVES", "FAMILIES", "GROUPS", "family"]

FAMILIES: tuple[Family, ...] = (
    *recurrent.FAMILIES, *sequence.FAMILIES, *pointwise.FAMILIES, *training.FAMILIES, *layers.FAMILIES,
    *overhead.FAMILIES)
# these need ranks, and so the launcher: `cuframe.bench.collectives`
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce")
GROUPS: tuple[str, ...] = (*dict.fromkeys(f.group for f in FAMILIES), "collectives")


def family(name: str) -> Family:
    """The family of that name."""
    return next(f for f in FAMILIES if f.name == name)
