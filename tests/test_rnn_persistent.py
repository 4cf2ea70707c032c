"""The compiled recurrent loop against the NumPy engine and against float64, and its independence of threads."""
from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="the compiled loop needs llvmlite")

from cuframe.cpu import jit, rnn, rnn_persistent

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
SIZES = [(5, 32, 100), (2, 3, 7), (5, 40, 17), (0, 3, 7), (5, 0, 7), (2, 1, 1), (3, 33, 33), (4, 70, 256), (5, 17, 7)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(rnn_persistent, "_LEAST_BATCH", 1)
    monkeypatch.setattr(jit, "available", lambda: True)


def arguments(steps, batch, hidden, dtype=np.float32, bias=True, states=True, seed=0, cell="lstm", inputs=5):
    rng = np.random.default_rng(seed)
    rows = {"lstm": 4, "gru": 3}.get(cell, 1) * hidden

    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype)

    a = {"x": rng.standard_normal((steps, batch, inputs)).astype(dtype), "w_ih": draw(rows, inputs),
         "w_hh": draw(rows, hidden)}
    if bias:
        a.update(b_ih=draw(rows), b_hh=draw(rows))
    if states:
        a["h0"] = draw(batch, hidden)
        if cell == "lstm":
            a["c0"] = draw(batch, hidden)
    grads = [rng.standard_normal(s).astype(dtype) for s in ((steps, batch, hidden), (batch, hidden), (batch, hidden))]
    return a, grads if cell == "lstm" else [*grads[:2], None]


def run(a, grads, reverse=False, compiled=True, cell="lstm", lengths=None):
    y, h_n, c_n, saved = rnn.forward(cell, **a, reverse=reverse, lengths=lengths)
    assert (saved.compiled is not None) == (compiled and y.size > 0)
    return [y, h_n, c_n, *rnn.backward(saved, *grads)]


def widened(a, grads):
    return ({k: v.astype(np.float64) for k, v in a.items()},
            [None if g is None else g.astype(np.float64) for g in grads])


def assert_near(got, want, rtol=2e-6):
    assert len(got) == len(want)
    for name, g, w in zip(("y", "h_n", "c_n", *rnn.Grads._fields), got, want):
        assert (g is None) == (w is None), name
        if g is not None:
            scale = np.abs(w).max(initial=1)
            assert g.dtype == np.float32
            assert np.abs(g - w).max(initial=0) <= rtol * scale, name


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_equals_float64(cell, size, reverse):
    a, grads = arguments(*size, cell=cell)
    want = run(*widened(a, grads), reverse, compiled=False, cell=cell)
    assert_near(run(a, grads, reverse, cell=cell), want)


@pytest.mark.parametrize("inputs", [1, 37, 64])
def test_many_inputs_over_several_chunks(inputs):
    a, grads = arguments(19, 35, 13, inputs=inputs, cell="gru")
    assert_near(run(a, grads, cell="gru"), run(*widened(a, grads), compiled=False, cell="gru"))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [7, 40])
@pytest.mark.parametrize("cell", CELLS)
def test_lengths(cell, batch, reverse):
    a, grads = arguments(9, batch, 21, cell=cell)
    lengths = np.random.default_rng(1).integers(0, 8, batch)      # the last step has no sequence at all
    want = run(*widened(a, grads), reverse, compiled=False, cell=cell, lengths=lengths)
    assert_near(run(a, grads, reverse, cell=cell, lengths=lengths), want)


def test_padding_is_never_read():
    a, grads = arguments(6, 40, 9)
    lengths = np.arange(40) % 7
    want = run(a, grads, lengths=lengths)
    outside = np.arange(6)[:, None] >= lengths
    a["x"][outside] = grads[0][outside] = np.nan
    for g, w in zip(run(a, grads, lengths=lengths), want):
        assert np.array_equal(g, w) if w is not None else g is None


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_packed_rows(cell):
    a, grads = arguments(5, 8, 9, cell=cell)
    sizes = np.array([8, 8, 5, 2, 1])
    rows = np.arange(8) < sizes[:, None]
    a["x"], grads[0] = a["x"][rows], grads[0][rows]

    def packed(a, grads):
        y, h_n, c_n, saved = rnn.forward(cell, **a, batch_sizes=sizes)
        return saved.compiled, [y, h_n, c_n, *rnn.backward(saved, *grads)]

    (kept, got), (no, want) = packed(a, grads), packed(*widened(a, grads))
    assert kept is not None
    assert no is None
    assert_near(got, want)


@pytest.mark.parametrize("cell", CELLS)
def test_equals_numpy_engine(cell, monkeypatch):
    a, grads = arguments(20, 24, 48, cell=cell)
    got = run(a, grads, cell=cell)
    monkeypatch.setattr(jit, "available", lambda: False)
    assert_near(got, run(a, grads, compiled=False, cell=cell))


@pytest.mark.parametrize("cell", CELLS)
def test_only_some_gradients(cell):
    a, grads = arguments(4, 9, 11, cell=cell)
    _, _, _, saved = rnn.forward(cell, **a)
    full = rnn.backward(saved, *grads)
    for j, want in enumerate(full):
        needs = [i == j for i in range(8)]
        for i, got in enumerate(rnn.backward(saved, *grads, needs=needs)):
            assert got is None if i != j or want is None else np.array_equal(got, want), (i, j)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    a, grads = arguments(3, 8, 6)
    a, grads = {k: v.astype(dtype) for k, v in a.items()}, [g.astype(dtype) for g in grads]
    got, want = run(a, grads), run(*widened(a, grads), compiled=False)
    for g, w in zip(got, want):
        assert (g is None) == (w is None)
        if g is not None:
            assert g.dtype == dtype
            assert np.abs(g.astype(np.float64) - w).max() <= 2 * ml_dtypes.finfo(dtype).eps * max(1, np.abs(w).max())


@pytest.mark.parametrize("batch", [5, 13, 20])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_tiling_of_narrow_vectors(cell, batch, monkeypatch):
    monkeypatch.setattr(jit, "lanes", lambda: 8)
    rnn_persistent._tiling.cache_clear()
    try:
        test_equals_float64(cell, (3, batch, 19), False)
    finally:
        rnn_persistent._tiling.cache_clear()


def test_without_bias_or_states_and_with_unused_outputs():
    a, (gy, gh, gc) = arguments(4, 9, 11, bias=False, states=False)
    wide = {k: v.astype(np.float64) for k, v in a.items()}
    for grads in ((gy, None, None), (None, gh, None), (None, None, gc), (np.broadcast_to(gy[:1, :1], gy.shape),)):
        assert_near(run(a, grads), run(wide, grads, compiled=False))


def test_gradient_that_is_a_slice_of_a_wider_one():
    a, grads = arguments(4, 9, 11)
    wide = np.concatenate([grads[0], grads[0]], 2)
    for g, w in zip(run(a, [wide[:, :, 11:], *grads[1:]]), run(a, grads)):
        assert np.array_equal(g, w) if w is not None else g is None


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_result_does_not_depend_on_threads_or_runs(cell, reverse, monkeypatch):
    a, grads = arguments(30, 32, 40, cell=cell, inputs=30)
    results = []
    for threads in (1, 2, 3, 2):
        monkeypatch.setattr(jit, "cpus", lambda threads=threads: threads)
        monkeypatch.setattr(rnn_persistent, "_THREAD_WORK", 1)
        results.append(run(a, grads, reverse, cell=cell, lengths=np.arange(32) % 31))
    for other in results[1:]:
        assert all(np.array_equal(g, w) for g, w in zip(other, results[0]) if w is not None)


def test_callers_in_several_threads(monkeypatch):
    monkeypatch.setattr(jit, "cpus", lambda: 2)
    monkeypatch.setattr(rnn_persistent, "_THREAD_WORK", 1)
    a, grads = arguments(10, 32, 40)
    want, got = run(a, grads), []
    callers = [threading.Thread(target=lambda: got.append(run(a, grads))) for _ in range(4)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    assert len(got) == 4
    for other in got:
        assert all(np.array_equal(g, w) for g, w in zip(other, want) if w is not None)


@pytest.mark.parametrize("cell", CELLS)
def test_inference_equals_training_and_keeps_nothing(cell):
    a, _ = arguments(11, 6, 7, cell=cell)
    for reverse in (False, True):
        want, got = (rnn.forward(cell, **a, reverse=reverse, need_backward=need) for need in (True, False))
        assert got[3] is None
        assert all(np.array_equal(g, w) for g, w in zip(got[:3], want[:3]) if w is not None)


@pytest.mark.parametrize("cell", CELLS)
def test_extremes_saturate_and_nan_spreads(cell):
    a, _ = arguments(2, 7, 3, cell=cell)
    if cell != "rnn_relu":
        a["x"][:] = np.float32(1e30)
        assert all(np.isfinite(v).all() for v in rnn.forward(cell, **a)[:3] if v is not None)
    a["x"][0, 2] = np.nan
    y = rnn.forward(cell, **a)[0]
    assert np.isnan(y[:, 2]).all()
    assert np.isfinite(np.delete(y, 2, axis=1)).all()


def test_backward_twice_gives_the_same():
    a, grads = arguments(4, 9, 11)
    _, _, _, saved = rnn.forward("lstm", **a)
    first, second = (rnn.backward(saved, *grads) for _ in range(2))
    assert all(np.array_equal(f, s) for f, s in zip(first, second) if f is not None)


def test_environment_turns_it_off():
    code = "from cuframe.cpu import jit; print(jit.available())"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "CUFRAME_CPU_JIT": "0"}, text=True,
                         capture_output=True, check=True)
    assert run.stdout.split() == ["False"]
