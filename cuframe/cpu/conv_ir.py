"""LLVM IR of convolution without columns: Note [Compiled convolution] in `conv_compiled`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .ir import Emitter

__all__ = ["FIELDS", "ROWS", "build", "step"]

# arguments, 8 bytes each: addresses, and counts of float32 numbers
FIELDS = ("base", "base_step", "taps", "offsets", "matrix", "result", "rows", "row_step", "groups", "count")
ROWS = 4  # of a tile; as many taps in the gradient's


def step(lanes: int) -> int:
    """Positions of a tile: with 4 rows of them the sums fill half of the registers."""
    return lanes * (4 if lanes == 16 else 2)


def build(name: str, lanes: int) -> ir.Module:
    """The kernel "forward" or "gradient"."""
    e = Emitter(name, FIELDS, lanes)
    a = e.a
    whole = e.b.and_(a["rows"], e.i(-ROWS))
    with e.loop(e.i(0), a["groups"]) as group:
        base = e.at(a["base"], e.mul(group.index, a["base_step"]))
        if name == "forward":
            matrix = e.at(a["matrix"], e.mul(group.index, e.mul(a["rows"], a["taps"])))
            result = e.at(a["result"], e.mul(group.index, e.mul(a["rows"], a["row_step"])))
            with e.loop(e.i(0), a["count"], step=step(lanes)) as position:
                for start, stop, rows in ((e.i(0), whole, ROWS), (whole, a["rows"], 1)):
                    with e.loop(start, stop, step=rows) as row:
                        _products(e, e.at(base, position.index), matrix, result, row.index, position.index, rows)
        else:
            matrix = e.at(a["matrix"], e.mul(group.index, e.mul(a["rows"], a["row_step"])))
            result = e.at(a["result"], e.mul(group.index, e.mul(a["rows"], a["taps"])))
            full = e.b.and_(a["taps"], e.i(-ROWS))
            for start, stop, rows in ((e.i(0), whole, ROWS), (whole, a["rows"], 1)):
                with e.loop(start, stop, step=rows) as row:
                    for first, last, taps in ((e.i(0), full, ROWS), (full, a["taps"], 1)):
                        with e.loop(first, last, step=taps) as tap:
                            _sums(e, base, matrix, result, row.index, tap.index, rows, taps)
    e.b.ret_void()
    return e.module


def _offset(e: Emitter, tap: Any) -> Any:
    return e.index(e.add(e.a["offsets"], e.mul(tap, 8)))


def _products(e: Emitter, x: Any, weight: Any, result: Any, row: Any, position: Any, rows: int) -> None:
    """result[row + r, position + p] = sum over taps of weight * x[offset + p], for a tile of rows and positions."""
    width = step(e.lanes) // e.lanes
    place = e.at(weight, e.mul(row, e.a["taps"]))
    with e.loop(e.i(0), e.a["taps"], [e.const(0)] * (rows * width)) as tap:
        start = e.at(x, _offset(e, tap.index))
        values = [e.load(e.add(start, 4 * e.lanes * v)) for v in range(width)]
        for r in range(rows):
            factor = e.splat(e.number(e.at(place, e.add(e.mul(tap.index, rows), r))))
            for v in range(width):
                tap.values[r * width + v] = e.fma(factor, values[v], tap.values[r * width + v])
    for r in range(rows):
        target = e.at(result, e.mul(e.add(row, r), e.a["row_step"]), position)
        for v in range(width):
            e.store(tap.values[r * width + v], e.add(target, 4 * e.lanes * v))


def _sums(e: Emitter, base: Any, other: Any, result: Any, row: Any, tap: Any, rows: int, taps: int) -> None:
    """result[tap + t, row + r] += sum over positions of base[offset + p] * other[row + r, p], for a tile of both."""
    starts = [e.at(base, _offset(e, e.add(tap, t))) for t in range(taps)]
    lines = [e.at(other, e.mul(e.add(row, r), e.a["row_step"])) for r in range(rows)]
    whole = e.b.and_(e.a["count"], e.i(-e.lanes))
    sums: list[Any] = [e.const(0)] * (rows * taps)
    for first, last in ((e.i(0), whole), (whole, e.a["count"])):
        with e.loop(first, last, sums, step=e.lanes) as p:
            mask = None if last is whole else e.mask(e.b.sub(e.a["count"], p.index))
            factors = [_values(e, e.at(line, p.index), mask) for line in lines]
            for t, start in enumerate(starts):
                value = _values(e, e.at(start, p.index), mask)
                for r, factor in enumerate(factors):
                    p.values[t * rows + r] = e.fma(value, factor, p.values[t * rows + r])
        sums = p.values
    for t in range(taps):
        target = e.at(result, e.mul(e.add(tap, t), e.a["rows"]), row)
        for r in range(rows):
            place = e.add(target, 4 * r)
            e.store(e.b.fadd(e.number(place), _across(e, sums[t * rows + r])), place)


def _values(e: Emitter, address: Any, mask: Any) -> Any:
    # What is behind the last position may be the next group's, and NaN.
    return e.load(address) if mask is None else e.masked_load(address, mask)


def _across(e: Emitter, vector: Any) -> Any:
    """The sum of a vector's lanes, by halves."""
    width = e.lanes
    while width > 1:
        width //= 2
        vector = e.b.fadd(vector, e.shuffle(vector, vector, [(i + width) % e.lanes for i in range(e.lanes)]))
    return e.b.extract_element(vector, ir.Constant(ir.IntType(32), 0))
