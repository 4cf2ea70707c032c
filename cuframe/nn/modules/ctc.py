"""The loss of sequences without alignment."""

from __future__ import annotations

from typing import Any

from ...ops.cross_entropy import reduction_of
from ...tensor import Tensor
from .. import functional as F
from ..module import Module

__all__ = ["CTCLoss"]


class CTCLoss(Module):
    """Connectionist temporal classification: a label sequence whose place in the input is unknown, see `F.ctc_loss`.

    Args:
        blank: the class that spells nothing.
        reduction: `"mean"`, `"sum"` or `"none"`; a mean divides each loss by its target length first.
        zero_infinity: count targets that do not fit into their steps as 0, without gradient.
        from_logits: the input holds logits; on a GPU the log_softmax is part of the kernels.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> log_probs = nn.LogSoftmax(dim=2)(cf.zeros(2, 1, 2))
    >>> nn.CTCLoss()(log_probs, cf.tensor([[1]]), cf.tensor([2]), cf.tensor([1]))
    tensor(0.2877)
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False, *,
                 from_logits: bool = False) -> None:
        super().__init__()
        self.reduction = reduction_of("CTCLoss", reduction, None, None)
        self.blank = blank
        self.zero_infinity = zero_infinity
        self.from_logits = from_logits

    def forward(self, log_probs: Tensor, targets: Any, input_lengths: Any, target_lengths: Any) -> Tensor:
        return F.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity,
            from_logits=self.from_logits,
        )  # fmt: skip
