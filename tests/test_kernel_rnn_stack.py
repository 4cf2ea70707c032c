"""Layers that run beside one another: results in the simulator, the order of work against a stand-in for CuPy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.cuda import tuned
from cuframe.gpu import _lanes, rnn_stack
from cuframe.gpu import _rnn_persistent as persistent
from tests.cupy_stand_in import StandIn, array
from tests.test_cuda_driver import cupy  # noqa: F401


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three steps."""
    default = tuned.table("sm_90")
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
                   events: dict[int, tuple[int, int]]) -> tuple[list[int], list[set[int]]]:
    """The streams of all launches, and which launches each must wait for."""
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
    return streams, before


def test_chunks_wait_for_what_they_need_and_for_nothing_else(layers: Any) -> None:
    cupy, x, weights, events = layers  # noqa: F811
    y, h_n, c_n, saved = rnn_stack.forward("lstm", x, weights)
    streams, before = happens_before(cupy.calls, events)
    assert saved.width == 2 and len(saved.chunks) == 8
    assert len(streams) == 32 and 0 not in streams and len(set(streams)) == 2
    for i, (stream, known) in enumerate(zip(streams, before)):
        layer, chunk = divmod(i, 8)
        assert stream == streams[8 * (layer % 2)]
        assert chunk == 0 or i - 1 in known
        assert layer == 0 or i - 8 in known
        # the layer below may go on while this one runs
        assert layer == 0 or chunk == 7 or i - 7 not in known
    # what comes next waits for both
    ends = [args for name, args in cupy.calls if name == "stream.wait_event"][-2:]
    assert [a[0] for a in ends] == [0, 0]

    cupy.calls.clear(), events.clear()
    rnn_stack.backward(saved, array(512, 1, 512), h_n, c_n)
    streams, before = happens_before(cupy.calls, events)
    assert len(streams) == 32 and len(set(streams)) == 2
    for i, known in enumerate(before):
        layer, chunk = divmod(i, 8)  # from the last of both
        assert chunk == 0 or i - 1 in known
        assert layer == 0 or i - 8 in known
        assert layer == 0 or chunk == 7 or i - 7 not in known


def test_lanes_begin_behind_the_current_stream(layers: Any) -> None:
    cupy, x, weights, events = layers  # noqa: F811
    rnn_stack.forward("lstm", x, weights, need_backward=False)
    first = next(i for i, name in enumerate(cupy.names()) if name == "launchCooperativeKernel")
    waited = [args for name, args in cupy.calls[:first] if name == "stream.wait_event"]
    assert len({stream for stream, _ in waited}) == 2
    assert all(events[id(event)][0] == 0 for _, event in waited)


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
