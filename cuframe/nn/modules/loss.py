"""Losses as modules: the functions of the same name with their settings kept."""

from __future__ import annotations

from typing import Any

from ...ops.cross_entropy import reduction_of
from ...tensor import Tensor
from .. import functional as F
from ..module import Module

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CosineEmbeddingLoss", "CrossEntropyLoss", "GaussianNLLLoss", "HingeEmbeddingLoss",
    "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "MarginRankingLoss", "NLLLoss", "PoissonNLLLoss", "SmoothL1Loss",
    "SoftMarginLoss", "TripletMarginLoss",
]  # fmt: skip


class _Loss(Module):
    reduction: str
    _others: tuple[str, ...] = ()

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        name = type(self).__name__
        for argument, value in (("size_average", size_average), ("reduce", reduce), ("reduction", reduction)):
            if isinstance(value, Tensor):
                raise TypeError(
                    f"{name}: {argument} must not be a Tensor; make the module, then call it: {name}()(input, target)"
                )
        self.reduction = reduction_of(name, reduction, size_average, reduce, self._others)


class _WeightedLoss(_Loss):
    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(_WeightedLoss):
    """The cross entropy between logits and target classes, see `F.cross_entropy`.

    Args:
        weight: (C,), a factor for each class.
        ignore_index: targets of this value count for nothing.
        reduction: `"mean"`, `"sum"` or `"none"`.
        label_smoothing: from 0 to 1.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.CrossEntropyLoss()(cf.zeros(3, 4), cf.tensor([0, 1, 2]))
    tensor(1.3863)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class NLLLoss(_WeightedLoss):
    """Minus the log probability of the target classes, see `F.nll_loss`.

    Input: (N, C) or (N, C, ...) of log probabilities; target: (N) or (N, ...), int64.

    Args:
        weight: (C,), a factor for each class.
        ignore_index: targets of this value count for nothing.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> log_probs = nn.LogSoftmax(dim=1)(cf.zeros(2, 4))
    >>> nn.NLLLoss()(log_probs, cf.tensor([0, 3]))
    tensor(1.3863)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(_Loss):
    """The squared difference, see `F.mse_loss`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.MSELoss()(cf.zeros(2), cf.tensor([1.0, 3.0]))
    tensor(5.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The absolute difference, see `F.l1_loss`.

    Input and target: any one shape, floating; output: a scalar, or that shape without reduction.

    Args:
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.L1Loss()(cf.zeros(2), cf.tensor([1.0, -3.0]))
    tensor(2.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Quadratic for differences below `beta` and linear beyond, see `F.smooth_l1_loss`.

    Input and target: any one shape, floating; output: a scalar, or that shape without reduction.

    Args:
        beta: where the square ends; not negative.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.SmoothL1Loss(reduction="none")(cf.zeros(2), cf.tensor([1.0, 3.0]))
    tensor([0.5000, 2.5000])
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Quadratic for differences up to `delta` and linear beyond, see `F.huber_loss`.

    Input and target: any one shape, floating; output: a scalar, or that shape without reduction.

    Args:
        delta: where the square ends; positive.
        reduction: `"mean"`, `"sum"` or `"none"`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.HuberLoss(reduction="none", delta=2.0)(cf.zeros(2), cf.tensor([1.0, 3.0]))
    tensor([0.5000, 4.0000])
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(_WeightedLoss):
    """The cross entropy of probabilities, see `F.binary_cross_entropy`.

    Input: any shape, probabilities; target: the same shape, from 0 to 1.

    Args:
        weight: a factor, broadcast to the input.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.BCELoss()(cf.tensor([0.5, 0.5]), cf.tensor([1.0, 0.0]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """The binary cross entropy of logits, see `F.binary_cross_entropy_with_logits`.

    Input: any shape, logits; target: the same shape, from 0 to 1.

    Args:
        weight: a factor, broadcast to the input.
        pos_weight: a factor of the positive part, broadcast to the input.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.BCEWithLogitsLoss()(cf.zeros(2), cf.tensor([1.0, 0.0]))
    tensor(0.6931)
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(_Loss):
    """The Kullback-Leibler divergence of log probabilities from a target, see `F.kl_div`.

    Input: any shape, log probabilities; target: the same shape.

    Args:
        log_target: the target is given as logarithms, too.
        reduction: `"batchmean"` (the divergence), `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> half = cf.tensor([[0.5, 0.5]])
    >>> nn.KLDivLoss(reduction="batchmean")(half.log(), cf.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """

    _others = ("batchmean",)

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(_Loss):
    """Minus the log probability of counts, see `F.poisson_nll_loss`.

    Input: any shape, rates or their logarithms; target: the same shape, counts.

    Args:
        log_input: the input is the logarithm of the rate.
        full: add Stirling's approximation of log(target!).
        eps: added to the rate where `log_input` is False.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.PoissonNLLLoss()(cf.zeros(2), cf.tensor([1.0, 2.0]))
    tensor(1.)
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: bool | None = None,
        eps: float = 1e-8,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(log_input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction)


class GaussianNLLLoss(_Loss):
    """Minus the log probability under a normal distribution, see `F.gaussian_nll_loss`.

    Input: (N, ...), means; target: the same shape; var: the same shape, or without the last dimension, or
    of size 1 there.

    Args:
        full: add the constant log(2 pi) / 2.
        eps: the smallest variance that is used.
        reduction: `"mean"`, `"sum"` or `"none"`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.GaussianNLLLoss()(cf.zeros(2, 1), cf.ones(2, 1), cf.ones(2, 1))
    tensor(0.5000)
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Any) -> Tensor:
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class HingeEmbeddingLoss(_Loss):
    """Distances that should be small where the target is 1 and above `margin` where it is -1.

    Input: any shape, distances; target: the same shape, 1 or -1. See `F.hinge_embedding_loss`.

    Args:
        margin: the distance from which dissimilar pairs cost nothing.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.HingeEmbeddingLoss(reduction="none")(cf.tensor([0.25, 0.25]), cf.tensor([1.0, -1.0]))
    tensor([0.2500, 0.7500])
    """

    def __init__(
        self,
        margin: float = 1.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.hinge_embedding_loss(input, target, self.margin, reduction=self.reduction)


class _RankLoss(_Loss):
    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin


class MarginRankingLoss(_RankLoss):
    """Pairs that should be in a given order, see `F.margin_ranking_loss`.

    Inputs: (N) scores each; target: (N), 1 where the first should be larger and -1 where the second.

    Args:
        margin: by how much.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> first, second = cf.tensor([3.0, 1.0]), cf.tensor([1.0, 2.0])
    >>> nn.MarginRankingLoss()(first, second, cf.tensor([1.0, 1.0]))
    tensor(0.5000)
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.margin_ranking_loss(input1, input2, target, self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(_RankLoss):
    """Vectors that should point in one direction where the target is 1, see `F.cosine_embedding_loss`.

    Inputs: (N, D) or (D); target: (N) or a scalar, 1 or -1.

    Args:
        margin: the cosine below which dissimilar pairs cost nothing; from -1 to 1.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.CosineEmbeddingLoss()(cf.tensor([[1.0, 0.0]]), cf.tensor([[0.0, 2.0]]), cf.tensor([1.0]))
    tensor(1.)
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.cosine_embedding_loss(input1, input2, target, self.margin, reduction=self.reduction)


class SoftMarginLoss(_Loss):
    """The logistic loss for targets of 1 and -1, see `F.soft_margin_loss`.

    Input: any shape, scores; target: the same shape, 1 or -1.

    Args:
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.SoftMarginLoss()(cf.zeros(2), cf.tensor([1.0, -1.0]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """An anchor that should be nearer to a positive than to a negative, see `F.triplet_margin_loss`.

    Anchor, positive and negative: (N, D) or (D).

    Args:
        margin: by how much; positive.
        p: of the norm.
        eps: added to the differences.
        swap: take the positive's distance to the negative where that is smaller.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Raises:
        ValueError: margin is not positive.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> anchor, near, far = cf.zeros(1, 2), cf.tensor([[0.0, 1.0]]), cf.tensor([[0.0, 1.5]])
    >>> nn.TripletMarginLoss()(anchor, near, far)
    tensor(0.5000)
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        if not margin > 0:
            raise ValueError(f"TripletMarginLoss: margin must be positive, got {margin}")
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, reduction=self.reduction
        )
