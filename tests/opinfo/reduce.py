"""Reductions: sums, products, extremes, variances, norms, quantiles."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.special

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, Make, OpInfo, Sample

REAL = (*FLOATS, *HALVES)
NUMBERS = (*REAL, "uint8", "int32", "int64")
DTYPES = (*NUMBERS, "bool")


def dims(
    several: bool = True, none: bool = True, low: float = -2, high: float = 2
) -> Callable[[Make], Iterable[Sample]]:
    """Every way to name the dimensions of a reduction."""

    def samples(make: Make) -> Iterable[Sample]:
        def x(*shape: int) -> cf.Tensor:
            return make(*shape, low=low, high=high)

        if none:
            yield Sample((x(2, 3),))
            yield Sample((x(2, 3),), {"keepdim": True})
            yield Sample((x(),))
        yield Sample((x(2, 3), 1))
        yield Sample((x(3, 2, 2), -2, True))
        yield Sample((x(3, 2), 0), {"keepdim": True})
        yield Sample((x(), 0))
        if several:
            yield Sample((x(2, 3, 2), (0, 2)))
            yield Sample((x(2, 3, 2), [-1, 1], True))
            yield Sample((x(2, 3),), {"axis": (0, 1), "keepdims": True})
            yield Sample((x(2, 2), ()))

    return samples


def dim_errors(name: str, several: bool = True, *rest: Any) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput(([1.0], *rest, 0), {}, TypeError, f"{name}: input must be a Tensor, got list")
        for dim in (2, -3):
            x = make(2, 3)
            yield ErrorInput((x, *rest, dim), {}, IndexError, rf"{name}: dim must be in \[-2, 1\], got {dim}")
        yield ErrorInput((make(2), *rest, 1.5), {}, TypeError, f"{name}: dim must be an int, got float")
        if several:
            twice = (make(2, 3), *rest, (0, -2))
            yield ErrorInput(twice, {}, RuntimeError, f"{name}: dim must not name a dimension twice")

    return errors


def more(*makers: Callable[[Make], Iterable]) -> Callable[[Make], Iterable]:
    return lambda make: (item for maker in makers for item in maker(make))


def axis_of(x: Any, dim: Any) -> Any:
    if x.ndim == 0 or dim == () or dim is None:
        return None
    return tuple(dim) if isinstance(dim, (list, tuple)) else dim


def over(function: Callable, **settings: Any) -> Callable:
    """A NumPy reduction with PyTorch's arguments."""

    def reference(x: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        return function(x, axis=axis_of(x, dim if axis is None else axis), keepdims=keepdim or keepdims, **settings)

    return reference


def typed(function: Callable) -> Callable:
    """`over`, with PyTorch's dtypes: integers are added up in int64."""

    def reference(x: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        if dtype is not None:
            x = x.astype(dtype)
        elif x.dtype.kind in "iub":
            x = x.astype(np.int64)
        return over(function)(x, *args, **kwargs)

    return reference


def typed_samples(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 1), {"dtype": cf.float64})
    yield Sample((make(2, 3, dtype="int32"),), {"dtype": cf.float32})
    yield Sample((make(2, 3, dtype="int32"),), {"dtype": "int32"})


def empty(make: Make) -> Iterable[Sample]:
    yield Sample((make(0, 3), 0))
    yield Sample((make(0, 3), 1))
    yield Sample((make(0),))


def need_floats(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        whole = make(2, dtype="int64")
        yield ErrorInput((whole,), {}, RuntimeError, f"{name}: input must be floating point, got int64")

    return errors


def need_elements(name: str, **kwargs: Any) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        x = make(0, 3)
        kind = IndexError if "dim" in kwargs or name == "mode" else RuntimeError
        yield ErrorInput((x,), kwargs, kind, rf"{name}: needs at least one element .* got shape \(0, 3\)")

    return errors


# -- NaN and zeros ----------------------------------------------------------------------------------
def missing(make: Make) -> Iterable[Sample]:
    if make.dtype.kind not in "fV":
        return
    data = np.array([[1.0, np.nan, 2.0], [np.nan, 4.0, -1.0]]).astype(make.dtype)
    yield Sample((cf.Tensor(data),))
    yield Sample((cf.Tensor(data), 0))
    yield Sample((cf.Tensor(data), 1, True))


def zeros(make: Make) -> Iterable[Sample]:
    """Products with no zero, one, and several in a row."""
    data = np.array([[1.5, 0.0, 2.0], [0.0, 3.0, 0.0], [1.0, 2.0, -0.5]]).astype(make.dtype)
    for args in ((), (0,), (1, True)):
        x = cf.Tensor(data.copy())
        yield Sample((x.requires_grad_() if make.requires_grad and make.dtype.kind == "f" else x, *args))


# -- extremes ---------------------------------------------------------------------------------------
def ranked(make: Make) -> Iterable[Sample]:
    """Distinct elements, so that the place of the extreme is certain and finite differences see no tie."""

    def x(*shape: int) -> cf.Tensor:
        size = int(np.prod(shape))
        data = make.rng.permutation(size).reshape(shape).astype(make.dtype)
        t = cf.Tensor(np.asarray(data))
        return t.requires_grad_() if make.requires_grad and make.dtype.kind in "fV" else t

    yield Sample((x(3, 4), 0))
    yield Sample((x(3, 4), 1, True))
    yield Sample((x(2, 3, 2), -2))
    yield Sample((x(), 0))


def ranked_whole(make: Make) -> Iterable[Sample]:
    for sample in ranked(make):
        yield Sample(sample.args[:1])


def pair(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), make(3)))


def _picked(find: Callable) -> Callable:
    """The values and the indices that `find(x, axis)` says, for the functions that give both."""

    def reference(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
        if not x.ndim:
            return x, np.int64(0)
        index = np.expand_dims(find(x, dim), dim)
        values = np.take_along_axis(x, index, dim)
        return (values, index) if keepdim else (values.squeeze(dim), index.squeeze(dim))

    return reference


def _lower_median(x: Any, axis: int) -> Any:
    return np.argsort(x, axis).take((x.shape[axis] - 1) // 2, axis)


def _where(function: Callable) -> Callable:
    def reference(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        return function(x, axis=dim if x.ndim else None, keepdims=keepdim)

    return reference


def modes(make: Make) -> Iterable[Sample]:
    for shape in ((7,), (3, 5), (4, 1)):
        x = make(*shape, low=0, high=3, dtype="int64")
        yield Sample((cf.Tensor(x.array.astype(make.dtype)),))
        yield Sample((cf.Tensor(x.array.astype(make.dtype)), 0, True))


def _mode_ref(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    rows = np.moveaxis(x, dim, -1)
    values = np.zeros(rows.shape[:-1], x.dtype)
    index = np.zeros(rows.shape[:-1], np.int64)
    for where in np.ndindex(*rows.shape[:-1]):
        best = min(statistics.multimode(rows[where].tolist()))
        values[where], index[where] = best, np.flatnonzero(rows[where] == best)[-1]
    return (np.expand_dims(values, dim), np.expand_dims(index, dim)) if keepdim else (values, index)


def aminmaxes(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    yield Sample((make(2, 3),), {"dim": 1})
    yield Sample((make(2, 3),), {"dim": 0, "keepdim": True})


def aminmax_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3),), {"dim": 2}, IndexError, r"aminmax|amin: dim must be in \[-2, 1\], got 2")
    yield ErrorInput((make(0),), {}, RuntimeError, "amin: needs at least one element")


# -- spread -----------------------------------------------------------------------------------------
def spreads(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 4),))
    yield Sample((make(3, 4), 0))
    yield Sample((make(3, 4), 1, False, True))
    yield Sample((make(3, 4), False))
    yield Sample((make(3, 4, 2), (0, 2)), {"correction": 0, "keepdim": True})
    yield Sample((make(5),), {"unbiased": False})
    yield Sample((make(5, 2), 0), {"correction": 2})


def spread_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        whole = make(2, dtype="int64")
        yield ErrorInput((whole,), {}, RuntimeError, f"{name}: input must be floating point, got int64")
        yield ErrorInput((make(2), 1), {}, IndexError, rf"{name}: dim must be in \[-1, 0\], got 1")
        both = {"unbiased": True, "correction": 1}
        yield ErrorInput((make(2),), both, TypeError, f"{name}: unbiased and correction must not both be given")

    return errors


def _spread(function: Callable) -> Callable:
    def reference(
        x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        ddof = correction if correction is not None else 1 if unbiased is None else int(unbiased)
        return function(x, axis=dim, ddof=ddof, keepdims=keepdim)

    return reference


def _and_mean(function: Callable) -> Callable:
    def reference(x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
        keep = kwargs.get("keepdim", args[1] if len(args) > 1 else False)
        mean = np.mean(x, axis=None if isinstance(dim, bool) else dim, keepdims=keep)
        return _spread(function)(x, dim, *args, **kwargs), mean

    return reference


# -- norms ------------------------------------------------------------------------------------------
def norms(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    for p in (1, 2, 3, 1.5, 0.5, -1, float("inf"), -float("inf")):
        yield Sample((make(3, 2, low=0.2), p, 0))
    yield Sample((make(2, 3, 2), 2, (0, 2), True))
    yield Sample((make(2, 3),), {"p": "fro", "dim": 1, "keepdim": True})
    yield Sample((make(2, 3), 3, -1))


def norm_zero(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 0))
    yield Sample((make(2, 3), 0, 1))


def norm_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), "nuc"), {}, ValueError, "norm: p must be a number or 'fro', got 'nuc'")
    yield ErrorInput((make(0), float("inf")), {}, RuntimeError, "norm: needs at least one element")


def _norm_ref(x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    p = 2 if p == "fro" else p
    size = np.abs(x)
    if p == 0:
        return (x != 0).sum(axis=dim, keepdims=keepdim).astype(x.dtype)
    if np.isinf(p):
        return (np.max if p > 0 else np.min)(size, axis=dim, keepdims=keepdim)
    return (size**p).sum(axis=dim, keepdims=keepdim) ** (1 / p)


def dists(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), make(2, 3)))
    yield Sample((make(2, 3), make(3), 1))
    yield Sample((make(2, 3), make(2, 1)), {"p": 3.0})


def dist_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), 1.0), {}, TypeError, "dist: other must be a Tensor, got float")
    yield ErrorInput((make(2), make(3)), {}, RuntimeError, "shapes")


# -- quantiles --------------------------------------------------------------------------------------
def quantiles(make: Make) -> Iterable[Sample]:
    shares = cf.Tensor(np.array([0.0, 0.3, 1.0]).astype(make.dtype))
    yield Sample((make(3, 4), 0.4))
    yield Sample((make(5, 3), 0.6, 0))
    yield Sample((make(3, 4), shares, 1, True))
    yield Sample((make(3, 4), shares))
    for how in ("lower", "higher", "midpoint", "nearest"):
        yield Sample((make(7), 0.4), {"interpolation": how})
    yield Sample((make(7, 2), make(3, low=0.31, high=0.32), 0))


def quantile_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        x = make(3)
        yield ErrorInput((x, 1.5), {}, RuntimeError, rf"{name}: q must be in \[0, 1\], got 1.5")
        yield ErrorInput((x, "a"), {}, TypeError, f"{name}: q must be a number or a Tensor, got str")
        yield ErrorInput((x, make(2, 2)), {}, RuntimeError, rf"{name}: q must be a number or 1-d, got shape \(2, 2\)")
        yield ErrorInput((x, 0.5), {"interpolation": "no"}, ValueError, f"{name}: interpolation must be one of")
        yield ErrorInput((make(0), 0.5), {}, RuntimeError, f"{name}: needs at least one element")
        yield ErrorInput((make(2, dtype="int8"), 0.5), {}, RuntimeError, f"{name}: input must be floating point")
        yield ErrorInput((x, 0.5, 1), {}, IndexError, rf"{name}: dim must be in \[-1, 0\], got 1")

    return errors


def quantiles_missing(make: Make) -> Iterable[Sample]:
    data = np.array([[1.0, np.nan, 2.0, 5.0], [7.0, 4.0, -1.0, 0.0]]).astype(make.dtype)
    yield Sample((cf.Tensor(data), 0.4, 1))
    yield Sample((cf.Tensor(data), 0.4))


def _quantile_ref(function: Callable) -> Callable:
    def reference(x: Any, q: Any, dim: Any = None, keepdim: bool = False, interpolation: str = "linear") -> Any:
        q = np.asarray(q, x.dtype)
        return np.asarray(function(x, q, axis=dim, keepdims=keepdim, method=interpolation)).astype(x.dtype)

    return reference


# -- counting and truth -----------------------------------------------------------------------------
def counts(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 4, low=0, high=2),))
    yield Sample((make(3, 4, low=0, high=2), 1))
    yield Sample((make(3, 2, 2, low=0, high=2), (0, 2)))


def _sums(name: str, function: Callable, *samples: Callable, **kwargs: Any) -> OpInfo:
    kwargs.setdefault("dtypes", DTYPES)
    errors = more(dim_errors(name, kwargs.pop("several", True)), *kwargs.pop("errors", ()))
    return OpInfo(name, samples=more(*samples), reference=typed(function), errors=errors, **kwargs)


def _extremes(name: str, whole: Callable, find: Callable, dtypes: tuple = NUMBERS) -> list[OpInfo]:
    errors = more(dim_errors(name, several=False), need_elements(name), need_elements(name, dim=0))
    one = OpInfo(name, samples=ranked, reference=_picked(find), dtypes=dtypes, errors=errors)
    return [one, OpInfo(name, samples=ranked_whole, reference=whole, dtypes=dtypes, variant="whole")]


# float16 and bfloat16 variances subtract a mean in float32, the reference in float32 as well, from the same rounded
# elements: what differs is the last rounding, which the default tolerances cover.
OPS = [
    _sums("sum", np.sum, dims(), typed_samples, empty),
    _sums("nansum", np.nansum, dims(), missing, gradient=False),
    _sums("nansum", np.nansum, dims(), dtypes=FLOATS, variant="gradient"),
    _sums("mean", np.mean, dims(), dtypes=REAL, errors=(need_floats("mean"),)),
    OpInfo("mean", samples=typed_samples, reference=typed(np.mean), dtypes=("float32",), variant="dtype",
           op=lambda x, *a, dtype: cf.mean(x, *a, dtype="float32" if dtype == "int32" else dtype)),
    _sums("nanmean", np.nanmean, dims(), missing, dtypes=REAL, errors=(need_floats("nanmean"),), gradient=False),
    _sums("nanmean", np.nanmean, dims(), dtypes=FLOATS, variant="gradient"),
    _sums("prod", np.prod, dims(several=False), zeros, typed_samples, empty, several=False),
    OpInfo("logsumexp", samples=more(dims(none=False), lambda make: [Sample((make(2, 3), None))]),
           reference=lambda x, dim=None, keepdim=False, axis=None, keepdims=False: np.asarray(scipy.special.logsumexp(
               x.astype(np.float64) if x.dtype.kind in "iub" else x, axis=axis_of(x, dim if axis is None else axis),
               keepdims=keepdim or keepdims)), dtypes=(*REAL, "int64"), errors=dim_errors("logsumexp")),
    OpInfo("any", samples=dims(low=0), reference=over(np.any), dtypes=DTYPES, gradient=False,
           errors=dim_errors("any")),
    OpInfo("all", samples=dims(low=0), reference=over(np.all), dtypes=DTYPES, gradient=False,
           errors=dim_errors("all")),
    OpInfo("count_nonzero", samples=counts, reference=np.count_nonzero, dtypes=DTYPES, gradient=False,
           errors=dim_errors("count_nonzero")),
    OpInfo("amax", samples=dims(), reference=over(np.max), dtypes=DTYPES,
           errors=more(dim_errors("amax"), need_elements("amax", dim=0))),
    OpInfo("amin", samples=dims(), reference=over(np.min), dtypes=DTYPES,
           errors=more(dim_errors("amin"), need_elements("amin", dim=0))),
    OpInfo("aminmax", samples=aminmaxes, reference=lambda x, dim=None, keepdim=False: (
        np.min(x, axis=dim, keepdims=keepdim), np.max(x, axis=dim, keepdims=keepdim)), dtypes=NUMBERS,
        errors=aminmax_errors),
    *_extremes("max", np.max, np.argmax),
    *_extremes("min", np.min, np.argmin),
    OpInfo("max", samples=pair, reference=np.maximum, variant="pair"),
    OpInfo("min", samples=pair, reference=np.minimum, variant="pair"),
    *_extremes("median", lambda x: np.sort(x.reshape(-1))[(x.size - 1) // 2], _lower_median),
    *_extremes("nanmedian", lambda x: np.sort(x.reshape(-1))[(x.size - 1) // 2], _lower_median),
    OpInfo("mode", samples=modes, reference=_mode_ref, dtypes=(*FLOATS, "int64"), gradient=False,
           errors=more(dim_errors("mode", several=False), need_elements("mode", dim=0))),
    *(OpInfo(n, samples=more(ranked, ranked_whole), reference=_where(f), dtypes=NUMBERS, gradient=False,
             errors=more(dim_errors(n, several=False), need_elements(n)))
      for n, f in (("argmax", np.argmax), ("argmin", np.argmin))),
    *(OpInfo(n, samples=spreads, reference=_spread(f), dtypes=REAL, errors=spread_errors(n))
      for n, f in (("var", np.var), ("std", np.std))),
    *(OpInfo(f"{n}_mean", samples=spreads, reference=_and_mean(f), dtypes=REAL, errors=spread_errors(n))
      for n, f in (("var", np.var), ("std", np.std))),
    OpInfo("norm", samples=norms, reference=_norm_ref, dtypes=REAL, errors=more(dim_errors("norm", True, 2),
                                                                                need_floats("norm"), norm_errors)),
    OpInfo("norm", samples=norm_zero, reference=_norm_ref, dtypes=REAL, gradient=False, variant="count"),
    OpInfo("dist", samples=dists, reference=lambda x, y, p=2: _norm_ref(x - y, p), errors=dist_errors),
    OpInfo("quantile", samples=quantiles, reference=_quantile_ref(np.quantile), errors=quantile_errors("quantile")),
    OpInfo("quantile", samples=quantiles_missing, reference=_quantile_ref(np.quantile), gradient=False,
           variant="missing"),
    OpInfo("nanquantile", samples=quantiles, reference=_quantile_ref(np.nanquantile),
           errors=quantile_errors("nanquantile")),
    OpInfo("nanquantile", samples=quantiles_missing, reference=_quantile_ref(np.nanquantile), gradient=False,
           variant="missing"),
]  # fmt: skip
