"""Running an update rule over parameters, in place and block by block.

Note [Blocks]
    An update rule is a dozen ufuncs over arrays of one size. On whole arrays each of them would stream through memory;
    on blocks that fit the cache, only the first touch does. A block is large enough that NumPy's cost of a call is
    small beside its work. The scratch blocks are shared by all parameters, so a step allocates nothing of a
    parameter's size. On a device every call is a launch, so there the block is the whole array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import versions
from ..tensor import Tensor

__all__ = ["BLOCK", "gradients", "run", "zeros_like"]

#: Elements of a block: 5 arrays of float32 take 320 KB, which fits the second cache.
BLOCK = 16384


def zeros_like(p: Tensor, value: float = 0.0) -> Tensor:
    """A contiguous state tensor beside parameter `p`."""
    array = np.empty_like(p.array, order="C")
    array[...] = value
    return Tensor(array)


def gradients(group: dict[str, Any], name: str) -> list[tuple[Tensor, Any]]:
    """The parameters of a group that have a dense gradient, with its array.

    Raises:
        RuntimeError: a gradient is sparse.
    """
    found = []
    for p in group["params"]:
        g = p.grad
        if g is not None:
            if g.__class__ is not Tensor and getattr(g, "is_sparse", False):
                raise RuntimeError(f"{name}: sparse gradients are not supported; use SGD, Adagrad or SparseAdam")
            found.append((p, g.array))
    return found


def run(
    scratch: dict[Any, list[Any]], kernel: Callable[..., None], p: Tensor, g: Any, state: tuple, *settings: Any
) -> None:
    """`kernel(p, g, *state, s, t, *settings)` over the blocks of a parameter; s and t are scratch.

    The kernel changes p and the state in place, and leaves g alone. float16 and bfloat16 are computed in float32.
    """
    x = p.array
    if x.dtype.char not in "fd":
        _run_wide(scratch, kernel, p, g, state, settings)
        return
    arrays = [x, g, *[s.array for s in state]]
    if not x.flags.c_contiguous:
        arrays[0] = np.ascontiguousarray(x)
    _run_blocks(scratch, kernel, arrays, settings)
    if arrays[0] is not x:
        x[...] = arrays[0]
    versions.written(x, "the optimizer's step")


def _run_wide(scratch: dict, kernel: Callable, p: Tensor, g: Any, state: tuple, settings: tuple) -> None:
    narrow = [p.array, *[s.array for s in state]]
    x, *wide = [a.astype(np.float32) for a in narrow]
    _run_blocks(scratch, kernel, [x, g.astype(np.float32), *wide], settings)
    for a, w in zip(narrow, [x, *wide]):
        a[...] = w
    versions.written(p.array, "the optimizer's step")


def _run_blocks(scratch: dict, kernel: Callable, arrays: list, settings: tuple) -> None:
    x = arrays[0]
    n = x.size
    block = BLOCK if isinstance(x, np.ndarray) else n
    size = min(n, block)
    # A pair of scratch blocks for each kind of array.
    key = (x.__class__, x.dtype, getattr(x, "device", None))
    pair = scratch.get(key)
    if pair is None or pair[0].size < size:
        flat = x.reshape(-1)[:size]
        pair = scratch[key] = [np.empty_like(flat), np.empty_like(flat)]
    s, t = pair
    flats = [a.reshape(-1) for a in arrays]
    if n <= block:
        kernel(*flats, s[:n], t[:n], *settings)
        return
    whole = n - n % block
    for i in range(0, whole, block):
        j = i + block
        kernel(*[a[i:j] for a in flats], s[:block], t[:block], *settings)
    if whole < n:
        kernel(*[a[whole:] for a in flats], s[: n - whole], t[: n - whole], *settings)
