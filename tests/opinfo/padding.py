"""Padding; `numpy.pad` is the reference, on the part of the input that negative numbers leave."""

import numpy as np

from .core import ALL, FLOATS, HALVES, ErrorInput, OpInfo, Sample

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(x, pad, mode="constant", value=None):
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2]))[::-1]
    cut = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, widths))
    if mode == "circular":
        x = x[cut]
    more = {"constant_values": value or 0} if mode == "constant" else {}
    y = np.pad(x, [(max(b, 0), max(a, 0)) for b, a in widths], MODES[mode], **more)
    if mode == "circular":
        return y
    return y[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(y.shape, widths))]


def constant_samples(make):
    yield Sample((make(2, 3), (1, 2)))
    yield Sample((make(2, 3), [1, 0, 2, 1], "constant", 1.5 if make.dtype.kind in "fV" else 1))
    yield Sample((make(1, 2, 3), (-1, 2, 0, -1)))
    yield Sample((make(2, 2), (-1, -1)))
    yield Sample((make(3), ()))
    yield Sample((make(0, 2), (1, 1, 2, 0)))
    yield Sample((make(1, 2, 1, 2, 1), (1, 0) * 5), {"value": 3})


def constant_errors(make):
    x = make(1, 3, 4)
    yield ErrorInput((x, (1,)), {}, RuntimeError, "pad: pad must have an even number of elements, got 1")
    yield ErrorInput((x, (1,) * 8), {}, RuntimeError, r"pad: pad must have at most 6 numbers .*\(1, 3, 4\), got 8")
    yield ErrorInput((x, (-3, -2)), {}, RuntimeError, "pad: dimension 2 of size 4 has no 5 elements to remove")
    yield ErrorInput((x, (1.5, 1)), {}, TypeError, "pad: pad must be an int, got float")
    yield ErrorInput((x, 1), {}, TypeError, "pad: pad must be a tuple of ints, got int")
    yield ErrorInput((x, (1, 1), "mirror"), {}, NotImplementedError, "pad: mode must be .*got 'mirror'")
    yield ErrorInput(([1.0], (1, 1)), {}, TypeError, "pad: input must be a Tensor, got list")


def reflect_samples(make):
    yield Sample((make(2, 4), (1, 3), "reflect"))
    yield Sample((make(1, 2, 3), (2, -1), "reflect"))
    yield Sample((make(2, 3, 2), (1, 0, 2, 1), "reflect"))
    yield Sample((make(1, 1, 2, 3), (-1, 2, 1, 1), "reflect"))
    yield Sample((make(1, 2, 2, 3), (2, 0, 0, 1, 1, 1), "reflect"))


def reflect_errors(make):
    yield ErrorInput(
        (make(1, 3, 4), (4, 1), "reflect"), {}, RuntimeError,
        r"pad: reflection must be smaller .*got \(4, 1\) for dimension 2 of size 4",
    )  # fmt: skip
    yield ErrorInput((make(4), (1, 1), "reflect"), {}, NotImplementedError, r"a 2-d or 3-d input, got shape \(4,\)")
    yield ErrorInput((make(2, 3, 4), (1, 1) * 4, "reflect"), {}, RuntimeError, "pad must have at most 6 numbers")
    yield ErrorInput((make(2, 4), (1, 1), "reflect", 2.0), {}, RuntimeError, "'reflect' takes no value, got 2.0")


def replicate_samples(make):
    yield Sample((make(2, 3), (2, 4), "replicate"))
    yield Sample((make(1, 2, 3), (1, -2), "replicate"))
    yield Sample((make(1, 1, 2, 2), (3, 1, 0, 2), "replicate"))
    yield Sample((make(1, 1, 2, 1, 2), (1, 1, 2, 0, 0, 1), "replicate"))


def replicate_errors(make):
    yield ErrorInput((make(1, 2, 4), (-4, 0), "replicate"), {}, RuntimeError, "dimension 2 of size 4 has nothing left")
    yield ErrorInput((make(1, 2, 0), (1, 0), "replicate"), {}, RuntimeError, "dimension 2 is empty")


def circular_samples(make):
    yield Sample((make(2, 3), (2, 3), "circular"))
    yield Sample((make(1, 1, 4), (-1, 4), "circular"))
    yield Sample((make(1, 2, 2, 3), (1, 2, 2, 1), "circular"))
    yield Sample((make(1, 2, 2, 2), (1, 0, 0, 1, 2, -1), "circular"))


def circular_errors(make):
    yield ErrorInput((make(1, 2, 4), (5, 1), "circular"), {}, RuntimeError, "circular padding must not go around more")
    yield ErrorInput((make(1, 2, 4), (-4, 1), "circular"), {}, RuntimeError, "leaves nothing of dimension 2")


OPS = [
    OpInfo("nn.functional.pad", samples=constant_samples, reference=pad, dtypes=ALL, errors=constant_errors,
           variant="constant"),
    OpInfo("nn.functional.pad", samples=reflect_samples, reference=pad, dtypes=(*FLOATS, *HALVES, "int64"),
           errors=reflect_errors, variant="reflect"),
    OpInfo("nn.functional.pad", samples=replicate_samples, reference=pad, dtypes=(*FLOATS, *HALVES, "int64"),
           errors=replicate_errors, variant="replicate"),
    OpInfo("nn.functional.pad", samples=circular_samples, reference=pad, dtypes=(*FLOATS, *HALVES, "int64"),
           errors=circular_errors, variant="circular"),
]  # fmt: skip
