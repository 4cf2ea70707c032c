"""Functions with a backward of the user's own."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import Tensor, anomaly_check
from . import versions
from .graph import FREED, Node, Op, Output, mode, next_sequence, watched
from .modes import no_grad

__all__ = ["Function", "FunctionCtx", "once_differentiable"]


class FunctionCtx:
    """What `forward` hands on to `backward`: saved tensors, settings, and any attribute you set.

    `needs_input_grad` holds one bool for each argument of `forward`.

    >>> import cuframe as cf
    >>> class Scale(cf.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x, factor):
    ...         ctx.factor = factor  # settings; tensors go to save_for_backward
    ...         return x * factor
    ...
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g * ctx.factor if ctx.needs_input_grad[0] else None, None
    >>> x = cf.tensor(2.0, requires_grad=True)
    >>> Scale.apply(x, 3.0).backward()
    >>> x.grad
    tensor(3.)
    """

    def __init__(self, name: str, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._name = name
        self._to_save: tuple[Tensor | None, ...] = ()
        self._sources: tuple = ()
        self._node: Callable[[], Node | None] | None = None
        self._outputs: tuple = ()  # (sequence number or None, shape, dtype, backend) of each
        self._not_differentiable: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward; those changed in place until then raise, and backward frees them.

        Inputs and outputs of `forward` stay connected for double backward; anything else is a constant to it.
        """
        for i, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"{self._name}: save_for_backward takes Tensors and None, got {type(t).__name__} "
                    f"as argument {i}; set an attribute of ctx for anything else"
                )
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors given to `save_for_backward`.

        Raises:
            RuntimeError: backward has freed them, or one was changed in place.
        """
        if self._node is None:
            return self._to_save
        node = self._node()
        if node is None or node.saved is FREED:
            raise RuntimeError(
                f"{self._name}: the saved tensors were freed by an earlier backward; "
                "pass retain_graph=True to it"
            )
        culprit = versions.stale(node)
        if culprit is not None:
            raise RuntimeError(
                f"{self._name}: a tensor saved for backward was changed in place by {culprit}; "
                "save or change a copy"
            )
        return tuple(_connected(node, a, s, self._outputs) for a, s in zip(node.saved, self._sources))

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """These outputs carry no gradient."""
        self._not_differentiable = outputs

    def mark_dirty(self, *inputs: Tensor) -> None:
        """`forward` changed these inputs in place; it must return them."""
        self._dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """With False, `backward` gets None instead of zeros for outputs that received no gradient."""
        self._materialize = bool(value)


def _connected(node: Node, array: Any, source: Any, outputs: tuple) -> Tensor | None:
    """A saved array as a Tensor at its place in the graph: `source` is an input, ("out", i), or None."""
    if array is None:
        return None
    if source is None:
        return Tensor(array)
    if isinstance(source, int):
        return Tensor(array, node.inputs[source])
    if len(outputs) == 1:
        return Tensor(array, node)
    seq = outputs[source[1]][0]
    # A second Output with the sequence number of the first is the same vertex to the engine.
    return Tensor(array, None if seq is None else Output(seq, _OUTPUT, (node,), (source[1], len(outputs))))


def _output_vjp(g: Any, needs: tuple, i: int, n: int) -> tuple:
    raise AssertionError("the engine routes output gradients itself")


_OUTPUT = Op("output", _output_vjp, (None, None))


class Function:
    """An operation with its own backward: subclass it, write two static methods, call `apply`.

    `forward(ctx, *args)` computes with recording off and returns a Tensor or a tuple. `backward(ctx, *grads)`
    gets one gradient for each output and returns one for each argument of forward, None where there is none.
    If `forward` takes no `ctx`, `setup_context(ctx, inputs, output)` runs after it. Under `create_graph`
    backward is recorded, so it is differentiated in turn if it consists of recorded operations on
    `ctx.saved_tensors`.

    >>> import cuframe as cf
    >>> class Cube(cf.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return 3 * x * x * g
    >>> x = cf.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    def __init__(self) -> None:
        raise TypeError(
            f"{type(self).__name__}: a Function is not instantiated; call {type(self).__name__}.apply(...)"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the result; overridden by every Function."""
        raise NotImplementedError(
            "a Function must define forward(ctx, ...), or forward(...) and setup_context"
        )

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Any) -> None:
        """Save for backward what it needs, where `forward` takes no ctx."""
        raise NotImplementedError("setup_context is not defined")

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        """Compute the gradients of the arguments; overridden by every Function that is differentiated."""
        raise NotImplementedError("a Function must define backward(ctx, *grad_outputs) to be differentiated")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` on these arguments and record the call.

        Raises:
            RuntimeError: a gradient that `backward` returns later does not fit its argument.
        """
        nodes = tuple([a.node if isinstance(a, Tensor) else None for a in args])
        ctx = FunctionCtx(cls.__name__, tuple([n is not None for n in nodes]))
        split = cls.setup_context is not Function.setup_context
        recording = mode.grad and any(ctx.needs_input_grad)
        with no_grad():
            result = cls.forward(*args) if split else cls.forward(ctx, *args)
            if split:
                cls.setup_context(ctx, args, result)
        outputs = result if isinstance(result, tuple) else (result,)
        if isinstance(result, list):
            raise TypeError(f"{cls.__name__}: forward must return a Tensor or a tuple, got a list")
        dirty = _check_dirty(ctx, args, outputs)
        made = (
            _record(cls, ctx, args, nodes, outputs, dirty) if recording else _plain(ctx, args, outputs, dirty)
        )
        return tuple(made) if isinstance(result, tuple) else made[0]


def _check_dirty(ctx: FunctionCtx, args: tuple, outputs: tuple) -> set[int]:
    for t in ctx._dirty:
        if not any(t is a for a in args):
            raise RuntimeError(f"{ctx._name}: mark_dirty takes inputs of forward only")
        if not any(t is o for o in outputs):
            raise RuntimeError(f"{ctx._name}: an input marked as dirty must be returned by forward")
    return {id(t) for t in ctx._dirty}


def _plain(ctx: FunctionCtx, args: tuple, outputs: tuple, dirty: set[int]) -> list:
    """The outputs without a graph: an input that is returned as it was becomes a Tensor of its own."""
    for t in ctx._dirty:
        versions.written(t.array, ctx._name)
    given = {id(a) for a in args if isinstance(a, Tensor)} - dirty
    return [Tensor(o.array) if id(o) in given else o for o in outputs]


def _record(cls: Any, ctx: FunctionCtx, args: tuple, nodes: tuple, outputs: tuple, dirty: set[int]) -> list:
    from ..ops.inplace import check_writable, follow

    for t in ctx._dirty:
        check_writable(t, ctx._name)
        versions.written(t.array, ctx._name)
    places: dict[int, Any] = {
        id(o): ("out", k) for k, o in reversed(list(enumerate(outputs))) if o is not None
    }
    places.update(
        (id(a), i) for i, a in reversed(list(enumerate(args))) if isinstance(a, Tensor) and id(a) not in dirty
    )
    ctx._sources = tuple([None if t is None else places.get(id(t)) for t in ctx._to_save])
    saved = tuple([None if t is None else t.array for t in ctx._to_save])
    ctx._to_save = ()
    facts_in = tuple([(a.array.shape, a.array.dtype) if isinstance(a, Tensor) else None for a in args])
    op = Op(cls.__name__, functools.partial(_vjp, cls, ctx, facts_in), None)
    node = Node(next_sequence(), op, nodes, saved)
    ctx._node = weakref.ref(node)
    constant = {id(t) for t in ctx._not_differentiable}
    given = {id(a) for a in args}
    made: list[Any] = []
    facts: list[tuple] = []
    seen: set[int] = set()
    for k, o in enumerate(outputs):
        if not isinstance(o, Tensor):
            made.append(o)
            facts.append((None, None, None, None))
            continue
        edge: Node | None = None
        if id(o) not in constant and (is_floating(o.array.dtype) or o.array.dtype.kind == "c"):
            edge = node if len(outputs) == 1 else Output(next_sequence(), _OUTPUT, (node,), (k, len(outputs)))
        facts.append((edge.seq if edge else None, o.array.shape, o.array.dtype, backend_of(o.array)))
        if id(o) in dirty:
            follow(o, Tensor(o.array, edge))
        elif id(o) in given or id(o) in seen or o.node is not None:
            o = Tensor(o.array, edge)
        else:
            o.node = edge
        seen.add(id(o))
        made.append(o)
    ctx._outputs = tuple(facts)
    if watched:
        anomaly_check(node, *[o.array for o in made if isinstance(o, Tensor)])
    return made


def _vjp(cls: Any, ctx: FunctionCtx, facts: tuple, g: Any, needs: tuple, *saved: Any) -> tuple:
    """The user's backward, its answer checked against `facts`: shape and dtype of each Tensor argument."""
    given = g if isinstance(g, list) else [g]
    recorded = mode.grad
    weights: list[Any] = []
    for gi, (_, shape, dtype, backend) in zip(given, ctx._outputs):
        if gi is None and shape is not None and ctx._materialize:
            gi = Tensor(backend.xp.zeros(shape, dtype))
        elif gi is not None and not isinstance(gi, Tensor) and not getattr(gi, "is_sparse", False):
            gi = Tensor(np.asarray(gi) if isinstance(gi, np.generic) else gi)
        weights.append(gi)
    result = cls.backward(ctx, *weights)
    grads = list(result) if isinstance(result, (tuple, list)) else [result]
    while len(grads) > len(facts) and grads[-1] is None:
        grads.pop()
    if len(grads) != len(facts):
        raise RuntimeError(
            f"{cls.__name__}: backward must return {len(facts)} gradient(s), one for each argument of "
            f"forward, got {len(grads)}"
        )
    return tuple(
        [_checked(cls, i, gi, fact, needs[i], recorded) for i, (gi, fact) in enumerate(zip(grads, facts))]
    )


def _checked(cls: Any, i: int, g: Any, fact: tuple | None, need: Any, recorded: bool) -> Any:
    """Gradient i as the engine wants it: of the argument's shape and dtype, a Tensor only if recorded."""
    if g is None:
        return None
    if fact is None:
        raise RuntimeError(
            f"{cls.__name__}: backward returned a gradient for {_argument(cls, i)}, which is not a Tensor; "
            "return None for it"
        )
    if need is None or getattr(g, "is_sparse", False):
        return None if need is None else g
    if not isinstance(g, Tensor):
        raise TypeError(
            f"{cls.__name__}: the gradient for {_argument(cls, i)} must be a Tensor or None, "
            f"got {type(g).__name__}"
        )
    shape, dtype = fact
    if g.array.shape != shape:
        extra = g.array.ndim - len(shape)
        if extra < 0 or any(n not in (1, m) for n, m in zip(shape, g.array.shape[extra:])):
            raise RuntimeError(
                f"{cls.__name__}: the gradient for {_argument(cls, i)} must have shape {shape}, "
                f"got {g.array.shape}"
            )
        from ..ops.define import fit

        g = fit(g, shape)
    if g.array.dtype != dtype:
        from ..ops.define import cast

        g = cast(g, dtype)
    return g if recorded else g.array


def _argument(cls: Any, i: int) -> str:
    """The name of argument i of forward."""
    names = list(inspect.signature(cls.forward).parameters.values())
    if cls.setup_context is Function.setup_context:
        names = names[1:]
    if i < len(names) and names[i].kind is not inspect.Parameter.VAR_POSITIONAL:
        return f"argument {i} ({names[i].name})"
    return f"argument {i}"


def _refuse(name: str, g: Any, needs: tuple) -> tuple:
    raise RuntimeError(f"{name}: backward is marked once_differentiable and cannot be differentiated again")


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for `Function.backward`: it runs unrecorded, and differentiating its result raises.

    >>> import cuframe as cf
    >>> class Square(cf.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.x = x.array
    ...         return x * x
    ...
    ...     @staticmethod
    ...     @cf.autograd.once_differentiable
    ...     def backward(ctx, g):
    ...         return cf.from_numpy(2 * ctx.x * g.array)
    >>> x = cf.tensor([3.0], requires_grad=True)
    >>> Square.apply(x).sum().backward()
    >>> x.grad
    tensor([6.])
    """

    @functools.wraps(backward)
    def wrapper(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        recording = mode.grad
        with no_grad():
            result = backward(ctx, *grad_outputs)
        sources = [
            t for t in (*grad_outputs, *(ctx.saved_tensors if recording else ())) if isinstance(t, Tensor)
        ]
        nodes = tuple([t.node for t in sources if t.node is not None])
        if not recording or not nodes:
            return result
        op = Op(ctx._name, functools.partial(_refuse, ctx._name), ())
        grads = [
            Tensor(g.array, Node(next_sequence(), op, nodes, ())) if isinstance(g, Tensor) else g
            for g in (result if isinstance(result, (tuple, list)) else (result,))
        ]
        return tuple(grads)

    return wrapper
