"""Checkpoints: `save` and `load` (safetensors), `load_torch` (PyTorch's .pt, without torch or pickle)."""

from .files import CheckpointError
from .safetensors_io import load, read_metadata, save
from .torch_pt import load_torch

__all__ = ["CheckpointError", "load", "load_torch", "read_metadata", "save"]
