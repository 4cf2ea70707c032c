"""Nested arguments: the tensors in them, moving them, cutting them into chunks and joining results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...backend import Device
from ...tensor import Tensor
from ..utils.rnn import PackedSequence

__all__ = ["moved", "tensors_in"]


def _is_named(thing: Any) -> bool:
    return isinstance(thing, tuple) and hasattr(thing, "_fields")


def tensors_in(thing: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from tensors_in(value)
    elif isinstance(thing, (tuple, list)):
        for value in thing:
            yield from tensors_in(value)


def _mapped(thing: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same nest with `function(tensor)` in the place of each tensor; other things as they are."""
    if isinstance(thing, Tensor):
        return function(thing)
    if isinstance(thing, PackedSequence):
        return type(thing)(function(thing.data), *thing[1:])
    if _is_named(thing):
        return type(thing)(*[_mapped(x, function) for x in thing])
    if isinstance(thing, (tuple, list)):
        return type(thing)(_mapped(x, function) for x in thing)
    if isinstance(thing, dict):
        return type(thing)({k: _mapped(v, function) for k, v in thing.items()})
    return thing


def moved(thing: Any, device: Device) -> Any:
    """The same nest with its tensors on `device`."""
    return _mapped(thing, lambda t: t if t.device == device else t.to(device))  # type: ignore[attr-defined]
