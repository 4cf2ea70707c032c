"""What a step of an optimizer costs beside PyTorch's default one, on the CPU, in float32.

    python benchmarks/optimizers.py [--json FILE] [--repeats N] [--threads N]

Two sets of parameters: those of examples/char_lm.py (7 tensors, 360,544 elements) and 100 matrices of 8 x 8. Every
figure is the median over rounds in which cuframe and PyTorch (where installed) take turns. An update is bound by
memory: cuframe uses all cores for Adam and one for the others, PyTorch as many as it is given, by default all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import cuframe as cf
from cuframe import nn, optim

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

MODELS = {
    "char_lm": [(96, 64), (1024, 64), (1024, 256), (1024,), (1024,), (96, 256), (96,)],
    "small": [(8, 8)] * 100,
}
RULES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 1e-3}),
    ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    ("Adam", {}),
    ("AdamW", {}),
    ("RMSprop", {}),
    ("Adagrad", {}),
]


def parameters(shapes: list[tuple[int, ...]]) -> tuple[list[Any], list[Any]]:
    """The same parameters and gradients for both libraries."""
    rng = np.random.default_rng(0)
    mine, theirs = [], []
    for shape in shapes:
        p, g = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        mine.append(nn.Parameter(p.copy()))
        mine[-1].grad = cf.tensor(g)
        if torch is not None:
            theirs.append(torch.nn.Parameter(torch.tensor(p)))
            theirs[-1].grad = torch.tensor(g)
    return mine, theirs


def medians(steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median microseconds of each function, the functions taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 3):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= 3:
                taken[name].append((time.perf_counter() - start) * 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds by model and update rule, cuframe's and PyTorch's."""
    figures = {}
    for model, shapes in MODELS.items():
        mine, theirs = parameters(shapes)
        cases: dict[str, tuple[Callable, Callable | None]] = {}
        for name, options in RULES:
            other = getattr(torch.optim, name)(theirs, **options).step if torch is not None else None
            label = " ".join([name, *(f"{k}={v}" for k, v in options.items() if k != "lr")])
            cases[label] = (getattr(optim, name)(mine, **options).step, other)
        clip = nn.utils.clip_grad_norm_
        cases["clip_grad_norm_"] = (
            lambda clip=clip, mine=mine: clip(mine, 1e9),
            (lambda theirs=theirs: torch.nn.utils.clip_grad_norm_(theirs, 1e9)) if torch is not None else None,
        )
        for label, (a, b) in cases.items():
            figures[f"{model}: {label}"] = medians({"cuframe": a, **({"torch": b} if b else {})}, repeats)
    return figures


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--repeats", type=int, default=200, help="rounds (default 200)")
    parser.add_argument("--threads", type=int, help="PyTorch's threads")
    options = parser.parse_args()
    if torch is not None and options.threads:
        torch.set_num_threads(options.threads)
    figures = measure(options.repeats)
    beside = "" if torch is None else "torch".rjust(10) + "ratio".rjust(8)
    print("microseconds a step".ljust(28) + "cuframe".rjust(10) + beside)
    for label, took in figures.items():
        line = label.ljust(28) + f"{took['cuframe']:10.0f}"
        if "torch" in took:
            line += f"{took['torch']:10.0f}{took['cuframe'] / took['torch']:8.2f}"
        print(line)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
