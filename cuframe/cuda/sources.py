"""Kernel sources and what they include, read and hashed as one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cuframe import _paths
from cuframe.cuda.cache import Cache, digest

__all__ = ["Source", "find_source", "read_source", "text_source"]

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


class Source(NamedTuple):
    """A kernel file, and everything that it includes from beside it or from `kernels/`."""

    name: str
    path: Path
    text: str
    folders: tuple[Path, ...]           # where #include "..." is looked up
    key: str                            # digest of the text and of all included files


def find_source(name: str) -> Path:
    """The path of a file of `kernels/`.

    Raises:
        FileNotFoundError: there is none; the message lists what there is.
    """
    folder = _paths.kernels_dir()
    path = folder / name
    if not path.is_file():
        known = ", ".join(sorted(f.name for f in folder.glob("*.cu")))
        raise FileNotFoundError(f"kernels: no file {name!r} in {folder}; there are: {known}")
    return path


def read_source(path: Path, extra: Sequence[Path] = ()) -> Source:
    """Read a kernel file with its includes.

    Args:
        path: the `.cu` file.
        extra: further folders for `#include "..."`; the file's own and `kernels/` are looked at always.
    """
    path = path.resolve()
    folders = tuple(dict.fromkeys((path.parent, *(p.resolve() for p in extra), _paths.kernels_dir().resolve())))
    seen: dict[Path, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen[file] = text = file.read_text()
        for name in _INCLUDE.findall(text):
            places = ((f / name).resolve() for f in (file.parent, *folders))
            # one that is nowhere may be behind #if, for another compiler: the compiler will say if it is missed
            waiting += [p for p in places if p.is_file()][:1]
    parts = [part for file in sorted(seen) for part in (file.name, seen[file])]
    return Source(path.name, path, seen[path], folders, digest(*parts))


def text_source(text: str) -> Source:
    """A source given as text, stored in the cache so that compilers and debuggers can show it."""
    return read_source(Cache().write_plain(f"source-{digest(text)[:16]}.cu", text.encode()))
