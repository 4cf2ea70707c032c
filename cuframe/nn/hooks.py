"""Module hooks: the call path of a module that has some, and hooks for all modules.

Note [Backward hooks]
    A module with backward hooks gets an identity node around its tensor inputs and another around its tensor outputs.
    Backward reaches the output node first, which notes the gradients there, and the input node last, which calls the
    hooks with both. Where no input needs a gradient, the output node calls them at once, with None for the inputs.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd import versions
from ..autograd.graph import Op, mode, next_sequence
from ..tensor import HookHandle, Tensor, record_outputs

if TYPE_CHECKING:
    from .module import Module

__all__ = [
    "GLOBAL", "HookHandle", "call_hooked", "register", "register_module_forward_hook",
    "register_module_forward_pre_hook", "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]  # fmt: skip

_keys = itertools.count()

# Kind -> hooks for every module; empty dicts are falsy, so a call without hooks looks at two dicts only.
GLOBAL: dict[str, OrderedDict] = {}


class _Handle(HookHandle):
    """Also drops an emptied kind, so that the module is back on its fast path."""

    def __init__(self, table: dict[str, OrderedDict], kind: str, key: int) -> None:
        super().__init__(table[kind], key)
        self._table = table
        self._kind = kind

    def remove(self) -> None:
        super().remove()
        if not self._hooks and self._table.get(self._kind) is self._hooks:
            del self._table[self._kind]


def register(
    table: dict[str, OrderedDict], kind: str, hook: Callable, prepend: bool = False, **flags: bool
) -> HookHandle:
    """Add `hook` to the hooks of a kind, with flags for the caller; the handle returned removes it."""
    if not callable(hook):
        raise TypeError(f"register_{kind}_hook: hook must be callable, got {type(hook).__name__}")
    key = next(_keys)
    hooks = table.setdefault(kind, OrderedDict())
    hooks[key] = (hook, flags)
    if prepend:
        hooks.move_to_end(key, last=False)
    return _Handle(table, kind, key)


def register_module_forward_pre_hook(hook: Callable) -> HookHandle:
    """Call `hook(module, args)` before the forward of every module; it may return new arguments."""
    return register(GLOBAL, "forward_pre", hook)


def register_module_forward_hook(
    hook: Callable, *, with_kwargs: bool = False, always_call: bool = False
) -> HookHandle:
    """Call `hook(module, args, output)` after the forward of every module; it may return a new output."""
    return register(GLOBAL, "forward", hook, with_kwargs=with_kwargs, always_call=always_call)


def register_module_full_backward_hook(hook: Callable) -> HookHandle:
    """Call `hook(module, grad_input, grad_output)` when any module's gradients are computed."""
    return register(GLOBAL, "backward", hook)


def register_module_full_backward_pre_hook(hook: Callable) -> HookHandle:
    """Call `hook(module, grad_output)` before any module's gradients are computed."""
    return register(GLOBAL, "backward_pre", hook)


def _hooks_of(module: Module, kind: str) -> list[tuple[Callable, dict]]:
    """The global hooks first, then the module's own, in the order of registration."""
    return [*GLOBAL.get(kind, {}).values(), *module._hooks.get(kind, {}).values()]


def call_hooked(module: Module, args: tuple, kwargs: dict) -> Any:
    """`module.forward(*args, **kwargs)` with its hooks around it."""
    called: set[int] = set()
    after = _hooks_of(module, "forward")
    try:
        for hook, flags in _hooks_of(module, "forward_pre"):
            args, kwargs = _run_pre(hook, flags, module, args, kwargs)
        backward = _hooks_of(module, "backward")
        before = _hooks_of(module, "backward_pre")
        guard = _Guard(module, backward, before) if (backward or before) and mode.grad else None
        if guard is not None:
            args = guard.inputs(args)
        output = module.forward(*args, **kwargs)
        if guard is not None:
            guard.check_inputs()
        for i, (hook, flags) in enumerate(after):
            called.add(i)
            replaced = _run_post(hook, flags, module, args, kwargs, output)
            if replaced is not None:
                output = replaced
        return output if guard is None else guard.outputs(output)
    except Exception:
        # The error on its way out matters more than one from a hook that runs in spite of it.
        for i, (hook, flags) in enumerate(after):
            if flags.get("always_call") and i not in called:
                try:
                    _run_post(hook, flags, module, args, kwargs, None)
                except Exception as error:
                    import warnings

                    warnings.warn(f"{type(module).__name__}: a hook with always_call raised {error!r}", stacklevel=3)
        raise


def _run_pre(hook: Callable, flags: dict, module: Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    if flags.get("with_kwargs"):
        replaced = hook(module, args, kwargs)
        if replaced is None:
            return args, kwargs
        if not (isinstance(replaced, tuple) and len(replaced) == 2):
            raise RuntimeError(
                "a forward pre-hook with with_kwargs=True must return None or a tuple (args, kwargs), "
                f"got {type(replaced).__name__}"
            )
        return replaced
    replaced = hook(module, args)
    if replaced is None:
        return args, kwargs
    return (replaced if isinstance(replaced, tuple) else (replaced,)), kwargs


def _run_post(hook: Callable, flags: dict, module: Module, args: tuple, kwargs: dict, output: Any) -> Any:
    if flags.get("with_kwargs"):
        return hook(module, args, kwargs, output)
    return hook(module, args, output)


class _Guard:
    """The two identity nodes of one call; see Note [Backward hooks]."""

    def __init__(self, module: Module, hooks: list, before: list) -> None:
        self.module = module
        self.hooks = hooks
        self.before = before
        self.n_inputs = 0
        self.input_places: list[int] = []
        self.guarded: list[Tensor] = []
        self.before_forward = 0
        self.grad_output: tuple | None = None

    def inputs(self, args: tuple) -> tuple:
        """`args` with their tensors behind the input node."""
        self.n_inputs = len(args)
        places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        if not self.hooks or all(args[i].node is None for i in places):
            return args
        self.input_places = places
        wrapped = list(args)
        for i, out in zip(places, self._identity(_GUARD_IN, [args[i] for i in places])):
            wrapped[i] = out
        self.guarded = [wrapped[i] for i in places if wrapped[i].node is not None]
        self.before_forward = next_sequence()
        return tuple(wrapped)

    def check_inputs(self) -> None:
        """Raise RuntimeError if forward changed an input in place: the caller's tensor would not know of it."""
        guarded, self.guarded = self.guarded, []  # kept longer, they would tie the graph into a cycle
        for t in guarded:
            if versions.version(t.array) > self.before_forward:
                raise RuntimeError(
                    f"{type(self.module).__name__}: an input was changed in place, which cannot be with full backward "
                    "hooks; use the operation that is not in place (inplace=False), or change a clone"
                )

    def outputs(self, output: Any) -> Any:
        """`output` (a Tensor, or a tuple or list of which the Tensors count) behind the output node."""
        items = list(output) if isinstance(output, (tuple, list)) else [output]
        places = [i for i, item in enumerate(items) if isinstance(item, Tensor) and item.node is not None]
        self.n_outputs, self.output_places = len(items), places
        if not places:
            return output
        for i, out in zip(places, self._identity(_GUARD_OUT, [items[i] for i in places])):
            items[i] = out
        if not isinstance(output, (tuple, list)):
            return items[0]
        kind = type(output)
        return kind(*items) if hasattr(output, "_fields") else kind(items)

    def _identity(self, op: Op, tensors: list[Tensor]) -> list[Tensor]:
        wrapped = record_outputs(tuple(t.array for t in tensors), op, tuple(tensors), (self,))
        # An input that needs no gradient must not seem to need one behind the node.
        for t, w in zip(tensors, wrapped):
            if t.node is None:
                w.node = None
        return wrapped

    def at_outputs(self, g: list) -> tuple:
        full: list[Any] = [None] * self.n_outputs
        for i, gi in zip(self.output_places, g):
            full[i] = None if gi is None else _as_tensor(gi)
        grads = tuple(full)
        for hook, _ in self.before:
            grads = _replaced("backward pre-hook", grads, hook(self.module, grads))
        self.grad_output = grads
        if not self.input_places:
            for hook, _ in self.hooks:
                if hook(self.module, (None,) * self.n_inputs, grads) is not None:
                    raise RuntimeError(
                        "a full backward hook must return None where no input of the module needs a gradient"
                    )
        return tuple(_like(grads[i], old) for i, old in zip(self.output_places, g))

    def at_inputs(self, g: list) -> tuple:
        full: list[Any] = [None] * self.n_inputs
        for i, gi in zip(self.input_places, g):
            full[i] = None if gi is None else _as_tensor(gi)
        grads = tuple(full)
        for hook, _ in self.hooks:
            grads = _replaced("full backward hook", grads, hook(self.module, grads, self.grad_output))
        return tuple(_like(grads[i], old) for i, old in zip(self.input_places, g))


def _as_tensor(g: Any) -> Any:
    if isinstance(g, Tensor):
        return g
    return Tensor(np.asarray(g) if isinstance(g, np.generic) else g)


def _like(g: Any, old: Any) -> Any:
    """A hook's gradient in the form that the engine works in: an array, or a Tensor under create_graph."""
    return g if g is None or isinstance(old, Tensor) else g.array


def _replaced(what: str, old: tuple, new: Any) -> tuple:
    if new is None:
        return old
    new = new if isinstance(new, tuple) else (new,)
    if len(new) != len(old):
        raise RuntimeError(f"a {what} must return as many gradients as it was given, {len(old)}, got {len(new)}")
    for i, (a, b) in enumerate(zip(old, new)):
        if a is not None and b is not None and a.shape != b.shape:
            raise RuntimeError(
                f"a {what} must keep the shape of gradient {i}, {tuple(a.shape)}, got {tuple(b.shape)}"
            )
    return new


def _guard_in_vjp(g: list, needs: tuple, guard: _Guard) -> tuple:
    return guard.at_inputs(g)


def _guard_out_vjp(g: list, needs: tuple, guard: _Guard) -> tuple:
    return guard.at_outputs(g)


_GUARD_IN = Op("backward_hook_inputs", _guard_in_vjp, (None,))
_GUARD_OUT = Op("backward_hook_outputs", _guard_out_vjp, (None,))
