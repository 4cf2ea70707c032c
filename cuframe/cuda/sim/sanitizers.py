"""What a Python process needs around it so that kernels compiled with a sanitizer can be loaded."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cuframe.cuda.sim.build import compiler

__all__ = ["EXIT_STATUS", "prepared", "without_randomised_addresses"]

#: The exit status of a process in which a sanitizer found something.
EXIT_STATUS = 66

_LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so"}
_OPTIONS = {
    # Python and NumPy keep much until the end on purpose; stacks of fibers are not the kind this check knows.
    "address": {"detect_leaks": 0, "detect_stack_use_after_return": 0, "exitcode": EXIT_STATUS,
                "allocator_may_return_null": 1},
    # Only kernels are instrumented: what other libraries do through intercepted functions is not looked at.  A longer
    # history than this takes megabytes for every CUDA thread.
    "thread": {"ignore_noninstrumented_modules": 1, "exitcode": EXIT_STATUS, "report_signal_unsafe": 0,
               "history_size": 2, "report_thread_leaks": 0},
}


def prepared(sanitizer: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a Python process runs kernels with a sanitizer.

    Args:
        sanitizer: "address" or "thread"; environment: what to start from.

    Raises:
        RuntimeError: the compiler brings no such library.
    """
    if not sys.platform.startswith("linux") or compiler().clang:
        raise RuntimeError("sanitizers are there with g++ under Linux only")
    result = dict(environment)
    # libstdc++ as well: the sanitizer looks for its functions when the process starts
    libraries = [_library(_LIBRARIES[sanitizer]), _library("libstdc++.so")]
    result["LD_PRELOAD"] = ":".join([*libraries, *filter(None, [environment.get("LD_PRELOAD")])])
    name = {"address": "ASAN_OPTIONS", "thread": "TSAN_OPTIONS"}[sanitizer]
    ours = ":".join(f"{k}={v}" for k, v in _OPTIONS[sanitizer].items())
    result[name] = ":".join(filter(None, [ours, environment.get(name)]))
    result["CUFRAME_SIM_SANITIZE"] = sanitizer
    result["PYTHONMALLOC"] = "malloc"  # so that each object has bounds of its own
    # threads outside kernels only add to what has to be watched
    result.setdefault("OPENBLAS_NUM_THREADS", "1")
    return result


def _library(name: str) -> str:
    found = subprocess.run([compiler().path, f"-print-file-name={name}"], capture_output=True, text=True,
                           check=True).stdout.strip()
    path = Path(found)
    if not path.is_absolute() or not path.is_file():
        raise RuntimeError(f"{name} was not found; it comes with g++, on Fedora in the package {name.split('.')[0]}")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x7fELF"):
        return str(path.resolve())
    script = re.search(rb"(/\S+\.so[.\d]*)", head)  # Fedora puts a linker script there
    if script is None:
        raise RuntimeError(f"{path} is neither a library nor a linker script that names one")
    return script[1].decode()


def without_randomised_addresses() -> None:
    """Ask the system to load the next program at fixed addresses: older thread sanitizers expect theirs to be free."""
    libc = ctypes.CDLL(None)
    no_randomisation = 0x0040000
    present = libc.personality(0xFFFFFFFF)
    if present >= 0:
        libc.personality(present | no_randomisation)
