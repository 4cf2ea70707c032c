"""`kernels/attention.cu` against the CPU's blocks and formulas in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cuframe.cpu import attention as host
from cuframe.gpu import attention
from tests.kernels import Array, assert_near, numbers, put

# gradients add up more than results do
_ROOM = {"float32": 4.0, "float64": 8.0, "float16": 2.0, "bfloat16": 2.0}


def wide(x: Array | None) -> Any:
    return x if x is None or x.dtype == bool else x.astype(np.float64)


def check(
    device: str, dtype: str, heads: tuple[int, int], lengths: tuple[int, int], widths: tuple[int, int], batch: int = 1,
    mask: Array | None = None, causal: bool = False, p: float = 0.0,
) -> None:  # fmt: skip
    """Forward and all gradients, against the CPU's in float64."""
    (own, shared), (length, keys), (e, ev) = heads, lengths, widths
    q = numbers(batch, own, length, e, dtype=dtype)
    k, v = numbers(batch, shared, keys, e, dtype=dtype, seed=1), numbers(batch, shared, keys, ev, dtype=dtype, seed=2)
    g = numbers(batch, own, length, ev, dtype=dtype, seed=3)
    mask = mask if mask is None or mask.dtype == bool else mask.astype(q.dtype)
    drop = host.Dropout(5, 77, p) if p else None
    rest = (causal, 0.3, drop)
    out, lse = host.forward(wide(q), wide(k), wide(v), wide(mask), *rest)
    needs_mask = mask is not None and mask.dtype != bool
    expected = host.backward(wide(g), wide(q), wide(k), wide(v), wide(mask), *rest, out, lse, needs_mask)
    inputs = [a if a is None else put(a, device) for a in (q, k, v, mask)]
    got, got_lse = attention.forward(*inputs, *rest)
    assert got.dtype == q.dtype
    what = f"{dtype} {heads} {lengths} {widths}"
    assert_near(got, out, dtype, _ROOM[dtype], what=f"{what}: out")
    grads = attention.backward(put(g, device), *inputs, *rest, got, got_lse, needs_mask)
    for name, a, b in zip("qkvm", grads, expected):
        assert (a is None) == (b is None)
        if b is not None:
            assert_near(a, b, dtype, _ROOM[dtype], what=f"{what}: gradient of {name}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 65), (31, 33), (64, 64), (65, 63), (128, 97)])
def test_lengths(lengths: tuple[int, int], dtype: str, device: str) -> None:
    check(device, dtype, (1, 1), lengths, (16, 16))
    check(device, dtype, (1, 1), lengths, (16, 16), causal=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", [(1, 1), (7, 7), (8, 20), (32, 32), (64, 65), (80, 80), (128, 128), (129, 30),
                                    (256, 256)])
def test_widths(widths: tuple[int, int], dtype: str, device: str) -> None:
    check(device, dtype, (1, 1), (17, 35), widths)
