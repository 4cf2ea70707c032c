"""Layers that run beside one another: results in the simulator, the order of work against a stand-in for CuPy."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.gpu import _lanes, rnn_stack
from cuframe.gpu import _rnn_persistent as persistent
from tests.cupy_stand_in import StandIn, array
from tests.kernels import untuned  # noqa: F401
from tests.test_cuda_driver import cupy  # noqa: F401


@pytest.fixture
def short(untuned: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Chunks of three steps."""
    default = persistent.table("sm_90")
    monkeypatch.setattr(persistent, "table", lambda arch: default._replace(chunk_steps=3, least_steps=1))


def run(model: Any, x: cf.Tensor, lengths: Any, seen: str) -> list[np.ndarray]:
    y, state = model(x, lengths=lengths)
    states = state if isinstance(state, tuple) else (state,)
    parts = {"y": [(y * y).sum()], "all": [(y * y).sum(), *((s * s * s).sum() for s in states)],
             "states": [(s * s * s).sum() for s in states]}[seen]
    sum(parts[1:], parts[0]).backward()
    grads = [p.grad for p in model.parameters()]
    return [a.detach().cpu().numpy() for a in (y, *states, x.grad, *grads)]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("lengths", [None, [7, 0, 2], [2, 1, 2]])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_results(kind: str, lengths: Any, recompute: bool, device: str, short: None,
                 monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []
    true = persistent.run_forward
    monkeypatch.setattr(persistent, "run_forward", lambda *a: (launches.append(a[-3]), true(*a))[1])
    here = getattr(cf.nn, kind)(3, 5, num_layers=3).double()
    there = getattr(cf.nn, kind)(3, 5, num_layers=3, recompute=recompute).double().to(device)
    there.load_state_dict(here.state_dict())
    for seen in ("all", "y", "states"):
        here.zero_grad(), there.zero_grad()
        x = cf.randn(7, 3, 3, dtype="float64", requires_grad=True)
        z = x.detach().to(device).requires_grad_()
        want, got = run(here, x, lengths, seen), run(there, z, lengths, seen)
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, atol=1e-11)
    assert launches == [3, 4] * 9


def test_without_backward(device: str, short: None) -> None:
    model = cf.nn.LSTM(2, 4, num_layers=2).double().to(device)
    x = cf.randn(8, 2, 2, dtype="float64").to(device)
    hx = tuple(cf.randn(2, 2, 4, dtype="float64").to(device) for _ in range(2))
    for lengths in (None, [8, 3]):
        with_it = model(x, hx, lengths=lengths)
        with cf.no_grad():
            without = model(x, hx, lengths=lengths)
        for a, b in zip((with_it[0], *with_it[1]), (without[0], *without[1])):
            np.testing.assert_array_equal(a.detach().cpu().numpy(), b.cpu().numpy())


def test_second_derivatives(device: str, short: None) -> None:
    model = cf.nn.GRU(2, 2, num_layers=2).double().to(device)
    x = cf.randn(6, 1, 2, dtype="float64").to(device).requires_grad_()
    assert cf.autograd.gradgradcheck(lambda x: model(x)[0].sum(-1), (x,))


def test_only_some_gradients(device: str, short: None) -> None:
    weights = [[np.random.default_rng(i).random(s) for s in ((8, w), (8, 2), (8,), (8,))] for i, w in enumerate((3, 2))]
    there = [[cf.tensor(a).to(device).array for a in layer] for layer in weights]
    x = cf.randn(6, 2, 3, dtype="float64").to(device).array

    def grads(needs: Any) -> Any:
        y, *_, saved = rnn_stack.forward("lstm", x, there)
        return rnn_stack.backward(saved, y.copy(), None, None, needs)

    full = grads(None)
    for j in range(11):
        for i, got in enumerate(grads([i == j for i in range(11)])):
            assert (got is None) == (i != j)
            assert got is None or np.array_equal(got.get(), full[i].get())


def test_when_layers_run_apart(device: str, short: None) -> None:
    model = cf.nn.LSTM(2, 4, num_layers=2)
    weights = [model.weight_hh_l0.to(device).array] * 2
    x = cf.zeros(6, 1, 2).to(device).array
    assert rnn_stack.fits("lstm", x, weights)
    assert not rnn_stack.fits("lstm", x[:5], weights)  # too few steps for two chunks
    assert not rnn_stack.fits("lstm", x, weights[:1])
    assert not rnn_stack.fits("lstm", x[:, :0], weights)
    wide = cf.zeros(4 * 28, 28).to(device).array
    if device == "sim":  # its four multiprocessors have no room for two such layers
        assert not rnn_stack.fits("lstm", cf.zeros(6, 1, 28).to(device).array, [wide, wide])


# -- streams ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def layers(cupy: StandIn, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    """Four layers of a size of which two fit at once, eight chunks; a record of what went to which stream."""
    monkeypatch.setattr(_lanes, "_made", {})
    for name, kernel in zip(("_FORWARD", "_BACKWARD"), persistent.kernels(declare=False)):
        monkeypatch.setattr(persistent, name, kernel)  # what is loaded belongs to one stand-in
    cupy.cupy.matmul = np.matmul  # type: ignore[attr-defined]
    current = cupy.cupy.cuda.get_current_stream
    streams: dict[int, Any] = {}
    events: dict[int, tuple[int, int]] = {}

    class Main:
        ptr, done = 0, True

        def wait_event(self, event: Any) -> None:
            cupy.calls.append(("stream.wait_event", (0, event)))

    monkeypatch.setattr(cupy.cupy.cuda, "get_current_stream",
                        lambda: Main() if cupy.stream_stack[-1] == 0 else current())
    true = cupy.cupy.cuda.Event.record

    def record(self: Any, stream: Any = None) -> None:
        true(self, stream)
        events[id(self)] = (0 if stream is None else stream.ptr, len(cupy.calls))
        streams.setdefault(-1, []).append(self)  # keeps it, so that no other gets its id

    monkeypatch.setattr(cupy.cupy.cuda.Event, "record", record)
    weights = [[array(4 * 512, 512), array(4 * 512, 512), array(4 * 512), array(4 * 512)] for _ in range(4)]
    x = array(512, 1, 512)
    assert rnn_stack.fits("lstm", x, [w[1] for w in weights])
    return cupy, x, weights, events


def happens_before(calls: list[tuple[str, tuple]],
                   events: dict[int, tuple[int, int]]) -> tuple[list[int], list[set[int]], set[int]]:
    """The streams of all launches, which launches each must wait for, and for which the current stream has waited."""
    done: dict[int, set[int]] = {}
    recorded: dict[int, set[int]] = {}
    streams, before = [], []
    at = {place: event for event, (_, place) in events.items()}
    for place, (name, args) in enumerate(calls, 1):
        if place in at:
            recorded[at[place]] = set(done.get(events[at[place]][0], set()))
        elif name == "stream.wait_event":
            done.setdefault(args[0], set()).update(recorded[id(args[1])])
        elif name == "launchCooperativeKernel":
            before.append(set(done.get(args[8], set())))
            streams.append(args[8])
            done.setdefault(args[8], set()).add(len(before) - 1)
    return streams, before, done.get(0, set())


def test_chunks_wait_for_what_they_need_and_for_nothing_else(layers: Any) -> None:
    cupy, x, weights, events = layers  # noqa: F811
    y, h_n, c_n, saved = rnn_stack.forward("lstm", x, weights)
    streams, before, known = happens_before(cupy.calls, events)
    assert saved.width == 2 and len(saved.chunks) == 8
    assert len(streams) == 32 and 0 not in streams and len(set(streams)) == 2
    check_order(streams, before)
    assert known == set(range(32))  # what comes next waits for all

    cupy.calls.clear(), events.clear()
    rnn_stack.backward(saved, array(512, 1, 512), h_n, c_n)
    streams, before, known = happens_before(cupy.calls, events)
    assert len(streams) == 32 and len(set(streams)) == 2
    check_order(streams, before)  # layers and chunks from the last of both


def check_order(streams: list[int], before: list[set[int]]) -> None:
    order = list(rnn_stack._diagonals(4, 8))
    assert sorted(order) == [(layer, chunk) for layer in range(4) for chunk in range(8)]
    place = {at: i for i, at in enumerate(order)}
    lanes = [streams[place[0, 0]], streams[place[1, 0]]]
    for (layer, chunk), stream, known in zip(order, streams, before):
        assert stream in lanes
        assert chunk == 0 or place[layer, chunk - 1] in known
        assert layer == 0 or place[layer - 1, chunk] in known
        # neighbours are in different lanes, and the one below may go on while this one runs
        assert layer == 0 or stream != streams[place[layer - 1, chunk]]
        assert layer == 0 or chunk == 7 or place[layer - 1, chunk + 1] not in known


def test_what_a_launch_uses_is_held_until_the_current_stream_has_waited(layers: Any,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    cupy, x, weights, events = layers  # noqa: F811
    alive: list[tuple[int, Any]] = []
    true = persistent.run_forward

    def launched(*args: Any) -> None:
        true(*args)
        alive.append((len(cupy.calls), weakref.ref(args[2])))

    monkeypatch.setattr(persistent, "run_forward", launched)
    seen: list[int] = []
    matmul = np.matmul

    def product(a: Any, b: Any) -> Any:
        """Memory that is free now may be what this product is written to."""
        known = happens_before(cupy.calls, events)[2]
        for i, (_, ref) in enumerate(alive):
            assert ref() is not None or i in known, "freed, while a lane may still read it"
        seen.append(sum(ref() is None for _, ref in alive))
        return matmul(a, b).view(type(a))

    cupy.cupy.matmul = product  # type: ignore[attr-defined]
    rnn_stack.forward("lstm", x, weights, need_backward=False)
    assert len(seen) == 32 and seen[-1] > 12  # and it is not all held until the end


def test_launches_are_behind_the_current_stream(layers: Any) -> None:
    """Each waits for an event there that is later than the launch before: for its own product, too."""
    cupy, x, weights, events = layers  # noqa: F811
    rnn_stack.forward("lstm", x, weights, need_backward=False)
    last = 0
    for i, (name, args) in enumerate(cupy.calls):
        if name == "launchCooperativeKernel":
            event = next(a[1] for n, a in reversed(cupy.calls[:i]) if n == "stream.wait_event" and a[0] == args[8])
            stream, place = events[id(event)]
            assert stream == 0 and place > last
            last = i


def test_blocks_of_all_lanes_fit_at_once(layers: Any) -> None:
    cupy, x, weights, _ = layers  # noqa: F811
    for hidden, width in ((512, 2), (256, 4), (1024, 0)):
        plan, found = rnn_stack._width("lstm", array(512, 1, hidden, dtype="float16"), 4, hidden)
        assert plan is not None and found * plan.blocks <= 132
        assert found == max(width, 1)
    assert not rnn_stack.fits("lstm", array(512, 1, 1024, dtype="float16"), [array(4096, 1024, dtype="float16")] * 2)


def test_nothing_else_makes_streams() -> None:
    """The lanes are taken in one place, which the note on memory is about."""
    found = [p.name for p in Path(rnn_stack.__file__).parent.glob("*.py") if re.search(r"\bStream\(", p.read_text())]
    assert found == ["_lanes.py"]
