"""CUDA devices, simulated ones, and kernels of one's own."""

from __future__ import annotations

from ..backend.sim import set_sim_device_count, sim_device_count
from . import streams
from .launch import Kernel, kernel
from .persistent import persistent_limits
from .precision import allow_tf32, set_allow_tf32
from .streams import *  # noqa: F403

__all__ = [
    "Kernel", "allow_tf32", "device_count", "is_available", "kernel", "persistent_limits", "set_allow_tf32",
    "set_sim_device_count", "sim_device_count", *streams.__all__,
]  # fmt: skip


def device_count() -> int:
    """How many GPUs can be used; 0 without a driver or without CuPy.

    >>> import cuframe as cf
    >>> cf.cuda.device_count() >= 0
    True
    """
    from ..backend import backend_for

    try:
        return backend_for("cuda").count  # type: ignore[attr-defined]
    except RuntimeError:
        return 0


def is_available() -> bool:
    """True if device `cuda` can be used here.

    >>> import cuframe as cf
    >>> cf.cuda.is_available() == (cf.cuda.device_count() > 0)
    True
    """
    return device_count() > 0
