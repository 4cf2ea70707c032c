"""The CuPy that is installed has every name and parameter that cuframe uses; and NVRTC compiles.  No GPU is needed."""

from __future__ import annotations

import importlib
import re
import warnings
from typing import Any

import pytest

from tests.cupy_stand_in import SURFACE

pytestmark = pytest.mark.cupy


def find(name: str) -> Any:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                thing: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise ImportError(name)


@pytest.mark.parametrize("name", SURFACE)
def test_name_and_parameters(name: str) -> None:
    thing = find(name)
    signature = re.match(r"[\w.]+\((.*?)\)(?: ->|$)", (getattr(thing, "__doc__", "") or "").split("\n")[0])
    if SURFACE[name] is not None and signature:
        parameters = [p for p in signature[1].split(",") if p.strip()]
        least = len([p for p in parameters if "=" not in p])
        assert least <= SURFACE[name] <= len(parameters), signature[0]  # type: ignore[operator]


def test_driver_functions_tell_their_parameters() -> None:
    """Otherwise the test above would compare nothing."""
    told = [n for n in SURFACE if ".api." in n and SURFACE[n] and "(" in (find(n).__doc__ or "")]
    assert len(told) >= 8


def test_attribute_numbers() -> None:
    from cuframe.cuda import driver

    runtime = find("cupy.cuda.runtime")
    assert driver._MULTIPROCESSORS == runtime.cudaDevAttrMultiProcessorCount
    assert driver._SHARED_OPTIN == runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin


def test_nvrtc_compiles_and_reports(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuframe.cuda.compile import compile_file, compile_kernel
    from cuframe.cuda.nvrtc import CompileError
    from cuframe.cuda.sources import text_source

    monkeypatch.setenv("CUFRAME_CACHE_DIR", str(tmp_path))
    source = text_source('#include "common/platform.cuh"\ntemplate <class T> __global__ void f(T* x) '
                         "{ SHARED_ARRAY(float, s, 32); s[threadIdx.x] = 1; x[0] = convert<T>(s[1]); }")
    for arch in ("sm_80", "sm_90a"):
        binary = compile_kernel(source, "f<half>", arch)
        assert binary.cubin[:4] == b"\x7fELF" and binary.symbol.startswith("_Z1f")
        assert binary.resources.registers > 0 and binary.resources.shared == 128 and binary.resources.spills == 0
        assert compile_kernel(source, "f<half>", arch) == binary  # from the cache
        both = ["f<half>", "f<float>"]
        made = compile_file(source, both, arch)
        assert [made[e].symbol for e in both] == ["_Z1fI6__halfEvPT_", "_Z1fIfEvPT_"]
        assert compile_kernel(source, "f<float>", arch, siblings=both) == made["f<float>"]  # of what was built together
    assert len(list(tmp_path.glob("kernels/*.cubin"))) == 4
    with pytest.raises(CompileError, match=r"(?s)compiling for sm_80 failed.*identifier \"y\" is undefined"):
        compile_kernel(text_source("__global__ void f(int* x) { x[0] = y; }"), "f", "sm_80")
