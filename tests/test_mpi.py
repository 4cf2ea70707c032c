"""Process group `mpi`, started by mpirun: values, deadlines, and the end after an exception that nobody catches."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import cuframe.distributed as dist
from tests.ranks import ROOT

# the wheel of MPICH puts mpirun beside Python
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
needs_mpi = pytest.mark.skipif(
    find_spec("mpi4py") is None or MPIRUN is None, reason="needs mpi4py and mpirun (pip install mpi4py mpich)"
)

START = """
import sys, time
import numpy as np, cuframe as cf, cuframe.distributed as dist
dist.init_process_group("mpi", timeout=TIMEOUT)
rank, size = dist.get_rank(), dist.get_world_size()
"""


def mpirun(count: int, source: str, timeout: float = 60.0) -> subprocess.CompletedProcess:
    assert MPIRUN is not None
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.run(
        [MPIRUN, "-n", str(count), sys.executable, "-c", START.replace("TIMEOUT", f"{timeout}") + source], cwd=ROOT,
        env=env | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, text=True, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def swept():
    """MPICH leaves memory behind when it is aborted: what appeared meanwhile and nobody uses is removed."""
    before = set(os.listdir("/dev/shm"))
    yield
    new = {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("mpich_shm_")}
    for maps in Path("/proc").glob("[0-9]*/maps") if new else ():
        with contextlib.suppress(OSError):
            text = maps.read_text()
            new = {name for name in new if name not in text}
    for name in new:
        Path("/dev/shm", name).unlink(missing_ok=True)


@needs_mpi
def test_values():
    done = mpirun(3, """
assert dist.get_backend() == "mpi" and size == 3
for dtype in ("float32", "float64", "float16", "bfloat16", "int8", "int16", "int64", "complex64"):
    x = cf.full((7,), rank + 1).to(getattr(cf, dtype))
    dist.all_reduce(x)
    assert x.dtype == getattr(cf, dtype) and x.to(cf.complex64).tolist() == [6] * 7, x
x = cf.tensor([rank == 0, True, False])
dist.all_reduce(x)
assert x.tolist() == [True, True, False]
x = cf.full((2,), rank + 1.0)
work = dist.all_reduce(x, "avg", async_op=True)
assert work.wait() and work.is_success() and x.tolist() == [2, 2]
x = cf.full((2,), float(rank))
dist.reduce(x, 1, "max")
assert rank != 1 or x.tolist() == [2, 2]
dist.broadcast(x := cf.full((2,), float(rank)), 2)
assert x.tolist() == [2, 2]
whole = np.full((4, 6), float(rank))
dist.all_reduce(cf.Tensor(whole[:, ::2]))
assert (whole[:, ::2] == 3).all() and (whole[:, 1::2] == rank).all()
outs = [cf.zeros(2) for _ in range(size)]
dist.all_gather(outs, cf.full((2,), float(rank)))
assert [o.tolist() for o in outs] == [[0, 0], [1, 1], [2, 2]]
dist.gather(cf.full((1,), float(rank)), outs := [cf.zeros(1) for _ in range(3)] if rank == 1 else None, dst=1)
assert rank != 1 or [o.item() for o in outs] == [0, 1, 2]
dist.scatter(x := cf.zeros(1), [cf.full((1,), 5.0 + r) for r in range(3)] if rank == 0 else None, src=0)
assert x.item() == 5 + rank
dist.reduce_scatter(x := cf.zeros(2), [cf.full((2,), float(10 * rank + r)) for r in range(3)])
assert x.tolist() == [30 + 3 * rank] * 2
outs = [cf.zeros(1) for _ in range(3)]
dist.all_to_all(outs, [cf.full((1,), float(10 * rank + r)) for r in range(3)])
assert [o.item() for o in outs] == [rank, 10 + rank, 20 + rank]
work = dist.isend(cf.full((50000,), float(rank)), (rank + 1) % size, tag=4)
dist.recv(x := cf.zeros(50000), (rank - 1) % size, tag=4)
assert work.wait() and x[0].item() == (rank - 1) % size
assert dist.broadcast_object({"a": [1]} if rank == 1 else None, 1) == {"a": [1]}
pair = dist.new_group([0, 2])
if rank != 1:
    dist.all_reduce(x := cf.ones(1), group=pair)
    assert x.item() == 2
dist.barrier()
dist.destroy_process_group()
print("well")
""")  # fmt: skip
    assert done.returncode == 0 and done.stdout.count("well") == 3, done.stdout + done.stderr


@needs_mpi
def test_an_exception_ends_the_job(swept):
    begin = time.monotonic()
    done = mpirun(2, """
if rank == 1:
    raise ValueError("the data are wrong")
dist.barrier()
""")  # fmt: skip
    assert done.returncode != 0 and time.monotonic() - begin < 30
    assert "ValueError: the data are wrong" in done.stderr and "rank 1 ends the job" in done.stderr


@needs_mpi
def test_a_late_rank_is_named(swept):
    done = mpirun(2, """
dist.barrier()
if rank == 1:
    time.sleep(30)
dist.all_reduce(cf.ones(10))
""", timeout=1)  # fmt: skip
    expected = "all_reduce #2 (float32, 10 sum) is not over within 1 s: rank 1 last called barrier #1"
    assert done.returncode != 0 and expected in done.stderr, done.stderr


def test_without_mpi4py_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(dist.DistributedError, match=r"mpi: needs mpi4py: pip install .*\[mpi\]"):
        dist.init_process_group("mpi")
    assert not dist.is_initialized()
