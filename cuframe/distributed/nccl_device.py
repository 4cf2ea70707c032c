"""The GPU of a rank as the process group `nccl` uses it: streams, events and pointers, by CuPy."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Device, backend_for

__all__ = ["CudaDevice", "driver_present"]


def driver_present() -> bool:
    """Whether a GPU is likely: asked before CuPy is imported, which takes half a second."""
    return any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl-gpu"))


class CudaDevice:
    """One GPU.

    Args:
        index: of the GPU among those this process sees.

    Raises:
        ValueError: there is no such GPU.
    """

    def __init__(self, index: int) -> None:
        backend = backend_for("cuda")
        self.xp = backend.xp
        count = self.xp.cuda.runtime.getDeviceCount()
        if not 0 <= index < count:
            raise ValueError(f"nccl: there is no GPU {index}; this process sees {count}")
        self.index = index
        self.where = Device("cuda", index)

    @classmethod
    def of_rank(cls, local_rank: int) -> CudaDevice:
        """The GPU of the process with number `local_rank` on its host: that number, or the only one it sees.

        It becomes the current one of this thread.
        """
        count = backend_for("cuda").xp.cuda.runtime.getDeviceCount()
        if local_rank >= count > 1:
            raise ValueError(f"nccl: local rank {local_rank} needs a GPU of its own, but this process sees {count}")
        made = cls(0 if count == 1 else local_rank)
        made.xp.cuda.Device(made.index).use()
        return made

    def identity(self) -> str:
        """The same for two processes exactly if they use one GPU."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {self.xp.cuda.runtime.deviceGetPCIBusId(self.index)}"

    def active(self) -> AbstractContextManager:
        """Make it the current one."""
        return self.xp.cuda.Device(self.index)

    def stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self.xp.cuda.Stream(non_blocking=True)

    def event(self) -> Any:
        return self.xp.cuda.Event(block=False, disable_timing=True)

    def current(self) -> Any:
        """The stream that the caller's work goes to."""
        return self.xp.cuda.get_current_stream()

    def complaint(self, array: Any) -> str | None:
        """What is wrong with the place of an array, None if nothing."""
        if not isinstance(array, self.xp.ndarray):
            return "lives in host memory"
        if array.device.id != self.index:
            return f"lives on cuda:{array.device.id}"
        return None

    def pointer(self, array: Any) -> int:
        return array.data.ptr

    def from_host(self, array: np.ndarray) -> Any:
        with self.active():
            return self.xp.asarray(array)
