"""README's tables: performance is what the committed results say, and each feature has its test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cuframe.bench.results import read
from cuframe.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_performance_is_what_the_results_say(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "readme"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda p: p.name)
def test_committed_results_are_sound(path: Path) -> None:
    data = read(path)
    assert data["rows"] and not [r["key"] for r in data["rows"] if r.get("within") is False]
    assert data["facts"]["commit"]


def feature_rows() -> list[list[str]]:
    lines = README.partition("## Beside others")[2].partition("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_every_feature_names_a_test_that_is_there() -> None:
    header, rule, *rows = feature_rows()
    assert header[1] == "cuframe" and header[-1] == "shown by" and len(rows) > 8
    assert {len(r) for r in (header, rule, *rows)} == {len(header)}
    for row in rows:
        named = re.fullmatch(r"`(tests/\w+\.py)(?:::(\w+))?`", row[-1])
        if named is None:  # then it is something that cuframe has not, and a page says so
            assert re.search(r"^\*\*not yet\*\*$|^no$", row[1]) and row[-1].startswith("["), row
            continue
        text = (ROOT / named[1]).read_text()
        assert named[2] is None or f"def {named[2]}(" in text, row
