"""DistributedDataParallel: training on parts of the batch equals training of one process on the whole."""

from __future__ import annotations

import os

import pytest

import cuframe as cf
import cuframe.distributed as dist
from cuframe import nn
from cuframe.nn.parallel import DistributedDataParallel, GradBucket
from cuframe.nn.parallel.buckets import assign
from tests.ranks import check_ranks, run_ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="shm needs Linux")

START = """
import copy
import numpy as np, cuframe as cf
from cuframe import nn, optim
from cuframe.nn import functional as F
from cuframe.nn.parallel import DistributedDataParallel as DDP
from tests.rank_helpers import close, close_gradients, floats, same_bits
"""

MODELS = START + """
class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.out = nn.Embedding(11, 6), nn.LSTM(6, 8), nn.Linear(8, 11)

    def forward(self, ids):  # [N, T]
        return self.out(self.lstm(self.embed(ids.t()))[0].transpose(0, 1))

class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.body = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 11)

    def forward(self, ids):
        return self.out(self.body(self.embed(ids), self.embed(ids)))

def conv():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.Flatten(),
                         nn.Linear(24, 5))

def main(rank, size):
    dist.init_process_group(timeout=60)
    batch = 4
    rng = np.random.default_rng(5)
    for make in (Language, Translator, conv):
        cf.manual_seed(100 * rank)  # every rank begins elsewhere: DDP hands out rank 0's
        model = make()
        model = DDP(model, bucket_cap_mb=0.0005)
        whole = copy.deepcopy(model.module)
        steps = [optim.SGD(m.parameters(), lr=0.2, momentum=0.9) for m in (model, whole)]
        assert len(model._reducer.buckets) > 2, (make, len(model._reducer.buckets))
        for step in range(3):  # before and after the buckets are made anew
            if make is conv:
                x = cf.tensor(rng.standard_normal((batch * size, 1, 8, 8)).astype("float32"))
                y = cf.tensor(rng.integers(0, 5, (batch * size, 1)))
            else:
                x = cf.tensor(rng.integers(0, 11, (batch * size, 5)))
                y = cf.tensor(rng.integers(0, 11, (batch * size, 5)))
            mine = slice(rank * batch, (rank + 1) * batch)
            for m, s, rows in ((model, steps[0], mine), (whole, steps[1], slice(None))):
                s.zero_grad()
                logits = m(x[rows])
                F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y[rows].reshape(-1)).backward()
                s.step()
            same_bits(model.module)
            for (name, p), q in zip(model.module.named_parameters(), whole.parameters()):
                close(p.grad, q.grad, what=(make.__name__, step, name))
                close(p, q, what=(make.__name__, step, name))
        assert model._reducer._rebuilt
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_lstm_transformer_and_conv_net_equal_one_process(size):
    check_ranks(size, MODELS, CUFRAME_CPU_JIT="0")  # to compile takes each rank a second


EXACT = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 8), nn.ReLU(), nn.Linear(8, 2))
    with cf.no_grad():  # small whole numbers: every sum and product is exact in float32
        for p in model.parameters():
            p.copy_(cf.tensor(rng.integers(-2, 3, p.shape).astype("float32")))
    whole = copy.deepcopy(model)
    model = DDP(model, bucket_cap_mb=0.0002)
    for step in range(3):
        x = cf.tensor(rng.integers(-2, 3, (4 * size, 1, 5, 5)).astype("float32"))
        model.zero_grad(); whole.zero_grad()
        (model(x[4 * rank : 4 * rank + 4]).sum() / 4).backward()
        (whole(x).sum() / 4).backward()
        for p, q in zip(model.module.parameters(), whole.parameters()):
            assert p.grad.array.tobytes() == (q.grad.array / np.float32(size)).tobytes()
            assert np.abs(q.grad.array).max() < 1 << 22 and q.grad.array.any()
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [2, 3])
def test_to_the_bit_where_arithmetic_is_exact(size):
    check_ranks(size, EXACT)


OVERLAP = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    layers = [nn.Linear(30, 30) for _ in range(6)]
    model = DDP(nn.Sequential(*layers), bucket_cap_mb=0.003)
    reducer, log = model._reducer, []
    arrived, communicate = reducer.arrived, reducer._communicate
    reducer.arrived = lambda number: (log.append("gradient"), arrived(number))
    reducer._communicate = lambda bucket, background: (log.append(bucket.index()), communicate(bucket, background))
    for step in range(3):
        log.clear()
        model(floats(rank, 4, 30)).sum().backward()
        order = [e for e in log if e != "gradient"]
        assert order == list(range(len(order))) and len(order) > 2, log
        if step:  # the order of gradients is known: all but the last bucket began before the last gradient came
            assert log[-1] == order[-1] and log.index(order[-2]) < len(log) - 2, log
    sizes = [b.buffer().nbytes for b in reducer.buckets]
    assert sizes[-1] <= 3200 and reducer.buckets[-1].is_last() and not reducer.buckets[0].is_last()
    assert [p is q for p, q in zip(reducer.buckets[-1].parameters()[-1:], [layers[0].weight])] == [True] or (
        reducer.buckets[-1].parameters()[-1] is layers[0].bias)
    # gradients are views of the buckets, also after zero_grad in both ways
    for set_to_none in (True, False):
        model.zero_grad(set_to_none)
        model(floats(rank, 4, 30)).sum().backward()
        for bucket in reducer.buckets:
            for p, g in zip(bucket.parameters(), bucket.gradients()):
                assert p.grad is g and np.shares_memory(g.array, bucket.buffer().array)
    large = DDP(nn.Sequential(nn.Linear(100, 300), nn.Linear(300, 100)), bucket_cap_mb=0.1)  # in shared memory
    whole = copy.deepcopy(large.module)
    for step in range(3):
        large.zero_grad(); whole.zero_grad()
        x = floats(step, 2 * size, 100)
        large(x[2 * rank : 2 * rank + 2]).sum().backward()
        whole(x).sum().backward()
        for p, q in zip(large.module.parameters(), whole.parameters()):
            close(p.grad * size, q.grad, 2e-5)
    assert len(large._reducer.buckets) > 1
    dist.destroy_process_group()
"""


def test_averaging_begins_while_backward_runs_and_grads_are_views_of_buckets():
    check_ranks(2, OVERLAP)


MIXED = START + """
class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.to(cf.float64)
        self.c.to(cf.bfloat16)

    def forward(self, x):
        return self.c(self.b(self.a(x).to(cf.float64)).to(cf.bfloat16)).float()

def main(rank, size):
    dist.init_process_group(timeout=60)
    model = Mixed()
    whole = copy.deepcopy(model)
    model = DDP(model)
    whole.load_state_dict(model.module.state_dict())
    assert len({b.buffer().dtype for b in model._reducer.buckets}) == 3
    for step in range(3):
        x = floats(step, 4 * size, 3)
        model.zero_grad(); whole.zero_grad()
        model(x[4 * rank : 4 * rank + 4]).square().mean().backward()
        whole(x).square().mean().backward()
        same_bits(model.module)
        for (name, p), q in zip(model.module.named_parameters(), whole.named_parameters()):
            assert p.grad.dtype == p.dtype
            close(p.grad, q[1].grad, 0.02 if name[0] == "c" else 0.01, name)
    assert len({b.buffer().dtype for b in model._reducer.buckets}) == 3
    dist.destroy_process_group()
"""


def test_mixed_dtypes():
    check_ranks(2, MIXED)


ACCUMULATE = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    model = DDP(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)), bucket_cap_mb=0.0001)
    whole = copy.deepcopy(model.module)
    parts = [floats(s, 2 * size, 3) for s in range(3)]
    mine = slice(2 * rank, 2 * rank + 2)
    for repeat in range(3):
        model.zero_grad(set_to_none=repeat != 1); whole.zero_grad()
        with model.no_sync():
            for x in parts[:2]:
                model(x[mine]).mean().backward()
        before = model.module[0].weight.grad.array.copy()
        model(parts[2][mine]).mean().backward()
        for x in parts:
            whole(x).mean().backward()
        same_bits(model.module)
        close_gradients(model, whole)
        other = cf.tensor(before)
        dist.broadcast(other, 0)
        assert rank == 0 or (other.array != before).any()  # nothing was averaged inside no_sync
    # two backwards of one forward, and two forwards before their backwards: each backward averages
    model.zero_grad(); whole.zero_grad()
    y = model(parts[0][mine]).mean()
    y.backward(retain_graph=True); y.backward()
    a, b = model(parts[1][mine]).mean(), model(parts[2][mine]).mean()
    a.backward(); b.backward()
    (2 * whole(parts[0]).mean() + whole(parts[1]).mean() + whole(parts[2]).mean()).backward()
    close_gradients(model, whole)
    # backward into listed tensors, whose hooks run after the pass
    model.zero_grad(); whole.zero_grad()
    model(parts[0][mine]).mean().backward(inputs=list(model.parameters()))
    whole(parts[0]).mean().backward()
    close_gradients(model, whole)
    # what autograd.grad computes is left alone
    (g,) = cf.autograd.grad(model(parts[0][mine]).mean(), model.module[0].weight)
    other = g.clone()
    dist.broadcast(other, 0)
    assert rank == 0 or (other.array != g.array).any()
    dist.destroy_process_group()
"""


def test_gradient_accumulation_with_no_sync():
    check_ranks(2, ACCUMULATE)


BUFFERS = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    model = DDP(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    single = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    single.load_state_dict(model.module.state_dict())
    for step in range(3):
        x = floats(step, 4 * size, 3)
        model(x[4 * rank : 4 * rank + 4]).sum().backward()
        single(x[:4]).sum()
    model.eval()
    with cf.no_grad():
        model(x)  # begins with rank 0's buffers
    for a, b in zip(model.module.buffers(), single.buffers()):
        assert (a.array == b.array).all()
    loose = DDP(nn.BatchNorm1d(2), broadcast_buffers=False)
    loose(floats(rank, 4, 2)).sum().backward()
    loose(floats(rank, 4, 2)).sum().backward()
    other = loose.module.running_mean.clone()
    dist.broadcast(other, 0)
    assert rank == 0 or (other.array != loose.module.running_mean.array).any()
    # keys as PyTorch's, loading goes through
    assert list(model.state_dict())[:2] == ["module.0.weight", "module.0.bias"]
    model.load_state_dict(model.state_dict())
    dist.destroy_process_group()
"""


def test_buffers_are_rank_0s():
    check_ranks(2, BUFFERS)


DIFFERENT = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 5 if rank == 1 else 4)
    DDP(Model())
"""


def test_ranks_whose_parameters_differ_learn_which():
    done = run_ranks(3, DIFFERENT)
    text = (
        "RuntimeError: DistributedDataParallel: the ranks' parameters differ: number 0 is 'lstm.weight_ih_l0' (float32 "
        "(16, 3)) on rank 0, and 'lstm.weight_ih_l0' (float32 (20, 3)) on rank 1\n"
    )
    assert done.returncode == 3 and done.stderr.count(text) == 3, done.stderr


@pytest.fixture
def alone():
    dist.init_process_group()
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_errors_name_what_is_wrong():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.other = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            return self.head(x)

    model = DistributedDataParallel(Two())
    for _ in range(2):  # the second backward is not confused by the first
        with pytest.raises(
            RuntimeError,
            match="parameters 'other.weight', 'other.bias' received no gradient in this backward; pass find_unused",
        ):
            model(cf.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="no parameter of the ReLU requires a gradient"):
        DistributedDataParallel(nn.ReLU())
    with pytest.raises(TypeError, match="module must be a Module, got function"):
        DistributedDataParallel(lambda x: x)
    with pytest.raises(ValueError, match="device_ids must be None or the one device of the module, cpu, got .'cpu'"):
        DistributedDataParallel(nn.Linear(1, 1), device_ids=["cpu", "sim"])
    with pytest.raises(ValueError, match="bucket_cap_mb must be positive, got 0"):
        DistributedDataParallel(nn.Linear(1, 1), bucket_cap_mb=0)
    sparse = DistributedDataParallel(nn.Embedding(4, 2, sparse=True))
    with pytest.raises(RuntimeError, match="parameter 'weight' has a sparse gradient"):
        sparse(cf.tensor([1])).sum().backward()
    plain = DistributedDataParallel(nn.Linear(2, 1))
    with pytest.raises(RuntimeError, match="gradient of parameter 'weight' is itself recorded"):
        (plain(cf.ones(1, 2)) ** 2).sum().backward(create_graph=True)
    plain.module.double()
    with pytest.raises(RuntimeError, match="parameter '(weight|bias)' was float32 on cpu when it was wrapped, now"):
        plain(cf.ones(1, 2, dtype="float64")).sum().backward()
    checked = DistributedDataParallel(nn.Linear(2, 1), check_reduction=True)
    checked(cf.ones(1, 2)).sum().backward()
    checked(cf.ones(1, 2))
    with pytest.raises(RuntimeError, match="the gradients of the forward before this were not averaged"):
        checked(cf.ones(1, 2))


def test_needs_a_process_group():
    with pytest.raises(RuntimeError, match="DistributedDataParallel: call cuframe.distributed.init_process_group"):
        DistributedDataParallel(nn.Linear(1, 1))


@pytest.mark.usefixtures("alone")
def test_a_wrapper_that_is_gone_leaves_the_model_as_it_was():
    model = nn.Linear(2, 1)
    wrapper = DistributedDataParallel(model)
    wrapper(cf.ones(1, 2)).sum().backward()
    bucket = wrapper._reducer.buckets[0]
    assert isinstance(bucket, GradBucket) and model.weight.grad is not None
    del wrapper, bucket
    model.zero_grad()
    model(cf.ones(1, 2)).sum().backward()
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    again = DistributedDataParallel(model, output_device="sim")
    y = again(cf.ones(1, 2))
    assert str(y.device) == "sim:0"
    y.sum().backward()
    assert model.weight.grad.tolist() == [[2.0, 2.0]]


def test_buckets_are_cut_by_dtype_and_size():
    f, d = ("f", 10), ("d", 10)
    assert assign([f] * 6, range(6), cap=20, first=10) == [[0], [1, 2], [3, 4], [5]]
    assert assign([f] * 6, range(6), cap=30, first=10, last=15) == [[0], [1, 2, 3], [4], [5]]
    assert assign([f, f, ("f", 99)], range(3), cap=30, first=10, last=15) == [[0], [1], [2]]
    assert assign([f, d, f, d], range(4), cap=100, first=100, last=15) == [[1], [0, 2], [3]]
    assert assign([f, d, f, d], [3, 2, 1, 0], cap=20, first=20) == [[3, 1], [2, 0]]
    assert assign([f], [0], cap=1, last=5) == [[0]]
