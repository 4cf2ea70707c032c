"""LLVM IR of matrix products: Note [Compiled products] in `gemm`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .tiles_ir import Tiles

__all__ = ["DEPTH", "DEPTH_TURNED", "FEW", "FIELDS", "build", "scratch", "tall"]

# arguments, 8 bytes each: addresses, steps between rows and counts in float32; the last three are scratch
FIELDS = (
    "a", "a_step", "b", "b_step", "c", "c_step", "start", "rows", "columns", "depth", "chunk", "left", "across", "begin"
)  # fmt: skip
COLUMNS, DEPTH = 512, 256  # of the panels that lie in the second-level cache, at most
FEW, DEPTH_TURNED = 64, 512  # the same where c is turned
_TOGETHER = 8  # tiles for which columns of a are copied at once, since lines of the cache hold more than a tile's
_APART = DEPTH + 2  # of their rows: the last vector of a tile reaches beyond
_STEP = DEPTH_TURNED + 16  # of rows of numbers; a power of two would put them all into one set of the cache


def tall(lanes: int) -> int:
    """Rows of a tile: 24 of 32 registers are sums, or 12 of 16; no more than lanes."""
    return 12 if lanes == 16 else 6


def scratch(lanes: int) -> dict[str, int]:
    """How many numbers a thread needs."""
    return {"left": _TOGETHER * _APART * tall(lanes) + lanes, "across": COLUMNS * DEPTH, "begin": COLUMNS}


def build(name: str, lanes: int, a_rows: bool, b_rows: bool, turned: bool) -> ir.Module:
    """c [rows, columns] = a b + start, with a [rows, depth] and b [depth, columns].

    a_rows: rows of a lie in memory one after another, not columns; b_rows likewise. `start` is a row, to be added to
    all; with `turned` it is a column, columns of c, at most FEW, lie in memory one after another, and depth is at most
    `chunk`.
    """
    e = Tiles(name, FIELDS, lanes, tall(lanes), FIELDS[-3:])
    a, b = e.a, e.b
    with e.loop(e.i(0), a["columns"], step=COLUMNS) as block:
        first = block.index
        columns = e.least(e.i(COLUMNS), b.sub(a["columns"], first))
        if not turned:
            with e.loop(e.i(0), columns, step=lanes) as column:
                value = e.masked_load(e.at(a["start"], first, column.index), e.mask(b.sub(columns, column.index)))
                e.store(value, e.at(a["begin"], column.index))
        with e.loop(e.i(0), a["depth"], step=a["chunk"]) as part:
            depth = e.least(a["chunk"], b.sub(a["depth"], part.index))
            _chunk(e, first, columns, part.index, depth, a_rows, b_rows, turned)
    b.ret_void()
    return e.module


def _chunk(e: Tiles, first: Any, columns: Any, begin: Any, depth: Any, a_rows: bool, b_rows: bool,
           turned: bool) -> None:  # fmt: skip
    """Some columns of b, in panels, and all rows of a; for a part of the depth."""
    a, b = e.a, e.b
    deep, height = e.deep(depth), DEPTH_TURNED if turned else DEPTH
    if b_rows:
        source = e.at(a["b"], e.mul(begin, a["b_step"]), first)
        e.panels(source, a["b_step"], depth, deep, columns, a["across"], height)
    else:
        e.turned(e.at(a["b"], e.mul(first, a["b_step"]), begin), a["b_step"], columns, depth, a["across"], height)
    together = 1 if a_rows else _TOGETHER
    with e.loop(e.i(0), a["rows"], step=together * e.tall) as some:
        count = e.least(b.sub(a["rows"], some.index), e.i(together * e.tall))
        if a_rows:
            source = e.at(a["a"], e.mul(some.index, a["a_step"]), begin)
            e.numbers(source, a["a_step"], count, depth, a["left"], _STEP)
        else:
            _copy(e, e.at(a["a"], e.mul(begin, a["a_step"]), some.index), depth, deep, count)
        with e.loop(e.i(0), count, step=e.tall) as row:
            numbers = a["left"] if a_rows else e.at(a["left"], e.mul(row.index, _APART))
            _row(e, e.add(some.index, row.index), numbers, first, columns, begin, deep, a_rows, turned)


def _row(e: Tiles, row: Any, numbers: Any, first: Any, columns: Any, begin: Any, deep: Any, a_rows: bool,
         turned: bool) -> None:  # fmt: skip
    """The tiles beside each other in `tall` rows of c."""
    a, b, n, left = e.a, e.b, e.lanes, e.b.sub(e.a["rows"], row)
    order = (_STEP, 1) if a_rows else (1, e.tall)
    with e.loop(e.i(0), columns, step=e.wide) as panel:
        right = e.at(a["across"], e.mul(panel.index, DEPTH_TURNED if turned else DEPTH))
        column = e.add(first, panel.index)
        if turned:
            sums = []
            for r in range(e.tall):
                at = e.at(a["start"], e.least(e.add(row, r), e.add(a["rows"], -1)))
                sums += [e.splat(e.number(at))] * 2
            _store_turned(e, e.multiply(sums, numbers, *order, right, deep), row, column, left)
        else:
            places, fresh = _places(e, row, column), b.icmp_signed("==", begin, e.i(0))
            starts = [e.at(a["begin"], panel.index, e.i(c * n)) for c in range(2)] * e.tall
            sums = [e.masked_load(e.either(fresh, start, at), mask)
                    for start, at, mask in zip(starts, places, _masks(e, left, column))]  # fmt: skip
            _store(e, e.multiply(sums, numbers, *order, right, deep), places, left, column)


def _copy(e: Tiles, columns: Any, depth: Any, deep: Any, count: Any) -> None:
    """`left` [tiles, _APART, tall] from `count` rows of a whose columns lie one after another."""
    with e.loop(e.i(0), depth) as k:
        source = e.at(columns, e.mul(k.index, e.a["a_step"]))
        with e.loop(e.i(0), count, step=e.tall) as row:
            # The mask hides rows that do not exist; what is stored behind the tile's is overwritten, or not read.
            value = e.masked_load(e.at(source, row.index), e.mask(e.b.sub(count, row.index)))
            e.store(value, e.at(e.a["left"], e.mul(row.index, _APART), e.mul(k.index, e.tall)))
    with e.loop(depth, deep) as k, e.loop(e.i(0), count, step=e.tall) as row:
        e.store(e.const(0), e.at(e.a["left"], e.mul(row.index, _APART), e.mul(k.index, e.tall)))


def _places(e: Tiles, row: Any, column: Any) -> list[Any]:
    """The addresses of a tile's vectors in c."""
    lines = [e.at(e.a["c"], e.mul(e.add(row, r), e.a["c_step"]), column) for r in range(e.tall)]
    return [e.at(line, e.i(c * e.lanes)) for line in lines for c in range(2)]


def _masks(e: Tiles, left: Any, column: Any) -> list[Any]:
    masks = []
    for r in range(e.tall):
        columns = e.either(e.b.icmp_signed(">", left, e.i(r)), e.b.sub(e.a["columns"], column), 0)
        masks += [e.mask(e.b.sub(columns, e.i(c * e.lanes))) for c in range(2)]
    return masks


def _store(e: Tiles, sums: list[Any], places: list[Any], left: Any, column: Any) -> None:
    whole = e.b.and_(e.b.icmp_signed(">=", left, e.i(e.tall)),
                     e.b.icmp_signed(">=", e.b.sub(e.a["columns"], column), e.i(e.wide)))  # fmt: skip
    with e.b.if_else(whole) as (plain, edge):
        with plain:
            for value, at in zip(sums, places):
                e.store(value, at)
        with edge:
            for value, at, mask in zip(sums, places, _masks(e, left, column)):
                e.masked_store(value, at, mask)


def _store_turned(e: Tiles, sums: list[Any], row: Any, column: Any, left: Any) -> None:
    """A tile into c whose columns lie one after another."""
    n = e.lanes
    for c in range(2):
        square = e.transposed([*sums[c::2], *[e.const(0)] * (n - e.tall)])
        for lane, value in enumerate(square):
            at = e.add(column, c * n + lane)
            rows = e.either(e.b.icmp_signed("<", at, e.a["columns"]), e.least(left, e.i(e.tall)), 0)
            e.masked_store(value, e.at(e.a["c"], e.mul(at, e.a["c_step"]), row), e.mask(rows))
