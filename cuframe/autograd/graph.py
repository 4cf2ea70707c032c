"""The recorded graph: operations, nodes, leaves, and the modes that say whether to record.

Note [Order of the graph]
    Every node takes the next number of one global sequence. An operation is recorded after its inputs, so
    decreasing sequence order is a topological order: backward needs no traversal beforehand, no recursion,
    and always runs in the same order. In-place writes draw from the same sequence (see `versions.py`), so
    "was this saved array written after the node was recorded?" is one comparison.

Edges run from node to node and never through Tensors, so a graph does not keep results alive that nobody
saved.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

__all__ = [
    "CLONE", "FREED", "Leaf", "Node", "Op", "Output", "mode", "next_sequence", "paused", "switch_recording", "watched",
]  # fmt: skip

_sequence = itertools.count(1)
next_sequence = _sequence.__next__


class _Mode(threading.local):
    """Per-thread switches; read once an operation, so plain attributes."""

    grad = True
    inference = False
    anomaly = False
    check_nan = True


mode = _Mode()

# The threads in anomaly mode, and those that do not record: mostly none. An operation looks at a set in a fifth of
# the time that its thread's own switch takes, and asks that only where the set is not empty. A thread that ended
# under its switch stays in its set, which costs the others time and nothing else.
watched: set[int] = set()
paused: set[int] = set()


def switch_recording(grad: bool, inference: bool) -> None:
    """Set whether this thread records operations, and whether it is in inference mode."""
    mode.grad, mode.inference = grad, inference
    (paused.discard if grad else paused.add)(threading.get_ident())


class Op:
    """What backward needs to know of an operation.

    Args:
        name: the public name, e.g. `"mul"`; error messages and `grad_fn` use it.
        vjp: `vjp(g, needs, *saved) -> tuple`, one gradient (or None) per input. `needs[i]` is None where
            input i needs no gradient. It is written with operators and `np` functions, and runs on arrays
            and, under `create_graph`, on Tensors: one formula serves first and higher derivatives. With
            several outputs `g` is a list with None for the outputs that got no gradient.
        saves: where each saved value comes from, so that `create_graph` can reconnect it: an input's index,
            `"out"` for the result, or None for a constant (shapes, masks, settings). None altogether for a
            vjp that reconnects what it saved by itself.
        composite: for fused operations whose vjp cannot run on Tensors: `composite(*inputs, *constants)`, the
            same maths in basic operations. All inputs must then be among `saves`.
    """

    __slots__ = ("composite", "name", "saves", "vjp")

    def __init__(
        self,
        name: str,
        vjp: Callable[..., tuple],
        saves: tuple[int | str | None, ...] | None = (),
        composite: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        self.vjp = vjp
        self.saves = saves
        self.composite = composite

    def __repr__(self) -> str:
        return f"Op({self.name})"


def _clone_vjp(g: Any, needs: tuple) -> tuple:
    return (g,)


CLONE = Op("clone", _clone_vjp)

FREED: Any = object()


class Node:
    """One recorded operation: `inputs` holds the node of each input, None where no gradient is needed."""

    __slots__ = ("__weakref__", "inputs", "meta", "op", "saved", "seq")

    def __init__(self, seq: int, op: Op, inputs: tuple, saved: tuple) -> None:
        self.seq = seq
        self.op = op
        self.inputs = inputs
        self.saved = saved
        self.meta: dict | None = None  # hooks and, in anomaly mode, the forward stack

    @property
    def next_functions(self) -> tuple:
        """The nodes this one passes gradients to, each with its output index, as PyTorch lists them."""
        return tuple(
            (None, 0) if n is None else (n.inputs[0], n.saved[0]) if isinstance(n, Output) else (n, 0)
            for n in self.inputs
        )

    def name(self) -> str:
        """The operation's name as PyTorch spells it, e.g. `MulBackward0`."""
        words = self.op.name.strip("_").split("_")
        return "".join(w[:1].upper() + w[1:] for w in words) + "Backward0"

    def add_hook(self, kind: str, hook: Callable) -> tuple[dict, int]:
        """Append `hook` to this node's hooks of a kind; the dict and the key that drop it again."""
        if self.meta is None:
            self.meta = {}
        hooks = self.meta.setdefault(kind, {})
        key = next_sequence()
        hooks[key] = hook
        return hooks, key

    def __repr__(self) -> str:
        return f"<{self.name()}>"


class Output(Node):
    """Stands for one output of a node with several: it puts its gradient into the parent's list."""

    __slots__ = ()

    def name(self) -> str:
        return self.inputs[0].name()


def _leaf_vjp(g: Any, needs: tuple) -> tuple:
    raise AssertionError("a leaf accumulates, it has no inputs")


_LEAF = Op("accumulate_grad", _leaf_vjp)


class Leaf(Node):
    """Where a gradient ends: the tensor the user made with `requires_grad`. Holds its `.grad`."""

    __slots__ = ("dtype", "grad", "shape")

    # Leaves with post-accumulate hooks now alive; backward counts uses beforehand only when there are any.
    hooked: int = 0

    def __init__(self, shape: tuple, dtype: Any) -> None:
        super().__init__(next_sequence(), _LEAF, (), ())
        self.grad: Any = None
        self.shape = shape
        self.dtype = dtype

    def name(self) -> str:
        return "AccumulateGrad"
