"""Parametrizations in common use."""

from __future__ import annotations

from ...tensor import Tensor
from ..module import Module
from .parametrize import register_parametrization

__all__ = ["weight_norm"]


class _WeightNorm(Module):
    """w = g * v / |v|, with g and v as originals."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def _norm(self, v: Tensor) -> Tensor:
        dims = None if self.dim is None else tuple(i for i in range(v.ndim) if i != self.dim % v.ndim)
        return (v * v).sum(dim=dims, keepdim=dims is not None).sqrt()  # type: ignore[operator]

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """The weight from its length and direction."""
        return v * (g / self._norm(v))  # type: ignore[operator]

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Length and direction of a weight."""
        return self._norm(weight), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train the length and the direction of a weight apart (Salimans and Kingma 2016): w = g * v / |v|.

    Args:
        module: that has the weight.
        name: the parameter's name; g and v are `parametrizations.<name>.original0` and `original1`.
        dim: the norm is taken over all other dimensions; None for all.

    Returns:
        The module.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
