"""The GPU half of the fused operations: which kernels run, with which launch shapes, on `cuda` and `sim` arrays.

A family is a module that declares its kernels (`cuframe.cuda.Kernel`) and offers the functions that the same
family of `cuframe.cpu` offers; `Backend.kernel(name)` of those devices returns it.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cuframe.cuda.launch import Kernel

__all__ = ["all_kernels", "families", "family"]


def families() -> list[str]:
    """The names of all families."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


@cache
def family(name: str) -> object | None:
    """The module of a family; None where there is none, and the composite is to be used."""
    return import_module(f"{__name__}.{name}") if name in families() else None


def all_kernels() -> list[Kernel]:
    """The kernels of all families, in the order of their declaration."""
    from cuframe.cuda.launch import declared_kernels

    for name in families():
        import_module(f"{__name__}.{name}")
    return declared_kernels()
