"""Initial values for parameters, drawn from the seeded default generator. Every function works in place under
`no_grad` and returns its tensor."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from ..autograd import versions
from ..backend import backend_of
from ..dtypes import is_floating
from ..random import Generator, default_generator
from ..tensor import Tensor

__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
    "orthogonal_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Tensor])

_GAINS = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "conv_transpose1d": 1.0, "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75,
}  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance of a layer's output through a nonlinearity.

    Args:
        nonlinearity: `linear`, `conv1d` and so on, `sigmoid`, `tanh`, `relu`, `leaky_relu` or `selu`.
        param: the negative slope of `leaky_relu`, by default 0.01.

    Raises:
        ValueError: the nonlinearity is unknown, or the slope is no number.

    >>> from cuframe.nn import init
    >>> init.calculate_gain("tanh")
    1.6666666666666667
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"calculate_gain: the negative slope must be a number, got {param!r}")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        known = ", ".join(sorted([*_GAINS, "leaky_relu"]))
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; known: {known}")
    return _GAINS[nonlinearity]


class _Skipping(threading.local):
    on = False


_skipping = _Skipping()


@contextmanager
def skipped() -> Iterator[None]:
    """Within this context the functions here leave tensors as they are: for values that are loaded next."""
    before, _skipping.on = _skipping.on, True
    try:
        yield
    finally:
        _skipping.on = before


def _filler(function: F) -> F:
    """Check the tensor, and note the write for whoever saved the old values."""

    @functools.wraps(function)
    def fill(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{function.__name__}: expected a Tensor, got {type(tensor).__name__}")
        if not _skipping.on:
            function(tensor, *args, **kwargs)
            versions.written(tensor.array, function.__name__)
        return tensor

    return fill  # type: ignore[return-value]


def _set(tensor: Tensor, values: Any) -> Tensor:
    """Copy host values into the tensor, on whatever device it is."""
    array = tensor.array
    backend = backend_of(array)
    array[...] = backend.from_host(np.asarray(values), backend.device_of(array))
    return tensor


def _draw_dtype(name: str, tensor: Tensor) -> Any:
    dtype = tensor.array.dtype
    if not is_floating(dtype):
        raise TypeError(f"{name}: tensor must be floating point, got {dtype.name}")
    return dtype


@_filler
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with numbers from the uniform distribution on [a, b).

    Args:
        tensor: any shape, floating.
        a, b: the bounds; b is not reached but by rounding.
        generator: where the numbers come from; by default the seeded default generator.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> bool((init.uniform_(cf.tensor([0.0] * 100), -1, 1).array < 1).all())
    True
    """
    dtype = _draw_dtype("uniform_", tensor)
    return _set(tensor, (generator or default_generator).uniform(tensor.array.shape, a, b, dtype))


@_filler
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with numbers from the normal distribution of this mean and standard deviation.

    Args:
        tensor: any shape, floating.
        mean, std: of the distribution.
        generator: where the numbers come from; by default the seeded default generator.

    Raises:
        TypeError: the tensor is no Tensor, or not floating point.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> w = init.normal_(cf.empty(100, 100), mean=2.0, std=0.5)
    >>> abs(w.mean().item() - 2) < 0.05 and abs(w.std().item() - 0.5) < 0.05
    True
    """
    dtype = _draw_dtype("normal_", tensor)
    return _set(tensor, (generator or default_generator).normal(tensor.array.shape, mean, std, dtype))


@_filler
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value.

    Args:
        tensor: any shape and dtype.
        val: the number.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> init.constant_(cf.empty(3), 0.5)
    tensor([0.5000, 0.5000, 0.5000])
    """
    tensor.array[...] = val
    return tensor


@_filler
def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> init.ones_(cf.empty(3))
    tensor([1., 1., 1.])
    """
    tensor.array[...] = 1
    return tensor


@_filler
def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> init.zeros_(cf.empty(3))
    tensor([0., 0., 0.])
    """
    tensor.array[...] = 0
    return tensor


@_filler
def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity: ones on the diagonal, zeros elsewhere.

    Raises:
        ValueError: the tensor is no matrix.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> init.eye_(cf.empty(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    if tensor.array.ndim != 2:
        raise ValueError(f"eye_: tensor must have 2 dimensions, got shape {tuple(tensor.array.shape)}")
    return _set(tensor, np.eye(*tensor.array.shape, dtype=np.float32))


@_filler
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a convolution's weight so that it passes its input channels through unchanged.

    Args:
        tensor: (out_channels, in_channels / groups, *kernel) with a kernel of 1 to 3 dimensions.
        groups: of the convolution.

    Raises:
        ValueError: another number of dimensions, or channels that the groups do not divide.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> from cuframe.nn import functional as F
    >>> x = cf.tensor([[[1.0, 2.0, 3.0]]])
    >>> F.conv1d(x, init.dirac_(cf.empty(1, 1, 3)), padding=1)
    tensor([[[1., 2., 3.]]])
    """
    shape = tensor.array.shape
    if len(shape) not in (3, 4, 5):
        raise ValueError(f"dirac_: tensor must have 3, 4 or 5 dimensions, got shape {tuple(shape)}")
    if shape[0] % groups:
        raise ValueError(f"dirac_: out_channels {shape[0]} must be divisible by groups {groups}")
    per_group = shape[0] // groups
    values = np.zeros(shape, np.float32)
    centre = tuple(size // 2 for size in shape[2:])
    for g in range(groups):
        for c in range(min(per_group, shape[1])):
            values[(g * per_group + c, c, *centre)] = 1
    return _set(tensor, values)


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """How many inputs an output unit sees, and how many outputs an input unit feeds."""
    shape = tensor.array.shape
    if len(shape) < 2:
        raise ValueError(f"{name}: tensor must have at least 2 dimensions, got shape {tuple(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


@_filler
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from the uniform distribution on [-a, a), a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    Args:
        tensor: (out, in, *kernel).
        gain: see `calculate_gain`.
        generator: where the numbers come from; by default the seeded default generator.

    Raises:
        ValueError: fewer than two dimensions.
        TypeError: the tensor is no Tensor, or not floating point.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> w = init.xavier_uniform_(cf.empty(2, 4))  # a = 1
    >>> w.shape, bool((w.abs() <= 1).all())
    (cuframe.Size([2, 4]), True)
    """
    fan_in, fan_out = _fans("xavier_uniform_", tensor)
    a = gain * math.sqrt(6.0 / (fan_in + fan_out)) if fan_in + fan_out else 0.0
    return uniform_(tensor, -a, a, generator)


@_filler
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from the normal distribution with std = gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    Args:
        tensor: (out, in, *kernel).
        gain: see `calculate_gain`.
        generator: where the numbers come from; by default the seeded default generator.

    Raises:
        ValueError: fewer than two dimensions.
        TypeError: the tensor is no Tensor, or not floating point.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> w = init.xavier_normal_(cf.empty(100, 100))  # std = 0.1
    >>> abs(w.std().item() - 0.1) < 0.01
    True
    """
    fan_in, fan_out = _fans("xavier_normal_", tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)) if fan_in + fan_out else 0.0, generator)


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float | None:
    if tensor.array.size == 0:
        warnings.warn(f"{name}: the tensor has no elements, nothing to initialize", stacklevel=4)
        return None
    modes = ("fan_in", "fan_out")
    if mode not in modes:
        raise ValueError(f"{name}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = _fans(name, tensor)[modes.index(mode)]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


@_filler
def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill from the uniform distribution on [-b, b), b = gain * sqrt(3 / fan) (He et al. 2015).

    Args:
        tensor: (out, in, *kernel).
        a: the negative slope of the `leaky_relu` behind the layer.
        mode: `fan_in` keeps the variance in the forward pass, `fan_out` in the backward pass.
        nonlinearity: see `calculate_gain`.
        generator: where the numbers come from; by default the seeded default generator.

    Raises:
        ValueError: fewer than two dimensions, or an unknown mode or nonlinearity.
        TypeError: the tensor is no Tensor, or not floating point.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> w = init.kaiming_uniform_(cf.empty(3, 6), nonlinearity="relu")  # b = 1
    >>> w.shape, bool((w.abs() <= 1).all())
    (cuframe.Size([3, 6]), True)
    """
    std = _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    if std is None:
        return tensor
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator)


@_filler
def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill from the normal distribution with std = gain / sqrt(fan) (He et al. 2015); see `kaiming_uniform_`.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> w = init.kaiming_normal_(cf.empty(50, 200), nonlinearity="relu")  # std = 0.1
    >>> abs(w.std().item() - 0.1) < 0.01
    True
    """
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return tensor if std is None else normal_(tensor, 0.0, std, generator)


@_filler
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Fill from the normal distribution of this mean and std, cut off outside [a, b].

    The inverse of the distribution function is applied to uniform numbers.

    Args:
        tensor: any shape, floating.
        mean, std: of the distribution before it is cut.
        a, b: the smallest and the largest value.
        generator: where the numbers come from; by default the seeded default generator.

    Raises:
        ValueError: a is not below b.
        TypeError: the tensor is no Tensor, or not floating point.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> bool((init.trunc_normal_(cf.empty(100), std=2.0, a=-1.0, b=1.0).abs() <= 1).all())
    True
    """
    from scipy.special import ndtr, ndtri

    dtype = _draw_dtype("trunc_normal_", tensor)
    if not a < b:
        raise ValueError(f"trunc_normal_: a must be below b, got a={a}, b={b}")
    if (mean < a - 2 * std) or (mean > b + 2 * std):
        warnings.warn(
            "trunc_normal_: the mean lies more than two std outside [a, b], the distribution may be off", stacklevel=3
        )
    low, high = ndtr((a - mean) / std), ndtr((b - mean) / std)
    u = (generator or default_generator).uniform(tensor.array.shape, dtype=np.float64)
    values = mean + std * ndtri(low + u * (high - low))
    return _set(tensor, np.clip(values, a, b).astype(dtype))


@_filler
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Fill with a (semi-)orthogonal matrix times `gain` (Saxe et al. 2013).

    Args:
        tensor: at least 2 dimensions; those after the first are taken as one.
        gain: factor.
        generator: where the numbers come from; by default the seeded default generator.

    Raises:
        ValueError: fewer than two dimensions.
        TypeError: the tensor is no Tensor, or not floating point.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> w = init.orthogonal_(cf.empty(2, 4))
    >>> cf.allclose(w @ w.T, cf.eye(2), atol=1e-6)
    True
    """
    shape = tensor.array.shape
    if len(shape) < 2:
        raise ValueError(f"orthogonal_: tensor must have at least 2 dimensions, got shape {tuple(shape)}")
    if tensor.array.size == 0:
        return tensor
    _draw_dtype("orthogonal_", tensor)
    rows, columns = shape[0], math.prod(shape[1:])
    flat = (generator or default_generator).normal((rows, columns), dtype=np.float64)
    q, r = np.linalg.qr(flat.T if rows < columns else flat)
    q = q * np.sign(np.diag(r))  # so that the distribution is uniform
    return _set(tensor, (gain * (q.T if rows < columns else q)).reshape(shape).astype(tensor.array.dtype))


@_filler
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Fill a matrix from the normal distribution, with a fraction `sparsity` of each column zero (Martens 2010).

    Args:
        tensor: a matrix, floating.
        sparsity: the part of each column that is zero, rounded up; from 0 to 1.
        std: of the other numbers.
        generator: where the numbers come from; by default the seeded default generator.

    Raises:
        ValueError: no matrix, or a sparsity outside [0, 1].
        TypeError: the tensor is no Tensor, or not floating point.

    >>> import cuframe as cf
    >>> from cuframe.nn import init
    >>> (init.sparse_(cf.empty(4, 3), sparsity=0.5) == 0).sum(dim=0)
    tensor([2, 2, 2])
    """
    if tensor.array.ndim != 2:
        raise ValueError(f"sparse_: tensor must have 2 dimensions, got shape {tuple(tensor.array.shape)}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_: sparsity must be in [0, 1], got {sparsity}")
    dtype = _draw_dtype("sparse_", tensor)
    draw = generator or default_generator
    rows, columns = tensor.array.shape
    values = draw.normal((rows, columns), 0.0, std, dtype)
    zeros = math.ceil(sparsity * rows)
    for column in range(columns):
        values[draw.permutation(rows)[:zeros], column] = 0
    return _set(tensor, values)
