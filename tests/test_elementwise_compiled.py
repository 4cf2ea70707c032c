"""The compiled functions of each element: their errors, special arguments, layouts, threads, and who uses them."""

from __future__ import annotations

import importlib.util

import ml_dtypes
import numpy as np
import pytest
import scipy.special

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.cpu import activation, jit, pool

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

AVAILABLE = jit.available.__wrapped__  # before the fixture below
SETTINGS = {"elu": (1.5, 1.1, 0.7)}
TYPES = ("float32", "float64")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUFRAME_CPU_JIT says, and for small arrays, too."""
    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(activation, "_LEAST", 1)
    monkeypatch.setattr(activation, "_MOVED", 1)


def _erfc(x: np.ndarray) -> np.ndarray:
    """In long double beyond 1, where scipy's own loses what the rounding of x**2 takes off."""
    wide = x.astype(np.longdouble)
    return np.where(x > 1, np.exp(-wide * wide) * scipy.special.erfcx(np.abs(x)), scipy.special.erfc(x))


def _normal(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.longdouble)
    tail = np.exp(-wide * wide / 2) * scipy.special.erfcx(np.abs(x) * np.sqrt(0.5)) / 2
    return np.where(x < -1.5, tail, scipy.special.ndtr(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _tanh_of_softplus(x: np.ndarray) -> np.ndarray:
    e = np.expm1(-2 * np.logaddexp(0, x))
    return -e / (e + 2)


# the function in long double, the largest error in units in the last place of float32 and of float64
REFERENCES = {
    "sigmoid": (_sigmoid, 2.5, 2.5),
    "tanh": (np.tanh, 2.5, 2.7),
    "erf": (lambda x: scipy.special.erf(x.astype(np.float64)), 3, 4),
    "erfc": (lambda x: _erfc(x.astype(np.float64)), 5, 10),
    "gelu": (lambda x: x * _normal(x.astype(np.float64)), 7, 10),
    "silu": (lambda x: x * _sigmoid(x), 3, 3),
    "mish": (lambda x: x * _tanh_of_softplus(x), 5, 5),
    "logsigmoid": (lambda x: -np.logaddexp(0, -x), 3, 3),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", REFERENCES)
def test_errors_in_units_in_the_last_place(name: str, dtype: str) -> None:
    reference, *limits = REFERENCES[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, s, 4000) for s in (1e-6, 0.01, 1, 5)]).astype(dtype)
    x = x[np.abs(x) < 12]  # beyond, float32 has digits to lose on the way to a denormal result
    r = reference(x.astype(np.longdouble))
    unit = np.spacing(np.abs(r).astype(dtype)).astype(np.longdouble)
    assert (np.abs(activation.forward(name, x) - r) / unit).max() < limits[dtype == "float64"]


OPERATIONS = {
    "gelu": (F.gelu, ()), "gelu_tanh": (F.gelu, ("tanh",)), "silu": (F.silu, ()), "mish": (F.mish, ()),
    "softplus": (F.softplus, (2.0, 3.0)), "elu": (F.elu, (1.5,)), "celu": (F.celu, (-0.7,)), "selu": (F.selu, ()),
    "hardswish": (F.hardswish, ()), "logsigmoid": (F.logsigmoid, ()), "sigmoid": (cf.sigmoid, ()),
    "tanh": (cf.tanh, ()), "erf": (cf.erf, ()), "erfc": (cf.erfc, ()), "glu": (F.glu, (0,)),
    "relu": (F.relu, ()), "leaky_relu": (F.leaky_relu, (0.2,)), "steep_relu": (F.leaky_relu, (-1.5,)),
    "hardtanh": (F.hardtanh, (-0.5, 2.0)), "relu6": (F.relu6, ()), "hardsigmoid": (F.hardsigmoid, ()),
    "softshrink": (F.softshrink, (0.7,)), "hardshrink": (F.hardshrink, (0.7,)),
}  # fmt: skip


def passes(function, settings: tuple, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    t = cf.Tensor(x).requires_grad_()
    out = function(t, *settings)
    out.backward(cf.Tensor(g[: len(out.array)]))
    return out.array, t.grad.array


@pytest.mark.parametrize("dtype", (*TYPES, "float16", "bfloat16"))
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_use_it_and_agree_without(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, g = ((3 * rng.standard_normal((70, 64))).astype(getattr(ml_dtypes, dtype, dtype)) for _ in range(2))
    calls = []
    for kind in ("forward", "backward"):
        f = getattr(activation, "glu_" * (name == "glu") + kind)
        monkeypatch.setattr(activation, f.__name__, lambda *args, f=f: (calls.append(1), f(*args))[1])
    mine = passes(*OPERATIONS[name], x, g)
    assert len(calls) == 2
    monkeypatch.setattr(jit, "available", lambda: False)
    plain = passes(*OPERATIONS[name], x, g)
    assert len(calls) == 2
    tolerance = {"float32": 3e-6, "float64": 1e-14, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for a, b in zip(mine, plain, strict=True):
        assert a.dtype == b.dtype == x.dtype and a.shape == b.shape
        a, b = (v.astype(np.float64) for v in (a, b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", [n for n in OPERATIONS if n != "glu"])
def test_special_arguments(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    few = [0.0, -0.0, np.inf, -np.inf, np.nan, tiny, -tiny, 1e-30, 80.0, -80.0, 90.0, -130.0, 150.0, 800.0, -800.0]
    x = np.tile(np.array(few, dtype), 300)
    g = np.ones_like(x)
    mine = passes(*OPERATIONS[name], x, g)
    monkeypatch.setattr(jit, "available", lambda: False)
    plain = passes(*OPERATIONS[name], x, g)
    for a, b in zip(mine, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=10 * tiny)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_sign_of_zero(dtype: str) -> None:
    x = np.array([0.0, -0.0], dtype)
    for name in ("tanh", "erf", "gelu", "silu", "elu"):
        y = activation.forward(name, x, *SETTINGS.get(name, ()))
        assert np.signbit(y).tolist() == [False, True] and not y.any()


def test_the_smallest_results_are_denormal() -> None:
    x = np.array([9.9, 26.8])
    for dtype, at in (("float32", 0), ("float64", 1)):
        y = activation.forward("erfc", x[at : at + 1].astype(dtype))
        expected = _erfc(x[at : at + 1].astype(dtype).astype(np.float64))
        assert 0 < y < np.finfo(dtype).smallest_normal
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=np.finfo(dtype).smallest_subnormal)


@pytest.mark.parametrize("size", [1, 7, 16, 33, 1000])
def test_threads_and_ends_change_no_bit(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    whole = activation.forward("gelu", np.concatenate([x, x]))
    monkeypatch.setattr(pool, "_THREAD", 1)
    monkeypatch.setattr(pool, "_CHUNK", 48)
    monkeypatch.setattr(jit, "cpus", lambda: 3)
    parts = activation.forward("gelu", np.concatenate([x, x]))
    assert whole.tobytes() == parts.tobytes()
    assert whole[:size].tobytes() == whole[size:].tobytes() == activation.forward("gelu", x).tobytes()


def test_any_layout() -> None:
    x, g = np.random.default_rng(0).standard_normal((2, 12, 10, 6))
    expected = activation.backward("gelu", g, x)
    turned = [a.transpose(2, 0, 1) for a in (g, x)]
    for a, b in (
        ([np.asfortranarray(v) for v in (g, x)], expected),
        ([np.asfortranarray(g), x], expected),
        (turned, expected.transpose(2, 0, 1)),
        ([g[::2, :, ::-1], x[::2, :, ::-1]], expected[::2, :, ::-1]),
        ([np.broadcast_to(g[:1, :1, :1], g.shape), x], activation.backward("gelu", np.full_like(g, g[0, 0, 0]), x)),
    ):
        np.testing.assert_array_equal(activation.backward("gelu", *a), b)


def test_halves_of_any_shape() -> None:
    for shape, axis in (((3, 8, 5), 1), ((0, 4), 1), ((6, 2), 1), ((2, 3), 0), ((4, 40), 1)):
        x, g = (np.random.default_rng(0).standard_normal(shape) for _ in range(2))
        a, b = np.split(x, 2, axis)
        s = scipy.special.expit(b)
        np.testing.assert_allclose(activation.glu_forward(x, axis), a * s, rtol=1e-14)
        g = np.split(g, 2, axis)[0]
        expected = np.concatenate([g * s, g * a * s * (1 - s)], axis)
        np.testing.assert_allclose(activation.glu_backward(g, x, axis), expected, rtol=1e-13)


def test_an_empty_array() -> None:
    assert activation.forward("tanh", np.empty((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("triple, features, expected", [
    ("x86_64-unknown-linux-gnu", {"fma": True}, True),
    ("x86_64-unknown-linux-gnu", {"fma": False, "sse2": True}, False),
    ("aarch64-unknown-linux-gnu", {"neon": True}, True),
])  # fmt: skip
def test_x86_without_fma_stays_with_numpy(
    triple: str, features: dict, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llvmlite import binding

    monkeypatch.setattr(binding, "get_default_triple", lambda: triple)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: features)
    monkeypatch.delenv("CUFRAME_CPU_JIT", raising=False)
    assert AVAILABLE() is expected
