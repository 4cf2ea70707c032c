"""What launching a kernel costs in Python: its checks, the packing of its arguments, finding the instance.

    python benchmarks/launch_cost.py [--json FILE] [--repeats N]

The launcher here launches nothing, so no GPU is needed; its arrays keep dtype, size and address in slots, which is as
quick to read as the attributes of CuPy's.  `again` is a launch like one before it - the same dtypes, sizes and device
- as nearly all of a training run are; `new` is one with sizes that this kernel has not seen.  Microseconds of the
thread's own time, the least of many rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np

from cuframe.cuda.launch import Kernel, register_launcher
from cuframe.cuda.sources import text_source

STEPS = 500  # of one round
TARGET = 3.0


class Memory:
    """Where an array's numbers would be."""

    __slots__ = ("device_id", "ptr")

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr
        self.device_id = 0


class Array:
    """What a launch reads of an array."""

    __slots__ = ("c_contiguous", "data", "dtype", "shape", "size")

    def __init__(self, *shape: int) -> None:
        self.shape, self.size = shape, int(np.prod(shape))
        self.dtype = np.dtype(np.float32)
        self.c_contiguous = True
        self.data = Memory(0x7F0000000000 + 256 * self.size)

    @property
    def flags(self) -> Array:
        return self


class Launcher:
    """Loads nothing and launches nothing."""

    def __init__(self) -> None:
        self.look = attrgetter("dtype", "size", "c_contiguous", "data.device_id")
        self.device = attrgetter("data.device_id")
        self.address = attrgetter("data.ptr")

    def facts(self, device: int) -> tuple[str, int, int]:
        return "sm_90", 132, 232448

    def load(self, *_: Any) -> Callable[..., None]:
        return lambda grid, block, shared, params, cooperative: None


def typical() -> tuple[Kernel, Callable[[int], tuple[Any, ...]]]:
    """Six arrays, one of them optional, and six scalars: LayerNorm forward, say."""
    kernel = Kernel(text_source("//"), "rows", (
        "const T* x[rows, cols]", "const T* weight?[cols]", "const T* bias?[cols]", "T* y[rows, cols]",
        "acc_t<T>* mean[rows]", "acc_t<T>* scale[rows]", "int64 rows", "int32 cols", "float eps", "bool center",
        "int64 stride", "int32 parts"), types={"T": ("float32", "float16", "bfloat16", "float64")},
        constants={"VEC": (False, True)}, declare=False)

    def values(rows: int) -> tuple[Any, ...]:
        x, row, y, mean, scale = Array(rows, 512), Array(512), Array(rows, 512), Array(rows), Array(rows)
        return x, row, row, y, mean, scale, rows, 512, 1e-5, True, 512, 1

    return kernel, values


def small() -> tuple[Kernel, Callable[[int], tuple[Any, ...]]]:
    """Three arrays and a scalar: an elementwise function."""
    kernel = Kernel(text_source("//"), "pointwise", ("const T* x[n]", "const T* w[n]", "T* y[n]", "int64 n"),
                    types={"T": ("float32", "float16", "bfloat16", "float64")}, declare=False)
    return kernel, lambda n: (Array(n), Array(n), Array(n), n)


KERNELS = {"6 arrays, 6 scalars, 1 constant": (typical, {"VEC": True}), "3 arrays, 1 scalar": (small, {})}


def least(function: Callable[[int], None], repeats: int) -> float:
    """Microseconds of the thread for one of STEPS calls."""
    times = []
    for _ in range(repeats):
        start = time.thread_time_ns()
        for i in range(STEPS):
            function(i)
        times.append(time.thread_time_ns() - start)
    return min(times) / STEPS / 1e3


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """Both launches of both kernels."""
    register_launcher(Array, Launcher())  # type: ignore[arg-type]
    gc.collect()
    gc.freeze()
    nothing = least(lambda i: None, repeats)
    figures = {}
    for name, (make, constants) in KERNELS.items():
        kernel, values = make()
        same, fresh = values(64), SimpleNamespace(size=64)

        def again(_: int, kernel: Kernel = kernel, same: tuple = same, constants: dict = constants) -> None:
            kernel(128, 256, *same, **constants)

        def new(i: int, kernel: Kernel = kernel, all_new: list = [], values: Any = values, fresh: Any = fresh,  # noqa: B006
                constants: dict = constants) -> None:
            kernel(128, 256, *all_new[i], **constants)

        again(0)
        took = least(again, repeats) - nothing
        rounds = []
        for _ in range(max(repeats // 20, 3)):
            prepared = []
            for _ in range(STEPS):
                fresh.size += 1
                prepared.append(values(fresh.size))
            rounds.append(least(lambda i: new(i, all_new=prepared), 1) - nothing)  # noqa: B023
        figures[name] = {"again": took, "new": min(rounds)}
    return figures


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--repeats", type=int, default=200, help="rounds (default 200)")
    options = parser.parse_args()
    figures = measure(options.repeats)
    print("microseconds of Python a launch")
    print(f"{'kernel':34}{'again':>8}{'new':>8}{'target':>8}")
    for name, f in figures.items():
        print(f"{name:34}{f['again']:8.2f}{f['new']:8.2f}{TARGET:8.1f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
