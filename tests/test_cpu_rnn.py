"""Recurrent sequence kernels on the CPU, against a step-by-step float64 reference and, where installed, PyTorch."""
from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cuframe.cpu import rnn

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
NAMES = rnn.Grads._fields
LENGTHS = [3, 0, 7, 5, 7]
CASES = [(cell, proj) for cell in GATES for proj in ((0, 2) if cell == "lstm" else (0,))]


def sigmoid(p):
    return 0.5 * (1 + np.tanh(0.5 * p))


def reference(cell, a, lengths=None, reverse=False):
    """y, h_n, c_n by the textbook equations, one step after the other, with masks for the lengths."""
    x, w_ih, w_hh, b_ih, b_hh, w_hr, h, c = (a[k] for k in ("x", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "h0", "c0"))
    steps, batch = x.shape[:2]
    zero = np.zeros(len(w_hh))
    b_ih, b_hh = zero if b_ih is None else b_ih, zero if b_hh is None else b_hh
    h = np.zeros((batch, w_hh.shape[1])) if h is None else h
    c = np.zeros((batch, len(w_hh) // 4)) if c is None else c
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    y = np.zeros((steps, batch, w_hh.shape[1]))
    for t in reversed(range(steps)) if reverse else range(steps):
        p, q = x[t] @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        new_c = c
        if cell == "lstm":
            i, f, g, o = np.split(p + q, 4, axis=1)
            new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            new_h = sigmoid(o) * np.tanh(new_c)
            new_h = new_h if w_hr is None else new_h @ w_hr.T
        elif cell == "gru":
            (r, z, n), (hr, hz, hn) = np.split(p, 3, axis=1), np.split(q, 3, axis=1)
            r, z = sigmoid(r + hr), sigmoid(z + hz)
            n = np.tanh(n + r * hn)
            new_h = (1 - z) * n + z * h
        else:
            new_h = np.tanh(p + q) if cell == "rnn_tanh" else np.maximum(p + q, 0)
        valid = (t < lengths)[:, None]
        h, c, y[t] = np.where(valid, new_h, h), np.where(valid, new_c, c), np.where(valid, new_h, 0)
    return y, h, c if cell == "lstm" else None


def arguments(cell, steps=7, batch=5, features=3, hidden=4, proj=0, bias=True, states=True, dtype=np.float64,
              seed=0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    out = proj or hidden
    rows = GATES[cell] * hidden

    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(hidden)).astype(dtype)

    return {"x": draw(steps, batch, features), "w_ih": draw(rows, features), "w_hh": draw(rows, out),
            "b_ih": draw(rows) if bias else None, "b_hh": draw(rows) if bias else None,
            "w_hr": draw(proj, hidden) if proj else None, "h0": draw(batch, out) if states else None,
            "c0": draw(batch, hidden) if states and cell == "lstm" else None}


def upstream(y, h_n, c_n, seed=1):
    rng = np.random.default_rng(seed)
    return [None if a is None else rng.standard_normal(a.shape).astype(a.dtype) for a in (y, h_n, c_n)]


def loss(outputs, weights):
    return sum(float((a * g).sum()) for a, g in zip(outputs, weights) if a is not None)


def masked(g, lengths):
    return g if lengths is None else g * (np.arange(len(g))[:, None] < np.asarray(lengths))[:, :, None]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cell,proj", CASES)
class TestAgainstReference:
    def test_forward(self, cell, proj, reverse, lengths):
        for bias, states in ((True, True), (False, False)):
            a = arguments(cell, proj=proj, bias=bias, states=states)
            got = rnn.forward(cell, **a, lengths=lengths, reverse=reverse)
            for mine, want in zip(got, reference(cell, a, lengths, reverse)):
                np.testing.assert_allclose(mine, want, rtol=0, atol=1e-14) if want is not None else None
            assert (got[2] is None) == (cell != "lstm")
            light = rnn.forward(cell, **a, lengths=lengths, reverse=reverse, need_backward=False)
            assert light[3] is None
            for mine, want in zip(light[:2], got[:2]):
                np.testing.assert_array_equal(mine, want)

    def test_every_gradient_is_the_slope_of_the_loss(self, cell, proj, reverse, lengths):
        a = arguments(cell, proj=proj)
        *outputs, saved = rnn.forward(cell, **a, lengths=lengths, reverse=reverse)
        up = upstream(*outputs)
        grads = rnn.backward(saved, *up)
        rng, eps = np.random.default_rng(2), 1e-6
        for name in NAMES:
            g = getattr(grads, name)
            if a[name] is None:
                assert g is None
                continue
            assert g.shape == a[name].shape and g.dtype == a[name].dtype
            direction = rng.standard_normal(g.shape)
            up_, down = ({**a, name: a[name] + s * eps * direction} for s in (1, -1))
            slope = (loss(reference(cell, up_, lengths, reverse), up)
                     - loss(reference(cell, down, lengths, reverse), up)) / (2 * eps)
            assert (g * direction).sum() == pytest.approx(slope, rel=1e-7, abs=1e-8), name
        if lengths is not None:
            assert not grads.x[:, np.array(LENGTHS) == 0].any()
            np.testing.assert_array_equal(grads.x, masked(grads.x, lengths))

    def test_parts_of_the_upstream_gradient_add_up(self, cell, proj, reverse, lengths):
        a = arguments(cell, proj=proj)
        *outputs, saved = rnn.forward(cell, **a, lengths=lengths, reverse=reverse)
        gy, gh, gc = upstream(*outputs)
        whole = rnn.backward(saved, gy, gh, gc)
        parts = [rnn.backward(saved, gy), rnn.backward(saved, None, gh), rnn.backward(saved, None, None, gc)]
        for name, g in zip(NAMES, whole):
            if g is not None:
                np.testing.assert_allclose(sum(getattr(p, name) for p in parts), g, rtol=0, atol=1e-13)

    def test_short_spans_give_the_same(self, cell, proj, reverse, lengths, monkeypatch):
        a = arguments(cell, proj=proj)
        *outputs, saved = rnn.forward(cell, **a, lengths=lengths, reverse=reverse)
        up = upstream(*outputs)
        grads = rnn.backward(saved, *up)
        monkeypatch.setattr(rnn, "_SPAN_BYTES", 1)
        *again, saved = rnn.forward(cell, **a, lengths=lengths, reverse=reverse)
        assert {span.steps for span in saved.spans} == {1}
        for mine, want in zip([*again, *rnn.backward(saved, *up)], [*outputs, *grads]):
            np.testing.assert_allclose(mine, want, rtol=0, atol=1e-13) if want is not None else None

    def test_packed_rows_equal_lengths(self, cell, proj, reverse, lengths):
        a = arguments(cell, proj=proj)
        sizes = [5] * 7 if lengths is None else [4, 4, 4, 3, 3, 2, 2]
        order = np.arange(5) if lengths is None else np.array([2, 4, 3, 0, 1])
        valid = np.arange(7)[:, None] < (np.full(5, 7) if lengths is None else np.array(lengths)[order])
        *outputs, saved = rnn.forward(cell, **a, lengths=lengths, reverse=reverse)
        up = upstream(*outputs)
        grads = rnn.backward(saved, *up)
        packed = {**a, "x": a["x"][:, order][valid], "h0": a["h0"][order],
                  "c0": None if a["c0"] is None else a["c0"][order]}
        y, h_n, c_n, saved = rnn.forward(cell, **packed, batch_sizes=sizes, reverse=reverse)
        np.testing.assert_allclose(y, outputs[0][:, order][valid], rtol=0, atol=1e-14)
        np.testing.assert_allclose(h_n, outputs[1][order], rtol=0, atol=1e-14)
        mine = rnn.backward(saved, up[0][:, order][valid], up[1][order], None if up[2] is None else up[2][order])
        np.testing.assert_allclose(mine.x, grads.x[:, order][valid], rtol=0, atol=1e-13)
        np.testing.assert_allclose(mine.h0, grads.h0[order], rtol=0, atol=1e-13)
        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            np.testing.assert_allclose(getattr(mine, name), getattr(grads, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", [[3, 0, 1, 5, 5], [0, 0, 0, 0, 1], [6, 6, 6, 6, 6]], ids=str)
def test_steps_that_no_sequence_reaches(lengths, reverse):
    a = arguments("lstm")
    *got, saved = rnn.forward("lstm", **a, lengths=lengths, reverse=reverse)
    up = upstream(*got)
    cut = {**a, "x": a["x"][:max(lengths)]}
    *_, shorter = rnn.forward("lstm", **cut, lengths=lengths, reverse=reverse)
    for mine, want in zip(got, reference("lstm", a, lengths, reverse)):
        np.testing.assert_allclose(mine, want, rtol=0, atol=1e-14)
    grads, wanted = rnn.backward(saved, *up), rnn.backward(shorter, up[0][:max(lengths)], *up[1:])
    assert not grads.x[max(lengths):].any()
    for name in ("h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh"):
        np.testing.assert_allclose(getattr(grads, name), getattr(wanted, name), rtol=0, atol=1e-13)


@pytest.mark.parametrize("cell", GATES)
class TestEveryCell:
    @pytest.mark.parametrize("dtype,tolerance", [(np.float32, 2e-6), (np.float16, 4e-3), (ml_dtypes.bfloat16, 3e-2)])
    def test_lower_precision(self, cell, dtype, tolerance):
        a = arguments(cell, 20, 6, 5, 33, dtype=dtype)
        exact = {k: None if v is None else v.astype(np.float64) for k, v in a.items()}
        *outputs, saved = rnn.forward(cell, **a)
        up = upstream(*outputs)
        grads = rnn.backward(saved, *up)
        *wanted, saved = rnn.forward(cell, **exact)
        wanted += rnn.backward(saved, *(None if g is None else g.astype(np.float64) for g in up))
        for mine, want in zip([*outputs, *grads], wanted):
            if want is not None:
                assert mine.dtype == dtype
                scale = np.abs(want).max()
                np.testing.assert_allclose(mine.astype(np.float64) / scale, want / scale, rtol=0, atol=tolerance)

    @pytest.mark.parametrize(
        "steps,batch,lengths", [(0, 3, None), (3, 0, None), (0, 0, None), (3, 2, [0, 0]), (0, 2, [0, 0])])
    def test_nothing_to_run(self, cell, steps, batch, lengths):
        a = arguments(cell, steps, batch)
        y, h_n, c_n, saved = rnn.forward(cell, **a, lengths=lengths)
        assert y.shape == (steps, batch, 4) and not y.any()
        np.testing.assert_array_equal(h_n, a["h0"])
        np.testing.assert_array_equal(c_n, a["c0"])
        gy, gh, gc = upstream(y, h_n, c_n)
        grads = rnn.backward(saved, gy, gh, gc)
        np.testing.assert_array_equal(grads.h0, gh)
        np.testing.assert_array_equal(grads.c0, gc)
        for name in ("x", "w_ih", "w_hh", "b_ih", "b_hh"):
            assert getattr(grads, name).shape == a[name].shape and not getattr(grads, name).any()

    def test_huge_and_tiny_inputs_raise_no_floating_point_error(self, cell):
        a = arguments(cell, dtype=np.float32)
        for scale in (1e-30, 1e4):
            with np.errstate(all="raise", under="ignore"):
                *outputs, saved = rnn.forward(cell, **{**a, "x": a["x"] * np.float32(scale)})
                grads = rnn.backward(saved, *upstream(*outputs))
            assert all(np.isfinite(g).all() for g in (*outputs, *grads) if g is not None)

    def test_bits_are_the_same_every_time_and_saved_is_only_read(self, cell):
        a = arguments(cell, 30, 8, 16, 32, dtype=np.float32)
        first = rnn.forward(cell, **a)
        second = rnn.forward(cell, **a)
        up = upstream(*first[:3])
        runs = [rnn.backward(first[3], *up), rnn.backward(first[3], *up), rnn.backward(second[3], *up)]
        for g, *others in zip(*runs):
            for other in others:
                np.testing.assert_array_equal(g, other)
        assert all(np.array_equal(p, q) for p, q in zip(first[:3], second[:3]) if p is not None)

    def test_inputs_are_left_alone(self, cell):
        a = arguments(cell)
        before = {k: None if v is None else v.copy() for k, v in a.items()}
        *outputs, saved = rnn.forward(cell, **a, lengths=LENGTHS)
        up = upstream(*outputs)
        kept = [None if g is None else g.copy() for g in up]
        rnn.backward(saved, *up)
        for mine, want in zip([*a.values(), *up], [*before.values(), *kept]):
            np.testing.assert_array_equal(mine, want)

    def test_non_contiguous_inputs(self, cell):
        a = arguments(cell)
        *wanted, saved = rnn.forward(cell, **a)
        up = upstream(*wanted)
        wanted += rnn.backward(saved, *up)

        def strided(v):
            return None if v is None else np.repeat(v, 2, axis=-1)[..., ::2].swapaxes(0, -1).copy().swapaxes(0, -1)

        *got, saved = rnn.forward(cell, **{k: strided(v) for k, v in a.items()})
        got += rnn.backward(saved, *(strided(g) for g in up))
        for mine, want in zip(got, wanted):
            np.testing.assert_allclose(mine, want, rtol=0, atol=1e-13) if want is not None else None

    def test_padding_of_the_upstream_gradient_is_ignored(self, cell):
        a = arguments(cell)
        *outputs, saved = rnn.forward(cell, **a, lengths=LENGTHS)
        gy, gh, gc = upstream(*outputs)
        garbage = np.where(masked(np.ones_like(gy), LENGTHS) > 0, gy, np.nan)
        for mine, want in zip(rnn.backward(saved, garbage, gh, gc), rnn.backward(saved, gy, gh, gc)):
            np.testing.assert_array_equal(mine, want)

    def test_only_what_is_needed(self, cell):
        *outputs, saved = rnn.forward(cell, **arguments(cell))
        up = upstream(*outputs)
        whole = rnn.backward(saved, *up)
        for j, name in enumerate(NAMES):
            only = rnn.backward(saved, *up, needs=[k == j for k in range(8)])
            np.testing.assert_array_equal(getattr(only, name), getattr(whole, name))
            assert all(g is None for k, g in enumerate(only) if k != j)

    def test_one_bias_without_the_other(self, cell):
        for missing in ("b_ih", "b_hh"):
            a = {**arguments(cell), missing: None}
            *outputs, saved = rnn.forward(cell, **a)
            np.testing.assert_allclose(outputs[0], reference(cell, a)[0], rtol=0, atol=1e-14)
            grads = rnn.backward(saved, outputs[0])
            assert [getattr(grads, k) is None for k in ("b_ih", "b_hh")] == [missing == "b_ih", missing == "b_hh"]

    def test_memory_held_for_backward_is_as_documented(self, cell):
        saved = rnn.forward(cell, **arguments(cell, 50, 3, 2, 16))[3]
        states = 3 * 16 * (1 + (len(saved.spans) if cell == "lstm" else 0))
        assert saved.nbytes == 8 * (50 * 3 * 16 * {"lstm": 6, "gru": 5}.get(cell, 1) + states)

    def test_ten_thousand_steps(self, cell):
        a = arguments(cell, 10_000, 1, 2, 4)
        a["w_hh"] *= 0.5
        *outputs, saved = rnn.forward(cell, **a)
        for mine, want in zip(outputs, reference(cell, a)):
            np.testing.assert_allclose(mine, want, rtol=0, atol=1e-13) if want is not None else None
        assert np.isfinite(rnn.backward(saved, *upstream(*outputs)).w_hh).all()


F32 = np.float32
BAD = [
    ("peephole", {}, "rnn: cell must be one of lstm, gru, rnn_tanh, rnn_relu, got 'peephole'"),
    ("lstm", {"x": np.zeros((7, 5, 9))}, "lstm: w_ih must be (16, 9), got (16, 3)"),
    ("lstm", {"x": np.zeros((7, 3))}, "lstm: x must be (T, N, I), got (7, 3)"),
    ("gru", {"x": np.zeros((7, 5, 3), int)}, "gru: x must be float16, bfloat16, float32 or float64, got int64"),
    ("gru", {"w_hh": np.zeros((13, 4))}, "gru: w_hh must be (3*H, H or P), got (13, 4)"),
    ("gru", {"w_hh": np.zeros((12, 5))}, "gru: w_hh must be (12, 4), got (12, 5)"),
    ("lstm", {"w_hr": np.zeros((3, 4))}, "lstm: w_hr must be (4, 4), got (3, 4)"),
    ("gru", {"w_hr": np.zeros((2, 4))}, "gru: w_hr must be None, only lstm has one"),
    ("rnn_tanh", {"c0": np.zeros((5, 4))}, "rnn_tanh: c0 must be None, only lstm has one"),
    ("lstm", {"b_ih": np.zeros(4)}, "lstm: b_ih must be (16,), got (4,)"),
    ("lstm", {"b_hh": np.zeros(16, F32)}, "lstm: b_hh must be float64 like x, got float32"),
    ("lstm", {"h0": np.zeros((4, 4))}, "lstm: h0 must be (5, 4), got (4, 4)"),
    ("lstm", {"c0": np.zeros((5, 3))}, "lstm: c0 must be (5, 4), got (5, 3)"),
    ("rnn_relu", {"lengths": [1, 2, 3]}, "rnn_relu: lengths must be (5,) integers, got (3,) int64"),
    ("rnn_relu", {"lengths": [1.0] * 5}, "rnn_relu: lengths must be (5,) integers, got (5,) float64"),
    ("rnn_relu", {"lengths": [0, 8, 1, 1, 1]}, "rnn_relu: lengths must be between 0 and 7, got 0 to 8"),
    ("rnn_relu", {"lengths": [-1, 7, 1, 1, 1]}, "rnn_relu: lengths must be between 0 and 7, got -1 to 7"),
    ("gru", {"batch_sizes": [5, 2]}, "gru: x must be (rows, I) with batch_sizes, got (7, 5, 3)"),
    ("gru", {"x": np.zeros((7, 3)), "batch_sizes": [3, 5]},
     "gru: batch_sizes must be positive and not increase, got [3, 5]"),
    ("gru", {"x": np.zeros((7, 3)), "batch_sizes": [5, 1]}, "gru: batch_sizes must add up to the 7 rows of x, got 6"),
    ("gru", {"x": np.zeros((7, 3)), "batch_sizes": [7]}, "gru: initial states must be for 7 sequences, got 5"),
]


@pytest.mark.parametrize("cell,change,message", BAD, ids=[b[2][:40] for b in BAD])
def test_bad_arguments(cell, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        rnn.forward(cell, **{**arguments(cell if cell in GATES else "lstm"), **change})


@pytest.mark.parity
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("cell,proj", CASES)
def test_parity_with_torch(cell, proj, packed, reverse):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    kind, extra = {"lstm": (torch.nn.LSTM, {"proj_size": proj}), "gru": (torch.nn.GRU, {}),
                   "rnn_tanh": (torch.nn.RNN, {}), "rnn_relu": (torch.nn.RNN, {"nonlinearity": "relu"})}[cell]
    torch.manual_seed(0)
    module = kind(3, 8, bidirectional=True, dtype=torch.float64, **extra)
    names = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr")
    weights = dict(zip(names, (p.detach().numpy() for p in module.all_weights[int(reverse)])))
    lengths = LENGTHS.copy() if packed else [7] * 5
    lengths[1] = max(lengths[1], 1)                     # torch cannot pack an empty sequence
    a = arguments(cell, hidden=8, proj=proj)
    out = proj or 8
    x = torch.tensor(a["x"], requires_grad=True)
    states = [torch.tensor(np.stack([a[k], a[k]]), requires_grad=True) for k in ("h0", "c0") if a[k] is not None]
    given = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = module(given, tuple(states) if cell == "lstm" else states[0])
    y = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=7)[0][:, :, reverse * out:(reverse + 1) * out]
    last = [s[int(reverse)] for s in (last if cell == "lstm" else [last])]

    *outputs, saved = rnn.forward(cell, a["x"], **weights, h0=a["h0"], c0=a["c0"], lengths=lengths, reverse=reverse)
    up = upstream(*outputs)
    sum((s * torch.tensor(g)).sum() for s, g in zip([y, *last], up)).backward()
    grads = rnn.backward(saved, *up)
    wanted = {"x": x.grad, **{k: p.grad for k, p in zip(names, module.all_weights[int(reverse)])},
              **{k: s.grad[int(reverse)] for k, s in zip(("h0", "c0"), states)}}
    for mine, want in zip(outputs, [y, *last]):
        np.testing.assert_allclose(mine, want.detach().numpy(), rtol=0, atol=1e-14)
    for name, want in wanted.items():
        np.testing.assert_allclose(getattr(grads, name), want.numpy(), rtol=0, atol=1e-12, err_msg=name)
