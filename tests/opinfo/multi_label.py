"""Losses that compare the scores of classes, and the triplet loss of any distance."""

import numpy as np

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

ALL = (*FLOATS, *HALVES)
REDUCTIONS = ("mean", "sum", "none")
PREFIX = "nn.functional."


def reduced(loss, reduction):
    loss = np.asarray(loss)
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def multi_margin_samples(make):
    t = cf.tensor([0, 3, 2])
    for reduction in REDUCTIONS:
        yield Sample((make(3, 4), t), {"reduction": reduction})
        yield Sample((make(3, 4), t), {"reduction": reduction, "p": 2, "margin": 0.5})
        yield Sample((make(4), cf.tensor(1)), {"reduction": reduction})
        yield Sample((make(3, 4), t, 2, 1.5, make(4, low=0.1, requires_grad=False)), {"reduction": reduction})
    yield Sample((make(4), cf.tensor([1])), {"reduction": "none"})
    yield Sample((make(), cf.tensor(0)))


def multi_margin(x, t, p=1, margin=1.0, weight=None, reduction="mean"):
    x, rows = np.asarray(x, np.float64), np.atleast_1d(t)
    c = x.shape[-1] if x.ndim else 1
    x = x.reshape(-1, c)
    w = np.ones(c) if weight is None else np.asarray(weight, np.float64)
    loss = [
        sum(w[y] * max(0, margin - x[n, y] + x[n, i]) ** p for i in range(c) if i != y) / c
        for n, y in enumerate(rows)
    ]
    return reduced(np.reshape(loss, np.shape(t)), reduction)


def multi_margin_errors(make):
    x, t = make(3, 4), cf.tensor([0, 1, 2])
    name = "multi_margin_loss: "
    yield ErrorInput((x, t[:2]), {}, ValueError, name + r"target must be \(3,\) for .* \(3, 4\), got \(2,\)")
    yield ErrorInput((x, t + 2), {}, IndexError, name + r"target must be in \[0, 4\), got 4")
    yield ErrorInput((x, t * 1.0), {}, TypeError, name + r"target must hold class indices .*, got float32")
    yield ErrorInput((x, t), {"p": 3}, ValueError, name + r"p must be 1 or 2, got 3")
    yield ErrorInput((x, t), {"weight": make(3)}, ValueError, name + r"weight must be \(4,\), got \(3,\)")
    yield ErrorInput((make(2, 3, 4), t), {}, ValueError, name + r"input must be \(N, C\) or \(C,\)")
    yield ErrorInput((x, t), {"reduction": "avg"}, ValueError, name + r"reduction must be one of")
    yield ErrorInput((x, t), {"reduce": False}, DeprecationWarning, name + r"size_average and reduce")


def multilabel_margin_samples(make):
    t = cf.tensor([[3, 0, -1, 1], [1, 1, 2, -1], [-1, 0, 1, 2], [0, 1, 2, 3]])
    for reduction in REDUCTIONS:
        yield Sample((make(4, 4), t), {"reduction": reduction})
        yield Sample((make(4), t[0]), {"reduction": reduction})
    yield Sample((make(), cf.tensor(0)))


def multilabel_margin(x, t, reduction="mean"):
    shape = np.shape(x)[:-1]
    x, t = (np.reshape(a, (-1, np.shape(a)[-1] if np.ndim(a) else 1)) for a in (np.asarray(x, np.float64), t))
    loss = []
    for row, labels in zip(x, t):
        labels = labels[: list(labels).index(-1)] if -1 in labels else labels
        others = [i for i in range(len(row)) if i not in labels]
        loss.append(sum(max(0, 1 - row[y] + row[i]) for y in labels for i in others) / len(row))
    return reduced(np.reshape(loss, shape), reduction)


def multilabel_margin_errors(make):
    x, t = make(3, 4), cf.tensor([[0, 1, -1, -1]] * 3)
    name = "multilabel_margin_loss: "
    yield ErrorInput((x, t[:2]), {}, ValueError, name + r"target must be \(3, 4\) as input is, got \(2, 4\)")
    yield ErrorInput((x, t + 3), {}, IndexError, name + r"target must be in \[0, 4\), got 4")
    yield ErrorInput((x, t - 2), {}, IndexError, name + r"target must be in \[0, 4\), got -2")
    yield ErrorInput((x, t * 1.0), {}, TypeError, name + r"target must hold class indices .*, got float32")


def multilabel_soft_samples(make):
    t = cf.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    for reduction in REDUCTIONS:
        yield Sample((make(3, 4), t), {"reduction": reduction})
        yield Sample((make(3, 4), make(3, 4, low=0, high=1)), {"reduction": reduction})
        yield Sample((make(4), t[0], make(4, low=0.1, requires_grad=False)), {"reduction": reduction})


def multilabel_soft(x, y, weight=None, reduction="mean"):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    loss = -(y * np.log(1 / (1 + np.exp(-x))) + (1 - y) * np.log(1 / (1 + np.exp(x))))
    return reduced((loss if weight is None else loss * weight).mean(-1), reduction)


def multilabel_soft_errors(make):
    name = "multilabel_soft_margin_loss: "
    yield ErrorInput((make(3, 4), make(4)), {}, ValueError, name + r"target and input .*, got \(4,\) and \(3, 4\)")
    yield ErrorInput((make(), make()), {}, ValueError, name + r"target and input must be \(\.\.\., C\)")
    yield ErrorInput((make(3), 1.0), {}, TypeError, name + r"target must be a Tensor, got float")


def city_block(a, b):
    return abs(a - b).sum(-1)


def triplet_samples(make):
    for reduction in REDUCTIONS:
        for kwargs in ({"distance_function": city_block}, {"distance_function": city_block, "swap": True},
                       {"distance_function": city_block, "margin": 0.3}, {}):  # fmt: skip
            yield Sample((make(4, 3), make(4, 3), make(4, 3)), {"reduction": reduction, **kwargs})


def euclid(a, b):
    return np.sqrt(((a - b + 1e-6) ** 2).sum(-1))


def triplet(a, positive, negative, distance_function=euclid, margin=1.0, swap=False, reduction="mean"):
    far = distance_function(a, negative)
    if swap:
        far = np.minimum(far, distance_function(positive, negative))
    return reduced(np.maximum(0, distance_function(a, positive) - far + margin), reduction)


def triplet_errors(make):
    x = make(4, 3)
    name = "triplet_margin_with_distance_loss: "
    yield ErrorInput((x, x, x), {"margin": 0.0}, ValueError, name + "margin must be positive, got 0.0")
    yield ErrorInput((x, x, x[0]), {}, RuntimeError, name + r"anchor, positive and negative .*, got \(2, 2, 1\)")
    yield ErrorInput((x, x, 1.0), {}, TypeError, name + "negative must be a Tensor, got float")


OPS = [
    OpInfo(
        PREFIX + "multi_margin_loss", samples=multi_margin_samples, reference=multi_margin, dtypes=ALL,
        errors=multi_margin_errors,
    ),
    OpInfo(
        PREFIX + "multilabel_margin_loss", samples=multilabel_margin_samples, reference=multilabel_margin, dtypes=ALL,
        errors=multilabel_margin_errors,
    ),
    OpInfo(
        PREFIX + "multilabel_soft_margin_loss", samples=multilabel_soft_samples, reference=multilabel_soft,
        errors=multilabel_soft_errors,
    ),
    OpInfo(
        PREFIX + "triplet_margin_with_distance_loss", samples=triplet_samples, reference=triplet,
        errors=triplet_errors,
    ),
]  # fmt: skip
