"""All-reduce of float32 arrays that the ranks do not share, through a ring of pieces that stay in the caches.

Note [Ring]
    Each rank adds up its share of the array, piece by piece. It gives the others their pieces: copies them to slots
    that they read. It adds up those that it was given and its own, in the order of ranks, to its array and to a slot of
    sums. And it takes the others' sums from there. Three counters a rank tell how many pieces it has given, reduced and
    taken; a slot is used again, `DEPTH` pieces later, once all that read it are through. Pieces are so small that slots
    stay in the caches, and memory itself moves hardly more than each array twice, once in and once out.

    These are hundreds of small steps, so they are one function of machine code, which does what can be done and, when
    nothing can, looks at the counters for a while, then sleeps. It returns when nothing has come for a few
    milliseconds, for Python to look, as it does while it waits for anything, at the deadline and whether the rank that
    is behind is still there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ..cpu import jit
from .process_group import ReduceOp
from .segment import FUTEX, Segment, slice_address

__all__ = ["WORDS", "Ring"]

WORDS = (
    "x", "size", "me", "width", "flags", "stride", "slots", "shares", "chunk", "depth", "base", "count", "patience",
    "syscall", "futex", "slice", "met", "given", "reduced", "taken", "spins", "behind", "awaited",
)  # fmt: skip
DEPTH = 4
_LINE = 64
_PIECE = 1 << 18  # bytes of a piece, at most
_PIECES = 1 << 20  # bytes of the pieces for all ranks together
_PATIENCE = 20000  # looks before one sleeps: about a millisecond, where there is a core for each rank
_HASTE = 200  # the same elsewhere
_MOST = 16  # ranks


@lru_cache(32)
def _kernel(ranks: int, average: bool) -> Callable[[int, int], None]:
    from .reduction_ir import exchange

    return jit.load(exchange("exchange", jit.lanes(), ranks, average), "exchange")


class Ring:
    """The memory of the pieces.

    Args:
        segment: where it lies.
        begin: where in it, from a multiple of 64 bytes on; `Ring.room(ranks)` bytes.
        flags: the byte at which the first rank's flags begin.
        stride: bytes to the next rank's.
        rank, ranks: this process's place, and how many there are.
    """

    def __init__(self, segment: Segment, begin: int, flags: int, stride: int, rank: int, ranks: int) -> None:
        self._segment, self._rank, self._ranks = segment, rank, ranks
        self._flags, self._stride = flags, stride
        self._begin = begin
        self._base = 0  # pieces of all calls before
        self._syscall = ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value or 0

    @staticmethod
    def room(ranks: int) -> int:
        """Bytes that it takes."""
        return ranks * (ranks + 1) * DEPTH * Ring._piece(ranks) if ranks <= _MOST else 0

    @staticmethod
    def _piece(ranks: int) -> int:
        return min(_PIECE, _PIECES // ranks // _LINE * _LINE)

    def takes(self, array: np.ndarray, op: ReduceOp) -> bool:
        """Whether it reduces arrays such as this one; all ranks come to the same answer."""
        return (array.dtype == np.float32 and op in (ReduceOp.SUM, ReduceOp.AVG) and self._ranks <= _MOST
                and jit.available())  # fmt: skip

    def all_reduce(
        self, x: np.ndarray, op: ReduceOp, width: int, patient: bool, meet: Callable[[], object],
        look: Callable[[Callable[[], list[int]]], None],
    ) -> None:  # fmt: skip
        """Replace a vector by the reduction of all ranks'.

        Args:
            x: float32, aligned and contiguous.
            op: sum or average.
            width: elements of a rank's share, a multiple of 16.
            patient: there is a core for each rank to wait at.
            meet: waits for the others, and raises if their calls do not fit.
            look: called when nothing has come for a while, with a function that tells which rank is behind; raises to
                end the waiting.
        """
        piece, memory = self._piece(self._ranks) // 4, self._segment.bytes.ctypes.data
        slots = memory + self._begin
        count = -(-width // piece)
        values = {
            "x": x.ctypes.data, "size": x.size, "me": self._rank, "width": width, "flags": memory + self._flags,
            "stride": self._stride, "slots": slots, "shares": slots + self._ranks**2 * DEPTH * piece * 4,
            "chunk": piece, "depth": DEPTH, "base": self._base, "count": count,
            "patience": _PATIENCE if patient else _HASTE, "syscall": self._syscall, "futex": FUTEX,
            "slice": slice_address(), "met": 0,
        }  # fmt: skip
        words = np.array([*values.values(), *[0] * 6], np.int64)
        run, address = _kernel(self._ranks, op is ReduceOp.AVG), words.ctypes.data
        self._base = (self._base + count) & 0xFFFFFFFF
        run(address, 0)
        meet()
        words[WORDS.index("met")] = 1
        while True:
            run(address, 0)
            *_, taken, _, behind, awaited = words.tolist()
            if taken == count:
                return
            word, rank = (behind - memory) // 4, (behind - memory - self._flags) // self._stride

            def missing(word: int = word, rank: int = rank, awaited: int = awaited) -> list[int]:
                return [rank] if (self._segment.read(word) - awaited - 1) & 0xFFFFFFFF >= 0x80000000 else []

            look(missing)
