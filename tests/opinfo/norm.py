"""Normalisation. The references work on axes, as the formulas are written."""

import numpy as np

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

ALL = (*FLOATS, *HALVES)


def standard(x, axes, eps):
    d = x - x.mean(axis=axes, keepdims=True)
    return d / np.sqrt((d * d).mean(axis=axes, keepdims=True) + eps)


def layer_samples(make):
    for shape, k in (((3, 4), 1), ((2, 3, 4), 2), ((5,), 1), ((2, 1), 1), ((0, 3), 1)):
        last = shape[-k:]
        yield Sample((make(*shape), last))
        yield Sample((make(*shape), last, make(*last), make(*last)), {"eps": 1e-3})
    yield Sample((make(2, 3, 4), 4), {"bias": make(4)})


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    k = 1 if isinstance(shape, int) else len(shape)
    y = standard(x, tuple(range(-k, 0)), eps)
    return y * (1 if weight is None else weight) + (np.zeros((), x.dtype) if bias is None else bias)


def layer_errors(make):
    yield ErrorInput((make(2, 3), (4,)), {}, RuntimeError, r"layer_norm: input must end in .* \(4,\) .*, got \(2, 3\)")
    yield ErrorInput((make(2, 3), ()), {}, RuntimeError, r"layer_norm: normalized_shape must have at least one")
    yield ErrorInput((make(2, 3), 3, make(4)), {}, RuntimeError, r"layer_norm: weight must be \(3,\), got \(4,\)")
    yield ErrorInput((make(2, 3), 3, None, make(3, dtype="float64")), {}, RuntimeError, "bias must be float32")
    yield ErrorInput((make(2, 3, dtype="int64"), 3), {}, TypeError, "layer_norm: input must be floating")


def rms_samples(make):
    for shape, k in (((3, 4), 1), ((2, 3, 4), 2), ((5,), 1)):
        last = shape[-k:]
        yield Sample((make(*shape), last), {"eps": 1e-5})
        yield Sample((make(*shape), last, make(*last)), {"eps": 1e-3})
    yield Sample((make(3, 4, low=0.5), 4))


def rms_norm(x, shape, weight=None, eps=None):
    axes = tuple(range(-1 if isinstance(shape, int) else -len(shape), 0))
    eps = np.finfo(x.dtype).eps if eps is None else eps
    return x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + eps) * (1 if weight is None else weight)


def rms_errors(make):
    yield ErrorInput((make(2, 3), (4,)), {}, RuntimeError, r"rms_norm: input must end in .* \(4,\) .*, got \(2, 3\)")
    yield ErrorInput((make(2, 3), 3, make(4)), {}, RuntimeError, r"rms_norm: weight must be \(3,\), got \(4,\)")


def statistics(make, c):
    return make(c, requires_grad=False), make(c, low=0.5, requires_grad=False)


def batch_samples(make):
    for shape in ((4, 3), (2, 3, 4), (3, 2, 2, 2)):
        c = shape[1]
        yield Sample((make(*shape), None, None), {"training": True})
        yield Sample((make(*shape), None, None, make(c), make(c)), {"training": True, "eps": 1e-3})
        yield Sample((make(*shape), *statistics(make, c), make(c), make(c)))
    yield Sample((make(2, 3), *statistics(make, 3)))
    yield Sample((make(2, 3, 2), *statistics(make, 3)), {"bias": make(3)})


def per_channel(a, x):
    return a.reshape((1, -1) + (1,) * (x.ndim - 2))


def batch_norm(x, mean, var, weight=None, bias=None, training=False, eps=1e-5):
    if training:
        y = standard(x, (0, *range(2, x.ndim)), eps)
    else:
        y = (x - per_channel(mean, x)) / np.sqrt(per_channel(var, x) + eps)
    return affine(y, weight, bias)


def affine(y, weight, bias):
    y = y if weight is None else y * per_channel(weight, y)
    return y if bias is None else y + per_channel(bias, y)


def batch_errors(make):
    x = make(2, 3, 4)
    yield ErrorInput((make(3), None, None), {}, ValueError, r"batch_norm: input must .*got shape \(3,\)")
    yield ErrorInput((x, None, None), {}, ValueError, "batch_norm: running_mean and running_var are needed")
    yield ErrorInput((x, make(2), None), {}, RuntimeError, r"batch_norm: running_mean must be .* \(3,\), got .*\(2,\)")
    yield ErrorInput((x, None, None, make(2)), {"training": True}, RuntimeError, r"batch_norm: weight must be \(3,\)")
    yield ErrorInput((make(1, 3), None, None), {"training": True}, ValueError, "batch_norm: training needs")
    yield ErrorInput((x, None, None), {"training": True, "eps": 0.0}, ValueError, "eps must be positive, got 0.0")


def group_samples(make):
    for shape, groups in (((2, 4), 2), ((2, 6, 3), 3), ((2, 4, 2, 2), 1), ((1, 3, 2), 3)):
        c = shape[1]
        yield Sample((make(*shape), groups))
        yield Sample((make(*shape), groups, make(c), make(c)), {"eps": 1e-3})
    yield Sample((make(2, 4, 3), 2), {"bias": make(4)})


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    y = standard(x.reshape((x.shape[0], groups, -1)), 2, eps).reshape(x.shape)
    return affine(y, weight, bias)


def group_errors(make):
    yield ErrorInput((make(2, 4), 3), {}, RuntimeError, "group_norm: num_groups must divide the 4 channels .*got 3")
    yield ErrorInput((make(1, 2), 2), {}, ValueError, r"group_norm: needs more than one value per group.*\(1, 2\)")
    yield ErrorInput((make(2, 4), 2, None, make(2)), {}, RuntimeError, r"group_norm: bias must be \(4,\), got \(2,\)")


def instance_samples(make):
    for shape in ((2, 3, 4), (2, 2, 2, 3)):
        c = shape[1]
        yield Sample((make(*shape),))
        yield Sample((make(*shape),), {"weight": make(c), "bias": make(c), "eps": 1e-3})
        yield Sample((make(*shape), *statistics(make, c), make(c), make(c)), {"use_input_stats": False})


def instance_norm(x, mean=None, var=None, weight=None, bias=None, use_input_stats=True, eps=1e-5):
    if not use_input_stats:
        return batch_norm(x, mean, var, weight, bias, False, eps)
    return affine(standard(x, tuple(range(2, x.ndim)), eps), weight, bias)


def instance_errors(make):
    yield ErrorInput((make(2, 3),), {}, ValueError, r"instance_norm: input must have at least 3 dimensions.*\(2, 3\)")
    yield ErrorInput((make(2, 3, 1),), {}, ValueError, "instance_norm: needs more than one value")
    yield ErrorInput((make(2, 3, 4),), {"use_input_stats": False}, ValueError, "instance_norm: running_mean .* needed")


def response_samples(make):
    yield Sample((make(2, 5, 3), 3), {"alpha": 0.5})
    yield Sample((make(2, 3, 2, 2), 2), {"alpha": 0.5, "beta": 0.5, "k": 2.0})
    yield Sample((make(1, 2, 3), 5), {"alpha": 1.0})


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    total = np.zeros_like(x)
    for c in range(x.shape[1]):
        low = max(0, c - size // 2)
        total[:, c] = (x[:, low : c + (size - 1) // 2 + 1] ** 2).sum(axis=1)
    return x / (k + alpha / size * total) ** beta


def response_errors(make):
    yield ErrorInput((make(2, 3), 2), {}, ValueError, "local_response_norm: input must have at least 3 dimensions")
    yield ErrorInput((make(2, 3, 4), 0), {}, ValueError, "local_response_norm: size must be a positive int, got 0")


def entry(name, samples, reference, errors, zero_size=True):
    return OpInfo(
        f"nn.functional.{name}", samples=samples, reference=reference, dtypes=ALL, errors=errors,
        zero_size=zero_size,
    )  # fmt: skip


OPS = [
    entry("layer_norm", layer_samples, layer_norm, layer_errors, zero_size=False),
    entry("rms_norm", rms_samples, rms_norm, rms_errors, zero_size=False),
    entry("batch_norm", batch_samples, batch_norm, batch_errors),
    entry("group_norm", group_samples, group_norm, group_errors),
    entry("instance_norm", instance_samples, instance_norm, instance_errors),
    entry("local_response_norm", response_samples, local_response_norm, response_errors),
]
