"""A pytest plugin that writes a row for each test as it ends: `-p benchmarks.gpu.pytest_rows --rows FILE`."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu.runner import Rows

_ERROR = 1500                           # characters of a failure that are kept
_FAILURES = 40                          # failures that are kept with their text


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", default=None, help="write a JSON line for each test to this file")


def pytest_configure(config: pytest.Config) -> None:
    # of pytest-xdist's processes, only the one that collects the reports
    if config.getoption("--rows") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(Rows(config.getoption("--rows"))), "rows-writer")


class _Writer:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._rows.add(report.nodeid, outcome="failed", seconds=0.0, error=str(report.longrepr)[-_ERROR:])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            error = "" if report.outcome == "passed" else str(report.longrepr)[-_ERROR:]
            self._rows.add(report.nodeid, outcome=report.outcome, seconds=round(report.duration, 2), error=error)


def fold(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, failures with their text, reasons of skips, and the slowest tests."""
    by: dict[str, list[dict[str, Any]]] = {"passed": [], "failed": [], "skipped": []}
    for row in rows:
        by[row["outcome"]].append(row)
    found: dict[str, Any] = {outcome: len(tests) for outcome, tests in by.items()}
    found["failures"] = [{"test": r["key"], "error": r["error"]} for r in by["failed"][:_FAILURES]]
    found["failed tests"] = [r["key"] for r in by["failed"]]
    found["skips"] = sorted({r["error"] for r in by["skipped"]})
    found["slowest"] = [[r["key"], r["seconds"]] for r in sorted(rows, key=lambda r: -r["seconds"])[:5]]
    return found
