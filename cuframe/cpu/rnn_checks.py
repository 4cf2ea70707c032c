"""Argument checks of the recurrent sequence kernels: all of them before anything is computed."""
from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["check", "check_lengths"]

Array = npt.NDArray[Any]
_FLOATS = {np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)}


def check(op: str, gates: int, has_c: bool, x: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
          b_hh: Array | None, w_hr: Array | None, h0: Array | None, c0: Array | None, sizes: Array | None) -> int:
    """Refuse shapes and dtypes that do not fit together; return the batch size."""
    if x.dtype not in _FLOATS:
        raise ValueError(f"{op}: x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    for name, a in (("w_ih", w_ih), ("w_hh", w_hh), ("b_ih", b_ih), ("b_hh", b_hh), ("w_hr", w_hr), ("h0", h0),
                    ("c0", c0)):
        if a is not None and a.dtype != x.dtype:
            raise ValueError(f"{op}: {name} must be {x.dtype} like x, got {a.dtype}")
    if x.ndim != (3 if sizes is None else 2):
        wanted = "(T, N, I)" if sizes is None else "(rows, I) with batch_sizes"
        raise ValueError(f"{op}: x must be {wanted}, got {x.shape}")
    if w_hh.ndim != 2 or len(w_hh) == 0 or len(w_hh) % gates:
        raise ValueError(f"{op}: w_hh must be ({gates}*H, H or P), got {w_hh.shape}")
    hidden, features = len(w_hh) // gates, w_hh.shape[1]
    if not has_c:
        for name, a in (("w_hr", w_hr), ("c0", c0)):
            if a is not None:
                raise ValueError(f"{op}: {name} must be None, only lstm has one")
    if w_hr is None:
        _shape(op, "w_hh", w_hh, (gates * hidden, hidden))
    else:
        _shape(op, "w_hr", w_hr, (features, hidden))
    _shape(op, "w_ih", w_ih, (gates * hidden, x.shape[-1]))
    _shape(op, "b_ih", b_ih, (gates * hidden,))
    _shape(op, "b_hh", b_hh, (gates * hidden,))
    if sizes is None:
        batch = x.shape[1]
    else:
        batch = _check_sizes(op, sizes, len(x), h0 if h0 is not None else c0)
    _shape(op, "h0", h0, (batch, features))
    _shape(op, "c0", c0, (batch, hidden))
    return batch


def check_lengths(op: str, lengths: npt.ArrayLike | None, steps: int, batch: int) -> Array | None:
    """`lengths` as an int64 array, refused unless it is one integer from 0 to `steps` for each sequence."""
    if lengths is None:
        return None
    a = np.asarray(lengths)
    if a.shape != (batch,) or not (a.size == 0 or np.issubdtype(a.dtype, np.integer)):
        raise ValueError(f"{op}: lengths must be ({batch},) integers, got {a.shape} {a.dtype}")
    if a.size and (a.min() < 0 or a.max() > steps):
        raise ValueError(f"{op}: lengths must be between 0 and {steps}, got {a.min()} to {a.max()}")
    return a.astype(np.int64)


def _check_sizes(op: str, sizes: Array, rows: int, state: Array | None) -> int:
    if sizes.ndim != 1 or not (sizes.size == 0 or np.issubdtype(sizes.dtype, np.integer)):
        raise ValueError(f"{op}: batch_sizes must be (T,) integers, got {sizes.shape} {sizes.dtype}")
    if sizes.size and (sizes[-1] < 1 or bool((np.diff(sizes) > 0).any())):
        raise ValueError(f"{op}: batch_sizes must be positive and not increase, got {sizes.tolist()}")
    if int(sizes.sum()) != rows:
        raise ValueError(f"{op}: batch_sizes must add up to the {rows} rows of x, got {int(sizes.sum())}")
    largest = int(sizes[0]) if sizes.size else 0
    if state is None:
        return largest
    if len(state) < largest:
        raise ValueError(f"{op}: initial states must be for {largest} sequences, got {len(state)}")
    return len(state)


def _shape(op: str, name: str, a: Array | None, wanted: tuple[int, ...]) -> None:
    if a is not None and a.shape != wanted:
        raise ValueError(f"{op}: {name} must be {wanted}, got {a.shape}")
