"""The training step of examples/char_lm.py against the same model in PyTorch, in one process.

    python benchmarks/train_char_lm.py                 # ratio of step times: alternating blocks of steps, medians
    python benchmarks/train_char_lm.py --epochs 8      # both train in full, too: bits per character and seconds

Both start from the same weights, so the printed losses also show that they compute the same.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import cuframe as cf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from char_lm import CharLM, read_text, streams

BATCH, STEPS, LR, CLIP = 32, 64, 4e-3, 1.0


class Ours:
    """cuframe's half."""

    def __init__(self, vocabulary: int) -> None:
        cf.manual_seed(0)
        self.model = CharLM(vocabulary)
        self.optimizer = cf.optim.Adam(self.model.parameters(), lr=LR)
        self.state: tuple | None = None

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        logits, state = self.model(cf.from_numpy(x), self.state)
        loss = cf.nn.functional.cross_entropy(logits.flatten(0, 1), cf.from_numpy(y))
        self.optimizer.zero_grad()
        loss.backward()
        cf.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.state = tuple(s.detach() for s in state)
        return loss.item()

    def loss(self, x: np.ndarray, y: np.ndarray) -> float:
        with cf.no_grad():
            logits, self.state = self.model(cf.from_numpy(x), self.state)
            return cf.nn.functional.cross_entropy(logits.flatten(0, 1), cf.from_numpy(y), reduction="sum").item()


class Theirs:
    """PyTorch's half, from the same weights."""

    def __init__(self, vocabulary: int, weights: dict) -> None:
        import torch

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = torch.nn.Embedding(vocabulary, 64)
                self.lstm = torch.nn.LSTM(64, 256)
                self.out = torch.nn.Linear(256, vocabulary)

            def forward(self, ids: torch.Tensor, state: tuple | None) -> tuple:
                h, state = self.lstm(self.embed(ids), state)
                return self.out(h), state

        self.torch = torch
        self.model = Model()
        self.model.load_state_dict({name: torch.from_numpy(value.numpy().copy()) for name, value in weights.items()})
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LR)
        self.state: tuple | None = None

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        torch = self.torch
        logits, state = self.model(torch.from_numpy(x), self.state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.state = tuple(s.detach() for s in state)
        return loss.item()

    def loss(self, x: np.ndarray, y: np.ndarray) -> float:
        torch = self.torch
        with torch.no_grad():
            logits, self.state = self.model(torch.from_numpy(x), self.state)
            return torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.from_numpy(y), reduction="sum"
            ).item()


def validate(side: Ours | Theirs, data: np.ndarray) -> float:
    """Bits per character."""
    side.state, total = None, 0.0
    for t in range(0, len(data) - 1, STEPS):
        chunk = data[t : t + STEPS + 1]
        total += side.loss(chunk[:-1], chunk[1:].reshape(-1))
    return total / (len(data) - 1) / data.shape[1] / math.log(2)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--blocks", type=int, default=12, help="alternating blocks of 10 steps a side")
    p.add_argument("--epochs", type=int, default=0, help="also train both in full")
    args = p.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("this benchmark compares with PyTorch: pip install torch")

    text = read_text(None)
    index = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = np.array([index[c] for c in text], np.int64)
    cut = len(ids) * 9 // 10
    train, valid = streams(ids[:cut], BATCH), streams(ids[cut:], BATCH)
    chunks = [train[t : t + STEPS + 1] for t in range(0, len(train) - STEPS, STEPS)]
    batches = [(np.ascontiguousarray(c[:-1]), c[1:].reshape(-1)) for c in chunks]

    ours = Ours(len(index))
    theirs = Theirs(len(index), ours.model.state_dict())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; batch {BATCH}, {STEPS} steps")
    times: dict[str, list[float]] = {"cuframe": [], "torch": []}
    done = 0
    for block in range(args.blocks + 1):  # the first warms up
        losses = {}
        for name, side in sorted({"cuframe": ours, "torch": theirs}.items(), reverse=bool(block % 2)):
            start = time.perf_counter()
            for x, y in batches[done : done + 10]:
                losses[name] = side.step(x, y)
            if block:
                times[name].append((time.perf_counter() - start) / 10)
        done += 10
    a, b = (statistics.median(times[name]) for name in ("cuframe", "torch"))
    ratio = statistics.median(x / y for x, y in zip(times["cuframe"], times["torch"]))
    print(f"step: cuframe {a * 1e3:.1f} ms, torch {b * 1e3:.1f} ms, ratio {ratio:.2f}")
    print(f"loss after {done} steps: cuframe {losses['cuframe']:.4f}, torch {losses['torch']:.4f}")

    if args.epochs:
        ours = Ours(len(index))
        theirs = Theirs(len(index), ours.model.state_dict())
        seconds = {"cuframe": 0.0, "torch": 0.0}
        for _ in range(args.epochs):
            for name, side in (("cuframe", ours), ("torch", theirs)):
                start = time.perf_counter()
                side.state = None
                for x, y in batches:
                    side.step(x, y)
                bits = validate(side, valid)
                seconds[name] += time.perf_counter() - start
                print(f"  {name:8s} {bits:.3f} bits/char, {seconds[name]:.1f} s", flush=True)
        print(f"{args.epochs} epochs: ratio of times {seconds['cuframe'] / seconds['torch']:.2f}")


if __name__ == "__main__":
    main()
