"""nn.DataParallel and its functions on four simulated devices: what one device gives, and what the reference says."""

from __future__ import annotations

import collections
import contextvars
import copy
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.autograd import versions
from cuframe.backend import backend_for
from cuframe.nn.parallel import data_parallel, gather, parallel_apply, replicate, scatter
from cuframe.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from tests.cupy_stand_in import StandIn, array
from tests.opinfo import OP_DB
from tests.opinfo.core import flatten
from tests.test_cuda_driver import cupy  # noqa: F401  (a fixture)
from tests.test_device_ops import HOST_ONLY, moved_sample

SIMS = [f"sim:{i}" for i in range(4)]


@pytest.fixture(autouse=True)
def four_devices() -> Iterator[None]:
    cf.cuda.set_sim_device_count(4)
    cf.manual_seed(0)
    yield
    assert backend_for("sim").current() == cf.Device("sim:0")
    cf.cuda.set_sim_device_count(1)


def close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=tolerance, atol=tolerance)


def trained(model: nn.Module, args: tuple) -> tuple[cf.Tensor, dict[str, cf.Tensor]]:
    """The output, and the gradients of a loss that weighs every number of it differently."""
    out = model(*args)
    weights = cf.arange(1.0, out.numel() + 1).reshape(*out.shape).to(out.device) / out.numel()
    (out * weights).sum().backward()
    return out, {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


# -- the same as on one device ------------------------------------------------------------------------------------
class Packed(nn.Module):
    """Packs and pads inside of forward, as the FAQ of the reference tells."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: cf.Tensor, lengths: cf.Tensor) -> cf.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(12, 2)

    def forward(self, x: cf.Tensor) -> cf.Tensor:
        return self.out(self.norm(self.conv(x)).relu().flatten(1))


def lstm() -> tuple[nn.Module, tuple]:
    return Packed(), (cf.randn(7, 6, 3), cf.tensor([6, 2, 3, 1, 5, 2, 4]))


def conv() -> tuple[nn.Module, tuple]:
    model = Convolutional()
    model.norm.running_mean.uniform_(-1, 1)
    return model.eval(), (cf.randn(8, 2, 4, 4),)


def transformer() -> tuple[nn.Module, tuple]:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (cf.randn(6, 5, 8),)


@pytest.mark.parametrize("make", [lstm, conv, transformer])
def test_equals_one_device(make: Callable) -> None:
    model, args = make()
    wide = nn.DataParallel(copy.deepcopy(model).to("sim"))
    out, grads = trained(wide, args)
    expected, wanted = trained(model.to("sim"), tuple(a.to("sim") for a in args))
    assert out.device == cf.Device("sim:0")
    close(out, expected)
    assert grads.keys() == wanted.keys() and all(g.device == out.device for g in grads.values())
    for name, g in grads.items():
        close(g, wanted[name])


def test_batch_norm_follows_the_first_part() -> None:
    model = Convolutional()
    x = cf.randn(8, 2, 4, 4)
    wide = nn.DataParallel(copy.deepcopy(model).to("sim"))
    for _ in range(2):
        out, grads = trained(wide, (x,))
    parts, first = [], copy.deepcopy(model)
    for i, part in enumerate(x.chunk(4)):
        parts.append((model if i else first)(part))
    first(x.chunk(4)[0])
    close(out, cf.cat(parts))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        close(getattr(wide.module.norm, name), getattr(first.norm, name))


class Late(nn.Module):
    """Lets the thread of one device fall behind."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: cf.Tensor) -> cf.Tensor:
        time.sleep(0.03 * (x.device.index == self.index))
        return x


def test_two_steps_of_training_have_the_same_bits() -> None:
    def train(late: int) -> list[list[float]]:
        cf.manual_seed(3)
        layers = [Late(late), nn.Linear(4, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1)]
        model = nn.DataParallel(nn.Sequential(*layers).to("sim"))
        optimizer = cf.optim.Adam(model.parameters(), lr=0.1)
        x = cf.randn(13, 4)
        for _ in range(2):
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            optimizer.step()
        return [p.tolist() for p in model.parameters()] + [[float(cf.rand(1))]]

    assert train(0) == train(3)


def test_dropout_differs_between_replicas_and_between_calls() -> None:
    model = nn.DataParallel(nn.Sequential(nn.Identity(), nn.Dropout(0.5)), device_ids=SIMS)
    a, b = model(cf.ones(4, 40)), model(cf.ones(4, 40))
    rows = {tuple(r) for r in (*a.tolist(), *b.tolist())}
    assert len(rows) == 8


# -- the module ---------------------------------------------------------------------------------------------------
class Seen(nn.Module):
    """Notes what each replica is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(cf.ones(2))
        self.register_buffer("count", cf.zeros(1))
        self.calls: list[tuple] = []
        self.counter = 0

    def forward(self, *args: Any, **kwargs: Any) -> cf.Tensor:
        self.counter += 1
        self.count += 1
        self.calls.append((self.weight.device, threading.current_thread().name, args, kwargs))
        return self.weight.sum()

    def sorted_calls(self) -> list[tuple]:
        return sorted(self.calls, key=lambda call: str(call[0]))


def test_arguments_are_scattered_or_shared() -> None:
    model, shared = Seen().to("sim"), object()
    out = nn.DataParallel(model, device_ids=[0, 1])(cf.arange(5), shared, flags={"mask": [cf.arange(5)], "k": 3})
    (d0, name0, args0, kwargs0), (d1, name1, args1, kwargs1) = model.sorted_calls()
    assert (str(d0), str(d1), name0, name1) == ("sim:0", "sim:1", "replica 0 on sim:0", "replica 1 on sim:1")
    assert args0[0].tolist() == [0, 1, 2] and args1[0].tolist() == [3, 4] and args0[1] is args1[1] is shared
    assert kwargs1["flags"]["k"] == 3 and kwargs1["flags"]["mask"][0].tolist() == [3, 4]
    assert str(kwargs1["flags"]["mask"][0].device) == "sim:1"
    assert out.tolist() == [2.0, 2.0]  # 0-d outputs become a vector


def test_replica_0_shares_memory_and_attributes_are_lost() -> None:
    model = Seen().to("sim")
    nn.DataParallel(model)(cf.ones(4))
    assert model.count.item() == 1 and model.counter == 0 and len(model.calls) == 4


def test_small_batches_and_no_arguments() -> None:
    model = Seen().to("sim")
    wide = nn.DataParallel(model)
    assert wide(cf.ones(2)).shape == (2,) and len(model.calls) == 2
    assert wide(cf.ones(1)).shape == (1,) and wide().shape == (1,)
    assert wide(7).shape == (4,)  # nothing to cut: every replica gets it
    model.calls.clear()
    wide(cf.ones(5))
    assert [len(args[0]) for _, _, args, _ in model.sorted_calls()] == [2, 2, 1]


def test_dim_and_output_device() -> None:
    model = nn.Linear(3, 2).to("sim:1")
    x = cf.randn(5, 4, 3)
    wide = nn.DataParallel(nn.Identity(), device_ids=SIMS, dim=1)
    assert wide(x).tolist() == x.tolist()
    out = nn.DataParallel(model, device_ids=["sim:1", "sim:3"], output_device="sim:2")(x)
    assert str(out.device) == "sim:2"
    close(out, model(x.to("sim:1")))
    assert nn.DataParallel(model, [1], output_device="cpu")(x).device.type == "cpu"


def test_device_ids() -> None:
    model = nn.Linear(3, 2)
    wide = nn.DataParallel(model)
    assert wide.device_ids == [] or cf.cuda.is_available()
    wide.to("sim")  # the devices are those of where the module has gone
    assert [str(d) for d in wide.device_ids] == SIMS and str(wide.output_device) == "sim:0"
    assert "device_ids=['sim:2', 'sim:0']" in repr(nn.DataParallel(model, device_ids=[2, 0]))
    for bad, error, text in [
        ([], ValueError, "expected at least one device"),
        ([0, "cuda:0"], ValueError, "devices must differ"),
        ([1.5], TypeError, "expected devices, their names or numbers, got float"),
    ]:
        with pytest.raises(error, match=f"DataParallel: {text}"):
            nn.DataParallel(model, device_ids=bad)
    with pytest.raises(TypeError, match="module must be a Module, got function"):
        nn.DataParallel(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"device 'sim:7': there are 4 simulated GPU\(s\)"):
        nn.DataParallel(model, device_ids=[0, 7])(cf.ones(2, 3))


def test_wrong_place() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to("sim:1")
    with pytest.raises(RuntimeError, match="DataParallel: parameter '0.weight' is on sim:1; all parameters and buffers "
                                           "must be on sim:0, the first of device_ids"):
        nn.DataParallel(model)(cf.ones(4, 2))
    model.to("sim:0")
    model[1].running_var = model[1].running_var.to("sim:2")
    with pytest.raises(RuntimeError, match="buffer '1.running_var' is on sim:2"):
        nn.DataParallel(model, ["sim:0"])(cf.ones(4, 2))


@pytest.mark.skipif(cf.cuda.is_available(), reason="there are GPUs: a module on the CPU is in the wrong place")
def test_without_devices_it_is_a_plain_call() -> None:
    model, thing = Seen(), object()
    out = nn.DataParallel(model, device_ids=[0, 1])(thing, k=1)
    assert out.shape == () and model.counter == 1
    assert model.calls == [(cf.Device("cpu"), threading.current_thread().name, (thing,), {"k": 1})]


def test_one_device_is_a_plain_call() -> None:
    model = Seen().to("sim")
    out = nn.DataParallel(model, device_ids=["sim:0"])(cf.ones(3))
    assert out.shape == () and model.counter == 1
    ((_, name, (x,), _),) = model.calls
    assert name == threading.current_thread().name and str(x.device) == "sim:0"


def test_state_dict_has_the_prefix() -> None:
    model = nn.Sequential(nn.Linear(2, 2)).to("sim")
    wide = nn.DataParallel(model)
    assert list(wide.state_dict()) == ["module.0.weight", "module.0.bias"]
    saved = {k: v + 1 for k, v in wide.state_dict().items()}
    wide(cf.ones(4, 2))
    wide.load_state_dict(saved)
    close(model[0].bias, saved["module.0.bias"])
    close(wide(cf.ones(4, 2)), model(cf.ones(4, 2, device="sim")))
    twin = copy.deepcopy(wide)
    twin.module[0].bias.data.zero_()
    close(wide(cf.ones(4, 2)), model(cf.ones(4, 2, device="sim")))


def test_a_subclass_may_cut_and_join_otherwise() -> None:
    class Uneven(nn.DataParallel):
        """Less for the first device, which holds more; and the outputs stay where they are."""

        def scatter(self, inputs: tuple, kwargs: dict, device_ids: Any) -> tuple:
            sizes = [1, 2, 2, 2]
            parts = zip(*[x.split(sizes) for x in inputs])
            return tuple(tuple(x.to(d) for x in p) for p, d in zip(parts, device_ids)), tuple({} for _ in sizes)

        def gather(self, outputs: Any, output_device: Any) -> list:
            return list(outputs)

    model = nn.Linear(3, 2).to("sim")
    x = cf.randn(7, 3)
    outs = Uneven(model)(x)
    assert [(y.shape[0], str(y.device)) for y in outs] == list(zip([1, 2, 2, 2], SIMS))
    close(cf.cat([y.cpu() for y in outs]), model(x.to("sim")))


def test_attributes_are_those_of_the_module_inside() -> None:
    with pytest.raises(AttributeError, match="DataParallel has no attribute 'in_features'; .module.in_features is "):
        nn.DataParallel(nn.Linear(2, 2)).in_features  # noqa: B018


def test_hooks_run_on_every_device() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).to("sim")
    places: dict[str, list[str]] = collections.defaultdict(list)
    model[1].register_forward_pre_hook(lambda m, args: places["pre"].append(str(args[0].device)))
    model[1].register_forward_hook(lambda m, args, out: places["post"].append(str(out.device)))
    model[0].register_full_backward_hook(lambda m, gi, go: places["back"].append(str(go[0].device)))
    nn.DataParallel(model)(cf.ones(4, 2)).sum().backward()
    assert {kind: sorted(found) for kind, found in places.items()} == {"pre": SIMS, "post": SIMS, "back": SIMS}


def test_nested_and_in_threads() -> None:
    inner = nn.DataParallel(nn.Linear(2, 2).to("sim"), device_ids=["sim:0", "sim:1"])

    class Outer(nn.Module):
        def forward(self, x: cf.Tensor) -> cf.Tensor:
            return inner(x).to(x.device)

    x = cf.randn(8, 2)
    close(nn.DataParallel(Outer(), device_ids=SIMS)(x), inner.module(x.to("sim")))


def test_computed_weights() -> None:
    """By hooks and by parametrizations, cached ones as well: the replicas compute their own."""
    utils = nn.utils
    model = nn.Sequential(
        utils.weight_norm(nn.Linear(3, 3)), utils.spectral_norm(nn.Linear(3, 3)),
        utils.parametrizations.weight_norm(nn.Linear(3, 3)), utils.parametrizations.spectral_norm(nn.Linear(3, 2)),
    ).to("sim")  # fmt: skip
    wide, x = nn.DataParallel(model), cf.randn(8, 3)
    before = [b.tolist() for b in model.buffers()]
    wide(x).sum().backward()
    assert [b.tolist() for b in model.buffers()] != before  # the power iteration on the first device lasts
    assert all(p.grad is not None for p in model.parameters())
    wide.eval()
    with utils.parametrize.cached():
        for _ in range(3):
            close(wide(x), model(x.to("sim")))


# -- the functions ------------------------------------------------------------------------------------------------
class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Output:
    loss: cf.Tensor
    hidden: tuple = ()
    name: str = ""


def test_scatter_rebuilds_containers() -> None:
    x = cf.arange(6)
    given = Pair(x, [(x, 1), {"k": x, "none": None}]), collections.defaultdict(list, x=x), collections.OrderedDict(y=())
    parts = scatter(given, SIMS[:3])
    pair, counted, ordered = parts[1]
    assert isinstance(pair, Pair) and pair.a.tolist() == [2, 3] and pair.b[0][1] == 1 and pair.b[1]["none"] is None
    assert counted.default_factory is list and counted["x"].tolist() == [2, 3]
    assert isinstance(ordered, collections.OrderedDict) and ordered == {"y": ()}
    assert pair.a is pair.b[1]["k"] and str(pair.a.device) == "sim:1"
    assert scatter("text", SIMS) == ("text",) * 4


def test_scatter_differentiates_to_any_order() -> None:
    x = cf.randn(5, 2, requires_grad=True)
    wide = cf.randn(5, 2, dtype=cf.float64, requires_grad=True)
    cf.autograd.gradgradcheck(lambda x: gather([p**3 for p in scatter(x, SIMS)], "cpu"), [wide])
    gather(scatter(x, SIMS, dim=1), "cpu", dim=1).sum().backward()
    assert x.grad.tolist() == [[1, 1]] * 5


def test_scatter_refuses() -> None:
    with pytest.raises(ValueError, match="same number of parts along dim 0 for 4 devices, got 3 and 4: their sizes"):
        scatter((cf.ones(8), cf.ones(6)), SIMS)
    with pytest.raises(RuntimeError, match="a 0-d tensor cannot be cut into parts"):
        scatter(cf.tensor(1.0), SIMS)
    with pytest.raises(ValueError, match="scatter: expected at least one device"):
        scatter(cf.ones(2), [])


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_are_cut_by_sequences(enforce_sorted: bool) -> None:
    lengths = [5, 4, 4, 2, 1] if enforce_sorted else [2, 5, 1, 4, 3]
    sequences = [cf.randn(n, 3, requires_grad=True) for n in lengths]
    packed = pack_sequence(sequences, enforce_sorted=enforce_sorted)
    rnn = nn.GRU(3, 4)
    out, h = nn.DataParallel(copy.deepcopy(rnn).to("sim"), SIMS[:2], dim=1)(packed)
    expected, hidden = rnn(packed)
    assert isinstance(out, PackedSequence) and out.batch_sizes.tolist() == packed.batch_sizes.tolist()
    assert (out.sorted_indices is None) == enforce_sorted
    for a, b in zip(pad_packed_sequence(out), pad_packed_sequence(expected)):
        close(a, b)
    close(h, hidden)
    out.data.sum().backward()
    assert all(s.grad is not None for s in sequences)


def test_gather_rebuilds_containers() -> None:
    outs = [Output(cf.tensor(1.0 + i, device=d), (cf.ones(i, 2, device=d), [None]), "n") for i, d in enumerate(SIMS)]
    joined = gather(outs, "sim:1")
    assert joined.loss.tolist() == [1, 2, 3, 4] and joined.hidden[0].shape == (6, 2) and joined.hidden[1] == [None]
    assert joined.name == "n" and str(joined.loss.device) == "sim:1"
    pairs = gather([Pair({"x": cf.ones(1, device=d)}, 3) for d in SIMS], 0)
    assert isinstance(pairs, Pair) and pairs.a["x"].tolist() == [1] * 4 and pairs.b == 3


@pytest.mark.parametrize(
    ("outs", "error", "text"),
    [
        ([{"a": 1}, {"b": 1}], ValueError, "the output of replicas 0 and 1 differ in the keys 'a', 'b'"),
        ([(1, 2), (1,)], ValueError, "the output has 2 entries on replica 0 and 1 on replica 1"),
        ([None, 3], ValueError, "the output of replica 1 is of type int, that of replica 0 of type NoneType"),
        ([{"a": [3]}, {"a": [4]}], TypeError, r"the output\['a'\]\[0\] is of type int and differs between replicas"),
        ([cf.ones(2, 3), cf.ones(2, 4)], RuntimeError, r"has shape \(2, 3\) on replica 0 and \(2, 4\) on replica 1; "
         "they may differ in dim 0 alone. pad_packed_sequence needs total_length="),
        ([], ValueError, "expected at least one output, got none"),
    ],
)  # fmt: skip
def test_gather_refuses(outs: list, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^gather: .*{text}"):
        gather(outs, "cpu")


def test_replicate() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.again, self.b.weight, self.note = self.a, self.a.weight, ["shared"]

        def forward(self, x: cf.Tensor) -> cf.Tensor:
            return self.again(self.b(self.a(x)))

    model = Tied().to("sim")
    copies = replicate(model, SIMS)
    for device, twin in zip(SIMS, copies):
        assert twin.again is twin.a and twin.b.weight is twin.a.weight and twin.note is model.note
        assert [str(p.device) for p in twin.parameters()] == [device]  # here replicas know their parameters
        assert not twin.a.weight.is_leaf and isinstance(twin.a.weight, nn.Parameter)
    assert copies[0].a.weight.array is model.a.weight.array
    x = cf.randn(2, 2)
    model(x.to("sim")).sum().backward()
    expected, model.a.weight.grad = model.a.weight.grad, None
    copies[2](x.to("sim:2")).sum().backward()
    close(model.a.weight.grad, expected)
    assert not any(p.requires_grad for p in replicate(model, SIMS, detach=True)[1].parameters())
    with pytest.raises(ValueError, match="replicate: devices must differ"):
        replicate(model, [1, 1])


def test_sparse_gradients() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    index = cf.tensor([1, 3, 1, 4])
    wide = nn.DataParallel(copy.deepcopy(table).to("sim"))
    wide(index).sum().backward()
    table(index).sum().backward()
    assert wide.module.weight.grad.is_sparse
    close(wide.module.weight.grad.to_dense(), table.weight.grad.to_dense())


def test_second_derivatives_reach_the_module() -> None:
    model = nn.Linear(2, 1)
    x = cf.randn(4, 2)

    def penalty(m: nn.Module, weight: cf.Tensor) -> cf.Tensor:
        (g,) = cf.autograd.grad((m(x) ** 3).sum(), weight, create_graph=True)
        return cf.autograd.grad((g**2).sum(), weight)[0]

    wide = nn.DataParallel(copy.deepcopy(model).to("sim"))
    close(penalty(wide, wide.module.weight), penalty(model, model.weight), 1e-5)


# -- copies that last ---------------------------------------------------------------------------------------------
class Weighing(Seen):
    def forward(self, *args: Any, **kwargs: Any) -> cf.Tensor:
        self.calls.append((self.weight.device, self.weight.array, self.count.array))
        return self.weight.sum()


def test_copies_are_made_when_something_was_written() -> None:
    model = Weighing().to("sim")
    wide = nn.DataParallel(model)

    def ran() -> tuple[list[float], list[int]]:
        model.calls.clear()
        out = wide(cf.ones(4)).tolist()
        return out, [id(array) for _, array, _ in sorted(model.calls, key=lambda c: str(c[0]))]

    kept = list(model.calls)
    first = ran()
    kept += model.calls  # so that no address is used again
    assert ran() == first
    with cf.no_grad():
        model.weight += 1
    second = ran()
    kept += model.calls
    assert second[0] == [4.0] * 4 and not set(second[1][1:]) & set(first[1])
    model.weight.data = cf.ones(2, device="sim") * 5
    assert ran()[0] == [10.0] * 4
    last = sorted(model.calls, key=lambda c: str(c[0]))[2]
    last[1][...] = 7
    versions.written(last[1], "a test")
    assert ran()[0] == [10.0] * 4
    del kept


def test_forward_twice_before_backward() -> None:
    model = nn.Linear(2, 1).to("sim")
    wide = nn.DataParallel(model)
    (wide(cf.ones(4, 2)).sum() + wide(cf.ones(8, 2)).sum()).backward()
    assert model.bias.grad.tolist() == [12.0]


# -- threads ------------------------------------------------------------------------------------------------------
class Failing(nn.Module):
    def __init__(self, error: BaseException, places: tuple[int, ...]) -> None:
        super().__init__()
        self.error, self.places = error, places

    def forward(self, x: cf.Tensor) -> cf.Tensor:
        if x.device.index in self.places:
            raise self.error
        return x


class Awkward(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


@pytest.mark.parametrize(
    ("error", "places", "kind", "text"),
    [
        (ValueError("bad size"), (1, 3), ValueError, "^replica 1 on sim:1: bad size$"),
        (KeyError("x"), (2,), KeyError, "replica 2 on sim:2: 'x'"),
        (Awkward(1, 2), (0,), RuntimeError, "^replica 0 on sim:0: Awkward: 1 and 2$"),
        (SystemExit(3), (3,), SystemExit, "^3$"),
    ],
)
def test_errors_tell_replica_and_device(
    error: BaseException, places: tuple[int, ...], kind: type[BaseException], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        nn.DataParallel(Failing(error, places), device_ids=SIMS)(cf.ones(4))
    assert error in (caught.value, caught.value.__cause__)


def test_state_of_the_calling_thread_is_carried_over() -> None:
    chosen = contextvars.ContextVar("chosen", default=0)

    class State(nn.Module):
        def forward(self, x: cf.Tensor) -> tuple:
            found = (cf.is_grad_enabled(), cf.autograd.is_inference_mode_enabled(), cf.autograd.is_anomaly_enabled(),
                     chosen.get(), np.geterr()["over"])
            places.append((str(backend_for("sim").current()), str(x.device), cf.zeros_like(x).device))
            return (*found, x)

    places: list = []
    wide = nn.DataParallel(State(), device_ids=SIMS)
    assert wide(cf.ones(4))[:4] == (True, False, False, 0)
    assert sorted(places) == [(d, d, cf.Device(d)) for d in SIMS]
    token = chosen.set(5)
    with cf.no_grad(), cf.autograd.detect_anomaly(), np.errstate(over="raise"):
        assert wide(cf.ones(4))[:5] == (False, False, True, 5, "raise")
    with cf.inference_mode():
        assert wide(cf.ones(4))[:2] == (False, True)
    chosen.reset(token)
    with pytest.raises(RuntimeError, match="replica 0 on sim:0: anomaly: sqrt gave NaN"), cf.autograd.detect_anomaly():
        wide.module.forward = lambda x: cf.sqrt(-x)  # type: ignore[method-assign]
        wide(cf.ones(4, requires_grad=True))


def test_replicas_run_at_the_same_time() -> None:
    meeting = threading.Barrier(4, timeout=20)

    class Meets(nn.Module):
        def forward(self, x: cf.Tensor) -> cf.Tensor:
            meeting.wait()
            return x

    assert nn.DataParallel(Meets(), device_ids=SIMS)(cf.ones(4)).tolist() == [1] * 4


def test_ctrl_c_does_not_wait_for_a_replica_that_hangs() -> None:
    released = threading.Event()

    class Hangs(nn.Module):
        def forward(self, x: cf.Tensor) -> cf.Tensor:
            if x.device.index == 2:
                timer.start()
                while not released.wait(0.01):
                    pass
            return x

    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match=r"still running: .*replica 2 on sim:2, at \S+\.py:\d+ in "):
        nn.DataParallel(Hangs(), device_ids=SIMS)(cf.ones(4))
    assert time.monotonic() - begin < 10
    released.set()


def test_parallel_apply() -> None:
    modules = [nn.Identity(), nn.ReLU()]
    x = cf.tensor([-1.0])
    assert [y.item() for y in parallel_apply(modules, [x, (x,)])] == [-1, 0]
    out = parallel_apply([Seen(), Seen()], [(), []], [{"k": 1}, {}], devices=SIMS[:2])
    assert [y.item() for y in out] == [2, 2]
    with pytest.raises(ValueError, match="parallel_apply: expected inputs for 2 modules, got 1"):
        parallel_apply(modules, [x])
    with pytest.raises(ValueError, match="parallel_apply: expected devices for 2 modules, got 3"):
        parallel_apply(modules, [x, x], devices=SIMS[:3])


def test_data_parallel_function() -> None:
    model = nn.Bilinear(2, 3, 2).to("sim")
    a, b = cf.randn(5, 2), cf.randn(5, 3)
    expected = model(a.to("sim"), b.to("sim"))
    close(data_parallel(model, (a, b), [0, 1, 2]), expected)
    close(data_parallel(model, a, output_device=1, module_kwargs={"input2": b}), expected)
    assert data_parallel(Seen().to("sim"), None, [0, 1]).shape == (1,)


def test_backward_follows_the_devices() -> None:
    places: list[tuple[str, str]] = []

    class Note(cf.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: cf.Tensor) -> cf.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: cf.Tensor) -> cf.Tensor:
            places.append((str(backend_for("sim").current()), str(g.device)))
            return g * 2

    class Noting(nn.Module):
        def forward(self, x: cf.Tensor) -> cf.Tensor:
            return Note.apply(x)

    wide = nn.DataParallel(nn.Sequential(nn.Linear(2, 2), Noting()).to("sim"), output_device="cpu")
    with backend_for("sim").on(cf.Device("sim:3")):
        wide(cf.ones(4, 2)).sum().backward()
        assert str(backend_for("sim").current()) == "sim:3" and wide.module[0].bias.grad.device == cf.Device("sim:0")
    assert sorted(places) == [(d, d) for d in SIMS]
    places.clear()
    cf.autograd.grad(wide(cf.ones(4, 2)).sum(), wide.module[0].weight, create_graph=True)
    assert sorted(places) == [(d, d) for d in SIMS]


def test_every_operation_stays_on_the_device_of_its_operands() -> None:
    """Forward with another device than the first as the current one, backward from the first."""
    where, wrong = cf.Device("sim:2"), []
    for info in OP_DB:
        if info.name in HOST_ONLY:
            continue
        for sample in islice(info.each("float32" if "float32" in info.dtypes else info.dtypes[0]), 2):
            moved = moved_sample(sample, str(where))
            leaves = [t for t in moved.tensors() if t.requires_grad]
            with backend_for("sim").on(where):
                results = [r for r in flatten(info.function(*moved.args, **moved.kwargs)) if isinstance(r, cf.Tensor)]
                total = sum((r.float().sum() for r in results if r.requires_grad), cf.zeros((), device=where))
            if info.gradient and leaves and total.requires_grad:
                results += [g for g in cf.autograd.grad(total, leaves, allow_unused=True) if g is not None]
            wrong += [info.id for r in results if moved.tensors() and r.device != where]
    assert not wrong


# -- what a GPU is asked ------------------------------------------------------------------------------------------
def test_cuda_works_where_the_array_is(cupy: StandIn) -> None:  # noqa: F811
    backend = backend_for("cuda")
    assert [str(d) for d in backend.devices()] == ["cuda:0", "cuda:1"] and str(backend.current()) == "cuda:0"
    with cf.cuda.stream(cf.cuda.Stream()):
        there = backend.on(cf.Device("cuda:1"))
        mine = cupy.stream_stack[-1]
    seen: list = []

    def work() -> None:
        with there:
            seen.extend([cupy.current, cupy.stream_stack[-1]])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1, mine] and cupy.current == 0
    backend.follow(array(2, device=1))
    assert cupy.current == 1
    backend.use(cf.Device("cuda:0"))
    assert cupy.current == 0


def test_a_copy_between_gpus_waits_for_both(cupy: StandIn) -> None:  # noqa: F811
    backend = backend_for("cuda")
    x = array(2)
    assert backend.copy_to(x, cf.Device("cuda:0")) is x and not cupy.calls
    y = backend.copy_to(x, cf.Device("cuda:1"))
    assert y.device_index == 1 and cupy.current == 0
    assert [(name, args[0]) for name, args in cupy.calls] == [
        ("event.record", 0), ("stream.wait_event", 100), ("array", 0), ("event.record", 100), ("stream.wait_event", 0)
    ]  # fmt: skip
    waited = [args[1] for name, args in cupy.calls if name == "stream.wait_event"]
    assert waited[0] is not waited[1]
