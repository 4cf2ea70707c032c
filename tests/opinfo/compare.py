"""Comparisons, logic and bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, Make, OpInfo, Sample

DTYPES = (*FLOATS, *HALVES, "uint8", "int64", "bool")


def pairs(make: Make) -> Iterable[Sample]:
    yield Sample((make(4, 3, low=0, high=3), make(4, 3, low=0, high=3)))
    yield Sample((make(2, 1, 3, low=0, high=3), make(4, 1, low=0, high=3)))
    x = make(2, 3, low=0, high=3)
    yield Sample((x, x.detach().clone()))
    yield Sample((x, 1))
    yield Sample((make(()), make(2)))
    yield Sample((make(0, 2), make(1, 2)))


def pair_errors(name: str, text: str = "") -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput(([1], [2]), {}, TypeError, f"{name}: expected a Tensor, got list and list")
        yield ErrorInput((make(2), "a"), {}, TypeError, f"{name}: the second operand must be .*, got str")
        yield ErrorInput((make(2), make(3)), {}, RuntimeError, rf"{name}: shapes \(2,\) and \(3,\) cannot be broadcast")

    return errors


def comparison(name: str, ufunc: Callable, own_name: str = "") -> OpInfo:
    return OpInfo(
        name, samples=pairs, reference=ufunc, dtypes=DTYPES, gradient=False, errors=pair_errors(own_name or name)
    )


def integers(make: Make) -> Iterable[Sample]:
    yield Sample((make(4, 3, low=0, high=9), make(4, 3, low=0, high=4)))
    yield Sample((make(2, 1, low=0, high=9), make(3, low=0, high=4)))
    if make.dtype.kind != "b":
        yield Sample((make(4, low=0, high=9), 2))


def bit_errors(name: str, allowed: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        wrong = make(2, dtype="float32", requires_grad=False)
        yield ErrorInput((wrong, wrong), {}, TypeError, f"{name}: the operands must be {allowed}, got float32")
        yield ErrorInput((make(2), make(3)), {}, RuntimeError, f"{name}: shapes")

    return errors


def bits(name: str, ufunc: Callable, bools: bool = True) -> OpInfo:
    dtypes = ("uint8", "int32", "int64", *(("bool",) if bools else ()))
    errors = bit_errors(name, "bools or integers" if bools else "integers")
    return OpInfo(name, samples=integers, reference=ufunc, dtypes=dtypes, gradient=False, errors=errors)


def single(make: Make) -> Iterable[Sample]:
    yield Sample((make(4, 3, low=0, high=2),))
    yield Sample((make(()),))


def not_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([1],), {}, TypeError, "logical_not: input must be a Tensor, got list")


def bitwise_not_errors(make: Make) -> Iterable[ErrorInput]:
    wrong = make(2, dtype="float32", requires_grad=False)
    yield ErrorInput((wrong,), {}, TypeError, "bitwise_not: input must be bool or integer, got float32")
    yield ErrorInput((3,), {}, TypeError, "bitwise_not: input must be a Tensor, got int")


def equals(make: Make) -> Iterable[Sample]:
    x = make(2, 3, low=0, high=3)
    yield Sample((x, x.detach().clone()))
    yield Sample((x, x + 1 if make.dtype.kind != "b" else cf.logical_not(x)))
    yield Sample((x, make(3, low=0, high=3)))
    yield Sample((make(0, 3), make(0, 3)))


def equal_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), 1.0), {}, TypeError, "equal: other must be a Tensor, got float")


def close(make: Make) -> Iterable[Sample]:
    x = make(2, 3)
    yield Sample((x, x.detach().clone()))
    yield Sample((x, make(2, 3)))
    if make.dtype.kind in "fV":
        odd = cf.Tensor(np.array([np.nan, np.inf, -np.inf, np.inf, 1.0]).astype(make.dtype))
        even = cf.Tensor(np.array([np.nan, np.inf, np.inf, 1.0, np.inf]).astype(make.dtype))
        yield Sample((odd, even))
        yield Sample((odd, even), {"equal_nan": True})
    if make.dtype.name in FLOATS:
        yield Sample((x, x.detach() + 0.01), {"atol": 0.02})
        yield Sample((x, x.detach() * 1.01), {"rtol": 0.02, "atol": 0.0})
        yield Sample((make(2, 1), make(3)), {"rtol": 0.5})


def close_errors(make: Make) -> Iterable[ErrorInput]:
    x = make(2)
    yield ErrorInput((x, 1.0), {}, TypeError, "isclose: other must be a Tensor, got float")
    yield ErrorInput((x, make(2, dtype="int8")), {}, RuntimeError, "isclose: other must be .* as the input, got int8")
    yield ErrorInput((x, x), {"rtol": -1}, RuntimeError, "isclose: rtol must not be negative, got -1")
    yield ErrorInput((x, make(3)), {}, RuntimeError, "shapes")


def _close_ref(x: Any, y: Any, **kwargs: Any) -> Any:
    return np.isclose(x.astype(np.float64), y.astype(np.float64), **kwargs)


def isin(make: Make) -> Iterable[Sample]:
    yield Sample((make(4, 3, low=0, high=4), make(2, low=0, high=4)))
    yield Sample((make(4, low=0, high=4), make(2, 2, low=0, high=4)), {"invert": True})
    yield Sample((make(4, low=0, high=4), 1))


def isin_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([1], [2]), {}, TypeError, "isin: expected a Tensor, got list and list")


def _truth(ufunc: Callable) -> Callable:
    return lambda x, y: ufunc(x != 0, np.not_equal(y, 0))


OPS = [
    comparison("eq", np.equal),
    *(comparison(n, np.not_equal, "ne") for n in ("ne", "not_equal")),
    *(comparison(n, np.less, "lt") for n in ("lt", "less")),
    *(comparison(n, np.less_equal, "le") for n in ("le", "less_equal")),
    *(comparison(n, np.greater, "gt") for n in ("gt", "greater")),
    *(comparison(n, np.greater_equal, "ge") for n in ("ge", "greater_equal")),
    comparison("logical_and", _truth(np.logical_and)),
    comparison("logical_or", _truth(np.logical_or)),
    comparison("logical_xor", _truth(np.logical_xor)),
    OpInfo("logical_not", samples=single, reference=lambda x: x == 0, dtypes=DTYPES, gradient=False,
           errors=not_errors),
    bits("bitwise_and", np.bitwise_and),
    bits("bitwise_or", np.bitwise_or),
    bits("bitwise_xor", np.bitwise_xor),
    bits("bitwise_left_shift", np.left_shift, bools=False),
    bits("bitwise_right_shift", np.right_shift, bools=False),
    OpInfo("bitwise_not", samples=single, reference=np.invert, dtypes=("uint8", "int64", "bool"), gradient=False,
           errors=bitwise_not_errors),
    OpInfo("equal", samples=equals, reference=np.array_equal, dtypes=DTYPES, gradient=False, errors=equal_errors),
    OpInfo("isclose", samples=close, reference=_close_ref, dtypes=(*FLOATS, *HALVES, "uint8", "int64"),
           gradient=False, errors=close_errors),
    OpInfo("allclose", samples=close, reference=lambda x, y, **k: _close_ref(x, y, **k).all(),
           dtypes=(*FLOATS, *HALVES, "uint8", "int64"), gradient=False, errors=close_errors),
    OpInfo("isin", samples=isin, reference=np.isin, dtypes=(*FLOATS, "uint8", "int64"), gradient=False,
           errors=isin_errors),
]  # fmt: skip
