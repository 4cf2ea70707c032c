"""Every operation of the table on CuPy without a GPU: names, arguments, shapes and dtypes are right, or it raises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.runner import ROOT, read_rows

pytestmark = pytest.mark.cupy

# kernels compute nothing here, and these look at values: to count them, to check them, or for an index
LOOK_AT_VALUES = {
    "argwhere", "bincount", "getitem", "index_put", "masked_scatter", "masked_select", "nonzero", "normal",
    "nn.functional.binary_cross_entropy", "nn.functional.embedding_bag", "nn.functional.gaussian_nll_loss",
    "nn.functional.one_hot", "nn.functional.pdist", "repeat_interleave", "setitem", "topk", "unique",
    "unique_consecutive",
}
# of libraries that an installation for CPUs has not
NEED_CUSOLVER = {"inverse"}
# CuPy 14.2 cannot (docs/gpu.md)
NO_BFLOAT16 = {"einsum"}


@pytest.mark.slow
def test_operations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-W", "default", "-p", "tests.cupy_without_gpu", "-p",
               "benchmarks.gpu.pytest_rows", "-p", "no:cacheprovider", "--device", "cuda", "--rows",
               str(tmp_path / "rows"), "tests/test_device_ops.py"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CUFRAME_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    rows = read_rows(tmp_path / "rows")
    assert len(rows) > 700, done.stdout + done.stderr
    failed: dict[str, Any] = {}
    for row in rows:
        name = row["key"].partition("[")[2].rstrip("]")
        plain = name.removesuffix("-bfloat16")
        known = plain in LOOK_AT_VALUES | NEED_CUSOLVER or (plain != name and plain in NO_BFLOAT16)
        if row["outcome"] == "failed" and not known:
            failed[name] = row["error"][-300:]
    assert not failed
