"""LLVM IR of attention, forward and backward: Note [Compiled attention] in `attention_compiled`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from .ir import Emitter

__all__ = ["FIELDS", "KEYS", "ROWS", "ROWS_BACK", "SIZE", "STRIDE", "build", "scratch", "tile"]

KEYS = 256  # of a block
ROWS = 256  # of queries in a call of forward
ROWS_BACK = 64  # of queries in a block of backward
SIZE = 256  # the widest head
STRIDE = SIZE + 16  # of rows that tiles take as numbers; a power of two would put them all into one set of the cache
_UNROLL = 4

# arguments, 8 bytes each. Addresses: tables of one address for each head, of one number for each row of all heads;
# places in the thread's scratch; strides of rows in float32, those of mask and kept in bytes; counts.
_COMMON = (
    "q", "k", "v", "out", "q_step", "k_step", "v_step", "out_step", "rows", "keys", "size", "width", "causal",
    "mask", "mask_step", "kept", "kept_step", "numbers", "left", "across",
)  # fmt: skip
FIELDS = {
    "forward": (*_COMMON, "heads", "blocks", "total", "top", "scores", "values", "result", "sums", "tops"),
    "backward": (
        *_COMMON, "g", "gq", "gk", "gv", "g_step", "gq_step", "gk_step", "gv_step", "lse", "first", "last", "fresh",
        "right", "across_v", "below_k", "below_q", "below_g", "p", "ds", "dk", "dv",
    ),
}  # fmt: skip


_OWN = frozenset((
    "left", "right", "across", "across_v", "below_k", "below_q", "below_g", "values", "scores", "result", "sums",
    "tops", "p", "ds", "dk", "dv",
))  # fmt: skip


def tile(lanes: int) -> tuple[int, int]:
    """Rows and columns of a tile: its sums fill half of the registers."""
    return (8, 32) if lanes == 16 else (4, 16)


def scratch(kind: str, size: int, width: int, lanes: int) -> dict[str, int]:
    """How many float32 numbers a thread needs for each of the kernel's arrays: whole lines of the cache."""
    tall, wide = tile(lanes)
    e, d = (-(-x // wide) * wide for x in (size, width))
    if kind == "forward":
        return {"left": tall * STRIDE, "across": KEYS * e, "values": KEYS * d, "scores": tall * STRIDE,
                "result": ROWS * d, "sums": ROWS * lanes, "tops": ROWS + lanes}  # fmt: skip
    return {"left": tall * STRIDE, "right": tall * STRIDE, "across": KEYS * e, "across_v": KEYS * d,
            "below_k": KEYS * e, "below_q": ROWS_BACK * e, "below_g": ROWS_BACK * d, "p": ROWS_BACK * STRIDE,
            "ds": ROWS_BACK * STRIDE, "dk": KEYS * e, "dv": KEYS * d}  # fmt: skip


def build(kind: str, name: str, lanes: int, mask: str, dropout: bool) -> ir.Module:
    """The kernel `kind`; the mask is "" for none, "bool" or "float"."""
    e = _Attention(name, FIELDS[kind], lanes, mask, dropout)
    (_forward if kind == "forward" else _backward)(e)
    e.b.ret_void()
    return e.module


class _Attention(Emitter):
    """What both directions share. `tall` rows by `wide` columns are a tile; `scale` and `keep` are numbers."""

    def __init__(self, name: str, fields: tuple[str, ...], lanes: int, mask: str, dropout: bool) -> None:
        super().__init__(name, fields, lanes, own=[f for f in fields if f in _OWN])
        self.kind, self.dropout = mask, dropout
        self.tall, self.wide = tile(lanes)
        self.scale, self.keep = (self.number(self.add(self.a["numbers"], 4 * i)) for i in range(2))
        self.size, self.width = (self.up(self.a[f], self.wide) for f in ("size", "width"))

    def most(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed(">", x, y), x, y)

    def up(self, count: Any, step: int) -> Any:
        """A multiple of `step`, a power of two."""
        return self.b.and_(self.add(count, step - 1), self.i(-step))

    def head(self, field: str, head: Any) -> Any:
        return self.index(self.add(self.a[field], self.mul(head, 8)))

    def seen(self, row: Any) -> Any:
        """Keys that row number `row` of a head sees: those below this number."""
        causal = self.b.icmp_signed("!=", self.a["causal"], self.i(0))
        return self.either(causal, self.least(self.a["keys"], self.add(row, 1)), self.a["keys"])

    def multiply(self, sums: list[Any], left: Any, row: int, step: int, right: Any, count: Any) -> list[Any]:
        """sums[r, c] += sum over k < count of left[r * row + k * step] * right[k * wide + c]; count divides by 4."""
        b, two = self.b, range(self.wide // self.lanes)
        with self.loop(self.i(0), count, [*sums, left, right], step=_UNROLL) as turn:
            numbers, vectors = turn.values[-2:]
            for k in range(_UNROLL):
                across = [self.load(self.add(vectors, 4 * (k * self.wide + c * self.lanes))) for c in two]
                for r in range(self.tall):
                    factor = self.splat(self.number(self.add(numbers, 4 * (r * row + k * step))))
                    for c in two:
                        j = r * len(two) + c
                        turn.values[j] = self.fma(factor, across[c], turn.values[j])
            turn.values[-2:] = [b.add(numbers, self.i(4 * _UNROLL * step)),
                                b.add(vectors, self.i(4 * _UNROLL * self.wide))]  # fmt: skip
        return turn.values[:-2]

    def zeros(self) -> list[Any]:
        return [self.const(0)] * (self.tall * self.wide // self.lanes)

    def turned(self, rows: Any, step: Any, count: Any, size: Any, to: Any) -> None:
        """`to` [panels, up(size), wide] from rows [count, size]: a panel holds columns of `wide` rows."""
        n = self.lanes
        with self.loop(self.i(0), self.up(count, self.wide), step=n) as row:
            panel = self.b.and_(row.index, self.i(-self.wide))
            place = self.add(self.mul(panel, self.up(size, n)), self.b.sub(row.index, panel))
            with self.loop(self.i(0), size, step=n) as column:
                self.turn(self.at(rows, self.mul(row.index, step), column.index), step,
                          self.at(to, place, self.mul(column.index, self.wide)), self.wide,
                          self.b.sub(size, column.index), self.b.sub(count, row.index), out=False)  # fmt: skip

    def panels(self, rows: Any, step: Any, count: Any, to_count: Any, size: Any, to: Any, height: int,
               factor: Any = None) -> None:  # fmt: skip
        """`to` [panels, height, wide] from rows [count, size], and zeros up to row `to_count`."""
        with self.loop(self.i(0), to_count) as row:
            inside = self.splat(self.b.icmp_signed("<", row.index, count))
            source = self.at(rows, self.mul(row.index, step))
            with self.loop(self.i(0), self.up(size, self.wide), step=self.lanes) as column:
                mask = self.b.and_(inside, self.mask(self.b.sub(size, column.index)))
                value = self.masked_load(self.at(source, column.index), mask)
                panel = self.b.and_(column.index, self.i(-self.wide))
                place = self.add(self.mul(panel, height), self.mul(row.index, self.wide))
                self.store(value if factor is None else self.b.fmul(value, factor),
                           self.at(to, place, self.b.sub(column.index, panel)))  # fmt: skip

    def numbers_of(self, rows: Any, step: Any, count: Any, size: Any, to: Any, factor: Any = None) -> None:
        """`to` [tall, STRIDE] from rows [count, size], zeros elsewhere up to a multiple of lanes."""
        for r in range(self.tall):
            inside = self.splat(self.b.icmp_signed(">", count, self.i(r)))
            with self.loop(self.i(0), size, step=self.lanes) as column:
                mask = self.b.and_(inside, self.mask(self.b.sub(size, column.index)))
                value = self.masked_load(self.at(rows, self.mul(step, r), column.index), mask)
                self.store(value if factor is None else self.b.fmul(value, factor),
                           self.at(to, self.i(r * STRIDE), column.index))  # fmt: skip

    def bytes_at(self, address: Any, left: Any) -> Any:
        """Which of `lanes` bytes are not zero; there are `left` of them."""
        n = self.lanes
        kind = ir.VectorType(ir.IntType(8), n)
        pointer = self.b.inttoptr(address, kind.as_pointer())
        nothing = ir.Constant(kind, [0] * n)
        args = [pointer, ir.Constant(ir.IntType(32), 1), self.mask(left), nothing]
        return self.b.icmp_signed("!=", self.intrinsic(f"llvm.masked.load.v{n}i8.p0", kind, args), nothing)

    def reduce(self, vector: Any, greatest: bool = False) -> Any:
        """The sum of a vector's lanes, or the greatest, in all lanes."""
        width = self.lanes
        while width > 1:
            width //= 2
            other = self.shuffle(vector, vector, [(i + width) % self.lanes for i in range(self.lanes)])
            vector = self.greater(vector, other) if greatest else self.b.fadd(vector, other)
        return vector

    def greater(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def power(self, x: Any) -> Any:
        """e**x, zero below -87."""
        return self.b.select(self.b.fcmp_unordered(">=", x, self.const(-87.0)), self.exp(x), self.const(0))

    def one(self, vector: Any, lane: int) -> Any:
        return self.shuffle(vector, vector, [lane] * self.lanes)

    def row_of(self, field: str, head: Any, row: Any) -> Any:
        """The address of a row of `mask` or `kept`; rows behind the last are the last."""
        row = self.least(row, self.add(self.a["rows"], -1))
        return self.add(self.head(field, head), self.mul(row, self.a[f"{field}_step"]))

    def edges(self, row: Any, start: Any) -> tuple[Any, Any, list[tuple[Any, Any, bool]]]:
        """For a group of rows and the block of keys from `start`: how many keys there are for any of them, up to a
        whole tile; and where tiles run that all rows see, and tiles with an edge."""
        last = self.least(self.b.sub(self.seen(self.add(row, self.tall - 1)), start), self.i(KEYS))
        some = self.up(self.most(last, self.i(0)), self.wide)
        whole = self.least(self.b.sub(self.seen(row), start), self.i(KEYS))
        whole = self.b.and_(self.most(whole, self.i(0)), self.i(-self.wide))
        return some, last, [(self.i(0), whole, False), (whole, some, True)]

    def hide(self, sums: list[Any], masks: list[Any], row: Any, key: Any, edge: bool, value: float) -> list[Any]:
        """`value` in the place of what a row does not see; a mask of numbers is added before."""
        sums, infinity = list(sums), self.const(value)
        for j in range(len(sums)):
            r, c = divmod(j, self.wide // self.lanes)
            at = self.add(key, c * self.lanes)
            if self.kind == "bool":
                shown = self.bytes_at(self.add(masks[r], at), self.b.sub(self.a["keys"], at))
                sums[j] = self.b.select(shown, sums[j], infinity)
            if edge:
                shown = self.mask(self.b.sub(self.seen(self.add(row, r)), at))
                sums[j] = self.b.select(shown, sums[j], infinity)
        return sums

    def added(self, sums: list[Any], masks: list[Any], key: Any) -> list[Any]:
        """Scores plus a mask of numbers."""
        if self.kind != "float":
            return sums
        result = []
        for j, value in enumerate(sums):
            r, c = divmod(j, self.wide // self.lanes)
            at = self.add(key, c * self.lanes)
            number = self.masked_load(self.at(masks[r], at), self.mask(self.b.sub(self.a["keys"], at)))
            result.append(self.b.fadd(value, number))
        return result

    def places(self, base: Any, column: Any, step: Any) -> list[Any]:
        """The addresses of a tile's vectors in an array with rows `step` apart."""
        step = self.i(step) if isinstance(step, int) else step
        return [self.at(base, self.mul(step, r), column, self.i(c)) for r in range(self.tall)
                for c in range(0, self.wide, self.lanes)]  # fmt: skip


def _forward(e: _Attention) -> None:
    """A call sees to ROWS rows of a head; those of the last block come first, since under `causal` they take longest.

    Scratch: left [tall, STRIDE] of queries, across and values panels of keys and values, scores [tall, STRIDE];
    and for each row result [ROWS, width], sums [ROWS, lanes], tops [ROWS].
    """
    a, b, tall, n = e.a, e.b, e.tall, e.lanes
    head = b.srem(e.thread, a["heads"])
    q, k, v, out = (e.head(f, head) for f in ("q", "k", "v", "out"))
    begin = e.mul(b.sub(e.add(a["blocks"], -1), b.sdiv(e.thread, a["heads"])), ROWS)
    end = e.least(e.add(begin, ROWS), a["rows"])
    groups = e.up(b.sub(end, begin), tall)
    infinite = e.const(float("-inf"))
    with e.loop(e.i(0), e.mul(groups, e.width), step=n) as place:
        e.store(e.const(0), e.at(a["result"], place.index))
    with e.loop(e.i(0), groups) as row:
        e.store(e.const(0), e.at(a["sums"], e.mul(row.index, n)))
    with e.loop(e.i(0), groups, step=n) as row:
        e.store(infinite, e.at(a["tops"], row.index))
    stop = e.seen(e.add(end, -1))
    with e.loop(e.i(0), stop, step=KEYS) as block:
        k0 = block.index
        count = e.least(b.sub(stop, k0), e.i(KEYS))
        e.turned(e.at(k, e.mul(k0, a["k_step"])), a["k_step"], count, a["size"], a["across"])
        e.panels(e.at(v, e.mul(k0, a["v_step"])), a["v_step"], count, e.up(count, e.wide), a["width"], a["values"],
                 KEYS)  # fmt: skip
        with e.loop(e.i(0), groups, step=tall) as group:
            row = e.add(begin, group.index)
            some, _, spans = e.edges(row, k0)
            with b.if_then(b.icmp_signed(">", some, e.i(0))):
                _forward_group(e, head, q, group.index, row, end, k0, some, spans)
    with e.loop(begin, end) as row:
        number = b.sub(row.index, begin)
        total = e.reduce(e.load(e.at(a["sums"], e.mul(number, n))))
        place = e.add(e.mul(head, a["rows"]), row.index)
        single = ir.Constant(ir.IntType(32), 0)
        e.store(b.extract_element(total, single), e.at(a["total"], place))
        e.store(e.number(e.at(a["tops"], number)), e.at(a["top"], place))
        factor = b.fdiv(e.splat(e.keep), total)
        factor = b.select(b.fcmp_ordered("==", total, e.const(0)), e.const(0), factor)
        target = e.at(out, e.mul(row.index, a["out_step"]))
        with e.loop(e.i(0), a["width"], step=n) as column:
            value = e.load(e.at(a["result"], e.mul(number, e.width), column.index))
            e.masked_store(b.fmul(value, factor), e.at(target, column.index), e.mask(b.sub(a["width"], column.index)))


def _forward_group(e: _Attention, head: Any, q: Any, place: Any, row: Any, end: Any, k0: Any, some: Any,
                   spans: Sequence[tuple[Any, Any, bool]]) -> None:  # fmt: skip
    """A few rows against a block of keys: scores, their maximum, exponentials, and those times values."""
    a, b, tall, wide, n = e.a, e.b, e.tall, e.wide, e.lanes
    two = wide // n
    e.numbers_of(e.at(q, e.mul(row, a["q_step"])), a["q_step"], b.sub(end, row), a["size"], a["left"],
                 e.splat(e.scale))  # fmt: skip
    masks = [e.row_of("mask", head, e.add(row, r)) for r in range(tall)] if e.kind else []
    depth, padded = e.up(a["size"], _UNROLL), e.up(a["size"], n)
    tops = [e.const(float("-inf"))] * tall
    for start, stop, edge in spans:
        with e.loop(start, stop, tops, step=wide) as t:
            s = e.multiply(e.zeros(), a["left"], STRIDE, 1, e.at(a["across"], e.mul(t.index, padded)), depth)
            s = e.hide(e.added(s, masks, e.add(k0, t.index)), masks, row, e.add(k0, t.index), edge, float("-inf"))
            for value, to in zip(s, e.places(a["scores"], t.index, STRIDE)):
                e.store(value, to)
            for j, value in enumerate(s):
                t.values[j // two] = e.greater(t.values[j // two], value)
        tops = t.values
    state = e.at(a["tops"], place)
    old = e.load(state)
    new = e.const(float("-inf"))
    for r, vector in enumerate(tops):
        only = ir.Constant(ir.VectorType(ir.IntType(1), n), [i == r for i in range(n)])
        new = b.select(only, e.reduce(vector, True), new)
    new = e.greater(old, new)
    # A row of -inf so far: nothing is subtracted, its exponentials are zero.
    shift = b.select(b.fcmp_ordered("==", new, e.const(float("-inf"))), e.const(0), new)
    fade = e.power(b.fsub(old, shift))
    e.masked_store(new, state, ir.Constant(ir.VectorType(ir.IntType(1), n), [i < tall for i in range(n)]))
    shifts, fades = [e.one(shift, r) for r in range(tall)], [e.one(fade, r) for r in range(tall)]
    totals = [e.at(a["sums"], e.mul(e.add(place, r), n)) for r in range(tall)]
    kept = [e.row_of("kept", head, e.add(row, r)) for r in range(tall)] if e.dropout else []
    with e.loop(e.i(0), some, [b.fmul(e.load(t), f) for t, f in zip(totals, fades)], step=n) as t:
        for r in range(tall):
            to = e.at(a["scores"], e.i(r * STRIDE), t.index)
            p = e.power(b.fsub(e.load(to), shifts[r]))
            t.values[r] = b.fadd(t.values[r], p)
            if e.dropout:
                at = e.add(k0, t.index)
                p = b.select(e.bytes_at(e.add(kept[r], at), b.sub(a["keys"], at)), p, e.const(0))
            e.store(p, to)
    for value, to in zip(t.values, totals):
        e.store(value, to)
    with e.loop(e.i(0), e.width, step=wide) as column:
        result = e.places(e.at(a["result"], e.mul(place, e.width)), column.index, e.width)
        sums = [b.fmul(e.load(at), fades[j // two]) for j, at in enumerate(result)]
        sums = e.multiply(sums, a["scores"], STRIDE, 1, e.at(a["values"], e.mul(column.index, KEYS)), some)
        for value, to in zip(sums, result):
            e.store(value, to)


def _backward(e: _Attention) -> None:
    """A call sees to rows `first` to `last` of head number `thread`; without `fresh` it adds to gk and gv.

    Scratch: left and right [tall, STRIDE] of queries and g; across, across_v and below_k panels of keys and values,
    below_q and below_g of queries and g; p and ds [ROWS_BACK, STRIDE]; dk [KEYS, size], dv [KEYS, width].
    """
    a, b, wide, head = e.a, e.b, e.wide, e.thread
    k, v = e.head("k", head), e.head("v", head)
    with e.loop(e.i(0), a["keys"], step=KEYS) as block:
        k0 = block.index
        count = e.least(b.sub(a["keys"], k0), e.i(KEYS))
        padded = e.up(count, wide)
        k_rows, v_rows = e.at(k, e.mul(k0, a["k_step"])), e.at(v, e.mul(k0, a["v_step"]))
        e.turned(k_rows, a["k_step"], count, a["size"], a["across"])
        e.turned(v_rows, a["v_step"], count, a["width"], a["across_v"])
        e.panels(k_rows, a["k_step"], count, padded, a["size"], a["below_k"], KEYS)
        for field, size in (("dk", e.size), ("dv", e.width)):
            with e.loop(e.i(0), e.mul(padded, size), step=e.lanes) as place:
                e.store(e.const(0), e.at(a[field], place.index))
        # Rows before the first key see none of these.
        ahead = e.most(b.sub(k0, a["first"]), e.i(0))
        ahead = e.either(b.icmp_signed("!=", a["causal"], e.i(0)), b.and_(ahead, e.i(-ROWS_BACK)), 0)
        with e.loop(e.add(a["first"], ahead), a["last"], step=ROWS_BACK) as rows:
            _backward_block(e, rows.index, k0, padded)
        for field, source, size, real in (("gk", "dk", e.size, a["size"]), ("gv", "dv", e.width, a["width"])):
            target = e.head(field, head)
            with e.loop(e.i(0), count) as row:
                line = e.at(target, e.mul(e.add(k0, row.index), a[f"{field}_step"]))
                with e.loop(e.i(0), real, step=e.lanes) as column:
                    mask = e.mask(b.sub(real, column.index))
                    fresh = e.splat(b.icmp_signed("!=", a["fresh"], e.i(0)))
                    to = e.at(line, column.index)
                    old = e.masked_load(to, b.and_(mask, b.not_(fresh)))
                    value = e.load(e.at(a[source], e.mul(row.index, size), column.index))
                    e.masked_store(b.fadd(old, value), to, mask)


def _backward_block(e: _Attention, q0: Any, k0: Any, padded: Any) -> None:
    """ROWS_BACK rows against a block of keys: p, ds, and what these give to the three gradients."""
    a, b, tall, wide, head = e.a, e.b, e.tall, e.wide, e.thread
    q, g = e.head("q", head), e.head("g", head)
    count = e.least(b.sub(a["last"], q0), e.i(ROWS_BACK))
    groups = e.up(count, tall)
    e.panels(e.at(q, e.mul(q0, a["q_step"])), a["q_step"], count, groups, a["size"], a["below_q"], ROWS_BACK,
             e.splat(e.scale))  # fmt: skip
    e.panels(e.at(g, e.mul(q0, a["g_step"])), a["g_step"], count, groups, a["width"], a["below_g"], ROWS_BACK)
    with e.loop(e.i(0), groups, step=tall) as group:
        row = e.add(q0, group.index)
        some, _, spans = e.edges(row, k0)
        with b.if_then(b.icmp_signed(">", some, e.i(0))):
            _backward_group(e, group.index, row, k0, some, spans)
    with e.loop(e.i(0), padded, step=tall) as key:
        causal = b.icmp_signed("!=", a["causal"], e.i(0))
        skipped = e.least(e.most(b.sub(e.add(k0, key.index), q0), e.i(0)), groups)
        skipped = e.either(causal, b.and_(skipped, e.i(-tall)), 0)
        left = e.at(e.mul(skipped, 4 * STRIDE), key.index)
        for target, size, factors, below in (("dv", e.width, "p", "below_g"), ("dk", e.size, "ds", "below_q")):
            with e.loop(e.i(0), size, step=wide) as column:
                result = e.places(e.at(a[target], e.mul(key.index, size)), column.index, size)
                right = e.at(a[below], e.mul(column.index, ROWS_BACK), e.mul(skipped, wide))
                sums = e.multiply([e.load(at) for at in result], e.add(a[factors], left), 1, STRIDE, right,
                                  b.sub(groups, skipped))  # fmt: skip
                for value, to in zip(sums, result):
                    e.store(value, to)


def _backward_group(e: _Attention, place: Any, row: Any, k0: Any, some: Any,
                    spans: Sequence[tuple[Any, Any, bool]]) -> None:  # fmt: skip
    """A few rows of p and ds, and their part of gq."""
    a, b, tall, wide, n, head = e.a, e.b, e.tall, e.wide, e.lanes, e.thread
    two = wide // n
    left = b.sub(a["last"], row)
    g_rows, out_rows = (e.at(e.head(f, head), e.mul(row, a[f"{f}_step"])) for f in ("g", "out"))
    e.numbers_of(e.at(e.head("q", head), e.mul(row, a["q_step"])), a["q_step"], left, a["size"], a["left"],
                 e.splat(e.scale))  # fmt: skip
    e.numbers_of(g_rows, a["g_step"], left, a["width"], a["right"])
    lses, deltas = [], []
    for r in range(tall):
        inside = b.icmp_signed(">", left, e.i(r))
        at = e.at(a["lse"], e.mul(head, a["rows"]), e.least(e.add(row, r), e.add(a["last"], -1)))
        # Rows that do not exist: all exponentials are zero.
        lses.append(e.splat(b.select(inside, e.number(at), ir.Constant(ir.FloatType(), 1e30))))
        with e.loop(e.i(0), a["width"], [e.const(0)], step=n) as column:
            mask = b.and_(e.mask(b.sub(a["width"], column.index)), e.splat(inside))
            value = e.masked_load(e.at(out_rows, e.mul(a["out_step"], r), column.index), mask)
            here = e.load(e.at(a["right"], e.i(r * STRIDE), column.index))
            column.values[0] = e.fma(value, here, column.values[0])
        deltas.append(e.reduce(column.values[0]))
    masks = [e.row_of("mask", head, e.add(row, r)) for r in range(tall)] if e.kind else []
    kept = [e.row_of("kept", head, e.add(row, r)) for r in range(tall)] if e.dropout else []
    p_rows, ds_rows = (e.at(a[f], e.mul(place, STRIDE)) for f in ("p", "ds"))
    for start, stop, edge in spans:
        with e.loop(start, stop, step=wide) as t:
            key = e.add(k0, t.index)
            to_p, to_ds = e.places(p_rows, t.index, STRIDE), e.places(ds_rows, t.index, STRIDE)
            right = e.at(a["across"], e.mul(t.index, e.up(a["size"], n)))
            s = e.added(e.multiply(e.zeros(), a["left"], STRIDE, 1, right, e.up(a["size"], _UNROLL)), masks, key)
            p = [e.power(b.fsub(value, lses[j // two])) for j, value in enumerate(s)]
            for value, to in zip(e.hide(p, masks, row, key, edge, 0.0), to_p):
                e.store(value, to)
            right = e.at(a["across_v"], e.mul(t.index, e.up(a["width"], n)))
            slopes = e.multiply(e.zeros(), a["right"], STRIDE, 1, right, e.up(a["width"], _UNROLL))
            for j, slope in enumerate(slopes):
                r, c = divmod(j, two)
                value = e.load(to_p[j])
                if e.dropout:
                    at = e.add(key, c * n)
                    shown = e.bytes_at(e.add(kept[r], at), b.sub(a["keys"], at))
                    weight = b.select(shown, e.splat(e.keep), e.const(0))
                    slope = b.fmul(slope, weight)
                    e.store(b.fmul(value, weight), to_p[j])
                e.store(b.fmul(value, b.fsub(slope, deltas[r])), to_ds[j])
    first = e.splat(b.icmp_signed("==", k0, e.i(0)))
    target = e.at(e.head("gq", head), e.mul(row, a["gq_step"]))
    with e.loop(e.i(0), e.size, step=wide) as column:
        right = e.at(a["below_k"], e.mul(column.index, KEYS))
        sums = e.multiply(e.zeros(), ds_rows, STRIDE, 1, right, some)
        for j, (value, to) in enumerate(zip(sums, e.places(target, column.index, a["gq_step"]))):
            r, c = divmod(j, two)
            mask = b.and_(e.mask(b.sub(a["size"], e.add(column.index, c * n))),
                          e.splat(b.icmp_signed(">", left, e.i(r))))  # fmt: skip
            old = e.masked_load(to, b.and_(mask, b.not_(first)))
            e.masked_store(e.fma(value, e.splat(e.scale), old), to, mask)
