"""Convolution of many float32 images as compiled code, where llvmlite is installed.

Note [Compiled convolution]
    Images with margins, cut by residues modulo the stride, hold neighbouring windows as neighbours: tap (c, k) of
    position p lies at its own offset from p. So no columns are written; a tile of 4 rows of the weight and a few
    vectors of positions is summed in registers over all taps, and for the gradient of the weight a tile of 4 rows and
    4 taps over all positions. What lies between the rows of an image is computed for nothing, which pays unless images
    are tiny.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit

__all__ = ["add_gradient", "multiply", "pack", "padded"]

Array = npt.NDArray[Any]


@lru_cache(None)
def _kernel(name: str) -> Callable[[int, int], None]:
    from . import conv_ir

    return jit.load(conv_ir.build(name, jit.lanes()), name)


@lru_cache(1)
def _step() -> int:
    from . import conv_ir

    return conv_ir.step(jit.lanes())


def padded(count: int) -> int:
    """A number of positions, rounded up to whole tiles: so many are read and written."""
    return -(-count // _step()) * _step()


def pack(weight: Array) -> Array:
    """A weight [groups, rows, taps] in the order in which tiles read it: 4 rows of one tap together, then the rest."""
    groups, rows, taps = weight.shape
    whole = rows // 4 * 4
    packed = np.empty((groups, rows * taps), weight.dtype)
    tiles = packed[:, : whole * taps].reshape(groups, -1, taps, 4)
    tiles[...] = weight[:, :whole].reshape(groups, -1, 4, taps).swapaxes(2, 3)
    packed[:, whole * taps :].reshape(groups, -1, taps)[...] = weight[:, whole:]
    return packed


def _address(a: Array) -> int:
    return a.__array_interface__["data"][0]


def _run(name: str, base: Array, offsets: Array, matrix: Array, result: Array, rows: int, count: int) -> None:
    groups = matrix.shape[0]
    words = np.array(
        [_address(base), base.size // groups, offsets.size, _address(offsets), _address(matrix), _address(result), rows,
         count, groups, count],
        np.int64,
    )  # fmt: skip
    _kernel(name)(_address(words), 0)


def multiply(base: Array, offsets: Array, weight: Array, result: Array) -> None:
    """result[g, o, p] = sum_t weight[g, o, t] base[g, offsets[t] + p], for all p.

    Args:
        base: the images of the groups one behind another, and behind the last enough numbers for whole tiles.
        offsets: [T] int64, within a group.
        weight: [G, O * T] from `pack`.
        result: [G, O, padded(P)], to be filled.
    """
    _run("forward", base, offsets, weight, result, result.shape[1], result.shape[2])


def add_gradient(base: Array, offsets: Array, other: Array, total: Array) -> None:
    """total[g, t, o] += sum_p other[g, o, p] base[g, offsets[t] + p].

    Args:
        base, offsets: as for `multiply`.
        other: [G, O, P], zero where there is no position.
        total: [G, T, O], contiguous.
    """
    _run("gradient", base, offsets, other, total, other.shape[1], other.shape[2])
