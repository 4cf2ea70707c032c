"""Views and in-place operations, and how the graph follows them.

Note [Views and in-place writes]
    A view knows its base and the steps (operation, arguments) that lead from the base to it; the base knows its
    live views. An in-place operation runs out of place, is written into the memory, and then the graph is told:
    the written tensor gets the result's node; if it is a view, its base gets a node that says "this region was
    replaced"; and every live view of that base gets a fresh node by replaying its steps. So whichever alias is used
    next has the right gradient, and nothing is checked on the hot path.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import versions
from ..autograd.graph import Leaf, Node, Op, mode, next_sequence, paused, watched
from ..autograd.modes import no_grad
from ..dtypes import _category
from ..tensor import Tensor, anomaly_check, record
from .define import cast

__all__ = ["check_writable", "follow", "inplace", "mark_view", "overwrite", "reshaping", "view", "write"]


# -- views --------------------------------------------------------------------------------------------------------
def view(array: Any, op: Op, input: Tensor, saved: tuple, replay: Callable[..., Tensor], *args: Any) -> Tensor:
    """The result of an operation that looks into its input's memory; `replay(input, *args)` makes it again."""
    if paused and not mode.grad:
        out = Tensor(array)
        _unfollowed(out, input)
        return out
    node = input.node
    if node is not None:
        node = Node(next_sequence(), op, (node,), saved)
        if watched:
            anomaly_check(node, array)
    out = Tensor(array, node)
    _followed(out, input, (replay, args))
    return out


def mark_view(out: Tensor, input: Tensor, replay: Callable[..., Tensor], *args: Any) -> None:
    """Note that `out` looks into the memory of `input`, and that `replay(input, *args)` makes it again."""
    if mode.grad:
        _followed(out, input, (replay, args))
    else:
        _unfollowed(out, input)


def _unfollowed(out: Tensor, input: Tensor) -> None:
    """Keep the base, so that a recorded write through a view that was made under no_grad can be refused."""
    earlier, known = input.__dict__.get("_unfollowed"), input.__dict__.get("_view")
    out.__dict__["_unfollowed"] = earlier if earlier is not None else known[0] if known else input


def _followed(out: Tensor, input: Tensor, step: tuple) -> None:
    known = input.__dict__.get("_view")
    if known is None:
        base, steps = input, (step,)
    else:
        base, before = known
        steps = (*before, step)
    out.__dict__["_view"] = (base, steps)
    views = base.__dict__.get("_views")
    if views is None:
        base.__dict__["_views"] = [weakref.ref(out)]
        return
    n = len(views)
    if n >= 32 and n & (n - 1) == 0:  # at each doubling
        views[:] = [ref for ref in views if ref() is not None]
    views.append(weakref.ref(out))


def _replay(base: Tensor, steps: tuple) -> Tensor:
    for operation, args in steps:
        base = operation(base, *args)
    return base


# -- what a write means to the graph ------------------------------------------------------------------------------
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


def _overwritten_vjp(g: Any, needs: tuple) -> tuple:
    return (np.zeros_like(g),)


_OVERWRITTEN = Op("overwritten", _overwritten_vjp)


def write(target: Tensor, result: Tensor, name: str) -> Tensor:
    """Make `target` hold `result` in place, in memory and in the graph; returns `target`.

    Raises:
        RuntimeError: the shape or dtype does not fit, or `target` is (a view of) a leaf that requires a gradient.
    """
    array = target.array
    check_writable(target, name)
    if result.array.shape != array.shape:
        raise RuntimeError(
            f"{name}: the result has shape {tuple(result.array.shape)}, which does not fit in place into "
            f"{tuple(array.shape)}"
        )
    if result.array.dtype != array.dtype:
        if _category(result.array.dtype) > _category(array.dtype):
            raise RuntimeError(f"{name}: a {result.array.dtype.name} result cannot be written into {array.dtype.name}")
        result = cast(result, array.dtype)
    node = result.node
    check_followed(target, node, name)
    if node is None:
        if target.node is not None:
            # What requires a gradient goes on doing so when constants are written over it; the gradient ends here.
            result = record(result.array, _OVERWRITTEN, (target,), ())
    array[...] = result.array
    versions.written(array, name)
    if mode.grad:
        follow(target, result)
    return target


def overwrite(target: Tensor, value: Any, name: str) -> Tensor:
    """Make `target` hold a number or an array that broadcasts to it, through which no gradient passes."""
    array = target.array
    check_writable(target, name)
    check_followed(target, None, name)
    result = Tensor(array)
    if target.node is not None:
        # As in `write`: what requires a gradient goes on doing so.
        result = record(array, _OVERWRITTEN, (target,), ())
    array[...] = value
    versions.written(array, name)
    if mode.grad:
        follow(target, result)
    return target


def check_writable(target: Tensor, name: str) -> None:
    """Raise RuntimeError if writing into `target` would reach several elements at once, or a leaf while recording."""
    array = target.array
    if 0 in array.strides and any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape)) and array.size:
        raise RuntimeError(f"{name}: several elements of an expanded tensor share memory; clone() it first")
    if not getattr(array.flags, "writeable", True):
        raise RuntimeError(f"{name}: the tensor's memory is read-only; clone() it first")
    if not mode.grad:
        return
    base = (target.__dict__.get("_view") or (target,))[0]
    if isinstance(base.node, Leaf) or isinstance(target.node, Leaf):
        what = "a view of a leaf" if base is not target else "a leaf"
        raise RuntimeError(
            f"{name}: {what} tensor that requires a gradient cannot be changed in place; "
            "do it under cf.no_grad(), or on a copy"
        )


def check_followed(target: Tensor, node: Any, name: str) -> None:
    """Raise RuntimeError before a recorded write through a view that was made under no_grad."""
    base = target.__dict__.get("_unfollowed")
    if base is not None and mode.grad and (node is not None or base.node is not None):
        raise RuntimeError(
            f"{name}: a view made under no_grad cannot be changed in place where operations are recorded; "
            "make the view outside of no_grad, or clone() it first"
        )


def follow(target: Tensor, result: Tensor) -> None:
    """Tell the graph that the memory of `target` now holds `result`: its base and all live views of that."""
    base, steps = target.__dict__.get("_view") or (target, ())
    if base is target:
        if result.node is target.node:
            return
        _renode(target, result.node)
    elif result.node is None and base.node is None and target.node is None:
        return
    else:
        _renode(base, record(base.array, _REGION, (base, result), (steps, base.array.shape)).node)
    for ref in base.__dict__.get("_views", ()):
        alias = ref()
        if alias is not None and not isinstance(alias.node, Leaf):
            _renode(alias, _replay(Tensor(base.array, base.node), alias.__dict__["_view"][1]).node)


def _renode(t: Tensor, node: Any) -> None:
    """Give a tensor another node; what retain_grad() asked for is asked of the new one."""
    old, t.node = t.node, node
    if t.__dict__.pop("_retains", False):
        if old is not None and old.meta is not None:
            old.meta.pop("retain", None)
        if node is not None:
            t.retain_grad()


def _keep_saved(node: Any, before: int, memory: Any) -> None:
    """Give what an operation has just saved of the memory that it is about to write copies of its own."""
    pending = [node]
    while pending:
        node = pending.pop()
        if node is None or node.seq <= before:
            continue
        pending += node.inputs
        if any(hasattr(item, "dtype") and versions.owner(item) is memory for item in node.saved):
            node.saved = tuple(
                item.copy() if hasattr(item, "dtype") and versions.owner(item) is memory else item
                for item in node.saved
            )


# -- methods ------------------------------------------------------------------------------------------------------
def inplace(operation: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The in-place method `name` (it ends in `_`) of an operation."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self, name)
        before = next_sequence()
        result = operation(self, *args, **kwargs)
        if result.node is not None:
            _keep_saved(result.node, before, versions.owner(self.array))
        return write(self, result, name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`{operation.__name__}` in place; returns self."
    return method


def reshaping(operation: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The in-place method `name` of an operation that changes the shape and leaves the memory alone."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not mode.grad:
            self.array = operation(self, *args, **kwargs).array
            if isinstance(self.node, Leaf):
                self.node.shape = self.array.shape
            return self
        if isinstance(self.node, Leaf):
            raise RuntimeError(
                f"{name}: a leaf tensor that requires a gradient cannot be changed in place; "
                "do it under cf.no_grad(), or on a copy"
            )
        if "_view" not in self.__dict__:
            _become_view(self)
        out = operation(self, *args, **kwargs)
        self.array, self.node = out.array, out.node
        self.__dict__["_view"] = out.__dict__["_view"]
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`{operation.__name__}` in place: self takes the new shape; returns self."
    return method


def _become_view(t: Tensor) -> None:
    """Make a base the first view of a base of its own, so that its other views keep theirs when its shape changes."""
    base = Tensor(t.array, t.node)
    views = t.__dict__.pop("_views", [])
    for ref in views:
        alias = ref()
        if alias is not None:
            alias.__dict__["_view"] = (base, alias.__dict__["_view"][1])
    t.__dict__["_view"] = (base, ())
    base.__dict__["_views"] = [*views, weakref.ref(t)]
