"""LLVM IR of softmax and log-softmax along rows, or along columns with a vector of them side by side."""

from __future__ import annotations

from typing import Any

from .maths_ir import Maths, Value
from .rows_ir import Columns, Rows

__all__ = ["build"]

_NOTHING = -float("inf")


def build(name: str, backward: bool, log: bool, columns: bool, lanes: int, double: bool) -> Any:
    """The kernel; columns has x [outer, size, inner], where a row is a vector of columns, one of `blocks`."""
    if columns:
        e = Rows(name, ("g", "x", "out", "inner", "blocks"), lanes, double)
        for row in _each(e):
            (_columns_backward if backward else _columns_forward)(e, row, log)
    else:
        e = Rows(name, ("g", "x", "out"), lanes, double)
        for row in _each(e):
            (_rows_backward if backward else _rows_forward)(e, row, log)
    e.b.ret_void()
    return e.module


def _each(e: Rows) -> Any:
    with e.loop(e.first, e.last) as row:
        yield row.index


def _rows_forward(e: Rows, row: Any, log: bool) -> None:
    m, b = Maths(e), e.b
    x, out = e.row("x", row), e.row("out", row)
    (top,) = e.sweep(lambda c, s: [e.greater(c.inside(c.load(x), _NOTHING), s[0])], 1, start=_NOTHING, join=e.greater)
    most = m.value(e.splat(e.across(top, e.greater)))

    def exponentials(c: Columns, sums: list[Any]) -> list[Any]:
        v = m.exp(m.value(c.load(x)) - most).v
        if not log:
            c.store(v, out)
        return [b.fadd(sums[0], c.inside(v))]

    total = m.value(e.splat(e.across(e.sweep(exponentials, 1)[0])))
    change = m.log(total) if log else 1 / total

    def finish(c: Columns, sums: list[Any]) -> list[Any]:
        v = m.value(c.load(x)) - most - change if log else m.value(c.load(out)) * change
        c.store(v.v, out)
        return sums

    e.sweep(finish)


def _rows_backward(e: Rows, row: Any, log: bool) -> None:
    m = Maths(e)
    g, y, out = (e.row(f, row) for f in ("g", "x", "out"))
    (sums,) = e.sweep(lambda c, s: [e.b.fadd(s[0], c.load(g)) if log else e.fma(c.load(g), c.load(y), s[0])], 1)
    total = m.value(e.splat(e.across(sums)))

    def finish(c: Columns, sums: list[Any]) -> list[Any]:
        c.store(_gradient(m, m.value(c.load(g)), m.value(c.load(y)), total, log).v, out)
        return sums

    e.sweep(finish)


def _gradient(m: Maths, g: Value, y: Value, total: Value, log: bool) -> Value:
    return g - m.exp(y) * total if log else y * (g - total)


class _Vector:
    """Columns beside each other, of the vector `row`."""

    def __init__(self, e: Rows, row: Any) -> None:
        self.e, self.m, b = e, Maths(e), e.b
        outer = b.sdiv(row, e.a["blocks"])
        column = e.mul(b.sub(row, e.mul(outer, e.a["blocks"])), e.lanes)
        self.mask = e.mask(b.sub(e.a["inner"], column))
        self.start = e.add(e.mul(outer, e.mul(e.a["size"], e.a["inner"])), column)

    def load(self, field: str, i: Any) -> Value:
        return self.m.value(self.e.masked_load(self._place(field, i), self.mask))

    def store(self, value: Value, i: Any) -> None:
        self.e.masked_store(value.v, self._place("out", i), self.mask)

    def _place(self, field: str, i: Any) -> Any:
        return self.e.at(self.e.a[field], self.start, self.e.mul(i, self.e.a["inner"]))

    def down(self, start: float = 0.0) -> Any:
        return self.e.loop(self.e.i(0), self.e.a["size"], [self.e.const(start)])


def _columns_forward(e: Rows, row: Any, log: bool) -> None:
    v, m = _Vector(e, row), Maths(e)
    with v.down(_NOTHING) as turn:
        turn.values[0] = e.greater(v.load("x", turn.index).v, turn.values[0])
    most = m.value(turn.values[0])
    with v.down() as turn:
        one = m.exp(v.load("x", turn.index) - most)
        if not log:
            v.store(one, turn.index)
        turn.values[0] = e.b.fadd(turn.values[0], one.v)
    total = m.value(turn.values[0])
    change = m.log(total) if log else 1 / total
    with v.down() as turn:
        v.store(v.load("x", turn.index) - most - change if log else v.load("out", turn.index) * change, turn.index)


def _columns_backward(e: Rows, row: Any, log: bool) -> None:
    v, m = _Vector(e, row), Maths(e)
    with v.down() as turn:
        g = v.load("g", turn.index).v
        turn.values[0] = e.b.fadd(turn.values[0], g) if log else e.fma(g, v.load("x", turn.index).v, turn.values[0])
    total = m.value(turn.values[0])
    with v.down() as turn:
        v.store(_gradient(m, v.load("g", turn.index), v.load("x", turn.index), total, log), turn.index)
