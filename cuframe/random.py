"""The random number generator: a seed and a position in its Philox stream.

A `Generator` hands out positions; the numbers themselves are pure functions of (seed, position, index)
defined in `cuframe.cpu.philox`, which every device computes alike.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cuframe.cpu import philox

__all__ = [
    "Generator", "default_generator", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state",
]  # fmt: skip

Array = npt.NDArray[Any]
Size = int | tuple[int, ...] | list[int]

_ALGORITHM = "philox4x64-10"


def _shape(op: str, size: Size) -> tuple[tuple[int, ...], int]:
    shape = tuple(operator.index(s) for s in (size if isinstance(size, (tuple, list)) else (size,)))
    if any(s < 0 for s in shape):
        raise ValueError(f"{op}: size must not be negative, got {shape}")
    return shape, math.prod(shape)


class Generator:
    """A counter-based random number generator, safe to share between threads.

    State is two integers: the seed (the Philox key) and the offset (the next unused counter block).  Each
    draw reserves the blocks that its recipe consumes, under a lock, and computes outside it; the same seed
    and the same sequence of calls give the same bits on every device and machine.

    Args:
        seed: any integer in [-2**63, 2**64); negative ones count modulo 2**64.

    Example:
        >>> g = Generator(7)
        >>> a = g.uniform(3)
        >>> bool((Generator(7).uniform(3) == a).all()), g.offset
        (True, 1)
    """

    __slots__ = ("_lock", "_offset", "_seed")

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self.manual_seed(seed)

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, offset={self._offset})"

    def __reduce__(self) -> Any:
        raise TypeError("Generator cannot be pickled; use get_state() and set_state()")

    @property
    def offset(self) -> int:
        """The next unused counter block."""
        return self._offset

    def manual_seed(self, seed: int) -> Generator:
        """Sets the seed, goes back to block 0, and returns the generator.

        Raises:
            TypeError: seed is not an integer.
            ValueError: seed is outside [-2**63, 2**64).
        """
        try:
            value = operator.index(seed)
        except TypeError:
            raise TypeError(f"manual_seed: seed must be an int, got {type(seed).__name__}") from None
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"manual_seed: seed must be in [-2**63, 2**64), got {value}")
        with self._lock:
            self._seed, self._offset = value % 2**64, 0
        return self

    def seed(self) -> int:
        """Sets a seed taken from the operating system's entropy, and returns it."""
        value = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(value)
        return value

    def initial_seed(self) -> int:
        """The seed in use, in [0, 2**64)."""
        return self._seed

    def get_state(self) -> dict[str, Any]:
        """The state as plain values, fit for a checkpoint: algorithm, seed and offset."""
        with self._lock:
            return {"algorithm": _ALGORITHM, "seed": self._seed, "offset": self._offset}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Raises:
            ValueError: not such a state; the generator is left as it was.
        """
        if not isinstance(state, dict) or state.get("algorithm") != _ALGORITHM:
            raise ValueError(
                f"set_state: state must be a dict from get_state() of {_ALGORITHM}, got {state!r}"
            )
        values = []
        for name in ("seed", "offset"):
            value = state.get(name)
            if type(value) is not int or not 0 <= value < 2**64:
                raise ValueError(f"set_state: {name} must be an int in [0, 2**64), got {value!r}")
            values.append(value)
        with self._lock:
            self._seed, self._offset = values

    def reserve(self, blocks: int) -> tuple[int, int]:
        """Takes ``blocks`` counter blocks out of the stream, for a kernel to compute.

        Returns:
            (seed, first block).

        Example:
            >>> g = Generator(1)
            >>> g.reserve(3), g.reserve(1)
            ((1, 0), (1, 3))
        """
        if _own.generator is not None and self is default_generator:
            return _own.generator.reserve(blocks)
        with self._lock:
            first = self._offset
            if blocks < 0 or first + blocks > 2**64:
                raise ValueError(f"reserve: blocks must be in [0, {2**64 - first}], got {blocks}")
            self._offset = first + blocks
            return self._seed, first

    def uniform(
        self, size: Size, low: float = 0.0, high: float = 1.0, dtype: npt.DTypeLike = np.float32
    ) -> Array:
        """Uniform numbers in [low, high).

        ``low + u * (high - low)`` in the dtype, u from `philox.uniform`; a result rounded up to high becomes
        the number below it.

        Args:
            size: shape.
            low, high: finite numbers, low <= high.
            dtype: float16, bfloat16, float32 or float64.

        Returns:
            array of shape ``size`` and ``dtype``.

        Raises:
            ValueError: low > high, or not finite.

        Example:
            >>> Generator(0).uniform((2, 3), -1, 1).shape
            (2, 3)
        """
        if not (low <= high and math.isfinite(high - low)):
            raise ValueError(
                f"uniform: low and high must be finite with low <= high, got low={low}, high={high}"
            )
        shape, n = _shape("uniform", size)
        out = philox.uniform(*self.reserve(philox.float_blocks(dtype, n)), n, dtype)
        if (low, high) != (0, 1):
            scalar = out.dtype.type
            top = scalar(high)
            out *= scalar(high - low)
            out += scalar(low)
            np.minimum(out, top if low == high else np.nextafter(top, scalar(low)), out=out)
        return out.reshape(shape)

    def normal(
        self, size: Size, mean: float = 0.0, std: float = 1.0, dtype: npt.DTypeLike = np.float32
    ) -> Array:
        """Normally distributed numbers: ``mean + std * z``, z from `philox.normal`.

        Args:
            size: shape.
            mean, std: numbers, std >= 0.
            dtype: float16, bfloat16, float32 or float64.

        Returns:
            array of shape ``size`` and ``dtype``.

        Raises:
            ValueError: std is negative or NaN.

        Example:
            >>> abs(float(Generator(0).normal(10000, mean=2.0).mean()) - 2) < 0.05
            True
        """
        if not std >= 0:
            raise ValueError(f"normal: std must be >= 0, got {std}")
        shape, n = _shape("normal", size)
        out = philox.normal(*self.reserve(philox.float_blocks(dtype, n)), n, dtype)
        if std != 1:
            out *= out.dtype.type(std)
        if mean != 0:
            out += out.dtype.type(mean)
        return out.reshape(shape)

    def exponential(self, size: Size, rate: float = 1.0, dtype: npt.DTypeLike = np.float32) -> Array:
        """Exponentially distributed numbers: ``e / rate``, e from `philox.exponential`.

        Args:
            size: shape.
            rate: > 0; the mean is 1 / rate.
            dtype: float16, bfloat16, float32 or float64.

        Returns:
            array of shape ``size`` and ``dtype``.

        Raises:
            ValueError: rate is not positive.
        """
        if not rate > 0:
            raise ValueError(f"exponential: rate must be > 0, got {rate}")
        shape, n = _shape("exponential", size)
        out = philox.exponential(*self.reserve(philox.float_blocks(dtype, n)), n, dtype)
        if rate != 1:
            out /= out.dtype.type(rate)
        return out.reshape(shape)

    def randint(self, low: int, high: int, size: Size, dtype: npt.DTypeLike = np.int64) -> Array:
        """Uniform integers in [low, high), see `philox.randint`.

        Args:
            low, high: the range, high excluded.
            size: shape.
            dtype: an integer type that holds the range.

        Returns:
            array of shape ``size`` and ``dtype``.

        Raises:
            ValueError: an empty range, or one that dtype does not hold.

        Example:
            >>> Generator(0).randint(5, 6, 3).tolist()
            [5, 5, 5]
        """
        philox.check_range(low, high, dtype)
        shape, n = _shape("randint", size)
        seed, offset = self.reserve(philox.randint_blocks(low, high, n))
        return philox.randint(seed, offset, n, low, high, dtype).reshape(shape)

    def bernoulli(self, p: float | Array, size: Size | None = None) -> Array:
        """True with probability ``p``, see `philox.bernoulli`.

        Args:
            p: probability, a number or a float array.
            size: shape; by default that of p.  With it, p must be a number.

        Returns:
            bool array.

        Raises:
            ValueError: p outside [0, 1] or NaN.

        Example:
            >>> Generator(0).bernoulli(0.0, (2, 2)).any().item()
            False
        """
        prob = philox.check_probability(p)
        if size is None:
            shape, n = prob.shape, prob.size
            prob = prob.reshape(-1)
        elif prob.ndim:
            raise ValueError(f"bernoulli: with size, p must be a number, got an array of shape {prob.shape}")
        else:
            shape, n = _shape("bernoulli", size)
        return philox.bernoulli(*self.reserve(philox.bernoulli_blocks(n)), n, prob).reshape(shape)

    def permutation(self, n: int) -> Array:
        """A random permutation of 0 .. n - 1, as int64; see `philox.permutation`.

        Example:
            >>> sorted(Generator(0).permutation(4).tolist())
            [0, 1, 2, 3]
        """
        _, n = _shape("permutation", n)
        return philox.permutation(*self.reserve(philox.permutation_blocks(n)), n)


class _Own(threading.local):
    """What takes the place of the default generator in this thread."""

    generator: Generator | None = None


_own = _Own()


@contextlib.contextmanager
def forked(*key: int) -> Iterator[None]:
    """A context in which this thread draws its default numbers from a stream of its own.

    Threads that run at the same time would otherwise share them out differently in each run.

    Args:
        key: names the stream; for several threads, what `default_generator.reserve` gave and the thread's number.
    """
    from hashlib import blake2b

    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    before, _own.generator = _own.generator, Generator(int.from_bytes(digest, "little"))
    try:
        yield
    finally:
        _own.generator = before


#: Used where no generator is given.  It starts at seed 0: a program that sets no seed repeats itself.
default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator and returns it.

    Example:
        >>> manual_seed(0).initial_seed()
        0
    """
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the operating system's entropy, and returns the seed.

    >>> import cuframe as cf
    >>> value = cf.seed()
    >>> value == cf.initial_seed()
    True
    """
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator.

    >>> import cuframe as cf
    >>> _ = cf.manual_seed(7)
    >>> cf.initial_seed()
    7
    """
    return default_generator.initial_seed()


def get_rng_state() -> dict[str, Any]:
    """The state of the default generator as plain values, see `Generator.get_state`.

    >>> import cuframe as cf
    >>> _ = cf.manual_seed(7)
    >>> state = cf.get_rng_state()
    >>> state["seed"], state["offset"]
    (7, 0)
    """
    return default_generator.get_state()


def set_rng_state(new_state: dict[str, Any]) -> None:
    """Restores the default generator to what `get_rng_state` returned.

    Example:
        >>> state = get_rng_state()
        >>> first = default_generator.uniform(2)
        >>> set_rng_state(state)
        >>> bool((default_generator.uniform(2) == first).all())
        True
    """
    default_generator.set_state(new_state)
