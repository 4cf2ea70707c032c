"""Dropout and its kin: noise while training, nothing otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import random
from ..backend import backend_of
from ..cpu.philox import bernoulli_blocks
from ..tensor import Tensor
from .define import Op, as_result, check_floating, need_tensor, record
from .inplace import check_writable, write

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

# What SELU tends to for very negative inputs; see Klambauer et al., Self-Normalizing Neural Networks (2017), section 3.
_SELU_FLOOR = -1.7580993408473766


def _scaled(mask: Any, scale: float, dtype: Any) -> Any:
    return np.multiply(mask, dtype.type(scale)).astype(dtype, copy=False)


def _dropout_vjp(g: Any, needs: tuple, mask: Any, scale: float) -> tuple:
    return (g * _scaled(mask, scale, g.dtype),)


_DROPOUT = Op("dropout", _dropout_vjp, (None, None))


def _redrawn_vjp(
    g: Any, needs: tuple, seed: int, offset: int, keep: float, each: int, scale: float, shift: Any
) -> tuple:
    if isinstance(g, Tensor):
        return (_redrawn(g, seed, offset, keep, each, scale, None),)
    return (backend_of(g).kernel("dropout").dropout(g, seed, offset, keep, each, scale, None),)


_REDRAWN = Op("dropout", _redrawn_vjp, (None,) * 6)


def _redrawn(input: Tensor, *settings: Any) -> Tensor:
    """Dropout by a kernel that draws the mask as it goes, and again in backward: nothing of its size is kept."""
    x = input.array
    return record(backend_of(x).kernel("dropout").dropout(x, *settings), _REDRAWN, (input,), settings)


def _drawn_on_device(input: Tensor, p: float, shape: tuple, scale: float, shift: Any) -> Tensor | None:
    """The result where the device has the kernel; the numbers are those of `_keep`."""
    x = input.array
    if backend_of(x).kernel("dropout") is None:
        return None
    count = math.prod(shape)
    stream = random.default_generator.reserve(bernoulli_blocks(count))
    return _redrawn(input, *stream, 1 - p, x.size // max(count, 1), scale, shift)


def _keep(input: Tensor, p: float, shape: tuple) -> Any:
    """A bool mask, True with probability 1 - p, beside the input."""
    x = input.array
    mask = random.default_generator.bernoulli(1 - p, shape)
    return backend_of(x).asarray(mask, x)


def _check(name: str, input: Any, p: float, training: bool) -> None:
    if training:
        check_floating(name, "input", input)
    need_tensor(name, "input", input)
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p must be in [0, 1], got {p}")


def _drop(name: str, input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple | None = None) -> Tensor:
    if not training or p == 0:
        return input
    if inplace:
        check_writable(input, f"{name}_")
    x = input.array
    shape = x.shape if mask_shape is None else mask_shape
    out = None if p == 1 else _drawn_on_device(input, p, shape, 1 / (1 - p), None)
    if out is None:
        if p == 1:
            mask, scale = backend_of(x).xp.zeros((1,) * x.ndim, bool), 0.0
        else:
            mask, scale = _keep(input, p, shape), 1 / (1 - p)
        out = record(as_result(x * _scaled(mask, scale, x.dtype), x), _DROPOUT, (input,), (mask, scale))
    return write(input, out, f"{name}_") if inplace else out


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability p and divide the others by 1 - p, so that the expectation stays.

    Args:
        input: a floating-point tensor.
        p: from 0 to 1.
        training: False returns the input itself.
        inplace: write into the input and return it.

    Returns:
        A tensor of the input's shape. Backward keeps one byte an element, and on GPUs nothing: the mask is drawn again.
        Draws from the default generator: the same seed drops the same elements on any device.

    Raises:
        ValueError: p is outside [0, 1].

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> sorted(set(F.dropout(cf.ones(100), 0.75).tolist()))
    [0.0, 4.0]
    """
    _check("dropout", input, p, training)
    return _drop("dropout", input, p, training, inplace)


def _feature_shape(name: str, input: Tensor, ndims: tuple[int, int]) -> tuple:
    """One mask element for each channel: with the larger number of dimensions there is a batch in front."""
    shape = input.array.shape
    if len(shape) not in ndims:
        raise RuntimeError(f"{name}: input must have {ndims[0]} or {ndims[1]} dimensions, got shape {tuple(shape)}")
    lead = 2 if len(shape) == ndims[1] else 1
    return shape[:lead] + (1,) * (len(shape) - lead)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of a (N, C, L) or (C, L) input.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.dropout1d(cf.ones(2, 3, 4), 1.0).sum()
    tensor(0.)
    """
    _check("dropout1d", input, p, training)
    return _drop("dropout1d", input, p, training, inplace, _feature_shape("dropout1d", input, (2, 3)))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of a (N, C, H, W) input; three dimensions are read as (N, C, L), as PyTorch does.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.dropout2d(cf.ones(2, 3, 4, 4), 1.0).sum()
    tensor(0.)
    """
    _check("dropout2d", input, p, training)
    shape = input.array.shape
    if len(shape) not in (3, 4):
        raise RuntimeError(f"dropout2d: input must have 3 or 4 dimensions, got shape {tuple(shape)}")
    return _drop("dropout2d", input, p, training, inplace, shape[:2] + (1,) * (len(shape) - 2))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of a (N, C, D, H, W) or (C, D, H, W) input.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.dropout3d(cf.ones(2, 3, 2, 2, 2), 1.0).sum()
    tensor(0.)
    """
    _check("dropout3d", input, p, training)
    return _drop("dropout3d", input, p, training, inplace, _feature_shape("dropout3d", input, (4, 5)))


def _alpha(name: str, input: Tensor, p: float, inplace: bool, mask_shape: tuple) -> Tensor:
    if p == 1:
        return _drop(name, input, p, True, inplace)
    if inplace:
        check_writable(input, f"{name}_")
    x = input.array
    # out = a * (kept ? x : floor) + b has mean 0 and variance 1 where x has.
    a = 1 / math.sqrt((1 - p) * (1 + p * _SELU_FLOOR**2))
    b = -a * p * _SELU_FLOOR
    out = _drawn_on_device(input, p, mask_shape, a, (b, b + a * _SELU_FLOOR))
    if out is None:
        mask = _keep(input, p, mask_shape)
        shift = np.where(mask, x.dtype.type(b), x.dtype.type(b + a * _SELU_FLOOR))
        out = record(as_result(x * _scaled(mask, a, x.dtype) + shift, x), _DROPOUT, (input,), (mask, a))
    return write(input, out, f"{name}_") if inplace else out


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout for networks of SELU: dropped elements become SELU's floor, and mean and variance are restored.

    Klambauer et al., Self-Normalizing Neural Networks (2017), section 3. Arguments as for `dropout`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> len(set(F.alpha_dropout(cf.zeros(100), 0.5, training=True).tolist()))
    2
    """
    _check("alpha_dropout", input, p, training)
    if not training or p == 0:
        return input
    return _alpha("alpha_dropout", input, p, inplace, input.array.shape)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of a (N, C, ...) input.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.feature_alpha_dropout(cf.zeros(2, 3, 4), 0.0, training=True).sum()
    tensor(0.)
    """
    _check("feature_alpha_dropout", input, p, training)
    if not training or p == 0:
        return input
    shape = input.array.shape
    if len(shape) < 2:
        raise RuntimeError(f"feature_alpha_dropout: input must have at least 2 dimensions, got shape {tuple(shape)}")
    return _alpha("feature_alpha_dropout", input, p, inplace, shape[:2] + (1,) * (len(shape) - 2))
