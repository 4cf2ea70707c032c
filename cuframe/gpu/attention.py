"""Scaled dot-product attention in tiles: `kernels/attention_mma.cu` for 16-bit floats, else `kernels/attention.cu`.

Offers what `cuframe.cpu.attention` offers.  Arrays are read by their strides, as long as rows have no gaps, and heads
that share keys are not repeated.  GPUs before sm_80 compute 16-bit floats in float32.  Where `set_allow_tf32(True)` has
been said, tensor cores multiply float32 as well, for heads to 128 wide.
"""

from __future__ import annotations

from math import floor, prod
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cpu.attention import Dropout, dropout_blocks
from cuframe.cpu.attention import dropout_mask as host_mask
from cuframe.cuda.launch import Kernel, accumulator, launcher_of
from cuframe.cuda.precision import allow_tf32
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["Dropout", "backward", "dropout_blocks", "dropout_mask", "forward"]

_WIDTHS = (64, 128, 256)
_THREADS = 256
# before, 16-bit floats are computed in float32
_LEAST = {"float16": 80, "bfloat16": 80}
# keys that are worth a block of their own
_SPLIT = 256
_PLAIN: dict[str, Any] = {"types": {"T": ("float32", "float64")}, "constants": {"D": _WIDTHS}}


def _strides(*names: str) -> tuple[str, ...]:
    return tuple(f"int64 {n}_{axis}" for n in names for axis in ("batch", "head", "row"))


_SCALARS = ("int32 heads", "int32 group", "int32 L", "int32 S", "int32 E", "int32 EV", "int64 mask_batch",
            "int64 mask_head", "int64 mask_row", "int64 mask_column", "bool causal", "double scale", "uint64 seed",
            "uint64 offset", "uint64 limit", "double inverse")
_SPLITS = ("int64 out_split", "int64 lse_split", "int32 splits", "int32 span")
_INPUTS = ("strided const T* q", "strided const T* k", "strided const T* v")
_MASKS = ("strided const bool* keep?", "strided const T* bias?", "const int64* lengths?")
_FORWARD = Kernel("attention.cu", "attention_forward", (
    *_INPUTS, *_MASKS, "strided T* out", "T* lse", *_strides("q", "k", "v", "out"), *_SPLITS, *_SCALARS),
    **_PLAIN)
_JOIN = Kernel("attention.cu", "attention_join", (
    "const T* parts[splits, rows, EV]", "const acc_t<T>* part_lse[splits, rows]", "strided T* out",
    "acc_t<T>* lse[rows]", *_strides("out"), "int64 rows", "int32 splits", "int32 heads", "int32 L", "int32 EV"),
    types={"T": FLOATS}, least=_LEAST)
_LENGTHS = Kernel("attention.cu", "attention_lengths", (
    "strided const bool* keep", "int64* lengths", "int64 mask_batch", "int64 mask_column", "int32 S"))
_DELTA = Kernel("attention.cu", "attention_delta", (
    "strided const T* g", "strided const T* out", "acc_t<T>* delta[rows]", *_strides("g", "out"), "int64 rows",
    "int32 heads", "int32 L", "int32 EV"), types={"T": FLOATS}, least=_LEAST)
_BACKWARD = Kernel("attention.cu", "attention_backward", (
    *_INPUTS, "strided const T* g", *_MASKS, "const T* lse", "const T* delta", "strided T* grad", "strided T* grad_v?",
    *_strides("q", "k", "v", "g", "grad", "gv"), *_SCALARS),
    types=_PLAIN["types"], constants={"D": _WIDTHS, "KEYS": (False, True)})
_MMA_THREADS = 128
_MMA: dict[str, Any] = {"least": 80, "types": {"T": ("float16", "bfloat16")}, "threads": _MMA_THREADS}
_MMA_FORWARD = Kernel("attention_mma.cu", "attention_mma_forward", (
    *_INPUTS, *_MASKS, "strided T* out", "float* lse", *_strides("q", "k", "v", "out"), *_SPLITS, *_SCALARS),
    constants={"D": _WIDTHS}, **_MMA)
_MMA_ARGUMENTS = (
    *_INPUTS, "strided const T* g", *_MASKS, "const float* lse", "const float* delta", "strided T* grad",
    "strided T* grad_v", *_strides("q", "k", "v", "g", "grad", "gv"), *_SCALARS)
# gradients of queries, and of keys with values; both sums of the widest heads would not fit the registers
_PARTS = {64: (0, 1), 128: (0, 1), 256: (0, 2, 3)}
_MMA_BACKWARD = Kernel("attention_mma.cu", "attention_mma_backward", _MMA_ARGUMENTS,
                       constants={"D": (64, 128), "PART": _PARTS[64]}, **_MMA)
_MMA_WIDE_BACKWARD = Kernel("attention_mma.cu", "attention_mma_backward", _MMA_ARGUMENTS,
                            constants={"D": (256,), "PART": _PARTS[256]}, **_MMA)
_TF32: dict[str, Any] = {**_MMA, "types": {"T": ("float32",)}}
_TF32_FORWARD = Kernel("attention_mma.cu", "attention_mma_forward", (
    *_INPUTS, *_MASKS, "strided T* out", "float* lse", *_strides("q", "k", "v", "out"), *_SPLITS, *_SCALARS),
    constants={"D": (64, 128)}, **_TF32)
_TF32_BACKWARD = Kernel("attention_mma.cu", "attention_mma_backward", _MMA_ARGUMENTS,
                        constants={"D": (64, 128), "PART": _PARTS[64]}, **_TF32)
_BIAS_BACKWARD = Kernel("attention.cu", "attention_bias_backward", (
    *_INPUTS, "strided const T* g", "strided const T* bias", "const int64* lengths?", "const T* lse", "const T* delta",
    "T* grad[bias_batch, bias_heads, L, S]", *_strides("q", "k", "v", "g"), "int32 batch", "int32 bias_batch",
    "int32 bias_heads", *_SCALARS), **_PLAIN)


def dropout_mask(drop: Dropout, first: int, rows: int, keys: int) -> np.ndarray:
    """True where kept: (rows, keys) on the host, for `rows` rows from row number `first` of all heads together."""
    return host_mask(drop, first, rows, keys)


def forward(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Dropout | None, lengths: Any = None
) -> tuple[Any, Any]:
    """softmax(scale q k^T + mask) v; rows without any key give zeros.

    Args:
        q: [..., H, L, E]; k: [..., Hk, S, E]; v: [..., Hk, S, D]; one float dtype and the same leading dimensions;
            H is a multiple of Hk.
        mask: broadcasts to [..., H, L, S]; bool (True takes part) or numbers to add.
        causal: row l sees keys up to l.
        lengths: how many keys each sample has, integers with the dimensions in front of the heads; what lies behind
            is not read, and costs nothing.  A mask that hides keys of whole samples tells them as well.

    Returns:
        out [..., H, L, D], in the memory order of q, and lse [..., H, L] in float32 or float64, log2 of the
        sum of exponentials.
    """
    shape = q.shape[:-1]
    if _too_old(q):
        q32, k32, v32, mask32 = map(_widened, (q, k, v, mask))
        out, lse = forward(q32, k32, v32, mask32, causal, scale, drop, lengths)
        return out.astype(q.dtype), lse
    q, k, v = _four(q), _four(k), _four(v)
    mask = _four_mask(mask, shape)
    if q.shape[2] == 1 and k.shape[1] < q.shape[1] and mask is None and drop is None and not causal:
        # the heads that share keys are rows of one tile
        q = q.reshape((q.shape[0], k.shape[1], -1, q.shape[3]))
    out = _like(q, v.shape[-1])
    lse = np.empty_like(q, shape=q.shape[:-1], dtype=accumulator(q.dtype))
    if out.size:
        _forward(_Problem(q, k, v, mask, causal, scale, drop, lengths), q, k, v, out, lse)
    return out.reshape((*shape, v.shape[-1])), lse.reshape(shape)


def _forward(problem: _Problem, q: Any, k: Any, v: Any, out: Any, lse: Any) -> None:
    batch, heads, length, _ = q.shape
    if problem.tensor_cores:
        kernel, threads = _MMA_FORWARD if q.itemsize == 2 else _TF32_FORWARD, _MMA_THREADS
        m, _, shared = _mma_forward_tiles(problem.width, q.itemsize)
    else:
        kernel, threads, (m, _, shared) = _FORWARD, _THREADS, _tiles(q.dtype, problem.width, 1)
    blocks, keys = -(-length // m) * batch * heads, k.shape[2]
    splits, span = _splits(q, blocks, keys)
    into, into_lse = out, lse
    if splits > 1:
        into = np.empty_like(out, shape=(splits * batch, heads, length, out.shape[3]), order="C")
        into_lse = np.empty_like(lse, shape=(splits, *lse.shape))
    kernel(blocks * splits, threads, q, k, v, *problem.masks, into, into_lse, *_steps(q, k, v, into), out.size,
           lse.size, splits, span, *problem.scalars, shared=shared, D=problem.width)
    if splits > 1:
        _JOIN(-(-lse.size // (_THREADS // 32)), _THREADS, into, into_lse, out, lse, *_steps(out), lse.size, splits,
              heads, length, out.shape[3])


def _splits(x: Any, blocks: int, keys: int) -> tuple[int, int]:
    """How many blocks share the keys of a query, and how many keys each has, a multiple of every tile."""
    launcher = launcher_of(x)
    multiprocessors = launcher.facts(launcher.device(x))[1]
    wanted = min(-(-keys // _SPLIT), 2 * multiprocessors // blocks)
    if wanted <= 1:
        return 1, max(keys, 1)
    span = -(-keys // (wanted * 64)) * 64
    return -(-keys // span), span


def backward(
    g: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Dropout | None, out: Any, lse: Any,
    needs_mask: bool, lengths: Any = None,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """The gradients of q, k, v, and of a mask of numbers if it is wanted, from what `forward` was given and gave."""
    if _too_old(q):
        g32, q32, k32, v32, mask32, out32 = map(_widened, (g, q, k, v, mask, out))
        return backward(g32, q32, k32, v32, mask32, causal, scale, drop, out32, lse, needs_mask, lengths)
    shapes, given, shape = (q.shape, k.shape, v.shape), mask, q.shape[:-1]
    g, q, k, v, out = (_four(a) for a in (g, q, k, v, out))
    mask = _four_mask(mask, shape)
    batch, heads, length, _ = q.shape
    gq, gk, gv = _like(q, q.shape[-1]), _like(k, k.shape[-1]), _like(v, v.shape[-1])
    gmask = None
    if needs_mask:
        gmask = np.empty_like(lse, shape=(*_served(mask, batch, heads), length, k.shape[2]))
    if not out.size or not k.shape[2]:
        for a in (gq, gk, gv, gmask):
            if a is not None:
                a.fill(0)
    else:
        delta = np.empty_like(lse)
        rows = batch * heads * length
        _DELTA(-(-rows // (_THREADS // 32)), _THREADS, g, out, delta, *_steps(g, out), rows, heads, length, v.shape[-1])
        problem = _Problem(q, k, v, mask, causal, scale, drop, lengths)
        inputs = (q, k, v, g, *problem.masks, lse, delta, gq, gk, gv)
        (_backward_mma if problem.tensor_cores else _backward_plain)(problem, *inputs)
        if gmask is not None:
            _backward_mask(problem, tuple(map(_widened, (q, k, v, g, mask))), lse, delta, gmask)
    gq, gk, gv = (a.reshape(s) for a, s in zip((gq, gk, gv), shapes))
    return gq, gk, gv, None if gmask is None else _narrowed(gmask, given.shape, shape)


def _backward_plain(problem: _Problem, q: Any, k: Any, v: Any, g: Any, keep: Any, bias: Any, lengths: Any,
                    lse: Any, delta: Any, gq: Any, gk: Any, gv: Any) -> None:
    m, _, shared = _tiles(q.dtype, problem.width, 2)
    for keys, x, gx in ((False, q, gq), (True, k, gk)):
        _BACKWARD(-(-x.shape[2] // m) * x.shape[0] * x.shape[1], _THREADS, q, k, v, g, keep, bias, lengths, lse, delta,
                  gx, gv, *_steps(q, k, v, g, gx, gv), *problem.scalars, shared=shared, D=problem.width, KEYS=keys)


def _backward_mma(problem: _Problem, q: Any, k: Any, v: Any, g: Any, keep: Any, bias: Any, lengths: Any,
                  lse: Any, delta: Any, gq: Any, gk: Any, gv: Any) -> None:
    kernel = _TF32_BACKWARD if q.itemsize == 4 else _MMA_WIDE_BACKWARD if problem.width == 256 else _MMA_BACKWARD
    for part in _PARTS[problem.width]:
        x, gx = (k, gk) if part else (q, gq)
        m, _, shared = _mma_backward_tiles(problem.width, part, q.itemsize)
        kernel(-(-x.shape[2] // m) * x.shape[0] * x.shape[1], _MMA_THREADS, q, k, v, g, keep, bias, lengths, lse, delta,
               gx, gv, *_steps(q, k, v, g, gx, gv), *problem.scalars, shared=shared, D=problem.width, PART=part)


def _backward_mask(problem: _Problem, inputs: tuple, lse: Any, delta: Any, gmask: Any) -> None:
    """In float32 at least, since it is wanted rarely."""
    q, k, v, g, mask = inputs
    m, n, shared = _tiles(q.dtype, problem.width, 1)
    blocks = -(-q.shape[2] // m) * -(-k.shape[2] // n) * gmask.shape[0] * gmask.shape[1]
    scalars = (*problem.scalars[:6], *_mask_steps(mask), *problem.scalars[10:])
    _BIAS_BACKWARD(blocks, _THREADS, q, k, v, g, mask, problem.masks[2], lse, delta, gmask, *_steps(q, k, v, g),
                   q.shape[0], *gmask.shape[:2], *scalars, shared=shared, D=problem.width)


class _Problem:
    """What is the same for all kernels of a call."""

    def __init__(self, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Dropout | None,
                 lengths: Any) -> None:
        _, heads, length, wide = q.shape
        keep = 1.0 if drop is None else 1 - drop.p
        seed, offset = (0, 0) if drop is None else (drop.seed, drop.offset)
        self.width = next((d for d in _WIDTHS if max(wide, v.shape[-1]) <= d), 0)
        if not self.width:
            raise ValueError(f"scaled_dot_product_attention: heads must be at most {_WIDTHS[-1]} wide on "
                             f"{backend_of(q).name!r}, got query {tuple(q.shape)} and value {tuple(v.shape)}")
        self.tensor_cores = q.itemsize == 2 or (
            q.itemsize == 4 and self.width <= 128 and allow_tf32() and _architecture(q) != "sm_75")
        binary = mask is not None and mask.dtype == bool
        if lengths is not None:
            lengths = dense(lengths.reshape(-1).astype(np.int64, copy=False))
        elif binary and mask.shape[1] == mask.shape[2] == 1 < mask.shape[3]:
            lengths = np.empty_like(mask, shape=(mask.shape[0],), dtype=np.int64, order="C")
            batch_step, _, _, step = _mask_steps(mask)
            _LENGTHS(mask.shape[0], _THREADS, mask, lengths, batch_step, step, mask.shape[3])
            lengths = dense(np.broadcast_to(lengths, (q.shape[0],)))
        self.masks = (*((mask, None) if binary else (None, mask)), lengths)
        self.scalars = (heads, heads // k.shape[1], length, k.shape[2], wide, v.shape[-1], *_mask_steps(mask), causal,
                        scale, seed, offset, floor(keep * 2.0**32), 1 / keep)


def _tiles(dtype: Any, width: int, resident: int) -> tuple[int, int, int]:
    """Rows of resident and of passing tiles, and bytes of shared memory: struct Tiles of attention/tiles.cuh."""
    size = dtype.itemsize
    pad = 16 // size
    m = min(256 // size, max(16, 32768 // resident // (width * size)))
    n = 64 if width * size <= 256 and resident == 1 else 32
    passing = min(width, 512 // size)
    return m, n, size * (resident * m * (width + pad) + n * (passing + pad) + m * (n + pad))


def _mma_forward_tiles(width: int, size: int) -> tuple[int, int, int]:
    """As attention_mma.cu has them: rows of the resident and of a passing tile, and bytes of shared memory."""
    m, n = 64 if width == 256 else 128, 32 if width == 128 else 64
    return m, n, size * width * (m + 2 * n)


def _mma_backward_tiles(width: int, part: int, size: int) -> tuple[int, int, int]:
    m, n = 64, 64 if width == 64 or (width == 128 and not part and size == 2) else 32
    return m, n, size * width * ((1 if part == 2 else 2) * m + (2 if width * size == 512 else 3) * n)


def _architecture(x: Any) -> str:
    launcher = launcher_of(x)
    return launcher.facts(launcher.device(x))[0]


def _too_old(x: Any) -> bool:
    """Whether 16-bit floats find no tensor cores that suit them."""
    return x.itemsize == 2 and _architecture(x) == "sm_75"


def _widened(x: Any) -> Any:
    """16-bit floats as float32, bools and None as they are."""
    return x.astype(np.float32) if x is not None and x.itemsize == 2 else x


def _mask_steps(mask: Any) -> tuple[int, ...]:
    """The strides of a mask in elements, 0 where it is broadcast."""
    if mask is None:
        return (0, 0, 0, 0)
    return tuple(0 if size == 1 else s // mask.itemsize for size, s in zip(mask.shape, mask.strides))


def _four(x: Any) -> Any:
    """[batch, heads, rows, width], each row without gaps."""
    x = x.reshape((-1, *x.shape[-3:])) if x.ndim > 4 else x[(None,) * (4 - x.ndim)]
    if x.shape[-1] <= 1 or x.strides[-1] == x.itemsize:
        return x
    dense = _like(x, x.shape[-1])
    dense[...] = x
    return dense


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
