"""Activation functions: what `nn.functional` offers beside relu, sigmoid and tanh; one graph node each.

All take floating-point tensors of any shape, and compute 16-bit floats in float32. With `inplace=True` the result is
written into the input, which must then not be a leaf that requires a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random
from ..backend import backend_of
from ..tensor import Tensor
from .axes import axis_of
from .define import Op, as_result, check_floating, need_tensor, record
from .distance import floating
from .elementwise import relu as plain_relu
from .elementwise import sigmoid
from .inplace import inplace as in_place
from .inplace import write
from .special import erf
from .steps import in_float32, kernel_of, masked, on_arrays, wide_vjp

__all__ = [
    "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
    "mish", "prelu", "relu", "relu6", "rrelu", "selu", "silu", "softplus", "softshrink", "softsign", "tanhshrink",
    "threshold",
]  # fmt: skip

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


# What the kernels of a device call an operation, where they may have it.
_FUSED: dict[Op, str] = {}


def _op(name: str, vjp: Callable[..., tuple], constants: int = 0, fused: str | None = None) -> Op:
    if fused is None:
        return Op(name, wide_vjp(vjp), (0, *(None,) * constants))
    plain, function = wide_vjp(vjp), fused

    def fused_vjp(g: Any, needs: tuple, x: Any, *settings: Any) -> tuple:
        kernel = None if isinstance(g, Tensor) else kernel_of(function, x)
        if kernel is None:
            return plain(g, needs, x, *settings)
        return (kernel.backward(function, g, x, *settings),)

    op = Op(name, fused_vjp, (0, *(None,) * constants))
    _FUSED[op] = function
    return op


def _apply(op: Op, forward: Callable, input: Any, constants: tuple = (), inplace: bool = False) -> Tensor:
    check_floating(op.name, "input", input)
    return _recorded(op, forward, input, constants, inplace)


def _apply_to_numbers(op: Op, forward: Callable, input: Any, constants: tuple, inplace: bool) -> Tensor:
    """As `_apply`, for integers as well, which stay integers."""
    need_tensor(op.name, "input", input)
    if input.array.dtype.kind == "b":
        raise TypeError(f"{op.name}: input must be a number, got bool")
    return _recorded(op, forward, input, constants, inplace)


def _recorded(op: Op, forward: Callable, input: Tensor, constants: tuple, inplace: bool) -> Tensor:
    def apply(t: Tensor) -> Tensor:
        x = t.array
        kernel = kernel_of(_FUSED[op], x) if op in _FUSED else None
        y = in_float32(forward)(x) if kernel is None else kernel.forward(_FUSED[op], x, *constants)
        return record(as_result(y, x), op, (t,), (x, *constants))

    return in_place(apply, f"{op.name}_")(input) if inplace else apply(input)


# -- bent lines -------------------------------------------------------------------------------------
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Each element, or 0 where it is negative: `max(input, 0)`; the gradient at 0 is 0.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.relu(cf.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    out = plain_relu(input)
    return write(input, out, "relu_") if inplace else out


def _leaky_vjp(g: Any, needs: tuple, x: Any, slope: float) -> tuple:
    positive = x > 0
    if 0 <= slope <= 1 and not isinstance(g, Tensor):
        return (g * np.maximum(positive, slope, dtype=g.dtype),)
    return (np.where(positive, g, g * slope),)


_LEAKY_RELU = _op("leaky_relu", _leaky_vjp, 1, "leaky_relu")


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Each element, or a small multiple of it where it is negative.

        out = input if input > 0 else negative_slope * input

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.leaky_relu(cf.tensor([-1.0, 2.0]), 0.1)
    tensor([-0.1000,  2.0000])
    """

    def forward(x: Any) -> Any:
        other = x * negative_slope
        return np.maximum(x, other) if 0 <= negative_slope <= 1 else np.where(x > 0, x, other)

    return _apply(_LEAKY_RELU, forward, input, (negative_slope,), inplace)


def _rrelu_vjp(g: Any, needs: tuple, slopes: Any) -> tuple:
    return (g * slopes,)


_RRELU = Op("rrelu", wide_vjp(_rrelu_vjp), (None,))


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Each element, or a random multiple of it where it is negative.

        out = input if input > 0 else slope * input

    Args:
        input: floating-point tensor of any shape.
        lower, upper: the slopes are uniform in [lower, upper) while training, and their middle otherwise.
        training: draw the slopes, from the default generator.
        inplace: write the result into the input.

    Raises:
        ValueError: lower is larger than upper.
        TypeError: the input is not a floating-point tensor.

    Source: Xu et al., "Empirical evaluation of rectified activations in convolutional network".

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.rrelu(cf.tensor([-1.0, 2.0]), 0.1, 0.3)
    tensor([-0.2000,  2.0000])
    """
    check_floating("rrelu", "input", input)
    if lower > upper:
        raise ValueError(f"rrelu: lower must not be larger than upper = {upper}, got {lower}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    if inplace:
        return in_place(rrelu, "rrelu_")(input, lower, upper, training)
    x = input.array
    drawn = backend_of(x).asarray(random.default_generator.uniform(x.shape, lower, upper), x).astype(x.dtype)
    slopes = as_result(np.where(x > 0, x.dtype.type(1), drawn), x)
    return record(as_result(x * slopes, x), _RRELU, (input,), (slopes,))


def _prelu_vjp(g: Any, needs: tuple, x: Any, w: Any, shape: tuple) -> tuple:
    axes = tuple([i for i, n in enumerate(shape) if n == 1])
    gx = np.where(x > 0, g, g * w.reshape(shape)) if needs[0] is not None else None
    gw = None
    if needs[1] is not None:
        gw = np.where(x > 0, 0, g * x)
        gw = (gw.sum(axis=axes, keepdims=True) if axes else gw).reshape(w.shape)
    return gx, gw


_PRELU = Op("prelu", wide_vjp(_prelu_vjp), (0, 1, None))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Each element, or a learned multiple of it where it is negative.

        out = input if input > 0 else weight * input

    Args:
        input: floating-point tensor (N, C, ...).
        weight: one slope, or one for each of the C channels; of the same dtype.

    Raises:
        TypeError: an argument is not a floating-point tensor.
        RuntimeError: the number of slopes fits neither, or the dtypes differ.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.prelu(cf.tensor([[-1.0, -2.0]]), cf.tensor([0.1, 0.5]))
    tensor([[-0.1000, -1.0000]])
    """
    check_floating("prelu", "input", input)
    check_floating("prelu", "weight", weight)
    x, w = input.array, weight.array
    if w.dtype != x.dtype:
        raise RuntimeError(f"prelu: weight must be {x.dtype.name} as the input, got {w.dtype.name}")
    channels = x.shape[1] if x.ndim > 1 else 1
    if w.ndim > 1 or w.size not in (1, channels):
        raise RuntimeError(f"prelu: weight must be (1,) or ({channels},), got {tuple(w.shape)}")
    shape = tuple([w.size if i == 1 else 1 for i in range(x.ndim)])
    r = np.where(x > 0, x, x * w.reshape(shape))
    return record(as_result(r, x), _PRELU, (input, weight), (x, w, shape))


def _threshold_vjp(g: Any, needs: tuple, x: Any, limit: float) -> tuple:
    return (masked(g, x > limit),)


_THRESHOLD = _op("threshold", _threshold_vjp, 1)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """Each element above a threshold, and a fixed value in place of the others.

        out = input if input > threshold else value

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.threshold(cf.tensor([0.5, 2.0]), 1.0, -1.0)
    tensor([-1.,  2.])
    """

    def forward(x: Any) -> Any:
        return np.where(x > threshold, x, x.dtype.type(value))

    return _apply_to_numbers(_THRESHOLD, forward, input, (threshold,), inplace)


# -- clipped lines ----------------------------------------------------------------------------------
def _hardtanh_vjp(g: Any, needs: tuple, x: Any, low: float, high: float) -> tuple:
    return (masked(g, (x > low) & (x < high)),)


_HARDTANH, _RELU6 = (_op(name, _hardtanh_vjp, 2, "hardtanh") for name in ("hardtanh", "relu6"))


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Each element clipped to an interval; unlike that of `clamp` the gradient at the bounds is 0.

    Raises:
        ValueError: max_val is not larger than min_val.
        TypeError: the input is not a tensor of numbers.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.hardtanh(cf.tensor([-3.0, 0.5]))
    tensor([-1.0000,  0.5000])
    """
    if max_val < min_val:
        raise ValueError(f"hardtanh: max_val must be larger than min_val = {min_val}, got {max_val}")

    def forward(x: Any) -> Any:
        low, high = (min_val, max_val) if x.dtype.kind not in "iu" else (int(min_val), int(max_val))
        return np.minimum(np.maximum(x, low), high)

    return _apply_to_numbers(_HARDTANH, forward, input, (min_val, max_val), inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """Each element clipped to [0, 6]: `min(max(input, 0), 6)`.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.relu6(cf.tensor([-3.0, 0.5, 8.0]))
    tensor([0.0000, 0.5000, 6.0000])
    """
    return _apply_to_numbers(_RELU6, lambda x: np.minimum(np.maximum(x, 0), 6), input, (0, 6), inplace)


def _hardsigmoid_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    return (masked(g / 6, (x > -3) & (x < 3)),)


_HARDSIGMOID = _op("hardsigmoid", _hardsigmoid_vjp, fused="hardsigmoid")


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """A sigmoid of three straight lines: `min(max(input + 3, 0), 6) / 6`.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.hardsigmoid(cf.tensor([-4.0, 0.0, 4.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _apply(_HARDSIGMOID, lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6, input, (), inplace)


def _hardswish_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    return (g * np.where(x >= 3, 1, np.where(x <= -3, 0, x / 3 + 0.5)),)


_HARDSWISH = _op("hardswish", _hardswish_vjp, fused="hardswish")


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """Each element times its hardsigmoid: `input * min(max(input + 3, 0), 6) / 6`.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.hardswish(cf.tensor([-4.0, 1.0, 4.0]))
    tensor([-0.0000, 0.6667, 4.0000])
    """
    return _apply(_HARDSWISH, lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6, input, (), inplace)


# -- shrinkage --------------------------------------------------------------------------------------
def _shrink_vjp(g: Any, needs: tuple, x: Any, lambd: float) -> tuple:
    return (masked(g, (x > lambd) | (x < -lambd)),)


_SOFTSHRINK, _HARDSHRINK = (_op(name, _shrink_vjp, 1, name) for name in ("softshrink", "hardshrink"))


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Each element moved towards 0 by a distance, and 0 where it is nearer.

        out = input - lambd if input > lambd else input + lambd if input < -lambd else 0

    Raises:
        ValueError: lambd is negative.
        TypeError: the input is not a floating-point tensor.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.softshrink(cf.tensor([-1.0, 0.2, 2.0]))
    tensor([-0.5000,  0.0000,  1.5000])
    """
    if lambd < 0:
        raise ValueError(f"softshrink: lambd must not be negative, got {lambd}")

    def forward(x: Any) -> Any:
        return np.maximum(x - lambd, 0) + np.minimum(x + lambd, 0)

    return _apply(_SOFTSHRINK, forward, input, (lambd,))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """Each element, and 0 where its absolute value is at most `lambd`.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.hardshrink(cf.tensor([-1.0, 0.2, 2.0]))
    tensor([-1.,  0.,  2.])
    """

    def forward(x: Any) -> Any:
        return np.where((x <= lambd) & (x >= -lambd), 0, x)

    return _apply(_HARDSHRINK, forward, input, (lambd,))


def _tanhshrink_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    return (g * np.square(np.tanh(x)),)


_TANHSHRINK = _op("tanhshrink", _tanhshrink_vjp)


def tanhshrink(input: Tensor) -> Tensor:
    """What tanh takes off: `input - tanh(input)`.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.tanhshrink(cf.tensor([0.0, 1.0]))
    tensor([0.0000, 0.2384])
    """
    return _apply(_TANHSHRINK, lambda x: x - np.tanh(x), floating("tanhshrink", "input", input))


# -- exponential tails ------------------------------------------------------------------------------
# The exponentials below are taken of min(x, 0): where x is large they would be inf, and inf times the zero that
# `where` sends back is NaN in the second derivative.
def _elu_vjp(g: Any, needs: tuple, x: Any, alpha: float, scale: float, rate: float) -> tuple:
    return (np.where(x > 0, g * scale, g * (np.exp(np.minimum(x, 0) * rate) * (alpha * scale * rate))),)


_ELU, _CELU, _SELU = (_op(name, _elu_vjp, 3, "elu") for name in ("elu", "celu", "selu"))


def _elu(op: Op, input: Any, alpha: float, scale: float, rate: float, inplace: bool) -> Tensor:
    def forward(x: Any) -> Any:
        return np.where(x > 0, x * scale, np.expm1(np.minimum(x, 0) * rate) * (alpha * scale))

    return _apply(op, forward, input, (alpha, scale, rate), inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Each element, or a decaying exponential where it is negative.

        out = input if input > 0 else alpha * (exp(input) - 1)

    Source: Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by exponential linear units".

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.elu(cf.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """
    return _elu(_ELU, input, alpha, 1, 1, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """`elu` with a slope that is continuous at 0 for every `alpha`.

        out = input if input > 0 else alpha * (exp(input / alpha) - 1)

    Raises:
        ValueError: alpha is 0.
        TypeError: the input is not a floating-point tensor.

    Source: Barron, "Continuously differentiable exponential linear units", equation 3.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.celu(cf.tensor([-1.0, 2.0]), 2.0)
    tensor([-0.7869,  2.0000])
    """
    if alpha == 0:
        raise ValueError("celu: alpha must not be 0")
    return _elu(_CELU, input, alpha, 1, 1 / alpha, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """`elu` scaled so that activations keep mean 0 and variance 1 from layer to layer.

        out = 1.0507... * (input if input > 0 else 1.6733... * (exp(input) - 1))

    Source: Klambauer et al., "Self-normalizing neural networks".

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.selu(cf.tensor([-1.0, 2.0]))
    tensor([-1.1113,  2.1014])
    """
    return _elu(_SELU, input, SELU_ALPHA, SELU_SCALE, 1, inplace)


def _softplus_array(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _softplus_vjp(g: Any, needs: tuple, x: Any, beta: float, limit: float) -> tuple:
    t = x * beta
    return (np.where(t > limit, g, g * on_arrays(sigmoid, t)),)


_SOFTPLUS = _op("softplus", _softplus_vjp, 2, "softplus")


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """A smooth relu.

        out = log(1 + exp(beta * input)) / beta, and the input itself where beta * input > threshold

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.softplus(cf.tensor([-1.0, 0.0, 30.0]))
    tensor([ 0.3133,  0.6931, 30.0000])
    """

    def forward(x: Any) -> Any:
        t = x * beta
        return np.where(t > threshold, x, _softplus_array(t) / beta)

    return _apply(_SOFTPLUS, forward, input, (beta, threshold))


def _logsigmoid_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    return (g * on_arrays(sigmoid, -x),)


_LOGSIGMOID = _op("logsigmoid", _logsigmoid_vjp, fused="logsigmoid")


def logsigmoid(input: Tensor) -> Tensor:
    """The logarithm of the sigmoid, exact for large negative elements.

        out = -log(1 + exp(-input))

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.logsigmoid(cf.tensor([-100.0, 0.0]))
    tensor([-100.0000,   -0.6931])
    """
    return _apply(_LOGSIGMOID, lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), input)


# -- gated by a function of the input ---------------------------------------------------------------
def _gelu_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    area = on_arrays(erf, x * math.sqrt(0.5)) / 2 + 0.5
    density = np.exp(x * x / -2) / math.sqrt(2 * math.pi)
    return (g * (area + x * density),)


def _gelu_tanh_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    square = x * x
    t = np.tanh(x * (square * _CUBIC + 1) * _ROOT_2_OVER_PI)
    slope = (square * (3 * _CUBIC) + 1) * _ROOT_2_OVER_PI
    return (g * ((t + 1) / 2 + x * (1 - t * t) * slope / 2),)


_GELU, _GELU_TANH = _op("gelu", _gelu_vjp, fused="gelu"), _op("gelu", _gelu_tanh_vjp, fused="gelu_tanh")


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """Each element times the normal distribution's probability of a smaller one.

        out = input * (1 + erf(input / sqrt(2))) / 2

    Args:
        input: floating-point tensor of any shape.
        approximate: `"none"`, or `"tanh"` for the approximation
            `input * (1 + tanh(sqrt(2 / pi) * (input + 0.044715 * input**3))) / 2`.

    Raises:
        ValueError: another approximation.
        TypeError: the input is not a floating-point tensor.

    Source: Hendrycks, Gimpel, "Gaussian error linear units".

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.gelu(cf.tensor([-1.0, 2.0]))
    tensor([-0.1587,  1.9545])
    """
    if approximate == "none":
        return _apply(_GELU, lambda x: x * (on_arrays(erf, x * math.sqrt(0.5)) + 1) / 2, input)
    if approximate == "tanh":
        return _apply(
            _GELU_TANH, lambda x: x * (np.tanh(x * (x * x * _CUBIC + 1) * _ROOT_2_OVER_PI) + 1) / 2, input
        )
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


def _silu_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    s = on_arrays(sigmoid, x)
    return (g * (s * (x * (1 - s) + 1)),)


_SILU = _op("silu", _silu_vjp, fused="silu")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """Each element times its sigmoid, also called swish: `input / (1 + exp(-input))`.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.silu(cf.tensor([-1.0, 2.0]))
    tensor([-0.2689,  1.7616])
    """
    return _apply(_SILU, lambda x: on_arrays(sigmoid, x) * x, input, (), inplace)


def _mish_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    t = np.tanh(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))
    return (g * (t + x * (1 - t * t) * on_arrays(sigmoid, x)),)


_MISH = _op("mish", _mish_vjp, fused="mish")


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """Each element times the tanh of its softplus: `input * tanh(log(1 + exp(input)))`.

    Source: Misra, "Mish: a self regularized non-monotonic activation function".

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.mish(cf.tensor([-1.0, 2.0]))
    tensor([-0.3034,  1.9440])
    """
    return _apply(_MISH, lambda x: x * np.tanh(_softplus_array(x)), input, (), inplace)


def _softsign_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    return (g / np.square(np.abs(x) + 1),)


_SOFTSIGN = _op("softsign", _softsign_vjp)


def softsign(input: Tensor) -> Tensor:
    """Each element over 1 plus its absolute value: `input / (1 + |input|)`.

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.softsign(cf.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])
    """
    return _apply(_SOFTSIGN, lambda x: x / (np.abs(x) + 1), floating("softsign", "input", input))


def _glu_vjp(g: Any, needs: tuple, x: Any, axis: int) -> tuple:
    return (backend_of(x).kernel("activation").glu_backward(g, x, axis),)


def _glu_of_halves(input: Tensor, axis: int) -> Tensor:
    before, half = (slice(None),) * axis, input.array.shape[axis] // 2
    a = input[(*before, slice(None, half))]
    b = input[(*before, slice(half, None))]
    return a * sigmoid(b)


_GLU = Op("glu", _glu_vjp, (0, "constant"), _glu_of_halves)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of a tensor gated by the second.

        out = a * sigmoid(b), where a and b are the halves of the input

    Args:
        input: floating-point tensor with an even size along `dim`.
        dim: the dimension to halve.

    Returns:
        A tensor of half the size along `dim`.

    Raises:
        TypeError: the input is not a floating-point tensor.
        RuntimeError: it has no dimensions, or an odd size.
        IndexError: the dimension is out of range.

    Source: Dauphin et al., "Language modeling with gated convolutional networks".

    >>> import cuframe as cf
    >>> from cuframe.ops import activation
    >>> activation.glu(cf.tensor([1.0, 2.0, 0.0, 0.0]))
    tensor([0.5000, 1.0000])
    """
    need_tensor("glu", "input", input)
    check_floating("glu", "input", input)
    shape = input.array.shape
    if not shape:
        raise RuntimeError("glu: input must have at least one dimension, got a 0-d tensor")
    axis = axis_of("glu", dim, len(shape))
    if shape[axis] % 2:
        raise RuntimeError(f"glu: input must have an even size along dim {dim}, got {shape[axis]}")
    x = input.array
    kernel = kernel_of("glu", x)
    if kernel is None:
        return _glu_of_halves(input, axis)
    return record(kernel.glu_forward(x, axis), _GLU, (input,), (x, axis))
