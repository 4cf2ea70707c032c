"""Runs units of work as processes of their own, each with a time limit, and keeps what they found as it comes.

A unit tells what it finds as JSON lines in the file named by `--rows`, so that a crash or a hang loses nothing
but what was under way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["FINAL", "PARTS", "ROOT", "SECONDS", "TRIES", "VERSION", "Results", "Rows", "Unit", "line", "python",
           "read_rows", "run", "status_of"]

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = 2                             # of the JSON
# what `--resume` need not run again
FINAL = ("passed", "failed")
# a unit that has more to do says so by its exit: what it had time for went well, or not
PARTS = {75: "in part", 76: "failed in part"}
GOOD = ("passed", "in part")
SECONDS = "{seconds}"                   # in a command line, the seconds that the unit is to take
_LEFT_OVER = 0.85                       # of its limit: to come to an end it needs the rest
# how often what a unit begins may end its process, or be cut off, and the processes of a unit that goes on
TRIES, _PROCESSES = 2, 4
_TAIL = 3000                            # characters of a log that are kept


@dataclass(frozen=True)
class Unit:
    """One process: what it runs, and the seconds it may take, of which SECONDS in its command line tells it.

    `fold` makes its rows into what is kept.  `again`: should the process die, another one goes on, since it notes in
    its rows what it begins, and leaves out what it did not come back from.
    """

    stage: str
    item: str
    argv: tuple[str, ...]
    limit: float
    fold: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None
    again: bool = False

    @property
    def name(self) -> str:
        return f"{self.stage}:{self.item}" if self.item else self.stage


class Rows:
    """The rows of a unit, in its own process: `rows.add(key, ...)`; a row that is there already is not made again."""

    def __init__(self, path: str | Path | None) -> None:
        self._path = Path(path) if path else None
        self.found = read_rows(self._path) if self._path else []
        self._keys = {row["key"] for row in self.found}

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def begin(self, key: str) -> int:
        """Note that this is under way, which remains should the process die of it; how often it was without an end."""
        count = 1 + sum(row.get("begun") == key for row in self.found)
        self.add(f"begun {count}: {key}", begun=key)
        return count

    def add(self, key: str, **fields: Any) -> dict[str, Any]:
        row = {"key": key, **fields}
        self.found.append(row)
        self._keys.add(key)
        if self._path is None:
            print(json.dumps(row), flush=True)
        else:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of rows; the last may have been cut off."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


@dataclass
class Results:
    """The file of results, written whole after each unit."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Results:
        data = json.loads(path.read_text())
        if data.get("version") != VERSION:
            raise ValueError(f"{path}: version {data.get('version')} of the results, this is {VERSION}")
        return cls(path, data)

    @classmethod
    def new(cls, path: Path, **head: Any) -> Results:
        return cls(path, {"version": VERSION, "tool": "gpu-check", **head, "units": {}})

    @property
    def units(self) -> dict[str, Any]:
        return self.data["units"]

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(_text(self.data))
        os.replace(temporary, self.path)


def _text(data: Mapping[str, Any]) -> str:
    """JSON with a line for each row, of which there may be thousands."""
    units = []
    for name, unit in data["units"].items():
        fields = (f"   {json.dumps(k)}: {_lines(v) if k == 'rows' and v else json.dumps(v)}" for k, v in unit.items())
        units.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(fields) + "\n  }")
    head = json.dumps({k: v for k, v in data.items() if k != "units"}, indent=1).removesuffix("\n}")
    return head + ',\n "units": {\n' + ",\n".join(units) + "\n }\n}\n"


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n   ]"


def run(units: Sequence[Unit], results: Results, *, budget: float = 480, shares: Mapping[str, float] | None = None,
        together: Mapping[str, int] | None = None, say: Callable[[str], None] = print,
        env: Mapping[str, str] | None = None) -> bool:
    """Run the units that have no final result yet.

    Args:
        budget: seconds for all; shares: the part of it that each stage has; what one leaves over, the next gets.
        together: how many units of a stage run at a time; 1 where it says nothing.

    Returns:
        Whether all units, those of earlier runs included, passed, or did so as far as they came.
    """
    start, spent = time.monotonic(), 0.0
    stages = list(dict.fromkeys(u.stage for u in units))
    weights = {s: (shares or {}).get(s, 1 / len(stages)) for s in stages}
    lock = threading.Lock()
    for stage in stages:
        spent += weights[stage] / sum(weights.values())
        deadline = start + budget * spent

        def work(unit: Unit, deadline: float = deadline) -> None:
            with lock:
                before = results.units.get(unit.name, {})
            if before.get("status") in FINAL:
                return
            left = deadline - time.monotonic()
            found: dict[str, Any] = {"status": "not run", "error": "no time left in the budget", **before}
            for _ in range(_PROCESSES if unit.again else 1):
                if left < 1:
                    break
                found = _run_unit(unit, min(unit.limit, left), found.get("rows", []), env)
                left = deadline - time.monotonic()
                if found["status"] not in ("crashed", PARTS[76]):
                    break
            with lock:
                results.units[unit.name] = {"stage": unit.stage, **found}
                results.save()
                say(line(unit.name, results.units[unit.name]))

        with ThreadPoolExecutor((together or {}).get(stage, 1)) as pool:
            list(pool.map(work, [u for u in units if u.stage == stage]))
    return all(results.units[u.name]["status"] in GOOD for u in units)


def line(name: str, found: Mapping[str, Any]) -> str:
    """One line about a unit."""
    counts = " ".join(f"{found[k]} {k}" for k in ("passed", "failed", "skipped") if found.get(k) is not None)
    what = counts or (f"{len(found['rows'])} rows" if found.get("rows") else "")
    text = f"{found['status']:8} {name:44} {found.get('seconds', 0):6.1f} s  {what}".rstrip()
    error = found.get("error", "").strip()
    if error:
        text += "\n         " + error.splitlines()[-1][:200]
    return text


def _run_unit(unit: Unit, limit: float, rows: Iterable[dict[str, Any]],
              env: Mapping[str, str] | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        path, log = Path(folder) / "rows.jsonl", Path(folder) / "log"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        began = time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*_told(unit.argv, limit), "--rows", str(path)], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **_environment(), **(env or {})})
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
        kept = read_rows(path)
        if code is None:
            found |= {"status": "timeout", "error": f"killed after {limit:.0f} s\n"}
        elif code < 0:
            found |= {"status": "crashed", "error": f"ended by {signal.Signals(-code).name}\n"}
        else:
            found |= {"status": PARTS.get(code, "failed" if code else "passed")}
        if found["status"] not in GOOD:
            found["error"] = log.read_text(errors="replace")[-_TAIL:] + "\n" + found.get("error", "")
        if unit.fold is not None:
            found |= unit.fold(kept)
        elif kept:
            found["rows"] = kept
        return found


def _told(argv: tuple[str, ...], limit: float) -> list[str]:
    return [f"{_LEFT_OVER * limit:.0f}" if a == SECONDS else a for a in argv]


def _environment() -> dict[str, str]:
    """The package is used from the checkout, whatever is installed."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


def _end(process: subprocess.Popen) -> None:
    """Kill what the unit started and left; it is in a process group of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def status_of(failed: bool, finished: bool) -> int:
    """With what a unit exits."""
    return int(failed) if finished else 75 + failed


def python(*arguments: str) -> tuple[str, ...]:
    """The command line of a unit in Python."""
    return (sys.executable, *arguments)
