"""Matrix products on a GPU: the one place that calls cuBLAS, through CuPy."""

from __future__ import annotations

from typing import Any

__all__ = ["matmul"]


def matmul(cupy: Any, a: Any, b: Any) -> Any:
    """`a @ b` on the current stream; 16-bit operands accumulate in float32 and are rounded once.

    Transposed views are passed to cuBLAS as they are, without a copy.
    """
    if a.dtype.itemsize == 2 and a.dtype.kind == "V" and (a.ndim > 2 or b.ndim > 2):
        # CuPy 14 multiplies no stacks of matrices in bfloat16
        if b.ndim == 2:
            return cupy.matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[1])
        return cupy.matmul(a.astype("float32"), b.astype("float32")).astype(a.dtype)
    return cupy.matmul(a, b)
