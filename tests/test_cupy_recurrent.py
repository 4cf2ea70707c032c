"""Recurrent layers and their tuning on CuPy without a GPU: what is asked of CuPy, NVRTC and the driver is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.cupy
def test_recurrent_layers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-W", "default", "-p", "tests.cupy_without_gpu",
               "-p", "no:cacheprovider", "--device", "cuda", "tests/cupy_rnn.py"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True)
    assert done.returncode == 0 and "25 passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
