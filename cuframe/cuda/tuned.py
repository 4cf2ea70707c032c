"""What measurement decides about launches: one table an architecture, which `cuframe kernels tune` writes.

A table is JSON: the user's `tuned/<arch>.json` in the cache folder, else that of `kernels/tuned`, else
`kernels/tuned/default.json`, which nobody has measured.  It holds, under "rnn_persistent":

    least_steps   from how many steps on one launch for all of them is used
    chunk_steps   steps of a layer that the layer above waits for, where layers run beside one another
    exchange, units, tile        for sizes that nothing like them was measured for
    measured      rows of cell, dtype, hidden, batch, directions with the exchange, units and tile that were fastest
                  there, and "us", what a step took, forward and backward

Of the measured rows, the nearest decides: the same cell, dtype and directions, and the smallest ratio of sizes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cuframe import _paths

__all__ = ["EXCHANGES", "Choice", "Table", "read", "table", "tuned_path", "write"]

FORMAT = 1
# a barrier and reload, lines with the step's number, shared memory of a cluster (sm_90); kernels have their numbers
EXCHANGES = ("barrier", "lines", "cluster")
# sizes further away than this product of ratios say nothing of one another
_FAR = 16.0
_LEAST = {"least_steps": 1, "chunk_steps": 1, "units": 1, "tile": 0}
_ROW = {"cell": str, "dtype": str, "hidden": int, "batch": int, "directions": int, "exchange": str, "units": int,
        "tile": int, "us": float}


class Choice(NamedTuple):
    """How a persistent recurrent layer is launched: see the module."""

    exchange: str
    units: int
    tile: int


class Table(NamedTuple):
    """What is known of an architecture."""

    least_steps: int
    chunk_steps: int
    default: Choice
    measured: Mapping[tuple[str, str, int], tuple[tuple[int, int, Choice], ...]]

    def rnn(self, cell: str, dtype: str, hidden: int, batch: int, directions: int = 1) -> Choice:
        """The launch for such a layer; `dtype` may be "tf32".  bfloat16 is as fast as float16, ReLU as tanh."""
        cell = "rnn_tanh" if cell == "rnn_relu" else cell
        dtype = "float16" if dtype == "bfloat16" else dtype
        rows = self.measured.get((cell, dtype, directions), ())

        def away(row: tuple[int, int, Choice]) -> float:
            return abs(math.log(row[0] / hidden)) + abs(math.log(row[1] / batch))

        nearest = min(rows, key=away, default=None)
        return self.default if nearest is None or away(nearest) > math.log(_FAR) else nearest[2]


def tuned_path(arch: str) -> Path:
    """Where the user's table of an architecture is, or would be."""
    return _paths.cache_dir() / "tuned" / f"{arch}.json"


def table(arch: str) -> Table:
    """The table of an architecture, "sm_90"; read once.

    Raises:
        ValueError: its file is not such a table.
    """
    return _table(arch, tuned_path(arch))


@lru_cache(64)
def _table(arch: str, own: Path) -> Table:
    folder = _paths.kernels_dir() / "tuned"
    for path in (own, folder / f"{arch}.json"):
        if path.is_file():
            return read(path)
    return read(folder / "default.json")


def read(path: Path) -> Table:
    """The table of a file.

    Raises:
        ValueError: what is in the file is not such a table.
    """
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}, this version reads {FORMAT}")
        found = data["rnn_persistent"]
        for name, least in _LEAST.items():
            _integer(name, found[name], least)
        rows: dict[tuple[str, str, int], tuple[tuple[int, int, Choice], ...]] = {}
        for row in found["measured"]:
            for name, kind in _ROW.items():
                if not isinstance(row[name], kind):
                    raise ValueError(f"{name} must be {kind.__name__}, got {row[name]!r}")
            for name in ("hidden", "batch", "directions"):
                _integer(name, row[name], 1)
            key = row["cell"], row["dtype"], row["directions"]
            rows[key] = (*rows.get(key, ()), (row["hidden"], row["batch"], _choice(row)))
        return Table(found["least_steps"], found["chunk_steps"], _choice(found), rows)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is no table of tuned launches: {what}; `cuframe kernels tune` writes one") from None


def _choice(row: Mapping[str, Any]) -> Choice:
    if row["exchange"] not in EXCHANGES:
        raise ValueError(f"exchange must be one of {', '.join(EXCHANGES)}, got {row['exchange']!r}")
    return Choice(row["exchange"], _integer("units", row["units"], 1), _integer("tile", row["tile"], 0))


def _integer(name: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be an integer from {least} on, got {value!r}")
    return value


def _text(data: Mapping[str, Any]) -> str:
    """JSON with a line for each row."""
    rows = ",\n".join(f"   {json.dumps(row)}" for row in data["rnn_persistent"]["measured"])
    head = json.dumps({**data, "rnn_persistent": {**data["rnn_persistent"], "measured": []}}, indent=1)
    return head.replace('"measured": []', f'"measured": [\n{rows}\n  ]' if rows else '"measured": []') + "\n"


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Put a table in its place, whole or not at all; those read before are forgotten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(_text(data))
    read(fresh)
    fresh.replace(path)
    _table.cache_clear()
