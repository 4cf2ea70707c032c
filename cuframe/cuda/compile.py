"""From a kernel's source to a cubin with its resource use, through the disk cache."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from cuframe.cuda import nvrtc
from cuframe.cuda.cache import Cache, digest
from cuframe.cuda.sources import Source

__all__ = ["Binary", "Resources", "compile_file", "compile_kernel"]

# No -use_fast_math: it makes division, square root and subnormals less accurate than the CPU's; kernels ask for fast
# functions by name where that is harmless.
OPTIONS = ("--ptxas-options=-v", "-lineinfo", "-default-device", "-DNDEBUG")


class Resources(NamedTuple):
    """What ptxas reports of a kernel: registers a thread, bytes of static shared memory, of stack and of spills."""

    registers: int
    shared: int
    stack: int
    spills: int


class Binary(NamedTuple):
    """A compiled kernel."""

    cubin: bytes
    symbol: str
    resources: Resources


def compile_kernel(source: Source, expression: str, arch: str, options: tuple[str, ...] = (),
                   cache: Cache | None = None, siblings: Sequence[str] = ()) -> Binary:
    """Compile one instance of a kernel for one architecture, or take it from the cache.

    Args:
        expression: a C++ name expression, `softmax_forward<float>`; arch: "sm_90".
        siblings: what `compile_file` would have been given; its result serves, too.

    Raises:
        nvrtc.CompileError: the compiler's log.
        RuntimeError: NVRTC is not installed.
    """
    cache = cache or Cache()
    for expressions in ([expression], list(siblings)):
        stored = cache.read(_name(source, expressions, arch, options)) if expression in expressions else None
        if stored is not None:
            return _unpack(stored)[expression]
    return compile_file(source, [expression], arch, options, cache)[expression]


def compile_file(source: Source, expressions: Sequence[str], arch: str, options: tuple[str, ...] = (),
                 cache: Cache | None = None) -> dict[str, Binary]:
    """Compile instances of a file together, which takes less than half the time for each; through the cache."""
    cache = cache or Cache()
    name = _name(source, expressions, arch, options)
    stored = cache.read(name)
    if stored is not None:
        return _unpack(stored)
    what = expressions[0] if len(expressions) == 1 else f"{len(expressions)} kernels of {source.name}"
    _say(f"compiling {what} for {arch}")
    try:
        made = nvrtc.compile_cubin(source.text, str(source.path), arch, expressions,
                                   (*OPTIONS, *options, *(f"-I{folder}" for folder in source.folders)))
    finally:
        _say("")
    binaries = {e: Binary(made.cubin, made.names[e], _resources(made.log, made.names[e])) for e in expressions}
    cache.write(name, _pack(binaries))
    return binaries


def _name(source: Source, expressions: Sequence[str], arch: str, options: tuple[str, ...]) -> str:
    version = ".".join(map(str, nvrtc.version()))
    return digest(source.key, *expressions, arch, version, *OPTIONS, *options) + ".cubin"


def _say(text: str) -> None:
    """Show one line that the next overwrites, where somebody looks."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _pack(binaries: dict[str, Binary]) -> bytes:
    head = json.dumps({e: [b.symbol, b.resources] for e, b in binaries.items()}).encode()
    return len(head).to_bytes(4, "little") + head + next(iter(binaries.values())).cubin


def _unpack(data: bytes) -> dict[str, Binary]:
    end = 4 + int.from_bytes(data[:4], "little")
    return {e: Binary(data[end:], symbol, Resources(*resources))
            for e, (symbol, resources) in json.loads(data[4:end]).items()}


def _resources(log: str, symbol: str) -> Resources:
    """Read the block of ptxas's report that is about `symbol`."""
    for block in re.split(r"(?=Compiling entry function)", log):
        if f"'{symbol}'" in block:
            found = {key: int(m.group(1)) if (m := re.search(pattern, block)) else 0 for key, pattern in {
                "registers": r"Used (\d+) registers", "shared": r"(\d+) bytes smem", "stack": r"(\d+) bytes stack",
                "stores": r"(\d+) bytes spill stores", "loads": r"(\d+) bytes spill loads"}.items()}
            return Resources(found["registers"], found["shared"], found["stack"], found["stores"] + found["loads"])
    raise RuntimeError(f"nvrtc: no resource report for {symbol} in the log:\n{log}")
