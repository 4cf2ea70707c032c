"""Losses."""

import numpy as np
from scipy.special import log_softmax

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

ALL = (*FLOATS, *HALVES)
REDUCTIONS = ("mean", "sum", "none")
PREFIX = "nn.functional."


def reduced(loss, reduction):
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


# -- classes ------------------------------------------------------------------------------------------------------
CLASS_SHAPES = ((4, 5), (5,), (3, 4, 2), (2, 3, 2, 2))


def class_indices(make, shape, ignored=None):
    lead, c = ((), shape[0]) if len(shape) == 1 else ((shape[0], *shape[2:]), shape[1])
    t = np.asarray(make.rng.integers(0, c, lead))
    if ignored is not None and t.ndim:
        t.reshape(-1)[0] = ignored
    return cf.Tensor(t), c


def nll_samples(make):
    for shape in CLASS_SHAPES:
        target, c = class_indices(make, shape)
        for reduction in REDUCTIONS:
            yield Sample((make(*shape), target), {"reduction": reduction})
        weight = make(c, low=0.1, requires_grad=False)
        for ignored in (-100, 1):
            target, _ = class_indices(make, shape, ignored)
            for reduction in REDUCTIONS:
                kwargs = {"reduction": reduction, "ignore_index": ignored}
                yield Sample((make(*shape), target), kwargs)
                yield Sample((make(*shape), target, weight), kwargs)


def cross_entropy_samples(make):
    for sample in nll_samples(make):
        yield sample
        yield Sample(sample.args, {**sample.kwargs, "label_smoothing": 0.1})
    # Rows so far apart that one maximum for all does not do.
    far = make(3, 4)
    far.array += np.array([[100], [0], [-100]]).astype(far.dtype)
    yield Sample((far, cf.tensor([0, 3, 2])), {"reduction": "none"})


def probability_samples(make):
    for shape in ((4, 5), (5,), (3, 4, 2)):
        for reduction in REDUCTIONS:
            yield Sample((make(*shape), make(*shape, low=0, high=1)), {"reduction": reduction})
        c = shape[0] if len(shape) == 1 else shape[1]
        weight = make(c, low=0.1, requires_grad=False)
        yield Sample((make(*shape), make(*shape, low=0, high=1), weight), {"label_smoothing": 0.2})


def nll(x, t, weight=None, ignore_index=-100, reduction="mean", smoothing=0.0):
    x = np.asarray(x, np.float64)
    axis = 0 if x.ndim == 1 else 1
    c = x.shape[axis]
    x = np.moveaxis(x, axis, -1)
    w = np.ones(c) if weight is None else np.asarray(weight, np.float64)
    loss, weights = np.zeros(t.shape), np.zeros(t.shape)
    for i in np.ndindex(*t.shape):
        if t[i] != ignore_index:
            loss[i] = -(1 - smoothing) * w[t[i]] * x[i][t[i]] - smoothing / c * (w * x[i]).sum()
            weights[i] = w[t[i]]
    if reduction == "mean":
        return loss.sum() / weights.sum()
    return reduced(loss, reduction)


def cross_entropy(x, t, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    x = log_softmax(np.asarray(x, np.float64), axis=0 if x.ndim == 1 else 1)
    return nll(x, t, weight, ignore_index, reduction, label_smoothing)


def probabilities(x, q, weight=None, reduction="mean", label_smoothing=0.0):
    x, q = np.asarray(x, np.float64), np.asarray(q, np.float64)
    axis = 0 if x.ndim == 1 else 1
    c = x.shape[axis]
    w = np.ones(c) if weight is None else np.asarray(weight, np.float64)
    w = w.reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    q = q * (1 - label_smoothing) + label_smoothing / c
    return reduced(-(log_softmax(x, axis=axis) * q * w).sum(axis=axis), reduction)


def class_errors(name):
    def errors(make):
        x, t = make(4, 5), cf.tensor([0, 1, 2, 3])
        yield ErrorInput(
            (x, cf.tensor([0, 1])), {}, ValueError, rf"{name}: target must be \(4,\) for .* \(4, 5\), got \(2,\)"
        )
        yield ErrorInput((x, cf.tensor([0, 1, 2, 5])), {}, IndexError, rf"{name}: target must be in \[0, 5\), got 5")
        yield ErrorInput((x, cf.tensor([0, -1, 2, 0])), {}, IndexError, rf"{name}: target must be in \[0, 5\), got -1")
        yield ErrorInput((x, t, make(4)), {}, ValueError, rf"{name}: weight must be \(5,\), got \(4,\)")
        yield ErrorInput((x, t, make(5, dtype="float64")), {}, RuntimeError, rf"{name}: weight must be float32")
        yield ErrorInput((x, t > 0), {}, TypeError, rf"{name}: target must hold class indices")
        yield ErrorInput((x, t), {"reduction": "avg"}, ValueError, rf"{name}: reduction must be one of .*, got 'avg'")
        yield ErrorInput((make(), t), {}, ValueError, rf"{name}: input must be \(C,\), \(N, C\)")
        yield ErrorInput((t, t), {}, TypeError, rf"{name}: input must be floating point, got int64")
        yield ErrorInput((x, t), {"size_average": True}, DeprecationWarning, rf"{name}: size_average and reduce")

    return errors


def cross_entropy_errors(make):
    yield from class_errors("cross_entropy")(make)
    x = make(4, 5)
    yield ErrorInput((x, make(4, 4)), {}, ValueError, r"cross_entropy: class probabilities must be \(4, 5\)")
    yield ErrorInput((x, make(4, 5, dtype="float64")), {}, RuntimeError, r"class probabilities must be float32")
    yield ErrorInput((x, make(4, 5), make(4)), {}, ValueError, r"cross_entropy: weight must be \(5,\), got \(4,\)")
    probabilities = {"ignore_index": 1}, RuntimeError, "cross_entropy: ignore_index is for class indices, got 1"
    yield ErrorInput((x, make(4, 5)), *probabilities)
    yield ErrorInput(
        (x, cf.tensor([0] * 4)), {"label_smoothing": 2.0}, ValueError, r"label_smoothing must be in \[0, 1\], got 2.0"
    )


# -- two tensors of one shape -------------------------------------------------------------------------------------
def pair(low=-2.0, high=2.0, target=(-2.0, 2.0), others=(), weighted=(), shapes=((3, 4), (5,), ())):
    """Samples of every reduction, once with each of `others`, and with weights under these names."""

    def samples(make):
        def given(shape):
            return make(*shape, low=low, high=high), make(*shape, low=target[0], high=target[1])

        for reduction in REDUCTIONS:
            for shape in shapes:
                yield Sample(given(shape), {"reduction": reduction})
            for kwargs in others:
                yield Sample(given((3, 4)), {"reduction": reduction, **kwargs})
            for name in weighted:
                yield Sample(given((3, 4)), {"reduction": reduction, name: make(3, 4, low=0.1, requires_grad=False)})

    return samples


def elementwise(formula):
    def reference(x, y, reduction="mean", weight=None, **settings):
        loss = formula(np.asarray(x, np.float64), np.asarray(y, np.float64), **settings)
        if weight is not None:
            loss = loss * weight
            if reduction == "mean" and formula in MEAN_OVER_WEIGHTS:
                return loss.sum() / weight.sum()
        return reduced(loss, reduction)

    return reference


def mse(x, y):
    return (x - y) ** 2


def l1(x, y):
    return abs(x - y)


def smooth_l1(x, y, beta=1.0):
    d = abs(x - y)
    return np.where(d < beta, d**2 / (2 * beta), d - beta / 2) if beta else d


def huber(x, y, delta=1.0):
    d = abs(x - y)
    return np.where(d <= delta, d**2 / 2, delta * (d - delta / 2))


MEAN_OVER_WEIGHTS = (mse, l1, huber)


def bce(p, y):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def bce_logits(x, y, pos_weight=1.0):
    p = 1 / (1 + np.exp(-x))
    return -(pos_weight * y * np.log(p) + (1 - y) * np.log(1 - p))


def kl(x, y, reduction="mean", log_target=False):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    loss = np.exp(y) * (y - x) if log_target else np.where(y > 0, y * (np.log(np.where(y > 0, y, 1)) - x), 0)
    return loss.sum() / x.shape[0] if reduction == "batchmean" else reduced(loss, reduction)


def kl_samples(make):
    yield from pair(target=(0.1, 1.0), shapes=((3, 4), (5,)))(make)
    for reduction in (*REDUCTIONS, "batchmean"):
        yield Sample((make(3, 4), make(3, 4)), {"reduction": reduction, "log_target": True})
    yield Sample((make(3, 4), make(4, low=0.1)), {"reduction": "batchmean"})
    some = make(3, 4, low=0.5, requires_grad=False)
    some.array[0] = 0
    yield Sample((make(3, 4), some), {"reduction": "none"})


def pair_errors(name, strict=False):
    def errors(make):
        x = make(3, 4)
        if strict:
            yield ErrorInput((x, make(4)), {}, ValueError, rf"{name}: target must be \(3, 4\) as input is, got \(4,\)")
        else:
            yield ErrorInput(
                (x, make(3)), {}, RuntimeError, rf"{name}: input of shape \(3, 4\) and target of .* \(3,\)"
            )
            yield ErrorInput((x, make(4)), {}, UserWarning, rf"{name}: target of shape \(4,\) is broadcast")
        yield ErrorInput((x, 1.0), {}, TypeError, rf"{name}: target must be a Tensor, got float")
        yield ErrorInput((x, make(3, 4)), {"reduction": "avg"}, ValueError, rf"{name}: reduction must be one of")

    return errors


def with_more(errors, *more):
    def both(make):
        yield from errors(make)
        for kwargs, exception, match in more:
            yield ErrorInput((make(3, 4), make(3, 4)), {**kwargs}, exception, match)

    return both


def bce_errors(make):
    yield from pair_errors("binary_cross_entropy", strict=True)(make)
    yield ErrorInput(
        (make(3, low=1.5), make(3, low=0)), {}, RuntimeError, r"binary_cross_entropy: input must be in \[0, 1\], got"
    )


def poisson(x, y, log_input=True, full=False, reduction="mean"):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    loss = np.exp(x) - y * x if log_input else x - y * np.log(x + 1e-8)
    if full:
        loss = loss + np.where(y > 1, y * np.log(y) - y + 0.5 * np.log(2 * np.pi * y), 0)
    return reduced(loss, reduction)


def poisson_samples(make):
    for reduction in REDUCTIONS:
        for kwargs in ({}, {"full": True}, {"log_input": False}):
            yield Sample((make(3, 4, low=0.1), make(3, 4, low=0.2, high=5)), {"reduction": reduction, **kwargs})


def gaussian(x, y, var, full=False, reduction="mean"):
    x, y, var = (np.asarray(a, np.float64) for a in (x, y, var))
    var = var[:, None] if var.ndim == 1 else var
    loss = 0.5 * (np.log(var) + (x - y) ** 2 / var)
    return reduced(loss + 0.5 * np.log(2 * np.pi) if full else loss, reduction)


def gaussian_samples(make):
    for reduction in REDUCTIONS:
        for shape in ((3, 4), (3, 1), (1, 4), (3,), ()):
            var = make(*shape, low=0.2) if shape else 0.5
            yield Sample((make(3, 4), make(3, 4), var), {"reduction": reduction, "full": shape == (3, 1)})


def gaussian_errors(make):
    x = make(3, 4)
    yield ErrorInput((x, x, make(2)), {}, ValueError, r"gaussian_nll_loss: var must broadcast to \(3, 4\), got \(2,\)")
    text = r"gaussian_nll_loss: input, target must broadcast together, got shapes \(3, 4\), \(3, 2\)"
    yield ErrorInput((x, make(3, 2), x), {}, RuntimeError, text)
    yield ErrorInput((x, x, -1.0), {}, ValueError, r"gaussian_nll_loss: var must not be negative, got -1.0")


# -- margins ------------------------------------------------------------------------------------------------------
def signs(make, *shape):
    return cf.Tensor(np.where(make.rng.random(shape) < 0.5, -1.0, 1.0).astype(make.dtype))


def margins(*shapes, kwargs=({}, {"margin": 0.3})):
    def samples(make):
        for reduction in REDUCTIONS:
            for more in kwargs:
                tensors = [make(*s) for s in shapes[:-1]]
                yield Sample((*tensors, signs(make, *shapes[-1])), {"reduction": reduction, **more})

    return samples


def hinge(x, y, margin=1.0, reduction="mean"):
    return reduced(np.where(y == 1, x, np.maximum(0, margin - x)), reduction)


def ranking(a, b, y, margin=0.0, reduction="mean"):
    return reduced(np.maximum(0, -y * (a - b) + margin), reduction)


def cosine(a, b, dim=1, eps=1e-8):
    return (a * b).sum(dim) / (np.linalg.norm(a, axis=dim) * np.linalg.norm(b, axis=dim))


def cosine_embedding(a, b, y, margin=0.0, reduction="mean"):
    cos = cosine(a, b)
    return reduced(np.where(y == 1, 1 - cos, np.maximum(0, cos - margin)), reduction)


def soft_margin(x, y, reduction="mean"):
    return reduced(np.log(1 + np.exp(-y * x)), reduction)


def distance(a, b, p=2.0, eps=1e-6, keepdim=False):
    return (np.abs(a - b + eps) ** p).sum(-1, keepdims=keepdim) ** (1 / p)


def triplet(a, positive, negative, margin=1.0, p=2.0, swap=False, reduction="mean"):
    far = distance(a, negative, p)
    if swap:
        far = np.minimum(far, distance(positive, negative, p))
    return reduced(np.maximum(0, distance(a, positive, p) - far + margin), reduction)


def triplet_samples(make):
    for reduction in REDUCTIONS:
        for kwargs in ({}, {"swap": True}, {"p": 3.0, "margin": 2.0}):
            yield Sample((make(4, 3), make(4, 3), make(4, 3)), {"reduction": reduction, **kwargs})


def cosine_embedding_errors(make):
    args = (make(4, 3), make(4, 3), signs(make, 4, 3))
    yield ErrorInput(args, {}, RuntimeError, r"cosine_embedding_loss: expected inputs \(N, D\) with target \(N,\)")


def triplet_errors(make):
    x = make(4, 3)
    yield ErrorInput((x, x, x), {"margin": 0.0}, ValueError, r"triplet_margin_loss: margin must be positive, got 0.0")
    yield ErrorInput((x, make(4, 2), x), {}, RuntimeError, r"triplet_margin_loss: .* must broadcast .*\(4, 2\)")
    yield ErrorInput((x, make(3), x), {}, RuntimeError, r"triplet_margin_loss: .* one number of dim.*, got \(2, 1, 2\)")


def normalize_samples(make):
    yield Sample((make(3, 4),))
    yield Sample((make(3, 4),), {"p": 1, "dim": 0})
    yield Sample((make(2, 3, 2),), {"p": 3.0, "dim": -1})
    yield Sample((make(3, 4),), {"p": float("inf")})


def normalize(x, p=2.0, dim=1):
    return x / np.linalg.norm(np.moveaxis(x, dim, -1), p, axis=-1).reshape([1 if d == dim % x.ndim else s for d, s in
                                                                         enumerate(x.shape)])  # fmt: skip


def two(*shapes, kwargs=({},)):
    return lambda make: [Sample(tuple(make(*s) for s in pair), more) for pair in shapes for more in kwargs]


OPS = [
    OpInfo(
        PREFIX + "cross_entropy", samples=cross_entropy_samples, reference=cross_entropy, dtypes=ALL,
        errors=cross_entropy_errors,
    ),
    OpInfo(PREFIX + "cross_entropy", variant="probabilities", samples=probability_samples, reference=probabilities),
    OpInfo(PREFIX + "nll_loss", samples=nll_samples, reference=nll, dtypes=ALL, errors=class_errors("nll_loss")),
    OpInfo(
        PREFIX + "mse_loss", samples=pair(weighted=["weight"]), reference=elementwise(mse), dtypes=ALL,
        errors=pair_errors("mse_loss"),
    ),
    OpInfo(
        PREFIX + "l1_loss", samples=pair(weighted=["weight"]), reference=elementwise(l1), dtypes=ALL,
        errors=pair_errors("l1_loss"),
    ),
    OpInfo(
        PREFIX + "smooth_l1_loss", samples=pair(others=[{"beta": 0.5}, {"beta": 0}]), reference=elementwise(smooth_l1),
        dtypes=ALL, errors=with_more(pair_errors("smooth_l1_loss"), ({"beta": -1}, ValueError, "beta must not be neg")),
    ),
    OpInfo(
        PREFIX + "huber_loss", samples=pair(others=[{"delta": 0.5}], weighted=["weight"]), reference=elementwise(huber),
        dtypes=ALL, errors=with_more(pair_errors("huber_loss"), ({"delta": 0}, ValueError, "delta must be positive")),
    ),
    OpInfo(
        PREFIX + "binary_cross_entropy", samples=pair(0.05, 0.95, (0.0, 1.0), weighted=["weight"]),
        reference=elementwise(bce), errors=bce_errors,
    ),
    OpInfo(
        PREFIX + "binary_cross_entropy_with_logits",
        samples=pair(target=(0.0, 1.0), weighted=["weight", "pos_weight"]), reference=elementwise(bce_logits),
        errors=pair_errors("binary_cross_entropy_with_logits", strict=True),
    ),
    OpInfo(
        PREFIX + "kl_div", samples=kl_samples, reference=kl,
        errors=lambda make: [ErrorInput((make(2), make(2)), {"reduction": "avg"}, ValueError, "batchmean, got 'avg'")],
    ),
    OpInfo(
        PREFIX + "poisson_nll_loss", samples=poisson_samples, reference=poisson,
        errors=lambda make: [ErrorInput((make(2), make(3)), {}, RuntimeError, "poisson_nll_loss: input, target must")],
    ),
    OpInfo(PREFIX + "gaussian_nll_loss", samples=gaussian_samples, reference=gaussian, errors=gaussian_errors),
    OpInfo(PREFIX + "hinge_embedding_loss", samples=margins((3, 4), (3, 4)), reference=hinge),
    OpInfo(
        PREFIX + "margin_ranking_loss", samples=margins((5,), (5,), (5,)), reference=ranking,
        errors=lambda make: [
            ErrorInput((make(2), make(2), make(3)), {}, RuntimeError, "margin_ranking_loss: input1, input2, target")
        ],
    ),
    OpInfo(
        PREFIX + "soft_margin_loss", samples=margins((5,), (5,), kwargs=({},)), reference=soft_margin,
        errors=pair_errors("soft_margin_loss", strict=True),
    ),
    OpInfo(
        PREFIX + "cosine_embedding_loss", samples=margins((4, 3), (4, 3), (4,)), reference=cosine_embedding,
        errors=cosine_embedding_errors,
    ),
    OpInfo(PREFIX + "triplet_margin_loss", samples=triplet_samples, reference=triplet, errors=triplet_errors),
    OpInfo(PREFIX + "normalize", samples=normalize_samples, reference=normalize),
    OpInfo(
        PREFIX + "cosine_similarity", samples=two(((3, 4), (3, 4)), ((3, 4), (1, 4))), reference=cosine,
        errors=lambda make: [ErrorInput((make(2, 3), make(4)), {}, RuntimeError, "cosine_similarity: shapes .*")],
    ),
    OpInfo(
        PREFIX + "pairwise_distance", reference=distance,
        samples=two(((3, 4), (3, 4)), ((3, 4), (4,)), kwargs=({}, {"p": 3.0}, {"keepdim": True})),
        errors=lambda make: [ErrorInput((make(2, 3), make(4)), {}, RuntimeError, "pairwise_distance: shapes .*")],
    ),
]  # fmt: skip
