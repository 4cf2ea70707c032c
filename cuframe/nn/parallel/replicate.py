"""Copies of a module on several devices, whose gradients flow back to the module.

Note [Copies that last]
    A copy of a parameter or buffer is kept until what it was copied from is written or replaced, which
    `autograd.versions` knows: evaluation copies the weights once, and so does a step that runs forward several times.
    A copy is never written by us, so graphs that have saved it stay valid; one that somebody else wrote, such as the
    running statistics on the second device, is made anew. What is written past cuframe, through `tensor.array`, is not
    seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ...autograd import versions
from ...autograd.graph import Op
from ...backend import Device, backend_for
from ...ops.convert import move
from ...sparse import SparseGrad
from ...tensor import Parameter, Tensor, record_outputs
from ..module import Module
from .scatter import different_devices

__all__ = ["Copies", "replicate"]


class Copies:
    """The copies that were made last; see Note [Copies that last]."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, Device], tuple[Any, int, Any, int]] = {}

    def __reduce__(self) -> Any:
        return Copies, ()  # a copied model has tensors of its own

    def of(self, array: Any, where: Device) -> Any:
        """`array` on `where`."""
        key = (id(array), where)
        source, version, made, written = self._kept.get(key, (None, 0, None, 0))
        if source is not array or version != versions.version(array) or written != versions.version(made):
            made = move(Tensor(array), where).array
            self._kept[key] = (array, versions.version(array), made, versions.version(made))
        return made

    def keep_only(self, arrays: Sequence[Any]) -> None:
        """Drop the copies of all other arrays."""
        alive = {id(a) for a in arrays}
        for key in [k for k in self._kept if k[0] not in alive]:
            del self._kept[key]


# -- tensors ------------------------------------------------------------------------------------------------------
def _home(part: Any, where: Device) -> Any:
    if isinstance(part, Tensor):
        return move(part, where)
    if isinstance(part, SparseGrad):
        rows, data = _home(part.rows, where), _home(part.data, where)
        return SparseGrad(rows, data, part.shape, part.is_coalesced())
    return move(Tensor(part), where).array


def _broadcast_vjp(g: list, needs: tuple, where: Device) -> tuple:
    total = None
    with backend_for(where).on(where):
        for part in g:  # in the order of devices, so that the sum has the same bits in every run
            if part is not None:
                part = _home(part, where)
                total = part if total is None else total + part
    return (total,)


_BROADCAST = Op("broadcast", _broadcast_vjp, (None,))


def _broadcast(t: Tensor, devices: Sequence[Device], copies: Copies, detach: bool) -> list[Tensor]:
    """`t` on each device; on the one where it lives, on its memory."""
    here = t.device
    arrays = tuple([t.array if d == here else copies.of(t.array, d) for d in devices])
    if detach:
        return [Tensor(a) for a in arrays]
    return record_outputs(arrays, _BROADCAST, (t,), (here,))


def _parameter(t: Tensor) -> Parameter:
    """The same tensor, known to `parameters()`; it belongs to the graph, so it is no leaf."""
    made = Parameter.__new__(Parameter)
    made.array, made.node = t.array, t.node
    return made


# -- modules ------------------------------------------------------------------------------------------------------
def replicate(network: Module, devices: Sequence[Any], detach: bool = False) -> list[Module]:
    """A copy of a module for each device: parameters and buffers are copied, all other attributes shared.

    The copy on the module's own device has its parameters and buffers on the memory of the module's. Gradients flow
    back and are summed in the order of devices. Submodules and parameters that occur twice do so in the copies, and
    `parameters()` of a copy gives its own, which are results of the copying and not leaves.

    Args:
        network: the module, on one device.
        devices: numbers count those of the kind that the module is on.
        detach: cut the copies off the graph.

    Returns:
        One module for each device.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> cf.cuda.set_sim_device_count(2)
    >>> a, b = nn.parallel.replicate(nn.Linear(2, 1).to("sim:0"), ["sim:0", "sim:1"])
    >>> b(cf.ones(3, 2, device="sim:1")).device
    device(type='sim', index=1)
    >>> cf.cuda.set_sim_device_count(1)
    """
    first = next(itertools.chain(network.parameters(), network.buffers()), None)
    where = different_devices("replicate", devices, None if first is None else first.device)
    return replicas(network, where, Copies(), detach)


def replicas(network: Module, devices: Sequence[Device], copies: Copies, detach: bool = False) -> list[Module]:
    """As `replicate`, with the copies that were made before where they are still good."""
    parameters, buffers = list(network.parameters()), list(network.buffers())
    spread: dict[int, list[Tensor]] = {}
    for p in parameters:
        spread[id(p)] = [_parameter(t) for t in _broadcast(p, devices, copies, detach)]
    for b in buffers:
        spread[id(b)] = _broadcast(b, devices, copies, detach)
    copies.keep_only([t.array for t in (*parameters, *buffers)])
    modules = list(network.modules())
    return [_replica(modules, {k: tensors[i] for k, tensors in spread.items()}) for i in range(len(devices))]


def _replica(modules: list[Module], tensors: dict[int, Tensor]) -> Module:
    """The first of `modules` with what is below it, and these tensors in the place of those with the ids."""
    twins = {id(m): object.__new__(type(m)) for m in modules}
    for m in modules:
        own = dict(m.__dict__)
        for table in ("_parameters", "_buffers"):
            own[table] = {name: None if t is None else tensors[id(t)] for name, t in own[table].items()}
        own["_modules"] = {name: None if c is None else twins[id(c)] for name, c in own["_modules"].items()}
        twins[id(m)].__dict__.update(own)
    return twins[id(modules[0])]
