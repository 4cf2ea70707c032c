"""LLVM IR of the passes of normalisation over float32 rows: Note [Compiled normalisation] in `norm_compiled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .ir import Emitter

__all__ = ["FIELDS", "build"]

# arguments of each kernel, 8 bytes each; after them `rows`, `size`, `chunk` and the address of two numbers,
# 1 / size and eps
FIELDS = {
    "forward": ("x", "w", "b", "out", "mean", "rstd"),
    "backward": ("g", "x", "w", "mean", "rstd", "gx", "gw", "gb"),
    "moments": ("x", "mean", "squares"),
    "sums": ("g", "x", "shift", "first", "second"),
    "apply": ("g", "a", "x", "slope", "constant", "out"),
}
_UNROLL = 4
_ROWS = 4  # rows that backward takes together, so that the sums over rows pass through memory once for all of them


class _Rows(Emitter):
    """A kernel over rows `thread * chunk` to `(thread + 1) * chunk`."""

    def __init__(self, name: str, fields: tuple[str, ...], lanes: int) -> None:
        super().__init__(name, (*fields, "rows", "size", "chunk", "numbers"), lanes)
        self.first = self.mul(self.a["chunk"], self.thread)
        self.last = self.least(self.add(self.first, self.a["chunk"]), self.a["rows"])
        self.inverse, self.eps = self.number(self.a["numbers"]), self.number(self.add(self.a["numbers"], 4))

    def row(self, field: str, row: Any) -> Any:
        return self.at(self.a[field], self.mul(row, self.a["size"]))

    def one(self, field: str, row: Any) -> Any:
        """The number of a row, in all lanes."""
        return self.splat(self.number(self.at(self.a[field], row)))

    def put(self, value: Any, field: str, row: Any) -> None:
        self.store(value, self.at(self.a[field], row))

    def sweep(self, body: _Body, sums: int = 0, unroll: int = _UNROLL) -> list[Any]:
        """Run `body` over all columns and return its `sums` sums, vectors; `body` adds to the values it is given."""
        totals: list[Any] = [self.const(0)] * (sums * unroll)
        main = self.b.and_(self.a["size"], self.i(-unroll * self.lanes))
        with self.loop(self.i(0), main, totals, step=unroll * self.lanes) as turn:
            for u in range(unroll):
                columns = _Columns(self, self.add(turn.index, u * self.lanes), None)
                turn.values[u::unroll] = body(columns, turn.values[u::unroll])
        totals = turn.values
        parts = []
        for s in range(sums):
            part = totals[s * unroll : (s + 1) * unroll]
            while len(part) > 1:
                part = [self.b.fadd(*part[i : i + 2]) for i in range(0, len(part), 2)]
            parts.append(part[0])
        with self.loop(main, self.a["size"], parts, step=self.lanes) as turn:
            columns = _Columns(self, turn.index, self.mask(self.b.sub(self.a["size"], turn.index)))
            turn.values[:] = body(columns, turn.values)
        return turn.values

    def across(self, vector: Any) -> Any:
        """The sum of a vector's lanes, by halves."""
        width = self.lanes
        while width > 1:
            width //= 2
            order = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes),
                                [(i + width) % self.lanes for i in range(self.lanes)])  # fmt: skip
            vector = self.b.fadd(vector, self.b.shuffle_vector(vector, vector, order))
        return self.b.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    def statistics(self, x: Any) -> tuple[Any, Any]:
        """Mean of the row at `x`, and the sum of squares about it."""
        (total,) = self.sweep(lambda c, s: [self.b.fadd(s[0], c.load(x))], 1)
        mean = self.b.fmul(self.across(total), self.inverse)
        return mean, self.squares(x, self.splat(mean))

    def squares(self, x: Any, mean: Any) -> Any:
        def body(columns: _Columns, sums: list[Any]) -> list[Any]:
            d = columns.load(x)
            if mean is not None:
                d = columns.inside(self.b.fsub(d, mean))
            return [self.fma(d, d, sums[0])]

        return self.across(self.sweep(body, 1)[0])


class _Columns:
    """A vector's worth of columns from `index` on, under a mask at the end of a row."""

    def __init__(self, e: _Rows, index: Any, mask: Any) -> None:
        self.e, self.index, self.mask = e, index, mask

    def load(self, base: Any) -> Any:
        place = self.e.at(base, self.index)
        return self.e.load(place) if self.mask is None else self.e.masked_load(place, self.mask)

    def store(self, value: Any, base: Any) -> None:
        place = self.e.at(base, self.index)
        if self.mask is None:
            self.e.store(value, place)
        else:
            self.e.masked_store(value, place, self.mask)

    def inside(self, value: Any) -> Any:
        return value if self.mask is None else self.e.b.select(self.mask, value, self.e.const(0))


_Body = Callable[[_Columns, list[Any]], list[Any]]


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

        def body(columns: _Columns, sums: list[Any]) -> list[Any]:
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

        def read(columns: _Columns, r: int) -> tuple[Any, Any]:
            d = columns.load(x[r])
            return columns.load(g[r]), b.fsub(d, means[r]) if centred else d

        def collect(columns: _Columns, sums: list[Any]) -> list[Any]:
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

        def spread(columns: _Columns, sums: list[Any]) -> list[Any]:
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

        def body(columns: _Columns, sums: list[Any]) -> list[Any]:
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

        def body(columns: _Columns, sums: list[Any]) -> list[Any]:
            v = columns.load(g)
            v = e.fma(v, factor, constant) if shifted else e.b.fmul(v, factor)
            columns.store(e.fma(columns.load(x), slope, v) if sloped else v, out)
            return sums

        e.sweep(body)


_KERNELS: dict[str, Callable[..., None]] = {
    "forward": _forward, "backward": _backward, "moments": _moments, "sums": _sums, "apply": _apply,
}  # fmt: skip
