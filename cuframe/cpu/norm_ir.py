"""LLVM IR of the passes of normalisation over float32 rows: Note [Compiled normalisation] in `norm_compiled`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from .rows_ir import Columns, Rows

__all__ = ["FIELDS", "build"]

# arguments of each kernel, 8 bytes each; after them the address of numbers, 1 / size and eps, and for units 1 / span,
# 1 / spans and 1 / (spans * span); then `size`, `rows` and `chunk`
_UNIT = ("channels", "unit_step", "row_step", "spans", "span", "count")
FIELDS = {
    "forward": ("x", "w", "b", "out", "mean", "rstd"),
    "backward": ("g", "x", "w", "mean", "rstd", "gx", "gw", "gb"),
    "moments": ("x", "mean", "squares"),
    "sums": ("g", "x", "shift", "first", "second"),
    "apply": ("g", "a", "x", "slope", "constant", "out"),
    "unit_forward": ("x", "w", "b", "out", "span_mean", "span_squares", "mean", "var", "rstd", *_UNIT),
    "unit_backward": ("g", "x", "w", "mean", "rstd", "first", "second", "gx", *_UNIT),
}
_ROWS = 4  # rows that backward takes together, so that the sums over rows pass through memory once for all of them


class _Rows(Rows):
    def __init__(self, name: str, fields: tuple[str, ...], lanes: int) -> None:
        super().__init__(name, (*fields, "numbers"), lanes)
        self.inverse, self.eps = self.given(0), self.given(1)

    def given(self, i: int) -> Any:
        return self.number(self.add(self.a["numbers"], 4 * i))

    def statistics(self, x: Any, size: Any = None, inverse: Any = None) -> tuple[Any, Any]:
        """Mean of the row at `x`, and the sum of squares about it; of `size` numbers, if given."""
        (total,) = self.sweep(lambda c, s: [self.b.fadd(s[0], c.load(x))], 1, size=size)
        mean = self.b.fmul(self.across(total), inverse or self.inverse)
        return mean, self.squares(x, self.splat(mean), size)

    def squares(self, x: Any, mean: Any, size: Any = None) -> Any:
        def body(columns: Columns, sums: list[Any]) -> list[Any]:
            d = columns.load(x)
            if mean is not None:
                d = columns.inside(self.b.fsub(d, mean))
            return [self.fma(d, d, sums[0])]

        return self.across(self.sweep(body, 1, size=size)[0])

    def both_sums(self, g: Any, x: Any, shift: Any) -> list[Any]:
        """sum g and sum g (x - shift) of the rows at g and x."""

        def body(columns: Columns, sums: list[Any]) -> list[Any]:
            u = columns.load(g)
            return [self.b.fadd(sums[0], u), self.fma(u, self.b.fsub(columns.load(x), shift), sums[1])]

        return [self.across(total) for total in self.sweep(body, 2)]


def build(kind: str, name: str, lanes: int, *options: bool) -> ir.Module:
    """The kernel `kind`; `options` are those of its function below."""
    e = _Rows(name, FIELDS[kind], lanes)
    _KERNELS[kind](e, *options)
    e.b.ret_void()
    return e.module


def _forward(e: _Rows, centred: bool, scaled: bool, shifted: bool) -> None:
    b = e.b
    with e.loop(e.first, e.last) as row:
        x, out = e.row("x", row.index), e.row("out", row.index)
        mean = None
        if centred:
            number, squares = e.statistics(x)
            e.put(number, "mean", row.index)
            mean = e.splat(number)
        else:
            squares = e.squares(x, None)
        variance = b.fadd(b.fmul(squares, e.inverse), e.eps)
        rstd = b.fdiv(ir.Constant(variance.type, 1.0), e.intrinsic("llvm.sqrt.f32", variance.type, [variance]))
        e.put(rstd, "rstd", row.index)
        factor = e.splat(rstd)

        def body(columns: Columns, sums: list[Any]) -> list[Any]:
            v = columns.load(x)
            v = b.fmul(v if mean is None else b.fsub(v, mean), factor)
            if scaled and shifted:
                v = e.fma(v, columns.load(e.a["w"]), columns.load(e.a["b"]))
            elif scaled:
                v = b.fmul(v, columns.load(e.a["w"]))
            elif shifted:
                v = b.fadd(v, columns.load(e.a["b"]))
            columns.store(v, out)
            return sums

        e.sweep(body)


def _backward(e: _Rows, centred: bool, scaled: bool, for_x: bool, for_w: bool, for_b: bool) -> None:
    """The sums over rows of a chunk are added to row `thread` of gw and gb."""
    b = e.b
    gw, gb = e.row("gw", e.thread), e.row("gb", e.thread)

    def some(first: Any, count: int) -> None:
        rows = [e.add(first, r) for r in range(count)]
        g, x = ([e.row(f, r) for r in rows] for f in ("g", "x"))
        means = [e.one("mean", r) for r in rows] if centred else []
        rstds = [e.one("rstd", r) for r in rows]

        def read(columns: Columns, r: int) -> tuple[Any, Any]:
            d = columns.load(x[r])
            return columns.load(g[r]), b.fsub(d, means[r]) if centred else d

        def collect(columns: Columns, sums: list[Any]) -> list[Any]:
            w = columns.load(e.a["w"]) if scaled else None
            into_w = columns.load(gw) if for_w else None
            into_b = columns.load(gb) if for_b else None
            sums = list(sums)
            for r in range(count):
                u, d = read(columns, r)
                if for_w:
                    into_w = e.fma(b.fmul(u, rstds[r]), d, into_w)
                if for_b:
                    into_b = b.fadd(into_b, u)
                if for_x:
                    k = b.fmul(u, w) if scaled else u
                    sums[r] = e.fma(k, d, sums[r])  # k is zero where the mask ends
                    if centred:
                        sums[count + r] = b.fadd(sums[count + r], k)
            if for_w:
                columns.store(into_w, gw)
            if for_b:
                columns.store(into_b, gb)
            return sums

        sums = e.sweep(collect, count * (1 + centred) if for_x else 0, 1)
        if not for_x:
            return
        gx = [e.row("gx", r) for r in rows]
        slopes, constants = [], []
        for r in range(count):
            slope = b.fmul(e.splat(b.fneg(b.fmul(e.across(sums[r]), e.inverse))), b.fmul(rstds[r], rstds[r]))
            slopes.append(b.fmul(slope, rstds[r]))
            if centred:
                constants.append(b.fmul(e.splat(b.fneg(b.fmul(e.across(sums[count + r]), e.inverse))), rstds[r]))

        def spread(columns: Columns, sums: list[Any]) -> list[Any]:
            w = columns.load(e.a["w"]) if scaled else None
            for r in range(count):
                u, d = read(columns, r)
                other = e.fma(d, slopes[r], constants[r]) if centred else b.fmul(d, slopes[r])
                columns.store(e.fma(b.fmul(u, w) if scaled else u, rstds[r], other), gx[r])
            return sums

        e.sweep(spread, 0, 1)

    count = b.sub(e.last, e.first)
    middle = e.add(e.first, b.and_(count, e.i(-_ROWS)))
    with e.loop(e.first, middle, step=_ROWS) as row:
        some(row.index, _ROWS)
    with e.loop(middle, e.last) as row:
        some(row.index, 1)


def _moments(e: _Rows) -> None:
    with e.loop(e.first, e.last) as row:
        for value, field in zip(e.statistics(e.row("x", row.index)), ("mean", "squares")):
            e.put(value, field, row.index)


def _sums(e: _Rows) -> None:
    with e.loop(e.first, e.last) as row:
        sums = e.both_sums(e.row("g", row.index), e.row("x", row.index), e.one("shift", row.index))
        for total, field in zip(sums, ("first", "second")):
            e.put(total, field, row.index)


def _apply(e: _Rows, sloped: bool, shifted: bool) -> None:
    with e.loop(e.first, e.last) as row:
        g, x, out = (e.row(f, row.index) for f in ("g", "x", "out"))
        factor = e.one("a", row.index)
        slope = e.one("slope", row.index) if sloped else None
        constant = e.one("constant", row.index) if shifted else None

        def body(columns: Columns, sums: list[Any]) -> list[Any]:
            v = columns.load(g)
            v = e.fma(v, factor, constant) if shifted else e.b.fmul(v, factor)
            columns.store(e.fma(columns.load(x), slope, v) if sloped else v, out)
            return sums

        e.sweep(body)


class _Unit:
    """Rows with common statistics: `count` of them, `row_step` apart, of which `channels` have factors of their own.

    They lie in memory as `spans` of `span` numbers: one where the rows are neighbours, else the rows.
    """

    def __init__(self, e: _Rows, unit: Any) -> None:
        self.e, self.unit, self.first = e, unit, e.mul(unit, e.a["unit_step"])

    @contextmanager
    def each(self, *carried: Any) -> Iterator[Any]:
        """The rows one after another; `state.row` is the row's number, `state.channel` that of its factors."""
        e = self.e
        with e.loop(e.i(0), e.a["count"], list(carried)) as state:
            state.row = e.add(self.first, e.mul(state.index, e.a["row_step"]))
            state.channel = e.b.srem(state.row, e.a["channels"])
            yield state

    @contextmanager
    def each_span(self, *carried: Any) -> Iterator[Any]:
        """The spans one after another; `state.span` is the span's number, `state.row` that of its first row."""
        e = self.e
        with e.loop(e.i(0), e.a["spans"], list(carried)) as state:
            state.span = e.add(e.mul(self.unit, e.a["spans"]), state.index)
            state.row = e.add(self.first, e.mul(state.index, e.a["row_step"]))
            yield state

    def read(self, field: str, i: Any) -> Any:
        return self.e.number(self.e.at(self.e.a[field], i))


def _unit_forward(e: _Rows) -> None:
    b = e.b
    zero = ir.Constant(e.real, 0.0)
    span = b.sitofp(e.a["span"], e.real)
    with e.loop(e.first, e.last) as each:
        unit = _Unit(e, each.index)
        with unit.each_span(zero) as turn:
            mean, squares = e.statistics(e.row("x", turn.row), e.a["span"], e.given(2))
            e.put(mean, "span_mean", turn.span)
            e.put(squares, "span_squares", turn.span)
            turn.values[0] = b.fadd(turn.values[0], mean)
        mean = b.fmul(turn.values[0], e.given(3))
        with unit.each_span(zero) as turn:  # Chan's formula
            d = b.fsub(unit.read("span_mean", turn.span), mean)
            more = b.fadd(unit.read("span_squares", turn.span), b.fmul(span, b.fmul(d, d)))
            turn.values[0] = b.fadd(turn.values[0], more)
        var = b.fmul(turn.values[0], e.given(4))
        root = e.intrinsic("llvm.sqrt.f32", e.real, [b.fadd(var, e.eps)])
        rstd = b.fdiv(ir.Constant(e.real, 1.0), root)
        for value, field in ((mean, "mean"), (var, "var"), (rstd, "rstd")):
            e.put(value, field, each.index)
        with unit.each() as turn:
            factor = b.fmul(rstd, unit.read("w", turn.channel))
            shift = b.fsub(unit.read("b", turn.channel), b.fmul(factor, mean))
            a, constant = e.splat(factor), e.splat(shift)
            x, out = e.row("x", turn.row), e.row("out", turn.row)

            def body(columns: Columns, sums: list[Any]) -> list[Any]:
                columns.store(e.fma(columns.load(x), a, constant), out)
                return sums

            e.sweep(body)


def _unit_backward(e: _Rows, for_x: bool) -> None:
    b = e.b
    zero = ir.Constant(e.real, 0.0)
    with e.loop(e.first, e.last) as each:
        unit = _Unit(e, each.index)
        mean, rstd = unit.read("mean", each.index), unit.read("rstd", each.index)
        with unit.each(zero, zero) as turn:
            w = unit.read("w", turn.channel)
            sums = e.both_sums(e.row("g", turn.row), e.row("x", turn.row), e.splat(mean))
            for i, field in enumerate(("first", "second")):
                e.put(sums[i], field, turn.row)
                turn.values[i] = b.fadd(turn.values[i], b.fmul(w, sums[i]))
        if for_x:
            _unit_spread(e, unit, mean, rstd, turn.values)


def _unit_spread(e: _Rows, unit: _Unit, mean: Any, rstd: Any, sums: list[Any]) -> None:
    """The gradient of x from the sums over the unit of w g and w g (x - mean)."""
    b = e.b
    k1, k2 = (b.fmul(total, e.given(4)) for total in sums)
    slope = b.fneg(b.fmul(b.fmul(b.fmul(rstd, rstd), rstd), k2))
    slopes, constant = e.splat(slope), e.splat(b.fneg(b.fadd(b.fmul(rstd, k1), b.fmul(slope, mean))))
    with unit.each() as turn:
        a = e.splat(b.fmul(rstd, unit.read("w", turn.channel)))
        g, x, gx = (e.row(f, turn.row) for f in ("g", "x", "gx"))

        def body(columns: Columns, sums: list[Any]) -> list[Any]:
            columns.store(e.fma(columns.load(x), slopes, e.fma(columns.load(g), a, constant)), gx)
            return sums

        e.sweep(body)


_KERNELS: dict[str, Callable[..., None]] = {
    "forward": _forward, "backward": _backward, "moments": _moments, "sums": _sums, "apply": _apply,
    "unit_forward": _unit_forward, "unit_backward": _unit_backward,
}  # fmt: skip
