"""Dropout layers: random zeros in training mode, nothing in evaluation mode."""

from __future__ import annotations

from numbers import Real

from ...tensor import Tensor
from .. import functional as F
from ..module import Module
from .checks import check_flag

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    """What all of them share.

    Args:
        p: the probability of a zero.
        inplace: write into the input.
    """

    p: float
    inplace: bool

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(p, Real):
            hint = f"; make the module first, then call it: {name}()(input)" if isinstance(p, Tensor) else ""
            raise TypeError(f"{name}: p must be a number, got {type(p).__name__}{hint}")
        if not 0 <= p <= 1:
            raise ValueError(f"{name}: p must be in [0, 1], got {p}")
        self.p = p
        self.inplace = check_flag(name, "inplace", inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zeros each element with probability p, and divides the others by 1 - p, in training mode.

    >>> from cuframe import nn
    >>> nn.Dropout(0.2)
    Dropout(p=0.2, inplace=False)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """Dropout of whole channels of a (N, C, L) or (C, L) input.

    Channels that stay are divided by 1 - p. In evaluation mode it does nothing.

    Args:
        p: the probability of a zero.
        inplace: write into the input.

    Raises:
        ValueError: p is not in [0, 1].

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> _ = cf.manual_seed(0)
    >>> nn.Dropout1d()(cf.ones(4, 2))
    tensor([[0., 0.],
            [2., 2.],
            [2., 2.],
            [0., 0.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """Dropout of whole channels of a (N, C, H, W) input.

    Channels that stay are divided by 1 - p. In evaluation mode it does nothing.

    Args:
        p: the probability of a zero.
        inplace: write into the input.

    Raises:
        ValueError: p is not in [0, 1].

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> y = nn.Dropout2d(0.5)(cf.ones(8, 4, 3, 3))
    >>> bool(((y == 0).all(dim=(2, 3)) | (y == 2).all(dim=(2, 3))).all())  # whole channels
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """Dropout of whole channels of a (N, C, D, H, W) or (C, D, H, W) input.

    Channels that stay are divided by 1 - p. In evaluation mode it does nothing.

    Args:
        p: the probability of a zero.
        inplace: write into the input.

    Raises:
        ValueError: p is not in [0, 1].

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Dropout3d().eval()(cf.ones(1, 1, 1, 1, 2))
    tensor([[[[[1., 1.]]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance of what SELU gives (Klambauer et al. 2017).

    Dropped elements become what SELU gives far on the left, and an affine map restores the moments.

    Args:
        p: the probability of a zero.
        inplace: write into the input.

    Raises:
        ValueError: p is not in [0, 1].

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> _ = cf.manual_seed(0)
    >>> y = nn.AlphaDropout(0.2)(cf.randn(10_000))
    >>> abs(y.mean().item()) < 0.05 and abs(y.std().item() - 1) < 0.05
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels of a (N, C, ...) input.

    Args:
        p: the probability of a zero.
        inplace: write into the input.

    Raises:
        ValueError: p is not in [0, 1].

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> y = nn.FeatureAlphaDropout()(cf.ones(4, 3, 5))
    >>> bool((y == y[:, :, :1]).all())  # whole channels
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training)
