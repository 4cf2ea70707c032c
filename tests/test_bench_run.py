"""`cuframe bench run`: rows of cases, going on after an end of any kind, and the CUDA clock on a stand-in for CuPy."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.bench import collectives, machine, resources, run
from cuframe.bench.case import Case, Family, Side, Work, host_arrays, moves, passes
from cuframe.bench.clocks import DeviceClock, HostClock, last_cache, methods
from cuframe.bench.collectives import CollectiveCase
from cuframe.bench.families import FAMILIES, family
from cuframe.bench.measure import Session, difference, rows_of, sample
from cuframe.bench.results import BadResults, Results, problems, read
from cuframe.bench.selection import Chosen
from cuframe.bench.statistics import noted
from cuframe.cli import main
from tests.cupy_stand_in import StandIn

SMALL = replace(family("softmax"), cpu=((4, 8),), cuda=((4, 8),), dtypes=("float32",))


@pytest.fixture(autouse=True)
def _wide_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("cuframe.bench.clocks._PAUSE", 0)
    # pytest keeps so many objects that to look through them takes longer than all else
    monkeypatch.setattr("cuframe.bench.measure.quiet_collector", contextlib.nullcontext)


def session(**more: Any) -> Session:
    clock = HostClock()
    clock.rounds = 3  # type: ignore[misc]
    return Session("cpu", "cpu", clock, cold=False, seconds=1e-4, copy=1e10, products={"float32": 1e11}, **more)


def small(name: str, build: Callable[..., Work] = SMALL.build, sizes: int = 1) -> list[Case]:
    """Cases of a family, each with forward and training."""
    made = replace(SMALL, name=name, build=build, cpu=tuple((4, 8 + i) for i in range(sizes)))
    return made.cases("cpu")


# -- rows -------------------------------------------------------------------------------------------------------------
def test_rows_of_a_case() -> None:
    rows = list(rows_of(SMALL.cases("cpu")[0], session()))
    assert [r["key"] for r in rows] == ["softmax N4 C8 float32 forward", "softmax N4 C8 float32 training"]
    first = json.loads(json.dumps(rows[0]))
    assert problems({"facts": {}, "started": "", "rows": rows}) == []
    assert first["sizes"] == {"N": 4, "C": 8} and first["figure"] == "warm" and first["baseline"] is None
    ours = first["us"]["cuframe"]["warm"]
    assert 0 < ours["p5"] <= ours["median"] <= ours["p95"] and len(first["samples_us"]["cuframe"]) == 3
    assert (first["bytes"], rows[1]["bytes"]) == (4 * 8 * 4 * 2, 4 * 8 * 4 * 5)
    assert first["of_roofline"] == pytest.approx(256 / 1e10 * 1e6 / ours["median"], abs=1e-3)
    assert first["bound"] == "memory"
    assert first["error"]["against"] == "float64 on the CPU" and first["error"]["value"] < 1e-6 and first["within"]
    assert first["aim"] == 1.0


def test_wrong_results_are_seen() -> None:
    def build(side: Side, rows: int, size: int, variant: str = "") -> Work:
        x = side.floats(rows, size)
        return Work(lambda: x * (1.001 if side.dtype == "float32" else 1.0), [x])

    rows = list(rows_of(small("wrong", build)[0], session()))
    assert [r["within"] for r in rows] == [False, False] and rows[0]["error"]["value"] == pytest.approx(1e-3, rel=0.1)


def test_difference_is_relative_to_the_largest() -> None:
    a, b = cf.tensor([1.0, 200.0]), cf.tensor([1.0, 202.0])
    assert difference(a, b) == pytest.approx(2 / 202)
    assert difference((a, a), (a, a)) == 0
    assert difference(a, cf.tensor([1.0])) == difference(a, cf.tensor([1.0, float("nan")])) == float("inf")
    assert host_arrays(a)[0].dtype == np.float64


def test_known_rows_are_left_out() -> None:
    case = SMALL.cases("cpu")[0]
    assert [r["mode"] for r in rows_of(case, session(), {"softmax N4 C8 float32 forward": {}})] == ["training"]


def test_contestants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = HostClock()
    monkeypatch.setattr("cuframe.bench.clocks._MOST_CALLS", 1)
    given = {n: ("cuframe", lambda n=n: calls.append(n)) for n in "ab"}
    times, host = sample(given, clock, ("warm",), 1e-6)  # type: ignore[arg-type]
    turns = "".join(calls[8:])  # the first ones found out how long a call takes
    rounds = len(times["a"]["warm"])
    assert turns == ("aabbbbaa" * rounds)[: 4 * rounds] and rounds >= 5 and set(host) == {"a", "b"}


def test_rounds_end_when_calls_take_longer_than_they_did() -> None:
    slow = iter([0.0] * 4 + [0.02] * 100)
    times, _ = sample({"a": ("cuframe", lambda: time.sleep(next(slow)))}, HostClock(), ("warm",), 1e-3)
    assert len(times["a"]["warm"]) == 5


@pytest.mark.parametrize("chosen", FAMILIES, ids=lambda f: f.name)
def test_families_are_sound(chosen: Family) -> None:
    """Every one builds, agrees with its float64 self, and has limits that make sense."""
    case = Case(chosen, chosen.small, "float32")
    assert (chosen.cpu or chosen.cuda) and len(chosen.small) == len(chosen.dims) and "float32" in chosen.small_dtypes
    ours = passes(chosen.build(Side(cf, "cpu", "float32"), *chosen.small), cf)
    right = passes(chosen.build(Side(cf, "cpu", "float64"), *chosen.small), cf)
    for mode in ours:
        if chosen.same:
            assert difference(ours[mode](), right[mode]()) <= chosen.tolerance["float32"], mode
        assert case.traffic(mode) >= 0 and case.flops(mode) >= 0
    for sizes in (*chosen.cpu, *chosen.cuda):
        assert len(sizes) == len(chosen.dims)
        assert chosen.traffic(4, *sizes)[0] <= chosen.traffic(4, *sizes)[1]


@pytest.mark.parametrize(("kind", "figure", "cores", "disturbed"), [
    ("cpu", "warm", 2, True), ("cpu", "warm", 1, True), ("cpu", "process", 2, True), ("cpu", "process", 1, False),
    ("cuda", "cold", 8, False), ("cuda", "wall", 8, True)])
def test_what_others_disturb(kind: str, figure: str, cores: int, disturbed: bool,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    noise = {"steal": 0.0, "others": 0.9, "much": True, "warning": "90% taken by other programs"}
    monkeypatch.setattr(machine, "noise", lambda before, after: dict(noise))
    timed = session()
    timed.kind = kind
    timed.clock = HostClock("process" if figure == "process" else "wall")
    timed.clock.figure = lambda kinds, wall: figure  # type: ignore[method-assign]
    timed.clock.kinds = lambda *_: ("warm" if figure == "process" else figure,)  # type: ignore[method-assign]
    found = list(rows_of(SMALL.cases("cpu")[0], timed))
    assert [("warning" in r["noise"], r["noise"]["much"]) for r in found] == [(disturbed, disturbed)] * 2


def test_a_disturbed_row_says_so() -> None:
    noise = {"steal": 0.2, "others": 0.0, "much": True, "warning": "20% stolen by the hypervisor"}
    assert noted({"baseline": "torch", "verdict": "faster"}, noise)["verdict"] == "disturbed"
    assert noted({"baseline": "torch", "verdict": "faster"}, {**noise, "much": False})["verdict"] == "faster"
    assert noted({"baseline": None}, noise) == {"baseline": None, "noise": noise}
    assert noted({"baseline": None}, {}) == {"baseline": None}


def test_moves() -> None:
    assert moves(2, 3)(4, 10, 10) == (800, 2000)


# -- a run ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "facts_of", lambda s: {"device": "cpu", "cpu": "C", "threads": 1, "timer": "wall"})


def options(path: Path | None = None, **more: Any) -> run.Options:
    return run.Options("cpu", path=path, **more)


def test_a_run_goes_on_where_it_stopped(facts: None, tmp_path: Path) -> None:
    path, count = tmp_path / "r.json", [0]

    def build(side: Side, *sizes: int, variant: str = "") -> Work:
        count[0] += 1
        return SMALL.build(side, *sizes)

    cases = small("a", build) + small("b", build)
    assert run.go(Chosen(cases[:1], []), session(), options(path)).left == []
    data = json.loads(path.read_text())
    assert len(data["rows"]) == 2 and count == [2] and data["peaks"]["copy"] == 1e10  # itself and its reference
    data["rows"].pop()  # the process ended between forward and training
    path.write_text(json.dumps(data))
    run.go(Chosen(cases, []), session(), options(path))
    assert [r["key"] for r in read(path)["rows"]] == [
        f"{n} N4 C8 float32 {m}" for n in "ab" for m in ("forward", "training")]
    before = path.read_text()
    assert count == [6]
    run.go(Chosen(cases, []), session(), options(path))
    assert count == [6] and json.loads(path.read_text()) == json.loads(before)


def test_with_a_budget_first_sizes_come_first(facts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = small("a", sizes=2) + small("b", sizes=2)
    order: list[str] = []
    run.go(Chosen(cases, []), session(), options(budget=60.0), lambda name, done, total: order.append(name))
    assert order == [f"{n} N4 C{c} float32" for c in (8, 9) for n in "ab"]
    monkeypatch.setattr(machine, "cores", lambda: 2)
    found = run.go(Chosen(cases, ["all_reduce"]), session(), options(budget=1e-9))
    assert found.left == ["a N4 C8 float32", "b N4 C8 float32", "collectives", "a N4 C9 float32", "b N4 C9 float32"]
    assert found.results.rows == [] and found.notes == []
    monkeypatch.setattr(machine, "cores", lambda: 1)
    found = run.go(Chosen([], ["all_reduce"]), session(), options())
    assert found.notes == ["collectives left out: 2 ranks would share 1 core(s)"] and found.results.rows == []
    order.clear()
    run.go(Chosen(cases, []), session(), options(), lambda name, done, total: order.append(name))
    assert order == [c.key for c in cases]


def test_an_interrupt_keeps_what_is_measured(facts: None, tmp_path: Path) -> None:
    def build(side: Side, *sizes: int, variant: str = "") -> Work:
        raise KeyboardInterrupt

    path = tmp_path / "r.json"
    found = run.go(Chosen(small("a") + small("b", build) + small("c"), []), session(), options(path))
    assert found.stopped and [r["mode"] for r in found.results.rows] == ["forward", "training"]
    assert "running" not in read(path)
    after = run.go(Chosen(small("a") + small("b") + small("c"), []), session(), options(path))
    assert not after.stopped and len(after.results.rows) == 6 and after.failed == 0


def test_what_killed_the_process_is_not_tried_again(facts: None, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results = Results.open(path, device="cpu", cpu="C", threads=1, timer="wall")
    results.begin("a N4 C8 float32")
    run.go(Chosen(small("a") + small("b"), []), session(), options(path))
    rows = read(path)["rows"]
    assert rows[0] == {"key": "a N4 C8 float32 error", "case": "a N4 C8 float32",
                       "error_text": "the process ended within it"} and len(rows) == 3
    run.go(Chosen(small("a") + small("b"), []), session(), options(path, retry=True))
    assert [r["key"][0] for r in read(path)["rows"]] == ["b", "b", "a", "a"]


def test_an_error_is_a_row(facts: None) -> None:
    def build(side: Side, *sizes: int, variant: str = "") -> Work:
        raise MemoryError("no")

    found = run.go(Chosen(small("a", build) + small("b"), []), session(), options())
    assert found.failed == 1 and [r.get("error_text") for r in found.results.rows] == ["MemoryError: no", None, None]


def test_after_an_error_of_the_device_nothing_more_is_asked_of_it(facts: None, capsys: pytest.CaptureFixture) -> None:
    def build(side: Side, *sizes: int, variant: str = "") -> Work:
        raise RuntimeError("illegal address")

    broken = session()
    broken.clock.turn = lambda: 1 / 0  # type: ignore[method-assign]
    found = run.go(Chosen(small("a", build) + small("b"), []), broken, options())
    assert found.left == ["b N4 C8 float32"] and "the device is unusable" in capsys.readouterr().err


# -- the command ------------------------------------------------------------------------------------------------------
@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second that the machine's limits take."""
    monkeypatch.setattr(machine, "peak_copy", lambda *_, **__: 1e10)
    monkeypatch.setattr(machine, "peak_products", lambda *_, **__: 1e11)


def test_command_run_and_show(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "r.json"
    command = ["bench", "run", "op_add", "op_sum", "--device", "cpu", "--row-time", "0.001s", "--json", str(path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "op_add R2" in out and "op_sum R2" in out and "copy 10.0 GB/s" in out and "time on the wall" in out
    data = read(path)
    assert [r["family"] for r in data["rows"]] == ["op_add", "op_sum"] and data["facts"]["threads"] == machine.cores()
    assert main(["bench", "show", str(path)]) == 0
    assert "op_sum R2" in capsys.readouterr().out
    assert main([*command, "--timer", "process"]) == 2
    assert "made with timer wall, this is process; name another file" in capsys.readouterr().err
    assert main(["bench", "show", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file or directory" in capsys.readouterr().err


def test_command_interrupted(quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    rows = iter([*rows_of(family("op_add").cases("cpu")[0], session())])

    def one(*_: Any) -> Iterator[dict[str, Any]]:
        yield from rows
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "rows_of", one)
    assert main(["bench", "run", "op_add", "op_sum", "--device", "cpu"]) == 130
    out = capsys.readouterr().out
    assert "op_add R2" in out and "stopped; with --json FILE the same command would go on" in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--device", "sim"], "sim is not timed: its threads are simulated one after another"),
    (["--device", "sim:1", "nonsense"], "sim is not timed"),
    (["--device", "tpu"], "unknown device 'tpu'; one of cpu, cuda"),
    (["--device", "cpu", "--timer", "event"], "--timer event is not for cpu; it has wall, process"),
    (["--device", "cpu", "--threads", "0"], "--threads must be from 1 to"),
    (["--device", "cpu", "--budget", "soon"], "--budget: must be a time such as 8m or 480s, got 'soon'"),
    (["--device", "cpu", "softmx"], "nothing is named 'softmx'; did you mean softmax"),
    (["--device", "cpu", "--dtype", "int8"], "unknown dtype 'int8'")])
def test_command_refuses(quick: None, arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "run", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(cf.cuda.is_available(), reason="there is a GPU")
def test_command_without_a_gpu(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "run", "softmax", "--device", "cuda"]) == 2
    assert "no GPU can be used here" in capsys.readouterr().err


def test_command_without_pytorch(quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(run, "import_module", missing)
    assert main(["bench", "run", "softmax", "--device", "cpu", "--baseline", "torch"]) == 2
    assert "PyTorch cannot be imported (No module named 'torch'); pip install torch" in capsys.readouterr().err


def test_command_list(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "list", "cells", "collectives", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "lstm_cell" in out and "N32 I128 H256" in out and "all_reduce" in out and "softmax" not in out


def test_threads_are_those_of_numpys_blas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuframe.cpu import blas

    put: list[int] = []
    monkeypatch.setattr(blas, "limit", put.append)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: put.append(len(cores)))
    run.use_threads(1)
    assert put == [1, 1]


# -- collectives ------------------------------------------------------------------------------------------------------
def test_collective_rows_have_nccl_tests_columns() -> None:
    case = CollectiveCase("all_reduce", 1 << 20, "float32", "sum", 4)
    row = collectives._row(case, {"cuframe": [100.0] * 5, "torch": [200.0] * 5}, 0)
    columns = [row[name] for name in ("size", "count", "dtype", "redop", "wrong")]
    assert columns == [1 << 20, 1 << 18, "float32", "sum", 0]
    assert row["algbw"] == pytest.approx(10.486, abs=1e-3) and row["busbw"] == pytest.approx(15.729, abs=1e-3)
    assert row["verdict"] == "faster" and problems({"facts": {}, "started": "", "rows": [row]}) == []
    found = collectives.todo(["broadcast"], "cpu", 4, {"broadcast 4096B x4 float32 none step"})
    assert [c.size for c in found] == [1 << 20, 25 << 20]


def test_collectives_among_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "_SIZES", {"cpu": (4096,)})
    cases = collectives.todo(["all_reduce", "all_gather"], "cpu", 2)
    rows = list(collectives.measure(cases, "cpu", 2, baseline=False))
    assert [r["key"] for r in rows] == [c.key for c in cases] and [r["wrong"] for r in rows] == [0, 0]
    assert problems({"facts": {}, "started": "", "rows": rows}) == []
    with pytest.raises(RuntimeError, match="the ranks ended with status"):
        list(collectives.measure([CollectiveCase("nothing", 4096, "float32", "none", 2)], "cpu", 2, baseline=False))


@pytest.mark.parametrize("name", ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce"])
def test_wrong_elements_are_counted(name: str) -> None:
    """What each of three ranks must hold, against the sum or the parts made by hand."""
    case = CollectiveCase(name, 48 * 4, "float32", "sum", 3)
    pattern = np.arange(48) % 7
    total = 3 * pattern + 3
    right = {"all_reduce": total, "reduce": total, "broadcast": pattern, "reduce_scatter": total[16:32],
             "all_gather": pattern + np.repeat([0, 1, 2], 16)}[name]
    rank = 0 if name == "reduce" else 1
    given = cf.tensor(right.astype(np.float32))
    assert collectives._wrong(case, given, rank, cf.float64) == 0
    given[5] += 1
    assert collectives._wrong(case, given, rank, cf.float64) == 1


# -- clocks -----------------------------------------------------------------------------------------------------------
def test_host_clock_cold_overwrites_the_caches() -> None:
    clock = HostClock()
    who = clock.prepare(lambda: None, "cuframe")
    assert who.calls > 50 and clock.kinds(True, False, False) == ("cold",)
    assert set(clock.take(who, "cold")) == {"cold", "process"} and clock._flushed is not None
    assert clock._flushed.nbytes == 2 * last_cache() and clock._flushed.min() == clock._flushed.max() == 1
    assert HostClock("process").figure(("warm",), False) == "process" and clock.figure(("cold",), False) == "cold"


# names of CuPy that the clock and the limits ask for, with the positional parameters they are given
SURFACE = {
    "cupy.RawKernel": None, "cupy.zeros": 2, "cupy.ones": 2, "cupy.copyto": 2, "cupy.cuda.Event.record": 1,
    "cupy.cuda.Stream.begin_capture": None, "cupy.cuda.Stream.end_capture": 1, "cupy.cuda.Graph.launch": 2,
    "cupy.cuda.get_elapsed_time": 2, "cupy.cuda.runtime.driverGetVersion": 0,
    "cupy.cuda.runtime.runtimeGetVersion": 0, "cupy.ndarray.fill": None}


@pytest.mark.cupy
@pytest.mark.parametrize("name", SURFACE)
def test_cupy_has_what_is_asked_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import test_cupy_surface

    monkeypatch.setattr(test_cupy_surface, "SURFACE", SURFACE)
    test_cupy_surface.test_name_and_parameters(name)


class Gpu(StandIn):
    """The stand-in with what the clock needs; events tell 2 ms."""

    def __init__(self) -> None:
        super().__init__()
        note = self.calls.append
        cupy: Any = self.cupy
        runtime: Any = self.runtime
        runtime.driverGetVersion, runtime.runtimeGetVersion = lambda: 13000, lambda: 12090
        runtime.getDeviceProperties = lambda i: {
            "name": b"Stand-in", "l2CacheSize": 1000, "clockRate": 1_500_000, "major": 9, "minor": 0}
        cupy.__version__ = "14.2.0"

        class Array:
            def __init__(self, size: int, dtype: Any) -> None:
                self.size = size

            def fill(self, value: int) -> None:
                note(("fill", (self.size, value)))

        class Stream(cupy.cuda.Stream):
            def begin_capture(self) -> None:
                note(("begin_capture", (self.ptr,)))

            def end_capture(self) -> Any:
                note(("end_capture", (self.ptr,)))
                return SimpleNamespace(launch=lambda stream: note(("graph", (stream.ptr,))))

        cupy.zeros = cupy.ones = Array
        cupy.copyto = lambda b, a: note(("copy", (a.size, b.size)))
        cupy.RawKernel = lambda code, name: lambda *args: note((name, args))
        cupy.cuda.Stream, cupy.cuda.get_elapsed_time = Stream, lambda a, b: 2.0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    made.install(monkeypatch)
    return made


def test_events_surround_the_call_behind_a_spinning_kernel(gpu: Gpu) -> None:
    clock = DeviceClock(gpu.cupy)
    gpu.calls.clear()
    assert clock.sample(lambda: gpu.calls.append(("call", ())), 1e-3, cold=True) == 2.0
    assert gpu.names() == ["fill", "spin", "event.record", "call", "event.record", "event.synchronize"]
    assert gpu.calls[0][1] == (2000, 1)  # twice the L2 cache
    assert gpu.calls[1][1] == ((1,), (1,), (1_500_000,))  # a millisecond of cycles
    gpu.calls.clear()
    clock.sample(lambda: None, 0)
    assert "fill" not in gpu.names()


def test_wall_waits_before_and_after(gpu: Gpu) -> None:
    clock = DeviceClock(gpu.cupy, "wall")
    gpu.calls.clear()
    assert clock.wall(lambda: gpu.calls.append(("call", ())), 2) > 0
    assert gpu.names() == ["deviceSynchronize", "call", "call", "deviceSynchronize"]
    assert clock.kinds(True, True, False) == ("wall",) and "from call to call" in methods(clock)


def test_a_graph_is_captured_once_and_replayed(gpu: Gpu) -> None:
    clock = DeviceClock(gpu.cupy, "graph")
    who = clock.prepare(lambda: gpu.calls.append(("call", (gpu.stream_stack[-1],))), "cuframe")
    names = gpu.names()
    begin = names.index("begin_capture")
    assert names[begin + 1 :] == ["call", "end_capture"] and gpu.calls[begin + 1][1] == gpu.calls[begin][1]
    gpu.calls.clear()
    assert clock.take(who, "warm") == {"warm": 2000.0}
    assert gpu.names() == ["spin", "event.record", "graph", "event.record", "event.synchronize"]
    assert gpu.calls[2][1] == (0,)  # on the current stream


def test_rows_by_events(gpu: Gpu) -> None:
    """A whole row, its tensors on the CPU and its times from the stand-in's events."""
    clock = DeviceClock(gpu.cupy)
    found = next(iter(rows_of(SMALL.cases("cuda")[0], Session("cuda", "cpu", clock, seconds=1e-3, copy=1e12))))
    assert found["figure"] == "cold" and set(found["us"]["cuframe"]) == {"warm", "cold", "wall", "host"}
    assert found["us"]["cuframe"]["cold"]["median"] == 2000 and found["timer"] == "event" and "aim" not in found
    assert set(next(iter(rows_of(family("op_add").cases("cuda")[0], Session("cuda", "cpu", clock, seconds=1e-3))))
               ["us"]["cuframe"]) == {"wall", "host"}


def test_limits_of_a_gpu(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DeviceClock(gpu.cupy)
    # an eighth of the free memory, read and written in 2 ms
    assert machine.peak_copy(clock, gpu.cupy) == pytest.approx(2 * min(1 << 30, (60 << 30) // 8) / 2e-3)
    monkeypatch.setattr("cuframe.cuda.nvrtc.version", lambda: (12, 9))
    found = machine.device()
    assert (found["gpu"], found["cupy"], found["nvrtc"], found["major"]) == ("Stand-in", "14.2.0", "12.9", 9)


# -- registers and spills ---------------------------------------------------------------------------------------------
def test_launched_instances_are_noted(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuframe.cuda import compile as compiler

    x = cf.ones(3, 5, device=device).to(cf.float16)
    with resources.launched() as kernels:
        for _ in range(2):
            cf.softmax(x, 1)
    names = [k.expression for k in kernels]
    assert len(names) == 1 and names[0].startswith("softmax_rows_forward<half")
    assert names[0] in list(kernels[0].kernel.instances())
    with resources.launched() as later:
        pass
    cf.softmax(x, 1)
    assert later == [] and len(kernels) == 1
    asked: list[str] = []

    def binary(source: Any, expression: str, arch: str, options: Any, siblings: Any) -> compiler.Binary:
        asked.append(f"{arch} {expression}")
        assert expression in siblings
        return compiler.Binary(b"", "", compiler.Resources(24 + len(asked), 128, 0, 8))

    monkeypatch.setattr(compiler, "compile_kernel", binary)
    found = resources.summed(kernels, "sm_90")
    assert found == {"kernels": {names[0]: {"registers": 25, "shared": 128, "spills": 8}}, "registers": 25, "spills": 8}
    assert asked == [f"sm_90 {names[0]}"] and resources.summed([], "sm_90") == {}


def test_rows_carry_what_their_kernels_take(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuframe.bench.measure.summed", lambda kernels, arch: {
        "kernels": [k.expression for k in kernels], "registers": 40, "spills": 0})
    timed = session(arch="sm_90")
    timed.device = device
    found = list(rows_of(SMALL.cases("cpu")[0], timed))
    assert [r["registers"] for r in found] == [40, 40]
    assert [len(r["kernels"]) for r in found] == [1, 2]  # forward; forward and backward


def test_a_file_of_results_that_is_gone_on_with_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"version": 2, "units": {}}')
    with pytest.raises(BadResults, match="a file of `make gpu-check`; name another"):
        Results.open(path, device="cpu")
