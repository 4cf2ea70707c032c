"""Losses of class indices: `kernels/loss.cu`.

Nothing waits for the device.  So targets that are no class cannot raise: their loss is NaN, their gradient zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from cuframe.cuda.launch import Kernel, accumulator
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["Saved", "cross_entropy_backward", "cross_entropy_forward", "nll_backward", "nll_forward"]

_T: dict[str, Any] = {"types": {"T": FLOATS}}
_THREADS = 256
_ROWS: dict[str, Any] = {**_T, "constants": {"GROUP": (1, 32, _THREADS)}}
# rows of up to so many classes are a thread's, or a warp's
_THREAD_ROW, _WARP_ROW = 16, 1024
# blocks that go on to further rows; each leaves a pair of sums
_BLOCKS = 1024

_FORWARD = Kernel("loss.cu", "cross_entropy_forward", (
    "const T* x", "const int64* targets[rows]", "const T* w?[classes]", "acc_t<T>* norms[2, rows]", "T* losses?[rows]",
    "acc_t<T>* sums?", "int64 rows", "int32 classes", "int64 inner", "int64 ignore", "double smoothing"), **_ROWS)
_BACKWARD = Kernel("loss.cu", "cross_entropy_backward", (
    "const T* g", "const T* x", "const int64* targets[rows]", "const T* w?[classes]", "const acc_t<T>* norms[2, rows]",
    "const acc_t<T>* total?[1]", "const acc_t<T>* w_sum?[1]", "T* gx", "int64 rows", "int32 classes", "int64 inner",
    "int64 ignore", "double smoothing", "bool each"), **_ROWS)
_NLL_FORWARD = Kernel("loss.cu", "nll_forward", (
    "const T* x", "const int64* targets[rows]", "const T* w?[classes]", "T* losses?[rows]", "acc_t<T>* sums?",
    "int64 rows", "int32 classes", "int64 inner", "int64 ignore"), **_T)
_NLL_BACKWARD = Kernel("loss.cu", "nll_backward", (
    "const T* g", "const int64* targets[rows]", "const T* w?[classes]", "const acc_t<T>* total?[1]", "T* gx",
    "int64 rows", "int32 classes", "int64 inner", "int64 ignore", "bool each"), **_T)
_TOTAL = Kernel("loss.cu", "loss_total", (
    "T* loss[1]", "const acc_t<T>* sums[2, parts]", "acc_t<T>* total[1]", "int32 parts", "bool mean"), **_T)


@dataclass(slots=True)
class Saved:
    """What backward needs.

    `x` holds the logits, None for a likelihood; `sizes` are rows, classes and inner, the product of the dimensions
    behind the classes; `last` tells that these were moved behind all others.  `total` [1] is what a mean divides by.
    """

    x: Any
    shape: tuple[int, ...]
    dtype: Any
    targets: Any
    weight: Any
    ignore: int
    reduction: str
    sizes: tuple[int, int, int]
    last: bool
    total: Any = None
    norms: Any = None
    smoothing: float = 0.0

    @property
    def divisor(self) -> Any:
        """`total` where the loss is a mean."""
        return self.total if self.reduction == "mean" else None


def cross_entropy_forward(x: Any, targets: Any, weight: Any, ignore: int, reduction: str,
                          smoothing: float = 0.0) -> tuple[Any, Saved]:
    """The cross entropy between the softmax of x and class indices.

    Args:
        x: logits, [C], [N, C] or [N, C, d1, ...].
        targets: integers, [], [N] or [N, d1, ...].
        weight: [C] of the dtype of x, or None.

    Returns:
        The loss, of the dtype of x: [] or, with reduction "none", of the shape of the targets.
    """
    s = _saved(x, targets, weight, ignore, reduction)
    s.smoothing = smoothing
    rows, classes, inner = s.sizes
    s.norms = np.empty_like(s.x, shape=(2, rows), dtype=accumulator(x.dtype), order="C")
    group, blocks = _shape(s.sizes)
    losses, sums = _outputs(s, blocks, targets.shape)
    if rows:
        _FORWARD(blocks, _THREADS, s.x, s.targets, s.weight, s.norms, losses, sums, rows, classes, inner, ignore,
                 smoothing, GROUP=group)
    return _total(s, losses, sums), s


def cross_entropy_backward(g: Any, saved: Saved) -> Any:
    """The gradient of the logits from that of the loss."""
    s = saved
    rows, classes, inner = s.sizes
    gx = np.empty_like(s.x)
    if rows:
        w_sum = None
        if s.smoothing and s.weight is not None:
            w_sum = s.weight.astype(s.norms.dtype, copy=False).sum()
        group, blocks = _shape(s.sizes)
        _BACKWARD(blocks, _THREADS, dense(g), s.x, s.targets, s.weight, s.norms, s.divisor, w_sum, gx, rows, classes,
                  inner, s.ignore, s.smoothing, s.reduction == "none", GROUP=group)
    return np.moveaxis(gx, -1, 1) if s.last else gx


def nll_forward(x: Any, targets: Any, weight: Any, ignore: int, reduction: str) -> tuple[Any, Saved]:
    """Minus the log probabilities x of class indices; arguments and result as of `cross_entropy_forward`."""
    s = _saved(x, targets, weight, ignore, reduction)
    rows, classes, inner = s.sizes
    blocks = min(_BLOCKS, -(-rows // _THREADS))
    losses, sums = _outputs(s, blocks, targets.shape)
    if rows:
        _NLL_FORWARD(blocks, _THREADS, s.x, s.targets, s.weight, losses, sums, rows, classes, inner, ignore)
    s.x = None
    return _total(s, losses, sums), s


def nll_backward(g: Any, saved: Saved) -> Any:
    """The gradient of the log probabilities from that of the loss."""
    s = saved
    rows, classes, inner = s.sizes
    gx = np.zeros_like(s.targets, shape=s.shape, dtype=s.dtype, order="C")
    if rows:
        _NLL_BACKWARD(-(-rows // _THREADS), _THREADS, dense(g), s.targets, s.weight, s.divisor, gx, rows, classes,
                      inner, s.ignore, s.reduction == "none")
    return np.moveaxis(gx, -1, 1) if s.last else gx


def _saved(x: Any, targets: Any, weight: Any, ignore: int, reduction: str) -> Saved:
    """The arguments as the kernels take them."""
    last = False
    if x.ndim == 1:
        sizes = 1, x.shape[0], 1
    else:
        sizes = x.shape[0] * prod(x.shape[2:]), x.shape[1], prod(x.shape[2:])
        if x.ndim > 2 and not x.flags.c_contiguous:
            # logits of sequences often come as [N, T, C] transposed: rows in one piece
            moved = np.moveaxis(x, 1, -1)
            last = moved.flags.c_contiguous
            if last:
                x, sizes = moved, (*sizes[:2], 1)
    x = dense(x)
    targets = dense(targets.astype(np.int64, copy=False))
    weight = None if weight is None else dense(weight)
    return Saved(x, x.shape, x.dtype, targets, weight, ignore, reduction, sizes, last)


def _outputs(s: Saved, blocks: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The losses of rows, or the sums of blocks."""
    if s.reduction == "none":
        # a shape of () is none at all to CuPy's empty_like
        return np.empty_like(s.targets, shape=(prod(shape),), dtype=s.dtype).reshape(shape), None
    return None, np.empty_like(s.targets, shape=(2, blocks), dtype=accumulator(s.dtype), order="C")


def _total(s: Saved, losses: Any, sums: Any) -> Any:
    """The loss after reduction; the total weight goes into `s`."""
    if losses is not None:
        return losses
    loss = np.empty_like(sums, shape=(1,), dtype=s.dtype).reshape(())
    s.total = np.empty_like(sums, shape=(1,))
    _TOTAL(1, _THREADS, loss, sums, s.total, sums.shape[1], s.reduction == "mean")
    return loss


def _shape(sizes: tuple[int, int, int]) -> tuple[int, int]:
    """How many threads share a row, and blocks."""
    rows, classes, inner = sizes
    group = 1 if inner > 1 or classes <= _THREAD_ROW else 32 if classes <= _WARP_ROW else _THREADS
    return group, min(_BLOCKS, -(-rows * group // _THREADS))
