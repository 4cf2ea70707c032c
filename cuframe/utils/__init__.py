"""Where PyTorch keeps `data`."""

from . import data

__all__ = ["data"]
