"""DistributedDataParallel: unused parameters, static graphs, uneven inputs, delayed averaging, communication hooks."""

from __future__ import annotations

import os

import pytest

import cuframe as cf
import cuframe.distributed as dist
from cuframe import nn
from cuframe.nn.parallel import DistributedDataParallel, hooks
from tests.ranks import check_ranks, run_ranks
from tests.test_ddp import START

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="shm needs Linux")

UNUSED = START + """
class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1) for _ in range(4)])

    def forward(self, x, which):
        h = self.body(x)
        return sum(self.heads[i](h) for i in which)

def main(rank, size):
    dist.init_process_group(timeout=60)
    model = DDP(Heads(), bucket_cap_mb=0.0001, find_unused_parameters=True)
    whole = copy.deepcopy(model.module)
    for step in range(3):
        model.zero_grad(); whole.zero_grad()
        uses = [[0], [0, 1], [1, 3]][:size]  # head 2 is used by none
        x = floats(step, 2 * size, 3)
        model(x[2 * rank : 2 * rank + 2], uses[rank]).mean().backward()
        sum(whole(x[2 * r : 2 * r + 2], uses[r]).mean() / size for r in range(size)).backward()
        assert model.module.heads[2].weight.grad is None and whole.heads[2].weight.grad is None
        same_bits(model.module)
        close_gradients(model, whole)
    # used in no_sync only: still averaged by the next backward
    model.zero_grad(); whole.zero_grad()
    with model.no_sync():
        model(x[2 * rank : 2 * rank + 2], [2]).mean().backward()
    model(x[2 * rank : 2 * rank + 2], [0]).mean().backward()
    (sum(whole(x[2 * r : 2 * r + 2], [2]).mean() + whole(x[2 * r : 2 * r + 2], [0]).mean() for r in range(size))
     / size).backward()
    same_bits(model.module)
    close_gradients(model, whole)
    # two forwards, with different heads, before their common backward
    model.zero_grad()
    (model(x, [0]).mean() + model(x, [1]).mean()).backward()
    assert model.module.heads[1].weight.grad is not None and model.module.heads[3].weight.grad is None
    # a loss that leaves out what the output leads to
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)
        def forward(self, x):
            return {"a": self.a(x), "b": [self.b(x)]}
    two = DDP(Two(), find_unused_parameters=True)
    out = two(x)
    out["a"].mean().backward()
    assert two.module.a.weight.grad is not None and two.module.b.weight.grad is None
    out["b"][0].mean().backward()
    assert two.module.b.weight.grad is not None
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [2, 3])
def test_unused_parameters(size):
    check_ranks(size, UNUSED)


STATIC = START + """
class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x, both):
        return self.b(self.a(x)) if both else self.a(x)

def main(rank, size):
    dist.init_process_group(timeout=60)
    model = DDP(Part(), static_graph=True, bucket_cap_mb=0.00005)
    whole = copy.deepcopy(model.module)
    for step in range(3):
        x = floats(step, 4, 3)
        model.zero_grad(); whole.zero_grad()
        model(x[2 * rank : 2 * rank + 2], rank == 0).mean().backward()
        ((whole(x[:2], True).mean() + whole(x[2:], False).mean()) / 2).backward()
        same_bits(model.module)
        close_gradients(model, whole)
        assert all((q.grad is None) == name.startswith("c") for name, q in whole.named_parameters())
    try:
        model(x, True).mean().backward()
        raise AssertionError("no error")
    except dist.DistributedError as error:
        assert rank == 0 and "rank 1" in str(error)
    except RuntimeError as error:
        assert rank == 1 and "with static_graph=True every backward must use the same parameters" in str(error)
        assert "parameter 'b." in str(error)
    dist.destroy_process_group()
"""


def test_static_graph():
    check_ranks(2, STATIC)


JOIN = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    counts = [3, 1, 5][:size]
    batches = [[floats(10 * r + i, 2, 3) for i in range(counts[r])] for r in range(size)]
    for by_all, extra in ((True, {}), (False, {}), (True, {"find_unused_parameters": True})):
        # BatchNorm without a gradient that depends on the batch: only its buffers are of interest
        model = DDP(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), bucket_cap_mb=0.0001, **extra)
        model.module.register_buffer("steps", cf.zeros(1))
        whole = copy.deepcopy(model.module)
        a, b = (optim.SGD(m.parameters(), lr=0.5) for m in (model, whole))
        with model.join(divide_by_initial_world_size=by_all):
            for i, x in enumerate(batches[rank]):
                a.zero_grad()
                if i == 0:
                    with model.no_sync():
                        model(x).mean().backward()
                else:
                    model.module.steps += 1
                    model(x).mean().backward()
                    a.step()
        for i in range(1, max(counts)):
            b.zero_grad()
            present = [r for r in range(size) if i < counts[r]]
            for r in present:
                (whole(batches[r][i]).mean() / (size if by_all else len(present))).backward()
            b.step()
        for p, q in zip(model.module.parameters(), whole.parameters()):
            close(p, q, 2e-6)
        assert model.module.steps.item() == max(counts) - 1
    # a rank that has nothing at all; evaluation in between
    model = DDP(nn.BatchNorm1d(3))
    with model.join():
        for x in batches[rank][: 0 if rank == 1 else 2]:
            model(x).sum().backward()
            with cf.no_grad():
                model(x)
    same_bits(model.module)
    # even inputs, and not enabled
    for enable in (True, False):
        with model.join(enable=enable):
            for i in range(2):
                model(batches[rank][0]).sum().backward()
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("size", [2, 3])
def test_uneven_inputs(size):
    check_ranks(size, JOIN)


THROW = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    model = DDP(nn.Linear(3, 1))
    with model.join(throw_on_early_termination=True):
        for i in range(1 + rank):
            model(cf.ones(2, 3)).sum().backward()
"""


def test_uneven_inputs_that_are_not_allowed():
    done = run_ranks(3, THROW)
    text = "RuntimeError: join: rank 0 ran out of inputs before the others (throw_on_early_termination)"
    assert done.returncode == 3 and done.stderr.count(text) == 3, done.stderr


HOOKS = START + """
from cuframe.nn.parallel import hooks

def train(hook, state, steps=3, cap=0.0004):
    cf.manual_seed(0)
    model = DDP(nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16)), bucket_cap_mb=cap)
    if hook:
        model.register_comm_hook(state, hook)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        x = floats(100 * step + dist.get_rank(), 8, 16)
        optimizer.zero_grad()
        loss = (model(x) - x).square().mean()
        loss.backward()
        optimizer.step()
    same_bits(model.module)
    return model, loss.item()

def main(rank, size):
    dist.init_process_group(timeout=60)
    exact, _ = train(None, None)
    plain, _ = train(hooks.allreduce_hook, None)
    for p, q in zip(exact.parameters(), plain.parameters()):
        assert p.array.tobytes() == q.array.tobytes()
    for hook, tolerance in ((hooks.fp16_compress_hook, 1e-4), (hooks.bf16_compress_hook, 1e-3)):
        close_, _ = train(hook, None)
        differ = False
        for p, q in zip(exact.parameters(), close_.parameters()):
            close(p, q, tolerance)
            differ |= p.array.tobytes() != q.array.tobytes()
        assert differ

    def doubling(state, bucket):
        state.append(bucket.index())
        assert [g.shape for g in bucket.gradients()] == [p.shape for p in bucket.parameters()]
        work = dist.all_reduce(bucket.buffer(), "sum", async_op=True)
        return hooks.Future(lambda: (work.wait(), bucket.buffer())[1]).then(lambda f: f.value() * 2)
    seen = []
    model = DDP(nn.Linear(2, 1))
    model.register_comm_hook(seen, doubling)
    model(cf.full((1, 2), 1.0 + rank)).sum().backward()
    assert seen == [0] and model.module.weight.grad.tolist() == [[2.0 * sum(range(1, size + 1))] * 2]

    # PowerSGD: a full rank loses nothing, a low one sends less, and its errors are fed back
    full = hooks.PowerSGDState(None, matrix_approximation_rank=16, start_powerSGD_iter=1, min_compression_rate=0.1)
    model, _ = train(hooks.powerSGD_hook, full)
    for p, q in zip(exact.parameters(), model.parameters()):
        close(p, q, 1e-5)
    thin = hooks.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=1)
    model, loss = train(hooks.powerSGD_hook, thin, steps=40)
    _, best = train(None, None, steps=40)
    assert any(error.any() for error in thin.error_dict.values())
    assert loss < 1.3 * best and loss < 0.9, (loss, best)
    dist.destroy_process_group()
"""


def test_communication_hooks():
    check_ranks(2, HOOKS)


DELAY = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])
    last = list(net[3].named_parameters(prefix="3"))
    model = DDP(net, bucket_cap_mb=0.00005, delay_all_reduce_named_params=last, param_to_hook_all_reduce=net[1].weight)
    whole = copy.deepcopy(net)
    reducer, log = model._reducer, []
    communicate = reducer._communicate
    reducer._communicate = lambda bucket, late: (log.append(bucket), communicate(bucket, late))
    for step in range(3):
        log.clear()
        x = floats(step, 2 * size, 4)
        model.zero_grad(); whole.zero_grad()
        model(x[2 * rank : 2 * rank + 2]).mean().backward()
        whole(x).mean().backward()
        assert {id(p) for p in log[-1].parameters() + log[-2].parameters()} == {id(p) for _, p in last}
        close_gradients(model, whole)
    dist.destroy_process_group()
"""


def test_delayed_parameters_come_last():
    check_ranks(2, DELAY)


def test_errors():
    dist.init_process_group()
    net = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="delay_all_reduce_named_params and param_to_hook_all_reduce must be given"):
        DistributedDataParallel(net, param_to_hook_all_reduce=net.weight)
    with pytest.raises(ValueError, match="'other' is no such parameter of the module"):
        DistributedDataParallel(
            net, delay_all_reduce_named_params=[("other", net.weight)], param_to_hook_all_reduce=net.weight
        )
    with pytest.raises(ValueError, match="param_to_hook_all_reduce must be a parameter of the module"):
        DistributedDataParallel(
            net, delay_all_reduce_named_params=[("weight", net.weight)], param_to_hook_all_reduce=nn.Linear(1, 1).weight
        )
    model = DistributedDataParallel(net)
    with pytest.raises(TypeError, match="register_comm_hook: hook must be callable, got int"):
        model.register_comm_hook(None, 3)
    model.register_comm_hook(None, hooks.bf16_compress_hook)
    with pytest.raises(RuntimeError, match="register_comm_hook: there is a hook already"):
        model.register_comm_hook(None, hooks.allreduce_hook)
    model(cf.full((1, 2), 1 / 3)).sum().backward()
    assert net.weight.grad.tolist() == [[0.333984375] * 2]
    with pytest.raises(ValueError, match="matrix_approximation_rank must be at least 1, got 0"):
        hooks.PowerSGDState(None, matrix_approximation_rank=0)
    dist.destroy_process_group()
