"""Where a backward pass works.

Note [Backward on several devices]
    CuPy makes results on the current device, whatever the operands' is. A graph may span devices, and its nodes come
    in the order of their numbers, not device by device; so the device of the gradient at hand is made current before
    a node runs, and the caller's is current again after the pass. On the host nothing is to be done, and what
    tells is the class of the array, which the engine looks at anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from ..backend import Backend, backend_of, backends_in_use
from ..tensor import Tensor
from .region import Region

__all__ = ["at_home", "follow"]

_HOST = nullcontext()


def at_home() -> AbstractContextManager:
    """A context after which the devices that are current now are so again."""
    away = [b for b in backends_in_use() if not b.host]
    return _back(away) if away else _HOST


@contextmanager
def _back(backends: list[Backend]) -> Iterator[None]:
    homes = [b.current() for b in backends]
    try:
        yield
    finally:
        for backend, home in zip(backends, homes):
            backend.use(home)


def follow(g: Any) -> Any:
    """Make the device of a gradient the current one; returns the gradient, an array where it was a scalar."""
    if isinstance(g, np.generic):
        return np.asarray(g)  # NumPy's arithmetic on 0-d arrays gives scalars, vjps want arrays
    at = g
    if at.__class__ is list:  # of a node with several outputs
        at = next(x for x in at if x is not None)
    if isinstance(at, Tensor):
        at = at.array
    elif isinstance(at, Region):
        at = at.values
    elif getattr(at, "is_sparse", False):
        at = at.data
    if at.__class__ is not np.ndarray and not isinstance(at, np.generic):
        backend_of(at).follow(at)
    return g
