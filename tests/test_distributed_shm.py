"""Process group `shm`: every collective against NumPy, faults, and that nothing is left behind."""

from __future__ import annotations

import os
import re
import socket
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

import cuframe as cf
import cuframe.distributed as dist
from cuframe.distributed.segment import Peer
from tests.ranks import ROOT, check_ranks, run_ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="shm needs Linux")

START = """
import numpy as np, cuframe as cf, cuframe.distributed as dist
from tests.rank_helpers import UFUNC, check_layouts_and_handles, check_lists, expect, tensor, values
"""

REDUCTIONS = START + """
from functools import reduce

def expected(arrays, op):
    dtype = arrays[0].dtype
    narrow = dtype.itemsize == 2 and dtype.kind in "fV"
    with np.errstate(all="ignore"):
        total = reduce(UFUNC[op], [a.astype(np.float32) if narrow else a for a in arrays])
        if op == "avg":
            total = total / len(arrays)
        return np.asarray(total).astype(dtype)

def main(rank, size):
    dist.init_process_group(timeout=60)
    seed = 0
    room = dist.shared_empty(1 << 19).array
    for dtype in DTYPES:
        dtype = cf.dtypes.as_dtype(dtype)
        for op in UFUNC:
            if op == "avg" and dtype.kind in "iub" or op in ("min", "max") and dtype.kind == "c":
                continue
            for shape in ((), (0,), (7,), (3, 2100), (400001,)):
                if shape == (400001,) and (dtype.itemsize != 4 or op not in ("sum", "max")):
                    continue  # several pieces, the last of them ragged
                seed += 1
                x = tensor(rank, shape, dtype, seed)
                dist.all_reduce(x, op)
                want = expected([values(r, shape, dtype, seed) for r in range(size)], op)
                assert x.array.dtype == dtype and x.array.tobytes() == want.tobytes(), (dtype, op, shape)
                if x.array.size > 2100:  # the same in memory that is shared, somewhere in it
                    x = cf.Tensor(room.view(dtype)[seed : seed + x.array.size].reshape(shape))
                    x.array[...] = values(rank, shape, dtype, seed)
                    dist.all_reduce(x, op)
                    assert x.array.tobytes() == want.tobytes(), ("shared", dtype, op, shape)
                if shape == (3, 2100) or op == "sum" and shape == (400001,):
                    y = cf.Tensor(np.zeros(shape, dtype))
                    dist.reduce_scatter(y, [tensor(rank + 10 * i, shape, dtype, seed) for i in range(size)], op)
                    want = expected([values(r + 10 * rank, shape, dtype, seed) for r in range(size)], op)
                    assert y.array.tobytes() == want.tobytes(), ("reduce_scatter", dtype, op, shape)
    dist.destroy_process_group()
"""


ALL = ("float32", "float64", "bfloat16", "float16", "int64", "uint8", "bool", "complex64")


@pytest.mark.parametrize(("size", "dtypes"), [(2, ("float32", "bfloat16")), (3, ALL)], ids=["2", "3"])
def test_reductions_equal_numpys_to_the_bit(size, dtypes):
    check_ranks(size, f"DTYPES = {dtypes}\n{REDUCTIONS}")


MOVES = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (rank, size, "shm")
    for n, (shape, dtype) in enumerate([((3, 2), "float32"), ((0, 4), "int64"), ((), "float64"),
                                        ((1200, 300), "float32"), ((5,), "bool")]):
        dtype = np.dtype(dtype)
        check_lists(rank, size, shape, dtype, n, range(size))
        peer = (rank + 1) % size
        work = dist.isend(tensor(rank, shape, dtype, n), peer, tag=n)  # around a ring: all send before they receive
        x = cf.Tensor(np.zeros(shape, dtype))
        assert dist.recv(x, (rank - 1) % size, tag=n) == (rank - 1) % size and work.wait() and work.is_completed()
        assert np.array_equal(x.array, values((rank - 1) % size, shape, dtype, n))
    check_layouts_and_handles(rank, size)
    # objects
    thing = {"a": [1, 2.5, None, True], ("k", 1): b"xyz", "m": np.arange(6.0).reshape(2, 3), "t": cf.ones(2)}
    got = dist.broadcast_object(thing if rank == 1 else None, 1)
    assert list(got) == list(thing) and got["a"] == thing["a"] and got["k", 1] == b"xyz"
    assert np.array_equal(got["m"], thing["m"]) and isinstance(got["t"], cf.Tensor) and got["t"].tolist() == [1, 1]
    # parts of the job
    pair = dist.new_group([0, size - 1])
    alone = dist.new_group([1])
    if rank in (0, size - 1):
        x = cf.ones(3)
        dist.all_reduce(x, group=pair)
        assert x.tolist() == [2, 2, 2] and dist.get_process_group_ranks(pair) == [0, size - 1]
        assert dist.get_group_rank(pair, size - 1) == 1 and dist.get_global_rank(pair, 1) == size - 1
        dist.destroy_process_group(pair)
    else:
        assert dist.get_rank(pair) == -1 and dist.get_world_size(pair) == -1 and pair is dist.NON_GROUP_MEMBER
    if rank == 1:
        dist.barrier(alone)
    # simulated devices
    x = cf.ones(4, device="sim")
    dist.all_reduce(x)
    assert x.tolist() == [size] * 4 and x.device == "sim:0"
    dist.barrier()
    dist.destroy_process_group()
    assert not dist.is_initialized()
"""


@pytest.mark.parametrize("size", [2, 3])
def test_moves_objects_handles_and_groups(size):
    check_ranks(size, MOVES)


# A rank may fail: what matters is what the others say. `expect(text)` is for them.
FAULTS = START + """
import os, signal, threading, time
"""


@pytest.mark.parametrize(
    ("dies", "how"),
    [("os.kill(os.getpid(), signal.SIGKILL)", "died of SIGKILL|has ended"), ("os._exit(0)", "has ended|exited")],
)
def test_a_dead_rank_is_named_at_once(dies, how):
    source = FAULTS + f"""
def main(rank, size):
    dist.init_process_group(timeout=60)
    for _ in range(3):
        dist.all_reduce(cf.ones(10))
    if rank == 1:
        time.sleep(0.3)
        {dies}
    begin = time.monotonic()
    expect(dist.DistributedError, r"rank 1 \\(pid \\d+\\) ({how}).* before it came to all_reduce #4",
           lambda: dist.all_reduce(cf.ones(10)))
    assert time.monotonic() - begin < 20
    expect(dist.DistributedError, "broken since: rank 1", lambda: dist.barrier())
    os._exit(0)
"""
    done = run_ranks(3, source)
    assert done.returncode == (1 if "KILL" in dies else 0), done.stderr


def test_a_rank_that_does_not_come_is_named_when_the_time_is_over():
    source = FAULTS + """
def main(rank, size):
    dist.init_process_group(timeout=1)
    dist.broadcast(cf.ones(10), 0)
    if rank == 1:
        time.sleep(2.5)
    else:
        text = r"all_reduce #2: rank 1 did not come within 1 s \\(rank 1 last came to broadcast #1\\)"
        work = dist.all_reduce(cf.ones(10), async_op=True)
        expect(dist.DistributedTimeout, "not over within", lambda: work.wait(0.01))
        expect(dist.DistributedTimeout, text, work.wait)
        assert work.is_completed() and not work.is_success() and isinstance(work.exception(), TimeoutError)
    os._exit(0)
"""
    check_ranks(2, source)


MISMATCHES = {
    "shape": ("dist.all_reduce(cf.ones(10 + (rank == 1)))", r"rank 1: all_reduce #2 float32\[11\] sum"),
    "dtype": ("dist.all_reduce(cf.ones(10).to('int64' if rank == 1 else 'int32'))", "rank 1: all_reduce #2 int64"),
    "op": ("dist.all_reduce(cf.ones(10), 'max' if rank == 1 else 'min')", r"rank 1: all_reduce #2 float32\[10\] max"),
    "root": ("dist.broadcast(cf.ones(10), rank == 1)", r"rank 1: broadcast #2 float32\[10\] from 1"),
    "name": ("dist.barrier() if rank == 1 else dist.all_reduce(cf.ones(10))", "ranks 0 and 2: all_reduce #2 .*barrier"),
}


def test_shared_arrays():
    source = FAULTS + """
def main(rank, size):
    import gc
    dist.init_process_group(timeout=60)
    pair = dist.new_group([0, 2])
    x, y = dist.shared_empty(3, 5000), dist.shared_empty((9000,), dtype="int64")
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((3, 5000), np.float32, (9000,), np.int64)
    assert dist.shared_empty(2, 0).shape == (2, 0)
    x.array[...], y.array[...] = rank, np.arange(9000) * (rank + 1)
    x.array[2] = 7
    works = [dist.all_reduce(cf.Tensor(x.array[:2]), async_op=True), dist.all_reduce(y, "max", async_op=True)]
    assert all(work.wait() for work in works)
    assert (x.array[:2] == 3).all() and (x.array[2] == 7).all() and (y.array == np.arange(9000) * 3).all()
    dist.all_reduce(cf.Tensor(x.array[:, ::2]))  # not contiguous: as any array
    assert (x.array[:2, ::2] == 9).all() and (x.array[2, ::2] == 21).all() and (x.array[:2, 1::2] == 3).all()
    if rank != 1:
        z = dist.shared_empty(9000, group=pair)
        z.array[...] = rank + 1
        dist.all_reduce(z, group=pair)
        dist.all_reduce(cf.Tensor(x.array[2, 1:]), group=pair)  # the memory of another group: as any array
        assert (z.array == 4).all()
        del z
    expect(ValueError, r"shared_empty: size must be whole numbers from 0 on, got \\(2, -1\\)",
           lambda: dist.shared_empty(2, -1))
    expect(dist.DistributedError, "rank 0 asks for 16384 bytes, rank 1 for 28672",
           lambda: dist.shared_empty(2000 if rank == 1 else 1000))
    part = cf.Tensor(y.array[rank == 1 :][:8000])
    expect(dist.DistributedError, "disagree.*ranks 0 and 2: all_reduce .* in shared array 2 at 0; rank 1: .* at 8",
           lambda: dist.all_reduce(part))
    dist.destroy_process_group()
    def mapped():
        gc.collect()
        with open("/proc/self/maps") as lines:
            return sum("memfd:cuframe" in line for line in lines)
    x += 1  # the memory is there as long as a tensor is
    before = mapped()
    del x, y, part
    assert before - mapped() == 2, (before, mapped())
"""
    check_ranks(3, source)


@pytest.mark.parametrize("kind", MISMATCHES)
def test_calls_that_do_not_fit_are_errors_on_every_rank(kind):
    call, text = MISMATCHES[kind]
    source = FAULTS + f"""
def main(rank, size):
    dist.init_process_group(timeout=60)
    dist.barrier()
    expect(dist.DistributedError, r"#2: the ranks disagree on what comes now.*{text}", lambda: {call})
    dist.destroy_process_group()
"""
    check_ranks(3, source)


def test_a_message_must_be_what_is_received():
    source = FAULTS + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    if rank == 0:
        dist.send(cf.ones(3), 1, tag=5)
    else:
        expect(dist.DistributedError, r"expected float32\\[4\\] tag 5, but float32\\[3\\] tag 5 was sent",
               lambda: dist.recv(cf.ones(4), 0, tag=5))
    os._exit(0)
"""
    check_ranks(2, source)


def test_who_leaves_early_is_named():
    source = FAULTS + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    if rank == 1:
        dist.destroy_process_group()
        time.sleep(1)
    else:
        expect(dist.DistributedError, "barrier #1: rank 1 left the group before it", lambda: dist.barrier())
    os._exit(0)
"""
    check_ranks(2, source)


def test_bad_arguments_are_refused_before_anyone_waits():
    source = FAULTS + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    x = cf.ones(2)
    expect(TypeError, "all_reduce: tensor must be a Tensor, got list", lambda: dist.all_reduce([1]))
    expect(ValueError, "op must be a ReduceOp or one of sum, avg, min, max, product, got 'mean'",
           lambda: dist.all_reduce(x, "mean"))
    expect(TypeError, "op avg needs a floating point dtype, got int64", lambda: dist.all_reduce(x.long(), "avg"))
    expect(ValueError, r"src must be one of the group's ranks \\[0, 1\\], got 2", lambda: dist.broadcast(x, 2))
    expect(ValueError, "must be a list of 2 tensors, one a rank, got 1", lambda: dist.all_gather([x], x))
    expect(ValueError, r"tensor_list\\[1\\] must be float32 \\(2,\\), got float32 \\(3,\\)",
           lambda: dist.all_gather([x, cf.ones(3)], x))
    expect(ValueError, r"output_tensor must be float32 \\(4,\\) or \\(2, 2\\), got float32 \\(5,\\)",
           lambda: dist.all_gather_into_tensor(cf.ones(5), x))
    expect(ValueError, "is this rank itself", lambda: dist.send(x, rank))
    expect(ValueError, "different ranks from 0 to 1", lambda: dist.new_group([0, 0]))
    expect(RuntimeError, "has joined its group already", lambda: dist.init_process_group())
    if rank == 0:
        expect(TypeError, "broadcast_object: takes None, .* got set", lambda: dist.broadcast_object({1}))
    dist.barrier()
    dist.destroy_process_group()
    expect(RuntimeError, "barrier: call cuframe.distributed.init_process_group\\\\(\\\\) first", lambda: dist.barrier())
"""
    check_ranks(2, source)


def test_nothing_is_left_in_dev_shm_or_open():
    before = set(os.listdir("/dev/shm"))
    source = FAULTS + """
def main(rank, size):
    before = len(os.listdir("/proc/self/fd"))
    dist.init_process_group(timeout=60)
    dist.all_reduce(cf.ones(1000))
    assert not [f for f in os.listdir("/dev/shm") if "cuframe" in f]
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    expect(dist.DistributedError, "rank 1", dist.barrier)
    dist.destroy_process_group()
    import gc
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
"""
    assert run_ranks(2, source).returncode == 1  # the killed one
    assert set(os.listdir("/dev/shm")) - before == set()


def test_one_process_needs_no_store():
    dist.init_process_group()
    try:
        assert (dist.get_rank(), dist.get_world_size(), dist.get_local_rank()) == (0, 1, 0)
        assert dist.get_backend() == "single"
        x, y = cf.ones(3), cf.zeros(3)
        work = dist.all_reduce(x, dist.ReduceOp.AVG, async_op=True)
        assert isinstance(work, dist.Work) and work.wait() and x.tolist() == [1, 1, 1]
        dist.all_gather([y], x)
        assert y.tolist() == [1, 1, 1]
        dist.broadcast(x, 0)
        dist.barrier()
        dist.reduce_scatter(y, [2 * x])
        assert y.tolist() == [2, 2, 2] and isinstance(dist.new_group([0]), dist.ProcessGroup)
        joined, row, one = cf.zeros(2), cf.zeros(1, 2), cf.zeros(1)
        numbers = cf.tensor([1.0, 2.0])
        for whole in (joined, row):  # along the first dimension, or a new one
            dist.all_gather_into_tensor(whole, numbers)
            assert whole.flatten().tolist() == [1, 2]
            part = cf.zeros(2)
            dist.reduce_scatter_tensor(part, whole)
            assert part.tolist() == [1, 2]
        dist.all_gather_into_tensor(one, cf.tensor(5.0))
        assert one.tolist() == [5]
        dist.gather(cf.tensor(6.0), [scalar := cf.zeros(())])
        assert scalar.item() == 6
        with pytest.raises(ValueError, match="dst must be one of"):
            dist.isend(x, 1)
        with pytest.raises(ValueError, match="src must be one of"):
            dist.irecv(x, 1)
    finally:
        dist.destroy_process_group()


def test_a_write_by_a_collective_is_seen_by_backward():
    """A saved tensor that a collective overwrote is stale, as after any write in place."""
    dist.init_process_group()
    try:
        x = cf.ones(3, requires_grad=True)
        y = x * 2
        z = (y * y).sum()
        dist.all_reduce(y)
        with pytest.raises(RuntimeError, match="all_reduce"):
            z.backward()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("agent", [False, True])
def test_under_other_launchers_rank_0_has_the_store(tmp_path, agent):
    """As under mpirun or torchrun, which know nothing of cuframe's token; torchrun's agent has the port itself."""
    with socket.socket() as a:
        a.bind(("127.0.0.1", 0))
        port = a.getsockname()[1]
    source = f"""
import os, cuframe as cf, cuframe.distributed as dist
def main(rank, size):
    for name in ("CUFRAME_RUN_ID", "CUFRAME_STORE_TOKEN"):
        del os.environ[name]
    os.environ["MASTER_PORT"] = "{port - agent}"
    dist.init_process_group(timeout=60)
    x = cf.ones(2)
    dist.all_reduce(x)
    assert x.tolist() == [size, size]
    dist.destroy_process_group()
"""
    variables = {"CUFRAME_CACHE_DIR": str(tmp_path)} | ({"TORCHELASTIC_USE_AGENT_STORE": "True"} if agent else {})
    check_ranks(3, source, **variables)


def test_the_example_of_the_documentation_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/distributed.md").read_text(), flags=re.DOTALL)
    check_ranks(2, f"def main(rank, size):\n{textwrap.indent(example, '    ')}    assert x.tolist() == [2, 2, 2]\n")


def test_threads_look_at_one_peer_at_the_same_time():
    peer = Peer(os.getpid())
    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(lambda: any(peer.gone() for _ in range(5000))) for _ in range(4)]
        assert not any(look.result() for look in looks)
    peer.close()
    assert peer.gone()
