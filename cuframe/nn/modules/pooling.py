"""Pooling as modules."""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor
from .. import functional as F
from ..module import Module

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d",
    "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d",
    "MaxUnpool3d",
]  # fmt: skip


def _per_dimension(value: Any, dims: int) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


# -- maxima -------------------------------------------------------------------------------------------------------
class _MaxPool(Module):
    """What the maxima over windows share.

    Args:
        kernel_size, stride, padding, dilation: an int for all dimensions, or one for each; stride is kernel_size by
            default.
        return_indices: also return where the maxima are.
        ceil_mode: also windows that reach beyond the padded input at its end.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def _settings(self) -> tuple:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The maxima of windows along the last dimension of (N, C, L) or (C, L), see `F.max_pool1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.MaxPool1d(2)(cf.tensor([[1.0, 5.0, 2.0, 3.0]]))
    tensor([[5., 3.]])
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool1d(input, *self._settings())


class MaxPool2d(_MaxPool):
    """The maxima of windows over (N, C, H, W) or (C, H, W), see `F.max_pool2d`.

    >>> from cuframe import nn
    >>> nn.MaxPool2d(3, stride=2, padding=1)
    MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False)
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(input, *self._settings())


class MaxPool3d(_MaxPool):
    """The maxima of windows over (N, C, D, H, W) or (C, D, H, W), see `F.max_pool3d`.

    Args:
        kernel_size, stride, padding, dilation: an int for all dimensions, or one for each; stride is kernel_size by
            default.
        return_indices: also return where the maxima are.
        ceil_mode: also windows that reach beyond the padded input at its end.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.MaxPool3d((1, 1, 2))(cf.tensor([[[[1.0, 5.0, 2.0, 3.0]]]]))
    tensor([[[[5., 3.]]]])
    """

    def forward(self, input: Tensor) -> Any:
        return F.max_pool3d(input, *self._settings())


class _MaxUnpool(Module):
    _dims = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size = _per_dimension(kernel_size, self._dims)
        self.stride = _per_dimension(stride if stride is not None else kernel_size, self._dims)
        self.padding = _per_dimension(padding, self._dims)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Puts maxima back to where `MaxPool1d` found them, see `F.max_unpool1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> out, indices = nn.MaxPool1d(2, return_indices=True)(cf.tensor([[1.0, 5.0, 2.0, 3.0]]))
    >>> nn.MaxUnpool1d(2)(out, indices)
    tensor([[0., 5., 0., 3.]])
    """

    _dims = 1

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return F.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(_MaxUnpool):
    """Puts maxima back to where `MaxPool2d` found them, see `F.max_unpool2d`.

    Args:
        kernel_size, stride, padding: of the pooling.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> out, indices = nn.MaxPool2d((1, 2), return_indices=True)(cf.tensor([[[1.0, 5.0, 2.0, 3.0]]]))
    >>> nn.MaxUnpool2d((1, 2))(out, indices)
    tensor([[[0., 5., 0., 3.]]])
    """

    _dims = 2

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(_MaxUnpool):
    """Puts maxima back to where `MaxPool3d` found them, see `F.max_unpool3d`.

    Args:
        kernel_size, stride, padding: of the pooling.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> out, indices = nn.MaxPool3d((1, 1, 2), return_indices=True)(cf.tensor([[[[1.0, 5.0, 2.0, 3.0]]]]))
    >>> nn.MaxUnpool3d((1, 1, 2))(out, indices)
    tensor([[[[0., 5., 0., 3.]]]])
    """

    _dims = 3

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return F.max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class _FractionalMaxPool(Module):
    _dims = 0

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{type(self).__name__}: needs either output_size or output_ratio")
        self.kernel_size = _per_dimension(kernel_size, self._dims)
        self.return_indices = return_indices
        self.output_size = None if output_size is None else _per_dimension(output_size, self._dims)
        self.output_ratio = None if output_ratio is None else _per_dimension(output_ratio, self._dims)
        if self.output_ratio is not None and not all(0 < ratio < 1 for ratio in self.output_ratio):
            raise ValueError(f"{type(self).__name__}: output_ratio must be in (0, 1), got {output_ratio}")
        self.register_buffer("_random_samples", _random_samples)

    def _settings(self) -> tuple:
        return self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples


class FractionalMaxPool2d(_FractionalMaxPool):
    """The maxima of windows at random distances over (N, C, H, W) or (C, H, W), see `F.fractional_max_pool2d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.FractionalMaxPool2d(2, output_ratio=0.5)(cf.zeros(1, 8, 6)).shape
    cuframe.Size([1, 4, 3])
    """

    _dims = 2

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool2d(input, *self._settings())


class FractionalMaxPool3d(_FractionalMaxPool):
    """The maxima of windows at random distances over (N, C, D, H, W) or (C, D, H, W), see `F.fractional_max_pool3d`.

    Args:
        kernel_size: an int for all dimensions, or one for each.
        output_size: of the result, or
        output_ratio: its part of the input's size, in (0, 1).
        return_indices: also return where the maxima are.

    Raises:
        ValueError: neither or both of `output_size` and `output_ratio`, or a ratio outside (0, 1).

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.FractionalMaxPool3d(2, output_size=(2, 2, 3))(cf.zeros(1, 4, 4, 6)).shape
    cuframe.Size([1, 2, 2, 3])
    """

    _dims = 3

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool3d(input, *self._settings())


# -- means --------------------------------------------------------------------------------------------------------
class AvgPool1d(Module):
    """The means of windows along the last dimension of (N, C, L) or (C, L), see `F.avg_pool1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AvgPool1d(2)(cf.tensor([[1.0, 5.0, 2.0, 4.0]]))
    tensor([[3., 3.]])
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = _per_dimension(kernel_size, 1)
        self.stride = _per_dimension(stride if stride is not None else kernel_size, 1)
        self.padding = _per_dimension(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def _settings(self) -> tuple:
        return (
            self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The means of windows over (N, C, H, W) or (C, H, W), see `F.avg_pool2d`.

    >>> from cuframe import nn
    >>> nn.AvgPool2d(2)
    AvgPool2d(kernel_size=2, stride=2, padding=0)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, *self._settings())


class AvgPool3d(_AvgPool):
    """The means of windows over (N, C, D, H, W) or (C, D, H, W), see `F.avg_pool3d`.

    Args:
        kernel_size, stride, padding: an int for all dimensions, or one for each; stride is kernel_size by default.
        ceil_mode: also windows that reach beyond the padded input at its end.
        count_include_pad: count the zeros of the padding.
        divisor_override: divide by this instead of the size of the window.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AvgPool3d((1, 1, 2))(cf.tensor([[[[1.0, 5.0, 2.0, 4.0]]]]))
    tensor([[[[3., 3.]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool3d(input, *self._settings())


class _LPPool(Module):
    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norms of windows along the last dimension of (N, C, L) or (C, L), see `F.lp_pool1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LPPool1d(2, 2)(cf.tensor([[3.0, 4.0, 0.0, 2.0]]))
    tensor([[5., 2.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool1d(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(_LPPool):
    """The p-norms of windows over (N, C, H, W) or (C, H, W), see `F.lp_pool2d`.

    Args:
        norm_type: p.
        kernel_size, stride: an int for all dimensions, or one for each; stride is kernel_size by default.
        ceil_mode: also windows that reach beyond the input at its end.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LPPool2d(2, (1, 2))(cf.tensor([[[3.0, 4.0, 0.0, 2.0]]]))
    tensor([[[5., 2.]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool2d(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool3d(_LPPool):
    """The p-norms of windows over (N, C, D, H, W) or (C, D, H, W), see `F.lp_pool3d`.

    Args:
        norm_type: p.
        kernel_size, stride: an int for all dimensions, or one for each; stride is kernel_size by default.
        ceil_mode: also windows that reach beyond the input at its end.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LPPool3d(2, (1, 1, 2))(cf.tensor([[[[3.0, 4.0, 0.0, 2.0]]]]))
    tensor([[[[5., 2.]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool3d(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


# -- to a given size ----------------------------------------------------------------------------------------------
class _AdaptiveAvgPool(Module):
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of `output_size` windows that cover (N, C, L) or (C, L), see `F.adaptive_avg_pool1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AdaptiveAvgPool1d(2)(cf.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1.5000, 2.5000]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of windows that cover (N, C, H, W) or (C, H, W), see `F.adaptive_avg_pool2d`.

    Args:
        output_size: an int for all dimensions, or one for each; None keeps a dimension's size.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AdaptiveAvgPool2d((1, 2))(cf.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[1.5000, 2.5000]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The means of windows that cover (N, C, D, H, W) or (C, D, H, W), see `F.adaptive_avg_pool3d`.

    Args:
        output_size: an int for all dimensions, or one for each; None keeps a dimension's size.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AdaptiveAvgPool3d((1, 1, 2))(cf.tensor([[[[1.0, 2.0, 3.0]]]]))
    tensor([[[[1.5000, 2.5000]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMaxPool(Module):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of `output_size` windows that cover (N, C, L) or (C, L), see `F.adaptive_max_pool1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AdaptiveMaxPool1d(2)(cf.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 3.]])
    """

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maxima of windows that cover (N, C, H, W) or (C, H, W), see `F.adaptive_max_pool2d`.

    Args:
        output_size: an int for all dimensions, or one for each; None keeps a dimension's size.
        return_indices: also return where the maxima are.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AdaptiveMaxPool2d((1, 2))(cf.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[2., 3.]]])
    """

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The maxima of windows that cover (N, C, D, H, W) or (C, D, H, W), see `F.adaptive_max_pool3d`.

    Args:
        output_size: an int for all dimensions, or one for each; None keeps a dimension's size.
        return_indices: also return where the maxima are.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.AdaptiveMaxPool3d((1, 1, 2))(cf.tensor([[[[1.0, 2.0, 3.0]]]]))
    tensor([[[[2., 3.]]]])
    """

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)
