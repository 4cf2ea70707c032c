"""What the NVIDIA driver says of itself and its GPUs, through ctypes alone.

Standard library only: the Makefile runs this file by itself, before anything is installed, to choose the CUDA
extra.
"""

import ctypes
import sys
from dataclasses import dataclass

_LIBCUDA = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
_LIBNVML = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True)
class Gpu:
    """One GPU, numbered as CUDA numbers it; `free_bytes` is None where NVML is not to be had."""

    index: int
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int | None


@dataclass(frozen=True)
class Driver:
    """The driver: newest CUDA it runs, own version (None without NVML), GPUs, and why there are none."""

    cuda: tuple[int, int]
    version: str | None
    gpus: tuple[Gpu, ...]
    problem: str | None

    @property
    def extra(self) -> str | None:
        """The cuframe extra that fits this driver, or None where CUDA cannot be used."""
        if not self.gpus or self.cuda[0] < 12:
            return None
        return "cuda13" if self.cuda[0] >= 13 else "cuda12"


class _NvmlMemory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_uint64), ("free", ctypes.c_uint64), ("used", ctypes.c_uint64)]


def find_driver() -> Driver | None:
    """Return what the installed driver reports, or None where there is no usable libcuda."""
    cuda = _load(_LIBCUDA)
    if cuda is None:
        return None
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    version = (number.value // 1000, number.value % 1000 // 10)
    nvml = _load(_LIBNVML)
    if nvml is not None and nvml.nvmlInit_v2() != 0:
        nvml = None
    try:
        status = cuda.cuInit(0)
        if status != 0:
            why = "it sees no GPU" if status == _NO_DEVICE else f"cuInit failed with CUDA error {status}"
            return Driver(version, _nvml_version(nvml), (), why)
        count = ctypes.c_int()
        cuda.cuDeviceGetCount(ctypes.byref(count))
        gpus = tuple(_gpu(cuda, nvml, i) for i in range(count.value))
        return Driver(version, _nvml_version(nvml), gpus, None if gpus else "it sees no GPU")
    finally:
        if nvml is not None:
            nvml.nvmlShutdown()


def _load(names: tuple[str, ...]) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _gpu(cuda: ctypes.CDLL, nvml: ctypes.CDLL | None, index: int) -> Gpu:
    device, value, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    capability = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    bus_id = ctypes.create_string_buffer(32)
    cuda.cuDeviceGetPCIBusId(bus_id, len(bus_id), device)
    return Gpu(
        index,
        name.value.decode(errors="replace"),
        (capability[0], capability[1]),
        total.value,
        _free_bytes(nvml, bus_id.value),
    )


def _free_bytes(nvml: ctypes.CDLL | None, bus_id: bytes) -> int | None:
    # NVML counts free memory without a CUDA context, and by bus id because it ignores CUDA_VISIBLE_DEVICES.
    if nvml is None:
        return None
    handle, memory = ctypes.c_void_p(), _NvmlMemory()
    if nvml.nvmlDeviceGetHandleByPciBusId_v2(ctypes.c_char_p(bus_id), ctypes.byref(handle)) != 0:
        return None
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
        return None
    return memory.free


def _nvml_version(nvml: ctypes.CDLL | None) -> str | None:
    buffer = ctypes.create_string_buffer(96)
    if nvml is None or nvml.nvmlSystemGetDriverVersion(buffer, len(buffer)) != 0:
        return None
    return buffer.value.decode(errors="replace")


if __name__ == "__main__":
    found = find_driver()
    if found is not None and found.extra is not None:
        print(found.extra)
    elif found is not None:
        reason = found.problem or f"it runs CUDA {found.cuda[0]}.{found.cuda[1]}, cuframe needs 12 or newer"
        print(f"NVIDIA driver found but not used: {reason}", file=sys.stderr)
