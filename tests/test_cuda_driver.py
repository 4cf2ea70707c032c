"""What only a GPU can run - loading, launching, streams, memory - against a recording stand-in for CuPy."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.backend import base
from cuframe.backend.cuda import CudaBackend
from cuframe.cuda import clusters, driver, launch, nvrtc, streams
from cuframe.cuda.compile import Binary, Resources
from tests.cupy_stand_in import Array, StandIn, array


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[StandIn]:
    made = StandIn()
    made.install(monkeypatch)
    monkeypatch.setenv("CUFRAME_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "compile_kernel", lambda source, expression, arch, options, siblings: Binary(
        f"{arch} {expression}".encode(), "_Z5scale", Resources(16, 0, 0, 0)))
    monkeypatch.setattr(launch, "_launchers", dict(launch._launchers))
    backend = CudaBackend()
    monkeypatch.setattr(base, "_by_type", {**base._by_type, Array: backend})
    monkeypatch.setattr(base, "_by_name", {**base._by_name, "cuda": backend})
    streams._peaks.clear()
    made.calls.clear()
    with np.errstate(all="ignore"):  # no kernel runs, so results are whatever the memory held
        yield made
    streams._peaks.clear()


def scale(**kwargs: Any) -> launch.Kernel:
    return cf.cuda.kernel("// nothing", "scale", ("float* x[n]", "float factor", "int64 n"), **kwargs)


def test_launch(cupy: StandIn) -> None:
    k, x = scale(), array(8)
    for _ in range(2):
        k((2, 3), 64, x, 0.5, 8, shared=128)
    launches = [args for name, args in cupy.calls if name == "launchKernel"]
    assert [n for n in cupy.names() if n.startswith("module")] == ["moduleLoadData", "moduleGetFunction"]
    assert dict(cupy.calls)["moduleLoadData"] == (b"sm_90 scale",)
    assert [a[1:9] for a in launches] == [(2, 3, 1, 64, 1, 1, 128, 0)] * 2
    slots = ctypes.cast(launches[0][9], ctypes.POINTER(ctypes.c_void_p))
    assert ctypes.cast(slots[0], ctypes.POINTER(ctypes.c_uint64)).contents.value == x.data.ptr  # type: ignore[arg-type]


def test_launch_goes_to_the_current_stream_and_the_arrays_device(cupy: StandIn) -> None:
    k, s = scale(), cf.cuda.Stream()
    k(1, 32, array(8), 1.0, 8)
    with cf.cuda.stream(s):
        k(1, 32, array(8), 1.0, 8)
        seen = []
        cupy.driver.launchKernel = lambda *a: seen.append(cupy.current)  # type: ignore[attr-defined]
        scale()(1, 32, array(8, device=1), 1.0, 8)
    launches = [args for name, args in cupy.calls if name == "launchKernel"]
    assert [a[8] for a in launches] == [0, s.cuda_stream]
    assert seen == [1]
    assert cupy.current == 0


def test_large_shared_memory_is_asked_for_once(cupy: StandIn) -> None:
    k = scale()
    for size in (1000, 60_000, 50_000, 70_000):
        k(1, 32, array(8), 1.0, 8, shared=size)
    assert [a[1:] for n, a in cupy.calls if n == "funcSetAttribute"] == [(8, 60_000), (8, 70_000)]
    with pytest.raises(ValueError, match="scale: 300000 bytes of shared memory a block asked for, device 0 has 232448"):
        k(1, 32, array(8), 1.0, 8, shared=300_000)


def test_cooperative_launch_must_fit(cupy: StandIn) -> None:
    k = scale(cooperative=True)
    k(264, 256, array(8), 1.0, 8)
    assert "launchCooperativeKernel" in cupy.names()
    with pytest.raises(ValueError, match="265 cooperating blocks of 256 threads and 0 bytes .* 0 holds 264 at once"):
        k(265, 256, array(8), 1.0, 8)
    assert cupy.names().count("launchCooperativeKernel") == 1
    assert cupy.names().count("occupancyMaxActiveBlocksPerMultiprocessor") == 1


def test_clusters(cupy: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy has no such launch, so the driver is asked itself."""
    seen: list[Any] = []

    class Driver:
        answer = 0

        def cuLaunchKernelEx(self, config: Any, function: int, params: int, extra: None) -> int:
            c = config._obj
            attribute = c.attributes[0]
            seen.append((list(c.grid), list(c.block), c.shared, c.stream or 0, c.count, attribute.id,
                         list(attribute.value[:4]), function, params > 0, extra))
            return self.answer

        def cuGetErrorName(self, error: int, name: Any) -> None:
            name._obj.value = b"CUDA_ERROR_INVALID_CLUSTER_SIZE"

    driver = Driver()
    monkeypatch.setattr(clusters, "_driver", lambda: driver)
    k, s = scale(cooperative=True), cf.cuda.Stream()
    with cf.cuda.stream(s):
        k((4, 2), 256, array(8), 1.0, 8, shared=60_000, cluster=True)
    assert seen == [([4, 2, 1], [256, 1, 1], 60_000, s.cuda_stream, 1, 4, [4, 1, 1, 0], 78, True, None)]
    assert "launchCooperativeKernel" not in cupy.names() and "funcSetAttribute" in cupy.names()
    driver.answer = 912
    with pytest.raises(RuntimeError, match=r"scale: clusters of 4 blocks with 0 bytes .*: CUDA_ERROR_INVALID"):
        k(4, 256, array(8), 1.0, 8, cluster=True)


@pytest.mark.cupy
def test_the_driver_reads_clusters_as_they_are_written(tmp_path: Path) -> None:
    """Sizes and places of the two structures and their numbers, as a C compiler has them from the driver's header."""
    wanted = {"sizeof(CUlaunchConfig)": ctypes.sizeof(clusters.Config),
              "sizeof(CUlaunchAttribute)": ctypes.sizeof(clusters.Attribute),
              "offsetof(CUlaunchAttribute, value)": clusters.Attribute.value.offset,
              "sizeof(((CUlaunchAttribute*)0)->value)": clusters.Attribute.value.size,
              "offsetof(CUlaunchConfig, blockDimX)": clusters.Config.block.offset,
              "offsetof(CUlaunchConfig, sharedMemBytes)": clusters.Config.shared.offset,
              "offsetof(CUlaunchConfig, hStream)": clusters.Config.stream.offset,
              "offsetof(CUlaunchConfig, attrs)": clusters.Config.attributes.offset,
              "offsetof(CUlaunchConfig, numAttrs)": clusters.Config.count.offset,
              "(int)CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION": clusters._CLUSTER_DIMENSION}
    checks = "\n".join(f'_Static_assert({what} == {value}, "{what}");' for what, value in wanted.items())
    source = tmp_path / "layout.c"
    source.write_text(f"#include <cuda.h>\n#include <stddef.h>\n{checks}\n")
    done = subprocess.run(["gcc", "-std=c11", "-fsyntax-only", f"-I{nvrtc.header_dir()}", str(source)], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr


def test_streams_and_events(cupy: StandIn) -> None:
    a, b = cf.cuda.Stream(), cf.cuda.Stream(device=1, priority=-1)
    assert a != b and a == a and b.device_index == 1 and a.query()
    cupy.calls.clear()
    b.wait_stream(a)
    a.synchronize()
    assert cupy.names() == ["event.record", "stream.wait_event", "stream.synchronize"]
    assert cupy.calls[0][1] == (a.cuda_stream,)
    start, end = cf.cuda.Event(enable_timing=True), cf.cuda.Event(enable_timing=True)
    start.record(), end.record(a), end.synchronize()
    assert end.query() and start.elapsed_time(end) == 1.5
    with cf.cuda.stream(b):
        assert cf.cuda.current_stream().cuda_stream == b.cuda_stream
    with cf.cuda.stream(None):
        assert cf.cuda.current_stream().cuda_stream == 0


def test_devices_and_memory(cupy: StandIn) -> None:
    cf.cuda.set_device(1)
    assert cf.cuda.current_device() == 1
    with cf.cuda.device("cuda:0"):
        assert cf.cuda.current_device() == 0
    cf.cuda.synchronize()
    assert cf.cuda.get_device_name(0) == "Stand-in"
    assert cf.cuda.memory_stats() == {"allocated": 300, "reserved": 512, "free": 212, "peak": 300}
    assert (cf.cuda.memory_allocated(), cf.cuda.memory_reserved(), cf.cuda.max_memory_allocated()) == (300, 512, 300)
    cf.cuda.reset_peak_memory_stats()
    assert cf.cuda.mem_get_info() == (60 << 30, 80 << 30)
    cf.cuda.empty_cache()
    assert cf.cuda.get_device_properties()["totalGlobalMem"] == 80 << 30
    with pytest.raises(RuntimeError, match=r"cuda: no device 2; this machine has 2 GPU\(s\)"):
        cf.cuda.set_device(2)


def test_arrays_are_of_device_cuda(cupy: StandIn) -> None:
    assert cf.Tensor(array(2, device=1)).device == cf.Device("cuda:1")
    assert isinstance(array(1), Array)
