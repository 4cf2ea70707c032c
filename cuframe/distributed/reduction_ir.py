"""LLVM IR of sums of several float32 arrays: Note [One pass] in `reduction`, Note [Ring] in `exchange`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import binding, ir

from ..cpu.ir import Emitter
from .exchange import WORDS

__all__ = ["build", "exchange"]

_UNROLL = 4
_LINE = 64
_AHEAD = 1024  # bytes: what another core has in its cache takes longer to come than the processor foresees
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def add_up(e: Emitter, size: Any, sources: Sequence[Any], targets: Sequence[Any], average: bool,
           past: bool = False) -> None:  # fmt: skip
    """Write the sum of `size` numbers of all sources, added in their order, to all targets.

    `past`: past the caches, which then keep what will be read; there is one target.
    """
    b, lanes, count = e.b, e.lanes, len(sources)
    mark = e.module.add_metadata([ir.Constant(_I32, 1)])

    def total(parts: list[Any]) -> Any:
        result = parts[0]
        for part in parts[1:]:
            result = b.fadd(result, part)
        if not average:
            return result
        if count & (count - 1):
            return b.fdiv(result, e.const(count))
        return b.fmul(result, e.const(1 / count))  # the same bits, sooner

    def some(at: Any, number: Any) -> None:
        mask = e.mask(number)
        value = total([e.masked_load(e.at(s, at), mask) for s in sources])
        for t in targets:
            e.masked_store(value, e.at(t, at), mask)

    begin = e.i(0)
    if past:  # such stores must begin at a multiple of their size
        begin = e.least(b.lshr(b.and_(b.neg(targets[0]), e.i(4 * lanes - 1)), e.i(2)), size)
        some(e.i(0), begin)
    width = _UNROLL * lanes
    whole = b.add(begin, b.and_(b.sub(size, begin), e.i(-width)))
    with e.loop(begin, whole, step=width) as turn:
        for u in range(_UNROLL):
            at = e.add(turn.index, u * lanes)
            if 4 * u * lanes % _LINE == 0:
                for s in sources:
                    e.touch(e.add(e.at(s, at), _AHEAD), 1)
            value = total([e.load(e.at(s, at)) for s in sources])
            for t in targets:
                if past:
                    place = b.inttoptr(e.at(t, at), e.vec.as_pointer())
                    b.store(value, place, align=4 * lanes).set_metadata("nontemporal", mark)
                else:
                    e.store(value, e.at(t, at))
    with e.loop(whole, size, step=lanes) as turn:
        some(turn.index, b.sub(size, turn.index))


def build(name: str, lanes: int, sources: int, targets: int, average: bool) -> Any:
    """The kernel of `sources` arrays, added in their order; its arguments: a size and the arrays' addresses."""
    froms, tos = [f"source{i}" for i in range(sources)], [f"target{i}" for i in range(targets)]
    e = Emitter(name, ("size", *froms, *tos), lanes)
    add_up(e, e.a["size"], [e.a[f] for f in froms], [e.a[t] for t in tos], average)
    e.b.ret_void()
    return e.module


_GIVEN, _REDUCED, _TAKEN, _ASLEEP = 0, 4, 8, 12  # bytes from the beginning of a rank's flags
_WAIT, _WAKE = 0, 1


def exchange(name: str, lanes: int, ranks: int, average: bool) -> Any:
    """The kernel behind `exchange.Ring`; its arguments are `WORDS`, of which the last six are written.

    Before the ranks have `met`, it gives what it can, and returns.
    """
    e = Emitter(name, WORDS, lanes)
    b, a = e.b, e.a
    where = {w: b.inttoptr(e.add(b.ptrtoint(e.function.args[0], _I64), 8 * i), _I64.as_pointer())
             for i, w in enumerate(WORDS)}  # fmt: skip

    def flag(rank: Any, offset: int) -> Any:
        return e.add(a["flags"], b.mul(rank, a["stride"]), offset)

    def ask(operation: int, address: Any, value: Any, patience: Any) -> Any:
        call = b.inttoptr(a["syscall"], ir.FunctionType(_I64, [_I64] * 7).as_pointer())
        return b.call(call, [a["futex"], address, e.i(operation), value, patience, e.i(0), e.i(0)])

    def read(address: Any, kind: str = "acquire") -> Any:
        return b.load_atomic(b.inttoptr(address, _I32.as_pointer()), kind, 4)

    def others(offset: int, above: Any) -> tuple[Any, Any]:
        """Whether this flag of all others is above a number; else where one is that is not."""
        ready, behind = ir.Constant(ir.IntType(1), 1), e.i(0)
        for r in range(ranks):
            place = flag(e.i(r), offset)
            ahead = b.icmp_signed(">", b.sub(read(place), b.trunc(above, _I32)), ir.Constant(_I32, 0))
            ahead = b.or_(ahead, b.icmp_signed("==", a["me"], e.i(r)))
            ready, behind = b.and_(ready, ahead), b.select(ahead, behind, place)
        return ready, behind

    def piece(rank: Any, step: Any) -> tuple[Any, Any]:
        """Address and size of a step's piece of a rank's share of the array."""
        begin = b.add(b.mul(rank, a["width"]), b.mul(step, a["chunk"]))
        end = e.least(e.least(b.add(begin, a["chunk"]), b.mul(e.add(rank, 1), a["width"])), a["size"])
        left = b.sub(end, begin)
        return e.at(a["x"], begin), b.select(b.icmp_signed("<", left, e.i(0)), e.i(0), left)

    def place(row: Any, step: Any) -> Any:
        """The offset of a step's piece in a row of the ring."""
        turn = b.urem(b.and_(b.add(a["base"], step), e.i(0xFFFFFFFF)), a["depth"])
        return b.mul(b.add(b.mul(row, a["depth"]), turn), a["chunk"])

    def slot(source: Any, target: Any, step: Any) -> Any:
        return e.at(a["slots"], place(b.add(e.mul(source, ranks), target), step))

    @contextmanager
    def each_other() -> Iterator[Any]:
        """The other ranks, from the next one on, so that not all begin with the same."""
        with e.loop(e.i(1), e.i(ranks)) as turn:
            yield b.urem(b.add(a["me"], turn.index), e.i(ranks))

    def give(step: Any) -> None:
        with each_other() as r:
            source, size = piece(r, step)
            add_up(e, size, [source], [slot(a["me"], r, step)], False)

    def reduce(step: Any) -> None:
        mine, size = piece(a["me"], step)
        parts = [b.select(b.icmp_signed("==", a["me"], e.i(r)), mine, slot(e.i(r), a["me"], step))
                 for r in range(ranks)]  # fmt: skip
        add_up(e, size, parts, [mine, e.at(a["shares"], place(a["me"], step))], average)

    def take(step: Any) -> None:
        with each_other() as r:
            target, size = piece(r, step)
            add_up(e, size, [e.at(a["shares"], place(r, step))], [target], False, past=True)

    names = ("loop", "going", "done", "idle", "stuck", "pause", "told")
    loop, going, done, idle, stuck, pause, told = (e.function.append_basic_block(name) for name in names)
    met = b.icmp_signed("!=", a["met"], e.i(0))
    b.branch(loop)
    b.position_at_end(loop)
    given, reduced, taken = (b.load(where[w]) for w in ("given", "reduced", "taken"))
    b.cbranch(b.icmp_signed("==", taken, a["count"]), done, going)
    b.position_at_end(going)
    numbers = {w: b.add(a["base"], n) for w, n in (("given", given), ("reduced", reduced), ("taken", taken))}

    def attempt(word: str, offset: int, step: Any, ready: Any, act: Any) -> None:
        """Do a step if it can be done, and tell the others."""
        yes, no = (e.function.append_basic_block(s) for s in ("can", "cannot"))
        b.cbranch(ready, yes, no)
        b.position_at_end(yes)
        act(step)
        more = e.add(step, 1)
        b.store(more, where[word])
        b.store(e.i(0), where["spins"])
        flags = flag(a["me"], offset)
        b.store_atomic(b.trunc(b.add(a["base"], more), _I32), b.inttoptr(flags, _I32.as_pointer()), "release", 4)
        b.fence("seq_cst")  # who falls asleep says so before it looks for the last time
        asleep = ir.Constant(_I32, 0)
        for r in range(ranks):
            asleep = b.or_(asleep, read(flag(e.i(r), _ASLEEP), "monotonic"))
        with b.if_then(b.icmp_unsigned("!=", asleep, ir.Constant(_I32, 0))):
            ask(_WAKE, flags, e.i(0x7FFFFFFF), e.i(0))
        b.branch(loop)
        b.position_at_end(no)

    room = b.sub(numbers["reduced"], a["depth"])
    came, late = others(_GIVEN, numbers["reduced"])
    free, full = others(_TAKEN, room)
    ready = b.and_(b.and_(met, b.icmp_signed("<", reduced, given)), b.and_(came, free))
    attempt("reduced", _REDUCED, reduced, ready, reduce)
    summed, slow = others(_REDUCED, numbers["taken"])
    attempt("taken", _TAKEN, taken, b.and_(b.icmp_signed("<", taken, reduced), summed), take)
    emptied, _ = others(_REDUCED, b.sub(numbers["given"], a["depth"]))
    attempt("given", _GIVEN, given, b.and_(b.icmp_signed("<", given, a["count"]), emptied), give)

    b.cbranch(met, idle, told)
    b.position_at_end(idle)
    adding = b.icmp_signed("<", reduced, given)
    behind = b.select(adding, b.select(came, full, late), slow)
    awaited = b.select(adding, b.select(came, room, numbers["reduced"]), numbers["taken"])
    spins = e.add(b.load(where["spins"]), 1)
    b.store(spins, where["spins"])
    b.cbranch(b.icmp_signed(">", spins, a["patience"]), stuck, pause)
    b.position_at_end(pause)
    if "86" in binding.get_default_triple().split("-")[0]:
        e.intrinsic("llvm.x86.sse2.pause", ir.VoidType(), [])
    b.branch(loop)
    b.position_at_end(stuck)
    b.store(behind, where["behind"])
    b.store(awaited, where["awaited"])
    b.store(e.i(0), where["spins"])
    asleep = b.inttoptr(flag(a["me"], _ASLEEP), _I32.as_pointer())
    b.store_atomic(ir.Constant(_I32, 1), asleep, "seq_cst", 4)
    b.fence("seq_cst")
    value = read(behind)
    late = b.icmp_signed("<=", b.sub(value, b.trunc(awaited, _I32)), ir.Constant(_I32, 0))
    with b.if_else(late) as (still, came_now):
        with still:
            woken = b.icmp_signed("==", ask(_WAIT, behind, b.zext(value, _I64), a["slice"]), e.i(0))
            waited = b.block
        with came_now:
            looked = b.block
    on = b.phi(ir.IntType(1))
    on.add_incoming(woken, waited)
    on.add_incoming(ir.Constant(ir.IntType(1), 1), looked)
    b.store_atomic(ir.Constant(_I32, 0), asleep, "release", 4)
    b.cbranch(on, loop, told)
    b.position_at_end(done)
    b.fence("seq_cst")  # what went past the caches is there before anybody is told more
    b.branch(told)
    b.position_at_end(told)
    b.ret_void()
    return e.module
