"""Adam for sparse gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .blocks import zeros_like
from .optimizer import Optimizer, check_at_least, check_betas
from .sparse import sparse_parts, write_rows

__all__ = ["SparseAdam"]


class SparseAdam(Optimizer):
    """Adam whose averages and parameters change only in the rows that a sparse gradient touches.

    For embeddings with `sparse=True`. Arguments as in `Adam`. The averages of a row stand still while it is not used.

    Raises:
        RuntimeError: a gradient is dense.
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> table = nn.Embedding(3, 1, sparse=True)
    >>> _ = nn.init.zeros_(table.weight)
    >>> opt = optim.SparseAdam(table.parameters(), lr=0.25)
    >>> table(cf.tensor([0, 2])).sum().backward()
    >>> opt.step()
    >>> table.weight.detach().flatten()
    tensor([-0.2500,  0.0000, -0.2500])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        check_at_least("SparseAdam", lr=lr, eps=eps)
        check_betas("SparseAdam", betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        beta1, beta2 = group["betas"]
        for i, p in enumerate(group["params"]):
            if p.grad is not None and not getattr(p.grad, "is_sparse", False):
                raise RuntimeError(f"SparseAdam: the gradient of parameter {i} is dense; use Adam for it")
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=zeros_like(p), exp_avg_sq=zeros_like(p))
            step = state["step"] = state["step"] + 1
            rows, g = sparse_parts(p.grad)
            g = -g if group["maximize"] else g
            m, v = state["exp_avg"].array, state["exp_avg_sq"].array
            m_rows = m[rows] + (1.0 - beta1) * (g - m[rows])
            v_rows = v[rows] + (1.0 - beta2) * (g * g - v[rows])
            m[rows], v[rows] = m_rows, v_rows
            size = float(group["lr"]) * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
            write_rows(p, rows, p.array[rows] - size * m_rows / (np.sqrt(v_rows) + group["eps"]))
