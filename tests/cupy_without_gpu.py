"""CuPy where there is no GPU: its own code runs, down to the calls of the CUDA runtime and driver, which come here.

Device memory is the host's, copies are copies, and kernels do nothing.  So results have the shapes, dtypes and errors
that a GPU would give, and none of the values.  It is a plugin for pytest, loaded before anything imports CuPy:

    python -m pytest -p tests.cupy_without_gpu --device cuda tests/test_device_ops.py

Note [Capsules] CuPy's compiled modules find one another's C functions in the table `__pyx_capi__`, as capsules that are
named by their C signatures.  What is put there before `cupy` is imported is what CuPy calls.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

# device-wide reductions and sorts of CUB and Thrust are C++ with a CUDA runtime of their own: out of reach
os.environ["CUPY_ACCELERATORS"] = ""

_C: dict[str, Any] = {
    "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "intptr_t": ctypes.c_ssize_t, "size_t": ctypes.c_size_t,
    "PyObject *": ctypes.py_object, "float": ctypes.c_float, "double": ctypes.c_double, "CUdevice": ctypes.c_int,
}
# cudaDevAttr: of an H100
_ATTRIBUTES = {1: 1024, 5: 2**31 - 1, 6: 65535, 7: 65535, 8: 49152, 10: 32, 16: 132, 39: 2048, 75: 9, 76: 0, 95: 1,
               97: 227 * 1024}
_PROPERTIES = {"name": b"Stand-in", "major": 9, "minor": 0, "multiProcessorCount": 132, "totalGlobalMem": 80 << 30,
               "l2CacheSize": 50 << 20, "sharedMemPerBlock": 49152, "sharedMemPerBlockOptin": 227 * 1024,
               "regsPerMultiprocessor": 65536, "warpSize": 32, "maxThreadsPerBlock": 1024,
               "maxThreadsPerMultiProcessor": 2048}

_kept: list[Any] = []                   # what C holds pointers to
_api = ctypes.pythonapi
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def _malloc(size: int, *_: Any) -> int:
    block = np.zeros(size + 256, np.uint8)
    _kept.append(block)
    return block.ctypes.data


def _memcpy(to: int, from_: int, size: int, *_: Any) -> None:
    if size:
        ctypes.memmove(to, from_, size)


def _memset(at: int, value: int, size: int, *_: Any) -> None:
    if size:
        ctypes.memset(at, value, size)


_RUNTIME: dict[str, Callable[..., Any]] = {
    "getDeviceCount": lambda: 1, "malloc": _malloc, "mallocAsync": _malloc, "mallocManaged": _malloc,
    "hostAlloc": _malloc, "memcpy": _memcpy, "memcpyAsync": _memcpy, "memset": _memset, "memsetAsync": _memset,
    "memcpyPeer": lambda to, _, from_, __, size: _memcpy(to, from_, size),
    "deviceGetAttribute": lambda attribute, device: _ATTRIBUTES.get(attribute, 0),
    "getDeviceProperties": lambda device: dict(_PROPERTIES), "memGetInfo": lambda: (1 << 30, 1 << 31),
    "driverGetVersion": lambda: 13000, "runtimeGetVersion": lambda: 12090, "eventCreate": lambda: 7,
    "eventCreateWithFlags": lambda flags: 7, "streamCreate": lambda: 9, "streamCreateWithFlags": lambda flags: 9,
    "streamCreateWithPriority": lambda flags, priority: 9, "eventElapsedTime": lambda start, end: 1.0,
}
_DRIVER: dict[str, Callable[..., Any]] = {
    "moduleLoadData": lambda image: 3, "moduleGetFunction": lambda module, name: 4, "ctxGetCurrent": lambda: 5,
    "occupancyMaxActiveBlocksPerMultiprocessor": lambda *_: 2, "occupancyMaxPotentialBlockSize": lambda *_: (132, 256),
    "funcGetAttribute": lambda *_: 1024,
}


def _replace(module: str, known: dict[str, Callable[..., Any]]) -> None:
    """Put functions of ours into a module's table, those that are not `known` answering 0 or None."""
    table = import_module(module).__pyx_capi__
    for name, capsule in list(table.items()):
        signature = _api.PyCapsule_GetName(capsule)
        found = re.fullmatch(r"(.+?)\s*\((.*)\)", signature.decode())
        if not found:
            continue
        given = [a.strip() for a in found[2].split(",")] if found[2] != "void" else []
        # Cython's own arguments come last, and are no business of ours
        count = len([a for a in given if "__pyx_" not in a])
        kinds = [_kind(a) for a in given]
        result = _kind(found[1])
        if result is None or None in kinds:
            continue
        function = known.get(name, lambda *_: None)
        nothing = None if result is ctypes.py_object else 0

        def call(*values: Any, function: Any = function, count: int = count, nothing: Any = nothing) -> Any:
            answer = function(*values[:count])
            return nothing if answer is None else answer

        made = ctypes.CFUNCTYPE(result, *kinds)(call)
        _kept.extend((made, signature))
        table[name] = _api.PyCapsule_New(ctypes.cast(made, ctypes.c_void_p), signature, None)

        def python(*values: Any, function: Any = function, nothing: Any = nothing) -> Any:
            answer = function(*values)
            return nothing if answer is None else answer

        setattr(import_module(module), name, python)


def _kind(declared: str) -> Any:
    plain = re.sub(r"\s*__pyx_(skip_dispatch|optional_args)$", "", declared)
    return ctypes.c_void_p if plain.endswith("*") and plain != "PyObject *" else _C.get(plain)


def _stub_cublas() -> None:
    """Where cuBLAS is not installed, libraries whose functions do nothing: CuPy looks for each by its name."""
    folder = Path(tempfile.mkdtemp(prefix="no-cublas-"))
    package = Path(import_module("cupy_backends").__path__[0]).parent
    names = set()
    for module in (*package.glob("cupy_backends/cuda/libs/cublas*.so"), *package.glob("cupy/**/*.so")):
        names |= set(re.findall(rb"cublas(?:Lt)?[A-Z]\w+(?=\0)", module.read_bytes()))
    source = folder / "stub.c"
    source.write_text("\n".join(f"int {n.decode()}() {{ return 0; }}" for n in sorted(names)))
    for library in ("libcublasLt", "libcublas"):
        for major in (12, 13):
            file = f"{library}.so.{major}"
            (folder / "map").write_text(f"{file} {{ global: *; }};\n")
            subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", folder / file, source, f"-Wl,-soname,{file}",
                            f"-Wl,--version-script={folder / 'map'}"], check=True)
            _kept.append(ctypes.CDLL(str(folder / file), mode=ctypes.RTLD_GLOBAL))


def install() -> None:
    """Make `import cupy` find a GPU."""
    # CuPy frees memory as the interpreter ends, when ctypes would have taken the functions apart
    _api.Py_IncRef(ctypes.py_object(_kept))
    _replace("cupy_backends.cuda.api.runtime", _RUNTIME)
    _replace("cupy_backends.cuda.api.driver", _DRIVER)
    try:
        import_module("cupy_backends.cuda.libs.cublas")
    except ImportError:
        _stub_cublas()
    _replace("cupy_backends.cuda.libs.cublas", {"create": lambda: 6})
    compiler = import_module("cupy.cuda.compiler")
    function = import_module("cupy.cuda.function")

    def compiled(source: str, options: tuple = (), **_: Any) -> Any:
        made = function.Module()
        made.load(b"cubin")
        return made

    compiler._compile_module_with_cache = compiled
    # what is asked of the driver itself
    import_module("cuframe.cuda.clusters")._driver = lambda: SimpleNamespace(cuLaunchKernelEx=lambda *_: 0)
    for name in ("cupy.cuda.thrust", "cupy.cuda.cub"):
        module = import_module(name)
        for attribute, thing in list(vars(module).items()):
            if callable(thing) and not attribute.startswith("_") and not isinstance(thing, type):
                setattr(module, attribute, lambda *_, **__: None)


def pytest_configure(config: Any) -> None:
    """Compare shapes instead of values."""
    from tests import test_ops

    def same_shape(actual: Any, expected: Any, *rest: Any) -> None:
        assert np.shape(actual) == np.shape(expected), f"{rest[-1]}: {np.shape(actual)} and not {np.shape(expected)}"

    test_ops.assert_close = same_shape


install()
