"""Runs a function in several processes that are ranks of one job.

`run_ranks(count, source)`, where `source` defines `main(rank, size)`. One helper process imports cuframe, which takes
longer than most tests, and forks the ranks of all jobs; it ends with the tests.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_helper: subprocess.Popen | None = None


def run_ranks(count: int, source: str, timeout: float = 120.0, **variables: str) -> subprocess.CompletedProcess:
    """What the ranks printed, and as `returncode` how many of them failed; a rank's traceback is on stderr."""
    global _helper
    if _helper is None:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONUNBUFFERED", None)  # a rank's lines are to be written whole
        command = [sys.executable, "-m", "tests.ranks"]
        _helper = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=-1, stdout=-1, text=True)
        atexit.register(_helper.communicate)  # the end of its input is the end of its work
    assert _helper.stdin and _helper.stdout
    print(json.dumps([count, source, timeout, variables]), file=_helper.stdin, flush=True)
    code, out, err = json.loads(_helper.stdout.readline())
    return subprocess.CompletedProcess([], code, out, err)


def check_ranks(count: int, source: str, **variables: str) -> str:
    """Run `main` on all ranks, none of which may fail; what they printed."""
    done = run_ranks(count, source, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _serve() -> None:
    import cuframe.distributed  # noqa: F401  (for the forked)

    for line in sys.stdin:
        count, source, timeout, variables = json.loads(line)
        files = [os.memfd_create(name) for name in ("stdout", "stderr")]
        for fd in files:  # such files do not guard their position: ranks that write at once would write over each other
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        coordinator = os.fork()
        if coordinator == 0:
            os.setsid()
            signal.alarm(int(timeout))
            for i, fd in enumerate(files):
                os.dup2(fd, 1 + i)
            os.environ |= variables
            os._exit(_fork_and_wait(count, source))
        code = os.waitstatus_to_exitcode(os.waitpid(coordinator, 0)[1])
        if code < 0:
            os.killpg(coordinator, signal.SIGKILL)
        texts = [os.pread(fd, 1 << 24, 0).decode(errors="replace") for fd in files]
        for fd in files:
            os.close(fd)
        print(json.dumps([code, *texts]), flush=True)


def _fork_and_wait(count: int, source: str) -> int:
    import cuframe.distributed as dist
    from cuframe.distributed.store import StoreServer

    token = secrets.token_hex(16)
    server = StoreServer("127.0.0.1", 0, token.encode())
    os.environ |= {
        "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port),
        "CUFRAME_STORE_TOKEN": token, "CUFRAME_RUN_ID": "test",
    }  # fmt: skip
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                scope: dict = {"__name__": "ranks", "dist": dist}
                exec(compile(source, "<ranks>", "exec"), scope)  # noqa: S102  (a test's own source)
                scope["main"](rank, count)
                status = 0
            except BaseException:
                os.write(2, f"--- rank {rank}\n{traceback.format_exc()}".encode())
            sys.stdout.flush()
            os._exit(status)
        children.append(child)
    server.start()
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    server.close()
    return failed


if __name__ == "__main__":
    _serve()
