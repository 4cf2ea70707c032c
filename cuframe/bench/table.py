"""Rows as text: cells of the terminal's table and of Markdown's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .selection import in_order

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["COLUMNS", "cells", "collective_cells", "disturbances", "disturbed", "duration", "failures", "markdown",
           "print_rows", "wide_console"]

COLUMNS = ("case", "mode", "time", "IQR", "p5 - p95", "PyTorch", "x as fast", "95%", "verdict", "aim", "GB/s",
           "TFLOP/s", "flop/B", "roofline", "error", "regs/spills")
# in a narrow terminal these are left out, one after the other; the file has them
_DISPENSABLE = ("p5 - p95", "aim", "flop/B", "TFLOP/s", "GB/s", "IQR", "regs/spills", "error", "roofline", "95%")
COLLECTIVE_COLUMNS = ("collective", "size B", "count", "type", "redop", "time", "algbw GB/s", "busbw GB/s", "#wrong",
                      "PyTorch", "x as fast", "95%", "verdict")


def duration(us: float) -> str:
    """A time with three digits and its unit.

    >>> duration(0.8234), duration(12.34), duration(5230), duration(1.5e6)
    ('823 ns', '12.3 us', '5.23 ms', '1.50 s')
    """
    for unit, scale in (("s", 1e6), ("ms", 1e3), ("us", 1.0)):
        if us >= scale * 0.9995:
            value = us / scale
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{us * 1e3:.0f} ns"


def _beside(row: Mapping[str, Any]) -> list[str]:
    if not row.get("baseline"):
        return ["", "", "", ""]
    theirs = row["us"][row["baseline"]][row["figure"]]["median"]
    name = "" if row["baseline"] == "torch" else f" ({row['baseline'].removesuffix('_attention')})"
    low, high = row["interval"]
    return [duration(theirs) + name, f"{row['speedup']:.2f}", f"{low:.2f} - {high:.2f}", row["verdict"]]


def _aim(row: Mapping[str, Any]) -> str:
    """How many times as fast it is meant to be, and whether it is."""
    if not row.get("baseline") or "aim" not in row:
        return ""
    met = "" if row["verdict"] == "disturbed" else " met" if row["speedup"] >= row["aim"] else " missed"
    return f"{row['aim']:.2f}{met}"


def cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of a row, one for each of COLUMNS; `~` behind the time: other programs disturbed it."""
    ours = row["us"]["cuframe"][row["figure"]]
    error = row.get("error")
    shown = "" if not error else f"{error['value']:.1g}" + ("" if row["within"] else " OFF")
    bound = {"memory": " m", "products": " p"}.get(row.get("bound", ""), "")
    return [f"{row['family']} {row['label']} {row['dtype']}", row["mode"],
            duration(ours["median"]) + (f" {row['figure']}" if row["figure"] in ("cold", "wall") else "")
            + ("~" if disturbed(row) else ""),
            duration(ours["iqr"]), f"{duration(ours['p5'])} - {duration(ours['p95'])}", *_beside(row), _aim(row),
            f"{row['gbs']:.1f}" if "gbs" in row else "", f"{row['tflops']:.3g}" if "tflops" in row else "",
            f"{row['intensity']:.1f}" if "intensity" in row else "",
            f"{row['of_roofline']:.0%}{bound}" if "of_roofline" in row else "", shown,
            f"{row['registers']}/{row['spills']}" if "registers" in row else ""]


def collective_cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of a collective's row, as nccl-tests have them, and the comparison."""
    ours = row["us"]["cuframe"][row["figure"]]["median"]
    return [f"{row['family']} x{row['sizes']['ranks']}", str(row["size"]), str(row["count"]), row["dtype"],
            row["redop"], duration(ours), f"{row['algbw']:.2f}", f"{row['busbw']:.2f}", str(row["wrong"]),
            *_beside(row)]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; columns that are empty throughout are left out."""
    body = [list(r) for r in rows]
    kept = [i for i in range(len(header)) if any(r[i] for r in body)]
    lines = [[header[i] for i in kept], ["---"] + ["--:"] * (len(kept) - 1), *([r[i] for i in kept] for r in body)]
    return [f"| {' | '.join(line)} |" for line in lines]


def disturbed(row: Mapping[str, Any]) -> bool:
    """Whether other programs or the hypervisor took much of the machine while the row was measured."""
    return "warning" in row.get("noise", {})


def disturbances(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line about all disturbed rows; nothing where there are none."""
    noises = [r["noise"] for r in rows if disturbed(r)]
    if not noises:
        return ""
    steal, others = (f"{np.median([n[k] for n in noises]):.0%} (at most {max(n[k] for n in noises):.0%})"
                     for k in ("steal", "others"))
    return (f"~ {len(noises)} of {len(rows)} rows were disturbed: of their time other programs took {others}, the "
            f"hypervisor {steal}; measure on an idle machine before you believe them")


def failures(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each case without times."""
    return [f"{row['case']}: {row['error_text']}" for row in rows if "error_text" in row]


def _fitting(header: Sequence[str], body: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns to show: those with something in them, and as many as there is room for."""
    wide = [max(map(len, column)) + 3 for column in zip(header, *body)]
    kept = [i for i in range(len(header)) if any(line[i] for line in body)]
    for name in _DISPENSABLE:
        if sum(wide[i] for i in kept) < width:
            break
        kept = [i for i in kept if header[i] != name]
    return kept


def wide_console(width: int | None = None) -> Console:
    """Prints as wide as the terminal, and into files and pipes as wide as tables need to be."""
    from rich.console import Console

    console = Console(highlight=False, width=width)
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 200
    return console


def print_rows(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> None:
    """Print the tables, and below them what disturbed and what went wrong."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = wide_console(width)
    timed = [r for r in in_order(rows) if "us" in r]
    for header, some, make in ((COLUMNS, [r for r in timed if r["group"] != "collectives"], cells),
                               (COLLECTIVE_COLUMNS, [r for r in timed if r["group"] == "collectives"],
                                collective_cells)):
        if not some:
            continue
        body = [make(r) for r in some]
        if header is COLUMNS and len({r["dtype"] for r in some}) == 1:  # then it is told once
            header = (f"{some[0]['dtype']} case", *header[1:])
            body = [[line[0].removesuffix(f" {some[0]['dtype']}"), *line[1:]] for line in body]
        kept = _fitting(header, body, console.width)
        table = Table(box=box.SIMPLE_HEAD)
        for i in kept:
            table.add_column(header[i], justify="left" if i < 1 else "right", overflow="fold")
        for line, row, after in zip(body, some, [*some[1:], None]):
            style = {"faster": "green", "slower": "red"}.get(row.get("verdict", ""), "")
            table.add_row(*(Text(line[i], style=style if header[i] == "verdict" else "") for i in kept),
                          end_section=after is not None and after["group"] != row["group"])
        console.print(table)
    if text := disturbances(timed):
        console.print(Text(text, style="yellow"), soft_wrap=True)
    for row in timed:
        for label, text in row.get("notes", {}).items():
            if row["mode"] == row["modes"][0]:
                console.print(f"left out: {row['key']}: {label}: {text}", overflow="ellipsis", no_wrap=True)
    for text in failures(rows):
        console.print(Text(f"failed: {text}", style="red"), soft_wrap=True)
