"""Nested arguments: the tensors in them, moving them, and cutting them into one part for each device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...backend import Device
from ...ops.join import chunk
from ...tensor import Tensor
from ..utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["is_named_tuple", "moved", "rebuilt", "scatter", "scatter_arguments", "tensors_in"]


def is_named_tuple(thing: Any) -> bool:
    return isinstance(thing, tuple) and hasattr(thing, "_fields")


def _leaves(thing: Any) -> Iterator[Tensor | PackedSequence]:
    """All tensors and packed sequences in nested tuples, lists and mappings."""
    if isinstance(thing, (Tensor, PackedSequence)):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from _leaves(value)
    elif isinstance(thing, (tuple, list)):
        for value in thing:
            yield from _leaves(value)


def tensors_in(thing: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings; of packed sequences the data."""
    for leaf in _leaves(thing):
        yield leaf if isinstance(leaf, Tensor) else leaf.data


def rebuilt(thing: Any, values: Iterator[Any] | Sequence[Any]) -> Any:
    """A container of the kind of `thing`, a tuple, list or dict, with other values."""
    if is_named_tuple(thing):
        return type(thing)(*values)
    if isinstance(thing, dict):
        twin = copy.copy(thing)  # also where the type's constructor takes something else
        twin.update(zip(thing, values))
        return twin
    return type(thing)(values)


def _mapped(thing: Any, function: Callable[[Any], Any]) -> Any:
    """The same nest with `function(x)` in the place of each tensor and packed sequence; other things as they are."""
    if isinstance(thing, (Tensor, PackedSequence)):
        return function(thing)
    if isinstance(thing, (tuple, list)):
        return rebuilt(thing, [_mapped(x, function) for x in thing])
    if isinstance(thing, dict):
        return rebuilt(thing, [_mapped(x, function) for x in thing.values()])
    return thing


def moved(thing: Any, device: Device) -> Any:
    """The same nest with its tensors on `device`."""
    return _mapped(thing, lambda t: t.to(device))


# -- in parts -----------------------------------------------------------------------------------------------------
def scatter(inputs: Any, target_gpus: Sequence[Any], dim: int = 0) -> tuple[Any, ...]:
    """Cut nested arguments into parts, one for each device, as `Tensor.chunk` does; gradients flow back.

    Args:
        inputs: tensors are cut along `dim` and moved, packed sequences by their sequences; tuples, lists and dicts are
            rebuilt around the parts; all else is shared.
        target_gpus: devices; numbers count those of the kind that the first tensor is on.
        dim: the dimension of the batch.

    Returns:
        One part for each device, fewer where the batch does not suffice; a copy for each where there is no tensor.

    Raises:
        ValueError: no devices; or tensors give different numbers of parts.
        RuntimeError: a 0-d tensor, which cannot be cut.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> cf.cuda.set_sim_device_count(2)
    >>> a, b = nn.parallel.scatter({"x": cf.tensor([1, 2, 3]), "flag": True}, ["sim:0", "sim:1"])
    >>> b
    {'x': tensor([3], device='sim:1'), 'flag': True}
    >>> cf.cuda.set_sim_device_count(1)
    """
    first = next(tensors_in(inputs), None)
    return _scatter(inputs, as_devices("scatter", target_gpus, None if first is None else first.device), dim)


def as_devices(name: str, given: Sequence[Any], like: Device | None) -> list[Device]:
    """Devices by name or, as numbers, of the kind of `like`."""
    if not given:
        raise ValueError(f"{name}: expected at least one device, got {given!r}")
    return [as_device(name, d, like) for d in given]


def different_devices(name: str, given: Sequence[Any], like: Device | None) -> list[Device]:
    found = as_devices(name, given, like)
    if len(set(found)) < len(found):
        raise ValueError(f"{name}: devices must differ, got {[str(d) for d in found]}")
    return found


def as_device(name: str, given: Any, like: Device | None) -> Device:
    if isinstance(given, bool) or not isinstance(given, (int, str, Device)):
        raise TypeError(f"{name}: expected devices, their names or numbers, got {type(given).__name__}")
    if not isinstance(given, int):
        return Device(given)
    return Device("cuda" if like is None or like.index is None else like.type, given)


def scatter_arguments(args: tuple, kwargs: dict, devices: Sequence[Device], dim: int) -> list[tuple[tuple, dict]]:
    """The arguments of each device's call; of one alone where there are none."""
    if not args and not kwargs:
        return [((), {})]
    return list(_scatter((args, kwargs), devices, dim))


def _scatter(thing: Any, devices: Sequence[Device], dim: int) -> tuple[Any, ...]:
    parts: dict[int, list[Any]] = {}
    for t in _leaves(thing):
        if id(t) not in parts:
            cut: Callable = _packed_parts if isinstance(t, PackedSequence) else _parts
            parts[id(t)] = [part.to(device) for part, device in zip(cut(t, len(devices), dim), devices)]
    counts = sorted({len(p) for p in parts.values()})
    if len(counts) > 1:
        raise ValueError(
            f"scatter: all tensors must give the same number of parts along dim {dim} for {len(devices)} devices, "
            f"got {', '.join(map(str, counts[:-1]))} and {counts[-1]}: their sizes do not fit each other"
        )
    count = counts[0] if counts else len(devices)
    return tuple(_mapped(thing, lambda t, i=i: parts[id(t)][i]) for i in range(count))  # type: ignore[misc]


def _parts(t: Any, count: int, dim: int) -> Sequence[Tensor]:
    if not t.ndim:
        raise RuntimeError("scatter: a 0-d tensor cannot be cut into parts; pass a number, or t.expand(batch)")
    return chunk(t, count, dim)


def _packed_parts(packed: Any, count: int, dim: int) -> Iterator[PackedSequence]:
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    for x, sizes in zip(chunk(padded, count), chunk(lengths, count)):
        longest = int(sizes.array.max())
        yield pack_padded_sequence(x[:, :longest], sizes, True, enforce_sorted=packed.sorted_indices is None)
