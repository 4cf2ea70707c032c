"""The job's process group: joining it, leaving it, and parts of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from . import status
from .environment import job_token, read_environment
from .errors import DistributedError, name_ranks
from .nccl_device import driver_present
from .process_group import ProcessGroup, SingleGroup
from .shm import SharedMemoryGroup
from .store import Store, StoreServer, seconds

__all__ = [
    "NON_GROUP_MEMBER", "destroy_process_group", "get_backend", "get_global_rank", "get_group_rank", "get_local_rank",
    "get_process_group_ranks", "get_rank", "get_world_size", "init_process_group", "is_initialized", "new_group",
    "resolve",
]  # fmt: skip

BACKENDS = ("nccl", "shm", "mpi")


@dataclass
class _World:
    """What this process has joined."""

    group: ProcessGroup
    rank: int
    local_rank: int
    store: Store | None
    server: StoreServer | None
    made: int = 0
    parts: list[ProcessGroup] = field(default_factory=list)


_world: _World | None = None
_joins = itertools.count()


class _NotAMember:
    """What `new_group` returns to ranks that are not in the group."""

    def __repr__(self) -> str:
        return "NON_GROUP_MEMBER"


NON_GROUP_MEMBER = _NotAMember()


def init_process_group(
    backend: str | None = None,
    timeout: float | timedelta = 60.0,
    world_size: int = -1,
    rank: int = -1,
    store: Store | None = None,
) -> None:
    """Join the job that this process was started for.

    Reads what `cuframe run`, `torchrun`, `mpirun` or `srun` left in the environment; started by none of them, the job
    is this process alone, and neither store nor memory is made.

    Args:
        backend: `"nccl"` (ranks with a GPU each), `"shm"` (ranks on one host) or `"mpi"` (started by mpirun; needs
            mpi4py). None: `nccl` where every rank has a GPU of its own; else `shm`, with a warning where there are
            GPUs, but fewer than ranks.
        timeout: seconds, or a timedelta: waiting longer than this for another rank is an error that names it.
        world_size, rank: in the place of the environment's.
        store: to meet in, in the place of the one at MASTER_ADDR and MASTER_PORT.

    Raises:
        RuntimeError: this process has joined already.
        ValueError: an unknown backend, or variables that make no sense.
        DistributedError: the others cannot be reached; the message names who is missing, or what is in the way. Or no
            backend was named, and none fits.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group(timeout=30)
    >>> dist.is_initialized(), dist.get_world_size()
    (True, 1)
    >>> dist.destroy_process_group()
    """
    global _world
    if _world is not None:
        raise RuntimeError("init_process_group: this process has joined its group already")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"init_process_group: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    patience = seconds(timeout)
    job = read_environment(os.environ, None if rank < 0 else rank, None if world_size < 0 else world_size)
    status.attach()
    if backend == "mpi":
        from .mpi import MpiGroup

        _world = _World(MpiGroup.of_world(job.rank, job.world_size, patience), job.rank, job.local_rank, None, None)
        return
    if job.world_size == 1:
        _world = _World(SingleGroup((0,), patience), 0, job.local_rank, store, None)
        return
    server = None
    own = store is None
    try:
        if store is None:
            token = job_token(os.environ, job.host, job.port)
            if job.hosts_store:
                server = StoreServer(job.host, job.port, token)
                server.start()
            # what an earlier group of these processes has left in the launcher's store is not this one's
            prefix = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_joins)}/"
            store = Store(job.host, job.port, token, patience, prefix)
            store.register(job.rank, f"pid {os.getpid()}, host {socket.gethostname()}")
        ranks = tuple(range(job.world_size))
        if backend is None:
            backend = _fitting(store, ranks, job.rank, job.local_rank, patience)
        group = _make(backend, store, "world", ranks, job.rank, job.local_rank, patience)
    except BaseException:
        if own and store is not None:
            store.close()
        if server is not None:
            server.close()
        raise
    _world = _World(group, job.rank, job.local_rank, store, server)


def _make(
    backend: str, store: Store, name: str, ranks: tuple[int, ...], rank: int, local_rank: int, timeout: float
) -> ProcessGroup:
    if backend == "nccl":
        from .nccl import CudaDevice, NcclGroup

        return NcclGroup(store, name, ranks, rank, timeout, CudaDevice.of_rank(local_rank))
    return SharedMemoryGroup(store, name, ranks, rank, timeout)


def _fitting(store: Store, ranks: tuple[int, ...], rank: int, local_rank: int, timeout: float) -> str:
    """`nccl` if every rank has a GPU of its own, `shm` otherwise; where some have one, a warning names the others."""
    gpu, shared = "", False
    if driver_present():
        from . import nccl

        shared = nccl._shared_gpus()
        with contextlib.suppress(RuntimeError, ValueError):  # CuPy is not installed, or there is no GPU for this rank
            gpu = nccl.CudaDevice.of_rank(local_rank).identity()
    mine = json.dumps([socket.gethostname(), gpu, shared]).encode()
    hosts, gpus, sharing = zip(*map(json.loads, store.gather("backend", rank, ranks, mine, timeout)))
    without = [r for r in ranks if not gpus[r] or gpus[r] in gpus[:r] and not all(sharing)]
    if not without:
        return "nccl"
    who = name_ranks(without)
    if len(set(hosts)) > 1:
        raise DistributedError(
            f"init_process_group: there is no GPU for {who}, as 'nccl' needs, and 'shm' connects ranks of one host "
            "only; without GPUs start the script by mpirun or srun and name the backend 'mpi'"
        )
    if rank == 0 and any(gpus):
        warnings.warn(
            f"init_process_group: there is no GPU for {who}, so all communicate through host memory ('shm'); start one "
            "process a GPU (cuframe run --nproc-per-node gpu), or name the backend",
            stacklevel=3,
        )
    return "shm"


def joined(name: str) -> _World:
    """What this process has joined.

    Raises:
        RuntimeError: nothing.
    """
    if _world is None:
        raise RuntimeError(f"{name}: call cuframe.distributed.init_process_group() first")
    return _world


def resolve(name: str, group: Any) -> ProcessGroup:
    """The group a function is to work in: `group`, or that of the whole job."""
    if group is None:
        return joined(name).group
    if isinstance(group, ProcessGroup):
        return group
    if isinstance(group, _NotAMember):
        raise ValueError(f"{name}: rank {joined(name).rank} is not a member of this group")
    raise TypeError(f"{name}: group must be a ProcessGroup or None, got {type(group).__name__}")


def is_initialized() -> bool:
    """True between `init_process_group` and `destroy_process_group`.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.is_initialized()
    True
    >>> dist.destroy_process_group()
    """
    return _world is not None


def get_rank(group: ProcessGroup | None = None) -> int:
    """This process's rank in `group` (default: the job); -1 if it is not a member.

    Raises:
        RuntimeError: this process has joined no job.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.get_rank()
    0
    >>> dist.destroy_process_group()
    """
    return -1 if isinstance(group, _NotAMember) else resolve("get_rank", group).rank


def get_world_size(group: ProcessGroup | None = None) -> int:
    """How many ranks `group` (default: the job) has; -1 if this process is not a member.

    Raises:
        RuntimeError: this process has joined no job.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.get_world_size()
    1
    >>> dist.destroy_process_group()
    """
    return -1 if isinstance(group, _NotAMember) else resolve("get_world_size", group).size


def get_local_rank() -> int:
    """This process's number among those of its host.

    Raises:
        RuntimeError: this process has joined no job.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.get_local_rank()
    0
    >>> dist.destroy_process_group()
    """
    return joined("get_local_rank").local_rank


def get_backend(group: ProcessGroup | None = None) -> str:
    """The name of the group's backend: `"nccl"`, `"shm"`, `"mpi"`, or `"single"` for one process.

    Raises:
        RuntimeError: this process has joined no job.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.get_backend()
    'single'
    >>> dist.destroy_process_group()
    """
    return resolve("get_backend", group).backend


def get_process_group_ranks(group: ProcessGroup | None = None) -> list[int]:
    """The members' ranks in the job.

    Raises:
        RuntimeError: this process has joined no job.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.get_process_group_ranks()
    [0]
    >>> dist.destroy_process_group()
    """
    return list(resolve("get_process_group_ranks", group).ranks)


def get_group_rank(group: ProcessGroup, global_rank: int) -> int:
    """The rank within `group` of a rank of the job.

    Raises:
        ValueError: it is no member.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.get_group_rank(dist.new_group([0]), 0)
    0
    >>> dist.destroy_process_group()
    """
    return member("get_group_rank", resolve("get_group_rank", group), global_rank)


def get_global_rank(group: ProcessGroup, group_rank: int) -> int:
    """The rank in the job of a rank within `group`.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.get_global_rank(dist.new_group([0]), 0)
    0
    >>> dist.destroy_process_group()
    """
    found = resolve("get_global_rank", group)
    if not 0 <= group_rank < found.size:
        raise ValueError(f"get_global_rank: group_rank must be from 0 to {found.size - 1}, got {group_rank}")
    return found.ranks[group_rank]


def member(name: str, group: ProcessGroup, rank: int, argument: str = "rank") -> int:
    """The place in `group` of a rank of the job."""
    if rank not in group.ranks:
        raise ValueError(f"{name}: {argument} must be one of the group's ranks {list(group.ranks)}, got {rank!r}")
    return group.ranks.index(rank)


def new_group(
    ranks: Sequence[int] | None = None, timeout: float | timedelta | None = None, backend: str | None = None
) -> Any:
    """A group of some of the job's ranks; all ranks of the job must call it, in the same order of groups.

    Args:
        ranks: of the job, None for all.
        timeout: by default the job's.
        backend: by default the job's.

    Returns:
        The ProcessGroup; to ranks that are no members NON_GROUP_MEMBER, whose `get_rank` is -1.

    Raises:
        ValueError: `ranks` is empty, or names a rank twice or one that does not exist.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()
    >>> dist.get_world_size(dist.new_group([0]))
    1
    >>> dist.destroy_process_group()
    """
    world = joined("new_group")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"new_group: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    chosen = world.group.ranks if ranks is None else tuple(sorted(int(r) for r in ranks))
    unknown = [r for r in chosen if not 0 <= r < world.group.size]
    if not chosen or unknown or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"new_group: ranks must be different ranks from 0 to {world.group.size - 1}, got {list(ranks or ())}"
        )
    patience = world.group.timeout if timeout is None else seconds(timeout)
    world.made += 1
    if world.rank not in chosen:
        return NON_GROUP_MEMBER
    group: ProcessGroup
    backend = backend or world.group.backend
    if len(chosen) == 1:
        group = SingleGroup(chosen, patience)
    elif "mpi" in (backend, world.group.backend):
        if backend != world.group.backend:
            raise ValueError(f"new_group: a job of backend {world.group.backend!r} has no groups of {backend!r}")
        group = world.group.part(chosen, world.made, patience)  # type: ignore[attr-defined]
    elif world.store is None:
        raise DistributedError("new_group: the job has no store")
    else:
        group = _make(backend, world.store, f"group{world.made}", chosen, world.rank, world.local_rank, patience)
    world.parts.append(group)
    return group


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Leave `group`, or the job and all its groups; does nothing where nothing was joined.

    What was queued is finished first. Ranks that still wait for this one in a collective are told that it left.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()
    >>> dist.destroy_process_group()
    >>> dist.is_initialized()
    False
    """
    global _world
    world = _world
    if world is None or isinstance(group, _NotAMember):
        return
    if group is not None and group is not world.group:
        group.close()
        if group in world.parts:
            world.parts.remove(group)
        return
    _world = None
    for part in world.parts:
        part.close()
    world.group.close()
    if world.store is not None:
        if world.group.size > 1:
            _leave_store(world, world.store)
        world.store.close()
    if world.server is not None:
        world.server.close()


def _leave_store(world: _World, store: Store) -> None:
    """Where rank 0 hosts the store, it stays until the others need it no more, for ten seconds at most."""
    with contextlib.suppress(DistributedError):  # that others have gone is no reason to fail now
        if world.server is None:
            store.set(f"left/{world.rank}", b"")
        else:
            store.gather("left", world.rank, world.group.ranks, b"", 10.0)
