"""How a Tensor prints: as PyTorch prints it."""

from __future__ import annotations

from typing import Any

__all__ = ["tensor_repr"]


def tensor_repr(t: Any) -> str:
    """`tensor([1., 2.], requires_grad=True)`."""
    return f"tensor({t.array!r})"
