"""Adam and its kin: AdamW, Adamax, NAdam, RAdam.

Note [Bias correction]
    With m and v the averages of the gradient and of its square, and c1 = 1 - beta1^t, c2 = 1 - beta2^t, the update
    lr / c1 * m / (sqrt(v) / sqrt(c2) + eps) is computed as lr * sqrt(c2) / c1 * m / (sqrt(v) + eps * sqrt(c2)):
    equal but for rounding, and one pass over the array less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .blocks import decayed, gradients, run, zeros_like
from .optimizer import Optimizer, check_at_least, check_betas

__all__ = ["Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


def _averages(axpy: Any, g: Any, m: Any, v: Any, s: Any, beta1: float, beta2: float) -> None:
    """m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g * g"""
    np.multiply(m, beta1, m)
    axpy(g, m, a=1.0 - beta1)
    np.multiply(g, g, s)
    np.multiply(v, beta2, v)
    axpy(s, v, a=1.0 - beta2)


def _adam(
    axpy: Any, p: Any, g: Any, m: Any, v: Any, s: Any, t: Any, beta1: float, beta2: float, step: float, eps: float,
    l2: float, shrink: float, maximize: bool,
) -> None:  # fmt: skip
    if l2 or maximize:
        g = decayed(axpy, p, g, t, l2, maximize)
    if shrink != 1.0:
        np.multiply(p, shrink, p)
    _averages(axpy, g, m, v, s, beta1, beta2)
    np.sqrt(v, s)
    np.add(s, eps, s)
    np.divide(m, s, s)
    axpy(s, p, a=-step)


def _amsgrad(
    axpy: Any, p: Any, g: Any, m: Any, v: Any, top: Any, s: Any, t: Any, beta1: float, beta2: float, step: float,
    eps: float, l2: float, shrink: float, maximize: bool,
) -> None:  # fmt: skip
    g = decayed(axpy, p, g, t, l2, maximize)
    if shrink != 1.0:
        np.multiply(p, shrink, p)
    _averages(axpy, g, m, v, s, beta1, beta2)
    np.maximum(top, v, out=top)
    np.sqrt(top, s)
    np.add(s, eps, s)
    np.divide(m, s, s)
    axpy(s, p, a=-step)


class _Moments(Optimizer):
    """What the Adam family shares: two averages for each parameter, and the step count."""

    _state_names: tuple[str, ...] = ("exp_avg", "exp_avg_sq")

    def _state_of(self, p: Tensor, names: tuple[str, ...]) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
        state = self.state[p]
        if not state:
            state["step"] = 0
        for name in names:
            if name not in state:
                state[name] = zeros_like(p)
        state["step"] += 1
        return state, tuple([state[name] for name in names])


class Adam(_Moments):
    """Adam (Kingma and Ba 2015).

    m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g * g;
    p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    Args:
        params: parameters or groups, see `Optimizer`.
        lr: the learning rate.
        betas: how slowly the averages of the gradient and of its square forget.
        eps: added to the denominator.
        weight_decay: factor of the L2 penalty, which enters the averages (`AdamW` keeps it out of them).
        amsgrad: divide by the largest average of squares so far (Reddi et al. 2018).
        maximize: go up instead of down.
        decoupled_weight_decay: as `AdamW`.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.Adam([w], lr=0.25)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 5)
    0.75
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        name = type(self).__name__
        check_at_least(name, lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(name, betas)
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "amsgrad": amsgrad, "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        lr, (beta1, beta2), eps = float(group["lr"]), group["betas"], group["eps"]
        decay, maximize = group["weight_decay"], group["maximize"]
        decoupled = group["decoupled_weight_decay"]
        kernel: Any = _amsgrad if group["amsgrad"] else _adam
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else self._state_names
        for p, g in gradients(group, type(self).__name__):
            state, arrays = self._state_of(p, names)
            root = math.sqrt(1.0 - beta2 ** state["step"])
            run(
                self._scratch, kernel, p, g, arrays, beta1, beta2, lr * root / (1.0 - beta1 ** state["step"]),
                eps * root, 0.0 if decoupled else decay, 1.0 - lr * decay if decoupled else 1.0, maximize,
            )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p *= 1 - lr * weight_decay before the step.

    Arguments as in `Adam`, with weight_decay 0.01 by default.

    Raises:
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.AdamW([w], lr=0.25, weight_decay=0.2)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 4)
    0.7
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True
        )


def _adamax(
    axpy: Any, p: Any, g: Any, m: Any, top: Any, s: Any, t: Any, beta1: float, beta2: float, step: float, eps: float,
    l2: float, maximize: bool,
) -> None:  # fmt: skip
    g = decayed(axpy, p, g, t, l2, maximize)
    np.multiply(m, beta1, m)
    axpy(g, m, a=1.0 - beta1)
    np.abs(g, s)
    np.add(s, eps, s)
    np.multiply(top, beta2, top)
    np.maximum(top, s, out=top)
    np.divide(m, top, s)
    axpy(s, p, a=-step)


class Adamax(_Moments):
    """Adamax (Kingma and Ba 2015, section 7.1): Adam with a decaying maximum in the place of the average of squares.

    u = max(beta2 * u, |g| + eps); p -= lr / (1 - beta1^t) * m / u. Arguments as in `Adam`.

    Raises:
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.Adamax([w], lr=0.25)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 4)
    0.75
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        check_at_least("Adamax", lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas("Adamax", betas)
        super().__init__(
            params,
            {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize},
        )

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        for p, g in gradients(group, "Adamax"):
            state, arrays = self._state_of(p, ("exp_avg", "exp_inf"))
            run(
                self._scratch, _adamax, p, g, arrays, beta1, beta2, lr / (1.0 - beta1 ** state["step"]),
                group["eps"], group["weight_decay"], group["maximize"],
            )  # fmt: skip


def _nadam(
    axpy: Any, p: Any, g: Any, m: Any, v: Any, s: Any, t: Any, beta1: float, beta2: float, root: float, step_g: float,
    step_m: float, eps: float, l2: float, shrink: float, maximize: bool,
) -> None:  # fmt: skip
    g = decayed(axpy, p, g, t, l2, maximize)
    if shrink != 1.0:
        np.multiply(p, shrink, p)
    _averages(axpy, g, m, v, s, beta1, beta2)
    np.multiply(g, step_g, t)
    axpy(m, t, a=step_m)
    np.sqrt(v, s)
    np.add(s, eps, s)
    np.divide(t, s, t)
    axpy(t, p, a=-root)


class NAdam(_Moments):
    """Adam with Nesterov momentum (Dozat 2016).

    Args:
        momentum_decay: of the schedule mu_t = beta1 * (1 - 0.5 * 0.96^(t * momentum_decay)).
        decoupled_weight_decay: as `AdamW`.

    The others are as in `Adam`.

    Raises:
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.NAdam([w], lr=0.25)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 4)
    0.7359
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        check_at_least("NAdam", lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        check_betas("NAdam", betas)
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps,
                "weight_decay": weight_decay, "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize,
            },
        )  # fmt: skip

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        lr, (beta1, beta2), decay = float(group["lr"]), group["betas"], group["weight_decay"]
        decoupled = group["decoupled_weight_decay"]
        for p, g in gradients(group, "NAdam"):
            state, arrays = self._state_of(p, self._state_names)
            step = state["step"]
            mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))
            mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * group["momentum_decay"]))
            product = state["mu_product"] = state.get("mu_product", 1.0) * mu
            root = math.sqrt(1.0 - beta2**step)
            run(
                self._scratch, _nadam, p, g, arrays, beta1, beta2, root,
                lr * (1.0 - mu) / (1.0 - product), lr * mu_next / (1.0 - product * mu_next), group["eps"] * root,
                0.0 if decoupled else decay, 1.0 - lr * decay if decoupled else 1.0, group["maximize"],
            )  # fmt: skip


def _radam(
    axpy: Any, p: Any, g: Any, m: Any, v: Any, s: Any, t: Any, beta1: float, beta2: float, step: float, eps: float,
    rectified: bool, l2: float, shrink: float, maximize: bool,
) -> None:  # fmt: skip
    g = decayed(axpy, p, g, t, l2, maximize)
    if shrink != 1.0:
        np.multiply(p, shrink, p)
    _averages(axpy, g, m, v, s, beta1, beta2)
    if rectified:
        np.sqrt(v, s)
        np.add(s, eps, s)
        np.divide(m, s, s)
        axpy(s, p, a=-step)
    else:
        axpy(m, p, a=-step)


class RAdam(_Moments):
    """Adam with the variance of its adaptive rate rectified (Liu et al. 2020); it needs no warm-up.

    Arguments as in `Adam`; `decoupled_weight_decay` as in `AdamW`.

    Raises:
        ValueError: an argument is out of range, or there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> opt = optim.RAdam([w], lr=0.25)
    >>> w.grad = cf.tensor([3.0])
    >>> opt.step()
    >>> round(w.item(), 4)
    0.25
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        check_at_least("RAdam", lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas("RAdam", betas)
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def update_group(self, group: dict[str, Any]) -> None:
        """One step for the parameters of a group."""
        lr, (beta1, beta2), decay = float(group["lr"]), group["betas"], group["weight_decay"]
        decoupled = group["decoupled_weight_decay"]
        longest = 2.0 / (1.0 - beta2) - 1.0
        for p, g in gradients(group, "RAdam"):
            state, arrays = self._state_of(p, self._state_names)
            step = state["step"]
            c2 = 1.0 - beta2**step
            size = lr / (1.0 - beta1**step)
            length = longest - 2.0 * step * beta2**step / c2
            if length > 5.0:
                size *= math.sqrt(
                    c2 * (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                )
            run(
                self._scratch, _radam, p, g, arrays, beta1, beta2, size, group["eps"], length > 5.0,
                0.0 if decoupled else decay, 1.0 - lr * decay if decoupled else 1.0, group["maximize"],
            )  # fmt: skip
