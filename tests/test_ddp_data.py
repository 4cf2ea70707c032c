"""What belongs to training on parts of a batch: DistributedSampler, and SyncBatchNorm over ranks."""

from __future__ import annotations

import os

import pytest

from cuframe.data import DataLoader, DistributedSampler
from tests.ranks import check_ranks
from tests.test_ddp import START


@pytest.mark.parametrize(("n", "replicas"), [(12, 3), (13, 3), (2, 5), (1, 1), (0, 2)])
def test_every_index_once_and_as_many_for_each_rank(n, replicas):
    for shuffle in (False, True):
        parts = [list(DistributedSampler(range(n), replicas, r, shuffle)) for r in range(replicas)]
        assert {len(p) for p in parts} == {-(-n // replicas)} == {len(DistributedSampler(range(n), replicas, 0))}
        together = [i for row in zip(*parts) for i in row]
        assert sorted(together[:n]) == list(range(n))
        assert together[n:] == (together * 9)[: len(together) - n]  # the first come again
        parts = [list(DistributedSampler(range(n), replicas, r, shuffle, drop_last=True)) for r in range(replicas)]
        assert {len(p) for p in parts} == {n // replicas}
        kept = [i for p in parts for i in p]
        assert len(set(kept)) == len(kept) and set(kept) <= set(range(n))


def test_order_depends_on_seed_and_epoch_alone():
    sampler = DistributedSampler(range(40), num_replicas=2, rank=1, seed=3)
    first = list(sampler)
    assert list(sampler) == first != sorted(first)
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first and list(DistributedSampler(range(40), 2, 1, seed=4)) == second
    sampler.set_epoch(0)
    assert list(sampler) == first
    batches = list(DataLoader(list(range(40)), batch_size=7, sampler=sampler))
    assert [i for b in batches for i in b.tolist()] == first


def test_sampler_errors():
    with pytest.raises(ValueError, match="DistributedSampler: rank must be from 0 to 1, got 2"):
        DistributedSampler(range(4), 2, 2)
    with pytest.raises(RuntimeError, match=r"DistributedSampler: call cuframe\.distributed\.init_process_group"):
        DistributedSampler(range(4))


SYNC = START + """
def main(rank, size):
    dist.init_process_group(timeout=60)
    from cuframe.data import DistributedSampler
    assert list(DistributedSampler(range(2 * size), shuffle=False)) == [rank, size + rank]
    cuts = np.cumsum([0, 3, 1, 4, 0])  # rank 3 has no sample at all
    mine = slice(cuts[rank], cuts[rank + 1])
    for shape, dtype, options in (((3,), "float64", {}), ((3, 2, 2), "float64", {"affine": False}),
                                  ((3, 5), "float32", {"momentum": None}), ((3, 2), "float64", {"bias": False}),
                                  ((3,), "bfloat16", {}), ((3,), "float64", {"track_running_stats": False})):
        kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)]
        stats = "float32" if dtype == "bfloat16" else dtype
        plain = kind(3, dtype=stats, **options)
        if plain.weight is not None:
            with cf.no_grad():
                plain.weight.copy_(cf.tensor([0.5, -1.0, 2.0]))
        sync = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
        tolerance = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 0.05}[dtype]
        rng = np.random.default_rng(0)
        data = cf.tensor(rng.standard_normal((cuts[size], *shape)) * 3 + 50).to(dtype)
        weights = cf.tensor(rng.standard_normal(data.shape)).to(dtype)
        x, y = (data[mine].clone().requires_grad_(), data.clone().requires_grad_())
        ours, theirs = sync(x), plain(y)
        assert ours.dtype == x.dtype
        (ours * weights[mine]).sum().backward()
        (theirs * weights).sum().backward()
        if cuts[rank] < cuts[rank + 1]:
            close(ours, theirs[mine], tolerance)
            close(x.grad, y.grad[mine], tolerance)
        for a, b in zip(sync.parameters(), plain.parameters()):  # each rank has its batch's part
            total = a.grad.clone()
            dist.all_reduce(total)
            close(total, b.grad, 10 * tolerance)
    # running statistics, the same bits on all ranks
    plain, sync = nn.BatchNorm1d(3, dtype="float64"), nn.SyncBatchNorm(3, dtype="float64")
    for step in range(3):
        data = cf.tensor(rng.standard_normal((cuts[size], 3)) + 50)
        plain(data)
        sync(data[mine])
    for a, b in zip(sync.buffers(), plain.buffers()):
        close(a, b, 1e-11)
    same_bits(nn.ParameterList([nn.Parameter(b) for b in (sync.running_mean, sync.running_var)]))
    # second derivatives, through the ranks: of the sum of all ranks' losses
    x, y = data[mine].clone().requires_grad_(), data.clone().requires_grad_()
    for layer, t in ((sync, x), (plain, y)):
        (g,) = cf.autograd.grad((layer(t) ** 3).sum(), t, create_graph=True)
        (g * g).sum().backward()
    if cuts[rank] < cuts[rank + 1]:
        close(x.grad, y.grad[mine], 1e-9)
    # evaluation talks to nobody; a group of one is BatchNorm
    sync.eval()
    if rank == 0:
        sync(data)
    alone = [dist.new_group([r]) for r in range(size)][rank]
    own, twin = nn.SyncBatchNorm(3, process_group=alone, dtype="float64"), nn.BatchNorm1d(3, dtype="float64")
    close(own(data * (1 + rank)), twin(data * (1 + rank)), 0.0)
    # with DistributedDataParallel: training equals that of BatchNorm on the whole batch
    model = DDP(nn.Sequential(nn.Linear(3, 4), nn.SyncBatchNorm(4), nn.ReLU(), nn.Linear(4, 1)))
    whole = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    whole.load_state_dict(model.module.state_dict())
    optimizers = [optim.SGD(m.parameters(), lr=0.1) for m in (model, whole)]
    for step in range(3):
        x = floats(step, 2 * size, 3)
        for m, o, part in ((model, optimizers[0], x[2 * rank : 2 * rank + 2]), (whole, optimizers[1], x)):
            o.zero_grad()
            m(part).square().mean().backward()
            o.step()
    for p, q in zip(model.module.parameters(), whole.parameters()):
        close(p, q, 2e-6)
    dist.destroy_process_group()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="shm needs Linux")
@pytest.mark.parametrize("size", [2, 4])
def test_sync_batch_norm_equals_batch_norm_of_the_whole_batch(size):
    check_ranks(size, SYNC, CUFRAME_CPU_JIT="0")  # to compile takes each rank a second
