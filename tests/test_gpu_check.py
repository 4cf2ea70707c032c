"""`make gpu-check` without a GPU: units that crash, hang and resume; its tables; and its cases, in the simulator."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from benchmarks.gpu import environment, plan, pytest_rows, repeats, report, timing
from benchmarks.gpu import tune as tuning
from benchmarks.gpu.runner import ROOT, SECONDS, Results, Rows, Unit, run
from cuframe.bench.case import Case, Family, Work
from cuframe.bench.clocks import Contestant
from cuframe.bench.families import FAMILIES, family
from cuframe.bench.measure import Session, rows_of
from cuframe.bench.results import BadResults, read, title
from tests.test_gpu_standing import timed
from tests.test_kernel_tune import Model

WRITE = "import sys; from benchmarks.gpu.runner import Rows; rows = Rows(sys.argv[-1]); "
SCRIPTS = {
    "good": WRITE + "rows.add('a', x=1)",
    "bad": WRITE + "rows.add('a', x=1); sys.exit('it went wrong')",
    "crash": WRITE + "rows.add('a', x=1); import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hang": WRITE + "rows.add('a', x=1); import time; time.sleep(60)",
    "steps": WRITE + "n = len(rows.found); rows.add(str(n), x=n); import time; n < 1 and time.sleep(60)",
    "part": WRITE + "rows.add('told', x=sys.argv[1]); sys.exit(75)",
    "falls": WRITE + "n = len(rows.found); rows.add(str(n)); import os, signal; n < 2 and os.kill(os.getpid(), 11)",
    "falls on": WRITE + "n = len(rows.found); rows.add(str(n)); sys.exit(76)",
}


def unit(name: str, limit: float = 20, stage: str = "s", **more: Any) -> Unit:
    return Unit(stage, name, (sys.executable, "-c", SCRIPTS[name], SECONDS), limit, **more)


def go(path: Path, *units: Unit, **kwargs: Any) -> tuple[bool, Results]:
    results = Results.load(path) if path.exists() else Results.new(path, gpu="G", date="2026-01-01")
    return run(units, results, say=lambda text: None, **kwargs), results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "g.json"


def test_a_crash_and_a_hang_lose_nothing_of_the_others(path: Path) -> None:
    passed, _ = go(path, unit("crash"), unit("hang", 2), unit("bad"), unit("good"), together={"s": 4})
    assert not passed
    found = json.loads(path.read_text())
    assert found["version"] == 2 and found["gpu"] == "G"
    units = found["units"]
    assert {name: u["status"] for name, u in units.items()} == {
        "s:crash": "crashed", "s:hang": "timeout", "s:bad": "failed", "s:good": "passed"}
    assert all(u["rows"] == [{"key": "a", "x": 1}] for u in units.values())
    assert "SIGSEGV" in units["s:crash"]["error"]
    assert "killed after 2 s" in units["s:hang"]["error"]
    assert "it went wrong" in units["s:bad"]["error"]
    assert "error" not in units["s:good"]


def test_what_was_cut_off_goes_on_where_it_stopped(path: Path) -> None:
    go(path, unit("steps", 2), unit("good"))
    _, results = go(path, unit("steps"), unit("good"))
    assert [r["key"] for r in results.units["s:steps"]["rows"]] == ["0", "1"]
    assert results.units["s:steps"]["status"] == "passed"


def test_what_has_a_result_is_not_run_again(path: Path) -> None:
    go(path, unit("bad"), unit("good"))
    before = path.read_text()
    assert not go(path, unit("bad"), unit("good"))[0]
    assert path.read_text() == before


def test_the_budget_leaves_the_rest_for_later(path: Path) -> None:
    _, results = go(path, unit("hang"), unit("good", stage="t"), budget=2.5, shares={"s": 0.9, "t": 0.1})
    assert results.units["s:hang"]["status"] == "timeout"
    assert results.units["t:good"] == {"stage": "t", "status": "not run", "error": "no time left in the budget"}
    _, results = go(path, unit("good", stage="t"))
    assert results.units["t:good"]["status"] == "passed"


def test_what_no_budget_ends_is_told_its_time_and_goes_on(path: Path) -> None:
    passed, results = go(path, unit("part"))
    assert passed and results.units["s:part"]["status"] == "in part" and "error" not in results.units["s:part"]
    assert results.units["s:part"]["rows"] == [{"key": "told", "x": "17"}]  # of 20 seconds
    before = results.units["s:part"]
    assert go(path, unit("part"))[1].units["s:part"] != before or before["seconds"] < 1


def test_another_process_goes_on_where_one_died(path: Path) -> None:
    passed, results = go(path, unit("falls", again=True), unit("falls on", again=True))
    found = results.units
    assert not passed and found["s:falls"]["status"] == "passed" and len(found["s:falls"]["rows"]) == 3
    assert found["s:falls on"]["status"] == "failed in part" and len(found["s:falls on"]["rows"]) == 4
    assert go(path, unit("falls on"))[1].units["s:falls on"]["rows"][-1] == {"key": "4"}  # it is no final result


def test_without_time_what_is_there_stays(path: Path) -> None:
    go(path, unit("part"))
    _, results = go(path, unit("part"), budget=0.5)
    assert results.units["s:part"]["status"] == "in part" and results.units["s:part"]["rows"]


def test_the_file_has_a_line_for_each_row(path: Path) -> None:
    results = Results.new(path, gpu="G")
    results.save()
    assert json.loads(path.read_text()) == results.data
    results.units["a"] = {"stage": "s", "rows": [{"key": "x", "v": [1, 2]}, {"key": "y"}], "status": "passed"}
    results.units["b"] = {"stage": "s", "rows": []}
    results.data["finished"] = "now"
    results.save()
    assert json.loads(path.read_text()) == results.data
    assert '\n    {"key": "x", "v": [1, 2]},\n' in path.read_text()


def test_results_of_another_version_are_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"version": 99}')
    with pytest.raises(ValueError, match="version 99 of the results, this is 2"):
        Results.load(path)


def test_a_row_cut_in_the_middle_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "r").write_text('{"key": "a"}\n{"key": "b')
    rows = Rows(tmp_path / "r")
    assert "a" in rows and "b" not in rows


def test_pytest_plugin_counts_and_keeps_the_first_words_of_failures(tmp_path: Path) -> None:
    test = tmp_path / "test_x.py"
    test.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2, 'wrong'\n"
                    "@pytest.mark.skip(reason='because')\ndef test_c(): pass\n")
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.pytest_rows", "-p", "no:cacheprovider",
            "-c", "/dev/null", "--rootdir", str(tmp_path), str(test))
    results = Results.new(tmp_path / "r.json")
    assert not run([Unit("correctness", "x", argv, 60, pytest_rows.fold)], results, say=lambda text: None)
    found = results.units["correctness:x"]
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1)
    assert found["failed tests"] == ["test_x.py::test_b"]
    assert "wrong" in found["failures"][0]["error"]
    assert "because" in found["skips"][0]
    assert "rows" not in found


def test_plan_has_every_test_that_runs_on_a_device_and_every_family() -> None:
    names = [f.name for f in plan.by_interest()]
    units = plan.plan("sm_90")
    found = {u.name: u for u in units}
    assert len(found) == len(units)
    for name in ("test_kernel_softmax.py", "test_kernel_ctc.py", "test_kernel_rnn.py", "test_device_ops.py",
                 "test_own_kernel.py"):
        assert f"correctness:{name}" in found
    assert names[:4] == ["lstm", "lstm_cell", "attention", "ctc"] and len(names) > 40
    for sizes in ("first", "other"):
        argv = found[f"timings:{sizes}"].argv
        after = argv.index("benchmarks.gpu.timing") + 1
        assert list(argv[after : after + len(names)]) == names and argv[after + len(names) + 1] == sizes
    repeated = [u.argv[u.argv.index("benchmarks.gpu.repeats") + 1 : -2] for u in units if u.stage == "repeats"]
    assert sorted(n for members in repeated for n in members) == sorted(names)
    assert list(dict.fromkeys(u.stage for u in units)) == [
        s for s in plan.STAGES if s != "environment" and (s != "sanitizer" or any(u.stage == s for u in units))]
    assert abs(sum(plan.SHARES.values()) - 1) < 1e-9 and set(plan._SANITIZED) <= set(names)
    assert [u.name for u in plan.chosen(units, ["repeats:point"])] == ["repeats:pointwise"]
    assert [u.argv[-3:] for u in plan.chosen(units, ["timings:softmax"])] == [("softmax", "--device", "cuda")]
    with pytest.raises(ValueError, match="no stage or unit 'timing:x'"):
        plan.chosen(units, ["timing:x"])
    assert plan.arch_of({"device": {"major": 9, "minor": 0}}) == "sm_90"


def test_the_tuned_table_goes_where_the_results_go(tmp_path: Path) -> None:
    def tune(**given: Any) -> tuple[str, ...]:
        return next(u for u in plan.plan("sm_90", **given) if u.stage == "tune").argv[5:]

    assert tune() == ("--device", "cuda")
    assert tune(results=tmp_path) == ("--device", "cuda", "--copy", str(tmp_path / "tuned"))
    assert tune(results=tmp_path, device="sim")[2:] == ("--output", str(tmp_path / "tuned" / "sm_90.json"))


def test_the_grid_takes_a_fair_sample_first() -> None:
    cases = timing.cases_of(FAMILIES, "cuda", "grid")
    keys = [c.key for c in cases]
    assert len(set(keys)) == len(keys) == 2 * 2 * 3 * 8 * 10 + 2 * 2 * 2 * 6
    assert keys == [c.key for c in timing.cases_of(FAMILIES, "cuda", "grid")]
    assert {c.family.variants for c in cases} == {("torch",), ("flash_attention", "cudnn_attention")}
    recurrent = [c for c in cases if c.family.group == "rnn"]
    steps = [c.sizes[0] for c in recurrent]
    assert steps == sorted(steps) and set(steps) == {128, 1024}
    for place in (1, 3):  # batches, hidden sizes: of the first 100, each about as often
        values = [c.sizes[place] for c in recurrent[:100]]
        assert min(map(values.count, set(values))) >= 3 and len(set(values)) == (8 if place == 1 else 10)
    assert sum(c.family.group == "attention" for c in cases[:40]) == 20
    for sizes in ("first", "other", "all"):
        assert not set(keys) & {c.key for c in timing.cases_of([family("softmax")], "cuda", sizes)}


def test_environment_needs_no_gpu_for_the_machine_and_the_commit() -> None:
    facts = environment.machine()
    assert facts["packages"]["numpy"] == np.__version__
    assert environment.commit().keys() == {"commit", "dirty"}


class FakeClock:
    """Times that are known: the tables are made from them as from a GPU's."""

    timer, rounds = "event", 3
    us = {"warm": 100.0, "cold": 200.0, "wall": 150.0}

    def __init__(self) -> None:
        self.turns = 0

    def kinds(self, cold: bool, warm: bool, wall: bool) -> tuple[str, ...]:
        return ("warm", "cold", "wall") if cold else ("warm", "wall")

    def figure(self, kinds: tuple[str, ...], wall: bool) -> str:
        return "wall" if wall else "cold" if "cold" in kinds else "warm"

    def prepare(self, call: Any, library: str) -> Contestant:
        return Contestant(call, 1e-5, 1e-4)

    def turn(self) -> None:
        self.turns += 1

    def take(self, who: Contestant, kind: str) -> dict[str, float]:
        return {kind: self.us[kind]}


def session(torch: Any = None) -> Session:
    """Of a GPU that is the CPU."""
    return Session("cuda", "cpu", FakeClock(), torch, seconds=0.01, copy=1e12)


@pytest.mark.parametrize("family", plan.by_interest(), ids=lambda f: f.name)
def test_every_case_runs_and_repeats(family: Family) -> None:
    dtype = family.small_dtypes[0]
    found = repeats.different(family, dtype, cf, "sim", 1)
    assert found and not any(found.values())
    assert family.dtypes and set(family.dtypes) <= set(family.tolerance)
    for sizes in family.cuda:
        forward, both = family.traffic(4, *sizes)
        assert 0 <= forward <= both


def test_repeats_notice_other_bits() -> None:
    count = iter(range(100))

    def build(side: Any, *sizes: int, variant: str = "") -> Work:
        return Work(lambda: side.put(np.full(3, next(count) // 3, np.float32)))

    other = replace(family("softmax"), build=build, small=(3,))
    assert repeats.different(other, "float32", cf, "sim", 4) == {"forward": 2}


def softmax(*sizes: tuple[int, ...], **changed: Any) -> list[Case]:
    return replace(family("softmax"), cuda=sizes, dtypes=("float32",), **changed).cases("cuda")


def tables(tmp_path: Path) -> dict[str, Any]:
    rows = Rows(tmp_path / "rows")
    assert timing.time_cases(softmax((8, 32)), rows, session())
    data = Results.new(tmp_path / "x", gpu="NVIDIA H200", date="2026-11-23", commit="0123456789abcdef", dirty=True).data
    data["units"] = {
        "environment": {"stage": "environment", "status": "passed", "seconds": 3.0, "rows": [
            {"key": "machine", "packages": {"torch": "2.11.0"}, "nvidia-smi": {"driver_version": "580.1"}},
            {"key": "peaks", "copy": 4.3e12, "products": {"float32": 5.1e13}}]},
        "correctness:test_x.py": {"stage": "correctness", "status": "failed", "seconds": 9.0, "passed": 5, "failed": 1},
        "timings:softmax": {"stage": "timings", "status": "passed", "seconds": 2.0, "rows": rows.found}}
    return data


def test_tables_without_pytorch(tmp_path: Path) -> None:
    data = tables(tmp_path)
    text = report.markdown(data)
    assert text.startswith("## NVIDIA H200, 2026-11-23, driver 580.1, torch 2.11.0, commit 0123456789 with changes\n")
    assert "Ceilings measured there: copies 4300 GB/s, products float32 51.0 TFLOP/s." in text
    assert "| correctness:test_x.py | failed | 5 passed, 1 failed | 9 |" in text
    # 8 x 32 floats, read and written once: 2048 bytes in 200 us; a roofline of 1 TB/s is 2.048 ns
    times = r"200 us cold~? \| 0 ns \| 200 us - 200 us"
    assert re.search(rf"\| softmax N8 C32 float32 \| forward \| {times} \| 0.0 \| 0% m \|", text)
    assert "failed: correctness:test_x.py" in report.summary(data)
    assert "(5 tests passed, 1 failed)" in report.summary(data)
    assert "softmax N8 C32 float32 training" in report.summary(data)
    assert json.loads(json.dumps(data)) == data


def test_the_harness_reads_the_file(tmp_path: Path) -> None:
    """`cuframe bench show`, `plot`, `history` and README take both kinds of files."""
    data = tables(tmp_path)
    path = tmp_path / "nvidia-h200-2026-11-23.json"
    path.write_text(json.dumps(data))
    found = read(path)
    assert [r["key"] for r in found["rows"]] == ["softmax N8 C32 float32 forward", "softmax N8 C32 float32 training"]
    assert found["peaks"] == {"copy": 4.3e12, "products": {"float32": 5.1e13}}
    assert title(found).startswith("NVIDIA H200, 2026-11-23, driver 580.1")
    path.write_text(json.dumps({**data, "version": 1}))
    with pytest.raises(BadResults, match="version 1 of gpu-check's results, this is 2"):
        read(path)


def test_rows_of_a_family_are_not_measured_twice(tmp_path: Path) -> None:
    cases = softmax((8, 32))
    rows = Rows(tmp_path / "rows")
    timing.time_cases(cases, rows, session())
    first = list(rows.found)
    timing.time_cases(cases, rows, session())
    assert rows.found == first and len(first) == 3  # with a note that it was begun
    rows.found.pop()  # the process ended between the two
    timing.time_cases(cases, rows, session())
    assert [r["mode"] for r in rows.found if "us" in r] == ["forward", "training"]


def test_an_error_in_one_case_is_a_row_of_its_own(tmp_path: Path) -> None:
    def build(side: Any, *sizes: int, variant: str = "") -> Work:
        raise MemoryError("out of memory")

    rows, other = Rows(tmp_path / "rows"), session()
    cases = softmax((8, 8), (9, 9), build=build)
    assert timing.time_cases(cases, rows, other)
    assert [r["error_text"] for r in rows.found if "begun" not in r] == ["MemoryError: out of memory"] * 2
    assert other.clock.turns == 2  # type: ignore[attr-defined]  # the device was asked whether it still answers
    count = len(rows.found)
    assert timing.time_cases(cases, rows, other) and len(rows.found) == count


def test_after_an_error_of_the_device_another_process_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def build(side: Any, *sizes: int, variant: str = "") -> Work:
        raise RuntimeError("illegal address")

    def unusable() -> None:
        raise RuntimeError("illegal address")

    rows, broken = Rows(tmp_path / "rows"), session()
    broken.clock.turn = unusable  # type: ignore[method-assign]
    cases = [*softmax((8, 8), build=build), *softmax((9, 9))]
    assert not timing.time_cases(cases, rows, broken) and len(rows.found) == 2
    assert "softmax N8 C8 float32: RuntimeError: illegal address" in capsys.readouterr().err
    assert timing.time_cases(cases, rows, session())
    assert [r["mode"] for r in rows.found if "us" in r] == ["forward", "training"]


def test_first_sizes_and_the_others(tmp_path: Path) -> None:
    chosen = replace(family("softmax"), cuda=((8, 8), (9, 9)), dtypes=("float32",))
    rows = Rows(tmp_path / "rows")
    for sizes, labels in (("first", {"N8 C8"}), ("other", {"N8 C8", "N9 C9"})):
        timing.time_cases(timing.cases_of([chosen], "cuda", sizes), rows, session())
        assert {r["label"] for r in rows.found if "us" in r} == labels
    assert len(timing.cases_of([chosen], "cuda")) == 2


def test_without_time_no_case_is_begun(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows")
    assert not timing.time_cases(softmax((8, 8)), rows, session(), until=0.0) and not rows.found


def test_a_case_that_ends_the_process_is_given_up(tmp_path: Path) -> None:
    def build(side: Any, *sizes: int, variant: str = "") -> Work:
        raise KeyboardInterrupt  # as an end from without

    rows = Rows(tmp_path / "rows")
    cases = softmax((8, 8), build=build)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            timing.time_cases(cases, rows, session())
    assert timing.time_cases(cases, rows, session())
    assert rows.found[-1]["error_text"] == "RuntimeError: the process ended within it 2 times"


def test_a_case_that_hangs_ends_the_process(path: Path) -> None:
    """By an alarm, which a call that never comes back cannot put off; the next process leaves it out in the end."""
    code = """
import sys, time
from dataclasses import replace
from pathlib import Path
from benchmarks.gpu import timing
from benchmarks.gpu.runner import Rows
from tests.test_gpu_check import session, softmax
rows = Rows(sys.argv[-1])
hanging = softmax((8, 8), build=lambda *a, **k: time.sleep(60))
timing.time_cases([*hanging, *softmax((9, 9))], rows, session(), longest=1)
"""
    one = Unit("s", "hangs", (sys.executable, "-c", code), 60, again=True)
    passed, results = go(path, one)
    rows = results.units["s:hangs"]["rows"]
    assert passed and "the process ended within it 2 times" in rows[3]["error_text"]
    assert [r["label"] for r in rows if "us" in r] == ["N9 C9"] * 2


def test_the_grid_is_compared_with_pytorch_alone() -> None:
    case = softmax((8, 8))[0]
    assert [r["error"] for r in rows_of(case, replace(session(), exact=False))] == [None, None]
    assert all(r["error"]["against"] == "float64 on the CPU" for r in rows_of(case, session()))


def test_the_report_says_how_they_stand(tmp_path: Path) -> None:
    data = tables(tmp_path)
    data["units"]["grid"] = {"stage": "grid", "status": "in part", "seconds": 9.0, "rows": [
        timed("lstm", "forward", 100.0, torch=150.0)]}
    text, short = report.markdown(data), report.summary(data)
    assert "| forward: cuDNN's persistent algorithms | 1 | 1.50 | 1.50 | lstm T128 N16 I512 H512 L1 D1 float16 " \
        "forward | 1, worst 0.8: met | 4.00 |" in text
    assert "lstm, float16, 128 steps, forward: times as fast as cuDNN" in text and "| 512 | 1.50 x, 0.78 us |" in text
    assert "1.50 x in the mean of 1, worst 1.50 (lstm T128" in short and "aim 1, worst 0.8: met" in short
    assert "| grid | in part | 1 rows | 9 |" in text and "in part: grid" in short


# -- tuning -----------------------------------------------------------------------------------------------------------
def test_tuning_goes_on_and_leaves_out_what_hung(tmp_path: Path) -> None:
    cases = [tuning.Case("lstm", "float16", h, 16, 1) for h in (512, 256, 128)]
    rows, path = Rows(tmp_path / "rows"), tmp_path / "sm_90.json"

    class Hanging(Model):
        def layer(self, case: Any, plan: Any) -> float:
            if case.hidden == 256:
                raise KeyboardInterrupt  # as an alarm would
            return super().layer(case, plan)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tuning.run(Hanging(), rows, 100, path, cases)
    assert not path.exists()
    assert tuning.run(Hanging(), rows, 100, path, cases, gpu="none") == 0
    measured = json.loads(path.read_text())["rnn_persistent"]["measured"]
    assert [row["hidden"] for row in measured] == [512, 128]
    before = list(rows.found)
    assert tuning.run(Hanging(), rows, 100, path, cases, gpu="none") == 0 and rows.found == before
    assert json.loads(path.read_text())["rnn_persistent"]["measured"] == measured


@pytest.mark.parity
@pytest.mark.parametrize("family", plan.by_interest(), ids=lambda f: f.name)
def test_both_libraries_compute_the_same(family: Family, tmp_path: Path) -> None:
    import torch

    rows = Rows(tmp_path / "rows")
    cases = replace(family, cuda=(family.small,), dtypes=("float32",)).cases("cuda")
    if family.grid:
        cases += [Case(family.grid_cases()[0][1].family, family.small, "float64")]
    assert timing.time_cases(cases, rows, session(torch)) and not [r for r in rows.found if "error_text" in r]
    for row in (r for r in rows.found if "begun" not in r):
        assert row["us"]["cuframe"]["host"] > 0
        # the CPU has not those kinds of attention
        assert row["baseline"] or family.group == "attention", row.get("notes")
        # PyTorch draws other numbers
        assert row["within"] or not family.same, row
        for label, off in ((row["error"] or {}).get("others") or {}).items():
            assert off <= row["tolerance"], (label, row)


def script() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "benchmarks" / "gpu_check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    check = script()
    assert [check.seconds(t) for t in ("90", "8m", "1.5h")] == [90, 480, 5400]
    with pytest.raises(SystemExit):
        check.parse(["--budget", "soon"])
    assert "must be a time such as 8m or 480s, got 'soon'" in capsys.readouterr().err
    assert check.main(["--list"]) == 0
    assert "timings:first" in capsys.readouterr().out
    assert check.parse([]).results == plan.RESULTS and check.parse(["--rehearse"]).results != plan.RESULTS
    first, again = check.place(tmp_path, "NVIDIA H200", "2026-11-23", False)
    assert first.name == "nvidia-h200-2026-11-23.json" and not again
    first.touch()
    assert check.place(tmp_path, "NVIDIA H200", "2026-11-23", False)[0].name == "nvidia-h200-2026-11-23-2.json"
    assert check.place(tmp_path, "NVIDIA H200", "2026-11-24", True) == (first, True)
    (tmp_path / "shown.json").write_text(json.dumps(tables(tmp_path)))
    assert check.main(["--show", str(tmp_path / "shown.json")]) == 0
    assert "NVIDIA H200" in capsys.readouterr().out


@pytest.mark.skipif(cf.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(
        tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert script().main(["--results", str(tmp_path / "results")]) == 2
    assert "gpu-check: no GPU can be used here; nothing was run:" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_rehearsal(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command to the table: each stage's units, started as they are on a GPU."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    tools = tmp_path / "bin"
    tools.mkdir()
    fake = tools / "compute-sanitizer"  # drops its own options
    fake.write_text('#!/bin/sh\nshift 6\nexec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    only = ["correctness:test_own_kernel", "repeats:launch", "tune", "timings:launch", "sanitizer:dropout-memcheck"]
    arguments = [a for name in only for a in ("--only", name)]
    assert script().main(["--rehearse", "--results", str(tmp_path / "r"), *arguments]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert "launch N4 C32 float32 forward" in out and "sanitizer    1 passed" in out
    (path,) = (tmp_path / "r").glob("*.json")
    units = json.loads(path.read_text())["units"]
    assert {name: unit["status"] for name, unit in units.items()} == dict.fromkeys(["environment", *(
        n + ".py" if n.startswith("correctness") else n for n in only)], "passed")
    assert [r["key"] for r in units["environment"]["rows"]] == ["machine", "commit", "device", "first kernel"]
    assert (tmp_path / "r" / "tuned" / "sm_90.json").exists()
    before = path.read_text()
    assert script().main(["--rehearse", "--results", str(tmp_path / "r"), "--resume", "--only", "tune"]) == 0
    after = json.loads(path.read_text())["units"]
    assert after["tune"] == units["tune"] and path.read_text() != before  # it has run; the environment is asked again
