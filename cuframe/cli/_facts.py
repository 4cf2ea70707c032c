"""Facts about this machine and installation, gathered so that nothing broken can stop the gathering."""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cuframe import _paths
from cuframe._version import __version__
from cuframe.cli._driver import Driver, find_driver

_CUPY_NAMES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
CUDA_LIBRARIES = {"runtime": "runtime", "nvrtc": "NVRTC", "cublas": "cuBLAS", "nccl": "NCCL"}
_THREAD_GETTERS = (
    "scipy_openblas_get_num_threads64_",
    "scipy_openblas_get_num_threads",
    "openblas_get_num_threads64_",
    "openblas_get_num_threads",
    "MKL_Get_Max_Threads",
)


def collect() -> dict[str, Any]:
    """Return everything `cuframe info` shows, as JSON-ready values (None for what is absent)."""
    driver = find_driver()
    facts: dict[str, Any] = {
        "cuframe": __version__,
        "location": str(Path(_paths.__file__).parent),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {
            name: _version(name)
            for name in ("numpy", "scipy", "ml_dtypes", "safetensors", "rich", "matplotlib")
        },
        "blas": _blas(),
        "cpu": _cpu(),
        "driver": _driver(driver),
        "gpus": [_gpu(g) for g in driver.gpus] if driver else [],
        "cupy": _cupy(),
        "kernels": _probe(lambda: str(_paths.kernels_dir())),
        "kernel_cache": _kernel_cache(),
    }
    facts["missing"] = _missing(facts, driver)
    return facts


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _blas() -> dict[str, Any]:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    built = config.get("Build Dependencies", {}).get("blas", {})
    return {"name": built.get("name"), "version": built.get("version"), "threads": _blas_threads()}


def _blas_threads() -> int | None:
    # NumPy has no call for this; ask the BLAS library it has loaded, which Linux lists among our mappings.
    try:
        mapped = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = {line.split(maxsplit=5)[-1] for line in mapped if "blas" in line or "libmkl_rt" in line}
    # NumPy's own copy first: SciPy's wheel brings a second one.
    for path in sorted(paths, key=lambda p: ("numpy" not in p, p)):
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for getter in _THREAD_GETTERS:
            if hasattr(library, getter):
                return int(getattr(library, getter)())
    return None


def _cpu() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = {}
    model = platform.processor() or None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            key, _, value = line.partition(":")
            memory[key] = int(value.split()[0]) * 1024
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux: the fields stay None
    return {
        "model": model,
        "cores": cores,
        "memory_bytes": memory.get("MemTotal"),
        "available_bytes": memory.get("MemAvailable"),
    }


def _driver(driver: Driver | None) -> dict[str, Any] | None:
    if driver is None:
        return None
    return {
        "version": driver.version,
        "cuda": f"{driver.cuda[0]}.{driver.cuda[1]}",
        "problem": driver.problem,
    }


def _gpu(gpu: Any) -> dict[str, Any]:
    return {
        "device": f"cuda:{gpu.index}",
        "name": gpu.name,
        "capability": f"{gpu.capability[0]}.{gpu.capability[1]}",
        "memory_bytes": gpu.total_bytes,
        "free_bytes": gpu.free_bytes,
    }


def _cupy() -> dict[str, Any] | None:
    installed = {name: v for name in _CUPY_NAMES if (v := _version(name))}
    if not installed and find_spec("cupy") is None:
        return None
    facts: dict[str, Any] = {"distributions": installed, "version": None, "problem": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns of duplicate installs; `distributions` shows them
        # A broken CuPy can raise anything on import: missing shared objects, version checks, its own code.
        try:
            import cupy
        except Exception as e:
            facts["problem"] = _one_line(e)
            return facts
        facts["version"] = str(getattr(cupy, "__version__", "unknown"))
        facts["runtime"] = _probe(lambda: _dotted(cupy.cuda.runtime.runtimeGetVersion(), 1000, 10))
        facts["nvrtc"] = _probe(lambda: ".".join(str(n) for n in cupy.cuda.nvrtc.getVersion()))
        facts["cublas"] = _probe(_cublas)
        facts["nccl"] = _probe(_nccl)
    return facts


def _cublas() -> str:
    # Its version needs a handle and so a GPU; importing the binding shows that the library itself loads.
    from cupy_backends.cuda.libs import cublas  # noqa: F401

    return "found"


def _nccl() -> str:
    from cupy.cuda import nccl

    return _dotted(nccl.get_version(), 10000, 100)


def _dotted(number: int, major: int, minor: int) -> str:
    parts = [number // major, number % major // minor]
    if number % minor:
        parts.append(number % minor)
    return ".".join(map(str, parts))


def _probe(question: Callable[[], str]) -> dict[str, str | None]:
    try:
        return {"answer": question(), "problem": None}
    except Exception as e:
        return {"answer": None, "problem": _one_line(e)}


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =\t")]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
    return text if len(text) <= 200 else text[:197] + "..."


def _kernel_cache() -> dict[str, Any]:
    folder = _paths.kernel_cache_dir()
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
    return {"path": str(folder), "files": len(sizes), "bytes": sum(sizes)}


def _missing(facts: dict[str, Any], driver: Driver | None) -> list[dict[str, str]]:
    cupy = facts["cupy"]
    fitting = driver.extra if driver else None
    found = []
    if cupy is None and fitting is not None:
        found.append(("CuPy, to use the GPU", fitting))
    if cupy is not None:
        names = list(cupy["distributions"])
        uninstall = f"`pip uninstall {' '.join(names)}`, then"
        wanted = fitting or ("cuda13" if names == ["cupy-cuda13x"] else "cuda12")
        broken = [name for part, name in CUDA_LIBRARIES.items() if part in cupy and cupy[part]["problem"]]
        if len(names) > 1:
            found.append((f"one CuPy instead of {len(names)}: {uninstall}", wanted))
        elif fitting == "cuda12" and names == ["cupy-cuda13x"]:
            found.append((f"a CuPy that this driver can run: {uninstall}", wanted))
        elif cupy["problem"] is not None:
            found.append((f"a CuPy that can be imported: {uninstall}", wanted))
        elif broken:
            found.append((", ".join(broken), wanted))
    if facts["packages"]["matplotlib"] is None:
        found.append(("matplotlib, for loss curves", "plot"))
    return [{"what": what, "install": _paths.install_command(extra)} for what, extra in found]
