"""Random tensors. All draw from `cuframe.random`: one counter-based stream, the same numbers on every device.

Uniform and normal numbers are drawn on their device if it has the kernel, others on the host; `generator=` takes a
`cf.Generator` instead of the default one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import index as _as_int
from typing import Any

import numpy as np

from .. import random as _random
from ..backend import Device, backend_for
from ..cpu.philox import float_blocks
from ..dtypes import as_dtype, get_default_dtype, is_floating
from ..random import Generator
from ..tensor import Tensor
from .create import sizes_given
from .define import check_floating, need_tensor
from .inplace import check_writable, write

__all__ = [
    "bernoulli", "multinomial", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "randperm",
]  # fmt: skip


def _generator(name: str, generator: Any) -> Generator:
    if generator is None:
        return _random.default_generator
    if not isinstance(generator, Generator):
        raise TypeError(f"{name}: generator must be a cf.Generator or None, got {type(generator).__name__}")
    return generator


def _finish(values: np.ndarray, device: Any, requires_grad: bool = False) -> Tensor:
    if device is not None:
        where = Device(device)
        values = backend_for(where).from_host(values, where)
    out = Tensor(values)
    return out.requires_grad_() if requires_grad else out


def _drawn(recipe: str, source: Generator, shape: tuple, a: float, b: float, kind: np.dtype, device: Any) -> Tensor:
    """Numbers `uniform` in [a, b), or `normal` of mean a and deviation b, drawn on their device if it can."""
    where = Device("cpu" if device is None else device)
    backend = backend_for(where)
    kernel = backend.kernel("random")
    if kernel is None:
        return _finish(getattr(source, recipe)(shape, a, b, kind), device)
    stream = source.reserve(float_blocks(kind, math.prod(shape)))
    return Tensor(getattr(kernel, recipe)(backend.empty(shape, kind, where), *stream, a, b))


def _floating(name: str, dtype: Any) -> np.dtype:
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    if not is_floating(kind):
        raise RuntimeError(f"{name}: dtype must be floating point, got {kind.name}")
    return kind


def rand(
    *size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uniform numbers in [0, 1).

    Args:
        size: the sizes, one by one or as a tuple.
        generator: draw from this one instead of the default one.
        dtype: floating point; by default float32 (the default dtype).
        device: by default the CPU.
        requires_grad: record operations on it.

    Raises:
        RuntimeError: the dtype is not floating point, or a size is negative.

    >>> import cuframe as cf
    >>> cf.rand(2, 3, generator=cf.Generator(0)).shape
    cuframe.Size([2, 3])
    """
    kind = _floating("rand", dtype)
    sizes = sizes_given("rand", size)
    out = _drawn("uniform", _generator("rand", generator), sizes, 0.0, 1.0, kind, device)
    return out.requires_grad_() if requires_grad else out


def randn(
    *size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Normally distributed numbers of mean 0 and standard deviation 1; arguments as for `rand`.

    >>> import cuframe as cf
    >>> cf.randn(4, generator=cf.Generator(0)).dtype
    dtype('float32')
    """
    kind = _floating("randn", dtype)
    sizes = sizes_given("randn", size)
    out = _drawn("normal", _generator("randn", generator), sizes, 0.0, 1.0, kind, device)
    return out.requires_grad_() if requires_grad else out


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform integers in [low, high).

    Args:
        low: the least; left out (`randint(high, size)`) it is 0.
        high: above the largest.
        size: a tuple of sizes.
        generator: draw from this one instead of the default one.
        dtype: by default int64.
        device: by default the CPU.
        requires_grad: for floating dtypes: record operations on it.

    Raises:
        RuntimeError: the range is empty.
        TypeError: size is not a tuple.

    >>> import cuframe as cf
    >>> cf.randint(3, (2,), generator=cf.Generator(0)).shape
    cuframe.Size([2])
    """
    if size is None and isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"randint: size must be a tuple of ints, got {type(size).__name__}")
    kind = np.dtype(np.int64) if dtype is None else as_dtype(dtype)
    values = _integers("randint", low, high, sizes_given("randint", (size,)), generator, kind)
    return _finish(values, device, requires_grad)


def _integers(name: str, low: Any, high: Any, sizes: tuple, generator: Any, kind: np.dtype) -> np.ndarray:
    low, high = _as_int(low), _as_int(high)
    if low >= high:
        raise RuntimeError(f"{name}: low must be below high, got {low} and {high}")
    drawn = kind if kind.kind in "iu" else np.dtype(np.int64)
    limits = np.iinfo(drawn)
    if low < limits.min or high - 1 > limits.max:
        raise RuntimeError(f"{name}: [{low}, {high}) does not fit {kind.name}")
    return _generator(name, generator).randint(low, high, sizes, drawn).astype(kind, copy=False)


def randperm(
    n: int, *, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The integers 0 ... n - 1 in random order.

    Args:
        n: how many.
        generator: draw from this one instead of the default one.
        dtype: by default int64.
        device: by default the CPU.
        requires_grad: for floating dtypes: record operations on it.

    Raises:
        RuntimeError: n is negative.

    >>> import cuframe as cf
    >>> sorted(cf.randperm(3).tolist())
    [0, 1, 2]
    """
    if n < 0:
        raise RuntimeError(f"randperm: n must not be negative, got {n}")
    values = _generator("randperm", generator).permutation(n)
    return _finish(values if dtype is None else values.astype(as_dtype(dtype)), device, requires_grad)


def _like(name: str, input: Any, dtype: Any, device: Any) -> tuple[tuple, np.dtype, Any]:
    need_tensor(name, "input", input)
    kind = input.array.dtype if dtype is None else as_dtype(dtype)
    return input.array.shape, kind, input.device if device is None else device


def rand_like(
    input: Tensor,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`rand` of the shape, dtype and device of another tensor.

    >>> import cuframe as cf
    >>> cf.rand_like(cf.zeros(2, 3)).shape
    cuframe.Size([2, 3])
    """
    shape, kind, where = _like("rand_like", input, dtype, device)
    return rand(shape, generator=generator, dtype=kind, device=where, requires_grad=requires_grad)


def randn_like(
    input: Tensor,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`randn` of the shape, dtype and device of another tensor.

    >>> import cuframe as cf
    >>> cf.randn_like(cf.zeros(2, 3)).shape
    cuframe.Size([2, 3])
    """
    shape, kind, where = _like("randn_like", input, dtype, device)
    return randn(shape, generator=generator, dtype=kind, device=where, requires_grad=requires_grad)


def randint_like(
    input: Tensor,
    low: int,
    high: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`randint` of the shape, dtype and device of another tensor.

    >>> import cuframe as cf
    >>> cf.randint_like(cf.zeros(2), 1)
    tensor([0., 0.])
    """
    shape, kind, where = _like("randint_like", input, dtype, device)
    if high is None:
        low, high = 0, low
    return randint(low, high, shape, generator=generator, dtype=kind, device=where, requires_grad=requires_grad)


# -- distributions ------------------------------------------------------------------------------------------------
def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normally distributed numbers.

    Args:
        mean, std: numbers, or tensors that are broadcast together; std >= 0.
        size: a tuple of sizes, where both are numbers.
        generator: draw from this one instead of the default one.
        dtype: floating point; by default that of the tensors, or float32 (the default dtype).
        device: by default that of the tensors, or the CPU.
        requires_grad: record operations on it.

    Returns:
        Tensor; no gradient passes to mean and std.

    Raises:
        RuntimeError: std is negative, or size is given with tensors or missing without them.

    >>> import cuframe as cf
    >>> cf.normal(5.0, 0.0, (2,))
    tensor([5., 5.])
    """
    tensors = [t for t in (mean, std) if isinstance(t, Tensor)]
    if not tensors:
        if size is None:
            raise RuntimeError("normal: size must be given where mean and std are numbers")
        if not std >= 0:
            raise RuntimeError(f"normal: std must not be negative, got {std}")
        kind = _floating("normal", dtype)
        values = _generator("normal", generator).normal(sizes_given("normal", (size,)), mean, std, kind)
        return _finish(values, device, requires_grad)
    if size is not None:
        raise RuntimeError("normal: size must be left out where mean or std is a tensor")
    if isinstance(std, Tensor) and std.array.size and bool((std.array < 0).any()):
        raise RuntimeError("normal: std must not be negative")
    m, s = [t.numpy(force=True) if isinstance(t, Tensor) else t for t in (mean, std)]
    kind = _floating("normal", tensors[0].array.dtype if dtype is None else dtype)
    try:
        shape = np.broadcast_shapes(np.shape(m), np.shape(s))
    except ValueError:
        raise RuntimeError(
            f"normal: mean of shape {np.shape(m)} and std of shape {np.shape(s)} cannot be broadcast together"
        ) from None
    z = _generator("normal", generator).normal(shape, dtype=kind)
    return _finish((m + s * z).astype(kind), tensors[0].device if device is None else device, requires_grad)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    """Ones with the probabilities in `input`, zeros otherwise.

    Args:
        input: floating point tensor of probabilities in [0, 1].
        p: one probability for all; `input` then gives shape and dtype only.
        generator: draw from this one instead of the default one.

    Returns:
        Tensor of the shape and dtype of `input`; no gradient passes.

    Raises:
        RuntimeError: a probability outside [0, 1].
        TypeError: input is not floating point.

    >>> import cuframe as cf
    >>> cf.bernoulli(cf.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    need_tensor("bernoulli", "input", input)
    if p is None:
        check_floating("bernoulli", "input", input)
    drawn = _bernoulli("bernoulli", input.numpy(force=True) if p is None else p, input, generator)
    return _finish(drawn, input.device)


def _bernoulli(name: str, p: Any, beside: Tensor, generator: Any) -> np.ndarray:
    wide = np.asarray(p, np.float64)
    if not bool(((wide >= 0) & (wide <= 1)).all()):
        raise RuntimeError(f"{name}: probabilities must be in [0, 1]")
    full = np.broadcast_to(wide, beside.array.shape)
    return _generator(name, generator).bernoulli(full).astype(beside.array.dtype)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Positions drawn with the probabilities in the rows of `input`.

    Args:
        input: (n,) or (rows, n) floating point weights, not negative; a row need not sum to one.
        num_samples: draws a row.
        replacement: a position may be drawn again.
        generator: draw from this one instead of the default one.

    Returns:
        int64 tensor (num_samples,) or (rows, num_samples).

    Raises:
        RuntimeError: weights that are negative, not finite or sum to zero, or fewer positions with a weight than draws
            without replacement.
        TypeError: input is not floating point.

    >>> import cuframe as cf
    >>> cf.multinomial(cf.tensor([0.0, 1.0]), 3, replacement=True)
    tensor([1, 1, 1])
    """
    check_floating("multinomial", "input", input)
    if input.array.ndim not in (1, 2) or not input.array.shape[-1]:
        raise RuntimeError(f"multinomial: input must have shape (n,) or (rows, n), got {tuple(input.array.shape)}")
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: num_samples must be positive, got {num_samples}")
    weights = np.atleast_2d(input.numpy(force=True)).astype(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any():
        worst = weights[~(np.isfinite(weights) & (weights >= 0))][0]
        raise RuntimeError(f"multinomial: weights must be finite and not negative, got {worst}")
    if (weights.sum(axis=1) <= 0).any():
        raise RuntimeError("multinomial: the weights of a row must not sum to zero")
    source = _generator("multinomial", generator)
    if replacement:
        bounds = weights.cumsum(axis=1)
        u = source.uniform((len(weights), num_samples), dtype=np.float64) * bounds[:, -1:]
        # Rounding may bring u up to the last bound; the last position with a weight takes it.
        last = weights.shape[1] - 1 - (weights[:, ::-1] > 0).argmax(axis=1)
        drawn = np.stack([np.searchsorted(b, v, "right") for b, v in zip(bounds, u)])
        drawn = np.minimum(drawn, last[:, None])
    else:
        least = int((weights > 0).sum(axis=1).min())
        if num_samples > least:
            raise RuntimeError(
                f"multinomial: num_samples must be at most {least}, the positions with a weight, got {num_samples}"
            )
        # Exponential clocks: the first of them to ring has the probabilities asked for, and so have the next.
        e = source.exponential(weights.shape, dtype=np.float64)
        with np.errstate(divide="ignore"):
            rings = np.where(weights > 0, e / weights, np.inf)
        drawn = np.argsort(rings, axis=1, kind="stable")[:, :num_samples]
    shape = (*input.array.shape[:-1], num_samples)
    return _finish(drawn.reshape(shape).astype(np.int64), input.device)


def poisson(input: Tensor, *, generator: Any = None) -> Tensor:
    """Poisson-distributed counts with the rates in `input`, by inversion of the distribution function.

    Args:
        input: floating point tensor of rates, not negative.
        generator: draw from this one instead of the default one.

    Returns:
        Tensor of the shape and dtype of `input`; no gradient passes.

    Raises:
        RuntimeError: a rate that is negative or not finite.
        TypeError: input is not floating point.

    >>> import cuframe as cf
    >>> cf.poisson(cf.zeros(2))
    tensor([0., 0.])
    """
    from scipy.special import pdtr, pdtrik

    check_floating("poisson", "input", input)
    rates = input.numpy(force=True).astype(np.float64)
    good = np.isfinite(rates) & (rates >= 0)
    if not good.all():
        raise RuntimeError(f"poisson: rates must be finite and not negative, got {rates[~good][0]}")
    u = _generator("poisson", generator).uniform(rates.shape, dtype=np.float64)
    some = rates > 0
    safe = np.where(some, rates, 1.0)
    counts = np.ceil(np.maximum(pdtrik(u, safe), 0))
    below = np.maximum(counts - 1, 0)
    counts = np.where(pdtr(below, safe) >= u, below, counts)  # pdtrik is inexact near whole numbers
    return _finish(np.where(some, counts, 0).astype(input.array.dtype), input.device)


# -- in place -----------------------------------------------------------------------------------------------------
def _written(self: Tensor, values: np.ndarray, name: str) -> Tensor:
    return write(self, _finish(values, self.device), name)


def _ready(self: Tensor, name: str) -> np.dtype:
    """The floating dtype to draw in, after the checks."""
    check_writable(self, name)
    check_floating(name, "the tensor", self)
    return self.array.dtype


def uniform_(self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Any = None, **named: float) -> Tensor:
    """Write uniform numbers in [from, to); returns self.

    Args:
        from_: the least number (`from=` in a dictionary works too).
        to: above the largest.
        generator: draw from this one instead of the default one.

    Raises:
        RuntimeError: from is above to, or self is a leaf that requires a gradient.
        TypeError: self is not floating point.

    >>> import cuframe as cf
    >>> bool((cf.empty(100).uniform_(-1.0, 1.0).abs() <= 1).all())
    True
    """
    low = named.pop("from", from_)
    if named:
        raise TypeError(f"uniform_: unexpected arguments {', '.join(named)}")
    kind = _ready(self, "uniform_")
    if not (low <= to and math.isfinite(to - low)):
        raise RuntimeError(f"uniform_: from must be at most to and both finite, got {low} and {to}")
    source = _generator("uniform_", generator)
    return write(self, _drawn("uniform", source, self.array.shape, low, to, kind, self.device), "uniform_")


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Write normally distributed numbers; returns self.

    Raises:
        RuntimeError: std is negative, or self is a leaf that requires a gradient.
        TypeError: self is not floating point.
    """
    kind = _ready(self, "normal_")
    if not std >= 0:
        raise RuntimeError(f"normal_: std must not be negative, got {std}")
    source = _generator("normal_", generator)
    return write(self, _drawn("normal", source, self.array.shape, mean, std, kind, self.device), "normal_")


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Any = None) -> Tensor:
    """Write exponentially distributed numbers of mean 1 / lambd; returns self.

    Raises:
        RuntimeError: lambd is not positive, or self is a leaf that requires a gradient.
        TypeError: self is not floating point.

    >>> import cuframe as cf
    >>> bool((cf.empty(100).exponential_() >= 0).all())
    True
    """
    kind = _ready(self, "exponential_")
    if not lambd > 0:
        raise RuntimeError(f"exponential_: lambd must be positive, got {lambd}")
    values = _generator("exponential_", generator).exponential(self.array.shape, lambd, kind)
    return _written(self, values, "exponential_")


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Write ones with probability p (a number, or a tensor that broadcasts), zeros otherwise; returns self.

    Raises:
        RuntimeError: a probability outside [0, 1], or self is a leaf that requires a gradient.
    """
    check_writable(self, "bernoulli_")
    given = p.numpy(force=True) if isinstance(p, Tensor) else p
    return _written(self, _bernoulli("bernoulli_", given, self, generator), "bernoulli_")


def random_(self: Tensor, from_: Any = None, to: Any = None, *, generator: Any = None) -> Tensor:
    """Write uniform integers; returns self.

    Args:
        from_: the least integer, 0 by default; alone it is `to`.
        to: above the largest; by default every integer that the dtype holds exactly and is not negative.
        generator: draw from this one instead of the default one.

    Raises:
        RuntimeError: the range is empty or does not fit, or self is a leaf that requires a gradient.

    >>> import cuframe as cf
    >>> bool((cf.empty(100).random_(6) < 6).all())
    True
    """
    check_writable(self, "random_")
    kind = self.array.dtype
    if to is None:
        from_, to = 0, from_
    if to is None:
        if is_floating(kind):
            to = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24}.get(kind.name, 2**53) + 1
        else:
            to = 2 if kind.kind == "b" else np.iinfo(kind).max
    values = _integers("random_", from_, to, self.array.shape, generator, kind)
    return _written(self, values, "random_")


METHODS: dict[str, Callable] = {
    "bernoulli_": bernoulli_, "exponential_": exponential_, "normal_": normal_, "random_": random_,
    "uniform_": uniform_,
}  # fmt: skip
