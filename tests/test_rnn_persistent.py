"""The compiled LSTM loop against the NumPy engine and against float64, and its independence of threads."""
from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="the compiled LSTM needs llvmlite")

from cuframe.cpu import jit, rnn, rnn_persistent

SIZES = [(5, 32, 100), (1, 3, 7), (5, 40, 17), (0, 3, 7), (5, 0, 7), (2, 1, 1), (3, 33, 33), (4, 70, 256), (5, 17, 7)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(rnn_persistent, "_LEAST_BATCH", 1)
    monkeypatch.setattr(jit, "available", lambda: True)


def arguments(steps, batch, hidden, dtype=np.float32, bias=True, states=True, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype)

    a = {"x": rng.standard_normal((steps, batch, 5)).astype(dtype), "w_ih": draw(4 * hidden, 5),
         "w_hh": draw(4 * hidden, hidden)}
    if bias:
        a.update(b_ih=draw(4 * hidden), b_hh=draw(4 * hidden))
    if states:
        a.update(h0=draw(batch, hidden), c0=draw(batch, hidden))
    grads = [rng.standard_normal(s).astype(dtype) for s in ((steps, batch, hidden), (batch, hidden), (batch, hidden))]
    return a, grads


def run(a, grads, reverse=False, compiled=True):
    y, h_n, c_n, saved = rnn.forward("lstm", **a, reverse=reverse)
    assert (saved.compiled is not None) == (compiled and y.size > 0)
    return [y, h_n, c_n, *rnn.backward(saved, *grads)]


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
def test_equals_float64(size, reverse):
    a, grads = arguments(*size)
    wide = {k: v.astype(np.float64) for k, v in a.items()}
    want = run(wide, [g.astype(np.float64) for g in grads], reverse, compiled=False)
    assert_near(run(a, grads, reverse), want)


def test_equals_numpy_engine(monkeypatch):
    a, grads = arguments(20, 24, 48)
    got = run(a, grads)
    monkeypatch.setattr(jit, "available", lambda: False)
    assert_near(got, run(a, grads, compiled=False))


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("batch", [5, 13, 20, 33])
def test_every_tiling(lanes, batch, monkeypatch):
    monkeypatch.setattr(jit, "lanes", lambda: lanes)
    rnn_persistent._tiling.cache_clear()
    try:
        test_equals_float64((3, batch, 19), False)
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
def test_result_does_not_depend_on_threads_or_runs(reverse, monkeypatch):
    a, grads = arguments(30, 32, 40)
    results = []
    for threads in (1, 2, 3, 2):
        monkeypatch.setattr(jit, "cpus", lambda threads=threads: threads)
        monkeypatch.setattr(rnn_persistent, "_THREAD_WORK", 1)
        results.append(run(a, grads, reverse))
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


def test_inference_in_chunks_equals_one_run(monkeypatch):
    a, _ = arguments(11, 6, 7)
    for reverse in (False, True):
        want = rnn.forward("lstm", **a, reverse=reverse)[:3]
        with monkeypatch.context() as m:
            m.setattr(rnn, "_CHUNK_BYTES", 4 * 28 * 6 * 4)
            got = rnn.forward("lstm", **a, reverse=reverse, need_backward=False)[:3]
        assert_near(got + (None,) * 8, want + (None,) * 8, rtol=1e-6)


def test_extremes_saturate_and_nan_spreads():
    a, _ = arguments(2, 7, 3)
    a["x"][:] = np.float32(1e30)
    assert all(np.isfinite(v).all() for v in rnn.forward("lstm", **a)[:3])
    a["x"][0, 2] = np.nan
    y = rnn.forward("lstm", **a)[0]
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_after_fork():
    code = """
import os, numpy as np
from cuframe.cpu import jit
seen = []
jit.parallel(lambda i, n: seen.append(i), 2)
pid = os.fork()
if pid == 0:
    jit.parallel(lambda i, n: seen.append(i), 2)
    os._exit(0 if sorted(seen) == [0, 0, 1, 1] else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
