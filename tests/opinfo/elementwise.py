"""Elementwise maths of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.special

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, Make, OpInfo, Sample

DTYPES = (*FLOATS, *HALVES, "uint8", "int64", "bool")


def within(low: float, high: float) -> Callable[[Make], Iterable[Sample]]:
    """Samples with elements in [low, high), away from where the function bends or ends."""

    def samples(make: Make) -> Iterable[Sample]:
        yield Sample((make(2, 3, low=low, high=high),))
        yield Sample((make(low=low, high=high),))
        yield Sample((make(3, 1, 2, low=low, high=high),))
        yield Sample((make(0, 3),))

    return samples


def not_a_tensor(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput(([1.0, 2.0],), {}, TypeError, f"{name}: input must be a Tensor, got list")
        yield ErrorInput((None,), {}, TypeError, f"{name}: input must be a Tensor, got NoneType")

    return errors


def of_floats(reference: Callable) -> Callable:
    """NumPy computes small integers in float16."""

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        wide = x.astype(np.float64) if x.dtype.kind in "iub" else x
        return np.asarray(reference(wide, *args, **kwargs)).astype(wide.dtype)

    return call


def smooth(name: str, reference: Callable, low: float = -2, high: float = 2, **kwargs: Any) -> OpInfo:
    """An operation that computes integers in the default dtype."""
    kwargs.setdefault("dtypes", DTYPES)
    kwargs.setdefault("samples", within(low, high))
    kwargs.setdefault("errors", not_a_tensor(kwargs.pop("own_name", name)))
    return OpInfo(name, reference=of_floats(reference), **kwargs)


def step(name: str, reference: Callable, **kwargs: Any) -> OpInfo:
    """An operation that keeps integers as they are."""
    kwargs.setdefault("dtypes", DTYPES)
    kwargs.setdefault("samples", within(-3, 3))
    kwargs.setdefault("errors", not_a_tensor(kwargs.pop("own_name", name)))
    return OpInfo(name, reference=reference, **kwargs)


def exact(ufunc: Callable) -> Callable:
    return lambda x: x.copy() if x.dtype.kind in "iub" else ufunc(x)


def check(name: str, reference: Callable) -> OpInfo:
    def samples(make: Make) -> Iterable[Sample]:
        yield Sample((make(2, 3),))
        yield Sample((make(()),))
        yield Sample((make(0, 2),))
        if make.dtype.kind in "fV":
            odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0]).astype(make.dtype)
            yield Sample((cf.Tensor(odd),))

    return OpInfo(
        name, samples=samples, reference=reference, dtypes=DTYPES, gradient=False, errors=not_a_tensor(name)
    )


def rounding(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, low=-9, high=9),))
    yield Sample((make(4, low=-9, high=9),), {"decimals": 0})
    yield Sample((make(),))
    if make.dtype.kind == "f" and make.dtype.itemsize > 2:
        yield Sample((make(2, 3, low=-9, high=9),), {"decimals": 2})
        yield Sample((make(2, 3, low=-99, high=99),), {"decimals": -1})
    if make.dtype.kind == "i":
        yield Sample((make(2, 3, low=-99, high=99),), {"decimals": 1})
        yield Sample((make(2, 3, low=-99, high=99),), {"decimals": -1})


def round_errors(make: Make) -> Iterable[ErrorInput]:
    yield from not_a_tensor("round")(make)
    yield ErrorInput((make(2),), {"decimals": 1.5}, TypeError, "round: decimals must be an int, got float")


def relu_errors(make: Make) -> Iterable[ErrorInput]:
    yield from not_a_tensor("relu")(make)
    yield ErrorInput((make(2, dtype="bool"),), {}, TypeError, "relu: not defined for bool")


def nan_to_num(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    if make.dtype.kind in "fV":
        odd = np.array([1.5, np.nan, np.inf, -np.inf]).astype(make.dtype)
        yield Sample((cf.Tensor(odd),), {"posinf": 4.0, "neginf": -4.0})
        yield Sample((cf.Tensor(odd),), {"nan": 2.0, "posinf": 4.0, "neginf": -8.0})
    if make.dtype.kind == "f" and make.dtype.itemsize > 2:
        yield Sample((cf.Tensor(odd),))


def logit(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, low=0.1, high=0.9),))
    yield Sample((make(2, 3, low=-0.5, high=1.5),), {"eps": 0.2})
    yield Sample((make(low=0.2, high=0.8), 0.1))


def _logit_ref(x: Any, eps: float | None = None) -> Any:
    return scipy.special.logit(x if eps is None else np.clip(x, eps, 1 - eps))


def polygamma(make: Make) -> Iterable[Sample]:
    for n in (0, 1, 2, 3):
        yield Sample((n, make(2, 3, low=0.5, high=3)))
    yield Sample((1, make(low=1, high=3)))


def polygamma_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((-1, make(2)), {}, ValueError, "polygamma: n must not be negative, got -1")
    yield ErrorInput((1.5, make(2)), {}, TypeError, "polygamma: n must be an int, got float")
    yield ErrorInput((1, [1.0]), {}, TypeError, "polygamma: input must be a Tensor, got list")


def _polygamma_ref(n: int, x: Any) -> Any:
    wide = x.astype(np.float64)
    return scipy.special.polygamma(n, wide).astype(x.dtype if x.dtype.kind == "f" else np.float64)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


# float16 and bfloat16 round a result once; the reference does so in float32, whose digits of functions with steep
# slopes or cancellation differ.
NEAR_ONE = {"float32": (3e-6, 1e-5)}

OPS = [
    smooth("exp", np.exp),
    smooth("exp2", np.exp2),
    smooth("expm1", np.expm1),
    smooth("log", np.log, 0.2, 4),
    smooth("log2", np.log2, 0.2, 4),
    smooth("log10", np.log10, 0.2, 4),
    smooth("log1p", np.log1p, -0.8, 3),
    smooth("sqrt", np.sqrt, 0.2, 4),
    smooth("rsqrt", lambda x: 1 / np.sqrt(x), 0.2, 4),
    step("square", lambda x: x * x if x.dtype.kind != "b" else x.astype(np.int64)),
    smooth("reciprocal", lambda x: 1 / x, 0.3, 3),
    smooth("sin", np.sin, -4, 4),
    smooth("cos", np.cos, -4, 4),
    smooth("tan", np.tan, -1.2, 1.2),
    *(smooth(n, np.arcsin, -0.9, 0.9, own_name="asin") for n in ("asin", "arcsin")),
    *(smooth(n, np.arccos, -0.9, 0.9, own_name="acos") for n in ("acos", "arccos")),
    *(smooth(n, np.arctan, own_name="atan") for n in ("atan", "arctan")),
    smooth("sinh", np.sinh),
    smooth("cosh", np.cosh),
    smooth("tanh", np.tanh),
    *(smooth(n, np.arcsinh, own_name="asinh") for n in ("asinh", "arcsinh")),
    *(smooth(n, np.arccosh, 1.2, 4, own_name="acosh") for n in ("acosh", "arccosh")),
    *(smooth(n, np.arctanh, -0.8, 0.8, own_name="atanh") for n in ("atanh", "arctanh")),
    smooth("deg2rad", np.deg2rad, -200, 200),
    smooth("rad2deg", np.rad2deg),
    smooth("sigmoid", _sigmoid, -8, 8),
    step("relu", lambda x: np.maximum(x, 0), dtypes=DTYPES[:-1], errors=relu_errors),
    *(step(n, np.abs, own_name="abs") for n in ("abs", "absolute")),
    *(step(n, lambda x: x if x.dtype.kind == "b" else np.sign(x), own_name="sign") for n in ("sign", "sgn")),
    step("floor", exact(np.floor)),
    step("ceil", exact(np.ceil)),
    *(step(n, exact(np.trunc), own_name="trunc") for n in ("trunc", "fix")),
    smooth("frac", lambda x: x - np.trunc(x)),
    OpInfo("round", samples=rounding, reference=lambda x, decimals=0: np.round(x, decimals) if x.dtype.kind != "b"
           else x, dtypes=DTYPES, errors=round_errors),
    check("isnan", np.isnan),
    check("isinf", np.isinf),
    check("isfinite", np.isfinite),
    check("isposinf", lambda x: x.astype(np.float32) == np.inf),
    check("isneginf", lambda x: x.astype(np.float32) == -np.inf),
    check("isreal", lambda x: np.ones(x.shape, bool)),
    check("signbit", lambda x: np.signbit(x) if x.dtype.kind == "f" else x < 0),
    OpInfo("nan_to_num", samples=nan_to_num, reference=lambda x, **k: np.nan_to_num(x, **k), dtypes=DTYPES,
           errors=not_a_tensor("nan_to_num")),
    smooth("erf", scipy.special.erf),
    smooth("erfc", scipy.special.erfc),
    smooth("erfinv", scipy.special.erfinv, -0.9, 0.9),
    smooth("lgamma", scipy.special.gammaln, 0.5, 4),
    smooth("digamma", scipy.special.digamma, 0.5, 4),
    OpInfo("polygamma", samples=polygamma, reference=_polygamma_ref, dtypes=(*FLOATS, *HALVES, "int64"),
           errors=polygamma_errors, method=False),
    OpInfo("logit", samples=logit, reference=of_floats(_logit_ref), dtypes=(*FLOATS, *HALVES),
           errors=not_a_tensor("logit"), tolerances=NEAR_ONE),
    smooth("sinc", np.sinc),
    smooth("i0", np.i0),
]  # fmt: skip
