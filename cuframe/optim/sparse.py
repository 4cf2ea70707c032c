"""What optimizers need of a sparse gradient."""

from __future__ import annotations

from typing import Any

from ..autograd import versions
from ..tensor import Tensor

__all__ = ["sparse_parts", "write_rows"]


def sparse_parts(g: Any) -> tuple[Any, Any]:
    """The rows that a sparse gradient touches, each once, and their gradients, as arrays."""
    g = g.coalesce()
    return g.rows, g.data


def write_rows(p: Tensor, rows: Any, values: Any) -> None:
    """`p[rows] = values`, noted as a change in place."""
    p.array[rows] = values.astype(p.array.dtype, copy=False)
    versions.written(p.array, "the optimizer's step")
