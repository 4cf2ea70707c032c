"""Recurrent layers with layer normalisation, zoneout and recurrent dropout on the CPU: one training pass.

    python benchmarks/rnn_options_cpu.py [--repeats 15] [--threads 2]

For each shape: the layer-normalised layer and the one with all options over the plain layer of the same NumPy engine
(compiled loops are off), and the normalised one over what there is in PyTorch: a loop over the steps in Python. All run
forward and backward in one process by turns, on the same numbers; figures are milliseconds of the fastest run, and
ratios of these. With one thread it is the thread's own time. Without torch its columns are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["CUFRAME_CPU_JIT"] = "0"  # the plain layer that is compared with runs in NumPy, too
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--repeats", type=int, default=15)
arguments.add_argument("--threads", type=int, default=1, help="of BLAS and of PyTorch")
args = arguments.parse_args()
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read when NumPy is loaded

import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cuframe as cf  # noqa: E402
from cuframe import nn  # noqa: E402

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

# T, N, I, H
SHAPES = [(100, 32, 128, 256), (50, 64, 256, 512), (64, 8, 64, 128), (100, 1, 128, 128), (100, 4, 64, 64)]
ALL = {"layer_norm": True, "zoneout": 0.1, "recurrent_dropout": 0.25, "input_dropout": 0.25}


def ours(model: nn.RNNBase, x: np.ndarray, gy: np.ndarray) -> Callable[[], np.ndarray]:
    x_t, gy_t = cf.tensor(x, requires_grad=True), cf.tensor(gy)

    def train() -> np.ndarray:
        model.zero_grad()
        x_t.grad = None
        y = model(x_t)[0]
        y.backward(gy_t)
        return y.detach().numpy()

    return train


def norm(a: Any, gain: Any) -> Any:
    return torch.nn.functional.layer_norm(a, (a.shape[-1],), gain)


def lstm_loop(x: Any, w: dict[str, Any]) -> Any:
    """A layer-normalised LSTM as PyTorch's users write it; the input's product is taken out of the loop."""
    hidden = w["weight_hh_l0"].shape[1]
    h = c = x.new_zeros(x.shape[1], hidden)
    gates_x = norm(x @ w["weight_ih_l0"].T, w["weight_ln_ih_l0"]) + w["bias_ih_l0"] + w["bias_hh_l0"]
    ys = []
    for gx in gates_x.unbind(0):
        i, f, g, o = (gx + norm(h @ w["weight_hh_l0"].T, w["weight_ln_hh_l0"])).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        inner = torch.nn.functional.layer_norm(c, (hidden,), w["weight_ln_c_l0"], w["bias_ln_c_l0"])
        h = torch.sigmoid(o) * torch.tanh(inner)
        ys.append(h)
    return torch.stack(ys)


def gru_loop(x: Any, w: dict[str, Any]) -> Any:
    """A layer-normalised GRU likewise."""
    size = w["weight_hh_l0"].shape[1]
    h = x.new_zeros(x.shape[1], size)

    def product(a: Any, way: str) -> Any:
        p, gain = a @ w[f"weight_{way}_l0"].T, w[f"weight_ln_{way}_l0"]
        parts = [norm(p[..., : 2 * size], gain[: 2 * size]), norm(p[..., 2 * size :], gain[2 * size :])]
        return torch.cat(parts, -1) + w[f"bias_{way}_l0"]

    ys = []
    for gx in product(x, "ih").unbind(0):
        (rx, zx, nx), (rh, zh, nh) = gx.chunk(3, 1), product(h, "hh").chunk(3, 1)
        n = torch.tanh(nx + torch.sigmoid(rx + rh) * nh)
        h = n + torch.sigmoid(zx + zh) * (h - n)
        ys.append(h)
    return torch.stack(ys)


def theirs(loop: Callable, model: nn.RNNBase, x: np.ndarray, gy: np.ndarray) -> Callable[[], np.ndarray]:
    w = {name: torch.tensor(p.detach().numpy(), requires_grad=True) for name, p in model.named_parameters()}
    x_t, gy_t = torch.tensor(x, requires_grad=True), torch.tensor(gy)

    def train() -> np.ndarray:
        for t in (x_t, *w.values()):
            t.grad = None
        y = loop(x_t, w)
        y.backward(gy_t)
        return y.detach().numpy()

    return train


def timed(f: Callable[[], Any]) -> float:
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    start = clock()
    f()
    return 1e3 * (clock() - start)


def main() -> None:
    rng = np.random.default_rng(0)
    columns = ["plain", "norm", "/ plain", "all options", "/ plain"]
    loops: dict[str, Callable] = {}
    if torch is not None:
        torch.set_num_threads(args.threads)
        loops = {"lstm": lstm_loop, "gru": gru_loop}
        columns += ["torch loop", "norm / loop"]
    title = f"forward + backward, float32, ms, {args.threads} thread(s), fastest of {args.repeats}"
    table = Table("cell", "shape", *columns, title=title)
    for cell, kind in (("lstm", nn.LSTM), ("gru", nn.GRU)):
        for steps, batch, features, hidden in SHAPES:
            cf.manual_seed(0)
            x = rng.standard_normal((steps, batch, features), dtype=np.float32)
            gy = rng.standard_normal((steps, batch, hidden), dtype=np.float32)
            normed = kind(features, hidden, layer_norm=True)
            runs = [ours(m, x, gy) for m in (kind(features, hidden), normed, kind(features, hidden, **ALL))]
            if loops:
                runs.append(theirs(loops[cell], normed, x, gy))
                # the first steps: with gains of 1 the recurrence amplifies what float32 rounds off
                np.testing.assert_allclose(runs[1]()[:10], runs[3]()[:10], atol=1e-5)
            best = [float("inf")] * len(runs)
            for _ in range(args.repeats):
                best = [min(b, timed(run)) for b, run in zip(best, runs)]
            row = [best[0], best[1], best[1] / best[0], best[2], best[2] / best[0]]
            if loops:
                row += [best[3], best[1] / best[3]]
            table.add_row(cell, f"T{steps} B{batch} I{features} H{hidden}", *(f"{v:.2f}" for v in row))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
