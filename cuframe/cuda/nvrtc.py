"""NVRTC, NVIDIA's run-time compiler for CUDA C++, through ctypes: source to cubin, with no GPU, driver or CuPy.

The library and the CUDA headers come from NVIDIA's pip packages (the `kernels`, `cuda12` and `cuda13` extras), or from
an installed CUDA toolkit.  A dozen functions with a stable C interface are all we use, so there is no dependency on a
binding.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from .._paths import install_command

__all__ = ["CompileError", "Compiled", "architectures", "compile_cubin", "header_dir", "version"]


class CompileError(RuntimeError):
    """A kernel did not compile; the message is the compiler's log."""


class Compiled(NamedTuple):
    """What comes of one compilation."""

    cubin: bytes
    names: dict[str, str]               # name expression -> mangled name
    log: str                            # ptxas's resource lines among it


def _folders() -> Iterator[Path]:
    """Roots of NVIDIA's pip packages and of toolkits, the likeliest first."""
    for entry in sys.path:
        root = Path(entry or ".") / "nvidia"
        if root.is_dir():
            yield root
    for name in ("CUDA_PATH", "CUDA_HOME"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    # conda's, then the installers'
    yield from (Path(sys.prefix), Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True),
                Path("/opt/cuda"))


def _major(path: Path) -> int:
    found = re.search(r"\.so\.(\d+)$", path.name)
    return int(found.group(1)) if found else 0


def _wanted_major() -> int | None:
    """The CUDA version that the installed CuPy is built for: its driver can load what that version's NVRTC makes."""
    for major in (13, 12):
        try:
            metadata.version(f"cupy-cuda{major}x")
        except metadata.PackageNotFoundError:
            continue
        return major
    return None


_TARGET = f"targets/{platform.machine()}-linux"


@lru_cache(1)
def _library_path() -> str | None:
    places = ("cuda_nvrtc/lib", "cu12/lib", "cu13/lib", "lib64", "lib", f"{_TARGET}/lib")
    found: list[Path] = []
    for root in _folders():
        for place in places:
            found += [f for f in (root / place).glob("libnvrtc.so.*") if re.fullmatch(r"libnvrtc\.so\.\d+", f.name)]
    wanted = _wanted_major()
    if found:
        best = next((f for f in found if _major(f) == wanted), None) or max(found, key=_major)
        return str(best)
    return ctypes.util.find_library("nvrtc")


@lru_cache(1)
def _library() -> ctypes.CDLL:
    path = _library_path()
    if path is None:
        raise RuntimeError(f"kernels: NVRTC, CUDA's run-time compiler, is not installed: {install_command('kernels')}")
    library = _open(path)
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _open(path: str) -> ctypes.CDLL:
    """Load NVRTC with the library of built-ins beside it.

    It opens that one by its bare name; CUDA 13's has no path to its own folder, so it finds what is loaded already.
    """
    library = ctypes.CDLL(path)
    folder = Path(path).parent
    if folder.name:
        for builtins in sorted(folder.glob(f"libnvrtc-builtins.so.{_major(Path(path)) or ''}*")):
            ctypes.CDLL(str(builtins))
    return library


def _check(status: int, what: str) -> None:
    if status:
        text = _library().nvrtcGetErrorString(status).decode()
        raise RuntimeError(f"nvrtc: {what} failed: {text}")


@lru_cache(1)
def version() -> tuple[int, int]:
    """NVRTC's version.

    Raises:
        RuntimeError: NVRTC is not installed; the message says how to install it.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return major.value, minor.value


@lru_cache(1)
def architectures() -> tuple[int, ...]:
    """The architectures NVRTC compiles for: 75 for sm_75, and so on."""
    count = ctypes.c_int()
    _check(_library().nvrtcGetNumSupportedArchs(ctypes.byref(count)), "nvrtcGetNumSupportedArchs")
    values = (ctypes.c_int * count.value)()
    _check(_library().nvrtcGetSupportedArchs(values), "nvrtcGetSupportedArchs")
    return tuple(values)


@lru_cache(1)
def header_dir() -> Path:
    """The folder with `cuda_fp16.h` that belongs to the NVRTC in use.

    Raises:
        RuntimeError: there is none; the message says how to install it.
    """
    major = version()[0]
    places = [f"cu{major}/include", "cuda_runtime/include", "include", f"{_TARGET}/include"]
    for root in _folders():
        for place in places:
            header = root / place / "cuda_fp16.h"
            if header.is_file() and _header_major(root / place) in (None, major):
                return header.parent
    raise RuntimeError(f"kernels: CUDA {major}'s headers are not installed: {install_command('kernels')}")


def _header_major(folder: Path) -> int | None:
    try:
        text = (folder / "cuda.h").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"#define\s+CUDA_VERSION\s+(\d+)", text)
    return int(found.group(1)) // 1000 if found else None


def compile_cubin(source: str, name: str, arch: str, expressions: Sequence[str] = (),
                  options: Sequence[str] = ()) -> Compiled:
    """Compile CUDA C++ for one architecture.

    Args:
        source: the text; name: what the log calls it.
        arch: such as "sm_90" or "sm_90a".
        expressions: the kernels wanted, as C++ name expressions such as `scale<float>`.
        options: further options, `-I...` among them.

    Raises:
        CompileError: with the compiler's log.
    """
    library = _library()
    program = ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None),
           "nvrtcCreateProgram")
    try:
        for expression in expressions:
            _check(library.nvrtcAddNameExpression(program, expression.encode()), f"name expression {expression!r}")
        flags = [f"-arch={arch}", "-std=c++17", f"-I{header_dir()}", *options]
        array = (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags))
        status = library.nvrtcCompileProgram(program, len(flags), array)
        log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
        if status:
            text = library.nvrtcGetErrorString(status).decode()
            raise CompileError(f"{name}: compiling for {arch} failed ({text})\n{log.strip()}")
        names = {}
        for expression in expressions:
            lowered = ctypes.c_char_p()
            _check(library.nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(lowered)), expression)
            names[expression] = (lowered.value or b"").decode()
        size = ctypes.c_size_t()
        _check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)), "nvrtcGetCUBINSize")
        cubin = ctypes.create_string_buffer(size.value)
        _check(library.nvrtcGetCUBIN(program, cubin), "nvrtcGetCUBIN")
        return Compiled(cubin.raw, names, log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(size_of: ctypes._FuncPointer, read: ctypes._FuncPointer, program: ctypes.c_void_p) -> str:  # type: ignore[name-defined]
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)), "log size")
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer), "log")
    return buffer.value.decode(errors="replace")
