"""Resizing of signals, images and volumes.

Note [Resizing one dimension at a time]
    Every mode is a weighted sum of T elements, for one axis after the other: a table says which elements each result
    takes and with which weights (T is 1 for nearest, 2 for linear, 4 for cubic, more for antialiasing). The transpose
    is of the same kind with the table turned around, so backward is again a gather, in a fixed order.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .adaptive_pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from .define import check_floating
from .linear_map import LinearMap
from .shape import as_int
from .softmax import widened

__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

# the elements that each of `size` results takes, and their weights, both (T, size); no weights for copies
Table = tuple[np.ndarray, "np.ndarray | None"]
# what identifies a table: mode, sizes before and after, align_corners, scale factor given, antialias
Key = tuple[str, int, int, bool, float | None, bool]


# -- tables -------------------------------------------------------------------------------------------------------
def _step(n: int, size: int, align_corners: bool, scale: float | None) -> float:
    """The distance of neighbouring results, in elements of the input."""
    if align_corners:
        return (n - 1) / (size - 1) if size > 1 else 0.0
    return 1.0 / scale if scale else n / size


def _nearest(n: int, size: int, exact: bool, scale: float | None) -> Table:
    # PyTorch computes these positions in float32 for all dtypes, and which element is nearest depends on it.
    step = np.float32(1.0 / scale) if scale else np.float32(n) / np.float32(size)
    i = np.arange(size, dtype=np.float32)
    source = np.floor((i + np.float32(0.5)) * step if exact else i * step)
    return np.minimum(source.astype(np.int64), n - 1)[None], None


def _linear(n: int, size: int, align_corners: bool, scale: float | None) -> Table:
    i = np.arange(size)
    if n == size:
        return i[None], None
    step = _step(n, size, align_corners, scale)
    place = i * step if align_corners else np.maximum((i + 0.5) * step - 0.5, 0)
    low = np.minimum(place.astype(np.int64), n - 1)
    t = np.clip(place - low, 0, 1)
    return np.stack([low, np.minimum(low + 1, n - 1)]), np.stack([1 - t, t])


def _cubic_weights(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel at distances x >= 0."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _cubic(n: int, size: int, align_corners: bool, scale: float | None) -> Table:
    i = np.arange(size)
    step = _step(n, size, align_corners, scale)
    place = i * step if align_corners else (i + 0.5) * step - 0.5
    low = np.minimum(np.floor(place), n - 1)
    t = np.clip(place - low, 0, 1)
    taps = np.arange(-1, 3)[:, None]
    return np.clip(low + taps, 0, n - 1).astype(np.int64), _cubic_weights(abs(t - taps), -0.75)


def _antialiased(mode: str, n: int, size: int, align_corners: bool, scale: float | None) -> Table:
    """The kernel stretched over as many elements as one result stands for, and normalised."""
    if n == size:
        return np.arange(size)[None], None
    step = _step(n, size, align_corners, scale)
    stretch = max(step, 1.0)
    reach = stretch * (1 if mode == "bilinear" else 2)
    centre = step * (np.arange(size) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + reach + 0.5).astype(np.int64), n)
    taps = first + np.arange((stop - first).max())[:, None]
    distance = abs(taps - centre + 0.5) / stretch
    weights = np.maximum(1 - distance, 0) if mode == "bilinear" else _cubic_weights(distance, -0.5)
    weights = np.where(taps < stop, weights, 0.0)
    # an element beyond the window has weight 0 and stands in by one of the window, so that no infinity is multiplied
    return np.minimum(taps, stop - 1), weights / weights.sum(axis=0)


@lru_cache(maxsize=256)
def _table(key: Key) -> Table:
    mode, n, size, align_corners, scale, antialias = key
    if mode.startswith("nearest"):
        return _nearest(n, size, mode == "nearest-exact", scale)
    if antialias:
        return _antialiased(mode, n, size, align_corners, scale)
    return (_cubic if mode == "bicubic" else _linear)(n, size, align_corners, scale)


@lru_cache(maxsize=256)
def _turned(key: Key) -> Table:
    """The transpose of a table: for each element of the input, the results that took it."""
    index, weights = _table(key)
    n, size = key[1], key[2]
    source = index.reshape(-1)
    result = np.broadcast_to(np.arange(size), index.shape).reshape(-1)
    order = np.lexsort((result, source))
    source, result = source[order], result[order]
    count = np.bincount(source, minlength=n)
    rank = np.arange(source.size) - np.repeat(np.cumsum(count) - count, count)
    # elements that fewer results took: the first of these again, with weight 0
    first = result[np.minimum(np.cumsum(count) - count, source.size - 1)]
    taken = np.broadcast_to(first, (max(count.max(), 1), n)).copy()
    given = np.zeros(taken.shape)
    taken[rank, source] = result
    given[rank, source] = 1.0 if weights is None else weights.reshape(-1)[order]
    return taken, (None if weights is None and (count == count.max()).all() and count[0] == 1 else given)


# -- arrays -------------------------------------------------------------------------------------------------------
def _weighted(x: Any, axis: int, table: Table) -> Any:
    """The weighted sums of a table along an axis."""
    index, weights = table
    backend = backend_of(x)
    out = None
    shape = (-1,) + (1,) * (x.ndim - 1 - axis)
    for t in range(len(index)):
        part = x.take(backend.asarray(index[t], x), axis=axis)
        if weights is not None:
            part *= backend.asarray(weights[t].astype(x.dtype), x).reshape(shape)
        if out is None:
            out = part
        else:
            out += part
    return out


def _order(ndim: int, keys: tuple[Key, ...]) -> list[tuple[int, Key]]:
    """The axes in the order to resize them: those that shrink first, from the front, so that the rest is less work."""
    axes = list(zip(range(ndim - len(keys), ndim), keys))
    shrinking = [a for a in axes if a[1][2] < a[1][1]]
    return shrinking + [a for a in reversed(axes) if a[1][2] >= a[1][1]]


def _resized(x: Any, keys: tuple[Key, ...]) -> Any:
    out = widened(x)
    for axis, key in _order(x.ndim, keys):
        out = _weighted(out, axis, _table(key))
    return out.astype(x.dtype, copy=False)


def _resized_transpose(g: Any, keys: tuple[Key, ...]) -> Any:
    out = widened(g)
    for axis, key in reversed(_order(g.ndim, keys)):
        out = _weighted(out, axis, _turned(key))
    return out.astype(g.dtype, copy=False)


_DIMS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_MODES = ("nearest", "nearest-exact", "area", *_DIMS)
_MAPS = {mode: LinearMap(f"upsample_{mode.replace('-', '_')}", _resized, _resized_transpose) for mode in _MODES}
_AREA: dict[int, Callable] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


def _per_dimension(name: str, argument: str, value: Any, dims: int) -> tuple:
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    if len(given) != dims:
        raise ValueError(f"{name}: {argument} must be a number or {dims} of them for this input, got {value}")
    return given


def _check_mode(name: str, mode: str, ndim: int, align_corners: bool | None, antialias: bool) -> None:
    if mode not in _MODES or not 3 <= ndim <= 5:
        raise NotImplementedError(
            f"{name}: needs a 3-d, 4-d or 5-d input and one of the modes {', '.join(_MODES)}, got {ndim}-d and {mode!r}"
        )
    if mode in _DIMS and _DIMS[mode] != ndim - 2:
        raise NotImplementedError(f"{name}: mode {mode!r} needs a {_DIMS[mode] + 2}-d input, got {ndim}-d")
    if mode not in _DIMS and align_corners is not None:
        raise ValueError(f"{name}: align_corners goes with the modes {', '.join(_DIMS)} only, got mode {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"{name}: antialias goes with the modes bilinear and bicubic only, got {mode!r}")


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """Resize the dimensions behind the channels.

    Result i stands at position (i + 0.5) / scale - 0.5 of the input; with `align_corners` at i (n - 1) / (size - 1), so
    that the corners agree. "nearest" takes element floor(i / scale), "nearest-exact" the one nearest to the position;
    "linear", "bilinear" and "trilinear" mix the two neighbours along each dimension, "bicubic" four with Keys' kernel
    (a = -0.75); "area" takes the mean of the elements that a result covers.

    Args:
        input: (N, C, W), (N, C, H, W) or (N, C, D, H, W), floating point.
        size: of the result, an int or one for each dimension behind the channels; or else
        scale_factor: a number or one for each dimension; sizes are rounded down.
        mode: as above.
        align_corners: for the linear and cubic modes.
        recompute_scale_factor: take positions from the sizes, as if `size` had been given, and not from scale_factor.
        antialias: for "bilinear" and "bicubic": widen the kernel where the result is smaller than the input.

    Returns:
        A tensor of the input's dtype.

    Raises:
        NotImplementedError: a mode that does not exist, or not for so many dimensions.
        RuntimeError: the input or the result is empty.
        TypeError: the input is not floating point, or a size is not an int.
        ValueError: not exactly one of size and scale_factor is given, or settings that do not go together.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> x = cf.tensor([[[0.0, 4.0]]])
    >>> F.interpolate(x, scale_factor=2)
    tensor([[[0., 0., 4., 4.]]])
    >>> F.interpolate(x, size=4, mode="linear")
    tensor([[[0., 1., 3., 4.]]])
    """
    name = "interpolate"
    check_floating(name, "input", input)
    shape = tuple(input.array.shape)
    _check_mode(name, mode, len(shape), align_corners, antialias)
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{name}: needs either size or scale_factor")
    dims = len(shape) - 2
    scales: tuple = (None,) * dims
    if size is not None:
        if recompute_scale_factor:
            raise ValueError(f"{name}: recompute_scale_factor goes with scale_factor only")
        sizes = tuple([as_int(name, "size", s) for s in _per_dimension(name, "size", size, dims)])
    else:
        factors = tuple([float(s) for s in _per_dimension(name, "scale_factor", scale_factor, dims)])
        sizes = tuple([math.floor(n * s) for n, s in zip(shape[2:], factors)])
        if not recompute_scale_factor:
            scales = factors
    if min(sizes) < 1 or 0 in shape[1:]:
        raise RuntimeError(f"{name}: only the batch may be empty, got input {shape} and the size {sizes}")
    if mode == "area":
        return _AREA[dims](input, sizes)
    keys = tuple([(mode, n, o, bool(align_corners), s, antialias) for n, o, s in zip(shape[2:], sizes, scales)])
    return _MAPS[mode](input, keys)


# -- old names ----------------------------------------------------------------------------------------------------
def _deprecated(name: str) -> None:
    warnings.warn(f"{name} is deprecated; use interpolate", DeprecationWarning, stacklevel=3)


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """`interpolate` under its old name; gives a DeprecationWarning.

    >>> import warnings
    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     F.upsample(cf.tensor([[[1.0, 2.0]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    _deprecated("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest"; gives a DeprecationWarning.

    >>> import warnings
    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     F.upsample_nearest(cf.tensor([[[1.0, 2.0]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    _deprecated("upsample_nearest")
    return interpolate(input, size, scale_factor)


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and aligned corners; gives a DeprecationWarning.

    >>> import warnings
    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     F.upsample_bilinear(cf.tensor([[[[1.0, 2.0]]]]), size=(1, 3))
    tensor([[[[1.0000, 1.5000, 2.0000]]]])
    """
    _deprecated("upsample_bilinear")
    return interpolate(input, size, scale_factor, "bilinear", True)
