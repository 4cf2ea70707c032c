"""LLVM IR of the recursions of CTC for one sequence: Note [Compiled CTC] in `ctc_compiled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .maths_ir import Maths, Value
from .rows_ir import Rows

__all__ = ["FIELDS", "build"]

FIELDS = (
    "x",          # [T, N * C]
    "step",       # N * C
    "offsets",    # [N, width] int64: where the class of each state stands in a step
    "jump",       # [N, width + lanes]: 0 where a state is reached from the second before it, else log 0
    "slots",      # [N, width] int64: the sum that a state belongs to
    "lengths",    # [N] int64, steps
    "states",     # [N] int64
    "log_p",      # [N] float64, to be filled where there are steps
    "posterior",  # [T, sums], to be added to
    "sums",
    "width",      # a multiple of the lanes
    "bases",      # [T] float64
    "alpha",      # [T, lanes + width]
    "beta",       # [3, width + lanes]
)  # fmt: skip
_OWN = ("bases", "alpha", "beta")
_ZERO, _NEVER = -1e30, -1e29  # see `ctc`
_F64 = ir.DoubleType()


class _Sequence(Rows):
    """The kernel for the sequence `thread`, which is a chunk of one row."""

    def __init__(self, name: str, lanes: int, double: bool) -> None:
        super().__init__(name, FIELDS, lanes, double, _OWN)
        self.m = Maths(self)
        self.n, a = self.thread, self.a
        self.states = self.index(self.add(a["states"], self.mul(self.n, 8)))
        self.length = self.index(self.add(a["lengths"], self.mul(self.n, 8)))
        self.own = self.mul(self.n, a["width"])
        self.jumps = self.at(a["jump"], self.own, self.mul(self.n, lanes))

    def below(self, i: Any, count: Any) -> Any:
        """Which of the states from i on are among the first `count`."""
        return self.mask(self.b.sub(count, i))

    def emission(self, t: Any, i: Any) -> Value:
        """The log probability of the class of the states from i on."""
        b, mask = self.b, self.below(i, self.states)
        place = self.add(self.a["offsets"], self.mul(self.add(self.own, i), 8))
        bytes_ = self.splat(self.i(self.bytes))
        offsets = b.mul(self.load(place, ir.VectorType(ir.IntType(64), self.lanes)), bytes_)
        start = self.splat(self.at(self.a["x"], self.mul(t, self.a["step"])))
        pointers = b.inttoptr(b.add(start, offsets), ir.VectorType(self.real.as_pointer(), self.lanes))
        name = f"llvm.masked.gather.{self.kind}.v{self.lanes}p0"
        v = self.intrinsic(name, self.vec, [pointers, ir.Constant(ir.IntType(32), 4), mask, self.const(_ZERO)])
        return self.m.at_least(self.m.value(v), _ZERO)

    def joined(self, old: Any, sign: int, i: Any) -> Value:
        """The logarithm of the sum over a state, the next and the second next, in the direction `sign`."""
        m = self.m
        ways = [m.value(self.load(self.at(old, i, self.i(sign * k)))) for k in range(3)]
        ways[2] = ways[2] + m.value(self.load(self.at(self.jumps, i, self.i(2 if sign > 0 else 0))))
        top = m.value(self.greater(self.greater(ways[0].v, ways[1].v), ways[2].v))
        total = m.exp(ways[0] - top) + m.exp(ways[1] - top) + m.exp(ways[2] - top)
        return top + m.log(total)

    def best(self, top: Any) -> Any:
        """What a step is to be set back by: its greatest number, unless all are log 0."""
        most = self.across(top, self.greater)
        return self.b.select(self.b.fcmp_ordered(">", most, self.one_number(_NEVER)), most, self.one_number(0.0))

    def one_number(self, v: float) -> Any:
        return ir.Constant(self.real, v)

    def wide(self, v: Any) -> Any:
        return v if self.bytes == 8 else self.b.fpext(v, _F64)

    def narrow(self, v: Any) -> Any:
        return v if self.bytes == 8 else self.b.fptrunc(v, self.real)

    def sweep_states(self, each: Callable[[Any, list[Any]], list[Any]], *carried: Any) -> list[Any]:
        with self.loop(self.i(0), self.a["width"], list(carried), step=self.lanes) as turn:
            turn.values[:] = each(turn.index, turn.values)
        return turn.values


def build(name: str, backward: bool, lanes: int, double: bool) -> Any:
    """`backward`: add the posteriors up, too."""
    e = _Sequence(name, lanes, double)
    with e.b.if_then(e.b.icmp_signed(">", e.length, e.i(0))):
        log_p = _beginnings(e)
        e.store(log_p, e.add(e.a["log_p"], e.mul(e.n, 8)))
        if backward:
            _ends(e, log_p)
    e.b.ret_void()
    return e.module


def _beginnings(e: _Sequence) -> Any:
    """Fills alpha and bases; the log probability of all paths, in float64."""
    b, m = e.b, e.m
    nothing = e.const(-float("inf"))

    def row(t: Any) -> Any:
        return e.at(e.a["alpha"], e.mul(t, e.add(e.a["width"], e.lanes)), e.i(e.lanes))

    def step(t: Any, shift: Any, base: Any) -> tuple[Any, Any]:
        base = b.fadd(base, e.wide(shift))
        e.store(base, e.add(e.a["bases"], e.mul(t, 8)))
        new = row(t)
        e.store(e.const(_ZERO), e.at(new, e.i(-e.lanes)))

        def each(i: Any, values: list[Any]) -> list[Any]:
            v = e.emission(t, i)
            if isinstance(t, ir.Constant):
                v = m.where(e.below(i, e.i(2)), v, _ZERO)
            else:
                v = e.joined(row(b.sub(t, e.i(1))), -1, i) + (v - m.value(e.splat(shift)))
            e.store(v.v, e.at(new, i))
            return [e.greater(v.v, values[0])]

        return e.best(e.sweep_states(each, nothing)[0]), base

    shift, base = step(e.i(0), e.one_number(0.0), ir.Constant(_F64, 0.0))
    with e.loop(e.i(1), e.length, [shift, base]) as turn:
        turn.values[:] = step(turn.index, *turn.values)
    base = turn.values[1]
    last = e.at(row(b.sub(e.length, e.i(1))), e.states)
    ends = [m.value(e.splat(e.number(e.at(last, e.i(-k))))) for k in (1, 2)]
    top = m.value(e.greater(ends[0].v, ends[1].v))
    total = top + m.log(m.exp(ends[0] - top) + m.exp(ends[1] - top))
    return b.fadd(base, e.wide(b.extract_element(total.v, ir.Constant(ir.IntType(32), 0))))


def _ends(e: _Sequence, log_p: Any) -> None:
    """Runs backwards through the steps, and adds the posteriors of all states to their sums."""
    b, m, a = e.b, e.m, e.a
    nothing = e.const(-float("inf"))
    pitch = e.add(a["width"], e.lanes)
    own = e.at(a["beta"], e.mul(pitch, 2))  # the posteriors of a step
    for k in range(2):
        e.store(e.const(_ZERO), e.at(a["beta"], e.mul(pitch, k), a["width"]))
    zero = ir.Constant(_F64, 0.0)
    log_p = b.select(b.fcmp_ordered("<", log_p, ir.Constant(_F64, _NEVER)), zero, log_p)
    blanks = ir.Constant(ir.VectorType(ir.IntType(1), e.lanes), [1, 0] * (e.lanes // 2))
    slots = e.add(a["slots"], e.mul(e.own, 8))

    def step(j: Any, shift: Any, base: Any) -> tuple[Any, Any]:
        t = b.sub(b.sub(e.length, e.i(1)), j)
        base = b.fadd(base, e.wide(shift))
        old, new = (e.at(a["beta"], e.mul(b.and_(e.add(j, k), e.i(1)), pitch)) for k in (1, 0))
        alpha = e.at(a["alpha"], e.mul(t, pitch), e.i(e.lanes))
        known = e.load(e.add(a["bases"], e.mul(t, 8)), _F64)
        rest = m.value(e.splat(e.narrow(b.fsub(b.fadd(known, base), log_p))))

        def each(i: Any, values: list[Any]) -> list[Any]:
            v = emitted = e.emission(t, i)
            if isinstance(j, ir.Constant):
                v = m.where(e.below(i, b.sub(e.states, e.i(2))), _ZERO, v)
            else:
                v = e.joined(old, 1, i) + (v - m.value(e.splat(shift)))
            e.store(v.v, e.at(new, i))
            p = m.exp(m.value(e.load(e.at(alpha, i))) + (v - emitted) + rest)
            e.store(p.v, e.at(own, i))
            return [e.greater(v.v, values[0]), b.fadd(values[1], b.select(blanks, p.v, e.const(0)))]

        top, blank = e.sweep_states(each, nothing, e.const(0))
        line = e.mul(t, a["sums"])

        def add(value: Any, state: Any) -> None:
            place = e.at(a["posterior"], line, e.index(e.add(slots, e.mul(state, 8))))
            e.store(b.fadd(e.number(place), value), place)

        add(e.across(blank), e.i(0))
        with e.loop(e.i(1), e.states, step=2) as state:
            add(e.number(e.at(own, state.index)), state.index)
        return e.best(top), base

    start = step(e.i(0), e.one_number(0.0), zero)
    with e.loop(e.i(1), e.length, list(start)) as turn:
        turn.values[:] = step(turn.index, *turn.values)
