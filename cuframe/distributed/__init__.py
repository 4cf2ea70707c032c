"""Processes that train together: groups of ranks, collectives on Tensors, and the store they meet in.

A script calls `init_process_group()` and runs unchanged under `cuframe run`, `torchrun`, `mpirun` and `srun`, or alone.
"""

from .collectives import (
    all_gather,
    all_gather_into_tensor,
    all_reduce,
    all_to_all,
    all_to_all_single,
    barrier,
    broadcast,
    broadcast_object,
    gather,
    irecv,
    isend,
    recv,
    reduce_scatter,
    reduce_scatter_tensor,
    scatter,
    send,
    shared_empty,
)
from .errors import DistributedError, DistributedTimeout
from .group import (
    NON_GROUP_MEMBER,
    destroy_process_group,
    get_backend,
    get_global_rank,
    get_group_rank,
    get_local_rank,
    get_process_group_ranks,
    get_rank,
    get_world_size,
    init_process_group,
    is_initialized,
    new_group,
)
from .process_group import ProcessGroup, ReduceOp, Work
from .status import mark_step
from .store import Store

__all__ = [
    "NON_GROUP_MEMBER", "DistributedError", "DistributedTimeout", "ProcessGroup", "ReduceOp", "Store", "Work",
    "all_gather", "all_gather_into_tensor", "all_reduce", "all_to_all", "all_to_all_single", "barrier", "broadcast",
    "broadcast_object", "destroy_process_group", "gather", "get_backend", "get_global_rank", "get_group_rank",
    "get_local_rank", "get_process_group_ranks", "get_rank", "get_world_size", "init_process_group", "irecv",
    "is_initialized", "isend", "mark_step", "new_group", "recv", "reduce_scatter", "reduce_scatter_tensor", "scatter",
    "send", "shared_empty",
]  # fmt: skip
