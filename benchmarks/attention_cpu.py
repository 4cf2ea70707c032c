"""Attention, Transformer layer and normalisation on the CPU: time of cuframe over that of PyTorch.

    python benchmarks/attention_cpu.py [--repeats 15] [--threads 2] [--only layer_norm]

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
import cuframe.nn.functional as F

Pair = tuple[Callable[[], Any], Callable[[], Any]]


def pair(mine: Callable, theirs: Callable, *shapes: tuple[int, ...]) -> Pair:
    """A training pass of a function of tensors of some shapes, in both libraries."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in shapes]
    ours = [cf.Tensor(a.copy()).requires_grad_() for a in arrays]
    others = [torch.from_numpy(a).requires_grad_() for a in arrays]
    g = rng.standard_normal(tuple(mine(*ours).shape), dtype=np.float32)
    g_ours, g_theirs = cf.Tensor(g), torch.from_numpy(g)

    def run_mine() -> None:
        for t in ours:
            t.grad = None
        mine(*ours).backward(g_ours)

    def run_theirs() -> None:
        for t in others:
            t.grad = None
        theirs(*others).backward(g_theirs)

    return run_mine, run_theirs


def attention(batch: int, heads: int, length: int, size: int, causal: bool) -> Pair:
    return pair(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal),
        *[(batch, heads, length, size)] * 3,
    )


def same_layer(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    mine = getattr(cf.nn, name)(*args, **kwargs)
    mine.load_state_dict({k: cf.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return mine, theirs


CASES: dict[str, Callable[[], Pair]] = {
    "attention B4 H8 S256 D64": lambda: attention(4, 8, 256, 64, False),
    "attention B4 H8 S512 D64 causal": lambda: attention(4, 8, 512, 64, True),
    "attention B2 H8 S1024 D64 causal": lambda: attention(2, 8, 1024, 64, True),
    "attention B2 H8 S1024 D64": lambda: attention(2, 8, 1024, 64, False),
    "encoder layer d256 h8 ff1024 S64 B16": lambda: pair(
        *same_layer("TransformerEncoderLayer", 256, 8, 1024, 0.0, batch_first=True), (16, 64, 256)
    ),
    "layer_norm 1024 x 256": lambda: pair(*same_layer("LayerNorm", 256), (1024, 256)),
    "layer_norm 4096 x 512": lambda: pair(*same_layer("LayerNorm", 512), (4096, 512)),
    "BatchNorm2d N32 C64 28 x 28": lambda: pair(*same_layer("BatchNorm2d", 64), (32, 64, 28, 28)),
    "GroupNorm(8) N32 C64 28 x 28": lambda: pair(*same_layer("GroupNorm", 8, 64), (32, 64, 28, 28)),
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
