"""What the sources that `tests.ranks` runs have in common; this runs in the ranks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import cuframe as cf
import cuframe.distributed as dist
from cuframe import nn

UFUNC = {"sum": np.add, "avg": np.add, "min": np.minimum, "max": np.maximum, "product": np.multiply}


def values(rank: int, shape: tuple, dtype: Any, seed: int = 0) -> np.ndarray:
    """A rank's numbers, which every rank can make."""
    r = np.random.default_rng(1000 * seed + rank)
    x = np.asarray(r.standard_normal(shape) * 4 + 1)
    return (x + 1j * x[::-1] if np.dtype(dtype).kind == "c" and x.ndim else x).astype(dtype)


def tensor(rank: int, shape: tuple, dtype: Any, seed: int = 0) -> cf.Tensor:
    return cf.Tensor(values(rank, shape, dtype, seed))


def floats(seed: int, *shape: int) -> cf.Tensor:
    return cf.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def expect(kind: type[Exception], text: str, function: Callable[[], Any]) -> None:
    """`function` must raise; the message is printed."""
    try:
        function()
    except kind as error:
        assert re.search(text, str(error)), str(error)
        print(str(error))
    else:
        raise AssertionError("went well")


# -- models -------------------------------------------------------------------------------------------------------
def same_bits(model: nn.Module) -> None:
    """All ranks have the parameters and gradients of rank 0."""
    gradients = [(f"{name}.grad", p.grad) for name, p in model.named_parameters() if p.grad is not None]
    parts = [(name, t.detach().array.tobytes()) for name, t in [*model.named_parameters(), *gradients]]
    mine = np.frombuffer(b"".join(data for _, data in parts), np.uint8)  # one broadcast: each is a turn of all ranks
    other = cf.tensor(mine.copy())
    dist.broadcast(other, 0)
    ends = np.cumsum([len(data) for _, data in parts])
    differs = np.searchsorted(ends, np.flatnonzero(other.array != mine), side="right")
    assert not differs.size, sorted({parts[i][0] for i in differs})


def close(a: cf.Tensor, b: cf.Tensor, tolerance: float = 1e-6, what: Any = "") -> None:
    difference = np.abs(a.detach().array.astype(np.float64) - b.detach().array).max()
    assert difference <= tolerance, (what, difference)


def close_gradients(model: nn.Module, whole: nn.Module, tolerance: float = 1e-6) -> None:
    """The gradients of a wrapped model are those of `whole`, which has seen the batches of all ranks."""
    pairs = list(zip(model.module.named_parameters(), whole.parameters()))
    assert pairs
    for (name, p), q in pairs:
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            close(p.grad, q.grad, tolerance, name)


# -- every backend ------------------------------------------------------------------------------------------------
def check_lists(rank: int, size: int, shape: tuple, dtype: Any, seed: int, roots: Sequence[int]) -> None:
    """broadcast, gather and scatter with these roots; all_gather and all_to_all."""
    everyone = [values(r, shape, dtype, seed) for r in range(size)]

    def mine() -> cf.Tensor:
        return tensor(rank, shape, dtype, seed)

    def room() -> list[cf.Tensor]:
        return [cf.Tensor(np.zeros(shape, dtype)) for _ in range(size)]

    for root in roots:
        x = mine()
        dist.broadcast(x, root)
        assert np.array_equal(x.array, everyone[root])
        outs = room() if rank == root else None
        dist.gather(mine(), outs, root)
        assert outs is None or all(np.array_equal(o.array, e) for o, e in zip(outs, everyone))
        x = room()[0]
        dist.scatter(x, [cf.Tensor(e) for e in everyone] if rank == root else None, root)
        assert np.array_equal(x.array, everyone[rank])
    outs = room()
    dist.all_gather(outs, mine())
    assert all(np.array_equal(o.array, e) for o, e in zip(outs, everyone))
    dist.all_to_all(outs, [tensor(rank + 100 * r, shape, dtype, seed) for r in range(size)])
    assert all(np.array_equal(o.array, values(r + 100 * rank, shape, dtype, seed)) for r, o in enumerate(outs))


def check_layouts_and_handles(rank: int, size: int) -> None:
    """Columns of larger arrays, one tensor instead of lists, and handles."""
    whole = np.full((2000, 6), float(rank))  # whose other columns stay
    dist.all_reduce(cf.Tensor(whole[:, ::2]))
    assert (whole[:, ::2] == sum(range(size))).all() and (whole[:, 1::2] == rank).all()
    dist.broadcast(cf.Tensor(whole[:, 1:3]), size - 1)
    assert (whole[:, 1] == size - 1).all()
    joined = cf.zeros(2 * size)
    dist.all_gather_into_tensor(joined, cf.full((2,), float(rank)))
    assert joined.tolist() == [float(r) for r in range(size) for _ in range(2)]
    part = cf.zeros(2)
    dist.reduce_scatter_tensor(part, joined)
    assert part.tolist() == [size * float(rank)] * 2
    swapped = cf.zeros(2 * size)
    dist.all_to_all_single(swapped, joined + 100 * rank)
    assert swapped.tolist() == [100.0 * r + rank for r in range(size) for _ in range(2)]
    # many at once, in order, and the caller computes meanwhile
    xs = [cf.full((50000,), float(rank + i)) for i in range(8)]
    works = [dist.all_reduce(x, async_op=True) for x in xs]
    assert all(work.wait() and work.is_completed() and work.is_success() for work in works)
    assert [x[0].item() for x in xs] == [sum(r + i for r in range(size)) for i in range(8)]
