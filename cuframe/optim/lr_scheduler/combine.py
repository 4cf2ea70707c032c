"""Several schedules on one optimizer, one after the other or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler
from .plateau import ReduceLROnPlateau

__all__ = ["ChainedScheduler", "SequentialLR"]


def _check(name: str, optimizer: Any, schedulers: Sequence[LRScheduler]) -> None:
    if not schedulers:
        raise ValueError(f"{name}: got no schedulers")
    for i, s in enumerate(schedulers):
        if not isinstance(s, LRScheduler):
            raise TypeError(f"{name}: schedulers[{i}] must be an LRScheduler, got {type(s).__name__}")
        if isinstance(s, ReduceLROnPlateau):
            raise ValueError(f"{name}: schedulers[{i}] is a ReduceLROnPlateau, whose step needs a measure")
        if s.optimizer is not optimizer:
            raise ValueError(f"{name}: schedulers[{i}] belongs to another optimizer")


class _Several(LRScheduler):
    _schedulers: list[LRScheduler]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the states of the schedules."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "_schedulers")}
        state["_schedulers"] = [s.state_dict() for s in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        state = dict(state_dict)
        for s, saved in zip(self._schedulers, state.pop("_schedulers")):
            s.load_state_dict(saved)
        self.__dict__.update(state)


class SequentialLR(_Several):
    """One schedule until a milestone, then the next, each beginning at its own epoch 0.

    Args:
        optimizer: whose groups are scheduled.
        schedulers: two or more schedules of that optimizer.
        milestones: the epochs at which the second, the third and so on take over.
        last_epoch: see `LRScheduler`.

    Raises:
        ValueError: the milestones do not fit the schedules, or one belongs to another optimizer.

    >>> from cuframe import nn, optim
    >>> opt = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    >>> warm_up = optim.lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=2)
    >>> fall = optim.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> schedule = optim.lr_scheduler.SequentialLR(opt, [warm_up, fall], milestones=[3])
    >>> rates = []
    >>> for _ in range(6):
    ...     rates.append(opt.param_groups[0]["lr"])
    ...     opt.step()
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 1.0, 0.5, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ) -> None:
        _check("SequentialLR", optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedulers need {len(schedulers) - 1} milestone(s), "
                f"got {len(milestones)}"
            )
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # Each schedule took its first step when it was made; undo these, and take that of the first alone.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for s in self._schedulers:
            s.last_epoch -= 1
        self._schedulers[0]._begin()
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch.

        Raises:
            ValueError: an epoch is given, which the schedules together cannot jump to.
        """
        if epoch is not None:
            raise ValueError(f"SequentialLR: cannot jump to an epoch, got {epoch}")
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        present = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            present.step(0)
        else:
            present.step()
        self._last_lr = present.get_last_lr()


class ChainedScheduler(_Several):
    """Several schedules at once: each changes the rate that the one before left.

    Args:
        schedulers: schedules of one optimizer.
        optimizer: that optimizer, by default that of the first.

    Raises:
        ValueError: there are none, or one belongs to another optimizer.

    >>> from cuframe import nn, optim
    >>> opt = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    >>> hold = optim.lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=2)
    >>> fall = optim.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> schedule = optim.lr_scheduler.ChainedScheduler([hold, fall])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(opt.param_groups[0]["lr"])
    ...     opt.step()
    ...     schedule.step()
    >>> rates
    [0.5, 0.25, 0.25, 0.125]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler: got no schedulers")
        optimizer = optimizer or schedulers[0].optimizer
        _check("ChainedScheduler", optimizer, schedulers)
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        self._last_lr = self._present()

    def step(self, epoch: int | None = None) -> None:
        """Take a step of every schedule.

        Raises:
            ValueError: an epoch is given.
        """
        if epoch is not None:
            raise ValueError(f"ChainedScheduler: cannot jump to an epoch, got {epoch}")
        for s in self._schedulers:
            s.step()
        self._last_lr = self._present()
