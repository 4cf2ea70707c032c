"""Random tensors: shapes, dtypes and errors here; that the numbers are right in tests/test_random.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, Make, OpInfo, Sample

T = cf.tensor


def sized(make: Make) -> Iterable[Sample]:
    for size in ((2, 3), (0, 2), ()):
        yield Sample((size,), {"dtype": make.dtype})
    yield Sample((4, 2), {"dtype": make.dtype, "generator": cf.Generator(1), "device": "cpu"})


def sized_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((2,), {"dtype": "int64"}, RuntimeError, "dtype must be floating point, got int64")
    yield ErrorInput((-2,), {}, RuntimeError, "sizes must not be negative")
    yield ErrorInput((2,), {"generator": 3}, TypeError, "generator must be a cf.Generator or None, got int")


def like(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    yield Sample((make(2),), {"dtype": cf.float64})


def like_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((2,), {}, TypeError, "input must be a Tensor, got int")
    yield ErrorInput((T([1]),), {}, RuntimeError, "dtype must be floating point, got int64")


def randint(make: Make) -> Iterable[Sample]:
    yield Sample((10, (2, 3)))
    yield Sample((-3, 4, (5,)), {"dtype": make.dtype})


def randint_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((3, 3, (2,)), {}, RuntimeError, "low must be below high, got 3 and 3")
    yield ErrorInput((3, 5), {}, TypeError, "size must be a tuple of ints, got NoneType")
    yield ErrorInput((0, 300, (2,)), {"dtype": "uint8"}, RuntimeError, r"\[0, 300\) does not fit uint8")


def randint_like(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 5))
    yield Sample((make(2, 3), -5, 5))


def randint_like_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), 0), {}, RuntimeError, "low must be below high")


def randperm(make: Make) -> Iterable[Sample]:
    yield Sample((5,))
    yield Sample((0,), {"dtype": make.dtype})


def randperm_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((-1,), {}, RuntimeError, "n must not be negative, got -1")


def normal(make: Make) -> Iterable[Sample]:
    yield Sample((1.0, 2.0, (2, 3)), {"dtype": make.dtype})
    yield Sample((make(2, 3), 2.0))
    yield Sample((make(2, 1), make(3, low=0.5)))
    yield Sample((0.0, make(3, low=0.5)))


def normal_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((0.0, -1.0, (2,)), {}, RuntimeError, "std must not be negative, got -1.0")
    yield ErrorInput((0.0, T([-1.0])), {}, RuntimeError, "std must not be negative")
    yield ErrorInput((0.0, 1.0), {}, RuntimeError, "size must be given")
    yield ErrorInput((T([0.0]), 1.0, (1,)), {}, RuntimeError, "size must be left out")
    yield ErrorInput((T([0.0] * 2), T([1.0] * 3)), {}, RuntimeError, "cannot be broadcast together")


def bernoulli(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, low=0, high=1),))
    yield Sample((make(2, 3), 0.5))


def bernoulli_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((T([1.5]),), {}, RuntimeError, r"probabilities must be in \[0, 1\]")
    yield ErrorInput((T([float("nan")]),), {}, RuntimeError, r"probabilities must be in \[0, 1\]")
    yield ErrorInput((T([1]),), {}, TypeError, "input must be floating point, got int64")


def multinomial(make: Make) -> Iterable[Sample]:
    yield Sample((make(4, low=0.1, high=1), 3))
    yield Sample((make(2, 3, low=0.1, high=1), 5, True))


def multinomial_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((T([0.5, 0.5]), 3), {}, RuntimeError, "num_samples must be at most 2, .*, got 3")
    yield ErrorInput((T([0.5, 0.0]), 2), {}, RuntimeError, "num_samples must be at most 1")
    yield ErrorInput((T([0.5]), 0), {}, RuntimeError, "num_samples must be positive")
    yield ErrorInput((T([-0.5, 1.0]), 1), {}, RuntimeError, "finite and not negative, got -0.5")
    yield ErrorInput((T([0.0, 0.0]), 1), {}, RuntimeError, "must not sum to zero")
    yield ErrorInput((T(0.5), 1), {}, RuntimeError, r"must have shape \(n,\) or \(rows, n\)")
    yield ErrorInput((T([1]), 1), {}, TypeError, "input must be floating point")


def poisson(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, low=0, high=9),))


def poisson_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((T([-1.0]),), {}, RuntimeError, "rates must be finite and not negative")
    yield ErrorInput((T([float("inf")]),), {}, RuntimeError, "rates must be finite and not negative")
    yield ErrorInput((T([1]),), {}, TypeError, "input must be floating point, got int64")


def info(name: str, samples: Any, errors: Any, dtypes: tuple[str, ...] = (*FLOATS, *HALVES)) -> OpInfo:
    return OpInfo(name, samples=samples, errors=errors, dtypes=dtypes, gradient=False, inplace=False)


OPS = [
    info("rand", sized, sized_errors),
    info("randn", sized, sized_errors),
    info("rand_like", like, like_errors),
    info("randn_like", like, like_errors),
    info("randint", randint, randint_errors, (*FLOATS, "int8", "int64")),
    info("randint_like", randint_like, randint_like_errors, (*FLOATS, "int8", "int64")),
    info("randperm", randperm, randperm_errors, (*FLOATS, "int32", "int64")),
    info("normal", normal, normal_errors),
    info("bernoulli", bernoulli, bernoulli_errors),
    info("poisson", poisson, poisson_errors),
    info("multinomial", multinomial, multinomial_errors, FLOATS),
]
