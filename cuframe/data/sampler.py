"""Samplers: the order in which a loader visits a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np

from ..random import default_generator

__all__ = [
    "BatchSampler", "LengthBatchSampler", "RandomSampler", "Sampler", "SequentialSampler", "SubsetRandomSampler",
    "WeightedRandomSampler",
]  # fmt: skip


def _positive(owner: str, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{owner}: {name} must be a positive integer, got {value!r}")
    return value


class Sampler:
    """An iterable over indices; subclasses define `__iter__` and, where it is known, `__len__`.

    >>> from cuframe import data
    >>> class Backwards(data.Sampler):
    ...     def __iter__(self):
    ...         return iter((2, 1, 0))
    >>> list(data.DataLoader("abc", batch_size=None, sampler=Backwards()))
    ['c', 'b', 'a']
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class SequentialSampler(Sampler):
    """0, 1, ..., N - 1.

    Args:
        data_source: the dataset, for its length.

    >>> from cuframe import data
    >>> list(data.SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """A fresh permutation at every pass, or draws with replacement.

    Args:
        data_source: the dataset, for its length.
        replacement: draw each index independently.
        num_samples: how many indices a pass gives; by default all.
        generator: a `cf.Generator`; by default the global one, so `cf.manual_seed` fixes the order.

    Raises:
        ValueError: num_samples is no positive integer.

    >>> from cuframe import data
    >>> sorted(data.RandomSampler("abc")), len(data.RandomSampler("abc", replacement=True, num_samples=8))
    ([0, 1, 2], 8)
    """

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = None if num_samples is None else _positive("RandomSampler", "num_samples", num_samples)
        self.generator = generator

    @property
    def num_samples(self) -> int:
        """How many indices a pass gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or default_generator
        n, count = len(self.data_source), self.num_samples
        if n == 0:
            return
        if self.replacement:
            yield from generator.randint(0, n, (count,)).tolist()
            return
        while count > 0:
            yield from generator.permutation(n)[:count].tolist()
            count -= n

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """The given indices in a fresh random order at every pass.

    Args:
        indices: of the samples.
        generator: a `cf.Generator`; by default the global one.

    >>> from cuframe import data
    >>> sorted(data.SubsetRandomSampler([5, 7, 9]))
    [5, 7, 9]
    """

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for i in (self.generator or default_generator).permutation(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """Indices drawn in proportion to `weights`.

    Args:
        weights: one non-negative number an index; they need not sum to 1.
        num_samples: how many indices a pass gives.
        replacement: draw each independently; otherwise no index twice.
        generator: a `cf.Generator`; by default the global one.

    Raises:
        ValueError: negative weights or none above zero, or too few to draw from without replacement.

    >>> from cuframe import data
    >>> set(data.WeightedRandomSampler([0.5, 0.0, 1.5], num_samples=100))
    {0, 2}
    """

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None
    ) -> None:
        self.weights = np.asarray(weights, np.float64)
        self.num_samples = _positive("WeightedRandomSampler", "num_samples", num_samples)
        self.replacement = replacement
        self.generator = generator
        if self.weights.ndim != 1 or not (self.weights >= 0).all() or not 0 < self.weights.sum() < np.inf:
            raise ValueError("WeightedRandomSampler: weights must be one non-negative number an index, not all zero")
        if not replacement and num_samples > np.count_nonzero(self.weights):
            raise ValueError(
                f"WeightedRandomSampler: cannot draw {num_samples} different indices from "
                f"{np.count_nonzero(self.weights)} with a weight above zero"
            )

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or default_generator
        uniform = generator.uniform((self.num_samples if self.replacement else len(self.weights),), dtype=np.float64)
        if self.replacement:
            cumulative = np.cumsum(self.weights)
            picks = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
            yield from np.minimum(picks, np.flatnonzero(self.weights)[-1]).tolist()
        else:
            # Exponential races: the smallest of Exp(1)/weight are a draw without replacement (Efraimidis, Spirakis).
            with np.errstate(divide="ignore"):
                keys = -np.log1p(-uniform) / self.weights
            yield from np.argsort(keys, kind="stable")[: self.num_samples].tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of `batch_size` indices from another sampler.

    Args:
        sampler: any iterable over indices.
        batch_size: indices a batch.
        drop_last: leave out a last batch that is smaller.

    Raises:
        ValueError: batch_size is no positive integer.

    >>> from cuframe import data
    >>> list(data.BatchSampler(range(5), batch_size=2))
    [[0, 1], [2, 3], [4]]
    >>> list(data.BatchSampler(range(5), batch_size=2, drop_last=True))
    [[0, 1], [2, 3]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = _positive("BatchSampler", "batch_size", batch_size)
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


class LengthBatchSampler(Sampler):
    """Batches of sequences of like length, so that little is padded.

    Each pass shuffles the samples, cuts them into pools of `pool` batches, sorts each pool by length, cuts it into
    batches, and visits the batches in random order: near neighbours in length meet, yet batches differ every pass.

    Args:
        lengths: the length of each sample.
        batch_size: samples a batch; or
        max_tokens: the largest allowed product of samples and longest length in a batch, for batches of like cost.
        shuffle: False sorts all by length once and keeps that order.
        drop_last: leave out batches that are smaller than `batch_size`.
        pool: how many batches are sorted together.
        generator: a `cf.Generator`; by default the global one.

    Raises:
        ValueError: neither or both of `batch_size` and `max_tokens`, or a sample longer than `max_tokens`.

    >>> from cuframe.data import LengthBatchSampler
    >>> list(LengthBatchSampler([5, 1, 4, 2], batch_size=2, shuffle=False))
    [[1, 3], [2, 0]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int | None = None,
        max_tokens: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        pool: int = 100,
        generator: Any = None,
    ) -> None:
        if (batch_size is None) == (max_tokens is None):
            raise ValueError("LengthBatchSampler: give either batch_size or max_tokens")
        self.lengths = np.asarray(lengths, np.int64).reshape(-1)
        self.batch_size = None if batch_size is None else _positive("LengthBatchSampler", "batch_size", batch_size)
        self.max_tokens = None if max_tokens is None else _positive("LengthBatchSampler", "max_tokens", max_tokens)
        if self.max_tokens is not None and self.lengths.size and self.lengths.max() > self.max_tokens:
            i = int(self.lengths.argmax())
            raise ValueError(
                f"LengthBatchSampler: sample {i} has length {self.lengths[i]}, above max_tokens {self.max_tokens}"
            )
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.pool = _positive("LengthBatchSampler", "pool", pool)
        self.generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

    def _batches(self) -> list[list[int]]:
        n = len(self.lengths)
        if not self.shuffle:
            return self._cut(np.argsort(self.lengths, kind="stable"))
        generator = self.generator or default_generator
        order = generator.permutation(n)
        if self.batch_size is not None:
            span = self.batch_size * self.pool
        else:
            assert self.max_tokens is not None
            span = max(1, int(self.pool * self.max_tokens / max(float(self.lengths.mean()) if n else 1.0, 1.0)))
        batches: list[list[int]] = []
        for start in range(0, n, span):
            pool = order[start : start + span]
            batches += self._cut(pool[np.argsort(self.lengths[pool], kind="stable")])
        return [batches[i] for i in generator.permutation(len(batches)).tolist()]

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        """Cut indices in order of length into batches."""
        if self.batch_size is not None:
            size = self.batch_size
            cuts = [order[i : i + size].tolist() for i in range(0, len(order), size)]
            return [c for c in cuts if len(c) == size] if self.drop_last else cuts
        assert self.max_tokens is not None
        batches: list[list[int]] = [[]]
        for i in order.tolist():
            if batches[-1] and (len(batches[-1]) + 1) * self.lengths[i] > self.max_tokens:
                batches.append([])
            batches[-1].append(i)
        return batches if batches[-1] else []

    def __len__(self) -> int:
        if self.batch_size is None:
            raise TypeError("LengthBatchSampler: with max_tokens the number of batches differs from pass to pass")
        n, size = len(self.lengths), self.batch_size
        full = n // size
        # Every pool but the last is a whole number of batches.
        return full if self.drop_last else -(-n // size)
