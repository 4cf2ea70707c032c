"""The SIMT simulator: kernels compiled by the host's C++ compiler, one fiber for each CUDA thread."""

from .build import CompileError
from .program import Program, SimError, load
from .settings import Limits, limits, order, set_order

__all__ = ["CompileError", "Limits", "Program", "SimError", "limits", "load", "order", "set_order"]
