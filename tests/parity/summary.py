"""What `make parity` prints at the end: one table for each of PyTorch's lists, then what is missing, then totals."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

WIDTH = 118
FUNCTIONS = "nn.functional."


def shown(name: str) -> str:
    return f"F.{name.removeprefix(FUNCTIONS)}" if name.startswith(FUNCTIONS) else name


def read(stats: dict[str, list]) -> dict[str, list[dict]]:
    """The records that the parity tests left in pytest's reports, by table."""
    tables: dict[str, list[dict]] = {}
    for reports in stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            for key, value in report.user_properties:
                if key == "parity":
                    entry = json.loads(value)
                    tables.setdefault(entry.pop("table"), []).append(entry)
    return tables


def write(out: Any, tables: dict[str, list[dict]]) -> None:
    """Print everything; the totals come last, where they are seen."""
    for title, entries in sorted(tables.items()):
        out.write_sep("=", title)
        _write_entries(out, [e for e in entries if "name" in e])
        for e in entries:
            if "absent" in e:
                _write_absent(out, e)
    if tables:
        out.write_sep("=", "parity with PyTorch")
    for title, entries in sorted(tables.items()):
        rows = [e for e in entries if "name" in e]
        if title == "op_db":
            _write_total(out, "op_db nn.functional", [e for e in rows if e["name"].startswith(FUNCTIONS)])
            _write_total(out, "op_db, all others", [e for e in rows if not e["name"].startswith(FUNCTIONS)])
        else:
            _write_total(out, title, rows)
    for title, entries in sorted(tables.items()):
        absent = [name for e in entries for name in e.get("absent", ())]
        if absent:
            functions = sum(name.startswith(FUNCTIONS) for name in absent)
            of_these = f", {functions} of them nn.functional" if functions else ""
            out.write_line(f"{title}: {len(absent)} names are not in cuframe{of_these} (listed above)")


def _write_entries(out: Any, rows: list[dict]) -> None:
    """Full entries in columns; below them what was left out, by reason, and one line for each entry not full."""
    rows = sorted(rows, key=lambda e: e["name"])
    full = [e for e in rows if 0 < e["passed"] == e["total"]]
    cells = [f"{shown(e['name'])} {e['passed']}/{e['total']}" for e in full]
    width = max((len(c) for c in cells), default=0) + 2
    columns = max(1, WIDTH // width)
    for k in range(0, len(cells), columns):
        out.write_line("".join(c.ljust(width) for c in cells[k : k + columns]).rstrip())
    by_reason: dict[str, dict[str, int]] = {}
    for e in rows:
        for reason, count in e["reasons"].items():
            by_reason.setdefault(reason, {})[e["name"]] = count
    for reason, counts in sorted(by_reason.items()):
        out.write_line(f"-- left out, {sum(counts.values())} samples: {reason}")
        _write_wrapped(out, [f"{shown(name)}:{count}" for name, count in counts.items()])
    empty = [shown(e["name"]) for e in rows if not e["total"]]
    if empty:
        out.write_line(f"-- no samples to compare, in {len(empty)} entries:")
        _write_wrapped(out, empty)
    for e in rows:
        if e["passed"] != e["total"]:
            out.write_line(f"NOT FULL: {shown(e['name'])} {e['passed']}/{e['total']}")


def _write_absent(out: Any, entry: dict) -> None:
    names = entry["absent"]
    functions = [shown(n) for n in names if n.startswith(FUNCTIONS)]
    others = [n for n in names if not n.startswith(FUNCTIONS)]
    for what, group in (("nn.functional", functions), ("names", others)):
        if group:
            out.write_line(f"-- {what} not in cuframe ({len(group)}):")
            _write_wrapped(out, group)
    for name, reason in entry["skipped"].items():
        out.write_line(f"-- entry left out: {name}: {reason}")


def _write_wrapped(out: Any, words: list[str]) -> None:
    line = ""
    for word in words:
        if line and len(line) + len(word) >= WIDTH:
            out.write_line(line)
            line = ""
        line += f"{word} "
    out.write_line(line)


def _write_total(out: Any, title: str, rows: list[dict]) -> None:
    counts: Counter[str] = Counter()
    for e in rows:
        counts.update(passed=e["passed"], total=e["total"], excluded=e["excluded"], entries=e["total"] > 0,
                      full=0 < e["passed"] == e["total"])  # fmt: skip
    out.write_line(
        f"{title + ':':22} {counts['full']:>4} of {counts['entries']:>4} entries full, {counts['passed']:>6} of "
        f"{counts['total']:>6} samples pass, {counts['excluded']:>5} left out with reasons"
    )
