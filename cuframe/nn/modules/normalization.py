"""Layers that normalise each sample by itself: rows, groups of channels, neighbouring channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.create import empty
from ...tensor import Parameter, Tensor
from .. import functional as F
from .. import init
from ..module import Module

__all__ = ["GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


def _shape(name: str, normalized_shape: Any) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, (int, str)) else tuple(normalized_shape)
    if not all(isinstance(size, (int, np.integer)) for size in shape):
        raise TypeError(f"{name}: normalized_shape must be an int or ints, got {normalized_shape!r}")
    return shape


class LayerNorm(Module):
    """Normalises the last dimensions to mean 0 and variance 1, then scales and shifts each element.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Ba et al., Layer Normalization (2016). `weight` (normalized_shape) starts as ones, `bias` as zeros.

    Args:
        normalized_shape: the sizes of the last dimensions, or one size.
        eps: added to the variance.
        elementwise_affine: have weight and bias.
        bias: have a bias, where there is a weight.
        device, dtype: of the parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LayerNorm(2)(cf.tensor([[1.0, 3.0]]))
    tensor([[-1.0000,  1.0000]], grad_fn=<LayerNormBackward0>)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = shape = _shape(type(self).__name__, normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        for name, wanted in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            value = Parameter(empty(*shape, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight to ones and bias to zeros."""
        ones_and_zeros(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(Module):
    """Divides the last dimensions by their root mean square, then scales each element.

        out = input / sqrt(mean(input^2) + eps) * weight

    Zhang and Sennrich, Root Mean Square Layer Normalization (2019). `weight` (normalized_shape) starts as ones.

    Args:
        normalized_shape: the sizes of the last dimensions, or one size.
        eps: added to the mean square; None stands for the machine epsilon of the dtype computed in.
        elementwise_affine: have a weight.
        device, dtype: of the weight.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.RMSNorm(2, elementwise_affine=False)(cf.tensor([1.0, 7.0]))
    tensor([0.2000, 1.4000])
    """

    weight: Parameter | None

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = shape = _shape(type(self).__name__, normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        value = Parameter(empty(*shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight to ones."""
        ones_and_zeros(self.weight, None)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Normalises each group of channels of each sample, then scales and shifts each channel.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Wu and He, Group Normalization (2018). `weight` (num_channels,) starts as ones, `bias` as zeros.

    Args:
        num_groups: a divisor of num_channels.
        num_channels: the size of the input's dimension 1.
        eps: added to the variance.
        affine: have weight and bias.
        device, dtype: of the parameters.
        bias: have a bias, where there is a weight.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.GroupNorm(3, 6)(cf.ones(20, 6, 10, 10)).shape
    cuframe.Size([20, 6, 10, 10])
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups must divide num_channels {num_channels}, got {num_groups}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            value = Parameter(empty(num_channels, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight to ones and bias to zeros."""
        ones_and_zeros(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LocalResponseNorm(Module):
    """Divides each channel by a power of the mean square of its neighbours.

        out_c = input_c (k + alpha / size * sum_c' input_c'^2)^-beta,  c' from c - size // 2 to c + (size - 1) // 2

    Args:
        size: the number of neighbouring channels.
        alpha, beta, k: see the formula.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LocalResponseNorm(2)(cf.ones(32, 5, 24, 24)).shape
    cuframe.Size([32, 5, 24, 24])
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def ones_and_zeros(weight: Parameter | None, bias: Parameter | None) -> None:
    """Where a normalisation starts: ones in its weight, zeros in its bias."""
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)
