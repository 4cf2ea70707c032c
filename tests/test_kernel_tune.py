"""`cuframe kernels tune` without a GPU: the search, the table, and all it launches, in the simulator and for CuPy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import cli
from cuframe.cuda import clusters, tune, tuned
from cuframe.cuda.persistent import GPUS, DeviceFacts, Plan
from cuframe.cuda.tune import Case
from cuframe.gpu import _lanes, rnn
from cuframe.gpu import _rnn_persistent as persistent
from tests.cupy_stand_in import StandIn
from tests.test_cuda_driver import cupy  # noqa: F401


class Model:
    """A GPU as a formula: lines win below 40 blocks, 16 units a block are best, steps cost 2 us or 10."""

    facts = GPUS["H200"]

    def __init__(self) -> None:
        self.now, self.asked = 0.0, 0

    def layer(self, case: Case, plan: Plan) -> float:
        self.now, self.asked = self.now + 1, self.asked + 1
        lines = plan.exchange == "lines"
        return 2 + abs(plan.units - 16) + (plan.blocks if lines else 40) / 10 + (8 - plan.forward.tile) / 100

    def engine(self, engine: str, steps: int) -> float:
        return 30 + 2 * steps if engine == "persistent" else 12 * steps

    def stack(self, chunk: int) -> float:
        return abs(chunk - 33)


def test_search_finds_the_fastest() -> None:
    said: list[str] = []
    chosen = [Case("lstm", "float16", 512, 16, 1), Case("gru", "tf32", 1024, 1, 2), Case("lstm", "float16", 9999, 1, 1)]
    found, left = tune.search(Model(), 100, chosen, say=said.append)
    assert left == 0 and len(said) == 3
    assert found["least_steps"] == 4 and found["chunk_steps"] == 32
    first, second = found["measured"]
    assert (first["exchange"], first["units"], first["tile"]) == ("lines", 16, 0)
    assert (second["hidden"], second["directions"]) == (1024, 2)
    assert first["us"] == 2 + 3.2


def test_candidates_are_all_different_and_fit() -> None:
    for case, ways in ((Case("lstm", "float16", 1024, 16, 1), 2), (Case("gru", "float32", 512, 64, 2), 2),
                       (Case("lstm", "float16", 256, 16, 1), 3)):  # of these, eight blocks hold but the last
        found = tune.candidates(GPUS["H200"], case)
        assert len({plan for plan, _ in found}) == len(found) >= 8
        assert {plan.exchange for plan, _ in found} == set(tuned.EXCHANGES[:ways])
        assert all(plan.blocks * plan.directions <= 132 for plan, _ in found)
        assert len({plan.forward.tile for plan, _ in found}) > 1
    assert tune.candidates(GPUS["T4"], Case("lstm", "tf32", 128, 1, 1)) == []


def test_search_ends_in_time() -> None:
    model = Model()
    found, left = tune.search(model, 50, clock=lambda: model.now)
    assert 45 <= model.asked <= 45 + len(tune.candidates(model.facts, Case("lstm", "float16", 512, 16, 1)))
    assert left > 50 and found["measured"][0]["hidden"] == 512


def test_every_gpu_has_cases() -> None:
    every = list(tune.cases())
    assert len(set(every)) == len(every)
    for facts in GPUS.values():
        assert sum(bool(tune.candidates(facts, case)) for case in every[:21]) >= 10


def write(path: Path, **changed: Any) -> Path:
    found = {"least_steps": 4, "chunk_steps": 16, "exchange": "barrier", "units": 8, "tile": 0, "measured": [
        {"cell": "lstm", "dtype": "float16", "hidden": h, "batch": n, "directions": 1, "exchange": e, "units": u,
         "tile": 0, "us": 1.5} for h, n, e, u in ((512, 16, "lines", 16), (1024, 64, "barrier", 8))]} | changed
    tuned.write(path, tune.report(found, gpu="none"))
    return path


def test_the_nearest_measured_size_decides(tmp_path: Path) -> None:
    table = tuned.read(write(tmp_path / "deep" / "sm_90.json"))
    assert table.least_steps == 4 and table.chunk_steps == 16
    assert table.rnn("lstm", "float16", 600, 16) == ("lines", 16, 0)
    assert table.rnn("lstm", "bfloat16", 1000, 32) == ("barrier", 8, 0)
    default = ("barrier", 8, 0)
    assert table.rnn("lstm", "float16", 16, 16) == default  # nothing like it was measured
    assert table.rnn("gru", "float16", 512, 16) == default
    assert table.rnn("lstm", "float16", 512, 16, 2) == default


def test_the_users_table_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("CUFRAME_CACHE_DIR", str(tmp_path))
    x = cf.zeros(4, 2, 8).to(device).array
    arch = persistent.facts_of(x).arch
    assert tuned.table("sm_999") == tuned.read(cf._paths.kernels_dir() / "tuned" / "default.json")
    write(tuned.tuned_path(arch), exchange="lines", units=3, tile=1, least_steps=3)
    plan = persistent.plan_of("gru", x, 8, 2)
    assert plan is not None and (plan.exchange, plan.units, plan.forward.tile) == ("lines", 3, 1)
    assert rnn._plan("auto", None, "gru", x, 8, 3, 2, True) == plan
    assert rnn._plan("auto", None, "gru", x, 8, 2, 2, True) is None
    # a launch that it names but the size has no room for becomes one that fits
    write(tuned.tuned_path(arch), units=1)
    assert persistent.plan_of("gru", x, 8, 2).blocks <= persistent.multiprocessors(x)  # type: ignore[union-attr]


@pytest.mark.parametrize("changed, message", [
    ({"units": 0}, "units must be an integer from 1 on, got 0"),
    ({"exchange": "pigeons"}, "exchange must be one of barrier, lines, cluster, got 'pigeons'"),
    ({"chunk_steps": True}, "chunk_steps must be an integer from 1 on, got True"),
    ({"measured": [{"cell": "lstm"}]}, "'dtype' is missing"),
    ({"measured": [dict.fromkeys(tuned._ROW, "x")]}, "hidden must be int, got 'x'"),
])  # fmt: skip
def test_a_table_that_is_none(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "sm_90.json"
    with pytest.raises(ValueError, match=message):
        write(path, **changed)
    assert not path.exists()
    path.write_text('{"format": 7}')
    with pytest.raises(ValueError, match=r"sm_90.json is no table of tuned launches: its format is 7, .* tune` writes"):
        tuned.read(path)


def test_the_committed_tables() -> None:
    for path in (cf._paths.kernels_dir() / "tuned").glob("*.json"):
        tuned.read(path)
        assert json.loads(path.read_text())["format"] == tuned.FORMAT


def test_what_is_measured_runs(device: str) -> None:
    """In the simulator: all launches of the real measurement, whose times mean nothing there."""
    x = cf.zeros(1).to(device).array

    def timer(work: Any) -> float:
        start = time.perf_counter()
        work()
        return 1e6 * (time.perf_counter() - start)

    bench = tune.GpuBench(x, timer, size=(8, 2, 40), repeats=1, steps=3)
    chosen = [Case(cell, kind, 16, 3, d) for cell, kind, d in
              (("lstm", "float16", 1), ("gru", "tf32", 2), ("rnn_tanh", "float32", 1))]
    found, left = tune.search(bench, 1000, chosen)
    assert left == 0 and len(found["measured"]) == 3
    assert all(row["us"] > 0 for row in found["measured"])


def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    for device, why in (("sim", "device 'sim:0' is none; times of anything else say nothing about one"),
                        ("abacus", "abacus")):
        assert cli.main(["kernels", "tune", "--device", device]) == 2
        assert why in capsys.readouterr().err
    if not cf.cuda.is_available():
        assert cli.main(["kernels", "tune"]) == 2
        assert "cuframe kernels: tune measures on a GPU: device 'cuda'" in capsys.readouterr().err


def test_the_command(cupy: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """With a stand-in for CuPy, where all take the same time."""
    monkeypatch.setattr(_lanes, "_made", {})
    monkeypatch.setattr(tune, "_HIDDEN", (32, 64))
    tf32: Any = {"types": {"T": ("float32",)}, "constants": {"CELL": (0, 1, 2), "TF32": (True,)}}
    made = [*persistent.kernels(declare=False), *persistent.kernels(declare=False, **tf32)]
    for name, kernel in zip(("_FORWARD", "_BACKWARD", "_FORWARD_TF32", "_BACKWARD_TF32"), made):
        monkeypatch.setattr(persistent, name, kernel)  # what is loaded belongs to one stand-in
    clustered: list[Any] = []
    monkeypatch.setattr(clusters, "launch", lambda *a: clustered.append(a[1]))
    monkeypatch.setattr(tune.GpuBench, "engine", lambda self, engine, steps: steps)
    monkeypatch.setattr(tune.GpuBench, "stack", lambda self, chunk: chunk)
    cupy.cupy.zeros, cupy.cupy.empty = np.zeros, np.empty  # type: ignore[attr-defined]
    monkeypatch.setattr(cf, "zeros", lambda *a, device: cf.Tensor(np.zeros(1, np.float32).view(cupy.cupy.ndarray)))
    assert cli.main(["kernels", "tune", "--seconds", "2"]) == 0
    out = capsys.readouterr().out
    path = tuned.tuned_path("sm_90")
    assert f"wrote {path}" in out and "Stand-in, sm_90: 2 s of measuring" in out
    data = json.loads(path.read_text())
    assert data["gpu"] == "Stand-in" and data["arch"] == "sm_90"
    rows = data["rnn_persistent"]["measured"]
    assert rows and rows[0]["us"] == round(1500 / 128, 3) and rows[0]["hidden"] == 32
    assert data["rnn_persistent"]["least_steps"] == 1 and data["rnn_persistent"]["chunk_steps"] == 16
    assert {n for n in cupy.names() if "aunch" in n} == {"launchCooperativeKernel"} and (8, 1, 1) in clustered
    assert isinstance(tuned.table("sm_90"), tuned.Table) and DeviceFacts("sm_90", 132, 227 * 1024) == GPUS["H200"]
    tuned._table.cache_clear()
