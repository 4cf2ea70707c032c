"""Running sums, products and extremes; differences and integrals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, Make, OpInfo, Sample

REAL = (*FLOATS, *HALVES)
NUMBERS = (*REAL, "uint8", "int64")


def along(make: Make) -> Iterable[Sample]:
    for n in (1, 2, 3, 5, 8):  # scans by doubling have their corner cases around powers of two
        yield Sample((make(n), 0))
    yield Sample((make(3, 4), 0))
    yield Sample((make(2, 3, 2), -2))
    yield Sample((make(), 0))
    yield Sample((make(3, 0), 1))


def typed(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 1), {"dtype": cf.float64})
    yield Sample((make(4, dtype="int32"), 0), {"dtype": "float32"})


def zeros(make: Make) -> Iterable[Sample]:
    data = np.array([[1.5, 0.0, 2.0, 3.0], [0.0, 3.0, 0.0, 2.0], [1.0, 2.0, -0.5, 0.0]]).astype(make.dtype)
    for dim in (0, 1):
        x = cf.Tensor(data.copy())
        yield Sample((x.requires_grad_() if make.requires_grad and make.dtype.kind == "f" else x, dim))


def more(*makers: Callable[[Make], Iterable]) -> Callable[[Make], Iterable]:
    return lambda make: (item for maker in makers for item in maker(make))


def dim_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput(([1.0], 0), {}, TypeError, f"{name}: input must be a Tensor, got list")
        yield ErrorInput((make(2, 3), 2), {}, IndexError, rf"{name}: dim must be in \[-2, 1\], got 2")
        yield ErrorInput((make(2), None), {}, TypeError, f"{name}: dim must be an int, got NoneType")

    return errors


def _accumulated(function: Callable) -> Callable:
    def reference(x: Any, dim: int, dtype: Any = None) -> Any:
        x = x.astype(dtype) if dtype is not None else x.astype(np.int64) if x.dtype.kind in "iub" else x
        return function(x, axis=dim) if x.ndim else x

    return reference


def ties(make: Make) -> Iterable[Sample]:
    x = make(9, low=0, high=3, dtype="int64").array.astype(make.dtype)
    yield Sample((cf.Tensor(x), 0))
    yield Sample((cf.Tensor(x.reshape(3, 3)), 1))
    if make.dtype.kind == "f":
        yield Sample((cf.Tensor(np.array([1.0, np.nan, 3.0, np.nan, 0.0]).astype(make.dtype)), 0))


def _extreme_ref(better: Callable) -> Callable:
    """One element after another, in plain Python."""

    def reference(x: Any, dim: int) -> Any:
        rows = np.moveaxis(np.atleast_1d(x), dim, -1)
        values, index = np.zeros_like(rows), np.zeros(rows.shape, np.int64)
        for where in np.ndindex(*rows.shape[:-1]):
            best = 0
            for i, element in enumerate(rows[where]):
                held = rows[where][best]
                if element != element or (held == held and better(element, held)):
                    best = i
                values[where][i], index[where][i] = rows[where][best], best
        shape = x.shape
        return np.moveaxis(values, -1, dim).reshape(shape), np.moveaxis(index, -1, dim).reshape(shape)

    return reference


def _logcumsumexp_ref(x: Any, dim: int) -> Any:
    x = x.astype(np.float64) if x.dtype.kind in "iub" else x
    return np.logaddexp.accumulate(x, axis=dim) if x.ndim else x


def large(make: Make) -> Iterable[Sample]:
    values = np.array([-np.inf, 9e3, -9e3, 8e3, 1e4]).astype(make.dtype)
    yield Sample((cf.Tensor(values), 0))


def diffs(make: Make) -> Iterable[Sample]:
    yield Sample((make(5),))
    yield Sample((make(2, 4), 2))
    yield Sample((make(4, 2), 1, 0))
    yield Sample((make(2, 3),), {"prepend": make(2, 1), "append": make(2, 2)})
    yield Sample((make(2, 3), 0))
    yield Sample((make(3), 5))


def diff_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(()),), {}, RuntimeError, "diff: input must have at least one dimension")
    yield ErrorInput((make(3), -1), {}, RuntimeError, "diff: n must not be negative, got -1")
    yield ErrorInput((make(3), 1, 1), {}, IndexError, r"diff: dim must be in \[-1, 0\], got 1")
    yield ErrorInput((make(3),), {"prepend": 1.0}, TypeError, "diff: prepend must be a Tensor, got float")


def _diff_ref(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    given = {k: v for k, v in (("prepend", prepend), ("append", append)) if v is not None}
    return np.diff(x, n, axis=dim, **given)


def integrals(make: Make) -> Iterable[Sample]:
    yield Sample((make(5),))
    yield Sample((make(2, 4), make(4)))
    yield Sample((make(4, 2), make(4)), {"dim": 0})
    yield Sample((make(2, 4), make(2, 4)))
    yield Sample((make(3),), {"dx": 0.5})


def integral_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput((make(3), make(4)), {}, RuntimeError, f"{name}: x must have 3 elements, got 4")
        yield ErrorInput((make(3), make(3)), {"dx": 1.0}, RuntimeError, f"{name}: x and dx must not both be given")
        yield ErrorInput((make(()),), {}, RuntimeError, f"{name}: y must have at least one dimension")
        yield ErrorInput((1.0,), {}, TypeError, f"{name}: input must be a Tensor, got float")

    return errors


def _pieces(y: Any, x: Any, dx: float | None, dim: int) -> Any:
    y = np.moveaxis(y, dim, -1)
    width = (1 if dx is None else dx) if x is None else np.diff(x if x.ndim == 1 else np.moveaxis(x, dim, -1))
    return (y[..., 1:] + y[..., :-1]) / 2 * width


def _trapezoid_ref(y: Any, x: Any = None, dx: float | None = None, dim: int = -1) -> Any:
    return _pieces(y, x, dx, dim).sum(-1)


def _running_ref(y: Any, x: Any = None, dx: float | None = None, dim: int = -1) -> Any:
    return np.moveaxis(_pieces(y, x, dx, dim).cumsum(-1), -1, dim)


OPS = [
    OpInfo("cumsum", samples=more(along, typed), reference=_accumulated(np.cumsum), dtypes=(*NUMBERS, "bool"),
           errors=dim_errors("cumsum"), inplace=False),
    OpInfo("cumsum", samples=along, reference=_accumulated(np.cumsum), inplace=True, variant="inplace"),
    OpInfo("cumprod", samples=more(along, zeros, typed), reference=_accumulated(np.cumprod),
           dtypes=(*NUMBERS, "bool"), errors=dim_errors("cumprod"), inplace=False),
    OpInfo("cumprod", samples=along, reference=_accumulated(np.cumprod), inplace=True, variant="inplace"),
    *(OpInfo(n, samples=along, reference=_extreme_ref(f), dtypes=NUMBERS, errors=dim_errors(n))
      for n, f in (("cummax", np.greater_equal), ("cummin", np.less_equal))),
    *(OpInfo(n, samples=ties, reference=_extreme_ref(f), dtypes=(*FLOATS, "int64"), gradient=False, variant="ties")
      for n, f in (("cummax", np.greater_equal), ("cummin", np.less_equal))),
    OpInfo("logcumsumexp", samples=along, reference=_logcumsumexp_ref, dtypes=(*REAL, "int64"),
           errors=dim_errors("logcumsumexp")),
    OpInfo("logcumsumexp", samples=large, reference=_logcumsumexp_ref, gradient=False, variant="large"),
    OpInfo("diff", samples=diffs, reference=_diff_ref, dtypes=(*FLOATS, "int64", "bool"), errors=diff_errors),
    *(OpInfo(n, samples=integrals, reference=_trapezoid_ref, errors=integral_errors("trapezoid"))
      for n in ("trapezoid", "trapz")),
    OpInfo("cumulative_trapezoid", samples=integrals, reference=_running_ref,
           errors=integral_errors("cumulative_trapezoid")),
]  # fmt: skip
