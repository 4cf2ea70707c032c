"""Loading a state_dict: plan first, change afterwards, and say everything that does not fit at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd import versions
from ..backend import backend_of
from ..tensor import Parameter, Tensor

if TYPE_CHECKING:
    from .module import Module

__all__ = ["IncompatibleKeys", "copy_into", "load", "plan_assign", "plan_copy"]


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` returns: names that the state_dict lacked, and names that the module has no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def array_of(value: Any) -> Any:
    """The array behind a Tensor, an array, a number or another library's tensor; None for anything else."""
    if isinstance(value, Tensor):
        return value.array
    if isinstance(value, np.generic) or isinstance(value, (bool, int, float, complex)):
        return np.asarray(value)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy":
            return value
        if hasattr(value, "detach"):
            value = value.detach()
        return np.asarray(value)
    return None


def copy_into(target: Any, source: Any, name: str) -> None:
    """Write the array `source` into the array `target` of the same number of elements, casting and moving it."""
    here, there = backend_of(target), backend_of(source)
    if here is not there:
        source = here.from_host(there.to_host(source), here.device_of(target))
    target[...] = source.reshape(target.shape)
    versions.written(target, name)


def plan_copy(tensor: Tensor, source: Any) -> Callable[[], None]:
    """What will write `source` into the tensor's memory."""
    return lambda: copy_into(tensor.array, source, "load_state_dict")


def plan_assign(table: dict, name: str, old: Tensor, value: Any, source: Any) -> Callable[[], None]:
    """What will put the value itself in the place of the old tensor."""

    def assign() -> None:
        if isinstance(old, Parameter):
            table[name] = value if isinstance(value, Parameter) else type(old)(source, requires_grad=old.requires_grad)
        else:
            table[name] = value if isinstance(value, Tensor) else Tensor(source)

    return assign


def load(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """`Module.load_state_dict`."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"load_state_dict: state_dict must be a mapping from names, got {type(state_dict).__name__}")
    given = dict(state_dict)
    for key in given:
        if not isinstance(key, str):
            raise TypeError(f"load_state_dict: the keys must be strings, got {key!r} of {type(key).__name__}")
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    plan: list[Callable[[], None]] = []
    visited: list[tuple[Module, str]] = []
    _visit(module, given, "", strict, {"assign": assign, "plan": plan}, missing, unexpected, errors, visited)
    if strict:
        known = set(unexpected)
        expected = _expected(visited)
        unexpected += [key for key in given if key not in expected and key not in known]
    result = IncompatibleKeys(missing, unexpected)
    if errors or (strict and (missing or unexpected)):
        raise RuntimeError(_message(type(module).__name__, result if strict else None, errors, given, visited))
    for step in plan:
        step()
    for m, _ in reversed(visited):
        for hook, _flags in m._hooks.get("load_state_dict_post", {}).values():
            if hook(m, result) is not None:
                raise RuntimeError("a load_state_dict post-hook must return None; it may edit the keys it is given")
    return result


def _visit(
    module: Module,
    given: dict,
    prefix: str,
    strict: bool,
    metadata: dict,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
    visited: list,
) -> None:
    visited.append((module, prefix))
    arguments = (given, prefix, metadata, strict, missing, unexpected, errors)
    for hook, _ in module._hooks.get("load_state_dict_pre", {}).values():
        hook(module, *arguments)
    module._load_from_state_dict(*arguments)
    for name, child in module._modules.items():
        if child is not None:
            _visit(child, given, f"{prefix}{name}.", strict, metadata, missing, unexpected, errors, visited)


def _expected(visited: Iterable) -> set[str]:
    """Every name that the modules visited have a place for."""
    names: set[str] = set()
    for module, prefix in visited:
        names.update(prefix + name for name in module._state_names())
    return names


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _message(name: str, keys: IncompatibleKeys | None, errors: list[str], given: dict, visited: list) -> str:
    lines = [f"load_state_dict: the state_dict does not fit {name} (nothing was loaded):"]
    if keys is not None:
        if keys.missing_keys:
            lines.append(f"missing key(s): {_quoted(keys.missing_keys)}")
        if keys.unexpected_keys:
            lines.append(f"unexpected key(s): {_quoted(keys.unexpected_keys)}")
    lines += errors
    if keys is not None and keys.unexpected_keys:
        lines += _hints(keys, set(given), _expected(visited))
    return "\n    ".join(lines)


def _hints(keys: IncompatibleKeys, given: set[str], expected: set[str]) -> list[str]:
    """A prefix too many or too few, or names that nearly agree."""
    for prefix in sorted({key[: key.index(".") + 1] for key in given if "." in key}):
        if all(key.startswith(prefix) for key in given) and {key[len(prefix) :] for key in given} & expected:
            return [
                f'every key starts with "{prefix}", which this module\'s names do not: strip it with '
                f'{{key.removeprefix("{prefix}"): value for key, value in state_dict.items()}}'
            ]
    for prefix in sorted({key[: key.index(".") + 1] for key in expected if "." in key}):
        if all(key.startswith(prefix) for key in expected) and {prefix + key for key in given} & expected:
            return [
                f'this module\'s names all start with "{prefix}", the keys do not: load into its '
                f'"{prefix[:-1]}", or add the prefix'
            ]
    hints = []
    for key in keys.unexpected_keys[:20]:
        import difflib

        near = difflib.get_close_matches(key, keys.missing_keys, n=1, cutoff=0.8)
        if near:
            hints.append(f'"{key}": did you mean "{near[0]}"?')
    return hints[:5]
