"""Where the windows of pooling lie: sizes, checks, and the slices that one element of all windows is read through.

Note [Pooling one dimension at a time]
    Maxima and sums over a box are those over its rows, then over its columns. So every pooling runs along one axis
    after the other, and along an axis in one pass for each of the k elements ("taps") of a window: element j of all
    windows is one strided slice. That is k + k passes of NumPy for a k x k window, without gathering windows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..tensor import Tensor
from .define import check_floating
from .shape import as_int

__all__ = ["Axis", "Tap", "at", "axes_of_windows", "numbers", "replaced", "spatial_shape", "taps"]


class Axis(NamedTuple):
    """One pooled axis: its size n, and `size` windows of k elements at distance d, with a stride s and padding p."""

    axis: int
    n: int
    k: int
    s: int
    p: int
    d: int
    size: int

    @property
    def disjoint(self) -> bool:
        """True if no element belongs to two windows."""
        return self.s > self.d * (self.k - 1)


class Tap(NamedTuple):
    """Element j of the windows, as pairs of slices of the windows and of the input.

    `fresh`: of the windows whose first element it is; `seen`: of those that have one before; `both` together.
    """

    j: int
    fresh: tuple[slice, slice] | None
    seen: tuple[slice, slice] | None
    both: tuple[slice, slice]


def at(axis: int, part: slice) -> tuple:
    """The index that takes `part` of an axis."""
    return (slice(None),) * axis + (part,)


def replaced(shape: tuple, axis: int, *sizes: int) -> tuple:
    """A shape with other sizes in place of an axis."""
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


@lru_cache(maxsize=512)
def taps(w: Axis) -> tuple[tuple[Tap, ...], bool]:
    """The taps of an axis that lie in the input for any window, and whether every window has one.

    Windows lose their first taps at the start and their last ones at the end, so the windows that see tap j for the
    first time are those just before the ones that have seen an earlier one.
    """

    def pair(low: int, high: int, first: int) -> tuple[slice, slice] | None:
        if low >= high:
            return None
        start = low * w.s + first
        return slice(low, high), slice(start, start + (high - low - 1) * w.s + 1, w.s)

    found = []
    covered, count = w.size, 0
    for j in range(w.k):
        first = j * w.d - w.p
        low, high = max(0, -(first // w.s)), min(w.size, (w.n - 1 - first) // w.s + 1)
        both = pair(low, high, first)
        if both is None:
            continue
        fresh = pair(low, min(high, covered), first)
        found.append(Tap(j, fresh, pair(max(low, covered), high, first), both))
        count += fresh[0].stop - fresh[0].start if fresh else 0
        covered = min(low, covered)
    return tuple(found), count == w.size


def numbers(name: str, argument: str, value: Any, dims: int) -> tuple[int, ...]:
    """An int, or one for each dimension, as a tuple.

    Raises:
        RuntimeError: another number of them.
        TypeError: something that is not an int.
    """
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, dims):
            raise RuntimeError(f"{name}: {argument} must be an int or {dims} ints, got {tuple(value)}")
        given = tuple([as_int(name, argument, v) for v in value])
        return given * dims if len(given) == 1 else given
    return (as_int(name, argument, value),) * dims


_SPATIAL = {1: "L", 2: "H, W", 3: "D, H, W"}


def spatial_shape(
    name: str, input: Tensor, dims: int, error: type[Exception] = RuntimeError
) -> tuple[int, ...]:
    """The sizes of the last `dims` dimensions of (N, C, ...) or (C, ...).

    Raises:
        error: the input has another number of dimensions.
        RuntimeError: a dimension other than N has size 0.
        TypeError: it is not floating point.
    """
    check_floating(name, "input", input)
    shape = tuple(input.array.shape)
    if len(shape) not in (dims + 1, dims + 2):
        letters = _SPATIAL[dims]
        raise error(f"{name}: input must be (C, {letters}) or (N, C, {letters}), got shape {shape}")
    if 0 in shape[-dims - 1 :]:
        raise RuntimeError(f"{name}: only the batch dimension of input may have size 0, got shape {shape}")
    return shape[-dims:]


def axes_of_windows(
    name: str, input: Tensor, dims: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Axis, ...]:
    """The pooled axes of an input, checked.

    Raises:
        RuntimeError: shapes or settings do not fit.
    """
    shape = spatial_shape(name, input, dims)
    kernel = numbers(name, "kernel_size", kernel_size, dims)
    steps = kernel if stride is None or stride in ((), []) else numbers(name, "stride", stride, dims)
    pads = numbers(name, "padding", padding, dims)
    dilations = numbers(name, "dilation", dilation, dims)
    for argument, values, least in (
        ("kernel_size", kernel, 1), ("stride", steps, 1), ("padding", pads, 0), ("dilation", dilations, 1),
    ):  # fmt: skip
        if min(values) < least:
            raise RuntimeError(f"{name}: {argument} must be at least {least}, got {values}")
    found = []
    offset = input.array.ndim - dims
    for i, (n, k, s, p, d) in enumerate(zip(shape, kernel, steps, pads, dilations)):
        span = d * (k - 1) + 1
        if 2 * p > span:
            raise RuntimeError(f"{name}: padding must be at most half of the window ({span}), got {p}")
        size = (n + 2 * p - span + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (size - 1) * s >= n + p:
            size -= 1  # a window must start inside the input or its left padding
        if size < 1:
            raise RuntimeError(
                f"{name}: the window ({span}) must fit into the padded input, got size {n} with padding {p}"
            )
        found.append(Axis(offset + i, n, k, s, p, d, size))
    return tuple(found)
