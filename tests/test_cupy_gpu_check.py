"""gpu-check's stages for device `cuda` through CuPy's own code, without a GPU: values are not looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.runner import ROOT, read_rows

pytestmark = pytest.mark.cupy

# small sizes in the place of those that are timed, since nothing of the memory is ever given back
SCRIPT = """
import sys
from dataclasses import replace
import tests.cupy_without_gpu
from benchmarks.gpu import environment, repeats, timing, tune
from cuframe.bench import machine
from cuframe.bench.families import FAMILIES
from cuframe.cuda import tune as search

small = [replace(f, cuda=(f.small,), grid=((f.small,),) if f.grid else ()) for f in FAMILIES
         if f.group in ("rnn", "attention", "ctc") or f.name in ("dropout", "launch", "adam")]
names = [f.name for f in small]
timing.FAMILIES, timing.family = small, lambda name: next(f for f in small if f.name == name)
search._HIDDEN, search._BATCH, search._STEPS, search._REPEATS = (64,), (4,), 8, 1
timing.SECONDS = timing.GRID_SECONDS = 0.01
which, folder, rows = sys.argv[1], sys.argv[2], ["--rows", sys.argv[3]]
if which == "environment":
    environment.main(rows)
elif which == "timings":
    timing.main([*names, "--sizes", "first", *rows])
elif which == "grid":
    assert timing.main(["--sizes", "grid", "--seconds", "600", *rows]) == 0
elif which == "repeats":
    repeats.main([*names, "--count", "1", *rows])
elif which == "sanitizer":
    repeats.main(["dropout", "gru", "--count", "1", "--plain", *rows])
else:
    assert tune.main(["--output", f"{folder}/sm_90.json", "--copy", f"{folder}/copy", *rows]) == 0
"""


@pytest.mark.parametrize("stage", ["environment", "grid", "sanitizer", "tune",
                                   *(pytest.param(s, marks=pytest.mark.slow) for s in ("timings", "repeats"))])
def test_stage(stage: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    rows = tmp_path / "rows"
    done = subprocess.run([sys.executable, "-c", SCRIPT, stage, str(tmp_path), str(rows)], cwd=ROOT, env=env, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = read_rows(rows)
    if stage == "environment":
        assert [r["key"] for r in found] == ["machine", "commit", "device", "compiler", "peaks"]
        assert done.stderr.startswith("first kernel: AssertionError:")  # which launched one that does nothing
        return
    assert len(found) > 5 and not [r for r in found if "error_text" in r or "error" in r and "us" not in r]
    if stage in ("grid", "timings"):
        timed = [r for r in found if "us" in r]
        assert {r["us"]["cuframe"][r["figure"]]["median"] for r in timed if r["figure"] == "warm"} == {1000.0}
        assert all(r["registers"] for r in timed if r["family"].startswith(("lstm", "gru", "attention")))
    if stage == "tune":
        assert (tmp_path / "sm_90.json").read_text() == (tmp_path / "copy" / "sm_90.json").read_text()
