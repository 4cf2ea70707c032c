"""Read strips of handwritten digits with a bidirectional LSTM and CTC, which finds out by itself where a digit stands.

    python examples/ctc_digits.py --out runs/ctc_digits

Strips of 4 to 8 digits are joined from scikit-learn's 1,797 images of 8 x 8 pixels, with random gaps, overlaps and
heights. The images are split first: the closing figure is over strips of images that training has never shown. It takes
a minute on two cores, and scikit-learn and matplotlib (pip install -e '.[examples]').
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import cuframe as cf
from cuframe import nn, optim
from cuframe.nn import functional as F

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
except ImportError:
    sys.exit("this example needs scikit-learn and matplotlib: pip install -e '.[examples]'")

HEIGHT, WINDOW, STRIDE = 10, 6, 2  # rows of a strip; columns that a step sees; columns from step to step
console = Console(highlight=False, soft_wrap=True)


class Reader(nn.Module):
    """Log probabilities of blank (0) and the ten digits (1 to 10) at every step along a strip."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(HEIGHT * WINDOW, hidden)
        self.lstm = nn.LSTM(hidden, hidden, bidirectional=True)
        self.out = nn.Linear(2 * hidden, 11)

    def forward(self, x: cf.Tensor, lengths: cf.Tensor) -> cf.Tensor:
        h, _ = self.lstm(F.relu(self.embed(x)), lengths=lengths)  # [T, N, F] -> [T, N, 2 H]
        return F.log_softmax(self.out(h), dim=2)  # [T, N, 11]


def join(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One strip [HEIGHT, width]: neighbours overlap by a column or stand up to two apart, each at its own height."""
    lefts = np.cumsum(rng.integers(7, 11, len(images))) - 7
    strip = np.zeros((HEIGHT, lefts[-1] + 8), np.float32)
    for image, left, top in zip(images, lefts, rng.integers(HEIGHT - 7, size=len(images))):
        place = strip[top : top + 8, left : left + 8]
        np.maximum(place, image, out=place)
    return strip


def batch(images: np.ndarray, digits: np.ndarray, size: int, rng: np.random.Generator) -> tuple:
    """`size` strips, what stands on them, and what the model takes: steps [T, N, HEIGHT * WINDOW] and their number."""
    picks = [rng.integers(len(images), size=rng.integers(4, 9)) for _ in range(size)]
    strips = [join(images[p], rng) for p in picks]
    lengths = np.array([-(-s.shape[1] // STRIDE) for s in strips])
    x = np.zeros((STRIDE * lengths.max() + WINDOW, size, HEIGHT), np.float32)
    for n, strip in enumerate(strips):
        x[WINDOW // 2 : WINDOW // 2 + strip.shape[1], n] = strip.T
    steps = np.concatenate([x[i : i + STRIDE * lengths.max() : STRIDE] for i in range(WINDOW)], axis=2)
    return strips, [digits[p].tolist() for p in picks], cf.from_numpy(steps), cf.from_numpy(lengths)


def read(log_probs: cf.Tensor, lengths: cf.Tensor) -> list[list[int]]:
    """The best class of each step, repeats merged and blanks left out."""
    best = log_probs.argmax(2).cpu().numpy()  # [T, N]
    return [[int(k) - 1 for k, _ in groupby(best[:t, n]) if k] for n, t in enumerate(lengths.cpu().numpy())]


def distance(a: list, b: list) -> int:
    """The insertions, deletions and substitutions that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def plot(path: Path, strips: list, truths: list, readings: list, losses: list) -> None:
    """Draw strips with their readings, and the loss."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[5, 2])
    for axes, strip, truth, reading in zip(upper.subplots(5, 2).flat, strips, truths, readings):
        axes.imshow(strip, cmap="gray_r")
        axes.set_title("".join(map(str, reading)), color="tab:green" if reading == truth else "tab:red")
        axes.set_axis_off()
    axes = lower.subplots()
    axes.semilogy(losses, lw=0.6)
    axes.set(xlabel="step", ylabel="CTC loss a digit")
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("runs/ctc_digits"), help="folder for the picture")
    p.add_argument("--steps", type=int, default=800, help="training steps")
    p.add_argument("--lr", type=float, default=1e-2)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cuda" if cf.cuda.is_available() else "cpu")
    args = p.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    cf.manual_seed(args.seed)
    rng, (pixels, labels) = np.random.default_rng(args.seed), load_digits(return_X_y=True)
    order = rng.permutation(len(labels))
    images, digits = pixels[order].astype(np.float32).reshape(-1, 8, 8) / 16, labels[order]
    cut = len(order) * 3 // 4  # images from here on are for the test
    model = Reader().to(args.device)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)
    console.print(f"{cut:,} images to train, {len(images) - cut} to test; training on {args.device}")
    losses: list[float] = []
    started = time.perf_counter()
    shown = TextColumn("step {task.completed}/{task.total} loss {task.fields[loss]:.3f}")
    with Progress(BarColumn(bar_width=None), shown, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=args.steps, loss=np.nan)
        for _ in range(args.steps):
            _, truths, x, lengths = batch(images[:cut], digits[:cut], 32, rng)
            log_probs = model(x.to(args.device), lengths.to(args.device))
            loss = F.ctc_loss(log_probs, np.concatenate(truths) + 1, lengths, [len(t) for t in truths])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.update(task, advance=1, loss=np.mean(losses[-20:]))

    strips, truths, x, lengths = batch(images[cut:], digits[cut:], 500, rng)
    with cf.no_grad():
        readings = read(model(x.to(args.device), lengths.to(args.device)), lengths)
    plot(args.out / "readings.png", strips, truths, readings, losses)
    rate = sum(map(distance, readings, truths)) / sum(map(len, truths))
    whole = np.mean([r == t for r, t in zip(readings, truths)])
    console.print(f"strips and their readings: {args.out / 'readings.png'}")
    console.print(f"{whole:.0%} of 500 unseen strips read without error, {time.perf_counter() - started:.0f} s")
    console.print(f"character error rate {rate:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
