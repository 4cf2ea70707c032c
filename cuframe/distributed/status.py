"""One page a rank in which it notes where it is, so that the launcher can say where it died.

The launcher makes the memory and passes `/proc/PID/fd/N` in the environment; a write is a copy of a few bytes, and
needs nobody to be alive.
"""

from __future__ import annotations

import mmap
import os

__all__ = ["BLOCK", "Reader", "mark_step", "note"]

BLOCK = 256  # bytes a rank: 8 for the step, then the collective
_NO_STEP = (1 << 64) - 1
_page: mmap.mmap | None = None
_offset = 0


class Reader:
    """The launcher's side: memory for `count` ranks."""

    def __init__(self, count: int) -> None:
        self.fd = os.memfd_create("cuframe status", os.MFD_CLOEXEC)
        size = count * BLOCK
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        for i in range(count):
            self._map[i * BLOCK : i * BLOCK + 8] = _NO_STEP.to_bytes(8, "little")
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"

    def where(self, index: int) -> str:
        """` at step 60 in all_reduce #61`, as far as it is known."""
        block = self._map[index * BLOCK : (index + 1) * BLOCK]
        step = int.from_bytes(block[:8], "little")
        text = block[8:].rstrip(b"\0").decode(errors="replace")
        return ("" if step == _NO_STEP else f" at step {step}") + (f" {text}" if text else "")

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)


def attach() -> None:
    """Find the launcher's page, if a launcher made one that can be opened."""
    global _page, _offset
    path, rank = os.environ.get("CUFRAME_STATUS"), os.environ.get("LOCAL_RANK", "")
    if path is None or not rank.isdigit():
        return
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # the launcher is in another container: it will not know where we are
        return
    try:
        page = mmap.mmap(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    if (int(rank) + 1) * BLOCK <= len(page):
        _page, _offset = page, int(rank) * BLOCK


def note(collective: str) -> None:
    """Note where this rank is: `in all_reduce #61`, `after all_reduce #61`."""
    if _page is not None:
        text = collective.encode()[: BLOCK - 8]
        _page[_offset + 8 : _offset + BLOCK] = text.ljust(BLOCK - 8, b"\0")


def mark_step(step: int) -> None:
    """Note the number of the training step, for the launcher's message should this rank die in it.

    >>> import cuframe.distributed as dist
    >>> dist.mark_step(60)
    """
    if _page is not None:
        _page[_offset : _offset + 8] = int(step).to_bytes(8, "little")
