"""Backward: one iterative pass over the graph in decreasing sequence order (see Note [Order of the graph])."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from .. import tensor as _tensor
from . import versions
from .graph import FREED, Leaf, Node, Output, mode
from .modes import enable_grad, set_grad_enabled

__all__ = ["backward", "end_of_backward", "grad"]

Tensor = _tensor.Tensor
_callbacks: list[Any] = []


def end_of_backward(callback: Any) -> None:
    """Run `callback()` once, when the backward pass now under way has delivered all gradients."""
    _callbacks.append(callback)


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
    """
    roots = _roots(tensors, gradients, create_graph)
    wanted = None
    if inputs is not None:
        targets = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if not targets:
            raise RuntimeError("backward: inputs must not be empty")
        wanted = {_target(t, i).seq: t for i, t in enumerate(targets)}
    captured = _run(roots, create_graph if retain_graph is None else retain_graph, create_graph, wanted)
    if wanted:
        for seq, t in wanted.items():
            g = captured.get(seq)
            if g is not None:
                value = g if isinstance(g, Tensor) or getattr(g, "is_sparse", False) else Tensor(np.asarray(g))
                t.grad = value if t.grad is None else t.grad + value


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

    >>> import cuframe as cf
    >>> x = cf.tensor(3.0, requires_grad=True)
    >>> (g,) = cf.autograd.grad(x**3, x, create_graph=True)
    >>> cf.autograd.grad(g, x)
    (tensor(18.),)
    """
    targets = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    nodes = [_target(t, i) for i, t in enumerate(targets)]
    roots = _roots(outputs, grad_outputs, create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    captured = _run(roots, keep, create_graph, {n.seq: t for n, t in zip(nodes, targets)})
    results: list[Tensor | None] = []
    for i, (node, t) in enumerate(zip(nodes, targets)):
        g = captured.get(node.seq)
        if g is None:
            if materialize_grads:
                g = np.zeros_like(t.array)
            elif allow_unused:
                results.append(None)
                continue
            else:
                raise RuntimeError(
                    f"grad: inputs[{i}] was not used to compute the outputs; pass allow_unused=True to get None for it"
                )
        if isinstance(g, Tensor) or getattr(g, "is_sparse", False):
            results.append(g)
        else:
            results.append(Tensor(np.asarray(g) if isinstance(g, np.generic) else g))
    return tuple(results)


def _target(t: Tensor, i: int) -> Node:
    if not isinstance(t, Tensor):
        raise TypeError(f"grad: inputs[{i}] must be a Tensor, got {type(t).__name__}")
    if t.node is None:
        raise RuntimeError(f"grad: inputs[{i}] does not require a gradient")
    return t.node


def _roots(tensors: Any, gradients: Any, create_graph: bool) -> list[tuple[Node, Any]]:
    outputs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if gradients is None:
        seeds: list[Any] = [None] * len(outputs)
    else:
        seeds = [gradients] if isinstance(gradients, Tensor) else list(gradients)
    if len(seeds) != len(outputs):
        raise RuntimeError(f"backward: got {len(outputs)} tensor(s) but {len(seeds)} gradient(s)")
    roots = []
    for i, (t, seed) in enumerate(zip(outputs, seeds)):
        if t.node is None:
            raise RuntimeError(
                f"backward: tensor {i} does not require a gradient: nothing that led to it was recorded "
                "(no input has requires_grad, or it was computed under no_grad)"
            )
        array = t.array
        if seed is None:
            if array.size != 1:
                raise RuntimeError(
                    f"backward: a gradient can be left out only for a single element, got shape {tuple(array.shape)}"
                )
            value: Any = np.ones_like(array)
        elif not isinstance(seed, Tensor):
            raise TypeError(f"backward: gradients[{i}] must be a Tensor or None, got {type(seed).__name__}")
        elif seed.array.shape != array.shape:
            raise RuntimeError(
                f"backward: gradients[{i}] must have shape {tuple(array.shape)}, got {tuple(seed.array.shape)}"
            )
        else:
            value = seed if create_graph else seed.array
        if create_graph and not isinstance(value, Tensor):
            value = Tensor(value)
        roots.append((t.node, value))
    return roots


def _run(roots: list, keep: bool, create_graph: bool, wanted: dict | None) -> dict[int, Any]:
    """The pass itself; returns the gradients of the nodes in `wanted` by sequence number (all of the rest goes to
    the leaves when `wanted` is None)."""
    pending: dict[int, list] = {}  # seq -> [node, gradient, owned]
    heap: list[int] = []
    captured: dict[int, Any] = {}
    counts = _leaf_uses(roots) if Leaf.hooked and wanted is None else None
    for node, g in roots:
        entry = pending.get(node.seq)
        if entry is None:
            pending[node.seq] = [node, g, False]
            heappush(heap, -node.seq)
        else:
            entry[1] = entry[1] + g
    first_callback = len(_callbacks)
    last_write = versions.last
    lowest = min(wanted) if wanted else 0
    with enable_grad() if create_graph else set_grad_enabled(False):
        anomaly = mode.anomaly
        while heap:
            seq = -heappop(heap)
            if seq < lowest:
                break
            entry = pending.pop(seq, None)
            if entry is None:
                continue  # a leaf that was delivered early
            node, g, _ = entry
            if node.meta is not None:
                g = _hooks(node, g, create_graph)
            if wanted is not None and seq in wanted:
                captured[seq] = g
            op = node.op
            inputs = node.inputs
            if not inputs:
                if wanted is None:
                    _deliver(node, entry, g)
                continue
            if node.__class__ is Output:
                parent = inputs[0]
                i, n = node.saved
                entry = pending.get(parent.seq)
                if entry is None:
                    entry = pending[parent.seq] = [parent, [None] * n, False]
                    heappush(heap, -parent.seq)
                entry[1][i] = g
                continue
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
                        f"backward: an array that {op.name} saved for its gradient was changed in place by "
                        f"{culprit}; change a copy, or make the in-place change before it is used"
                    )
            grads = _vjp_recorded(node, g) if create_graph else op.vjp(g, inputs, *saved)
            if saved and not keep:
                node.saved = FREED  # type: ignore[assignment]
            if anomaly:
                _anomaly(node, g, grads)
            for edge, gi in zip(inputs, grads):
                if edge is not None and gi is not None:
                    entry = pending.get(edge.seq)
                    if entry is None:
                        pending[edge.seq] = [edge, gi, False]
                        heappush(heap, -edge.seq)
                    elif entry[2]:
                        entry[1] += gi
                    else:
                        entry[1] = entry[1] + gi
                        entry[2] = not create_graph
            if counts:
                _deliver_complete(inputs, counts, pending, create_graph)
    # Callbacks belong to the pass that was running when they were asked for; a nested pass leaves outer ones alone.
    while len(_callbacks) > first_callback:
        _callbacks.pop(first_callback)()
    return captured


def _leaf_uses(roots: list) -> dict[int, int]:
    """How many edges of this graph lead to each leaf, so that a leaf can be delivered at its last gradient."""
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
                g = entry[1] if edge.meta is None else _hooks(edge, entry[1], create_graph)
                _deliver(edge, entry, g)


def _deliver(leaf: Leaf, entry: list, g: Any) -> None:
    """Add `g` to the leaf's `.grad`: taken over where nobody else holds it, copied otherwise, then added in place."""
    old = leaf.grad
    if isinstance(g, Tensor):
        leaf.grad = g if old is None else old + g
    elif getattr(g, "is_sparse", False):
        leaf.grad = g if old is None else old + g
    else:
        if isinstance(g, np.generic):
            g = np.asarray(g)
        if g.shape != leaf.shape:
            raise RuntimeError(f"backward: a gradient of shape {g.shape} reached a leaf of shape {leaf.shape}")
        if old is None:
            # References: `g`, `entry[1]` and getrefcount's argument, plus the caller's local.
            exclusive = entry[2] or (g.base is None and sys.getrefcount(g) <= 4)
            if g.dtype != leaf.dtype:
                g, exclusive = g.astype(leaf.dtype), True
            leaf.grad = Tensor(g if exclusive and g.flags.c_contiguous else g.copy())
        elif getattr(old, "is_sparse", False) or old.node is not None:
            leaf.grad = old + Tensor(g)
        else:
            np.add(old.array, g, out=old.array)
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
                raise TypeError(f"a tensor hook must return a Tensor or None, got {type(replacement).__name__}")
            if replacement.array.shape != wrapped.array.shape:
                raise RuntimeError(
                    f"a tensor hook must keep the gradient's shape {tuple(wrapped.array.shape)}, "
                    f"got {tuple(replacement.array.shape)}"
                )
            g = replacement if create_graph else replacement.array
    for hook in list(meta.get("retain", {}).values()):
        hook(g if isinstance(g, Tensor) else Tensor(np.asarray(g)))
    return g


def _vjp_recorded(node: Node, g: Any) -> tuple:
    """The vjp of a node on Tensors, so that it is itself recorded."""
    op, inputs = node.op, node.inputs
    if op.composite is not None:
        return _vjp_composite(node, g)
    saved = []
    for item, source in zip(node.saved, op.saves):
        if source is None or not hasattr(item, "dtype") or not hasattr(item, "shape"):
            saved.append(item)
        elif source == "out":
            saved.append(Tensor(item, node))
        else:
            saved.append(Tensor(item, inputs[source]))
    return op.vjp(g, inputs, *saved)


def _vjp_composite(node: Node, g: Any) -> tuple:
    """Differentiate the same maths in basic operations instead of the fused formula."""
    op, inputs = node.op, node.inputs
    arguments: list[Any] = [None] * len(inputs)
    constants = []
    for item, source in zip(node.saved, op.saves):
        if isinstance(source, int):
            if item is not None:
                arguments[source] = Tensor(item, inputs[source])
        elif source == "constant":
            constants.append(item)
    outputs = op.composite(*arguments, *constants)
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    given = g if isinstance(g, list) else [g]
    pairs = [(o, gi) for o, gi in zip(outputs, given) if gi is not None]
    targets = [t for t, n in zip(arguments, inputs) if n is not None]
    grads = iter(grad([o for o, _ in pairs], targets, [gi for _, gi in pairs], create_graph=True, allow_unused=True))
    return tuple(next(grads) if n is not None else None for n in inputs)


def _anomaly(node: Node, g: Any, grads: tuple) -> None:
    from .anomaly import check_backward

    check_backward(node, g, grads)

