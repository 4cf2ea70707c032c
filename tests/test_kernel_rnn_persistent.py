"""`kernels/rnn_persistent.cu`: against float64, against the engine of single steps, and with its barriers taken out."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.cpu import rnn as host
from cuframe.cuda import sim, tuned
from cuframe.cuda.persistent import GPUS, DeviceFacts, persistent_plan
from cuframe.gpu import _rnn_persistent as persistent
from cuframe.gpu import rnn
from tests.kernels import FLOATS, Array, exchanges_of, fetch, numbers, put, untuned  # noqa: F401
from tests.sim_helpers import needs_compiler

CELLS = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
KERNELS = Path(__file__).parent.parent / "kernels"


class Case:
    """A layer with its results and gradients in float64, and in each engine."""

    def __init__(self, cell: str, t: int, n: int, h: int, dtype: str = "float32", device: str = "sim",
                 bias: bool = True, states: bool = True, firm: bool = False, **how: Any) -> None:
        g, size = CELLS[cell] * h, (0.2 if firm else 1) / np.sqrt(h)

        def make(*shape: int, seed: int, high: float = 1.0) -> Array:
            return numbers(*shape, dtype=dtype, seed=seed, low=-high, high=high)

        has_c = cell == "lstm"
        self.given = [make(t, n, 3, seed=1), make(g, 3, seed=2), make(g, h, seed=3, high=1.5 * size),
                      *(make(g, seed=s) if bias else None for s in (4, 5)), None,
                      make(n, h, seed=7) if states else None, make(n, h, seed=8) if has_c and states else None]
        if firm:  # no sum comes near 0, where rounding would turn a ReLU's gradient on or off
            self.given[3] = np.where(np.arange(g) % 2, 8, -8).astype(self.given[0].dtype)
        self.grads = [make(t, n, h, seed=9), make(n, h, seed=10), make(n, h, seed=11) if has_c else None]
        self.cell, self.dtype, self.device, self.how = cell, dtype, device, how

    def expected(self) -> tuple[list[Array], list[Array]]:
        wide = [[None if a is None else a.astype(np.float64) for a in arrays] for arrays in (self.given, self.grads)]
        *out, saved = host.forward(self.cell, *wide[0], **self.how)
        return _there(out), _there(host.backward(saved, *wide[1]))  # type: ignore[arg-type]

    def forward(self, engine: str, exchange: str = "barrier", **kwargs: Any) -> tuple[Any, ...]:
        there = [None if a is None else put(a, self.device) for a in self.given]
        return rnn.forward(self.cell, *there, engine=engine, exchange=exchange, **self.how, **kwargs)

    def backward(self, saved: Any) -> list[Array]:
        return _there(rnn.backward(saved, *(None if a is None else put(a, self.device) for a in self.grads)))  # type: ignore[arg-type]

    def results(self, engine: str, exchange: str = "barrier") -> tuple[list[Array], list[Array]]:
        *out, saved = self.forward(engine, exchange)
        assert (saved.plan is not None) == (engine == "persistent")
        return [fetch(a) for a in _there(out)], [fetch(a) for a in self.backward(saved)]

    def bits(self, exchange: str) -> list[bytes]:
        *out, saved = self.forward("persistent", exchange)
        return [fetch(a).tobytes() for a in (*_there(out), *self.backward(saved))]


def _there(values: Any) -> list[Any]:
    return [a for a in values if a is not None]


def off(got: list[Array], expected: list[Array]) -> float:
    """The largest root mean square error of any result, relative to its size."""
    sizes = [(np.mean((a - b) ** 2), np.mean(b**2)) for a, b in zip(got, expected) if b.size]
    return float(max(np.sqrt(error) / (np.sqrt(size) + 1e-6) for error, size in sizes))


UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def check(*args: Any, exchanges: tuple[str, ...] = (), **kwargs: Any) -> None:
    """Errors are at most twice those of single steps, of gradients three times, or half a rounding where none."""
    case = Case(*args, **kwargs)
    expected, steps = case.expected(), case.results("steps")
    for exchange in exchanges or exchanges_of(case.device):
        got = case.results("persistent", exchange)
        for what, factor in ((0, 2), (1, 3)):
            assert len(got[what]) == len(expected[what])
            limit = max(factor * off(steps[what], expected[what]), UNIT[case.dtype] / 2)
            found = off(got[what], expected[what])
            assert found <= limit, f"{exchange}, part {what}: off by {found:.3g}, allowed {limit:.3g}"


def small_blocks(cell: str, x: Any, hidden: int, batch: int, directions: int = 1, exchange: str | None = None) -> Any:
    """A GPU of many little multiprocessors: many blocks, with weights in registers and shared memory."""
    gpus = (DeviceFacts("sm_90", 16, kib * 1024) for kib in (48, 55, 110, 220))
    kind = "tf32" if x.dtype.name == "float32" and cf.cuda.allow_tf32() else x.dtype.name
    plans = (persistent_plan(gpu, cell, kind, hidden, batch, 8, directions, 0, exchange == "cluster") for gpu in gpus)
    plan = next(filter(None, plans))
    return plan if exchange is None else plan._replace(exchange=exchange)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that nobody has written hold NaN."""
    empty = np.empty_like

    def filled(*args: Any, **kwargs: Any) -> Any:
        a = empty(*args, **kwargs)
        if a.dtype.kind in "fV":
            a[...] = np.nan
        return a

    monkeypatch.setattr(np, "empty_like", filled)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cell", CELLS)
def test_cells_and_dtypes(cell: str, dtype: str, device: str, poisoned: None) -> None:
    check(cell, 5, 5, 33, dtype, device, lengths=np.array([2, 0, 4, 4, 1]), reverse=cell in ("gru", "rnn_relu"))


@pytest.mark.parametrize("hidden", [1, 7, 32, 100, 128, 200])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_sizes(cell: str, hidden: int, device: str) -> None:
    check(cell, 3, 3, hidden, "float32", device)
    check(cell, 3, 3, hidden, "bfloat16", device, exchanges=("lines",))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("hidden", [1, 7, 32, 100, 128, 200])
@pytest.mark.parametrize("cell", CELLS)
def test_all_sizes(cell: str, hidden: int, dtype: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    firm = cell == "rnn_relu"
    if dtype == "float64":  # more is more than the simulated GPU holds
        hidden = min(hidden, 128)
    for reverse in (False, True):
        check(cell, 4, 5, hidden, dtype, device, lengths=np.array([3, 4, 0, 1, 2]), reverse=reverse, firm=firm)
    monkeypatch.setattr(persistent, "plan_of", small_blocks)
    check(cell, 4, 9, hidden, dtype, device, firm=firm)


@pytest.mark.parametrize("dtype, hidden, batch", [("float32", 60, 9), ("float64", 60, 3), ("bfloat16", 60, 17)])
def test_many_blocks_and_tiles(dtype: str, hidden: int, batch: int, device: str,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "plan_of", small_blocks)
    case = Case("lstm", 3, batch, hidden, dtype, device)
    plan = case.forward("persistent")[3].plan
    assert plan.blocks > 6 and batch > 2 * plan.forward.tile or dtype == "float64"
    check("lstm", 3, batch, hidden, dtype, device)


@pytest.mark.parametrize("lengths", [[3, 0], [0, 0], [2, 2]])
@pytest.mark.parametrize("reverse", [False, True])
def test_nothing_is_left_unwritten_beyond_the_longest(lengths: list[int], reverse: bool, device: str,
                                                      poisoned: None) -> None:
    check("gru", 4, 2, 8, "float64", device, lengths=np.array(lengths), reverse=reverse, exchanges=("barrier",))


def test_without_bias_and_states(device: str, poisoned: None) -> None:
    check("lstm", 3, 1, 9, "float32", device, bias=False, states=False)


@pytest.mark.parametrize("exchange", tuned.EXCHANGES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bits_are_the_same_in_every_order(dtype: str, exchange: str, device: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    if exchange not in exchanges_of(device):
        pytest.skip("clusters are of sm_90")
    monkeypatch.setattr(persistent, "plan_of", small_blocks)
    case = Case("lstm", 4, 6, 33, dtype, device, lengths=np.array([4, 3, 0, 2, 4, 1]))
    first = case.bits(exchange)
    assert case.bits(exchange) == first
    for order in ("reverse", "random:1", "random:2"):
        with sim.order(order):
            assert case.bits(exchange) == first, order


def test_all_exchanges_give_the_same_bits(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "plan_of", small_blocks)
    for dtype in ("float32", "float16"):
        case = Case("gru", 4, 5, 33, dtype, device)
        barrier, *others = (case.bits(exchange) for exchange in exchanges_of(device))
        assert others and all(bits == barrier for bits in others)


def test_the_layout_of_a_cluster(device: str) -> None:
    h200, a100 = GPUS["H200"], GPUS["A100"]
    plan = persistent_plan(h200, "lstm", "float16", 256, 16, cluster=True)
    assert plan is not None and (plan.blocks, plan.units, plan.exchange) == (8, 32, "cluster")
    alone = persistent_plan(h200, "lstm", "float16", 256, 16, 32)
    assert alone is not None and alone.backward.tile == plan.backward.tile
    # a box of all 16 sequences in the place of 8 at a time: of 4 gates, 32 units, 2 bytes, twice
    assert plan.backward.shared - alone.backward.shared == 2 * (16 - 8) * 4 * 32 * 2
    assert persistent_plan(a100, "lstm", "float16", 256, 16, cluster=True) is None  # no clusters before sm_90
    assert persistent_plan(h200, "lstm", "float16", 2048, 16, cluster=True) is None  # more than eight blocks hold
    both = persistent_plan(h200, "gru", "float32", 100, 3, directions=2, cluster=True)
    assert both is not None and both.blocks == 8 and both.directions == 2
    with pytest.raises(ValueError, match="lstm: recurrent weights of 1024 hidden units .* fit a cluster of"):
        rnn._plan("persistent", "cluster", "lstm", cf.zeros(1).to(device).array, 1024, 9, 1, True)


@pytest.mark.parametrize("lengths", [None, [3, 0, 4]])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "rnn_tanh"])
def test_without_backward(cell: str, reverse: bool, lengths: Any, device: str) -> None:
    how = {} if lengths is None else {"lengths": np.array(lengths)}
    case = Case(cell, 5, 3, 20, "float32", device, reverse=reverse, **how)
    for exchange in exchanges_of(device):
        *with_it, _ = case.forward("persistent", exchange)
        *without, saved = case.forward("persistent", exchange, need_backward=False)
        assert saved is None
        for a, b in zip(_there(with_it), _there(without)):
            np.testing.assert_array_equal(fetch(a), fetch(b))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_backward_of_the_other_engine(cell: str, device: str) -> None:
    case = Case(cell, 4, 3, 20, "float64", device, lengths=np.array([4, 1, 0]), reverse=True)
    saved = case.forward("persistent")[3]
    own, other = (case.backward(s) for s in (saved, dataclasses.replace(saved, plan=None)))
    for a, b in zip(own, other):
        np.testing.assert_allclose(fetch(a), fetch(b), atol=1e-12)


def test_no_steps_and_no_sequences(device: str) -> None:
    for t, n in ((0, 2), (3, 0)):
        *out, saved = Case("lstm", t, n, 8, device=device).forward("persistent")
        assert saved.plan is None and out[0].shape == (t, n, 8)


def test_layers_take_it_where_it_fits(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("forward", "backward"):
        true = getattr(persistent, name)
        monkeypatch.setattr(persistent, name, lambda *a, true=true, name=name: (calls.append(name), true(*a))[1])
    layer = cf.nn.LSTM(3, 8, bidirectional=True).double()
    x = cf.randn(8, 2, 3, dtype="float64")
    y = layer(x)[0]
    (y * y).sum().backward()
    there = cf.nn.LSTM(3, 8, bidirectional=True).double().to(device)
    there.load_state_dict(layer.state_dict())
    there.eval()
    z = there(x.to(device))[0]
    (z * z).sum().backward()
    assert calls == ["forward", "backward"]
    np.testing.assert_allclose(z.detach().cpu().numpy(), y.detach().numpy(), atol=1e-12)
    for a, b in zip(there.parameters(), layer.parameters()):
        np.testing.assert_allclose(a.grad.cpu().numpy(), b.grad.numpy(), atol=1e-11)  # type: ignore[union-attr]
    there(x[1:].to(device))
    monkeypatch.setattr(persistent, "plan_of", lambda *a: None)
    there(x.to(device))
    assert len(calls) == 2


def test_engines_by_name(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("gru", 2, 1, 4, device=device)
    with pytest.raises(ValueError, match="gru: engine must be auto, persistent or steps, got 'fast'"):
        case.forward("fast")
    monkeypatch.setattr(persistent, "plan_of", lambda *a: None)
    with pytest.raises(ValueError, match="gru: recurrent weights of 4 hidden units in float32 do not fit the device"):
        case.forward("persistent")


def test_limits() -> None:
    limit = cf.cuda.persistent_limits
    for gpu, cell, dtype in itertools.product(("T4", "A100", "RTX 4090", "H200"), CELLS, ("float16", "float32")):
        facts, most = GPUS[gpu], limit(gpu, cell, dtype)
        assert persistent_plan(facts, cell, dtype, most + 1, 1) is None
        plan = persistent_plan(facts, cell, dtype, most, 64)
        assert plan is not None and plan.blocks <= facts.multiprocessors and plan.blocks * plan.units >= most
        assert max(plan.forward.shared, plan.backward.shared) <= facts.shared
    assert limit("T4", "lstm", "bfloat16") == 0
    assert limit("H200", "lstm", "float16") >= 1536
    assert limit("sim", "lstm") >= 200
    with pytest.raises(ValueError, match="device must be 'cuda', 'sim' or one of T4, A100, .*, got 'abacus'"):
        limit("abacus", "lstm")
    with pytest.raises(ValueError, match="cell must be one of lstm, gru, rnn_tanh, rnn_relu, got 'mlp'"):
        limit("H200", "mlp")
    with pytest.raises(ValueError, match="dtype must be one of .*, got 'int8'"):
        limit("H200", "lstm", "int8")


# what is taken out of a copy of the kernels: file, text, which occurrence, what stands there instead; the exchange
BROKEN: dict[str, tuple[str, str, int, str, str]] = {
    "no barrier of the grid": ("rnn_persistent.cu", "if (n0 == 0) exchange.ready();", 0, "", "barrier"),
    "no barrier of the grid, backward": ("rnn_persistent.cu", "if (n0 == 0) exchange.ready();", 1, "", "barrier"),
    "vectors used before all are there": ("rnn_persistent.cu", "__syncthreads();", 0, "", "barrier"),
    "sums used before all are there": ("rnn_persistent.cu", "__syncthreads();", 1, "", "barrier"),
    "vectors used before all are there, backward": ("rnn_persistent.cu", "__syncthreads();", 2, "", "barrier"),
    "sums used before all are there, backward": ("rnn_persistent.cu", "__syncthreads();", 3, "", "barrier"),
    "copies not waited for": ("common/exchange.cuh", "cp_async_wait<0>();", 0, "", "barrier"),
    "tags not looked at": ("common/exchange.cuh", "come && got[k].words[3] == step + 1", 0, "come", "lines"),
    "sent before all is in the box": ("common/exchange.cuh", "__syncthreads(PASS_CALLER);", 0, "", "lines"),
    "one half of the box": ("common/exchange.cuh", "turn ^= 1;", 0, "", "lines"),
    "a barrier where one thread waits": ("common/grid.cuh", "__syncthreads(PASS_CALLER);", 1, "", "barrier"),
    "a barrier where nobody waits": ("common/grid.cuh", "spin_until([&] { return ((", 0, "([&] { return ((", "barrier"),
    "no barrier of the cluster": ("common/exchange.cuh", "cluster_barrier(PASS_CALLER);", 0, ";", "cluster"),
    "one slot of a cluster": ("common/exchange.cuh", "<int32>(step & 1)", 0, "<int32>(0)", "cluster"),
    "box used while weights pass": ("common/resident.cuh", "__syncthreads(PASS_CALLER);", 0, "", "lines"),
}


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A function that puts a changed copy of the kernels in place."""

    shutil.copy(KERNELS / "rnn_persistent.cu", tmp_path)
    shutil.copytree(KERNELS / "common", tmp_path / "common")

    def change(file: str, text: str, occurrence: int, instead: str, exchange: str) -> None:
        parts = (tmp_path / file).read_text().split(text)
        assert len(parts) > occurrence + 1, f"{text!r} is not there {occurrence + 1} times"
        (tmp_path / file).write_text(text.join(parts[: occurrence + 1]) + instead + text.join(parts[occurrence + 1:]))
        forward, backward = persistent.kernels(
            tmp_path / "rnn_persistent.cu", types={"T": ("float32",)}, declare=False,
            constants={"CELL": (0,), "TF32": (False,)})
        monkeypatch.setattr(persistent, "_FORWARD", forward)
        monkeypatch.setattr(persistent, "_BACKWARD", backward)

    monkeypatch.setattr(persistent, "plan_of", small_blocks)
    yield change


def caught(exchange: str) -> bool:
    """Whether any order of the threads gives other results, or a report."""
    case = Case("lstm", 4, 9, 36)
    right = sum(case.expected(), [])
    for order in ("forward", "reverse", "random:1", "random:2", "ahead:1", "ahead:2"):
        with sim.order(order):
            try:
                got = sum(case.results("persistent", exchange), [])
            except sim.SimError:
                return True
        if not off(got, right) < 1e-5:
            return True
    return False


@needs_compiler
@pytest.mark.slow
def test_a_faithful_copy_is_right(changed: Any, device: str) -> None:
    if device != "sim":
        pytest.skip("what is broken on purpose stays in the simulator")
    for exchange in tuned.EXCHANGES:
        changed("rnn_persistent.cu", "// Recurrent", 0, "// Recurrent", exchange)
        assert not caught(exchange)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_what_is_missing_is_caught(what: str, changed: Any, device: str) -> None:
    if device != "sim":
        pytest.skip("what is broken on purpose stays in the simulator")
    changed(*BROKEN[what])
    assert caught(BROKEN[what][-1])


@needs_compiler
@pytest.mark.slow
def test_two_slots_are_enough_for_a_slow_block_and_one_is_not(changed: Any, device: str) -> None:
    """The simulator lets all blocks go on in turn, so one is held up on purpose."""
    if device != "sim":
        pytest.skip("what is broken on purpose stays in the simulator")
    file, text = "common/exchange.cuh", "constexpr int MANY = 4;"
    held_up = """ for (int i = 0, polls = 0; blockIdx.x == 1 && i < 50; ++i)
        spin_until([&] { return ++polls % 2 == 0; });"""
    changed(file, text, 0, text + held_up, "lines")
    assert not caught("lines")
    changed(file, "step & 1", 0, "step & 0", "lines")
    assert caught("lines")


@needs_compiler
@pytest.mark.slow
def test_a_block_is_at_the_barrier_when_its_last_thread_has_written(changed: Any, device: str) -> None:
    """The simulator lets all threads come as far as the first, so some are held up on purpose."""
    if device != "sim":
        pytest.skip("what is broken on purpose stays in the simulator")
    held_up = """ for (int i = 0, polls = 0; blockIdx.x == 1 && threadIdx.x >= 4 && i < 50; ++i)
        spin_until([&] { return ++polls % 2 == 0; });"""
    changed("rnn_persistent.cu", "h[after + at] = out;", 0, held_up + "h[after + at] = out;", "barrier")
    assert not caught("barrier")
    changed("common/grid.cuh", "__syncthreads(PASS_CALLER);", 0, "", "barrier")
    assert caught("barrier")


@needs_compiler
@pytest.mark.slow
def test_a_block_of_a_cluster_ends_when_all_have_read(changed: Any, device: str) -> None:
    """The simulator lets all blocks go on in turn, so one is held up on purpose."""
    if device != "sim":
        pytest.skip("what is broken on purpose stays in the simulator")
    held_up = """ for (int i = 0, polls = 0; blockIdx.x == 1 && i < 50; ++i)
        spin_until([&] { return ++polls % 2 == 0; });"""
    text = "const int32 packs = pitch() / WIDE,"
    changed("common/exchange.cuh", text, 0, held_up + text, "cluster")
    assert not caught("cluster")
    changed("common/exchange.cuh", "cluster_barrier(PASS_CALLER);", 1, ";", "cluster")
    assert caught("cluster")
