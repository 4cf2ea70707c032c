"""The file of results: versioned JSON, written whole after each row, so that a run can go on where it stopped."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["KIND", "SCHEMA", "BadResults", "Results", "problems", "read", "title"]

KIND = "cuframe bench"
SCHEMA = 1
_GPU_CHECK = 2  # the version of `make gpu-check`'s files
# what a run must have in common with the rows that are there
_SAME = ("device", "cpu", "cores", "gpu", "timer", "threads", "commit", "torch")


class BadResults(ValueError):
    """A file that is no file of results, or one that does not fit."""


@dataclass
class Results:
    """Rows by key, with what was the same for all."""

    path: Path | None
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(cls, path: Path | None, **facts: Any) -> Results:
        now = datetime.datetime.now().astimezone().isoformat("T", "seconds")
        return cls(path, {"kind": KIND, "schema": SCHEMA, "started": now, "facts": facts, "peaks": {}, "rows": []})

    @classmethod
    def open(cls, path: Path | None, retry: bool = False, **facts: Any) -> Results:
        """A new file, or the one that is there, if its rows were made on the same machine by the same code.

        Raises:
            BadResults: it holds something else.
        """
        if path is None or not path.exists():
            return cls.new(path, **facts)
        found = cls(path, read(path))
        if found.data["kind"] != KIND:
            raise BadResults(f"{path}: a file of `make gpu-check`; name another for `cuframe bench run`")
        for name in _SAME:
            then, now = found.data["facts"].get(name), facts.get(name)
            if then != now:
                raise BadResults(f"{path}: its rows were made with {name} {then}, this is {now}; name another file")
        if found.data.pop("running", None) and not retry:
            key = found.data.pop("running key", "")
            found.data["rows"].append({"key": f"{key} error", "case": key, "error_text": "the process ended within it"})
        if retry:
            found.data["rows"] = [r for r in found.rows if "error_text" not in r]
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.data["rows"]

    @property
    def keys(self) -> dict[str, dict[str, Any]]:
        return {row["key"]: row for row in self.rows}

    def done(self, case_key: str) -> bool:
        """Whether all rows of a case are there, or the row that says why not."""
        own = [r for r in self.rows if r["key"].rpartition(" ")[0] == case_key]
        return any("error_text" in r for r in own) or (bool(own) and len(own) >= len(own[0].get("modes", [1])))

    def begin(self, case_key: str) -> None:
        """Note what is under way: should the process die of it, the next run leaves it out."""
        self.data["running"], self.data["running key"] = True, case_key
        self.save()

    def end(self) -> None:
        self.data.pop("running", None)
        self.data.pop("running key", None)
        self.save()

    def add(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))
        self.save()

    def save(self) -> None:
        """Write the whole file beside the old one, then put it in its place."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text(_text(self.data))
        os.replace(beside, self.path)


def _text(data: Mapping[str, Any]) -> str:
    """JSON with a line for each row, for whoever reads differences between commits."""
    head = json.dumps({k: v for k, v in data.items() if k != "rows"}, indent=1).removesuffix("\n}")
    rows = ",\n  ".join(json.dumps(row) for row in data["rows"])
    return f'{head},\n "rows": [\n  {rows}\n ]\n}}\n'


def read(path: Path) -> dict[str, Any]:
    """The data of a file; timings of `make gpu-check` are given the same form.

    Raises:
        BadResults: there is none, or it is not of this version.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise BadResults(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise BadResults(f"{path}: no JSON: {error}") from None
    if isinstance(data, dict) and "units" in data:
        if data.get("version") != _GPU_CHECK:
            raise BadResults(f"{path}: version {data.get('version')} of gpu-check's results, this is {_GPU_CHECK}")
        data = _of_gpu_check(data)
    if not isinstance(data, dict) or data.get("kind") not in (KIND, "cuframe gpu-check"):
        raise BadResults(f"{path}: not a file of `cuframe bench run --json`")
    if data.get("schema") != SCHEMA:
        raise BadResults(f"{path}: schema {data.get('schema')} of the results, this is {SCHEMA}")
    if wrong := problems(data):
        raise BadResults(f"{path}: {wrong[0]}")
    return data


def _of_gpu_check(data: dict[str, Any]) -> dict[str, Any]:
    facts = {row["key"]: row for row in data["units"].get("environment", {}).get("rows", [])}
    machine, gpu = facts.get("machine", {}), facts.get("device", {})
    rows = {row["key"]: row for unit in data["units"].values() if unit["stage"] == "timings"
            for row in unit.get("rows", []) if "us" in row}  # of what was measured again, the last
    smi = machine.get("nvidia-smi") or {}
    return {"kind": "cuframe gpu-check", "schema": SCHEMA, "started": data.get("started") or data.get("date", ""),
            "facts": {"device": "cuda", "gpu": data.get("gpu"), "commit": data.get("commit"),
                      "dirty": data.get("dirty"), "driver": smi.get("driver_version"), "cupy": gpu.get("cupy"),
                      "nvrtc": facts.get("compiler", {}).get("nvrtc"), "timer": "event",
                      "torch": machine.get("packages", {}).get("torch")},
            "peaks": {k: facts["peaks"][k] for k in ("copy", "products")} if "peaks" in facts else {},
            "rows": list(rows.values())}


_FIELDS: dict[str, tuple[type, ...]] = {
    "family": (str,), "group": (str,), "label": (str,), "dtype": (str,), "mode": (str,), "device": (str,),
    "figure": (str,), "us": (dict,), "samples_us": (dict,), "sizes": (dict,)}


def problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with the data of a file; nothing for a good one."""
    found = [f"{name} is missing" for name in ("facts", "rows", "started") if name not in data]
    if found:
        return found
    seen: set[str] = set()
    for i, row in enumerate(data["rows"]):
        key = row.get("key")
        if not isinstance(key, str):
            found.append(f"row {i} has no key")
            continue
        if key in seen:
            found.append(f"{key}: twice")
        seen.add(key)
        if "error_text" not in row:
            found += _row_problems(key, row)
    return found


def _row_problems(key: str, row: Mapping[str, Any]) -> Iterable[str]:
    for name, types in _FIELDS.items():
        if not isinstance(row.get(name), types):
            yield f"{key}: {name} must be {types[0].__name__}, got {row.get(name)!r}"
            return
    figure = row["figure"]
    for label, kinds in row["us"].items():
        stats = kinds.get(figure)
        if not isinstance(stats, dict) or not {"median", "iqr", "p5", "p95", "n"} <= set(stats):
            yield f"{key}: no {figure} time of {label}"


def title(data: Mapping[str, Any]) -> str:
    """Machine, date, versions and commit in a line."""
    facts = data["facts"]
    parts = [facts.get("gpu") or f"{facts.get('cpu')}, {facts.get('threads')} thread(s)", data["started"][:10]]
    for name in ("driver", "cupy", "nvrtc", "torch"):
        if facts.get(name):
            parts.append(f"{ {'cupy': 'CuPy', 'nvrtc': 'NVRTC', 'torch': 'PyTorch'}.get(name, name)} {facts[name]}")
    if facts.get("timer") == "process":
        parts.append("processor time")
    if facts.get("device") == "cpu":
        parts.append("with llvmlite" if facts.get("compiled") else "without llvmlite")
    if facts.get("commit"):
        parts.append(f"commit {facts['commit'][:10]}" + (" with changes" if facts.get("dirty") else ""))
    return ", ".join(parts)
