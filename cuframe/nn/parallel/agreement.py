"""What ranks compare and hand over before they train: parameters, buffers, small arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...autograd import versions
from ...backend import backend_of
from ...distributed import ProcessGroup, ReduceOp
from ...distributed.collectives import all_gather_into_tensor, all_reduce, broadcast
from ...tensor import Tensor

__all__ = ["all_max", "broadcast_array", "broadcast_tensors", "gather_rows", "verify_parameters"]


def _beside(array: np.ndarray, group: ProcessGroup, like: Tensor) -> Tensor:
    """`array` where the group can use it: in host memory, or beside `like`."""
    return Tensor(array if group.host else backend_of(like.array).asarray(array, like.array))


def all_max(array: np.ndarray, group: ProcessGroup, like: Tensor) -> np.ndarray:
    """The largest of the ranks' values."""
    shared = _beside(array, group, like)
    all_reduce(shared, ReduceOp.MAX, group)
    return shared.numpy(force=True)


def broadcast_array(array: np.ndarray, root: int, group: ProcessGroup, like: Tensor) -> np.ndarray:
    """The array of the rank that is `root` within the group."""
    shared = _beside(array, group, like)
    broadcast(shared, group.ranks[root], group)
    return shared.numpy(force=True)


def gather_rows(row: np.ndarray, group: ProcessGroup, like: Tensor) -> np.ndarray:
    """The ranks' rows: [size, len(row)]."""
    rows = _beside(np.empty((group.size, row.size), row.dtype), group, like)
    all_gather_into_tensor(rows, _beside(row, group, like), group)
    return rows.numpy(force=True)


def broadcast_tensors(tensors: Sequence[Tensor], root: int, group: ProcessGroup) -> None:
    """Replace the values of tensors by those of a rank of the group, those of one dtype and device together."""
    together: dict[Any, list[Tensor]] = {}
    for t in tensors:
        together.setdefault((t.dtype, t.device), []).append(t)
    for some in together.values():
        xp = backend_of(some[0].array).xp
        flat = Tensor(xp.concatenate([t.array.reshape(-1) for t in some]))
        broadcast(flat, group.ranks[root], group)
        if group.rank == root:
            continue
        at = 0
        for t in some:
            end = at + t.array.size
            t.array[...] = flat.array[at:end].reshape(t.array.shape)
            versions.written(t.array, "the broadcast of DistributedDataParallel")
            at = end


def verify_parameters(named: Sequence[tuple[str, Tensor]], group: ProcessGroup) -> None:
    """Raise on every rank unless names, shapes, dtypes and order are the same on all.

    Raises:
        RuntimeError: names the first parameter that differs, and the rank.
    """
    if group.size == 1:
        return
    like = named[0][1]
    mine = [[name, t.dtype.name, list(t.array.shape)] for name, t in named]
    data = np.frombuffer(json.dumps(mine).encode(), np.uint8)
    digest = np.frombuffer(hashlib.sha256(data.tobytes()).digest(), np.uint8)
    row = np.concatenate([digest, np.array([data.size], np.int64).view(np.uint8)])
    rows = gather_rows(row, group, like)
    if (rows == rows[0]).all():
        return
    sizes = rows[:, digest.size :].copy().view(np.int64)[:, 0]
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: data.size] = data
    texts = gather_rows(padded, group, like)
    lists = [json.loads(text[:size].tobytes()) for text, size in zip(texts, sizes)]
    for rank, theirs in zip(group.ranks, lists):
        for i in range(max(len(theirs), len(lists[0]))):
            a, b = (x[i] if i < len(x) else None for x in (lists[0], theirs))
            if a != b:
                raise RuntimeError(
                    f"DistributedDataParallel: the ranks' parameters differ: number {i} is {_described(a)} on rank "
                    f"{group.ranks[0]}, and {_described(b)} on rank {rank}"
                )


def _described(entry: list | None) -> str:
    return "none" if entry is None else f"{entry[0]!r} ({entry[1]} {tuple(entry[2])})"
