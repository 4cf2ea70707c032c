"""What ranks print, on its way to terminal and files; tracebacks are held back until it is clear whose counts.

Note [One progress bar]
    Where the launcher's output is a terminal, rank 0 writes to a terminal as well: one that the launcher makes, of the
    same size, and reads. So its bars move and its text has colour. The other ranks write to pipes, and what they say
    comes in whole lines. While a bar of rank 0 stands on the terminal's last line, lines of others are put above it:
    the bar is wiped off, and drawn again below.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

__all__ = ["Pump", "Screen", "make_terminal", "same_size"]

_MARK = b"Traceback (most recent call last):"
_INVISIBLE = re.compile(rb"\x1b\[[\d;?]*[A-Za-z]|[\r ]")  # such as the cursor's return after a bar
_WIPE = b"\r\x1b[K"  # the terminal's last line
_PATIENCE = 0.5  # seconds after which a traceback of a process that lives on is let through


def make_terminal(like: int) -> tuple[int, int]:
    """A terminal of the size of another: the end to read what is written to it, and the end to write to.

    Bytes pass through it as they are: the real one turns "\\n" into what it needs.
    """
    import termios

    reader, writer = os.openpty()
    modes = termios.tcgetattr(writer)
    modes[1] &= ~termios.OPOST
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(writer, termios.TCSANOW, modes)
    same_size(reader, like)
    return reader, writer


def same_size(terminal: int, like: int) -> None:
    """Give a terminal the size of another."""
    import fcntl
    import termios

    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(like, termios.TIOCGWINSZ, b"\0" * 8))


class Screen:
    """Where several pumps write to; on a terminal, a line that one of them has not ended stays the last one."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.terminal = os.isatty(fd)
        self._line = b""  # what stands on the last line
        self._owner: object = None

    def write(self, owner: object, data: bytes) -> None:
        """Show `data` of a pump."""
        if not self.terminal:
            self._write(data)
            return
        beside = self._line and owner is not self._owner
        if beside and data.endswith(b"\n"):
            self._write(_WIPE + data + self._line)
            return
        _, newline, tail = data.rpartition(b"\n")
        line = tail if newline or beside else self._line + tail
        drawn = line.rstrip(b"\r").rfind(b"\r")  # what was drawn over needs no keeping
        line = line[max(0, drawn) :]
        self._line, self._owner = line if _INVISIBLE.sub(b"", line) else b"", owner
        self._write(_WIPE + data if beside else data)

    def end_line(self) -> None:
        """Begin a new line if a bar stands on the last one."""
        if self._line:
            self._line = b""
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the terminal went away: the job goes on
            while data:
                data = data[os.write(self.fd, data) :]


class Pump:
    """Takes a rank's pipe to a file and to the terminal.

    Args:
        source: the pipe's end, which becomes non-blocking.
        screen: where to write to, or None.
        file: where everything is written as it came, or None.
        prefix: put before every line on the terminal; empty: bytes pass as they come.
        hold: keep back what follows the head of a traceback until `release` or `take`.
        whole: show lines when they have ended, and of what was drawn over in them the last state.
    """

    def __init__(
        self, source: int, screen: Screen | None, file: IO[bytes] | None, prefix: str, hold: bool, whole: bool = False
    ) -> None:
        self.source = source
        os.set_blocking(source, False)
        self._screen = screen
        self._file = file
        self._prefix = prefix.encode()
        self._hold = hold
        self._whole = whole
        self._line = b""  # with a hold: the beginning of a line that may become a traceback's
        self._partial = b""  # with a prefix, or whole lines: a line that has not ended
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
        if self._screen is None:
            return
        if self._prefix:
            lines = (self._partial + data).splitlines(keepends=True)
            self._partial = b"" if lines[-1].endswith(b"\n") else lines.pop()
            data = b"".join(self._prefix + line for line in lines)
        elif self._whole:
            *ended, self._partial = (self._partial + data).split(b"\n")
            data = b"".join(line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n" for line in ended)
        if data:
            self._screen.write(self, data)

    def close(self) -> None:
        """Write what is left and close."""
        self.pump()
        if self._partial:
            self._show(b"\n")
        os.close(self.source)
        if self._file is not None:
            self._file.close()
