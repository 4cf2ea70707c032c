"""README's tables of performance, made from the committed files of results and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .history import files
from .results import title
from .selection import in_order
from .table import duration, markdown

__all__ = ["BEGIN", "END", "replaced", "tables"]

BEGIN = "<!-- benchmarks: made by `make readme` from benchmarks/results/ -->"
END = "<!-- end of benchmarks -->"
_HEADER = ("case", "mode", "cuframe", "PyTorch", "times as fast", "95% interval", "of roofline")
_COLLECTIVE = ("collective", "bytes", "cuframe", "busbw GB/s", "PyTorch ({})", "times as fast")


_UNSURE = ("unclear", "disturbed")


def _chosen(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of each family and dtype the first size, in its last mode: training rather than forward."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in in_order(data["rows"]):
        if "us" not in row or row["group"] == "collectives":
            continue
        known = found.get((row["family"], row["dtype"]))
        if known is None or known["label"] == row["label"]:
            found[row["family"], row["dtype"]] = row
    return list(found.values())


def _theirs(row: Mapping[str, Any]) -> list[str]:
    if not row.get("baseline"):
        return ["", ""]
    name = "" if row["baseline"] == "torch" else f" ({row['baseline'].replace('_', ' ')})"
    median = row["us"][row["baseline"]][row["figure"]]["median"]
    return [duration(median) + name, f"{row['speedup']:.2f}" + (" ?" if row["verdict"] in _UNSURE else "")]


def _line(row: Mapping[str, Any]) -> list[str]:
    low_high = [f"{row['interval'][0]:.2f} - {row['interval'][1]:.2f}"] if row.get("baseline") else [""]
    return [f"{row['family']} {row['label']}" + ("" if row["dtype"] == "float32" else f" {row['dtype']}"), row["mode"],
            duration(row["us"]["cuframe"][row["figure"]]["median"]), *_theirs(row), *low_high,
            f"{row['of_roofline']:.0%}" if "of_roofline" in row else ""]


def tables(folder: Path) -> str:
    """The text between the markers: of each machine the latest file.

    Raises:
        ValueError: a file in the folder is no file of results.
    """
    found, others = files(folder)
    if others:
        raise ValueError(others[0])
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _, data in found:
        facts = data["facts"]
        latest[facts["device"], facts.get("gpu") or facts.get("cpu"), facts.get("threads"), facts.get("timer")] = data
    if not latest:
        return "No results have been committed yet: `cuframe bench run --json benchmarks/results/NAME.json` makes them."
    parts = []
    for data in latest.values():
        lines = [f"**{title(data)}**", ""]
        disturbed = sum(r.get("noise", {}).get("much", False) for r in data["rows"])
        rows = _chosen(data)
        if rows:
            lines += markdown(_HEADER, [_line(r) for r in rows])
        ranks = [r for r in data["rows"] if r.get("group") == "collectives" and "us" in r]
        if ranks:
            library = "gloo" if data["facts"]["device"] == "cpu" else "NCCL"
            lines += ["", *markdown([name.format(library) for name in _COLLECTIVE], [
                [f"{r['family']}, {r['sizes']['ranks']} ranks", str(r["size"]),
                 duration(r["us"]["cuframe"][r["figure"]]["median"]), f"{r['busbw']:.2f}", *_theirs(r)]
                for r in ranks])]
        if any(r.get("verdict") in _UNSURE for r in (*rows, *ranks)):
            lines += ["", "? the samples do not tell which is faster."]
        if disturbed:
            lines += ["", f"Other programs disturbed {disturbed} of {len(data['rows'])} rows of this file."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def replaced(text: str, made: str) -> str:
    """README with the part between the markers replaced.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md must hold the lines {BEGIN!r} and {END!r}, once each")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}"
