"""Affine and bilinear layers."""

from __future__ import annotations

import math
from typing import Any

from ...ops.create import empty
from ...tensor import Parameter, Tensor
from .. import functional as F
from .. import init
from ..module import Module
from .checks import check_sizes_of

__all__ = ["Bilinear", "Identity", "Linear"]


class Identity(Module):
    """Returns its input; arguments are accepted and ignored, so that it can stand in for any layer.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Identity(54, unused=True)(cf.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """An affine map of the last dimension: `input @ weight.T + bias`.

    `weight` (out_features, in_features) and `bias` (out_features,) start from U(-1/sqrt(in_features),
    1/sqrt(in_features)).

    Args:
        in_features: the size of the input's last dimension.
        out_features: that of the result.
        bias: add a bias.
        device, dtype: of the parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> layer = nn.Linear(20, 30)
    >>> layer
    Linear(in_features=20, out_features=30, bias=True)
    >>> layer(cf.ones(128, 20)).shape
    cuframe.Size([128, 30])
    """

    in_features: int
    out_features: int
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        check_sizes_of("Linear", in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        # The gain of a = sqrt(5) makes the bound 1 / sqrt(in_features).
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """A bilinear form for each output feature: `out[o] = input1 @ weight[o] @ input2 + bias[o]`.

    `weight` (out_features, in1_features, in2_features) and `bias` (out_features,) start from U(-1/sqrt(in1_features),
    1/sqrt(in1_features)).

    Args:
        in1_features: the size of the first input's last dimension.
        in2_features: that of the second.
        out_features: that of the result.
        bias: add a bias.
        device, dtype: of the parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Bilinear(2, 3, 4)(cf.ones(5, 2), cf.ones(5, 3)).shape
    cuframe.Size([5, 4])
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_sizes_of("Bilinear", in1_features=in1_features, in2_features=in2_features, out_features=out_features)
        if in1_features == 0:
            raise ValueError(f"Bilinear: in1_features must be positive, got {in1_features}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in1_features, in2_features, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
