"""Runs the process group `nccl` on GPUs: one rank, or several, which share a GPU where there are fewer GPUs.

    python -m benchmarks.gpu.nccl RANKS

All collectives against their values, the order of streams, training in step with one process, and a rank that does not
come; then the time of an all-reduce of 25 MiB. A row for each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import cuframe as cf
import cuframe.distributed as dist
from benchmarks.gpu.runner import ROOT, Rows
from cuframe.backend import backend_of
from cuframe.distributed import nccl
from cuframe.distributed.group import joined
from cuframe.distributed.store import Store, StoreServer

__all__ = ["CHECKS", "check", "main", "open_group"]

MIB = 25
BUSY = 2000  # side of the matrices whose product keeps a stream busy
PATIENCE = 3.0  # seconds until a rank is late


def _values(rank: int, shape: tuple[int, ...] = (1000, 3), dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(rank).integers(1, 9, shape).astype(cf.dtypes.as_dtype(dtype))


def _array(group: Any, rank: int, dtype: str = "float32") -> Any:
    return group.device.from_host(_values(rank, dtype=dtype))


def _same(name: str, array: Any, expected: np.ndarray) -> None:
    found = backend_of(array).to_host(array)
    if found.tobytes() != np.ascontiguousarray(expected).tobytes():
        raise AssertionError(f"{name}: {found.reshape(-1)[:4]} and not {expected.reshape(-1)[:4]}")


def reductions(group: Any) -> None:
    for dtype in ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"):
        x = _array(group, group.rank, dtype)
        group.all_reduce(x, dist.ReduceOp.MAX)
        _same(f"max {dtype}", x, np.maximum.reduce([_values(r, dtype=dtype) for r in range(group.size)]))
        if dtype not in ("bool", "uint8"):  # small whole numbers: every order of additions has the same bits
            x = _array(group, group.rank, dtype)
            group.all_reduce(x)
            _same(f"sum {dtype}", x, sum(_values(r, dtype="float64") for r in range(group.size)).astype(x.dtype))
    x = _array(group, group.rank)
    group.all_reduce(x, dist.ReduceOp.AVG)
    _same("avg", x, (sum(_values(r, dtype="float64") for r in range(group.size)) / group.size).astype("float32"))


def moves(group: Any) -> None:
    xp, size, last = group.device.xp, group.size, group.size - 1
    everyone = np.stack([_values(r) for r in range(size)])
    x = _array(group, group.rank)
    group.broadcast(x, last)
    _same("broadcast", x, everyone[last])
    out = xp.zeros((size, 1000, 3), "float32")
    group.all_gather(out, _array(group, group.rank))
    _same("all_gather", out, everyone)
    part = xp.zeros((1000, 3), "float32")
    group.reduce_scatter(part, out)
    _same("reduce_scatter", part, size * everyone[group.rank])
    swapped = xp.zeros_like(out)
    group.all_to_all(swapped, out)
    _same("all_to_all", swapped, np.stack([everyone[group.rank]] * size))
    group.barrier()


def messages(group: Any) -> None:
    """Around the ring: all send before they receive."""
    if group.size == 1:
        return
    ahead, behind = (group.rank + 1) % group.size, (group.rank - 1) % group.size
    x, y = _array(group, group.rank), _array(group, 99)
    work = group.send(x, ahead, background=True)
    group.recv(y, behind)
    work.wait()
    _same("recv", y, _values(behind))
    y = _array(group, 99)
    for work in group.batch([("send", x, ahead), ("recv", y, behind)]):
        work.wait()
    _same("batch", y, _values(behind))


def streams(group: Any) -> None:
    """A collective waits for what the caller's stream was given before it; what comes after it, for the collective."""
    device = group.device
    big = device.xp.ones((BUSY, BUSY), "float32")
    x = device.xp.zeros(1 << 20, "float32")
    for _ in range(20):
        slow = big @ big  # keeps the stream busy
        x += 1 + 0 * slow[0, 0]
        work = group.all_reduce(x, background=True)
        work.wait()
        x /= group.size
    _same("streams", x[:10], np.full(10, 20, "float32"))


def training(group: Any) -> None:
    """Every rank's part of the batch gives the gradients that one process has of all of it."""
    if group.size == 1:
        return
    where = str(group.device.where)
    cf.manual_seed(0)
    models = [cf.nn.Sequential(cf.nn.Linear(16, 32), cf.nn.Tanh(), cf.nn.Linear(32, 4)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    alone, inner = (m.to(where) for m in models)
    together = cf.nn.parallel.DistributedDataParallel(inner)
    x = cf.tensor(np.random.default_rng(1).standard_normal((8 * group.size, 16), np.float32)).to(where)
    alone(x).square().mean().backward()
    together(x[8 * group.rank : 8 * (group.rank + 1)]).square().mean().backward()
    for (name, p), q in zip(alone.named_parameters(), inner.parameters()):
        worst = float((p.grad - q.grad).abs().max().item())
        if worst > 1e-6:
            raise AssertionError(f"training: the gradient of {name} is off by {worst:.2e}")


def late(group: Any) -> None:
    """A rank that does not come is named, and the communicator is aborted: the GPU does not wait for ever."""
    if group.size == 1:
        return
    part = dist.new_group(list(range(group.size)), timeout=PATIENCE)
    x = _array(part, group.rank)
    part.all_reduce(x)
    if group.rank == 1:
        time.sleep(2 * PATIENCE)
        return
    began = time.monotonic()
    try:
        part.all_reduce(x, background=True).wait(30)
    except dist.DistributedTimeout as error:
        if "rank 1 has not joined it" not in str(error) or time.monotonic() - began > 10:
            raise
    else:
        raise AssertionError("late: the all-reduce went well without rank 1")
    dist.destroy_process_group(part)


def speed(group: Any) -> dict[str, float]:
    x, times = group.device.xp.ones(MIB << 18, "float32"), []
    for _ in range(25):
        group.barrier()
        began = time.perf_counter()
        group.all_reduce(x, dist.ReduceOp.MAX, background=True).wait(30)
        times.append(1e3 * (time.perf_counter() - began))
    return {"mib": MIB, "least_ms": round(min(times), 3), "half_ms": round(sorted(times)[12], 3)}


CHECKS: dict[str, Callable[[Any], Any]] = {
    "reductions": reductions, "moves": moves, "messages": messages, "streams": streams, "training": training,
    "late": late, "speed": speed,
}  # fmt: skip


def open_group() -> Any:
    """The group of the job; of one rank as well, which otherwise would need no NCCL."""
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("nccl", timeout=60)
        return joined("nccl").group
    server = StoreServer("127.0.0.1", 0, b"gpu-check")
    server.start()
    store = Store("127.0.0.1", server.port, b"gpu-check")
    return nccl.NcclGroup(store, "world", (0,), 0, 60.0, nccl.CudaDevice.of_rank(0))


def check(group: Any, rows: Rows) -> None:
    """Run all checks on a rank; rank 0 writes the rows."""
    facts = {"ranks": group.size, "nccl": nccl.version_text(group.nccl.version)}
    for name, run in CHECKS.items():
        began = time.monotonic()
        found = run(group) or {}
        if group.rank == 0:
            rows.add(name, **facts, **found, seconds=round(time.monotonic() - began, 3))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("ranks", type=int)
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    if "RANK" not in os.environ:
        rows = [] if args.rows is None else ["--rows", args.rows]
        command = ["-m", "cuframe", "run", "--nproc-per-node", str(args.ranks), "-m", "benchmarks.gpu.nccl"]
        return subprocess.call(
            [sys.executable, *command, str(args.ranks), *rows], cwd=ROOT, env={**os.environ, **_sharing(args.ranks)}
        )
    group = open_group()
    check(group, Rows(args.rows if group.rank == 0 else None))
    group.barrier()
    (dist.destroy_process_group if dist.is_initialized() else group.close)()
    return 0


def _sharing(ranks: int) -> dict[str, str]:
    """With fewer GPUs than ranks, all use the first, which NCCL has to be told."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() >= ranks:
        return {}
    return {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "CUDA_VISIBLE_DEVICES": "0"}


if __name__ == "__main__":
    sys.exit(main())
