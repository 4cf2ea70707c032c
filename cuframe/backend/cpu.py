"""Host memory and NumPy: the reference for every operation."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ..cpu import memory
from ..cpu.scatter import add_at, sum_at
from .base import Backend, Device, register_backend

__all__ = ["CpuBackend"]

memory.keep()

# modules of `cuframe.cpu` that do what a family of kernels does on a GPU
_FAMILIES = frozenset((
    "activation", "attention", "conv", "ctc", "norm", "optim", "rnn", "rnn_regularized", "rnn_step", "softmax",
))  # fmt: skip


@cache
def _family(name: str) -> Any:
    return import_module(f"cuframe.cpu.{name}") if name in _FAMILIES else None


class CpuBackend(Backend):
    """NumPy arrays."""

    name = "cpu"
    xp = np
    array_type = np.ndarray
    host = True

    def __init__(self) -> None:
        self._device = Device("cpu")

    def device_of(self, array: Any) -> Device:
        return self._device

    def from_host(self, array: np.ndarray, where: Device) -> np.ndarray:
        return array

    def empty(self, shape: tuple, dtype: np.dtype, where: Device) -> np.ndarray:
        return np.empty(shape, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def copy_to(self, array: Any, where: Device) -> Any:
        return array

    def asarray(self, value: Any, like: Any) -> np.ndarray:
        return np.asarray(value)

    def kernel(self, name: str) -> Any:
        return _family(name)

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        from ..cpu.blas import batched, product

        if a.dtype.itemsize == 2:
            return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
        return product(a, b) if a.ndim == 2 else batched(a, b)

    def matmul_add(self, a: np.ndarray, b: np.ndarray, row: np.ndarray) -> np.ndarray:
        from ..cpu.blas import product

        if a.dtype.itemsize == 2:
            return (np.matmul(a.astype(np.float32), b.astype(np.float32)) + row).astype(a.dtype)
        return product(a, b, None, row)

    def special(self) -> Any:
        import scipy.special

        return scipy.special

    def add_at(self, target: np.ndarray, index: Any, values: Any) -> None:
        add_at(target, index, values)

    def sum_at(self, shape: tuple, index: Any, values: Any) -> np.ndarray:
        return sum_at(shape, index, values)

    def check_index(self, name: str, argument: str, index: np.ndarray, size: int) -> None:
        if index.size:
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= size:
                bad = low if low < 0 else high
                raise IndexError(f"{name}: {argument} must be in [0, {size}), got {bad}")


register_backend("cpu", CpuBackend)
