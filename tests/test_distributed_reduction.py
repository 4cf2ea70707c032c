"""Sums of several arrays: machine code has NumPy's bits."""

from __future__ import annotations

import numpy as np
import pytest

from cuframe.cpu import jit
from cuframe.distributed import reduction
from cuframe.distributed.process_group import ReduceOp
from tests.ranks import check_ranks


def parts_of(count: int, size: int, dtype: str) -> list[np.ndarray]:
    r = np.random.default_rng(count * size)
    parts = [(r.standard_normal(size) * 10.0 ** r.integers(-3, 4, size)).astype(dtype) for _ in range(count)]
    parts[0][:3] = np.inf, np.nan, -0.0
    parts[1][:3] = -np.inf, 1, -0.0
    return parts


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("op", [ReduceOp.SUM, ReduceOp.AVG])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_sum_of_all_is_in_all(monkeypatch, compiled, op, count):
    if compiled and not jit.available():
        pytest.skip("llvmlite is not installed")
    monkeypatch.setattr(jit, "available", lambda: compiled)
    made = reduction._kernel.cache_info()
    for size in (1 << 14, (1 << 14) + 37, 70001):
        for mine in range(count):
            parts = parts_of(count, size, "float32")
            want = parts[0].copy()
            with np.errstate(all="ignore"):
                for part in parts[1:]:
                    want += part
                if op is ReduceOp.AVG:
                    want /= np.float32(count)
            others = [part for i, part in enumerate(parts) if i != mine] + [np.empty(size, np.float32)]
            reduction.reduce_to(parts, mine, others, op)
            for array in (parts[mine], *others):
                assert array[3:].tobytes() == want[3:].tobytes() and np.array_equal(array, want, equal_nan=True)
    now = reduction._kernel.cache_info()
    assert (now.hits + now.misses > made.hits + made.misses) == compiled


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_other_dtypes_and_reductions(dtype):
    parts = list((np.arange(3 * (1 << 15)) % 1000).reshape(3, -1).astype(dtype))
    want, other = parts[0] * 1, np.empty_like(parts[0])
    for part in parts[1:]:
        want = np.maximum(want, part)
    reduction.reduce_to(parts, 2, [other], ReduceOp.MAX)
    assert np.array_equal(parts[2], want) and np.array_equal(other, want)


def test_pieces():
    """Of arrays larger than the segment: the last piece is ragged, and the ranks' shares of it are."""
    check_ranks(3, """
import numpy as np, cuframe as cf
from cuframe.distributed import shm
shm.SHARE = 1 << 17

def main(rank, size):
    dist.init_process_group(timeout=60)
    for count in (3 << 15, (3 << 15) + 1, 400001):
        for dtype in ("float32", "float64"):
            numbers = lambda r: np.random.default_rng(r).standard_normal(count).astype(dtype)
            x = cf.Tensor(numbers(rank))
            dist.all_reduce(x)
            assert x.array.tobytes() == (numbers(0) + numbers(1) + numbers(2)).tobytes(), (count, dtype)
    dist.destroy_process_group()
""")  # fmt: skip
