"""LLVM IR of elementary functions over vectors of float32 or float64, written as formulas of `Value`s.

Note [Elementary functions]
    Every function is right for all arguments: infinities, NaN, and results too small for a normal number. Polynomials
    are Taylor's, as long as the type needs, on an interval made small by the usual identities:

        exp     2**n e**r with |r| <= log(2) / 2; results may be denormal, without AVX-512 by 2**n in two factors
        expm1   2**n (e**r - 1) + (2**n - 1)
        log1p   2 atanh(y / (y + 2)), here for 0 <= y <= 1
        tanh    e / (e + 2) with e = expm1(2 |x|)
        erfc    exp(-x**2) P(t) / (x + 5/2) for x >= 0, with t = (x - 5/2) / (x + 5/2)

    P is the polynomial through the Chebyshev points of t, from values computed with 70 digits; for float32 that of the
    least largest error for x up to 10.2, where erfc has become 0. What the rounding of x**2 takes off is put back. The
    largest errors found over a million arguments, in units in the last place of float32 and float64: sigmoid 2.3 and
    2.0, tanh 2.3 and 2.5, erf 2.5 and 3.0, erfc 4.8 and 8.6, silu 2.3 and 3.0, gelu 6.5 and 8.4, mish 4.0 and 5.0,
    logsigmoid 2.7 and 3.0 (tests/test_elementwise_compiled.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from .ir import Emitter

__all__ = ["Maths", "Value"]

_CONTRACT = ("contract",)  # a product and a sum may become one fma


class Value:
    """A vector in the making: arithmetic with others, and with numbers, writes instructions."""

    __slots__ = ("m", "v")

    def __init__(self, m: Maths, v: Any) -> None:
        self.m, self.v = m, v

    def _with(self, operation: str, left: Any, right: Any) -> Value:
        raw = self.m.raw
        return Value(self.m, getattr(self.m.e.b, operation)(raw(left), raw(right), flags=_CONTRACT))

    def __add__(self, other: Value | float) -> Value:
        return self._with("fadd", self, other)

    __radd__ = __add__

    def __sub__(self, other: Value | float) -> Value:
        return self._with("fsub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self._with("fsub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self._with("fmul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Value | float) -> Value:
        return self._with("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return self._with("fdiv", other, self)

    def __neg__(self) -> Value:
        return Value(self.m, self.m.e.b.fneg(self.v))

    def __gt__(self, other: Value | float) -> Any:
        return self.m.e.b.fcmp_ordered(">", self.v, self.m.raw(other))

    def __lt__(self, other: Value | float) -> Any:
        return self.m.e.b.fcmp_ordered("<", self.v, self.m.raw(other))

    def __ge__(self, other: Value | float) -> Any:
        return self.m.e.b.fcmp_ordered(">=", self.v, self.m.raw(other))


# of (x + 5/2) exp(x**2) erfc(x) in powers of t, falling
_ERFC = (
    (0.000142606368, 0.00062965625, -0.00052559562, -0.00480445987, 0.00842129253, 0.0283608101,
     -0.171254635, 0.453914136, -0.804651737, 1.05403185),
    (-1.1752735761572175e-09, -4.492271901913438e-11, 1.1576263709098254e-08, 6.5211004909097565e-09,
     -5.425130513143961e-08, -7.434757091278978e-08, 1.4005632494206184e-07, 4.544747448377953e-07,
     -7.551414616390503e-09, -1.9683271975506974e-06, -2.3314874909535433e-06, 6.75749162798147e-06,
     1.8244095865799677e-05, -1.9533381081369285e-05, -0.00011260476577313144, 5.830806924447679e-05,
     0.0007026937130735259, -0.00043920830168962284, -0.004818785522145937, 0.008393044304894867,
     0.0283615501319384, -0.1712511452461242, 0.4539141166480972, -0.8046518494391481, 1.054031820305718),
)  # fmt: skip


class Maths:
    """Functions of the vectors of an `Emitter`, in its type of number."""

    def __init__(self, e: Emitter) -> None:
        self.e, self.double = e, e.bytes == 8
        self.digits, self.bias = (52, 1023) if self.double else (23, 127)
        kind = np.float64 if self.double else np.float32
        self.ln2 = float(kind(math.log(2)))
        self.ln2_rest = 2.3190468138462996e-17 if self.double else math.log(2) - self.ln2
        self.low, self.high = (-746.0, 710.0) if self.double else (-104.0, 89.0)  # where exp has become 0 or inf

    def raw(self, x: Value | float) -> Any:
        return x.v if isinstance(x, Value) else self.e.const(x)

    def value(self, v: Any) -> Value:
        return Value(self, v)

    def fma(self, x: Value | float, y: Value | float, z: Value | float) -> Value:
        return Value(self, self.e.fma(self.raw(x), self.raw(y), self.raw(z)))

    def where(self, condition: Any, yes: Value | float, no: Value | float) -> Value:
        return Value(self, self.e.b.select(condition, self.raw(yes), self.raw(no)))

    def at_most(self, x: Value, limit: float) -> Value:
        """NaN stays NaN, here and below."""
        return self.where(x > limit, limit, x)

    def at_least(self, x: Value, limit: float) -> Value:
        return self.where(x < limit, limit, x)

    def _call(self, name: str, *args: Value) -> Value:
        return Value(self, self.e.intrinsic(f"llvm.{name}.{self.e.kind}", self.e.vec, [a.v for a in args]))

    def abs(self, x: Value) -> Value:
        return self._call("fabs", x)

    def copysign(self, size: Value, sign: Value) -> Value:
        return self._call("copysign", size, sign)

    def poly(self, x: Value, coefficients: Sequence[float]) -> Value:
        total: Value | float = coefficients[0]
        for c in coefficients[1:]:
            total = self.fma(total, x, c)
        return self.value(self.raw(total))

    def _integers(self, n: int) -> Any:
        return ir.Constant(self.e.ivec, [n] * self.e.lanes)

    def _power(self, n: Any) -> Value:
        """2**n for a vector of integers."""
        b = self.e.b
        bits = b.shl(b.add(n, self._integers(self.bias)), self._integers(self.digits))
        return Value(self, b.bitcast(bits, self.e.vec))

    def _reduced(self, x: Value, rest: Value | float = 0.0) -> tuple[Value, Value]:
        """e**r - 1 and n for x + rest = n log(2) + r, between `low` and `high`; `rest` is small beside 1."""
        b, magic = self.e.b, 1.5 * 2.0**self.digits  # adding it rounds to an integer, found in the low bits
        shifted = self.fma(x, 1 / math.log(2), magic)
        rounded = self.value(b.fsub(shifted.v, self.raw(magic)))
        r = self.fma(rounded, -self.ln2_rest, self.fma(rounded, -self.ln2, x))
        if rest != 0.0:
            r = r + rest
        terms = 13 if self.double else 7
        p = self.poly(r, [1 / math.factorial(k) for k in range(terms, 1, -1)])
        return self.fma(r * r, p, r), rounded

    def _whole(self, n: Value) -> Any:
        """Integers of a vector of small whole numbers."""
        b, magic = self.e.b, self.raw(1.5 * 2.0**self.digits)
        return b.sub(b.bitcast(b.fadd(n.v, magic), self.e.ivec), b.bitcast(magic, self.e.ivec))

    def _scaled(self, x: Value, n: Value) -> Value:
        """x 2**n, which may be denormal or infinite."""
        e, b = self.e, self.e.b
        if e.lanes * e.bytes == 64:  # AVX-512
            name = f"llvm.x86.avx512.mask.scalef.p{'d' if self.double else 's'}.512"
            mask, rounding = ir.Constant(ir.IntType(e.lanes), -1), ir.Constant(ir.IntType(32), 4)
            return Value(self, e.intrinsic(name, e.vec, [x.v, n.v, x.v, mask, rounding]))
        whole = self._whole(n)
        half = b.ashr(whole, self._integers(1))
        return x * self._power(half) * self._power(b.sub(whole, half))

    def exp(self, x: Value, rest: Value | float = 0.0) -> Value:
        """e**(x + rest); with a rest x is not positive."""
        nothing = x < self.low  # not computed: to find that a number is too small takes a core 100 cycles
        p, n = self._reduced(self.where(nothing, 0.0, self.at_most(x, self.high) if rest == 0.0 else x), rest)
        return self.where(nothing, 0.0, self._scaled(p + 1, n))

    def expm1(self, x: Value) -> Value:
        p, n = self._reduced(self.at_least(self.at_most(x, self.high), -40.0))
        factor = self._power(self._whole(n))
        result = self.where(x > 1.0, self._scaled(p + 1, n) - 1, self.fma(factor, p, factor - 1))
        return self.copysign(result, x)  # of zeros

    def _atanh(self, s: Value, terms: int) -> Value:
        return s * self.poly(s * s, [2 / (2 * k + 1) for k in range(terms - 1, -1, -1)])

    def log1p(self, y: Value) -> Value:
        """For y from 0 to 1."""
        s = y / (y + 2)
        double = s + s
        z = s * s
        terms = 17 if self.double else 8
        return self.fma(double * z, self.poly(z, [1 / (2 * k + 1) for k in range(terms - 1, 0, -1)]), double)

    def log(self, x: Value) -> Value:
        """For normal x > 0 that is not infinite, and NaN."""
        b = self.e.b
        bits, root = b.bitcast(x.v, self.e.ivec), b.bitcast(self.raw(math.sqrt(0.5)), self.e.ivec)
        n = b.ashr(b.sub(bits, root), self._integers(self.digits))
        mantissa = self.value(b.bitcast(b.sub(bits, b.shl(n, self._integers(self.digits))), self.e.vec))
        power = self.value(b.sitofp(n, self.e.vec))
        result = self.fma(power, self.ln2, self._atanh((mantissa - 1) / (mantissa + 1), 11 if self.double else 6))
        return self.where(b.fcmp_unordered("uno", x.v, x.v), x, result)

    def sigmoid(self, x: Value) -> Value:
        return 1 / (self.exp(-x) + 1)

    def tanh(self, x: Value) -> Value:
        p, n = self._reduced(self.at_most(self.abs(x), 20.0) * 2)
        factor = self._power(self._whole(n))
        e = self.fma(factor, p, factor - 1)
        return self.copysign(e / (e + 2), x)

    def _size(self, x: Value) -> Value:
        """|x|, or 40 beyond, where exp(-x**2 / 2) has become 0."""
        return self.at_most(self.abs(x), 40.0)

    def _tail(self, u: Value, exponential: Value) -> Value:
        """erfc(u) from exp(-u**2) for u from 0 to 40."""
        q = self._inverse(u + 2.5)
        return exponential * (q * self.poly((u - 2.5) * q, _ERFC[self.double]))

    def _inverse(self, x: Value) -> Value:
        """1 / x for numbers that are neither large nor small."""
        return 1 / x if self.double else self.value(self.e.reciprocal(x.v))

    def gauss(self, x: Value, scale: float) -> Value:
        """exp(-scale x**2), exact where the square is rounded; `scale` is a power of 2."""
        a = self._size(x)
        square = self.value(self.e.b.fmul(a.v, a.v))
        return self.exp(square * -scale, self.fma(a, a, -square) * -scale)

    def _near(self, x: Value) -> Value:
        """erf(x) for |x| < 1/2."""
        terms = 13 if self.double else 8
        factors = [(-1) ** k * 2 / math.sqrt(math.pi) / math.factorial(k) / (2 * k + 1) for k in range(terms)]
        return x * self.poly(x * x, factors[::-1])

    def erfc(self, x: Value) -> Value:
        tail = self._tail(self._size(x), self.gauss(x, 1.0))
        far = self.where(x < 0.0, 2 - tail, tail)
        return self.where(self.abs(x) < 0.5, 1 - self._near(x), far)

    def erf(self, x: Value) -> Value:
        far = self.copysign(1 - self._tail(self._size(x), self.gauss(x, 1.0)), x)
        return self.where(self.abs(x) < 0.5, self._near(x), far)

    def normal(self, x: Value) -> tuple[Value, Value]:
        """The normal distribution's probability of a number below x, and its density times sqrt(2 pi)."""
        density = self.gauss(x, 0.5)
        half = self._tail(self._size(x) * math.sqrt(0.5), density * 0.5)
        return self.where(x < 0.0, half, 1 - half), density
