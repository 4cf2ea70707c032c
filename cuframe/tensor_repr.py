"""How a Tensor prints: as PyTorch prints it, character for character."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .autograd.graph import Leaf
from .backend import backend_of
from .dtypes import get_default_dtype, is_floating

__all__ = ["set_printoptions", "tensor_repr"]


@dataclass
class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {
    "default": _Options(),
    "short": _Options(precision=2, edgeitems=2),
    "full": _Options(threshold=math.inf),
}
_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Change how tensors print; what is left out stays as it is.

    Args:
        precision: digits after the point (4).
        threshold: tensors with more elements are summarised (1000).
        edgeitems: how many entries at both ends of a dimension a summary shows (3).
        linewidth: characters a line (80).
        profile: start from `"default"`, `"short"` or `"full"`.
        sci_mode: scientific notation always, never, or by the values (None).

    Raises:
        ValueError: an unknown profile.

    >>> import cuframe as cf
    >>> cf.set_printoptions(precision=2)
    >>> cf.tensor([0.123456])
    tensor([0.12])
    >>> cf.set_printoptions(profile="default")
    """
    global _options
    chosen = _options
    if profile is not None:
        if profile not in _PROFILES:
            known = ", ".join(_PROFILES)
            raise ValueError(f"set_printoptions: profile must be one of {known}, got {profile!r}")
        chosen = _PROFILES[profile]
    given: dict[str, Any] = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems}
    given["linewidth"] = linewidth
    _options = replace(chosen, **{k: v for k, v in given.items() if v is not None}, sci_mode=sci_mode)


def _edges(a: np.ndarray, n: int) -> np.ndarray:
    """The entries that a summary shows: the first and last n of every dimension."""
    for d in range(a.ndim):
        if a.shape[d] > 2 * n:
            a = np.concatenate((a.take(range(n), d), a.take(range(a.shape[d] - n, a.shape[d]), d)), d)
    return a


def _number_format(a: np.ndarray) -> tuple[Callable[[Any], str], int]:
    """How to write one number of `a`, and the width that aligns them all."""
    values = a.reshape(-1)
    if values.dtype.kind != "f":
        width = max((len(str(v)) for v in values.tolist()), default=1)
        return lambda v: str(v).rjust(width), width
    telling = values[np.isfinite(values) & (values != 0)].astype(np.float64)
    whole, scientific, widest = True, False, 1
    if telling.size:
        low, high = float(np.abs(telling).min()), float(np.abs(telling).max())
        whole = bool((telling == np.ceil(telling)).all())
        scientific = high / low > 1000 or high > 1e8 or (not whole and low < 1e-4)
        if _options.sci_mode is not None:
            scientific = _options.sci_mode
    fixed = f".{0 if whole else _options.precision}f"
    exponential = f".{_options.precision}e"
    spec = exponential if scientific else fixed
    point = 1 if whole and not scientific else 0
    for v in telling.tolist():
        widest = max(widest, len(format(v, spec)) + point)

    def write(v: float) -> str:
        if scientific:
            text = format(v, exponential)
        else:
            text = format(v, fixed)
            if whole and math.isfinite(v):
                text += "."
        return text.rjust(widest)

    return write, widest


def _row(values: list, indent: int, short: bool, write: Callable[[Any], str], width: int) -> str:
    n = _options.edgeitems
    if short and len(values) > 2 * n:
        words = [*map(write, values[:n]), " ...", *map(write, values[-n:])]
    else:
        words = [write(v) for v in values]
    each = max(1, (_options.linewidth - indent) // (width + 2))
    lines = [", ".join(words[i : i + each]) for i in range(0, len(words), each)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _block(a: np.ndarray, indent: int, short: bool, write: Callable[[Any], str], width: int) -> str:
    if a.ndim == 0:
        return write(a.item())
    if a.ndim == 1:
        return _row(a.tolist(), indent, short, write, width)
    n = _options.edgeitems
    if short and len(a) > 2 * n:
        rows = [_block(r, indent + 1, short, write, width) for r in a[:n]]
        rows.append("...")
        rows += [_block(r, indent + 1, short, write, width) for r in a[len(a) - n :]]
    else:
        rows = [_block(r, indent + 1, short, write, width) for r in a]
    return "[" + ("," + "\n" * (a.ndim - 1) + " " * (indent + 1)).join(rows) + "]"


def tensor_repr(t: Any) -> str:
    """The values, then what is not the default: device, size, dtype, and whether it requires a gradient.

    >>> import cuframe as cf
    >>> cf.tensor([[1.0, 0.5]], dtype="float64", requires_grad=True)
    tensor([[1.0000, 0.5000]], dtype=cuframe.float64, requires_grad=True)
    """
    opening = "tensor("
    dtype = t.array.dtype
    notes = []
    if t.device.type != "cpu":
        notes.append(f"device='{t.device}'")
    usual = {get_default_dtype(), np.dtype(np.int64), np.dtype(np.bool_)}
    if not t.array.size:
        if t.array.ndim != 1:
            notes.append(f"size={tuple(t.array.shape)}")
        usual = {get_default_dtype()}
        body = "[]"
    else:
        short = t.array.size > _options.threshold
        shown = t.array
        if short and t.device.type != "cpu":
            shown = backend_of(shown).to_host(shown)
        a = backend_of(shown).to_host(shown)
        if is_floating(dtype) and dtype.kind != "f":
            a = a.astype(np.float32)
        write, width = _number_format(_edges(a, _options.edgeitems) if short else a)
        if _options.edgeitems:
            body = _block(a, len(opening), short, write, width)
        else:
            notes.append(f"size={tuple(t.array.shape)}")
            body = "[...]" if short else _block(a, len(opening), short, write, width)
    if dtype not in usual:
        notes.append(f"dtype=cuframe.{dtype.name}")
    if t.grad_fn is not None:
        notes.append(f"grad_fn=<{t.grad_fn.name()}>")
    elif isinstance(t.node, Leaf):
        notes.append("requires_grad=True")
    text = opening + body
    parts = [text]
    column = len(text) - text.rfind("\n") + 1
    for note in notes:
        if column + len(note) + 2 > _options.linewidth:
            parts.append(",\n" + " " * len(opening) + note)
            column = len(opening) + len(note)
        else:
            parts.append(", " + note)
            column += len(note) + 2
    return "".join(parts) + ")"
