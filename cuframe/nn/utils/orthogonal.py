"""Orthogonal matrices as functions of unconstrained ones: what `parametrizations.orthogonal` computes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...autograd.graph import Op
from ...backend import backend_of
from ...ops.create import eye
from ...ops.define import cast
from ...ops.join import cat
from ...ops.random import randn
from ...tensor import Tensor, record
from ..module import Module

__all__ = ["MAPS", "Orthogonal"]


def _solve_arrays(a: Any, b: Any) -> Any:
    return backend_of(a).xp.linalg.solve(a, b)


def _solve_vjp(g: Any, needs: tuple, a: Any, x: Any) -> tuple:
    down = (_solve if isinstance(g, Tensor) else _solve_arrays)(a.swapaxes(-1, -2), g)
    return -np.matmul(down, x.swapaxes(-1, -2)), down


_SOLVE = Op("linalg_solve", _solve_vjp, (0, "out"))


def _solve(a: Tensor, b: Tensor) -> Tensor:
    """The X of A X = B, for square matrices A (..., n, n) and B (..., n, k)."""
    x = _solve_arrays(a.array, b.array)
    return record(x, _SOLVE, (a, b), (a.array, x))


def _identity(like: Any, n: int) -> Any:
    return eye(n, dtype=like.dtype, device=like.device)


def _matrix_exp(a: Any) -> Any:
    """The matrix exponential by its series, of A / 2^s with a norm below 1/2, squared s times."""
    norm = float(abs(a.array).sum(axis=-1).max()) if a.array.size else 0.0
    s = max(0, math.ceil(math.log2(2 * norm))) if norm else 0
    a = a * 0.5**s
    one = _identity(a, a.shape[-1])
    e = one
    for k in range(15, 0, -1):
        e = one + a.matmul(e) / k
    for _ in range(s):
        e = e.matmul(e)
    return e


def _cayley(a: Any) -> Any:
    """(I - A/2)^-1 (I + A/2)"""
    one = _identity(a, a.shape[-1])
    return _solve(one - a / 2, one + a / 2)


def _skew(x: Any) -> Any:
    """The skew-symmetric matrix (n, n) of the lower triangle of (n, k)."""
    n, k = x.shape[-2:]
    x = x.tril()
    if n != k:
        x = cat([x, x.new_zeros((*x.shape[:-2], n, n - k))], dim=-1)
    return x - x.transpose(-1, -2)


def _reflections(x: Any) -> Any:
    """The first k columns of the product of the k reflections whose vectors stand below the diagonal of (n, k).

    Schreiber and Van Loan (1989): H_1 ... H_k = I - V U^-1 V^T, U the upper triangle of V^T V with half its diagonal.
    The diagonal of x holds the signs of the columns and takes no gradient.
    """
    n, k = x.shape[-2:]
    tall = _identity(x, n)[:, :k]
    v = x.tril(-1) + tall
    vt = v.transpose(-1, -2)
    products = vt.matmul(v)
    upper = products.triu(1) + products * (_identity(x, k) / 2)
    q = tall - v.matmul(_solve(upper, v[..., :k, :].transpose(-1, -2)))
    return q * Tensor(np.sign(x.detach().diagonal(0, -2, -1).array)[..., None, :])


MAPS = {
    "matrix_exp": lambda x: _matrix_exp(_skew(x))[..., : x.shape[-1]],
    "cayley": lambda x: _cayley(_skew(x))[..., : x.shape[-1]],
    "householder": _reflections,
}


def _is_orthogonal(q: Any) -> bool:
    gram = np.matmul(q.swapaxes(-1, -2), q)
    n, k = q.shape[-2:]
    return bool(abs(gram - backend_of(q).xp.eye(k, dtype=q.dtype)).max(initial=0) <= 10 * n * np.finfo(q.dtype).eps)


def _orthogonalized(a: Any) -> Any:
    """The Q of A = Q R with a positive diagonal of R."""
    q, r = backend_of(a).xp.linalg.qr(a)
    signs = np.sign(r.diagonal(axis1=-2, axis2=-1))
    return q * np.where(signs == 0, signs + 1, signs)[..., None, :]


class Orthogonal(Module):
    """Q = base @ map(original), of a matrix (n, k) or a batch of them; for n < k the rows are orthonormal instead."""

    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.shape = tuple(weight.shape)
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, original: Any) -> Any:
        """The orthogonal matrix."""
        dtype = original.dtype
        x = cast(original, np.dtype(np.float32)) if dtype.itemsize == 2 else original
        wide = x.shape[-2] < x.shape[-1]
        q: Any = MAPS[self.orthogonal_map](x.transpose(-1, -2) if wide else x)
        if self.use_trivialization:
            q = cast(self.base, q.dtype).matmul(q)  # type: ignore[arg-type, attr-defined]
        return cast(q.transpose(-1, -2) if wide else q, dtype)

    def right_inverse(self, value: Any) -> Tensor:
        """The original of a matrix, which is made orthogonal first if it is not.

        Raises:
            ValueError: it has another shape.
            NotImplementedError: without trivialization, for another map than householder.
        """
        if tuple(value.shape) != self.shape:
            raise ValueError(f"orthogonal: the matrix must have shape {self.shape}, got {tuple(value.shape)}")
        dtype = value.dtype
        q = value.detach().array
        if dtype.itemsize == 2:
            q = q.astype(np.float32)
        wide = q.shape[-2] < q.shape[-1]
        if wide:
            q = q.swapaxes(-1, -2)
        n, k = q.shape[-2:]
        xp = backend_of(q).xp
        if self.use_trivialization:
            if n != k:
                more = randn(*q.shape[:-1], n - k, dtype=q.dtype, device=value.device).array
                q = xp.concatenate([q, more], axis=-1)
            q = q.copy() if n == k and _is_orthogonal(q) else _orthogonalized(q)
            self.base = Tensor(q.astype(dtype))
            # Reflections give the identity for zeros with a diagonal of -1.
            return Tensor(xp.broadcast_to(-xp.eye(*self.shape[-2:], dtype=dtype), self.shape).copy())
        if self.orthogonal_map != "householder":
            raise NotImplementedError(
                f"orthogonal: with use_trivialization=False a matrix cannot be assigned through {self.orthogonal_map}, "
                "only through 'householder'"
            )
        raw, tau = xp.linalg.qr(q, mode="raw")
        x = raw.swapaxes(-1, -2).copy()
        places = xp.arange(k)
        signs = np.sign(x[..., places, places])
        x[..., places, places] = np.where(tau == 0, -signs, signs)
        return Tensor((x.swapaxes(-1, -2) if wide else x).astype(dtype))
