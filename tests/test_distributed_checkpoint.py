"""Checkpoints of a job, and that a job that was killed goes on from them as if nothing had happened."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys

import numpy as np
import pytest

import cuframe as cf
import cuframe.distributed as dist
from cuframe.distributed import checkpoint
from tests.ranks import ROOT, check_ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="shm needs Linux")

RANKS = """
import os, numpy as np, cuframe as cf
from cuframe.distributed import checkpoint

def main(rank, size):
    dist.init_process_group(timeout=30)
    path = PATH
    assert not checkpoint.exists(path)
    state = {"step": 7 + rank, "nan": float("nan"), "both": (1.5, [None, True, b"x", "y"]), 3: cf.tensor([rank, 5]),
             "half": cf.ones(2, dtype="bfloat16"), "losses": np.arange(3.0)}
    checkpoint.save(state, path)
    assert os.path.exists(path) and checkpoint.exists(path)
    dist.barrier()
    if rank == 1:
        os.chdir("/")  # only rank 0 has to see the file
    for device in (None, "sim"):
        found = checkpoint.load(path, device)
        assert found["step"] == 7 and found["nan"] != found["nan"] and found["both"] == (1.5, [None, True, b"x", "y"])
        assert found[3].tolist() == [0, 5] and found["half"].dtype == cf.bfloat16
        assert found["losses"].tolist() == [0, 1, 2]
        assert str(found[3].device) == ("cpu" if device is None else "sim:0")
    def fails(kind, text, job):
        try:
            job()
        except kind as error:
            assert text in str(error), error
        else:
            raise AssertionError("no error")
    before = open(path, "rb").read() if rank == 0 else b""
    fails(FileNotFoundError, "none.safetensors", lambda: checkpoint.load("none.safetensors"))
    fails(OSError, "nothing was changed", lambda: checkpoint.save(state, "no/such/folder/x"))
    fails(cf.CheckpointError, "is of type", lambda: checkpoint.save({"x": print}, path))
    assert rank or open(path, "rb").read() == before
    parts = dist.new_group([1])
    if rank == 1:
        os.chdir(FOLDER)
        checkpoint.save({"own": 1}, "own.safetensors", parts)
        assert checkpoint.load("own.safetensors", group=parts) == {"own": 1}
    dist.destroy_process_group()
"""


def test_one_rank_writes_and_all_read(tmp_path):
    source = f"FOLDER = {str(tmp_path)!r}\nPATH = FOLDER + '/c.safetensors'\n{RANKS}"
    check_ranks(2, source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "own.safetensors"]
    assert cf.load(tmp_path / "c.safetensors")["step"] == 7


def test_needs_a_job(tmp_path):
    with pytest.raises(RuntimeError, match=r"checkpoint.save: call cuframe.distributed.init_process_group\(\) first"):
        checkpoint.save({}, tmp_path / "x")
    dist.init_process_group()
    with pytest.raises(FileNotFoundError) as caught:
        checkpoint.load(tmp_path / "x")
    assert caught.value.errno == errno.ENOENT and not checkpoint.exists(tmp_path / "x")
    dist.destroy_process_group()


def test_only_a_restarted_job_goes_on_and_only_from_its_own_checkpoint(tmp_path, monkeypatch):
    dist.init_process_group()
    path = tmp_path / "c"
    found = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "old")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    checkpoint.save({}, path)
    for run, count in (("old", "0"), ("old", "1"), ("new", "1")):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", run)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        found.append(checkpoint.of_this_job(path))
    assert found == [False, True, False] and not checkpoint.of_this_job(tmp_path / "none")
    dist.destroy_process_group()


# A rank is killed after a random time in every attempt that the second argument allows.
TRAIN = """
import os, random, signal, sys, threading
import numpy as np, cuframe as cf, cuframe.distributed as dist
from cuframe import nn, optim
from cuframe.distributed import checkpoint
from cuframe.nn.parallel import DistributedDataParallel

path, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
dist.init_process_group(timeout=30)
rank, size = dist.get_rank(), dist.get_world_size()
cf.manual_seed(rank)
model = nn.Sequential(nn.Linear(6, 12), nn.Dropout(0.1), nn.Tanh(), nn.Linear(12, 1))
parallel = DistributedDataParallel(model, bucket_cap_mb=0.0001)
optimizer = optim.Adam(model.parameters(), lr=0.01)
cf.manual_seed(0)
losses = []
if checkpoint.exists(path):
    saved = checkpoint.load(path)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    cf.set_rng_state(saved["rng"])
    losses = saved["losses"].tolist()
    print("resumed at", len(losses), flush=True) if rank == 0 else None
if attempt < kills:
    chance = random.Random(f"{seed} {attempt}")
    victim, delay = chance.randrange(size), chance.random() * 0.25
    if rank == victim:
        kill = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
        kill.daemon = True
        kill.start()
steps = 60 if kills == 0 else 10**6
while len(losses) < 60:
    rng = np.random.default_rng([len(losses), rank])
    x = cf.tensor(rng.standard_normal((4, 6)).astype("float32"))
    optimizer.zero_grad()
    loss = (parallel(x) - x.sum(1, keepdim=True)).square().mean()
    loss.backward()
    optimizer.step()
    dist.all_reduce(total := loss.detach().clone(), "avg")
    losses.append(total.item())
    if len(losses) % 5 == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": cf.get_rng_state(),
                 "losses": np.array(losses)}
        checkpoint.save(state, path)
if attempt < kills:
    kill.join() if rank == victim else dist.barrier()  # it was too quick: it dies here
dist.destroy_process_group()
"""


def run_job(tmp_path, name: str, kills: int, seed: int) -> tuple[dict, str]:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    path = tmp_path / name
    command = [sys.executable, "-m", "cuframe", "run", "--nproc-per-node", "2", "--max-restarts", str(kills),
               str(script), str(path), str(kills), str(seed)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "CUFRAME_CPU_JIT": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("died of SIGKILL") == kills, done.stderr
    return cf.load(path), done.stdout


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_resumes_to_the_bit(tmp_path, kills):
    whole, _ = run_job(tmp_path, "whole.safetensors", 0, 0)
    seed = random.randrange(1 << 30)
    parts, out = run_job(tmp_path, "parts.safetensors", kills, seed)
    print("seed", seed, out)
    assert parts["losses"].tobytes() == whole["losses"].tobytes() and len(parts["losses"]) == 60
    for name, value in whole["model"].items():
        np.testing.assert_array_equal(parts["model"][name].array, value.array)
    assert whole["losses"][-1] < 0.5 * whole["losses"][0]
