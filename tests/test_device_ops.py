"""Every operation of the table on a device other than the CPU: the same results, dtypes and gradients.

The device is `sim`, unless `--device cuda` says otherwise.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from tests.opinfo import OP_DB, OpInfo
from tests.opinfo.core import TOLERANCES, Sample, flatten
from tests.test_ops import assert_close, widened

# what is about the host's memory, or of the CPU alone
HOST_ONLY = {"from_numpy", "from_dlpack", "full"}


def moved_sample(sample: Sample, device: str) -> Sample:
    # one tensor may be several arguments
    moved: dict[int, cf.Tensor] = {}

    def move(t: cf.Tensor) -> cf.Tensor:
        return moved.setdefault(id(t), t.detach().to(device).requires_grad_(t.requires_grad))

    return sample.map(move)


def _run(info: OpInfo, sample: Sample) -> tuple[list[Any], list[Any]]:
    """The results, and the gradients of their sum."""
    cf.manual_seed(0)
    results = [r for r in flatten(info.function(*sample.args, **sample.kwargs)) if isinstance(r, cf.Tensor)]
    leaves = [t for t in sample.tensors() if t.requires_grad]
    grads: list[Any] = []
    roots = [r for r in results if r.requires_grad]
    if info.gradient and leaves and roots:
        total = sum((r.float() if r.dtype.itemsize == 2 else r).sum() for r in roots)
        grads = list(cf.autograd.grad(total, leaves, allow_unused=True))
    return results, grads


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """On a GPU bfloat16 as well: there, other functions than NumPy's meet it."""
    second = "bfloat16" if metafunc.config.getoption("--device") == "cuda" else None
    cases = [(i, d) for i in OP_DB if i.name not in HOST_ONLY
             for d in ("float32" if "float32" in i.dtypes else i.dtypes[0], second) if d in i.dtypes]
    metafunc.parametrize(("info", "dtype"), cases, ids=[f"{i.id}-{d}" if d == second else i.id for i, d in cases])


def test_same_as_cpu(info: OpInfo, dtype: str, device: str) -> None:
    rtol, atol = info.tolerances.get(dtype, TOLERANCES.get(dtype, (0.0, 0.0)))
    # two lots of samples, since a sample may hold a generator
    for sample, again in islice(zip(info.each(dtype), info.each(dtype)), 3 if dtype == "bfloat16" else None):
        here, there = _run(info, sample), _run(info, moved_sample(again, device))
        for kind, ours, theirs in zip(("result", "gradient"), here, there):
            assert len(ours) == len(theirs)
            for a, b in zip(ours, theirs):
                what = f"{info.id}{sample}: {kind}"
                assert (a is None) == (b is None), what
                if a is None or info.reference is None and kind == "result" and "empty" in info.name:
                    continue
                assert a.dtype == b.dtype, what
                if sample.tensors():
                    assert b.device.type == device, f"{what} on {b.device}"
                got, expected = widened(b.detach().cpu().numpy()), widened(np.asarray(a.detach().array))
                if dtype == "bfloat16":  # sums may be taken in another order: roundings of the largest entry
                    atol = rtol * np.abs(expected[np.isfinite(expected)]).max(initial=0)
                assert_close(got, expected, rtol, atol, what)
