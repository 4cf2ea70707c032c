"""Matrix products on a GPU: the one place that calls cuBLAS, through CuPy."""

from __future__ import annotations

from typing import Any

__all__ = ["matmul"]


def matmul(cupy: Any, a: Any, b: Any) -> Any:
    """`a @ b` on the current stream; 16-bit operands accumulate in float32 and are rounded once.

    Transposed views are passed to cuBLAS as they are, without a copy.
    """
    return cupy.matmul(a, b)
