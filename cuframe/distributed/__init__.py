"""Processes that train together: groups of ranks, collectives on Tensors, and the store they meet in.

A script calls `init_process_group()` and runs unchanged under `cuframe run`, `torchrun`, `mpirun` and `srun`, or alone.
"""

# ruff: noqa: F403, F405  (names for type checkers)

from __future__ import annotations

from importlib import import_module as _import

TYPE_CHECKING = False  # `typing` takes a tenth of the launcher's start
if TYPE_CHECKING:
    from typing import Any

    from .collectives import *
    from .errors import *
    from .group import *
    from .process_group import *
    from .status import *
    from .store import *

__all__ = [
    "NON_GROUP_MEMBER", "DistributedError", "DistributedTimeout", "P2POp", "ProcessGroup", "ReduceOp", "Store",
    "Work", "all_gather", "all_gather_into_tensor", "all_reduce", "all_to_all", "all_to_all_single", "barrier",
    "batch_isend_irecv", "broadcast", "broadcast_object", "destroy_process_group", "gather", "get_backend",
    "get_global_rank", "get_group_rank", "get_local_rank", "get_process_group_ranks", "get_rank", "get_world_size",
    "init_process_group", "irecv", "is_initialized", "isend", "mark_step", "new_group", "recv", "reduce",
    "reduce_scatter", "reduce_scatter_tensor", "scatter", "send", "shared_empty",
]  # fmt: skip

# The launcher, which is in this package as well, needs none of these and starts sooner without.
_MODULES = ("collectives", "errors", "group", "process_group", "status", "store")


def __getattr__(name: str) -> Any:
    if name == "checkpoint":
        return _import(f"{__name__}.checkpoint")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in _MODULES:
        found = _import(f"{__name__}.{module}")
        globals().update({n: getattr(found, n) for n in found.__all__ if n in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "checkpoint"})
