"""Times collectives among processes of this host, and counts wrong elements, as nccl-tests do.

The ranks are started by the launcher behind `cuframe run`; `python -m cuframe.bench.collectives` is what they run. A
time is that of the slowest rank, from a barrier on. algbw is size over time, busbw corrects it by what a rank must send
for each byte, so that it can be held against the bandwidth of the wire whatever the number of ranks.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import machine
from .case import itemsize
from .statistics import interval, noted, ratio, summary, verdict

__all__ = ["CollectiveCase", "bus_factor", "measure", "todo"]

_SIZES = {"cpu": (4096, 1 << 20, 25 << 20), "cuda": (4096, 1 << 20, 25 << 20, 256 << 20)}
_ROUNDS = 15
_REDUCING = ("all_reduce", "reduce_scatter", "reduce")


class CollectiveCase(NamedTuple):
    name: str
    size: int
    dtype: str
    redop: str
    ranks: int

    @property
    def key(self) -> str:
        return f"{self.name} {self.size}B x{self.ranks} {self.dtype} {self.redop} step"

    @property
    def elements(self) -> int:
        """Elements, of all ranks together where each has a part; a multiple of the ranks."""
        return self.size // itemsize(self.dtype) // self.ranks * self.ranks


def todo(names: Sequence[str], kind: str, ranks: int, known: Container[str] = ()) -> list[CollectiveCase]:
    """The cases of these collectives that have no row yet."""
    found = [CollectiveCase(name, size, "float32", "sum" if name in _REDUCING else "none", ranks)
             for name in names for size in _SIZES[kind]]
    return [c for c in found if c.key not in known]


def bus_factor(name: str, ranks: int) -> float:
    """Bytes that a rank must send for each byte of the collective's size.

    >>> bus_factor("all_reduce", 4), bus_factor("broadcast", 4)
    (1.5, 1.0)
    """
    return {"all_reduce": 2 * (ranks - 1) / ranks, "all_gather": (ranks - 1) / ranks,
            "reduce_scatter": (ranks - 1) / ranks}.get(name, 1.0)


def measure(cases: Sequence[CollectiveCase], kind: str, ranks: int, baseline: bool) -> Iterator[dict[str, Any]]:
    """The rows of these cases, from ranks started for them.

    Raises:
        RuntimeError: the ranks failed.
    """
    from cuframe.distributed.launcher import Plan, launch

    with tempfile.TemporaryDirectory(prefix="cuframe-bench-") as folder:
        path = Path(folder) / "rows"
        asked = json.dumps({"cases": [list(c) for c in cases], "kind": kind, "baseline": baseline, "rows": str(path)})
        before = machine.load()
        code = launch(Plan([sys.executable, "-m", "cuframe.bench.collectives", asked], ranks))
        noise = machine.noise(before, machine.load())  # of all the ranks' time, which has been added to ours
        for line in path.read_text().splitlines() if path.exists() else ():
            yield noted(json.loads(line), noise)
        if code == 128 + signal.SIGINT:
            raise KeyboardInterrupt
        if code:
            raise RuntimeError(f"the ranks ended with status {code}")


class _Library(NamedTuple):
    """cuframe's functions or PyTorch's, which have the same names."""

    lib: Any
    dist: Any
    device: str


def _prepare(case: CollectiveCase, side: _Library, rank: int) -> tuple[Callable[[], Any], Callable[[], Any], Any]:
    """What fills the input, what runs, and what holds the result; elements are small whole numbers: sums are exact."""
    lib, dist, n = side.lib, side.dist, case.elements
    dtype = getattr(lib, case.dtype)

    def put(a: np.ndarray) -> Any:
        return lib.from_numpy(a).to(side.device).to(dtype)

    pattern = (np.arange(n) % 7).astype(np.float32)
    if case.name in ("all_gather", "reduce_scatter"):
        part = n // case.ranks
        if case.name == "all_gather":
            given, result = put(pattern[rank * part : (rank + 1) * part] + rank), put(np.zeros(n, np.float32))
            return lambda: None, lambda: dist.all_gather_into_tensor(result, given), result
        given, result = put(pattern + rank), put(np.zeros(part, np.float32))
        return lambda: None, lambda: dist.reduce_scatter_tensor(result, given), result
    given = put(pattern + rank)
    held = given.clone()
    runs = {"all_reduce": lambda: dist.all_reduce(held), "broadcast": lambda: dist.broadcast(held, 0),
            "reduce": lambda: dist.reduce(held, 0)}
    return lambda: held.copy_(given), runs[case.name], held


def _expected(case: CollectiveCase, rank: int) -> np.ndarray | None:
    """What this rank must hold afterwards; None where it holds nothing of interest."""
    n, ranks = case.elements, case.ranks
    pattern, all_ranks = (np.arange(n) % 7).astype(np.float64), ranks * (ranks - 1) / 2
    part = n // ranks
    if case.name == "all_gather":
        return pattern + np.repeat(np.arange(ranks), part)
    if case.name == "broadcast":
        return pattern
    total = pattern * ranks + all_ranks
    if case.name == "reduce_scatter":
        return total[rank * part : (rank + 1) * part]
    return total if case.name == "all_reduce" or rank == 0 else None


def _wrong(case: CollectiveCase, result: Any, rank: int, double: Any) -> int:
    right = _expected(case, rank)
    return 0 if right is None else int((result.detach().cpu().to(double).numpy() != right).sum())


def _case_row(case: CollectiveCase, libraries: dict[str, _Library], rank: int, wait: Callable[[], None]
              ) -> dict[str, Any]:
    import cuframe as cf
    import cuframe.distributed as dist

    runs, wrong, notes = {}, 0, {}
    for label, side in libraries.items():
        try:
            runs[label] = _prepare(case, side, rank)
            for part in runs[label][:2]:
                part()
            wait()
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            if label == "cuframe":
                raise
            notes[label] = f"{type(error).__name__}: {error}"[:200]
            del runs[label]
            continue
        if label == "cuframe":
            mine = cf.from_numpy(np.array([_wrong(case, runs[label][2], rank, cf.float64)]))
            dist.all_reduce(mine)
            wrong = int(mine.item())
    times: dict[str, list[float]] = {label: [] for label in runs}
    for turn in range(_ROUNDS):
        for label in list(runs) if turn % 2 == 0 else list(reversed(runs)):
            fill, run, _ = runs[label]
            fill()
            wait()
            dist.barrier()
            start = time.perf_counter()
            run()
            wait()
            took = cf.from_numpy(np.array([(time.perf_counter() - start) * 1e6]))
            dist.all_reduce(took, "max")
            times[label].append(took.item())
    return {**_row(case, times, wrong), **({"notes": notes} if notes else {})}


def _row(case: CollectiveCase, times: dict[str, list[float]], wrong: int) -> dict[str, Any]:
    size = case.elements * itemsize(case.dtype)
    us = {label: {"wall": summary(values)} for label, values in times.items()}
    algorithm = size / us["cuframe"]["wall"]["median"] / 1e3
    row: dict[str, Any] = {
        "key": case.key, "family": case.name, "group": "collectives", "sizes": {"B": case.size, "ranks": case.ranks},
        "label": f"{case.size}B x{case.ranks}", "dtype": case.dtype, "mode": "step", "modes": ["step"],
        "device": "cpu", "timer": "wall", "figure": "wall", "us": us,
        "samples_us": {label: [round(v, 3) for v in values] for label, values in times.items()}, "size": size,
        "count": case.elements, "redop": case.redop, "algbw": round(algorithm, 3),
        "busbw": round(algorithm * bus_factor(case.name, case.ranks), 3), "wrong": wrong, "within": wrong == 0,
        "baseline": None}
    if "torch" in times:
        value, bounds = ratio(times["torch"], times["cuframe"]), interval(times["torch"], times["cuframe"])
        row |= {"baseline": "torch", "speedup": round(value, 4), "interval": list(bounds),
                "verdict": verdict(value, bounds)}
    return row


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _torch(kind: str, rank: int, size: int, port: int) -> _Library | None:
    try:
        import torch
        import torch.distributed as theirs
    except ImportError:
        return None
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of names that are to change
    theirs.init_process_group("gloo" if kind == "cpu" else "nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank,
                              world_size=size)
    return _Library(torch, theirs, kind if kind == "cpu" else f"cuda:{rank}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("asked", help="JSON: cases, kind, baseline, rows")
    asked = json.loads(parser.parse_args(argv).asked)
    import cuframe as cf
    import cuframe.distributed as dist

    kind = asked["kind"]
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    libraries = {"cuframe": _Library(cf, dist, "cpu" if kind == "cpu" else f"cuda:{rank}")}
    if asked["baseline"]:
        port = int(dist.broadcast_object(_free_port() if rank == 0 else None))
        other = _torch(kind, rank, size, port)
        if other is not None:
            libraries["torch"] = other
    wait = (lambda: None) if kind == "cpu" else cf.cuda.synchronize
    for given in asked["cases"]:
        row = _case_row(CollectiveCase(*given), libraries, rank, wait)
        if rank == 0:
            with Path(asked["rows"]).open("a") as file:
                file.write(json.dumps({**row, "device": kind}) + "\n")
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
