"""Every operation of the table on CuPy without a GPU: names, arguments, shapes and dtypes are right, or it raises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu.runner import ROOT, read_rows
from cuframe.cuda import gemm
from tests.kernels import numbers

pytestmark = pytest.mark.cupy

# kernels compute nothing here, and these look at values: to count them, to check them, or for an index
LOOK_AT_VALUES = {
    "argwhere", "bincount", "getitem", "index_put", "masked_scatter", "masked_select", "nonzero", "normal",
    "nn.functional.binary_cross_entropy", "nn.functional.embedding_bag", "nn.functional.gaussian_nll_loss",
    "nn.functional.one_hot", "nn.functional.pdist", "repeat_interleave", "setitem", "topk", "unique",
    "unique_consecutive",
}


class NoStacks:
    """CuPy's `matmul` as it is for bfloat16."""

    @staticmethod
    def matmul(a: Any, b: Any) -> Any:
        if a.dtype.kind == "V" and (a.ndim > 2 or b.ndim > 2):
            raise TypeError("data type 'E' not understood")
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4,)),
                                    ((3, 4), (2, 4, 5)), ((2, 0, 4), (4, 5)), ((4,), (4,))])
def test_products_in_bfloat16(shapes: tuple) -> None:
    a, b = (numbers(*s, dtype="bfloat16", seed=i) for i, s in enumerate(shapes))
    got = gemm.matmul(NoStacks, a, b)
    expected = np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    assert got.dtype == a.dtype and got.shape == expected.shape
    np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))


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
        if row["outcome"] == "failed" and plain not in LOOK_AT_VALUES:
            failed[name] = row["error"][-300:]
    assert not failed


NARROW = """
import tests.cupy_without_gpu
import cuframe as cf
from cuframe import nn
for dtype in (cf.bool, cf.int8, cf.uint8, cf.int16, cf.int64, cf.float16, cf.bfloat16):
    x, i = cf.zeros(5, device="cuda").to(dtype), cf.tensor([0, 1], device="cuda")
    assert cf.scatter_add(x, 0, i, x[:2]).dtype == dtype
    for kind in ("amax", "amin", "sum", "prod")[:4 * (dtype != cf.bool)]:
        assert cf.scatter_reduce(x, 0, i, x[:2], kind).dtype == dtype
layer = nn.BatchNorm1d(3, momentum=None).to("cuda")
cf.Tensor.item = None
layer(cf.ones(4, 3, device="cuda")).sum().backward()
"""


@pytest.mark.slow
def test_narrow_dtypes_at_an_index_and_a_mean_of_batches() -> None:
    """CuPy has no atomics for narrow numbers; and the count of batches stays on the device."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", NARROW], cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
