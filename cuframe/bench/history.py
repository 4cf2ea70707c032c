"""The medians of a row over the files of a folder, in the order of their dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import BadResults, read

__all__ = ["files", "medians", "spark"]

_BARS = "▁▂▃▄▅▆▇█"


def files(folder: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """The files of results in a folder by date, and why the others were left out."""
    found, others = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append((path, read(path)))
        except BadResults as error:
            others.append(str(error))
    found.sort(key=lambda item: (item[1]["started"], item[0].name))
    return found, others


def medians(data: Sequence[Mapping[str, Any]], pattern: str = "") -> dict[str, list[float | None]]:
    """By row, its median in each file; None in those that have no such row. The row's name contains `pattern`."""
    found: dict[str, list[float | None]] = {}
    for i, one in enumerate(data):
        for row in one["rows"]:
            if "us" in row and pattern in row["key"]:
                key = f"{row['key']} ({row['device']}, {one['facts'].get('gpu') or one['facts'].get('cpu')})"
                found.setdefault(key, [None] * len(data))[i] = row["us"]["cuframe"][row["figure"]]["median"]
    return found


def spark(values: Sequence[float | None]) -> str:
    """A bar for each value, a space for none.

    >>> spark([1.0, None, 2.0])
    '▁ █'
    """
    known = [v for v in values if v is not None]
    low, span = min(known), max(known) - min(known)
    return "".join(" " if v is None else _BARS[int((v - low) / span * 7) if span else 0] for v in values)
