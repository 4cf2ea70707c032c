"""Process group `shm`: ranks of one host, through memory they share.

Note [Phases]
    All collectives are sequences of one step: write into the buffers of the next phase, announce it by raising one's
    clock, wait until all clocks are there, read. Buffers are double: what is written for phase k + 2 was read by
    everyone before they announced k + 1. The first phase of a collective also carries its description (name, dtype,
    shape, root), which everyone compares with everyone's before looking at data.

Note [Order of additions]
    An all-reduce cuts the array into one share a rank; rank r adds up share r of all ranks in the order of ranks and
    hands the sum out. So all ranks have the same bits, and the same bits in every run. 16-bit floats are added up in
    float32 and rounded once.

Note [Bytes moved]
    Of arrays in memory of their own, a rank copies the shares of the others into the segment, adds up its share, copies
    that out, and copies the others' sums back. Of n ranks' arrays of S bytes that is, read and written,
    2 S (n-1)/n + (S + 2 S/n) + 2 S (n-1)/n: 4 S for 2 ranks; as far as the segment's pieces stay in the caches (Note
    [Ring] in `exchange`), memory moves 2 S. Of arrays that `empty` has made, a rank adds up its share where the shares
    are and writes the sum to where it is wanted: S read and S written, and two phases in all.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import status
from .arrays import as_bytes, check_other
from .errors import DistributedError, DistributedTimeout, name_ranks
from .exchange import Ring
from .process_group import ProcessGroup, ReduceOp, Work, check_reduction
from .reduction import reduce_into, reduce_to
from .segment import PAGE, SPINS, Segment, share_memory
from .store import Store

__all__ = ["SharedMemoryGroup"]

SHARE = 1 << 22  # bytes of an all-reduce's piece that one rank adds up: the ranks wait for each other at every piece
PIECE = 1 << 24  # bytes of a piece, at most: with many ranks, shares are smaller
SMALL = 1 << 14  # bytes up to which everyone adds up everything: one phase instead of two
LETTER = 1 << 18  # bytes of a message's piece, between two ranks
_LINE = 64
_LABEL = 256  # bytes before a piece, for dtype, shape and tag
_STATE, _CAUSE, _TEXTS = 64, 128, 1152  # offsets in a rank's page; the clock is at 0
_TEXT = 1024
_FLAGS = 3200  # in a rank's page: the counters of the ring
_RUNNING, _LEFT, _BROKEN = 0, 1, 2


def _flat(array: np.ndarray, read: bool = True) -> np.ndarray:
    """The elements as a contiguous vector, on the array's memory where that is possible."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    return array.reshape(-1).copy() if read else np.empty(array.size, array.dtype)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype.name}{list(array.shape)}"


class SharedMemoryGroup(ProcessGroup):
    """Collectives of ranks on one host.

    Args:
        store: where the members find each other.
        name: of the group, the same on all members and used once.
        ranks: the members' ranks in the job.
        rank: this process's rank in the job.
        timeout: seconds to wait for another rank.
    """

    backend = "shm"

    def __init__(self, store: Store, name: str, ranks: tuple[int, ...], rank: int, timeout: float) -> None:
        super().__init__(ranks, ranks.index(rank), timeout)
        size = self.size
        self._chunk = chunk = min(SHARE * size, PIECE)  # bytes a rank writes in a phase
        pages = PAGE * (1 + size)
        pairs = pages + -(-size * size * 2 * _LINE // PAGE) * PAGE
        slots = pairs + 2 * size * chunk
        shares = slots + 2 * chunk
        ring = shares + size * size * 2 * LETTER
        total = ring + Ring.room(size)
        self._segment = Segment(store, name, self.rank, self.ranks, total, timeout)
        memory = self._segment.bytes
        self._pages = memory[PAGE:pages].reshape(size, PAGE)
        self._slots = memory[pairs:slots].reshape(2, size, chunk)
        self._shares = memory[slots:shares].reshape(2, chunk)
        self._letters = memory[shares:ring].reshape(size, size, 2, LETTER)
        self._ring = Ring(self._segment, ring, PAGE + _FLAGS, PAGE, self.rank, size)
        self._clocks = [PAGE * (1 + r) // 4 for r in range(size)]
        self._states = [clock + _STATE // 4 for clock in self._clocks]
        self._heads = [[(pages + (s * size + d) * 2 * _LINE) // 4 for d in range(size)] for s in range(size)]
        self._others = [r for r in range(size) if r != self.rank]
        self._clock = 0
        self._sequence = 0
        self._under_way = ("", 0.0)  # a collective and its deadline
        self._closed = False
        self._meeting = (store, name)
        # number: address and size of this rank's row, and all rows, which live as long as an array on them does
        self._arenas: dict[int, tuple[int, int, weakref.ref[np.ndarray]]] = {}
        self._made = 0
        self._spins = SPINS if size <= len(os.sched_getaffinity(0)) else 0

    # -- phases -------------------------------------------------------------------------------------------------
    def _collective(self, name: str, detail: str, background: bool, job: Callable[[Callable[[], int]], None]) -> Work:
        """Run `job(phase)`; `phase()` ends the writing of a phase and returns the index of the buffers to read."""

        def run() -> None:
            self._check_open(name)
            self._sequence += 1
            where = f"{name} #{self._sequence}"
            deadline = time.monotonic() + self.timeout
            self._under_way = where, deadline
            status.note(f"in {where}")
            text = f"{where} {detail}"
            self._put(self.rank, _TEXTS + _TEXT * (self._sequence % 2), text)
            first = True

            def phase() -> int:
                nonlocal first
                self._clock = (self._clock + 1) & 0xFFFFFFFF
                self._segment.write(self._clocks[self.rank], self._clock)
                self._await_all(where, deadline)
                if first:
                    self._compare(where, text)
                    first = False
                return self._clock & 1

            job(phase)
            status.note(f"after {where}")

        return self.submit("collectives", run, background)

    def _next(self) -> int:
        """The index of the buffers that the next phase is written to."""
        return (self._clock + 1) & 1

    def _await_all(self, where: str, deadline: float) -> None:
        target = self._clock

        def reached(value: int) -> bool:
            return (value - target) & 0xFFFFFFFF < 0x80000000

        def look() -> None:
            self._look(where, deadline, self._missing)

        spins = self._spins if self._patient() else 0
        for r in self._others:
            word = self._clocks[r]
            if reached(self._segment.read(word)):
                continue
            self._segment.wait(word, reached, look, spins)

    def _patient(self) -> bool:
        """Whether to look for a while before one sleeps: not in a thread that takes the main one's time for it."""
        return self._spins > 0 and threading.current_thread() is threading.main_thread()

    def _missing(self) -> list[int]:
        """Members that have not come to the phase this rank waits in."""
        return [r for r in self._others
                if (self._segment.read(self._clocks[r]) - self._clock) & 0xFFFFFFFF >= 0x80000000]  # fmt: skip

    def _look(self, where: str, deadline: float, missing: Callable[[], list[int]]) -> None:
        """Raise if waiting has become pointless."""
        awaited = missing()
        for r in self._others:
            if self._segment.read(self._states[r]) == _BROKEN:
                raise self._break(self._take(r, _CAUSE))
        for r in awaited:
            state = self._segment.read(self._states[r])
            if state == _LEFT:
                raise self._break(f"{where}: rank {self.ranks[r]} left the group before it (destroy_process_group)")
            peer = self._segment.peers[r]
            if peer.gone():
                how = peer.how()
                if r not in missing():
                    continue  # it came, and went afterwards
                raise self._break(f"rank {self.ranks[r]} (pid {peer.pid}) {how} before it came to {where}")
        if time.monotonic() > deadline and awaited:
            seen = "; ".join(f"rank {self.ranks[r]} last came to {self._last_of(r)}" for r in awaited[:4])
            who = name_ranks(self.ranks[r] for r in awaited)
            raise self._break(f"{where}: {who} did not come within {self.timeout:g} s ({seen})", DistributedTimeout)

    def _last_of(self, r: int) -> str:
        texts = [self._take(r, _TEXTS), self._take(r, _TEXTS + _TEXT)]
        numbers = [int(t.split()[1][1:]) if t else 0 for t in texts]
        text = texts[numbers.index(max(numbers))]
        return " ".join(text.split()[:2]) if text else "none yet"

    def _compare(self, where: str, mine: str) -> None:
        offset = _TEXTS + _TEXT * (self._sequence % 2)
        texts = [self._take(r, offset) for r in range(self.size)]
        if any(t != texts[0] for t in texts):
            groups: dict[str, list[int]] = {}
            for rank, text in zip(self.ranks, texts):
                groups.setdefault(text, []).append(rank)
            calls = "; ".join(f"{name_ranks(ranks)}: {text}" for text, ranks in groups.items())
            raise self._break(f"{where}: the ranks disagree on what comes now. {calls}")

    def _break(self, message: str, kind: type[DistributedError] = DistributedError) -> DistributedError:
        """The error to raise; the others learn its message instead of blaming this rank later."""
        if self._segment.read(self._states[self.rank]) == _RUNNING:
            self._put(self.rank, _CAUSE, message)
            self._segment.write(self._states[self.rank], _BROKEN)
        return kind(message)

    def _put(self, r: int, offset: int, text: str) -> None:
        data = text.encode()[: _TEXT - 2]
        self._pages[r, offset : offset + 2].view(np.uint16)[0] = len(data)
        self._pages[r, offset + 2 : offset + 2 + len(data)] = np.frombuffer(data, np.uint8)

    def _take(self, r: int, offset: int) -> str:
        length = int(self._pages[r, offset : offset + 2].view(np.uint16)[0])
        return self._pages[r, offset + 2 : offset + 2 + length].tobytes().decode(errors="replace")

    def _check_open(self, name: str) -> None:
        if self._closed:
            raise DistributedError(f"{name}: the process group was destroyed")
        if self._segment.read(self._states[self.rank]) == _BROKEN:
            raise DistributedError(f"{name}: the group is broken since: {self._take(self.rank, _CAUSE)}")

    # -- collectives --------------------------------------------------------------------------------------------
    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        dtype = np.dtype(dtype)
        count = math.prod(shape)
        if not count:
            return np.empty(shape, dtype)
        room = -(-count * dtype.itemsize // PAGE) * PAGE
        store, name = self._meeting
        self._arenas = {i: arena for i, arena in self._arenas.items() if arena[2]() is not None}
        self._made += 1
        where = f"{name}/array{self._made}"
        memory, _ = share_memory(store, where, self.rank, self.ranks, PAGE + self.size * room, self.timeout)
        rows = np.frombuffer(memory, np.uint8, offset=PAGE)
        mine = rows[self.rank * room : (self.rank + 1) * room]
        self._arenas[self._made] = mine.ctypes.data, room, weakref.ref(rows)
        return mine.view(dtype)[:count].reshape(shape)

    def _shared(self, x: np.ndarray) -> tuple[int, int] | None:
        """Which array of `empty` it lies in, and how many bytes behind its beginning."""
        address = x.ctypes.data
        for i, (begin, room, rows) in self._arenas.items():
            if 0 <= address - begin <= room - x.nbytes and rows() is not None:
                return i, address - begin
        return None

    def all_reduce(self, array: np.ndarray, op: ReduceOp = ReduceOp.SUM, background: bool = False) -> Work:
        check_reduction("all_reduce", array.dtype, op)
        detail = f"{_describe(array)} {op.value}"
        large = array.nbytes > SMALL
        place = self._shared(array) if large and self._arenas and array.flags.c_contiguous else None
        ring = large and place is None and self._ring.takes(array, op)
        if place is not None:
            detail += f" in shared array {place[0]} at {place[1]}"
        elif ring:
            detail += " by the ring"  # all ranks or none

        def job(phase: Callable[[], int]) -> None:
            if place is not None:
                self._all_reduce_shared(array, place, op, phase)
                return
            x = _flat(array)
            beside = not array.flags.c_contiguous
            if ring and not x.flags.aligned:
                x, beside = x.copy(), True
            if ring:
                where, deadline = self._under_way
                self._ring.all_reduce(x, op, self._width(x.size), self._patient(), phase,
                                      lambda missing: self._look(where, deadline, missing))  # fmt: skip
            else:
                (self._all_reduce_shares if large else self._all_reduce_small)(x, op, phase)
            if beside:
                array[...] = x.reshape(array.shape)

        return self._collective("all_reduce", detail, background, job)

    def _all_reduce_shared(
        self, array: np.ndarray, place: tuple[int, int], op: ReduceOp, phase: Callable[[], int]
    ) -> None:
        _, room, rows = self._arenas[place[0]]
        memory = rows()
        assert memory is not None  # the array is one on it
        whole = memory.reshape(self.size, room)[:, place[1] : place[1] + array.nbytes].view(array.dtype)
        cut = self._cuts(array.size)[self.rank]
        parts = [whole[r, cut] for r in range(self.size)]
        phase()
        reduce_to(parts, self.rank, [parts[r] for r in self._others], op)
        phase()

    def _all_reduce_small(self, x: np.ndarray, op: ReduceOp, phase: Callable[[], int]) -> None:
        self._slots[self._next(), self.rank, : x.nbytes] = as_bytes(x)
        now = phase()
        parts = [self._slots[now, r, : x.nbytes].view(x.dtype) for r in range(self.size)]
        if x.size:
            reduce_into(parts, x, op)

    def _width(self, count: int) -> int:
        """Elements of a rank's share of `count`, in whole cache lines."""
        return -(-count // (self.size * _LINE)) * _LINE

    def _cuts(self, count: int) -> list[slice]:
        """Each rank's share of `count` elements."""
        width = self._width(count)
        return [slice(min(count, r * width), min(count, (r + 1) * width)) for r in range(self.size)]

    def _all_reduce_shares(self, x: np.ndarray, op: ReduceOp, phase: Callable[[], int]) -> None:
        slots, shares, me = self._slots.view(x.dtype), self._shares.view(x.dtype), self.rank
        step = self._chunk // x.itemsize
        pieces = [x[i : i + step] for i in range(0, x.size, step)]

        def give(piece: np.ndarray) -> None:
            slot = slots[self._next(), me]
            for r, cut in enumerate(self._cuts(piece.size)):
                if r != me:
                    slot[cut] = piece[cut]

        def take_back(piece: np.ndarray, now: int) -> None:
            for r, cut in enumerate(self._cuts(piece.size)):
                if r != me:
                    piece[cut] = shares[now, cut]

        give(pieces[0])
        now = phase()
        for i, piece in enumerate(pieces):
            cut = self._cuts(piece.size)[me]
            sums = shares[self._next(), cut]
            mine = piece[cut]
            parts = [mine if r == me else slots[now, r, cut] for r in range(self.size)]
            reduce_to(parts, me, [sums], op)
            if i + 1 < len(pieces):
                give(pieces[i + 1])
            if i:
                take_back(pieces[i - 1], now)
            now = phase()
        take_back(pieces[-1], now)

    def broadcast(self, array: np.ndarray, root: int, background: bool = False) -> Work:
        def job(phase: Callable[[], int]) -> None:
            x = _flat(array, read=self.rank == root)
            data = as_bytes(x)
            for i in range(0, max(1, data.size), self._chunk):
                piece = data[i : i + self._chunk]
                if self.rank == root:
                    self._shares[self._next(), : piece.size] = piece
                now = phase()
                if self.rank != root:
                    piece[...] = self._shares[now, : piece.size]
            if self.rank != root and not array.flags.c_contiguous:
                array[...] = x.reshape(array.shape)

        return self._collective("broadcast", f"{_describe(array)} from {self.ranks[root]}", background, job)

    def all_gather(self, out: np.ndarray, array: np.ndarray, background: bool = False) -> Work:
        return self._gather("all_gather", _describe(array), out, array, range(self.size), background)

    def gather(self, out: np.ndarray | None, array: np.ndarray, root: int, background: bool = False) -> Work:
        return self._gather("gather", f"{_describe(array)} to {self.ranks[root]}", out, array, (root,), background)

    def _gather(
        self, name: str, detail: str, out: np.ndarray | None, array: np.ndarray, readers: Any, background: bool
    ) -> Work:
        def job(phase: Callable[[], int]) -> None:
            data, reads = as_bytes(_flat(array)), self.rank in readers
            rows = np.empty((self.size, data.size), np.uint8) if reads else None
            if out is not None and reads and out.flags.c_contiguous:
                rows = out.reshape(-1).view(np.uint8).reshape(self.size, data.size)
            for i in range(0, max(1, data.size), self._chunk):
                piece = data[i : i + self._chunk]
                self._slots[self._next(), self.rank, : piece.size] = piece
                now = phase()
                if rows is not None:
                    rows[:, i : i + piece.size] = self._slots[now, :, : piece.size]
            if out is not None and rows is not None and not out.flags.c_contiguous:
                out[...] = rows.reshape(-1).view(array.dtype).reshape(out.shape)

        return self._collective(name, detail, background, job)

    def scatter(
        self, array: np.ndarray, stacked: np.ndarray | None, root: int, background: bool = False
    ) -> Work:
        def job(phase: Callable[[], int]) -> None:
            x = _flat(array, read=False)
            data = as_bytes(x)
            rows = None if stacked is None else as_bytes(_flat(stacked)).reshape(self.size, data.size)
            for i in range(0, max(1, data.size), self._chunk):
                piece = data[i : i + self._chunk]
                if self.rank == root and rows is not None:
                    self._slots[self._next(), :, : piece.size] = rows[:, i : i + piece.size]
                now = phase()
                piece[...] = self._slots[now, self.rank, : piece.size]
            if not array.flags.c_contiguous:
                array[...] = x.reshape(array.shape)

        return self._collective("scatter", f"{_describe(array)} from {self.ranks[root]}", background, job)

    def reduce_scatter(
        self, out: np.ndarray, stacked: np.ndarray, op: ReduceOp = ReduceOp.SUM, background: bool = False
    ) -> Work:
        check_reduction("reduce_scatter", out.dtype, op)

        def read(piece: np.ndarray, parts: list[np.ndarray]) -> None:
            if piece.size:
                reduce_into(parts, piece, op)

        return self._exchange("reduce_scatter", f"{_describe(out)} {op.value}", out, stacked, background, read)

    def all_to_all(self, out: np.ndarray, stacked: np.ndarray, background: bool = False) -> Work:
        def read(piece: np.ndarray, parts: list[np.ndarray]) -> None:
            for row, part in zip(piece, parts):
                row[...] = part

        return self._exchange("all_to_all", _describe(out[0]), out, stacked, background, read, rows=self.size)

    def _exchange(
        self, name: str, detail: str, out: np.ndarray, stacked: np.ndarray, background: bool,
        read: Callable[[np.ndarray, list[np.ndarray]], None], rows: int = 1,
    ) -> Work:  # fmt: skip
        """Row r of every rank's `stacked` goes to rank r, whose `read(piece of out, parts of all ranks)` uses them."""

        def job(phase: Callable[[], int]) -> None:
            source = _flat(stacked).reshape(self.size, -1)
            y = _flat(out, read=False).reshape(rows, -1)
            width = self._chunk // self.size // _LINE * _LINE // out.itemsize
            slots = self._slots.view(out.dtype)[:, :, : self.size * width].reshape(2, self.size, self.size, width)
            for i in range(0, max(1, y.shape[1]), width):
                n = y[:, i : i + width].shape[1]
                slots[self._next(), self.rank, :, :n] = source[:, i : i + n]
                now = phase()
                piece = y[:, i : i + n]
                read(piece if rows > 1 else piece[0], [slots[now, r, self.rank, :n] for r in range(self.size)])
            if not out.flags.c_contiguous:
                out[...] = y.reshape(out.shape)

        return self._collective(name, detail, background, job)

    def barrier(self, background: bool = False) -> Work:
        return self._collective("barrier", "", background, _one_phase)

    # -- between two ranks --------------------------------------------------------------------------------------
    def send(self, array: np.ndarray, peer: int, tag: int = 0, background: bool = False) -> Work:
        check_other("send", self, peer)

        def job() -> None:
            data = as_bytes(_flat(array))
            for i, letter in self._letters_of(self.rank, peer, data.size, f"send to rank {self.ranks[peer]}"):
                if i == 0:
                    label = f"{_describe(array)} tag {tag}".encode()[:_LABEL]
                    letter[:_LABEL] = np.frombuffer(label.ljust(_LABEL, b"\0"), np.uint8)
                piece = data[i : i + LETTER - _LABEL]
                letter[_LABEL : _LABEL + piece.size] = piece

        return self.submit(("send", peer), job, background)

    def recv(self, array: np.ndarray, peer: int, tag: int = 0, background: bool = False) -> Work:
        check_other("recv", self, peer)

        def job() -> None:
            x = _flat(array, read=False)
            data, where = as_bytes(x), f"recv from rank {self.ranks[peer]}"
            for i, letter in self._letters_of(peer, self.rank, data.size, where):
                if i == 0:
                    label, expected = bytes(letter[:_LABEL]).rstrip(b"\0").decode(), f"{_describe(array)} tag {tag}"
                    if label != expected[:_LABEL]:
                        raise self._break(f"{where}: expected {expected}, but {label} was sent")
                piece = data[i : i + LETTER - _LABEL]
                piece[...] = letter[_LABEL : _LABEL + piece.size]
            if not array.flags.c_contiguous:
                array[...] = x.reshape(array.shape)

        return self.submit(("recv", peer), job, background)

    def _letters_of(self, source: int, target: int, size: int, where: str) -> Iterator[tuple[int, np.ndarray]]:
        """The buffers for a message of `size` bytes, each with its offset, as the other side makes them ready."""
        self._check_open(where.split()[0])
        head = self._heads[source][target]
        tail = head + _LINE // 4
        sending = source == self.rank
        mine, theirs, ahead = (head, tail, 2) if sending else (tail, head, 0)
        deadline = time.monotonic() + self.timeout
        peer = target if sending else source
        for i in range(0, max(1, size), LETTER - _LABEL):
            count = self._segment.read(mine)

            def reached(value: int, count: int = count) -> bool:
                return (count - value) & 0xFFFFFFFF != ahead

            def missing(reached: Callable[[int], bool] = reached) -> list[int]:
                return [] if reached(self._segment.read(theirs)) else [peer]

            def look(missing: Callable[[], list[int]] = missing) -> None:
                self._look(where, deadline, missing)

            self._segment.wait(theirs, reached, look, 0)
            yield i, self._letters[source, target, count & 1]
            self._segment.write(mine, count + 1)

    def close(self) -> None:
        """Leave: who still waits for this rank in a collective is told so."""
        if not self._closed:
            self.drained(self.timeout)
            self._closed = True
            super().close()
            if self._segment.read(self._states[self.rank]) == _RUNNING:
                self._segment.write(self._states[self.rank], _LEFT)
            self._arenas.clear()
            self._segment.close()


def _one_phase(phase: Callable[[], int]) -> None:
    phase()
