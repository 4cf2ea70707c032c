"""All-reduce through the ring: NumPy's bits for any size and place, and faults in the midst of it."""

from __future__ import annotations

import pytest

from cuframe.cpu import jit
from tests.ranks import check_ranks, run_ranks

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")

START = """
import os, signal, time
import numpy as np, cuframe as cf
from cuframe.distributed import exchange, group
from tests.rank_helpers import expect

def numbers(rank, count, seed):
    return np.random.default_rng([seed, rank]).standard_normal(count).astype(np.float32)

def check(rank, size, count, op="sum", offset=0, seed=0):
    memory = np.zeros(count + offset + 1, np.float32)
    x = memory[offset : offset + count]
    x[...] = numbers(rank, count, seed)
    dist.all_reduce(cf.Tensor(x), op)
    want = numbers(0, count, seed)
    for r in range(1, size):
        want += numbers(r, count, seed)
    if op == "avg":
        want /= np.float32(size)
    assert x.tobytes() == want.tobytes(), (count, op, offset, np.flatnonzero(x != want)[:4])
    assert not memory[:offset].any() and not memory[offset + count :].any()
"""

BITS = START + """
exchange._PIECE = exchange._PIECES = 1 << 12

def main(rank, size):
    dist.init_process_group(timeout=60)
    ring = group._world.group._ring
    asked = []
    run, ring.all_reduce = ring.all_reduce, lambda *args: (asked.append(1), run(*args))
    for seed, count in enumerate((4097, 40000, 70001)):
        for offset in (0, 1 + rank):  # ranks need not begin at the same place of a cache line
            for op in ("sum", "avg"):
                check(rank, size, count, op, offset, seed)
    wide = np.ones((300, 90), np.float32)
    dist.all_reduce(cf.Tensor(wide[:, ::2]))
    assert (wide[:, ::2] == size).all() and (wide[:, 1::2] == 1).all()
    odd = np.zeros(4 * 5000 + 4, np.uint8)[rank : rank + 4 * 5000].view(np.float32)  # aligned on rank 0 alone
    odd[...] = 1
    dist.all_reduce(cf.Tensor(odd))
    assert (odd == size).all() and len(asked) == 14
    dist.barrier()  # nobody looks at them any more
    # counters go round
    ring._base = 2**32 - 5
    flags = (ring._flags + ring._stride * rank) // 4
    for word in range(3):
        ring._segment.write(flags + word, ring._base)
    dist.barrier()
    for seed in range(3):
        check(rank, size, 40000, seed=seed)
    assert ring._base < 2**31
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [2, 4])
def test_any_array_has_numpys_bits(size):
    check_ranks(size, BITS)


def test_ranks_that_go_different_ways_are_told(tmp_path):
    out = check_ranks(2, START + """
def main(rank, size):
    dist.init_process_group(timeout=30)
    check(rank, size, 5000)
    if rank:
        group._world.group._ring.takes = lambda array, op: False
    expect(dist.DistributedError, "disagree on what comes now.*rank 0: all_reduce #2 .*by the ring",
           lambda: check(rank, size, 5000))
""")  # fmt: skip
    assert out


FAULT = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    check(rank, size, 400000)
    group._world.group.timeout = TIMEOUT
    if rank == 1:
        run, calls = exchange._kernel(size, False), []
        def fault(words, _):
            calls.append(1)
            if len(calls) > 1:  # the first gives away what fits, before the ranks have met
                FAULT
            run(words, 0)
        exchange._kernel = lambda *_: fault
    expect(dist.DistributedError, TEXT, lambda: check(rank, size, 400000))
    expect(dist.DistributedError, "broken since: .*all_reduce #2", lambda: dist.barrier())
    if rank == 0:
        open("FOLDER/through", "w").close()
"""


def test_a_rank_that_dies_in_the_midst_is_named(tmp_path):
    text = r"'rank 1 \(pid \d+\) died of SIGKILL before it came to all_reduce #2$'"
    source = FAULT.replace("TIMEOUT", "60").replace("TEXT", text).replace("FOLDER", str(tmp_path))
    done = run_ranks(3, source.replace("FAULT", "os.kill(os.getpid(), signal.SIGKILL)"))
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("died of SIGKILL") == 4


def test_a_rank_that_hangs_in_the_midst_is_named(tmp_path):
    text = "'all_reduce #2: rank 1 did not come within 2 s'"
    source = FAULT.replace("TIMEOUT", "2 if rank != 1 else 60").replace("TEXT", text).replace("FOLDER", str(tmp_path))
    wait = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists('{tmp_path}/through'), True)]; os._exit(0)"
    done = run_ranks(3, source.replace("FAULT", wait))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("did not come within 2 s") >= 2
