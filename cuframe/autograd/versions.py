"""Which arrays were written in place, and when: the check that guards saved arrays.

Note [Versions without counters]
    A write draws the next number of the graph's sequence and notes it under the array that owns the memory,
    so views share it. A saved array is stale when that number is above its node's. No operation pays for this
    in the forward pass, and backward compares one integer a node: `last[0]`, the newest write of all. A dead
    array's entry may linger until the next sweep; a new array at the same address is younger than the entry,
    so it never trips it.
"""

from __future__ import annotations

import weakref
from typing import Any

from .graph import Node, next_sequence

__all__ = ["last", "owner", "stale", "written"]

last = [0]
_writes: dict[int, tuple[int, str, Any]] = {}
_sweep_at = [1024]


def owner(array: Any) -> Any:
    """The array that owns the memory `array` looks into."""
    base = getattr(array, "base", None)
    # as_strided puts an object of its own between a view and its base.
    while base is not None and (hasattr(base, "dtype") or hasattr(base, "base")):
        array, base = base, getattr(base, "base", None)
    return array


def written(array: Any, name: str) -> None:
    """Note that operation `name` has just written into `array`."""
    root = owner(array)
    seq = last[0] = next_sequence()
    try:
        reference: Any = weakref.ref(root)
    except TypeError:
        reference = None
    _writes[id(root)] = (seq, name, reference)
    if len(_writes) > _sweep_at[0]:
        for key, entry in list(_writes.items()):  # other threads may be writing
            if entry[2] is not None and entry[2]() is None and _writes.get(key) is entry:
                _writes.pop(key, None)
        _sweep_at[0] = 2 * len(_writes) + 1024


def version(array: Any) -> int:
    """The sequence number of the newest write into the memory behind `array`; 0 if there was none."""
    entry = _writes.get(id(owner(array)))
    return entry[0] if entry else 0


def stale(node: Node) -> str | None:
    """The in-place operation that changed an array which `node` saved, or None."""
    for item in node.saved:
        if hasattr(item, "dtype") and hasattr(item, "shape"):
            entry = _writes.get(id(owner(item)))
            if entry is not None and entry[0] > node.seq:
                return entry[1]
    return None
