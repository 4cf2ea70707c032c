"""Process group `mpi`: ranks that mpirun started, on one host or many, through mpi4py and host memory.

Note [Threads]
    MPI libraries make no progress while a rank computes, so collectives are blocking calls in a thread of the group,
    and overlap with the caller's work. The caller waits for the thread, not for MPI: so its waiting has a deadline.

Note [Who is late]
    MPI cannot tell. A second thread looks for questions from other ranks and answers with the last collective that its
    rank has called; whose deadline has passed asks everyone.

Note [A rank that raises]
    It would wait for the others in MPI_Finalize, and they for it in a collective: nobody would ever see its traceback.
    So an exception that nobody catches is printed, and then ends the job with MPI_Abort.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._paths import install_command
from . import status
from .arrays import as_bytes, check_other, describe
from .errors import DistributedError, DistributedTimeout, name_ranks
from .process_group import Around, ProcessGroup, ReduceOp, Work, check_reduction
from .reduction import REDUCTIONS, is_short

__all__ = ["MpiGroup"]

_ASK, _ANSWER = 1, 2  # tags of the communicator for questions
_LOOK = 0.05  # seconds between looks for questions
_PATIENCE = 2.0  # seconds in which the others answer
_TEXT = 256


def _load() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise DistributedError(f"mpi: needs mpi4py: {install_command('mpi')} ({error})") from None
    except RuntimeError as error:
        raise DistributedError(f"mpi: mpi4py finds no MPI library: {error}") from None
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise DistributedError(
            "mpi: this MPI library was initialised without MPI_THREAD_MULTIPLE, and cuframe calls it from threads; "
            "call init_process_group before what initialises MPI, or use a library that offers it"
        )
    return MPI


class _Call(Around):
    """Work in the group's thread, with the group's deadline."""

    def __init__(self, group: MpiGroup, inner: Work, text: str) -> None:
        super().__init__(inner)
        self._group, self._text = group, text

    def wait(self, timeout: float | None = None) -> bool:
        patience = self._group.timeout if timeout is None else timeout
        if not self._inner._done.wait(patience):
            if timeout is not None and timeout < self._group.timeout:
                raise DistributedTimeout(f"wait: {self._text} is not over within {timeout:g} s")
            raise self._group.late(self._text)
        return self._inner.wait()


class MpiGroup(ProcessGroup):
    """Collectives of the ranks of an MPI communicator.

    Args:
        mpi: the module `mpi4py.MPI`.
        comm: the communicator, whose ranks are in the order of `ranks`.
        ranks: the members' ranks in the job.
        timeout: seconds to wait for another rank.
    """

    backend = "mpi"

    def __init__(self, mpi: Any, comm: Any, ranks: Sequence[int], timeout: float) -> None:
        super().__init__(ranks, comm.rank, timeout)
        self._mpi, self._comm = mpi, comm
        self._questions = comm.Dup()
        self._sequence = 0
        self._last = "none"
        self._failure: DistributedError | None = None
        self._closed = False
        self._hook: Callable[..., Any] | None = None
        self._before: Callable[..., Any] = sys.excepthook
        self._answerer = threading.Thread(target=self._answer, name="cuframe mpi questions", daemon=True)
        self._answerer.start()

    @classmethod
    def of_world(cls, rank: int, world_size: int, timeout: float) -> MpiGroup:
        """The group of all ranks that mpirun started.

        Raises:
            DistributedError: mpi4py or a library is missing, or the launcher's variables say something else than MPI.
        """
        mpi = _load()
        world = mpi.COMM_WORLD
        if (world.rank, world.size) != (rank, world_size):
            raise DistributedError(
                f"mpi: MPI says rank {world.rank} of {world.size}, the launcher's variables say {rank} of "
                f"{world_size}; start the script with mpirun or srun"
            )
        made = cls(mpi, world.Dup(), range(world.size), timeout)
        made._catch_exceptions()
        return made

    def part(self, ranks: Sequence[int], number: int, timeout: float) -> MpiGroup:
        """The group of some ranks; they call it together, with the same number."""
        made: list[Any] = []

        def job() -> None:
            members = self._comm.Get_group().Incl([self.ranks.index(r) for r in ranks])
            made.append(self._comm.Create_group(members, number))

        self._wait("new_group", self.submit("groups", job, background=True))
        return MpiGroup(self._mpi, made[0], ranks, timeout)

    # -- the threads ----------------------------------------------------------------------------------------------
    def _catch_exceptions(self) -> None:
        self._before = before = sys.excepthook

        def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
            before(kind, error, trace)
            print(f"rank {self.rank} ends the job because of this {kind.__name__}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            self._comm.Abort(1)

        self._hook = sys.excepthook = hook

    def _run(
        self, name: str, detail: str, job: Callable[[], None], background: bool, lane: Any = "collectives"
    ) -> Work:
        if self._closed:
            raise DistributedError(f"{name}: the process group was destroyed")
        if self._failure is not None:
            raise DistributedError(f"{name}: the group is broken since: {self._failure}")
        if lane == "collectives":
            self._sequence += 1
            name = f"{name} #{self._sequence}"
            self._last = name
        text = f"{name} ({detail})" if detail else name
        status.note(f"in {name}")

        def guarded() -> None:
            try:
                job()
            except self._mpi.Exception as error:
                raise DistributedError(f"{text}: MPI: {error}") from None

        work = _Call(self, self.submit(lane, guarded, background=True), text)
        if not background:
            work.wait()
        return work

    def _wait(self, text: str, work: Work) -> None:
        _Call(self, work, text).wait()

    def _answer(self) -> None:
        comm, mpi, state = self._questions, self._mpi, self._mpi.Status()
        while not self._closed:
            try:
                if comm.Iprobe(mpi.ANY_SOURCE, _ASK, state):
                    comm.Recv(np.empty(0, np.uint8), state.source, _ASK)
                    text = np.frombuffer(self._last.encode().ljust(_TEXT), np.uint8)
                    comm.Send(text, state.source, _ANSWER)
                    continue
            except mpi.Exception:  # MPI is being finalized
                return
            time.sleep(_LOOK)

    def late(self, text: str) -> DistributedTimeout:
        """Ask who is late with a collective, and break the group."""
        comm = self._questions
        others = [r for r in range(self.size) if r != self.rank]
        answers = {r: np.zeros(_TEXT, np.uint8) for r in others}
        requests = {r: comm.Irecv(answers[r], r, _ANSWER) for r in others}
        for r in others:
            comm.Isend(np.empty(0, np.uint8), r, _ASK)
        silent, deadline = set(others), time.monotonic() + _PATIENCE
        while silent and time.monotonic() < deadline:
            silent -= {r for r in silent if requests[r].Test()}
            time.sleep(0.005)
        mine = self._number(self._last)
        told = {r: answers[r].tobytes().decode(errors="replace").strip() for r in others if r not in silent}
        verdict = [f"rank {self.ranks[r]} last called {t}" for r, t in told.items() if self._number(t) < mine]
        if silent:
            verdict.append(f"no answer from {name_ranks(self.ranks[r] for r in silent)}")
        for r in silent:
            requests[r].Cancel()
        verdict = verdict or ["all ranks have called it"]
        error = DistributedTimeout(f"{text} is not over within {self.timeout:g} s: {'; '.join(verdict)}")
        self._failure = self._failure or error
        return error

    @staticmethod
    def _number(text: str) -> int:
        return int(text.partition("#")[2] or 0)

    # -- collectives ----------------------------------------------------------------------------------------------
    def all_reduce(self, array: np.ndarray, op: ReduceOp = ReduceOp.SUM, background: bool = False) -> Work:
        check_reduction("all_reduce", array.dtype, op)

        def job() -> None:
            x, how = self._operand(array, op)
            self._comm.Allreduce(self._mpi.IN_PLACE, x, how)
            self._deliver(array, x, op)

        return self._run("all_reduce", f"{describe(array)} {op.value}", job, background)

    def _operand(self, array: np.ndarray, op: ReduceOp) -> tuple[np.ndarray, Any]:
        """Numbers that MPI can reduce, on the array's memory where possible, and MPI's operation."""
        if array.dtype.kind == "b":  # "or" and "and", as NumPy's
            return np.ascontiguousarray(array).view(np.uint8), self._named(REDUCTIONS[op].boolean)
        if is_short(array.dtype):
            return array.astype(np.float32, order="C"), self._named(op)
        return np.asarray(array, order="C"), self._named(op)

    def _named(self, op: ReduceOp) -> Any:
        return getattr(self._mpi, REDUCTIONS[op].mpi)

    def _deliver(self, array: np.ndarray, x: np.ndarray, op: ReduceOp) -> None:
        if op is ReduceOp.AVG:
            np.divide(x, self.size, out=x)
        if not np.may_share_memory(array, x):
            array[...] = (x.view(np.bool_) if array.dtype.kind == "b" else x.astype(array.dtype)).reshape(array.shape)

    def broadcast(self, array: np.ndarray, root: int, background: bool = False) -> Work:
        def job() -> None:
            x = np.asarray(array, order="C")
            self._comm.Bcast(as_bytes(x), root)
            _put(array, x)

        return self._run("broadcast", f"{describe(array)} from {self.ranks[root]}", job, background)

    def all_gather(self, out: np.ndarray, array: np.ndarray, background: bool = False) -> Work:
        def job() -> None:
            y = np.asarray(out, order="C")
            self._comm.Allgather(as_bytes(np.asarray(array, order="C")), as_bytes(y))
            _put(out, y)

        return self._run("all_gather", describe(array), job, background)

    def reduce_scatter(
        self, out: np.ndarray, stacked: np.ndarray, op: ReduceOp = ReduceOp.SUM, background: bool = False
    ) -> Work:
        check_reduction("reduce_scatter", out.dtype, op)

        def job() -> None:
            x, how = self._operand(stacked, op)
            y = np.empty(out.shape, x.dtype)
            self._comm.Reduce_scatter_block(x, y, how)
            self._deliver(out, y, op)

        return self._run("reduce_scatter", f"{describe(out)} {op.value}", job, background)

    def gather(self, out: np.ndarray | None, array: np.ndarray, root: int, background: bool = False) -> Work:
        def job() -> None:
            y = None if out is None else np.asarray(out, order="C")
            self._comm.Gather(as_bytes(np.asarray(array, order="C")), None if y is None else as_bytes(y), root)
            if out is not None and y is not None:
                _put(out, y)

        return self._run("gather", f"{describe(array)} to {self.ranks[root]}", job, background)

    def scatter(
        self, array: np.ndarray, stacked: np.ndarray | None, root: int, background: bool = False
    ) -> Work:
        def job() -> None:
            x = np.asarray(array, order="C")
            rows = None if stacked is None else as_bytes(np.asarray(stacked, order="C"))
            self._comm.Scatter(rows, as_bytes(x), root)
            _put(array, x)

        return self._run("scatter", f"{describe(array)} from {self.ranks[root]}", job, background)

    def all_to_all(self, out: np.ndarray, stacked: np.ndarray, background: bool = False) -> Work:
        def job() -> None:
            y = np.asarray(out, order="C")
            self._comm.Alltoall(as_bytes(np.asarray(stacked, order="C")), as_bytes(y))
            _put(out, y)

        return self._run("all_to_all", describe(out[0]), job, background)

    def barrier(self, background: bool = False) -> Work:
        return self._run("barrier", "", self._comm.Barrier, background)

    # -- between two ranks ----------------------------------------------------------------------------------------
    def send(self, array: np.ndarray, peer: int, tag: int = 0, background: bool = False) -> Work:
        check_other("send", self, peer)

        def job() -> None:
            self._comm.Send(as_bytes(np.asarray(array, order="C")), peer, tag)

        return self._run(f"send to rank {self.ranks[peer]}", describe(array), job, background, ("send", peer))

    def recv(self, array: np.ndarray, peer: int, tag: int = 0, background: bool = False) -> Work:
        check_other("recv", self, peer)
        where = f"recv from rank {self.ranks[peer]}"

        def job() -> None:
            x, state = np.asarray(array, order="C"), self._mpi.Status()
            self._comm.Recv(as_bytes(x), peer, tag, state)
            if state.Get_count() != x.nbytes:
                raise DistributedError(f"{where}: expected {x.nbytes:,} bytes, but {state.Get_count():,} were sent")
            _put(array, x)

        return self._run(where, describe(array), job, background, ("recv", peer))

    def close(self) -> None:
        if self._closed:
            return
        if self._failure is None:
            self.drained(self.timeout)
        self._closed = True
        super().close()
        self._answerer.join()
        if self._hook is not None and sys.excepthook is self._hook:
            sys.excepthook = self._before


def _put(array: np.ndarray, x: np.ndarray) -> None:
    if not np.may_share_memory(array, x):
        array[...] = x
