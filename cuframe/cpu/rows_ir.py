"""LLVM IR of passes over the rows of matrices: sums, maxima and other sweeps over the columns of a row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from llvmlite import ir

from .ir import Emitter

__all__ = ["Columns", "Rows"]

_UNROLL = 4


class Rows(Emitter):
    """A kernel over rows `thread * chunk` to `(thread + 1) * chunk`; `size`, `rows` and `chunk` end its arguments."""

    def __init__(self, name: str, fields: tuple[str, ...], lanes: int, double: bool = False,
                 own: Collection[str] = ()) -> None:  # fmt: skip
        super().__init__(name, (*fields, "size", "rows", "chunk"), lanes, double, own)
        self.first = self.mul(self.a["chunk"], self.thread)
        self.last = self.least(self.add(self.first, self.a["chunk"]), self.a["rows"])

    def row(self, field: str, row: Any) -> Any:
        return self.at(self.a[field], self.mul(row, self.a["size"]))

    def one(self, field: str, row: Any) -> Any:
        """The number of a row, in all lanes."""
        return self.splat(self.number(self.at(self.a[field], row)))

    def put(self, value: Any, field: str, row: Any) -> None:
        self.store(value, self.at(self.a[field], row))

    def greater(self, x: Any, y: Any) -> Any:
        """The greater number; y where x is NaN."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def sweep(
        self, body: Body, sums: int = 0, unroll: int = _UNROLL, start: float = 0.0, join: Join | None = None,
        size: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Run `body` over all columns and return its `sums` sums, vectors; `body` adds to the values it is given.

        Instead of sums it may keep what `join` makes one of two, from `start` on. There are `size` columns, if given.
        """
        join, size = join or self.b.fadd, size or self.a["size"]
        totals: list[Any] = [self.const(start)] * (sums * unroll)
        main = self.b.and_(size, self.i(-unroll * self.lanes))
        with self.loop(self.i(0), main, totals, step=unroll * self.lanes) as turn:
            for u in range(unroll):
                columns = Columns(self, self.add(turn.index, u * self.lanes), None)
                turn.values[u::unroll] = body(columns, turn.values[u::unroll])
        totals = turn.values
        parts = []
        for s in range(sums):
            part = totals[s * unroll : (s + 1) * unroll]
            while len(part) > 1:
                part = [join(*part[i : i + 2]) for i in range(0, len(part), 2)]
            parts.append(part[0])
        with self.loop(main, size, parts, step=self.lanes) as turn:
            columns = Columns(self, turn.index, self.mask(self.b.sub(size, turn.index)))
            turn.values[:] = body(columns, turn.values)
        return turn.values

    def across(self, vector: Any, join: Join | None = None) -> Any:
        """The sum of a vector's lanes, or what `join` makes of them, by halves."""
        join = join or self.b.fadd
        width = self.lanes
        while width > 1:
            width //= 2
            order = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes),
                                [(i + width) % self.lanes for i in range(self.lanes)])  # fmt: skip
            vector = join(vector, self.b.shuffle_vector(vector, vector, order))
        return self.b.extract_element(vector, ir.Constant(ir.IntType(32), 0))


class Columns:
    """A vector's worth of columns from `index` on, under a mask at the end of a row."""

    def __init__(self, e: Rows, index: Any, mask: Any) -> None:
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

    def inside(self, value: Any, outside: float = 0.0) -> Any:
        return value if self.mask is None else self.e.b.select(self.mask, value, self.e.const(outside))


Body = Callable[[Columns, list[Any]], list[Any]]
Join = Callable[[Any, Any], Any]
