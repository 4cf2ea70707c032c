"""Sees to it that nobody waits for ever for a GPU: one thread looks at what is under way, one listens to the store.

Note [Who is late]
    The rank whose collective passes its deadline, or whose communicator reports an error, raises the alarm in the
    store. Every rank's watchdog then tells which collectives its rank has called and what its GPU is doing, even while
    the rank itself stands still; the first to raise the alarm puts into words who is late, and all ranks' callers get
    that message. Then the communicators are aborted, which ends their kernels.

Note [Callers that went on]
    After `wait()` the host runs ahead of the GPU, and an aborted collective leaves garbage in its buffers. A caller
    that trusted such a result gets the error as an asynchronous exception, like a KeyboardInterrupt: before the abort,
    so that it is raised as soon as the call that waits for the GPU returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from .errors import DistributedError, DistributedTimeout, name_ranks
from .store import Store

if TYPE_CHECKING:
    from .nccl import NcclGroup
    from .nccl_channel import NcclWork

__all__ = ["Watchdog"]

_LOOK = 0.02  # seconds between looks while something is under way
_ANSWER = 3.0  # seconds in which the other ranks' watchdogs tell where they are
_GRACE = 1.0  # seconds for what is under way to end after a rank has gone
_DAYS = 1e6  # seconds of one wait for the store's word


class Watchdog:
    """The watchdog of one rank of a group.

    Attributes:
        lost: the error that says that a rank, or the job, is gone; the group cannot go on.
    """

    def __init__(self, group: NcclGroup, store: Store, name: str) -> None:
        self._group, self._store, self._name = group, store, name
        self._rank = group.ranks[group.rank]
        self._changed = threading.Condition()
        self._pending: list[NcclWork] = []
        self._alarmed = False
        self._error: DistributedError | None = None
        self.lost: DistributedError | None = None
        self._lost_since = 0.0
        self._closing = False
        self._caller = threading.get_ident()
        self._threads = [threading.Thread(target=target, name=f"cuframe {name}", daemon=True)
                         for target in (self._listen, self._watch)]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def track(self, work: NcclWork) -> None:
        """Look after `work` until it is over."""
        with self._changed:
            self._caller = threading.get_ident()
            self._pending.append(work)
            self._changed.notify_all()

    def report_error(self, error: DistributedError) -> None:
        """Let all ranks fail with an error that this rank has met."""
        with self._changed:
            self._error = self._error or DistributedError(f"rank {self._rank}: {error}")
            self._changed.notify_all()

    def drain(self, timeout: float) -> None:
        """Wait until nothing is under way."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._pending and self._group.failure is None and time.monotonic() < deadline:
                self._changed.wait(0.05)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        with contextlib.suppress(DistributedError):
            self._store.set(self._key("where", self._rank), json.dumps(self._where() | {"left": True}).encode())
            self._store.set(self._key("alarm", self._rank), b"")
        for thread in self._threads:
            thread.join(10.0)

    def _key(self, *parts: Any) -> str:
        return "/".join((self._name, *map(str, parts)))

    # -- the store ------------------------------------------------------------------------------------------------
    def _listen(self) -> None:
        """Wait for the alarm, or for the end of a rank, whichever comes first."""
        while True:
            try:
                word = self._store.watch(self._key("alarm", self._rank), self._group.ranks, _DAYS)
            except DistributedTimeout:
                continue
            except DistributedError as error:
                with self._changed:
                    self.lost = DistributedError(str(error).removeprefix("store: watch: "))
                    self._lost_since = time.monotonic()
                    self._changed.notify_all()
                return
            with self._changed:
                self._alarmed = bool(word)
                self._changed.notify_all()
            return

    # -- what is under way ----------------------------------------------------------------------------------------
    def _watch(self) -> None:
        while True:
            with self._changed:
                while not (self._pending or self._alarmed or self._error or self._closing):
                    self._changed.wait()
                if self._closing:
                    return
                pending = list(self._pending)
            late = self._look(pending)
            error = self._error or self._broken()
            if late is None and error is None and not self._alarmed:
                if self.lost is not None and self._pending and time.monotonic() - self._lost_since > _GRACE:
                    error = DistributedError(f"{self._pending[0].text}: {self.lost}")
                else:
                    time.sleep(_LOOK)
                    continue
            self._fail(late, error)
            return

    def _look(self, pending: list[NcclWork]) -> NcclWork | None:
        """Let go of what is over; what has passed its deadline, if anything."""
        busy, now, late = set(), time.monotonic(), None
        over = [work for work in pending if work.is_completed()]
        for work in over:
            work.finish(work.exception())
        with self._changed:
            self._pending = [work for work in self._pending if work not in over]
            if over:
                self._changed.notify_all()
        for work in pending:
            if work in over or work.channel in busy:
                continue
            if work.channel is not None:
                busy.add(work.channel)  # what is behind it waits for its turn
            if work.begun is None and (not work.launched.is_set() or work.ready.done):
                work.begun = now
            if late is None and work.begun is not None and now - work.begun > self._group.timeout:
                late = work
        return late

    def _broken(self) -> DistributedError | None:
        for channel in list(self._group.channels):
            code = channel.state()
            if code and channel.comm is not None:
                where = self._pending[0].text if self._pending else "nccl"
                return channel.nccl.error(f"rank {self._rank}: {where}", code, channel.comm)
        return None

    # -- the alarm ------------------------------------------------------------------------------------------------
    def _fail(self, late: NcclWork | None, error: DistributedError | None) -> None:
        """Agree with the others on what is wrong, and end everything."""
        try:
            found = self._agree(late, error)
        except DistributedError as broken:  # the store is gone, and nobody can be asked
            text = f"{late.text}: not over within {self._group.timeout:g} s" if late else str(error)
            found = error or DistributedError(f"{text}; and {broken}")
        with self._changed:
            pending, self._pending = self._pending, []
            self._group.failure = found
            self._changed.notify_all()
        trusted = any(work.trusted and not work.over() for work in pending)
        for work in pending:
            work.finish(found)
        if trusted:
            _raise_in(self._caller, found)
        self._group.fail(found)

    def _agree(self, late: NcclWork | None, error: DistributedError | None) -> DistributedError:
        group, store = self._group, self._store
        me = str(self._rank).encode()
        store.set(self._key("where", self._rank), json.dumps(self._where()).encode())
        first = store.compare_set(self._key("first"), b"", me)
        if first != me:
            told = json.loads(store.watch(self._key("verdict"), [int(first)], 2 * _ANSWER + group.timeout))
            return (DistributedTimeout if told["timeout"] else DistributedError)(told["text"])
        for r in group.ranks:
            store.set(self._key("alarm", r), b"!")
        timeout = error is None
        if error is None and late is not None:
            error = DistributedTimeout(self._verdict(late))
        assert error is not None  # who finds neither was alarmed, and is not the first
        store.set(self._key("verdict"), json.dumps({"text": str(error), "timeout": timeout}).encode())
        return error

    def _where(self) -> dict[str, Any]:
        """What this rank has called, and how far its GPU is."""
        group = self._group
        waiting = [w for w in self._pending if w.launched.is_set() and not w.over() and not w.ready.done]
        return {"called": list(group.called), "messages": group.messages, "busy": waiting[0].text if waiting else None}

    def _verdict(self, late: NcclWork) -> str:
        group = self._group
        told: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + _ANSWER
        while len(told) < group.size and time.monotonic() < deadline:
            for r in group.ranks:
                if r not in told and self._store.check([self._key("where", r)]):
                    told[r] = json.loads(self._store.get(self._key("where", r)))
            time.sleep(_LOOK)
        told = dict(sorted(told.items()))
        silent = [r for r in group.ranks if r not in told]
        verdict = _late_messages(late, told, group.ranks) if late.peers else _late_ranks(late, told)
        if silent:
            does = "do" if len(silent) > 1 else "does"
            verdict.append(f"{name_ranks(silent)} {does} not answer: stopped, or cut off")
        busy = [f"rank {r}'s GPU has not come to {t['busy']}" for r, t in told.items() if t["busy"]]
        verdict = verdict or busy or ["all ranks have called it, but the GPUs do not end it; see NCCL_DEBUG=INFO"]
        return f"{late.text} is not over within {group.timeout:g} s: {'; '.join(verdict)}"


def _last(told: dict[str, Any]) -> str:
    return told["called"][-1][1].partition(" (")[0] if told["called"] else "none"


def _late_ranks(late: NcclWork, told: dict[int, dict[str, Any]]) -> list[str]:
    """Who has not called a collective, or called another in its place."""
    verdict = []
    texts: dict[str, list[int]] = {}
    for r, answer in told.items():
        called = dict(answer["called"])
        left = "left the group (destroy_process_group)" if answer.get("left") else "has not joined it"
        if late.number in called:
            texts.setdefault(called[late.number], []).append(r)
        elif not called or max(called) < (late.number or 0):
            verdict.append(f"rank {r} {left}; it last called {_last(answer)}")
    if len(texts) > 1:
        calls = "; ".join(f"{name_ranks(ranks)}: {text}" for text, ranks in texts.items())
        verdict.append(f"the ranks disagree on what comes now. {calls}")
    return verdict


def _late_messages(late: NcclWork, told: dict[int, dict[str, Any]], ranks: tuple[int, ...]) -> list[str]:
    """Which peers have not sent, or received."""
    verdict = []
    for peer, counter, number in late.peers:
        answer = told.get(ranks[peer])
        if answer is not None and answer["messages"].get(counter, 0) < number:
            did = counter.rpartition(" ")[2]
            verdict.append(f"rank {ranks[peer]} has not {did} message #{number}; it last called {_last(answer)}")
    return verdict


def _raise_in(thread: int, error: DistributedError) -> None:
    """Raise `error` in another thread, at its next step in Python."""
    kind, text = type(error), str(error)
    made = type(kind.__name__, (kind,), {"__init__": lambda self: RuntimeError.__init__(self, text),
                                         "__module__": kind.__module__})  # fmt: skip
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(made))
