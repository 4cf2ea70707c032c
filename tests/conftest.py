"""What all tests share: parity modules stay unread unless they are asked for, and their tables are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cuframe as cf

PARITY = Path(__file__).parent / "parity"


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same numbers, whichever ran before it in its process."""
    cf.manual_seed(0)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Reading PyTorch's tables takes seconds, so `-m "not parity"` must not get as far as that."""
    if "not parity" in config.getoption("markexpr") and PARITY in (collection_path, *collection_path.parents):
        return True
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One table a parity module: samples passed of all, for each entry."""
    tables: dict[str, list[dict]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == "parity" and getattr(report, "when", "") == "call":
                    entry = json.loads(value)
                    tables.setdefault(entry.pop("table"), []).append(entry)
    for title, entries in sorted(tables.items()):
        _print_table(terminalreporter, title, entries)


def _print_table(out: Any, title: str, entries: list[dict]) -> None:
    rows = sorted((e for e in entries if "name" in e), key=lambda e: e["name"])
    passed, total = sum(e["passed"] for e in rows), sum(e["total"] for e in rows)
    whole = sum(e["passed"] == e["total"] for e in rows)
    out.write_sep("=", f"{title}: {whole} of {len(rows)} entries, {passed} of {total} samples")
    cells = [
        f"{e['name']} {e['passed']}/{e['total']}" + (f" -{e['excluded']}" if e["excluded"] else "")
        for e in rows
    ]
    width = max((len(c) for c in cells), default=0) + 2
    columns = max(1, 150 // max(width, 1))
    for k in range(0, len(cells), columns):
        out.write_line("".join(c.ljust(width) for c in cells[k : k + columns]).rstrip())
    reasons: dict[str, int] = {}
    for e in rows:
        for reason, count in e["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        out.write_line(f"excluded: {count} samples: {reason}")
    for e in entries:
        if "absent" in e:
            out.write_line(f"not in cuframe ({len(e['absent'])}): {' '.join(e['absent'])}")
            for name, reason in e["skipped"].items():
                out.write_line(f"excluded: {name}: {reason}")
