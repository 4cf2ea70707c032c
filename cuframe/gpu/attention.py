"""Scaled dot-product attention in tiles: `kernels/attention.cu`.

Offers what `cuframe.cpu.attention` offers, and takes 16-bit floats and heads that share their keys as they are.
"""

from __future__ import annotations

from math import floor, prod
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cpu.attention import Dropout, dropout_blocks
from cuframe.cpu.attention import dropout_mask as host_mask
from cuframe.cuda.launch import Kernel

__all__ = ["Dropout", "backward", "dropout_blocks", "dropout_mask", "forward"]

_WIDTHS = (64, 128, 256)
_THREADS = 256
_PLAIN: dict[str, Any] = {"types": {"T": ("float32", "float64")}, "constants": {"D": _WIDTHS}}
_FLOATS = ("float32", "float64", "float16", "bfloat16")


def _strides(*names: str) -> tuple[str, ...]:
    return tuple(f"int64 {n}_{axis}" for n in names for axis in ("batch", "head", "row"))


_SCALARS = ("int32 heads", "int32 group", "int32 L", "int32 S", "int32 E", "int32 EV", "int64 mask_batch",
            "int64 mask_head", "int64 mask_row", "int64 mask_column", "bool causal", "double scale", "uint64 seed",
            "uint64 offset", "uint64 limit", "double inverse")
_INPUTS = ("strided const T* q", "strided const T* k", "strided const T* v")
_MASKS = ("strided const bool* keep?", "strided const T* bias?")
_FORWARD = Kernel("attention.cu", "attention_forward", (
    *_INPUTS, *_MASKS, "strided T* out", "T* lse", *_strides("q", "k", "v", "out"), *_SCALARS), **_PLAIN)
_DELTA = Kernel("attention.cu", "attention_delta", (
    "strided const T* g", "strided const T* out", "acc_t<T>* delta[rows]", *_strides("g", "out"), "int64 rows",
    "int32 heads", "int32 L", "int32 EV"), types={"T": _FLOATS})
_BACKWARD = Kernel("attention.cu", "attention_backward", (
    *_INPUTS, "strided const T* g", *_MASKS, "const T* lse", "const T* delta", "strided T* grad", "strided T* grad_v?",
    *_strides("q", "k", "v", "g", "grad", "gv"), *_SCALARS),
    types=_PLAIN["types"], constants={"D": _WIDTHS, "KEYS": (False, True)})
_BIAS_BACKWARD = Kernel("attention.cu", "attention_bias_backward", (
    *_INPUTS, "strided const T* g", "strided const T* bias", "const T* lse", "const T* delta",
    "T* grad[bias_batch, bias_heads, L, S]", *_strides("q", "k", "v", "g"), "int32 batch", "int32 bias_batch",
    "int32 bias_heads", *_SCALARS), **_PLAIN)


def dropout_mask(drop: Dropout, first: int, rows: int, keys: int) -> np.ndarray:
    """True where kept: (rows, keys) on the host, for `rows` rows from row number `first` of all heads together."""
    return host_mask(drop, first, rows, keys)


def forward(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Dropout | None
) -> tuple[Any, Any]:
    """softmax(scale q k^T + mask) v; rows without any key give zeros.

    Args:
        q: [..., H, L, E]; k: [..., Hk, S, E]; v: [..., Hk, S, D]; one float dtype and the same leading dimensions;
            H is a multiple of Hk.
        mask: broadcasts to [..., H, L, S]; bool (True takes part) or numbers to add.
        causal: row l sees keys up to l.

    Returns:
        out [..., H, L, D], in the memory order of q, and lse [..., H, L] in float32 or float64, log2 of the
        sum of exponentials.
    """
    shape = q.shape[:-1]
    q, k, v = _four(q), _four(k), _four(v)
    mask = _four_mask(mask, shape)
    out = _like(q, v.shape[-1])
    lse = np.empty_like(q, shape=q.shape[:-1], dtype=_accumulator(q))
    if out.size:
        problem = _Problem(q, k, v, mask, causal, scale, drop)
        m, _, shared = _tiles(q.dtype, problem.width, 1)
        _FORWARD(-(-q.shape[2] // m) * q.shape[0] * q.shape[1], _THREADS, q, k, v, *problem.masks, out, lse,
                 *_steps(q, k, v, out), *problem.scalars, shared=shared, D=problem.width)
    return out.reshape((*shape, v.shape[-1])), lse.reshape(shape)


def backward(
    g: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Dropout | None, out: Any, lse: Any,
    needs_mask: bool,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """The gradients of q, k, v, and of a mask of numbers if it is wanted, from what `forward` was given and gave."""
    shapes, given = (q.shape, k.shape, v.shape), mask
    shape = q.shape[:-1]
    g, q, k, v, out = (_four(a) for a in (g, q, k, v, out))
    mask = _four_mask(mask, shape)
    batch, heads, length, _ = q.shape
    gq, gk, gv = _like(q, q.shape[-1]), _like(k, k.shape[-1]), _like(v, v.shape[-1])
    gmask = None
    if needs_mask:
        gmask = np.empty_like(q, shape=(*_served(mask, batch, heads), length, k.shape[2]))
    if q.shape[2] and out.size and k.shape[2]:
        delta = np.empty_like(lse, shape=lse.shape)
        rows = batch * heads * length
        _DELTA(-(-rows // (_THREADS // 32)), _THREADS, g, out, delta, *_steps(g, out), rows, heads, length, v.shape[-1])
        problem = _Problem(q, k, v, mask, causal, scale, drop)
        m, _, shared = _tiles(q.dtype, problem.width, 2)
        for keys, x, gx, second in ((False, q, gq, None), (True, k, gk, gv)):
            _BACKWARD(-(-x.shape[2] // m) * x.shape[0] * x.shape[1], _THREADS, q, k, v, g, *problem.masks, lse, delta,
                      gx, second, *_steps(q, k, v, g, gx, gx if second is None else second), *problem.scalars,
                      shared=shared, D=problem.width, KEYS=keys)
        if gmask is not None:
            m, n, shared = _tiles(q.dtype, problem.width, 1)
            blocks = -(-length // m) * -(-k.shape[2] // n) * gmask.shape[0] * gmask.shape[1]
            _BIAS_BACKWARD(blocks, _THREADS, q, k, v, g, mask, lse, delta, gmask, *_steps(q, k, v, g), batch,
                           *gmask.shape[:2], *problem.scalars, shared=shared, D=problem.width)
    else:
        for a in (gq, gk, gv, gmask):
            if a is not None:
                a.fill(0)
    gq, gk, gv = (a.reshape(s) for a, s in zip((gq, gk, gv), shapes))
    return gq, gk, gv, None if gmask is None else _narrowed(gmask, given.shape, shape)


class _Problem:
    """What is the same for all kernels of a call."""

    def __init__(self, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Dropout | None) -> None:
        _, heads, length, wide = q.shape
        keep = 1.0 if drop is None else 1 - drop.p
        seed, offset = (0, 0) if drop is None else (drop.seed, drop.offset)
        steps = (0, 0, 0, 0) if mask is None else tuple(
            0 if size == 1 else s // mask.itemsize for size, s in zip(mask.shape, mask.strides))
        self.width = next((d for d in _WIDTHS if max(wide, v.shape[-1]) <= d), 0)
        if not self.width:
            raise ValueError(f"scaled_dot_product_attention: heads must be at most {_WIDTHS[-1]} wide on "
                             f"{backend_of(q).name!r}, got query {tuple(q.shape)} and value {tuple(v.shape)}")
        binary = mask is not None and mask.dtype == bool
        self.masks = (mask, None) if binary else (None, mask)
        self.scalars = (heads, heads // k.shape[1], length, k.shape[2], wide, v.shape[-1], *steps, causal, scale, seed,
                        offset, floor(keep * 2.0**32), 1 / keep)


def _tiles(dtype: Any, width: int, resident: int) -> tuple[int, int, int]:
    """Rows of resident and of passing tiles, and bytes of shared memory: struct Tiles of attention/tiles.cuh."""
    size = dtype.itemsize
    pad = 16 // size
    m = min(64, max(16, 32768 // resident // (width * size)))
    n = 64 if width * size <= 256 and resident == 1 else 32
    passing = min(width, 512 // size)
    return m, n, size * (resident * m * (width + pad) + n * (passing + pad) + m * (n + pad))


def _accumulator(x: Any) -> Any:
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _four(x: Any) -> Any:
    """[batch, heads, rows, width], each row without gaps."""
    x = x.reshape((-1, *x.shape[-3:])) if x.ndim > 4 else x[(None,) * (4 - x.ndim)]
    return x if x.shape[-1] <= 1 or x.strides[-1] == x.itemsize else x.copy()


def _four_mask(mask: Any, shape: tuple[int, ...]) -> Any:
    """A mask with four dimensions, of size 1 where it is broadcast; `shape` is that of q without its width."""
    if mask is None:
        return None
    if mask.ndim <= 4 and len(shape) <= 3:
        return mask[(None,) * (4 - mask.ndim)]
    lead = (*(1,) * (len(shape) + 1 - mask.ndim), *mask.shape[:-3])
    if prod(lead) > 1 and lead != shape[:-2]:
        lead = shape[:-2]
    own = mask.reshape((*(1,) * (len(shape) + 1 - mask.ndim), *mask.shape))
    return np.broadcast_to(own, (*lead, *own.shape[-3:])).reshape((-1, *own.shape[-3:]))


def _served(mask: Any, batch: int, heads: int) -> tuple[int, int]:
    """How many different masks there are along batch and heads."""
    return (1 if mask.shape[0] == 1 else batch), (1 if mask.shape[1] == 1 else heads)


def _narrowed(gmask: Any, wanted: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """The gradient of a mask [batch or 1, heads or 1, L, S] summed to the mask's shape."""
    lead = shape[:-2]
    full = gmask.reshape((*(lead if gmask.shape[0] > 1 else (1,) * len(lead)), *gmask.shape[1:]))
    target = (*(1,) * (full.ndim - len(wanted)), *wanted)
    axes = tuple(i for i, (size, to) in enumerate(zip(full.shape, target)) if to == 1 and size > 1)
    return (full.sum(axis=axes, keepdims=True) if axes else full).reshape(wanted)


def _like(x: Any, width: int) -> Any:
    """An empty array [..., rows, width] that lies in memory as x does: rows of a head together, or heads of a row."""
    batch, heads, rows, _ = x.shape
    if heads > 1 and rows > 1 and x.strides[1] < x.strides[2]:
        return np.empty_like(x, shape=(batch, rows, heads, width), order="C").swapaxes(1, 2)
    return np.empty_like(x, shape=(batch, heads, rows, width), order="C")


def _steps(*arrays: Any) -> tuple[int, ...]:
    """Their strides in elements, along all dimensions but the last."""
    return tuple(s // a.itemsize for a in arrays for s in a.strides[:3])
