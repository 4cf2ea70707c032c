"""What a backend of collectives has to offer, and the parts that all of them share."""

from __future__ import annotations

import enum
import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ..dtypes import is_floating
from .errors import DistributedError, DistributedTimeout

__all__ = ["Around", "ProcessGroup", "ReduceOp", "SingleGroup", "Work", "check_reduction"]


class ReduceOp(enum.Enum):
    """How the ranks' values become one; functions take the names as well (`"sum"`).

    >>> ReduceOp("sum") is ReduceOp.SUM
    True
    """

    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    PRODUCT = "product"


class Work:
    """A collective under way.

    The buffers it was given must be left alone until `wait()` has returned.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> work = dist.all_reduce(cf.ones(2), async_op=True)
    >>> work.wait(), work.is_success()
    (True, True)
    >>> dist.destroy_process_group()
    """

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: BaseException | None = None

    def finish(self, error: BaseException | None = None) -> None:
        """Mark it as over; for backends."""
        self._error = error
        self._done.set()

    def is_completed(self) -> bool:
        """True once it is over, well or not."""
        return self._done.is_set()

    def is_success(self) -> bool:
        """True once it is over and went well."""
        return self._done.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        """What went wrong, None otherwise."""
        return self._error

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over; returns True.

        Raises:
            DistributedTimeout: it is not over within `timeout` seconds, or its group's own timeout passed.
            DistributedError: a rank died, left or called something else.
        """
        if not self._done.wait(timeout):
            raise DistributedTimeout(f"wait: the collective is not over within {timeout:g} s")
        if self._error is not None:
            raise self._error.with_traceback(None)
        return True


class Around(Work):
    """Work that says of itself what another says, for classes that wait in a way of their own."""

    def __init__(self, inner: Work) -> None:
        self._inner = inner

    def is_completed(self) -> bool:
        return self._inner.is_completed()

    def is_success(self) -> bool:
        return self._inner.is_success()

    def exception(self) -> BaseException | None:
        return self._inner.exception()


class _Lane:
    """Runs work one after the other: in the caller while nothing is queued, otherwise in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()  # held by whoever runs work, so that order is kept
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], Work] | None] = queue.SimpleQueue()
        self._pending = 0
        self._thread: threading.Thread | None = None
        self._count = threading.Lock()

    def run(self, job: Callable[[], None], background: bool) -> Work:
        work = Work()
        with self._count:
            inline = not background and self._pending == 0
            self._pending += 1
        if not inline:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=f"cuframe {self._name}", daemon=True)
                self._thread.start()
            self._queue.put((job, work))
            if not background:
                work.wait()
            return work
        try:
            with self._lock:
                job()
            work.finish()
        except DistributedError as error:
            work.finish(error)
            raise error.with_traceback(None) from None  # where it was noticed tells a user nothing
        except BaseException as error:
            work.finish(error)
            raise
        finally:
            with self._count:
                self._pending -= 1
        return work

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            job, work = item
            error: BaseException | None = None
            try:
                with self._lock:
                    job()
            except BaseException as caught:
                error = caught
            with self._count:
                self._pending -= 1
            work.finish(error)
            del item, job, work  # not to hold the buffers until the next job comes

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)


class ProcessGroup:
    """Ranks that communicate; arrays are those of one backend, NumPy's for `shm`.

    Every method takes `background`: False blocks and runs in the caller where possible, True returns at once. All
    collectives of a group run in the order of their calls, which must be the same on all ranks. Ranks here count
    within the group, 0 to `size - 1`.

    Attributes:
        backend: its name.
        rank, size: this process's place, and how many there are.
        ranks: the members' ranks in the whole job.
        timeout: seconds after which waiting for another rank ends with an error.
        host: True if it works on NumPy arrays.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> group = dist.new_group([0])
    >>> isinstance(group, dist.ProcessGroup), group.rank, group.size, group.ranks
    (True, 0, 1, (0,))
    >>> dist.destroy_process_group()
    """

    backend: str
    host = True

    def __init__(self, ranks: Sequence[int], rank: int, timeout: float) -> None:
        self.ranks = tuple(ranks)
        self.rank = rank
        self.size = len(self.ranks)
        self.timeout = timeout
        self._lanes: dict[Hashable, _Lane] = {}

    def submit(self, lane: Hashable, job: Callable[[], None], background: bool) -> Work:
        """Run `job` after all earlier ones of its lane."""
        found = self._lanes.get(lane)
        if found is None:
            found = self._lanes[lane] = _Lane(f"{self.backend} {lane}")
        return found.run(job, background)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array, in the memory that is best for `all_reduce`; all ranks must call it, in the same order.

        Backends with such a memory replace this method.
        """
        return np.empty(shape, dtype)

    def all_reduce(self, array: Any, op: ReduceOp = ReduceOp.SUM, background: bool = False) -> Work:
        """Replace `array` by the reduction of all ranks' arrays."""
        raise NotImplementedError

    def reduce(self, array: Any, root: int, op: ReduceOp = ReduceOp.SUM, background: bool = False) -> Work:
        """Replace `array` of `root` by the reduction of all ranks' arrays."""
        return self.all_reduce(array if self.rank == root else array.copy(), op, background)

    def broadcast(self, array: Any, root: int, background: bool = False) -> Work:
        """Replace `array` by that of `root`."""
        raise NotImplementedError

    def all_gather(self, out: Any, array: Any, background: bool = False) -> Work:
        """`out[r] = array of rank r`; `out`: [size, *array.shape]."""
        raise NotImplementedError

    def reduce_scatter(
        self, out: Any, stacked: Any, op: ReduceOp = ReduceOp.SUM, background: bool = False
    ) -> Work:
        """`out = reduction over ranks of stacked[rank]`; `stacked`: [size, *out.shape]."""
        raise NotImplementedError

    def gather(self, out: Any, array: Any, root: int, background: bool = False) -> Work:
        """`out[r] = array of rank r` on `root`; `out` is None elsewhere."""
        raise NotImplementedError

    def scatter(self, array: Any, stacked: Any, root: int, background: bool = False) -> Work:
        """`array = stacked[rank]` of `root`; `stacked` is None elsewhere."""
        raise NotImplementedError

    def all_to_all(self, out: Any, stacked: Any, background: bool = False) -> Work:
        """`out[r] = stacked[rank]` of rank r; both [size, ...]."""
        raise NotImplementedError

    def send(self, array: Any, peer: int, tag: int = 0, background: bool = False) -> Work:
        """Hand `array` to `peer`, which receives it."""
        raise NotImplementedError

    def recv(self, array: Any, peer: int, tag: int = 0, background: bool = False) -> Work:
        """Fill `array` with what `peer` sends; per pair of ranks, messages arrive in the order they were sent."""
        raise NotImplementedError

    def batch(self, messages: Sequence[tuple[str, Any, int]]) -> list[Work]:
        """Start messages (`"send"` or `"recv"`, array, peer) together; the work of each, or one for all."""
        return [getattr(self, name)(array, peer, background=True) for name, array, peer in messages]

    def barrier(self, background: bool = False) -> Work:
        """Wait until every rank has come here."""
        raise NotImplementedError

    def staged(self, array: np.ndarray) -> Any:
        """A NumPy array as this group's collectives take it: itself, or a copy on the group's device."""
        return array

    def close(self) -> None:
        """Leave: the others are told if they still wait for this rank."""
        for lane in self._lanes.values():
            lane.close()

    def drained(self, timeout: float) -> bool:
        """Wait until nothing is queued; False if that takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while any(lane._pending for lane in self._lanes.values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True


def check_reduction(name: str, dtype: np.dtype, op: ReduceOp) -> None:
    """Raise where a dtype has no such reduction.

    Raises:
        TypeError: the average of integers, or the order of complex numbers, is asked for.
    """
    if op is ReduceOp.AVG and not (is_floating(dtype) or dtype.kind == "c"):
        raise TypeError(f"{name}: op avg needs a floating point dtype, got {dtype.name}")
    if op in (ReduceOp.MIN, ReduceOp.MAX) and dtype.kind == "c":
        raise TypeError(f"{name}: op {op.value} needs a dtype with an order, got {dtype.name}")


class SingleGroup(ProcessGroup):
    """A group of this process alone: no store, no memory to share, and every collective a copy at most."""

    backend = "single"

    def __init__(self, ranks: Sequence[int] = (0,), timeout: float = 60.0) -> None:
        super().__init__(ranks, 0, timeout)

    def _copy(self, target: Any, source: Any, background: bool) -> Work:
        def job() -> None:
            target[...] = source

        return self.submit("collectives", job, background)

    def all_reduce(self, array: Any, op: ReduceOp = ReduceOp.SUM, background: bool = False) -> Work:
        check_reduction("all_reduce", array.dtype, op)
        return self._copy(array, array, background)

    def broadcast(self, array: Any, root: int, background: bool = False) -> Work:
        return self._copy(array, array, background)

    def all_gather(self, out: Any, array: Any, background: bool = False) -> Work:
        return self._copy(out[0, ...] if out.ndim > array.ndim else out, array, background)

    def reduce_scatter(
        self, out: Any, stacked: Any, op: ReduceOp = ReduceOp.SUM, background: bool = False
    ) -> Work:
        check_reduction("reduce_scatter", out.dtype, op)
        return self._copy(out, stacked[0] if stacked.ndim > out.ndim else stacked, background)

    def gather(self, out: Any, array: Any, root: int, background: bool = False) -> Work:
        return self._copy(out[0, ...], array, background)

    def scatter(self, array: Any, stacked: Any, root: int, background: bool = False) -> Work:
        return self._copy(array, stacked[0], background)

    def all_to_all(self, out: Any, stacked: Any, background: bool = False) -> Work:
        return self._copy(out, stacked, background)

    def send(self, array: Any, peer: int, tag: int = 0, background: bool = False) -> Work:
        raise ValueError("send: a rank cannot send to itself, and there is one rank only")

    def recv(self, array: Any, peer: int, tag: int = 0, background: bool = False) -> Work:
        raise ValueError("recv: a rank cannot receive from itself, and there is one rank only")

    def barrier(self, background: bool = False) -> Work:
        return self.submit("collectives", lambda: None, background)
