"""What the tests of kernels share: sizes that break kernels, and the comparison with a reference in float64."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import cuframe as cf
from cuframe import _paths
from cuframe.backend import Device, backend_for, backend_of
from cuframe.cuda import tuned
from cuframe.cuda.launch import device_facts
from cuframe.gpu import _rnn_persistent as persistent

FLOATS = ("float32", "float64", "float16", "bfloat16")
# one, around a warp, around a block
SIZES = (1, 31, 33, 1023, 1025)
# more rows than a grid has in its second dimension
MANY_ROWS = 65_537

# half a unit in the last place, with a few roundings of the accumulation where that is no wider than the result
_TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}

Array = npt.NDArray[Any]


def numbers(*shape: int, dtype: str = "float32", seed: int = 0, low: float = -2, high: float = 2) -> Array:
    """A host array, the same each time."""
    values = np.random.default_rng([seed, *shape]).uniform(low, high, shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def put(array: Any, device: str) -> Any:
    """A host array's copy on `device`, as a raw array."""
    return backend_for(device).from_host(np.asarray(array), Device(device))


def fetch(array: Any) -> Array:
    """A raw array of any device as float64 on the host, integers as they are."""
    host = backend_of(array).to_host(array)
    return host if host.dtype.kind in "biu" else host.astype(np.float64)


def assert_near(actual: Any, expected: Array, dtype: str, scale: float = 1.0, what: str = "",
                floor: float = 0.0) -> None:
    """The largest difference is within `scale` roundings of `dtype`, relative to the largest expected value or 1.

    Or within `floor`: what another implementation in the same precision is off by.
    """
    got = fetch(actual)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(got), finite, err_msg=what)
    np.testing.assert_array_equal(got[~finite], expected[~finite], err_msg=what)
    limit = max(floor, _TOLERANCE[dtype] * scale * max(1.0, np.abs(expected[finite]).max(initial=0)))
    worst = np.abs(got[finite] - expected[finite]).max(initial=0)
    assert worst <= limit, f"{what}: off by {worst:.3g}, allowed {limit:.3g}"


def tensors(*arrays: Any, device: str, requires_grad: bool = True) -> list[cf.Tensor]:
    """Host arrays as tensors on `device`."""
    return [cf.tensor(a, device=device).requires_grad_(requires_grad) for a in arrays]


def exchanges_of(device: str) -> tuple[str, ...]:
    """How blocks can meet there: clusters are of sm_90."""
    arch = device_facts(backend_for(device).array_type, 0)[0]
    return tuned.EXCHANGES if int(arch[3:]) >= 90 else tuned.EXCHANGES[:2]


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a module that imports this, no table of what a GPU measured changes what is tested."""
    default = tuned.read(_paths.kernels_dir() / "tuned" / "default.json")
    monkeypatch.setattr(persistent, "table", lambda arch: default)
