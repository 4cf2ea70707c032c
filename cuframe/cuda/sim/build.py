"""Compiles kernels and the simulator's runtime to shared objects, through the disk cache."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cuframe import _paths
from cuframe.cuda.cache import Cache, digest
from cuframe.cuda.sim import settings
from cuframe.cuda.sources import read_source

__all__ = ["CompileError", "Compiler", "build_kernels", "build_runtime", "compiler"]

# No fused products and sums: __fmul_rn and its like must round, and results then are the same on every host.
_LIBRARY = ("-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-fno-plt",
            "-ftls-model=initial-exec")
_KERNELS = (*_LIBRARY, "-fno-strict-aliasing", "-ffp-contract=off", "-march=native")
_SANITIZE = {"": (), "address": ("-fsanitize=address", "-g"), "thread": ("-fsanitize=thread", "-g", "-Wno-tsan")}
_RUNTIME_DEFINE = {"": (), "address": ("-DSIM_ADDRESS",), "thread": ("-DSIM_THREAD",)}

# A kernel is called through an array of pointers to its arguments, as the CUDA driver's cuLaunchKernel does.
_ENTRY = """#line 1 "kernel entry"
namespace {
template <class T> struct Plain { typedef T type; };
template <class T> struct Plain<const T> { typedef T type; };
template <unsigned... I> struct Places {};
template <unsigned N, unsigned... I> struct MakePlaces : MakePlaces<N - 1, N - 1, I...> {};
template <unsigned... I> struct MakePlaces<0, I...> { typedef Places<I...> type; };
template <auto kernel> struct Entry;
template <class... P, void (*kernel)(P...)> struct Entry<kernel> {
    template <unsigned... I> static void call(void** args, Places<I...>) {
        kernel(*static_cast<typename Plain<P>::type*>(args[I])...);
    }
    static void run(void** args) { call(args, typename MakePlaces<sizeof...(P)>::type()); }
    static constexpr unsigned sizes[] = {sizeof...(P), sizeof(P)...};
};
}
"""


class CompileError(RuntimeError):
    """The host's compiler refused a kernel; the text is what it said."""


class Compiler(NamedTuple):
    """The C++ compiler of this machine, and what identifies the code it makes."""

    path: str
    identity: str
    clang: bool


@functools.lru_cache(1)
def compiler() -> Compiler:
    """The C++ compiler: `CXX`, or g++, or clang++.

    Raises:
        RuntimeError: there is none, or the machine is one that the simulator does not know.
    """
    machine = platform.machine().lower()
    if os.name != "posix" or machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        raise RuntimeError("device 'sim': the simulator's context switch is written for x86-64 and aarch64 under Linux "
                           f"and macOS, this is {platform.system()} on {machine}")
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    path = next((found for name in wanted if (found := shutil.which(name))), None)
    if path is None:
        raise RuntimeError(f"device 'sim' compiles kernels with g++, and {' or '.join(wanted)} was not found. "
                           f"{_hint()}")
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"device 'sim': {path} --version failed ({error}). {_hint()}") from None
    return Compiler(path, "\n".join((said, machine, _processor())), "clang" in said)


def _hint() -> str:
    if sys.platform == "darwin":
        return "Install it with: xcode-select --install"
    for tool, command in (("apt-get", "apt-get install g++"), ("dnf", "dnf install gcc-c++"),
                          ("zypper", "zypper install gcc-c++"), ("pacman", "pacman -S gcc"), ("apk", "apk add g++")):
        if shutil.which(tool):
            return f"Install it with: {command}"
    return "Install it: Debian and Ubuntu apt-get install g++, Fedora dnf install gcc-c++, macOS xcode-select --install"


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _say(text: str) -> None:
    """Show one line that the next overwrites, where somebody looks."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _flags() -> tuple[str, ...]:
    level = ("-O0", "-ggdb3") if settings.debug() else ("-O2", "-g1")
    if settings.sanitizer() and not settings.debug():
        level = ("-O1", "-fno-omit-frame-pointer")
    undefined = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
    unique = () if compiler().clang else ("-fno-gnu-unique",)
    return (*_KERNELS, *level, *_SANITIZE[settings.sanitizer()], *undefined, *unique)


@contextlib.contextmanager
def _only_one(cache: Cache, name: str) -> Iterator[Path | None]:
    """Yields what another process stored under `name` while this one waited for it, or None: then make it."""
    import fcntl  # POSIX has it; compiler() has refused other systems with a better message

    lock = cache.folder / f".{name}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield cache.find(name)
        finally:
            lock.unlink(missing_ok=True)


def _compile(what: str, source: Path, flags: Sequence[str], name: str, cache: Cache) -> Path:
    """Run the compiler and store what it made."""
    with tempfile.TemporaryDirectory(prefix="cuframe-sim-") as folder:
        output = Path(folder) / "made.so"
        _say(f"compiling {what} for the simulator")
        try:
            # a sanitizer preloaded into Python does not belong into the compiler
            environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
            done = subprocess.run([compiler().path, *flags, "-o", str(output), str(source)], capture_output=True,
                                  text=True, check=False, env=environment)
        finally:
            _say("")
        if done.returncode:
            raise CompileError(f"sim: {what} does not compile:\n{done.stderr.strip()}")
        return cache.write(name, output.read_bytes())


def build_runtime(cache: Cache | None = None) -> Path:
    """The shared object of the runtime, compiled if it is not in the cache.

    Raises:
        RuntimeError: no compiler.
    """
    cache = cache or Cache()
    source = read_source(_paths.kernels_dir() / "sim" / "runtime.cpp")
    mode = settings.sanitizer()
    # never instrumented itself: see kernels/sim/sanitizer.h
    flags = (*_LIBRARY, "-O2", "-ggdb" if settings.debug() else "-g1", *_RUNTIME_DEFINE[mode],
             *(("-Wl,--unresolved-symbols=ignore-all",) if mode else ()))
    name = f"sim-runtime-{digest(source.key, compiler().identity, *flags)}.so"
    found = cache.find(name)
    if found is not None:
        return found
    with _only_one(cache, name) as found:
        return found or _compile("the runtime", source.path, flags, name, cache)


def build_kernels(path: Path, expressions: Sequence[str], includes: Sequence[Path], options: Sequence[str] = (),
                  cache: Cache | None = None) -> Path:
    """A shared object with an entry `sim_entry_<i>` for the i-th expression, compiled if it is not in the cache.

    Args:
        path: the `.cu` file; expressions: name expressions of its kernels, `softmax_forward<float>`.
        includes: folders for `#include "..."`, beside the file's own and `kernels/`.
        options: further options for the compiler: definitions and the like.

    Raises:
        CompileError: the compiler's errors.
        RuntimeError: no compiler.
    """
    cache = cache or Cache()
    source = read_source(path, includes)
    flags = (*_flags(), "-DCUFRAME_SIM", *options)
    # included for kernels in plain CUDA, which need nothing of it on a GPU
    platform_key = read_source(_paths.kernels_dir() / "common" / "platform.cuh").key
    key = digest(source.key, platform_key, _ENTRY, str(source.path), compiler().identity, *expressions, "", *flags)
    name = f"sim-{key}.so"
    found = cache.find(name)
    if found is not None:
        return found
    lines = ['#include "common/platform.cuh"', f'#include "{source.path}"', _ENTRY]
    for i, expression in enumerate(expressions):
        # errors in the expression itself get a name that says so
        lines += [f'#line 1 "kernel expression {expression}"',
                  f"extern \"C\" __attribute__((visibility(\"default\"))) void sim_entry_{i}(void** args) "
                  f"{{ Entry<({expression})>::run(args); }}",
                  f"extern \"C\" __attribute__((visibility(\"default\"))) const unsigned* const sim_sizes_{i} = "
                  f"Entry<({expression})>::sizes;"]
    with _only_one(cache, name) as found, tempfile.TemporaryDirectory(prefix="cuframe-sim-") as folder:
        if found is not None:
            return found
        unit = Path(folder) / "unit.cpp"
        unit.write_text("\n".join(lines) + "\n")
        return _compile(f"{source.name} ({', '.join(expressions)})", unit,
                        (*flags, *(f"-I{folder}" for folder in source.folders)), name, cache)
