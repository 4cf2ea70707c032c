"""Registers and spills of the kernels behind a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["resources_of"]


def resources_of(names: Sequence[str], dtype: str, arch: str) -> dict[str, Any]:
    """The most registers, and the spilled bytes, of the instances of these kernels for a dtype.

    From the committed table, which takes in no instance that spills; for another architecture they are compiled.
    """
    from cuframe.cuda import resources
    from cuframe.cuda.launch import C_NAMES

    table = resources.read_baseline()["kernels"].get(arch)
    used = _from_table(table, names, C_NAMES[dtype]) if table is not None else _compiled(names, C_NAMES[dtype], arch)
    if not used:
        return {}
    return {"registers": max(r for r, _ in used), "spills": max(s for _, s in used)}


def _fits(expression: str, names: Sequence[str], ctype: str) -> bool:
    name, _, rest = expression.partition("<")
    return name in names and (not rest or ctype in [part.strip() for part in rest.rstrip(">").split(",")])


def _from_table(table: dict[str, list[int]], names: Sequence[str], ctype: str) -> list[tuple[int, int]]:
    return [(values[0], 0) for expression, values in table.items() if _fits(expression, names, ctype)]


def _compiled(names: Sequence[str], ctype: str, arch: str) -> list[tuple[int, int]]:
    from cuframe.cuda.compile import compile_file
    from cuframe.gpu import all_kernels

    used = []
    for kernel in all_kernels():
        wanted = [e for e in kernel.instances() if _fits(e, names, ctype)] if kernel.name in names else []
        if wanted:
            made = compile_file(kernel.source, wanted, arch, kernel.options)
            used += [(b.resources.registers, b.resources.spills) for b in made.values()]
    return used
