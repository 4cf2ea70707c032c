"""How recurrent layers stand against cuDNN, and attention against PyTorch's kernels: means, the worst, and floors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, log
from typing import Any, NamedTuple

__all__ = ["Line", "attention_lines", "grids", "persists", "reasons", "recurrent_lines"]

Row = Mapping[str, Any]
_RECURRENT = ("lstm", "gru", "rnn_tanh", "lstm_bidirectional", "gru_bidirectional", "lstm_stacked", "lstm_lengths",
              "gru_lengths")
_ATTENTION = ("attention", "attention_full")
# what a mean is to be, and the worst, by mode: where cuDNN has its persistent algorithms, and where it falls back
_AIMS: dict[bool, dict[str, tuple[float, float | None]]] = {
    True: {"forward": (1.0, 0.8), "training": (1.0, 0.8)}, False: {"forward": (4.0, None), "training": (3.0, None)}}
_ATTENTION_AIMS = {"forward": 1.15, "backward": 1.1}


class Line(NamedTuple):
    """A class of rows: how many, the geometric mean of times as fast, the worst and its name, aims, time over floor."""

    what: str
    count: int
    mean: float
    worst: float
    where: str
    aim: float | None = None
    least: float | None = None
    floor: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the aims are reached; None where there are none."""
        if self.aim is None:
            return None
        return self.mean >= self.aim and (self.least is None or self.worst >= self.least)


def persists(row: Row) -> bool:
    """Whether PyTorch asks cuDNN for a persistent algorithm, on GPUs from sm_80 on with 98 multiprocessors or more.

    By the rules of PyTorch 2.11: where hidden states are few, for every float but float64, and for float16 a single
    layer of an LSTM or an Elman cell with sizes that suit; never for packed sequences.
    """
    s, gated = row["sizes"], not row["family"].startswith("rnn")
    if row["family"].endswith("_lengths"):
        return False
    small = {True: (192, 128), False: (384, 256)}[gated][row["mode"] == "training"]
    if s["H"] <= small:
        return True
    suits = s["L"] == s["D"] == 1 and s["H"] <= 1024 and s["H"] % 128 == s["I"] % 128 == 0
    suits = suits and s["N"] % 8 == 0 and s["N"] <= 128 and (gated or s["N"] < 96 or s["H"] < 896)
    return row["dtype"] == "float16" and not row["family"].startswith("gru") and suits


def reasons(row: Row) -> list[str]:
    """Why cuDNN falls back."""
    s = row["sizes"]
    found = {"bfloat16": row["dtype"] == "bfloat16", "float32": row["dtype"] == "float32",
             "GRU": row["family"].startswith("gru"), "two directions": s["D"] == 2, "several layers": s["L"] > 1,
             "H not a multiple of 128": s["H"] % 128 > 0, "H beyond 1024": s["H"] > 1024,
             "batch not a multiple of 8": s["N"] % 8 > 0, "lengths": row["family"].endswith("_lengths")}
    return [name for name, holds in found.items() if holds]


def _median(row: Row, label: str) -> float:
    return row["us"][label][row["figure"]]["median"]


def _line(what: str, ratios: Sequence[tuple[float, str]], floors: Iterable[float] = (), aim: float | None = None,
          least: float | None = None) -> Line:
    worst, where = min(ratios)
    over = [f for f in floors if f > 0]
    return Line(what, len(ratios), _mean([r for r, _ in ratios]), worst, where, aim, least,
                _mean(over) if over else None)


def _mean(values: Sequence[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def recurrent_lines(rows: Iterable[Row]) -> list[Line]:
    """Against cuDNN: where its persistent algorithms apply, where it falls back, and there for each reason."""
    known = [r for r in rows if r["family"] in _RECURRENT and "torch" in r["us"]]
    lines: list[Line] = []

    def add(what: str, some: Sequence[Row], aim: float | None = None, least: float | None = None) -> None:
        if some:
            ratios = [(_median(r, "torch") / _median(r, "cuframe"), r["key"]) for r in some]
            floors = [1 / r["of_roofline"] for r in some if r.get("of_roofline")]
            lines.append(_line(what, ratios, floors, aim, least))

    for mode in ("forward", "training"):
        own = [r for r in known if r["mode"] == mode]
        for applies, text in ((True, "cuDNN's persistent algorithms"), (False, "cuDNN falls back")):
            add(f"{mode}: {text}", [r for r in own if persists(r) == applies], *_AIMS[applies][mode])
        back = [r for r in own if not persists(r)]
        for reason in dict.fromkeys(reason for r in back for reason in reasons(r)):
            add(f"{mode}: falls back, {reason}", [r for r in back if reason in reasons(r)])
    return lines


def attention_lines(rows: Iterable[Row]) -> list[Line]:
    """Against each of PyTorch's kinds; backward is what training takes beyond forward."""
    by: dict[tuple[Any, ...], dict[str, Row]] = {}
    for r in rows:
        if r["family"] in _ATTENTION:
            by.setdefault((r["family"], r["label"], r["dtype"]), {})[r["mode"]] = r
    lines = []
    for kind in ("flash_attention", "cudnn_attention"):
        def forward(modes: Mapping[str, Row], label: str) -> float | None:
            row = modes.get("forward")
            return _median(row, label) if row and label in row["us"] else None

        def backward(modes: Mapping[str, Row], label: str) -> float | None:
            row, first = modes.get("training"), forward(modes, label)
            return None if first is None or row is None or label not in row["us"] else _median(row, label) - first

        takes: dict[str, Callable[[Mapping[str, Row], str], float | None]] = {"forward": forward, "backward": backward}
        for name, time in takes.items():
            ratios, floors = [], []
            for modes in by.values():
                ours, theirs = time(modes, "cuframe"), time(modes, kind)
                if ours and theirs and ours > 0 and theirs > 0:
                    ratios.append((theirs / ours, next(iter(modes.values()))["key"].rpartition(" ")[0]))
                    if name == "forward" and modes["forward"].get("of_roofline"):
                        floors.append(1 / modes["forward"]["of_roofline"])
            if ratios:
                aim = _ATTENTION_AIMS[name] if kind == "flash_attention" else None
                lines.append(_line(f"{name}: {kind.replace('_', ' ')}", ratios, floors, aim))
    return lines


def grids(rows: Iterable[Row]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Tables of hidden sizes by batches: times as fast as cuDNN, and what a step of ours takes."""
    found: dict[str, dict[tuple[int, int], Row]] = {}
    for r in rows:
        s = r["sizes"]
        if r["family"] in ("lstm", "gru") and s["L"] == s["D"] == 1 and s["I"] == s["H"] and "torch" in r["us"]:
            title = f"{r['family']}, {r['dtype']}, {s['T']} steps, {r['mode']}"
            found.setdefault(title, {})[s["H"], s["N"]] = r
    tables = []
    for title, cells in sorted(found.items()):
        batches = sorted({n for _, n in cells})
        body = [[str(h), *(_cell(cells.get((h, n))) for n in batches)] for h in sorted({h for h, _ in cells})]
        tables.append((title, ["H", *(f"N {n}" for n in batches)], body))
    return tables


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    ours = _median(row, "cuframe")
    return f"{_median(row, 'torch') / ours:.2f} x, {ours / row['sizes']['T']:.2f} us"
