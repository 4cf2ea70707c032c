"""Datasets, samplers, collation and the loader with its worker processes."""

import os
import signal
import time
from typing import NamedTuple

import numpy as np
import pytest

import cuframe as cf
from cuframe.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    LengthBatchSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    WorkerInfo,
    default_collate,
    get_worker_info,
    pad_collate,
    random_split,
)
from cuframe.random import Generator

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


class Squares(Dataset):
    """x -> (x, x^2), with a way to misbehave at one index."""

    def __init__(self, n=20, misbehave=None, at=None):
        self.n, self.misbehave, self.at = n, misbehave, at

    def __getitem__(self, i):
        if i == self.at:
            self.misbehave()
        return i, float(i * i)

    def __len__(self):
        return self.n


class Shards(IterableDataset):
    """0 .. n-1, shared out among the workers."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        assert info is None or isinstance(info, WorkerInfo)
        return iter(range(self.n) if info is None else range(info.id, self.n, info.num_workers))


def raise_key_error():
    raise KeyError("no such sample")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_long():
    time.sleep(60)


class Draws(Dataset):
    def __getitem__(self, i):
        return np.random.rand(), cf.rand(()).item(), os.getpid()  # noqa: NPY002

    def __len__(self):
        return 8


def test_tensor_dataset_rows_and_errors():
    data = TensorDataset(cf.arange(3), np.eye(3))
    a, b = data[1]
    assert a.item() == 1 and b.tolist() == [0, 1, 0] and len(data) == 3
    with pytest.raises(ValueError, match=r"first dimensions must be equal, got \[3, 4\]"):
        TensorDataset(cf.zeros(3), cf.zeros(4))
    with pytest.raises(ValueError, match="at least one"):
        TensorDataset()


def test_concat_and_subset():
    both = Squares(3) + Squares(2)
    assert [both[i][0] for i in range(5)] == [0, 1, 2, 0, 1] and both[-1][0] == 1
    assert isinstance(both, ConcatDataset) and len(both) == 5
    with pytest.raises(IndexError, match="index 5 is out of range for 5 samples"):
        both[5]
    assert [Subset(both, [4, 0])[i][0] for i in range(2)] == [1, 0]


def test_random_split_covers_all_once():
    parts = random_split(Squares(10), [0.5, 0.3, 0.2], Generator(3))
    assert [len(p) for p in parts] == [5, 3, 2]
    assert sorted(p[i][0] for p in parts for i in range(len(p))) == list(range(10))
    with pytest.raises(ValueError, match="must sum to the 10 samples"):
        random_split(Squares(10), [5, 4])


def test_samplers_give_their_orders():
    data = Squares(10)
    assert list(SequentialSampler(data)) == list(range(10))
    shuffled = list(RandomSampler(data, generator=Generator(1)))
    assert sorted(shuffled) == list(range(10)) and shuffled != list(range(10))
    assert shuffled == list(RandomSampler(data, generator=Generator(1)))
    drawn = list(RandomSampler(data, replacement=True, num_samples=200, generator=Generator(1)))
    assert len(drawn) == 200 and set(drawn) == set(range(10))
    assert len(list(RandomSampler(data, num_samples=25, generator=Generator(1)))) == 25
    assert sorted(SubsetRandomSampler([7, 8, 9], Generator(1))) == [7, 8, 9]
    assert list(BatchSampler(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(range(5), 2, drop_last=True)) == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        BatchSampler(range(5), 0)


def test_weighted_sampler_follows_the_weights():
    drawn = np.array(list(WeightedRandomSampler([1, 0, 3], 8000, generator=Generator(0))))
    counts = np.bincount(drawn, minlength=3)
    assert counts[1] == 0 and abs(counts[2] / 8000 - 0.75) < 0.02
    assert sorted(WeightedRandomSampler([1, 0, 3], 2, replacement=False, generator=Generator(0))) == [0, 2]
    with pytest.raises(ValueError, match="cannot draw 3 different indices from 2"):
        WeightedRandomSampler([1, 0, 3], 3, replacement=False)
    with pytest.raises(ValueError, match="non-negative"):
        WeightedRandomSampler([1, -1], 1)


def test_length_batches_hold_like_lengths():
    lengths = Generator(5).randint(1, 100, (1000,))
    sampler = LengthBatchSampler(lengths, batch_size=16, pool=20, generator=Generator(2))
    batches = list(sampler)
    assert sorted(i for b in batches for i in b) == list(range(1000)) and len(batches) == len(sampler)
    spread = np.mean([np.ptp(lengths[b]) for b in batches])
    assert spread < 10  # random batches of 16 spread over more than 80
    assert batches != list(sampler)  # another order at the next pass
    assert len(list(LengthBatchSampler(lengths, batch_size=16, drop_last=True))) == 1000 // 16


def test_length_batches_by_tokens():
    lengths = Generator(5).randint(1, 100, (500,))
    batches = list(LengthBatchSampler(lengths, max_tokens=400, generator=Generator(2)))
    assert sorted(i for b in batches for i in b) == list(range(500))
    assert max(len(b) * lengths[b].max() for b in batches) <= 400
    with pytest.raises(ValueError, match="sample 1 has length 9, above max_tokens 8"):
        LengthBatchSampler([3, 9], max_tokens=8)
    with pytest.raises(ValueError, match="either batch_size or max_tokens"):
        LengthBatchSampler([3, 9])


class Pair(NamedTuple):
    a: object
    b: object


def test_collate_keeps_structure():
    batch = default_collate([{"x": np.ones(2), "y": (1, "s", None)}, {"x": np.zeros(2), "y": (2, "t", None)}])
    assert batch["x"].shape == (2, 2) and batch["y"][0].tolist() == [1, 2]
    assert batch["y"][1:] == (["s", "t"], [None, None])
    pair = default_collate([Pair(True, 1.0), Pair(False, 2.0)])
    assert isinstance(pair, Pair) and pair.a.dtype == cf.bool_ and pair.b.dtype == cf.float32
    with pytest.raises(ValueError, match=r"sample 0 has shape \(2,\) and sample 1 has \(3,\); pad_collate"):
        default_collate([np.ones(2), np.ones(3)])
    with pytest.raises(TypeError, match="cannot batch object"):
        default_collate([object(), object()])
    with pytest.raises(ValueError, match="batch is empty"):
        default_collate([])


def test_pad_collate_pads_to_the_longest():
    (x, n), y = pad_collate(padding_value=-1)([(np.arange(2), 5), (np.arange(0), 6), (np.arange(3), 7)])
    assert x.tolist() == [[0, 1, -1], [-1, -1, -1], [0, 1, 2]] and n.tolist() == [2, 0, 3] and y.tolist() == [5, 6, 7]
    x, n = pad_collate(batch_first=False)([np.ones((2, 4)), np.ones((1, 4))])
    assert x.shape == (2, 2, 4) and x.array[1, 1].sum() == 0
    with pytest.raises(ValueError, match="first dimension only"):
        pad_collate()([np.ones((2, 4)), np.ones((2, 3))])


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_order_and_sizes(workers):
    loader = DataLoader(Squares(), batch_size=6, num_workers=workers)
    batches = [x.tolist() for x, _ in loader]
    assert batches == [list(range(6)), list(range(6, 12)), list(range(12, 18)), [18, 19]] and len(loader) == 4
    assert len(list(DataLoader(Squares(), batch_size=6, drop_last=True, num_workers=workers))) == 3


def test_shuffling_follows_the_seed_and_not_the_workers():
    orders = []
    for workers in (0, 0, 2):
        cf.manual_seed(11)
        orders.append([i for x, _ in DataLoader(Squares(), 4, shuffle=True, num_workers=workers) for i in x.tolist()])
    assert orders[0] == orders[1] == orders[2] and sorted(orders[0]) == list(range(20))
    again = DataLoader(Squares(), 20, shuffle=True)
    assert next(iter(again))[0].tolist() != next(iter(again))[0].tolist()


def test_no_batch_size_passes_samples_through():
    assert list(DataLoader(Squares(3), batch_size=None)) == [(0, 0.0), (1, 1.0), (2, 4.0)]


@pytest.mark.parametrize("workers", [0, 2])
def test_iterable_dataset_streams(workers):
    loader = DataLoader(Shards(10), batch_size=3, num_workers=workers)
    seen = [x.tolist() for x in loader]
    assert sorted(i for b in seen for i in b) == list(range(10))
    if workers:
        assert seen[0] == [0, 2, 4] and seen[1] == [1, 3, 5]
    with pytest.raises(ValueError, match="sets its own order"):
        DataLoader(Shards(10), shuffle=True)


def test_worker_randomness_is_seeded_and_differs():
    def run():
        cf.manual_seed(5)
        return [(a, b) for a, b, _ in DataLoader(Draws(), batch_size=None, num_workers=2)]

    first = run()
    assert first == run()
    assert len(set(first)) == 8


def test_persistent_workers_are_reused():
    loader = DataLoader(Draws(), batch_size=None, num_workers=2, persistent_workers=True)
    pids = [{pid for *_, pid in loader} for _ in range(2)]
    assert pids[0] == pids[1] and len(pids[0]) == 2 and os.getpid() not in pids[0]
    next(iter(loader))  # a pass left early
    assert len(list(loader)) == 8


def test_error_in_a_worker_carries_its_traceback():
    with pytest.raises(RuntimeError, match=r"KeyError in worker 0 \(pid \d+\):(.|\n)*no such sample"):
        list(DataLoader(Squares(20, raise_key_error, 9), batch_size=4, num_workers=2))


def test_a_killed_worker_is_named_at_once():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"worker 1 \(pid \d+\) died of SIGKILL"):
        list(DataLoader(Squares(20, die, 5), batch_size=4, num_workers=2))
    assert time.monotonic() - start < 5


def test_a_slow_worker_times_out():
    with pytest.raises(RuntimeError, match=r"worker 0 \(pid \d+\) gave no batch in 0.5 s"):
        list(DataLoader(Squares(20, sleep_long, 1), batch_size=4, num_workers=2, timeout=0.5))


def test_leaving_early_ends_the_workers():
    iterator = iter(DataLoader(Draws(), batch_size=None, num_workers=2))
    pids = {next(iterator)[2], next(iterator)[2]}
    iterator.close()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}") and "Z" not in open(f"/proc/{pid}/stat").read()]


def test_worker_init_fn_failure_is_reported():
    def broken(worker):
        raise ValueError(f"cannot open shard {worker}")

    with pytest.raises(RuntimeError, match="cannot open shard 0"):
        list(DataLoader(Squares(), num_workers=1, worker_init_fn=broken))


def test_spawned_workers():
    loader = DataLoader(Squares(4), batch_size=2, num_workers=1, multiprocessing_context="spawn")
    assert [x.tolist() for x, _ in loader] == [[0, 1], [2, 3]]


def test_pinning_without_cuda_changes_nothing():
    assert [x.tolist() for x, _ in DataLoader(Squares(4), batch_size=2, pin_memory=True)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer or None, got 0"),
        ({"num_workers": -1}, "num_workers must not be negative"),
        ({"sampler": [0], "shuffle": True}, "sampler and shuffle exclude"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler excludes"),
        ({"batch_size": None, "drop_last": True}, "drop_last needs a batch_size"),
        ({"prefetch_factor": 2}, "prefetch_factor must be positive and needs num_workers"),
        ({"persistent_workers": True}, "persistent_workers needs num_workers"),
        ({"timeout": -1}, "timeout must not be negative"),
    ],
)
def test_loader_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        DataLoader(Squares(), **options)


def test_pytorchs_place():
    from cuframe.utils.data import DataLoader as There

    assert There is cf.data.DataLoader
    assert cf.utils.data.DataLoader is There
