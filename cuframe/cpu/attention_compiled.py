"""Attention of float32 as compiled code, where llvmlite is installed.

Note [Compiled attention]
    The blocks are those of Note [Blocks of attention] with a maximum for each row, but a block's scores never leave
    the cache: a few rows of queries are multiplied by a block of keys in registers, exponentials follow in place, and
    are multiplied by the values at once. Keys and values of a block are copied so that tiles read them in order.
    Backward takes blocks of keys one after another; p and ds of some rows against it lie in the second-level cache for
    the three products that need them. Above the diagonal whole tiles are left out.

    A call sees to some rows of a head forward, to a head backward. Threads take the next call when they are through
    with one, so that a slow core does less; every number comes from the same instructions whoever takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import count
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit, pool, threads

__all__ = ["NOTHING", "applies", "backward", "forward"]

Array = npt.NDArray[Any]
_Kept = Callable[[int, int], Array]

NOTHING = 1e30  # the lse of a row without keys: exp(x - 1e30) = 0
_LEAST = 1 << 14  # scores for which compiling is worth its time
_THREAD = 1 << 15  # scores that keep a thread busy for long enough
_WIDEST = 256
_DROPPED = 256  # rows whose dropout is drawn at once in backward


def applies(q: Array, k: Array, v: Array, mask: Array | None) -> bool:
    """Whether the functions below serve these; see `attention.forward`, the mask having all dimensions."""
    return (
        q.dtype == np.float32
        and q.size // max(1, q.shape[-1]) * k.shape[-2] >= _LEAST
        and 1 <= q.shape[-1] <= _WIDEST
        and 1 <= v.shape[-1] <= _WIDEST
        and (mask is None or mask.shape[-1] == k.shape[-2])
        and jit.available()
    )


@lru_cache(None)
def _kernel(kind: str, mask: str, dropout: bool) -> jit.Kernel:
    from . import attention_ir

    name = "_".join(["attention", kind, mask, str(int(dropout))])
    return jit.load(attention_ir.build(kind, name, jit.lanes(), mask, dropout), name)


def _in_line(a: Array) -> Array:
    """An array whose last dimension lies in memory without gaps."""
    return a if a.strides[-1] == a.itemsize else np.ascontiguousarray(a)


def _table(a: Array, batch: list[int]) -> Array:
    """The address of each head; keys and values may have fewer, each of which serves several."""
    table: Array = np.full(a.shape[:-2], jit.address(a), np.int64)
    for axis, size in enumerate(a.shape[:-2]):
        steps = np.arange(size, dtype=np.int64) * a.strides[axis]
        table += steps.reshape(-1, *[1] * (a.ndim - 3 - axis))
    return np.repeat(table, batch[-1] // a.shape[-3], axis=-1).reshape(-1)


@lru_cache(1)
def _rows() -> int:
    """Of queries in a call of forward."""
    from . import attention_ir

    return attention_ir.ROWS


class _Call:
    """The arguments of a kernel that all its calls share, and what each thread needs for itself.

    `arrays` have heads, and go as tables; `words` go as they are.
    """

    def __init__(
        self, kind: str, arrays: dict[str, Array], words: dict[str, int], mask: Array | None, causal: bool,
        scale: float, p: float | None,
    ) -> None:  # fmt: skip
        from . import attention_ir as code

        q, keys, width = arrays["q"], arrays["k"].shape[-2], arrays["v"].shape[-1]
        *batch, rows, size = q.shape
        self.heads, self.scores = prod(batch), prod(batch) * rows * keys
        self.fields, sizes = code.FIELDS[kind], code.scratch(kind, size, width, jit.lanes())
        own, self.scratch = threads.places(sizes.values())
        numbers = np.array([scale, 1.0 if p is None else 1 / (1 - p)], np.float32)
        words = words | {"heads": self.heads, "rows": rows, "keys": keys, "size": size, "width": width}
        words["causal"] = int(causal)
        words |= {"numbers": jit.address(numbers), "mask": 0, "mask_step": 0, "kept_step": -(-keys // 8) * 8}
        tables = {f: _table(a, batch) for f, a in arrays.items()}
        words |= {f"{f}_step": a.strides[-2] // 4 for f, a in arrays.items()}
        if mask is not None:
            wide = np.broadcast_to(mask, (*batch, rows, keys))
            tables["mask"], words["mask_step"] = _table(wide, batch), wide.strides[-2]
        self.words = words | {"kept": 0} | {f: jit.address(t) for f, t in tables.items()} | dict(zip(sizes, own))
        self.keeping: tuple[Any, ...] = (numbers, tables, arrays, mask)  # a thread may outlive a call that Ctrl-C ends
        self.kernel = _kernel(kind, "" if mask is None else "bool" if mask.dtype == bool else "float", p is not None)

    def run(self, units: int, each: Callable[[Callable[[], None], Array, Array, int], None] | None = None) -> None:
        """Call i for all i < units; or `each(call, words, kept, i)`, which fills the words and the table of dropout.

        A thread takes the next one when it is through.
        """
        workers = max(1, min(jit.cpus(), units, self.scores // _THREAD))
        words, scratch = np.array([self.words[f] for f in self.fields], np.int64), self.scratch
        if each is None:
            pool.run(self.kernel, words, units, workers, scratch)
            return
        numbers, place = count(), self.fields.index("kept")

        def part(_: int, __: int) -> None:
            own, kept, room = words.copy(), np.zeros(self.heads, np.int64), threads.scratch(scratch)
            own[place] = jit.address(kept)
            while (i := next(numbers)) < units:
                each(partial(self.kernel, jit.address(own), i, jit.address(room)), own, kept, i)

        threads.parallel(part, workers)


def forward(
    q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float, p: float | None, kept: _Kept | None
) -> tuple[Array, Array]:
    """As `attention.forward`; dropout has probability `p`, and `kept(row, count)` are its rows, counted over all heads.

    k and v may have fewer heads than q.
    """
    q, k, v = map(_in_line, (q, k, v))
    mask = None if mask is None else _in_line(mask)
    length = q.shape[-2]
    out = np.empty_like(q, shape=(*q.shape[:-1], v.shape[-1]))
    total, top = np.empty(q.shape[:-1], q.dtype), np.empty(q.shape[:-1], q.dtype)
    step = _rows()
    blocks = -(-length // step)
    words = {"blocks": blocks, "total": jit.address(total), "top": jit.address(top)}
    call = _Call("forward", {"q": q, "k": k, "v": v, "out": out}, words, mask, causal, scale, p)
    call.keeping += (total, top)
    heads = call.heads

    def each(run: Callable[[], None], words: Array, table: Array, i: int) -> None:
        head, first = i % heads, (blocks - 1 - i // heads) * step
        dropped = kept(head * length + first, min(step, length - first))  # type: ignore[misc]
        table[head] = jit.address(dropped) - first * dropped.strides[0]
        run()

    call.run(heads * blocks, None if kept is None else each)
    empty = total == 0
    total[empty] = 1
    top[empty] = NOTHING
    return out, np.log(total, out=total) + top


def backward(
    g: Array, q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float, p: float | None,
    kept: _Kept | None, out: Array, lse: Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """As `attention.backward`, without the gradient of a mask; k and v have the heads of q."""
    g, q, k, v, out = map(_in_line, (g, q, k, v, out))
    mask = None if mask is None else _in_line(mask)
    lse = np.ascontiguousarray(lse)
    length = q.shape[-2]
    gq, gk, gv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    arrays = {"q": q, "k": k, "v": v, "out": out, "g": g, "gq": gq, "gk": gk, "gv": gv}
    fixed = {"lse": jit.address(lse), "first": 0, "last": length, "fresh": 1}
    call = _Call("backward", arrays, fixed, mask, causal, scale, p)
    call.keeping += (lse,)
    place = {f: call.fields.index(f) for f in ("first", "last", "fresh")}

    def each(run: Callable[[], None], words: Array, table: Array, head: int) -> None:
        for first in range(0, length, _DROPPED):
            last = min(length, first + _DROPPED)
            dropped = kept(head * length + first, last - first)  # type: ignore[misc]
            table[head] = jit.address(dropped) - first * dropped.strides[0]
            for f, value in (("first", first), ("last", last), ("fresh", first == 0)):
                words[place[f]] = value
            run()

    call.run(call.heads, None if kept is None else each)
    return gq, gk, gv
