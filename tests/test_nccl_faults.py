"""What the ranks of a `nccl` group learn when one is late, dies, disagrees or meets an error; on the stub of NCCL."""

from __future__ import annotations

import pytest

from cuframe.distributed import DistributedError
from cuframe.distributed.nccl_library import Nccl, NcclError, library_path, version_text
from tests.nccl_stub import library, stub
from tests.ranks import run_ranks
from tests.test_nccl import START, nccl_ranks, pytestmark  # noqa: F401

MORE = """
import signal
from cuframe.distributed.group import joined

def aborted():
    return any(line.startswith("abort") for line in log())
"""


def test_a_late_rank_is_named():
    """The caller waits for its GPU in `all_reduce`; the late rank learns it at its next call."""
    out = nccl_ranks(3, MORE + """
def main(rank, size):
    dist.init_process_group("nccl", timeout=0.5)
    dist.broadcast(cf.ones(10), 0)
    begin = time.monotonic()
    text = (r"all_reduce #2 \\(float32, 1,024\\) is not over within 0.5 s: rank 2 has not joined it; "
            "it last called broadcast #1")
    if rank == 2:
        time.sleep(2)
        expect(dist.DistributedError, "all_reduce: the group is broken since: " + text,
               lambda: dist.all_reduce(cf.ones(1024)))
    else:
        expect(dist.DistributedTimeout, text, lambda: dist.all_reduce(cf.ones(1024)))
        assert time.monotonic() - begin < 5
    expect(dist.DistributedError, "barrier: the group is broken since", dist.barrier)
    time.sleep(0.3)
    assert aborted()
    dist.destroy_process_group()
""")  # fmt: skip
    assert out.count("rank 2 has not joined it") >= 3


def test_a_caller_that_went_on_is_told():
    """It trusted the stream to wait, and computes; before it could use what the aborted collective left, it is told."""
    nccl_ranks(2, MORE + """
def main(rank, size):
    dist.init_process_group("nccl", timeout=0.5)
    joined("test").group.device.now = Stream()
    if rank == 1:
        joined("test").store.get("told", 30)
        return
    work = dist.all_reduce(cf.ones(10), async_op=True)
    assert work.wait()
    begin = time.monotonic()
    def computes():
        while time.monotonic() - begin < 10:
            time.sleep(0.001)
    expect(dist.DistributedTimeout, r"all_reduce #1 .* rank 1 has not joined it; it last called none", computes)
    time.sleep(0.1)  # and it is told once
    # who has not trusted it yet is told by wait
    expect(dist.DistributedTimeout, "rank 1 has not joined it", work.wait)
    assert not work.is_success() and isinstance(work.exception(), TimeoutError)
    joined("test").store.set("told", b"")
""")


def test_ranks_that_connect_at_their_first_call():
    """NCCL connects lazily, so a call itself may wait for the others."""
    nccl_ranks(2, MORE + """
def main(rank, size):
    stub().stub_lazy(1)
    dist.init_process_group("nccl", timeout=30)
    x = cf.ones(10)
    dist.all_reduce(x)
    assert x.tolist() == [2] * 10
    part = dist.new_group([0, 1], timeout=0.5)
    if rank == 0:
        expect(dist.DistributedTimeout, r"barrier #1 is not over within 0.5 s: rank 1 has not joined it",
               lambda: dist.barrier(part))
        time.sleep(0.2)
        assert aborted()
    x = cf.ones(10)
    dist.all_reduce(x)  # the whole job's group is well
    assert x.tolist() == [2] * 10
""")


def test_other_verdicts():
    nccl_ranks(2, MORE + """
def main(rank, size):
    dist.init_process_group("nccl", timeout=10)
    def part():
        dist.barrier()
        return dist.new_group([0, 1], timeout=0.5)
    group = part()
    # a shorter array on one rank: NCCL itself would not tell
    if rank == 0:
        dist.all_reduce(cf.ones(10), group=group)
    else:
        expect(dist.DistributedTimeout, "the ranks disagree on what comes now. "
               r"rank 0: all_reduce #1 \\(float32, 10\\); rank 1: all_reduce #1 \\(float32, 100,000\\)",
               lambda: dist.all_reduce(cf.ones(100000), group=group))
    # the call was made, and the GPU does something else
    group = part()
    if rank == 0:
        expect(dist.DistributedTimeout, r"all_reduce #1 .*: rank 1's GPU has not come to all_reduce #1",
               lambda: dist.all_reduce(cf.ones(10), group=group))
    else:
        stream = group.device.now = Stream()
        stream.kernel(np.zeros(10, "f"), 1.0, seconds=1.5)
        work = dist.all_reduce(cf.ones(10), group=group, async_op=True)
        expect(dist.DistributedTimeout, "rank 1's GPU has not come to", lambda: work.wait(10))
    # a message that nobody sends
    group = part()
    if rank == 0:
        expect(dist.DistributedTimeout, r"recv #1 from rank 1 \\(float32, 3\\) is not over within 0.5 s: "
               "rank 1 has not sent message #1; it last called none", lambda: dist.recv(cf.ones(3), 1, group=group))
    # one that is not received; the messages before it were
    group = part()
    if rank == 0:
        dist.send(cf.ones(3), 1, group=group)
        big = cf.ones(100000)
        expect(dist.DistributedTimeout,
               r"send #2 to rank 1 \\(float32, 100,000\\) .*: rank 1 has not received message #2",
               lambda: dist.send(big, 1, group=group))
    else:
        dist.recv(cf.ones(3), 0, group=group)
    # who has left
    group = part()
    if rank == 0:
        expect(dist.DistributedTimeout, r"rank 1 left the group \\(destroy_process_group\\); it last called none",
               lambda: dist.all_reduce(cf.ones(10), group=group))
    else:
        dist.destroy_process_group(group)
    dist.barrier()
    dist.destroy_process_group()
""")


def test_a_stopped_rank_is_named():
    nccl_ranks(3, MORE + """
def main(rank, size):
    dist.init_process_group("nccl", timeout=0.5)
    dist.barrier()
    if rank == 2:
        joined("test").store.set("pid", str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    expect(dist.DistributedTimeout, "all_reduce #2 .*: rank 2 does not answer: stopped, or cut off",
           lambda: dist.all_reduce(cf.ones(10)))
    if rank == 0:
        os.kill(int(joined("test").store.get("pid")), signal.SIGCONT)
""")


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)"])
def test_a_dead_rank_is_named_at_once(how):
    source = MORE + f"""
def main(rank, size):
    dist.init_process_group("nccl", timeout=60)
    dist.all_reduce(cf.ones(10))
    if rank == 1:
        {how}
    begin = time.monotonic()
    expect(dist.DistributedError, r"rank 1 \\(pid \\d+, host .*\\) has gone", lambda: dist.all_reduce(cf.ones(10)))
    assert time.monotonic() - begin < 10
    dist.destroy_process_group()
"""
    done = run_ranks(3, START + source, CUFRAME_NCCL_LIBRARY=library())
    assert done.returncode == (1 if "KILL" in how else 0), done.stderr


def test_a_rank_that_dies_while_they_join():
    source = MORE + """
def main(rank, size):
    if rank == 1:
        nccl.Channel = lambda *_: os._exit(0)
    expect(dist.DistributedError, r"rank 1 \\(pid \\d+, host .*\\) has gone",
           lambda: dist.init_process_group("nccl", timeout=60))
"""
    nccl_ranks(2, source)


def test_errors_of_nccl_reach_every_rank():
    nccl_ranks(2, MORE + """
from cuframe.distributed.nccl_library import NcclError

def main(rank, size):
    dist.init_process_group("nccl", timeout=60)
    for code in (1, 2, 3, 4, 5, 6, 8):
        group = dist.new_group([0, 1])
        dist.barrier()  # both have joined: else the error could come to a rank that still does
        stub().stub_delay(10**6)
        work = dist.all_reduce(cf.ones(10), group=group, async_op=True)
        stub().stub_delay(0)
        if rank == 1:
            stub().stub_async_error(code)
        kind = NcclError if rank == 1 else dist.DistributedError
        expect(kind, fr"^rank 1: all_reduce #1 \\(float32, 10\\): NCCL error {code}: .*the stub was told to fail",
               lambda: work.wait(30))
        stub().stub_async_error(0)
    # an error of the call itself: at once where it happens, and told to who waits for it
    group = dist.new_group([0, 1])
    dist.barrier()
    if rank == 1:
        stub().stub_fail_next(5)
        expect(NcclError, r"all_reduce #1 \\(float32, 10\\): NCCL error 5: NCCL refuses this use",
               lambda: dist.all_reduce(cf.ones(10), group=group))
        expect(dist.DistributedError, "all_reduce.*broken since|NCCL error 5",
               lambda: (time.sleep(0.5), dist.all_reduce(cf.ones(10), group=group)))
    else:
        expect(dist.DistributedError, "rank 1: all_reduce #1 .*NCCL error 5",
               lambda: dist.all_reduce(cf.ones(10), group=group))
    dist.barrier()
    dist.destroy_process_group()
""")


def test_different_versions_are_refused_before_they_meet():
    nccl_ranks(3, MORE + """
def main(rank, size):
    if rank == 1:
        stub().stub_version(22703)
    expect(dist.DistributedError, r"the ranks have different versions of NCCL. rank 0: 2.28.0 \\(/.*\\); "
           r"rank 1: 2.27.3 \\(/.*\\); rank 2: 2.28.0", lambda: dist.init_process_group("nccl", timeout=60))
    assert log() == []
""")


@pytest.mark.parametrize("allowed", ["0", "1"])
def test_ranks_on_one_gpu(allowed):
    nccl_ranks(2, MORE + f"""
def main(rank, size):
    HostDevice.identity = lambda self: "the GPU"
    start = lambda: dist.init_process_group("nccl", timeout=60)
    if {allowed}:
        start()
        dist.barrier()
        dist.destroy_process_group()
    else:
        expect(dist.DistributedError,
               "ranks 0 and 1 use one GPU; give each its own .*NCCL_MULTI_RANK_GPU_ENABLE=1", start)
""", NCCL_MULTI_RANK_GPU_ENABLE=allowed)  # fmt: skip


def test_errors_say_what_to_do():
    texts = [str(NcclError("broadcast #3", code, "ncclInternal: no")) for code in range(1, 9)]
    assert len(set(texts)) == 8
    for code, text in enumerate(texts, 1):
        assert text.startswith(f"broadcast #3: NCCL error {code}: ") and "(ncclInternal: no); " in text
    assert "CUDA_LAUNCH_BLOCKING" in texts[0] and "NCCL_SOCKET_IFNAME" in texts[1] and "another rank" in texts[5]
    assert "does not know" in str(NcclError("x", 99))


def test_the_library_is_found_or_the_error_says_where_it_comes_from(monkeypatch, tmp_path):
    monkeypatch.setenv("CUFRAME_NCCL_LIBRARY", "/nowhere/libnccl.so.2")
    assert library_path() == "/nowhere/libnccl.so.2"
    with pytest.raises(DistributedError, match=r"/nowhere/libnccl.so.2 cannot be loaded .*cuda12"):
        Nccl(library_path())
    monkeypatch.delenv("CUFRAME_NCCL_LIBRARY")
    folder = tmp_path / "nvidia" / "nccl" / "lib"
    folder.mkdir(parents=True)
    (folder / "libnccl.so.2").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert library_path() == str(folder / "libnccl.so.2")
    assert version_text(22803) == "2.28.3"
    stub().stub_version(21003)
    try:
        with pytest.raises(DistributedError, match=r"version 2.14.0 or newer is needed, .* is 2.10.3"):
            Nccl(library())
    finally:
        stub().stub_version(22800)
