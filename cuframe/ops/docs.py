"""Docstrings of operations that come from a factory, so that they say the same things in the same order."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["binary_doc", "factory_docs", "unary_doc"]


def unary_doc(
    name: str, sentence: str, formula: str, values: str, shown: str, notes: str = "", floating: bool = True
) -> str:
    """The docstring of an elementwise operation of one tensor; the example calls it on `values`."""
    dtypes = (
        "any shape; bools and integers are computed in the default dtype"
        if floating
        else "any shape and dtype"
    )
    notes = f"\n{notes}\n" if notes else ""
    return f"""{sentence}

    out = {formula}

Args:
    input: tensor of {dtypes}.

Returns:
    A tensor of the same shape.

Raises:
    TypeError: the input is not a tensor.
{notes}
>>> import cuframe as cf
>>> cf.{name}(cf.tensor({values}))
tensor({shown})
"""


def binary_doc(
    name: str, sentence: str, formula: str, first: str, second: str, shown: str, notes: str = ""
) -> str:
    """The docstring of an elementwise operation of two operands; the example calls it on `first` and `second`."""
    notes = f"\n{notes}\n" if notes else ""
    return f"""{sentence}

    out = {formula}

Args:
    input, other: tensors, or a tensor and a number, of shapes that broadcast; dtypes are promoted.

Returns:
    A tensor of the broadcast shape.

Raises:
    TypeError: an operand is neither a tensor nor a number.
    RuntimeError: the shapes do not broadcast, or the devices differ.
{notes}
>>> import cuframe as cf
>>> cf.{name}(cf.tensor({first}), {f"cf.tensor({second})" if second.startswith("[") else second})
tensor({shown})
"""


def factory_docs(names: list[str], namespace: dict) -> dict[str, str]:
    """The docstrings, for a module's `__test__`, of functions it offers that were not written with `def` in it."""
    found = {}
    for name in names:
        operation: Callable = namespace[name]
        if getattr(operation, "__globals__", namespace) is not namespace and operation.__doc__:
            found[name] = operation.__doc__
    return found
