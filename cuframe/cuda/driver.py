"""The CUDA driver through CuPy: loading cubins and launching them on CuPy's arrays and streams.

All that cuframe asks of CuPy beyond its arrays is in this file and `streams`, so that it can be checked against the
installed CuPy, and run in tests against a recording stand-in, where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from cuframe.cuda import clusters
from cuframe.cuda.compile import compile_kernel
from cuframe.cuda.launch import CLUSTERS
from cuframe.cuda.sources import Source

__all__ = ["CudaLauncher"]

# cudaDevAttr numbers
_MULTIPROCESSORS = 16
_SHARED_OPTIN = 97
_MAJOR, _MINOR = 75, 76
# shared memory a block may have without asking
_SHARED_DEFAULT = 48 * 1024


class CudaLauncher:
    """Launches kernels on CuPy arrays."""

    def __init__(self, cupy: Any) -> None:
        from cupy_backends.cuda.api import driver, runtime

        # CuPy makes an object of each array's flags when they are asked for, which takes four times as long
        self.look = attrgetter("dtype", "size", "_c_contiguous", "data.device_id")
        self.device = attrgetter("data.device_id")
        self.address = attrgetter("data.ptr")
        self._cupy = cupy
        self._driver = driver
        self._runtime = runtime
        self._stream = cupy.cuda.get_current_stream
        self._facts: dict[tuple[int, int], int] = {}

    def stream(self, device: int) -> int:
        with self._cupy.cuda.Device(device):
            return self._stream().ptr

    def fact(self, device: int, attribute: int) -> int:
        """A number the driver tells about a device; asked once."""
        key = (device, attribute)
        if key not in self._facts:
            self._facts[key] = self._runtime.deviceGetAttribute(attribute, device)
        return self._facts[key]

    def arch(self, device: int) -> str:
        """The architecture name of a device, "sm_90"."""
        return f"sm_{self.fact(device, _MAJOR)}{self.fact(device, _MINOR)}"

    def facts(self, device: int) -> tuple[str, int, int]:
        return self.arch(device), self.fact(device, _MULTIPROCESSORS), self.fact(device, _SHARED_OPTIN)

    def load(self, source: Source, expression: str, device: int, options: tuple[str, ...],
             siblings: Sequence[str] = ()) -> _Function:
        binary = compile_kernel(source, expression, self.arch(device), options, siblings=siblings)
        with self._cupy.cuda.Device(device):
            module = self._driver.moduleLoadData(binary.cubin)
            function = self._driver.moduleGetFunction(module, binary.symbol)
        return _Function(self, expression, device, module, function)


class _Function:
    """A kernel instance in a device's memory; modules are never unloaded."""

    def __init__(self, launcher: CudaLauncher, name: str, device: int, module: int, function: int) -> None:
        self._launcher = launcher
        self._name = name
        self._device = device
        self._module = module
        self._function = function
        self._launch = launcher._driver.launchKernel
        self._current_stream = launcher._stream
        self._current_device = launcher._runtime.getDevice
        self._shared = _SHARED_DEFAULT
        self._resident: dict[tuple[int, int], int] = {}

    def __call__(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int, params: int,
                 cooperative: int) -> None:
        if self._current_device() != self._device:
            with self._launcher._cupy.cuda.Device(self._device):
                return self(grid, block, shared, params, cooperative)
        if shared > self._shared:
            self._raise_shared(shared)
        if cooperative == CLUSTERS:
            clusters.launch(self._function, grid, block, shared, self._current_stream().ptr, params, self._name)
        elif cooperative:
            self._check_resident(grid, block, shared)
            self._launcher._driver.launchCooperativeKernel(self._function, *grid, *block, shared,
                                                           self._current_stream().ptr, params)
        else:
            self._launch(self._function, *grid, *block, shared, self._current_stream().ptr, params, 0)
        return None

    def _raise_shared(self, shared: int) -> None:
        driver = self._launcher._driver
        limit = self._launcher.fact(self._device, _SHARED_OPTIN)
        if shared > limit:
            raise ValueError(f"{self._name}: {shared} bytes of shared memory a block asked for, "
                             f"device {self._device} has {limit}")
        driver.funcSetAttribute(self._function, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        self._shared = shared

    def _check_resident(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int) -> None:
        """A block that cannot run beside the others would leave them waiting forever."""
        threads = block[0] * block[1] * block[2]
        key = (threads, shared)
        if key not in self._resident:
            each = self._launcher._driver.occupancyMaxActiveBlocksPerMultiprocessor(self._function, threads, shared)
            self._resident[key] = each * self._launcher.fact(self._device, _MULTIPROCESSORS)
        blocks = grid[0] * grid[1] * grid[2]
        if blocks > self._resident[key]:
            raise ValueError(f"{self._name}: {blocks} cooperating blocks of {threads} threads and {shared} bytes of "
                             f"shared memory, device {self._device} holds {self._resident[key]} at once")
