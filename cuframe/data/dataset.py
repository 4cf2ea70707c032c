"""Datasets: anything with `__getitem__` and `__len__`, or anything that can be iterated."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..tensor import Tensor

__all__ = ["ConcatDataset", "Dataset", "IterableDataset", "Subset", "TensorDataset", "random_split"]

T = TypeVar("T")


class Dataset(Generic[T]):
    """A collection of samples: subclasses define `__getitem__(index)` and `__len__()`.

    Where samples are quicker to fetch together, define `__getitems__(indices) -> list` as well.

    Raises:
        NotImplementedError: `__getitem__` is called and not defined.

    >>> import cuframe as cf
    >>> from cuframe import data
    >>> class Squares(data.Dataset):
    ...     def __getitem__(self, index):
    ...         return index**2
    ...     def __len__(self):
    ...         return 3
    >>> [batch.tolist() for batch in data.DataLoader(Squares(), batch_size=2)]
    [[0, 1], [4]]
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """A stream of samples: subclasses define `__iter__()`.

    With several workers every one of them iterates over its own copy; use `get_worker_info()` to share the work.

    >>> import cuframe as cf
    >>> from cuframe import data
    >>> class Stream(data.IterableDataset):
    ...     def __iter__(self):
    ...         yield from (1.0, 2.0, 3.0)
    >>> [batch.tolist() for batch in data.DataLoader(Stream(), batch_size=2)]
    [[1.0, 2.0], [3.0]]
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class TensorDataset(Dataset[tuple]):
    """Samples along the first dimension of tensors of equal length.

    Args:
        tensors: Tensors or NumPy arrays, each of shape [N, ...].

    Raises:
        ValueError: none given, or their first dimensions differ.

    >>> import cuframe as cf
    >>> from cuframe.data import TensorDataset
    >>> TensorDataset(cf.arange(3), cf.ones(3, 2))[1]
    (tensor(1), tensor([1., 1.]))
    """

    def __init__(self, *tensors: Any) -> None:
        if not tensors:
            raise ValueError("TensorDataset: needs at least one tensor")
        self.tensors = tuple(t if isinstance(t, Tensor) else Tensor(np.asarray(t)) for t in tensors)
        sizes = [t.array.shape[0] if t.array.ndim else None for t in self.tensors]
        if None in sizes or len(set(sizes)) > 1:
            raise ValueError(f"TensorDataset: the tensors' first dimensions must be equal, got {sizes}")

    def __getitem__(self, index: Any) -> tuple:
        return tuple(Tensor(t.array[index, ...]) for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].array.shape[0]


class Subset(Dataset[T]):
    """The samples of `dataset` at `indices`.

    Args:
        dataset: with `__getitem__`.
        indices: of the samples, in the order wanted.

    >>> from cuframe import data
    >>> list(data.Subset("abcd", [3, 1]))
    ['d', 'b']
    """

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T]):
    """Datasets one after another.

    Args:
        datasets: with `__getitem__` and `__len__`; `+` makes one of two.

    Raises:
        ValueError: none given.
        TypeError: one is an IterableDataset.
        IndexError: an index that no dataset has.

    >>> from cuframe import data
    >>> both = data.ConcatDataset(["ab", "cd"])
    >>> len(both), both[2]
    (4, 'c')
    """

    def __init__(self, datasets: Sequence[Dataset[T]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: needs at least one dataset")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise TypeError("ConcatDataset: an IterableDataset has no length; chain the iterators instead")
        self.cumulative_sizes = [int(n) for n in np.cumsum([len(d) for d in self.datasets])]  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> T:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"ConcatDataset: index {index} is out of range for {size} samples")
        index %= size
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def random_split(dataset: Dataset[T], lengths: Sequence[float], generator: Any = None) -> list[Subset[T]]:
    """Split a dataset at random into parts that do not overlap.

    Args:
        dataset: of N samples.
        lengths: sizes that sum to N, or fractions that sum to 1 (what rounding leaves over goes to the first parts).
        generator: a `cf.Generator`; by default the global one.

    Raises:
        ValueError: the lengths sum to neither.

    >>> import cuframe as cf
    >>> from cuframe import data
    >>> _ = cf.manual_seed(0)
    >>> train, test = data.random_split("abcdefghij", [0.8, 0.2])
    >>> len(train), len(test), sorted([*train, *test]) == list("abcdefghij")
    (8, 2, True)
    """
    total = len(dataset)  # type: ignore[arg-type]
    sizes = list(lengths)
    if math.isclose(sum(sizes), 1) and all(0 <= s <= 1 for s in sizes):
        counts = [math.floor(total * s) for s in sizes]
        for i in range(total - sum(counts)):
            counts[i % len(counts)] += 1
    else:
        counts = [int(s) for s in sizes]
    if sum(counts) != total or any(c < 0 for c in counts):
        raise ValueError(f"random_split: lengths {sizes} must sum to the {total} samples, or to 1")
    from ..random import default_generator

    order = (generator or default_generator).permutation(total).tolist()
    ends = np.cumsum(counts).tolist()
    return [Subset(dataset, order[end - count : end]) for end, count in zip(ends, counts)]
