"""The disk cache of compiled kernels: owner-only, checked by digest, safe when several processes write at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cuframe import _paths

__all__ = ["Cache", "digest"]

_DIGEST = hashlib.sha256().digest_size


def digest(*parts: str | bytes) -> str:
    """A key of everything that decides the result; parts do not run into one another."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


class Cache:
    """Files by key in a folder that only its owner can write, since what is in it gets executed.

    A file is its content followed by the content's SHA-256: a truncated or altered file is not used, and an ELF file
    (a cubin, a shared object) is loaded as it stands.

    Args:
        folder: default `kernel_cache_dir()`.

    Raises:
        RuntimeError: the folder is a symbolic link, belongs to somebody else, or others may write into it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = _paths.kernel_cache_dir() if folder is None else folder

    def _checked_folder(self) -> Path:
        folder = self.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
        hint = "remove it, or set CUFRAME_CACHE_DIR to a folder of your own"
        if stat.S_ISLNK(facts.st_mode):
            raise RuntimeError(f"kernel cache: {folder} is a symbolic link; {hint}")
        if hasattr(os, "getuid") and facts.st_uid != os.getuid():
            raise RuntimeError(f"kernel cache: {folder} belongs to user {facts.st_uid}; {hint}")
        if facts.st_mode & 0o022:
            raise RuntimeError(f"kernel cache: others may write into {folder}; chmod go-w, or {hint}")
        return folder

    def find(self, name: str) -> Path | None:
        """The file `name`, if it is there and whole; a damaged one is removed."""
        path = self._checked_folder() / name
        data = self._content(path)
        if data is None:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return None
        return path

    def read(self, name: str) -> bytes | None:
        """The content of `name`, or None where it is absent or damaged."""
        return self._content(self._checked_folder() / name)

    def _content(self, path: Path) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if hasattr(os, "getuid") and os.fstat(descriptor).st_uid != os.getuid():
                return None
            data = file.read()
        content, tail = data[:-_DIGEST], data[-_DIGEST:]
        return content if len(tail) == _DIGEST and hashlib.sha256(content).digest() == tail else None

    def write(self, name: str, content: bytes) -> Path:
        """Store `content`; whoever comes second replaces it with the same."""
        return self.write_plain(name, content + hashlib.sha256(content).digest())

    def write_plain(self, name: str, content: bytes) -> Path:
        """Store a file that other programs read, without a digest: `find` and `read` do not know it."""
        folder = self._checked_folder()
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o700)
            path = folder / name
            os.replace(temporary, path)
            return path
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def files(self) -> Iterator[Path]:
        """The files of the cache."""
        if self.folder.is_dir():
            yield from sorted(p for p in self._checked_folder().iterdir() if p.is_file())

    def clear(self) -> tuple[int, int]:
        """Remove everything; return how many files and bytes that was."""
        count = size = 0
        for path in self.files():
            size += path.stat().st_size
            path.unlink()
            count += 1
        return count, size
