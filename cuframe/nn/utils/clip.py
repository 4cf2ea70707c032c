"""Gradient clipping."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...autograd import versions
from ...backend import backend_of
from ...dtypes import promote_types
from ...ops.define import check_floating
from ...sparse import SparseGrad
from ...tensor import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]

# OpenBLAS uses one thread up to 10,000 elements.
_PIECE = 8192


def _grad_arrays(name: str, parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    """The arrays of all gradients; of sparse ones, summed by row first, their values."""
    found = []
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{name}: parameters must be Tensors, got {type(parameters).__name__}")
    for p in [parameters] if isinstance(parameters, Tensor) else list(parameters):
        if not isinstance(p, Tensor):
            raise TypeError(f"{name}: parameters must be Tensors, got {type(p).__name__}")
        if p.grad is not None:
            found.append(_values(p))
    return found


def _values(p: Tensor) -> Any:
    g = p.grad
    if isinstance(g, Tensor):
        return g.array
    p.grad = g.coalesce()
    return p.grad.data


def _norm(x: Any, order: float) -> Any:
    """The norm of all elements of an array, as a scalar beside it; half precision is summed in float32."""
    if x.dtype.char not in "fd":
        x = x.astype(np.float32)
    if order == 2.0:
        flat = x.reshape(-1)
        square = _squares(flat)
        if not math.isfinite(square) or square < 1e-30:
            # The squares may have left the dtype's range where the norm does not.
            return math.sqrt(_squares(flat.astype(np.float64)))
        return square**0.5
    if order == math.inf:
        return abs(x).max() if x.size else x.dtype.type(0)
    if order == -math.inf:
        return abs(x).min() if x.size else x.dtype.type(math.inf)
    if order == 0.0:
        return (x != 0).sum()
    return (abs(x) ** order).sum() ** (1.0 / order)


def _squares(flat: Any) -> float:
    """The sum of squares, in pieces for which BLAS needs no threads: they cost more than they save here."""
    if flat.size <= _PIECE or not isinstance(flat, np.ndarray):
        return float(flat.dot(flat))
    pieces = (flat[i : i + _PIECE] for i in range(0, flat.size, _PIECE))
    return sum(float(piece.dot(piece)) for piece in pieces)


def _total(arrays: list[Any], norm_type: float) -> Any:
    """The norm of the norms: a number, or where kernels find it an array of shape (1,) on their device."""
    order = float(norm_type)
    fused = _fused(arrays)
    if fused is not None:
        return fused.norm(arrays, order)
    norms = np.asarray([float(_norm(x, order)) for x in arrays], np.float64)
    if order == math.inf:
        return float(norms.max())
    if order == -math.inf:
        return float(norms.min())
    return float(np.linalg.norm(norms, order))


def _result(arrays: list[Any], total: Any) -> Tensor:
    if not arrays:
        return Tensor(np.zeros((), np.float32))
    dtype = functools.reduce(promote_types, [x.dtype for x in arrays])
    if hasattr(total, "shape"):
        return Tensor(total.reshape(()).astype(dtype))
    return Tensor(backend_of(arrays[0]).asarray(np.asarray(total, dtype), arrays[0]))


def _fused(arrays: list[Any]) -> Any:
    """The kernels for many arrays, where all are on one device that has them."""
    kernel = backend_of(arrays[0]).kernel("optim") if arrays else None
    return kernel if kernel is not None and kernel.together(arrays) else None


def _check_finite(name: str, total: Any, norm_type: float) -> None:
    if hasattr(total, "shape"):
        total = total.item()
    if not math.isfinite(total):
        raise RuntimeError(
            f"{name}: the norm of order {float(norm_type):g} of the gradients is {total}; "
            "error_if_nonfinite=False clips regardless"
        )


# Infinite and NaN gradients are answered by the result, not by NumPy's warnings.
@np.errstate(all="ignore")
def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of the elements of all tensors together.

    Args:
        tensors: one or several.
        norm_type: the order; `math.inf` for the largest absolute value.
        error_if_nonfinite: raise if the norm is NaN or infinite.
        foreach: taken for compatibility, without effect.

    Returns:
        A 0-d Tensor.

    Raises:
        TypeError: something else than floating point Tensors (or sparse gradients).
        RuntimeError: the norm is not finite, if that was asked for.

    >>> import math
    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> grads = [cf.tensor([3.0]), cf.tensor([[0.0, -4.0]])]
    >>> nn.utils.get_total_norm(grads), nn.utils.get_total_norm(grads, math.inf)
    (tensor(5.), tensor(4.))
    """
    arrays = []
    for t in [tensors] if isinstance(tensors, (Tensor, SparseGrad)) else tensors:
        if isinstance(t, SparseGrad):
            arrays.append(t.coalesce().data)
        else:
            check_floating("get_total_norm", "tensors", t)
            arrays.append(t.array)
    total = _total(arrays, norm_type) if arrays else 0.0
    if error_if_nonfinite:
        _check_finite("get_total_norm", total, norm_type)
    return _result(arrays, total)


@np.errstate(all="ignore")
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients, in place, so that their norm together is at most `max_norm`.

    Each is multiplied by min(1, max_norm / (norm + 1e-6)).

    Args:
        parameters: the tensors whose `.grad` is clipped; those without one are passed over.
        max_norm: the largest norm allowed.
        norm_type: the order; `math.inf` for the largest absolute value.
        error_if_nonfinite: raise if the norm is NaN or infinite, before anything is changed.
        foreach: taken for compatibility, without effect.

    Returns:
        The norm before clipping, a 0-d Tensor.

    Raises:
        RuntimeError: the norm is not finite, if that was asked for.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> w = nn.Parameter([1.0, 1.0])
    >>> w.grad = cf.tensor([3.0, 4.0])
    >>> nn.utils.clip_grad_norm_([w], 1.0).item()
    5.0
    >>> [round(g, 4) for g in w.grad.tolist()]
    [0.6, 0.8]
    """
    arrays = _grad_arrays("clip_grad_norm_", parameters)
    if not arrays:
        return _result(arrays, 0.0)
    total = _total(arrays, norm_type)
    if error_if_nonfinite:
        _check_finite("clip_grad_norm_", total, norm_type)
    _scale(arrays, max_norm, total)
    return _result(arrays, total)


def _scale(arrays: list[Any], max_norm: float, total: Any) -> None:
    fused = _fused(arrays)
    if fused is not None:
        if hasattr(total, "shape"):
            fused.scale(arrays, float(max_norm), total)
        else:
            fused.scale(arrays, float(max_norm) / (total + 1e-6))
        for x in arrays:
            versions.written(x, "clip_grad_norm_")
        return
    factor = float(max_norm) / (total + 1e-6)
    if not factor >= 1.0:  # a NaN norm makes the gradients NaN, as it does in PyTorch
        for x in arrays:
            np.multiply(x, x.dtype.type(factor), x)
            versions.written(x, "clip_grad_norm_")


@np.errstate(all="ignore")
def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor | float, foreach: bool | None = None
) -> None:
    """As `clip_grad_norm_`, with a norm that is known already: from `get_total_norm`, say, over several processes.

    Args:
        parameters: the tensors whose `.grad` is scaled.
        max_norm: the largest norm allowed.
        total_norm: the norm of all gradients, a 0-d Tensor or a number.
        foreach: taken for compatibility, without effect.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> w = nn.Parameter([1.0, 1.0])
    >>> w.grad = cf.tensor([3.0, 4.0])
    >>> nn.utils.clip_grads_with_norm_([w], 1.0, total_norm=10.0)
    >>> w.grad
    tensor([0.3000, 0.4000])
    """
    arrays = _grad_arrays("clip_grads_with_norm_", parameters)
    beside = isinstance(total_norm, Tensor) and arrays and _fused([*arrays, total_norm.array]) is not None
    known = total_norm.array.astype(np.float64).reshape(1) if beside else float(total_norm)  # type: ignore[union-attr]
    _scale(arrays, max_norm, known)


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp every element of the gradients, in place, to [-clip_value, clip_value].

    Args:
        parameters: the tensors whose `.grad` is clipped.
        clip_value: the largest absolute value allowed.
        foreach: taken for compatibility, without effect.

    Raises:
        TypeError: the parameters are no Tensors.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> w = nn.Parameter([1.0, 1.0])
    >>> w.grad = cf.tensor([3.0, -0.5])
    >>> nn.utils.clip_grad_value_([w], 1.0)
    >>> w.grad
    tensor([ 1.0000, -0.5000])
    """
    limit = float(clip_value)
    arrays = _grad_arrays("clip_grad_value_", parameters)
    fused = _fused(arrays)
    if fused is not None:
        fused.clamp(arrays, limit)
    for x in arrays:
        if fused is None:
            np.clip(x, x.dtype.type(-limit), x.dtype.type(limit), out=x)
        versions.written(x, "clip_grad_value_")
