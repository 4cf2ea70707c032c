"""Layers and losses on the CPU: time of cuframe over that of PyTorch, forward and backward, against the targets.

    python benchmarks/layers_cpu.py [--repeats 15] [--threads 2] [--only Conv2d]

Both run in one process by turns, on the same float32 numbers; results and gradients are compared first. The table gives
medians in milliseconds, the median of the ratio of neighbouring runs, the ratio of the fastest runs and that of the
lower quartiles of processor time of all threads, which other work on the machine disturbs least. Needs torch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cuframe as cf
from cuframe.cpu import jit

Pass = Callable[[], list[Any]]


class Case(NamedTuple):
    """A training pass in both libraries, each returning its result and gradients; and the ratio aimed at."""

    name: str
    make: Callable[[], tuple[Pass, Pass]]
    target: float


def sides(
    mine: Callable, theirs: Callable, *shapes: tuple[int, ...], more: tuple[Any, Any] = ((), ())
) -> tuple[Pass, Pass]:
    """Passes of two functions of tensors of some shapes; `more`: further leaves of each."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in shapes]
    ours = [cf.Tensor(a.copy()).requires_grad_() for a in arrays]
    others = [torch.from_numpy(a).requires_grad_() for a in arrays]
    g = rng.standard_normal(tuple(mine(*ours).shape), dtype=np.float32)

    def run(function: Callable, inputs: list[Any], leaves: list[Any], g: Any) -> list[Any]:
        for t in leaves:
            t.grad = None
        out = function(*inputs)
        out.backward(g)
        return [out.detach(), *(t.grad for t in leaves)]

    leaves = [*ours, *more[0]], [*others, *more[1]]
    return (lambda: run(mine, ours, leaves[0], cf.Tensor(g)),
            lambda: run(theirs, others, leaves[1], torch.from_numpy(g)))


def layer(name: str, *args: Any, shape: tuple[int, ...], **kwargs: Any) -> tuple[Pass, Pass]:
    """Passes of a layer with the same parameters in both libraries."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    mine = getattr(cf.nn, name)(*args, **kwargs)
    mine.load_state_dict({k: cf.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return sides(mine, theirs, shape, more=(list(mine.parameters()), list(theirs.parameters())))


def attention(batch: int, heads: int, length: int, size: int, causal: bool) -> tuple[Pass, Pass]:
    name = "scaled_dot_product_attention"
    mine, theirs = (getattr(m.nn.functional, name) for m in (cf, torch))
    shape = (batch, heads, length, size)
    return sides(
        lambda q, k, v: mine(q, k, v, is_causal=causal), lambda q, k, v: theirs(q, k, v, is_causal=causal), *[shape] * 3
    )


def ctc(steps: int, batch: int, classes: int, labels: int) -> tuple[Pass, Pass]:
    rng = np.random.default_rng(0)
    targets = rng.integers(1, classes, (batch, labels))
    given = [targets, np.full(batch, steps), np.full(batch, labels)]
    logits = torch.from_numpy(rng.standard_normal((steps, batch, classes), dtype=np.float32))
    x = logits.log_softmax(-1).requires_grad_()
    ours, tensors = cf.Tensor(x.detach().numpy()).requires_grad_(), [torch.from_numpy(a) for a in given]

    def run(leaf: Any, function: Callable, args: list[Any]) -> list[Any]:
        leaf.grad = None
        loss = function(leaf, *args)
        loss.backward()
        return [loss.detach(), leaf.grad]

    return (lambda: run(ours, cf.nn.functional.ctc_loss, given),
            lambda: run(x, torch.nn.functional.ctc_loss, tensors))


def of_layer(target: float, name: str, *args: Any, shape: tuple[int, ...], **kwargs: Any) -> Case:
    words = [name, *map(str, args), *(f"{k}={v}" for k, v in kwargs.items())]
    return Case(f"{' '.join(words)} {list(shape)}", lambda: layer(name, *args, shape=shape, **kwargs), target)


def of_attention(*args: Any) -> Case:
    text = "attention B{} H{} S{} D{}".format(*args) + (" causal" if args[-1] else "")
    return Case(text, lambda: attention(*args), 1.3)


def of_ctc(*args: int) -> Case:
    return Case("CTC T{} N{} C{} S{}".format(*args), lambda: ctc(*args), 1.0)


CASES = [
    of_ctc(150, 16, 29, 30), of_ctc(400, 32, 32, 80), of_ctc(100, 8, 5000, 20),
    of_attention(4, 8, 256, 64, False), of_attention(4, 8, 512, 64, True), of_attention(2, 8, 1024, 64, True),
    of_layer(1.2, "TransformerEncoderLayer", 256, 8, 1024, 0.0, batch_first=True, shape=(16, 64, 256)),
    of_layer(1.2, "LayerNorm", 256, shape=(16, 64, 256)),
    of_layer(1.2, "LayerNorm", 512, shape=(32, 128, 512)),
    of_layer(1.2, "LayerNorm", 1024, shape=(4096, 1024)),
    of_layer(1.2, "Linear", 512, 512, shape=(32, 512)),
    of_layer(1.2, "Linear", 256, 1024, shape=(4096, 256)),
    of_layer(2, "BatchNorm2d", 64, shape=(32, 64, 28, 28)),
    of_layer(2, "GroupNorm", 8, 64, shape=(32, 64, 28, 28)),
    of_layer(2, "InstanceNorm2d", 64, shape=(32, 64, 28, 28)),
    of_layer(2, "Conv2d", 64, 64, 3, padding=1, shape=(16, 64, 28, 28)),
    of_layer(2, "Conv2d", 3, 32, 3, padding=1, shape=(8, 3, 64, 64)),
    of_layer(2, "Conv2d", 64, 128, 3, stride=2, padding=1, shape=(16, 64, 28, 28)),
    of_layer(2, "Conv2d", 256, 256, 3, padding=1, shape=(32, 256, 7, 7)),
    of_layer(2, "Conv2d", 64, 128, 1, shape=(16, 64, 28, 28)),
    of_layer(2, "Conv2d", 64, 64, 3, padding=1, groups=64, shape=(16, 64, 28, 28)),
    of_layer(2, "Conv2d", 1, 32, 3, stride=2, padding=1, shape=(8, 1, 80, 200)),
    of_layer(2, "Conv1d", 64, 64, 5, padding=2, shape=(16, 64, 512)),
    of_layer(2, "Conv1d", 256, 256, 31, padding=15, groups=256, shape=(8, 256, 256)),
    of_layer(2, "Conv3d", 16, 16, 3, padding=1, shape=(2, 16, 16, 16, 16)),
    of_layer(2, "ConvTranspose2d", 64, 32, 4, stride=2, padding=1, shape=(8, 64, 14, 14)),
]  # fmt: skip


def timed(f: Pass) -> tuple[float, float]:
    """Milliseconds on the wall and of processor time; the pause lets the other library's spinning threads sleep."""
    time.sleep(0.01)
    wall, work = time.perf_counter(), time.process_time()
    f()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - work)


def check(name: str, mine: Pass, theirs: Pass) -> None:
    """Refuse to time what does not compute the same."""
    for a, b in zip(mine(), theirs(), strict=True):
        a, b = a.numpy(), b.numpy()
        if not np.allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()):
            raise SystemExit(f"{name}: the results differ by {np.abs(a - b).max()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both libraries")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    table = Table(
        "case", "ours ms", "torch ms", "ratio", "of fastest", "of processor time", "target",
        title=f"forward + backward, float32, medians of {args.repeats}; {args.threads} thread(s); "
        f"{'with' if jit.available() else 'without'} llvmlite; torch {torch.__version__}",
    )  # fmt: skip
    for case in CASES:
        if args.only not in case.name:
            continue
        mine, theirs = case.make()
        check(case.name, mine, theirs)
        runs = [(timed(mine), timed(theirs)) for _ in range(args.repeats)]
        wall, work = ([(a[i], b[i]) for a, b in runs] for i in (0, 1))
        low = [statistics.quantiles([pair[i] for pair in work], n=4)[0] for i in (0, 1)]
        ratio = statistics.median(a / b for a, b in wall)
        figures = (statistics.median(a for a, _ in wall), statistics.median(b for _, b in wall), ratio,
                   min(a for a, _ in wall) / min(b for _, b in wall), low[0] / low[1])
        met = "met" if ratio <= case.target else "missed"
        table.add_row(case.name, *(f"{v:.2f}" for v in figures), f"{case.target} {met}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
