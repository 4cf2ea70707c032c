"""Times all-reduces of this job: `cuframe plan --measure` runs it in its ranks."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from .group import destroy_process_group, init_process_group, joined
from .process_group import ReduceOp

__all__ = ["SIZES", "measure"]

SIZES = tuple(1 << power for power in range(15, 26))  # 32 KiB to 32 MiB
_ROUNDS = 15


def measure(rounds: int = _ROUNDS) -> list[tuple[int, float]]:
    """(bytes, seconds) of all-reduces of arrays that the ranks share: of each size the lower quartile of all rounds.

    A call lasts from the barrier before it until its slowest rank is done. Sizes take turns, so that what else the
    machine does meets all of them.
    """
    group = joined("measure").group
    memory = group.empty((SIZES[-1] // 4,), np.dtype(np.float32))
    memory[...] = 1
    took: list[list[float]] = [[] for _ in SIZES]
    for _ in range(rounds + 1):
        for size, times in zip(SIZES, took):
            part = memory[: size // 4]
            group.barrier().wait()
            began = time.perf_counter()
            group.all_reduce(part, ReduceOp.MAX).wait()
            slowest = np.array([time.perf_counter() - began])
            group.all_reduce(slowest, ReduceOp.MAX).wait()
            times.append(float(slowest[0]))
    return [(size, sorted(times[1:])[rounds // 4]) for size, times in zip(SIZES, took)]


def main() -> None:
    """Measure, and let rank 0 write the points to the file that is named."""
    init_process_group()
    points = measure()
    if joined("measure").rank == 0:
        with open(sys.argv[1], "w") as file:
            json.dump(points, file)
    destroy_process_group()


if __name__ == "__main__":
    main()
