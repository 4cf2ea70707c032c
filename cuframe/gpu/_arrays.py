"""What the families share of arrays."""

from __future__ import annotations

from typing import Any

__all__ = ["FLOATS", "dense"]

# what a kernel over floating-point numbers is compiled for
FLOATS = ("float32", "float64", "float16", "bfloat16")


def dense(x: Any) -> Any:
    """`x`, in one row-major piece of memory."""
    return x if x.flags.c_contiguous else x.copy(order="C")
