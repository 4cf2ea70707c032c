"""Views and in-place operations, and how the graph follows them.

Note [Views and in-place writes]
    A view knows its base and the steps (operation, arguments) that lead from the base to it; the base knows its live
    views. An in-place operation runs out of place, is written into the memory, and then the graph is told: the written
    tensor gets the result's node; if it is a view, its base gets a node that says "this region was replaced"; and every
    live view of that base gets a fresh node by replaying its steps. So whichever alias is used next has the right
    gradient, and nothing is checked on the hot path.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import versions
from ..autograd.graph import Leaf, Op, mode
from ..autograd.modes import no_grad
from ..dtypes import _category
from ..tensor import Tensor, record
from .define import cast

__all__ = ["follow", "inplace", "mark_view", "view", "write"]


def view(
    array: Any, op: Op, input: Tensor, saved: tuple, replay: Callable[..., Tensor], *args: Any
) -> Tensor:
    """The result of an operation that looks into its input's memory; `replay(input, *args)` makes it again."""
    out = record(array, op, (input,), saved)
    if mode.grad:
        mark_view(out, input, replay, *args)
    return out


def mark_view(out: Tensor, input: Tensor, replay: Callable[..., Tensor], *args: Any) -> None:
    """Note that `out` looks into the memory of `input`, and that `replay(input, *args)` makes it again."""
    if not mode.grad:
        return
    base, steps = input.__dict__.get("_view") or (input, ())
    out.__dict__["_view"] = (base, (*steps, (replay, args)))
    views = base.__dict__.setdefault("_views", [])
    if len(views) >= 32 and len(views) & (len(views) - 1) == 0:  # at each doubling
        views[:] = [ref for ref in views if ref() is not None]
    views.append(weakref.ref(out))


def _replay(base: Tensor, steps: tuple) -> Tensor:
    for operation, args in steps:
        base = operation(base, *args)
    return base


def _region_vjp(g: Any, needs: tuple, steps: tuple, shape: tuple) -> tuple:
    is_tensor = isinstance(g, Tensor)
    whole = g if is_tensor else Tensor(g)
    g_base = g_value = None
    if needs[1] is not None:
        g_value = _replay(whole, steps)
    if needs[0] is not None:
        g_base = _with_region(whole, Tensor(np.zeros_like(_replay(whole.detach(), steps).array)), steps)
    if is_tensor:
        return g_base, g_value
    return (g_base.array if g_base is not None else None, g_value.array if g_value is not None else None)


_REGION = Op("copy_slices", _region_vjp, (None, None))


def _with_region(base: Tensor, value: Tensor, steps: tuple) -> Tensor:
    """A copy of `base` whose region at `steps` holds `value`."""
    result = base.array.copy()
    with no_grad():
        _replay(Tensor(result), steps).array[...] = value.array
    return record(result, _REGION, (base, value), (steps, base.array.shape))


def write(target: Tensor, result: Tensor, name: str) -> Tensor:
    """Make `target` hold `result` in place, in memory and in the graph; returns `target`.

    Raises:
        RuntimeError: the shape or dtype does not fit, or `target` is (a view of) a leaf that requires a gradient.
    """
    array = target.array
    base, steps = target.__dict__.get("_view") or (target, ())
    check_writable(target, name)
    if result.array.shape != array.shape:
        raise RuntimeError(
            f"{name}: the result has shape {tuple(result.array.shape)}, which does not fit in place into "
            f"{tuple(array.shape)}"
        )
    if result.array.dtype != array.dtype:
        if _category(result.array.dtype) > _category(array.dtype):
            raise RuntimeError(
                f"{name}: a {result.array.dtype.name} result cannot be written into {array.dtype.name}"
            )
        result = cast(result, array.dtype)
    node = result.node
    if node is not None and any(item is array for item in node.saved):
        node.saved = tuple(item.copy() if item is array else item for item in node.saved)
    array[...] = result.array
    versions.written(array, name)
    if mode.grad:
        follow(target, result, base, steps)
    return target


def check_writable(target: Tensor, name: str) -> None:
    """Raise RuntimeError if `target` is (a view of) a leaf that requires a gradient, while recording."""
    if not mode.grad:
        return
    base = (target.__dict__.get("_view") or (target,))[0]
    if isinstance(base.node, Leaf) or isinstance(target.node, Leaf):
        what = "a view of a leaf" if base is not target else "a leaf"
        raise RuntimeError(
            f"{name}: {what} tensor that requires a gradient cannot be changed in place; "
            "do it under cf.no_grad(), or on a copy"
        )


def follow(target: Tensor, result: Tensor, base: Tensor, steps: tuple) -> None:
    if base is target:
        if result.node is target.node:
            return
        target.node = result.node
    elif result.node is None and base.node is None and target.node is None:
        return
    else:
        base.node = record(base.array, _REGION, (base, result), (steps, base.array.shape)).node
    for ref in base.__dict__.get("_views", ()):
        alias = ref()
        if alias is not None:
            alias.node = _replay(Tensor(base.array, base.node), alias.__dict__["_view"][1]).node


def inplace(operation: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The in-place method `name` (it ends in `_`) of an operation."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self, name)
        return write(self, operation(self, *args, **kwargs), name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`{operation.__name__}` in place; returns self."
    return method
