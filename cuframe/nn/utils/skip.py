"""Modules without initial values."""

from __future__ import annotations

from typing import Any, TypeVar

from .. import init
from ..module import Module

__all__ = ["skip_init"]

M = TypeVar("M", bound=Module)


def skip_init(module_cls: type[M], *args: Any, **kwargs: Any) -> M:
    """A module whose parameters are not initialised, to be loaded next; no random numbers are drawn.

    Args:
        module_cls: its class, whose constructor initialises by the functions of `nn.init`.
        args, kwargs: for the constructor; `device` and `dtype` among them.

    Raises:
        TypeError: `module_cls` is not a class of Modules.

    >>> from cuframe import nn
    >>> nn.utils.skip_init(nn.Linear, 3, 4, dtype="float64").weight.shape
    cuframe.Size([4, 3])
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise TypeError(f"skip_init: module_cls must be a subclass of Module, got {module_cls!r}")
    with init.skipped():
        return module_cls(*args, **kwargs)
