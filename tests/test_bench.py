"""`cuframe bench`: what is said of samples, the files of results, and the commands that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuframe.bench import history, machine, readme
from cuframe.bench.compare import changes, percentage, regressions
from cuframe.bench.results import BadResults, Results, problems, read, title
from cuframe.bench.selection import UnknownName, choose, dtypes_of, in_order, seconds
from cuframe.bench.statistics import interval, ratio, summary, verdict
from cuframe.bench.table import disturbances, duration, markdown, print_rows
from cuframe.cli import main

FACTS = {"device": "cpu", "cpu": "A CPU", "cores": 2, "gpu": None, "timer": "wall", "threads": 2,
         "commit": "0123456789ab", "torch": "2.13.0", "compiled": True, "dirty": False}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-xdist names the width of its own terminal."""
    monkeypatch.setenv("COLUMNS", "200")


def row(family: str = "softmax", label: str = "N8 C32", mode: str = "forward", us: float = 100.0, theirs: float = 150.0,
        modes: tuple[str, ...] = ("forward",), **more: Any) -> dict[str, Any]:
    """A row as `rows_of` makes it, with times that hardly spread."""
    samples = {name: [v * (1 + 0.001 * i) for i in range(9)] for name, v in (("cuframe", us), ("torch", theirs))}
    value, bounds = ratio(samples["torch"], samples["cuframe"]), interval(samples["torch"], samples["cuframe"])
    return {"key": f"{family} {label} float32 {mode}", "family": family, "group": "pointwise",
            "sizes": {"N": 8, "C": 32}, "label": label, "dtype": "float32", "mode": mode, "modes": list(modes),
            "device": "cpu", "timer": "wall", "figure": "warm",
            "us": {k: {"warm": summary(v), "host": 1.0} for k, v in samples.items()},
            "samples_us": samples, "bytes": 2048, "flops": 4096, "gbs": 20.5, "tflops": 0.041, "intensity": 2.0,
            "of_roofline": 0.31, "bound": "memory", "baseline": "torch", "speedup": round(value, 4),
            "interval": list(bounds), "verdict": verdict(value, bounds), "error": {"value": 3e-8, "against": "float64"},
            "within": True, "tolerance": 1e-4, "seconds": 1.0, **more}


def collective() -> dict[str, Any]:
    made = row("all_reduce", "1024B x2", "step", modes=("step",))
    return {**made, "group": "collectives", "sizes": {"B": 1024, "ranks": 2}, "size": 1024, "count": 256,
            "redop": "sum", "algbw": 0.01, "busbw": 0.01, "wrong": 0}


def save(path: Path, *rows: dict[str, Any], started: str = "2026-11-23T10:00:00+00:00", **facts: Any) -> Path:
    results = Results.new(path, **{**FACTS, **facts})
    results.data["started"] = started
    results.data["peaks"] = {"copy": 1e10, "products": {"float32": 8e10}}
    for one in rows:
        results.add(one)
    return path


# -- statistics -------------------------------------------------------------------------------------------------------
def drawn(count: int, seed: int, factor: float = 1.0, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Rounds of two contestants whose true ratio is `factor`, with noise that a round has in common."""
    rng = np.random.default_rng(seed)
    common = rng.lognormal(0, 0.3, count)
    a, b = (common * rng.lognormal(0, spread, count) for _ in range(2))
    return factor * a, b


def test_interval_covers_the_true_ratio() -> None:
    inside = sum(low <= 1.2 <= high for low, high in (interval(*drawn(15, s, 1.2)) for s in range(60)))
    assert 51 <= inside <= 60  # 95% of 60 is 57


def test_common_noise_cancels_within_rounds() -> None:
    a, b = drawn(15, 1, 1.2, 0.01)
    paired, alone = interval(a, b), interval(a, b, paired=False)
    assert (paired[1] - paired[0]) * 5 < alone[1] - alone[0]
    assert interval(a, b) == paired  # no dice
    with pytest.raises(ValueError, match="paired samples must be of equal number, got 15 and 14"):
        interval(a, b[1:])


def test_verdict_is_seldom_wrong_about_equals() -> None:
    """Significance alone would be wrong in 5 of 100; a least effect makes it rarer."""
    said = [verdict(ratio(a, b), interval(a, b)) for a, b in (drawn(15, s, 1.0, 0.02) for s in range(60))]
    assert sum(v in ("faster", "slower") for v in said) <= 2


@pytest.mark.parametrize(("value", "bounds", "said"), [
    (1.5, (1.4, 1.6), "faster"), (0.7, (0.6, 0.8), "slower"),
    (1.02, (1.015, 1.025), "same"),       # sure, but too small to matter
    (1.5, (0.9, 2.1), "unclear"),         # large, but not sure
    (1.01, (0.99, 1.2), "unclear"),
    (1.03, (1.001, 1.06), "faster"), (1 / 1.03, (0.95, 0.999), "slower")])
def test_verdict_needs_significance_and_effect(value: float, bounds: tuple[float, float], said: str) -> None:
    assert verdict(value, bounds) == said


def test_summary_of_known_samples() -> None:
    found = summary(list(range(1, 102)))
    assert found == {"median": 51.0, "iqr": 50.0, "p5": 6.0, "p95": 96.0, "n": 101}


def test_noise_tells_who_took_the_time() -> None:
    before = machine.Load(all=100.0, busy=50.0, steal=0.0, own=10.0)
    assert machine.noise(before, machine.Load(110.0, 54.9, 0.1, 14.8)) == {"steal": 0.01, "others": 0.01, "much": False}
    found = machine.noise(before, machine.Load(110.0, 58.0, 0.5, 14.0))
    assert found == {"steal": 0.05, "others": 0.4, "much": True,
                     "warning": "5% stolen by the hypervisor, 40% taken by other programs"}
    assert machine.noise(before, machine.Load(100.1, 50.0, 0, 10.0)) == {}  # too short to tell
    assert machine.noise(None, before) == {}


# -- files ------------------------------------------------------------------------------------------------------------
def test_round_trip(tmp_path: Path) -> None:
    rows = [row(), row(mode="training"), {"key": "x error", "case": "x", "error_text": "MemoryError: no"}]
    path = save(tmp_path / "new" / "r.json", *rows)
    data = read(path)
    assert data["rows"] == json.loads(json.dumps(rows)) and data["facts"]["cpu"] == "A CPU"
    assert title(data) == "A CPU, 2 thread(s), 2026-11-23, PyTorch 2.13.0, with llvmlite, commit 0123456789"
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


@pytest.mark.parametrize(("text", "message"), [
    ('{"kind": "cuframe bench", "schema": 99}', "schema 99 of the results, this is 1"),
    ("{", "no JSON"), ("[1]", "not a file of `cuframe bench run --json`"),
    ('{"kind": "else"}', "not a file of"), ('{"kind": "cuframe bench", "schema": 1, "rows": []}', "facts is missing"),
    ('{"units": {}, "version": 1}', "version 1 of gpu-check's results, this is 2")])
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(BadResults, match=message):
        read(path)
    with pytest.raises(BadResults, match=message):
        Results.open(path, **FACTS)


def test_rows_are_looked_at() -> None:
    rows = [row(), row(), {}, {"key": "a"}, {**row(mode="b"), "us": {"cuframe": {}}}]
    found = problems({"facts": {}, "started": "", "rows": rows})
    assert found == ["softmax N8 C32 float32 forward: twice", "row 2 has no key", "a: family must be str, got None",
                     "softmax N8 C32 float32 b: no warm time of cuframe"]


def test_a_file_is_gone_on_with_only_where_it_was_begun(tmp_path: Path) -> None:
    path = save(tmp_path / "r.json", row())
    assert Results.open(path, **FACTS).done("softmax N8 C32 float32")
    for name, other in {"commit": "ffff", "threads": 1, "torch": None, "timer": "process"}.items():
        with pytest.raises(BadResults, match=f"made with {name} .*; name another file"):
            Results.open(path, **{**FACTS, name: other})


# -- what is chosen ---------------------------------------------------------------------------------------------------
def test_patterns() -> None:
    assert {c.family.name for c in choose(["softmax"], "cpu").cases} == {"softmax"}  # not log_softmax
    assert {c.family.group for c in choose(["cells"], "cuda").cases} == {"cells"}
    assert {c.family.name for c in choose(["*_layer_norm"], "cpu").cases} == {"lstm_layer_norm", "gru_layer_norm"}
    assert [c.key for c in choose(["conv2d N8 C3"], "cpu").cases] == ["conv2d N8 C3 O32 K3 s1 p1 g1 H64 W64 float32"]
    assert choose(["all_reduce"], "cpu") == ([], ["all_reduce"])
    everything = choose([], "cpu")
    assert len(everything.cases) > 80 and len(everything.collectives) == 5
    with pytest.raises(UnknownName, match="nothing is named 'softmx'; did you mean softmax, log_softmax"):
        choose(["softmx"], "cpu")
    with pytest.raises(UnknownName, match="'conv3d' has no case for cuda"):
        choose(["conv3d"], "cuda")


def test_options_in_words() -> None:
    assert dtypes_of("float32, bfloat16") == ["float32", "bfloat16"]
    with pytest.raises(UnknownName, match="unknown dtype 'floa16'; did you mean float16"):
        dtypes_of("floa16")
    assert (seconds("90"), seconds("1.5h")) == (90, 5400)
    for bad in ("soon", "-1m", "0s", ""):
        with pytest.raises(ValueError, match="must be a time such as 8m"):
            seconds(bad)
    assert percentage("5%") == percentage("5") == 0.05
    with pytest.raises(ValueError, match="must be a percentage such as 5%, got 'x'"):
        percentage("x")


# -- tables -----------------------------------------------------------------------------------------------------------
def test_durations() -> None:
    assert [duration(v) for v in (0.02, 0.9996, 9.996, 99.96, 1e3, 123456, 2e6)] == [
        "20 ns", "1.00 us", "10.0 us", "100 us", "1.00 ms", "123 ms", "2.00 s"]


def test_printed_rows(capsys: pytest.CaptureFixture) -> None:
    noise = {"steal": 0.04, "others": 0.5, "much": True, "warning": "50% taken by other programs"}
    more = {"noise": noise, "aim": 1.6, "registers": 40, "spills": 0, "notes": {"cudnn": "RuntimeError: no"}}
    rows = [row("gelu", mode="training"), row(**more), collective(),
            {"key": "x error", "case": "x", "error_text": "MemoryError: no"}]
    print_rows(rows)
    lines = capsys.readouterr().out.splitlines()
    first = next(line for line in lines if "softmax N8 C32" in line)
    assert first.split() == ("softmax N8 C32 forward 100 us~ 400 ns 100 us - 101 us 151 us 1.50 1.50 - 1.50 faster "
                             "1.60 missed 20.5 0.041 2.0 31% m 3e-08 40/0").split()
    assert lines.index(first) < next(i for i, line in enumerate(lines) if "gelu" in line)  # families in their order
    assert sum("disturbed" in line for line in lines) == 1
    assert "~ 1 of 3 rows were disturbed: of their time other programs took 50% (at most 50%)" in "\n".join(lines)
    assert "left out: softmax N8 C32 float32 forward: cudnn: RuntimeError: no" in "\n".join(lines)
    assert lines[-1] == "failed: x: MemoryError: no"
    head = next(line for line in lines if "busbw" in line)
    assert head.split()[:12] == "collective size B count type redop time algbw GB/s busbw GB/s #wrong".split()[:12]
    assert disturbances([row()]) == ""
    print_rows(rows, width=90)
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines()[:8])) <= 90 and "faster" in narrow and "flop/B" not in narrow
    assert [r["family"] for r in in_order(rows[:3])] == ["softmax", "gelu", "all_reduce"]


def test_markdown_leaves_out_what_is_empty() -> None:
    assert markdown(["a", "b", "c"], [["1", "", "2"]]) == ["| a | c |", "| --- | --: |", "| 1 | 2 |"]


# -- two files --------------------------------------------------------------------------------------------------------
def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = save(tmp_path / "a.json", row(), row("gelu"), row("silu"), row("ctc"))
    noise = {"noise": {"steal": 0.0, "others": 0.9, "much": True, "warning": "90% taken by other programs"}}
    after = save(tmp_path / "b.json", row(us=110), row("gelu", us=101), row("silu", us=80), row("ctc", us=200, **noise))
    found = changes(read(before), read(after), 0.05)
    assert [(c.key.split()[0], c.kind) for c in found] == [
        ("softmax", "slower"), ("gelu", "same"), ("silu", "faster"), ("ctc", "unclear")]
    assert [c.key.split()[0] for c in regressions(found)] == ["softmax"]
    assert found[0].ratio == pytest.approx(1.1)
    assert main(["bench", "compare", str(before), str(after), "--fail-over", "5%"]) == 1
    out = capsys.readouterr().out
    assert "softmax N8 C32 float32 forward" in out and "1.100" in out and "gelu" not in out
    assert "4 rows, at least 5%: 1 faster, 1 same, 1 unclear, 1 slower" in out
    assert main(["bench", "compare", str(before), str(after), "--fail-over", "20%"]) == 0
    assert main(["bench", "compare", str(before), str(after)]) == 0
    # over PyTorch's time the same slowdown of both is none
    both = save(tmp_path / "c.json", row(us=200, theirs=300))
    assert [c.kind for c in changes(read(before), read(both), 0.05)] == ["slower"]
    assert [c.kind for c in changes(read(before), read(both), 0.05, relative=True)] == ["same"]
    capsys.readouterr()
    assert main(["bench", "compare", str(before), str(after), "--fail-over", "x"]) == 2
    assert "--fail-over: must be a percentage such as 5%, got 'x'" in capsys.readouterr().err
    assert main(["bench", "compare", str(before), str(save(tmp_path / "d.json", row("adam")))]) == 2
    assert "have no row in common" in capsys.readouterr().err


def test_compare_says_when_machines_differ(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [str(save(tmp_path / f"{n}.json", row(), threads=n)) for n in (1, 2)]
    assert main(["bench", "compare", *files]) == 0
    assert "A and B differ in threads: 1 and 2" in capsys.readouterr().out


# -- charts, history, README ------------------------------------------------------------------------------------------
def test_plot(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    path = save(tmp_path / "r.json", row(), row("gelu", mode="training", us=300))
    assert main(["bench", "plot", str(path), "--out", str(tmp_path / "p")]) == 0
    made = sorted((tmp_path / "p").iterdir())
    assert [p.name for p in made] == ["r-ratio.png", "r-ratio.svg", "r-roofline.png", "r-roofline.svg"]
    assert sorted(capsys.readouterr().out.split()) == [str(p) for p in made]
    assert made[0].read_bytes().startswith(b"\x89PNG") and b"gelu N8 C32 float32 training" in made[1].read_bytes()
    assert main(["bench", "plot", str(path), "--format", "gif"]) == 2
    assert "--format must be of png, svg, pdf, got 'gif'" in capsys.readouterr().err
    bare = save(tmp_path / "bare.json", {**row(), "baseline": None, "intensity": None})
    assert main(["bench", "plot", str(bare), "--out", str(tmp_path / "q")]) == 2
    assert "nothing to draw" in capsys.readouterr().err


def test_history(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "z.json", row(us=100), started="2026-11-01T10:00:00")
    save(tmp_path / "a.json", row(us=50), row("gelu"), started="2026-11-02T10:00:00")
    (tmp_path / "note.json").write_text("{}")
    found, others = history.files(tmp_path)
    assert [p.name for p, _ in found] == ["z.json", "a.json"] and "note.json: not a file of" in others[0]
    medians = history.medians([d for _, d in found])
    assert medians["softmax N8 C32 float32 forward (cpu, A CPU)"] == pytest.approx([100.4, 50.2])
    assert history.spark([4, None, 1, 8]) == "▄ ▁█"
    assert main(["bench", "history", str(tmp_path), "softmax"]) == 0
    out = capsys.readouterr()
    assert "0.50" in out.out and "gelu" not in out.out and "left out" in out.err
    assert main(["bench", "history", str(tmp_path), "nothing"]) == 2
    assert "no row whose name contains 'nothing' in 2 files" in capsys.readouterr().err


def test_readme_tables(tmp_path: Path) -> None:
    assert "No results have been committed yet" in readme.tables(tmp_path)
    old = save(tmp_path / "old.json", row(us=999), started="2026-10-01T10:00:00")
    noise = {"steal": 0.0, "others": 0.5, "much": True, "warning": "50% taken by other programs"}
    save(tmp_path / "new.json", row(modes=("forward", "training")), row(mode="training", us=300, noise=noise),
         row(label="N9 C9"), row("gelu", us=150), collective())
    text = readme.tables(tmp_path)
    assert text.startswith("**A CPU, 2 thread(s), 2026-11-23, PyTorch 2.13.0, with llvmlite, commit 0123456789**\n")
    assert "| softmax N8 C32 | training | 301 us | 151 us | 0.50 | 0.50 - 0.50 | 31% |" in text
    assert "| gelu N8 C32 | forward | 151 us | 151 us | 1.00 |" in text
    assert "N9 C9" not in text and "999" not in text and "forward | 100 us" not in text
    assert "| all_reduce, 2 ranks | 1024 | 100 us | 0.01 | 151 us | 1.50 |" in text
    assert "Other programs disturbed 1 of 5 rows" in text
    save(tmp_path / "one.json", row(), threads=1)
    assert readme.tables(tmp_path).count("A CPU, ") == 2  # a table for each machine and number of threads
    old.write_text("{}")
    with pytest.raises(ValueError, match=r"old.json: not a file of"):
        readme.tables(tmp_path)


def test_readme_markers() -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    made = readme.replaced(text, "| new |")
    assert made == f"before\n{readme.BEGIN}\n\n| new |\n\n{readme.END}\nafter\n"
    assert readme.replaced(made, "| new |") == made
    for bad in ("nothing", text + text, f"{readme.END} {readme.BEGIN}"):
        with pytest.raises(ValueError, match="README.md must hold the lines"):
            readme.replaced(bad, "x")
