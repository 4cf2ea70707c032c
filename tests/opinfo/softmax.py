"""Softmax and its logarithm."""

import numpy as np

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample


def ordinary_samples(make):
    for shape, dim in (((3, 4), 1), ((3, 4), 0), ((2, 3, 4), -2), ((5,), 0), ((), 0), ((3, 1), 1)):
        yield Sample((make(*shape), dim))


def samples(make):
    yield from ordinary_samples(make)
    # One maximum for all would underflow here, and overflow without one.
    wide = make(2, 3)
    wide.array[...] = np.array([[88, 90, -90], [-95, -100, -98]])
    yield Sample((wide,), {"dim": 1})


def samples_of_dtypes(make):
    yield from samples(make)
    yield Sample((make(2, 3, dtype="float32"),), {"dim": 1, "dtype": "float64"})
    yield Sample((make(2, 3, dtype="int64"),), {"dim": 1, "dtype": "float32"})


def softmax(x, dim, dtype=None):
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(axis=dim, keepdims=True)) if x.ndim else np.ones(())
    return e / e.sum(axis=dim, keepdims=True) if x.ndim else e


def log_softmax(x, dim, dtype=None):
    x = np.asarray(x, np.float64)
    if not x.ndim:
        return np.zeros(())
    y = x - x.max(axis=dim, keepdims=True)
    return y - np.log(np.exp(y).sum(axis=dim, keepdims=True))


def errors(name):
    def errors(make):
        yield ErrorInput((make(2, 3), 2), {}, IndexError, rf"{name}: dim must be in \[-2, 1\].*, got 2")
        yield ErrorInput(
            (make(2, 3, dtype="int64"), 1), {}, TypeError, rf"{name}: input must be floating point, got int64"
        )
        yield ErrorInput(([1.0, 2.0], 0), {}, TypeError, rf"{name}: input must be a Tensor, got list")

    return errors


ALL = (*FLOATS, *HALVES)

OPS = [
    OpInfo("softmax", samples=samples, reference=softmax, dtypes=ALL, errors=errors("softmax")),
    OpInfo("log_softmax", samples=samples, reference=log_softmax, dtypes=ALL, errors=errors("log_softmax")),
    OpInfo("softmin", samples=ordinary_samples, reference=lambda x, dim: softmax(-x, dim), dtypes=ALL),
    OpInfo(
        "softmax", variant="dtype", samples=samples_of_dtypes, reference=softmax, dtypes=("float32",), gradient=False
    ),
]
