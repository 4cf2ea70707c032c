"""CTC, held to the sum over all paths."""

import itertools

import numpy as np

import cuframe as cf
import cuframe.nn.functional as F

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

REDUCTIONS = ("mean", "sum", "none")


def spelled(path, blank):
    """What a path reads after repeats are merged and blanks removed."""
    return tuple(int(k) for k, _ in itertools.groupby(path) if k != blank)


def path_sum(x, target, blank):
    """Minus the log of the summed probability of all paths that spell `target`, for x [T, C]."""
    steps, classes = x.shape
    found = [
        sum(x[t, k] for t, k in enumerate(path))
        for path in itertools.product(range(classes), repeat=steps)
        if spelled(path, blank) == tuple(target)
    ]
    return -np.logaddexp.reduce(found) if found else np.inf


def reference(x, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    x = np.asarray(x, np.float64)
    single = x.ndim == 2
    x = x[:, None] if single else x
    lengths, sizes = np.reshape(input_lengths, -1), np.reshape(target_lengths, -1)
    targets = np.asarray(targets)
    starts = np.cumsum(sizes) - sizes
    loss = []
    for n, (t, s) in enumerate(zip(lengths, sizes)):
        target = targets[starts[n] : starts[n] + s] if targets.ndim == 1 else targets[n, :s]
        loss.append(path_sum(x[:t, n], target, blank))
    loss = np.array(loss)
    if zero_infinity:
        loss[np.isinf(loss)] = 0
    if reduction == "none":
        return loss[0] if single else loss
    return loss.sum() if reduction == "sum" else (loss / np.maximum(sizes, 1)).mean()


def samples(make):
    def log_probs(*shape):
        x = make(*shape, requires_grad=False)
        x = F.log_softmax(x, -1)
        return x.requires_grad_() if make.requires_grad else x

    padded = cf.tensor([[1, 2], [2, 2], [1, 0]])
    lengths, sizes = cf.tensor([4, 4, 3]), cf.tensor([2, 2, 1])
    for reduction in REDUCTIONS:
        yield Sample((log_probs(4, 3, 3), padded, lengths, sizes), {"reduction": reduction})
        row = cf.tensor([1, 2, 2, 2, 1], dtype="int32")
        yield Sample((log_probs(4, 3, 3), row, [4, 4, 3], (2, 2, 1)), {"reduction": reduction})
    yield Sample((log_probs(4, 2, 3), [[0, 1], [1, 1]], [4, 3], [2, 2]), {"blank": 2, "reduction": "none"})
    yield Sample((log_probs(4, 3), cf.tensor([1, 2]), cf.tensor(4), cf.tensor(2)), {"reduction": "none"})
    yield Sample((log_probs(4, 3), [1, 2], (3,), (2,)))
    empty = cf.tensor([], dtype="int64")
    yield Sample((log_probs(3, 2, 3), empty, [3, 0], [0, 0]), {"reduction": "none"})
    # [1, 1] needs three steps.
    kwargs = {"zero_infinity": True, "reduction": "none"}
    yield Sample((log_probs(3, 2, 3), [[1, 1], [1, 1]], [2, 3], [2, 2]), kwargs)
    yield Sample((log_probs(3, 2, 3), [[1, 1], [1, 1]], [0, 3], [2, 2]), {"zero_infinity": True})


def errors(make):
    x, t, lengths, sizes = make(4, 2, 3), cf.tensor([[1, 2], [2, 1]]), cf.tensor([4, 4]), cf.tensor([2, 2])
    for args, kwargs, exception, match in (
        ((t, t, lengths, sizes), {}, TypeError, r"log_probs must be floating point, got int64"),
        ((x[0, 0], t, lengths, sizes), {}, ValueError, r"log_probs must be \(T, N, C\) or .* not empty, got \(3,\)"),
        ((x[:0], t, lengths, sizes), {}, ValueError, r"log_probs must be .* not empty, got \(0, 2, 3\)"),
        ((x, t, lengths, sizes), {"blank": 3}, ValueError, r"blank must be a class in \[0, 3\), got 3"),
        ((x, t, lengths, sizes), {"blank": -1}, ValueError, r"blank must be a class in \[0, 3\), got -1"),
        ((x, t, lengths, sizes), {"reduction": "avg"}, ValueError, r"reduction must be one of .*, got 'avg'"),
        ((x, t, [4], sizes), {}, ValueError, r"input_lengths must be \(2,\), one for each sequence, got \(1,\)"),
        ((x, t, lengths, [2, 2, 2]), {}, ValueError, r"target_lengths must be \(2,\), one for each .*, got \(3,\)"),
        ((x, t, [4, 5], sizes), {}, ValueError, r"input_lengths must be in \[0, 4\], got 5"),
        ((x, t, [-1, 5], sizes), {}, ValueError, r"input_lengths must be in \[0, 4\], got -1"),
        ((x, t, lengths, [-2, 2]), {}, ValueError, r"target_lengths must be 0 or more, got -2"),
        ((x, t, cf.tensor([4.0, 4.0]), sizes), {}, TypeError, r"input_lengths must hold integers, got float32"),
        ((x, t + 0.5, lengths, sizes), {}, TypeError, r"targets must hold integers, got float32"),
        ((x, [1, 2, 1], lengths, sizes), {}, ValueError, r"concatenated targets must be \(4,\), .*, got \(3,\)"),
        ((x, [[1, 2], [1]], lengths, sizes), {}, ValueError, r"targets must have rows of one length; pad them"),
        ((x, t[:1], lengths, sizes), {}, ValueError, r"padded targets must be \(2, 2\) or wider .*, got \(1, 2\)"),
        ((x, t, lengths, [2, 3]), {}, ValueError, r"padded targets must be \(2, 3\) or wider .*, got \(2, 2\)"),
        ((x, t[None], lengths, sizes), {}, ValueError, r"targets must be \(N, S\), or .*, got \(1, 2, 2\)"),
        ((x, t + 1, lengths, sizes), {}, IndexError, r"targets must be in \[0, 3\), got 3"),
        ((x, t - 2, lengths, sizes), {}, IndexError, r"targets must be in \[0, 3\), got -1"),
    ):
        yield ErrorInput(args, kwargs, exception, "ctc_loss: " + match)


def behind_log_softmax(x, *args, **kwargs):
    return F.ctc_loss(F.log_softmax(x, -1), *args, **kwargs)


def reference_behind(x, *args, **kwargs):
    x = np.asarray(x, np.float64)
    return reference(x - np.logaddexp.reduce(x, axis=-1, keepdims=True), *args, **kwargs)


OPS = [
    # Alone its gradient is not that of its value, but of its value behind a log_softmax, as in PyTorch.
    OpInfo(
        "nn.functional.ctc_loss", samples=samples, reference=reference, dtypes=(*FLOATS, *HALVES), gradient=False,
        double_gradient=False, errors=errors,
    ),
    OpInfo(
        "nn.functional.ctc_loss", variant="log_softmax", op=behind_log_softmax, samples=samples,
        reference=reference_behind,
    ),
]  # fmt: skip
