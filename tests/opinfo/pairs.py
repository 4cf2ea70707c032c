"""Distances of all pairs."""

import math

import numpy as np

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

PRODUCT = "use_mm_for_euclid_dist"


def cdist_samples(make):
    for p in (0, 0.7, 1, 1.5, 2, 3, math.inf):
        yield Sample((make(3, 2), make(2, 2)), {"p": p})
    yield Sample((make(2, 1, 3, 2), make(3, 2, 2)))
    yield Sample((make(2, 3), make(1, 3)), {"compute_mode": "donot_use_mm_for_euclid_dist"})
    for shapes in (((0, 2), (2, 2)), ((2, 2), (0, 2)), ((2, 0), (3, 0))):
        for p in (2, math.inf):
            yield Sample((make(*shapes[0]), make(*shapes[1])), {"p": p})


def product_samples(make):
    yield Sample((make(3, 2), make(2, 2)), {"compute_mode": PRODUCT})
    yield Sample((make(2, 3, 2), make(2, 2)), {"compute_mode": PRODUCT})
    yield Sample((make(3, 0), make(2, 0)), {"compute_mode": PRODUCT})
    yield Sample((make(27, 1), make(1, 1)))  # where it is the default


def distances(x1, x2, p=2.0, compute_mode=None):
    diff = np.abs(x1[..., :, None, :] - x2[..., None, :, :])
    if p == 0:
        return (diff != 0).sum(-1).astype(x1.dtype)
    if p == math.inf:
        return diff.max(-1, initial=0)
    return (diff**p).sum(-1) ** (1 / p)


def cdist_errors(make):
    x = make(2, 3)
    yield ErrorInput(([1], x), {}, TypeError, "cdist: x1 must be a Tensor, got list")
    yield ErrorInput((x, cf.tensor([[1]])), {}, TypeError, "cdist: x2 must be floating point, got int64")
    yield ErrorInput((x, make(3)), {}, RuntimeError, r"cdist: x2 must have at least 2 dimensions, got shape \(3,\)")
    yield ErrorInput(
        (x, make(2, 4)), {}, RuntimeError, r"must have the same number of columns, got \(2, 3\) and \(2, 4\)"
    )
    yield ErrorInput(
        (make(2, 2, 3), make(3, 2, 3)), {}, RuntimeError, r"must broadcast, got \(2, 2, 3\) and \(3, 2, 3\)"
    )
    yield ErrorInput((x, x), {"p": -1}, RuntimeError, "cdist: p must be 0 or more, got -1")
    yield ErrorInput((x, x), {"p": float("nan")}, RuntimeError, "cdist: p must be 0 or more, got nan")
    yield ErrorInput((x, x), {"compute_mode": "mm"}, ValueError, "compute_mode must be one of .*, got 'mm'")


def pdist_samples(make):
    for p in (0, 0.7, 1, 2, 3, math.inf):
        yield Sample((make(4, 2), p))
    yield Sample((make(1, 3),))
    yield Sample((make(3, 0),))


def pdist_reference(x, p=2.0):
    i, j = np.triu_indices(x.shape[0], 1)
    return distances(x, x, p)[i, j]


def pdist_errors(make):
    yield ErrorInput((make(3),), {}, RuntimeError, r"pdist: input must have 2 dimensions, got shape \(3,\)")
    yield ErrorInput((make(3, 2), -1), {}, RuntimeError, "pdist: p must be 0 or more, got -1")
    yield ErrorInput((cf.tensor([[1]]),), {}, TypeError, "pdist: input must be floating point, got int64")


OPS = [
    OpInfo("cdist", samples=cdist_samples, reference=distances, dtypes=(*FLOATS, *HALVES), errors=cdist_errors),
    OpInfo("cdist", variant="product", samples=product_samples, reference=distances),
    OpInfo("nn.functional.pdist", samples=pdist_samples, reference=pdist_reference, errors=pdist_errors),
]
