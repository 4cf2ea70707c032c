"""Backward: one iterative pass over the graph in decreasing order (see Note [Order of the graph])."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Any

import numpy as np

from .. import tensor as _tensor
from . import versions
from .graph import CLONE, FREED, Leaf, Node, Output, mode
from .modes import enable_grad, set_grad_enabled
from .places import at_home, follow
from .region import Region

__all__ = ["backward", "end_of_backward", "grad"]

generic, ndarray = np.generic, np.ndarray

Tensor = _tensor.Tensor
record = _tensor.record


class _Running(threading.local):
    """The callbacks of this thread's backward passes; a pass inside a hook has a list of its own."""

    def __init__(self) -> None:
        self.passes: list[list[Callable[[], None]]] = []


_running = _Running()
# What holds no array: saved values of these types alone are never freed, so such a node can be passed again.
_PLAIN = frozenset({tuple, int, float, bool, str, type(None)})


def end_of_backward(callback: Callable[[], None], outermost: bool = False) -> None:
    """Run `callback()` once, when the backward pass now under way has delivered all gradients.

    Args:
        callback: takes nothing.
        outermost: where this pass runs inside another one, at the end of that.

    Raises:
        RuntimeError: no backward pass is under way in this thread.

    >>> import cuframe as cf
    >>> x = cf.tensor(2.0, requires_grad=True)
    >>> y = x * x
    >>> def hook(g):
    ...     cf.autograd.end_of_backward(lambda: print("all gradients are there:", x.grad))
    >>> _ = y.register_hook(hook)
    >>> y.backward()
    all gradients are there: tensor(4.)
    """
    if not _running.passes:
        raise RuntimeError(
            "end_of_backward: no backward pass is under way in this thread; call it from a hook"
        )
    _running.passes[0 if outermost else -1].append(callback)


def backward(
    tensors: Tensor | Sequence[Tensor],
    gradients: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of `tensors`, each weighted by its entry of `gradients`, to the leaves' `.grad`.

    Args:
        tensors: one tensor or several.
        gradients: a tensor of the same shape for each; None for tensors of one element.
        retain_graph: keep saved arrays for another backward; by default as `create_graph`.
        create_graph: record the backward pass.
        inputs: accumulate into these tensors only.

    Raises:
        RuntimeError: a tensor does not require a gradient, needs one given, the graph was freed by an earlier
            backward, or a saved array was changed in place.

    >>> import cuframe as cf
    >>> x = cf.tensor([1.0, 2.0], requires_grad=True)
    >>> cf.autograd.backward(x * x, cf.tensor([1.0, 10.0]))
    >>> x.grad
    tensor([ 2., 40.])
    """
    with at_home():
        _backward(tensors, gradients, create_graph if retain_graph is None else retain_graph, create_graph, inputs)


def _backward(tensors: Any, gradients: Any, keep: bool, create_graph: bool, inputs: Any) -> None:
    roots = _roots("backward", tensors, gradients, create_graph)
    if inputs is None:
        _run(roots, keep, create_graph, None)
        return
    targets = _listed(inputs)
    if not targets:
        raise RuntimeError("backward: inputs must not be empty")
    wanted = {_target("backward", t, i).seq: t for i, t in enumerate(targets)}
    callbacks: list[Callable[[], None]] = []
    _running.passes.append(callbacks)  # hooks of the leaves run after the pass itself, and belong to it
    try:
        captured = _run(roots, keep, create_graph, wanted)
        for seq, t in wanted.items():
            entry = captured.pop(seq, None)
            if entry is None:
                continue
            if isinstance(entry[0], Leaf):
                _deliver(entry)
            else:
                value = _result(entry)
                t.grad = value if t.grad is None else t.grad + value
        for callback in callbacks:
            callback()
    finally:
        _running.passes.pop()


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, returned and not accumulated.

    Only what lies between the two is computed: no other gradient, no other hook.

    Args:
        outputs: one tensor or several.
        inputs: the tensors to differentiate with respect to; leaves or results.
        grad_outputs: a tensor of the same shape for each output; None for outputs of one element.
        retain_graph: keep saved arrays for another backward; by default as `create_graph`.
        create_graph: record the backward pass, so that the result can be differentiated again.
        allow_unused: None instead of an error for an input that no output depends on.
        materialize_grads: zeros instead of None for such an input.

    Returns:
        One gradient for each input, of its shape and dtype.

    Raises:
        RuntimeError: an input was not used, and as for `backward`.

    >>> import cuframe as cf
    >>> x = cf.tensor(3.0, requires_grad=True)
    >>> (g,) = cf.autograd.grad(x * x * x, x, create_graph=True)
    >>> cf.autograd.grad(g, x)
    (tensor(18.),)
    """
    if materialize_grads and allow_unused is False:
        raise ValueError("grad: materialize_grads=True needs allow_unused to be True or left out")
    with at_home():
        return _grad(
            outputs, inputs, grad_outputs, create_graph if retain_graph is None else retain_graph, create_graph,
            allow_unused, materialize_grads,
        )  # fmt: skip


def _grad(
    outputs: Any, inputs: Any, grad_outputs: Any, keep: bool, create_graph: bool, allow_unused: bool | None,
    materialize_grads: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    targets = _listed(inputs)
    nodes = [_target("grad", t, i) for i, t in enumerate(targets)]
    roots = _roots("grad", outputs, grad_outputs, create_graph)
    if not targets:
        return ()
    captured = _run(roots, keep, create_graph, {n.seq: t for n, t in zip(nodes, targets)})
    found: dict[int, Any] = {}
    for i, (node, t) in enumerate(zip(nodes, targets)):
        if node.seq in found:
            continue
        entry = captured.pop(node.seq, None)
        if entry is not None:
            found[node.seq] = _result(entry)
        elif materialize_grads:
            found[node.seq] = Tensor(np.zeros_like(t.array))
        elif allow_unused:
            found[node.seq] = None
        else:
            raise RuntimeError(
                f"grad: inputs[{i}] was not used to compute the outputs; "
                "pass allow_unused=True to get None for it"
            )
    return tuple(found[node.seq] for node in nodes)


def _listed(value: Any) -> list[Any]:
    """A sequence or iterator as a list, anything else as its only entry."""
    alone = isinstance(value, (Tensor, np.ndarray)) or not hasattr(value, "__iter__")
    return [value] if alone else list(value)


def _target(name: str, t: Tensor, i: int) -> Node:
    if not isinstance(t, Tensor):
        raise TypeError(f"{name}: inputs[{i}] must be a Tensor, got {type(t).__name__}")
    if t.node is None:
        raise RuntimeError(f"{name}: inputs[{i}] does not require a gradient")
    return t.node


def _roots(name: str, tensors: Any, gradients: Any, create_graph: bool) -> list[tuple[Node, Any]]:
    outputs = _listed(tensors)
    if gradients is None:
        seeds: list[Any] = [None] * len(outputs)
    else:
        seeds = _listed(gradients)
    if len(seeds) != len(outputs):
        raise RuntimeError(f"{name}: got {len(outputs)} tensor(s) but {len(seeds)} gradient(s)")
    roots = []
    for i, (t, seed) in enumerate(zip(outputs, seeds)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: output {i} must be a Tensor, got {type(t).__name__}")
        if t.node is None:
            raise RuntimeError(
                f"{name}: tensor {i} does not require a gradient: nothing that led to it was recorded "
                "(no input has requires_grad, or it was computed under no_grad)"
            )
        array = t.array
        if array.__class__ is not ndarray:
            follow(array)
        if seed is None:
            if array.size != 1:
                raise RuntimeError(
                    f"{name}: a gradient can be left out only for a single element, "
                    f"got shape {tuple(array.shape)}"
                )
            value: Any = np.ones_like(array)
        else:
            value = _seed(name, i, seed, t, create_graph)
        if create_graph and not isinstance(value, Tensor):
            value = Tensor(value)
        roots.append((t.node, value))
    return roots


def _seed(name: str, i: int, seed: Any, t: Tensor, create_graph: bool) -> Any:
    """A given gradient, checked, in the dtype of its tensor."""
    if not isinstance(seed, Tensor):
        raise TypeError(f"{name}: gradients[{i}] must be a Tensor or None, got {type(seed).__name__}")
    array = t.array
    if seed.array.shape != array.shape:
        raise RuntimeError(
            f"{name}: gradients[{i}] must have shape {tuple(array.shape)}, got {tuple(seed.array.shape)}"
        )
    if seed.array.__class__ is not array.__class__ and seed.device != t.device:
        raise RuntimeError(f"{name}: gradients[{i}] must be on {t.device}, got {seed.device}")
    if seed.array.dtype != array.dtype:
        from ..ops.define import cast

        seed = cast(seed, array.dtype)
    return seed if create_graph else seed.array


def _run(roots: list, keep: bool, create_graph: bool, wanted: dict | None) -> dict[int, list]:
    """The pass itself. Gradients go to the leaves, or, with `wanted`, only to the nodes of these numbers:
    then their entries [node, gradient, ...] are returned."""
    pending: dict[int, list] = {}  # seq -> [node, gradient, whether the gradient is a sum of our own]
    heap: list[int] = []  # negated numbers of pending nodes, all but `newest`
    captured: dict[int, list] = {}
    useful = None if wanted is None else _useful(roots, wanted)
    counts = _leaf_uses(roots) if Leaf.hooked and wanted is None else None
    for node, g in roots:
        if useful is not None and node.seq not in useful:
            continue
        entry = pending.get(node.seq)
        if entry is None:
            pending[node.seq] = [node, g, False]
            heappush(heap, -node.seq)
        else:
            entry[1] = entry[1] + g
    roots.clear()
    newest = 0  # the latest node to become pending stays out of the heap: mostly it is the next
    last_write = versions.last
    callbacks: list[Callable[[], None]] = []
    _running.passes.append(callbacks)
    try:
        with enable_grad() if create_graph else set_grad_enabled(False):
            anomaly = mode.anomaly
            while True:
                if newest:
                    seq = newest if not heap or newest > -heap[0] else -heapreplace(heap, -newest)
                    newest = 0
                elif heap:
                    seq = -heappop(heap)
                else:
                    break
                entry = pending.pop(seq, None)
                if entry is None:
                    continue  # a leaf that was delivered early
                node = entry[0]
                if entry[1].__class__ is not ndarray:
                    entry[1] = follow(entry[1])
                if node.meta is not None:
                    entry[1] = _hooks(node, entry[1], create_graph)
                inputs = node.inputs
                if useful is not None:
                    if seq in wanted:  # type: ignore[operator]
                        captured[seq] = entry
                    inputs = tuple([e if e is not None and e.seq in useful else None for e in inputs])
                    if inputs.count(None) == len(inputs):
                        continue
                elif not inputs:
                    g = gi = grads = None  # `_deliver` looks at who else holds the gradient
                    _deliver(entry)
                    continue
                g = entry[1]
                if node.__class__ is Output:
                    parent = inputs[0]
                    i, n = node.saved
                    entry = pending.get(parent.seq)
                    if entry is None:
                        entry = pending[parent.seq] = [parent, [None] * n, False]
                        heappush(heap, -parent.seq)
                    entry[1][i] = g
                    continue
                op = node.op
                saved = node.saved
                if saved is FREED:
                    raise RuntimeError(
                        f"backward: the arrays that {op.name} saved were freed by an earlier backward; "
                        "pass retain_graph=True to that one to go through the graph again"
                    )
                if seq < last_write[0]:
                    culprit = versions.stale(node)
                    if culprit is not None:
                        raise RuntimeError(
                            f"backward: an array that {op.name} saved for its gradient was changed in place "
                            f"by {culprit}; change a copy, or make the in-place change before it is used"
                        )
                if create_graph:
                    grads = _vjp_recorded(node, g, inputs)
                elif len(saved) == 2:  # a call without a star is faster, and most operations save two
                    grads = op.vjp(g, inputs, saved[0], saved[1])
                else:
                    grads = op.vjp(g, inputs, *saved)
                if not keep:
                    for item in saved:
                        if item.__class__ not in _PLAIN:
                            node.saved = FREED
                            break
                if anomaly:
                    _anomaly(node, g, grads)
                for edge, gi in zip(inputs, grads):
                    if edge is not None and gi is not None:
                        number = edge.seq
                        entry = pending.get(number)
                        fresh = False
                        if gi.__class__ is not ndarray:
                            if gi.__class__ is Region:
                                if entry is not None and entry[2] and not getattr(entry[1], "is_sparse", False):
                                    gi.add_to(entry[1])
                                    continue
                                gi, fresh = gi.whole(), True
                            if entry is not None:
                                gi = follow(gi)
                        if entry is None:
                            pending[number] = [edge, gi, fresh]
                            if number > newest:
                                if newest:
                                    heappush(heap, -newest)
                                newest = number
                            else:
                                heappush(heap, -number)
                        elif entry[2]:
                            entry[1] += gi
                        else:
                            entry[1] = entry[1] + gi
                            entry[2] = not create_graph
                if counts:
                    g = gi = grads = None
                    _deliver_complete(inputs, counts, pending, create_graph)
        for callback in callbacks:  # one that asks for another has it run, too
            callback()
    finally:
        _running.passes.pop()
    return captured


def _useful(roots: list, wanted: dict) -> set[int]:
    """The numbers of the nodes between the roots and the wanted ones; older ones lead nowhere."""
    oldest = min(wanted)
    seen: dict[int, Node] = {}
    stack = [node for node, _ in roots]
    while stack:
        node = stack.pop()
        if node.seq >= oldest and node.seq not in seen:
            seen[node.seq] = node
            stack.extend([edge for edge in node.inputs if edge is not None])
    useful = set(wanted)
    for seq in sorted(seen):
        for edge in seen[seq].inputs:
            if edge is not None and edge.seq in useful:
                useful.add(seq)
                break
    return useful


def _leaf_uses(roots: list) -> dict[int, int]:
    """How many edges lead to each leaf, so that a leaf can be delivered at its last gradient."""
    counts: dict[int, int] = {}
    seen: set[int] = set()
    stack = [node for node, _ in roots]
    while stack:
        node = stack.pop()
        if node.seq in seen:
            continue
        seen.add(node.seq)
        for edge in node.inputs:
            if edge is not None:
                if edge.inputs:
                    stack.append(edge)
                else:
                    counts[edge.seq] = counts.get(edge.seq, 0) + 1
    return counts


def _deliver_complete(inputs: tuple, counts: dict[int, int], pending: dict, create_graph: bool) -> None:
    for edge in inputs:
        if edge is not None and not edge.inputs:
            left = counts[edge.seq] = counts[edge.seq] - 1
            if not left and edge.seq in pending:
                entry = pending.pop(edge.seq)
                if edge.meta is not None:
                    entry[1] = _hooks(edge, entry[1], create_graph)
                _deliver(entry)


def _references(entry: list) -> int:
    return sys.getrefcount(entry[1])


def _base_references(g: Any) -> int:
    return sys.getrefcount(g.base)


# What the two count for arrays that nobody else holds; it differs between versions of Python.
_ALONE = _references([None, np.empty(1)])
_BASE_ALONE = _base_references(np.empty((2, 1)).reshape(2))


def _owned(entry: list) -> Any:
    """The gradient of an entry as a C-contiguous array that nobody else can reach: itself, or a copy."""
    alone = _references(entry) == _ALONE
    g = entry[1]
    if not alone or not g.flags.c_contiguous:
        return g.copy()
    base = g.base
    if base is None:
        return g
    whole = base.__class__ is np.ndarray and base.size == g.size and g.flags.writeable
    del base
    return g if whole and _base_references(g) == _BASE_ALONE else g.copy()


def _result(entry: list) -> Any:
    """The gradient of an entry as a Tensor (or as it is, if it is sparse)."""
    if isinstance(entry[1], Tensor) or getattr(entry[1], "is_sparse", False):
        return entry[1]
    if entry[1].__class__ is not ndarray:
        entry[1] = follow(entry[1])
    return Tensor(_owned(entry))


def _deliver(entry: list) -> None:
    """Add an entry's gradient to its leaf's `.grad`: taken over where nobody else holds it, copied otherwise,
    and after the first one added in place."""
    leaf: Leaf = entry[0]
    old = leaf.grad
    if entry[1].__class__ is not ndarray:
        entry[1] = follow(entry[1])
    if isinstance(entry[1], Tensor):
        g = entry[1]
        leaf.grad = record(g.array.copy(), CLONE, (g,), ()) if old is None else old + g
    elif getattr(entry[1], "is_sparse", False):
        leaf.grad = entry[1] if old is None else entry[1] + old
    else:
        if entry[1].shape != leaf.shape:
            raise RuntimeError(
                f"backward: a gradient of shape {entry[1].shape} reached a leaf of shape {leaf.shape}"
            )
        if entry[1].dtype != leaf.dtype:
            entry[1] = entry[1].astype(leaf.dtype)
        if old is None:
            leaf.grad = Tensor(_owned(entry))
        elif getattr(old, "is_sparse", False) or old.node is not None:
            leaf.grad = old + Tensor(entry[1])
        else:
            np.add(old.array, entry[1], out=old.array)
            versions.written(old.array, "backward (accumulating .grad)")
    if leaf.meta is not None:
        for hook in list(leaf.meta.get("post", {}).values()):
            hook()


def _hooks(node: Node, g: Any, create_graph: bool) -> Any:
    """Run the tensor hooks of a node on its gradient."""
    meta = node.meta or {}
    if isinstance(g, list):
        return g  # a node with several outputs: its hooks sit on the outputs
    for hook in list(meta.get("tensor", {}).values()):
        wrapped = g if isinstance(g, Tensor) else Tensor(np.asarray(g) if isinstance(g, np.generic) else g)
        replacement = hook(wrapped)
        if replacement is not None:
            if not isinstance(replacement, Tensor):
                raise TypeError(
                    f"a tensor hook must return a Tensor or None, got {type(replacement).__name__}"
                )
            if replacement.array.shape != wrapped.array.shape:
                raise RuntimeError(
                    f"a tensor hook must keep the gradient's shape {tuple(wrapped.array.shape)}, "
                    f"got {tuple(replacement.array.shape)}"
                )
            g = replacement if create_graph else replacement.array
    for hook in list(meta.get("retain", {}).values()):
        hook(record(g.array.copy(), CLONE, (g,), ()) if isinstance(g, Tensor) else Tensor(
            np.array(g) if isinstance(g, generic) else g.copy()))
    return g


def _vjp_recorded(node: Node, g: Any, needs: tuple) -> tuple:
    """The vjp of a node on Tensors, so that it is itself recorded."""
    op, inputs = node.op, node.inputs
    if op.composite is not None:
        return _vjp_composite(node, g, needs)
    if op.saves is None:
        return op.vjp(g, needs, *node.saved)
    saved = []
    for item, source in zip(node.saved, op.saves):
        if source is None or not hasattr(item, "dtype") or not hasattr(item, "shape"):
            saved.append(item)
        elif source == "out":
            saved.append(Tensor(item, node))
        else:
            saved.append(Tensor(item, inputs[source]))  # type: ignore[index]
    return op.vjp(g, needs, *saved)


def _vjp_composite(node: Node, g: Any, needs: tuple) -> tuple:
    """Differentiate the same maths in basic operations instead of the fused formula.

    The copies of the inputs are where differentiation stops: an input may depend on another one.
    """
    op, inputs = node.op, node.inputs
    arguments: list[Any] = [None] * len(inputs)
    constants = []
    for item, source in zip(node.saved, op.saves or ()):
        if isinstance(source, int):
            if item is not None:
                arguments[source] = record(item, CLONE, (Tensor(item, inputs[source]),), ())
        elif source == "constant":
            constants.append(item)
    outputs = op.composite(*arguments, *constants)  # type: ignore[misc]
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    given = g if isinstance(g, list) else [g]
    pairs = [(o, gi) for o, gi in zip(outputs, given) if gi is not None]
    targets = [t for t, n in zip(arguments, needs) if n is not None]
    grads = iter(
        grad([o for o, _ in pairs], targets, [gi for _, gi in pairs], create_graph=True, allow_unused=True)
    )
    return tuple([next(grads) if n is not None else None for n in needs])


def _anomaly(node: Node, g: Any, grads: tuple) -> None:
    from .anomaly import check_backward

    check_backward(node, g, grads)
