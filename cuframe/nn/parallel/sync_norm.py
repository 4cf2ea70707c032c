"""Batch normalisation with statistics over the batches of all ranks.

Note [Statistics of many ranks]
    Each rank hands in mean, sum of squared deviations and count of each channel, and joins everyone's by Chan's formula
    in the order of ranks: one collective, the same bits on all ranks, nothing cancels, and batches may differ in size
    or be empty. Backward needs the sums over ranks of g and g * (x - mean) * rstd: one collective more. Gradients of
    weight and bias stay those of the rank's own batch, as of every parameter; DistributedDataParallel averages them.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ...autograd import versions
from ...backend import backend_of
from ...distributed import ProcessGroup, ReduceOp, all_gather_into_tensor, all_reduce
from ...ops.define import Op, check_floating
from ...ops.elementwise import rsqrt
from ...tensor import Tensor, record

__all__ = ["sync_batch_norm"]


def _summed(array: Any, group: ProcessGroup) -> Any:
    total = Tensor(array.copy())
    all_reduce(total, ReduceOp.SUM, group)
    return total.array


def _sum_vjp(g: Any, needs: tuple, group: ProcessGroup) -> tuple:
    return (_sum_over_ranks(g, group) if isinstance(g, Tensor) else _summed(g, group),)


_SUM = Op("sum_over_ranks", _sum_vjp, (None,))


def _sum_over_ranks(t: Tensor, group: ProcessGroup) -> Tensor:
    """The sum of the ranks' tensors, whose gradient is the sum of the ranks' gradients."""
    return record(_summed(t.array, group), _SUM, (t,), (group,))


def _moments(x: Any, group: ProcessGroup) -> tuple[Any, Any, Any]:
    """Mean [C], population variance [C] and count [1] over all ranks' x [N, C, L]."""
    xp, (n, c, size) = backend_of(x).xp, x.shape
    count = n * size
    mean = x.sum(axis=(0, 2)) / max(1, count)
    squares = ((x - mean.reshape(1, c, 1)) ** 2).sum(axis=(0, 2))
    mine = xp.concatenate([mean, squares, xp.full_like(mean, count, shape=(1,))])
    rows = xp.empty_like(mine, shape=(group.size, mine.size))
    all_gather_into_tensor(Tensor(rows), Tensor(mine), group)
    means, squares, counts = rows[:, :c], rows[:, c : 2 * c], rows[:, 2 * c :]
    total = xp.maximum(counts.sum(axis=0), 1)
    mean = (means * counts).sum(axis=0) / total
    squares = squares.sum(axis=0) + ((means - mean) ** 2 * counts).sum(axis=0)
    return mean, squares / total, total


def _vjp(
    g: Any, needs: tuple, x: Any, w: Any, b: Any, eps: float, total: Any, group: ProcessGroup, mean: Any, rstd: Any
) -> tuple:
    kernel, c = backend_of(x).kernel("norm"), x.shape[1]
    shape = (x.shape[0], c, prod(x.shape[2:]))
    need_x, need_w, need_b = (need is not None for need in (*needs, None, None)[:3])
    wide, wide_w = kernel.operand(x).reshape(shape), None if w is None else kernel.operand(w)
    gx, gw, gb = kernel.channels_backward(
        kernel.operand(g).reshape(shape), wide, wide_w, 0, mean, rstd, True, (need_x, True, True)
    )
    if need_x:
        sums = _summed(backend_of(x).xp.concatenate([gb, gw]).astype(wide.dtype, copy=False), group) / total
        m, r = mean.reshape(1, c, 1), rstd.reshape(1, c, 1)
        scale = r if wide_w is None else r * wide_w.reshape(1, c, 1)
        slope = scale * r * sums[c:].reshape(1, c, 1)
        gx = gx.reshape(shape) - (wide * slope + (scale * sums[:c].reshape(1, c, 1) - slope * m))
        gx = gx.reshape(x.shape).astype(x.dtype, copy=False)
    return (
        gx, gw.astype(w.dtype, copy=False) if need_w else None, gb.astype(b.dtype, copy=False) if need_b else None
    )  # fmt: skip


def _composite(x: Tensor, w: Any, b: Any, eps: float, total: Any, group: ProcessGroup) -> Tensor:
    c = x.shape[1]
    wide = (x.float() if x.array.dtype.itemsize == 2 else x).reshape(x.shape[0], c, prod(x.shape[2:]))
    count = Tensor(total)
    mean = _sum_over_ranks(wide.sum(axis=(0, 2)), group) / count
    d = wide - mean.reshape(1, c, 1)
    var = _sum_over_ranks((d * d).sum(axis=(0, 2)), group) / count
    y = d * rsqrt(var + eps).reshape(1, c, 1)
    if w is not None:
        y = y * w.reshape(1, c, 1)
    if b is not None:
        y = y + b.reshape(1, c, 1)
    return y.reshape(x.shape).to(x.dtype)


_OP = Op("sync_batch_norm", _vjp, (0, 1, 2, "constant", "constant", "constant", None, None), _composite)


def sync_batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, momentum: float, eps: float, group: ProcessGroup,
) -> Tensor:  # fmt: skip
    """`F.batch_norm` in training, with the statistics of all ranks of `group`; all must call it.

    Args:
        input: (N, C, ...), floating point; N may differ from rank to rank.
        running_mean, running_var: (C,), moved in place, the same on all ranks; or None.
        weight, bias: (C,) or None.
        momentum: the weight of the new statistics.
        eps: added to the variance.
        group: the ranks.
    """
    check_floating("sync_batch_norm", "input", input)
    x = input.array
    kernel, c = backend_of(x).kernel("norm"), x.shape[1]
    if weight is not None and weight.array.shape != (c,):
        raise RuntimeError(f"sync_batch_norm: input must have {weight.array.shape[0]} channels, got {tuple(x.shape)}")
    w, b = (None if t is None else t.array for t in (weight, bias))
    wide = kernel.operand(x).reshape(x.shape[0], c, prod(x.shape[2:]))
    mean, var, total = _moments(wide, group)
    for running, value in ((running_mean, mean), (running_var, var * (total / np.maximum(total - 1, 1)))):
        if running is not None:
            kernel.follow(running.array, value.reshape(1, c), momentum)
            versions.written(running.array, "sync_batch_norm")
    flat_w, flat_b = (None if f is None else kernel.operand(f) for f in (w, b))
    out, mean, _, rstd = kernel.channels_forward(wide, flat_w, flat_b, 0, eps, (mean, var))
    saved = (x, w, b, eps, total, group, mean, rstd)
    return record(out.reshape(x.shape).astype(x.dtype, copy=False), _OP, (input, weight, bias), saved)
