"""The compiled formulas of a recurrent cell's step against NumPy in float64, and their independence of threads."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import cuframe as cf
from cuframe.cpu import jit, rnn_step, rnn_step_compiled
from cuframe.ops.rnn import CELLS

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

Arrays = list[np.ndarray | None]
NEEDS = (True,) * 7


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUFRAME_CPU_JIT says, and for small steps, too."""
    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(rnn_step_compiled, "_LEAST", 1)


def arrays(cell: str, rows: int, hidden: int, states: bool = True, bias: bool = True) -> Arrays:
    """x, h0, c0, w_ih, w_hh, b_ih, b_hh"""
    rng = np.random.default_rng(0)
    gates = rnn_step._GATES[cell] * hidden
    shapes = [(rows, 6), (rows, hidden), (rows, hidden), (gates, 6), (gates, hidden), (gates,), (gates,)]
    given = [True, states, states and cell == "lstm", True, True, bias, bias]
    return [rng.standard_normal(s, dtype=np.float32) if g else None for s, g in zip(shapes, given)]


def both_ways(cell: str, given: Arrays, which: tuple[bool, bool] = (True, True)) -> Arrays:
    """h, c and all gradients from given ones of h, of c, or of both."""
    h, c, saved = rnn_step.forward(cell, *given)
    rng = np.random.default_rng(1)
    gs = [rng.standard_normal(h.shape).astype(h.dtype) for _ in range(2)]
    gh, gc = (g if w else None for g, w in zip(gs, which))
    return [h, c, *rnn_step.backward(saved, gh, None if c is None else gc, NEEDS)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("states, bias, which", [(True, True, (True, True)), (False, False, (True, False)),
                                                 (True, False, (False, True))])
@pytest.mark.parametrize("rows, hidden", [(5, 37), (1, 16), (33, 3), (2, 70)])
def test_equals_numpy(cell: str, states: bool, bias: bool, which: tuple, rows: int, hidden: int) -> None:
    given = arrays(cell, rows, hidden, states, bias)
    wide = [None if a is None else a.astype(np.float64) for a in given]
    for mine, plain in zip(both_ways(cell, given, which), both_ways(cell, wide, which), strict=True):
        assert (mine is None) == (plain is None)
        if mine is not None:
            assert mine.dtype == np.float32
            np.testing.assert_allclose(mine, plain, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_threads_change_no_bit(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arrays(cell, 9, 75)
    monkeypatch.setattr(rnn_step_compiled, "_THREAD", 1)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(jit, "cpus", lambda n=threads: n)
        results.append(both_ways(cell, given))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_states_and_gradients_of_any_layout(cell: str) -> None:
    given = arrays(cell, 4, 20)
    turned = [None if a is None else np.asfortranarray(a) for a in given]
    h, c, saved = rnn_step.forward(cell, *turned)
    gh = np.asfortranarray(np.ones_like(h))
    got = [h, c, *rnn_step.backward(saved, gh, None if c is None else gh, NEEDS)]
    h, c, saved = rnn_step.forward(cell, *given)
    for a, b in zip(got, [h, c, *rnn_step.backward(saved, np.ones_like(h), None if c is None else gh, NEEDS)]):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_infinite_and_missing_numbers(cell: str) -> None:
    given = arrays(cell, 2, 16)
    given[5][0], given[5][1], given[5][2] = np.inf, -np.inf, np.nan
    wide = [None if a is None else a.astype(np.float64) for a in given]
    for mine, plain in zip(rnn_step.forward(cell, *given)[:2], rnn_step.forward(cell, *wide)[:2]):
        if mine is not None:
            np.testing.assert_allclose(mine, plain, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ("LSTMCell", "GRUCell", "RNNCell"))
def test_a_cell_is_one_node_and_may_be_changed_where_it_can(name: str) -> None:
    cell = getattr(cf.nn, name)(4, 16)
    x = cf.ones(3, 4, requires_grad=True)
    out = cell(x)
    h = out[0] if name == "LSTMCell" else out
    assert "RnnCell" in h.grad_fn.name()
    (h * 1.0).sum().backward()
    assert x.grad is not None and np.isfinite(x.grad.array).all()
    out = cell(x)
    h = out[0] if name == "LSTMCell" else out
    total = (h * 1.0).sum()
    with cf.no_grad():
        h.mul_(2)
    if name == "RNNCell":  # the slope of tanh is that of the result
        with pytest.raises(RuntimeError, match="rnn_cell"):
            total.backward()
    else:
        total.backward()
