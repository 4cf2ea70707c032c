"""What an array is and where it lives. Code asks the backend of an array, never the name of a device."""

from . import cpu, cuda, sim  # noqa: F401  (each registers itself)
from .base import (
    Backend,
    Device,
    backend_for,
    backend_of,
    backends_in_use,
    device,
    device_types,
    is_array,
    register_backend,
)

__all__ = [
    "Backend", "Device", "backend_for", "backend_of", "backends_in_use", "device", "device_types", "is_array",
    "register_backend",
]  # fmt: skip
