"""Which cases a run takes: patterns, dtypes, order."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .case import FLOATS, Case
from .families import COLLECTIVES, FAMILIES, GROUPS

__all__ = ["Chosen", "UnknownName", "choose", "dtypes_of", "first_size", "in_order", "seconds"]


class UnknownName(ValueError):
    """A pattern or dtype that means nothing; the message names the nearest."""


class Chosen(NamedTuple):
    cases: list[Case]
    collectives: list[str]


def choose(patterns: Sequence[str], kind: str, dtypes: Sequence[str] | None = None) -> Chosen:
    """The cases that any of the patterns names: a group, a family, a part of a row's name, or one with `*`.

    Args:
        patterns: none of them for all.
        kind: of device.
        dtypes: instead of the families' own.

    Raises:
        UnknownName: a pattern that names nothing.
    """
    cases = [c for f in FAMILIES for c in f.cases(kind, dtypes)]
    taken: dict[str, Case] = {}
    collectives: dict[str, None] = {}
    for pattern in patterns or ("*",):
        some = [c for c in cases if _names(pattern, c)]
        ranks = [n for n in COLLECTIVES if pattern in ("collectives", n, f"collectives {n}")
                 or ("*" in pattern and fnmatch.fnmatchcase(n, pattern))]
        if not some and not ranks:
            raise UnknownName(_nearest(pattern, kind))
        taken |= {c.key: c for c in some}
        collectives |= dict.fromkeys(ranks)
    return Chosen([c for c in cases if c.key in taken], list(collectives))


def first_size(case: Case, kind: str) -> bool:
    """Whether its sizes are the most telling ones of its family."""
    return case.sizes == (case.family.cuda if kind == "cuda" else case.family.cpu)[0]


def in_order(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows by family, in the order of the families and not in that of measuring; what has no family comes last."""
    places = {name: i for i, name in enumerate([*(f.name for f in FAMILIES), *COLLECTIVES])}
    return sorted(rows, key=lambda r: places.get(r.get("family", ""), len(places)))


def _names(pattern: str, case: Case) -> bool:
    family = case.family
    if pattern in GROUPS or any(f.name == pattern for f in FAMILIES):
        return pattern in (family.name, family.group)
    if any(c in pattern for c in "*?["):
        return fnmatch.fnmatchcase(case.key, pattern) or fnmatch.fnmatchcase(family.name, pattern)
    return pattern in case.key


def _nearest(pattern: str, kind: str) -> str:
    names = [*GROUPS, *(f.name for f in FAMILIES), *COLLECTIVES]
    if pattern in names:
        return f"{pattern!r} has no case for {kind} with these dtypes"
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"groups: {', '.join(GROUPS)}; `cuframe bench list` has all"
    return f"nothing is named {pattern!r}; {hint}"


def dtypes_of(text: str) -> list[str]:
    """`float32,bfloat16`.

    Raises:
        UnknownName: a name that is no dtype here.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    for name in found:
        if name not in FLOATS:
            near = difflib.get_close_matches(name, FLOATS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? there are" if near else "there are"
            raise UnknownName(f"unknown dtype {name!r}; {hint} {', '.join(FLOATS)}")
    return found


def seconds(text: str) -> float:
    """`90`, `90s`, `8m`, `1.5h` in seconds.

    >>> seconds("8m"), seconds("1.5h")
    (480.0, 5400.0)
    """
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        value = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"must be a time such as 8m or 480s, got {text!r}")
    return value
