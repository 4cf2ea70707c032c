"""Starting ranks so that none can outlive its launcher, and ending them with all that they started.

Note [Nobody stays behind]
    Each rank leads a session of its own, so a signal to its group reaches its children. The kernel kills a rank when
    its launcher dies (PDEATHSIG); the launcher adopts orphans (subreaper), so a grandchild that left the session is
    still among its children. And a guardian, forked first, holds the end of a pipe: when the launcher is killed, it
    reads end-of-file and kills every process whose environment carries the run's id.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set

__all__ = ["RUN_ID", "Guardian", "adopt_orphans", "children", "end_children", "reap", "signal_group", "spawn"]

RUN_ID = "CUFRAME_RUN_ID"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def adopt_orphans(adopt: bool) -> None:
    """Become the parent of descendants whose own parent ends, or cease to."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def spawn(
    command: Sequence[str], environment: Mapping[str, str], stdout: int | None, stderr: int | None
) -> subprocess.Popen:
    """Start a rank: in its own session, and killed when this thread's process dies.

    Raises:
        OSError: the command cannot be run.
    """
    parent = os.getpid()

    def before_exec() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads: ours are BLAS's, and the child calls nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            start_new_session=True, preexec_fn=before_exec,
        )  # fmt: skip


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a rank and its group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _processes() -> Iterator[tuple[int, int]]:
    """Id and parent's id of every process."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:  # it may end meanwhile
                yield int(entry), int(file.read().rpartition(")")[2].split()[1])


def children() -> set[int]:
    """This process's children, those included that have ended and are not reaped."""
    me, found = os.getpid(), set()
    if not os.path.exists(f"/proc/self/task/{me}/children"):  # a kernel without CONFIG_PROC_CHILDREN
        return {pid for pid, parent in _processes() if parent == me}
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children") as file:
            found |= {int(pid) for pid in file.read().split()}
    return found


def reap(spared: Set[int]) -> None:
    """Reap the children that have ended, but for those in `spared`."""
    for pid in children() - spared:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end_children(spared: Set[int], patience: float = 5.0) -> None:
    """Kill and reap this process's children but for those in `spared`, and what they leave behind.

    Whose parent ends becomes a child of this process (`adopt_orphans`), so in the end all are.
    """
    deadline = time.monotonic() + patience
    while (left := children() - spared) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.0005)
        reap(spared)


def _kill_run(run_id: str) -> int:
    """Kill every process whose environment carries the run's id; how many there were."""
    mark, me, found = f"{RUN_ID}={run_id}".encode(), os.getpid(), 0
    for pid, _ in _processes():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if pid == me or mark not in file.read().split(b"\0"):
                    continue
        except OSError:  # another user's, or it ended meanwhile
            continue
        found += 1
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return found


class Guardian:
    """A process that does nothing, until its launcher is gone."""

    def __init__(self, run_id: str) -> None:
        reader, self._writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            try:
                _guard(reader, run_id)
            finally:
                os._exit(0)
        os.close(reader)

    def dismiss(self) -> None:
        """Let it go: the launcher has cleaned up by itself."""
        with contextlib.suppress(OSError):
            os.write(self._writer, b"q")
        os.close(self._writer)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _guard(reader: int, run_id: str) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):  # nobody shall wait for the end of the launcher's output because of us
        os.dup2(nothing, fd)
    kept = os.dup2(reader, 3, inheritable=False) if reader != 3 else 3
    os.closerange(4, 1 << 16)
    if os.read(kept, 1):
        return
    deadline = time.monotonic() + 5.0
    while _kill_run(run_id) and time.monotonic() < deadline:
        time.sleep(0.005)
