"""Softmax over many classes of uneven frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...backend import backend_of
from ...ops.define import check_floating, need_tensor
from ...ops.gather import gather
from ...ops.join import cat
from ...tensor import Tensor
from .. import functional as F
from ..containers import ModuleList, Sequential
from ..module import Module
from .linear import Linear

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class AdaptiveOutput(NamedTuple):
    """What `AdaptiveLogSoftmaxWithLoss` returns."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """A softmax that spends less on rare classes: they share clusters, which are computed only where they occur.

    The head scores the classes below the first cutoff and one entry for each cluster; cluster i scores its own
    classes behind a projection to `in_features // div_value**(i + 1)` features:

        log p(c) = head(c)  in the head,  head(cluster of c) + tail(c)  elsewhere

    Args:
        in_features: the size of the input's last dimension.
        n_classes: the number of classes, ordered by falling frequency.
        cutoffs: increasing; where the clusters begin. `[10, 100, 1000]` puts classes 0 to 9 into the head.
        div_value: how fast the clusters' projections shrink.
        head_bias: give the head a bias.
        device, dtype: of the parameters.

    Calling it with input (N, in_features) or (in_features,) and target (N,) or () gives a named tuple: `output`, the
    log probability of each target, and `loss`, minus their mean.

    Raises:
        ValueError: the cutoffs are not increasing integers in [1, n_classes - 1], or a shape does not fit.
        IndexError: a target is no class.

    Grave et al., Efficient softmax approximation for GPUs (2017).

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> layer = nn.AdaptiveLogSoftmaxWithLoss(16, 100, cutoffs=[10, 50])
    >>> output, loss = layer(cf.ones(3, 16), cf.tensor([0, 20, 99]))
    >>> output.shape, layer.log_prob(cf.ones(3, 16)).shape
    (cuframe.Size([3]), cuframe.Size([3, 100]))
    """

    head: Linear
    tail: ModuleList

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        starts = [*cutoffs]
        if not all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) for c in starts):
            raise ValueError(f"AdaptiveLogSoftmaxWithLoss: cutoffs must be integers, got {starts}")
        steps = [0, *starts, n_classes]
        if not starts or any(a >= b for a, b in zip(steps, steps[1:])):
            raise ValueError(
                f"AdaptiveLogSoftmaxWithLoss: cutoffs must be increasing integers in [1, {n_classes - 1}], got {starts}"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*starts, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = starts[0]
        self.n_clusters = len(starts)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            inner = int(in_features // div_value ** (i + 1))
            self.tail.append(
                Sequential(
                    Linear(in_features, inner, False, device, dtype), Linear(inner, high - low, False, device, dtype)
                )
            )

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.head.reset_parameters()
        for cluster in self.tail.children():
            for layer in cluster.children():
                layer.reset_parameters()  # type: ignore[operator]

    def _rows(self, input: Tensor) -> Tensor:
        check_floating("AdaptiveLogSoftmaxWithLoss", "input", input)
        shape = tuple(input.array.shape)
        if len(shape) not in (1, 2) or shape[-1] != self.in_features:
            raise ValueError(
                f"AdaptiveLogSoftmaxWithLoss: input must be (N, {self.in_features}) or ({self.in_features},), "
                f"got {shape}"
            )
        return input.reshape((-1, self.in_features))

    def forward(self, input: Tensor, target: Tensor) -> AdaptiveOutput:
        name = "AdaptiveLogSoftmaxWithLoss"
        x = self._rows(input)
        need_tensor(name, "target", target)
        t = target.array
        if t.dtype.kind not in "iu":
            raise TypeError(f"{name}: target must hold class indices of an integer dtype, got {t.dtype.name}")
        if t.shape != input.array.shape[:-1]:
            raise ValueError(
                f"{name}: target must be {tuple(input.array.shape[:-1])} for an input of shape "
                f"{tuple(input.array.shape)}, got {tuple(t.shape)}"
            )
        backend = backend_of(t)
        backend.check_index(name, "target", t, self.n_classes)
        t = t.reshape(-1).astype(np.int64)
        # Cluster by cluster, then the rows are put back in order.
        column, order, parts = t.copy(), [(t < self.shortlist_size).nonzero()[0]], []
        parts.append(Tensor(backend.xp.zeros(len(order[0]), x.array.dtype)))
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            rows = ((t >= low) & (t < high)).nonzero()[0]
            column[rows] = self.shortlist_size + i
            order.append(rows)
            if len(rows):
                scores = F.log_softmax(self.tail[i](x[Tensor(rows)]), dim=1)
                parts.append(gather(scores, 1, Tensor((t[rows] - low)[:, None]))[:, 0])
        back = backend.xp.argsort(backend.xp.concatenate(order))
        head: Any = gather(F.log_softmax(self.head(x), dim=1), 1, Tensor(column[:, None]))[:, 0]
        output = head + cat(parts)[Tensor(back)]
        return AdaptiveOutput(output.reshape(tuple(target.array.shape)), -output.mean())

    def _full(self, x: Tensor, head: Tensor) -> Tensor:
        scores: Any = F.log_softmax(head, dim=1)
        parts: list[Any] = [scores[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            k = self.shortlist_size + i
            parts.append(F.log_softmax(cluster(x), dim=1) + scores[:, k : k + 1])
        return cat(parts, 1)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log probabilities of all classes, (N, n_classes), or (n_classes,) for one row."""
        x = self._rows(input)
        full = self._full(x, self.head(x))
        return full if input.array.ndim == 2 else full[0]

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class, (N,) or (); as `log_prob(input).argmax(-1)`.

        Clusters are computed only where the head ranks one of them first.
        """
        x = self._rows(input)
        head = self.head(x)
        best = head.argmax(1)
        rows = (best.array >= self.shortlist_size).nonzero()[0]
        if len(rows):
            rare = Tensor(rows)
            best[rare] = self._full(x[rare], head[rare]).argmax(1)
        return best if input.array.ndim == 2 else best[0]
