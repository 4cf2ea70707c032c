"""DataParallel: one model on several devices of one process, each with its part of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...backend import Device, backend_for
from ...cuda import is_available
from ...tensor import Tensor
from ..module import Module
from .gather import gather
from .parallel_apply import parallel_apply
from .replicate import Copies, replicas
from .scatter import as_device, different_devices, moved, scatter_arguments

__all__ = ["DataParallel", "data_parallel"]


class DataParallel(Module):
    """Run a module on several devices of this process, each with its part of the batch.

    Forward cuts the arguments into one part for each device, copies the module there, runs all copies at the same time,
    each in a thread, and joins what they return. Backward sums the gradients of the copies, in the order of devices,
    into those of the module: with a loss of the joined outputs they are those of the whole batch.

    Tensors among the arguments are cut along `dim`, packed sequences by their sequences, within tuples, lists and dicts
    as well; everything else is shared by the copies. Of a batch smaller than the number of devices each gets one
    sample. Outputs are joined along `dim`; 0-d ones become a vector with one number for each device. Modules that pad
    packed sequences inside of forward need `pad_packed_sequence(..., total_length=)`, or the parts differ in length.

    The copies are made for one forward, and what it assigns to their attributes is lost. The first has its parameters
    and buffers on the memory of the module's, so what it writes there in place lasts: BatchNorm's statistics are those
    of the first device's part. Hooks run once for each device. Names in the `state_dict` begin with `module.`.

    A subclass may do a step otherwise: `scatter`, `replicate`, `parallel_apply` or `gather`.

    Args:
        module: its parameters and buffers must be on the first of the devices when it is called.
        device_ids: devices, or numbers of the kind that the module is on (GPUs if it is on the CPU); by default all of
            that kind. With one device, and on the CPU where there are no GPUs, the module is simply called.
        output_device: where the output is joined; by default on the first device.
        dim: the dimension of the batch.

    Raises:
        RuntimeError: in forward, a parameter or buffer is elsewhere than on the first device. Its name is told.
        Exception: in forward, what a copy has raised, with its number and device.

    Deterministic: threads change no result, and random numbers are drawn from a stream for each copy.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> cf.cuda.set_sim_device_count(2)
    >>> model = nn.DataParallel(nn.Linear(2, 1).to("sim"), dim=0)
    >>> model(cf.ones(3, 2)).shape, list(model.state_dict())
    (cuframe.Size([3, 1]), ['module.weight', 'module.bias'])
    >>> cf.cuda.set_sim_device_count(1)
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(f"DataParallel: module must be a Module, got {type(module).__name__}")
        if device_ids is not None:
            different_devices("DataParallel", device_ids, Device("cpu"))  # refuses what names no devices
        self.module = module
        self.dim = dim
        self._device_ids = device_ids
        self._output_device = output_device
        self._copies = Copies()

    @property
    def device_ids(self) -> list[Device]:
        """The devices; none where the module is simply called."""
        return _devices(self.module, self._device_ids)

    @property
    def output_device(self) -> Device | None:
        """Where outputs are joined."""
        devices = self.device_ids
        if not devices:
            return None
        return devices[0] if self._output_device is None else as_device("DataParallel", self._output_device, devices[0])

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        devices = self.device_ids
        if not devices:
            return self.module(*inputs, **kwargs)
        self._check_place(devices[0])
        parts, kwargs_parts = self.scatter(inputs, kwargs, devices)
        target = as_device("DataParallel", self.output_device, devices[0])
        if len(devices) == 1:
            return moved(parallel_apply([self.module], parts, kwargs_parts, devices)[0], target)
        replicas = self.replicate(self.module, devices[: len(parts)])
        return self.gather(self.parallel_apply(replicas, parts, kwargs_parts), target)

    def _check_place(self, first: Device) -> None:
        for what, t in _named_state(self.module):
            if t.device != first:
                raise RuntimeError(
                    f"DataParallel: {what} is on {t.device}; all parameters and buffers must be on {first}, the first "
                    f"of device_ids: move the module there with .to({str(first)!r})"
                )

    # -- the steps of forward, which a subclass may do otherwise ------------------------------------------------
    def scatter(self, inputs: tuple, kwargs: dict[str, Any], device_ids: Sequence[Device]) -> tuple[tuple, tuple]:
        """The positional and the keyword arguments of each device: two tuples of one length."""
        parts = scatter_arguments(inputs, kwargs, device_ids, self.dim)
        return tuple(args for args, _ in parts), tuple(options for _, options in parts)

    def replicate(self, module: Module, device_ids: Sequence[Device]) -> list[Module]:
        """A copy of the module for each device that has a part; see `nn.parallel.replicate`."""
        return replicas(module, device_ids, self._copies)

    def parallel_apply(
        self, replicas: Sequence[Module], inputs: Sequence[Any], kwargs: Sequence[dict[str, Any]]
    ) -> list[Any]:
        """What the copies return; see `nn.parallel.parallel_apply`."""
        return parallel_apply(replicas, inputs, kwargs, self.device_ids[: len(replicas)])

    def gather(self, outputs: Sequence[Any], output_device: Device) -> Any:
        """The outputs joined; see `nn.parallel.gather`."""
        return gather(outputs, output_device, self.dim)

    def extra_repr(self) -> str:
        return "" if self._device_ids is None else f"device_ids={[str(d) for d in self.device_ids]}"


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[Any] | None = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """What `nn.DataParallel` does in one call.

    Args:
        module: the module.
        inputs: its positional arguments as a tuple, or the only one.
        device_ids, output_device, dim: as of `nn.DataParallel`.
        module_kwargs: its keyword arguments.

    Returns:
        The joined output.

    Raises:
        RuntimeError: a parameter or buffer is elsewhere than on the first device.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> cf.cuda.set_sim_device_count(2)
    >>> nn.parallel.data_parallel(nn.Linear(2, 1).to("sim"), cf.ones(3, 2), [0, 1]).shape
    cuframe.Size([3, 1])
    >>> cf.cuda.set_sim_device_count(1)
    """
    args = inputs if isinstance(inputs, tuple) else () if inputs is None else (inputs,)
    return DataParallel(module, device_ids, output_device, dim)(*args, **(module_kwargs or {}))


def _devices(module: Module, given: Sequence[Any] | None) -> list[Device]:
    """The devices that `device_ids` means; none where the module is on the CPU and there are no GPUs."""
    first = next((t for _, t in _named_state(module)), None)
    numbered = given is None or any(isinstance(d, int) for d in given)
    if numbered and (first is None or backend_for(first.device).host):
        if not is_available():
            return []
        like = Device("cuda")
    else:
        like = Device("cpu") if first is None else first.device
    return backend_for(like).devices() if given is None else different_devices("DataParallel", given, like)


def _named_state(module: Module) -> Iterator[tuple[str, Tensor]]:
    for name, p in module.named_parameters():
        yield f"parameter {name!r}", p
    for name, b in module.named_buffers():
        yield f"buffer {name!r}", b
