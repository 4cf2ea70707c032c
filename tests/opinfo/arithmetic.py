"""Arithmetic of two and three operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.special

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, Make, OpInfo, Sample

NUMBERS = (*FLOATS, *HALVES, "uint8", "int64")
DTYPES = (*NUMBERS, "bool")


def pairs(
    low: float = -2, high: float = 2, low2: float | None = None, high2: float | None = None, number: Any = 2
) -> Callable[[Make], Iterable[Sample]]:
    """Two operands of one shape, of shapes that broadcast, a number second, and zero dimensions."""
    first = {"low": low, "high": high}
    second = {"low": low if low2 is None else low2, "high": high if high2 is None else high2}

    def samples(make: Make) -> Iterable[Sample]:
        yield Sample((make(2, 3, **first), make(2, 3, **second)))
        yield Sample((make(2, 1, 3, **first), make(4, 1, **second)))
        yield Sample((make(**first), make(3, **second)))
        yield Sample((make(**first), make(**second)))
        if make.dtype.kind != "b":
            yield Sample((make(2, 3, **first), number))

    return samples


def pair_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput(([1.0], [2.0]), {}, TypeError, f"{name}: expected a Tensor, got list and list")
        yield ErrorInput((make(2), "a"), {}, TypeError, f"{name}: the second operand must be .*, got str")
        yield ErrorInput((None, make(2)), {}, TypeError, f"{name}: the first operand must be .*, got NoneType")
        yield ErrorInput((make(2), make(3)), {}, RuntimeError, rf"{name}: shapes \(2,\) and \(3,\) cannot be broadcast")

    return errors


def with_more(*makers: Callable[[Make], Iterable]) -> Callable[[Make], Iterable]:
    return lambda make: (item for maker in makers for item in maker(make))


def two(name: str, reference: Callable, samples: Callable | None = None, **kwargs: Any) -> OpInfo:
    kwargs.setdefault("dtypes", NUMBERS)
    kwargs.setdefault("errors", pair_errors(kwargs.pop("own_name", name)))
    return OpInfo(name, samples=samples or pairs(), reference=reference, **kwargs)


def floating(reference: Callable) -> Callable:
    def call(x: Any, y: Any) -> Any:
        if x.dtype.kind in "iub":
            x, y = x.astype(np.float64), np.asarray(y).astype(np.float64)
        return reference(x, y)

    return call


# -- add, sub, mul, div -----------------------------------------------------------------------------
def scaled(make: Make) -> Iterable[Sample]:
    if make.dtype.kind != "b":
        yield Sample((make(2, 3), make(3)), {"alpha": 2})
        yield Sample((make(2, 3), 3), {"alpha": 2})
    if make.dtype.name in FLOATS:
        yield Sample((make(2, 3), make(2, 3)), {"alpha": -0.5})
        yield Sample((make(2, 3), make(2, 3, dtype="int64")), {"alpha": 0.5})


def alpha_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        x = make(2, dtype="int64")
        yield ErrorInput((x, x), {"alpha": 0.5}, RuntimeError, f"{name}: alpha must be an integer for integer op")
        yield ErrorInput((make(2), make(2)), {"alpha": "a"}, TypeError, f"{name}: alpha must be a number, got str")

    return errors


def _times(other: Any, alpha: Any) -> Any:
    return other if alpha == 1 else other * alpha


def mixed(make: Make) -> Iterable[Sample]:
    """Operands of several dtypes."""
    if make.dtype.kind == "f":
        yield Sample((make(2, 3), make(2, 3, dtype="int64")))
        yield Sample((make(2, 3, dtype="bool"), make(2, 3)))
        yield Sample((make(3), make(dtype="float64")))
        yield Sample((2.0, make(2, 3)))


def quotients(make: Make) -> Iterable[Sample]:
    yield from pairs(-3, 3, 0.5, 4)(make)
    for mode in (None, "trunc", "floor"):
        yield Sample((make(2, 3, low=-9, high=9), make(2, 3, low=1, high=4)), {"rounding_mode": mode})
        yield Sample((make(2, 3, low=-9, high=9), 2), {"rounding_mode": mode})


def _div_ref(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    q = np.true_divide(np.asarray(x, np.float64), y)
    if rounding_mode is None:
        return q
    q = np.trunc(q) if rounding_mode == "trunc" else np.floor(q)
    return q.astype(x.dtype) if x.dtype.kind in "iu" else q


def div_errors(make: Make) -> Iterable[ErrorInput]:
    yield from pair_errors("div")(make)
    yield ErrorInput((make(2), make(2)), {"rounding_mode": "up"}, ValueError, "div: rounding_mode must be .*'up'")
    zero = make(2, dtype="int64") * 0
    yield ErrorInput((zero, zero), {"rounding_mode": "trunc"}, RuntimeError, "div: other must not contain zeros")


def divisor_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        zero = make(2, dtype="int64") * 0
        yield ErrorInput((zero, zero), {}, RuntimeError, f"{name}: other must not contain zeros for integer operands")

    return with_more(pair_errors(name), errors)


def subtraction_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput((make(2, dtype="bool"), make(2, dtype="bool")), {}, TypeError, "boolean subtract")

    return with_more(pair_errors("sub"), alpha_errors("sub"), errors)


def reversed_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), "a"), {}, TypeError, "sub: the first operand must be a Tensor or a number, got str")


# -- powers -----------------------------------------------------------------------------------------
def powers(make: Make) -> Iterable[Sample]:
    yield from pairs(0.3, 3, 0, 3)(make)
    yield Sample((make(2, 3, low=1, high=3), 3))
    yield Sample((make(2, 3, low=1, high=3), 0))
    if make.dtype.name in FLOATS:
        yield Sample((make(2, 3), 2))
        yield Sample((make(2, 3, low=0.3), 0.5))
        yield Sample((make(2, 3, low=0.3), -1.5))
        yield Sample((make(2, 3), cf.Tensor(np.array([2, 3, 0]))))


def pow_errors(make: Make) -> Iterable[ErrorInput]:
    yield from pair_errors("pow")(make)
    whole, flags = make(2, dtype="int64"), make(2, dtype="bool")
    yield ErrorInput((whole, -1), {}, RuntimeError, "pow: integers cannot be raised to negative integer powers")
    yield ErrorInput((flags, flags), {}, TypeError, "pow: not defined for bool")


def float_power_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((2.0, 3.0), {}, TypeError, "float_power: expected a Tensor, got float and float")
    yield ErrorInput((make(2), make(3)), {}, RuntimeError, "pow: shapes")


# -- bounds -----------------------------------------------------------------------------------------
def clamps(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, low=-3, high=3), -1, 1))
    yield Sample((make(2, 3, low=-3, high=3),), {"min": 0})
    yield Sample((make(2, 3, low=-3, high=3),), {"max": 0})
    yield Sample((make(2, 3, low=-3, high=3), make(3, low=-1, high=0), make(2, 1, low=1, high=2)))
    yield Sample((make(2, 3, low=-3, high=3), None, make(2, 3)))
    yield Sample((make(2, 3, low=-3, high=3), make(2, 3), None))
    yield Sample((make(low=-3, high=3), 1, -1))
    yield Sample((make(2, 3, low=-3, high=3), make(2, 3, low=1, high=3), make(2, 3, low=-3, high=-1)))


def clamps_promoted(make: Make) -> Iterable[Sample]:
    yield Sample((make(4, dtype="int64"), 0.5, None))
    yield Sample((make(4, dtype="int64"), make(4), 1))


def clamp_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2),), {}, ValueError, "clamp: at least one of min and max must be given")
    yield ErrorInput((make(2), "a"), {}, TypeError, "clamp: min must be a Tensor or a number, got str")
    yield ErrorInput(([1.0], 0), {}, TypeError, "clamp: input must be a Tensor, got list")
    yield ErrorInput((make(2), make(3)), {}, RuntimeError, r"clamp: shapes \(2,\) and \(3,\) cannot be broadcast")


def clamp_one(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 0))
    yield Sample((make(2, 3), make(3)))


def clamp_one_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), None), {}, ValueError, "clamp: at least one")


def _clamp_ref(x: Any, min: Any = None, max: Any = None) -> Any:
    r = x if min is None else np.maximum(x, min)
    return r if max is None else np.minimum(r, max)


# -- blends -----------------------------------------------------------------------------------------
def lerps(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), make(2, 3), 0.3))
    yield Sample((make(2, 3), make(3), 0.8))
    yield Sample((make(2, 3), make(2, 1), make(2, 3)))
    yield Sample((make(), make(), make()))


def lerp_errors(make: Make) -> Iterable[ErrorInput]:
    whole = make(2, dtype="int64")
    yield ErrorInput((make(2), make(2, dtype="float16"), 0.5), {}, RuntimeError, "lerp: end must be float32 .*float16")
    yield ErrorInput((whole, whole, 1), {}, TypeError, "lerp: input must be floating point, got int64")
    yield ErrorInput((make(2), 1.0, 0.5), {}, TypeError, "lerp: end must be a Tensor, got float")
    yield ErrorInput((make(2), make(2), "a"), {}, TypeError, "lerp: weight must be a Tensor or a number, got str")
    yield ErrorInput((make(2), make(3), 0.5), {}, RuntimeError, "lerp: shapes")


def triples(low: float = -2) -> Callable[[Make], Iterable[Sample]]:
    def samples(make: Make) -> Iterable[Sample]:
        yield Sample((make(2, 3), make(2, 3), make(2, 3, low=low)))
        yield Sample((make(2, 3), make(3), make(2, 1, low=low)), {"value": 3})
        if make.dtype.kind not in "iu":
            yield Sample((make(3), make(2, 1), make(3, low=low)), {"value": -0.5})

    return samples


def triple_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        x, whole = make(2), make(2, dtype="int64")
        yield ErrorInput((x, 1.0, x), {}, TypeError, f"{name}: tensor1 must be a Tensor, got float")
        yield ErrorInput((x, x, x), {"value": "a"}, TypeError, f"{name}: value must be a number, got str")
        yield ErrorInput((x, x, make(3)), {}, RuntimeError, rf"{name}: shapes \(2,\) and \(3,\)")
        yield ErrorInput((whole, whole, whole), {"value": 0.5}, RuntimeError, f"{name}: value must be an integer")

    return errors


def addcdiv_errors(make: Make) -> Iterable[ErrorInput]:
    whole = make(2, dtype="int64")
    yield ErrorInput((whole, whole, whole), {}, TypeError, "addcdiv: the tensors must be floating point, got int64")


# -- the rest ---------------------------------------------------------------------------------------
def single(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    yield Sample((make(),))
    yield Sample((make(0, 2),))


def single_errors(name: str, text: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput((1.0,), {}, TypeError, f"{name}: input must be a Tensor, got float")
        yield ErrorInput((make(2, dtype="bool"),), {}, RuntimeError if name == "neg" else TypeError, text)

    return errors


def ldexps(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), make(3, dtype="int64")))
    yield Sample((make(2, 3), 3))
    yield Sample((make(2, 3), make(2, 3)))


def ldexp_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((1.0, make(2)), {}, TypeError, "ldexp: input must be a Tensor, got float")
    yield ErrorInput((make(2), "a"), {}, TypeError, "ldexp: other must be a Tensor or a number, got str")


def integer_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    def errors(make: Make) -> Iterable[ErrorInput]:
        wrong = make(2, dtype="float32", requires_grad=False)
        yield ErrorInput((wrong, wrong), {}, TypeError, f"{name}: the operands must be integers, got float32")

    return errors


def infinite(make: Make) -> Iterable[Sample]:
    """Where exp(input) overflows, or both operands are the same infinity; without gradient checks."""
    high = cf.Tensor(np.array([9e3, -9e3, np.inf, -np.inf, 1.0]).astype(make.dtype))
    yield Sample((high, cf.Tensor(np.array([9e3, 9e3, np.inf, -np.inf, -np.inf]).astype(make.dtype))))


def xlogs(make: Make) -> Iterable[Sample]:
    yield from pairs(0.2, 2, 0.3, 3)(make)
    if make.dtype.name in FLOATS:
        odd = cf.Tensor(np.array([0.0, 0.0, 1.0, 0.0]).astype(make.dtype))
        yield Sample((odd, cf.Tensor(np.array([0.0, np.inf, 0.0, np.nan]).astype(make.dtype))))


def _heaviside_ref(x: Any, y: Any) -> Any:
    return np.heaviside(x, y).astype(x.dtype)


# float16 and bfloat16: the reference rounds a quotient or a power once, where x - y * floor(x / y) may be a whole
# divisor away; so these are tested in wide dtypes.
WIDE = (*FLOATS, "uint8", "int64")

OPS = [
    two("add", lambda x, y, alpha=1: np.add(x, _times(y, alpha)), with_more(pairs(), scaled), broadcasts=True,
        dtypes=DTYPES, errors=with_more(pair_errors("add"), alpha_errors("add"))),
    *(two(n, lambda x, y, alpha=1: np.subtract(x, _times(y, alpha)), with_more(pairs(), scaled),
          broadcasts=True, errors=subtraction_errors(n)) for n in ("sub", "subtract")),
    two("rsub", lambda x, y, alpha=1: y - _times(x, alpha), with_more(pairs(), scaled), broadcasts=False,
        errors=reversed_errors),
    *(two(n, np.multiply, pairs(), dtypes=DTYPES, own_name="mul") for n in ("mul", "multiply")),
    *(
        OpInfo(n, samples=mixed, reference=f, method=False, inplace=False, broadcasts=False, variant="mixed")
        for n, f in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("maximum", np.maximum))
    ),
    *(two(n, _div_ref, quotients, broadcasts=True, errors=div_errors) for n in ("div", "divide", "true_divide")),
    two("floor_divide", lambda x, y: np.floor_divide(x, y), pairs(-9, 9, 1, 4), dtypes=WIDE,
        errors=divisor_errors("floor_divide")),
    two("remainder", np.remainder, pairs(-9, 9, 1, 4), dtypes=WIDE, errors=divisor_errors("remainder")),
    two("fmod", np.fmod, pairs(-9, 9, 1, 4), dtypes=WIDE, errors=divisor_errors("fmod")),
    OpInfo("pow", samples=powers, reference=np.power, dtypes=NUMBERS, errors=pow_errors),
    OpInfo("pow", samples=lambda make: [Sample((2.0, make(2, 3))), Sample((0, make(3, low=1, high=2)))],
           reference=np.power, method=False, inplace=False, broadcasts=False, variant="of_number"),
    OpInfo("xlogy", samples=lambda make: [Sample((2.5, make(2, 3, low=0.3)))], reference=scipy.special.xlogy,
           method=False, broadcasts=False, variant="of_number"),
    OpInfo("float_power", samples=pairs(0.3, 3, 0, 3), reference=lambda x, y: np.power(x.astype(np.float64), y),
           dtypes=("float64",), errors=float_power_errors, broadcasts=False),
    *(OpInfo(n, samples=single, reference=np.negative, dtypes=NUMBERS, errors=single_errors("neg", "number, got bool"))
      for n in ("neg", "negative")),
    OpInfo("positive", samples=single, reference=np.positive, dtypes=NUMBERS,
           errors=single_errors("positive", "positive: not defined for bool")),
    two("maximum", np.maximum, dtypes=DTYPES),
    two("minimum", np.minimum, dtypes=DTYPES),
    two("fmax", np.fmax, dtypes=DTYPES),
    two("fmin", np.fmin, dtypes=DTYPES),
    *(OpInfo(n, samples=clamps, reference=_clamp_ref, dtypes=(*FLOATS, *HALVES, "int64"), errors=clamp_errors)
      for n in ("clamp", "clip")),
    OpInfo("clamp", samples=clamps_promoted, reference=_clamp_ref, variant="promoted", inplace=False),
    OpInfo("clamp_min", samples=clamp_one, reference=np.maximum, dtypes=(*FLOATS, *HALVES, "int64"),
           errors=clamp_one_errors),
    OpInfo("clamp_max", samples=clamp_one, reference=np.minimum, dtypes=(*FLOATS, *HALVES, "int64"),
           errors=clamp_one_errors),
    OpInfo("lerp", samples=lerps, reference=lambda x, y, w: x + w * (y - x), dtypes=FLOATS, errors=lerp_errors),
    OpInfo("addcmul", samples=triples(), reference=lambda x, a, b, value=1: x + value * a * b,
           dtypes=(*FLOATS, "int64"), errors=triple_errors("addcmul")),
    OpInfo("addcdiv", samples=triples(0.5), reference=lambda x, a, b, value=1: x + value * a / b,
           errors=with_more(triple_errors("addcdiv"), addcdiv_errors)),
    *(two(n, floating(np.arctan2), dtypes=DTYPES[:-1], own_name="atan2") for n in ("atan2", "arctan2")),
    two("hypot", floating(np.hypot), pairs(0.3, 3)),
    two("logaddexp", floating(np.logaddexp)),
    OpInfo("logaddexp", samples=infinite, reference=np.logaddexp, gradient=False, variant="infinite", inplace=False),
    two("logaddexp2", floating(np.logaddexp2)),
    two("xlogy", floating(scipy.special.xlogy), xlogs, dtypes=(*FLOATS, *HALVES, "int64"), method=True,
        gradient=False),
    two("xlogy", floating(scipy.special.xlogy), pairs(0.2, 2, 0.3, 3), dtypes=FLOATS, variant="positive"),
    two("copysign", floating(np.copysign), pairs(0.3, 3)),
    two("heaviside", _heaviside_ref, gradient=False),
    OpInfo("ldexp", samples=ldexps, reference=lambda x, y: x * 2.0 ** np.asarray(y, np.float64), errors=ldexp_errors),
    *(OpInfo(n, samples=pairs(1, 30, 1, 30, number=6), reference=f, dtypes=("uint8", "int32", "int64"),
             gradient=False, errors=integer_errors(n)) for n, f in (("gcd", np.gcd), ("lcm", np.lcm))),
]  # fmt: skip
