"""Rows of a table, looked up and reduced bag by bag."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .define import check_floating, need_tensor
from .embedding import add_rows, embedding, renormalize

__all__ = ["embedding_bag"]

_NAME = "embedding_bag"


def _check(
    input: Tensor, weight: Tensor, offsets: Tensor | None, scale_grad_by_freq: bool, mode: str, sparse: bool,
    per_sample_weights: Tensor | None,
) -> None:  # fmt: skip
    need_tensor(_NAME, "input", input)
    check_floating(_NAME, "weight", weight)
    index, table = input.array, weight.array
    if index.dtype.kind not in "iu":
        raise TypeError(f"{_NAME}: input must hold row numbers of an integer dtype, got {index.dtype.name}")
    if table.ndim != 2:
        raise RuntimeError(f"{_NAME}: weight must be (num_embeddings, embedding_dim), got {tuple(table.shape)}")
    if index.__class__ is not table.__class__:
        raise RuntimeError(f"{_NAME}: input and weight must be on one device, got {input.device} and {weight.device}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"{_NAME}: mode must be 'sum', 'mean' or 'max', got {mode!r}")
    if mode == "max" and (scale_grad_by_freq or sparse):
        what = "scale_grad_by_freq" if scale_grad_by_freq else "sparse"
        raise ValueError(f"{_NAME}: {what}=True is for the modes 'sum' and 'mean', got mode 'max'")
    if index.ndim == 2:
        if offsets is not None:
            raise ValueError(
                f"{_NAME}: offsets must be None for a 2-d input, whose rows are the bags, got {type(offsets).__name__}"
            )
    elif index.ndim != 1:
        raise ValueError(f"{_NAME}: input must be 1-d or 2-d, got shape {tuple(index.shape)}")
    elif offsets is None:
        raise ValueError(f"{_NAME}: a 1-d input needs offsets, a 1-d Tensor of where each bag begins; got None")
    else:
        need_tensor(_NAME, "offsets", offsets)
        if offsets.array.ndim != 1:
            raise ValueError(f"{_NAME}: offsets must be 1-d, got shape {tuple(offsets.array.shape)}")
        if offsets.array.dtype.kind not in "iu":
            raise TypeError(f"{_NAME}: offsets must be of an integer dtype, got {offsets.array.dtype.name}")
    if per_sample_weights is not None:
        need_tensor(_NAME, "per_sample_weights", per_sample_weights)
        w = per_sample_weights.array
        if mode != "sum":
            raise NotImplementedError(f"{_NAME}: per_sample_weights are for mode 'sum', got mode {mode!r}")
        if w.shape != index.shape:
            raise ValueError(
                f"{_NAME}: per_sample_weights must have the input's shape {tuple(index.shape)}, got {tuple(w.shape)}"
            )
        if w.dtype != table.dtype:
            raise RuntimeError(
                f"{_NAME}: per_sample_weights must be of the weight's dtype {table.dtype.name}, got {w.dtype.name}"
            )


def _bounds(offsets: Tensor, n: int, include_last_offset: bool) -> np.ndarray:
    """Where the bags begin and, one entry more than there are bags, where the last one ends."""
    bounds = offsets.numpy(force=True).astype(np.int64)
    if include_last_offset and not bounds.size:
        raise ValueError(f"{_NAME}: offsets must have at least 1 entry with include_last_offset=True, got 0")
    if not include_last_offset:
        bounds = np.append(bounds, n)
    if bounds.size > 1 and bounds[0] != 0:
        raise RuntimeError(f"{_NAME}: offsets must begin with 0, got {bounds[0]}")
    if (bounds > n).any():
        raise RuntimeError(f"{_NAME}: offsets must be at most the input's length {n}, got {bounds.max()}")
    if (np.diff(bounds) < 0).any():
        raise RuntimeError(f"{_NAME}: offsets must not decrease, got {offsets.array.tolist()}")
    if include_last_offset and bounds[-1] != n:
        raise RuntimeError(
            f"{_NAME}: with include_last_offset=True offsets must end with the input's length {n}, got {bounds[-1]}"
        )
    return bounds


def _largest(table: Any, index: Any, bag: Any, count: int) -> tuple[Any, Any]:
    """For mode 'max': the row (count, D) each element comes from, the first of equals; which bags are empty."""
    xp = backend_of(table).xp
    n, d = index.shape[0], table.shape[1]
    rows = table.take(index, axis=0).reshape(-1)
    if rows.dtype.itemsize == 2:
        rows = rows.astype(np.float32)
    place = (bag[:, None] * d + xp.arange(d)).reshape(-1)
    best = xp.full(count * d, -np.inf, rows.dtype)
    xp.maximum.at(best, place, rows)
    hit = ((rows == best[place]) | (rows != rows)).nonzero()[0]
    first = xp.full(count * d, n, np.uint64)  # CuPy has no such minimum of int64 or halves
    xp.minimum.at(first, place[hit], (hit // max(d, 1)).astype(np.uint64))
    empty = xp.bincount(bag, minlength=count) == 0
    return xp.append(index, 0)[first.astype(np.int64).reshape(count, d)], empty


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima of bags of rows of a table.

        out[b] = reduce over i in bag b of (per_sample_weights[i] *) weight[input[i]]

    Args:
        input: row numbers of an integer dtype: (B, N), B bags of N; or (N,), with `offsets`.
        weight: (V, D) the table.
        offsets: (B,) where each bag begins in a 1-d input; integers that begin with 0 and do not decrease.
        max_norm: rows that are looked up and whose norm is larger are scaled down to it, in place, outside the graph.
        norm_type: the order of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it occurs in `input`; not for `"max"`.
        mode: `"sum"`, `"mean"` or `"max"`.
        sparse: make the gradient of the table a `SparseGrad` of the rows used; not for `"max"`.
        per_sample_weights: of the input's shape, in the table's dtype; only for `"sum"`. It takes a gradient, too.
        include_last_offset: `offsets` is (B + 1,) and ends with N.
        padding_idx: a row that is left out of every bag and takes no gradient; negative ones count from the end.

    Returns:
        (B, D); zeros for empty bags. Of equal largest elements the first takes the gradient. Rows are added in the
        order of `input`, so the result never varies.

    Raises:
        ValueError: an unknown mode or one that an argument is not for, offsets missing or given beside a 2-d input,
            weights of another shape.
        NotImplementedError: weights with another mode than `"sum"`.
        RuntimeError: offsets that do not begin with 0, decrease or do not end where they must.
        IndexError: a row number is outside [0, V).

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> table = cf.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    >>> F.embedding_bag(cf.tensor([2, 0, 1]), table, cf.tensor([0, 2]), mode="sum")
    tensor([[4., 6.],
            [2., 3.]])
    """
    _check(input, weight, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights)
    index, table = input.array, weight.array
    backend = backend_of(index)
    v = table.shape[0]
    if padding_idx is not None:
        if not -v <= padding_idx < v:
            raise RuntimeError(f"{_NAME}: padding_idx must be in [{-v}, {v}), got {padding_idx}")
        padding_idx %= v
    backend.check_index(_NAME, "input", index, v)
    if offsets is None:
        count, length = index.shape
        bounds = np.arange(count + 1) * length
    else:
        bounds = _bounds(offsets, index.shape[0], include_last_offset)
        count = bounds.size - 1
    if max_norm is not None:
        renormalize(table, index, max_norm, norm_type)

    bag: Any = backend.asarray(np.repeat(np.arange(count), np.diff(bounds)), index)
    flat = index.reshape(-1)[: bag.shape[0]]  # with no bags at all, none of it
    weights = None if per_sample_weights is None else per_sample_weights.reshape(-1)[: flat.shape[0]]  # type: ignore[attr-defined]
    if padding_idx is not None:
        kept = (flat != padding_idx).nonzero()[0]
        flat, bag = flat[kept], bag[kept]
        if weights is not None:
            weights = weights[Tensor(kept)]

    if mode == "max":
        chosen, empty = _largest(table, flat, bag, count)
        columns = backend.xp.arange(table.shape[1])
        return weight[Tensor(chosen), Tensor(columns)].masked_fill(Tensor(empty[:, None]), 0)  # type: ignore[attr-defined]
    rows: Any = embedding(Tensor(flat), weight, None, None, norm_type, scale_grad_by_freq, sparse)
    if weights is not None:
        rows = rows * weights.reshape(-1, 1)
    out: Any = add_rows(rows, bag, count)
    if mode == "mean":
        sizes = backend.xp.maximum(backend.xp.bincount(bag, minlength=count), 1)
        out = out / Tensor(sizes[:, None].astype(table.dtype))
    return out
