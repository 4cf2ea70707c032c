"""What the tests of the simulator share: compiling a kernel and launching it on NumPy arrays."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuframe.cuda import sim
from cuframe.cuda.sim.build import compiler

BROKEN = Path(__file__).parent / "broken_kernels"
KERNELS = Path(__file__).parent / "sim_kernels"
ORDERS = ("forward", "reverse", "random:1", "random:2", "ahead:1")

try:
    compiler()
    no_compiler = ""
except RuntimeError as error:
    no_compiler = str(error)
needs_compiler = pytest.mark.skipif(bool(no_compiler), reason=no_compiler or "there is a compiler")

i32, i64, u64, f32 = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint64, ctypes.c_float


def line_of(file: str, text: str, occurrence: int = 0) -> int:
    """The number of the line of a broken kernel that has `text`."""
    lines = (BROKEN / file).read_text().splitlines()
    return [n for n, line in enumerate(lines, 1) if text in line][occurrence]


@functools.lru_cache(None)
def program(path: Path, *expressions: str) -> sim.Program:
    return sim.load(path, expressions)


def launch(path: Path, expression: str, *args: Any, grid: Any = 1, block: Any = 32, shared: int = 0,
           cooperative: int = False, beside: tuple[str, ...] = ()) -> None:
    """Launch with arrays and ctypes scalars; `beside` names further kernels to compile with this one."""
    values = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in args]
    names = beside if expression in beside else (expression, *beside)
    three = [(n, 1, 1) if isinstance(n, int) else (*n, 1, 1)[:3] for n in (grid, block)]
    program(path, *names).launch(expression, *three, shared, values, cooperative=cooperative)
