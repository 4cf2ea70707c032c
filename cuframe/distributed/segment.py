"""Memory that the ranks of one host share, and how they wait for each other in it.

Note [Shared memory without files]
    The segment is a memfd: it has no name, so nothing is left in /dev/shm whenever a process is killed, and a
    container's limit on /dev/shm does not apply. The first rank makes it; the others open it through
    /proc/PID/fd/N, and compare a random cookie, before the first rank closes its descriptor.

Note [Waiting]
    Each rank owns 32-bit words that only it writes, and wakes those who wait in futex(2). A waiter looks every few
    milliseconds whether the awaited process is still there (pidfd). Words are read and written between lock operations,
    whose barriers order them against the data on machines that reorder stores.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .errors import DistributedError, how_it_ended
from .store import Store

__all__ = ["FUTEX", "PAGE", "SPINS", "Peer", "Segment", "same_host", "share_memory", "slice_address"]

PAGE = 4096
RESERVED = 32  # bytes of a cookie at the beginning, for the members to know the memory by
_SLICE = 0.01  # seconds between looks at the processes that are waited for
SPINS = 200  # looks at a word before the kernel is asked to wake us: some 40 us, where there is a core for each rank
FUTEX = {"aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}.get(platform.machine(), 202)  # the call's number
_WAIT, _WAKE = 0, 1


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


_libc = ctypes.CDLL(None, use_errno=True)
_number = ctypes.c_long(FUTEX)
_slice = _Timespec(0, int(_SLICE * 1e9))


def slice_address() -> int:
    """Where the time between two looks is found, as futex(2) wants it."""
    return ctypes.addressof(_slice)


def same_host() -> str:
    """What is equal for two processes exactly if they can share memory and see each other's ids."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"


class Peer:
    """Another process: is it there, and how did it end?"""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = -1

    def gone(self) -> bool:
        """True once the process has ended."""
        if self._fd < 0:
            return True
        poll = select.poll()  # threads wait for one peer at the same time, and a poll object serves one of them
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def how(self) -> str:
        """How it ended, as far as anyone but its parent can tell: only until the parent has asked."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return "has ended"
        if fields[0] != "Z":
            return "has ended"
        status = int(fields[-1])
        return how_it_ended(-(status & 0x7F) if status & 0x7F else status >> 8)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def share_memory(
    store: Store, name: str, index: int, ranks: tuple[int, ...], size: int, timeout: float
) -> tuple[mmap.mmap, list[int]]:
    """`size` bytes that the ranks of `ranks` map together, the first `RESERVED` of them in use; and the ranks' pids.

    Args:
        store: where they meet; used under `name`, which serves once.
        name: of what is shared.
        index: this process's place among the members.
        ranks: the members' ranks in the job.
        size: bytes, the same on all members.
        timeout: seconds until a member that does not come is an error.

    Raises:
        DistributedError: the members are not on one host, or want different sizes.
    """
    if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
        raise DistributedError("shm: needs Linux 5.3 or newer")
    me, fd, cookie = ranks[index], -1, os.urandom(RESERVED)
    if index == 0:
        fd = os.memfd_create("cuframe", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        os.pwrite(fd, cookie, 0)
    try:
        place = f"{os.getpid()} {fd} {cookie.hex()} {size}\n{same_host()}".encode()
        texts = [t.decode() for t in store.gather(f"{name}/place", me, ranks, place, timeout)]
        hosts = [t.partition("\n")[2] for t in texts]
        other = next((i for i, host in enumerate(hosts) if host != hosts[0]), None)
        if other is not None:
            raise DistributedError(
                f"shm: all ranks must be on one host; rank {ranks[0]} is on {hosts[0].split()[0]}, "
                f"rank {ranks[other]} on {hosts[other].split()[0]}"
            )
        words = [t.partition("\n")[0].split() for t in texts]
        other = next((i for i, w in enumerate(words) if w[3] != words[0][3]), None)
        if other is not None:
            raise DistributedError(
                f"shm: all ranks must share memory of one size; rank {ranks[0]} asks for {words[0][3]} bytes, "
                f"rank {ranks[other]} for {words[other][3]}"
            )
        pids = [int(w[0]) for w in words]
        if index:
            path = f"/proc/{pids[0]}/fd/{words[0][1]}"
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                raise DistributedError(
                    f"shm: rank {me} cannot open the memory of rank {ranks[0]} ({path}): {error.strerror}"
                ) from None
        memory = mmap.mmap(fd, size)
        if memory[:RESERVED] != bytes.fromhex(words[0][2]):
            raise DistributedError(f"shm: {path} is not the memory of rank {ranks[0]}")
        store.gather(f"{name}/mapped", me, ranks, b"", timeout)
        return memory, pids
    finally:
        if fd >= 0:
            os.close(fd)


class Segment:
    """Memory that ranks share (the arguments are those of `share_memory`), with words to wait at, and its members."""

    def __init__(self, store: Store, name: str, index: int, ranks: tuple[int, ...], size: int, timeout: float) -> None:
        self.memory, pids = share_memory(store, name, index, ranks, size, timeout)
        self.peers = {i: Peer(pid) for i, pid in enumerate(pids) if i != index}
        self.bytes = np.frombuffer(self.memory, np.uint8)
        self.words = memoryview(self.memory).cast("I")
        self._address = self.bytes.ctypes.data
        self._barrier = threading.Lock()

    def read(self, word: int) -> int:
        """The word at index `word` (4 bytes each)."""
        with self._barrier:
            return self.words[word]

    def write(self, word: int, value: int) -> None:
        """Set a word that only this rank writes, and wake who waits for it."""
        with self._barrier:
            self.words[word] = value & 0xFFFFFFFF
        address = ctypes.c_void_p(self._address + 4 * word)
        _libc.syscall(_number, address, _WAKE, ctypes.c_int(0x7FFFFFFF), None, None, 0)

    def wait(self, word: int, reached: Callable[[int], bool], look: Callable[[], None], spins: int) -> None:
        """Wait until `reached(value of word)`; `look()` is called now and then, and raises to end the wait."""
        for _ in range(spins):
            if reached(self.read(word)):
                return
        address = ctypes.c_void_p(self._address + 4 * word)
        looked = time.monotonic()
        while True:
            value = self.read(word)
            if reached(value):
                return
            _libc.syscall(_number, address, _WAIT, ctypes.c_uint(value), ctypes.byref(_slice), None, 0)
            now = time.monotonic()
            if now - looked >= _SLICE:
                if reached(self.read(word)):
                    return
                look()
                looked = now

    def close(self) -> None:
        """Let go of the peers; the memory goes when the last array on it does."""
        for peer in self.peers.values():
            peer.close()
