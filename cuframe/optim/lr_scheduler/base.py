"""LRScheduler: what all schedules share.

Note [Chained and closed forms]
    `get_lr` derives the next rate from the present one, so that several schedules on one optimizer multiply, and a
    rate changed by hand is kept. `step(epoch)` and resuming need the rate of an epoch by itself; schedules that know
    it define `_closed_lrs`.
"""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any

from ..optimizer import Optimizer

__all__ = ["LRScheduler", "need_numbers", "per_group"]


def per_group(name: str, argument: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value for each parameter group, from a list or one for all."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"{name}: {argument} must have one entry for each of {groups} group(s), got {len(value)}")
    return list(value)


def need_numbers(name: str, **values: Any) -> None:
    """Raise TypeError unless all are numbers."""
    for argument, value in values.items():
        if not isinstance(value, Real):
            raise TypeError(f"{name}: {argument} must be a number, got {type(value).__name__}")


def need_optimizer(name: str, optimizer: Any) -> None:
    """Raise TypeError unless it is an Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name}: optimizer must be an Optimizer, got {type(optimizer).__name__}")


class LRScheduler:
    """The base of all schedules. A subclass defines `get_lr`, from `self.last_epoch`, `self.base_lrs` and the groups.

    Args:
        optimizer: whose groups are scheduled.
        last_epoch: the epoch that was completed last, when resuming; -1 at the beginning.

    Attributes:
        base_lrs: the rates of the groups at the beginning.
        last_epoch: how many steps were taken.

    Raises:
        TypeError: it is given something else than an Optimizer.
        KeyError: `last_epoch` says that training goes on, and the groups do not hold their first rates.

    >>> from cuframe import nn, optim
    >>> class Inverse(optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [base / (1 + self.last_epoch) for base in self.base_lrs]
    >>> opt = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    >>> schedule = Inverse(opt)
    >>> opt.step(); schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        need_optimizer(name, optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{name}: with last_epoch={last_epoch} every parameter group needs 'initial_lr', group {i} has none"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._begin()

    def _begin(self) -> None:
        self._step_count = 0
        self.step()

    def get_lr(self) -> list[float]:
        """The rates of the groups at `self.last_epoch`; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__}: get_lr is not defined")

    def get_last_lr(self) -> list[float]:
        """The rates that the last step set."""
        return self._last_lr

    def _present(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch, after the optimizer's steps in it; or to a given one."""
        if self._step_count == 1 and not self.optimizer._steps_taken:
            warnings.warn(
                f"{type(self).__name__}.step() came before the first optimizer.step(): the first rate of the schedule "
                "is skipped; call optimizer.step() first",
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_closed_lrs", None)
            rates = self.get_lr() if closed is None else closed()
        self._set(rates)

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates):
            group["lr"] = rate
        self._last_lr = self._present()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; the optimizer's own state holds the rates."""
        self.__dict__.update(state_dict)
