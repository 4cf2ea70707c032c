"""Adagrad, Adadelta and RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .blocks import decayed, gradients, run, zeros_like
from .optimizer import Optimizer, check_at_least
from .sparse import sparse_parts, write_rows

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


def _adagrad(
    axpy: Any, p: Any, g: Any, total: Any, s: Any, t: Any, lr: float, eps: float, l2: float, maximize: bool
) -> None:
    g = decayed(axpy, p, g, t, l2, maximize)
    np.multiply(g, g, s)
    np.add(total, s, total)
    np.sqrt(total, s)
    np.add(s, eps, s)
    np.divide(g, s, s)
    axpy(s, p, a=-lr)


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011): every element has its own rate, which its past gradients lower.

    sum += g * g; p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(sum) + eps).

    Args:
        params: parameters or groups, see `Optimizer`.
        lr: the learning rate.
        lr_decay: how fast the rate falls with the steps.
        weight_decay: factor of the L2 penalty.
        initial_accumulator_value: of the sum of squares.
        eps: added to the denominator.
        maximize: go up instead of down.

    Sparse gradients are taken (without weight decay): only the rows they touch change.

    Raises:
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.Adagrad([w], lr=0.25)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 4)
    0.75
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        check_at_least(
            "Adagrad", lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps,
            initial_accumulator_value=initial_accumulator_value,
        )  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "lr_decay": lr_decay, "eps": eps,
                "weight_decay": weight_decay, "maximize": maximize,
                "initial_accumulator_value": initial_accumulator_value,
            },
        )  # fmt: skip

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        eps, decay, maximize = group["eps"], group["weight_decay"], group["maximize"]
        for p in group["params"]:
            g = p.grad
            if g is None:
                continue
            state = self.state[p]
            if not state:
                state["step"], state["sum"] = 0, zeros_like(p, group["initial_accumulator_value"])
            sparse = g.__class__ is not Tensor and getattr(g, "is_sparse", False)
            if sparse and decay:
                raise RuntimeError(f"Adagrad: sparse gradients work without weight_decay only, got {decay}")
            state["step"] += 1
            lr = float(group["lr"]) / (1.0 + (state["step"] - 1) * group["lr_decay"])
            if sparse:
                rows, values = sparse_parts(g)
                total = state["sum"].array[rows] + values * values
                state["sum"].array[rows] = total
                change = lr * values / (np.sqrt(total) + eps)
                write_rows(p, rows, p.array[rows] + change if maximize else p.array[rows] - change)
            else:
                run(self._scratch, _adagrad, p, g.array, (state["sum"],), lr, eps, decay, maximize)


def _adadelta(
    axpy: Any, p: Any, g: Any, squares: Any, changes: Any, s: Any, t: Any, lr: float, rho: float, eps: float,
    l2: float, maximize: bool,
) -> None:  # fmt: skip
    g = decayed(axpy, p, g, t, l2, maximize)
    np.multiply(g, g, s)
    np.multiply(squares, rho, squares)
    axpy(s, squares, a=1.0 - rho)
    np.add(changes, eps, s)
    np.sqrt(s, s)
    np.multiply(s, g, t)
    np.add(squares, eps, s)
    np.sqrt(s, s)
    np.divide(t, s, t)
    axpy(t, p, a=-lr)
    np.multiply(t, t, t)
    np.multiply(changes, rho, changes)
    axpy(t, changes, a=1.0 - rho)


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012): steps in the unit of the parameter, from averages of squared gradients and changes.

    v = rho * v + (1 - rho) * g * g; d = sqrt(u + eps) / sqrt(v + eps) * g; u = rho * u + (1 - rho) * d * d;
    p -= lr * d.

    Args:
        params: parameters or groups, see `Optimizer`.
        lr: factor of the step.
        rho: how slowly the averages forget.
        eps: keeps the roots away from zero.
        weight_decay: factor of the L2 penalty.
        maximize: go up instead of down.

    Raises:
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.Adadelta([w], lr=100.0)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 4)
    0.6838
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        check_at_least("Adadelta", lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Adadelta: rho must be in [0, 1], got {rho}")
        super().__init__(
            params,
            {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize},
        )

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        for p, g in gradients(group, "Adadelta"):
            state = self.state[p]
            if not state:
                state.update(step=0, square_avg=zeros_like(p), acc_delta=zeros_like(p))
            state["step"] += 1
            run(
                self._scratch, _adadelta, p, g, (state["square_avg"], state["acc_delta"]), float(group["lr"]),
                group["rho"], group["eps"], group["weight_decay"], group["maximize"],
            )  # fmt: skip


def _rmsprop(axpy: Any, p: Any, g: Any, squares: Any, *rest: Any) -> None:
    # The optional states come between the first and the scratch; the flags at the end say which are there.
    *states, s, t, lr, alpha, eps, l2, momentum, centered, maximize = rest
    g = decayed(axpy, p, g, t, l2, maximize)
    np.multiply(g, g, s)
    np.multiply(squares, alpha, squares)
    axpy(s, squares, a=1.0 - alpha)
    if centered:
        mean = states[0]
        np.multiply(mean, alpha, mean)
        axpy(g, mean, a=1.0 - alpha)
        np.multiply(mean, mean, s)
        np.subtract(squares, s, s)
        np.sqrt(s, s)
    else:
        np.sqrt(squares, s)
    np.add(s, eps, s)
    np.divide(g, s, s)
    if momentum:
        buf = states[-1]
        np.multiply(buf, momentum, buf)
        np.add(buf, s, buf)
        axpy(buf, p, a=-lr)
    else:
        axpy(s, p, a=-lr)


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012; centered: Graves 2013).

    v = alpha * v + (1 - alpha) * g * g; p -= lr * g / (sqrt(v) + eps). Centered: v less the squared mean of g.

    Args:
        params: parameters or groups, see `Optimizer`.
        lr: the learning rate.
        alpha: how slowly the average of squares forgets.
        eps: added to the denominator.
        weight_decay: factor of the L2 penalty.
        momentum: how much of the last update goes into the next.
        centered: divide by the root of the variance instead of the mean square.
        maximize: go up instead of down.

    Raises:
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.RMSprop([w], lr=0.25, alpha=0.75)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 4)
    0.5
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        check_at_least("RMSprop", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps,
                "centered": centered, "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )  # fmt: skip

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        momentum, centered = group["momentum"], group["centered"]
        names = ["square_avg"]
        if centered:
            names.append("grad_avg")
        if momentum:
            names.append("momentum_buffer")
        for p, g in gradients(group, "RMSprop"):
            state = self.state[p]
            if not state:
                state["step"] = 0
            for name in names:
                if name not in state:
                    state[name] = zeros_like(p)
            state["step"] += 1
            run(
                self._scratch, _rmsprop, p, g, tuple([state[name] for name in names]), float(group["lr"]),
                group["alpha"], group["eps"], group["weight_decay"], momentum, centered, group["maximize"],
            )  # fmt: skip
