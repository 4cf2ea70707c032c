"""The results as a short text, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu import standing as standing_lines
from cuframe.bench.selection import in_order
from cuframe.bench.table import COLUMNS, cells, duration
from cuframe.bench.table import markdown as table

__all__ = ["markdown", "standing", "summary", "timings"]

_STAGES = ("environment", "compile", "correctness", "repeats", "tune", "timings", "sanitizer", "grid")
_STANDING = ["", "cases", "mean", "worst", "", "aim", "time over floor"]


def _of_stage(data: Mapping[str, Any], stage: str) -> list[tuple[str, dict[str, Any]]]:
    return [(name, unit) for name, unit in data["units"].items() if unit["stage"] == stage]


def facts(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of the environment stage."""
    return {row["key"]: row for row in data["units"].get("environment", {}).get("rows", [])}


def timings(data: Mapping[str, Any], *stages: str) -> Iterator[dict[str, Any]]:
    """The rows of stages that hold times; of what was measured again, the last."""
    found = {row["key"]: row for stage in stages or ("timings",) for _, unit in _of_stage(data, stage)
             for row in unit.get("rows", []) if "us" in row}
    yield from found.values()


def standing(data: Mapping[str, Any]) -> list[standing_lines.Line]:
    """Means against PyTorch's kernels for recurrent layers and attention, of all sizes that were measured."""
    rows = list(timings(data, "timings", "grid"))
    return standing_lines.recurrent_lines(rows) + standing_lines.attention_lines(rows)


def _standing_cells(line: standing_lines.Line) -> list[str]:
    aim = "" if line.aim is None else f"{line.aim:g}" + ("" if line.least is None else f", worst {line.least:g}")
    met = {None: "", True: ": met", False: ": missed"}[line.met]
    return [line.what, str(line.count), f"{line.mean:.2f}", f"{line.worst:.2f}", line.where, aim + met,
            "" if line.floor is None else f"{line.floor:.2f}"]


def _title(data: Mapping[str, Any]) -> str:
    found = facts(data)
    packages = found.get("machine", {}).get("packages", {})
    versions = [f"{n} {v}" for n, v in packages.items() if n in ("cupy-cuda12x", "cupy-cuda13x", "torch")]
    nvrtc = found.get("compiler", {}).get("nvrtc")
    smi = found.get("machine", {}).get("nvidia-smi") or {}
    changed = " with changes" if data.get("dirty") else ""
    commit = (data.get("commit") or "unknown")[:10]
    return ", ".join([data["gpu"], data["date"], f"driver {smi.get('driver_version', 'unknown')}",
                      *([f"NVRTC {nvrtc}"] if nvrtc else []), *versions, f"commit {commit}{changed}"])


def summary(data: Mapping[str, Any]) -> str:
    """A few lines: each stage, what failed, the ratios."""
    lines = ["", _title(data)]
    for stage in _STAGES:
        units = _of_stage(data, stage)
        if not units:
            continue
        by: dict[str, list[str]] = {}
        for name, unit in units:
            by.setdefault(unit["status"], []).append(name)
        tests = sum(u.get("passed", 0) for _, u in units), sum(u.get("failed", 0) for _, u in units)
        note = f"  ({tests[0]} tests passed, {tests[1]} failed)" if stage == "correctness" else ""
        lines.append(f"{stage:12} " + ", ".join(f"{len(v)} {k}" for k, v in by.items()) + note)
        for status, names in by.items():
            if status != "passed":
                lines += [f"  {status}: {name}" for name in names]
    rows = list(timings(data))
    for row in rows:
        lines.append("  " + _short(row))
    for line in standing(data):
        what, count, mean, worst, where, aim, floor = _standing_cells(line)
        lines.append(f"  {what:46} {mean:>6} x in the mean of {count}, worst {worst} ({where})"
                     + (f", aim {aim}" if aim else "") + (f", {floor} times the floor" if floor else ""))
    return "\n".join(lines)


def _short(row: Mapping[str, Any]) -> str:
    us = row["us"]["cuframe"][row["figure"]]["median"]
    text = f"{row['key']:54} {duration(us):>8} {row['figure']:4}"
    if "of_roofline" in row:
        text += f"  {row['of_roofline']:4.0%} of the roofline"
    if row["baseline"]:
        text += f"  {row['speedup']:5.2f} x {row['baseline']}"
    return text + (f"  OFF BY {row['error']['value']:.2g}" if row["within"] is False else "")


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    right = ["---"] + ["--:"] * (len(header) - 1)
    return [f"| {' | '.join(r)} |" for r in (header, right, *rows)]


def markdown(data: Mapping[str, Any]) -> str:
    """Tables of what was checked and of the times."""
    lines = [f"## {_title(data)}", ""]
    found = facts(data)
    if "peaks" in found:
        peaks = [f"copies {found['peaks']['copy'] / 1e9:.0f} GB/s",
                 *(f"products {d} {r / 1e12:.1f} TFLOP/s" for d, r in found["peaks"]["products"].items())]
        lines += [f"Ceilings measured there: {', '.join(peaks)}.", ""]
    checks = []
    for stage in _STAGES[1:]:
        for name, unit in _of_stage(data, stage):
            if stage == "timings" and unit["status"] in ("passed", "in part"):
                continue
            counts = ", ".join(f"{unit[k]} {k}" for k in ("passed", "failed", "skipped") if unit.get(k))
            counts = counts or f"{len(unit.get('rows', []))} rows"
            checks.append([name.replace("|", " "), unit["status"], counts, f"{unit.get('seconds', 0):.0f}"])
    if checks:
        lines += [*_table(["unit", "result", "what", "seconds"], checks), ""]
    rows = [cells(row) for row in in_order(timings(data))]
    if rows:
        lines += table(COLUMNS, rows)
        lines += ["", "time: median on the GPU; cold: with the L2 cache overwritten; wall: from call to call.",
                  "roofline: share of what the copies (m) or products (p) measured there allow."]
    means = [_standing_cells(line) for line in standing(data)]
    if means:
        lines += ["", "Times as fast as cuDNN and as PyTorch's attention, geometric means over all sizes measured:", "",
                  *_table(_STANDING, means)]
    for title, header, body in standing_lines.grids(timings(data, "timings", "grid")):
        lines += ["", f"{title}: times as fast as cuDNN, and a step of cuframe's", "", *_table(header, body)]
    return "\n".join(lines)
