"""Show versions, devices, driver, CUDA libraries, the kernel cache, and how to install what is missing."""

import argparse
import json
import sys
from typing import Any

from cuframe.cli._facts import CUDA_LIBRARIES, collect

Section = tuple[str, list[tuple[str, str]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    facts = collect()
    if args.json:
        print(json.dumps(facts, indent=2))
    elif sys.stdout.isatty():
        _print_rich(sections(facts))
    else:
        print(plain(sections(facts)))
    return 0


def sections(facts: dict[str, Any]) -> list[Section]:
    """Arrange what `collect` found as titled lists of (label, value) rows."""
    blas, cpu = facts["blas"], facts["cpu"]
    numpy = f"{facts['packages']['numpy']}, {blas['name'] or 'unknown BLAS'} {blas['version'] or ''}".rstrip()
    if blas["threads"] is not None:
        numpy += f", {_count(blas['threads'], 'thread')}"
    versions = [
        ("cuframe", f"{facts['cuframe']} in {facts['location']}"),
        ("Python", f"{facts['python']}, {facts['platform']}"),
        ("NumPy", numpy),
    ]
    versions += [(n, v or "not installed") for n, v in facts["packages"].items() if n != "numpy"]
    memory = f"{_size(cpu['memory_bytes'])} memory, {_size(cpu['available_bytes'])} available"
    devices = [("cpu", f"{cpu['model'] or 'unknown'}, {_count(cpu['cores'], 'core')}, {memory}")]
    for gpu in facts["gpus"]:
        free = "" if gpu["free_bytes"] is None else f", {_size(gpu['free_bytes'])} free"
        devices.append(
            (
                gpu["device"],
                f"{gpu['name']}, compute capability {gpu['capability']}, {_size(gpu['memory_bytes'])}{free}",
            )
        )
    cache = facts["kernel_cache"]
    kernels = [
        ("sources", _answer(facts["kernels"])),
        ("cache", f"{cache['path']}, {_count(cache['files'], 'file')}, {_size(cache['bytes'])}"),
    ]
    result = [("Versions", versions), ("Devices", devices), ("CUDA", _cuda_rows(facts)), ("Kernels", kernels)]
    if facts["missing"]:
        result.append(("Missing", [(m["what"], m["install"]) for m in facts["missing"]]))
    return result


def _cuda_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    driver, cupy = facts["driver"], facts["cupy"]
    if driver is None:
        rows = [("driver", "no NVIDIA driver found; everything runs on the CPU")]
    else:
        text = f"{driver['version'] or 'version unknown'}, runs CUDA {driver['cuda']}"
        rows = [("driver", text + (f"; {driver['problem']}" if driver["problem"] else ""))]
    if cupy is None:
        return [*rows, ("CuPy", "not installed; only a GPU needs it")]
    name = ", ".join(f"{n} {v}" for n, v in cupy["distributions"].items()) or cupy["version"] or "unpackaged"
    rows.append(("CuPy", name if cupy["problem"] is None else f"{name} is broken: {cupy['problem']}"))
    return rows + [(label, _answer(cupy[part])) for part, label in CUDA_LIBRARIES.items() if part in cupy]


def _answer(probed: dict[str, str | None]) -> str:
    return probed["answer"] or f"unusable: {probed['problem']}"


def plain(found: list[Section]) -> str:
    """Format sections as aligned text."""
    lines = []
    for title, rows in found:
        lines.append(title)
        width = max(len(label) for label, _ in rows)
        lines += [f"  {label:<{width}}  {value}" for label, value in rows]
    return "\n".join(lines)


def _print_rich(found: list[Section]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for title, rows in found:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for label, value in rows:
            table.add_row(Text("  " + label), Text(value))
        console.print(Text(title, style="bold"))
        console.print(table)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(number: int | None) -> str:
    if number is None:
        return "unknown"
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
