"""Dropout and its kin; each call draws from the same seed, so that it can be repeated."""


import cuframe as cf
import cuframe.nn.functional as F
from cuframe.random import manual_seed

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample


def seeded(function):
    def call(*args, **kwargs):
        manual_seed(7)
        return function(*args, **kwargs)

    call.__name__ = function.__name__
    return call


def samples(*shapes):
    def samples(make):
        for shape in shapes:
            yield Sample((make(*shape), 0.3), {"training": True})
        yield Sample((make(*shapes[0]), 0.3), {"training": False})
        for p in (0, 1):
            yield Sample((make(*shapes[0]), p), {"training": True})

    return samples


def fixed(name, *shapes):
    """The cases without chance, of the function itself."""

    def fixed_samples(make):
        for shape in shapes:
            for p, training in ((0.0, True), (1.0, True), (0.5, False)):
                yield Sample((make(*shape), p), {"training": training})

    def reference(x, p, training):
        return x * (1 - p if training else 1)

    return OpInfo(
        f"nn.functional.{name}", variant="fixed", samples=fixed_samples, reference=reference, dtypes=(*FLOATS, *HALVES)
    )


def probability(name):
    def errors(make):
        yield ErrorInput((make(2, 3, 4), 1.5), {}, ValueError, rf"{name}: p must be in \[0, 1\], got 1.5")
        yield ErrorInput(
            (make(2, 3, 4, dtype="int64"),), {"training": True}, TypeError, rf"{name}: input must be floating point"
        )

    return errors


def features(name, ndim):
    def errors(make):
        yield from probability(name)(make)
        wrong = make(*(1,) * ndim)
        yield ErrorInput(
            (wrong,), {"training": True}, RuntimeError, rf"{name}: input must have .* dimensions, got shape"
        )

    return errors


def entry(name, *shapes, errors):
    return OpInfo(
        f"nn.functional.{name}", op=seeded(getattr(F, name)), samples=samples(*shapes), dtypes=(*FLOATS, *HALVES),
        errors=errors,
    )  # fmt: skip


def rrelu_samples(make):
    yield Sample((make(3, 4),), {"training": True})
    yield Sample((make(3, 4), 0.1, 0.2), {"training": True})


OPS = [
    entry("dropout", (3, 4), (2, 3, 2), (), (0, 3), errors=probability("dropout")),
    entry("dropout1d", (2, 3, 4), (3, 4), errors=features("dropout1d", 4)),
    entry("dropout2d", (2, 3, 2, 2), (2, 3, 2), errors=features("dropout2d", 2)),
    entry("dropout3d", (2, 3, 2, 1, 2), (3, 2, 1, 2), errors=features("dropout3d", 3)),
    entry("alpha_dropout", (3, 4), (2, 3, 2), (), errors=probability("alpha_dropout")),
    entry("feature_alpha_dropout", (2, 3, 4), (2, 3), errors=features("feature_alpha_dropout", 1)),
    fixed("dropout", (3, 4), (), (2, 1)),
    fixed("dropout1d", (2, 3, 4), (3, 4)),
    fixed("dropout2d", (2, 3, 2, 2)),
    fixed("dropout3d", (2, 3, 2, 1, 2)),
    fixed("alpha_dropout", (3, 4), ()),
    fixed("feature_alpha_dropout", (2, 3, 4)),
    OpInfo(
        "nn.functional.rrelu", variant="training", op=seeded(F.rrelu), samples=rrelu_samples,
        errors=lambda make: [ErrorInput((cf.ones(2), 0.5, 0.1), {}, ValueError, "rrelu: lower must not be larger")],
    ),
]  # fmt: skip
