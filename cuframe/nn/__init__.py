"""Layers, models and what is needed to build them."""

from ..tensor import Parameter
from . import init
from .containers import *  # noqa: F403
from .module import Module

__all__ = ["Module", "ModuleDict", "ModuleList", "Parameter", "ParameterDict", "ParameterList", "Sequential", "init"]
