"""Tiles of sums in registers, for compiled matrix products, and copies that give them their operands in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from .ir import Emitter

__all__ = ["Tiles"]

_UNROLL = 4  # so that a depth is rounded up to a multiple of it


class Tiles(Emitter):
    """A kernel whose tiles have `tall` rows of numbers by `wide` columns, two vectors.

    The operand on the right lies in panels [depth, wide], one behind another, `height` rows each.
    """

    def __init__(self, name: str, fields: tuple[str, ...], lanes: int, tall: int, own: Collection[str] = ()) -> None:
        super().__init__(name, fields, lanes, own=own)
        self.tall, self.wide = tall, 2 * lanes

    def up(self, count: Any, step: int) -> Any:
        """The next multiple of `step`, a power of two."""
        return self.b.and_(self.add(count, step - 1), self.i(-step))

    def deep(self, count: Any) -> Any:
        """A depth that `multiply` takes; what is beyond `count` must be zero on both sides."""
        return self.up(count, _UNROLL)

    def multiply(self, sums: Sequence[Any], left: Any, row: int, step: int, right: Any, count: Any) -> list[Any]:
        """sums[r, c] += sum over k < count of left[r * row + k * step] * right[k * wide + c]; count is from `deep`."""
        with self.loop(self.i(0), count, [*sums, left, right], step=_UNROLL) as turn:
            numbers, vectors = turn.values[-2:]
            for k in range(_UNROLL):
                across = [self.load(self.add(vectors, 4 * (k * self.wide + c * self.lanes))) for c in range(2)]
                for r in range(self.tall):
                    factor = self.splat(self.number(self.add(numbers, 4 * (r * row + k * step))))
                    for c in range(2):
                        turn.values[2 * r + c] = self.fma(factor, across[c], turn.values[2 * r + c])
            turn.values[-2:] = [self.add(numbers, 4 * _UNROLL * step), self.add(vectors, 4 * _UNROLL * self.wide)]
        return turn.values[:-2]

    def turned(self, rows: Any, step: Any, count: Any, size: Any, to: Any, height: Any) -> None:
        """Panels from rows [count, size] whose columns they hold as rows: `to` [panels, height, wide].

        Zeros follow up to whole panels, and up to a multiple of lanes in depth, for which `height` must have room.
        """
        with self.loop(self.i(0), self.up(count, self.wide), step=self.lanes) as row:
            panel = self.b.and_(row.index, self.i(-self.wide))
            place = self.add(self.mul(panel, height), self.b.sub(row.index, panel))
            with self.loop(self.i(0), size, step=self.lanes) as column:
                self.turn(self.at(rows, self.mul(row.index, step), column.index), step,
                          self.at(to, place, self.mul(column.index, self.wide)), self.wide,
                          self.b.sub(size, column.index), self.b.sub(count, row.index), out=False)  # fmt: skip

    def panels(self, rows: Any, step: Any, count: Any, depth: Any, size: Any, to: Any, height: Any) -> None:
        """Panels `to` [panels, height, wide] from rows [count, size]; rows up to `depth` are zero."""
        whole, ends = self.b.and_(size, self.i(-self.wide)), self.up(size, self.wide)

        def one(row: Any, column: Any, mask: Callable[[int], Any] | None) -> None:
            source = self.at(rows, self.mul(row, step), column)
            place = self.at(to, self.mul(column, height), self.mul(row, self.wide))
            for c in range(0, self.wide, self.lanes):
                at = self.add(source, 4 * c)
                value = self.load(at) if mask is None else self.masked_load(at, mask(c))
                self.store(value, self.add(place, 4 * c))

        with self.loop(self.i(0), count) as row:
            with self.loop(self.i(0), whole, step=self.wide) as column:
                one(row.index, column.index, None)
            with self.loop(whole, ends, step=self.wide) as column:
                left = self.b.sub(size, column.index)
                one(row.index, column.index, lambda c: self.mask(self.b.sub(left, self.i(c))))
        with self.loop(count, depth) as row, self.loop(self.i(0), ends, step=self.wide) as column:
            for c in range(0, self.wide, self.lanes):
                place = self.at(to, self.mul(column.index, height), self.mul(row.index, self.wide), self.i(c))
                self.store(self.const(0), place)

    def numbers(self, rows: Any, step: Any, count: Any, size: Any, to: Any, to_step: int) -> None:
        """`to` [tall, to_step] from rows [count, size]; zeros elsewhere, up to a multiple of lanes."""
        with self.loop(self.i(0), self.i(self.tall)) as row:
            inside = self.splat(self.b.icmp_signed(">", count, row.index))
            with self.loop(self.i(0), size, step=self.lanes) as column:
                mask = self.b.and_(inside, self.mask(self.b.sub(size, column.index)))
                value = self.masked_load(self.at(rows, self.mul(step, row.index), column.index), mask)
                self.store(value, self.at(to, self.mul(row.index, to_step), column.index))
