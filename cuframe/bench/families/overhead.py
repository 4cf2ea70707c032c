"""What an operation costs besides its arithmetic: two elements, or 8 x 8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..case import FLOATS, Family, Side, Work, moves

__all__ = ["FAMILIES"]

_CALLS = 100  # of one operation in a timed call
_CHAIN = 50


def _operation(function: Callable[[Any, Any], Any]) -> Callable[..., Work]:
    """Recorded: the inputs ask for gradients."""

    def build(side: Side, *sizes: int, variant: str = "") -> Work:
        x, w = (side.floats(*sizes, seed=i) for i in range(2))

        def call() -> Any:
            for _ in range(_CALLS - 1):
                function(x, w)
            return function(x, w).detach()

        return Work(call, count=_CALLS)

    return build


def _chain(side: Side, rows: int, columns: int, variant: str = "") -> Work:
    """y = y * w + x, many times, and back: a time is that of one node, recorded and differentiated."""
    x, w = (side.floats(rows, columns, seed=i) for i in range(2))
    g = side.floats(rows, columns, grad=False, seed=2)

    def call() -> Any:
        y = x
        for _ in range(_CHAIN):
            y = y * w + x
        gx, gw = side.lib.autograd.grad(y, [x, w], g)
        return y.detach(), gx, gw

    return Work(call, stateful=True, count=2 * _CHAIN)  # it asks for its gradients itself


def _small_softmax(side: Side, rows: int, size: int, variant: str = "") -> Work:
    """A launch of a kernel of ours: checks, two look-ups, the driver."""
    x = side.floats(rows, size, grad=False)
    return Work(lambda: side.F.softmax(x, -1))


def _op(name: str, function: Callable[[Any, Any], Any], *sizes: int) -> Family:
    sizes = sizes or (2,)
    return Family(f"op_{name}", "overhead", _operation(function), ("R", "C")[: len(sizes)], (sizes,), (sizes,), sizes,
                  moves(0, 0), dtypes=FLOATS[:1], small_dtypes=FLOATS[:1], timer="wall", cold=False)


FAMILIES = (
    _op("add", lambda x, w: x + w),
    _op("mul", lambda x, w: x * w),
    _op("exp", lambda x, w: x.exp()),
    _op("sum", lambda x, w: x.sum()),
    _op("matmul", lambda x, w: x @ w, 2, 2),
    _op("reshape", lambda x, w: x.reshape(2, 1)),
    _op("getitem", lambda x, w: x[1:]),
    Family("chain", "overhead", _chain, ("R", "C"), ((8, 8),), ((8, 8),), (2, 3), moves(0, 0), dtypes=FLOATS[:1],
           small_dtypes=FLOATS[:1], timer="wall", cold=False, aim=1 / 0.6),
    Family("launch", "overhead", _small_softmax, ("N", "C"), ((4, 32),), ((4, 32),), (4, 32), moves(0, 0),
           dtypes=FLOATS[:1], small_dtypes=FLOATS[:1], timer="wall", cold=False),
)  # fmt: skip
