"""What ranks print, on its way to terminal and files; tracebacks are held back until it is clear whose counts."""

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

__all__ = ["Pump"]

_MARK = b"Traceback (most recent call last):"
_PATIENCE = 0.5  # seconds after which a traceback of a process that lives on is let through


class Pump:
    """Takes a rank's pipe to a file and to the terminal.

    Args:
        source: the pipe's end, which becomes non-blocking.
        terminal: file descriptor to write to, or None.
        file: where everything is written as it came, or None.
        prefix: put before every line on the terminal; empty: bytes pass as they come.
        hold: keep back what follows the head of a traceback until `release` or `take`.
    """

    def __init__(self, source: int, terminal: int | None, file: IO[bytes] | None, prefix: str, hold: bool) -> None:
        self.source = source
        os.set_blocking(source, False)
        self._terminal = terminal
        self._file = file
        self._prefix = prefix.encode()
        self._hold = hold
        self._line = b""  # with a hold: the beginning of a line that may become a traceback's
        self._partial = b""  # with a prefix: a line that has not ended
        self._held = b""
        self._last = 0.0
        self._at_start = True

    def pump(self) -> bool:
        """Move what is there; False at the end of the stream."""
        while True:
            try:
                data = os.read(self.source, 1 << 16)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            if self._file is not None:
                self._file.write(data)
                self._file.flush()
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        self._last = time.monotonic()
        if not self._hold:
            self._show(data)
        elif self._held:
            self._held += data
        else:
            data, self._line = self._line + data, b""
            start = 0 if data.startswith(_MARK) and self._at_start else data.find(b"\n" + _MARK) + 1
            if start or data.startswith(_MARK) and self._at_start:
                self._held = data[start:]
                data = data[:start]
            else:
                tail = data.rpartition(b"\n")[2]
                if tail and _MARK.startswith(tail) and (len(tail) < len(data) or self._at_start):
                    self._line, data = tail, data[: len(data) - len(tail)]
            if data:
                self._at_start = data.endswith(b"\n")
                self._show(data)

    def due(self) -> float | None:
        """When held output of a living process is to be let through."""
        return self._last + _PATIENCE if self._held or self._line else None

    def release(self) -> None:
        """Show what was held back."""
        data, self._held, self._line = self._held + self._line, b"", b""
        if data:
            self._at_start = data.endswith(b"\n")
            self._show(data)

    def take(self) -> str:
        """What was held back, which is then not shown."""
        data, self._held = self._held, b""
        return data.decode(errors="replace")

    def _show(self, data: bytes) -> None:
        if self._terminal is None:
            return
        if self._prefix:
            lines = (self._partial + data).splitlines(keepends=True)
            self._partial = b"" if lines[-1].endswith(b"\n") else lines.pop()
            data = b"".join(self._prefix + line for line in lines)
        with contextlib.suppress(OSError):  # the terminal went away: the job goes on
            while data:
                data = data[os.write(self._terminal, data) :]

    def close(self) -> None:
        """Write what is left and close."""
        self.pump()
        if self._partial:
            self._show(b"\n")
        os.close(self.source)
        if self._file is not None:
            self._file.close()
