"""LLVM IR of convolution without columns: Note [Compiled convolution] in `conv_compiled`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from .ir import Emitter

__all__ = ["BLOCK", "build", "build_collect", "build_pack", "build_sums", "heights"]

# Arguments, 8 bytes each: addresses, and counts and strides of float32 numbers. `_d`, `_h` and `_w` are dimensions.
FIELDS = (
    "src", "src_n", "src_c", "src_d", "src_h", "src_w", "size_d", "size_h", "size_w", "inside", "stride_d", "stride_h",
    "stride_w", "low_d", "low_h", "low_w", "region_d", "region_h", "region_w", "parts", "part_count", "blocks",
    "block_count", "region", "result", "pitch", "turned",
)  # fmt: skip
OWN = ("region", "result", "turned")  # of the thread
# one of several products over the same source
PART = (
    "taps", "offsets", "rows", "columns", "weight", "bias", "out", "out_n", "out_c", "out_d", "out_h", "out_w", "other",
    "other_n", "other_c", "other_d", "other_h", "other_w", "size_d", "size_h", "size_w", "total", "wide",
)  # fmt: skip
BLOCK = ("image", "group", "group_end", "start_d", "start_h", "start_w", "size_d", "size_h", "size_w")
# between a weight or its gradient, of any strides, and what the kernel reads or adds up
MOVE = (
    "weight", "weight_g", "weight_r", "weight_c", "weight_d", "weight_h", "weight_w", "groups", "rows", "first", "last",
    "inside", "taps_d", "taps_h", "taps_w", "packed", "columns", "shares", "share_step",
)  # fmt: skip
SUMS = ("x", "x_n", "x_c", "images", "count", "out", "first", "last")

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_WIDTHS = (3, 2, 1)  # vectors of positions in a tile
_TAPS, _NARROW = 6, 4  # taps in a tile of the gradient of a weight, with many rows and with few


def heights(lanes: int) -> tuple[int, ...]:
    """Rows of the weight in a tile: the tallest as long as they last, then the next."""
    return (8, 4, 1) if lanes == 16 else (4, 1)


def build(lanes: int) -> ir.Module:
    """The kernel "convolve": all parts of some blocks."""
    e = _Convolution(lanes)
    with e.loop(e.i(0), e.a["block_count"]) as number:
        block = e.fields(e.add(e.a["blocks"], e.mul(number.index, 8 * len(BLOCK))), BLOCK)
        with e.loop(block["group"], block["group_end"]) as group:
            e.fetch(block, group.index)
            with e.loop(e.i(0), e.a["part_count"]) as number:
                e.part(e.add(e.a["parts"], e.mul(number.index, 8 * len(PART))), block, group.index)
    e.b.ret_void()
    return e.module


def build_sums(lanes: int) -> ir.Module:
    """The kernel "sums": out[c] = sum over n and p of x[n, c, p]."""
    e = _Convolution(lanes, "sums", SUMS)
    a = e.a
    unrolled, whole = e.b.and_(a["count"], e.i(-4 * lanes)), e.b.and_(a["count"], e.i(-lanes))
    with e.loop(a["first"], a["last"]) as channel:
        with e.loop(e.i(0), a["images"], [e.const(0)] * 4) as image:
            x = e.at(a["x"], e.mul(image.index, a["x_n"]), e.mul(channel.index, a["x_c"]))
            with e.loop(e.i(0), unrolled, image.values, step=4 * lanes) as p:
                p.values = [e.b.fadd(v, e.load(e.at(x, p.index, e.i(u * lanes)))) for u, v in enumerate(p.values)]
            first, *rest = p.values
            with e.loop(unrolled, whole, [first], step=lanes) as p:
                p.values = [e.b.fadd(p.values[0], e.load(e.at(x, p.index)))]
            with e.loop(whole, a["count"], p.values, step=lanes) as p:
                p.values = [e.b.fadd(p.values[0], e.masked_load(e.at(x, p.index), e.below(p.index, a["count"])))]
            image.values = [*p.values, *rest]
        one, two, three, four = image.values
        e.store(e.across(e.b.fadd(e.b.fadd(one, two), e.b.fadd(three, four))), e.at(a["out"], channel.index))
    e.b.ret_void()
    return e.module


def build_pack(lanes: int) -> ir.Module:
    """The kernel "pack": a weight [groups, rows, inside, d, h, w] as tiles read it, the rows of one tap together."""
    e = _Convolution(lanes, "pack", MOVE)
    a, taps = e.a, e.taps_of()
    with e.loops(a["groups"]) as (group,):
        packed = e.at(a["packed"], e.mul(group, e.mul(a["rows"], e.mul(a["inside"], taps))))
        for first, last, height in e.ranges(a["rows"], heights(lanes)):
            mask = e.below(e.i(0), e.i(height))
            with e.loop(first, last, step=height) as row, e.weights(group, row.index) as (number, place):
                target = e.at(packed, e.mul(row.index, e.mul(a["inside"], taps)), e.mul(number, height))
                e.masked_store(e.get(place, a["weight_r"], mask), target, mask)
    e.b.ret_void()
    return e.module


def build_collect(lanes: int) -> ir.Module:
    """The kernel "collect": totals [shares, groups, taps, columns] added up into [groups, rows, inside, d, h, w]."""
    e = _Convolution(lanes, "collect", MOVE)
    a, taps = e.a, e.taps_of()
    with e.loops(a["groups"]) as (group,), e.loop(e.i(0), a["rows"], step=lanes) as row:
        mask = e.below(row.index, a["rows"])
        with e.weights(group, row.index) as (number, place):
            number = e.add(e.mul(group, e.mul(a["inside"], taps)), number)
            total = e.at(a["packed"], e.mul(number, a["columns"]), row.index)
            with e.loop(e.i(0), a["shares"], [e.const(0)]) as share:
                value = e.masked_load(e.at(total, e.mul(share.index, a["share_step"])), mask)
                share.values = [e.b.fadd(share.values[0], value)]
            e.put(share.values[0], place, a["weight_r"], mask)
    e.b.ret_void()
    return e.module


class _Convolution(Emitter):
    def __init__(self, lanes: int, name: str = "convolve", fields: tuple[str, ...] = FIELDS) -> None:
        super().__init__(name, fields, lanes, own=OWN if fields is FIELDS else ())

    # shorthands
    def fields(self, address: Any, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.index(self.add(address, 8 * j)) for j, name in enumerate(names)}

    def most(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed(">", x, y), x, y)

    @contextmanager
    def loops(self, *counts: Any) -> Iterator[list[Any]]:
        """Loops within each other; their indices."""
        if not counts:
            yield []
            return
        with self.loop(self.i(0), counts[0]) as outer, self.loops(*counts[1:]) as inner:
            yield [outer.index, *inner]

    def lanes_from(self, start: Any) -> Any:
        """start, start + 1, ... in 32 bits."""
        first = self.splat(self.b.trunc(start, _I32))
        return self.b.add(first, ir.Constant(self.ivec, list(range(self.lanes))))

    def below(self, start: Any, stop: Any) -> Any:
        """Which of the lanes from `start` are below `stop`."""
        return self.b.icmp_signed("<", self.lanes_from(start), self.splat(self.b.trunc(stop, _I32)))

    def _places(self, address: Any, step: Any) -> Any:
        kind = ir.VectorType(_I64, self.lanes)
        steps = self.b.mul(self.splat(self.mul(step, 4)), ir.Constant(kind, list(range(self.lanes))))
        return self.b.inttoptr(self.b.add(self.splat(address), steps), ir.VectorType(_F32.as_pointer(), self.lanes))

    def get(self, address: Any, step: Any, mask: Any) -> Any:
        """Numbers `step` apart, 0 where the mask is."""
        n = self.lanes
        return self.intrinsic(f"llvm.masked.gather.v{n}f32.v{n}p0", self.vec,
                              [self._places(address, step), ir.Constant(_I32, 4), mask, self.const(0)])  # fmt: skip

    def put(self, value: Any, address: Any, step: Any, mask: Any) -> None:
        n = self.lanes
        self.intrinsic(f"llvm.masked.scatter.v{n}f32.v{n}p0", ir.VoidType(),
                       [value, self._places(address, step), ir.Constant(_I32, 4), mask])  # fmt: skip

    def across(self, vector: Any) -> Any:
        """The sum of a vector's lanes, by halves."""
        width = self.lanes
        while width > 1:
            width //= 2
            turned = self.shuffle(vector, vector, [(i + width) % self.lanes for i in range(self.lanes)])
            vector = self.b.fadd(vector, turned)
        return self.b.extract_element(vector, ir.Constant(_I32, 0))

    # weights
    def taps_of(self) -> Any:
        """Taps of a channel, in the kernels that move weights."""
        return self.mul(self.mul(self.a["taps_d"], self.a["taps_h"]), self.a["taps_w"])

    @contextmanager
    def weights(self, group: Any, row: Any) -> Iterator[tuple[Any, Any]]:
        """All taps of the channels from `first` to `last`: their numbers, and where they are in the row of a weight."""
        a = self.a
        start = self.at(a["weight"], self.mul(group, a["weight_g"]), self.mul(row, a["weight_r"]))
        with self.loop(a["first"], a["last"]) as c, self.loops(*(a[f"taps_{x}"] for x in "dhw")) as taps:
            number = c.index
            for x, tap in zip("dhw", taps):
                number = self.add(self.mul(number, a[f"taps_{x}"]), tap)
            steps = [self.mul(i, a[f"weight_{x}"]) for x, i in zip("cdhw", (c.index, *taps))]
            yield number, self.at(start, *steps)

    # copies
    def line(self, target: Any, length: Any, first: Any, last: Any, source: Any, step: Any) -> None:
        """target[i] = source[i * step] for first <= i < last, and 0 else; up to `length` and to a whole vector."""
        near = self.b.icmp_signed("==", step, self.i(1))
        low, high = (self.splat(self.b.trunc(v, _I32)) for v in (first, last))
        for condition in (near, self.b.not_(near)):
            with self.b.if_then(condition), self.loop(self.i(0), length, step=self.lanes) as v:
                i = self.lanes_from(v.index)
                mask = self.b.and_(self.b.icmp_signed(">=", i, low), self.b.icmp_signed("<", i, high))
                if condition is near:
                    value = self.masked_load(self.at(source, v.index), mask)
                else:
                    value = self.get(self.at(source, self.mul(v.index, step)), step, mask)
                self.store(value, self.at(target, v.index))

    def fetch(self, block: dict[str, Any], group: Any) -> None:
        """Into `region` [inside, *stride, *region]: what the windows of a block reach over, cut by residues."""
        a, b = self.a, self.b
        begin = [self.add(self.mul(block[f"start_{x}"], a[f"stride_{x}"]), a[f"low_{x}"]) for x in "dhw"]
        strides, shape = ([a[f"{name}_{x}"] for x in "dhw"] for name in ("stride", "region"))
        plane = self.mul(shape[1], shape[2])
        with self.loops(a["inside"], *strides) as (c, *phase):
            source = self.at(a["src"], self.mul(block["image"], a["src_n"]),
                             self.mul(self.add(self.mul(group, a["inside"]), c), a["src_c"]))  # fmt: skip
            number = c
            for p, stride in zip(phase, strides):
                number = self.add(self.mul(number, stride), p)
            target = self.at(a["region"], self.mul(number, self.mul(shape[0], plane)))
            start = [self.add(x, p) for x, p in zip(begin, phase)]

            def held(end: Any) -> Any:
                """The first place of a line that is not before `end` of the source."""
                left = self.most(b.sub(end, start[2]), self.i(0))
                return self.least(b.udiv(b.sub(self.add(left, strides[2]), self.i(1)), strides[2]), shape[2])

            first, last = held(self.i(0)), held(a["size_w"])
            with self.loops(*shape[:2]) as rest:
                d, h = (self.add(x, self.mul(i, s)) for x, i, s in zip(start, rest, strides))
                there = b.and_(b.icmp_unsigned("<", d, a["size_d"]), b.icmp_unsigned("<", h, a["size_h"]))
                self.line(
                    self.at(target, self.mul(rest[0], plane), self.mul(rest[1], shape[2])), shape[2], first,
                    self.either(there, last, 0),
                    self.at(source, self.mul(d, a["src_d"]), self.mul(h, a["src_h"]), self.mul(start[2], a["src_w"])),
                    self.mul(strides[2], a["src_w"]),
                )  # fmt: skip

    # one part
    def part(self, address: Any, block: dict[str, Any], group: Any) -> None:
        p, b, zero = self.fields(address, PART), self.b, self.i(0)
        size = [self.most(self.least(block[f"size_{x}"], b.sub(p[f"size_{x}"], block[f"start_{x}"])), zero)
                for x in "dhw"]  # fmt: skip
        count = self.i(1)
        for s in size:
            count = self.mul(count, s)
        with b.if_then(b.icmp_signed(">", count, zero)):
            with b.if_then(b.icmp_signed("!=", p["out"], zero)):
                self.products(p, group, size)
                self.write(p, block, group, size)
            with b.if_then(b.icmp_signed("!=", p["other"], zero)):
                total = self.at(p["total"], self.mul(group, self.mul(p["taps"], p["columns"])))
                wide = b.icmp_signed("!=", p["wide"], zero)
                for condition in (wide, b.not_(wide)):
                    with b.if_then(condition):
                        self.read(p, block, group, size, condition is wide)
                        if condition is wide:
                            self.turn_all(p, count)
                            self.sums_wide(p, total, size)
                        else:
                            self.sums_narrow(p, total, self.run(size))

    def run(self, size: list[Any]) -> Any:
        """Numbers from the first to the last position of a block, where lines of the region follow each other."""
        a = self.a
        before = self.mul(self.add(self.mul(self.b.sub(size[0], self.i(1)), a["region_h"]), size[1], -1), a["region_w"])
        return self.add(before, size[2])

    def offset(self, p: dict[str, Any], tap: Any) -> Any:
        return self.index(self.add(p["offsets"], self.mul(tap, 8)))

    def products(self, p: dict[str, Any], group: Any, size: list[Any]) -> None:
        """result[r, i] = sum over taps of weight[r, tap] region[offset + i]."""
        vectors = self.b.sdiv(self.add(self.run(size), self.lanes - 1), self.i(self.lanes))
        weight = self.at(p["weight"], self.mul(group, self.mul(p["rows"], p["taps"])))
        for first, last, width in self.ranges(vectors, _WIDTHS):
            with self.loop(first, last, step=width) as v:
                place = self.mul(v.index, self.lanes)
                for start, stop, height in self.ranges(p["rows"], heights(self.lanes)):
                    with self.loop(start, stop, step=height) as row:
                        self.tile(p, weight, place, row.index, width, height)

    def ranges(self, count: Any, sizes: tuple[int, ...]) -> Iterator[tuple[Any, Any, int]]:
        """`count` things as tiles of sizes that become smaller: first, last and size."""
        first = self.i(0)
        for size in sizes:
            last = self.add(first, self.mul(self.b.sdiv(self.b.sub(count, first), self.i(size)), size))
            yield first, last, size
            first = last

    def tile(self, p: dict[str, Any], weight: Any, place: Any, row: Any, width: int, height: int) -> None:
        a = self.a
        x, w = self.at(a["region"], place), self.at(weight, self.mul(row, p["taps"]))
        with self.loop(self.i(0), p["taps"], [self.const(0)] * (height * width)) as tap:
            start = self.at(x, self.offset(p, tap.index))
            values = [self.load(self.add(start, 4 * self.lanes * v)) for v in range(width)]
            for r in range(height):
                factor = self.splat(self.number(self.at(w, self.mul(tap.index, height), self.i(r))))
                for v in range(width):
                    tap.values[r * width + v] = self.fma(factor, values[v], tap.values[r * width + v])
        for r in range(height):
            target = self.at(a["result"], self.mul(self.add(row, r), a["pitch"]), place)
            for v in range(width):
                self.store(tap.values[r * width + v], self.add(target, 4 * self.lanes * v))

    def places(self, p: dict[str, Any], name: str, block: dict[str, Any], channel: Any, d: Any, h: Any) -> Any:
        """Where the line of a channel of a block begins in `out` or `other`."""
        index = {"n": block["image"], "c": channel, "d": self.add(block["start_d"], d),
                 "h": self.add(block["start_h"], h), "w": block["start_w"]}  # fmt: skip
        return self.at(p[name], *(self.mul(i, p[f"{name}_{x}"]) for x, i in index.items()))

    def write(self, p: dict[str, Any], block: dict[str, Any], group: Any, size: list[Any]) -> None:
        """The result and the bias into `out`."""
        a, step = self.a, p["out_w"]
        near = self.b.icmp_signed("==", step, self.i(1))
        with self.loops(p["rows"], size[0], size[1]) as (row, d, h):
            channel = self.add(self.mul(group, p["rows"]), row)
            bias = self.splat(self.number(self.at(p["bias"], channel)))
            source = self.at(a["result"], self.mul(row, a["pitch"]),
                             self.mul(self.add(self.mul(d, a["region_h"]), h), a["region_w"]))  # fmt: skip
            target = self.places(p, "out", block, channel, d, h)
            for condition in (near, self.b.not_(near)):
                with self.b.if_then(condition), self.loop(self.i(0), size[2], step=self.lanes) as v:
                    value = self.b.fadd(self.load(self.at(source, v.index)), bias)
                    mask = self.below(v.index, size[2])
                    if condition is near:
                        self.masked_store(value, self.at(target, v.index), mask)
                    else:
                        self.put(value, self.at(target, self.mul(v.index, step)), step, mask)

    def read(self, p: dict[str, Any], block: dict[str, Any], group: Any, size: list[Any], wide: bool) -> None:
        """`other` into `result`: position behind position if wide, else as in the region, with zeros between lines."""
        a, b = self.a, self.b
        length = size[2] if wide else a["region_w"]
        several = b.icmp_signed(">", size[0], self.i(1))
        lines = size[1] if wide else self.either(several, a["region_h"], size[1])
        with self.loops(p["rows"], size[0], lines) as (row, d, h):
            channel = self.add(self.mul(group, p["rows"]), row)
            there = b.icmp_signed("<", h, size[1])
            target = self.at(a["result"], self.mul(row, a["pitch"]), self.mul(self.add(self.mul(d, lines), h), length))
            self.line(target, length, self.i(0), self.either(there, size[2], 0),
                      self.places(p, "other", block, channel, d, h), p["other_w"])  # fmt: skip

    def turn_all(self, p: dict[str, Any], count: Any) -> None:
        """turned[i, r] = result[r, i]; what is beyond the last row or position is of no account."""
        a, n = self.a, self.lanes
        with self.loop(self.i(0), p["columns"], step=n) as row, self.loop(self.i(0), count, step=n) as place:
            lines = [self.at(a["result"], self.mul(self.add(row.index, r), a["pitch"])) for r in range(n)]
            square = self.transposed([self.load(self.at(line, place.index)) for line in lines])
            for i, column in enumerate(square):
                self.store(column, self.at(a["turned"], self.mul(self.add(place.index, i), p["columns"]), row.index))

    def sums_wide(self, p: dict[str, Any], total: Any, size: list[Any]) -> None:
        """total[t, r] += sum over positions of region[offset + place] turned[i, r]: lanes are rows."""
        vectors = self.b.sdiv(p["columns"], self.i(self.lanes))
        for first, last, width in self.ranges(vectors, (4, 2, 1)):
            with self.loop(first, last, step=width) as v:
                row = self.mul(v.index, self.lanes)
                for start, stop, taps in self.ranges(p["taps"], (_TAPS, 1)):
                    with self.loop(start, stop, step=taps) as tap:
                        self.sum_tile(p, total, size, row, tap.index, width, taps)

    def sum_tile(
        self, p: dict[str, Any], total: Any, size: list[Any], row: Any, tap: Any, width: int, taps: int
    ) -> None:
        a = self.a
        starts = [self.at(a["region"], self.offset(p, self.add(tap, t))) for t in range(taps)]
        with self.loop(self.i(0), size[0], [self.const(0)] * (taps * width)) as d:
            with self.loop(self.i(0), size[1], d.values) as h:
                line = self.mul(self.add(self.mul(d.index, size[1]), h.index), size[2])
                turned = self.at(a["turned"], self.mul(line, p["columns"]), row)
                place = self.mul(self.add(self.mul(d.index, a["region_h"]), h.index), a["region_w"])
                with self.loop(self.i(0), size[2], h.values) as w:
                    column = self.at(turned, self.mul(w.index, p["columns"]))
                    values = [self.load(self.add(column, 4 * self.lanes * v)) for v in range(width)]
                    for t, start in enumerate(starts):
                        factor = self.splat(self.number(self.at(start, place, w.index)))
                        for v in range(width):
                            w.values[t * width + v] = self.fma(factor, values[v], w.values[t * width + v])
                h.values = w.values
            d.values = h.values
        for t in range(taps):
            target = self.at(total, self.mul(self.add(tap, t), p["columns"]), row)
            for v in range(width):
                at = self.add(target, 4 * self.lanes * v)
                self.store(self.b.fadd(self.load(at), d.values[t * width + v]), at)

    def sums_narrow(self, p: dict[str, Any], total: Any, count: Any) -> None:
        """The same where rows are too few to fill lanes: lanes are positions."""
        for first, last, rows in self.ranges(p["rows"], (_NARROW, 1)):
            with self.loop(first, last, step=rows) as row:
                for start, stop, taps in self.ranges(p["taps"], (_NARROW, 1)):
                    with self.loop(start, stop, step=taps) as tap:
                        self.narrow_tile(p, total, count, row.index, tap.index, rows, taps)

    def narrow_tile(
        self, p: dict[str, Any], total: Any, count: Any, row: Any, tap: Any, rows: int, taps: int
    ) -> None:
        a = self.a
        starts = [self.at(a["region"], self.offset(p, self.add(tap, t))) for t in range(taps)]
        lines = [self.at(a["result"], self.mul(self.add(row, r), a["pitch"])) for r in range(rows)]
        whole = self.b.and_(count, self.i(-self.lanes))
        sums: list[Any] = [self.const(0)] * (rows * taps)
        for first, last in ((self.i(0), whole), (whole, count)):
            with self.loop(first, last, sums, step=self.lanes) as i:
                # What is behind the last position was another block's, and may be NaN.
                mask = None if last is whole else self.below(i.index, count)
                take = self.load if mask is None else lambda at, mask=mask: self.masked_load(at, mask)
                factors = [take(self.at(line, i.index)) for line in lines]
                for t, start in enumerate(starts):
                    value = take(self.at(start, i.index))
                    for r, factor in enumerate(factors):
                        i.values[t * rows + r] = self.fma(value, factor, i.values[t * rows + r])
            sums = i.values
        for t in range(taps):
            target = self.at(total, self.mul(self.add(tap, t), p["columns"]), row)
            for r in range(rows):
                at = self.add(target, 4 * r)
                self.store(self.b.fadd(self.number(at), self.across(sums[t * rows + r])), at)
