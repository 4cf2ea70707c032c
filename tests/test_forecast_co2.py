"""The example that forecasts CO2: it looks at nothing but the past, and beats the baselines."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

for library in ("statsmodels", "matplotlib"):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "forecast_co2.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("forecast_co2", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run([sys.executable, str(SCRIPT), *options], text=True, capture_output=True, env=environment,
                          timeout=300)  # fmt: skip


def mean_errors(output: str) -> dict[str, float]:
    lines = re.findall(r"^(.{37})MAE (\d\.\d\d) ppm   RMSE \d\.\d\d ppm$", output, re.MULTILINE)
    return {name.strip(): float(error) for name, error in lines}


def test_the_series(example: ModuleType) -> None:
    dates, ppm, filled = example.series()
    assert len(dates) == len(ppm) == 2284 and filled == 59
    assert (np.diff(dates) == np.timedelta64(7, "D")).all()
    assert np.isfinite(ppm).all() and 310 < ppm.min() < ppm.max() < 375


def test_windows_are_every_fourth_week_up_to_the_origin(example: ModuleType) -> None:
    growth, angle = np.arange(1000.0), np.linspace(0, 50, 1000)
    x = example.windows(growth, angle, np.array([400, 777])).numpy()
    assert x.shape == (78, 2, 3) and x.dtype == np.float32
    np.testing.assert_array_equal(x[:, 1, 0], np.arange(777 - 77 * 4, 778, 4))
    np.testing.assert_allclose(x[:, 0, 1:], np.stack([np.sin(angle), np.cos(angle)], 1)[92:401:4], rtol=1e-6)


def test_baselines_see_only_the_past(example: ModuleType) -> None:
    ppm = np.random.default_rng(0).normal(300, 5, 300)
    changed = ppm.copy()
    changed[201:] = 0
    for before, after in zip(*(example.baselines(p, np.array([150, 200])).values() for p in (ppm, changed))):
        np.testing.assert_array_equal(before, after)


def test_baselines_are_exact_where_they_should_be(example: ModuleType) -> None:
    weeks = np.arange(300)
    ppm = 3 * np.sin(2 * np.pi * weeks / 52) + 0.02 * weeks
    origins = np.array([160, 240])
    truth = ppm[origins[:, None] + example.AHEAD]
    naive, last, mean = example.baselines(ppm, origins).values()
    np.testing.assert_allclose(truth - naive, 52 * 0.02)
    np.testing.assert_allclose(last, truth)
    np.testing.assert_allclose(mean, truth)


def test_the_script_draws_and_ends_with_its_figures(tmp_path: Path) -> None:
    done = run("--steps", "2", "--out", str(tmp_path / "a" / "b"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "a" / "b" / "forecast.png").read_bytes()[:4] == b"\x89PNG"
    assert "262 forecasts of a year, made from 1995-12-30 to 2000-12-30" in done.stdout
    assert [*mean_errors(done.stdout)][::3] == ["seasonal naive", "GRU"]
    assert done.stdout.splitlines()[-1].startswith("GRU ")


def test_a_year_without_data_is_refused(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        example.main(["--until", "2001"])
    assert "--until a year from 1986 to 1999" in capsys.readouterr().err


@pytest.mark.slow
def test_it_beats_the_baselines(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    errors = mean_errors(done.stdout)
    ours = errors.pop("GRU")
    assert len(errors) == 3 and ours < 0.5 * errors["seasonal naive"]
    assert all(ours < 0.95 * e for e in errors.values())
