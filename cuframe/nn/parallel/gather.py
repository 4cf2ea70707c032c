"""Joining what the devices give."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...backend import Device, backend_for
from ...ops.join import cat, stack
from ...tensor import Tensor
from ..utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from .scatter import as_device, is_named_tuple, rebuilt, tensors_in

__all__ = ["gather"]


def gather(outputs: Sequence[Any], target_device: Any, dim: int = 0) -> Any:
    """Join the outputs of the devices on one device; gradients flow back to each.

    Args:
        outputs: one for each device, all built alike: tensors are joined along `dim`, 0-d tensors become a vector,
            packed sequences one; tuples, lists, dicts and dataclasses are rebuilt; None, numbers and text must be
            equal.
        target_device: where the result is; a number counts devices of the kind that the first tensor is on.
        dim: the dimension of the batch.

    Raises:
        ValueError: outputs are not built alike.
        RuntimeError: tensors differ in shape elsewhere than in `dim`.
        TypeError: something else than these among the outputs.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> cf.cuda.set_sim_device_count(2)
    >>> parts = [{"loss": cf.tensor(1.0, device=d), "y": cf.ones(2, device=d)} for d in ("sim:0", "sim:1")]
    >>> nn.parallel.gather(parts, "cpu")
    {'loss': tensor([1., 1.]), 'y': tensor([1., 1., 1., 1.])}
    >>> cf.cuda.set_sim_device_count(1)
    """
    if not outputs:
        raise ValueError("gather: expected at least one output, got none")
    first = next(tensors_in(outputs), None)
    where = as_device("gather", target_device, None if first is None else first.device)
    with backend_for(where).on(where):
        return _joined(list(outputs), where, dim, "the output")


def _joined(outs: list[Any], where: Device, dim: int, path: str) -> Any:
    first = outs[0]
    strange = next((i for i, o in enumerate(outs) if not isinstance(o, type(first))), 0)
    if strange:
        raise ValueError(
            f"gather: {path} of replica {strange} is of type {type(outs[strange]).__name__}, "
            f"that of replica 0 of type {type(first).__name__}"
        )
    if isinstance(first, Tensor):
        return _tensors(outs, where, dim, path)
    if isinstance(first, PackedSequence):
        return _packed(outs, where)
    if isinstance(first, dict):
        for i, o in enumerate(outs):
            if o.keys() != first.keys():
                odd = sorted(map(repr, o.keys() ^ first.keys()))
                raise ValueError(f"gather: {path} of replicas 0 and {i} differ in the keys {', '.join(odd)}")
        return rebuilt(first, [_joined([o[k] for o in outs], where, dim, f"{path}[{k!r}]") for k in first])
    if isinstance(first, (tuple, list)):
        for i, o in enumerate(outs):
            if len(o) != len(first):
                raise ValueError(f"gather: {path} has {len(first)} entries on replica 0 and {len(o)} on replica {i}")
        names = [f"{path}.{f}" for f in first._fields] if is_named_tuple(first) else [  # type: ignore[union-attr]
            f"{path}[{k}]" for k in range(len(first))]
        return rebuilt(first, [_joined([o[k] for o in outs], where, dim, n) for k, n in enumerate(names)])
    if dataclasses.is_dataclass(first):
        names = [f.name for f in dataclasses.fields(first) if f.init]
        values = {n: _joined([getattr(o, n) for o in outs], where, dim, f"{path}.{n}") for n in names}
        return dataclasses.replace(first, **values)  # type: ignore[type-var]
    if all(o is first for o in outs) or (isinstance(first, (int, float, str, bytes)) and outs == [first] * len(outs)):
        return first
    raise TypeError(
        f"gather: {path} is of type {type(first).__name__} and differs between replicas, so it cannot be joined; "
        "return tensors"
    )


def _tensors(outs: list[Tensor], where: Device, dim: int, path: str) -> Tensor:
    moved = [t.to(where) for t in outs]
    if not any(t.ndim for t in moved):
        return stack(moved)
    sizes = [_but(t.shape, dim) for t in moved]
    for i, size in enumerate(sizes):
        if size != sizes[0]:
            raise RuntimeError(
                f"gather: {path} has shape {tuple(moved[0].shape)} on replica 0 and {tuple(moved[i].shape)} on replica "
                f"{i}; they may differ in dim {dim} alone. pad_packed_sequence needs "
                "total_length=, the length of the padded input, to give all replicas the same length"
            )
    return cat(moved, dim)


def _but(shape: tuple, dim: int) -> tuple | None:
    """A shape without what `dim` may differ in."""
    if not -len(shape) <= dim < len(shape):
        return None
    kept = list(shape)
    kept[dim] = -1
    return tuple(kept)


def _packed(outs: list[PackedSequence], where: Device) -> PackedSequence:
    longest = max(o.batch_sizes.shape[0] for o in outs)
    pairs = [pad_packed_sequence(o.to(where), batch_first=True, total_length=longest) for o in outs]
    lengths = cat([n for _, n in pairs])
    in_order = all(o.sorted_indices is None for o in outs) and not (np.diff(lengths.array) > 0).any()
    return pack_padded_sequence(cat([x for x, _ in pairs]), lengths, True, enforce_sorted=in_order)
