"""What the reference must hold: every name that a public namespace offers."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

SPACES = (
    "cuframe", "cuframe.ops", "cuframe.nn", "cuframe.nn.functional", "cuframe.nn.init", "cuframe.nn.parallel",
    "cuframe.nn.parallel.hooks", "cuframe.nn.utils", "cuframe.nn.utils.parametrizations",
    "cuframe.nn.utils.parametrize", "cuframe.nn.utils.rnn", "cuframe.optim", "cuframe.optim.lr_scheduler",
    "cuframe.autograd", "cuframe.autograd.functional", "cuframe.cuda", "cuframe.data", "cuframe.distributed",
    "cuframe.distributed.checkpoint",
)  # fmt: skip


def offered() -> dict[str, Any]:
    """Names that are public, and what they stand for; modules are left out."""
    names = {}
    for space in SPACES:
        module = importlib.import_module(space)
        for name in module.__all__:
            thing = getattr(module, name)
            if not isinstance(thing, ModuleType):
                names[f"{space}.{name}"] = thing
    return names


def has_page(thing: Any) -> bool:
    """Functions and classes of ours have an entry; constants and NumPy's dtypes are mentioned in the text."""
    return callable(thing) and str(getattr(thing, "__module__", "")).startswith("cuframe")


def missing(entries: set[str]) -> list[str]:
    """Public functions and classes that are under none of their names among `entries`."""
    return [
        name
        for name, thing in offered().items()
        if has_page(thing) and not entries & {name, f"{thing.__module__}.{thing.__name__}"}
    ]
