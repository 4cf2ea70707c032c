"""Normalisation on the CPU: time of cuframe's layers over that of PyTorch's, forward and backward.

    OPENBLAS_NUM_THREADS=1 python benchmarks/norm_cpu.py [--repeats 31] [--threads 1] [--only LayerNorm]

Both run in one process by turns, on the same float32 numbers; outputs and gradients are compared first. The table gives
medians in milliseconds, the median of the ratio of neighbouring runs, and the ratio of the lower quartiles of processor
time of all threads, which other work on the machine disturbs least. Needs torch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cuframe as cf
from cuframe.cpu import jit

CASES = [
    ("LayerNorm", (256,), (16, 64, 256)),
    ("LayerNorm", (512,), (32, 128, 512)),
    ("LayerNorm", (1024,), (4096, 1024)),
    ("RMSNorm", (256,), (16, 64, 256)),
    ("RMSNorm", (1024,), (4096, 1024)),
    ("BatchNorm2d", (64,), (32, 64, 28, 28)),
    ("BatchNorm2d", (256,), (16, 256, 14, 14)),
    ("GroupNorm", (8, 64), (32, 64, 28, 28)),
    ("InstanceNorm2d", (64,), (32, 64, 28, 28)),
]


def passes(name: str, args: tuple, shape: tuple[int, ...]) -> tuple[Callable[[], list[Any]], Callable[[], list[Any]]]:
    """A training pass of the layer in each library; each returns its output and gradients."""
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    mine, theirs = getattr(cf.nn, name)(*args), getattr(torch.nn, name)(*args)
    ours, other = cf.Tensor(x.copy()).requires_grad_(), torch.from_numpy(x).requires_grad_()
    g_ours, g_other = cf.Tensor(g), torch.from_numpy(g)

    def run(layer: Any, x: Any, g: Any) -> list[Any]:
        leaves = [x, *layer.parameters()]
        for t in leaves:
            t.grad = None
        out = layer(x)
        out.backward(g)
        return [out.detach(), *(t.grad for t in leaves)]

    return lambda: run(mine, ours, g_ours), lambda: run(theirs, other, g_other)


def timed(f: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds on the wall and of processor time."""
    wall, work = time.perf_counter(), time.process_time()
    f()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - work)


def lower(values: list[float]) -> float:
    return statistics.quantiles(values, n=4)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1, help="of both libraries (%(default)s)")
    parser.add_argument("--only", default="", help="layers whose name contains this")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    table = Table(
        "layer", "input", "ours ms", "torch ms", "ratio", "ratio of processor time",
        title=f"forward + backward, float32, medians of {args.repeats}; {args.threads} thread(s); "
        f"{'compiled' if jit.available() else 'NumPy alone'}; torch {torch.__version__}",
    )  # fmt: skip
    for name, layer_args, shape in CASES:
        if args.only not in name:
            continue
        mine, theirs = passes(name, layer_args, shape)
        for a, b in zip(mine(), theirs()):
            if not np.allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-3):
                raise SystemExit(f"{name} {shape}: the results differ by {np.abs(a.numpy() - b.numpy()).max()}")
        runs = [(timed(mine), timed(theirs)) for _ in range(args.repeats)]
        wall, work = ([(a[i], b[i]) for a, b in runs] for i in (0, 1))
        figures = (
            statistics.median(a for a, _ in wall), statistics.median(b for _, b in wall),
            statistics.median(a / b for a, b in wall), lower([a for a, _ in work]) / lower([b for _, b in work]),
        )  # fmt: skip
        table.add_row(f"{name}{layer_args}", str(list(shape)), *(f"{v:.2f}" for v in figures))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
