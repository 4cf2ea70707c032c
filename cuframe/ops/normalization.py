"""Normalisation over features, channels and groups, as `cuframe.nn.functional` offers it.

Note [Two forms of normalisation]
    LayerNorm and RMSNorm have statistics for each row and factors for each column. BatchNorm, GroupNorm and
    InstanceNorm see their input as rows (n, c): statistics and factors are constant within a row, so the result is
    x * a + b and its gradient g * a + x * b + c with numbers for each row. Batch statistics join all rows of a channel,
    those of groups some channels of one sample. Row statistics are joined by Chan's formula, so nothing cancels.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..autograd import versions
from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import Tensor
from .define import Op, check_floating, need_tensor, record
from .elementwise import rsqrt
from .softmax import widened
from .steps import wide_vjp

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]


def _check_factor(name: str, argument: str, value: Any, shape: tuple, x: Any) -> Any:
    """The array of a weight or bias, or None; 16-bit inputs take float32 factors, too."""
    if value is None:
        return None
    need_tensor(name, argument, value)
    a = value.array
    if a.shape != shape:
        raise RuntimeError(f"{name}: {argument} must be {tuple(shape)}, got {tuple(a.shape)}")
    if a.__class__ is not x.__class__:
        raise RuntimeError(f"{name}: {argument} must be on the device of input, got {value.device}")
    if a.dtype != x.dtype and not (x.dtype.itemsize == 2 and a.dtype == np.float32):
        raise RuntimeError(f"{name}: {argument} must be {x.dtype.name} as input is, got {a.dtype.name}")
    return a


def _as(a: Any, like: Any) -> Any:
    return None if a is None else a.astype(like.dtype, copy=False)


# -- rows ---------------------------------------------------------------------------------------------------------
def _rows_vjp(g: Any, needs: tuple, x: Any, w: Any, b: Any, size: int, eps: float, mean: Any, rstd: Any) -> tuple:
    shape = (rstd.shape[0], size)
    wanted = tuple(n is not None for n in (*needs, None, None)[:3])
    kernel = backend_of(x).kernel("norm")
    flat_w = None if w is None else kernel.operand(w).reshape(-1)
    gx, gw, gb = kernel.rows_backward(
        kernel.operand(g).reshape(shape), kernel.operand(x).reshape(shape), flat_w, mean, rstd, wanted
    )
    return (
        None if gx is None else _as(gx.reshape(x.shape), x),
        None if gw is None else _as(gw.reshape(w.shape), w),
        None if gb is None else _as(gb.reshape(b.shape), b),
    )


def _rows_composite(x: Tensor, w: Any, b: Any, size: int, eps: float, centred: bool = True) -> Tensor:
    shape = x.shape
    rows = x.reshape(prod(shape) // size if size else prod(shape), size)
    wide = rows.float() if x.array.dtype.itemsize == 2 else rows
    d = wide - wide.mean(axis=1, keepdims=True) if centred else wide
    y: Any = (d * rsqrt((d * d).mean(axis=1, keepdims=True) + eps)).reshape(shape)
    if w is not None:
        y = y * w
    if b is not None:
        y = y + b
    return y.to(x.dtype)


def _rms_composite(x: Tensor, w: Any, b: Any, size: int, eps: float) -> Tensor:
    return _rows_composite(x, w, b, size, eps, False)


_SAVES = (0, 1, 2, "constant", "constant", None, None)
_LAYER = Op("layer_norm", _rows_vjp, _SAVES, _rows_composite)
_RMS = Op("rms_norm", _rows_vjp, _SAVES, _rms_composite)


def _shape_of(name: str, input: Tensor, normalized_shape: Any) -> tuple[int, ...]:
    check_floating(name, "input", input)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape:
        raise RuntimeError(f"{name}: normalized_shape must have at least one dimension, got ()")
    if tuple(input.array.shape[-len(shape) :]) != shape:
        raise RuntimeError(
            f"{name}: input must end in the dimensions {shape} of normalized_shape, got {tuple(input.array.shape)}"
        )
    return shape


def _rows(name: str, op: Op, input: Tensor, shape: tuple, weight: Any, bias: Any, eps: float) -> Tensor:
    x = input.array
    w = _check_factor(name, "weight", weight, shape, x)
    b = _check_factor(name, "bias", bias, shape, x)
    size = prod(shape)
    kernel = backend_of(x).kernel("norm")
    rows = kernel.operand(x).reshape((prod(x.shape[: x.ndim - len(shape)]), size))
    flat_w, flat_b = (None if f is None else kernel.operand(f).reshape(-1) for f in (w, b))
    out, mean, rstd = kernel.rows_forward(rows, flat_w, flat_b, eps, op is _LAYER)
    return record(_as(out.reshape(x.shape), x), op, (input, weight, bias), (x, w, b, size, eps, mean, rstd))


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise the last dimensions to mean 0 and variance 1, then scale and shift.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Ba et al., Layer Normalization (2016). The variance is that of the population.

    Args:
        input: (..., *normalized_shape), floating point.
        normalized_shape: the sizes of the last dimensions, or one size.
        weight, bias: of normalized_shape, or None.
        eps: added to the variance.

    Returns:
        A tensor of the input's shape and dtype; 16-bit floats are computed in float32. Backward keeps the input, and
        mean and 1 / sqrt(var + eps) of each row.

    Raises:
        RuntimeError: the shapes or dtypes do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.layer_norm(cf.tensor([[1.0, 3.0], [0.0, 8.0]]), (2,))
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    shape = _shape_of("layer_norm", input, normalized_shape)
    return _rows("layer_norm", _LAYER, input, shape, weight, bias, float(eps))


def rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide the last dimensions by their root mean square, then scale.

        out = input / sqrt(mean(input^2) + eps) * weight

    Zhang and Sennrich, Root Mean Square Layer Normalization (2019).

    Args:
        input: (..., *normalized_shape), floating point.
        normalized_shape: the sizes of the last dimensions, or one size.
        weight: of normalized_shape, or None.
        eps: added to the mean square; by default the machine epsilon of the dtype computed in (float32 for 16 bits).

    Returns:
        A tensor of the input's shape and dtype.

    Raises:
        RuntimeError: the shapes or dtypes do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.rms_norm(cf.tensor([1.0, 7.0]), (2,))
    tensor([0.2000, 1.4000])
    """
    shape = _shape_of("rms_norm", input, normalized_shape)
    if eps is None:
        dtype = input.array.dtype
        eps = float(np.finfo(np.float32 if dtype.itemsize == 2 else dtype).eps)
    return _rows("rms_norm", _RMS, input, shape, weight, None, float(eps))


# -- channels -----------------------------------------------------------------------------------------------------
def _channel_shape(x: Any) -> tuple[int, int, int]:
    return (x.shape[0], x.shape[1], prod(x.shape[2:]))


def _channels_vjp(
    g: Any, needs: tuple, x: Any, w: Any, b: Any, groups: int, eps: float, fixed: Any, mean: Any, rstd: Any
) -> tuple:
    kernel = backend_of(x).kernel("norm")
    shape = _channel_shape(x)
    wanted = tuple(need is not None for need in (*needs, None, None)[:3])
    flat_w = None if w is None else kernel.operand(w)
    gx, gw, gb = kernel.channels_backward(
        kernel.operand(g).reshape(shape), kernel.operand(x).reshape(shape), flat_w, groups, mean, rstd,
        fixed is not None, wanted,
    )  # fmt: skip
    return None if gx is None else _as(gx.reshape(x.shape), x), _as(gw, w), _as(gb, b)


def _channels_composite(x: Tensor, w: Any, b: Any, groups: int, eps: float, fixed: Any) -> Tensor:
    n, c = x.shape[:2]
    size = prod(x.shape[2:])
    wide = x.float() if x.array.dtype.itemsize == 2 else x
    if fixed is not None:
        mean, var = (Tensor(f.reshape((1, c, 1))) for f in fixed)
        y = (wide.reshape(n, c, size) - mean) * rsqrt(var + eps)
    else:
        axes = (2,) if groups else (0, 2)
        v = wide.reshape(n, groups, c // groups * size) if groups else wide.reshape(n, c, size)
        d = v - v.mean(axis=axes, keepdims=True)
        y = (d * rsqrt((d * d).mean(axis=axes, keepdims=True) + eps)).reshape(n, c, size)
    if w is not None:
        y = y * w.reshape(1, c, 1)
    if b is not None:
        y = y + b.reshape(1, c, 1)
    return y.reshape(x.shape).to(x.dtype)


_CHANNEL_SAVES = (0, 1, 2, "constant", "constant", "constant", None, None)
_BATCH = Op("batch_norm", _channels_vjp, _CHANNEL_SAVES, _channels_composite)
_GROUP = Op("group_norm", _channels_vjp, _CHANNEL_SAVES, _channels_composite)
_INSTANCE = Op("instance_norm", _channels_vjp, _CHANNEL_SAVES, _channels_composite)


def _channels(
    name: str, op: Op, input: Tensor, weight: Any, bias: Any, groups: int, eps: float, fixed: Any = None
) -> tuple[Tensor, Any, Any]:
    """The result, and the mean and variance that were used: (1, 1, C) of the batch, (N, G, 1) of groups."""
    x = input.array
    w = _check_factor(name, "weight", weight, (x.shape[1],), x)
    b = _check_factor(name, "bias", bias, (x.shape[1],), x)
    if fixed is not None:
        groups = 0
    kernel = backend_of(x).kernel("norm")
    flat_w, flat_b = (None if f is None else kernel.operand(f) for f in (w, b))
    x3 = kernel.operand(x).reshape(_channel_shape(x))
    out, mean, var, rstd = kernel.channels_forward(x3, flat_w, flat_b, groups, eps, fixed)
    saved = (x, w, b, groups, eps, fixed, mean, rstd)
    return record(_as(out.reshape(x.shape), x), op, (input, weight, bias), saved), mean, var


def _need_channels(name: str, input: Tensor, least: int = 2) -> tuple[int, ...]:
    check_floating(name, "input", input)
    shape = tuple(input.array.shape)
    if len(shape) < least:
        raise ValueError(f"{name}: input must have at least {least} dimensions, got shape {shape}")
    return shape


def _running(name: str, running_mean: Any, running_var: Any, channels: int) -> None:
    for argument, value in (("running_mean", running_mean), ("running_var", running_var)):
        if value is not None:
            need_tensor(name, argument, value)
            if value.array.shape != (channels,) or not is_floating(value.array.dtype):
                raise RuntimeError(
                    f"{name}: {argument} must be floating point of shape ({channels},), "
                    f"got {value.array.dtype.name} of {tuple(value.array.shape)}"
                )


def _update(name: str, running_mean: Any, running_var: Any, mean: Any, var: Any, momentum: float, count: int) -> None:
    """Move the running statistics; mean and var are (N, C), var that of the population of `count` numbers."""
    for running, value, scale in ((running_mean, mean, 1.0), (running_var, var, count / (count - 1))):
        if running is not None:
            backend_of(value).kernel("norm").follow(running.array, value, momentum, scale)
            versions.written(running.array, name)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel over the batch and all positions, then scale and shift.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Ioffe and Szegedy, Batch Normalization (2015). In training, mean and variance are those of the batch, and the
    running statistics become `(1 - momentum) * running + momentum * new` in place, with the unbiased variance;
    otherwise the running statistics are used.

    Args:
        input: (N, C, ...), floating point.
        running_mean, running_var: (C,); both may be None in training.
        weight, bias: (C,) or None.
        training: use the statistics of the batch.
        momentum: the weight of the new statistics.
        eps: added to the variance.

    Returns:
        A tensor of the input's shape and dtype. Backward keeps the input and two numbers for each channel.

    Raises:
        ValueError: in training there is only one value per channel, or out of it no running statistics; eps is not
            positive.
        RuntimeError: the shapes or dtypes do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.batch_norm(cf.tensor([[1.0], [3.0]]), None, None, training=True)
    tensor([[-1.0000],
            [ 1.0000]])
    """
    shape = _need_channels("batch_norm", input)
    c = shape[1]
    _running("batch_norm", running_mean, running_var, c)
    if not eps > 0:
        raise ValueError(f"batch_norm: eps must be positive, got {eps}")
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are needed unless training is True")
        fixed = (running_mean.array.copy(), running_var.array.copy())
        return _channels("batch_norm", _BATCH, input, weight, bias, 0, float(eps), fixed)[0]
    count = shape[0] * prod(shape[2:])
    if count == 1:
        raise ValueError(f"batch_norm: training needs more than one value per channel, got input of shape {shape}")
    out, mean, var = _channels("batch_norm", _BATCH, input, weight, bias, 0, float(eps))
    if count:
        stats = (mean.reshape((1, c)), var.reshape((1, c)))
        _update("batch_norm", running_mean, running_var, *stats, momentum, count)
    return out


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise each group of channels of each sample, then scale and shift each channel.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Wu and He, Group Normalization (2018).

    Args:
        input: (N, C, ...), floating point.
        num_groups: a divisor of C.
        weight, bias: (C,) or None.
        eps: added to the variance.

    Returns:
        A tensor of the input's shape and dtype. Backward keeps the input and two numbers for each group.

    Raises:
        ValueError: there is only one value in each group.
        RuntimeError: num_groups does not divide C, or shapes or dtypes do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.group_norm(cf.tensor([[1.0, 3.0, 4.0, 8.0]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    shape = _need_channels("group_norm", input)
    if not isinstance(num_groups, int) or num_groups < 1 or shape[1] % num_groups:
        raise RuntimeError(f"group_norm: num_groups must divide the {shape[1]} channels of input, got {num_groups}")
    # As PyTorch, which sees all groups as one: a single sample may have one value in each of several groups.
    if shape[0] * shape[1] // num_groups * prod(shape[2:]) == 1:
        raise ValueError(f"group_norm: needs more than one value per group, got input of shape {shape}")
    return _channels("group_norm", _GROUP, input, weight, bias, num_groups, float(eps))[0]


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each sample over its positions, then scale and shift each channel.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Ulyanov et al., Instance Normalization (2016). Running statistics, if given, follow the mean over the batch.

    Args:
        input: (N, C, L, ...), floating point.
        running_mean, running_var: (C,); they are used if `use_input_stats` is False, else updated.
        weight, bias: (C,) or None.
        use_input_stats: normalise by the input's own statistics.
        momentum: the weight of the new statistics.
        eps: added to the variance.

    Returns:
        A tensor of the input's shape and dtype.

    Raises:
        ValueError: there is only one position, or neither kind of statistics.
        RuntimeError: the shapes or dtypes do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.instance_norm(cf.tensor([[[1.0, 3.0], [4.0, 8.0]]]))
    tensor([[[-1.0000,  1.0000],
             [-1.0000,  1.0000]]])
    """
    shape = _need_channels("instance_norm", input, 3)
    n, c = shape[:2]
    _running("instance_norm", running_mean, running_var, c)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("instance_norm: running_mean and running_var are needed unless use_input_stats is True")
        fixed = (running_mean.array.copy(), running_var.array.copy())
        return _channels("instance_norm", _INSTANCE, input, weight, bias, 0, float(eps), fixed)[0]
    count = prod(shape[2:])
    if count == 1:
        raise ValueError(f"instance_norm: needs more than one value per channel and sample, got input of shape {shape}")
    out, mean, var = _channels("instance_norm", _INSTANCE, input, weight, bias, c, float(eps))
    if n and count:
        stats = (mean.reshape((n, c)), var.reshape((n, c)))
        _update("instance_norm", running_mean, running_var, *stats, momentum, count)
    return out


# -- local response -----------------------------------------------------------------------------------------------
def _windows(x: Any, before: int, after: int) -> Any:
    """Sums over `before` channels before and `after` after each channel, itself included; recorded for a Tensor."""
    if isinstance(x, Tensor):
        return record(_windows(x.array, before, after), _WINDOWS, (x,), (before, after))
    out = x.copy()
    c = x.shape[1]
    for d in range(1, before + 1):
        out[:, d:] += x[:, : max(0, c - d)]
    for d in range(1, after + 1):
        out[:, : max(0, c - d)] += x[:, d:]
    return out


def _windows_vjp(g: Any, needs: tuple, before: int, after: int) -> tuple:
    return (_windows(g, after, before),)


_WINDOWS = Op("channel_windows", _windows_vjp, (None, None))


@wide_vjp
def _response_vjp(
    g: Any, needs: tuple, x: Any, before: int, after: int, slope: float, beta: float, k: float
) -> tuple:
    s = _windows(x * x, before, after) * slope + k
    scaled = g * s ** (-beta)
    return (scaled - x * _windows(scaled * x / s, after, before) * (2 * beta * slope),)


_RESPONSE = Op("local_response_norm", _response_vjp, (0, None, None, None, None, None))


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divide each channel by a power of the mean square of its neighbours.

        out_c = input_c (k + alpha / size * sum_c' input_c'^2)^-beta,  c' from c - size // 2 to c + (size - 1) // 2

    Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks (2012), section 3.3.

    Args:
        input: (N, C, ...), floating point, at least 3 dimensions.
        size: the number of neighbouring channels.
        alpha, beta, k: see the formula.

    Returns:
        A tensor of the input's shape and dtype. Backward keeps the input.

    Raises:
        ValueError: the input has fewer than 3 dimensions, or size is not positive.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.local_response_norm(cf.ones(1, 2, 1), 2, alpha=2.0, beta=1.0)
    tensor([[[0.5000],
             [0.3333]]])
    """
    shape = _need_channels("local_response_norm", input, 3)
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"local_response_norm: size must be a positive int, got {size!r}, for input of shape {shape}")
    x = input.array
    before, after, slope = size // 2, (size - 1) // 2, alpha / size
    wide = widened(x)
    out = wide * (_windows(wide * wide, before, after) * slope + k) ** (-beta)
    return record(_as(out, x), _RESPONSE, (input,), (x, before, after, slope, beta, k))
