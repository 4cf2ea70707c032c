"""Random numbers as a pure function of ``(seed, offset, i)``, the same bits on every device.

Everything here is built on Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
2011). Counter block ``b`` of a stream is ``philox4x64_10(counter=(offset + b, 0, 0, 0), key=(seed, 0))``:
four 64-bit words, 256 bits.  NumPy computes it at C speed; a GPU thread computes the block it needs from its
own index.

Note [Bits first, then exact arithmetic]
Element ``i`` of a recipe reads only these bits, with ``word[j]`` the j-th 64-bit word of the stream and
``half[j]`` the j-th 32-bit half (``half[2j]`` is the low half of ``word[j]``, ``half[2j + 1]`` the high one):

===================================  ============================================  ==================
recipe                               element ``i`` reads                           elements per block
===================================  ============================================  ==================
uniform, exponential: up to 32 bits  ``half[i]``                                   8
uniform, exponential: float64        ``word[i]``                                   4
normal: up to 32 bits                ``word[i // 2]``                              8
normal: float64                      ``word[k]``, ``word[k + 1]``, k = i // 2 * 2  4
bernoulli                            ``half[i]``                                   8
randint, ``high - low <= 2**32``     ``word[i]``                                   4
randint, wider                       ``word[2i]``, ``word[2i + 1]``                2
permutation                          ``word[i]``                                   4
===================================  ============================================  ==================

A call consumes ``ceil(n / elements per block)`` blocks (`float_blocks`, `bernoulli_blocks`, `randint_blocks`,
`permutation_blocks`), so the next call's offset is the same whichever device ran this one.

The recipes use integer operations, IEEE conversions, ``+ - * /`` and ``sqrt`` in the order written, each
rounded to nearest, and no library ``log`` or ``sin`` (those differ in the last bit between CPUs and GPUs).  A
CUDA kernel gets the same bits by writing ``__fmul_rn``, ``__fadd_rn``, ``__fdiv_rn`` and ``__fsqrt_rn`` so
that nothing is fused.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = [
    "bernoulli", "bernoulli_blocks", "check_probability", "check_range", "exponential", "float_blocks",
    "normal", "permutation", "permutation_blocks", "philox_words", "randint", "randint_blocks", "uniform",
]  # fmt: skip

Array = npt.NDArray[Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
_MANTISSA = {BFLOAT16: 8, FLOAT16: 11, FLOAT32: 24, FLOAT64: 53}  # bits kept by `uniform`
_CHUNK = 4096  # blocks drawn at a time: their words and the temporaries made of them stay in the L2 cache
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)


class _Source(threading.local):
    """One NumPy Philox per thread, kept where the last draw ended so that sequential draws need no seek."""

    def __init__(self) -> None:
        self.bits: Any = None
        self.seed = -1
        self.block = -1

    def draw(self, seed: int, block: int, count: int) -> Array:
        if self.bits is None:
            self.bits = np.random.Philox(key=0)  # NumPy imports its random module here, which takes 10 ms
        if self.seed != seed or self.block != block:
            # NumPy steps the counter before it generates, so set the block before (mod 2**256)
            before = [block - 1, 0, 0, 0] if block else [2**64 - 1] * 4
            self.bits.state = {
                "bit_generator": "Philox",
                "state": {"counter": np.array(before, np.uint64), "key": np.array([seed, 0], np.uint64)},
                "buffer": np.zeros(4, np.uint64),
                "buffer_pos": 4,
                "has_uint32": 0,
                "uinteger": 0,
            }
        self.seed = -1  # an interrupt inside the draw must not leave a position that is no longer true
        words = self.bits.random_raw(4 * count)
        self.seed, self.block = seed, block + count
        return words


_source = _Source()


def _check(op: str, seed: int, offset: int, n: int, blocks: int) -> None:
    if not 0 <= seed < 2**64:
        raise ValueError(f"{op}: seed must be in [0, 2**64), got {seed}")
    if n < 0:
        raise ValueError(f"{op}: n must be >= 0, got {n}")
    if not 0 <= offset <= 2**64 - blocks:
        raise ValueError(
            f"{op}: offset must be in [0, 2**64 - {blocks}] to draw {blocks} blocks, got {offset}"
        )


def _float_dtype(op: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    dt = np.dtype(dtype)
    if dt not in _MANTISSA:
        raise TypeError(f"{op}: dtype must be float16, bfloat16, float32 or float64, got {dt}")
    return dt


def _chunks(seed: int, offset: int, n: int, per_block: int) -> Iterator[tuple[slice, Array]]:
    """Yields (slice of the n elements, the words of their blocks), a cacheful at a time."""
    blocks = -(-n // per_block)
    for first in range(0, blocks, _CHUNK):
        count = min(_CHUNK, blocks - first)
        part = slice(first * per_block, min(n, (first + count) * per_block))
        yield part, _source.draw(seed, offset + first, count)


def _halves(words: Array) -> Array:
    return words.astype("<u8", copy=False).view("<u4").astype(np.uint32, copy=False)


def philox_words(seed: int, offset: int, n: int) -> Array:
    """The first ``n`` 64-bit words of the Philox4x64-10 stream that starts at counter block ``offset``.

    ``words[4b:4b + 4] = philox4x64_10(counter=(offset + b, 0, 0, 0), key=(seed, 0))``

    Args:
        seed: key, in [0, 2**64).
        offset: first counter block, in [0, 2**64).
        n: number of words; ``ceil(n / 4)`` blocks are consumed.

    Returns:
        uint64 array of shape (n,).

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> [hex(w) for w in philox_words(0, 0, 2)]
        ['0x16554d9eca36314c', '0xdb20fe9d672d0fdc']
    """
    blocks = -(-n // 4)
    _check("philox_words", seed, offset, n, blocks)
    return _source.draw(seed, offset, blocks)[:n]


def float_blocks(dtype: npt.DTypeLike, n: int) -> int:
    """Counter blocks that `uniform`, `normal` and `exponential` consume for ``n`` elements of ``dtype``.

    Example:
        >>> float_blocks("float32", 9), float_blocks("float64", 9)
        (2, 3)
    """
    return -(-n // (4 if _float_dtype("float_blocks", dtype) == FLOAT64 else 8))


def bernoulli_blocks(n: int) -> int:
    """Counter blocks that `bernoulli` consumes for ``n`` elements."""
    return -(-n // 8)


def randint_blocks(low: int, high: int, n: int) -> int:
    """Counter blocks that `randint` consumes for ``n`` elements of [low, high)."""
    return -(-n // (4 if high - low <= 2**32 else 2))


def permutation_blocks(n: int) -> int:
    """Counter blocks that `permutation` consumes."""
    return -(-n // 4)


def check_probability(p: float | Array) -> Array:
    """``p`` as a float64 array, or ValueError where it is not a probability."""
    prob = np.asarray(p, np.float64)
    bad = ~((prob >= 0) & (prob <= 1))
    if bad.any():
        raise ValueError(f"bernoulli: p must be in [0, 1], got {float(prob[bad][0])}")
    return prob


def check_range(low: int, high: int, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype of `randint`, or an error where it does not hold [low, high) or the range is empty."""
    dt = np.dtype(dtype)
    if dt.kind not in "iu":
        raise TypeError(f"randint: dtype must be an integer type, got {dt}")
    if not low < high:
        raise ValueError(f"randint: low must be less than high, got low={low}, high={high}")
    info = np.iinfo(dt)
    if low < info.min or high - 1 > info.max:
        raise ValueError(f"randint: [{low}, {high}) must fit {dt}, which holds [{info.min}, {info.max}]")
    return dt


def uniform(seed: int, offset: int, n: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Uniform numbers in [0, 1).

    ``out[i] = (half[i] >> (32 - p)) * 2**-p`` with p = 24 (float32), 11 (float16), 8 (bfloat16);
    ``out[i] = (word[i] >> 11) * 2**-53`` for float64.  All are exact: 1 is never returned.

    Args:
        seed, offset: the stream, see `philox_words`.
        n: number of elements.
        dtype: float16, bfloat16, float32 or float64.

    Returns:
        array of shape (n,) of ``dtype``; `float_blocks` blocks are consumed.

    Example:
        >>> bool(uniform(0, 0, 1)[0] == (0xca36314c >> 8) / 2**24)
        True
    """
    dt = _float_dtype("uniform", dtype)
    _check("uniform", seed, offset, n, float_blocks(dt, n))
    out = np.empty(n, dt)
    p = _MANTISSA[dt]
    if dt == FLOAT64:
        for part, words in _chunks(seed, offset, n, 4):
            words >>= np.uint64(64 - p)
            np.multiply(words[: part.stop - part.start].view(np.int64), 2.0**-p, out=out[part])
        return out
    for part, words in _chunks(seed, offset, n, 8):
        half = _halves(words)[: part.stop - part.start]
        half >>= np.uint32(32 - p)
        # int32 -> float32 has a vector instruction everywhere, uint32 -> float32 only with AVX-512
        scaled = half.view(np.int32).astype(np.float32)
        scaled *= np.float32(2.0**-p)
        out[part] = scaled
    return out


def _horner(z: Array, coefficients: tuple[float, ...]) -> Array:
    """``c[0] + z * (c[1] + z * (c[2] + ...))``, each step rounded in z's dtype."""
    out = z * z.dtype.type(coefficients[-1])
    for c in coefficients[-2:0:-1]:
        out += z.dtype.type(c)
        out *= z
    out += z.dtype.type(coefficients[0])
    return out


# Terms kept so that the first one dropped is below half a unit in the last place on the reduced range.
_ATANH = {
    FLOAT32: tuple(1 / (2 * k + 1) for k in range(1, 5)),
    FLOAT64: tuple(1 / (2 * k + 1) for k in range(1, 10)),
}
_SIN = {
    FLOAT32: tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(1, 5)),
    FLOAT64: tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(1, 8)),
}
_COS = {
    FLOAT32: tuple((-1) ** k / math.factorial(2 * k) for k in range(1, 5)),
    FLOAT64: tuple((-1) ** k / math.factorial(2 * k) for k in range(1, 9)),
}


def _minus_log(bits: Array) -> Array:
    """``-ln(u)`` for uniform u in (0, 1] made of each integer: float32 of 32 bits, float64 of 64 bits.

    Note [Logarithm recipe]
    u = a * 2**-s with a = float(bits | 1), s = 32, or a = float((bits >> 11) + 1), s = 53.  Write a = m *
    2**k with m in [sqrt(1/2), sqrt(2)), by subtracting the bits of sqrt(1/2) from those of a.  With f = m -
    1, t = f / (f + 2), z = t * t: ln m = 2 atanh(t), atanh(t) = t + t * (z * (1/3 + z * (1/5 + ...))), and
    -ln(u) = (s - k) * ln 2 - (atanh + atanh).
    """
    itype: Any
    if bits.dtype == np.uint32:
        a = (bits | np.uint32(1)).astype(np.float32)
        itype, root, width, s = np.int32, 0x3F3504F3, 23, 32
    else:
        a = ((bits >> np.uint64(11)).view(np.int64) + 1).astype(np.float64)
        itype, root, width, s = np.int64, 0x3FE6A09E667F3BCD, 52, 53
    raw = a.view(itype)
    raw -= itype(root)
    scale = (itype(s) - (raw >> itype(width))).astype(a.dtype)
    raw &= itype((1 << width) - 1)
    raw += itype(root)
    a -= 1  # f
    t = a / (a + 2)
    z = t * t
    p = _horner(z, _ATANH[a.dtype])
    p *= z
    p *= t
    p += t
    p += p
    scale *= a.dtype.type(math.log(2))
    scale -= p
    return scale


def _box_muller(out: Array, radius_bits: Array, angle_bits: Array) -> None:
    """Fills out (2m) from m radius and m angle integers.

    Note [Box-Muller recipe]
    Radius: rho = sqrt(-ln u), u from Note [Logarithm recipe].  Angle: the top two bits of angle_bits are the
    signs; the rest, shifted up and read as a signed integer j of b bits (b = 32, or 64 >> 11 = 53), is x = j
    * (pi/2 * 2**-b) in [-pi/4, pi/4).  Then phi = pi/4 + x is uniform in a quadrant, and sqrt(2) * (cos phi,
    sin phi) = (C - S, C + S) with S = x + x * (y * (-1/3! + y * (...))), C = 1 + y * (-1/2! + y * (...)), y =
    x * x: no swap, no branch. out[2j] = +-rho * (C - S), out[2j + 1] = +-rho * (C + S), negated where bit
    63/31 (bit 62/30) of angle_bits is set.
    """
    rho = _minus_log(radius_bits)
    np.sqrt(rho, out=rho)
    utype = angle_bits.dtype.type
    sign = utype(1 << (31 if utype is np.uint32 else 63))
    shifted = angle_bits << utype(2)
    if utype is np.uint32:
        x = shifted.view(np.int32).astype(np.float32)
        x *= np.float32(math.pi / 2 * 2.0**-32)
    else:
        x = (shifted.view(np.int64) >> np.int64(11)).astype(np.float64)
        x *= math.pi / 2 * 2.0**-53
    y = x * x
    sin = _horner(y, _SIN[x.dtype])
    sin *= y
    sin *= x
    sin += x
    cos = _horner(y, _COS[x.dtype])
    cos *= y
    cos += 1
    signed = out.view(utype)
    np.subtract(cos, sin, out=x)
    np.multiply(x, rho, out=out[0::2])
    signed[0::2] ^= angle_bits & sign
    cos += sin
    np.multiply(cos, rho, out=out[1::2])
    signed[1::2] ^= (angle_bits << utype(1)) & sign


def normal(seed: int, offset: int, n: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Standard normal numbers by the Box-Muller transform, two per pair of uniforms.

    ``out[2j], out[2j + 1] = r cos(phi), r sin(phi)``, r = sqrt(-2 ln u), exactly as Note [Box-Muller recipe]
    says. float32: radius from the low half of word[j], angle from the high half, so |out| < 6.7.  float64:
    radius from word[2j], angle from word[2j + 1], so |out| < 8.6.  float16 and bfloat16 are the float32
    numbers, rounded to nearest.

    Args:
        seed, offset: the stream, see `philox_words`.
        n: number of elements.
        dtype: float16, bfloat16, float32 or float64.

    Returns:
        array of shape (n,) of ``dtype``; `float_blocks` blocks are consumed.

    Example:
        >>> normal(7, 0, 4).dtype, bool((normal(7, 0, 9)[8:] == normal(7, 1, 1)).all())
        (dtype('float32'), True)
    """
    dt = _float_dtype("normal", dtype)
    _check("normal", seed, offset, n, float_blocks(dt, n))
    compute = FLOAT64 if dt == FLOAT64 else FLOAT32
    out = np.empty(n, dt)
    for part, words in _chunks(seed, offset, n, 4 if dt == FLOAT64 else 8):
        count = part.stop - part.start
        pairs = np.empty(count + count % 2, compute)
        bits = (words if dt == FLOAT64 else _halves(words))[: pairs.size]
        _box_muller(pairs, bits[0::2], bits[1::2])
        out[part] = pairs[:count]
    return out


def exponential(seed: int, offset: int, n: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Exponentially distributed numbers of rate 1, by inversion.

    ``out[i] = -ln(u)``, u in (0, 1] from half[i] (word[i] for float64), as Note [Logarithm recipe] says;
    float32 results are at most 22.2, float64 ones 36.8.  float16 and bfloat16 are the float32 numbers,
    rounded to nearest.

    Args:
        seed, offset: the stream, see `philox_words`.
        n: number of elements.
        dtype: float16, bfloat16, float32 or float64.

    Returns:
        array of shape (n,) of ``dtype``, >= 0; `float_blocks` blocks are consumed.

    Example:
        >>> bool((exponential(0, 0, 1000) >= 0).all())
        True
    """
    dt = _float_dtype("exponential", dtype)
    _check("exponential", seed, offset, n, float_blocks(dt, n))
    out = np.empty(n, dt)
    for part, words in _chunks(seed, offset, n, 4 if dt == FLOAT64 else 8):
        bits = (words if dt == FLOAT64 else _halves(words))[: part.stop - part.start]
        out[part] = _minus_log(bits)
    return out


def bernoulli(seed: int, offset: int, n: int, p: float | Array) -> Array:
    """True with probability ``p``.

    ``out[i] = half[i] < floor(p * 2**32)``: p = 0 is never true, p = 1 always, others within 2**-32 of p.

    Args:
        seed, offset: the stream, see `philox_words`.
        n: number of elements.
        p: probability, a number or a float array of shape (n,).

    Returns:
        bool array of shape (n,); `bernoulli_blocks` blocks are consumed.

    Raises:
        ValueError: p outside [0, 1] or NaN, or of another shape.

    Example:
        >>> bernoulli(0, 0, 3, 1.0).tolist()
        [True, True, True]
    """
    _check("bernoulli", seed, offset, n, bernoulli_blocks(n))
    prob = check_probability(p)
    if prob.ndim and prob.shape != (n,):
        raise ValueError(f"bernoulli: p must be a number or have shape ({n},), got shape {prob.shape}")
    limit = np.floor(prob * 2.0**32).astype(np.uint64)
    out = np.empty(n, np.bool_)
    for part, words in _chunks(seed, offset, n, 8):
        half = _halves(words)[: part.stop - part.start]
        if prob.ndim:
            np.less(half, limit[part], out=out[part])
        elif limit > _MASK32:
            out[part] = True
        else:
            np.less(half, limit.astype(np.uint32), out=out[part])
    return out


def randint(seed: int, offset: int, n: int, low: int, high: int, dtype: npt.DTypeLike = np.int64) -> Array:
    """Uniform integers in [low, high), by multiply-shift.

    With R = high - low: ``out[i] = low + ((word[i] * R) >> 64)`` for R <= 2**32, and ``out[i] = low +
    (((word[2i + 1] * 2**64 + word[2i]) * R) >> 128)`` for wider ranges (products exact).  A value's
    probability differs from 1/R by less than 2**-32 of itself: there is no modulo bias to see.

    Args:
        seed, offset: the stream, see `philox_words`.
        n: number of elements.
        low, high: the range, high excluded.
        dtype: an integer type that holds low and high - 1.

    Returns:
        array of shape (n,) of ``dtype``; `randint_blocks` blocks are consumed.

    Raises:
        ValueError: an empty range, or one that dtype does not hold.

    Example:
        >>> sorted(set(randint(0, 0, 100, -1, 2).tolist()))
        [-1, 0, 1]
    """
    dt = check_range(low, high, dtype)
    _check("randint", seed, offset, n, randint_blocks(low, high, n))
    out = np.empty(n, dt)
    span, base = high - low, np.uint64(low % 2**64)
    for part, words in _chunks(seed, offset, n, 4 if span <= 2**32 else 2):
        count = part.stop - part.start
        value = _scale_narrow(words, span) if span <= 2**32 else _scale_wide(words, span)
        value += base  # modulo 2**64: two's complement
        out[part] = value[:count].astype(dt)
    return out


def _scale_narrow(words: Array, span: int) -> Array:
    """``(words * span) >> 64`` for span <= 2**32; neither product nor sum exceeds 64 bits."""
    r = np.uint64(span)
    low = ((words & _MASK32) * r) >> _SHIFT32
    low += (words >> _SHIFT32) * r
    low >>= _SHIFT32
    return low


def _multiply_high(a: Array, b: np.uint64) -> Array:
    """The high 64 bits of the 128-bit product."""
    a0, a1 = a & _MASK32, a >> _SHIFT32
    b0, b1 = b & _MASK32, b >> _SHIFT32
    middle = a1 * b0 + ((a0 * b0) >> _SHIFT32)
    carry = (middle & _MASK32) + a0 * b1
    return a1 * b1 + (middle >> _SHIFT32) + (carry >> _SHIFT32)


def _scale_wide(words: Array, span: int) -> Array:
    """``((w1 * 2**64 + w0) * span) >> 128`` for the pairs (w0, w1)."""
    w0, w1 = words[0::2], words[1::2]
    if span == 2**64:
        return w1.copy()
    r = np.uint64(span)
    low = w1 * r
    total = low + _multiply_high(w0, r)
    return _multiply_high(w1, r) + (total < low)


def permutation(seed: int, offset: int, n: int) -> Array:
    """A random permutation of 0 .. n - 1: the stable argsort of ``n`` words.

    Args:
        seed, offset: the stream, see `philox_words`.
        n: length.

    Returns:
        int64 array of shape (n,); `permutation_blocks` blocks are consumed.

    Example:
        >>> sorted(permutation(3, 0, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    _check("permutation", seed, offset, n, permutation_blocks(n))
    return np.argsort(philox_words(seed, offset, n), kind="stable").astype(np.int64, copy=False)
