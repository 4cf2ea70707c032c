"""Activations written into their input, under PyTorch's names: those of `activation` with `inplace=True`."""

from __future__ import annotations

from ..tensor import Tensor
from . import activation as _a

__all__ = ["celu_", "elu_", "hardtanh_", "leaky_relu_", "relu_", "rrelu_", "selu_", "threshold_"]


def relu_(input: Tensor) -> Tensor:
    """`relu` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.relu_(x) is x
    True
    >>> x
    tensor([0., 2.])
    """
    return _a.relu(input, inplace=True)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.leaky_relu_(x, 0.1) is x
    True
    >>> x
    tensor([-0.2000,  2.0000])
    """
    return _a.leaky_relu(input, negative_slope, inplace=True)


def rrelu_(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Tensor:
    """`rrelu` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.rrelu_(x, 0.25, 0.75) is x
    True
    >>> x
    tensor([-1.,  2.])
    """
    return _a.rrelu(input, lower, upper, training, inplace=True)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.threshold_(x, 0.0, -7.0) is x
    True
    >>> x
    tensor([-7.,  2.])
    """
    return _a.threshold(input, threshold, value, inplace=True)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.hardtanh_(x) is x
    True
    >>> x
    tensor([-1.,  1.])
    """
    return _a.hardtanh(input, min_val, max_val, inplace=True)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.elu_(x) is x
    True
    >>> x
    tensor([-0.8647,  2.0000])
    """
    return _a.elu(input, alpha, inplace=True)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.celu_(x, 2.0) is x
    True
    >>> x
    tensor([-1.2642,  2.0000])
    """
    return _a.celu(input, alpha, inplace=True)


def selu_(input: Tensor) -> Tensor:
    """`selu` in place: gives back the input, changed.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([-2.0, 2.0])
    >>> F.selu_(x) is x
    True
    >>> x
    tensor([-1.5202,  2.1014])
    """
    return _a.selu(input, inplace=True)
