"""The tables of registers and shared memory in docs/ are those of kernels/resources.json and of the launches' plans.

    python -m tests.test_docs_resources    # writes them
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cuframe.cuda import resources
from cuframe.cuda.persistent import GPUS, persistent_plan
from cuframe.gpu import attention

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- registers: python -m tests.test_docs_resources -->", "<!-- end of registers -->"
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
TYPES = {"float": "fp32", "double": "fp64", "half": "fp16", "bf16": "bf16"}
CELLS = {"0": "LSTM", "1": "GRU", "2": "RNN"}

Instance = tuple[str, list[str], list[list[int] | None]]


def instances(pattern: str) -> Iterator[Instance]:
    """Name, template arguments, and on each architecture what it takes; None where it does not run."""
    table = resources.read_baseline()["kernels"]
    for expression in sorted({e for arch in ARCHITECTURES for e in table[arch]}):
        found = re.fullmatch(rf"({pattern}\w*)(?:<(.*)>)?", expression)
        if found:
            yield found[1], (found[2] or "").split(", "), [table[arch].get(expression) for arch in ARCHITECTURES]


def row(cells: list[str], used: list[list[int] | None], dynamic: str) -> str:
    assert all(u is None or u[2] == 0 for u in used), f"{cells}: a stack frame"
    static = {u[1] for u in used if u}
    shared = "-".join(str(n) for n in sorted({min(static), max(static)}))
    registers = ["" if u is None else str(u[0]) for u in used]
    return f"| {' | '.join([*cells, *registers, shared, dynamic])} |"


def kib(shared: int | None) -> str:
    return "-" if shared is None else f"{shared / 1024:.0f}"


def recurrent() -> list[str]:
    lines = [f"| | cell | type | {' | '.join(ARCHITECTURES)} | static, B | dynamic, KB |",
             "|---|---|---|" + "--:|" * (len(ARCHITECTURES) + 2)]
    for name, (kind, cell, tf32), used in instances("rnn_persistent"):
        way = name.removeprefix("rnn_persistent_")
        dtype = "tf32" if tf32 == "true" else {"float": "float32", "double": "float64", "half": "float16",
                                               "bf16": "bfloat16"}[kind]
        cells = {"0": "lstm", "1": "gru", "2": "rnn_tanh"}
        plans = [persistent_plan(GPUS["H200"], cells[cell], dtype, hidden, 16) for hidden in (512, 1024)]
        dynamic = " / ".join(kib(p and getattr(p, way).shared) for p in plans)
        lines.append(row([way, CELLS[cell], "TF32" if tf32 == "true" else TYPES[kind]], used, dynamic))
    return lines


def tiled() -> list[str]:
    lines = [f"| | type | width | {' | '.join(ARCHITECTURES)} | static, B | dynamic, KB |",
             "|---|---|---|" + "--:|" * (len(ARCHITECTURES) + 2)]
    sizes = {"float": np.dtype("float32"), "double": np.dtype("float64"), "half": np.dtype("float16"),
             "bf16": np.dtype("float16")}
    for name, arguments, used in instances("attention"):
        kind, *rest = arguments
        dynamic, way = None, name.removeprefix("attention_").replace("_", " ")
        if rest:
            width = int(rest[0])
            if name == "attention_mma_forward":
                dynamic = attention._mma_forward_tiles(width, sizes[kind].itemsize)[2]
            elif name == "attention_mma_backward":
                dynamic = attention._mma_backward_tiles(width, int(rest[1]), sizes[kind].itemsize)[2]
                way += {"0": ", dQ", "1": ", dK and dV", "2": ", dV", "3": ", dK"}[rest[1]]
            elif name == "attention_backward":
                dynamic = attention._tiles(sizes[kind], width, 2)[2]
                way += ", dK and dV" if rest[1] == "true" else ", dQ"
            else:
                dynamic = attention._tiles(sizes[kind], width, 1)[2]
        dtype = "TF32" if kind == "float" and "mma" in name else TYPES.get(kind, "")
        lines.append(row([way, dtype, rest[0] if rest else ""], used, "0" if dynamic is None else kib(dynamic)))
    return lines


PAGES: dict[str, Callable[[], list[str]]] = {"rnn_kernels.md": recurrent, "attention_kernel.md": tiled}


def split(page: str) -> tuple[str, str, str]:
    head, _, rest = (DOCS / page).read_text(encoding="utf-8").partition(BEGIN)
    made, _, tail = rest.partition(END)
    return head + BEGIN, made, END + tail


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_kernels(page: str) -> None:
    assert split(page)[1].strip().splitlines() == PAGES[page](), "python -m tests.test_docs_resources writes them"


def test_the_limits_are_those_of_the_plans() -> None:
    """One direction a launch: LSTM, GRU and RNN, in 16 bits, fp32 and fp64."""
    from cuframe.cuda import persistent_limits

    text = (DOCS / "rnn_kernels.md").read_text(encoding="utf-8").partition("One direction a launch:")[2]
    both = text.partition("Both directions in one launch")[2]
    for directions, part in ((1, text.partition("Both directions")[0]), (2, both)):
        rows = re.findall(r"^\| ([A-Z][\w ,]+?) \| ([\d/ ]+) \| ([\d/ ]+) \| ([\d/ ]+) \|$", part, re.MULTILINE)
        named = {gpu for names, *_ in rows for gpu in names.split(", ")}
        assert named == set(GPUS)
        for names, *cells in rows:
            for gpu in names.split(", "):
                found = [[str(persistent_limits(gpu, cell, dtype, directions)) for dtype in
                          ("float16", "float32", "float64")] for cell in ("lstm", "gru", "rnn_tanh")]
                assert [" / ".join(limits) for limits in found] == cells, (gpu, directions)


if __name__ == "__main__":
    for page, table in PAGES.items():
        head, _, tail = split(page)
        (DOCS / page).write_text(head + "\n\n" + "\n".join(table()) + "\n\n" + tail, encoding="utf-8")
