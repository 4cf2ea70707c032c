"""Convolution in NumPy: windows of an image as columns, block by block, and one matrix product a block.

Note [Blocks of convolution]
    A block is some groups of channels, some images and some positions, so few that its columns stay in the L2 cache:
    they are written once, read by one product for the result or one for the gradient of the weight, or by both, and
    the next block takes their place. So memory beyond the result is a megabyte or two a thread, whatever the input.
    Without stride, and where a product does little with a column (few channels out), images are copied with their
    margins and every row of columns is one run of memory; what lies between the rows of an image is computed for
    nothing. Compiled code works on such runs, too, but needs no columns: Note [Compiled convolution].

Blocks are dealt to threads, and the sums over them to a fixed number of shares, so that the bits of a gradient do
not depend on which threads were free.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from . import blas, conv_compiled, jit
from .threads import parallel

__all__ = ["Product", "Windows", "channel_sums", "gather", "gathers"]

Array = npt.NDArray[Any]

_ELEMENTS = 3 << 16  # of the columns of a block: three quarters of a megabyte in float32
_COLUMNS = 256  # a product with fewer is slow, so a block has as many however long they are
_FEW = 16  # channels out of a group below which copying columns takes longer than multiplying them
_WORTH = 1 << 22  # multiply-adds from which threads are worth waking
_COMPILE = 1 << 21  # and from which compiling is worth its time


class Windows(NamedTuple):
    """Where windows lie: the window at position p holds the source at p * stride + k * dilation - lo for k < kernel."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    lo: tuple[int, ...]
    out: tuple[int, ...]
    groups: int

    def span(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """How much of the source so many neighbouring windows reach over, in each dimension."""
        return tuple(
            (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, self.stride, self.kernel, self.dilation)
        )


class _Block(NamedTuple):
    """Some groups, some images and some positions."""

    groups: slice
    images: slice
    start: tuple[int, ...]
    sizes: tuple[int, ...]


def _blocks(n: int, width: int, win: Windows) -> list[_Block]:
    """All blocks; `width` numbers are held for each position and group."""
    limit = max(_COLUMNS, _ELEMENTS // max(1, width))
    left = limit
    sizes: list[int] = []
    for size in reversed(win.out):
        parts = -(-size // left)
        sizes.insert(0, -(-size // max(1, parts)))
        left = max(1, left // max(1, size))
    per_image = max(1, prod(sizes))
    groups = min(win.groups, max(1, limit // per_image))
    images = max(1, limit // (per_image * groups)) if tuple(sizes) == win.out else 1
    return [
        _Block(slice(g, min(win.groups, g + groups)), slice(i, min(n, i + images)), start,
               tuple(min(size, total - s) for size, total, s in zip(sizes, win.out, start)))
        for i in range(0, n, images)
        for start in product(*(range(0, total, size) for total, size in zip(win.out, sizes)))
        for g in range(0, win.groups, groups)
    ]  # fmt: skip


class _Scratch:
    """Arrays that serve block after block."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.kept: dict[str, Array] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        size = prod(shape)
        flat = self.kept.get(name)
        if flat is None or flat.size < size:
            flat = self.kept[name] = np.empty(size, self.dtype)
        return flat[:size].reshape(shape)


class _Task(NamedTuple):
    """One of the products that `gathers` was asked for; the weight is [groups, rows, width]."""

    src: Array
    weight: Array | None
    bias: Array | None
    other: Array | None
    out: Array | None
    win: Windows
    rows: int
    flat: bool  # images with margins in one run


def _source(task: _Task, block: _Block) -> tuple[Array, list[int], tuple[int, ...]]:
    """The channels and images of a block [channels, images, *size], where its windows begin and how far they reach."""
    inside = task.src.shape[1] // task.win.groups
    channels = slice(block.groups.start * inside, block.groups.stop * inside)
    begin = [a * s - lo for a, s, lo in zip(block.start, task.win.stride, task.win.lo)]
    return task.src[block.images, channels].swapaxes(0, 1), begin, task.win.span(block.sizes)


def _region(task: _Task, block: _Block, scratch: _Scratch) -> Array:
    """[channels, images, *span]: what the windows of a block reach over, zero outside; in one piece if flat."""
    src, begin, span = _source(task, block)
    inner = [slice(max(0, b), max(0, min(size, b + n))) for b, n, size in zip(begin, span, src.shape[2:])]
    part = src[(slice(None), slice(None), *inner)]
    if part.shape[2:] == span and not task.flat:
        return part
    buffer = scratch.take("source", (*part.shape[:2], *span))
    buffer.fill(0)
    held = [slice(i.start - b, i.start - b + n) for i, b, n in zip(inner, begin, part.shape[2:])]
    buffer[(slice(None), slice(None), *held)] = part
    return buffer


def _columns(base: Array, block: _Block, task: _Task, scratch: _Scratch) -> Array:
    """[groups, channels of each * kernel, positions] of all images of a block."""
    win = task.win
    channels, images = base.shape[:2]
    steps = base.strides[2:]
    taps = tuple(d * step for d, step in zip(win.dilation, steps))
    groups = block.groups.stop - block.groups.start
    if task.flat:
        count = _run(base, block)
        cols = scratch.take("columns", (channels, *win.kernel, count))
        np.copyto(cols, np.ndarray(cols.shape, cols.dtype, base, 0, (base.strides[0], *taps, base.itemsize)))
        return cols.reshape(groups, -1, count)
    strides = (base.strides[0], *taps, base.strides[1], *(s * step for s, step in zip(win.stride, steps)))
    windows = as_strided(base, (channels, *win.kernel, images, *block.sizes), strides)
    if prod(win.kernel) == 1:
        cols = windows  # of one image these often are a matrix as they are
    else:
        cols = scratch.take("columns", windows.shape)
        np.copyto(cols, windows)
    return cols.reshape(groups, channels // groups * prod(win.kernel), images * prod(block.sizes))


def _run(base: Array, block: _Block) -> int:
    """Numbers from the first to the last position of a block, in an image with margins as `base` holds it."""
    return sum((n - 1) * step for n, step in zip((base.shape[1], *block.sizes), base.strides[1:])) // base.itemsize + 1


def _positions(a: Array, base: Array, block: _Block, flat: bool) -> Array:
    """[images, rows, *sizes]: the positions of a block in a matrix [groups, rows, columns]."""
    rows = a.shape[0] * a.shape[1]
    if not flat:
        return a.reshape(rows, base.shape[1], *block.sizes).swapaxes(0, 1)
    strides = (base.strides[1], a.strides[1], *base.strides[2:])
    return np.ndarray((base.shape[1], rows, *block.sizes), a.dtype, a, 0, strides)


class Product(NamedTuple):
    """What `gathers` is asked for: its arguments are described there."""

    weight: Array | None
    bias: Array | None
    other: Array | None
    win: Windows
    out: Array | None = None
    grad: Array | None = None


def gathers(src: Array, products: Sequence[Product]) -> list[tuple[Array | None, Array | None]]:
    """The products of windows with a weight, and with another array of the result's shape: the gradient of a weight.

        out[n, o, p] = bias[o] + sum_{c, k} weight[o, c, k] src[n, c, p * stride + k * dilation - lo]
        grad[o, c, k] = sum_{n, p} other[n, o, p] src[n, c, p * stride + k * dilation - lo]

    Args:
        src: [N, C, *size], zero outside; of one float dtype with all others.
        products: one or several over windows with the same stride and groups, each with
            weight: [O, C / groups, *kernel], or None if only `grad` is wanted;
            bias: [O] or None;
            other: [N, O, *out], or None if only `out` is wanted;
            out: [N, O, *out] to be filled, or None for a new array;
            grad: [O, C / groups, *kernel] to be filled, or None for a new array.

    Returns:
        For each product out, or None without `weight`; grad [O, C / groups, *kernel], or None without `other`.
    """
    n = src.shape[0]
    done = []
    for p in products:
        if p.weight is not None and p.out is None:
            p = p._replace(out=np.empty((n, p.weight.shape[0], *p.win.out), src.dtype))
        if p.other is not None and p.grad is None:
            inside = src.shape[1] // p.win.groups
            p = p._replace(grad=np.empty((p.other.shape[1], inside, *p.win.kernel), src.dtype))
        done.append(p)
    work = sum(map(_work, [src] * len(done), done))
    shares = jit.cpus() if work >= _WORTH else 1
    several_taps = any(prod(p.win.kernel) > 1 for p in done)  # one tap is a product of matrices as it is
    if not several_taps and all(map(_in_place, [src] * len(done), done)):
        for p in done:
            _pointwise(src, p, shares)
    elif src.dtype == np.float32 and several_taps and work >= _COMPILE and jit.available():
        _compiled(src, done, shares)
    else:
        for p in done:
            _blocked(src, p, shares)
    return [(p.out, p.grad) for p in done]


def gather(
    src: Array, weight: Array | None, bias: Array | None, other: Array | None, win: Windows, out: Array | None = None
) -> tuple[Array | None, Array | None]:
    """`gathers` with one product."""
    return gathers(src, [Product(weight, bias, other, win, out)])[0]


def channel_sums(x: Array) -> Array:
    """[C], the sums of x [N, C, *size] over all but the channels."""
    if x.dtype == np.float32 and x.size >= _COMPILE >> 2 and x.flags.c_contiguous and jit.available():
        return conv_compiled.channel_sums(x, jit.cpus())
    return x.sum(axis=(0, *range(2, x.ndim)))


def _in_place(src: Array, p: Product) -> bool:
    """Whether the window at each position is that position, and images are matrices of channels as they lie."""
    same = p.win.out == src.shape[2:] and set(p.win.stride) == {1} and not any(p.win.lo)
    return same and all(a is None or a.flags.c_contiguous for a in (src, p.other, p.out))


def _pointwise(src: Array, p: Product, shares: int) -> None:
    """One of `gathers` for what is `_in_place`: products of matrices."""
    n, groups, rows = src.shape[0], p.win.groups, _rows(p)
    x = src.reshape(n, groups, -1, prod(p.win.out))
    if p.weight is not None and p.out is not None:
        bias = None if p.bias is None else np.broadcast_to(p.bias.reshape(groups, rows), (n, groups, rows))
        blas.batched(p.weight.reshape(groups, rows, -1), x, p.out.reshape(n, groups, rows, -1), bias)
    if p.other is not None and p.grad is not None:
        total = blas.summed(p.other.reshape(n, groups, rows, -1), x.swapaxes(2, 3), shares)
        p.grad[...] = total.reshape(p.grad.shape)


def _rows(p: Product) -> int:
    return (p.weight.shape[0] if p.weight is not None else p.other.shape[1]) // p.win.groups  # type: ignore[union-attr]


def _work(src: Array, p: Product) -> int:
    """Multiply-adds."""
    once = src.shape[0] * src.shape[1] * prod(p.win.kernel) * prod(p.win.out) * _rows(p)
    return once * ((p.weight is not None) + (p.other is not None))


def _compiled(src: Array, products: list[Product], shares: int) -> None:
    """`gathers` in three dimensions, of which the first may have the size 1."""
    missing = (1,) * (5 - src.ndim)
    index = (slice(None), slice(None), *(None for _ in missing))

    def wide(a: Array | None) -> Array | None:
        return None if a is None else a[index]

    parts = []
    for p in products:
        win = p.win
        taps = [tuple(k * d - lo for k in range(n)) for n, d, lo in zip(win.kernel, win.dilation, win.lo)]
        parts.append(conv_compiled.Part(
            (*((0,) for _ in missing), *taps), _rows(p), (*missing, *win.out),
            wide(p.weight), p.bias, wide(p.out), wide(p.other), wide(p.grad),
        ))  # fmt: skip
    win = products[0].win
    conv_compiled.convolve(src[index], parts, (*missing, *win.stride), win.groups, shares)


def _blocked(src: Array, p: Product, shares: int) -> None:
    """One of `gathers`, by columns and BLAS."""
    n, channels = src.shape[:2]
    win, rows = p.win, _rows(p)
    inside = channels // win.groups
    width = inside * prod(win.kernel)
    flat = prod(win.kernel) > 1 and set(win.stride) == {1} and rows <= _FEW and len(win.out) > 1
    weight = None if p.weight is None else p.weight.reshape(win.groups, rows, width)
    task = _Task(src, weight, p.bias, p.other, p.out, win, rows, flat)
    blocks = _blocks(n, width, win)
    shares = max(1, min(len(blocks), shares))
    sums = None if p.other is None else np.zeros((shares, win.groups, width, rows), src.dtype)

    def run(thread: int, threads: int) -> None:
        scratch = _Scratch(src.dtype)
        for share in range(thread, shares, threads):
            for block in blocks[len(blocks) * share // shares : len(blocks) * (share + 1) // shares]:
                _one(task, block, None if sums is None else sums[share], scratch)

    with blas.one_thread() as allowed:
        parallel(run, min(shares, allowed))
    if sums is not None and p.grad is not None:
        total = sums[0] if shares == 1 else sums.sum(axis=0)
        p.grad[...] = total.swapaxes(1, 2).reshape(p.grad.shape)


def _one(task: _Task, block: _Block, total: Array | None, scratch: _Scratch) -> None:
    """One block of a product: fills its part of `out`, adds to `total` [groups, width, rows]."""
    rows = task.rows
    groups = block.groups.stop - block.groups.start
    base = _region(task, block, scratch)
    cols = _columns(base, block, task, scratch)
    count = cols.shape[2]
    channels = slice(block.groups.start * rows, block.groups.stop * rows)
    part = (block.images, channels, *(slice(a, a + s) for a, s in zip(block.start, block.sizes)))
    if task.weight is not None and task.out is not None:
        r = np.matmul(task.weight[block.groups], cols, out=scratch.take("result", (groups, rows, count)))
        values, target = _positions(r, base, block, task.flat), task.out[part]
        if task.bias is None:
            np.copyto(target, values)
        else:
            np.add(values, task.bias[channels].reshape(-1, *(1,) * len(block.sizes)), out=target)
    if task.other is not None and total is not None:
        g = task.other[part]
        if task.flat:
            wide = scratch.take("other", (groups, rows, count))
            wide.fill(0)
            _positions(wide, base, block, True)[...] = g
        else:
            wide = g.swapaxes(0, 1).reshape(groups, rows, count)
        total[block.groups] += np.matmul(cols, wide.swapaxes(1, 2))
