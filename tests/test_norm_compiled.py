"""The compiled passes of normalisation against NumPy in float64, and their independence of threads and layout."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.cpu import jit, norm, norm_compiled

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

# whole vectors, less than one, all kinds of ends; more and fewer rows than go together
SHAPES = [(64, 128), (1, 8), (37, 109), (7, 15), (530, 17), (3, 1000)]
EPS = 1e-5


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUFRAME_CPU_JIT says, and for small arrays, too."""
    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(norm_compiled, "_LEAST", 1)


def numbers(*shapes: tuple[int, ...], shift: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s, dtype=np.float32) + np.float32(shift) for s in shapes]


def wide(a: np.ndarray | None) -> np.ndarray | None:
    return None if a is None else a.astype(np.float64)


def check(results: tuple, expected: tuple, atol: float = 1e-5) -> None:
    for a, e in zip(results, expected, strict=True):
        if e is None:
            assert a is None
        else:
            assert a.dtype == np.float32 and a.shape == e.shape
            np.testing.assert_allclose(a, e, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "centred, scaled, shifted, needs",
    [
        (True, True, True, (True, True, True)),
        (True, False, False, (True, False, False)),
        (False, True, False, (True, True, False)),
        (True, True, True, (False, True, True)),
    ],
)
def test_rows(shape: tuple, centred: bool, scaled: bool, shifted: bool, needs: tuple) -> None:
    x, g, w, b = numbers(shape, shape, shape[1:], shape[1:], shift=0.5)
    factors = (w if scaled else None, b if shifted else None)
    results = norm_compiled.rows_forward(x, *factors, EPS, centred)
    expected = norm.rows_forward(x.astype(np.float64), *map(wide, factors), EPS, centred)
    check(results, expected)
    back = norm_compiled.rows_backward(g, x, factors[0], *results[1:], needs)
    expected = norm.rows_backward(wide(g), wide(x), wide(factors[0]), *expected[1:], needs)
    check(back, expected, atol=1e-5 * shape[0] ** 0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_channels(shape: tuple) -> None:
    x, g, *columns = numbers(shape, shape, *[(shape[0], 1)] * 4)
    a, slope, constant, shift = columns
    check(norm_compiled.row_moments(x), norm.row_moments(x.astype(np.float64)), 1e-4)
    check(norm_compiled.row_sums(g, x, shift), norm.row_sums(*map(wide, (g, x, shift))), 1e-4)
    for terms, c in (([(g, a), (x, slope)], constant), ([(g, a)], constant), ([(g, a)], None)):
        expected = norm.apply([tuple(map(wide, t)) for t in terms], wide(c))
        check((norm_compiled.apply(terms, c),), (expected,))


@pytest.mark.parametrize("shape, groups", [((4, 24, 50), 8), ((3, 12, 9), 3), ((5, 9, 130), 0), ((1, 8, 64), 8)])
@pytest.mark.parametrize("scaled, shifted, for_x", [(True, True, True), (False, False, True), (True, False, False)])
def test_units(shape: tuple, groups: int, scaled: bool, shifted: bool, for_x: bool) -> None:
    x, g, w, b = numbers(shape, shape, shape[1:2], shape[1:2], shift=0.5)
    factors = (w if scaled else None, b if shifted else None)
    assert norm_compiled.applies_to_units(x, groups)
    results = norm.channels_forward(x, *factors, groups, EPS, None)
    expected = norm.channels_forward(wide(x), *map(wide, factors), groups, EPS, None)
    check(results, expected)
    needs = (for_x, True, True)
    back = norm.channels_backward(g, x, factors[0], groups, results[1], results[3], False, needs)
    mean, rstd = expected[1], expected[3]
    expected = norm.channels_backward(wide(g), wide(x), wide(factors[0]), groups, mean, rstd, False, needs)
    check(back, expected, atol=1e-4)


def test_few_units_are_left_to_rows() -> None:
    (x,) = numbers((2, 6, 50))
    assert not norm_compiled.applies_to_units(x, 3) and not norm_compiled.applies_to_units(x, 0)
    assert norm_compiled.applies_to_units(x, 6)


def test_far_from_zero_nothing_cancels() -> None:
    x = numbers((8, 512), shift=1e4)[0]
    out, _, rstd = norm_compiled.rows_forward(x, None, None, EPS, True)
    exact = norm.rows_forward(x.astype(np.float64), None, None, EPS, True)
    np.testing.assert_allclose(out, exact[0], atol=1e-3)  # the mean is rounded to 1e-3 / 2
    np.testing.assert_allclose(rstd, exact[2], rtol=1e-5)


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, g, w, b = numbers((100, 70), (100, 70), (70,), (70,))
    runs = []
    for cpus in (1, 3):
        monkeypatch.setattr(norm_compiled, "_THREAD", 1)
        monkeypatch.setattr(jit, "cpus", lambda cpus=cpus: cpus)
        out, mean, rstd = norm_compiled.rows_forward(x, w, b, EPS, True)
        runs.append((out, mean, rstd, *norm_compiled.rows_backward(g, x, w, mean, rstd, (True, True, True))))
        for groups in (0, 10):
            x3, g3, w3 = x.reshape(10, 20, 35), g.reshape(10, 20, 35), w[:20]
            out, mean, _, rstd = norm_compiled.units_forward(x3, w3, w3, groups, EPS)
            runs[-1] += (out, mean, rstd, *norm_compiled.units_backward(g3, x3, w3, groups, mean, rstd, True))
    for one, three in zip(*runs, strict=True):
        assert one.tobytes() == three.tobytes()


def test_any_layout() -> None:
    x, g, w = numbers((40, 32), (40, 32), (64,))
    plain = norm_compiled.rows_forward(x, w[::2].copy(), None, EPS, True)
    check(norm_compiled.rows_forward(np.asfortranarray(x), w[::2], None, EPS, True), plain, 0)
    spread = np.broadcast_to(np.float32(1), x.shape)
    back = [norm_compiled.rows_backward(a, x, w[::2], *plain[1:], (True, True, False)) for a in (spread, spread.copy())]
    check(back[0], back[1], 0)


def test_nan_stays_in_its_row() -> None:
    x, g = numbers((9, 20), (9, 20))
    x[4, 19] = np.nan
    out, mean, rstd = norm_compiled.rows_forward(x, None, None, EPS, True)
    (gx, _, _) = norm_compiled.rows_backward(g, x, None, mean, rstd, (True, False, False))
    for a in (out, gx):
        np.testing.assert_array_equal(np.isnan(a).all(axis=1), np.arange(9) == 4)
        np.testing.assert_array_equal(np.isnan(a).any(axis=1), np.arange(9) == 4)


def test_the_layers_use_it_and_agree_without(monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = numbers((16, 8, 9), (16, 8, 9))
    calls: list[str] = []
    run = norm_compiled._run
    monkeypatch.setattr(norm_compiled, "_run", lambda kernel, *args: calls.append("run") or run(kernel, *args))
    results = []
    for there in (True, False):
        monkeypatch.setattr(jit, "available", lambda there=there: there)
        for function in (lambda t: F.layer_norm(t, (9,)), lambda t: F.rms_norm(t, (9,)), lambda t: F.group_norm(t, 4),
                         lambda t: F.batch_norm(t, None, None, training=True)):  # fmt: skip
            t = cf.Tensor(x.copy()).requires_grad_()
            out = function(t)
            out.backward(cf.Tensor(g))
            results.append((out.array, t.grad.array))
        assert len(calls) == 4 * 2  # one pass each, forward and backward; none without
    for a, b in zip(results[:4], results[4:]):
        check(a, b)
