"""`make gpu-check` without a GPU: units that crash, hang and resume; its tables; and its cases, in the simulator."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from benchmarks.gpu import cases, environment, plan, pytest_rows, repeats, report, timing
from benchmarks.gpu.runner import ROOT, Results, Rows, Unit, run

WRITE = "import sys; from benchmarks.gpu.runner import Rows; rows = Rows(sys.argv[-1]); "
SCRIPTS = {
    "good": WRITE + "rows.add('a', x=1)",
    "bad": WRITE + "rows.add('a', x=1); sys.exit('it went wrong')",
    "crash": WRITE + "rows.add('a', x=1); import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hang": WRITE + "rows.add('a', x=1); import time; time.sleep(60)",
    "steps": WRITE + "n = len(rows.found); rows.add(str(n), x=n); import time; n < 1 and time.sleep(60)",
}


def unit(name: str, limit: float = 20, stage: str = "s") -> Unit:
    return Unit(stage, name, (sys.executable, "-c", SCRIPTS[name]), limit)


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
    assert found["version"] == 1 and found["gpu"] == "G"
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


def test_results_of_another_version_are_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"version": 99}')
    with pytest.raises(ValueError, match="version 99 of the results, this is 1"):
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
    names = [f.name for f in cases.FAMILIES]
    units = plan.plan("sm_90", names)
    found = {u.name for u in units}
    assert len(found) == len(units)
    for name in ("test_kernel_softmax.py", "test_kernel_ctc.py", "test_kernel_rnn.py", "test_device_ops.py",
                 "test_own_kernel.py"):
        assert f"correctness:{name}" in found
    assert {f"timings:{n}" for n in names} <= found and {f"repeats:{n}" for n in names} <= found
    assert {u.stage for u in units} <= set(plan.STAGES) and abs(sum(plan.SHARES.values()) - 1) < 1e-9
    assert [u.name for u in plan.chosen(units, ["timings:soft"])] == ["timings:softmax"]
    with pytest.raises(ValueError, match="no stage or unit 'timing:x'"):
        plan.chosen(units, ["timing:x"])
    assert plan.arch_of({"device": {"major": 9, "minor": 0}}) == "sm_90"


def test_environment_needs_no_gpu_for_the_machine_and_the_commit() -> None:
    facts = environment.machine()
    assert facts["packages"]["numpy"] == np.__version__
    assert environment.commit().keys() == {"commit", "dirty"}


class FakeClock:
    """Times that are known: the tables are made from them as from a GPU's."""

    bandwidth = 1e12

    def sample(self, call: Any, spin: float, cold: bool = False) -> float:
        return 0.2 if cold else 0.1

    def host(self, call: Any, count: int = 5) -> float:
        return 1e-5

    def wall(self, call: Any, count: int) -> float:
        return 0.15


@pytest.mark.parametrize("family", cases.FAMILIES, ids=lambda f: f.name)
def test_every_case_runs_and_repeats(family: cases.Family) -> None:
    dtype = family.small_dtypes[0]
    found = repeats.different(family, dtype, cf, "sim", 1)
    assert found and not any(found.values())
    assert family.dtypes and set(family.dtypes) <= set(family.tolerance)
    for sizes in family.sizes:
        forward, both = family.traffic(4, *sizes)
        assert 0 <= forward <= both


def test_repeats_notice_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    family = cases.family("softmax")
    count = iter(range(100))

    def build(side: Any, *sizes: int, variant: str = "") -> cases.Work:
        return cases.Work(lambda: side.put(np.full(3, next(count) // 3, np.float32)))

    monkeypatch.setattr(repeats, "family", lambda name: family)
    other = cases.Family("x", build, ((3,),), (3,), family.traffic)
    assert repeats.different(other, "float32", cf, "sim", 4) == {"forward": 2}


def tables(tmp_path: Path, torch: Any) -> dict[str, Any]:
    rows = Rows(tmp_path / "rows")
    family = cases.Family("softmax", cases._softmax, ((8, 32),), (8, 32), cases._moves(2, 3), ("float32",))
    assert timing.time_family(family, rows, FakeClock(), cf, torch, "cpu") == 0  # type: ignore[arg-type]
    data = Results.new(tmp_path / "x", gpu="NVIDIA H200", date="2026-11-23", commit="0123456789abcdef", dirty=True).data
    data["units"] = {
        "environment": {"stage": "environment", "status": "passed", "seconds": 3.0, "rows": [
            {"key": "machine", "packages": {"torch": "2.11.0"}, "nvidia-smi": {"driver_version": "580.1"}},
            {"key": "peaks", "copy GB/s": 4300.0}]},
        "correctness:test_x.py": {"stage": "correctness", "status": "failed", "seconds": 9.0, "passed": 5, "failed": 1},
        "timings:softmax": {"stage": "timings", "status": "passed", "seconds": 2.0, "rows": rows.found}}
    return data


def test_tables_without_pytorch(tmp_path: Path) -> None:
    data = tables(tmp_path, None)
    text = report.markdown(data)
    assert text.startswith("## NVIDIA H200, 2026-11-23, driver 580.1, torch 2.11.0, commit 0123456789 with changes\n")
    assert "| correctness:test_x.py | failed | 5 passed, 1 failed | 9 |" in text
    # 8 x 32 floats, read and written once at 1 TB/s: 2.048 ns of 200 us
    assert "| softmax | 8x32 | float32 | forward | 200.0 cold | 150.0 | 10.0 | 0% |  |  |  |  |" in text
    assert "failed: correctness:test_x.py" in report.summary(data)
    assert "(5 tests passed, 1 failed)" in report.summary(data)
    assert json.loads(json.dumps(data)) == data


def test_rows_of_a_family_are_not_measured_twice(tmp_path: Path) -> None:
    family = cases.Family("softmax", cases._softmax, ((8, 32),), (8, 32), cases._moves(2, 3), ("float32",))
    rows = Rows(tmp_path / "rows")
    timing.time_family(family, rows, FakeClock(), cf, None, "cpu")  # type: ignore[arg-type]
    count = len(rows.found)
    timing.time_family(family, rows, FakeClock(), cf, None, "cpu")  # type: ignore[arg-type]
    assert count == len(rows.found) == 2


def test_an_error_in_one_case_is_a_row_of_its_own(tmp_path: Path) -> None:
    def build(side: Any, *sizes: int, variant: str = "") -> cases.Work:
        raise MemoryError("out of memory")

    clock = FakeClock()
    clock._cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(  # type: ignore[attr-defined]
        runtime=types.SimpleNamespace(deviceSynchronize=lambda: None)))
    rows = Rows(tmp_path / "rows")
    family = cases.Family("x", build, ((8,), (9,)), (8,), cases._moves(1, 1), ("float32",))
    assert timing.time_family(family, rows, clock, cf, None, "cpu") == 2  # type: ignore[arg-type]
    assert [r["error"] for r in rows.found] == ["MemoryError: out of memory"] * 2


@pytest.mark.parity
@pytest.mark.parametrize("family", cases.FAMILIES, ids=lambda f: f.name)
def test_both_libraries_compute_the_same(family: cases.Family, tmp_path: Path) -> None:
    import torch

    small = cases.Family(**{**vars(family), "sizes": (family.small,), "dtypes": ("float32",)})
    rows = Rows(tmp_path / "rows")
    assert timing.time_family(small, rows, FakeClock(), cf, torch, "cpu") == 0  # type: ignore[arg-type]
    for row in rows.found:
        assert row["us"]["cuframe"]["host"] == 10
        assert row["baseline"] or family.name == "attention", row
        # PyTorch draws other numbers, and the CPU has not those kinds of attention
        assert row["within"] or family.name == "dropout", row


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
    assert "timings:softmax" in capsys.readouterr().out
    first, again = check.place(tmp_path, "NVIDIA H200", "2026-11-23", False)
    assert first.name == "nvidia-h200-2026-11-23.json" and not again
    first.touch()
    assert check.place(tmp_path, "NVIDIA H200", "2026-11-23", False)[0].name == "nvidia-h200-2026-11-23-2.json"
    assert check.place(tmp_path, "NVIDIA H200", "2026-11-24", True) == (first, True)
    (tmp_path / "shown.json").write_text(json.dumps(tables(tmp_path, None)))
    assert check.main(["--show", str(tmp_path / "shown.json")]) == 0
    assert "NVIDIA H200" in capsys.readouterr().out


@pytest.mark.skipif(cf.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(
        tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert script().main(["--results", str(tmp_path / "results")]) == 2
    assert "gpu-check: no GPU can be used here; nothing was run:" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
