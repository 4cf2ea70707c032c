"""Resizing and rearranging images as modules."""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor
from .. import functional as F
from ..module import Module

__all__ = [
    "ChannelShuffle", "PixelShuffle", "PixelUnshuffle", "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d",
]  # fmt: skip


class PixelShuffle(Module):
    """Rearranges groups of r^2 channels into r x r pixels, see `F.pixel_shuffle`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.PixelShuffle(2)(cf.zeros(1, 8, 3, 4)).shape
    cuframe.Size([1, 2, 6, 8])
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Rearranges r x r pixels into r^2 channels, see `F.pixel_unshuffle`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.PixelUnshuffle(2)(cf.zeros(1, 2, 6, 8)).shape
    cuframe.Size([1, 8, 3, 4])
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Deals the channels of several groups out in turn, see `F.channel_shuffle`.

    >>> from cuframe import nn
    >>> nn.ChannelShuffle(2)
    ChannelShuffle(groups=2)
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class Upsample(Module):
    """Resizes the dimensions behind the channels of (N, C, W), (N, C, H, W) or (N, C, D, H, W), see `F.interpolate`.

    Args:
        size: of the result, an int or one for each dimension; or else
        scale_factor: a number or one for each dimension.
        mode: "nearest", "linear", "bilinear", "bicubic", "trilinear", "nearest-exact" or "area".
        align_corners: for the linear and cubic modes.
        recompute_scale_factor: take positions from the sizes and not from scale_factor.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Upsample(scale_factor=2, mode="bilinear")(cf.ones(1, 1, 2, 3)).shape
    cuframe.Size([1, 1, 4, 6])
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor: Any = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        given = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{given}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` of (N, C, H, W) with mode "nearest".

    >>> from cuframe import nn
    >>> nn.UpsamplingNearest2d(scale_factor=2)
    UpsamplingNearest2d(scale_factor=2.0, mode='nearest')
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of (N, C, H, W) with mode "bilinear" and aligned corners.

    >>> from cuframe import nn
    >>> nn.UpsamplingBilinear2d((4, 6))
    UpsamplingBilinear2d(size=(4, 6), mode='bilinear')
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", True)
