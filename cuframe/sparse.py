"""Row-sparse gradients: the rows of a table that a batch used, and nothing for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import Device, backend_of
from .tensor import Size, Tensor

__all__ = ["SparseGrad"]


class SparseGrad:
    """The gradient of a table whose rows are mostly zero, as `Embedding(sparse=True)` leaves it in `weight.grad`.

    Args:
        rows: (nnz,) which rows, in any order; a row may occur several times and counts as the sum.
        data: (nnz, ...) their values.
        shape: of the whole table.
        coalesced: the rows are known to be sorted and to occur once each.

    SGD, Adagrad and SparseAdam take it. A sum with a dense gradient is dense.

    >>> import numpy as np
    >>> from cuframe.sparse import SparseGrad
    >>> g = SparseGrad(np.array([2, 0, 2]), np.array([[1.0], [2.0], [3.0]]), (4, 1))
    >>> g.coalesce().indices(), g.to_dense().reshape(4)
    (tensor([[0, 2]]), tensor([2., 0., 4., 0.], dtype=cuframe.float64))
    """

    __slots__ = ("_coalesced", "_shape", "data", "rows")

    is_sparse = True
    requires_grad = False

    def __init__(self, rows: Any, data: Any, shape: tuple, coalesced: bool = False) -> None:
        if data.shape != rows.shape + tuple(shape[1:]) or rows.ndim != 1:
            raise ValueError(
                f"SparseGrad: data must be {rows.shape + tuple(shape[1:])} for {rows.shape[0]} rows of a table of "
                f"{tuple(shape)}, got {tuple(data.shape)}"
            )
        self.rows = rows
        self.data = data
        self._shape = Size(shape)
        self._coalesced = coalesced

    @property
    def shape(self) -> Size:
        """The shape of the whole table."""
        return self._shape

    @property
    def ndim(self) -> int:
        """The number of dimensions of the table."""
        return len(self._shape)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        return self.data.dtype

    @property
    def device(self) -> Device:
        """Where the values live."""
        return backend_of(self.data).device_of(self.data)

    def indices(self) -> Tensor:
        """(1, nnz) the rows, on the same memory."""
        return Tensor(self.rows.reshape(1, -1))

    def values(self) -> Tensor:
        """(nnz, ...) the rows' values, on the same memory."""
        return Tensor(self.data)

    def is_coalesced(self) -> bool:
        """True if the rows are sorted and occur once each."""
        return self._coalesced

    def coalesce(self) -> SparseGrad:
        """The same gradient with sorted rows that occur once each; the order of additions is fixed."""
        if self._coalesced:
            return self
        backend = backend_of(self.data)
        rows, place = backend.xp.unique(self.rows, return_inverse=True)
        data = backend.sum_at((rows.shape[0], *self._shape[1:]), place.reshape(-1), self.data)
        return SparseGrad(rows, data, self._shape, coalesced=True)

    def to_dense(self) -> Tensor:
        """The whole table as a Tensor."""
        return Tensor(backend_of(self.data).sum_at(tuple(self._shape), self.rows, self.data))

    def detach(self) -> SparseGrad:
        """The gradient itself; it is never part of a graph."""
        return self

    def clone(self) -> SparseGrad:
        """A copy."""
        return SparseGrad(self.rows.copy(), self.data.copy(), self._shape, self._coalesced)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, SparseGrad):
            if other._shape != self._shape:
                raise RuntimeError(
                    f"add: sparse gradients must agree in shape, got {tuple(self._shape)} and {tuple(other._shape)}"
                )
            join = backend_of(self.data).xp.concatenate
            return SparseGrad(join([self.rows, other.rows]), join([self.data, other.data]), self._shape)
        if isinstance(other, Tensor):
            return self.to_dense() + other
        if hasattr(other, "dtype"):
            return self.to_dense().array + other
        return NotImplemented

    __radd__ = __add__

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        # `array + sparse` and `array += sparse` come here.
        if ufunc is not np.add or method != "__call__" or kwargs:
            return NotImplemented
        dense = (x.to_dense().array if isinstance(x, SparseGrad) else x for x in inputs)
        return np.add(*dense, *(out or ()))

    def __mul__(self, factor: Any) -> SparseGrad:
        if not isinstance(factor, (int, float)):
            return NotImplemented
        return SparseGrad(self.rows, self.data * self.data.dtype.type(factor), self._shape, self._coalesced)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> SparseGrad:
        if not isinstance(divisor, (int, float)):
            return NotImplemented
        return SparseGrad(self.rows, self.data / self.data.dtype.type(divisor), self._shape, self._coalesced)

    def __repr__(self) -> str:
        return (
            f"SparseGrad(indices={self.indices()!r}, values={self.values()!r}, shape={tuple(self._shape)}, "
            f"coalesced={self._coalesced})"
        )
