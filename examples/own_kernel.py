"""A kernel of your own in a model: fused SwiGLU, from CUDA C++ to gradcheck to a trained network.

    python examples/own_kernel.py                  # on a GPU if there is one, else in the simulator
    python examples/own_kernel.py --steps 300

SwiGLU (Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202) gates one half of a layer with the other:

    y = silu(a) * b,   silu(a) = a / (1 + exp(-a))

In basic operations that is three kernels, and two arrays kept for backward that nobody needs.  Here it is one kernel
each way, which keeps a and b alone.  The same source runs on `cuda` and `sim` devices; edit it and run this file again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cuframe as cf
from cuframe import nn

SOURCE = r"""
#include "common/platform.cuh"

// a, b, y, g, ga, gb: [n]; a thread an element

template <class T>
__global__ void swiglu_forward(const T* a, const T* b, T* y, int64 n) {
    int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    acc_t<T> x = to_acc(a[i]);
    y[i] = convert<T>(x / (1 + exp(-x)) * to_acc(b[i]));
}

// With s = 1 / (1 + exp(-a)): dy/da = s (1 + a (1 - s)) b, dy/db = a s.
template <class T>
__global__ void swiglu_backward(const T* g, const T* a, const T* b, T* ga, T* gb, int64 n) {
    int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    acc_t<T> x = to_acc(a[i]), s = 1 / (1 + exp(-x)), gi = to_acc(g[i]);
    ga[i] = convert<T>(gi * to_acc(b[i]) * s * (1 + x * (1 - s)));
    gb[i] = convert<T>(gi * x * s);
}
"""
TYPES = {"T": ("float32", "float64", "float16", "bfloat16")}
FORWARD = cf.cuda.kernel(SOURCE, "swiglu_forward", (
    "const T* a[n]", "const T* b[n]", "T* y[n]", "int64 n"), types=TYPES)
BACKWARD = cf.cuda.kernel(SOURCE, "swiglu_backward", (
    "const T* g[n]", "const T* a[n]", "const T* b[n]", "T* ga[n]", "T* gb[n]", "int64 n"), types=TYPES)
THREADS = 256


class SwiGLU(cf.autograd.Function):
    """silu(a) * b of two tensors of one shape and dtype on a `cuda` or `sim` device."""

    @staticmethod
    def forward(ctx, a, b):
        a, b = a.contiguous(), b.contiguous()
        ctx.save_for_backward(a, b)
        y, n = cf.empty_like(a), a.numel()
        if n:
            FORWARD(-(-n // THREADS), THREADS, a.array, b.array, y.array, n)
        return y

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        ga, gb = cf.empty_like(a), cf.empty_like(b)
        n = a.numel()
        if n:
            BACKWARD(-(-n // THREADS), THREADS, g.contiguous().array, a.array, b.array, ga.array, gb.array, n)
        return ga, gb


class Model(nn.Module):
    """Two numbers in, one out."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 2 * hidden), nn.Linear(hidden, 1)

    def forward(self, x):
        a, b = self.inner(x).chunk(2, -1)
        return self.outer(SwiGLU.apply(a, b))


def check(device: str) -> float:
    """Gradients against finite differences, results against basic operations; return the largest difference."""
    a, b = (cf.randn(3, 5, dtype="float64").to(device).requires_grad_() for _ in range(2))
    assert cf.autograd.gradcheck(SwiGLU.apply, (a, b))
    return (SwiGLU.apply(a, b) - nn.functional.silu(a) * b).abs().max().item()


def train(device: str, steps: int) -> tuple[Model, list[float]]:
    """Learn x0 * x1 on random points of the square [-1, 1]^2; return the model and the losses."""
    model = Model().to(device)
    optimizer = cf.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for step in range(1, steps + 1):
        x = (cf.rand(64, 2) * 2 - 1).to(device)
        loss = nn.functional.mse_loss(model(x), x.prod(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            print(f"step {step:4}  loss {losses[-1]:.1e}")
    return model, losses


def evaluate(model: Model, device: str, path: Path, losses: list[float]) -> float:
    """The mean squared error on a grid, which training has not seen; where there is matplotlib, with a picture."""
    axis = cf.linspace(-1, 1, 41)
    points = cf.stack(cf.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    with cf.no_grad():
        learned = model(points.to(device)).cpu().reshape(41, 41)
    error = learned - points.prod(1).reshape(41, 41)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: pip install -e '.[plot]'")
        return error.square().mean().item()
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.set(title="mean squared error", xlabel="step", yscale="log")
    left.plot(losses)
    for ax, title, values in ((middle, "learned: x0 * x1", learned), (right, "error", error)):
        figure.colorbar(ax.imshow(values.numpy(), origin="lower", extent=(-1, 1, -1, 1)), ax=ax)
        ax.set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"loss and what was learned: {path}")
    return error.square().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if cf.cuda.is_available() else "sim")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/own_kernel"))
    args = parser.parse_args()
    cf.manual_seed(0)
    print(f"on {args.device}: gradients are right, results differ by at most {check(args.device):.1e}")
    model, losses = train(args.device, args.steps)
    error = evaluate(model, args.device, args.out / "learned.png", losses)
    print(f"mean squared error {losses[0]:.1e} -> {error:.1e} on unseen points, with a kernel of our own")


if __name__ == "__main__":
    main()
