"""Worker processes of a DataLoader, and what they and the loader both do with samples."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..random import default_generator
from ..tensor import Tensor

__all__ = ["END", "Pool", "WorkerInfo", "current_info", "fetch", "pin", "stream"]


class _End:
    """What a worker sends when its stream has ended."""

    def __reduce__(self) -> Any:
        return "END"


END = _End()


@dataclass(frozen=True)
class Failure:
    """An exception in a worker, as text: exception objects do not always survive the way to another process."""

    kind: str
    text: str


@dataclass(frozen=True)
class WorkerInfo:
    """What `get_worker_info()` tells inside a worker.

    Attributes:
        id: from 0 to num_workers - 1.
        num_workers: how many there are.
        seed: of this worker's default generator.
        dataset: this worker's copy.

    >>> from cuframe.data import WorkerInfo
    >>> info = WorkerInfo(id=1, num_workers=4, seed=0, dataset=range(10))
    >>> list(info.dataset)[info.id :: info.num_workers]  # this worker's share
    [1, 5, 9]
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def current_info() -> WorkerInfo | None:
    """The WorkerInfo of this process, None outside workers."""
    return _info


def fetch(dataset: Any, index: Any, batched: bool) -> Any:
    """The sample at an index, or the list of samples at a list of indices."""
    if not batched:
        return dataset[index]
    if hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(index)
    return [dataset[i] for i in index]


def stream(dataset: Any, batch_size: int | None, drop_last: bool, collate: Callable[[Any], Any]) -> Iterator[Any]:
    """The batches of an IterableDataset."""
    if batch_size is None:
        yield from map(collate, dataset)
        return
    samples: list[Any] = []
    for sample in dataset:
        samples.append(sample)
        if len(samples) == batch_size:
            yield collate(samples)
            samples = []
    if samples and not drop_last:
        yield collate(samples)


def pin(batch: Any) -> Any:
    """The batch in page-locked memory; as it is where there is no CUDA."""
    try:
        import cupyx
        from cupy.cuda.runtime import getDeviceCount

        getDeviceCount()
    except Exception:  # no CuPy, no driver or no GPU: pinning has no meaning
        return batch
    return _pin(batch, cupyx.empty_pinned)


def _pin(batch: Any, empty: Callable) -> Any:
    if isinstance(batch, Tensor) and isinstance(batch.array, np.ndarray):
        pinned = empty(batch.array.shape, batch.array.dtype)
        pinned[...] = batch.array
        return Tensor(pinned)
    if isinstance(batch, dict):
        return {key: _pin(value, empty) for key, value in batch.items()}
    if isinstance(batch, tuple):
        parts = [_pin(part, empty) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    if isinstance(batch, list):
        return [_pin(part, empty) for part in batch]
    return batch


def _receive(connection: Any, requests: queue.SimpleQueue) -> None:
    """Drain the loader's requests, so that it never blocks in sending; end with the loader's process."""
    parent = multiprocessing.parent_process()
    while True:
        try:
            if connection.poll(1.0):
                requests.put(connection.recv())
            elif parent is not None and not parent.is_alive():
                os._exit(1)
        except (EOFError, OSError):
            os._exit(0)


def _work(loader: Any, me: int, connection: Any, others: list[Any]) -> None:
    global _info
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the loader's to handle
    for other in others:
        other.close()  # inherited by fork; held open they would hide the loader's end
    requests: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    batches: Iterator[Any] = iter(())
    broken: Failure | None = None
    while True:
        request = requests.get()
        if request is None:
            return
        kind, value = request
        if kind == "begin":
            broken = None
            try:
                seed = value + me
                default_generator.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002  (datasets written for it are many)
                _info = WorkerInfo(me, loader.num_workers, seed, loader.dataset)
                if loader.worker_init_fn is not None:
                    loader.worker_init_fn(me)
                if loader._iterable:
                    batches = stream(loader.dataset, loader.batch_size, loader.drop_last, loader.collate_fn)
            except Exception as error:
                broken = Failure(type(error).__name__, traceback.format_exc())
            continue
        try:
            if broken is not None:
                answer: Any = broken
            elif loader._iterable:
                answer = next(batches, END)
            else:
                answer = loader.collate_fn(fetch(loader.dataset, value, loader._batched))
            connection.send(answer)
        except Exception as error:
            connection.send(Failure(type(error).__name__, traceback.format_exc()))


class Pool:
    """The worker processes of one loader."""

    def __init__(self, loader: Any) -> None:
        context = loader.multiprocessing_context
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context)
        self.timeout = loader.timeout
        self._connections: list[Any] = []
        self._processes: list[Any] = []
        self._open = [0] * loader.num_workers
        pool, loader._pool = loader._pool, None  # a worker has no use for the pool it is part of
        try:
            for me in range(loader.num_workers):
                ours, theirs = context.Pipe()
                inherited = [*self._connections, ours] if context.get_start_method() == "fork" else []
                process = context.Process(
                    target=_work, args=(loader, me, theirs, inherited), name=f"cuframe-data-{me}", daemon=True
                )
                process.start()
                theirs.close()
                self._connections.append(ours)
                self._processes.append(process)
        except BaseException:
            self.close()
            raise
        finally:
            loader._pool = pool

    def idle(self) -> bool:
        """True if all workers live and owe nothing."""
        return not any(self._open) and bool(self._processes) and all(p.is_alive() for p in self._processes)

    def begin(self, seed: int) -> None:
        """Start a pass: seed every worker."""
        for worker in range(len(self._processes)):
            self._send(worker, ("begin", seed))

    def ask(self, worker: int, index: Any) -> None:
        """Ask a worker for the batch at `index`, or for its stream's next."""
        self._send(worker, ("get", index))
        self._open[worker] += 1

    def _send(self, worker: int, message: Any) -> None:
        try:
            self._connections[worker].send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died(worker) from None

    def receive(self, worker: int) -> Any:
        """The next answer of a worker.

        Raises:
            RuntimeError: the worker raised (its traceback is in the message), died, or took too long.
        """
        connection, process = self._connections[worker], self._processes[worker]
        deadline = time.monotonic() + self.timeout if self.timeout else None
        ready = multiprocessing.connection.wait(
            [connection, process.sentinel], None if deadline is None else max(0.0, deadline - time.monotonic())
        )
        if not ready:
            raise RuntimeError(f"DataLoader: worker {worker} (pid {process.pid}) gave no batch in {self.timeout:g} s")
        try:
            if connection not in ready and not connection.poll():
                raise EOFError
            answer = connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._died(worker) from None
        self._open[worker] -= 1
        if isinstance(answer, Failure):
            raise RuntimeError(f"DataLoader: {answer.kind} in worker {worker} (pid {process.pid}):\n{answer.text}")
        return answer

    def _died(self, worker: int) -> RuntimeError:
        process = self._processes[worker]
        process.join(5)
        code = process.exitcode
        if code is not None and code < 0:
            how = f"died of {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (out of memory?)"
        else:
            how = f"exited with code {code}"
        return RuntimeError(f"DataLoader: worker {worker} (pid {process.pid}) {how}")

    def drain(self) -> None:
        """Take in what is still under way after a pass that was left early."""
        try:
            for worker, count in enumerate(self._open):
                for _ in range(count):
                    self._connections[worker].recv()
                self._open[worker] = 0
        except (EOFError, OSError):
            self.close()

    def close(self) -> None:
        """Stop the workers: ask, then terminate what does not end."""
        for connection in self._connections:
            try:
                connection.send(None)
            except OSError:
                pass
            connection.close()
        deadline = time.monotonic() + 1.0
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.terminate()
                process.join(1.0)
            if process.is_alive():
                process.kill()
                process.join()
        self._connections, self._processes = [], []
        self._open = [0] * len(self._open)

    def __del__(self) -> None:
        if self._processes:
            self.close()
