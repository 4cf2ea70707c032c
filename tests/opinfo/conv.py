"""Convolutions, their transposes, fold and unfold, against sums written out."""

from __future__ import annotations

import numpy as np

from tests.opinfo.core import FLOATS, HALVES, ErrorInput, OpInfo, Sample


def per(value, dims):
    value = (value,) * dims if isinstance(value, int) else tuple(value)
    return value * dims if len(value) == 1 else value


def windows(x, kernel, stride, padding, dilation):
    """Positions, and for each the slices of the input padded by zeros; the padded input."""
    dims = len(kernel)
    stride, dilation = per(stride, dims), per(dilation, dims)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in per(0 if padding == "valid" else padding, dims)]
    padded = np.pad(x, [(0, 0), (0, 0), *sides])
    count = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(padded.shape[2:], dilation, kernel, stride)]
    found = {
        p: tuple(slice(i * s, i * s + d * (k - 1) + 1, d) for i, s, d, k in zip(p, stride, dilation, kernel))
        for p in np.ndindex(*count)
    }
    return padded, count, found


def conv(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    if x.ndim == w.ndim - 1:
        return conv(x[None], w, b, stride, padding, dilation, groups)[0]
    padded, count, found = windows(x, w.shape[2:], stride, padding, dilation)
    out = np.zeros((x.shape[0], w.shape[0], *count), x.dtype)
    inside, rows = w.shape[1], w.shape[0] // groups
    for p, part in found.items():
        for o in range(w.shape[0]):
            first = o // rows * inside
            held = padded[(slice(None), slice(first, first + inside), *part)]
            out[(slice(None), o, *p)] = (held * w[o]).reshape(x.shape[0], -1).sum(axis=1)
    return out if b is None else out + b.reshape(-1, *(1,) * len(count))


def conv_transpose(x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    if x.ndim == w.ndim - 1:
        return conv_transpose(x[None], w, b, stride, padding, output_padding, groups, dilation)[0]
    dims = w.ndim - 2
    stride, padding, extra, dilation = (per(v, dims) for v in (stride, padding, output_padding, dilation))
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e + p
        for n, s, d, k, e, p in zip(x.shape[2:], stride, dilation, w.shape[2:], extra, padding)
    ]
    rows, inside = w.shape[1], w.shape[0] // groups
    out = np.zeros((x.shape[0], rows * groups, *full), x.dtype)
    for c in range(w.shape[0]):
        o = slice(c // inside * rows, (c // inside + 1) * rows)
        for p in np.ndindex(*x.shape[2:]):
            part = (slice(i * s, i * s + d * (k - 1) + 1, d) for i, s, d, k in zip(p, stride, dilation, w.shape[2:]))
            out[(slice(None), o, *part)] += x[(slice(None), c, *p)].reshape(-1, *(1,) * (dims + 1)) * w[c]
    keep = tuple(
        slice(p, p + (n - 1) * s - 2 * p + d * (k - 1) + e + 1)
        for n, s, p, d, k, e in zip(x.shape[2:], stride, padding, dilation, w.shape[2:], extra)
    )
    out = out[(..., *keep)]
    return out if b is None else out + b.reshape(-1, *(1,) * dims)


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    if x.ndim == 3:
        return unfold(x[None], kernel_size, dilation, padding, stride)[0]
    padded, _, found = windows(x, per(kernel_size, 2), stride, per(padding, 2), dilation)
    return np.stack([padded[(slice(None), slice(None), *p)].reshape(x.shape[0], -1) for p in found.values()], axis=2)


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    if x.ndim == 2:
        return fold(x[None], output_size, kernel_size, dilation, padding, stride)[0]
    kernel, (p, q) = per(kernel_size, 2), per(padding, 2)
    h, w = per(output_size, 2)
    empty = np.zeros((x.shape[0], x.shape[1] // (kernel[0] * kernel[1]), h, w), x.dtype)
    padded, _, found = windows(empty, kernel, stride, (p, q), dilation)
    for column, part in zip(np.moveaxis(x, 2, 0), found.values()):
        held = padded[(slice(None), slice(None), *part)]
        held += column.reshape(held.shape)
    return padded[..., p : p + h, q : q + w]


def conv1d_samples(make):
    yield Sample((make(2, 3, 5), make(2, 3, 3), make(2)))
    yield Sample((make(2, 3, 5), make(2, 3, 3)), {"stride": 2, "padding": 1})
    yield Sample((make(1, 4, 9), make(4, 2, 2), make(4)), {"stride": (3,), "padding": 2, "dilation": 2, "groups": 2})
    yield Sample((make(2, 5), make(3, 2, 4), make(3)), {"padding": "same"})
    yield Sample((make(1, 2, 4), make(3, 2, 1), make(3)))


def conv2d_samples(make):
    yield Sample((make(2, 2, 4, 3), make(3, 2, 3, 2), make(3)), {"padding": (1, 0)})
    yield Sample((make(1, 2, 5, 4), make(2, 2, 2, 3)), {"stride": (2, 1), "padding": 1})
    yield Sample((make(2, 3, 4, 4), make(3, 1, 3, 3), make(3)), {"padding": 1, "groups": 3})
    yield Sample((make(1, 4, 5, 5), make(2, 2, 2, 2), make(2)), {"stride": 2, "dilation": (1, 3), "groups": 2})
    yield Sample((make(2, 5, 4), make(2, 2, 2, 3)), {"padding": "same", "dilation": (2, 1)})
    yield Sample((make(2, 3, 2, 2), make(4, 3, 1, 1), make(4)))
    yield Sample((make(1, 2, 3, 3), make(2, 2, 1, 1)), {"stride": 2})
    yield Sample((make(2, 2, 4, 5), make(4, 1, 2, 2), make(4)), {"stride": 2, "groups": 2})
    yield Sample((make(1, 1, 3, 3), make(1, 1, 2, 2, requires_grad=False)), {"padding": "valid"})
    yield Sample((make(1, 1, 3, 3, requires_grad=False), make(2, 1, 2, 2), make(2)))


def conv3d_samples(make):
    yield Sample((make(1, 2, 3, 2, 3), make(2, 2, 2, 2, 2), make(2)), {"padding": (0, 1, 0), "stride": (1, 1, 2)})
    yield Sample((make(2, 2, 3, 2), make(2, 1, 1, 2, 2)), {"groups": 2, "padding": "same"})


def transposed1d_samples(make):
    yield Sample((make(2, 2, 3), make(2, 3, 3), make(3)))
    yield Sample((make(1, 4, 3), make(4, 1, 3), make(2)), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2})
    yield Sample((make(2, 4), make(2, 2, 2)), {"stride": (3,), "dilation": 2, "output_padding": 2})
    yield Sample((make(1, 2, 4), make(2, 1, 2), make(1)), {"stride": 3})
    yield Sample((make(1, 1, 4), make(1, 1, 5)), {"padding": 3})


def transposed2d_samples(make):
    yield Sample((make(1, 2, 3, 2), make(2, 2, 2, 3), make(2)), {"stride": (1, 2), "padding": (0, 1)})
    yield Sample((make(1, 2, 2, 3), make(2, 1, 3, 2), make(2)), {"stride": 2, "dilation": (3, 2), "groups": 2})
    yield Sample((make(2, 2, 2), make(2, 3, 2, 2)))
    yield Sample((make(2, 2, 2, 1), make(2, 2, 2, 3), make(4)), {"stride": (2, 3), "groups": 2})


def transposed3d_samples(make):
    settings = {"stride": (2, 1, 1), "output_padding": (1, 0, 0)}
    yield Sample((make(1, 2, 2, 1, 2), make(2, 1, 2, 2, 2), make(1)), settings)
    yield Sample((make(1, 2, 2, 2), make(1, 2, 1, 2, 3)), {"padding": (0, 0, 1)})


def unfold_samples(make):
    yield Sample((make(2, 2, 3, 4), 2))
    yield Sample((make(1, 2, 4, 3), (3, 2)), {"padding": (1, 0), "stride": 2})
    yield Sample((make(2, 4, 5), (2, 2)), {"dilation": (1, 3), "padding": 1})


def fold_samples(make):
    yield Sample((make(2, 8, 6), (3, 4), 2))
    yield Sample((make(1, 6, 4), (4, 3), (3, 2)), {"padding": (1, 0), "stride": (2, 1)})
    yield Sample((make(4, 20), (4, 5), (2, 2)), {"dilation": (1, 3), "padding": 1})


def conv2d_errors(make):
    x, w = make(1, 4, 5, 5), make(6, 4, 3, 3)
    yield ErrorInput((x, make(6, 3, 3, 3)), {}, RuntimeError, r"conv2d: input must have 3 channels for weight \(6, 3,")
    yield ErrorInput((x, make(6, 2, 3, 3)), {"groups": 4}, RuntimeError, "must have 8 channels .* and groups 4, got 4")
    yield ErrorInput((x, make(5, 2, 3, 3)), {"groups": 2}, RuntimeError, r"multiple of 2 \(groups\) output channels")
    yield ErrorInput((x, w), {"groups": 0}, RuntimeError, "groups must be at least 1, got 0")
    yield ErrorInput((make(5, 5), w), {}, RuntimeError, r"input must be \(N, C, H, W\) or \(C, H, W\), got \(5, 5\)")
    yield ErrorInput((x, make(6, 4, 3)), {}, RuntimeError, r"weight must have 4 dimensions, got \(6, 4, 3\)")
    yield ErrorInput((x, w, make(5)), {}, RuntimeError, r"bias must be \(6,\), got \(5,\)")
    yield ErrorInput((x, w), {"stride": 0}, RuntimeError, "stride must be at least 1, got 0")
    yield ErrorInput((x, w), {"padding": -1}, RuntimeError, "padding must be at least 0, got -1")
    yield ErrorInput((x, w), {"padding": (1, 1, 1)}, TypeError, r"padding must be an int or 2 ints, got \(1, 1, 1\)")
    yield ErrorInput((x, w), {"dilation": 2.0}, TypeError, "dilation must be an int or 2 ints, got 2.0")
    yield ErrorInput((x, w), {"padding": "same", "stride": 2}, RuntimeError, "padding='same' needs stride 1")
    yield ErrorInput((x, w), {"padding": "full"}, RuntimeError, "'same' or 'valid', got 'full'")
    yield ErrorInput((x, w), {"dilation": 3}, RuntimeError, r"input \(5, 5\).* smaller than .* spans \(7, 7\)")
    yield ErrorInput((x, make(6, 4, 0, 3)), {}, RuntimeError, r"must not be empty, got weight \(6, 4, 0, 3\)")
    yield ErrorInput((x, make(6, 4, 3, 3, dtype="float64")), {}, RuntimeError, "one dtype, got float32 and float64")
    yield ErrorInput((make(1, 4, 5, 5, dtype="int64"), w), {}, TypeError, "input must be floating point, got int64")
    yield ErrorInput((x, np.ones((6, 4, 3, 3))), {}, TypeError, "weight must be a Tensor, got ndarray")


def transposed2d_errors(make):
    x, w = make(1, 4, 5, 5), make(4, 3, 3, 3)
    yield ErrorInput((x, make(3, 4, 3, 3)), {}, RuntimeError, r"conv_transpose2d: input must have 3 channels")
    yield ErrorInput((x, w), {"groups": 3}, RuntimeError, r"multiple of 3 \(groups\) channels, got \(1, 4, 5, 5\)")
    yield ErrorInput((x, w), {"groups": -1}, RuntimeError, "groups must be at least 1, got -1")
    yield ErrorInput((x, w, make(4)), {}, RuntimeError, r"bias must be \(3,\), got \(4,\)")
    yield ErrorInput((x, w), {"output_padding": 1}, RuntimeError, r"smaller than stride or dilation, got \(1, 1\)")
    yield ErrorInput((x, w), {"padding": "same"}, TypeError, "padding must be an int or 2 ints, got 'same'")
    yield ErrorInput((x, w), {"padding": 4}, RuntimeError, r"the size \(-1, -1\): the padding \(4, 4\) is too large")


def unfold_errors(make):
    yield ErrorInput((make(3, 3), 2), {}, RuntimeError, r"unfold: input must be \(N, C, H, W\) or \(C, H, W\)")
    yield ErrorInput((make(1, 0, 3, 3), 2), {}, RuntimeError, r"not empty, got \(1, 0, 3, 3\)")
    yield ErrorInput((make(1, 1, 3, 3), 4), {}, RuntimeError, r"images of \(3, 3\) .* have \(0, 0\) windows")
    yield ErrorInput((make(1, 1, 3, 3), 2), {"stride": 0}, RuntimeError, "stride must be at least 1, got 0")


def fold_errors(make):
    yield ErrorInput((make(4), 2, 2), {}, RuntimeError, r"fold: input must be \(N, C \* K, L\)")
    yield ErrorInput((make(6, 4), 3, 2), {}, RuntimeError, r"multiple of 4 rows for kernel_size \(2, 2\), got 6")
    yield ErrorInput((make(8, 5), 3, 2), {}, RuntimeError, r"must have 4 columns, one for each of \(2, 2\) .*, got 5")
    yield ErrorInput((make(4, 1), 1, 2), {}, RuntimeError, r"images of \(1, 1\)")
    yield ErrorInput((make(8, 4), (3, 3, 3), 2), {}, TypeError, "output_size must be an int or 2 ints")


DTYPES = (*FLOATS, *HALVES)
OPS = [
    OpInfo("nn.functional.conv1d", samples=conv1d_samples, reference=conv, dtypes=DTYPES),
    OpInfo("nn.functional.conv2d", samples=conv2d_samples, reference=conv, dtypes=DTYPES, errors=conv2d_errors),
    OpInfo("nn.functional.conv3d", samples=conv3d_samples, reference=conv, dtypes=DTYPES),
    OpInfo("nn.functional.conv_transpose1d", samples=transposed1d_samples, reference=conv_transpose, dtypes=DTYPES),
    OpInfo(
        "nn.functional.conv_transpose2d", samples=transposed2d_samples, reference=conv_transpose, dtypes=DTYPES,
        errors=transposed2d_errors,
    ),
    OpInfo("nn.functional.conv_transpose3d", samples=transposed3d_samples, reference=conv_transpose, dtypes=DTYPES),
    OpInfo("nn.functional.unfold", samples=unfold_samples, reference=unfold, dtypes=DTYPES, errors=unfold_errors),
    OpInfo("nn.functional.fold", samples=fold_samples, reference=fold, dtypes=DTYPES, errors=fold_errors),
]  # fmt: skip
