"""Padding: constants, reflections, repeated edges and circles around the last dimensions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .define import need_tensor
from .linear_map import LinearMap
from .shape import as_int
from .softmax import widened

__all__ = ["pad"]

Pads = tuple[tuple[int, int], ...]


# -- constants ----------------------------------------------------------------------------------------------------
def constant_array(x: Any, pads: Pads, value: Any = 0) -> Any:
    """`x` with (before, after) elements of `value` added in every dimension, or removed where negative."""
    xp = backend_of(x).xp
    shape = tuple([n + before + after for n, (before, after) in zip(x.shape, pads)])
    out = xp.full(shape, value, x.dtype) if value else xp.zeros(shape, x.dtype)
    inside = tuple([slice(max(b, 0), s - max(a, 0)) for s, (b, a) in zip(shape, pads)])
    left = tuple([slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, pads)])
    out[inside] = x[left]
    return out


def _constant_transpose(g: Any, pads: Pads) -> Any:
    return constant_array(g, tuple([(-before, -after) for before, after in pads]))


_CONSTANT = LinearMap("constant_pad_nd", constant_array, _constant_transpose)


# -- the input's own elements -------------------------------------------------------------------------------------
@lru_cache(maxsize=512)
def _runs(mode: str, n: int, before: int, after: int) -> tuple[tuple[slice, slice], ...]:
    """What fills the padding of a dimension of size n: pairs of a slice of the result and one of the input.

    An input slice of length 1 is repeated.
    """
    j = np.arange(-before, n + after)
    if mode == "replicate":
        source = np.clip(j, 0, n - 1)
    elif mode == "reflect":
        source = n - 1 - abs(n - 1 - abs(j))
    else:
        source = j % n
    runs = []
    for start, stop in ((0, before), (before + n, before + n + after)):
        while start < stop:
            step = source[start + 1] - source[start] if start + 1 < stop else 0
            end = start + 1
            while end < stop and abs(step) <= 1 and source[end] - source[end - 1] == step:
                end += 1
            first, last = int(source[start]), int(source[end - 1])
            if step == -1:
                taken = slice(first, last - 1 if last else None, -1)
            else:
                taken = slice(first, last + 1)
            runs.append((slice(start, end), taken))
            start = end
    return tuple(runs)


def _at(axis: int, part: slice) -> tuple:
    return (slice(None),) * axis + (part,)


def _surrounded(x: Any, mode: str, pads: Pads) -> Any:
    """`x` with elements of its own around it; no pad is negative."""
    xp = backend_of(x).xp
    out = xp.empty(tuple([n + before + after for n, (before, after) in zip(x.shape, pads)]), x.dtype)
    region = [slice(before, before + n) for n, (before, _) in zip(x.shape, pads)]
    out[tuple(region)] = x
    for axis, (before, after) in enumerate(pads):
        n = x.shape[axis]
        region[axis] = slice(None)
        if before or after:
            part = out[tuple(region)]
            inner = part[_at(axis, slice(before, before + n))]
            for filled, taken in _runs(mode, n, before, after):
                part[_at(axis, filled)] = inner[_at(axis, taken)]
    return out


def _surrounded_transpose(g: Any, mode: str, pads: Pads) -> Any:
    part = widened(g)
    for axis in reversed(range(g.ndim)):
        before, after = pads[axis]
        if before or after:
            n = part.shape[axis] - before - after
            inner = part[_at(axis, slice(before, before + n))].copy()
            for filled, taken in _runs(mode, n, before, after):
                target, source = inner[_at(axis, taken)], part[_at(axis, filled)]
                target += source.sum(axis=axis, keepdims=True) if target.shape[axis] == 1 else source
            part = inner
    return part.astype(g.dtype)


_MAPS = {
    mode: LinearMap(f"{name}_pad", _surrounded, _surrounded_transpose)
    for mode, name in (("reflect", "reflection"), ("replicate", "replication"), ("circular", "circular"))
}
_DIMS = {2: (2, 3), 4: (3, 4), 6: (4, 5)}


def _check_surrounding(mode: str, shape: tuple, pads: Pads, count: int) -> None:
    """Raise unless the input is large enough to be its own padding."""
    dims = _DIMS.get(count)
    if dims is None or len(shape) not in dims:
        allowed = f"a {dims[0]}-d or {dims[1]}-d input" if dims else "2, 4 or 6 numbers in pad"
        raise NotImplementedError(
            f"pad: mode {mode!r} with {count} numbers in pad needs {allowed}, got shape {shape}"
        )
    for axis, (n, (before, after)) in enumerate(zip(shape, pads)):
        if n + before + after < 0 or (n + before + after == 0 < n and mode != "circular"):
            raise RuntimeError(f"pad: dimension {axis} of size {n} has nothing left after padding {(before, after)}")
        widest = max(before, after)
        if mode == "reflect" and widest >= n and (before or after):
            raise RuntimeError(
                f"pad: reflection must be smaller than the dimension, got {(before, after)} for dimension {axis} of "
                f"size {n}"
            )
        if mode == "replicate" and n == 0 and (before or after):
            raise RuntimeError(f"pad: dimension {axis} is empty, there is nothing to repeat")
        if mode == "circular":
            if widest > n:
                raise RuntimeError(
                    f"pad: circular padding must not go around more than once, got {(before, after)} for dimension "
                    f"{axis} of size {n}"
                )
            if n + min(before, 0) + min(after, 0) <= 0 < widest:
                raise RuntimeError(f"pad: negative padding {(before, after)} leaves nothing of dimension {axis}")


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Add elements before and after the last dimensions, or remove them where a number is negative.

    With "constant" they are `value`; with "reflect" the input's elements mirrored at the edge element, which is not
    repeated; with "replicate" the edge element; with "circular" the elements from the other end.

    Args:
        input: any dtype. "constant" takes any shape; the other modes one, two or three spatial dimensions behind one
            channel dimension, and perhaps a batch.
        pad: (before, after) of the last dimension, then of the one before it, and so on.
        mode: "constant", "reflect", "replicate" or "circular".
        value: for "constant" only; 0 by default.

    Returns:
        A new tensor of the input's dtype.

    Raises:
        NotImplementedError: an unknown mode, or an input that the mode does not take.
        RuntimeError: pad has an odd length or one of more than twice the dimensions, more is removed than is there,
            or a dimension is too small to be reflected or wrapped.
        TypeError: pad holds something other than ints.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> x = cf.tensor([[1.0, 2.0, 3.0]])
    >>> F.pad(x, (1, 2))
    tensor([[0., 1., 2., 3., 0., 0.]])
    >>> F.pad(x, (2, 1), mode="reflect")
    tensor([[3., 2., 1., 2., 3., 2.]])
    """
    need_tensor("pad", "input", input)
    if mode != "constant" and mode not in _MAPS:
        raise NotImplementedError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"pad: pad must be a tuple of ints, got {type(pad).__name__}")
    numbers = [as_int("pad", "pad", p) for p in pad]
    shape = tuple(input.array.shape)
    if len(numbers) % 2:
        raise RuntimeError(f"pad: pad must have an even number of elements, got {len(numbers)}")
    if len(numbers) > 2 * len(shape):
        raise RuntimeError(f"pad: pad must have at most {2 * len(shape)} numbers for shape {shape}, got {len(numbers)}")
    kept = len(shape) - len(numbers) // 2
    pads: Pads = ((0, 0),) * kept + tuple(zip(numbers[::2], numbers[1::2]))[::-1]
    if mode == "constant":
        for axis, (n, (before, after)) in enumerate(zip(shape, pads)):
            if n + before + after < 0 or n < -min(before, 0) or n < -min(after, 0):
                raise RuntimeError(f"pad: dimension {axis} of size {n} has no {-before - after} elements to remove")
        return _CONSTANT.record(constant_array(input.array, pads, value or 0), input, pads)
    if value is not None and value != 0:
        raise RuntimeError(f"pad: mode {mode!r} takes no value, got {value}")
    _check_surrounding(mode, shape, pads, len(numbers))
    added: Pads = tuple([(max(before, 0), max(after, 0)) for before, after in pads])
    removed: Pads = tuple([(min(before, 0), min(after, 0)) for before, after in pads])
    if added == pads:
        return _MAPS[mode](input, mode, pads)
    if mode == "circular":  # wraps around what is left; the others continue what was there
        return _MAPS[mode](_CONSTANT(input, removed), mode, added)
    return _CONSTANT(_MAPS[mode](input, mode, added), removed)
