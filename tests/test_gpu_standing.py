"""How gpu-check's report sets recurrent layers against cuDNN, and attention against PyTorch's kernels."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu import standing
from cuframe.bench.case import Case
from cuframe.bench.families import family


def timed(name: str, mode: str, us: float, dtype: str = "float16", sizes: tuple[int, ...] = (128, 16, 512, 512, 1, 1),
          **theirs: float) -> dict[str, Any]:
    of = family(name)
    case = Case(of, sizes, dtype)
    return {"key": f"{case.key} {mode}", "family": name, "group": of.group, "sizes": dict(zip(of.dims, sizes)),
            "label": case.label, "dtype": dtype, "mode": mode, "modes": ["forward", "training"], "figure": "warm",
            "us": {k: {"warm": {"median": v}} for k, v in {"cuframe": us, **theirs}.items()}, "of_roofline": 0.25,
            "baseline": None, "within": None}


@pytest.mark.parametrize(("name", "dtype", "sizes", "forward", "training"), [
    ("lstm", "float16", (128, 16, 768, 768, 1, 1), True, True),
    ("lstm", "bfloat16", (128, 16, 768, 768, 1, 1), False, False),
    ("lstm", "float32", (128, 16, 768, 768, 1, 1), False, False),
    ("lstm", "float16", (128, 4, 768, 768, 1, 1), False, False),
    ("lstm", "float16", (128, 16, 1000, 1000, 1, 1), False, False),
    ("lstm", "float16", (128, 16, 1536, 1536, 1, 1), False, False),
    ("lstm_stacked", "float16", (128, 16, 512, 512, 4, 1), False, False),
    ("lstm_bidirectional", "float16", (128, 16, 512, 512, 1, 2), False, False),
    ("gru", "float16", (128, 16, 768, 768, 1, 1), False, False),
    ("gru", "float32", (128, 1, 192, 192, 1, 1), True, False),
    ("lstm", "bfloat16", (128, 3, 128, 128, 1, 1), True, True),
    ("lstm_lengths", "float16", (128, 16, 128, 128, 1, 1), False, False),
    ("rnn_tanh", "float16", (128, 96, 896, 896, 1, 1), False, False),
    ("rnn_tanh", "float16", (128, 96, 768, 768, 1, 1), True, True),
    ("rnn_tanh", "float32", (128, 1, 256, 256, 1, 1), True, True)])
def test_where_cudnn_persists(name: str, dtype: str, sizes: tuple[int, ...], forward: bool, training: bool) -> None:
    for mode, expected in (("forward", forward), ("training", training)):
        row = timed(name, mode, 1.0, dtype, sizes)
        assert standing.persists(row) == expected
        assert expected or standing.reasons(row) or sizes[1] >= 96


def test_means_against_cudnn() -> None:
    rows = [timed("lstm", "forward", 100.0, torch=80.0), timed("lstm", "forward", 100.0, torch=180.0,
                                                               sizes=(128, 32, 512, 512, 1, 1)),
            timed("gru", "forward", 100.0, torch=900.0), timed("lstm", "training", 100.0, torch=50.0),
            timed("lstm_tf32", "forward", 1.0, torch=1.0), timed("lstm", "forward", 100.0, native=1.0)]
    lines = {line.what: line for line in standing.recurrent_lines(rows)}
    first = lines["forward: cuDNN's persistent algorithms"]
    assert (first.count, first.worst, first.where) == (2, 0.8, "lstm T128 N16 I512 H512 L1 D1 float16 forward")
    assert first.mean == pytest.approx(1.2) and first.met and first.floor == pytest.approx(4.0)
    back = lines["forward: cuDNN falls back"]
    assert (back.count, back.mean, back.aim, back.met) == (1, pytest.approx(9.0), 4.0, True)
    assert lines["forward: falls back, GRU"][1:3] == back[1:3] and lines["forward: falls back, GRU"].met is None
    assert lines["training: cuDNN's persistent algorithms"].met is False and len(lines) == 4
    (title, header, body), *others = standing.grids(rows)
    assert (title, header) == ("gru, float16, 128 steps, forward", ["H", "N 16"])
    assert body == [["512", "9.00 x, 0.78 us"]] and len(others) == 2
    assert others[0][2] == [["512", "0.80 x, 0.78 us", "1.80 x, 0.78 us"]]


def test_means_against_attention() -> None:
    sizes = (8, 16, 2048, 128)
    rows = [timed("attention", "forward", 100.0, sizes=sizes, flash_attention=130.0, cudnn_attention=90.0),
            timed("attention", "training", 300.0, sizes=sizes, flash_attention=350.0)]
    lines = standing.attention_lines(rows)
    assert [(x.what, round(x.mean, 4), x.met) for x in lines] == [
        ("forward: flash attention", 1.3, True), ("backward: flash attention", 1.1, True),
        ("forward: cudnn attention", 0.9, None)]
    assert lines[1].where == "attention N8 H16 S2048 E128 float16"
