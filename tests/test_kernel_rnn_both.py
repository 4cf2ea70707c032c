"""Both directions of a layer in one launch, gates made again in backward, TF32: against float64 and other ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.cuda import sim, tuned
from cuframe.cuda.persistent import GPUS, persistent_plan
from cuframe.gpu import _rnn_persistent as persistent
from cuframe.gpu import rnn, rnn_both
from tests.kernels import FLOATS, Array, exchanges_of, fetch, numbers, put, untuned  # noqa: F401
from tests.test_kernel_rnn_persistent import CELLS, UNIT, Case, off, small_blocks

KINDS = ("lstm", "gru", "rnn_tanh")


class Both:
    """A layer of two directions, and its results by the ways there are."""

    def __init__(self, cell: str, t: int, n: int, h: int, dtype: str, device: str, lengths: Any = None,
                 bias: bool = True, states: bool = True) -> None:
        g, has_c = CELLS[cell] * h, cell == "lstm"

        def make(*shape: int, seed: int, high: float = 1.0) -> Any:
            return put(numbers(*shape, dtype=dtype, seed=seed, low=-high, high=high), device)

        self.cell, self.lengths = cell, None if lengths is None else np.array(lengths)
        self.x = make(t, n, 3, seed=1)
        self.weights = [(make(g, 3, seed=2 + s), make(g, h, seed=3 + s, high=1.5 / np.sqrt(h)),
                         *(make(g, seed=q + s) if bias else None for q in (4, 5))) for s in (0, 10)]
        self.h0 = make(2, n, h, seed=7) if states else None
        self.c0 = make(2, n, h, seed=8) if states and has_c else None
        self.grads = [make(t, n, 2 * h, seed=9), make(2, n, h, seed=30), make(2, n, h, seed=31) if has_c else None]
        self.h = h

    def together(self, **how: Any) -> tuple[list[Array], Any]:
        *out, saved = rnn_both.forward(self.cell, self.x, *self.weights, self.h0, self.c0, lengths=self.lengths, **how)
        if saved is None:
            return [fetch(a) for a in out if a is not None], None
        return [fetch(a) for a in (*out, *rnn_both.backward(saved, *self.grads)) if a is not None], saved

    def apart(self, dtype: Any = None, **how: Any) -> list[Array]:
        """Each direction by itself; in `dtype` on the host."""
        from cuframe.cpu import rnn as host

        engine = rnn if dtype is None else host
        cast = (lambda a: a) if dtype is None else (lambda a: None if a is None else fetch(a).astype(dtype))
        outs, grads = [], []
        for d, w in enumerate(self.weights):
            side = [None if a is None else cast(a[d]) for a in (self.h0, self.c0)]
            *out, saved = engine.forward(self.cell, cast(self.x), *map(cast, w), None, *side, lengths=self.lengths,
                                         reverse=d == 1, **how)
            given = [cast(self.grads[0][:, :, d * self.h:(d + 1) * self.h]),
                     *(None if g is None else cast(g[d]) for g in self.grads[1:])]
            outs.append([None if a is None else fetch(a) if dtype is None else a for a in out])
            got = engine.backward(saved, *given)[:7]
            grads.append([None if a is None else fetch(a) if dtype is None else a for a in got])
        (y, *s), (y2, *s2) = outs
        (x, h, c, *w), (x2, h2, c2, *w2) = grads
        pairs = [np.stack(p) for p in (*zip(s, s2), (h, h2), (c, c2)) if p[0] is not None]
        k = len(pairs) // 2
        return [np.concatenate([y, y2], -1), *pairs[:k], x + x2, *pairs[k:], *(a for a in (*w, *w2) if a is not None)]


def check(both: Both, dtype: str, **how: Any) -> None:
    want = both.apart(np.float64)
    got, _ = both.together(**how)
    assert [g.shape for g in got] == [w.shape for w in want]
    limit = max(3 * off(both.apart(engine="steps"), want), UNIT[dtype] / 2)
    assert off(got, want) <= limit


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cell", KINDS)
def test_two_directions_in_one_launch(cell: str, dtype: str, device: str) -> None:
    for exchange in exchanges_of(device):
        check(Both(cell, 5, 5, 33, dtype, device), dtype, exchange=exchange)
        check(Both(cell, 5, 5, 20, dtype, device, lengths=[2, 0, 4, 4, 1]), dtype, exchange=exchange)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("hidden", [1, 7, 32, 100, 128, 200])
@pytest.mark.parametrize("cell", KINDS)
def test_all_sizes_of_two_directions(cell: str, hidden: int, dtype: str, device: str,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    if dtype == "float64":
        hidden = min(hidden, 100)
    monkeypatch.setenv("CUFRAME_SIM_SMS", "8")
    monkeypatch.setattr(persistent, "plan_of", small_blocks)
    for lengths in (None, [3, 4, 0, 1, 2]):
        check(Both(cell, 4, 5, hidden, dtype, device, lengths), dtype, exchange=exchanges_of(device)[hidden % 3 - 1])


def test_two_directions_of_many_blocks_are_the_same_bits_in_every_order(device: str,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "plan_of", small_blocks)
    both = Both("lstm", 4, 6, 40, "float32", device, lengths=[4, 3, 0, 2, 4, 1])
    first, saved = both.together(exchange="barrier")
    assert saved.plan.blocks > 3 and saved.plan.directions == 2
    for order in ("reverse", "random:1", "ahead:2"):
        for exchange in exchanges_of(device):
            with sim.order(order):
                got, _ = both.together(exchange=exchange)
            assert all(np.array_equal(a, b) for a, b in zip(got, first)), (order, exchange)


@pytest.mark.parametrize("lengths", [None, [3, 0, 1]])
@pytest.mark.parametrize("cell", KINDS)
def test_two_directions_without_backward_bias_and_states(cell: str, lengths: Any, device: str) -> None:
    both = Both(cell, 4, 3, 9, "float64", device, lengths, bias=False, states=False)
    want = both.apart(np.float64)
    got, saved = both.together(need_backward=False)
    assert saved is None
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, atol=1e-12)
    for a, b in zip(both.together()[0], want):
        np.testing.assert_allclose(a, b, atol=1e-11)


def test_two_directions_only_some_gradients(device: str) -> None:
    both = Both("gru", 3, 2, 5, "float64", device)
    *_, saved = rnn_both.forward("gru", both.x, *both.weights, both.h0)
    full = rnn_both.backward(saved, *both.grads)
    for j, want in enumerate(full):
        *_, saved = rnn_both.forward("gru", both.x, *both.weights, both.h0)
        for i, got in enumerate(rnn_both.backward(saved, *both.grads, needs=[i == j for i in range(11)])):
            assert (got is None) == (i != j or want is None)
            if got is not None:
                np.testing.assert_array_equal(fetch(got), fetch(want))


def test_layers_of_two_directions(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    true = persistent.run_forward

    def counted(cell: str, plan: Any, *rest: Any) -> None:
        calls.append(plan.directions)
        true(cell, plan, *rest)

    monkeypatch.setattr(persistent, "run_forward", counted)
    layer = cf.nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True).double()
    x = cf.randn(2, 8, 3, dtype="float64", requires_grad=True)
    hx = cf.randn(4, 2, 4, dtype="float64")
    there = cf.nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True).double().to(device)
    there.load_state_dict(layer.state_dict())
    z = x.detach().to(device).requires_grad_()
    for limit, launches in ((None, [2, 2]), ("fits", [1, 1, 1, 1])):
        if limit:
            monkeypatch.setattr(rnn_both, "fits", lambda *a: False)
        calls.clear()
        results = []
        for model, given, start in ((layer, x, hx), (there, z, hx.to(device))):
            model.zero_grad()
            given.grad = None
            y, h = model(given, start, lengths=[8, 5])
            ((y * y).sum() + (h * h * h).sum()).backward()
            found = (y, h, given.grad, *(p.grad for p in model.parameters()))
            results.append([a.detach().cpu().numpy() for a in found])
        assert calls == launches
        for a, b in zip(*results):
            np.testing.assert_allclose(a, b, atol=1e-11)


def test_second_derivatives_of_two_directions(device: str) -> None:
    layer = cf.nn.LSTM(2, 2, bidirectional=True).double().to(device)
    x = cf.randn(8, 1, 2, dtype="float64").to(device).requires_grad_()
    assert cf.autograd.gradgradcheck(lambda x: layer(x)[0].sum(-1), (x,))


def test_limits_of_two_directions() -> None:
    limit = cf.cuda.persistent_limits
    for gpu in ("T4", "A100", "H200"):
        one, two = (limit(gpu, "lstm", "float16", d) for d in (1, 2))
        assert 0 < two < one
        plan = persistent_plan(GPUS[gpu], "lstm", "float16", two, 16, directions=2)
        assert plan is not None and 2 * plan.blocks <= GPUS[gpu].multiprocessors
        assert persistent_plan(GPUS[gpu], "lstm", "float16", two + 1, 1, directions=2) is None
    with pytest.raises(ValueError, match="directions must be 1 or 2, got 3"):
        limit("H200", "lstm", "float16", 3)


# -- gates that are made again ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cell", [*KINDS, "rnn_relu"])
@pytest.mark.parametrize("engine", ["persistent", "steps"])
def test_recompute(engine: str, cell: str, dtype: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rnn, "_AGAIN_BYTES", 2000)  # several pieces
    case = Case(cell, 5, 4, 21, dtype, device, lengths=np.array([5, 0, 3, 2]), reverse=cell == "gru",
                firm=cell == "rnn_relu")
    want = case.expected()[1]
    saved = [case.forward(engine, recompute=again)[3] for again in (False, True)]
    kept, again = ([fetch(a) for a in case.backward(s)] for s in saved)
    assert off(again, want) <= max(3 * off(kept, want), UNIT[dtype] / 2)
    assert cell.startswith("rnn") or saved[1].kept is None and saved[1].nbytes < 0.6 * saved[0].nbytes


@pytest.mark.parametrize("cell", KINDS)
def test_recompute_of_two_directions(cell: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rnn, "_AGAIN_BYTES", 2000)
    for lengths in (None, [5, 0, 3, 2]):
        check(Both(cell, 5, 4, 12, "float32", device, lengths), "float32", recompute=True)


def test_recompute_of_packed_rows_and_projections(device: str) -> None:
    kept, again = (cf.nn.LSTM(3, 6, proj_size=2, recompute=r).double().to(device) for r in (False, True))
    again.load_state_dict(kept.state_dict())
    packed = cf.nn.utils.rnn.pack_sequence([cf.randn(n, 3, dtype="float64").to(device) for n in (4, 2, 1)])
    for model in (kept, again):
        y, (h, c) = model(packed)
        ((y.data * y.data).sum() + h.sum() + c.sum()).backward()
    for a, b in zip(kept.parameters(), again.parameters()):
        np.testing.assert_allclose(a.grad.cpu().numpy(), b.grad.cpu().numpy(), atol=1e-13)


@pytest.mark.parametrize("dtype, size", [("float32", 4), ("float16", 2)])
@pytest.mark.parametrize("cell, kept, again", [("lstm", 5, 1), ("gru", 5, 1), ("rnn_tanh", 1, 1)])
def test_bytes_kept(cell: str, kept: int, again: int, dtype: str, size: int, device: str) -> None:
    """As documented: so many numbers a unit and step, an LSTM's c in fp32 besides, and the initial states."""
    t, n, h = 16, 2, 8
    for numbers_kept, recompute in ((kept, False), (again, True)):
        case = Case(cell, t, n, h, dtype, device)
        saved = case.forward("persistent", recompute=recompute)[3]
        each = numbers_kept * size + (4 if cell == "lstm" else 0)
        states = size + (4 if cell == "lstm" else 0)
        assert saved.nbytes == n * h * (t * each + states)


def test_recompute_is_a_bool_and_shown() -> None:
    assert "recompute=True" in repr(cf.nn.GRU(2, 3, recompute=True))
    with pytest.raises(TypeError, match="LSTM: recompute must be a bool, got int"):
        cf.nn.LSTM(2, 3, recompute=1)  # type: ignore[arg-type]
    a, b = (cf.nn.GRU(2, 3, recompute=r) for r in (True, False))
    b.load_state_dict(a.state_dict())
    x = cf.randn(4, 1, 2)
    assert np.array_equal(a(x)[0].detach().numpy(), b(x)[0].detach().numpy())  # the CPU: no effect


# -- TF32 ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def tf32() -> Any:
    cf.cuda.set_allow_tf32(True)
    yield
    cf.cuda.set_allow_tf32(False)


@pytest.mark.parametrize("exchange", tuned.EXCHANGES)
@pytest.mark.parametrize("cell", KINDS)
def test_tf32(cell: str, exchange: str, device: str, tf32: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if exchange not in exchanges_of(device):
        pytest.skip("clusters are of sm_90")
    for hidden, batch in ((33, 5), (40, 17)):
        case = Case(cell, 4, batch, hidden, "float32", device)
        want = case.expected()
        assert case.forward("persistent")[3].plan.tf32
        got = case.results("persistent", exchange)
        cf.cuda.set_allow_tf32(False)
        exact = case.results("persistent", exchange)
        cf.cuda.set_allow_tf32(True)
        for a, b, w in zip(got, exact, want):
            # operands are rounded to 2^-12 of their size, and nothing else is; and they are rounded
            assert 4 * off(b, w) < off(a, w) < 2.0**-10
        monkeypatch.setattr(persistent, "plan_of", small_blocks)


def test_tf32_of_numbers_that_it_holds_is_exact(device: str, tf32: None) -> None:
    case = Case("rnn_relu", 3, 9, 30, "float32", device, bias=False)
    for i in (0, 1, 2, 6):  # small integers: sums stay below 2^11
        case.given[i] = np.sign(case.given[i]).astype(np.float32)
    case.given[2] *= np.random.default_rng(0).random(case.given[2].shape) < 0.1
    got, want = case.results("persistent"), case.expected()
    for a, b in zip(got[0], want[0]):
        np.testing.assert_array_equal(a, b)


def test_tf32_is_a_bool_and_of_float32_alone(device: str, tf32: None) -> None:
    with pytest.raises(TypeError, match="set_allow_tf32: allowed must be a bool, got int"):
        cf.cuda.set_allow_tf32(1)  # type: ignore[arg-type]
    assert cf.cuda.allow_tf32()
    assert not Case("gru", 2, 1, 4, "float64", device).forward("persistent")[3].plan.tf32
    assert persistent_plan(GPUS["T4"], "gru", "tf32", 8, 1) is None
    assert persistent_plan(GPUS["A100"], "gru", "tf32", 8, 1) is not None


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [1, 7, 32, 100, 128, 200])
@pytest.mark.parametrize("cell", KINDS)
def test_all_sizes_in_tf32(cell: str, hidden: int, device: str, tf32: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for plan in (persistent.plan_of, small_blocks):
        monkeypatch.setattr(persistent, "plan_of", plan)
        case = Case(cell, 4, 9, hidden, "float32", device, lengths=np.array([3, 4, 0, 1, 2, 4, 4, 0, 1]))
        for got, expected in zip(case.results("persistent", exchanges_of(device)[hidden % 3 - 1]), case.expected()):
            for a, w in zip(got, expected):
                if w.size:  # a sum of gradients that all but cancel is held to what one of them may be off
                    error, size = np.sqrt(np.mean((a - w) ** 2)), np.sqrt(np.mean(w**2))
                    assert error < 2.0**-9 * max(size, 0.25)
