"""The part of a dataset that belongs to one rank."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np

from ..random import Generator
from .sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler):
    """Every rank's own indices: positions rank, rank + num_replicas, ... of an order that all ranks share.

    All ranks get equally many: the first indices come a second time at the end, or, with `drop_last`, the last are left
    out. With `shuffle` the order is drawn from seed and epoch, so call `set_epoch` before each pass, or all are alike.

    Args:
        dataset: for its length.
        num_replicas: how many ranks there are; by default those of the job.
        rank: this one's number; by default that in the job.
        shuffle: a fresh order for each epoch.
        seed: the same on all ranks.
        drop_last: leave out what cannot be divided evenly.

    Raises:
        ValueError: the rank is not one of num_replicas.
        RuntimeError: no process group was joined, and num_replicas or rank is left out.

    >>> from cuframe.data import DistributedSampler
    >>> [list(DistributedSampler(range(5), num_replicas=2, rank=r, shuffle=False)) for r in range(2)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
        seed: int = 0, drop_last: bool = False,
    ) -> None:  # fmt: skip
        if num_replicas is None or rank is None:
            from ..distributed.group import resolve

            group = resolve("DistributedSampler", None)
            num_replicas = group.size if num_replicas is None else num_replicas
            rank = group.rank if rank is None else rank
        if not 0 <= rank < num_replicas:
            raise ValueError(f"DistributedSampler: rank must be from 0 to {num_replicas - 1}, got {rank}")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0

    @property
    def num_samples(self) -> int:
        """How many indices a pass gives to each rank."""
        n = len(self.dataset)
        return n // self.num_replicas if self.drop_last else -(-n // self.num_replicas)

    @property
    def total_size(self) -> int:
        """How many indices all ranks get together."""
        return self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        n, total = len(self.dataset), self.total_size
        order = Generator(self.seed + self.epoch).permutation(n) if self.shuffle else np.arange(n)
        return iter(np.resize(order, total)[self.rank :: self.num_replicas].tolist())

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Draw the next pass's order for this epoch, on all ranks the same."""
        self.epoch = epoch
