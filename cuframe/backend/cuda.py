"""CUDA devices through CuPy. CuPy is imported at first use, never by `import cuframe`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from ._cupy_bfloat16 import mend
from .base import Backend, Device, register_backend

__all__ = ["CudaBackend"]


class CudaBackend(Backend):
    """CuPy arrays."""

    name = "cuda"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            from .._paths import install_command

            raise RuntimeError(
                f"device 'cuda' needs CuPy: {install_command('cuda12')} (or the extra cuda13 for a CUDA 13 driver)"
            ) from error
        try:
            self.count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise RuntimeError(f"device 'cuda': no usable GPU here ({error}); `cuframe info` shows why") from error
        mend(cupy)
        self.xp = cupy
        self.array_type = cupy.ndarray
        from ..cuda.driver import CudaLauncher
        from ..cuda.launch import register_launcher

        register_launcher(cupy.ndarray, CudaLauncher(cupy))

    def _check(self, where: Device) -> int:
        index = where.index or 0
        if index >= self.count:
            raise RuntimeError(f"device '{where}': this machine has {self.count} GPU(s)")
        return index

    def device_of(self, array: Any) -> Device:
        return Device("cuda", array.device.id)

    def devices(self) -> list[Device]:
        return [Device("cuda", i) for i in range(self.count)]

    def current(self) -> Device:
        return Device("cuda", self.xp.cuda.runtime.getDevice())

    def use(self, where: Device) -> None:
        self.xp.cuda.Device(self._check(where)).use()

    def follow(self, array: Any) -> None:
        index = array.data.device_id
        if self.xp.cuda.runtime.getDevice() != index:
            self.xp.cuda.Device(index).use()

    def on(self, where: Device) -> AbstractContextManager:
        index = self._check(where)
        return self._entered(index, self.xp.cuda.get_current_stream(index))

    @contextmanager
    def _entered(self, index: int, stream: Any) -> Iterator[None]:
        with self.xp.cuda.Device(index), stream:
            yield

    def from_host(self, array: np.ndarray, where: Device) -> Any:
        with self.xp.cuda.Device(self._check(where)):
            return self.xp.asarray(array)

    def empty(self, shape: tuple, dtype: np.dtype, where: Device) -> Any:
        with self.xp.cuda.Device(self._check(where)):
            return self.xp.empty(shape, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        return self.xp.asnumpy(array)

    def copy_to(self, array: Any, where: Device) -> Any:
        index, source = self._check(where), array.device.id
        if source == index:
            return array
        # a copy between two GPUs is ordered with neither one's stream but the one it is given to
        cuda = self.xp.cuda
        with cuda.Device(source):
            array = array if array.flags.c_contiguous else array.copy()
            giving, ready = cuda.get_current_stream(), cuda.Event(disable_timing=True)
            ready.record(giving)
        with cuda.Device(index):
            taking, done = cuda.get_current_stream(), cuda.Event(disable_timing=True)
            taking.wait_event(ready)
            made = self.xp.array(array)
            done.record(taking)
        giving.wait_event(done)  # or the memory could be used anew before it was read
        return made

    def asarray(self, value: Any, like: Any) -> Any:
        with like.device:
            return self.xp.asarray(value)

    def kernel(self, name: str) -> Any:
        from ..gpu import family

        return family(name)

    def matmul(self, a: Any, b: Any) -> Any:
        from ..cuda.gemm import matmul

        return matmul(self.xp, a, b)

    def special(self) -> Any:
        import cupyx.scipy.special

        return cupyx.scipy.special

    def add_at(self, target: Any, index: Any, values: Any) -> None:
        if self.kernel("embedding").takes(values) and values.dtype == target.dtype:
            target += self.sum_at(target.shape, index, values)
        else:
            self.combine_at("add", target, index, values)

    def combine_at(self, ufunc: str, target: Any, index: Any, values: Any) -> None:
        """In 32 bits where CuPy has no narrower atomics."""
        wide = target
        if target.itemsize < 4:
            wide = target.astype(np.int32 if target.dtype.kind in "biu" else np.float32)
        getattr(self.xp, ufunc).at(wide, index, values.astype(wide.dtype, copy=False))
        if wide is not target:
            target[...] = wide.astype(target.dtype)

    def sum_at(self, shape: tuple, index: Any, values: Any) -> Any:
        """Floating-point numbers in a fixed order, which CuPy's atomics do not have."""
        kernel = self.kernel("embedding")
        return kernel.sum_at(shape, index, values) if kernel.takes(values) else super().sum_at(shape, index, values)

    def check_index(self, name: str, argument: str, index: Any, size: int) -> None:
        """Nothing: reading the extremes would make the host wait for the device."""


register_backend("cuda", CudaBackend)
