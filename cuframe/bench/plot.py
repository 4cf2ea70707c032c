"""Charts of a file of results: rates under the measured roofline, and times as fast as the baseline."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import title
from .selection import in_order

__all__ = ["draw", "ratio_chart", "roofline_chart"]

_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:pink", "tab:olive", "tab:cyan")


def draw(data: Mapping[str, Any], folder: Path, stem: str, forms: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write the charts that the rows allow; needs matplotlib."""
    made = []
    for name, figure in (("roofline", roofline_chart(data)), ("ratio", ratio_chart(data))):
        if figure is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for form in forms:
            path = folder / f"{stem}-{name}.{form}"
            # the same file for the same results
            figure.savefig(path, dpi=130, metadata={"Date": None} if form == "svg" else None)
            made.append(path)
    return made


def _colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    groups = dict.fromkeys(r["group"] for r in rows)
    return {g: _COLOURS[i % len(_COLOURS)] for i, g in enumerate(groups)}


def roofline_chart(data: Mapping[str, Any]) -> Any:
    """Operations a second over operations a byte, under what copies and products reach; None without such rows."""
    from matplotlib.figure import Figure

    rows = [r for r in data["rows"] if r.get("intensity")]
    copy, products = data["peaks"].get("copy"), data["peaks"].get("products", {})
    if not rows or not copy:
        return None
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    ends = min(r["intensity"] for r in rows) / 3, max(r["intensity"] for r in rows) * 3
    for dtype, rate in products.items():
        knee = rate / copy
        points = sorted({ends[0], min(max(knee, ends[0]), ends[1]), ends[1]})
        axes.loglog(points, [min(rate, copy * i) / 1e9 for i in points], lw=1.2, color="black",
                    ls="-" if dtype == "float32" else "--")
        axes.annotate(f"{dtype}: {rate / 1e9:.0f} GFLOP/s", (ends[1], rate / 1e9), ha="right", va="bottom", fontsize=8)
    colours = _colours(rows)
    for group, colour in colours.items():
        some = [r for r in rows if r["group"] == group]
        axes.loglog([r["intensity"] for r in some], [r["tflops"] * 1e3 for r in some], "o", ms=5, color=colour,
                    label=group, alpha=0.8)
    axes.set(xlabel="operations a byte", ylabel="GFLOP/s", title=f"{title(data)}\ncopy: {copy / 1e9:.0f} GB/s")
    axes.title.set_fontsize(8)
    axes.legend(fontsize=8)
    return figure


def _name(row: Mapping[str, Any]) -> str:
    return row["key"] + ("" if row["baseline"] == "torch" else f" ({row['baseline']})")


def ratio_chart(data: Mapping[str, Any]) -> Any:
    """How many times as fast as the baseline, with intervals, a bar a row; None without a baseline."""
    from matplotlib.figure import Figure

    rows = in_order([r for r in data["rows"] if r.get("baseline")])
    if not rows:
        return None
    figure = Figure(figsize=(9, 1.5 + 0.19 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colours = _colours(rows)
    places = range(len(rows), 0, -1)
    values = [r["speedup"] for r in rows]
    below = [max(0.0, v - r["interval"][0]) for v, r in zip(values, rows)]
    above = [max(0.0, r["interval"][1] - v) for v, r in zip(values, rows)]
    axes.barh(places, [v - 1 for v in values], left=1, height=0.7, color=[colours[r["group"]] for r in rows])
    axes.errorbar(values, places, xerr=[below, above], fmt="none", ecolor="black", lw=0.8)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(yticks=list(places), xlabel="times as fast as the baseline (right of 1: faster)",
             title=textwrap.fill(title(data), 90))
    axes.set_yticklabels([_name(r) for r in rows], fontsize=6)
    axes.set_ylim(0, len(rows) + 1)
    axes.title.set_fontsize(8)
    return figure
