"""A communicator of NCCL with its stream, and the handle of what was given to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import DistributedError, DistributedTimeout
from .nccl_library import IN_PROGRESS, Nccl, NcclError
from .process_group import Work

if TYPE_CHECKING:
    from .nccl import NcclGroup

__all__ = ["Channel", "NcclWork"]

_LOOKS = 200  # at a communicator before the thread sleeps between them


class Channel:
    """A communicator and its stream.

    Args:
        stopped: the error that ends all waiting, or None while all is well.
    """

    def __init__(
        self, nccl: Nccl, device: Any, where: str, size: int, identity: bytes, rank: int, timeout: float,
        stopped: Callable[[], DistributedError | None],
    ) -> None:  # fmt: skip
        self.nccl, self._stopped = nccl, stopped
        self._lock = threading.Lock()
        with device.active():
            self.stream = device.stream()
            self.comm: int | None = nccl.begin(where, size, identity, rank)
            try:
                self._settle(where, time.monotonic() + timeout)
            except BaseException:
                self.abort()
                raise

    def _settle(self, where: str, deadline: float | None = None) -> None:
        """Wait until the communicator has taken what it was given; peers may have to come for that."""
        looks = 0
        while self.comm is not None and (code := self.nccl.state(self.comm)):
            if code != IN_PROGRESS:
                raise self.nccl.error(where, code, self.comm)
            error = self._stopped()
            if error is not None:
                raise error
            if deadline is not None and time.monotonic() > deadline:
                raise DistributedTimeout(f"{where}: NCCL is still connecting the ranks; NCCL_DEBUG=INFO shows to whom")
            looks += 1
            if looks > _LOOKS:
                time.sleep(0.0005)

    def launch(self, where: str, calls: Sequence[tuple]) -> None:
        """Give calls (name, arguments without communicator and stream) to the stream, as one group."""
        with self._lock:
            comm, nccl = self.comm, self.nccl
            if comm is None:
                raise self._stopped() or DistributedError(f"{where}: the communicator was aborted")
            grouped = len(calls) > 1
            if grouped:
                nccl.call(where, comm, "ncclGroupStart")
            try:
                for name, *arguments in calls:
                    nccl.call(where, comm, name, *arguments, comm, self.stream.ptr)
            finally:
                if grouped:
                    nccl.call(where, comm, "ncclGroupEnd")
            self._settle(where)

    def state(self) -> int:
        """The error that the communicator ran into by itself, 0 if none."""
        code = 0 if self.comm is None else self.nccl.state(self.comm)
        return 0 if code == IN_PROGRESS else code

    def abort(self) -> None:
        """End what is under way, on the GPU too; from any thread."""
        taken = self._lock.acquire(timeout=1.0)  # a launch notices that the group has failed and lets go
        try:
            comm, self.comm = self.comm, None
            if comm is not None:
                with contextlib.suppress(NcclError):  # there is nothing left to do about it
                    self.nccl.call("abort", None, "ncclCommAbort", comm)
        finally:
            if taken:
                self._lock.release()

    def close(self, timeout: float) -> None:
        """Give the communicator back, once its work is over."""
        comm = self.comm
        if comm is None:
            return
        try:
            self.nccl.call("close", comm, "ncclCommFinalize", comm)
            self._settle("close", time.monotonic() + timeout)
        except DistributedError:
            self.abort()
            return
        self.comm = None
        self.nccl.call("close", None, "ncclCommDestroy", comm)


class NcclWork(Work):
    """A collective that is on its way to the GPU, or there.

    `wait()` makes the current stream wait and returns at once; `wait(timeout)` waits on the host.
    """

    def __init__(self, group: NcclGroup, text: str, channel: Channel | None, buffers: Any) -> None:
        super().__init__()
        self.group, self.text, self.channel, self.buffers = group, text, channel, buffers
        self.number: int | None = None  # of a collective; messages have none
        self.peers: list[tuple[int, str, int]] = []  # of messages: peer, its counter, what that must reach
        self.launched = threading.Event()
        self.begun: float | None = None  # when its turn came on the GPU, as the watchdog saw it
        self.trusted = False  # the caller went on, trusting that the stream will wait
        self.ready, self.end = group.device.event(), group.device.event()
        self.after: list[Callable[[], None]] = []

    def over(self) -> bool:
        """Whether the GPU is done with it."""
        return self.launched.is_set() and bool(self.end.done)

    def finish(self, error: BaseException | None = None) -> None:
        super().finish(error)
        self.buffers = None

    def is_completed(self) -> bool:
        return self._done.is_set() or self.over()

    def is_success(self) -> bool:
        return self._error is None and self.is_completed()

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            self.block(timeout)
        while not self.launched.wait(0.05):
            self._raise()
        self._raise()
        with self.group.device.active():
            self.trusted = True
            self.group.device.current().wait_event(self.end)
            while self.after:
                self.after.pop(0)()
        return True

    def block(self, timeout: float | None = None) -> None:
        """Wait on the host."""
        begin, pause = time.monotonic(), 20e-6
        while not self.is_completed():
            if timeout is not None and time.monotonic() - begin > timeout:
                raise DistributedTimeout(f"wait: {self.text} is not over within {timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.002)
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)
