"""Running results along a dimension in log(n) steps, for what NumPy and CuPy have no cumulative function for.

Note [Scans by doubling]
    After the step with distance d, element i holds the combination of the last 2d elements up to i. Each step is a few
    whole-array operations on slices, so the same code runs on NumPy arrays, CuPy arrays and, in a vjp under
    `create_graph`, on Tensors, where a loop over n elements would make n graph nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["along", "reverse_recurrence", "running"]


def along(axis: int, start: int | None, stop: int | None) -> tuple:
    """The index that takes `start:stop` of dimension `axis`."""
    return (*(slice(None),) * axis, slice(start, stop))


def running(combine: Callable[[Any, Any], Any], x: Any, axis: int) -> Any:
    """`combine` of all elements up to each, for an associative `combine(earlier, later)`."""
    distance, n = 1, x.shape[axis]
    while distance < n:
        later = combine(x[along(axis, None, -distance)], x[along(axis, distance, None)])
        x = np.concatenate([x[along(axis, None, distance)], later], axis=axis)
        distance *= 2
    return x


def reverse_recurrence(a: Any, g: Any, axis: int) -> Any:
    """s with s[i] = g[i] + a[i] * s[i + 1] along `axis`; the last a is not used."""
    distance, n = 1, g.shape[axis]
    while distance < n:
        # Now s[i] = g[i] + a[i] * s[i + distance].
        head, rest = along(axis, None, -distance), along(axis, distance, None)
        tail = along(axis, -distance, None)
        g = np.concatenate([g[head] + a[head] * g[rest], g[tail]], axis=axis)
        if 2 * distance < n:
            a = np.concatenate([a[head] * a[rest], a[tail]], axis=axis)
        distance *= 2
    return g
