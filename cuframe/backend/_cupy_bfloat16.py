"""CuPy's functions that take bfloat16 for float32.

CuPy 14 has loops for bfloat16 in its ufuncs, but `where` has none and answers in float32, and so does `clip`.  NumPy
hands `np.where` of CuPy's arrays to whatever `cupy.where` is.
"""

from __future__ import annotations

from typing import Any

__all__ = ["mend"]


def mend(cupy: Any) -> None:
    """Let `cupy.where` and `cupy.clip` keep bfloat16."""
    import ml_dtypes
    import numpy as np

    narrow = np.dtype(ml_dtypes.bfloat16)
    if cupy.where.__module__ == __name__:
        return
    true_where, true_clip = cupy.where, cupy.clip

    def is_narrow(x: Any) -> bool:
        return getattr(x, "dtype", None) == narrow

    def is_number(x: Any) -> bool:
        return isinstance(x, (bool, int, float))

    def where(condition: Any, x: Any = None, y: Any = None) -> Any:
        # bits are bits: chosen among as integers
        if is_narrow(x) and (is_narrow(y) or is_number(y)) or is_number(x) and is_narrow(y):
            x, y = (v.view(np.int16) if is_narrow(v) else int(narrow.type(v).view(np.int16)) for v in (x, y))
            return true_where(condition, x, y).astype(np.int16, copy=False).view(narrow)
        return true_where(condition, x, y)

    def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None) -> Any:
        result = true_clip(a, a_min, a_max, out)
        return result.astype(narrow) if is_narrow(a) and out is None else result

    cupy.where, cupy.clip = where, clip
