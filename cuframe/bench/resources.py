"""Registers and spills of the kernels behind a row: of the very instances that a call launched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cuframe.cuda import launch
from cuframe.cuda.launch import Kernel

__all__ = ["Launched", "launched", "summed"]


class Launched(NamedTuple):
    """A kernel and the name expression of one of its instances."""

    kernel: Kernel
    expression: str


@contextlib.contextmanager
def launched() -> Iterator[list[Launched]]:
    """Collect the instances that are launched inside, each once, in order.

    What a launch costs is left as it is: outside of the context nothing is noted. Not for several threads at once.
    """
    found: dict[str, Launched] = {}
    collected: list[Launched] = []
    run = Kernel.__call__

    def noting(self: Kernel, grid: Any, block: Any, /, *values: Any, shared: int = 0, cluster: bool = False,
               **constants: int | bool) -> None:
        run(self, grid, block, *values, shared=shared, cluster=cluster, **constants)
        expression = _expression(self, values, constants)
        if expression not in found:
            found[expression] = Launched(self, expression)
            collected.append(found[expression])

    Kernel.__call__ = noting  # type: ignore[method-assign]
    try:
        yield collected
    finally:
        Kernel.__call__ = run  # type: ignore[method-assign]


def _expression(kernel: Kernel, values: Sequence[Any], constants: dict[str, int | bool]) -> str:
    """The instance that these arguments, which were launched, choose."""
    dtypes = {a.ctype: v.dtype.name for a, v in zip(kernel._arguments, values) if a.pointer and v is not None}
    chosen = [launch.C_NAMES[dtypes[name]] for name in kernel.types]
    return kernel._expression([*chosen, *(launch._constant(constants[name]) for name in kernel.constants)])


def summed(kernels: Sequence[Launched], arch: str) -> dict[str, Any]:
    """For a row: each instance with its registers, static shared bytes and spilled bytes; and the most of them.

    They were compiled to be launched, so the cache of binaries tells.
    """
    from cuframe.cuda.compile import compile_kernel

    made = {}
    for kernel, expression in kernels:
        siblings = [e for k in launch.declared_kernels() if k._source == kernel._source and k.options == kernel.options
                    for e in k.instances(arch)]
        used = compile_kernel(kernel.source, expression, arch, kernel.options, siblings=siblings).resources
        made[expression] = {"registers": used.registers, "shared": used.shared, "spills": used.spills}
    if not made:
        return {}
    return {"kernels": made, "registers": max(m["registers"] for m in made.values()),
            "spills": max(m["spills"] for m in made.values())}
