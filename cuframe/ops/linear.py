"""Affine maps, as `cuframe.nn.functional` offers them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .define import Op, need_tensor, record
from .einsum import einsum, same_kind
from .matmul import matmul, product

__all__ = ["bilinear", "linear"]


def _linear_vjp(g: Any, needs: tuple, x: Any, w: Any) -> tuple:
    gx = gw = gb = None
    # What no gradient needs was saved as its shape.
    shape = x if x.__class__ is tuple else tuple(x.shape)
    g2 = g.reshape((prod(shape[:-1]), g.shape[-1]))
    if needs[0] is not None:
        gx = product(g2, w).reshape(shape)
    if needs[1] is not None:
        gw = product(g2.T, x.reshape((g2.shape[0], shape[-1])))
    if len(needs) > 2 and needs[2] is not None:
        # BLAS adds up rows in less than half the time of a reduction
        gb = product(np.ones_like(g2, shape=(1, g2.shape[0])), g2).reshape(g2.shape[1:])
    return gx, gw, gb


_LINEAR = Op("linear", _linear_vjp, (0, 1))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The affine map `input @ weight.T + bias` over the last dimension, as one node of the graph.

    Args:
        input: (..., in_features).
        weight: (out_features, in_features), of the same dtype; or (in_features,), and the result has no last dimension.
        bias: (out_features,), or () with a 1-D weight.

    Returns:
        (..., out_features). The leading dimensions are one dimension of a single matrix product; float16 and bfloat16
        are summed in float32. Backward keeps `input` and `weight`, each only where the other needs a gradient.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.linear(cf.ones(2, 3), cf.ones(4, 3), cf.arange(4.0))
    tensor([[3., 4., 5., 6.],
            [3., 4., 5., 6.]])
    """
    need_tensor("linear", "input", input)
    need_tensor("linear", "weight", weight)
    x, w = input.array, weight.array
    features = x.shape[-1] if x.ndim else None
    if w.ndim not in (1, 2) or features is None or w.shape[-1] != features:
        expected = f"(out_features, {'in_features' if features is None else features})"
        if features is None:
            raise RuntimeError("linear: input must have at least 1 dimension, got shape ()")
        raise RuntimeError(f"linear: weight must be {expected}, got {tuple(w.shape)}")
    b = None
    if bias is not None:
        need_tensor("linear", "bias", bias)
        b = bias.array
        if b.shape != w.shape[:-1]:
            raise RuntimeError(f"linear: bias must be {tuple(w.shape[:-1])}, got {tuple(b.shape)}")
    if w.dtype != x.dtype or w.__class__ is not x.__class__ or (b is not None and b.dtype != x.dtype):
        operands = (("input", input), ("weight", weight), ("bias", bias))
        same_kind("linear", *operands[: 2 if bias is None else 3])
    if w.ndim == 1:
        out = matmul(input, weight)
        return out if bias is None else out + bias
    x2 = x.reshape((prod(x.shape[:-1]), features))
    if b is None:
        r = product(x2, w.T)
    elif x.dtype.itemsize == 2 or x2.size + w.size > 8192:
        r = backend_of(x).matmul_add(x2, w.T, b)
    else:
        r = product(x2, w.T)
        r += b
    saved = (x if weight.node is not None else x.shape, w if input.node is not None else w.shape)
    inputs = (input, weight) if bias is None else (input, weight, bias)
    return record(r.reshape(x.shape[:-1] + w.shape[:1]), _LINEAR, inputs, saved)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A bilinear form for each output feature: `out[..., o] = input1[..., i] weight[o, i, j] input2[..., j] + bias[o]`.

    Args:
        input1: (..., in1_features).
        input2: (..., in2_features), with the same leading dimensions.
        weight: (out_features, in1_features, in2_features).
        bias: (out_features,).

    Returns:
        (..., out_features).

    Raises:
        RuntimeError: shapes or dtypes do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.bilinear(cf.ones(2), cf.ones(3), cf.ones(1, 2, 3))
    tensor([6.])
    """
    input1, input2, weight = same_kind("bilinear", ("input1", input1), ("input2", input2), ("weight", weight))
    s1, s2, w = input1.array.shape, input2.array.shape, weight.array.shape
    if not s1 or not s2 or s1[:-1] != s2[:-1]:
        raise RuntimeError(f"bilinear: input1 and input2 must agree in leading dimensions, got {s1} and {s2}")
    if len(w) != 3 or w[1:] != (s1[-1], s2[-1]):
        raise RuntimeError(f"bilinear: weight must be (out_features, {s1[-1]}, {s2[-1]}), got {tuple(w)}")
    out = einsum("...i,oij,...j->...o", input1, weight, input2)
    if bias is None:
        return out
    need_tensor("bilinear", "bias", bias)
    if bias.array.shape != w[:1]:
        raise RuntimeError(f"bilinear: bias must be {tuple(w[:1])}, got {tuple(bias.array.shape)}")
    return out + bias
