"""Anomaly mode: where in the forward pass was a NaN born?"""

from __future__ import annotations

import os.path
import threading
from typing import Any

import numpy as np

from .graph import Node, mode, watched
from .region import Region

__all__ = ["check_backward", "check_forward", "detect_anomaly", "is_anomaly_enabled", "set_detect_anomaly"]

_HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


class detect_anomaly:
    """Keep the forward stack of every operation and stop at the first NaN, forward or backward.

    Slow; for debugging. The error names the operation and shows the lines of user code that ran it.

    Args:
        check_nan: look for NaN; False only keeps the stacks, which errors raised in backward then show.

    >>> import cuframe as cf
    >>> x = cf.tensor([-1.0], requires_grad=True)
    >>> with cf.autograd.detect_anomaly():
    ...     y = cf.sqrt(x)
    Traceback (most recent call last):
        ...
    RuntimeError: anomaly: sqrt gave NaN in the forward pass...
    """

    def __init__(self, check_nan: bool = True) -> None:
        self._set = (True, bool(check_nan))
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((mode.anomaly, mode.check_nan))
        _switch(*self._set)

    def __exit__(self, *exc: object) -> None:
        _switch(*self._before.pop())


def set_detect_anomaly(flag: bool, check_nan: bool = True) -> None:
    """Switch anomaly mode on or off for this thread.

    Args:
        flag: on or off.
        check_nan: look for NaN; False only keeps the stacks.

    >>> import cuframe as cf
    >>> cf.autograd.set_detect_anomaly(True)
    >>> cf.autograd.is_anomaly_enabled()
    True
    >>> cf.autograd.set_detect_anomaly(False)
    """
    _switch(bool(flag), bool(check_nan))


def _switch(anomaly: bool, check_nan: bool) -> None:
    mode.anomaly, mode.check_nan = anomaly, check_nan
    (watched.add if anomaly else watched.discard)(threading.get_ident())


def is_anomaly_enabled() -> bool:
    """True if anomaly mode is on in this thread.

    >>> import cuframe as cf
    >>> with cf.autograd.detect_anomaly():
    ...     cf.autograd.is_anomaly_enabled()
    True
    """
    return mode.anomaly


def _stack() -> str:
    import traceback

    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(_HERE)]
    return "".join(traceback.format_list(frames[-6:]))


def _has_nan(value: Any) -> bool:
    array = value.values if isinstance(value, Region) else getattr(value, "array", value)
    if array is None or not hasattr(array, "dtype"):
        return False
    return array.dtype.kind in "fcV" and bool(np.isnan(array).any())


def check_forward(node: Node, arrays: tuple) -> None:
    """Note the stack of a fresh node, and raise if a result holds NaN."""
    if node.meta is None:
        node.meta = {}
    stack = node.meta["stack"] = _stack()
    if mode.check_nan and any(_has_nan(a) for a in arrays):
        raise RuntimeError(f"anomaly: {node.op.name} gave NaN in the forward pass, called from\n{stack}")


def check_backward(node: Node, g: Any, grads: tuple) -> None:
    """Raise if a vjp gave NaN out of a gradient that had none."""
    if not mode.check_nan:
        return
    incoming = g if isinstance(g, list) else [g]
    for i, gi in enumerate(grads):
        if _has_nan(gi) and not any(_has_nan(x) for x in incoming):
            stack = (node.meta or {}).get("stack", "  (forward ran outside anomaly mode)\n")
            raise RuntimeError(
                f"anomaly: the gradient of {node.op.name} for input {i} is NaN; "
                f"its forward was called from\n{stack}"
            )
