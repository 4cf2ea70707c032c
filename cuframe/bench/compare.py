"""Two files of results against one another: what became slower, and whether that is sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .statistics import interval, ratio

__all__ = ["Change", "changes", "differences", "percentage", "regressions"]

_CONFIDENCE = 0.99  # of a row; a file has a hundred of them


class Change(NamedTuple):
    """A row in two files: the second's time over the first's, with its interval.

    `kind` is faster, slower, same or unclear, at the given least change; unclear, too, where others disturbed it much.
    """

    key: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    kind: str


def percentage(text: str) -> float:
    """`5%` or `5` as 0.05.

    >>> percentage("5%")
    0.05
    """
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1000:
        raise ValueError(f"must be a percentage such as 5%, got {text!r}")
    return value / 100


def changes(before: Mapping[str, Any], after: Mapping[str, Any], least: float, relative: bool = False) -> list[Change]:
    """The rows that both have.

    Args:
        before, after: data of files, see `results.read`.
        least: the smallest change that counts, 0.05 for 5%.
        relative: compare times over the baseline's of the same round, which cancels what disturbed both.
    """
    old = {r["key"]: r for r in before["rows"] if "samples_us" in r}
    found = []
    for row in after["rows"]:
        earlier = old.get(row["key"])
        if earlier is None or "samples_us" not in row:
            continue
        if relative and not (row.get("baseline") and row["baseline"] == earlier.get("baseline")):
            continue
        a, b = (_figures(r, relative) for r in (row, earlier))
        disturbed = any(r.get("noise", {}).get("much") for r in (row, earlier))
        value, (low, high) = ratio(a, b), interval(a, b, paired=False, confidence=_CONFIDENCE)
        found.append(Change(row["key"], float(np.median(b)), float(np.median(a)), value, low, high,
                            "unclear" if disturbed else _kind(value, low, high, least)))
    return found


def _figures(row: Mapping[str, Any], relative: bool) -> np.ndarray:
    ours = np.asarray(row["samples_us"]["cuframe"], float)
    return ours / np.asarray(row["samples_us"][row["baseline"]], float) if relative else ours


def _kind(value: float, low: float, high: float, least: float) -> str:
    if low > 1 and value >= 1 + least:
        return "slower"
    if high < 1 and value <= 1 / (1 + least):
        return "faster"
    return "same" if low >= 1 / (1 + least) and high <= 1 + least else "unclear"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What else than the code differs between two files."""
    names = ("device", "cpu", "gpu", "cores", "threads", "timer", "compiled", "driver", "cupy", "nvrtc", "torch")
    pairs = {name: (before["facts"].get(name), after["facts"].get(name)) for name in names}
    return [f"{name}: {a} and {b}" for name, (a, b) in pairs.items() if a != b]


def regressions(found: list[Change]) -> list[Change]:
    """Those that are surely slower by the least change or more."""
    return [c for c in found if c.kind == "slower"]
