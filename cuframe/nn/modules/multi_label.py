"""Losses that compare the scores of classes with each other, and a triplet loss of any distance."""

from __future__ import annotations

from collections.abc import Callable

from ...tensor import Tensor
from .. import functional as F
from .loss import _Loss, _WeightedLoss

__all__ = ["MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss", "TripletMarginWithDistanceLoss"]


class MultiLabelMarginLoss(_Loss):
    """All classes that apply should score above all that do not, see `F.multilabel_margin_loss`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.MultiLabelMarginLoss()(cf.tensor([[0.1, 0.2, 0.4, 0.8]]), cf.tensor([[3, 0, -1, 1]]))
    tensor(0.8500)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """The binary cross entropy of each class, averaged over classes, see `F.multilabel_soft_margin_loss`.

    Input: (N, C) or (C), logits; target: the same shape, 0 or 1.

    Args:
        weight: (C,), a factor for each class.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.MultiLabelSoftMarginLoss()(cf.zeros(1, 3), cf.tensor([[1.0, 0.0, 1.0]]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)


class MultiMarginLoss(_WeightedLoss):
    """The target class should score above all others by `margin`, see `F.multi_margin_loss`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.MultiMarginLoss()(cf.tensor([[0.1, 0.2, 0.4, 0.8]]), cf.tensor([3]))
    tensor(0.3250)
    """

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ValueError(f"MultiMarginLoss: p must be 1 or 2, got {p}")
        self.p = p
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multi_margin_loss(input, target, self.p, self.margin, self.weight, reduction=self.reduction)


class TripletMarginWithDistanceLoss(_Loss):
    """An anchor that should be nearer to a positive than to a negative, by any distance.

    See `F.triplet_margin_with_distance_loss`.

    Anchor, positive and negative: what the distance takes.

    Args:
        distance_function: of two Tensors, a Tensor of distances; by default `F.pairwise_distance`.
        margin: by how much; positive.
        swap: take the positive's distance to the negative where that is smaller.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        ValueError: margin is not positive.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> def largest(x, y):
    ...     return (x - y).abs().amax(dim=1)
    >>> loss = nn.TripletMarginWithDistanceLoss(distance_function=largest)
    >>> loss(cf.zeros(1, 2), cf.tensor([[0.0, 1.0]]), cf.tensor([[1.5, 1.0]]))
    tensor(0.5000)
    """

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if not margin > 0:
            raise ValueError(f"TripletMarginWithDistanceLoss: margin must be positive, got {margin}")
        self.distance_function = F.pairwise_distance if distance_function is None else distance_function
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_with_distance_loss(
            anchor, positive, negative, distance_function=self.distance_function, margin=self.margin, swap=self.swap,
            reduction=self.reduction,
        )  # fmt: skip
