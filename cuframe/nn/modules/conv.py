"""Convolutions, and windows as columns."""

from __future__ import annotations

import math
from typing import Any

from ...ops.convolution import per_dimension
from ...ops.create import empty
from ...tensor import Parameter, Tensor
from .. import functional as F
from .. import init
from ..module import Module
from .checks import check_sizes_of

__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Fold", "Unfold",
]  # fmt: skip

Sizes = int | tuple[int, ...]


class _Conv(Module):
    """What convolutions and transposed convolutions share: settings, parameters, their initial values and text."""

    dims = 0
    transposed = False
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
        output_padding: Any, groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name, dims = type(self).__name__, self.dims
        check_sizes_of(name, in_channels=in_channels, out_channels=out_channels)
        if groups <= 0:
            raise ValueError(f"{name}: groups must be positive, got {groups}")
        for argument, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value % groups:
                raise ValueError(f"{name}: {argument} must be a multiple of groups {groups}, got {value}")
        modes = ("zeros",) if self.transposed else ("zeros", "reflect", "replicate", "circular")
        if padding_mode not in modes:
            raise ValueError(f"{name}: padding_mode must be one of {', '.join(modes)}, got {padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_dimension(name, "kernel_size", kernel_size, dims, 1)
        self.stride = per_dimension(name, "stride", stride, dims, 1)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{name}: padding must be numbers, 'same' or 'valid', got {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f"{name}: padding='same' needs stride 1, got {self.stride}")
            self.padding: Any = padding
        else:
            self.padding = per_dimension(name, "padding", padding, dims, 0)
        self.dilation = per_dimension(name, "dilation", dilation, dims, 1)
        self.output_padding = per_dimension(name, "output_padding", output_padding, dims, 0)
        self.groups = groups
        self.padding_mode = padding_mode
        shape = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(empty(*shape, *self.kernel_size, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        # The gain of a = sqrt(5) makes the bound 1 / sqrt(fan_in).
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = math.prod(self.weight.array.shape[1:])
            if fan_in:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for argument, plain in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, argument)
            if value != (plain,) * self.dims:
                words.append(f"{argument}={value!r}" if isinstance(value, str) else f"{argument}={value}")
        if self.groups != 1:
            words.append(f"groups={self.groups}")
        if self.bias is None:
            words.append("bias=False")
        if self.padding_mode != "zeros":
            words.append(f"padding_mode={self.padding_mode}")
        return ", ".join(words)


class _Convolve(_Conv):
    """The constructor of convolutions, and padding of all kinds."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip

    def _sides(self) -> list[int]:
        """What `padding` puts before and after each dimension, the last dimension first, as `F.pad` takes it."""
        sides: list[int] = []
        for d in reversed(range(self.dims)):
            if self.padding == "same":
                total = self.dilation[d] * (self.kernel_size[d] - 1)
                sides += (total // 2, total - total // 2)
            else:
                sides += (0, 0) if self.padding == "valid" else (self.padding[d],) * 2
        return sides

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._sides(), mode=self.padding_mode)
            padding = 0
        function = getattr(F, f"conv{self.dims}d")
        return function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Convolve):
    """A convolution over sequences, see `F.conv1d`.

    `weight` (out_channels, in_channels / groups, *kernel_size) and `bias` (out_channels,) start from U(-b, b) with
    b = 1 / sqrt(in_channels / groups * prod(kernel_size)).

    Args:
        in_channels: the channels of the input.
        out_channels: the channels of the result.
        kernel_size: an int, or a tuple of one.
        stride: the distance between neighbouring positions of the kernel.
        padding: how much is added on both sides; `"same"` so much that the length stays, `"valid"` nothing.
        dilation: the distance between neighbouring taps of the kernel.
        groups: cuts both kinds of channels into groups that do not see each other.
        bias: add a bias.
        padding_mode: what is added: "zeros", "reflect", "replicate" or "circular", see `F.pad`.
        device, dtype: of the parameters.

    Raises:
        ValueError: the channels are no multiple of groups, or padding and padding_mode are none of these.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> layer = nn.Conv1d(80, 256, 3, stride=2, padding=1)
    >>> layer
    Conv1d(80, 256, kernel_size=(3,), stride=(2,), padding=(1,))
    >>> layer(cf.ones(4, 80, 100)).shape
    cuframe.Size([4, 256, 50])
    """

    dims = 1


class Conv2d(_Convolve):
    """A convolution over images, see `F.conv2d`.

    `weight` (out_channels, in_channels / groups, *kernel_size) and `bias` (out_channels,) start as those of `Conv1d`.

    Args:
        in_channels: the channels of the input.
        out_channels: the channels of the result.
        kernel_size: an int, or one for each dimension, as all that follows.
        stride, padding, dilation, groups, bias, padding_mode, device, dtype: as for `Conv1d`.

    Raises:
        ValueError: the channels are no multiple of groups, or padding and padding_mode are none of these.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Conv2d(16, 33, (3, 5), stride=(2, 1), padding=(4, 2))(cf.ones(2, 16, 50, 20)).shape
    cuframe.Size([2, 33, 28, 20])
    """

    dims = 2


class Conv3d(_Convolve):
    """A convolution over volumes, see `F.conv3d`.

    `weight` (out_channels, in_channels / groups, *kernel_size) and `bias` (out_channels,) start as those of `Conv1d`.

    Args:
        in_channels: the channels of the input.
        out_channels: the channels of the result.
        kernel_size: an int, or one for each dimension, as all that follows.
        stride, padding, dilation, groups, bias, padding_mode, device, dtype: as for `Conv1d`.

    Raises:
        ValueError: the channels are no multiple of groups, or padding and padding_mode are none of these.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Conv3d(2, 3, 3, padding="same")(cf.ones(1, 2, 4, 5, 6)).shape
    cuframe.Size([1, 3, 4, 5, 6])
    """

    dims = 3


class _ConvTranspose(_Conv):
    """The constructor and the choice of the result's size of transposed convolutions."""

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
        output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if isinstance(padding, str):
            raise TypeError(f"{type(self).__name__}: padding must be numbers, got {padding!r}")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output_padding that makes a result of `output_size`."""
        if output_size is None:
            return self.output_padding
        name, dims = type(self).__name__, self.dims
        wanted = tuple(output_size)
        if len(wanted) == input.array.ndim:
            wanted = wanted[-dims:]
        if len(wanted) != dims:
            raise ValueError(f"{name}: output_size must have {dims} or {input.array.ndim} numbers, got {wanted}")
        least = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                input.array.shape[-dims:], self.stride, self.padding, self.dilation, self.kernel_size
            )
        )
        most = tuple(a + s - 1 for a, s in zip(least, self.stride))
        if not all(a <= w <= b for a, w, b in zip(least, wanted, most)):
            raise ValueError(
                f"{name}: output_size must be from {least} to {most} for an input of {tuple(input.array.shape)}, "
                f"got {wanted}"
            )
        return tuple(w - a for a, w in zip(least, wanted))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """The result, of the size `output_size` (with or without batch and channels) if that is given.

        With a stride several sizes belong to one input; `output_size` chooses one, instead of `output_padding`.
        """
        extra = self._output_padding(input, output_size)
        function = getattr(F, f"conv_transpose{self.dims}d")
        return function(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )


class ConvTranspose1d(_ConvTranspose):
    """The transpose of a convolution over sequences, see `F.conv_transpose1d`.

    `weight` (in_channels, out_channels / groups, *kernel_size) and `bias` (out_channels,) start from U(-b, b) with
    b = 1 / sqrt(out_channels / groups * prod(kernel_size)).

    Args:
        in_channels: the channels of the input.
        out_channels: the channels of the result.
        kernel_size: an int, or a tuple of one.
        stride: the distance in the result between the kernels of neighbouring elements.
        padding: how much is cut off the result on both sides.
        output_padding: how much longer the result is at its end.
        groups: cuts both kinds of channels into groups that do not see each other.
        bias: add a bias.
        dilation: the distance between neighbouring taps of the kernel.
        padding_mode: "zeros".
        device, dtype: of the parameters.

    Raises:
        ValueError: the channels are no multiple of groups, or `output_size` of `forward` cannot be had.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> layer = nn.ConvTranspose1d(2, 3, 3, stride=2)
    >>> layer
    ConvTranspose1d(2, 3, kernel_size=(3,), stride=(2,))
    >>> layer(cf.ones(1, 2, 4)).shape, layer(cf.ones(1, 2, 4), output_size=[10]).shape
    (cuframe.Size([1, 3, 9]), cuframe.Size([1, 3, 10]))
    """

    dims = 1


class ConvTranspose2d(_ConvTranspose):
    """The transpose of a convolution over images, see `F.conv_transpose2d`.

    `weight` (in_channels, out_channels / groups, *kernel_size) and `bias` (out_channels,) start as those of
    `ConvTranspose1d`, which has the same arguments; sizes are an int or two.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> down, up = nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1)
    >>> x = cf.ones(1, 16, 12, 12)
    >>> up(down(x), output_size=x.shape).shape
    cuframe.Size([1, 16, 12, 12])
    """

    dims = 2


class ConvTranspose3d(_ConvTranspose):
    """The transpose of a convolution over volumes, see `F.conv_transpose3d`.

    `weight` (in_channels, out_channels / groups, *kernel_size) and `bias` (out_channels,) start as those of
    `ConvTranspose1d`, which has the same arguments; sizes are an int or three.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ConvTranspose3d(4, 2, 2, stride=2)(cf.ones(1, 4, 2, 3, 4)).shape
    cuframe.Size([1, 2, 4, 6, 8])
    """

    dims = 3


class Unfold(Module):
    """The windows of images as columns, see `F.unfold`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Unfold((2, 3))(cf.ones(2, 5, 3, 4)).shape
    cuframe.Size([2, 30, 4])
    """

    def __init__(self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )


class Fold(Module):
    """Columns of windows summed into images, see `F.fold`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Fold((4, 5), (2, 2))(cf.ones(1, 12, 12)).shape
    cuframe.Size([1, 3, 4, 5])
    """

    def __init__(
        self, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )
