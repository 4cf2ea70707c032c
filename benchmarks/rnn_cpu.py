"""LSTM, GRU and RNN training passes on the CPU: time of `cuframe.cpu.rnn` over that of PyTorch.

    python benchmarks/rnn_cpu.py [--repeats 15] [--cells lstm,gru] [--threads 2]

Both run forward and backward (gradients of the input, of the initial states and of all weights) in one process by turns, each
on the same random numbers; the table gives medians in milliseconds and their ratio.  Needs torch.
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
from cuframe.cpu import rnn

# T, N, I, H, layers, directions
SHAPES = [(100, 32, 128, 256, 1, 1), (50, 64, 256, 512, 1, 1), (100, 1, 128, 128, 1, 1), (60, 16, 256, 256, 2, 2),
          (64, 32, 64, 256, 1, 1)]
MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn_tanh": torch.nn.RNN}


def ours(cell: str, module: torch.nn.RNNBase, x: np.ndarray, gy: np.ndarray) -> tuple[Callable[[], None], ...]:
    """The forward and the backward pass of a stack of layers, sharing `tape`."""
    hidden, directions = module.hidden_size, 2 if module.bidirectional else 1
    weights = [[p.detach().numpy() for p in layer] for layer in module.all_weights]
    tape: list[rnn.Saved] = []

    def forward() -> None:
        tape.clear()
        layer_in = x
        for start in range(0, len(weights), directions):
            outs = []
            for d in range(directions):
                y, _, _, saved = rnn.forward(cell, layer_in, *weights[start + d], reverse=d == 1)
                assert saved is not None
                outs.append(y)
                tape.append(saved)
            layer_in = outs[0] if directions == 1 else np.concatenate(outs, 2)

    def backward() -> None:
        g = gy
        for start in reversed(range(0, len(weights), directions)):
            gx = [rnn.backward(tape[start + d], g[:, :, d * hidden:(d + 1) * hidden]).x for d in range(directions)]
            g = gx[0] if directions == 1 else np.add(gx[0], gx[1])

    return forward, backward


def theirs(module: torch.nn.RNNBase, x: np.ndarray, gy: np.ndarray) -> tuple[Callable[[], None], ...]:
    """The same two passes of PyTorch's module."""
    x_t, gy_t = torch.from_numpy(x).requires_grad_(), torch.from_numpy(gy)
    tape: list[torch.Tensor] = []

    def forward() -> None:
        x_t.grad = None
        module.zero_grad(set_to_none=True)
        tape[:] = [module(x_t)[0]]

    return forward, lambda: tape.pop().backward(gy_t)


def timed(f: Callable[[], None]) -> float:
    start = time.perf_counter()
    f()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cells", default="lstm,gru,rnn_tanh")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    table = Table("cell", "shape", "ours fwd", "ours bwd", "ours", "torch fwd", "torch bwd", "torch", "ratio", "best ratio",
                  title=f"forward + backward, float32, ms, medians of {args.repeats}; torch {torch.__version__}")
    for cell in args.cells.split(","):
        for steps, batch, features, hidden, layers, directions in SHAPES:
            module = MODULES[cell](features, hidden, layers, bidirectional=directions == 2)
            x = rng.standard_normal((steps, batch, features), dtype=np.float32)
            gy = rng.standard_normal((steps, batch, hidden * directions), dtype=np.float32)
            passes = [*ours(cell, module, x, gy), *theirs(module, x, gy)]
            for f in passes * 2:
                f()
            times = [[timed(f) for f in passes] for _ in range(args.repeats)]
            parts = [statistics.median(t[j] for t in times) for j in range(4)]
            mine, other = [t[0] + t[1] for t in times], [t[2] + t[3] for t in times]
            both = statistics.median(mine), statistics.median(other)
            label = f"T{steps} B{batch} I{features} H{hidden}" + (f" x{layers}" if layers > 1 else "")
            table.add_row(cell, label + (" bi" if directions == 2 else ""), *(f"{v:.2f}" for v in (
                parts[0], parts[1], both[0], parts[2], parts[3], both[1], both[0] / both[1], min(mine) / min(other))))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
