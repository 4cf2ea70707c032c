"""Channels rearranged into space, back, and among themselves."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .define import need_tensor
from .linear_map import LinearMap
from .shape import as_int

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


def _shuffled(x: Any, r: int) -> Any:
    *lead, c, h, w = x.shape
    k = len(lead)
    parts = x.reshape((*lead, c // r**2, r, r, h, w))
    moved = parts.transpose((*range(k), k, k + 3, k + 1, k + 4, k + 2)).copy()
    return moved.reshape((*lead, c // r**2, h * r, w * r))


def _unshuffled(x: Any, r: int) -> Any:
    *lead, c, h, w = x.shape
    k = len(lead)
    parts = x.reshape((*lead, c, h // r, r, w // r, r))
    moved = parts.transpose((*range(k), k, k + 2, k + 4, k + 1, k + 3)).copy()
    return moved.reshape((*lead, c * r**2, h // r, w // r))


_SHUFFLE = LinearMap("pixel_shuffle", _shuffled, _unshuffled)
_UNSHUFFLE = LinearMap("pixel_unshuffle", _unshuffled, _shuffled)


def _shape_and_factor(name: str, input: Tensor, argument: str, factor: Any) -> tuple[tuple, int]:
    need_tensor(name, "input", input)
    shape = tuple(input.array.shape)
    r = as_int(name, argument, factor)
    if len(shape) < 3:
        raise RuntimeError(f"{name}: input must have at least 3 dimensions, got shape {shape}")
    if r < 1:
        raise RuntimeError(f"{name}: {argument} must be positive, got {r}")
    return shape, r


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Rearrange groups of r^2 channels into r x r pixels.

        out[..., c, h r + i, w r + j] = input[..., c r^2 + i r + j, h, w]

    Shi et al., Real-Time Single Image and Video Super-Resolution (2016).

    Args:
        input: (..., C r^2, H, W), any dtype.
        upscale_factor: r.

    Returns:
        (..., C, H r, W r).

    Raises:
        RuntimeError: r^2 does not divide the channels, or the input has fewer than 3 dimensions.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.pixel_shuffle(cf.arange(4.0).reshape(4, 1, 1), 2)
    tensor([[[0., 1.],
             [2., 3.]]])
    """
    shape, r = _shape_and_factor("pixel_shuffle", input, "upscale_factor", upscale_factor)
    if shape[-3] % r**2:
        raise RuntimeError(f"pixel_shuffle: upscale_factor^2 = {r**2} must divide the channels, got shape {shape}")
    return _SHUFFLE(input, r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Rearrange r x r pixels into r^2 channels: the inverse of `pixel_shuffle`.

    Args:
        input: (..., C, H r, W r), any dtype.
        downscale_factor: r.

    Returns:
        (..., C r^2, H, W).

    Raises:
        RuntimeError: r does not divide height and width, or the input has fewer than 3 dimensions.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.pixel_unshuffle(cf.arange(4.0).reshape(1, 2, 2), 2).flatten()
    tensor([0., 1., 2., 3.])
    """
    shape, r = _shape_and_factor("pixel_unshuffle", input, "downscale_factor", downscale_factor)
    if shape[-2] % r or shape[-1] % r:
        raise RuntimeError(f"pixel_unshuffle: downscale_factor {r} must divide height and width, got shape {shape}")
    return _UNSHUFFLE(input, r)


def _channels_shuffled(x: Any, groups: int, back: bool) -> Any:
    n, c, *rest = x.shape
    first = c // groups if back else groups
    parts = x.reshape((n, first, c // first, *rest))
    return parts.transpose((0, 2, 1, *range(3, parts.ndim))).copy().reshape(x.shape)


def _channels_shuffled_back(x: Any, groups: int, back: bool) -> Any:
    return _channels_shuffled(x, groups, not back)


_CHANNELS = LinearMap("channel_shuffle", _channels_shuffled, _channels_shuffled_back)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Deal the channels of `groups` groups out in turn: the first of each group, then the second of each, ...

        out[:, i groups + g] = input[:, g C / groups + i]

    Zhang et al., ShuffleNet (2018).

    Args:
        input: (N, C, ...) with at least 3 dimensions, any dtype.
        groups: must divide C.

    Returns:
        A tensor of the input's shape.

    Raises:
        RuntimeError: groups does not divide C, or the input has fewer than 3 dimensions.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.channel_shuffle(cf.arange(4.0).reshape(1, 4, 1), 2).flatten()
    tensor([0., 2., 1., 3.])
    """
    shape, g = _shape_and_factor("channel_shuffle", input, "groups", groups)
    if shape[1] % g:
        raise RuntimeError(f"channel_shuffle: groups = {g} must divide the {shape[1]} channels of shape {shape}")
    return _CHANNELS(input, g, False)
