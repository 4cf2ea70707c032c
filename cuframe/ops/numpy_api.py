"""NumPy functions called on Tensors: `np.exp(t)` is `cf.exp(t)`, recorded like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .define import FUNCTIONS, UFUNCS

__all__ = ["call_function", "call_ufunc"]


def call_ufunc(ufunc: Any, method: str, inputs: tuple, kwargs: dict) -> Any:
    """Serve a ufunc call that met a Tensor; NotImplemented (so NumPy raises TypeError) where no operation does."""
    operation = UFUNCS.get(ufunc)
    if operation is None or method != "__call__" or kwargs:
        return NotImplemented
    return operation(*inputs)


def call_function(function: Callable, args: tuple, kwargs: dict) -> Any:
    """Serve a NumPy function call that met a Tensor."""
    operation = FUNCTIONS.get(function)
    if operation is None:
        return NotImplemented
    return operation(*args, **kwargs)
