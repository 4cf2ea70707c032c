"""Convolutions and Linear on the CPU: time of cuframe over that of PyTorch.

    python benchmarks/conv_cpu.py [--repeats 15] [--threads 2] [--only depthwise]

Both run forward and backward in one process by turns, on the same float32 numbers. The table gives medians in
milliseconds and the median of the ratio of neighbouring runs, by the clock on the wall and by the processor time of all
threads, which other work on the machine disturbs least. Set OPENBLAS_NUM_THREADS to the same number. Needs torch.
"""

from __future__ import annotations

import argparse
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

Pair = tuple[Callable[[], Any], Callable[[], Any]]


def layer(name: str, *args: Any, shape: tuple[int, ...], **kwargs: Any) -> Pair:
    """A training pass of a layer with the same parameters in both libraries; the input needs a gradient, too."""
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    mine = getattr(cf.nn, name)(*args, **kwargs)
    mine.load_state_dict({k: cf.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    array = rng.standard_normal(shape, dtype=np.float32)
    x_mine, x_theirs = cf.Tensor(array.copy()).requires_grad_(), torch.from_numpy(array).requires_grad_()
    g = rng.standard_normal(tuple(mine(x_mine).shape), dtype=np.float32)
    g_mine, g_theirs = cf.Tensor(g), torch.from_numpy(g)

    def run_mine() -> None:
        for t in (x_mine, *mine.parameters()):
            t.grad = None
        mine(x_mine).backward(g_mine)

    def run_theirs() -> None:
        for t in (x_theirs, *theirs.parameters()):
            t.grad = None
        theirs(x_theirs).backward(g_theirs)

    return run_mine, run_theirs


CASES: dict[str, Callable[[], Pair]] = {
    "Conv2d N16 C64 28x28 -> 64 k3": lambda: layer("Conv2d", 64, 64, 3, padding=1, shape=(16, 64, 28, 28)),
    "Conv2d N8 C3 64x64 -> 32 k3": lambda: layer("Conv2d", 3, 32, 3, padding=1, shape=(8, 3, 64, 64)),
    "Conv2d N16 C64 28x28 -> 128 k3 stride 2": lambda: layer(
        "Conv2d", 64, 128, 3, stride=2, padding=1, shape=(16, 64, 28, 28)
    ),
    "Conv2d N32 C256 7x7 -> 256 k3": lambda: layer("Conv2d", 256, 256, 3, padding=1, shape=(32, 256, 7, 7)),
    "Conv2d N16 C64 28x28 -> 128 k1": lambda: layer("Conv2d", 64, 128, 1, shape=(16, 64, 28, 28)),
    "Conv2d depthwise N16 C64 28x28 k3": lambda: layer(
        "Conv2d", 64, 64, 3, padding=1, groups=64, shape=(16, 64, 28, 28)
    ),
    "Conv2d N8 C1 80x200 -> 32 k3 stride 2": lambda: layer(
        "Conv2d", 1, 32, 3, stride=2, padding=1, shape=(8, 1, 80, 200)
    ),
    "Conv1d N16 C64 T512 -> 64 k5": lambda: layer("Conv1d", 64, 64, 5, padding=2, shape=(16, 64, 512)),
    "Conv1d N4 C80 T1000 -> 256 k3 stride 2": lambda: layer(
        "Conv1d", 80, 256, 3, stride=2, padding=1, shape=(4, 80, 1000)
    ),
    "Conv1d depthwise N8 C256 T256 k31": lambda: layer(
        "Conv1d", 256, 256, 31, padding=15, groups=256, shape=(8, 256, 256)
    ),
    "Conv3d N2 C16 16x16x16 -> 16 k3": lambda: layer("Conv3d", 16, 16, 3, padding=1, shape=(2, 16, 16, 16, 16)),
    "ConvTranspose2d N8 C64 14x14 -> 32 k4 stride 2": lambda: layer(
        "ConvTranspose2d", 64, 32, 4, stride=2, padding=1, shape=(8, 64, 14, 14)
    ),
    "Linear 32 x 512 -> 512": lambda: layer("Linear", 512, 512, shape=(32, 512)),
    "Linear 4096 x 256 -> 1024": lambda: layer("Linear", 256, 1024, shape=(4096, 256)),
}


def timed(f: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds on the wall and of processor time."""
    wall, work = time.perf_counter(), time.process_time()
    f()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's threads")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table(
        "case", "ours ms", "torch ms", "ratio", "ratio of processor time",
        title=f"forward + backward, float32, medians of {args.repeats}; torch {torch.__version__}",
    )  # fmt: skip
    for name, make in CASES.items():
        if args.only not in name:
            continue
        mine, theirs = make()
        runs = [(timed(mine), timed(theirs)) for _ in range(args.repeats + 1)][1:]
        figures = (
            statistics.median(a[0] for a, _ in runs), statistics.median(b[0] for _, b in runs),
            statistics.median(a[0] / b[0] for a, b in runs), statistics.median(a[1] / b[1] for a, b in runs),
        )  # fmt: skip
        table.add_row(name, *(f"{v:.2f}" for v in figures))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
