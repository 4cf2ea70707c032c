"""Operations that are linear in one tensor: a function of arrays and its transpose, each the other's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor, record
from .define import Op

__all__ = ["LinearMap"]


class LinearMap:
    """`out = A x` with a matrix A that the arguments define, and gradients of any order.

    Args:
        name: of the operation.
        forward: `forward(x, *args)`, A x for a raw array; it must not return `x` or a view of it.
        transpose: `transpose(g, *args)`, the product of A's transpose with a raw array.
    """

    __slots__ = ("back", "forward", "op", "transpose")

    def __init__(self, name: str, forward: Callable[..., Any], transpose: Callable[..., Any]) -> None:
        self.forward = forward
        self.transpose = transpose
        self.op = Op(name, self._vjp, (None,))
        self.back = Op(f"{name}_backward", self._back_vjp, (None,))

    def __call__(self, input: Tensor, *args: Any) -> Tensor:
        return record(self.forward(input.array, *args), self.op, (input,), (args,))

    def record(self, array: Any, input: Tensor, *args: Any) -> Tensor:
        """As a call, where A x (plus constants) has been computed already."""
        return record(array, self.op, (input,), (args,))

    def back_record(self, array: Any, input: Tensor, *args: Any) -> Tensor:
        """As `record`, for the transpose."""
        return record(array, self.back, (input,), (args,))

    def _vjp(self, g: Any, needs: tuple, args: tuple) -> tuple:
        if isinstance(g, Tensor):
            return (record(self.transpose(g.array, *args), self.back, (g,), (args,)),)
        return (self.transpose(g, *args),)

    def _back_vjp(self, g: Any, needs: tuple, args: tuple) -> tuple:
        if isinstance(g, Tensor):
            return (record(self.forward(g.array, *args), self.op, (g,), (args,)),)
        return (self.forward(g, *args),)
