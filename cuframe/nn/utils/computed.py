"""What weight_norm and spectral_norm share: a weight that a hook computes from parameters before every forward.

Note [Computed weights]
    The parameter `weight` makes way for those it is computed from, and the result is a plain attribute of the module.
    It is the result of recorded operations, which cannot be copied or pickled; a `Computed` is copied by value, since
    the copy's own hook computes it anew before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backend import backend_of
from ...tensor import Parameter, Tensor
from ..module import Module

__all__ = ["Computed", "ComputedWeight", "check_dim"]


class Computed(Tensor):
    """A weight that a hook computes; see Note [Computed weights]."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict) -> Computed:
        return memo.setdefault(id(self), Computed(self.array.copy()))

    def __reduce__(self) -> Any:
        return Computed, (backend_of(self.array).to_host(self.array),)


class ComputedWeight:
    """A forward pre-hook that sets one weight of a module."""

    kind: str  # the function that adds it, for messages

    def __init__(self, name: str) -> None:
        self.name = name

    def compute_weight(self, module: Module) -> Tensor:
        """The weight, from the parameters of the module."""
        raise NotImplementedError

    def __call__(self, module: Module, args: tuple) -> None:
        self.set(module, self.compute_weight(module))

    def set(self, module: Module, weight: Tensor) -> None:
        """Make `weight` the attribute that forward reads."""
        setattr(module, self.name, Computed(weight.array, weight.node))

    def take(self, module: Module) -> Parameter:
        """The parameter that is to be computed, taken from the module.

        Raises:
            RuntimeError: it is computed already.
            AttributeError: the module has no such parameter.
            ValueError: the parameter is None.
        """
        other = _find(module, ComputedWeight, self.name)
        if other is not None:
            raise RuntimeError(
                f"{self.kind}: {self.name!r} of {type(module).__name__} has {other.kind} already; "
                f"remove_{other.kind} takes it off"
            )
        if module._parameters.get(self.name, self) is None:
            raise ValueError(f"{self.kind}: {self.name!r} of {type(module).__name__} is None")
        weight = module.get_parameter(self.name)
        delattr(module, self.name)
        return weight

    @classmethod
    def detach_from(cls, module: Module, name: str) -> ComputedWeight:
        """Remove the hook that computes this weight, and what it has registered, from the module; returns it.

        Raises:
            ValueError: there is none.
        """
        found = _find(module, cls, name)
        if found is None:
            raise ValueError(f"remove_{cls.kind}: {type(module).__name__} has no {cls.kind} of {name!r}")
        for kind, hooks in list(module._hooks.items()):
            for key in [key for key, (hook, _) in hooks.items() if _is(hook, found)]:
                del hooks[key]
            if not hooks:
                del module._hooks[kind]
        delattr(module, name)
        return found


def _is(hook: Callable, owner: ComputedWeight) -> bool:
    return hook is owner or getattr(hook, "__self__", None) is owner


def _find(module: Module, cls: type[ComputedWeight], name: str) -> ComputedWeight | None:
    for hook, _ in module._hooks.get("forward_pre", {}).values():
        if isinstance(hook, cls) and hook.name == name:
            return hook
    return None


def check_dim(name: str, dim: int | None, ndim: int) -> None:
    """Raise IndexError unless a weight has this dimension."""
    if dim is not None and not -max(ndim, 1) <= dim < ndim:
        raise IndexError(f"{name}: dim must be in [{-max(ndim, 1)}, {ndim - 1}], got {dim}")
