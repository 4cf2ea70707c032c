"""Resizing and shuffling. The references compute each result on its own, from the formulas."""

import math
import warnings

import numpy as np

import cuframe as cf

from .core import ALL, FLOATS, HALVES, ErrorInput, OpInfo, Sample


def kernel(x, mode, a):
    x = abs(x)
    if mode != "bicubic":
        return max(1 - x, 0.0)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def matrix(mode, n, size, align, scale, antialias):
    """Row i: the weights of the input for result i."""
    step = ((n - 1) / max(size - 1, 1)) if align else (1 / scale if scale else n / size)
    rows = np.zeros((size, n))
    for i in range(size):
        place = i * step if align else (i + 0.5) * step - 0.5
        if mode == "nearest":
            rows[i, min(math.floor(i * step), n - 1)] = 1
        elif mode == "nearest-exact":
            rows[i, min(math.floor((i + 0.5) * step), n - 1)] = 1
        elif mode == "area":
            low, high = i * n // size, -(-(i + 1) * n // size)
            rows[i, low:high] = 1 / (high - low)
        elif antialias and n != size:
            stretch = max(step, 1)
            centre, reach = step * (i + 0.5), stretch * (2 if mode == "bicubic" else 1)
            for j in range(max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), n)):
                rows[i, j] = kernel((j - centre + 0.5) / stretch, mode, -0.5)
            rows[i] /= rows[i].sum()
        else:
            if mode != "bicubic":
                place = min(max(place, 0), n - 1)
            low = math.floor(place)
            for j in range(low - 1, low + 3):
                rows[i, min(max(j, 0), n - 1)] += kernel(place - j, mode, -0.75)
    return rows


def interpolate(
    x, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None, antialias=False
):
    dims = x.ndim - 2

    def each(value):
        return value if isinstance(value, (tuple, list)) else (value,) * dims

    factors = each(scale_factor)
    sizes = each(size) if size is not None else [int(n * s) for n, s in zip(x.shape[2:], factors)]
    if recompute_scale_factor:
        factors = (None,) * dims
    out = x.astype(np.float64)
    for axis, (size, factor) in enumerate(zip(sizes, factors), 2):
        rows = matrix(mode, x.shape[axis], size, align_corners, factor, antialias)
        out = np.moveaxis(np.moveaxis(out, axis, -1) @ rows.T, -1, axis)
    return out.astype(x.dtype)


def resize_samples(make):
    for mode in ("nearest", "nearest-exact", "area"):
        yield Sample((make(1, 2, 3), 5, None, mode))
        yield Sample((make(2, 1, 5, 4), (2, 7)), {"mode": mode})
        yield Sample((make(1, 1, 2, 3, 4), None, (1.5, 2, 0.7), mode))
    for align in (None, True):
        yield Sample((make(1, 2, 4), 7, None, "linear", align))
        yield Sample((make(1, 1, 3, 5), (5, 2)), {"mode": "bilinear", "align_corners": align})
        yield Sample((make(1, 1, 3, 4), (7, 3)), {"mode": "bicubic", "align_corners": align})
        yield Sample((make(1, 1, 2, 3, 2), None, 1.7, "trilinear", align))
    yield Sample((make(1, 1, 3, 4), None, (1.7, 0.6), "bilinear", False, True))
    yield Sample((make(1, 1, 7, 5), (3, 8), None, "bilinear"), {"antialias": True})
    yield Sample((make(1, 1, 9, 4), (2, 4), None, "bicubic"), {"antialias": True})
    yield Sample((make(1, 1, 1, 3), (2, 1), None, "bicubic", True))
    yield Sample((make(0, 2, 3), 4))


def resize_errors(make):
    x = make(1, 1, 3, 4)
    yield ErrorInput((x,), {}, ValueError, "interpolate: needs either size or scale_factor")
    yield ErrorInput((x, 2, 2), {}, ValueError, "interpolate: needs either size or scale_factor")
    yield ErrorInput((x, 2), {"align_corners": True}, ValueError, "interpolate: align_corners goes with .*'nearest'")
    yield ErrorInput((x, 2), {"mode": "linear"}, NotImplementedError, "mode 'linear' needs a 3-d input, got 4-d")
    yield ErrorInput((x, 2), {"mode": "lanczos"}, NotImplementedError, "one of the modes nearest, .* 4-d and 'lanczos'")
    yield ErrorInput((make(3, 4), 2), {}, NotImplementedError, "needs a 3-d, 4-d or 5-d input .* got 2-d")
    yield ErrorInput((x, (2, 2, 2)), {}, ValueError, "interpolate: size must be a number or 2 of them")
    yield ErrorInput((x, None, (2,)), {}, ValueError, "interpolate: scale_factor must be a number or 2 of them")
    yield ErrorInput((x, (2.5, 2)), {}, TypeError, "interpolate: size must be an int, got float")
    yield ErrorInput((x, None, 0.1), {}, RuntimeError, r"only the batch may be empty, .*\(0, 0\)")
    yield ErrorInput((x, 2), {"mode": "area", "antialias": True}, ValueError, "antialias goes with .*, got 'area'")
    yield ErrorInput((x, 2), {"recompute_scale_factor": True}, ValueError, "recompute_scale_factor goes with")
    yield ErrorInput((make(1, 1, 3, dtype="int64"), 2), {}, TypeError, "interpolate: input must be floating point")


def quiet(function):
    """`function` without its DeprecationWarning, which `test_resize.py` asks for."""

    def call(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return function(*args, **kwargs)

    return call


def old_samples(make):
    yield Sample((make(1, 1, 2, 3), (4, 2)))
    yield Sample((make(1, 2, 2, 2),), {"scale_factor": 1.5})


def old_errors(make):
    yield ErrorInput((make(1, 1, 2, 3),), {}, ValueError, "interpolate: needs either size or scale_factor")


def upsample_bilinear(x, size=None, scale_factor=None):
    return interpolate(x, size, scale_factor, "bilinear", True)


def pixel_shuffle(x, r):
    out = np.zeros((*x.shape[:-3], x.shape[-3] // r**2, x.shape[-2] * r, x.shape[-1] * r), x.dtype)
    for c, h, w in np.ndindex(*out.shape[-3:]):
        out[..., c, h, w] = x[..., c * r**2 + h % r * r + w % r, h // r, w // r]
    return out


def pixel_unshuffle(x, r):
    out = np.zeros((*x.shape[:-3], x.shape[-3] * r**2, x.shape[-2] // r, x.shape[-1] // r), x.dtype)
    for c, h, w in np.ndindex(*out.shape[-3:]):
        out[..., c, h, w] = x[..., c // r**2, h * r + c % r**2 // r, w * r + c % r]
    return out


def channel_shuffle(x, groups):
    c = x.shape[1]
    return x[:, [k % groups * (c // groups) + k // groups for k in range(c)]]


def shuffle_samples(make):
    yield Sample((make(1, 8, 2, 1), 2))
    yield Sample((make(2, 1, 9, 1, 2), 3))
    yield Sample((make(2, 2, 3), 1))


def shuffle_errors(make):
    yield ErrorInput((make(2, 3), 1), {}, RuntimeError, r"pixel_shuffle: input must have at least 3 .* shape \(2, 3\)")
    yield ErrorInput((make(2, 3, 3), 0), {}, RuntimeError, "pixel_shuffle: upscale_factor must be positive, got 0")
    yield ErrorInput((make(6, 3, 3), 2), {}, RuntimeError, r"pixel_shuffle: upscale_factor\^2 = 4 must divide")
    yield ErrorInput((make(4, 3, 3), 2.0), {}, TypeError, "pixel_shuffle: upscale_factor must be an int, got float")


def unshuffle_samples(make):
    yield Sample((make(1, 2, 2, 4), 2))
    yield Sample((make(1, 3, 6), 3))
    yield Sample((make(2, 2, 3), 1))


def unshuffle_errors(make):
    yield ErrorInput((make(2, 3, 4), 2), {}, RuntimeError, "pixel_unshuffle: downscale_factor 2 must divide height")
    yield ErrorInput((make(2, 3, 4), -1), {}, RuntimeError, "pixel_unshuffle: downscale_factor must be positive")


def channel_samples(make):
    yield Sample((make(1, 6, 2), 2))
    yield Sample((make(2, 6, 1, 2), 3))
    yield Sample((make(1, 2, 2), 1))


def channel_errors(make):
    yield ErrorInput((make(1, 4), 2), {}, RuntimeError, "channel_shuffle: input must have at least 3 dimensions")
    yield ErrorInput((make(1, 4, 1), 3), {}, RuntimeError, "channel_shuffle: groups = 3 must divide the 4 channels")


HALF = (*FLOATS, *HALVES)
F = cf.nn.functional
OPS = [
    OpInfo("nn.functional.interpolate", samples=resize_samples, reference=interpolate, dtypes=HALF,
           errors=resize_errors),
    OpInfo("nn.functional.upsample", op=quiet(F.upsample), samples=old_samples, reference=interpolate,
           errors=old_errors),
    OpInfo("nn.functional.upsample_nearest", op=quiet(F.upsample_nearest), samples=old_samples,
           reference=interpolate, errors=old_errors),
    OpInfo("nn.functional.upsample_bilinear", op=quiet(F.upsample_bilinear), samples=old_samples,
           reference=upsample_bilinear, errors=old_errors),
    OpInfo("nn.functional.pixel_shuffle", samples=shuffle_samples, reference=pixel_shuffle, dtypes=ALL,
           errors=shuffle_errors),
    OpInfo("nn.functional.pixel_unshuffle", samples=unshuffle_samples, reference=pixel_unshuffle, dtypes=ALL,
           errors=unshuffle_errors),
    OpInfo("nn.functional.channel_shuffle", samples=channel_samples, reference=channel_shuffle, dtypes=ALL,
           errors=channel_errors),
]  # fmt: skip
