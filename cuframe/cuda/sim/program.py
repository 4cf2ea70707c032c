"""Loads compiled kernels and launches them."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cuframe.cuda.launch import CLUSTERS
from cuframe.cuda.persistent import MOST_OF_CLUSTER
from cuframe.cuda.sim import settings
from cuframe.cuda.sim.build import build_kernels, build_runtime

__all__ = ["Program", "SimError", "load"]

Size = tuple[int, int, int]


class SimError(RuntimeError):
    """A kernel did something wrong in the simulator.

    Attributes:
        kernel: the name expression.
        file, line: where in the source, or None.
        block, thread: which CUDA thread, as (x, y, z), or None.
    """

    def __init__(self, message: str, kernel: str, file: str | None = None, line: int | None = None,
                 block: Size | None = None, thread: Size | None = None) -> None:
        where = f"{file}:{line}: " if file else ""
        who = f"block ({_join(block)}) thread ({_join(thread)}): " if block and thread else ""
        super().__init__(f"{where}{kernel}: {who}{message}")
        self.kernel, self.file, self.line, self.block, self.thread = kernel, file, line, block, thread


def _join(index: Size) -> str:
    return ",".join(map(str, index))


class _Index3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]

    def tuple(self) -> Size:
        return (self.x, self.y, self.z)


class _Report(ctypes.Structure):
    _fields_ = [("message", ctypes.c_char * 6144), ("file", ctypes.c_char * 1024), ("line", ctypes.c_int),
                ("block", _Index3), ("thread", _Index3)]


@functools.lru_cache(1)
def _runtime() -> ctypes.CDLL:
    mode = settings.sanitizer()
    probe = {"address": "__asan_init", "thread": "__tsan_init"}.get(mode)
    if probe and not hasattr(ctypes.CDLL(None), probe):
        raise RuntimeError(f"the {mode} sanitizer must be there from the start of the process: run the script with "
                           f"`cuframe sim run --sanitize {mode} SCRIPT`")
    library = ctypes.CDLL(str(build_runtime()), mode=ctypes.RTLD_GLOBAL)
    library.sim_launch.restype = ctypes.c_int
    library.sim_launch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint] * 6, *[ctypes.c_ulong] * 3,
                                   ctypes.c_int, ctypes.c_int, ctypes.c_ulonglong, ctypes.c_char_p]
    library.sim_report.restype = ctypes.POINTER(_Report)
    return library


class Program:
    """Kernels of one file, compiled and loaded.  Made by `load`."""

    def __init__(self, path: Path, expressions: Sequence[str]) -> None:
        self._launch = _runtime().sim_launch
        self._library = ctypes.CDLL(str(path))
        self.path = path
        self._entries: dict[str, tuple[int, bytes, list[int]]] = {}
        for i, expression in enumerate(expressions):
            entry = ctypes.cast(getattr(self._library, f"sim_entry_{i}"), ctypes.c_void_p).value
            sizes = ctypes.POINTER(ctypes.c_uint).in_dll(self._library, f"sim_sizes_{i}")
            self._entries[expression] = (entry or 0, expression.encode(), [sizes[1 + k] for k in range(sizes[0])])

    def launch(self, expression: str, grid: Size, block: Size, shared_bytes: int, args: Sequence[Any], *,
               cooperative: int = False, device: int = 0) -> None:
        """Run one kernel to its end.

        Args:
            expression: one of those that the program was loaded with.
            grid, block: sizes in blocks and threads; shared_bytes: of dynamic shared memory.
            args: ctypes values of the kernel's parameter types.
            cooperative: all blocks are alive at once and may wait for one another; CLUSTERS for rows that are clusters.
            device: index of the simulated GPU; all of them share the host's memory.

        Raises:
            SimError: what the simulator found wrong, with file, line, block and thread.
        """
        _, _, sizes = self._entries[expression]
        given = [ctypes.sizeof(a) for a in args]
        if given != sizes:
            raise SimError(f"takes {len(sizes)} arguments of {sizes} bytes, got {len(given)} of {given}", expression)
        pointers = (ctypes.c_void_p * max(1, len(args)))(*map(ctypes.addressof, args))
        self.launch_packed(expression, grid, block, shared_bytes, ctypes.addressof(pointers), cooperative)

    def launch_packed(self, expression: str, grid: Size, block: Size, shared_bytes: int, params: int,
                      cooperative: int = False) -> None:
        """As `launch`, with the address of an array of pointers to the arguments, as cuLaunchKernel takes it."""
        entry, name, _ = self._entries[expression]
        limits = settings.limits()
        order, seed = settings.current_order()
        x, y, z = block
        if not (x * y * z <= 1024 and x > 0 and y > 0 and 0 < z <= 64):
            raise SimError(f"blocks must have 1 to 1024 threads, at most 64 in z, got {block}", expression)
        gx, gy, gz = grid
        if not (0 < gx < 2**31 and 0 < gy < 65536 and 0 < gz < 65536):
            raise SimError(f"the grid must be within (2147483647, 65535, 65535), got {grid}", expression)
        if not 0 <= shared_bytes <= limits.block_shared:
            raise SimError(f"{shared_bytes} bytes of dynamic shared memory, a block of {limits.arch} may have "
                           f"{limits.block_shared}", expression)
        if cooperative == CLUSTERS and gx > MOST_OF_CLUSTER:
            raise SimError(f"a cluster has at most {MOST_OF_CLUSTER} blocks, got rows of {gx}", expression)
        if cooperative:
            most = limits.resident_blocks(x * y * z, shared_bytes)
            if gx * gy * gz > most:
                raise SimError(f"a cooperative launch of {gx * gy * gz} blocks of {x * y * z} threads, of which the "
                               f"simulated GPU runs {most} at once; ask cuframe.cuda.sim.limits(), or set "
                               "CUFRAME_SIM_SMS", expression)
        if self._launch(entry, params, gx, gy, gz, x, y, z, shared_bytes, limits.static_shared, limits.block_shared,
                        cooperative, order, seed, name):
            raise self._error(expression)

    def loaded(self, expression: str) -> Callable[[Size, Size, int, int, int], None]:
        """A function that launches this kernel: of grid, block, shared_bytes, params and cooperative."""
        return functools.partial(self.launch_packed, expression)

    def _error(self, expression: str) -> SimError:
        report = _runtime().sim_report().contents
        message, file, line = report.message.decode(errors="replace"), report.file.decode(errors="replace"), report.line
        if not file:
            message, file, line = _with_source_line(message)
        return SimError(message, expression, file or None, line or None, report.block.tuple(), report.thread.tuple())


def _with_source_line(message: str) -> tuple[str, str, int]:
    """Turn the `[object+offset]` at a fault report's end into file and line, if binutils are there to ask."""
    m = re.search(r" \[(.+)\+(0x[0-9a-f]+)\]$", message)
    tool = shutil.which("addr2line")
    if not m or not tool:
        return message, "", 0
    done = subprocess.run([tool, "-i", "-e", m[1], m[2]], capture_output=True, text=True, check=False)
    frames = [f.split(" (")[0].rpartition(":") for f in done.stdout.split("\n")]
    known = [(f[0], int(f[2])) for f in frames if f[2].isdigit() and f[0].endswith((".cu", ".cuh"))]
    known.sort(key=lambda frame: frame[0].endswith(".cuh"))  # the kernel's own line, not that of a helper in it
    return (message[:m.start()], *known[0]) if known else (message, "", 0)


def load(path: Path, expressions: Sequence[str], includes: Sequence[Path] = (), options: Sequence[str] = ()) -> Program:
    """Compile kernels for the simulator, or take them from the cache, and load them.

    Args:
        path: the `.cu` file.
        expressions: C++ name expressions of its kernels, such as `softmax_forward<float, 4>`.
        includes: folders for `#include "..."`, beside the file's own and `kernels/`.
        options: further options for the compiler.

    Raises:
        CompileError: with what the compiler said.
        RuntimeError: there is no compiler here; the message says how to get one.
    """
    _runtime()
    return Program(build_kernels(path, expressions, includes, options), expressions)
