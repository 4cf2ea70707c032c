"""Uneven inputs: ranks that have run out take part in the collectives of those that have not.

Note [Rounds]
    Each forward under `join()` begins with a round: every rank, also one whose inputs have ended, tells whether it has
    input, whether its backward will average gradients, and whether it hands out buffers. So all know what comes, and
    the rank without input shadows it with zeros. The last round has nobody with input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...distributed.errors import name_ranks
from .agreement import broadcast_tensors, gather_rows

if TYPE_CHECKING:
    from .ddp import DistributedDataParallel

__all__ = ["Join"]


class Join:
    """The context that `DistributedDataParallel.join` returns."""

    def __init__(self, model: DistributedDataParallel, by_all: bool, enable: bool, throw: bool) -> None:
        self._model = model
        self._by_all = by_all
        self._enable = enable
        self._throw = throw
        self._root = 0  # the first rank that had input in the last round
        self._uneven = False

    def __enter__(self) -> Join:
        if self._enable:
            self._model._joining = self
        return self

    def round(self, active: bool, sync: bool, buffers: bool) -> tuple[bool, bool] | None:
        """Tell the others, and learn whether gradients and buffers are exchanged now; None if nobody has input.

        Raises:
            RuntimeError: a rank has no input, and that is not allowed.
        """
        model = self._model
        row = np.array([active, sync, buffers], np.int64)
        rows = gather_rows(row, model.process_group, model._like)
        present = np.flatnonzero(rows[:, 0])
        if not present.size:
            return None
        if present.size < len(rows):
            self._uneven = True
            if self._throw:
                gone = name_ranks(model.process_group.ranks[r] for r in np.flatnonzero(rows[:, 0] == 0))
                raise RuntimeError(f"join: {gone} ran out of inputs before the others (throw_on_early_termination)")
        self._root = int(present[0])
        model._reducer.divisor = 0 if self._by_all else int(present.size)
        return bool(rows[self._root, 1]), bool(rows[self._root, 2])

    @property
    def root(self) -> int:
        """The rank of the group whose buffers count."""
        return self._root

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        model = self._model
        if not self._enable:
            return
        try:
            if kind is not None:
                return
            while (what := self.round(False, False, False)) is not None:
                sync, buffers = what
                if buffers:
                    broadcast_tensors(model._buffers_to_share(), self._root, model.process_group)
                if sync:
                    model._reducer.shadow()
            if self._uneven:
                everything = [*model.module.parameters(), *model._buffers_to_share()]
                broadcast_tensors(everything, self._root, model.process_group)
        finally:
            model._joining = None
            model._reducer.divisor = 0
            model.require_forward_param_sync = True  # the same on all ranks, whatever each did last
