"""Activation functions as modules: the functions of the same name with their settings kept."""

from __future__ import annotations

from typing import Any

from ...ops.create import full
from ...tensor import Parameter, Tensor
from .. import functional as F
from ..module import Module
from .checks import check_flag

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
    "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Softmax2d",
    "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold",
]  # fmt: skip


def _inplace(flag: bool) -> str:
    return "inplace=True" if flag else ""


class CELU(Module):
    """`max(0, x) + min(0, alpha (exp(x / alpha) - 1))`.

    Input and output: any shape, floating. See `F.celu`.

    Args:
        alpha: how far down it goes, and how slowly; not 0.
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.CELU(alpha=2.0)(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-1.2642,  0.0000,  2.0000])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class ELU(Module):
    """`x` where it is positive, else `alpha (exp(x) - 1)`.

    Input and output: any shape, floating. See `F.elu`.

    Args:
        alpha: minus the limit on the left.
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ELU()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-0.8647,  0.0000,  2.0000])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class GELU(Module):
    """`x` times the normal distribution function; `approximate="tanh"` takes the tanh formula.

    Input and output: any shape, floating. See `F.gelu`.

    Args:
        approximate: `"none"` or `"tanh"`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.GELU()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-0.0455,  0.0000,  1.9545])
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class GLU(Module):
    """The first half of a dimension times the sigmoid of the second.

    A dimension of 2 C becomes one of C. See `F.glu`.

    Args:
        dim: the dimension that is halved; its size must be even.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.GLU()(cf.tensor([[1.0, 2.0, 0.0, 0.0]]))
    tensor([[0.5000, 1.0000]])
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Hardshrink(Module):
    """x, but 0 in [-lambd, lambd].

    Input and output: any shape, floating. See `F.hardshrink`.

    Args:
        lambd: where it begins to let through.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Hardshrink()(cf.tensor([-1.0, 0.3, 0.6]))
    tensor([-1.0000,  0.0000,  0.6000])
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Hardsigmoid(Module):
    """`x / 6 + 1 / 2`, clamped to [0, 1].

    Input and output: any shape, floating. See `F.hardsigmoid`.

    Args:
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Hardsigmoid()(cf.tensor([-4.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class Hardswish(Module):
    """`x` times its hard sigmoid.

    Input and output: any shape, floating. See `F.hardswish`.

    Args:
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Hardswish()(cf.tensor([-2.0, 1.0, 4.0]))
    tensor([-0.3333,  0.6667,  4.0000])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class LeakyReLU(Module):
    """`x` where it is positive, else `negative_slope x`.

    Input and output: any shape, floating. See `F.leaky_relu`.

    Args:
        negative_slope: the factor on the left.
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LeakyReLU(0.1)(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-0.2000,  0.0000,  2.0000])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class LogSigmoid(Module):
    """`log(1 / (1 + exp(-x)))`.

    Input and output: any shape, floating. See `F.logsigmoid`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LogSigmoid()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-2.1269, -0.6931, -0.1269])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Mish(Module):
    """`x tanh(softplus(x))`.

    Input and output: any shape, floating. See `F.mish`.

    Args:
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Mish()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-0.2525,  0.0000,  1.9440])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class ReLU(Module):
    """`max(0, x)`.

    Input and output: any shape, floating. See `F.relu`.

    Args:
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReLU()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([0., 0., 2.])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class ReLU6(Module):
    """`min(max(0, x), 6)`.

    Input and output: any shape, floating. See `F.relu6`.

    Args:
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReLU6()(cf.tensor([-1.0, 3.0, 9.0]))
    tensor([0., 3., 6.])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class SELU(Module):
    """The scaled ELU of self-normalizing networks (Klambauer et al. 2017).

    Input and output: any shape, floating. See `F.selu`.

    Args:
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.SELU()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-1.5202,  0.0000,  2.1014])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class SiLU(Module):
    """`x` times its sigmoid.

    Input and output: any shape, floating. See `F.silu`.

    Args:
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.SiLU()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-0.2384,  0.0000,  1.7616])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class Sigmoid(Module):
    """`1 / (1 + exp(-x))`.

    Input and output: any shape, floating. See `F.sigmoid`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Sigmoid()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([0.1192, 0.5000, 0.8808])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Softplus(Module):
    """`log(1 + exp(beta x)) / beta`, and x where `beta x` is above the threshold.

    Input and output: any shape, floating. See `F.softplus`.

    Args:
        beta: how sharp the bend is.
        threshold: of `beta x`, above which the output is x.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Softplus()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([0.1269, 0.6931, 2.1269])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softshrink(Module):
    """`x` moved towards 0 by lambd, and 0 in [-lambd, lambd].

    Input and output: any shape, floating. See `F.softshrink`.

    Args:
        lambd: by how much; not negative.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Softshrink()(cf.tensor([-1.5, 0.3, 1.0]))
    tensor([-1.0000,  0.0000,  0.5000])
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softsign(Module):
    """`x / (1 + |x|)`.

    Input and output: any shape, floating. See `F.softsign`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Softsign()(cf.tensor([-1.0, 0.0, 3.0]))
    tensor([-0.5000,  0.0000,  0.7500])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class Tanh(Module):
    """The hyperbolic tangent.

    Input and output: any shape, floating. See `F.tanh`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Tanh()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-0.9640,  0.0000,  0.9640])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Tanhshrink(Module):
    """`x - tanh(x)`.

    Input and output: any shape, floating. See `F.tanhshrink`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Tanhshrink()(cf.tensor([-2.0, 0.0, 2.0]))
    tensor([-1.0360,  0.0000,  1.0360])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class Hardtanh(Module):
    """`x` clamped to [min_val, max_val].

    Input and output: any shape, floating. See `F.hardtanh`.

    Args:
        min_val, max_val: the bounds.
        inplace: write into the input.
        min_value, max_value: older names of the bounds.

    Raises:
        ValueError: max_val is not above min_val.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Hardtanh()(cf.tensor([-3.0, 0.5, 3.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        super().__init__()
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)
        if not self.max_val > self.min_val:
            raise ValueError(f"Hardtanh: max_val must be above min_val {self.min_val}, got {self.max_val}")

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class Threshold(Module):
    """`x` where it is above the threshold, else `value`.

    Input and output: any shape, floating. See `F.threshold`.

    Args:
        threshold: above it, the input is kept.
        value: what takes the place of the others.
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Threshold(1.0, -7.0)(cf.tensor([0.5, 1.0, 1.5]))
    tensor([-7.0000, -7.0000,  1.5000])
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class RReLU(Module):
    """`x` where it is positive, else x times a slope: drawn from U(lower, upper) in training, their mean otherwise.

    Input and output: any shape, floating. See `F.rrelu`.

    Args:
        lower, upper: the range of the slope.
        inplace: write into the input.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.RReLU(0.25, 0.75).eval()(cf.tensor([-2.0, 2.0]))
    tensor([-1.,  2.])
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = check_flag(type(self).__name__, "inplace", inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """`x` where it is positive, else x times a learned slope, one for all or one for each channel.

    Args:
        num_parameters: 1, or the number of channels (dimension 1 of the input).
        init: the slopes at the start.
        device, dtype: of the parameter.

    Input: any shape, or (N, C, ...) with a slope for each channel. See `F.prelu`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.PReLU(2)(cf.tensor([[-1.0, 2.0]]))
    tensor([[-0.2500,  2.0000]], grad_fn=<PreluBackward0>)
    >>> nn.PReLU(2).weight.shape
    cuframe.Size([2])
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), float(init), device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class _Along(Module):
    """A function along one dimension."""

    dim: int | None

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_Along):
    """Exponentials that sum to one along a dimension.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Softmax(dim=1)(cf.zeros(1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class Softmin(_Along):
    """The softmax of the negated input.

    Input and output: any shape, floating. See `F.softmin`.

    Args:
        dim: the dimension that sums to one.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Softmin(dim=0)(cf.tensor([0.0, 0.0, 1.0]))
    tensor([0.4223, 0.4223, 0.1554])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim)


class LogSoftmax(_Along):
    """The logarithm of the softmax along a dimension.

    Input and output: any shape, floating. See `F.log_softmax`.

    Args:
        dim: the dimension whose exponentials sum to one.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.LogSoftmax(dim=1)(cf.zeros(1, 2))
    tensor([[-0.6931, -0.6931]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class Softmax2d(Module):
    """The softmax over the channels of a (N, C, H, W) or (C, H, W) input.

    Raises:
        ValueError: the input has neither 3 nor 4 dimensions.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Softmax2d()(cf.zeros(2, 1, 1)).flatten()
    tensor([0.5000, 0.5000])
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: input must have 3 or 4 dimensions, got shape {tuple(input.shape)}")
        return F.softmax(input, -3)
