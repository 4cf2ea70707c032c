"""DataLoader: batches from a dataset, in this process or prefetched by worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..random import Generator, default_generator
from .collate import default_collate
from .dataset import IterableDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler
from .worker import END, Pool, WorkerInfo, current_info, fetch, pin, stream

__all__ = ["DataLoader", "WorkerInfo", "get_worker_info"]


def get_worker_info() -> WorkerInfo | None:
    """Inside a worker process: its id, the number of workers, its seed and its dataset; else None.

    >>> import cuframe as cf
    >>> from cuframe import data
    >>> class Numbers(data.IterableDataset):
    ...     def __iter__(self):
    ...         info = data.get_worker_info()
    ...         first, step = (0, 1) if info is None else (info.id, info.num_workers)
    ...         return iter(range(first, 6, step))
    >>> [batch.tolist() for batch in data.DataLoader(Numbers(), batch_size=3)]
    [[0, 1, 2], [3, 4, 5]]
    """
    return current_info()


@dataclass(eq=False)
class DataLoader:
    """An iterable over batches.

    Args:
        dataset: map-style (`__getitem__`, `__len__`) or an `IterableDataset`.
        batch_size: samples a batch; None passes single samples through `collate_fn` as they are.
        shuffle: a fresh order every pass, from the generator (so `cf.manual_seed` fixes it).
        sampler: the order instead; excludes `shuffle`.
        batch_sampler: whole batches of indices instead; excludes all of the above and `drop_last`.
        num_workers: processes that load and collate ahead; 0 loads here.
        collate_fn: list of samples -> batch; by default `default_collate`.
        pin_memory: copy batches to page-locked memory, from where CUDA copies run in the background.
        drop_last: leave out a last batch that is smaller.
        timeout: seconds to wait for a worker's batch; 0 waits as long as the worker lives.
        worker_init_fn: called with the worker's id in each worker, after seeding.
        multiprocessing_context: "fork", "forkserver" or "spawn"; by default Python's own choice.
        generator: a `cf.Generator` for order and worker seeds; by default the global one.
        prefetch_factor: batches each worker loads ahead; 2 by default.
        persistent_workers: keep the workers for the next pass.

    Batches come in the sampler's order however many workers there are.

    Raises:
        ValueError: arguments that exclude one another or are out of range.
        RuntimeError: a worker died (with the signal or exit code), or took longer than `timeout`.

    >>> import cuframe as cf
    >>> from cuframe.data import DataLoader, TensorDataset
    >>> [x.tolist() for x, in DataLoader(TensorDataset(cf.arange(5)), batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    dataset: Any
    batch_size: int | None = 1
    shuffle: bool | None = None
    sampler: Iterable | None = None
    batch_sampler: Iterable | None = None
    num_workers: int = 0
    collate_fn: Callable[[Any], Any] | None = None
    pin_memory: bool = False
    drop_last: bool = False
    timeout: float = 0
    worker_init_fn: Callable[[int], None] | None = None
    multiprocessing_context: Any = None
    generator: Generator | None = None
    prefetch_factor: int | None = None
    persistent_workers: bool = False

    def __post_init__(self) -> None:
        self._iterable = isinstance(self.dataset, IterableDataset)
        self._check()
        if self._iterable:
            self._indices: Iterable = ()
        elif self.batch_sampler is not None:
            self.batch_size, self._indices = None, self.batch_sampler
        else:
            if self.sampler is None:
                self.sampler = (
                    RandomSampler(self.dataset, generator=self.generator)
                    if self.shuffle
                    else SequentialSampler(self.dataset)
                )
            self._indices = self.sampler
            if self.batch_size is not None:
                self.batch_sampler = BatchSampler(self.sampler, self.batch_size, self.drop_last)
                self._indices = self.batch_sampler
        self._batched = self.batch_size is not None or self.batch_sampler is not None
        if self.collate_fn is None:
            self.collate_fn = default_collate if self._batched else _single
        self._pool: Pool | None = None

    def _check(self) -> None:
        ordered = self.sampler is not None or self.batch_sampler is not None
        needs = ["__getitem__"] if ordered else ["__getitem__", "__len__"]
        if not self._iterable and not all(hasattr(self.dataset, name) for name in needs):
            raise TypeError(
                f"DataLoader: dataset must have {' and '.join(needs)}, or be an IterableDataset, "
                f"got {type(self.dataset).__name__}"
            )
        if self.num_workers < 0:
            raise ValueError(f"DataLoader: num_workers must not be negative, got {self.num_workers}")
        if self.timeout < 0:
            raise ValueError(f"DataLoader: timeout must not be negative, got {self.timeout}")
        if self.batch_size is not None and (not isinstance(self.batch_size, int) or self.batch_size <= 0):
            raise ValueError(f"DataLoader: batch_size must be a positive integer or None, got {self.batch_size!r}")
        if self.prefetch_factor is not None and (self.num_workers == 0 or self.prefetch_factor <= 0):
            raise ValueError("DataLoader: prefetch_factor must be positive and needs num_workers above 0")
        if self.persistent_workers and self.num_workers == 0:
            raise ValueError("DataLoader: persistent_workers needs num_workers above 0")
        if self._iterable and (self.shuffle or self.sampler is not None or self.batch_sampler is not None):
            raise ValueError("DataLoader: an IterableDataset sets its own order; shuffle and samplers do not apply")
        if self.sampler is not None and self.shuffle:
            raise ValueError("DataLoader: sampler and shuffle exclude one another")
        if self.batch_sampler is not None and (
            self.batch_size != 1 or self.shuffle or self.sampler is not None or self.drop_last
        ):
            raise ValueError("DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last")
        if self.batch_size is None and self.drop_last and self.batch_sampler is None:
            raise ValueError("DataLoader: drop_last needs a batch_size")

    def __getstate__(self) -> dict:
        # What a worker process needs; order and seeds stay here.
        names = "dataset batch_size drop_last collate_fn worker_init_fn num_workers _iterable _batched".split()
        return {name: self.__dict__[name] for name in names}

    def __len__(self) -> int:
        if self._iterable:
            n = len(self.dataset)  # TypeError, as for any iterator, where it has none
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return len(self._indices)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        # Drawn in either case, so that the order of samples does not depend on the number of workers.
        seed = int((self.generator or default_generator).randint(0, 2**62, (1,))[0])
        batches = self._load_here() if self.num_workers == 0 else self._load_in_workers(seed)
        return map(pin, batches) if self.pin_memory else batches

    def _load_here(self) -> Iterator[Any]:
        assert self.collate_fn is not None
        if self._iterable:
            yield from stream(self.dataset, self.batch_size, self.drop_last, self.collate_fn)
        else:
            for index in self._indices:
                yield self.collate_fn(fetch(self.dataset, index, self._batched))

    def _load_in_workers(self, seed: int) -> Iterator[Any]:
        pool = self._pool
        if pool is None or not pool.idle():
            pool = Pool(self)
            if self.persistent_workers:
                self._pool = pool
        try:
            pool.begin(seed)
            yield from self._from_streams(pool) if self._iterable else self._from_indices(pool)
        finally:
            if pool is not self._pool:
                pool.close()
            else:
                pool.drain()

    def _from_indices(self, pool: Pool) -> Iterator[Any]:
        """Hand index lists to the workers in turn, so the order of results is the order of requests."""
        ahead = (self.prefetch_factor or 2) * self.num_workers
        waiting: deque[int] = deque()
        turn = 0
        for index in self._indices:
            pool.ask(turn, index)
            waiting.append(turn)
            turn = (turn + 1) % self.num_workers
            if len(waiting) == ahead:
                yield pool.receive(waiting.popleft())
        while waiting:
            yield pool.receive(waiting.popleft())

    def _from_streams(self, pool: Pool) -> Iterator[Any]:
        """Ask every worker for its next batch in turn until all streams have ended."""
        waiting: deque[int] = deque()
        for _ in range(self.prefetch_factor or 2):
            for worker in range(self.num_workers):
                pool.ask(worker, None)
                waiting.append(worker)
        ended: set[int] = set()
        while waiting:
            worker = waiting.popleft()
            batch = pool.receive(worker)
            if batch is END:
                ended.add(worker)
            else:
                if worker not in ended:
                    pool.ask(worker, None)
                    waiting.append(worker)
                yield batch


def _single(sample: Any) -> Any:
    return sample

