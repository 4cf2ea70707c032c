"""The example that reads strips of digits: its parts, and a short run of the script."""

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

import cuframe as cf

for library in ("sklearn", "matplotlib"):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "ctc_digits.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ctc_digits", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_strips_hold_every_image_in_order(example: ModuleType) -> None:
    rng = np.random.default_rng(0)
    images = np.stack([np.full((8, 8), k / 8, np.float32) for k in range(1, 7)])
    for _ in range(20):
        strip = example.join(images, rng)
        assert strip.shape[0] == 10 and 8 + 5 * 7 <= strip.shape[1] <= 8 + 3 + 5 * 10
        darkest = np.pad(strip.max(0), (1, 0))
        assert [v for v, before in zip(darkest[1:], darkest) if v not in (0, before)] == [k / 8 for k in range(1, 7)]


def test_steps_see_the_columns_around_them(example: ModuleType) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((20, 8, 8)).astype(np.float32)
    strips, truths, steps, lengths = example.batch(images, np.arange(20), 5, rng)
    assert steps.shape == (lengths.max().item(), 5, 60)
    for n, strip in enumerate(strips):
        assert lengths[n].item() == -(-strip.shape[1] // 2) and 4 <= len(truths[n]) <= 8
        padded = np.pad(strip, ((0, 0), (3, 100)))
        for t in range(steps.shape[0]):
            np.testing.assert_array_equal(steps.array[t, n], padded[:, 2 * t : 2 * t + 6].T.ravel())


def test_reading_merges_repeats_and_drops_blanks(example: ModuleType) -> None:
    paths = np.array([[0, 3, 3, 0, 3, 4], [5, 5, 1, 0, 0, 2]]).T  # [T, N]
    scores = cf.from_numpy(np.eye(11, dtype=np.float32)[paths])
    assert example.read(scores, cf.tensor([6, 5])) == [[2, 2, 3], [4, 0]]


@pytest.mark.parametrize(
    ("a", "b", "expected"), [("", "", 0), ("abc", "abc", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)]
)
def test_distance(example: ModuleType, a: str, b: str, expected: int) -> None:
    assert example.distance(list(a), list(b)) == example.distance(list(b), list(a)) == expected


def test_the_script_draws_and_ends_with_its_figure(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--steps", "4", "--out", str(tmp_path / "a" / "b")],
        text=True, capture_output=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "a" / "b" / "readings.png").read_bytes()[:4] == b"\x89PNG"
    assert "1,347 images to train, 450 to test" in done.stdout
    assert re.fullmatch(r"character error rate \d+\.\d\d%", done.stdout.splitlines()[-1])
