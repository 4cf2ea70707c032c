"""LSTM, GRU and RNN training passes on the CPU: time of `cuframe.cpu.rnn` over that of PyTorch.

    python benchmarks/rnn_cpu.py [--repeats 15] [--cells lstm,gru] [--threads 2]

Both run forward and backward (gradients of the input and of all weights) in one process by turns, on the same numbers.
The table gives medians in milliseconds, the median of the ratio of neighbouring runs, and the ratio of the fastest
runs, which other work on the machine disturbs least.  Needs torch.
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


def ours(cell: str, module: torch.nn.RNNBase, x: np.ndarray, gy: np.ndarray) -> Callable[[], None]:
    """One training pass of a stack of layers through the NumPy kernels."""
    hidden, directions = module.hidden_size, 2 if module.bidirectional else 1
    weights = [[p.detach().numpy() for p in layer] for layer in module.all_weights]

    def train() -> None:
        tape, layer_in = [], x
        for start in range(0, len(weights), directions):
            outs = []
            for d in range(directions):
                y, _, _, saved = rnn.forward(cell, layer_in, *weights[start + d], reverse=d == 1)
                outs.append(y)
                tape.append(saved)
            layer_in = outs[0] if directions == 1 else np.concatenate(outs, 2)
        g = gy
        for start in reversed(range(0, len(weights), directions)):
            gx = [rnn.backward(tape[start + d], g[:, :, d * hidden:(d + 1) * hidden]).x for d in range(directions)]
            g = gx[0] if directions == 1 else np.add(gx[0], gx[1])

    return train


def theirs(module: torch.nn.RNNBase, x: np.ndarray, gy: np.ndarray) -> Callable[[], None]:
    """The same pass through PyTorch's module."""
    x_t, gy_t = torch.from_numpy(x).requires_grad_(), torch.from_numpy(gy)

    def train() -> None:
        x_t.grad = None
        module.zero_grad(set_to_none=True)
        module(x_t)[0].backward(gy_t)

    return train


def timed(f: Callable[[], None], times: int) -> float:
    """Milliseconds a call; the pause lets the other library's spinning threads go to sleep."""
    time.sleep(0.01)
    start = time.perf_counter()
    for _ in range(times):
        f()
    return 1e3 * (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cells", default="lstm,gru,rnn_tanh")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    table = Table("cell", "shape", "ours ms", "torch ms", "ratio", "ratio of fastest",
                  title=f"forward + backward, float32, medians of {args.repeats}; torch {torch.__version__}")
    for cell in args.cells.split(","):
        for steps, batch, features, hidden, layers, directions in SHAPES:
            module = MODULES[cell](features, hidden, layers, bidirectional=directions == 2)
            x = rng.standard_normal((steps, batch, features), dtype=np.float32)
            gy = rng.standard_normal((steps, batch, hidden * directions), dtype=np.float32)
            mine, other = ours(cell, module, x, gy), theirs(module, x, gy)
            times = 10 if batch == 1 else 1
            pairs = [(timed(mine, times), timed(other, times)) for _ in range(args.repeats + 1)][1:]
            label = f"T{steps} B{batch} I{features} H{hidden}" + (f" x{layers}" if layers > 1 else "")
            table.add_row(cell, label + (" bidirectional" if directions == 2 else ""), *(f"{v:.2f}" for v in (
                statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
                statistics.median(p[0] / p[1] for p in pairs), min(p[0] for p in pairs) / min(p[1] for p in pairs))))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
