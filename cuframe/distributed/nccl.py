"""Process group `nccl`: ranks with a GPU each, on one host or many.

Note [Streams]
    A group has a stream of its own. A collective makes it wait for what the caller's stream has been given so far, and
    `wait()` makes the stream that is current then wait for the collective; the host does not wait. Buffers are kept
    until the collective is over, because CuPy's memory pool knows nothing of the other stream.

Note [Messages]
    NCCL runs what is given to one communicator in one order, so a send that nobody receives yet would hold up all that
    comes after it. Therefore each ordered pair of ranks that exchange single messages gets a communicator and a stream,
    made at the first message, in a thread: two ranks, or a ring of them, may all send before they receive.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import status
from .arrays import check_other, describe
from .errors import DistributedError, name_ranks
from .nccl_channel import Channel, NcclWork
from .nccl_device import CudaDevice
from .nccl_library import TYPES, Nccl, NcclError, library_path, load, version_text
from .nccl_watchdog import Watchdog
from .process_group import ProcessGroup, ReduceOp, Work, check_reduction
from .reduction import REDUCTIONS
from .store import Store

__all__ = ["CudaDevice", "NcclGroup"]

class NcclGroup(ProcessGroup):
    """Collectives of GPUs.

    Args:
        store: where the members find each other.
        name: of the group, the same on all members and used once.
        ranks: the members' ranks in the job.
        rank: this process's rank in the job.
        timeout: seconds to wait for another rank.
        device: this rank's GPU.
        nccl: the library, by default as `library_path` finds it.
    """

    backend = "nccl"
    host = False

    def __init__(
        self, store: Store, name: str, ranks: tuple[int, ...], rank: int, timeout: float, device: Any,
        nccl: Nccl | None = None,
    ) -> None:  # fmt: skip
        super().__init__(ranks, ranks.index(rank), timeout)
        self.device = device
        self.nccl = nccl = nccl or load(library_path())
        self._store, self._name = store, f"nccl/{name}"
        self._order = threading.Lock()
        self.called: deque[tuple[int, str]] = deque(maxlen=32)  # the latest collectives
        self.messages: dict[str, int] = {}
        self._sequence = 0
        self._closed = False
        self.failure: DistributedError | None = None
        self.channels: list[Channel] = []
        self._pairs: dict[tuple[int, int], Channel] = {}
        self._pairs_lock = threading.Lock()
        identity = self._meet(rank)
        self.watchdog = Watchdog(self, store, self._name)
        try:
            self._main = Channel(nccl, device, f"nccl: joining group {name!r}", self.size, identity, self.rank, timeout,
                                 self.stopped)  # fmt: skip
        except BaseException:
            self.watchdog.close()
            raise
        self.channels.append(self._main)
        self._token = device.from_host(np.zeros(1, np.uint8))

    def _meet(self, rank: int) -> bytes:
        """Compare NCCL's versions and the GPUs, and learn the communicator's id from the first rank."""
        mine = {"version": self.nccl.version, "library": self.nccl.path, "gpu": self.device.identity()}
        if self.rank == 0:
            mine["id"] = self.nccl.unique_id("nccl: first rank").hex()
        told = self._store.gather(f"{self._name}/meet", rank, self.ranks, json.dumps(mine).encode(), self.timeout)
        facts = [json.loads(t) for t in told]
        if len({f["version"] for f in facts}) > 1:
            found = "; ".join(f"rank {r}: {version_text(f['version'])} ({f['library']})"
                              for r, f in zip(self.ranks, facts))  # fmt: skip
            raise DistributedError(f"nccl: the ranks have different versions of NCCL. {found}")
        seen: dict[str, int] = {}
        for r, f in zip(self.ranks, facts):
            if f["gpu"] in seen and not _shared_gpus():
                raise DistributedError(
                    f"nccl: {name_ranks([seen[f['gpu']], r])} use one GPU; give each its own (by LOCAL_RANK), or set "
                    "NCCL_MULTI_RANK_GPU_ENABLE=1"
                )
            seen[f["gpu"]] = r
        return bytes.fromhex(facts[0]["id"])

    # -- checks -------------------------------------------------------------------------------------------------
    def stopped(self) -> DistributedError | None:
        """The error that the group has come to, None while all is well."""
        return self.failure or self.watchdog.lost

    def _check_open(self, name: str) -> None:
        if self._closed:
            raise DistributedError(f"{name}: the process group was destroyed")
        error = self.stopped()
        if error is not None:
            raise DistributedError(f"{name}: the group is broken since: {error}")

    def _check(self, name: str, argument: str, array: Any) -> None:
        complaint = self.device.complaint(array)
        if complaint is not None:
            raise ValueError(
                f"{name}: {argument} {complaint}, and this rank's group communicates on {self.device.where}"
            )

    def _source(self, name: str, argument: str, array: Any) -> Any:
        self._check(name, argument, array)
        return array if array.flags.c_contiguous else self.device.xp.ascontiguousarray(array)

    def _target(self, name: str, argument: str, array: Any, after: list[Callable[[], None]], read: bool = False) -> Any:
        """`array`, or a contiguous one that is copied to it afterwards."""
        self._check(name, argument, array)
        if array.flags.c_contiguous:
            return array
        xp = self.device.xp
        dense = xp.ascontiguousarray(array) if read else xp.empty(array.shape, array.dtype)
        after.append(lambda: array.__setitem__(..., dense))
        return dense

    def _check_rows(self, name: str, argument: str, rows: Any, like: Any) -> None:
        if rows.size != self.size * like.size or rows.dtype != like.dtype:
            raise ValueError(
                f"{name}: {argument} must be {like.dtype.name} {(self.size, *like.shape)}, "
                f"got {rows.dtype.name} {tuple(rows.shape)}"
            )

    def _peer(self, name: str, peer: int) -> int:
        if not 0 <= peer < self.size:
            raise ValueError(f"{name}: a rank of this group must be from 0 to {self.size - 1}, got {peer}")
        return peer

    # -- the way to the GPU ---------------------------------------------------------------------------------------
    def _enter(self, name: str, detail: str, channel: Channel | None, buffers: Any) -> NcclWork:
        """A new collective; the stream will wait for what the caller's has been given so far."""
        self._sequence += 1
        where = f"{name} #{self._sequence}"
        status.note(f"in {where}")
        work = NcclWork(self, f"{where} ({detail})" if detail else where, channel, buffers)
        work.number = self._sequence
        self.called.append((work.number, work.text))
        return work

    def _launch(self, work: NcclWork, channel: Channel, calls: Sequence[tuple]) -> None:
        try:
            channel.stream.wait_event(work.ready)
            if calls:
                channel.launch(work.text, calls)
            work.end.record(channel.stream)
        except BaseException as error:
            work.finish(error)
            if isinstance(error, NcclError):  # the others wait for this rank, and shall learn why it does not come
                self.watchdog.report_error(error)
            raise
        work.launched.set()

    def _collective(
        self, name: str, detail: str, buffers: Any, calls: Sequence[tuple], background: bool,
        after: list[Callable[[], None]],
    ) -> NcclWork:  # fmt: skip
        device = self.device
        with self._order, device.active():
            work = self._enter(name, detail, self._main, buffers)
            work.after = after
            work.ready.record(device.current())
            self.watchdog.track(work)
            self._launch(work, self._main, calls)
        if not background:
            work.wait()
        return work

    def _call(self, name: str, *arguments: Any) -> tuple:
        """A call of the library: arrays become pointers."""
        return (name, *(a if isinstance(a, int) else self.device.pointer(a) for a in arguments))

    # -- collectives ----------------------------------------------------------------------------------------------
    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        with self.device.active():
            return self.device.xp.empty(shape, dtype)

    def all_reduce(self, array: Any, op: ReduceOp = ReduceOp.SUM, background: bool = False) -> Work:
        return self._reduce_to("all_reduce", array, None, op, background)

    def reduce(self, array: Any, root: int, op: ReduceOp = ReduceOp.SUM, background: bool = False) -> Work:
        return self._reduce_to("reduce", array, self._peer("reduce", root), op, background)

    def _reduce_to(self, name: str, array: Any, root: int | None, op: ReduceOp, background: bool) -> Work:
        self._check_open(name)
        self._check(name, "tensor", array)
        code, wide = _reduction(name, array.dtype, op)
        after: list[Callable[[], None]] = []
        with self.device.active():
            x = self._target(name, "tensor", array, after, read=True)
            if wide is not None:
                x = x.astype(wide)
                after[:] = [lambda: array.__setitem__(..., x.astype(array.dtype))]
        if root is not None and root != self.rank:
            after.clear()
        count, kind = _units(x)
        calls = [self._call("ncclAllReduce", x, x, count, kind, code)]
        if root is not None:
            calls = [self._call("ncclReduce", x, x, count, kind, code, root)]
        return self._collective(name, describe(array), x, calls if count else (), background, after)

    def broadcast(self, array: Any, root: int, background: bool = False) -> Work:
        self._check_open("broadcast")
        self._peer("broadcast", root)
        after: list[Callable[[], None]] = []
        with self.device.active():
            x = self._target("broadcast", "tensor", array, after, read=True)
        count, kind = _units(x)
        calls = [self._call("ncclBroadcast", x, x, count, kind, root)] if count else ()
        return self._collective("broadcast", describe(array), x, calls, background, after)

    def all_gather(self, out: Any, array: Any, background: bool = False) -> Work:
        self._check_open("all_gather")
        self._check_rows("all_gather", "output", out, array)
        after: list[Callable[[], None]] = []
        with self.device.active():
            x, y = self._source("all_gather", "tensor", array), self._target("all_gather", "output", out, after)
        count, kind = _units(x)
        calls = [self._call("ncclAllGather", x, y, count, kind)] if count else ()
        return self._collective("all_gather", describe(array), (x, y), calls, background, after)

    def reduce_scatter(
        self, out: Any, stacked: Any, op: ReduceOp = ReduceOp.SUM, background: bool = False
    ) -> Work:
        name = "reduce_scatter"
        self._check_open(name)
        self._check_rows(name, "input", stacked, out)
        code, wide = _reduction(name, out.dtype, op)
        after: list[Callable[[], None]] = []
        with self.device.active():
            x, y = self._source(name, "input", stacked), self._target(name, "output", out, after)
            if wide is not None:
                x, y = x.astype(wide), self.device.xp.empty(out.shape, wide)
                after[:] = [lambda: out.__setitem__(..., y.astype(out.dtype))]
        count, kind = _units(y)
        calls = [self._call("ncclReduceScatter", x, y, count, kind, code)] if count else ()
        return self._collective(name, describe(out), (x, y), calls, background, after)

    def gather(self, out: Any, array: Any, root: int, background: bool = False) -> Work:
        return self._exchange("gather", array, None, out, self._peer("gather", root), background)

    def scatter(self, array: Any, stacked: Any, root: int, background: bool = False) -> Work:
        return self._exchange("scatter", array, stacked, None, self._peer("scatter", root), background)

    def all_to_all(self, out: Any, stacked: Any, background: bool = False) -> Work:
        return self._exchange("all_to_all", out[0], stacked, out, None, background)

    def _exchange(self, name: str, one: Any, stacked: Any, rows: Any, root: int | None, background: bool) -> Work:
        """Sends and receives between all ranks, or all and `root`, as one group: row r is to, or from, rank r."""
        self._check_open(name)
        for argument, several in (("input", stacked), ("output", rows)):
            if several is not None:
                self._check_rows(name, argument, several, one)
        after: list[Callable[[], None]] = []
        with self.device.active():
            x = None if stacked is None else self._source(name, "input", stacked)
            y = None if rows is None else self._target(name, "output", rows, after)
            if name == "gather":
                x = self._source(name, "tensor", one)
            elif name == "scatter":
                y = self._target(name, "tensor", one, after)
        count, kind = _units(one)
        calls: list[tuple] = []
        for buffer, whole, call in ((x, name == "gather", "ncclSend"), (y, name == "scatter", "ncclRecv")):
            if buffer is not None:
                at = self.device.pointer(buffer)
                peers = [root] if whole else range(self.size)
                calls += [(call, at if whole else at + r * one.nbytes, count, kind, r) for r in peers]
        return self._collective(name, describe(one), (x, y), calls if count else (), background, after)

    def barrier(self, background: bool = False) -> Work:
        self._check_open("barrier")
        largest = REDUCTIONS[ReduceOp.MAX].nccl
        calls = [self._call("ncclAllReduce", self._token, self._token, 1, TYPES["uint8"], largest)]
        work = self._collective("barrier", "", None, calls, True, [])
        if not background:
            work.block()
        return work

    # -- between two ranks ----------------------------------------------------------------------------------------
    def send(self, array: Any, peer: int, tag: int = 0, background: bool = False) -> Work:
        return self._message("send", array, peer, background)

    def recv(self, array: Any, peer: int, tag: int = 0, background: bool = False) -> Work:
        return self._message("recv", array, peer, background)

    def _one(self, name: str, array: Any, peer: int, work_after: list) -> tuple[Any, tuple[int, str, int], str]:
        """A message: its buffer, what the peer must count, and its description."""
        self._check_open(name)
        check_other(name, self, self._peer(name, peer))
        with self.device.active():
            take = self._source if name == "send" else self._target
            x = take(name, "tensor", array, *(() if name == "send" else (work_after,)))
        mine, theirs = (f"{self.rank}>{peer} sent", f"{self.rank}>{peer} received")
        if name == "recv":
            mine, theirs = (f"{peer}>{self.rank} received", f"{peer}>{self.rank} sent")
        number = self.messages[mine] = self.messages.get(mine, 0) + 1
        way = "to" if name == "send" else "from"
        return x, (peer, theirs, number), f"{name} #{number} {way} rank {self.ranks[peer]} ({describe(array)})"

    def _message(self, name: str, array: Any, peer: int, background: bool) -> Work:
        after: list[Callable[[], None]] = []
        with self._order:
            x, expected, text = self._one(name, array, peer, after)
            pair = (self.rank, peer) if name == "send" else (peer, self.rank)
            status.note(f"in {text.partition(' (')[0]}")
            work = NcclWork(self, text, self._pairs.get(pair), x)
            work.after, work.peers = after, [expected]
            with self.device.active():
                work.ready.record(self.device.current())
            self.watchdog.track(work)
            count, kind = _units(x)
            calls = [self._call("ncclSend" if name == "send" else "ncclRecv", x, count, kind, pair.index(peer))]

            def job() -> None:
                with self.device.active():
                    try:
                        work.channel = channel = self._pair(pair)
                    except BaseException as error:
                        work.finish(error)
                        raise
                    self._launch(work, channel, calls if count else ())

            self.submit(("messages", *pair), job, background=pair not in self._pairs)
        if not background:
            work.wait()
        return work

    def _pair(self, pair: tuple[int, int]) -> Channel:
        """The communicator for messages from `pair[0]` to `pair[1]`; both ranks come here."""
        found = self._pairs.get(pair)
        if found is None:
            where = f"nccl: connecting ranks {self.ranks[pair[0]]} and {self.ranks[pair[1]]}"
            key, mine = f"{self._name}/pair/{pair[0]}-{pair[1]}", pair.index(self.rank)
            if mine == 0:
                self._store.set(key, self.nccl.unique_id(where))
            identity = self._store.get(key, self.timeout + 10)  # the watchdog has more to say, and is earlier
            found = Channel(self.nccl, self.device, where, 2, identity, mine, self.timeout + 10, self.stopped)
            with self._pairs_lock:
                self._pairs[pair] = found
                self.channels.append(found)
        return found

    def batch(self, messages: Sequence[tuple[str, Any, int]]) -> list[Work]:
        after: list[Callable[[], None]] = []
        with self._order:
            made = [self._one(name, array, peer, after) for name, array, peer in messages]
            text = "; ".join(text for _, _, text in made[:4]) + ("; ..." if len(made) > 4 else "")
            work = NcclWork(self, text, self._main, [x for x, _, _ in made])
            work.after, work.peers = after, [expected for _, expected, _ in made]
            calls = []
            for (name, _, peer), (x, _, _) in zip(messages, made):
                count, kind = _units(x)
                if count:
                    calls.append(self._call("ncclSend" if name == "send" else "ncclRecv", x, count, kind, peer))
            with self.device.active():
                work.ready.record(self.device.current())
                self.watchdog.track(work)
                self._launch(work, self._main, calls)
        return [work]

    # -- the end --------------------------------------------------------------------------------------------------
    def staged(self, array: np.ndarray) -> Any:
        return self.device.from_host(array)

    def fail(self, error: DistributedError) -> None:
        """End everything with `error`; the watchdog's."""
        self.failure = error
        with self._pairs_lock:
            channels = list(self.channels)
        for channel in channels:
            channel.abort()

    def close(self) -> None:
        if self._closed:
            return
        if self.failure is None:
            self.drained(self.timeout)
            self.watchdog.drain(self.timeout)
        self._closed = True
        super().close()
        self.watchdog.close()
        for channel in self.channels:
            channel.close(self.timeout)


def _shared_gpus() -> bool:
    return os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE", "0") not in ("", "0")


def _units(array: Any) -> tuple[int, int]:
    """How many elements of which of NCCL's types; bytes where NCCL has no such type."""
    kind = TYPES.get(array.dtype.name)
    if kind is not None:
        return array.size, kind
    if array.dtype.kind == "c":
        return 2 * array.size, TYPES[f"float{4 * array.dtype.itemsize}"]
    return array.nbytes, TYPES["uint8"]


def _reduction(name: str, dtype: np.dtype, op: ReduceOp) -> tuple[int, str | None]:
    """NCCL's number of a reduction, and the wider dtype that it must be done in, if any."""
    check_reduction(name, dtype, op)
    if dtype.kind == "b":  # one byte, 0 or 1: "or" and "and" as NumPy's
        return REDUCTIONS[REDUCTIONS[op].boolean].nccl, None
    if dtype.kind == "c" and op is ReduceOp.PRODUCT:
        raise TypeError(f"{name}: NCCL multiplies no complex numbers; got {dtype.name}")
    if dtype.name in ("int16", "uint16"):
        return REDUCTIONS[op].nccl, "int32"
    if dtype.kind != "c" and dtype.name not in TYPES:
        raise TypeError(f"{name}: NCCL reduces {', '.join(TYPES)}, got {dtype.name}")
    return REDUCTIONS[op].nccl, None
