"""LLVM IR of functions of each element, in one pass: values, and gradients.

A function has one definition: its value, and the gradient of the input from that of the result and the saved array,
which is the input, or the result for sigmoid, tanh and relu.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .ir import Emitter
from .maths_ir import Maths, Value

__all__ = ["FUNCTIONS", "build", "build_glu"]

Formula = Callable[..., Any]


def _slope(formula: Formula) -> Formula:
    """The gradient as a product."""
    return lambda m, g, *args: g * formula(m, *args)


def _mask(condition: Formula) -> Formula:
    """The gradient where a condition holds and 0 elsewhere, also where the gradient is inf or NaN."""
    return lambda m, g, *args: m.where(condition(m, *args), g, 0.0)


def _gelu(m: Maths, x: Value) -> Value:
    return x * m.normal(x)[0]


def _gelu_slope(m: Maths, x: Value) -> Value:
    area, density = m.normal(x)
    return area + x * (density * (1 / math.sqrt(2 * math.pi)))


# (1 + tanh u) / 2 is the sigmoid of 2u, which keeps its digits where it is small.
_BEND = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def _gelu_tanh(m: Maths, x: Value) -> Value:
    return x * m.sigmoid(x * (x * x * _CUBIC + 1) * _BEND)


def _gelu_tanh_slope(m: Maths, x: Value) -> Value:
    square = x * x
    s = m.sigmoid(x * (square * _CUBIC + 1) * _BEND)
    return s + x * (s * (1 - s)) * ((square * (3 * _CUBIC) + 1) * _BEND)


def _silu(m: Maths, x: Value) -> Value:
    return x / (m.exp(-x) + 1)


def _silu_slope(m: Maths, x: Value) -> Value:
    s = m.sigmoid(x)
    return s * (x * (1 - s) + 1)


# Beyond 20 the tanh below is 1 in float64, too; the square of exp(x) would overflow at 44.
def _mish(m: Maths, x: Value) -> Value:
    e = m.exp(m.at_most(x, 20.0))
    n = e * (e + 2)
    return x * (n / (n + 2))


def _mish_slope(m: Maths, x: Value) -> Value:
    e = m.exp(m.at_most(x, 20.0))
    n = e * (e + 2)
    inverse = 1 / ((n + 2) * (e + 1))
    t = n * (e + 1) * inverse
    return t + x * m.where(x > 20.0, 0.0, (n + 1) * 4 * (inverse * inverse) * (e + 1) * e)


def _log_of_one_more(m: Maths, x: Value) -> Value:
    """log(1 + exp(-|x|))"""
    return m.log1p(m.exp(-m.abs(x)))


def _softplus(m: Maths, x: Value, beta: Value, limit: Value) -> Value:
    t = x * beta
    return m.where(t > limit, x, (m.at_least(t, 0.0) + _log_of_one_more(m, t)) / beta)


def _softplus_slope(m: Maths, x: Value, beta: Value, limit: Value) -> Value:
    t = x * beta
    return m.where(t > limit, 1.0, m.sigmoid(t))


def _elu(m: Maths, x: Value, alpha: Value, scale: Value, rate: Value) -> Value:
    return m.where(x > 0.0, x * scale, m.expm1(x * rate) * (alpha * scale))


def _elu_slope(m: Maths, x: Value, alpha: Value, scale: Value, rate: Value) -> Value:
    return m.where(x > 0.0, scale, m.exp(x * rate) * (alpha * scale * rate))


def _hardswish(m: Maths, x: Value) -> Value:
    return x * m.at_most(m.at_least(x + 3, 0.0), 6.0) / 6


def _hardswish_slope(m: Maths, x: Value) -> Value:
    middle = x / 3 + 0.5
    return m.where(x >= 3.0, 1.0, m.where(m.value(m.raw(-3.0)) >= x, 0.0, middle))


def _logsigmoid(m: Maths, x: Value) -> Value:
    return m.at_most(x, 0.0) - _log_of_one_more(m, x)


def _erf_slope(m: Maths, x: Value) -> Value:
    return m.gauss(x, 1.0) * (2 / math.sqrt(math.pi))


def _leaky_relu(m: Maths, x: Value, slope: Value) -> Value:
    return m.where(x > 0.0, x, x * slope)


def _hardtanh(m: Maths, x: Value, low: Value, high: Value) -> Value:
    return m.where(x > high, high, m.where(x < low, low, x))


def _hardsigmoid(m: Maths, x: Value) -> Value:
    return m.at_most(m.at_least(x + 3, 0.0), 6.0) / 6


def _beyond(m: Maths, x: Value, limit: Value) -> Any:
    return m.e.b.or_(x > limit, x < -limit)


def _softshrink(m: Maths, x: Value, limit: Value) -> Value:
    return m.at_least(x - limit, 0.0) + m.at_most(x + limit, 0.0)


def _hardshrink(m: Maths, x: Value, limit: Value) -> Value:
    inside = m.e.b.and_(limit >= x, x >= -limit)  # where NaN is not
    return m.where(inside, 0.0, x)


# value, and gradient
FUNCTIONS: dict[str, tuple[Formula, Formula]] = {
    "gelu": (_gelu, _slope(_gelu_slope)),
    "gelu_tanh": (_gelu_tanh, _slope(_gelu_tanh_slope)),
    "silu": (_silu, _slope(_silu_slope)),
    "mish": (_mish, _slope(_mish_slope)),
    "softplus": (_softplus, _slope(_softplus_slope)),
    "elu": (_elu, _slope(_elu_slope)),
    "hardswish": (_hardswish, _slope(_hardswish_slope)),
    "logsigmoid": (_logsigmoid, _slope(lambda m, x: m.sigmoid(-x))),
    "sigmoid": (Maths.sigmoid, _slope(lambda m, y: y * (1 - y))),
    "tanh": (Maths.tanh, _slope(lambda m, y: 1 - y * y)),
    "erf": (Maths.erf, _slope(_erf_slope)),
    "erfc": (Maths.erfc, _slope(lambda m, x: -_erf_slope(m, x))),
    "relu": (lambda m, x: m.at_least(x, 0.0), _mask(lambda m, y: y > 0.0)),
    "leaky_relu": (_leaky_relu, _slope(lambda m, x, slope: m.where(x > 0.0, 1.0, slope))),
    "hardtanh": (_hardtanh, _mask(lambda m, x, low, high: m.e.b.and_(x > low, x < high))),
    "softshrink": (_softshrink, _mask(_beyond)),
    "hardshrink": (_hardshrink, _mask(_beyond)),
    "hardsigmoid": (_hardsigmoid, lambda m, g, x: m.where(m.e.b.and_(x > -3.0, x < 3.0), g / 6, 0.0)),
}

FIELDS = ("g", "x", "y", "settings", "size", "chunk")


def build(name: str, formula: Formula, settings: int, backward: bool, lanes: int, double: bool) -> Any:
    """y = formula(x), or formula(g, x), for elements `thread * chunk` to `(thread + 1) * chunk`."""
    e = Emitter(name, FIELDS, lanes, double)
    m = Maths(e)
    given = [m.value(e.splat(e.number(e.at(e.a["settings"], e.i(i))))) for i in range(settings)]

    def one(index: Any, mask: Any = None) -> None:
        def load(field: str) -> Value:
            place = e.at(e.a[field], index)
            return m.value(e.load(place) if mask is None else e.masked_load(place, mask))

        y = formula(m, *([load("g")] if backward else []), load("x"), *given)
        place = e.at(e.a["y"], index)
        if mask is None:
            e.store(y.v, place)
        else:
            e.masked_store(y.v, place, mask)

    first = e.mul(e.a["chunk"], e.thread)
    last = e.least(e.add(first, e.a["chunk"]), e.a["size"])
    whole = e.add(first, e.b.and_(e.b.sub(last, first), e.i(-lanes)))
    with e.loop(first, whole, step=lanes) as turn:
        one(turn.index)
    with e.loop(whole, last, step=lanes) as turn:
        one(turn.index, e.mask(e.b.sub(last, turn.index)))
    e.b.ret_void()
    return e.module


GLU_FIELDS = ("g", "x", "y", "span", "outer", "chunk")


def build_glu(name: str, backward: bool, lanes: int, double: bool) -> Any:
    """The first half of each row of x [outer, 2, span] gated by the second, for `chunk` rows from `thread * chunk`;
    backward, y is the gradient of x."""
    e = Emitter(name, GLU_FIELDS, lanes, double)
    m = Maths(e)
    span = e.a["span"]
    first = e.mul(e.a["chunk"], e.thread)
    with e.loop(first, e.least(e.add(first, e.a["chunk"]), e.a["outer"])) as row:
        single = e.mul(row.index, span)
        twice = e.add(single, single)
        gates = e.add(twice, span)
        with e.loop(e.i(0), span, step=lanes) as turn:
            mask = e.mask(e.b.sub(span, turn.index))

            def load(field: str, start: Any, i: Any = turn.index, mask: Any = mask) -> Value:
                return m.value(e.masked_load(e.at(e.a[field], start, i), mask))

            def store(v: Value, start: Any, i: Any = turn.index, mask: Any = mask) -> None:
                e.masked_store(v.v, e.at(e.a["y"], start, i), mask)

            a, s = load("x", twice), m.sigmoid(load("x", gates))
            if backward:
                through = load("g", single) * s
                store(through, twice)
                store(through * a * (1 - s), gates)
            else:
                store(a * s, single)
    e.b.ret_void()
    return e.module
