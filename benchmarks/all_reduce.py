"""All-reduce of 25 MiB float32 among processes of one host: `shm` against a plain copy and PyTorch's gloo, if there.

    python -m cuframe run --nproc-per-node 2 benchmarks/all_reduce.py

All take turns in the same processes; printed are the fastest, the median and the slowest call in ms, from a barrier to
the end of the slowest rank's call. `cpu`: the median of what a rank's thread spent itself, waiting not counted.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import numpy as np

import cuframe as cf
import cuframe.distributed as dist

try:
    import torch
    import torch.distributed as gloo
except ImportError:
    torch = None  # type: ignore[assignment]

ELEMENTS = 25 << 18
ROUNDS = int(os.environ.get("ROUNDS", "20"))


def main() -> None:
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    x = cf.ones(ELEMENTS)
    source, target = np.ones(ELEMENTS, np.float32), np.ones(ELEMENTS, np.float32)
    runs: dict[str, Callable[[], object]] = {
        "shm": lambda: dist.all_reduce(x, "max"),
        "shm, average": lambda: dist.all_reduce(x, "avg"),
        "copy of the array": lambda: np.copyto(target, source),
    }
    if torch is not None:
        torch.set_num_threads(1)
        port = int(dist.broadcast_object(free_port() if rank == 0 else None))
        gloo.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
        y = torch.ones(ELEMENTS)
        runs["gloo"] = lambda: gloo.all_reduce(y, gloo.ReduceOp.MAX)
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 2):
        for name, run in runs.items():
            dist.barrier()
            wall, own = time.perf_counter(), time.thread_time()
            run()
            took = cf.tensor([time.perf_counter() - wall, time.thread_time() - own], dtype=cf.float64)
            dist.all_reduce(took, "max")
            walls[name].append(took[0].item())
            cpu[name].append(took[1].item())
    if rank == 0:
        print(f"{size} ranks, 25 MiB float32, {ROUNDS} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for name in runs:
            t = sorted(1e3 * v for v in walls[name][2:])
            own = 1e3 * statistics.median(cpu[name][2:])
            print(f"{name:<20} {t[0]:8.2f} {statistics.median(t):8.2f} {t[-1]:8.2f}   cpu {own:7.2f}")
    dist.barrier()
    dist.destroy_process_group()


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    main()
