"""Matrix products. Every gradient of a product is a product again, so backward is GEMMs and nothing else."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..autograd.graph import Node, mode, next_sequence, paused, watched
from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import Tensor, anomaly_check
from .define import Op, as_result, fit, need_tensor, numpy_name, record
from .einsum import einsum, inner, same_kind, tensordot

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "dot", "einsum", "ger", "inner", "inverse", "kron",
    "matmul", "matrix_power", "mm", "mv", "outer", "tensordot", "vdot",
]  # fmt: skip


def need_dims(name: str, argument: str, t: Tensor, ndim: int) -> None:
    """Raise RuntimeError unless `t` has `ndim` dimensions."""
    if t.array.ndim != ndim:
        raise RuntimeError(f"{name}: {argument} must have {ndim} dimension(s), got shape {tuple(t.array.shape)}")


def product(a: Any, b: Any) -> Any:
    """`a @ b` for arrays and, recorded, for Tensors; 16-bit floats are multiplied and summed in float32."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return matmul(a, b)
    dtype = a.dtype
    if dtype.itemsize == 2 and is_floating(dtype):
        return as_result(backend_of(a).matmul(a, b), a)
    if a.ndim > 2 and b.ndim <= 2:  # one large GEMM instead of one for each batch entry
        rows = prod(a.shape[:-1])
        return product(a.reshape(rows, a.shape[-1]), b).reshape(a.shape[:-1] + b.shape[1:])
    if a.ndim >= 2 and b.ndim >= 2 and a.size + b.size > 8192:
        return backend_of(a).matmul(a, b)
    return np.matmul(a, b)


def _fitted(a: Any, b: Any, shape: tuple) -> Any:
    """`a @ b`, summed over the batch dimensions that `shape` had broadcast; 16-bit floats are rounded at the end."""
    dtype = a.dtype
    summed = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]) != tuple(shape)
    if summed and dtype.itemsize == 2 and is_floating(dtype):
        return fit(product(a.astype(np.float32), b.astype(np.float32)), shape).astype(dtype)
    return fit(product(a, b), shape)


def _matmul_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    # What a gradient does not need came as a shape.
    x_shape = x if x.__class__ is tuple else tuple(x.shape)
    y_shape = y if y.__class__ is tuple else tuple(y.shape)
    gx = gy = None
    if len(x_shape) == 2 and len(y_shape) == 2:
        if needs[0] is not None:
            gx = product(g, y.T)
        if needs[1] is not None:
            gy = product(x.T, g)
        return gx, gy
    if len(x_shape) == 1 and len(y_shape) == 1:
        return (None if needs[0] is None else g * y), (None if needs[1] is None else g * x)
    if len(y_shape) <= 2 and len(x_shape) > 1:
        if needs[0] is not None:
            gx = product(g, y.T) if len(y_shape) == 2 else g.reshape((*g.shape, 1)) * y
        if needs[1] is not None:
            rows = prod(x_shape[:-1])
            gy = product(x.reshape((rows, x_shape[-1])).T, g.reshape((rows, *y_shape[1:])))
        return gx, gy
    if len(x_shape) == 1:
        if needs[0] is not None:
            gx = product(y, g.reshape((*g.shape, 1))).reshape((prod(y_shape[:-2]), x_shape[0])).sum(axis=0)
        if needs[1] is not None:
            gy = x.reshape((x_shape[0], 1)) * g.reshape((*g.shape[:-1], 1, g.shape[-1]))
        return gx, gy
    if needs[0] is not None:
        gx = _fitted(g, y.swapaxes(-1, -2), x_shape)
    if needs[1] is not None:
        gy = _fitted(x.swapaxes(-1, -2), g, y_shape)
    return gx, gy


_MATMUL = Op("matmul", _matmul_vjp, (0, 1))


def _check_matmul(x: Any, y: Any) -> None:
    if not x.ndim or not y.ndim:
        raise RuntimeError(f"matmul: both must have at least 1 dimension, got shapes {x.shape} and {y.shape}")
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else -1]:
        where = -2 if y.ndim > 1 else -1
        raise RuntimeError(
            f"matmul: shapes {tuple(x.shape)} and {tuple(y.shape)}: the last dimension of the first, {x.shape[-1]}, "
            f"must equal dimension {where} of the second, {y.shape[where]}"
        )
    if x.ndim < 3 or y.ndim < 3:
        return
    try:
        np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise RuntimeError(
            f"matmul: shapes {tuple(x.shape)} and {tuple(y.shape)}: the batch dimensions {tuple(x.shape[:-2])} and "
            f"{tuple(y.shape[:-2])} cannot be broadcast together"
        ) from None


@numpy_name(np.matmul)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product of two tensors, batched over leading dimensions.

    `out[..., i, j] = sum_k input[..., i, k] other[..., k, j]`. A 1-D first operand counts as a row, a 1-D second one
    as a column, and that dimension is dropped from the result; leading dimensions are broadcast.

    Args:
        input: (..., M, K) or (K,).
        other: (..., K, N) or (K,), of the same dtype.

    Returns:
        (..., M, N), without M or N where an operand is 1-D; of the operands' dtype. float16 and bfloat16 are summed
        in float32.

    Raises:
        RuntimeError: the sizes, dtypes or devices do not agree.

    >>> import cuframe as cf
    >>> cf.matmul(cf.tensor([[1.0, 2.0], [3.0, 4.0]]), cf.tensor([1.0, 1.0]))
    tensor([3., 7.])
    """
    if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
        input, other = same_kind("matmul", ("input", input), ("other", other))
    x, y = input.array, other.array
    if x.dtype != y.dtype or x.__class__ is not y.__class__:
        same_kind("matmul", ("input", input), ("other", other))
    plain = x.ndim == 2 and y.ndim == 2 and x.dtype.itemsize > 2
    if not plain or x.shape[1] != y.shape[0]:
        _check_matmul(x, y)
    r = np.matmul(x, y) if plain else as_result(product(x, y), x)
    a, b = input.node, other.node
    if (a is None and b is None) or (paused and not mode.grad):
        return Tensor(r)
    node = Node(next_sequence(), _MATMUL, (a, b), (x if b is not None else x.shape, y if a is not None else y.shape))
    if watched:
        anomaly_check(node, r)
    return Tensor(r, node)


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices, (M, K) and (K, N) -> (M, N); no broadcasting.

    Args:
        input: (M, K).
        mat2: (K, N), of the dtype of input.

    Returns:
        (M, N).

    >>> import cuframe as cf
    >>> cf.mm(cf.ones(2, 3), cf.ones(3, 1)).shape
    cuframe.Size([2, 1])
    """
    input, mat2 = same_kind("mm", ("input", input), ("mat2", mat2))
    need_dims("mm", "input", input, 2)
    need_dims("mm", "mat2", mat2, 2)
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices, (B, M, K) and (B, K, N) -> (B, M, N); no broadcasting.

    Args:
        input: (B, M, K).
        mat2: (B, K, N), of the dtype of input.

    Returns:
        (B, M, N).

    >>> import cuframe as cf
    >>> cf.bmm(cf.ones(4, 2, 3), cf.ones(4, 3, 1)).shape
    cuframe.Size([4, 2, 1])
    """
    input, mat2 = same_kind("bmm", ("input", input), ("mat2", mat2))
    need_dims("bmm", "input", input, 3)
    need_dims("bmm", "mat2", mat2, 3)
    if input.array.shape[0] != mat2.array.shape[0]:
        raise RuntimeError(
            f"bmm: mat2 must have the batch size of input, {input.array.shape[0]}, got {mat2.array.shape[0]}"
        )
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector, (M, K) and (K,) -> (M,).

    Args:
        input: (M, K).
        vec: (K,), of the dtype of input.

    Returns:
        (M,).

    >>> import cuframe as cf
    >>> cf.mv(cf.ones(2, 3), cf.ones(3))
    tensor([3., 3.])
    """
    input, vec = same_kind("mv", ("input", input), ("vec", vec))
    need_dims("mv", "input", input, 2)
    need_dims("mv", "vec", vec, 1)
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The dot product of two vectors of one length, as a 0-d tensor.

    Args:
        input, tensor: (K,) each, of one dtype.

    Returns:
        A 0-d tensor.

    >>> import cuframe as cf
    >>> cf.dot(cf.tensor([1.0, 2.0]), cf.tensor([3.0, 4.0]))
    tensor(11.)
    """
    input, tensor = same_kind("dot", ("input", input), ("tensor", tensor))
    need_dims("dot", "input", input, 1)
    need_dims("dot", "tensor", tensor, 1)
    if input.array.shape != tensor.array.shape:
        raise RuntimeError(
            f"dot: input and tensor must be of one length, got {input.array.shape[0]} and {tensor.array.shape[0]}"
        )
    return matmul(input, tensor)


@numpy_name(np.vdot)
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The dot product of two real vectors; for them the same as `dot`.

    Args:
        input, other: (K,) each, of one dtype.

    Returns:
        A 0-d tensor.

    >>> import cuframe as cf
    >>> cf.vdot(cf.tensor([1, 2]), cf.tensor([3, 4]))
    tensor(11)
    """
    return dot(input, other)


def _numpy_dot(a: Any, b: Any) -> Tensor:
    """`np.dot`: unlike matmul it pairs the last dimension of `a` with dimension -2 of `b` without batching."""
    a, b = same_kind("dot", ("a", a), ("b", b))
    if not a.array.ndim or not b.array.ndim:
        return a * b
    if a.array.ndim <= 2 and b.array.ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, ([-1], [-2 if b.array.ndim > 1 else -1]))


numpy_name(np.dot)(_numpy_dot)


def _outer_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (None if needs[0] is None else product(g, y)), (None if needs[1] is None else product(g.T, x))


_OUTER = Op("outer", _outer_vjp, (0, 1))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The outer product of two vectors: `out[i, j] = input[i] vec2[j]`.

    >>> import cuframe as cf
    >>> cf.outer(cf.tensor([1.0, 2.0]), cf.tensor([3.0, 4.0]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    input, vec2 = same_kind("outer", ("input", input), ("vec2", vec2))
    need_dims("outer", "input", input, 1)
    need_dims("outer", "vec2", vec2, 1)
    x, y = input.array, vec2.array
    return record(x.reshape(-1, 1) * y, _OUTER, (input, vec2), (x, y))


@numpy_name(np.outer)
def _numpy_outer(a: Any, b: Any) -> Tensor:
    """`np.outer` flattens its arguments."""
    a, b = same_kind("outer", ("a", a), ("b", b))
    return outer(a.reshape(-1), b.reshape(-1))


def ger(input: Tensor, vec2: Tensor) -> Tensor:
    """Alias of `outer`.

    >>> import cuframe as cf
    >>> cf.ger(cf.tensor([1, 2]), cf.tensor([3, 4, 5]))
    tensor([[ 3,  4,  5],
            [ 6,  8, 10]])
    """
    return outer(input, vec2)


def _affine_vjp(g: Any, needs: tuple, c: tuple, a: Any, b: Any, beta: Any, alpha: Any) -> tuple:
    gc = None if needs[0] is None else fit(g if beta == 1 else g * g.dtype.type(beta), c)
    if alpha != 1:
        g = g * g.dtype.type(alpha)
    return (gc, *_matmul_vjp(g, needs[1:], a, b))


def _affine(name: str, names: tuple, ndims: tuple, input: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Tensor:
    """`beta * input + alpha * (a @ b)` as one node; `input` is left out, NaN and all, where beta is 0."""
    input, a, b = same_kind(name, ("input", input), (names[0], a), (names[1], b))
    need_dims(name, names[0], a, ndims[0])
    need_dims(name, names[1], b, ndims[1])
    x, y, c = a.array, b.array, input.array
    if c.dtype.kind in "iub" and not (isinstance(beta, int) and isinstance(alpha, int)):
        raise RuntimeError(f"{name}: for integer tensors beta and alpha must be integers, got {beta} and {alpha}")
    if x.shape[-1] != y.shape[ndims[0] - 2] or x.shape[: ndims[0] - 2] != y.shape[: ndims[0] - 2]:
        raise RuntimeError(f"{name}: {names[0]} of shape {x.shape} cannot be multiplied with {names[1]} of {y.shape}")
    out_shape = x.shape[:-1] + y.shape[ndims[0] - 1 :]
    if (c.ndim, *c.shape) != (len(out_shape), *out_shape):
        try:
            fits = np.broadcast_shapes(c.shape, out_shape) == out_shape
        except ValueError:
            fits = False
        if not fits:
            raise RuntimeError(f"{name}: input must broadcast to {tuple(out_shape)}, got {tuple(c.shape)}")
    r = product(x, y)
    scalar = c.dtype.type
    if alpha != 1:
        r = r * scalar(alpha)
    if beta != 0:
        r = r + (c if beta == 1 else c * scalar(beta))
    saved = (c.shape, x if b.node is not None else x.shape, y if a.node is not None else y.shape, beta, alpha)
    return record(r, _AFFINE[name], (input, a, b), saved)


_AFFINE = {name: Op(name, _affine_vjp, (None, 1, 2, None, None)) for name in ("addmm", "addmv", "baddbmm")}


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * (mat1 @ mat2)` for matrices.

    Args:
        input: broadcastable to (M, N); not read where `beta` is 0.
        mat1: (M, K).
        mat2: (K, N).

    Returns:
        (M, N).

    >>> import cuframe as cf
    >>> cf.addmm(cf.ones(2), cf.ones(1, 3), cf.ones(3, 2), beta=2)
    tensor([[5., 5.]])
    """
    return _affine("addmm", ("mat1", "mat2"), (2, 2), input, mat1, mat2, beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * (mat @ vec)` for a matrix (M, K) and a vector (K,); `input` broadcasts to (M,).

    >>> import cuframe as cf
    >>> cf.addmv(cf.ones(2), cf.ones(2, 3), cf.ones(3))
    tensor([4., 4.])
    """
    return _affine("addmv", ("mat", "vec"), (2, 1), input, mat, vec, beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * (batch1 @ batch2)` for batches (B, M, K) and (B, K, N); `input` broadcasts to (B, M, N).

    >>> import cuframe as cf
    >>> cf.baddbmm(cf.ones(1), cf.ones(2, 1, 3), cf.ones(2, 3, 1)).reshape(2)
    tensor([4., 4.])
    """
    return _affine("baddbmm", ("batch1", "batch2"), (3, 3), input, batch1, batch2, beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * sum_b(batch1[b] @ batch2[b])`; `input` broadcasts to (M, N).

    The sum over the batch is part of one larger matrix product.

    >>> import cuframe as cf
    >>> cf.addbmm(cf.ones(1, 1), cf.ones(2, 1, 3), cf.ones(2, 3, 1))
    tensor([[7.]])
    """
    batch1, batch2 = same_kind("addbmm", ("batch1", batch1), ("batch2", batch2))
    need_dims("addbmm", "batch1", batch1, 3)
    need_dims("addbmm", "batch2", batch2, 3)
    (b, m, k), (b2, k2, n) = batch1.array.shape, batch2.array.shape
    if (b, k) != (b2, k2):
        raise RuntimeError(f"addbmm: batch1 of shape {(b, m, k)} cannot be multiplied with batch2 of {(b2, k2, n)}")
    rows = batch1.swapaxes(0, 1).reshape(m, b * k)
    return addmm(input, rows, batch2.reshape(b * k, n), beta=beta, alpha=alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * outer(vec1, vec2)`; `input` broadcasts to (M, N).

    >>> import cuframe as cf
    >>> cf.addr(cf.zeros(1), cf.ones(2), cf.ones(1))
    tensor([[1.],
            [1.]])
    """
    vec1, vec2 = same_kind("addr", ("vec1", vec1), ("vec2", vec2))
    need_dims("addr", "vec1", vec1, 1)
    need_dims("addr", "vec2", vec2, 1)
    column, row = vec1.reshape(-1, 1), vec2.reshape(1, -1)
    return addmm(input, column, row, beta=beta, alpha=alpha)


@numpy_name(np.kron)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: blocks `input[i, j, ...] * other`, for any number of dimensions.

    >>> import cuframe as cf
    >>> cf.kron(cf.tensor([1.0, 2.0]), cf.tensor([1.0, 10.0]))
    tensor([ 1., 10.,  2., 20.])
    """
    need_tensor("kron", "input", input)
    need_tensor("kron", "other", other)
    n = max(input.array.ndim, other.array.ndim)
    a = (1,) * (n - input.array.ndim) + input.array.shape
    b = (1,) * (n - other.array.ndim) + other.array.shape
    wide = input.reshape(tuple(s for size in a for s in (size, 1)))
    blocks = wide * other.reshape(tuple(s for size in b for s in (1, size)))
    return blocks.reshape(tuple(i * j for i, j in zip(a, b)))


def _inverse_vjp(g: Any, needs: tuple, out: Any) -> tuple:
    t = out.swapaxes(-1, -2)
    return (-product(product(t, g), t),)


_INVERSE = Op("inverse", _inverse_vjp, ("out",))


def _check_square(name: str, t: Tensor) -> None:
    need_tensor(name, "input", t)
    shape = t.array.shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise RuntimeError(f"{name}: input must be square in its last two dimensions, got {tuple(shape)}")


@numpy_name(np.linalg.inv)
def inverse(input: Tensor) -> Tensor:
    """The inverse of a square matrix, or of each matrix of a batch (..., N, N).

    Args:
        input: (..., N, N), floating point.

    Returns:
        (..., N, N).

    Raises:
        RuntimeError: not square, or singular.

    >>> import cuframe as cf
    >>> cf.inverse(cf.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    _check_square("inverse", input)
    x = input.array
    if not is_floating(x.dtype):
        raise TypeError(f"inverse: input must be floating point, got {x.dtype.name}")
    work = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    try:
        try:
            r = np.linalg.inv(work)
        except ImportError:  # CuPy asks cuSOLVER for one matrix, which need not be there, and cuBLAS for a batch
            r = np.linalg.inv(work[None])[0]
    except np.linalg.LinAlgError:
        raise RuntimeError(f"inverse: input of shape {tuple(x.shape)} holds a singular matrix") from None
    r = r.astype(x.dtype)
    return record(r, _INVERSE, (input,), (r,))


@numpy_name(np.linalg.matrix_power)
def matrix_power(input: Tensor, n: int) -> Tensor:
    """The n-th power of a square matrix, by repeated squaring; a negative power is one of the inverse.

    Args:
        input: (..., N, N); floating point for a negative n.
        n: an int.

    Returns:
        (..., N, N).

    >>> import cuframe as cf
    >>> cf.matrix_power(cf.tensor([[1.0, 1.0], [0.0, 1.0]]), 5)
    tensor([[1., 5.],
            [0., 1.]])
    """
    _check_square("matrix_power", input)
    if not isinstance(n, int):
        raise TypeError(f"matrix_power: n must be an int, got {type(n).__name__}")
    if n == 0:
        x = input.array
        return Tensor(np.zeros_like(x) + backend_of(x).asarray(np.eye(x.shape[-1], dtype=x.dtype), x))
    base = inverse(input) if n < 0 else input
    n = abs(n)
    result: Any = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        if n:
            base = matmul(base, base)
    return input.clone() if result is input else result
