"""The example that reads dates: what it writes, how it decodes, and what it reaches."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import cuframe as cf

for library in ("babel", "matplotlib"):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "dates_transformer.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dates_transformer", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(example: ModuleType) -> cf.nn.Module:
    return example.Reader(size=16)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run([sys.executable, str(SCRIPT), *options], text=True, capture_output=True, env=environment,
                          timeout=1800)  # fmt: skip


def test_dates_are_told_apart_in_every_locale(example: ModuleType) -> None:
    assert example.DATES[0] == datetime.date(1970, 1, 1) and example.DATES[-1] == datetime.date(2039, 12, 31)
    year = [d for d in example.DATES if d.year == 2008]
    some = [*year, *(datetime.date(y, 5, 6) for y in range(1970, 2040) if y != 2008)]
    for locale in example.LOCALES:
        assert len({tuple(example.write(d, locale, "short")) for d in some}) == len(some), locale


def test_draw(example: ModuleType) -> None:
    dates = example.DATES[[5, 9000, 20000]]
    writings, truths = example.draw(dates, 200, np.random.default_rng(0))
    assert {len(t) for t in truths} == {10} and set(truths) == {d.isoformat() for d in dates}
    for writing, truth in zip(writings, truths):
        locale, date = writing[0], datetime.date.fromisoformat(truth)
        assert writing in [example.write(date, locale, f) for f in example.FORMATS]
    assert len({w[0] for w in writings}) > 40


def test_every_character_is_known(example: ModuleType, model: cf.nn.Module) -> None:
    writings, _ = example.draw(example.DATES, 4000, np.random.default_rng(1))
    assert {t for w in writings for t in w} <= set(model.known)
    assert max(map(len, writings)) < example.LONGEST


def test_what_follows_changes_nothing(example: ModuleType, model: cf.nn.Module) -> None:
    memory, padding = model.encode(example.draw(example.DATES, 3, np.random.default_rng(2))[0])
    a = cf.tensor([[example.START, 1, 9, 7, 0]] * 3)
    b = cf.tensor([[example.START, 1, 9, 8, 5]] * 3)
    before, after = (model.decode(memory, padding, t).detach().numpy() for t in (a, b))
    np.testing.assert_allclose(before[:, :3], after[:, :3], rtol=1e-5, atol=1e-6)
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-3


def test_padding_changes_nothing(example: ModuleType, model: cf.nn.Module) -> None:
    short, long = example.write(example.DATES[0], "en_US", "short"), example.write(example.DATES[0], "pt_BR", "full")
    target = cf.tensor([[example.START, 1, 9]])
    alone = model.decode(*model.encode([short]), target).detach().numpy()
    together = model.decode(*model.encode([short, long]), target.expand(2, 3)).detach().numpy()
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-6)


def test_reading_takes_the_most_likely_character_each_time(example: ModuleType, model: cf.nn.Module) -> None:
    writings, _ = example.draw(example.DATES, 4, np.random.default_rng(3))
    readings = model.read(writings)
    fed = cf.tensor([[example.START, *map(example.OUTPUT.index, r[:-1])] for r in readings])
    best = model.decode(*model.encode(writings), fed).argmax(2)
    assert ["".join(example.OUTPUT[i] for i in row) for row in best.tolist()] == readings


def test_the_script_draws_and_ends_with_its_figure(tmp_path: Path) -> None:
    done = run("--steps", "1", "--test", "20", "--out", str(tmp_path / "a" / "b"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "a" / "b" / "attention.png").read_bytes()[:4] == b"\x89PNG"
    assert "20,453 days to train, 2,557 to validate, 2,557 to test" in done.stdout
    assert re.fullmatch(r"\d+\.\d% of 20 writings of unseen days exact", done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_it_reads_unseen_days(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout.splitlines()[-1].split("%")[0]) >= 95, done.stdout
