"""Convolution of many float32 images as compiled code, where llvmlite is installed.

Note [Compiled convolution]
    A block is copied with its margins, cut by residues modulo the stride, so that neighbouring windows are neighbours:
    tap (c, k) of position p lies at its own offset from p, and no columns are written. A tile of 8 rows of the weight
    and 3 vectors of positions is summed in registers over all taps. What lies between the lines of an image is
    computed for nothing. For the gradient of a weight with many rows the other array is turned, so that the lanes of
    a vector are rows: a tile of 6 taps and 4 vectors of rows is summed over all positions, with no need to add lanes
    up or to step over what lies between lines. With few rows lanes are positions.

    A thread copies, multiplies and writes all of its blocks in one call, without holding the interpreter. Several
    products over the same source, such as those of the residues of a transposed convolution, share its copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import blas, jit, pool, threads

__all__ = ["Part", "channel_sums", "convolve"]

Array = npt.NDArray[Any]

_ELEMENTS = 3 << 16  # of a block: three quarters of a megabyte
_POSITIONS = 256  # of a block at least, however many channels there are
_BLOCKS = 4  # a thread, unless all have the same number
_LARGE = 1 << 16  # numbers in a weight that several threads move


class Part(NamedTuple):
    """One product over a source: `taps` (d, h, w) of a window lie at position * stride + tap."""

    taps: tuple[tuple[int, ...], ...]
    rows: int
    sizes: tuple[int, ...]  # of the result
    weight: Array | None  # [groups * rows, inside, KD, KH, KW] and `out`, or neither
    bias: Array | None
    out: Array | None  # [N, groups * rows, D, H, W]
    other: Array | None  # the same shape, and `grad`, or neither
    grad: Array | None  # like the weight


@lru_cache(None)
def _kernel(name: str) -> jit.Kernel:
    from . import conv_ir

    lanes = jit.lanes()
    build = {"convolve": conv_ir.build, "pack": conv_ir.build_pack, "collect": conv_ir.build_collect,
             "sums": conv_ir.build_sums}  # fmt: skip
    return jit.load(build[name](lanes), name)


class _Shape(NamedTuple):
    """What the plan of a call depends on."""

    images: int
    inside: int
    groups: int
    stride: tuple[int, ...]
    parts: tuple[tuple[tuple[tuple[int, ...], ...], int, tuple[int, ...]], ...]  # taps, rows and sizes of each


class _Plan(NamedTuple):
    low: list[int]  # the first place that the window at 0 sees
    region: list[int]  # lengths of a block with its margins, without stride
    offsets: list[Array]  # of the taps of each part, in a region
    columns: list[int]  # rows of each part, rounded up to vectors where these are the lanes
    blocks: list[Array]  # a table for each share
    pitch: int  # between the rows of a result
    places: list[int]  # in scratch memory, in bytes: of the region, the result and the result turned
    scratch: int  # numbers


def _cut(shape: _Shape, out: tuple[int, ...], rows: int, shares: int) -> tuple[list[int], int]:
    """Positions of a block in each dimension, and groups."""
    per_position = shape.inside * prod(shape.stride) + rows
    limit = max(_POSITIONS, _ELEMENTS // per_position)

    def sizes_below(limit: int) -> list[int]:
        sizes: list[int] = []
        for size in reversed(out):
            pieces = -(-size // limit)
            sizes.insert(0, -(-size // pieces))
            limit = max(1, limit // size)
        return sizes

    def pieces(sizes: list[int]) -> int:
        return shape.images * prod(-(-a // b) for a, b in zip(out, sizes))

    sizes, groups = sizes_below(limit), shape.groups
    found = pieces(sizes)
    if shares > 1 and found % shares and found < _BLOCKS * shares:
        wanted = -(-_BLOCKS * shares // found)
        groups = max(1, shape.groups // wanted)
        if shape.groups < wanted:
            sizes = sizes_below(max(_POSITIONS // 4, prod(sizes) // -(-wanted // shape.groups)))
    return sizes, groups


@lru_cache(128)
def _plan(shape: _Shape, shares: int) -> _Plan:
    from . import conv_ir

    lanes = jit.lanes()
    out = tuple(max(sizes[d] for _, _, sizes in shape.parts) for d in range(3))
    most_rows = max(rows for _, rows, _ in shape.parts)
    sizes, groups = _cut(shape, out, most_rows, shares)
    low = [min(min(taps[d]) for taps, _, _ in shape.parts) for d in range(3)]
    high = [max(max(taps[d]) for taps, _, _ in shape.parts) for d in range(3)]
    region = [(n - 1) + -(-(b - a + 1) // s) for n, a, b, s in zip(sizes, low, high, shape.stride)]
    offsets = []
    for taps, _, _ in shape.parts:
        total = np.arange(shape.inside)
        for d in range(3):
            total = np.add.outer(total * shape.stride[d], (np.array(taps[d]) - low[d]) % shape.stride[d])
        for d in range(3):
            reach = (np.array(taps[d]) - low[d]) // shape.stride[d]
            total = total * region[d] + reach.reshape(-1, *(1,) * (2 - d))
        offsets.append(np.ascontiguousarray(total, np.int64).reshape(-1))
    count = prod(region)
    pitch = -(-max((sizes[0] - 1) * region[1] * region[2] + (sizes[1] - 1) * region[2] + sizes[2], prod(sizes)) // 16)
    pitch = 16 * (pitch + 1 + pitch % 2)  # odd multiples of a line of the cache, which do not compete for its places
    columns = [-(-rows // lanes) * lanes if 2 * rows >= lanes else rows for _, rows, _ in shape.parts]
    table = np.array(
        [
            (i, g, min(shape.groups, g + groups), *start, *(min(s, n - a) for s, n, a in zip(sizes, out, start)))
            for i in range(shape.images)
            for start in product(*(range(0, n, s) for n, s in zip(out, sizes)))
            for g in range(0, shape.groups, groups)
        ],
        np.int64,
    ).reshape(-1, len(conv_ir.BLOCK))
    shares = max(1, min(shares, len(table)))
    blocks = [table[len(table) * i // shares : len(table) * (i + 1) // shares] for i in range(shares)]
    slack = 4 * lanes  # for tiles and lines that reach beyond the last number
    sizes_of = shape.inside * prod(shape.stride) * count, max(*columns, most_rows) * pitch, max(columns) * pitch
    return _Plan(low, region, offsets, columns, blocks, pitch, *threads.places(n + slack for n in sizes_of))


def _whole_steps(a: Array) -> Array:
    """The array, or a copy where elements are parts of records."""
    return a if not any(s % a.itemsize for s in a.strides) else a.copy()


def _steps(a: Array | None) -> list[int]:
    return [0] * 5 if a is None else [s // a.itemsize for s in a.strides]


def _move(name: str, weight: Array, groups: int, packed: Array, columns: int = 0, shares: int = 0) -> None:
    """Run "pack" from a weight to `packed`, or "collect" from totals in `packed` to the gradient of a weight."""
    channels, inside, *kernel = weight.shape
    rows = channels // groups
    row, *steps = _steps(weight)
    parts = min(inside, jit.cpus()) if weight.size > _LARGE else 1
    words = [
        (jit.address(weight), row * rows, row, *steps, groups, rows, inside * i // parts, inside * (i + 1) // parts,
         inside, *kernel, jit.address(packed), columns, shares, packed.size // max(1, shares))
        for i in range(parts)
    ]  # fmt: skip
    _divide(_kernel(name), words)


def _packed(weight: Array, groups: int) -> Array:
    packed = np.empty(weight.size, np.float32)
    _move("pack", weight, groups, packed)
    return packed


def convolve(src: Array, parts: Sequence[Part], stride: tuple[int, ...], groups: int, shares: int) -> None:
    """Fills `out` and `grad` of all parts.

    Args:
        src: [N, C, D, H, W] float32, any strides, as all arrays of the parts.
        parts: at least one.
        stride: of the windows.
        groups: of the channels.
        shares: among how many threads the work may be divided.
    """
    n, channels = src.shape[:2]
    inside = channels // groups
    plan = _plan(_Shape(n, inside, groups, stride, tuple((p.taps, p.rows, p.sizes) for p in parts)), shares)
    src = _whole_steps(src)
    parts = [p if p.other is None else p._replace(other=_whole_steps(p.other)) for p in parts]
    weights = [None if p.weight is None else _packed(_whole_steps(p.weight), groups) for p in parts]
    biases = [np.zeros(groups * p.rows, np.float32) if p.bias is None else np.ascontiguousarray(p.bias) for p in parts]
    shares = len(plan.blocks)
    totals = [
        None if p.other is None else np.zeros((shares, groups, offsets.size, columns), np.float32)
        for p, offsets, columns in zip(parts, plan.offsets, plan.columns)
    ]

    tables = np.array(
        [
            [
                (offsets.size, jit.address(offsets), p.rows, columns, jit.address(w), jit.address(b),
                 jit.address(p.out), *_steps(p.out), jit.address(p.other), *_steps(p.other), *p.sizes,
                 0 if total is None else jit.address(total[share]), columns > p.rows or 2 * p.rows >= jit.lanes())
                for p, w, b, total, offsets, columns in zip(
                    parts, weights, biases, totals, plan.offsets, plan.columns)
            ]
            for share in range(shares)
        ],
        np.int64,
    )  # fmt: skip
    region, result, turned = plan.places
    words = [
        (jit.address(src), *_steps(src), *src.shape[2:], inside, *stride, *plan.low, *plan.region,
         jit.address(table), len(parts), jit.address(blocks), len(blocks), region, result, plan.pitch, turned)
        for table, blocks in zip(tables, plan.blocks)
    ]  # fmt: skip
    _divide(_kernel("convolve"), words, plan.scratch)
    for p, total, columns in zip(parts, totals, plan.columns):
        if p.grad is not None and total is not None:
            _move("collect", p.grad, groups, total, columns, shares)


def _divide(kernel: jit.Kernel, words: Sequence[tuple[int, ...]], scratch: int = 0) -> None:
    """A call for each row of words, in as many threads as OpenBLAS may have."""
    pool.run(kernel, np.array(words, np.int64), len(words), blas.allowed() if len(words) > 1 else 1, scratch)


def channel_sums(x: Array, shares: int) -> Array:
    """[C], the sums of float32 x [N, C, ...], contiguous, over all but the channels."""
    n, channels = x.shape[:2]
    out = np.empty(channels, np.float32)
    count, parts = prod(x.shape[2:]), min(shares, channels)
    words = [
        (jit.address(x), channels * count, count, n, count, jit.address(out), channels * i // parts,
         channels * (i + 1) // parts)
        for i in range(parts)
    ]  # fmt: skip
    _divide(_kernel("sums"), words)
    return out
