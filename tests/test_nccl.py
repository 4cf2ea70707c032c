"""Process group `nccl` on the stub of NCCL: values, what NCCL is asked, the order of streams, and DDP's needs."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.nccl_stub import library
from tests.ranks import check_ranks

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build the stub of NCCL"),
]

START = """
import os, threading, time
import numpy as np, cuframe as cf, cuframe.distributed as dist
from cuframe.distributed import nccl
from tests.nccl_stub import HostDevice, HostStream, Stream, log, stub
from tests.rank_helpers import UFUNC, check_layouts_and_handles, check_lists, expect, tensor, values
nccl.CudaDevice = HostDevice
"""


def nccl_ranks(size: int, source: str, **variables: str) -> str:
    return check_ranks(size, START + source, CUFRAME_NCCL_LIBRARY=library(), **variables)


REDUCTIONS = """
from functools import reduce

def expected(arrays, op):
    dtype = arrays[0].dtype
    with np.errstate(all="ignore"):
        total = reduce(lambda a, b: UFUNC[op](a, b).astype(dtype), arrays)  # rounded at each rank, as NCCL does
        if op == "avg" and dtype.kind == "c":
            return np.asarray(total.real / len(arrays) + 1j * (total.imag / len(arrays))).astype(dtype)
        return (total / len(arrays)).astype(dtype) if op == "avg" else total

def main(rank, size):
    dist.init_process_group("nccl", timeout=60)
    assert dist.get_backend() == "nccl"
    seed = 0
    for dtype in ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32",
                  "int64", "uint64", "bool", "complex64", "complex128"):
        dtype = cf.dtypes.as_dtype(dtype)
        for op in UFUNC:
            if op == "avg" and dtype.kind in "iub" or op in ("min", "max", "product") and dtype.kind == "c":
                continue
            for shape in ((), (0,), (3, 5), (40001,)):
                if shape == (40001,) and (dtype != "float32" or op != "sum"):
                    continue  # several of the stub's pieces, the last of them ragged
                seed += 1
                x = tensor(rank, shape, dtype, seed)
                dist.all_reduce(x, op)
                want = expected([values(r, shape, dtype, seed) for r in range(size)], op)
                assert x.array.dtype == dtype and x.array.tobytes() == want.tobytes(), (dtype, op, x, want)
            if dtype in ("float32", "int16", "bool") and op in ("sum", "max"):
                x = tensor(rank, (3, 5), dtype, seed)
                dist.reduce(x, 1, op)
                if rank == 1:
                    want = expected([values(r, (3, 5), dtype, seed) for r in range(size)], op)
                    assert np.array_equal(x.array, want), ("reduce", dtype, op)
                y = cf.Tensor(np.zeros((3, 5), dtype))
                dist.reduce_scatter(y, [tensor(rank + 10 * i, (3, 5), dtype, seed) for i in range(size)], op)
                want = expected([values(r + 10 * rank, (3, 5), dtype, seed) for r in range(size)], op)
                assert np.array_equal(y.array, want), ("reduce_scatter", dtype, op)
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [2, 3])
def test_reductions(size):
    nccl_ranks(size, REDUCTIONS)


MOVES = """
def main(rank, size):
    dist.init_process_group("nccl", timeout=60)
    for n, (shape, dtype) in enumerate([((3, 2), "float32"), ((0, 4), "int64"), ((), "float64"), ((5,), "bool"),
                                        ((300, 100), "float32"), ((4,), "int16"), ((4,), "complex64")]):
        check_lists(rank, size, shape, dtype, n, (0, size - 1))
        peer, before = (rank + 1) % size, (rank - 1) % size
        sent = values(before, shape, dtype, n)
        work = dist.isend(tensor(rank, shape, dtype, n), peer)  # around a ring: all send before they receive
        x = cf.Tensor(np.zeros(shape, dtype))
        assert dist.recv(x, before) == before and work.wait() and work.is_completed()
        assert np.array_equal(x.array, sent)
        x = cf.Tensor(np.zeros(shape, dtype))
        ops = [dist.P2POp(dist.isend, tensor(rank, shape, dtype, n), peer), dist.P2POp(dist.irecv, x, before)]
        assert all(work.wait() for work in dist.batch_isend_irecv(ops))
        assert np.array_equal(x.array, sent)
    check_layouts_and_handles(rank, size)
    whole = np.full((2000, 6), float(rank))
    work = dist.irecv(cf.Tensor(whole[:, 4:6]), 0) if rank == 1 else None
    if rank == 0:
        dist.send(cf.full((2000, 2), 7.0, dtype=cf.float64), 1)
    assert work is None or work.wait() and (whole[:, 4:6] == 7).all()
    thing = {"a": [1, 2.5, None, True], "m": np.arange(6.0).reshape(2, 3)}
    got = dist.broadcast_object(thing if rank == 1 else None, 1)
    assert got["a"] == thing["a"] and np.array_equal(got["m"], thing["m"])
    # parts of the job
    pair = dist.new_group([0, size - 1])
    if rank in (0, size - 1):
        x = cf.ones(3)
        dist.all_reduce(x, group=pair)
        assert x.tolist() == [2, 2, 2] and dist.get_backend(pair) == "nccl"
        dist.destroy_process_group(pair)
    dist.barrier()
    dist.destroy_process_group()
    kinds = [line.split()[0] for line in log()]
    assert kinds.count("init") == kinds.count("destroy") == kinds.count("finalize") and "abort" not in kinds
"""


@pytest.mark.parametrize("size", [2, 3])
def test_moves_messages_objects_and_groups(size):
    nccl_ranks(size, MOVES)


def test_what_nccl_is_asked():
    source = """
def main(rank, size):
    dist.init_process_group("nccl", timeout=60)
    def asked(function):
        stub().stub_log_clear()
        function()
        lines = [dict(p.split("=") for p in line.split()[1:]) | {"": line.split()[0]} for line in log()]
        assert len({p["stream"] for p in lines}) == 1 and lines[0]["stream"] not in ("(nil)", "0x0")
        return [tuple(int(p[k]) if k else p[k] for k in p if k != "stream") for p in lines]
    x, half, whole = cf.ones(3, 4), cf.ones(7).to(cf.bfloat16), cf.zeros(2, 3)
    # in the order of the log: count, type, op or root or peer, depth of groups, name
    assert asked(lambda: dist.all_reduce(x)) == [(12, 7, 0, 0, "all_reduce")]
    assert asked(lambda: dist.all_reduce(half, "avg")) == [(7, 9, 4, 0, "all_reduce")]
    assert asked(lambda: dist.all_reduce(x > 0)) == [(12, 1, 2, 0, "all_reduce")]  # or: the largest byte
    assert asked(lambda: dist.all_reduce(cf.ones(2, dtype="int16"), "min")) == [(2, 2, 3, 0, "all_reduce")]  # wider
    assert asked(lambda: dist.broadcast(x, 1)) == [(12, 7, 1, 0, "broadcast")]
    assert asked(lambda: dist.reduce(x, 1, "max")) == [(12, 7, 2, 1, 0, "reduce")]
    assert asked(lambda: dist.all_gather_into_tensor(whole, cf.ones(3))) == [(3, 7, 0, "all_gather")]
    assert asked(lambda: dist.reduce_scatter_tensor(cf.ones(3), whole, "product")) == [(3, 7, 1, 0, "reduce_scatter")]
    both = [(3, 7, 0, 1, "send"), (3, 7, 1, 1, "send"), (3, 7, 0, 1, "recv"), (3, 7, 1, 1, "recv")]
    assert asked(lambda: dist.all_to_all_single(cf.zeros(6), cf.zeros(6))) == both  # in one group
    pairs = [dist.P2POp(dist.isend, x, 1 - rank), dist.P2POp(dist.irecv, cf.zeros(12), 1 - rank)]
    assert asked(lambda: dist.batch_isend_irecv(pairs)[0].wait()) == [
        (12, 7, 1 - rank, 1, "send"), (12, 7, 1 - rank, 1, "recv")]
    dist.destroy_process_group()
"""
    nccl_ranks(2, source)


def test_order_of_streams():
    """A collective waits for what the caller's stream was given before; what it is given after wait(), for it."""
    source = """
def main(rank, size):
    dist.init_process_group("nccl", timeout=60)
    group, device = nccl_group(), None
    compute = group.device.now = Stream()
    x, y, z = (np.zeros(1000, np.float32) for _ in range(3))
    begin = time.monotonic()
    compute.kernel(x, rank + 1.0, seconds=0.2)          # slow: the collective must not read x before
    work = group.all_reduce(x, background=True)
    compute.kernel(z, 5.0)                              # needs no collective, and does not wait for one
    work.wait()
    compute.kernel(y, 1.0, source=x)                    # reads what the collective writes
    assert time.monotonic() - begin < 0.15, "the host waited"
    compute.synchronize()
    assert (x == 3).all() and (y == 4).all() and (z == 5).all()
    # with the delay inside the collective
    stub().stub_delay(200000)
    work = group.all_reduce(x, background=True)
    work.wait()
    compute.kernel(y, 0.0, source=x)
    assert not work.is_completed()
    compute.synchronize()
    assert (y == 6).all() and work.is_completed() and work.is_success()
    # a deadline of the caller's own, on the host
    work = group.all_reduce(x, background=True)
    expect(dist.DistributedTimeout, r"all_reduce #3 \\(float32, 1,000\\) is not over within 0.01 s",
           lambda: work.wait(0.01))
    assert work.wait(10) and (x == 12).all()
    stub().stub_delay(0)
    # buffers are kept until the GPU is done with them, and no longer
    import gc, weakref
    z = np.ones(10, np.float32)
    seen = weakref.ref(z)
    stub().stub_delay(600000)
    work = group.broadcast(z, 0, background=True)
    del z, work
    gc.collect()
    assert seen() is not None
    end = time.monotonic() + 10
    while seen() is not None and time.monotonic() < end:
        time.sleep(0.01)
        gc.collect()
    assert seen() is None
    dist.destroy_process_group()

def nccl_group():
    from cuframe.distributed.group import joined
    return joined("test").group
"""
    nccl_ranks(2, source)


def test_bad_arguments_are_refused_before_nccl_is_asked():
    source = """
def main(rank, size):
    dist.init_process_group("nccl", timeout=60)
    from cuframe.distributed.group import joined
    group, x = joined("test").group, cf.ones(2)
    stub().stub_log_clear()
    expect(ValueError, "all_reduce: tensor lives elsewhere, and this rank's group communicates on cpu",
           lambda: group.all_reduce([1.0]))
    expect(TypeError, "all_reduce: op avg needs a floating point dtype, got int64",
           lambda: dist.all_reduce(x.long(), "avg"))
    expect(TypeError, "all_reduce: NCCL multiplies no complex numbers; got complex64",
           lambda: dist.all_reduce(x.to(cf.complex64), "product"))
    expect(ValueError, r"all_gather: output must be float32 \\(2, 3\\), got float32 \\(2, 4\\)",
           lambda: group.all_gather(np.zeros((2, 4), "f"), np.zeros(3, "f")))
    expect(ValueError, r"all_gather: output must be float32 \\(2, 3\\), got float64 \\(2, 3\\)",
           lambda: group.all_gather(np.zeros((2, 3)), np.zeros(3, "f")))
    expect(ValueError, r"reduce_scatter: input must be float32 \\(2, 3\\), got float32 \\(3, 3\\)",
           lambda: group.reduce_scatter(np.zeros(3, "f"), np.zeros((3, 3), "f")))
    expect(ValueError, "broadcast: a rank of this group must be from 0 to 1, got 2",
           lambda: group.broadcast(x.array, 2))
    expect(ValueError, f"send: rank {rank} is this rank itself", lambda: dist.send(x, rank))
    expect(TypeError, "p2p_op_list must be P2POps", lambda: dist.batch_isend_irecv([]))
    expect(ValueError, "have no tag", lambda: dist.batch_isend_irecv([dist.P2POp(dist.isend, x, 1 - rank, tag=3)]))
    assert log() == []
    dist.barrier()
    dist.destroy_process_group()
    expect(dist.DistributedError, "all_reduce: the process group was destroyed", lambda: group.all_reduce(x.array))
"""
    nccl_ranks(2, source)


def test_data_parallel_training_over_nccl():
    """Two ranks with half a batch each have the gradients of one process with all of it."""
    source = """
def main(rank, size):
    from cuframe import nn
    dist.init_process_group("nccl", timeout=60)
    cf.manual_seed(rank)
    made = lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    model, alone = nn.parallel.DistributedDataParallel(made()), made()
    alone.load_state_dict(model.module.state_dict())
    x = cf.Tensor(values(9, (8, 5), "float32"))
    for _ in range(3):
        model.zero_grad()
        model(x[4 * rank : 4 * rank + 4]).square().mean().backward()
        alone.zero_grad()
        alone(x).square().mean().backward()
        for p, q in zip(model.parameters(), alone.parameters()):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert any(line.startswith("all_reduce") for line in log())
    dist.destroy_process_group()
"""
    nccl_ranks(2, source)


CHOICE = """
import warnings
from cuframe.distributed import group

group.driver_present = lambda: True
GPUS = %s  # of each rank

class Device(HostDevice):
    @classmethod
    def of_rank(cls, local_rank):
        if GPUS[local_rank] is None:
            raise ValueError("there is no such GPU")
        return cls(GPUS[local_rank])

nccl.CudaDevice = Device

def main(rank, size):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dist.init_process_group(timeout=60)
    print(dist.get_backend(), *[w.message for w in said])
    dist.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("gpus", "backend", "lost"),
    [
        ([0, 1], "nccl", ""),
        ([None, None], "shm", ""),
        ([0, None], "shm", "rank 1"),
        ([3, 3, None], "shm", "ranks 1 and 2"),
    ],
)
def test_without_a_name_nccl_is_taken_where_every_rank_has_a_gpu(gpus, backend, lost):
    lines = sorted(nccl_ranks(len(gpus), CHOICE % gpus).splitlines())
    text = f"{backend} init_process_group: there is no GPU for {lost}, so all communicate through host memory ('shm')"
    assert [line.partition(";")[0] for line in lines] == [backend] * (len(gpus) - bool(lost)) + [text] * bool(lost)


def test_ranks_may_share_a_gpu_and_hosts_need_one_each():
    assert nccl_ranks(2, CHOICE % [0, 0], NCCL_MULTI_RANK_GPU_ENABLE="1").split() == ["nccl", "nccl"]
    nccl_ranks(2, CHOICE % [0, None] + """
several = main
def main(rank, size):
    group.socket.gethostname = lambda: f"host{rank}"
    expect(dist.DistributedError, "no GPU for rank 1, as 'nccl' needs, and 'shm' connects ranks of one host only",
           lambda: several(rank, size))
""")  # fmt: skip


@pytest.mark.parametrize("size", [1, 2])
def test_the_check_for_gpus_runs(size):
    """What `make gpu-check` asks of NCCL, here of the stub; one rank uses it as well."""
    out = nccl_ranks(size, """
from benchmarks.gpu import nccl as checks
from benchmarks.gpu.runner import Rows
checks.MIB, checks.BUSY, checks.PATIENCE = 1, 50, 0.5

def main(rank, size):
    nccl._shared_gpus = lambda: True
    group = checks.open_group()
    checks.check(group, Rows(None))
    group.barrier()
    (dist.destroy_process_group if size > 1 else group.close)()
""")  # fmt: skip
    from benchmarks.gpu.nccl import CHECKS

    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["key"] for row in rows] == list(CHECKS) and {row["ranks"] for row in rows} == {size}
