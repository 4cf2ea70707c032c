"""From a list of samples to a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtypes import get_default_dtype
from ..tensor import Tensor

__all__ = ["default_collate", "pad_collate"]


def _stack(arrays: list[Any]) -> Tensor:
    first = arrays[0].shape
    for i, a in enumerate(arrays):
        if a.shape != first:
            raise ValueError(
                f"collate: sample 0 has shape {tuple(first)} and sample {i} has {tuple(a.shape)}; "
                "pad_collate pads sequences of different length"
            )
    return Tensor(np.stack(arrays))


def _collate(batch: list[Any], stack: Callable[[list[Any]], Any]) -> Any:
    first = batch[0]
    if isinstance(first, Tensor):
        return stack([t.array for t in batch])
    if isinstance(first, (np.ndarray, np.generic)):
        return stack([np.asarray(a) for a in batch])
    if isinstance(first, bool):
        return Tensor(np.array(batch, np.bool_))
    if isinstance(first, int):
        return Tensor(np.array(batch, np.int64))
    if isinstance(first, float):
        return Tensor(np.array(batch, get_default_dtype()))
    if isinstance(first, (str, bytes)) or first is None:
        return list(batch)
    if isinstance(first, Mapping):
        missing = [i for i, sample in enumerate(batch) if sample.keys() != first.keys()]
        if missing:
            raise ValueError(f"collate: sample {missing[0]} has keys {list(batch[missing[0]])}, sample 0 {list(first)}")
        return {key: _collate([sample[key] for sample in batch], stack) for key in first}
    if isinstance(first, Sequence):
        lengths = {len(sample) for sample in batch}
        if len(lengths) > 1:
            raise ValueError(f"collate: samples must have equally many parts, got {sorted(lengths)}")
        parts = [_collate(list(part), stack) for part in zip(*batch)]
        if isinstance(first, tuple):
            return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
        return parts
    raise TypeError(f"collate: cannot batch {type(first).__name__}; give the DataLoader a collate_fn")


def default_collate(batch: list[Any]) -> Any:
    """Stack samples along a new first dimension: tensors, arrays and numbers; within tuples, lists and dicts, too.

    Raises:
        ValueError: shapes or structures differ between samples.
        TypeError: a sample of a type that has no batch form.

    >>> from cuframe.data import default_collate
    >>> default_collate([(1, 2.0), (3, 4.0)])
    (tensor([1, 3]), tensor([2., 4.]))
    """
    if not batch:
        raise ValueError("collate: the batch is empty")
    return _collate(batch, _stack)


class pad_collate:
    """Collation for sequences: arrays that differ in their first dimension are padded to the longest.

    Called with a list of samples it returns the batch with, in the place of each padded array, the pair
    (padded [N, T, ...], lengths [N] int64). With `batch_first=False` the padded array is [T, N, ...].

    Args:
        padding_value: what fills the rest.
        batch_first: samples along the first dimension (default) or the second.

    >>> import numpy as np
    >>> from cuframe.data import pad_collate
    >>> (x, lengths), y = pad_collate()([(np.ones(2, np.int64), 7), (np.ones(3, np.int64), 8)])
    >>> x, lengths, y
    (tensor([[1, 1, 0],
            [1, 1, 1]]), tensor([2, 3]), tensor([7, 8]))
    """

    def __init__(self, padding_value: float = 0.0, batch_first: bool = True) -> None:
        self.padding_value = padding_value
        self.batch_first = batch_first

    def __call__(self, batch: list[Any]) -> Any:
        if not batch:
            raise ValueError("collate: the batch is empty")
        return _collate(batch, self._pad)

    def _pad(self, arrays: list[Any]) -> Any:
        first = arrays[0]
        if first.ndim == 0:
            return _stack(arrays)
        for i, a in enumerate(arrays):
            if a.shape[1:] != first.shape[1:] or a.ndim != first.ndim:
                raise ValueError(
                    "pad_collate: samples may differ in their first dimension only, "
                    f"got {tuple(first.shape)} and {tuple(a.shape)} (sample {i})"
                )
        lengths = np.array([a.shape[0] for a in arrays], np.int64)
        longest = int(lengths.max())
        n = len(arrays)
        shape = (n, longest) if self.batch_first else (longest, n)
        out = np.full(shape + first.shape[1:], self.padding_value, first.dtype)
        for i, a in enumerate(arrays):
            if self.batch_first:
                out[i, : a.shape[0]] = a
            else:
                out[: a.shape[0], i] = a
        return Tensor(out), Tensor(lengths)
