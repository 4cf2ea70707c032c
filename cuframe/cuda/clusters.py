"""Launches whose rows of blocks are clusters: `cuLaunchKernelEx`, which CuPy does not offer, through ctypes."""

from __future__ import annotations

import ctypes
from functools import lru_cache

__all__ = ["Attribute", "Config", "launch"]

_CLUSTER_DIMENSION = 4  # of CUlaunchAttributeID


class Attribute(ctypes.Structure):
    """CUlaunchAttribute: its number, and 64 bytes of which a cluster's size takes three numbers."""

    _fields_ = [("id", ctypes.c_int), ("_pad", ctypes.c_int), ("value", ctypes.c_uint * 16)]


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
                ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(Attribute)), ("count", ctypes.c_uint)]


@lru_cache(1)
def _driver() -> ctypes.CDLL:
    """The driver's library, which is loaded already where there are arrays of a GPU."""
    library = ctypes.CDLL("libcuda.so.1")
    library.cuLaunchKernelEx.argtypes = [ctypes.POINTER(Config), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    library.cuGetErrorName.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    return library


def launch(function: int, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int, stream: int,
           params: int, name: str) -> None:
    """Launch `function`, a row of `grid` a cluster; `params` is the address of pointers to its arguments.

    Raises:
        RuntimeError: the driver refuses; the message has its reason.
    """
    attribute = Attribute(_CLUSTER_DIMENSION)
    attribute.value[:3] = grid[0], 1, 1
    config = Config(grid, block, shared, stream, ctypes.pointer(attribute), 1)
    driver = _driver()
    error = driver.cuLaunchKernelEx(ctypes.byref(config), function, params, None)
    if error:
        reason = ctypes.c_char_p()
        driver.cuGetErrorName(error, ctypes.byref(reason))
        raise RuntimeError(f"{name}: clusters of {grid[0]} blocks with {shared} bytes of shared memory each: "
                           f"{(reason.value or b'').decode()} ({error})")
