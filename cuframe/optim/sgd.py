"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .blocks import decayed, run, zeros_like
from .optimizer import Optimizer, check_at_least
from .sparse import sparse_parts, write_rows

__all__ = ["SGD"]


def _sgd(axpy: Any, p: Any, g: Any, s: Any, t: Any, lr: float, decay: float, maximize: bool) -> None:
    axpy(decayed(axpy, p, g, t, decay, maximize), p, a=-lr)


def _momentum(
    axpy: Any, p: Any, g: Any, buf: Any, s: Any, t: Any, lr: float, decay: float, momentum: float, keep: float,
    nesterov: bool, first: bool, maximize: bool,
) -> None:  # fmt: skip
    g = decayed(axpy, p, g, t, decay, maximize)
    if first:
        buf[...] = g
    else:
        np.multiply(buf, momentum, buf)
        axpy(g, buf, a=keep)
    if nesterov:
        np.multiply(buf, momentum, s)
        np.add(s, g, s)
        axpy(s, p, a=-lr)
    else:
        axpy(buf, p, a=-lr)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    g += weight_decay * p; b = momentum * b + (1 - dampening) * g; p -= lr * b (Nesterov: lr * (g + momentum * b)). At
    the first step b = g.

    Args:
        params: parameters or groups, see `Optimizer`.
        lr: the learning rate.
        momentum: how much of the last update goes into the next.
        dampening: of the gradient that enters the momentum.
        weight_decay: factor of the L2 penalty.
        nesterov: Nesterov's momentum (Sutskever et al. 2013); it needs a momentum and no dampening.
        maximize: go up instead of down.

    Sparse gradients are taken as they are, without momentum and weight decay only.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0, 2.0])
    >>> opt = optim.SGD([w], lr=0.5)
    >>> w.grad = cf.tensor([1.0, 1.0])
    >>> opt.step()
    >>> w.tolist()
    [0.5, 1.5]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        check_at_least("SGD", lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                "SGD: nesterov needs momentum > 0 and dampening 0, "
                f"got momentum={momentum}, dampening={dampening}"
            )
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening,
                "weight_decay": weight_decay, "nesterov": nesterov,
                "maximize": maximize,
            },
        )  # fmt: skip

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        lr, momentum, decay = float(group["lr"]), group["momentum"], group["weight_decay"]
        for p in group["params"]:
            g = p.grad
            if g is None:
                continue
            if g.__class__ is not Tensor and getattr(g, "is_sparse", False):
                if momentum or decay:
                    raise RuntimeError(
                        "SGD: sparse gradients work without momentum and weight_decay only, "
                        f"got momentum={momentum}, weight_decay={decay}"
                    )
                rows, values = sparse_parts(g)
                change = lr * values
                write_rows(p, rows, p.array[rows] + change if group["maximize"] else p.array[rows] - change)
            elif momentum:
                state = self.state[p]
                first = state.get("momentum_buffer") is None
                if first:
                    state["momentum_buffer"] = zeros_like(p)
                run(
                    self._scratch, _momentum, p, g.array, (state["momentum_buffer"],), lr, decay, momentum,
                    1.0 - group["dampening"], group["nesterov"], first, group["maximize"],
                )  # fmt: skip
            else:
                run(self._scratch, _sgd, p, g.array, (), lr, decay, group["maximize"])
