"""What an operation costs beyond NumPy's own time, forward and backward, on two-element float32 tensors.

    python benchmarks/op_cost.py [--json FILE] [--repeats N]

Forward: microseconds of `op(x, w)`, recorded, less those of the NumPy call it makes. Backward: microseconds a
node adds to a pass, less those of the NumPy calls in its gradient: a chain `t = t + op(x, w)` against
`t = t + x`. Every figure is the median over rounds in which cuframe, NumPy and PyTorch (where installed) take
turns.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import cuframe as cf

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

STEPS = 200  # of one round
FORWARD_TARGET, BACKWARD_TARGET, CHAIN_TARGET = 1.0, 2.0, 0.6

# name: (operation on x and w, NumPy's gradient on g, x, w and the result; shapes of x and w)
OPS: dict[str, tuple[Callable, Callable, tuple[int, ...]]] = {
    "mul": (lambda x, w: x * w, lambda g, x, w, r: (g * w, g * x), (2,)),
    "add": (lambda x, w: x + w, lambda g, x, w, r: (), (2,)),
    "sub": (lambda x, w: x - w, lambda g, x, w, r: (-g,), (2,)),
    "div": (lambda x, w: x / w, lambda g, x, w, r: (g / w, -(g / w) * (x / w)), (2,)),
    "exp": (lambda x, w: np.exp(x), lambda g, x, w, r: (g * r,), (2,)),
    "tanh": (lambda x, w: np.tanh(x), lambda g, x, w, r: (g * (1 - r * r),), (2,)),
    "sum": (lambda x, w: x.sum(), lambda g, x, w, r: (np.broadcast_to(g, (2,)),), (2,)),
    "matmul": (lambda x, w: x @ w, lambda g, x, w, r: (g @ w.T, x.T @ g), (2, 2)),
    "reshape": (lambda x, w: x.reshape(2, 1), lambda g, x, w, r: (g.reshape(2),), (2,)),
    "getitem": (lambda x, w: x[1:], lambda g, x, w, r: (_put(g),), (2,)),
}
TENSOR = {"exp": lambda x, w: x.exp(), "tanh": lambda x, w: x.tanh()}
BINARY = ("mul", "add", "sub", "div", "matmul")


def _put(g: np.ndarray) -> np.ndarray:
    whole = np.zeros(2, np.float32)
    whole[1:] = g
    return whole


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    return lambda: seconds(function)


def repeat(function: Callable, *args: Any) -> Callable[[], None]:
    def run() -> None:
        for _ in range(STEPS):
            function(*args)

    return run


def medians(timers: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median seconds of each timer, the timers taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(repeats):
        for name, timer in timers.items():
            taken[name].append(timer())
    return {name: statistics.median(values) for name, values in taken.items()}


def operands(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(1, 2, shape).astype(np.float32), rng.uniform(1, 2, shape).astype(np.float32)


def leaves(shape: tuple[int, ...], library: str) -> tuple[Any, Any]:
    x, w = operands(shape)
    if library == "torch":
        return tuple(torch.from_numpy(a).requires_grad_() for a in (x, w))  # type: ignore[return-value]
    return cf.tensor(x, requires_grad=True), cf.tensor(w, requires_grad=True)


def backward_of(step: Callable, x: Any, w: Any) -> Callable[[], float]:
    """Seconds of backward through `t = t + step(x, w)`, STEPS times."""

    def timer() -> float:
        t = step(x, w)
        for _ in range(STEPS):
            t = t + step(x, w)
        total = t if t.ndim == 0 else t.sum()
        x.grad = w.grad = None
        return seconds(total.backward)

    return timer


def numpy_backward(name: str) -> Callable[[], None]:
    op, vjp, shape = OPS[name]
    x, w = operands(shape)
    r = np.asarray(op(x, w))
    g = np.ones_like(r)
    total = np.zeros_like(w)

    def once() -> None:
        vjp(g, x, w, r)
        if name in BINARY:
            np.add(total, w, out=total)  # the second operand's gradients are summed, too

    return repeat(once)


def op_costs(name: str, repeats: int, libraries: list[str]) -> dict[str, float]:
    op, _, shape = OPS[name]
    on_tensor = TENSOR.get(name, op)
    a, b = operands(shape)
    timers = {"forward numpy": timed(repeat(op, a, b)), "backward numpy": timed(numpy_backward(name))}
    for library in libraries:
        x, w = leaves(shape, library)
        timers[f"forward {library}"] = timed(repeat(on_tensor, x, w))
        timers[f"backward {library}"] = backward_of(on_tensor, x, w)
        result = on_tensor(x, w).detach()
        y = (result * 1).requires_grad_()
        timers[f"adds {library}"] = backward_of(lambda y, w: y, y, w)
    took = {k: v / STEPS * 1e6 for k, v in medians(timers, repeats).items()}
    costs = {}
    for library in libraries:
        costs[f"forward {library}"] = took[f"forward {library}"] - took["forward numpy"]
        costs[f"backward {library}"] = (
            took[f"backward {library}"] - took[f"adds {library}"] - took["backward numpy"]
        )
    return costs


def chain_8x8(library: str) -> Callable[[], float]:
    """100 x (mul, add) on 8 x 8, forward and backward."""
    x, w = leaves((8, 8), library)

    def once() -> None:
        y = x
        for _ in range(100):
            y = y * w + x
        y.sum().backward()
        x.grad = w.grad = None

    return lambda: seconds(once)


def measure(repeats: int) -> dict[str, Any]:
    """All figures; PyTorch's stand beside cuframe's where it is installed."""
    libraries = ["cuframe"] + (["torch"] if torch is not None else [])
    gc.collect()
    gc.freeze()
    ops = {name: op_costs(name, repeats, libraries) for name in OPS}
    chain = {k: v * 1e6 for k, v in medians({lib: chain_8x8(lib) for lib in libraries}, 3 * repeats).items()}
    figures: dict[str, Any] = {
        "ops_us": ops,
        "forward_us": statistics.mean(ops[n]["forward cuframe"] for n in ("mul", "add")),
        "backward_us": statistics.mean(ops[n]["backward cuframe"] for n in ("mul", "add")),
        "chain_us": chain,
    }
    if torch is not None:
        figures["chain_ratio"] = chain["cuframe"] / chain["torch"]
    return figures


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    columns = list(next(iter(figures["ops_us"].values())))
    print("microseconds over NumPy's own, float32[2] (2 x 2 for matmul)")
    print("op".ljust(10) + "".join(c.rjust(18) for c in columns))
    for name, costs in figures["ops_us"].items():
        print(name.ljust(10) + "".join(f"{costs[c]:18.2f}" for c in columns))
    print(f"mul/add forward  {figures['forward_us']:.2f} us (target {FORWARD_TARGET})")
    print(f"mul/add backward {figures['backward_us']:.2f} us (target {BACKWARD_TARGET})")
    chain = ", ".join(f"{k} {v:.0f} us" for k, v in figures["chain_us"].items())
    ratio = (
        f", ratio {figures['chain_ratio']:.2f} (target {CHAIN_TARGET})" if "chain_ratio" in figures else ""
    )
    print(f"100 x (mul, add) on 8x8, forward and backward: {chain}{ratio}")


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--repeats", type=int, default=41, help="rounds (default 41)")
    options = parser.parse_args()
    figures = measure(options.repeats)
    show(figures)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
