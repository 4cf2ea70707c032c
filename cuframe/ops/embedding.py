"""Looking up rows of a table, with a dense or a row-sparse gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import versions
from ..backend import backend_of
from ..sparse import SparseGrad
from ..tensor import Tensor
from .define import Op, check_floating, need_tensor, record

__all__ = ["embedding"]


def _factor(index: Any, padding_idx: int | None, by_freq: bool, dtype: Any) -> Any:
    """What each looked-up row's gradient is multiplied by: (n, 1), or None where that is one for all."""
    factor = None
    if by_freq:
        xp = backend_of(index).xp
        factor = (1 / xp.bincount(index)[index]).astype(dtype)[:, None]
    if padding_idx is not None:
        used = (index != padding_idx)[:, None]
        factor = used.astype(dtype) if factor is None else factor * used
    return factor


def _embedding_vjp(
    g: Any, needs: tuple, index: Any, shape: tuple, padding_idx: int | None, by_freq: bool, sparse: bool
) -> tuple:
    flat = index.reshape(-1)
    g = g.reshape((flat.shape[0], shape[1]))
    if isinstance(g, Tensor):
        factor = _factor(flat, padding_idx, by_freq, g.dtype)
        if factor is not None:
            g = g * factor
        return (add_rows(g, flat, shape[0]),)
    if sparse:
        if padding_idx is not None:
            used = flat != padding_idx
            flat, g = flat[used], g[used]
        factor = _factor(flat, None, by_freq, g.dtype)
        return (SparseGrad(flat, g if factor is None else g * factor, shape),)
    kernel = backend_of(flat).kernel("embedding")
    if kernel is not None:
        return (kernel.backward(g, flat, shape[0], padding_idx, by_freq),)
    factor = _factor(flat, None, by_freq, g.dtype)
    table = backend_of(flat).sum_at(shape, flat, g if factor is None else g * factor)
    if padding_idx is not None:
        table[padding_idx] = 0
    return (table,)


def _rows_added_vjp(g: Any, needs: tuple, index: Any) -> tuple:
    """The gradient of adding rows to a table: looking them up."""
    if isinstance(g, Tensor):
        return (embedding(Tensor(index), g),)
    return (g.take(index, axis=0),)


_EMBEDDING = Op("embedding", _embedding_vjp, (None,) * 5)
_ROWS_ADDED = Op("embedding_backward", _rows_added_vjp, (None,))


def add_rows(rows: Tensor, index: Any, count: int) -> Tensor:
    """A table (count, D) of zeros to whose row `index[i]` row i of `rows` (n, D) has been added."""
    table = backend_of(index).sum_at((count, rows.array.shape[1]), index, rows.array)
    return record(table, _ROWS_ADDED, (rows,), (index,))


def renormalize(weight: Any, index: Any, max_norm: float, norm_type: float) -> None:
    """Scale the rows of a table that `index` names and that are longer than `max_norm` down to it, in place."""
    rows = backend_of(index).xp.unique(index)
    used = weight[rows].astype(np.float32) if weight.dtype.itemsize == 2 else weight[rows]
    norm = np.linalg.norm(used, norm_type, axis=1, keepdims=True)
    scale = np.where(norm > max_norm, max_norm / (norm + 1e-7), np.ones_like(norm))
    weight[rows] = (used * scale).astype(weight.dtype)
    versions.written(weight, "embedding (max_norm)")


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of a table that `input` names: `out[...] = weight[input[...]]`.

    Args:
        input: row numbers of an integer dtype, of any shape.
        weight: (V, D) the table.
        padding_idx: a row that takes no gradient; negative ones count from the end.
        max_norm: rows that are looked up and whose norm is larger are scaled down to it, in place, outside the graph.
        norm_type: the order of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it occurs in `input`.
        sparse: make the gradient a `SparseGrad` that holds only the rows used. Under `create_graph` it is dense.

    Returns:
        A tensor of the input's shape with D as a further dimension. Backward keeps the row numbers only, and adds rows
        in the order of `input`, so the result never varies.

    Raises:
        TypeError: `input` is not of an integer dtype.
        IndexError: a row number is outside [0, V). On GPUs, where looking would mean waiting, its rows are NaN instead,
            and their gradient is dropped.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.embedding(cf.tensor([2, 0]), cf.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    tensor([[4., 5.],
            [0., 1.]])
    """
    need_tensor("embedding", "input", input)
    check_floating("embedding", "weight", weight)
    index, table = input.array, weight.array
    if index.dtype.kind not in "iu":
        raise TypeError(f"embedding: input must hold row numbers of an integer dtype, got {index.dtype.name}")
    if table.ndim != 2:
        raise RuntimeError(f"embedding: weight must be (num_embeddings, embedding_dim), got {tuple(table.shape)}")
    if index.__class__ is not table.__class__:
        raise RuntimeError(f"embedding: input and weight must be on one device, got {input.device} and {weight.device}")
    v = table.shape[0]
    if padding_idx is not None:
        if not -v <= padding_idx < v:
            raise ValueError(f"embedding: padding_idx must be in [{-v}, {v}), got {padding_idx}")
        padding_idx %= v
    backend_of(index).check_index("embedding", "input", index, v)
    if max_norm is not None:
        renormalize(table, index, max_norm, norm_type)
    saved = (index, table.shape, padding_idx, scale_grad_by_freq, sparse)
    kernel = backend_of(table).kernel("embedding")
    rows = table.take(index, axis=0) if kernel is None else kernel.forward(table, index)
    return record(rows, _EMBEDDING, (weight,), saved)
