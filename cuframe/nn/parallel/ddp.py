"""DistributedDataParallel: one model in several processes, each with its part of the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...autograd.modes import is_grad_enabled
from ...backend import Device
from ...distributed.group import resolve
from ...tensor import Parameter, Tensor
from ..module import Module
from .agreement import broadcast_tensors, verify_parameters
from .buckets import GradBucket, Reducer
from .join import Join
from .scatter import moved, tensors_in

__all__ = ["DistributedDataParallel"]

_MIB = 1 << 20
_NAME = "DistributedDataParallel"


class DistributedDataParallel(Module):
    """Train one model in several processes: gradients are averaged over the ranks during backward.

    Every rank gives its part of the batch to its own copy of the model. With losses that are means over parts of equal
    size, the gradients are those of the mean over the whole batch, the same bits on all ranks. At the start rank 0's
    parameters and buffers go to all.

    Every `.grad` is a view of a bucket, also with `gradient_as_bucket_view=False`: it changes with the next backward,
    so a gradient that is to be kept needs a `clone()`. Each backward after a forward through the wrapper averages.

    Args:
        module: on one device; its parameters must not change afterwards in number, dtype or device.
        device_ids: None, or a list with the module's device: inputs are moved there.
        output_device: where outputs are moved; by default they stay.
        dim: of the batch; kept for its name, a rank has one part only.
        broadcast_buffers: each forward begins with rank 0's buffers.
        init_sync: compare parameters and take over rank 0's at the start.
        process_group: by default the whole job.
        bucket_cap_mb: MiB of gradients that are averaged together.
        find_unused_parameters: a loss may leave parameters out, which then count as zeros; those that no rank used keep
            their `.grad`. Costs a walk through the graph and one small collective a step.
        check_reduction: raise at a forward if the gradients of the one before were not averaged.
        gradient_as_bucket_view: see above.
        static_graph: every backward uses the same parameters, so the first tells which are unused.
        delay_all_reduce_named_params: pairs of name and parameter whose averaging waits for
            param_to_hook_all_reduce: until the gradient of this parameter is there.

    Raises:
        RuntimeError: no process group was joined; no parameter requires a gradient; or the ranks' parameters differ,
            which names the parameter and the rank. In backward: a parameter received no gradient, which is named.
        ValueError: the parameters are on several devices, or `device_ids` does not fit.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> from cuframe import nn
    >>> dist.init_process_group()
    >>> model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
    >>> model(cf.ones(4, 2)).mean().backward()
    >>> model.module.bias.grad
    tensor([1.])
    >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = 25,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        delay_all_reduce_named_params: Sequence[tuple[str, Parameter]] | None = None,
        param_to_hook_all_reduce: Parameter | None = None,
    ) -> None:
        super().__init__()
        self.process_group = resolve(_NAME, process_group)
        if not isinstance(module, Module):
            raise TypeError(f"{_NAME}: module must be a Module, got {type(module).__name__}")
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise RuntimeError(f"{_NAME}: no parameter of the {type(module).__name__} requires a gradient")
        cap = 25.0 if bucket_cap_mb is None else bucket_cap_mb
        if not cap > 0:
            raise ValueError(f"{_NAME}: bucket_cap_mb must be positive, got {cap}")
        devices = sorted({str(p.device) for _, p in named})
        if len(devices) > 1:
            raise ValueError(f"{_NAME}: the module's parameters must be on one device, got {', '.join(devices)}")
        self.device = named[0][1].device
        delayed = self._check_delayed(named, delay_all_reduce_named_params, param_to_hook_all_reduce)
        self.module = module
        self.dim = dim
        self.device_ids = self._check_devices(device_ids)
        self.output_device = None if output_device is None else _device(output_device, self.device)
        self.broadcast_buffers = broadcast_buffers
        self.find_unused_parameters = find_unused_parameters
        self.static_graph = static_graph
        self.gradient_as_bucket_view = gradient_as_bucket_view
        self.check_reduction = check_reduction
        self.require_backward_grad_sync = True
        self.require_forward_param_sync = True
        self.__dict__["_like"] = named[0][1]
        self._buffer_tables = [m._buffers for m in module.modules()]  # to walk through the modules takes longer
        self._joining: Join | None = None
        self._expected = 0
        if init_sync:
            verify_parameters(named, self.process_group)
            if self.process_group.size > 1:
                broadcast_tensors([*module.parameters(), *module.buffers()], 0, self.process_group)
        self._reducer = Reducer(
            named, self.process_group, max(1, int(cap * _MIB)), find_unused_parameters and not static_graph,
            static_graph, delayed, param_to_hook_all_reduce,
        )  # fmt: skip

    def _check_devices(self, device_ids: Sequence[Any] | None) -> list[Device] | None:
        if not device_ids:
            return None
        given = [_device(d, self.device) for d in device_ids]
        if given != [self.device]:
            raise ValueError(
                f"{_NAME}: device_ids must be None or the one device of the module, {self.device}, "
                f"got {[str(d) for d in given]}; start one process for each device"
            )
        return given

    def _check_delayed(
        self, named: Sequence[tuple[str, Tensor]], delayed: Sequence[tuple[str, Tensor]] | None, trigger: Tensor | None
    ) -> list[str]:
        if (delayed is None) != (trigger is None):
            raise ValueError(
                f"{_NAME}: delay_all_reduce_named_params and param_to_hook_all_reduce must be given together"
            )
        names = {id(p): name for name, p in named}
        for name, p in delayed or ():
            if names.get(id(p)) != name:
                raise ValueError(f"{_NAME}: delay_all_reduce_named_params: {name!r} is no such parameter of the module")
        if trigger is not None and id(trigger) not in names:
            raise ValueError(f"{_NAME}: param_to_hook_all_reduce must be a parameter of the module")
        return [name for name, _ in delayed or ()]

    def _buffers_to_share(self) -> list[Tensor]:
        if not self.broadcast_buffers:
            return []
        found = [b for table in self._buffer_tables for b in table.values() if b is not None]
        return list({id(b): b for b in found}.values())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        recording = is_grad_enabled()
        sync = recording and self.require_backward_grad_sync
        alone = self.process_group.size == 1
        share = self._buffers_to_share() if self.require_forward_param_sync and not alone else []
        root = 0
        if self._joining is not None:
            if recording:
                self._joining.round(True, sync, bool(share))
                root = self._joining.root
            else:
                share = []  # the ranks without input do not take part
        if share:
            broadcast_tensors(share, root, self.process_group)
        self.require_forward_param_sync = sync
        reducer = self._reducer
        if recording:
            if self.check_reduction and reducer.sync and reducer.completed < self._expected:
                raise RuntimeError(f"{_NAME}: the gradients of the forward before this were not averaged")
            reducer.arm(sync)
            self._expected = reducer.completed + sync
        if self.device_ids is not None:
            args, kwargs = moved(args, self.device), moved(kwargs, self.device)
        output = self.module(*args, **kwargs)
        if sync and self.find_unused_parameters and not self.static_graph:
            reducer.note_outputs(tensors_in(output))
        return output if self.output_device is None else moved(output, self.output_device)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """A context whose forwards keep their gradients local; the next backward outside averages the sums.

        >>> import cuframe as cf, cuframe.distributed as dist
        >>> from cuframe import nn
        >>> dist.init_process_group()
        >>> model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
        >>> with model.no_sync():
        ...     model(cf.ones(4, 2)).mean().backward()
        >>> model(cf.ones(4, 2)).mean().backward()
        >>> model.module.bias.grad
        tensor([2.])
        >>> dist.destroy_process_group()
        """
        before = self.require_backward_grad_sync
        self.require_backward_grad_sync = False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def join(
        self, divide_by_initial_world_size: bool = True, enable: bool = True, throw_on_early_termination: bool = False
    ) -> Join:
        """A context in which the ranks may have different numbers of batches.

        A rank that has come to its end takes part with zeros in what the others still exchange; at the end all take the
        parameters and buffers of a rank that went on to the last. Layers that communicate by themselves, such as
        SyncBatchNorm, cannot be shadowed: for them, `throw_on_early_termination`.

        Args:
            divide_by_initial_world_size: average over all ranks, also those without input; otherwise over the others.
            enable: False makes the context do nothing.
            throw_on_early_termination: raise on all ranks when one runs out of inputs.

        >>> import cuframe as cf, cuframe.distributed as dist
        >>> from cuframe import nn
        >>> dist.init_process_group()
        >>> model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
        >>> with model.join():
        ...     for x in [cf.ones(4, 2)]:
        ...         model(x).mean().backward()
        >>> dist.destroy_process_group()
        """
        return Join(self, divide_by_initial_world_size, enable, throw_on_early_termination)

    def register_comm_hook(self, state: Any, hook: Callable[[Any, GradBucket], Any]) -> None:
        """Let `hook(state, bucket)` average the gradients; see `cuframe.nn.parallel.hooks`.

        Args:
            state: handed to the hook.
            hook: returns the averaged vector of `bucket.buffer()`, or something whose `wait()` returns it. It must make
                the same collectives on all ranks.

        Raises:
            TypeError: the hook cannot be called.
            RuntimeError: there is a hook already.
        """
        if not callable(hook):
            raise TypeError(f"register_comm_hook: hook must be callable, got {type(hook).__name__}")
        if self._reducer.hook is not None:
            raise RuntimeError("register_comm_hook: there is a hook already")
        self._reducer.hook = (state, hook)


def _device(given: Any, like: Device) -> Device:
    return Device(like.type, given) if isinstance(given, int) else Device(given)
