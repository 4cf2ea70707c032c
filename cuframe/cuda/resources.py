"""What a kernel takes of a multiprocessor: occupancy by architecture, and the committed table it is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cuframe import _paths
from cuframe.cuda.compile import Resources

__all__ = ["ARCHITECTURES", "baseline_path", "complaints", "occupancy", "read_baseline", "write_baseline"]


class _Multiprocessor(NamedTuple):
    """Limits of one multiprocessor: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""

    warps: int
    blocks: int
    shared: int                         # bytes for all blocks together
    reserved: int                       # bytes of it that each block costs besides its own


_KIB = 1024
ARCHITECTURES = {
    "sm_75": _Multiprocessor(32, 16, 64 * _KIB, 0),
    "sm_80": _Multiprocessor(64, 32, 164 * _KIB, _KIB),
    "sm_86": _Multiprocessor(48, 16, 100 * _KIB, _KIB),
    "sm_89": _Multiprocessor(48, 24, 100 * _KIB, _KIB),
    "sm_90": _Multiprocessor(64, 32, 228 * _KIB, _KIB),
    "sm_90a": _Multiprocessor(64, 32, 228 * _KIB, _KIB),
    "sm_100": _Multiprocessor(64, 32, 228 * _KIB, _KIB),
    "sm_120": _Multiprocessor(48, 24, 100 * _KIB, _KIB),
}
_REGISTERS = 65536
# registers are given out to warps in pieces of this many
_PIECE = 256
# a kernel may grow by this many registers before it counts as worse
_SLACK = 2


def occupancy(arch: str, used: Resources, threads: int) -> float:
    """The share of a multiprocessor's warps that can be resident, by registers and static shared memory.

    >>> occupancy("sm_90", Resources(registers=32, shared=0, stack=0, spills=0), threads=256)
    1.0
    """
    limits = ARCHITECTURES[arch]
    warps = -(-threads // 32)
    per_warp = -(-max(used.registers, 1) * 32 // _PIECE) * _PIECE
    blocks = min(limits.blocks, limits.warps // warps, _REGISTERS // per_warp // warps)
    if used.shared:
        blocks = min(blocks, limits.shared // (used.shared + limits.reserved))
    return blocks * warps / limits.warps


def baseline_path() -> Path:
    """Where the committed table is."""
    return _paths.kernels_dir() / "resources.json"


def read_baseline() -> dict[str, Any]:
    """The committed table: {"nvrtc": version, "kernels": {architecture: {instance: [registers, shared, stack]}}}."""
    path = baseline_path()
    return json.loads(path.read_text()) if path.is_file() else {"nvrtc": None, "kernels": {}}


def write_baseline(version: str, table: Mapping[str, Mapping[str, Resources]], pattern: str = "") -> None:
    """Replace the rows of the architectures in `table` whose names contain `pattern`."""
    stored = read_baseline()
    kernels = stored["kernels"] if stored["nvrtc"] == version else {}
    for arch, rows in table.items():
        others = {name: values for name, values in kernels.get(arch, {}).items() if pattern not in name}
        kernels[arch] = dict(sorted({**others, **{name: list(r[:3]) for name, r in rows.items()}}.items()))
    lines = []
    for arch in sorted(kernels):
        body = ",\n".join(f"   {json.dumps(name)}: {json.dumps(values)}" for name, values in kernels[arch].items())
        lines.append(f"  {json.dumps(arch)}: {{\n{body}\n  }}")
    text = ",\n".join(lines)
    baseline_path().write_text(f'{{\n "nvrtc": {json.dumps(version)},\n "kernels": {{\n{text}\n }}\n}}\n')


def complaints(arch: str, name: str, used: Resources, before: list[int] | None) -> list[str]:
    """What is wrong with an instance: spills, or more registers, shared memory or stack than in the table."""
    found = [f"{used.spills} bytes spilled"] if used.spills else []
    if before is not None:
        for what, now, then, slack in zip(("registers", "shared", "stack"), used, before, (_SLACK, 0, 0)):
            if now > then + slack:
                found.append(f"{what} {then} -> {now}")
    return [f"{arch} {name}: {text}" for text in found]
