"""Windows of images as columns, and back, as `cuframe.nn.functional` offers them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..tensor import Tensor
from .convolution import per_dimension
from .define import Op, check_floating, need_tensor, record
from .softmax import widened
from .steps import on_arrays

__all__ = ["fold", "unfold"]

Settings = tuple[tuple[int, ...], ...]  # kernel, dilation, padding, stride


def _settings(name: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Settings:
    named = (("kernel_size", kernel_size, 1), ("dilation", dilation, 1), ("padding", padding, 0), ("stride", stride, 1))
    return tuple(per_dimension(name, argument, value, 2, least) for argument, value, least in named)


def _positions(name: str, size: tuple[int, ...], settings: Settings) -> tuple[int, ...]:
    """How many windows there are in each dimension."""
    kernel, dilation, padding, stride = settings
    count = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(size, kernel, dilation, padding, stride)
    )
    if min(count) < 1:
        raise RuntimeError(
            f"{name}: there must be a window, but images of {size} with padding {padding} have {count} windows of "
            f"kernel {kernel} with dilation {dilation} and stride {stride}"
        )
    return count


def _taps(count: tuple[int, ...], settings: Settings) -> Any:
    """For each tap of the kernel: its number, and the part of the padded images that it meets."""
    kernel, dilation, _, stride = settings
    for i, tap in enumerate(np.ndindex(*kernel)):
        yield i, (..., *(slice(k * d, k * d + (n - 1) * s + 1, s) for k, d, n, s in zip(tap, dilation, count, stride)))


def _padded(x: Any, shape: tuple, padding: tuple[int, ...]) -> tuple[Any, Any]:
    """Zeros for images of `shape` with their padding, and the images within, which are views of it."""
    *lead, h, w = shape
    p, q = padding
    whole = np.zeros_like(x, shape=(*lead, h + 2 * p, w + 2 * q), order="C")
    return whole, whole[..., p : p + h, q : q + w]


def _fold_vjp(g: Any, needs: tuple, size: tuple[int, ...], settings: Settings) -> tuple:
    return (on_arrays(unfold, g, *settings),)


def _unfold_vjp(g: Any, needs: tuple, size: tuple[int, ...], settings: Settings) -> tuple:
    return (on_arrays(fold, g, size, *settings),)


_FOLD = Op("fold", _fold_vjp, (None, None))
_UNFOLD = Op("unfold", _unfold_vjp, (None, None))


def unfold(
    input: Tensor,
    kernel_size: int | tuple[int, ...],
    dilation: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    stride: int | tuple[int, ...] = 1,
) -> Tensor:
    """The windows of images, each as a column.

        out[n, (c, k), p] = input[n, c, p * stride + k * dilation - padding], zero outside

    Args:
        input: (N, C, H, W) or (C, H, W), of any dtype.
        kernel_size: of the windows; an int, or one for each dimension, as all that follows.
        dilation: the distance between neighbouring elements of a window.
        padding: zeros around the images.
        stride: the distance between neighbouring windows.

    Returns:
        (N, C * KH * KW, L) or (C * KH * KW, L), with L windows row by row; a copy.

    Raises:
        RuntimeError: the input is of another form, or no window fits.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.unfold(cf.arange(6.0).reshape(1, 2, 3), 2)
    tensor([[0., 1.],
            [1., 2.],
            [3., 4.],
            [4., 5.]])
    """
    need_tensor("unfold", "input", input)
    x = input.array
    if x.ndim not in (3, 4) or 0 in x.shape[1 if x.ndim == 4 else 0 :]:
        raise RuntimeError(f"unfold: input must be (N, C, H, W) or (C, H, W) and not empty, got {tuple(x.shape)}")
    settings = _settings("unfold", kernel_size, dilation, padding, stride)
    size = tuple(x.shape[-2:])
    count = _positions("unfold", size, settings)
    whole, inner = _padded(x, x.shape, settings[2])
    inner[...] = x
    taps = prod(settings[0])
    out = np.empty_like(x, shape=(*x.shape[:-2], taps, *count), order="C")
    for i, part in _taps(count, settings):
        out[..., i, :, :] = whole[part]
    shape = (*x.shape[:-3], x.shape[-3] * taps, prod(count))
    return record(out.reshape(shape), _UNFOLD, (input,), (size, settings))


def fold(
    input: Tensor,
    output_size: int | tuple[int, ...],
    kernel_size: int | tuple[int, ...],
    dilation: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    stride: int | tuple[int, ...] = 1,
) -> Tensor:
    """Sum columns of windows into images: the transpose of `unfold`.

        out[n, c, p * stride + k * dilation - padding] += input[n, (c, k), p]

    Args:
        input: (N, C * KH * KW, L) or (C * KH * KW, L), floating point, with as many columns as `unfold` makes of images
            of `output_size`.
        output_size: of the images.
        kernel_size, dilation, padding, stride: as for `unfold`.

    Returns:
        (N, C, H, W) or (C, H, W). Where windows overlap, their values are added in the order of the kernel's taps.

    Raises:
        RuntimeError: the numbers of rows or columns do not fit.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.fold(cf.ones(4, 2), (2, 3), 2)
    tensor([[[1., 2., 1.],
             [1., 2., 1.]]])
    """
    check_floating("fold", "input", input)
    x = input.array
    if x.ndim not in (2, 3) or 0 in x.shape[1 if x.ndim == 3 else 0 :]:
        raise RuntimeError(f"fold: input must be (N, C * K, L) or (C * K, L) and not empty, got {tuple(x.shape)}")
    size = per_dimension("fold", "output_size", output_size, 2, 1)
    settings = _settings("fold", kernel_size, dilation, padding, stride)
    count = _positions("fold", size, settings)
    taps = prod(settings[0])
    if x.shape[-2] % taps:
        raise RuntimeError(
            f"fold: input must have a multiple of {taps} rows for kernel_size {settings[0]}, got {x.shape[-2]} in "
            f"{tuple(x.shape)}"
        )
    if x.shape[-1] != prod(count):
        raise RuntimeError(
            f"fold: input must have {prod(count)} columns, one for each of {count} windows, got {x.shape[-1]} in "
            f"{tuple(x.shape)}"
        )
    lead = (*x.shape[:-2], x.shape[-2] // taps)
    columns = widened(x).reshape((*lead, taps, *count))
    whole, inner = _padded(columns, (*lead, *size), settings[2])
    for i, part in _taps(count, settings):
        whole[part] += columns[..., i, :, :]
    return record(inner.astype(x.dtype), _FOLD, (input,), (size, settings))
