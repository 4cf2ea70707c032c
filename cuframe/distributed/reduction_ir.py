"""LLVM IR of a sum of several float32 arrays that is written to several: Note [One pass] in `reduction`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ..cpu.ir import Emitter

__all__ = ["build"]

_UNROLL = 4


def build(name: str, lanes: int, sources: int, targets: int, streamed: int, average: bool) -> Any:
    """The kernel of `sources` arrays, added in their order; its arguments: a size and the arrays' addresses.

    The last `streamed` targets are written past the caches; they begin a cache line.
    """
    fields = ("size", *(f"source{i}" for i in range(sources)), *(f"target{i}" for i in range(targets)))
    e = Emitter(name, fields, lanes)
    b, size = e.b, e.a["size"]
    past = e.module.add_metadata([ir.Constant(ir.IntType(32), 1)])

    def put(value: Any, i: int, at: Any) -> None:
        if i < targets - streamed:
            e.store(value, e.at(e.a[f"target{i}"], at))
            return
        place = b.inttoptr(e.at(e.a[f"target{i}"], at), e.vec.as_pointer())
        b.store(value, place, align=4 * lanes).set_metadata("nontemporal", past)

    def total(parts: list[Any]) -> Any:
        result = parts[0]
        for part in parts[1:]:
            result = b.fadd(result, part)
        if not average:
            return result
        if sources & (sources - 1):
            return b.fdiv(result, e.const(sources))
        return b.fmul(result, e.const(1 / sources))  # the same bits, sooner

    width = _UNROLL * lanes
    whole = b.and_(size, e.i(-width))
    with e.loop(e.i(0), whole, step=width) as turn:
        for u in range(_UNROLL):
            at = e.add(turn.index, u * lanes)
            value = total([e.load(e.at(e.a[f"source{i}"], at)) for i in range(sources)])
            for i in range(targets):
                put(value, i, at)
    with e.loop(whole, size, step=lanes) as turn:
        mask = e.mask(b.sub(size, turn.index))
        value = total([e.masked_load(e.at(e.a[f"source{i}"], turn.index), mask) for i in range(sources)])
        for i in range(targets):
            e.masked_store(value, e.at(e.a[f"target{i}"], turn.index), mask)
    if streamed:
        b.fence("seq_cst")  # before anybody is told
    b.ret_void()
    return e.module
