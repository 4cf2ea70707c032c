"""Normalisation of rows and of channels: `kernels/norm.cu`.

Offers what ops uses of `cuframe.cpu.norm`.  16-bit inputs are read as they are and computed in float32; statistics are
float32, or float64 for float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cuframe.cuda.launch import Kernel, accumulator
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["channels_backward", "channels_forward", "follow", "operand", "rows_backward", "rows_forward"]

_T: dict[str, Any] = {"types": {"T": FLOATS}}
# lanes, or threads of a block, that share a row
_GROUPS = (8, 32, 256)
_ROWS: dict[str, Any] = {**_T, "constants": {"GROUP": _GROUPS}}
# bytes of a row up to which 8 lanes, or a warp, hold it in registers
_LANES_ROW, _WARP_ROW = 512, 4096
# rows that one block adds up; of more, the least for each block, and how many blocks share a column at most
_ALONE, _PART, _PARTS = 128, 32, 128
# rows enough for a block each; fewer are cut into parts, of so many numbers at least
_ENOUGH, _PIECE = 512, 4096

_ROWS_FORWARD = Kernel("norm.cu", "norm_rows_forward", (
    "const T* x[rows, size]", "const T* w?[size]", "const acc_t<T>* w_wide?[size]", "const T* b?[size]",
    "const acc_t<T>* b_wide?[size]", "T* y[rows, size]", "acc_t<T>* mean?[rows]", "acc_t<T>* rstd[rows]", "int64 rows",
    "int32 size", "double eps"), **_ROWS)
_ROWS_BACKWARD = Kernel("norm.cu", "norm_rows_backward", (
    "const T* g[rows, size]", "const T* x[rows, size]", "const T* w?[size]", "const acc_t<T>* w_wide?[size]",
    "const acc_t<T>* mean?[rows]", "const acc_t<T>* rstd[rows]", "T* gx[rows, size]", "int64 rows", "int32 size"),
    **_ROWS)
_COLUMNS = Kernel("norm.cu", "norm_columns", (
    "const T* g[rows, size]", "const T* x[rows, size]", "const acc_t<T>* mean?", "const acc_t<T>* rstd",
    "acc_t<T>* sum_g", "acc_t<T>* sum_gh", "int64 rows", "int64 size", "int64 per"),
    constants={"BY_COLUMN": (False, True)}, **_T)
_FINISH = Kernel("norm.cu", "norm_finish", (
    "T* gw[size]", "T* gb[size]", "const T* w?[size]", "const acc_t<T>* sum_g[count, size]",
    "const acc_t<T>* sum_gh[count, size]", "acc_t<T>* k1?", "acc_t<T>* k2?", "int64 count", "int64 size", "int64 per",
    "double scale"), **_T)
_MOMENTS = Kernel("norm.cu", "norm_moments", (
    "const T* x[rows, size]", "acc_t<T>* mean[rows]", "acc_t<T>* squares?[rows]", "acc_t<T>* var?[rows]",
    "acc_t<T>* rstd?[rows]", "int64 rows", "int32 size", "double eps"), **_ROWS)
_JOIN = Kernel("norm.cu", "norm_join", (
    "const T* mean[outer, count, inner]", "const acc_t<T>* squares?[outer, count, inner]", "acc_t<T>* joined",
    "acc_t<T>* spread", "acc_t<T>* rstd?[outer, inner]", "int64 outer", "int64 count", "int64 inner", "int64 per",
    "int64 unit", "int64 total", "int64 each", "double eps"), **_T)
_SUMS = Kernel("norm.cu", "norm_sums", (
    "const T* g[rows, size]", "const T* x[rows, size]", "const acc_t<T>* mean", "const acc_t<T>* rstd",
    "acc_t<T>* sum_g[rows]", "acc_t<T>* sum_gh[rows]", "int64 rows", "int32 size", "int64 channels", "int64 per",
    "int64 split"), **_ROWS)
_GROUP_MEANS = Kernel("norm.cu", "norm_group_means", (
    "const T* w[channels]", "const acc_t<T>* sum_g[groups, per]", "const acc_t<T>* sum_gh[groups, per]",
    "acc_t<T>* k1[groups]", "acc_t<T>* k2[groups]", "int64 groups", "int64 channels", "int64 per", "double scale"),
    **_T)
_APPLY = Kernel("norm.cu", "norm_apply", (
    "const T* x[rows, size]", "const T* w?[channels]", "const acc_t<T>* w_wide?[channels]", "const T* b?[channels]",
    "const acc_t<T>* b_wide?[channels]", "const acc_t<T>* mean", "const acc_t<T>* rstd", "T* y[rows, size]",
    "int64 rows", "int64 size", "int64 channels", "int64 per"), **_T)
_APPLY_BACKWARD = Kernel("norm.cu", "norm_apply_backward", (
    "const T* g[rows, size]", "const T* x[rows, size]", "const T* w?[channels]", "const acc_t<T>* w_wide?[channels]",
    "const acc_t<T>* mean", "const acc_t<T>* rstd", "const acc_t<T>* k1?", "const acc_t<T>* k2?", "T* gx[rows, size]",
    "int64 rows", "int64 size", "int64 channels", "int64 per"), **_T)
_FOLLOW = Kernel("norm.cu", "norm_follow", (
    "strided T* running[channels]", "const V* values[n, channels]", "int64 n", "int64 channels", "int64 step",
    "double momentum", "double scale"), types={**_T["types"], "V": ("float32", "float64")})


def operand(x: Any) -> Any:
    """An array as the functions below take it: in one piece, of whatever floating-point dtype."""
    return dense(x)


# -- rows: LayerNorm and RMSNorm ----------------------------------------------------------------------------------
def rows_forward(x: Any, w: Any, b: Any, eps: float, centred: bool) -> tuple[Any, Any, Any]:
    """`cuframe.cpu.norm.rows_forward`; 16-bit x may have float32 w and b."""
    rows, size = x.shape
    y = np.empty_like(x)
    mean = _new(x, rows, 1) if centred else None
    rstd = _new(x, rows, 1)
    if x.size:
        group, blocks, threads = _shape(x)
        _ROWS_FORWARD(blocks, threads, x, *_either(w, x), *_either(b, x), y, mean, rstd, rows, size, eps, GROUP=group)
    return y, mean, rstd


def rows_backward(g: Any, x: Any, w: Any, mean: Any, rstd: Any, needs: tuple[bool, bool, bool]) -> tuple[Any, Any, Any]:
    """`cuframe.cpu.norm.rows_backward`; the gradients of w and b have the dtype of w, or of the statistics."""
    rows, size = x.shape
    gx = gw = gb = None
    if needs[0]:
        gx = np.empty_like(x)
        if x.size:
            group, blocks, threads = _shape(x)
            _ROWS_BACKWARD(blocks, threads, g, x, *_either(w, x), mean, rstd, gx, rows, size, GROUP=group)
    if needs[1] or needs[2]:
        gw, gb = _finished(*_column_sums(g, x, mean, rstd, by_column=False), w)[:2]
    return gx, gw if needs[1] else None, gb if needs[2] else None


# -- channels: BatchNorm, GroupNorm, InstanceNorm -----------------------------------------------------------------
def channels_forward(x: Any, w: Any, b: Any, groups: int, eps: float, fixed: Any) -> tuple[Any, Any, Any, Any]:
    """`cuframe.cpu.norm.channels_forward`."""
    n, c, size = x.shape
    shape = (n, groups, 1) if groups else (1, 1, c)
    if fixed is not None:
        mean, var = (f.astype(accumulator(x.dtype), order="C", copy=False) for f in fixed)
        mean, var, rstd = _joined(mean, var, 1, 1, c, 1, eps)
    elif not x.size:
        mean, var, rstd = (np.zeros_like(x, shape=shape, dtype=accumulator(x.dtype)) for _ in range(3))
    else:
        mean, var, rstd = _statistics(x, groups, eps)
    y = np.empty_like(x)
    if x.size:
        _APPLY(_blocks(x), 256, x, *_either(w, x), *_either(b, x), mean, rstd, y, n * c, size, c,
               c // groups if groups else 0)
    return y, mean.reshape(shape), var.reshape(shape), rstd.reshape(shape)


def channels_backward(g: Any, x: Any, w: Any, groups: int, mean: Any, rstd: Any, fixed: bool,
                      needs: tuple[bool, bool, bool]) -> tuple[Any, Any, Any]:
    """`cuframe.cpu.norm.channels_backward`; the gradients of w and b have the dtype of w, or of the statistics."""
    n, c, size = x.shape
    per = c // groups if groups else 0
    gx = gw = gb = k1 = k2 = None
    if needs[1] or needs[2] or not fixed:
        sum_g, sum_gh = _channel_sums(g, x, groups, mean, rstd)
        if groups and needs[0] and x.size:
            k1, k2 = _group_means(sum_g, sum_gh, w, n, c, groups, size)
        if needs[1] or needs[2] or not groups:
            gw, gb, *means = _finished(sum_g, sum_gh, w, None if groups or fixed else 1 / max(1, n * size))
            if means:
                k1, k2 = means
    if needs[0]:
        gx = np.empty_like(x)
        if x.size:
            _APPLY_BACKWARD(_blocks(x), 256, g, x, *_either(w, x), mean, rstd, k1, k2, gx, n * c, size, c, per)
    return gx, gw if needs[1] else None, gb if needs[2] else None


def follow(running: Any, values: Any, momentum: float, scale: float = 1.0) -> None:
    """`cuframe.cpu.norm.follow`."""
    n, c = values.shape
    if c:
        _FOLLOW(-(-c // 256), 256, running, values, n, c, running.strides[0] // running.dtype.itemsize, momentum, scale)


def _statistics(x: Any, groups: int, eps: float) -> tuple[Any, Any, Any]:
    """Mean, variance and rstd of batches [C] or of groups [N * G]."""
    n, c, size = x.shape
    if groups and (n * groups >= _ENOUGH or x.size // (n * groups) * x.dtype.itemsize <= _WARP_ROW):
        rows = n * groups
        mean, var, rstd = (_new(x, rows) for _ in range(3))
        _run_moments(x.reshape(rows, x.size // rows), mean, None, var, rstd, eps)
        return mean, var, rstd
    outer, count, inner = (n * groups, c // groups, 1) if groups else (1, n, c)
    if size == 1:
        return _joined(x, None, outer, count, inner, 1, eps)
    split = _split(n * c, size)
    rows = n * c * split
    mean, squares = _new(x, rows), _new(x, rows)
    _run_moments(x.reshape(rows, size // split), mean, squares, None, None, eps)
    if split > 1 and not groups and n > 1:
        parts, left = (mean, squares), n * c
        mean, squares = _new(x, left), _new(x, left)
        _JOIN(-(-left // 32), (32, 8), *parts, mean, squares, None, left, split, 1, split, 1, split, size // split, eps)
    elif split > 1:
        # the parts of a channel, or of the channels of a group, are neighbours
        outer, count, inner, size = n * (groups or c), count * split, 1, size // split
    return _joined(mean, squares, outer, count, inner, size, eps)


def _run_moments(x: Any, mean: Any, squares: Any, var: Any, rstd: Any, eps: float) -> None:
    group, blocks, threads = _shape(x)
    _MOMENTS(blocks, threads, x, mean, squares, var, rstd, *x.shape, eps, GROUP=group)


def _joined(mean: Any, squares: Any, outer: int, count: int, inner: int, each: int, eps: float) -> tuple[Any, Any, Any]:
    """Mean, variance and rstd [outer, inner] of moments [outer, count, inner], each of `each` numbers."""
    blocks, unit, total = -(-outer * inner // 32), 1, count
    per, parts = _parts(count) if outer == 1 else (count, 1)
    if parts > 1:
        joined, spread = _new(mean, parts, inner), _new(mean, parts, inner)
        _JOIN((blocks, parts), (32, 8), mean, squares, joined, spread, None, 1, count, inner, per, unit, total, each,
              eps)
        mean, squares, count, unit = joined, spread, parts, per
    joined, var, rstd = (_new(mean, outer * inner) for _ in range(3))
    _JOIN(blocks, (32, 8), mean, squares, joined, var, rstd, outer, count, inner, count, unit, total, each, eps)
    return joined, var, rstd


def _channel_sums(g: Any, x: Any, groups: int, mean: Any, rstd: Any) -> tuple[Any, Any]:
    """The sums of g and g h of each row, [N, C] each; of batches without positions those of parts, [parts, C]."""
    n, c, size = x.shape
    if size == 1 and not groups:
        return _column_sums(g.reshape(n, c), x.reshape(n, c), mean, rstd, by_column=True)
    if not x.size:
        return np.zeros_like(mean, shape=(n, c)), np.zeros_like(mean, shape=(n, c))
    split = _split(n * c, size)
    rows, part = n * c * split, size // split
    sum_g, sum_gh = _new(x, n, c, split), _new(x, n, c, split)
    group, blocks, threads = _shape(x.reshape(rows, part))
    _SUMS(blocks, threads, g, x, mean, rstd, sum_g, sum_gh, rows, part, c, c // groups if groups else 0, split,
          GROUP=group)
    if split > 1:
        return sum_g.sum(axis=2), sum_gh.sum(axis=2)
    return sum_g.reshape(n, c), sum_gh.reshape(n, c)


def _column_sums(g: Any, x: Any, mean: Any, rstd: Any, by_column: bool) -> tuple[Any, Any]:
    """Partial sums of g and g h of the columns, [parts, size] each."""
    rows, size = x.shape
    per, parts = _parts(rows)
    sums = _new(x, parts, size), _new(x, parts, size)
    if sums[0].size:
        wide = 32 * min(4, 16 // x.dtype.itemsize)
        _COLUMNS((-(-size // wide), parts), (32, 8), g, x, mean, rstd, *sums, rows, size, per, BY_COLUMN=by_column)
    return sums


def _finished(sum_g: Any, sum_gh: Any, w: Any, scale: float | None = None) -> list[Any]:
    """The gradients of w and b; with a scale, also the sums of w g and of w g h times that."""
    count, size = sum_g.shape
    per, parts = _parts(count)
    gw = np.empty_like(sum_g if w is None else w, shape=(size,), order="C")
    grads = gw, np.empty_like(gw)
    if not size:
        return [*grads, *((sum_g, sum_gh) if scale is not None else ())]
    blocks = -(-size // 32)
    if parts > 1:
        sums = _new(sum_g, parts, size), _new(sum_g, parts, size)
        _FINISH((blocks, parts), (32, 8), *grads, None, sum_g, sum_gh, *sums, count, size, per, 1.0)
        sum_g, sum_gh, count = *sums, parts
    means = (None, None) if scale is None else (_new(sum_g, size), _new(sum_g, size))
    _FINISH(blocks, (32, 8), *grads, w, sum_g, sum_gh, *means, count, size, count, scale or 0.0)
    return [*grads, *(means if scale is not None else ())]


def _group_means(sum_g: Any, sum_gh: Any, w: Any, n: int, c: int, groups: int, size: int) -> tuple[Any, Any]:
    """The means of w g and w g h of each group of each sample."""
    per = c // groups
    weight = np.ones_like(sum_g, shape=(c,)) if w is None else w
    k1, k2 = _new(sum_g, n * groups), _new(sum_g, n * groups)
    _GROUP_MEANS(-(-n * groups // 4), 128, weight, sum_g, sum_gh, k1, k2, n * groups, c, per, 1 / (per * size))
    return k1, k2


# -- launches -----------------------------------------------------------------------------------------------------
def _new(like: Any, *shape: int) -> Any:
    return np.empty_like(like, shape=shape, dtype=accumulator(like.dtype), order="C")


def _either(f: Any, x: Any) -> tuple[Any, Any]:
    """A factor as the kernels take it: of the dtype of x, or in its stead one of the accumulator's."""
    return (f, None) if f is None or f.dtype == x.dtype else (None, f)


def _shape(x: Any) -> tuple[int, int, int]:
    """Who shares a row: threads of a group; and blocks, threads of a block."""
    rows, size = x.shape
    length = size * x.dtype.itemsize
    group = _GROUPS[0] if length <= _LANES_ROW else _GROUPS[1] if length <= _WARP_ROW else _GROUPS[2]
    threads = max(128, group)
    return group, -(-rows * group // threads), threads


def _blocks(x: Any) -> int:
    """Blocks of 256 threads with a pack of 16 bytes each."""
    return -(-x.size * x.dtype.itemsize // (16 * 256))


def _split(rows: int, size: int) -> int:
    """Into how many equal parts each of a few long rows is cut."""
    split = 1
    while rows * split < _ENOUGH and size % (2 * split) == 0 and size // (2 * split) >= _PIECE:
        split *= 2
    return split


def _parts(rows: int) -> tuple[int, int]:
    """Into how many parts of how many rows the rows of a column are cut; by their number alone."""
    per = max(_PART, -(-rows // _PARTS)) if rows > _ALONE else max(1, rows)
    return per, max(1, -(-rows // per))
