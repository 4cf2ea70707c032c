"""What the machine is: GPU, driver, libraries, clocks, commit; and whether one kernel compiles, loads and runs.

    python -m benchmarks.gpu.environment
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.gpu.runner import Rows
from cuframe.bench.machine import commit, device, machine, peak_copy, peak_products


def compiler() -> dict[str, Any]:
    """Which NVRTC and headers are used; they must be of one version, one that the driver's CUDA can load."""
    import cupy

    from cuframe.cuda import nvrtc

    version = nvrtc.version()
    driver = cupy.cuda.runtime.driverGetVersion() // 1000
    if version[0] > driver:
        raise RuntimeError(f"NVRTC {version[0]}.{version[1]} at {nvrtc._library_path()} is too new for a driver of "
                           f"CUDA {driver}")
    return {"nvrtc": ".".join(map(str, version)), "library": nvrtc._library_path(), "headers": str(nvrtc.header_dir())}


def first_kernel(device: str = "cuda") -> dict[str, Any]:
    """Compiled, loaded, launched and right: a kernel of one's own, one of a family, a product, an elementwise one."""
    import numpy as np

    import cuframe as cf

    start = time.perf_counter()
    x = cf.arange(1000.0, device=device)
    scale = cf.cuda.kernel('#include "common/platform.cuh"\n__global__ void scale(float* x, float a, int64 n) '
                           "{ int64 i = blockIdx.x * (int64)blockDim.x + threadIdx.x; if (i < n) x[i] *= a; }",
                           "scale", ("float* x[n]", "float a", "int64 n"))
    scale(4, 256, x.array, 2.0, 1000)
    np.testing.assert_array_equal(x.cpu().numpy(), 2 * np.arange(1000, dtype=np.float32))
    half = cf.arange(6.0, device=device).reshape(2, 3).to(cf.bfloat16)
    np.testing.assert_allclose(cf.softmax(half, 1).float().cpu().numpy().sum(1), 1, atol=0.01)
    np.testing.assert_array_equal((half @ half.T).float().cpu().numpy(), [[5, 14], [14, 50]])
    if device == "cuda":
        cf.cuda.synchronize()
    return {"seconds": round(time.perf_counter() - start, 2)}


def peaks() -> dict[str, Any]:
    """Ceilings measured here: a copy on the GPU, bytes read and written counted, and products of 8192 x 8192."""
    import cupy

    from cuframe.bench.clocks import DeviceClock

    clock = DeviceClock(cupy)
    return {"copy": peak_copy(clock, cupy), "products": {d: peak_products(d, clock) for d in ("float32", "bfloat16")}}


def simulated() -> dict[str, Any]:
    """The simulator's device in the place of a GPU."""
    from cuframe.cuda.sim.settings import limits

    number = limits().arch[3:]
    return {"gpu": "simulator", "major": int(number[:-1]), "minor": int(number[-1])}


_PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "machine": machine, "commit": commit, "device": device, "compiler": compiler, "first kernel": first_kernel,
    "peaks": peaks}


_SIMULATED: dict[str, Callable[[], dict[str, Any]]] = {
    "machine": machine, "commit": commit, "device": simulated, "first kernel": partial(first_kernel, "sim")}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "sim"), default="cuda")
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    rows, bad = Rows(args.rows), 0
    for name, part in (_PARTS if args.device == "cuda" else _SIMULATED).items():
        if name in rows:
            continue
        try:
            rows.add(name, **part())
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            bad = 1
            if name == "device":        # there is nothing to ask further
                break
    return bad


if __name__ == "__main__":
    sys.exit(main())
