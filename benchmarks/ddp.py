"""What DistributedDataParallel costs, how much of its communication backward hides, and how two ranks scale.

    python benchmarks/ddp.py [--seconds 15] [--only own,hidden,"scaling lstm"] [--json FILE]

Starts two ranks with one thread each by `cuframe run`. What is compared takes turns, for so many seconds; turns during
which the host of a virtual machine took more than 1 % of the processors (steal) are left out, where enough are left.
In brackets is the interval in which 95 % of the figures lie that one gets from turns drawn again with replacement. A
target that lies in it is neither met nor missed.

own: what a training step takes more in the wrapper, on one rank: processor time of the same model with its hooks and
without, in the order of A B B A; the median of the turns.
hidden: 25 MiB of gradients come while the processor is idle, as behind a GPU. Of the time that their all-reduces take
with nothing beside them, the share that is over when the last gradient of all ranks is there; of times that others can
only lengthen, the lower quartile.
scaling: the time of a step of one rank while the other waits, over that of both together, each with a batch of the same
size; lower quartiles. It needs a machine without other jobs. `apart` is the same of two ranks that do not communicate:
what they take from each other (memory, caches, the core's clock); and `abreast`, if they waited for each other at the
end of each step, but for nothing else: the most that any way to communicate can reach.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import cuframe as cf
import cuframe.distributed as dist
from cuframe import nn, optim
from cuframe.autograd.graph import Leaf
from cuframe.nn import functional as F
from cuframe.nn.parallel import DistributedDataParallel

V = 100  # size of the vocabulary
LAYERS, LAYER, PAUSE, CAP = 32, 25 * 2**20 // 32 // 4, 0.003, 5.0  # of the gradients that come while nothing computes
LEAST = 5  # turns, however long they take
STOLEN = 0.01  # of the processors' time: more of it, and a turn does not count
console = Console(highlight=False, soft_wrap=True)


class LSTM(nn.Module):
    """The model of examples/char_lm.py."""

    shape = (64, 32)

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.out = nn.Embedding(V, 64), nn.LSTM(64, 256), nn.Linear(256, V)

    def forward(self, ids: cf.Tensor) -> cf.Tensor:
        return self.out(self.lstm(self.embed(ids))[0])


class Transformer(nn.Module):
    """Four encoder layers."""

    shape = (16, 64)

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(192, 4, 768, dropout=0.0, batch_first=True)
        self.embed, self.body, self.out = nn.Embedding(V, 192), nn.TransformerEncoder(layer, 4), nn.Linear(192, V)

    def forward(self, ids: cf.Tensor) -> cf.Tensor:
        return self.out(self.body(self.embed(ids)))


class Many(nn.Module):
    """Ninety-nine parameters and hardly any arithmetic: what each of them costs."""

    shape = (8, 8)

    def __init__(self) -> None:
        super().__init__()
        layers = [layer for _ in range(48) for layer in (nn.Linear(64, 64), nn.ReLU())]
        self.body = nn.Sequential(nn.Embedding(V, 64), *layers, nn.Linear(64, V))

    def forward(self, ids: cf.Tensor) -> cf.Tensor:
        return self.body(ids)


class Idle(cf.autograd.Function):
    """A layer whose gradient takes time and no processor; `last` is when the latest of them was there."""

    last = 0.0

    @staticmethod
    def forward(ctx: Any, x: cf.Tensor, weight: cf.Tensor) -> cf.Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, g: cf.Tensor) -> tuple:
        time.sleep(PAUSE)
        Idle.last = time.perf_counter()
        return g, cf.Tensor(np.broadcast_to(np.float32(1), LAYER))


class Waiting(nn.Module):
    """A chain of such layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(cf.zeros(LAYER)) for _ in range(LAYERS)])

    def forward(self, x: cf.Tensor) -> cf.Tensor:
        for weight in self.weights:
            x = Idle.apply(x, weight)
        return x


def trainer(model: nn.Module, kind: type) -> Callable[[], None]:
    """A training step of a model, on the same batch each time."""
    rng = np.random.default_rng(0)
    x, y = cf.tensor(rng.integers(0, V, kind.shape)), cf.tensor(rng.integers(0, V, kind.shape).reshape(-1))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        loss = F.cross_entropy(model(x).flatten(0, 1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None], times: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    for _ in range(times):
        step()
    return (clock() - start) / times


class Steal:
    """What the host of a virtual machine took from its processors, of all their time, since the last look."""

    def __init__(self) -> None:
        self.before = self._read()

    def _read(self) -> np.ndarray:
        with open("/proc/stat") as file:
            fields = [int(word) for word in file.readline().split()[1:9]]
        return np.array([fields[7], sum(fields)])

    def share(self) -> float:
        now = self._read()
        (taken, all_), self.before = now - self.before, now
        return float(taken / max(1, all_))


def own(kind: type, going: Callable[[], bool]) -> dict[str, Any]:
    """Rank 0's own; the others wait."""
    alone = [dist.new_group([r]) for r in range(dist.get_world_size())][dist.get_rank()]
    found: dict[str, Any] = {}
    if dist.get_rank() == 0:
        model = kind()
        wrapper = DistributedDataParallel(model, process_group=alone)
        step, other = trainer(model, kind), trainer(wrapper, kind)
        leaves = [p.node for p in model.parameters()]
        hooks, hooked = [leaf.meta for leaf in leaves], Leaf.hooked
        rows, steal, took = [], Steal(), [0.0, 0.0]

        def run(wrapped: int) -> None:
            Leaf.hooked = hooked if wrapped else 0
            for leaf, meta in zip(leaves, hooks):
                leaf.meta = meta if wrapped else None
            took[wrapped] += timed(other if wrapped else step, clock=time.thread_time)

        for _ in range(2):
            run(0), run(1)
        while going():
            took = [0.0, 0.0]
            for side in (0, 1, 1, 0) if len(rows) % 2 else (1, 0, 0, 1):
                run(side)
            rows.append([took[0] / 2, took[1] / 2, steal.share()])
        run(1)
        found = estimate(lambda turns: np.median(turns[:, 1] / turns[:, 0]) - 1, rows)
        seconds, count = float(quartiles(calm(rows))[0]), len(leaves)
        each = 1e6 * found["value"] * seconds / count
        found |= {"step_ms": 1e3 * seconds, "parameters": count, "us_a_parameter": each}
    dist.barrier()
    return found


def slowest(*values: float) -> list[float]:
    """The largest of all ranks."""
    found = cf.tensor(values, dtype=cf.float64)
    dist.all_reduce(found, "max")
    return found.tolist()


def hidden(going: Callable[[], bool]) -> dict[str, Any]:
    model = DistributedDataParallel(Waiting(), bucket_cap_mb=CAP)
    x = cf.ones(1, requires_grad=True)

    def after_last() -> float:
        """Seconds from the last gradient of all ranks to the end of the last backward."""
        dist.barrier()
        model(x).sum().backward()
        last, end = slowest(Idle.last, time.perf_counter())
        return end - last

    def all_reduces() -> None:
        for bucket in model._reducer.buckets:
            dist.all_reduce(bucket.buffer(), "avg")

    after_last()
    rows, steal = [], Steal()
    while together(going()):
        late = after_last()
        with model.no_sync():
            nothing = after_last()  # what the engine and copying the last gradient take
        dist.barrier()
        rows.append([late, nothing, *slowest(timed(all_reduces), steal.share())])
    late, nothing, alone = (1e3 * quartiles(calm(rows))).tolist()

    def share(turns: np.ndarray) -> float:
        late, nothing, alone = quartiles(turns)
        return min(1.0, 1 - (late - nothing) / alone)

    found = estimate(share, rows)
    return {**found, "alone_ms": alone, "exposed_ms": late - nothing}


def scaling(kind: type, going: Callable[[], bool]) -> dict[str, Any]:
    plain = trainer(kind(), kind)
    parallel = trainer(DistributedDataParallel(kind()), kind)
    hooked, rows, steal = Leaf.hooked, [], Steal()
    rank, size = dist.get_rank(), dist.get_world_size()
    parallel()

    def one(turn: int) -> float:
        dist.barrier()
        return timed(plain) if turn == rank else 0.0

    def both(step: Callable[[], None]) -> float:
        Leaf.hooked = hooked if step is parallel else 0
        dist.barrier()
        took = timed(step)
        Leaf.hooked = 0
        return took

    while together(going()):
        Leaf.hooked = 0
        took = {}
        parts = {"alone": lambda: sum(one(turn) for turn in range(size)), "apart": lambda: both(plain),
                 "both": lambda: both(parallel)}  # fmt: skip
        for name in list(parts) if len(rows) % 2 else reversed(list(parts)):
            took[name] = parts[name]()
        Leaf.hooked = hooked
        mean = cf.tensor([took["alone"], took["apart"]], dtype=cf.float64)
        dist.all_reduce(mean, "avg")
        alone, apart = mean.tolist()
        rows.append([alone, apart, *slowest(took["apart"], took["both"], steal.share())])

    def efficiency(column: int) -> Callable[[np.ndarray], float]:
        return lambda turns: quartiles(turns)[0] / quartiles(turns)[column]

    found = estimate(efficiency(3), rows)
    for name, column in (("apart", 1), ("abreast", 2)):
        ceiling = estimate(efficiency(column), rows)
        found |= {name: ceiling["value"], f"{name}_low": ceiling["low"], f"{name}_high": ceiling["high"]}
    return found | {"step_ms": 1e3 * float(quartiles(calm(rows))[3])}


def together(mine: bool) -> bool:
    """Whether all ranks say so."""
    flag = cf.tensor([int(mine)])
    dist.all_reduce(flag, "min")
    return bool(flag.item())


def calm(rows: list) -> np.ndarray:
    """The turns that the host left alone, its share being their last column; all, where fewer than a third are."""
    data = np.array(rows)
    kept = data[data[:, -1] <= STOLEN]
    return kept if len(kept) >= max(LEAST, len(data) / 3) else data


def quartiles(turns: np.ndarray) -> np.ndarray:
    """The lower ones of all columns but the last."""
    return np.quantile(turns[:, :-1], 0.25, axis=0)


def estimate(statistic: Callable[[np.ndarray], float], rows: list) -> dict[str, float]:
    """A statistic of the calm turns, and the interval of what it is of turns drawn with replacement."""
    data, rng = calm(rows), np.random.default_rng(0)
    drawn = [statistic(data[rng.integers(len(data), size=len(data))]) for _ in range(500)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"value": float(statistic(data)), "low": float(low), "high": float(high), "turns": len(data),
            "disturbed": int((np.array(rows)[:, -1] > STOLEN).sum()), "all": len(rows)}  # fmt: skip


Part = Callable[[Callable[[], bool]], dict[str, Any]]
PARTS: dict[str, tuple[str, Part, float | None, bool]] = {
    # name: what is printed, what is run, the target, whether less is better
    "own lstm": ("own cost, LSTM", lambda going: own(LSTM, going), 0.03, True),
    "own transformer": ("own cost, Transformer", lambda going: own(Transformer, going), 0.03, True),
    "own many": ("own cost, 49 small layers", lambda going: own(Many, going), None, True),
    "hidden": ("hidden behind backward", hidden, 0.9, False),
    "scaling lstm": ("weak scaling, LSTM", lambda going: scaling(LSTM, going), 0.9, False),
    "scaling transformer": ("weak scaling, Transformer", lambda going: scaling(Transformer, going), 0.9, False),
}


def line(name: str, row: dict[str, Any]) -> str:
    """A result beside its target."""
    title, _, target, less = PARTS[name]
    text = f"{title:<27}{row['value']:>7.1%} ({row['low']:.1%} to {row['high']:.1%})"
    if target is not None:
        sides = {bound <= target if less else bound >= target for bound in (row["low"], row["high"])}
        verdict = "unclear" if len(sides) > 1 else "met" if True in sides else "missed"
        text += f", target {'<=' if less else '>='} {target:.0%}: {verdict}"
    if "us_a_parameter" in row:
        text += f"; step {row['step_ms']:.1f} ms, {row['parameters']} parameters, {row['us_a_parameter']:.1f} us each"
    if "alone_ms" in row:
        text += f"; all-reduces alone {row['alone_ms']:.1f} ms, exposed {row['exposed_ms']:.2f} ms"
    if "apart" in row:
        for name in ("apart", "abreast"):
            text += f"; {name} {row[name]:.1%} ({row[name + '_low']:.1%} to {row[name + '_high']:.1%})"
        text += f"; step {row['step_ms']:.1f} ms"
    return text + f"; {row['turns']} of {row['all']} turns, {row['disturbed']} disturbed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each of six figures (default: %(default)s)")
    parser.add_argument("--only", default="own,hidden,scaling", help="which of own, hidden, scaling, or of their parts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args()
    if args.seconds <= 0:
        parser.error(f"--seconds must be positive, got {args.seconds}")
    asked = args.only.split(",")
    if unknown := set(asked) - {name.split()[0] for name in PARTS} - set(PARTS):
        parser.error(f"--only: no part {', '.join(sorted(unknown))}")
    if "RANK" not in os.environ:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        os.execv(sys.executable, [sys.executable, "-m", "cuframe", "run", "--nproc-per-node", "2", *sys.argv])
    dist.init_process_group("shm", timeout=60 + args.seconds)  # while rank 0 measures, the others wait
    rank, size = dist.get_rank(), dist.get_world_size()
    console.quiet = rank > 0
    names = [name for name in PARTS if name in asked or name.split()[0] in asked]
    results: dict[str, Any] = {}
    console.print(f"{size} ranks of one thread, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    columns = (TextColumn("{task.fields[part]}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=rank > 0 or not console.is_terminal) as bar:
        task = bar.add_task("", total=len(names) * args.seconds, part="")
        for i, name in enumerate(names):
            cf.manual_seed(0)
            start, turns = time.perf_counter(), []

            def going(start: float = start, turns: list = turns, done: float = i * args.seconds) -> bool:
                took = time.perf_counter() - start
                bar.update(task, completed=done + took)
                turns.append(took)
                return took < args.seconds or len(turns) <= LEAST

            bar.update(task, part=PARTS[name][0])
            results[name] = PARTS[name][1](going)
            if rank == 0:
                console.print(line(name, results[name]))
    dist.destroy_process_group()
    if args.json is not None and rank == 0:
        facts = {"ranks": size, "cores": os.cpu_count(), "load": os.getloadavg()[0], "seconds": args.seconds}
        args.json.write_text(json.dumps(facts | {"results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
