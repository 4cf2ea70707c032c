"""All-reduce of 25 MiB float32 among processes of one host: `shm` against the bytes it must move and PyTorch's gloo.

    python -m cuframe run --nproc-per-node 2 benchmarks/all_reduce.py

All take turns in the same processes. Printed in ms: the fastest, the lower quartile and the median call, from a barrier
to the end of the slowest rank's call; `cpu`, the same of what the busiest rank's thread spent itself, waiting not
counted; `MiB`, what a rank reads and writes; `floor`, what moving as much takes by copying arrays, without others'
company; and cpu over floor, by the lower quartiles. gloo works in threads of its own: what the process spent is given.
"""

from __future__ import annotations

import os
import socket
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

MIB = 25
ELEMENTS = MIB << 18
ROUNDS = int(os.environ.get("ROUNDS", "20"))


def main() -> None:
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    x, shared = cf.ones(ELEMENTS), dist.shared_empty(ELEMENTS)
    shared.array[...] = 1
    source, target = np.ones(ELEMENTS, np.float32), np.ones(ELEMENTS, np.float32)
    away = (size - 1) / size
    # name: what is run, and how often a rank reads or writes the array
    runs: dict[str, tuple[Callable[[], object], float]] = {
        "shared array": (lambda: dist.all_reduce(shared), 2.0),
        "shared array, average": (lambda: dist.all_reduce(shared, "avg"), 2.0),
        "any array": (lambda: dist.all_reduce(x), 4 * away + 1 + 2 / size),
        "any array, average": (lambda: dist.all_reduce(x, "avg"), 4 * away + 1 + 2 / size),
        "copy": (lambda: np.copyto(target, source), 2.0),
    }
    if torch is not None:
        torch.set_num_threads(1)
        port = int(dist.broadcast_object(free_port() if rank == 0 else None))
        gloo.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
        y = torch.ones(ELEMENTS)
        runs["gloo"] = (lambda: gloo.all_reduce(y, gloo.ReduceOp.SUM), 0.0)
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    alone: list[float] = []
    for _ in range(ROUNDS + 2):
        for name, (run, _) in runs.items():
            clock = time.process_time if name == "gloo" else time.thread_time
            dist.barrier()
            wall, own = time.perf_counter(), clock()
            run()
            took = cf.tensor([time.perf_counter() - wall, clock() - own], dtype=cf.float64)
            dist.all_reduce(took, "max")
            walls[name].append(1e3 * took[0].item())
            cpu[name].append(1e3 * took[1].item())
        if rank == 0:
            began = time.thread_time()
            np.copyto(target, source)
            alone.append(1e3 * (time.thread_time() - began))
        dist.barrier()
    if rank == 0:
        copied = quartile(alone[2:])
        load = os.getloadavg()[0]
        print(f"{size} ranks, {MIB} MiB float32, {ROUNDS} rounds, {os.cpu_count()} cores, load {load:.1f}; ms")
        print(f"{'':<22}{'wall: least':>12}{'quarter':>9}{'half':>9}{'cpu':>9}{'MiB':>7}{'floor':>8}{'cpu/floor':>11}")
        for name, (_, moved) in runs.items():
            t, own, floor = walls[name][2:], quartile(cpu[name][2:]), copied * moved / 2
            line = f"{name:<22}{min(t):>12.2f}{quartile(t):>9.2f}{statistics.median(t):>9.2f}{own:>9.2f}"
            if moved:
                line += f"{MIB * moved:>7.0f}{floor:>8.2f}{own / floor:>11.2f}"
            print(line)
    dist.barrier()
    dist.destroy_process_group()


def quartile(values: list[float]) -> float:
    return sorted(values)[len(values) // 4]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    main()
