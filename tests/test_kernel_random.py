"""`kernels/random.cu` gives the bits of the host's generator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import cuframe as cf
from cuframe.backend import backend_for, backend_of
from cuframe.cpu import philox
from cuframe.gpu import random as fused
from tests.kernels import FLOATS, MANY_ROWS, SIZES, Array, put


def dtype_of(name: str) -> Any:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def bits(array: Any) -> Array:
    host = backend_of(array).to_host(array)
    return host.view(f"u{host.dtype.itemsize}")


def empty(n: int, name: str, device: str) -> Any:
    return put(np.zeros(n, dtype_of(name)), device)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("n", [*SIZES, 20_001])
def test_bits_of_the_host(n: int, name: str, device: str) -> None:
    for seed, offset in ((0, 0), (2**64 - 1, 2**63)):
        for recipe, call in ((philox.uniform, fused.uniform), (philox.normal, fused.normal)):
            ours = call(empty(n, name, device), seed, offset, 0, 1)
            np.testing.assert_array_equal(bits(ours), bits(recipe(seed, offset, n, dtype_of(name))))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(("a", "b"), [(-1.3, 2.7), (0.0, 2.0), (3.0, 3.0), (1.0, 1.0001)])
def test_ranges(a: float, b: float, name: str, device: str) -> None:
    source = cf.Generator(5)
    expected = source.uniform(3001, a, b, dtype_of(name))
    np.testing.assert_array_equal(bits(fused.uniform(empty(3001, name, device), 5, 0, a, b)), bits(expected))
    offset = source.offset
    expected = source.normal(3001, a, b, dtype_of(name))
    np.testing.assert_array_equal(bits(fused.normal(empty(3001, name, device), 5, offset, a, b)), bits(expected))


def test_many_blocks_and_unaligned(device: str) -> None:
    out = empty(8 * MANY_ROWS, "float32", device)
    np.testing.assert_array_equal(bits(fused.uniform(out, 1, 0, 0, 1)), bits(philox.uniform(1, 0, out.size)))
    fused.normal(out[1:100], 1, 0, 0, 1)
    np.testing.assert_array_equal(bits(out[1:100]), bits(philox.normal(1, 0, 99)))
    assert fused.uniform(out[:0], 0, 0, 0, 1).size == 0


CALLS: dict[str, Any] = {
    "rand": lambda where, kind: cf.rand(3, 5, dtype=kind, device=where),
    "randn": lambda where, kind: cf.randn(3, 5, dtype=kind, device=where),
    "randn_like": lambda where, kind: cf.randn_like(cf.zeros(7, dtype=kind, device=where)),
    "uniform_": lambda where, kind: cf.zeros(3, 5, dtype=kind, device=where).uniform_(-2, 3),
    "normal_": lambda where, kind: cf.zeros(3, 5, dtype=kind, device=where).normal_(1, 0.5),
    "normal_ of a view": lambda where, kind: cf.zeros(3, 5, dtype=kind, device=where).T.normal_(),
    "nothing": lambda where, kind: cf.rand(0, 2, dtype=kind, device=where),
    "a number": lambda where, kind: cf.randn((), dtype=kind, device=where),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FLOATS)
def test_functions_draw_on_the_device(call: str, name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = getattr(cf, name)
    cf.manual_seed(4)
    expected, after = CALLS[call]("cpu", kind), cf.get_rng_state()["offset"]
    cf.manual_seed(4)
    monkeypatch.setattr(philox, "uniform", lambda *a: pytest.fail("drawn on the host"))
    monkeypatch.setattr(philox, "normal", lambda *a: pytest.fail("drawn on the host"))
    ours = CALLS[call](device, kind)
    assert cf.get_rng_state()["offset"] == after
    assert ours.device.type == device and ours.shape == expected.shape
    np.testing.assert_array_equal(bits(ours.array), bits(expected.array))


def test_empty_is_where_it_was_asked_for(device: str) -> None:
    where = cf.backend.Device(device)
    made = backend_for(device).empty((2, 3), np.dtype(np.float16), where)
    assert made.shape == (2, 3) and made.dtype == np.float16 and backend_of(made).device_of(made) == where
