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


# what a vjp holds besides its tensors are CuPy's arrays, which are no kind of NumPy's
TWICE = """
import sys, warnings
from itertools import islice
import tests.cupy_without_gpu
import cuframe as cf
from tests.opinfo import OP_DB
from tests.opinfo.core import flatten
from tests.test_device_ops import HOST_ONLY, moved_sample

warnings.simplefilter("ignore")
done = 0
for info in OP_DB:
    if info.name in HOST_ONLY | set(sys.argv[1:]) or not (info.gradient and info.double_gradient and info.samples):
        continue
    for sample in islice(info.each("float64" if "float64" in info.dtypes else info.dtypes[0]), 4):
        cf.manual_seed(0)
        given = moved_sample(sample, "cuda")
        leaves = [t for t in given.tensors() if t.requires_grad]
        roots = [r for r in flatten(info.function(*given.args, **given.kwargs)) if isinstance(r, cf.Tensor)]
        roots = [r for r in roots if r.requires_grad]
        if not leaves or not roots:
            continue
        try:
            grads = cf.autograd.grad(sum((r * r).sum() for r in roots), leaves, create_graph=True, allow_unused=True)
            grads = [g for g in grads if g is not None and g.requires_grad]
            if grads:
                cf.autograd.grad(sum((g * g).sum() for g in grads), leaves, allow_unused=True)
        except Exception as error:
            print(f"{info.id}: {type(error).__name__}: {error}")
        done += 1
print(done)
"""


@pytest.mark.slow
def test_double_backward() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    # the last one's targets are made on the device
    left_out = [*LOOK_AT_VALUES, "nn.functional.ctc_loss"]
    done = subprocess.run([sys.executable, "-c", TWICE, *left_out], cwd=ROOT, env=env, text=True, capture_output=True)
    *failed, count = done.stdout.splitlines() or ["", "0"]
    assert not failed and int(count) > 1000, done.stdout + done.stderr
