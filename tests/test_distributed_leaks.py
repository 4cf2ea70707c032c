"""`cuframe run` over and over: what is left behind, and whether jobs get into each other's way."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.test_distributed_run import GRANDCHILDREN, ROOT, START

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the launcher needs Linux")


def start(script: Path, mark: str, *options: str, **variables: str) -> subprocess.Popen:
    """A launcher all of whose descendants carry `mark` in their environment."""
    environment = os.environ | {"LEAK_TEST": mark, "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "cuframe", "run", *options, str(script), str(script.parent)]
    return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)


def marked(mark: str) -> list[str]:
    """Processes that carry it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"LEAK_TEST={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(f"{folder.name}: {(folder / 'cmdline').read_bytes()!r}")
        except OSError:  # another user's, or it has ended
            continue
    return found


def listening() -> set[int]:
    """The ports that somebody on this machine listens at."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


@pytest.mark.parametrize("cycles", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_jobs_leave_nothing(tmp_path, cycles):
    """A rank, or the launcher itself, is killed with -9 at some moment while ranks start and run."""
    body = GRANDCHILDREN + """
import socket
here(os.environ["MASTER_PORT"], f"port{rank}")
connection = socket.create_connection(("127.0.0.1", int(os.environ["MASTER_PORT"])))
together(12)
time.sleep(float(os.environ["DELAY"]))
if rank == int(os.environ["VICTIM"]):
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(1000)
"""
    files, rng = set(os.listdir("/dev/shm")), random.Random(cycles)
    mark, ports = uuid.uuid4().hex, set()
    for cycle in range(cycles):
        folder = tmp_path / str(cycle)
        folder.mkdir()
        (folder / "script.py").write_text(START + body)
        victim = rng.randrange(4)  # 3: the launcher
        moment = {"DELAY": f"{rng.random() / 20:.3f}", "VICTIM": str(victim)}
        job = start(folder / "script.py", mark, "--nproc-per-node", "3", **moment)
        if victim == 3:
            while len(list(folder.glob("port*.pid"))) < 3:
                assert job.poll() is None
            job.kill()
        _, err = job.communicate(timeout=100)
        assert job.returncode == (-signal.SIGKILL if victim == 3 else 128 + signal.SIGKILL), err
        if victim != 3:
            assert re.fullmatch(rf"cuframe run: rank {victim} \(pid \d+, host \S+\) died of SIGKILL\n", err)
            assert not marked(mark), cycle
        ports |= {int(p.read_text()) for p in folder.glob("port*.pid")}
    for _ in range(1000):  # the guardians of killed launchers
        if not marked(mark):
            break
    assert not marked(mark) and len(ports) > 1 and not ports & listening()
    new = set(os.listdir("/dev/shm")) - files
    assert not {name for name in new if not name.startswith("mpich_")}  # of other tests, at the same time


@pytest.mark.parametrize("jobs", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_jobs_at_the_same_time_have_ports_of_their_own(tmp_path, jobs):
    body = f"""
import socket
port = os.environ["MASTER_PORT"]
socket.create_connection(("127.0.0.1", int(port))).close()
here(port, f"job{{os.getpid()}}")
together({jobs})
"""
    script, mark = tmp_path / "script.py", uuid.uuid4().hex
    script.write_text(START + body)
    running = [start(script, mark) for _ in range(jobs)]
    ends = [(job.communicate(timeout=300), job.returncode) for job in running]
    assert [end for end in ends if end != (("", ""), 0)] == []
    ports = [int(p.read_text()) for p in tmp_path.glob("job*.pid")]
    assert len(ports) == len(set(ports)) == jobs and not marked(mark)
