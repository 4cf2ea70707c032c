"""Order: sort, topk, kthvalue, unique, histograms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import cuframe as cf

from .core import ALL, FLOATS, ErrorInput, Make, OpInfo, Sample

T = cf.tensor


def _shuffled(make: Make, *shape: int) -> cf.Tensor:
    """No two elements alike, so that finite differences cannot change the order."""
    n = int(np.prod(shape))
    x = T(make.rng.permutation(n).reshape(shape) / 2.0).to(make.dtype)
    return x.requires_grad_() if make.requires_grad and x.is_floating_point() else x


def sort(make: Make) -> Iterable[Sample]:
    yield Sample((_shuffled(make, 5),))
    yield Sample((_shuffled(make, 3, 4), 0))
    yield Sample((_shuffled(make, 3, 4), -1, True))
    yield Sample((_shuffled(make, 2, 3, 2), 1), {"descending": True, "stable": True})
    yield Sample((make(),))
    yield Sample((make(2, 0),))


def sort_ref(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    if not x.ndim:
        return [x, np.zeros((), np.int64)]
    order = argsort_ref(x, dim, descending)
    return [np.take_along_axis(x, order, dim), order]


def argsort_ref(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    if not x.ndim:
        return np.zeros((), np.int64)
    key = -x.astype(np.float64) if descending else x
    return np.argsort(key, dim, kind="stable")


def dim_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 2), {}, IndexError, r"dim must be in \[-2, 1\] for a 2-d tensor, got 2")
    yield ErrorInput(([1.0],), {}, TypeError, "input must be a Tensor, got list")


def msort(make: Make) -> Iterable[Sample]:
    yield Sample((_shuffled(make, 3, 4),))
    yield Sample((_shuffled(make, 5),))


def topk(make: Make) -> Iterable[Sample]:
    yield Sample((_shuffled(make, 6), 2))
    yield Sample((_shuffled(make, 3, 4), 3, 0))
    yield Sample((_shuffled(make, 3, 4), 2, -1, False))
    yield Sample((_shuffled(make, 3, 4), 0))
    yield Sample((make(), 1))
    # Above 256 entries the k-th value is found by partition; ties go to the earlier entry.
    ties = make.rng.integers(0, 9, (2, 300)) if make.dtype.kind in "iu" else make.rng.permutation(600).reshape(2, 300)
    yield Sample((T((ties % 256 if make.dtype.itemsize < 4 else ties).astype(np.float64)).to(make.dtype), 5))


def topk_ref(x: Any, k: int, dim: int = -1, largest: bool = True) -> Any:
    values, order = sort_ref(x, dim, largest)
    if not x.ndim:
        return [values, order]
    return [np.take(values, range(k), dim), np.take(order, range(k), dim)]


def topk_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 4), {}, RuntimeError, r"k must be in \[0, 3\] for dim -1, got 4")
    yield ErrorInput((make(2, 3), -1), {}, RuntimeError, r"k must be in \[0, 3\]")
    yield ErrorInput((make(2, 3), 1, 2), {}, IndexError, "dim must be in")


def kthvalue(make: Make) -> Iterable[Sample]:
    yield Sample((_shuffled(make, 6), 2))
    yield Sample((_shuffled(make, 3, 4), 3, 0))
    yield Sample((_shuffled(make, 3, 4), 1, 1, True))
    yield Sample((make(), 1))


def kthvalue_ref(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    values, order = sort_ref(x, dim)
    if not x.ndim:
        return [values, order]
    take = [k - 1] if keepdim else k - 1
    return [np.take(values, take, dim), np.take(order, take, dim)]


def kthvalue_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 0), {}, RuntimeError, r"k must be in \[1, 3\] for dim -1, got 0")
    yield ErrorInput((make(2, 3), 4), {}, RuntimeError, r"k must be in \[1, 3\]")


def unique(make: Make) -> Iterable[Sample]:
    x = T([[1, 0, 1], [1, 0, 1], [0, 0, 1]]).to(make.dtype)
    yield Sample((x,))
    yield Sample((x,), {"return_inverse": True, "return_counts": True})
    yield Sample((x,), {"return_inverse": True, "return_counts": True, "dim": 0})
    yield Sample((x,), {"return_counts": True, "dim": 1})
    yield Sample((x[:, :0],))


def unique_ref(x: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None) -> Any:
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True, axis=dim)
    inverse = inverse.reshape(x.shape if dim is None else x.shape[dim])
    return [values] + ([inverse] if return_inverse else []) + ([counts] if return_counts else [])


def consecutive_ref(x: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None) -> Any:
    rows = x.reshape(-1, 1) if dim is None else np.moveaxis(x, dim, 0)
    starts = [i for i in range(len(rows)) if i == 0 or (rows[i] != rows[i - 1]).any()]
    values = np.take(x.reshape(-1) if dim is None else x, starts, dim or 0)
    inverse = np.searchsorted(starts, range(len(rows)), "right") - 1
    counts = np.diff([*starts, len(rows)]).astype(np.int64)
    inverse = inverse.reshape(x.shape if dim is None else x.shape[dim])
    return [values] + ([inverse] if return_inverse else []) + ([counts] if return_counts else [])


def histc(make: Make) -> Iterable[Sample]:
    x = T([0.0, 1.0, 1.5, 2.0, 7.0], dtype=make.dtype)
    yield Sample((x, 4, 0, 2))
    yield Sample((x, 7))


def histc_ref(x: Any, bins: int = 100, low: float = 0, high: float = 0) -> Any:
    return np.histogram(x, bins, (low, high) if high > low else None)[0].astype(x.dtype)


def histc_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), 0), {}, RuntimeError, "bins must be positive")
    yield ErrorInput((make(2), 3, 1, 0), {}, RuntimeError, "max must not be below min")
    yield ErrorInput((T([1]), 3), {}, TypeError, "input must be floating point, got int64")
    yield ErrorInput((T([1.0, float("inf")]), 3), {}, RuntimeError, "is not finite")


OPS = [
    OpInfo("sort", samples=sort, reference=sort_ref, dtypes=ALL, errors=dim_errors),
    OpInfo("argsort", samples=sort, reference=argsort_ref, dtypes=ALL, errors=dim_errors, gradient=False),
    OpInfo("msort", samples=msort, reference=lambda x: np.sort(x, 0), dtypes=ALL, errors=None),
    OpInfo("topk", samples=topk, reference=topk_ref, dtypes=ALL, errors=topk_errors, zero_size=False),
    OpInfo("kthvalue", samples=kthvalue, reference=kthvalue_ref, dtypes=ALL, errors=kthvalue_errors, zero_size=False),
    OpInfo("unique", samples=unique, reference=unique_ref, dtypes=ALL, gradient=False, zero_size=False),
    OpInfo(
        "unique_consecutive", samples=unique, reference=consecutive_ref, dtypes=ALL, gradient=False, zero_size=False
    ),
    OpInfo("histc", samples=histc, reference=histc_ref, dtypes=FLOATS, errors=histc_errors, gradient=False),
]
