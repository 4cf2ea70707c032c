"""LLVM IR of the passes of normalisation over float32 rows: Note [Compiled normalisation] in `norm_compiled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .rows_ir import Columns, Rows

__all__ = ["FIELDS", "build"]

# arguments of each kernel, 8 bytes each; after them the address of two numbers, 1 / size and eps, and `size`, `rows`
# and `chunk`
FIELDS = {
    "forward": ("x", "w", "b", "out", "mean", "rstd"),
    "backward": ("g", "x", "w", "mean", "rstd", "gx", "gw", "gb"),
    "moments": ("x", "mean", "squares"),
    "sums": ("g", "x", "shift", "first", "second"),
    "apply": ("g", "a", "x", "slope", "constant", "out"),
}
_ROWS = 4  # rows that backward takes together, so that the sums over rows pass through memory once for all of them


class _Rows(Rows):
    def __init__(self, name: str, fields: tuple[str, ...], lanes: int) -> None:
        super().__init__(name, (*fields, "numbers"), lanes)
        self.inverse, self.eps = self.number(self.a["numbers"]), self.number(self.add(self.a["numbers"], 4))

    def statistics(self, x: Any) -> tuple[Any, Any]:
        """Mean of the row at `x`, and the sum of squares about it."""
        (total,) = self.sweep(lambda c, s: [self.b.fadd(s[0], c.load(x))], 1)
        mean = self.b.fmul(self.across(total), self.inverse)
        return mean, self.squares(x, self.splat(mean))

    def squares(self, x: Any, mean: Any) -> Any:
        def body(columns: Columns, sums: list[Any]) -> list[Any]:
            d = columns.load(x)
            if mean is not None:
                d = columns.inside(self.b.fsub(d, mean))
            return [self.fma(d, d, sums[0])]

        return self.across(self.sweep(body, 1)[0])


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
        g, x, shift = e.row("g", row.index), e.row("x", row.index), e.one("shift", row.index)

        def body(columns: Columns, sums: list[Any]) -> list[Any]:
            u = columns.load(g)
            return [e.b.fadd(sums[0], u), e.fma(u, e.b.fsub(columns.load(x), shift), sums[1])]

        for total, field in zip(e.sweep(body, 2), ("first", "second")):
            e.put(e.across(total), field, row.index)


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


_KERNELS: dict[str, Callable[..., None]] = {
    "forward": _forward, "backward": _backward, "moments": _moments, "sums": _sums, "apply": _apply,
}  # fmt: skip
