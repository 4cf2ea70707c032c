"""Checkpoints of a job: one rank writes, all ranks read the same.

A training script that begins with `load` where a checkpoint is there resumes by itself when `cuframe run
--max-restarts` starts it again; `of_this_job` tells such a checkpoint from one that an older run has left. The file is
what `cuframe.save` writes, so `cuframe.load` reads it in a process that is alone, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..backend import Device
from ..serialization import CheckpointError, read_metadata
from ..serialization import load as _load
from ..serialization import save as _save
from ..tensor import Tensor
from .collectives import broadcast_object
from .group import resolve

__all__ = ["exists", "load", "of_this_job", "save"]

_RUN, _ATTEMPT = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"  # of cuframe run and torchrun


def _at_first(name: str, group: Any, job: Callable[[], Any], hand_out: bool) -> Any:
    """Run `job()` on the group's first rank; its error is raised on all, its result returned on all if `hand_out`."""
    found = resolve(name, group)
    result: Any = None
    news: Any = None
    failed: Exception | None = None
    if found.rank == 0:
        try:
            result = job()
        except (OSError, CheckpointError) as error:
            failed = error
            news = [error.errno, error.strerror, error.filename] if isinstance(error, OSError) else str(error)
    news, shared = broadcast_object((news, result if hand_out else None), found.ranks[0], found)
    if failed is not None:
        raise failed
    if isinstance(news, list):
        raise OSError(news[0], news[1], news[2])
    if news is not None:
        raise CheckpointError(news)
    return result if found.rank == 0 else shared


def save(state: Any, path: str | os.PathLike[str], group: Any = None) -> None:
    """Write `state` of the first rank, atomically; returns on every rank once it is on the disk.

    Args:
        state: what `cuframe.save` takes; that of the other ranks is not looked at.
        path: of the file, on the first rank's host.
        group: the ranks that take part, by default all.

    Raises:
        OSError: on every rank; the file is as it was before.
        CheckpointError: on every rank; the state holds something that cannot be saved.

    >>> import cuframe as cf, cuframe.distributed as dist, tempfile
    >>> from cuframe.distributed import checkpoint
    >>> dist.init_process_group()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save({"step": 3, "w": cf.ones(2)}, f"{folder}/c.safetensors")
    ...     checkpoint.load(f"{folder}/c.safetensors")
    {'step': 3, 'w': tensor([1., 1.])}
    >>> dist.destroy_process_group()
    """
    metadata = {"run": os.environ.get(_RUN, "")}
    _at_first("checkpoint.save", group, lambda: _save(state, path, metadata), False)


def load(path: str | os.PathLike[str], device: Any = None, group: Any = None) -> Any:
    """The state in a file that the first rank reads and hands out, so that all have the same.

    Args:
        path: of the file, on the first rank's host; the others need not see it.
        device: where tensors go; by default to the CPU.
        group: the ranks that take part, by default all.

    Returns:
        What was saved; each rank has its own copy.

    Raises:
        OSError, CheckpointError: on every rank; the file cannot be read.

    >>> import cuframe as cf, cuframe.distributed as dist, tempfile
    >>> from cuframe.distributed import checkpoint
    >>> dist.init_process_group()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save({"epoch": 3}, f"{folder}/c.safetensors")
    ...     checkpoint.load(f"{folder}/c.safetensors")
    {'epoch': 3}
    >>> dist.destroy_process_group()
    """
    state = _at_first("checkpoint.load", group, lambda: _load(path), True)
    return state if device is None else _moved(state, Device(device))


def exists(path: str | os.PathLike[str], group: Any = None) -> bool:
    """Whether the first rank sees the file: the same answer on every rank, also while one is being written.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> from cuframe.distributed import checkpoint
    >>> dist.init_process_group()
    >>> checkpoint.exists("no/such/file")
    False
    >>> dist.destroy_process_group()
    """
    return _at_first("checkpoint.exists", group, lambda: os.path.exists(path), True)


def of_this_job(path: str | os.PathLike[str], group: Any = None) -> bool:
    """Whether the job was started again and an earlier attempt of it has saved the file: the same on every rank.

    A script that loads then, and otherwise starts anew, never takes an older run's file for its own.

    >>> import cuframe.distributed as dist
    >>> from cuframe.distributed import checkpoint
    >>> dist.init_process_group()
    >>> checkpoint.of_this_job("model.safetensors")  # nobody started this process again
    False
    >>> dist.destroy_process_group()
    """

    def look() -> bool:
        again = os.environ.get(_ATTEMPT, "0") != "0" and os.path.exists(path)
        return again and read_metadata(path).get("run") == os.environ.get(_RUN)

    return _at_first("checkpoint.of_this_job", group, look, True)


def _moved(thing: Any, device: Device) -> Any:
    if isinstance(thing, Tensor):
        return thing.to(device)  # type: ignore[attr-defined]
    if isinstance(thing, (list, tuple)):
        return type(thing)(_moved(x, device) for x in thing)
    if isinstance(thing, dict):
        return {k: _moved(v, device) for k, v in thing.items()}
    return thing
