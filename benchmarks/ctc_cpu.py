"""CTC training passes on the CPU: time of `F.ctc_loss` over that of PyTorch.

    python benchmarks/ctc_cpu.py [--repeats 9] [--threads 2]

Both run forward and backward in one process by turns, on the same float32 log probabilities and targets; the losses
are compared first. The table gives medians in milliseconds, the median of the ratio of neighbouring runs, and the ratio
of the fastest runs, which other work on the machine disturbs least. Needs torch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cuframe as cf
import cuframe.nn.functional as F

SHAPES = [(150, 16, 29, 30), (400, 32, 32, 80), (100, 8, 5000, 20)]  # T, N, C, S


def passes(steps: int, batch: int, classes: int, labels: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """One training pass of each library, on the same numbers; each returns its loss."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((steps, batch, classes), dtype=np.float32))
    x = logits.log_softmax(-1).requires_grad_()
    ours = cf.Tensor(x.detach().numpy()).requires_grad_()
    targets = rng.integers(1, classes, (batch, labels))
    lengths, sizes = np.full(batch, steps), np.full(batch, labels)
    tensors = [torch.from_numpy(a) for a in (targets, lengths, sizes)]

    def mine() -> float:
        ours.grad = None
        loss = F.ctc_loss(ours, targets, lengths, sizes)
        loss.backward()
        return loss.item()

    def theirs() -> float:
        x.grad = None
        loss = torch.nn.functional.ctc_loss(x, *tensors)
        loss.backward()
        return loss.item()

    return mine, theirs


def timed(f: Callable[[], float]) -> float:
    """Milliseconds; the pause lets the other library's spinning threads go to sleep."""
    time.sleep(0.01)
    start = time.perf_counter()
    f()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table(
        "shape", "ours ms", "torch ms", "ratio", "ratio of fastest",
        title=f"CTC forward + backward, float32, medians of {args.repeats}; torch {torch.__version__}, "
        f"{args.threads} threads",
    )  # fmt: skip
    for shape in SHAPES:
        mine, theirs = passes(*shape)
        ours, torch_loss = mine(), theirs()
        if abs(ours - torch_loss) > 1e-4 * abs(torch_loss):
            raise SystemExit(f"the losses differ: {ours} and {torch_loss}")
        pairs = [(timed(mine), timed(theirs)) for _ in range(args.repeats)]
        table.add_row("T{} N{} C{} S{}".format(*shape), *(f"{v:.2f}" for v in (
            statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
            statistics.median(p[0] / p[1] for p in pairs), min(p[0] for p in pairs) / min(p[1] for p in pairs))))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
