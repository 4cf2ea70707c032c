"""PyTorch's own sample inputs for every operation that cuframe has: results, dtypes and gradients agree."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from tests.parity.bridge import (
    TOLERANCES,
    Unsupported,
    compare,
    compare_gradients,
    flat,
    quietly,
    to_cuframe,
)
from tests.parity.exclusions import ADAPTED, RANDOM, TIES, excluded_sample
from tests.parity.exclusions import OPS as EXCLUDED
from tests.parity.exclusions import TOLERANCES as WIDER

pytestmark = pytest.mark.parity


def _op_db() -> list[Any]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return op_db


OP_DB = _op_db()
SAMPLES = 60  # of one operation and dtype, spread over all of them
DTYPES = {torch.float64: "float64", torch.float32: "float32", torch.int64: "int64", torch.bool: "bool"}


def counterpart(name: str) -> Callable | None:
    """cuframe's function (or Tensor method) of an entry's name."""
    if name.startswith("nn.functional."):
        return getattr(getattr(cf.nn, "functional", None), name.rpartition(".")[2], None)
    space, dot, last = name.rpartition(".")
    if dot:
        place = getattr(cf, space, None)
        return getattr(place, last, None)
    found = None if name.startswith("_") else getattr(cf, name, None)
    if not callable(found) or isinstance(found, type):
        found = getattr(cf.Tensor, name, None)
    return found if callable(found) and not isinstance(found, type) else None


def full_name(op: Any) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


PRESENT = [op for op in OP_DB if counterpart(op.name) is not None and full_name(op) not in EXCLUDED]


def spread(samples: list[Any], count: int) -> list[Any]:
    step = max(1, -(-len(samples) // count))
    return samples[::step]


def run_sample(op: Any, ours: Callable, sample: Any, dtype: torch.dtype) -> None:
    """One call in both libraries."""
    random = full_name(op) in RANDOM
    gradients = dtype is torch.float64
    reason = excluded_sample(full_name(op), sample)
    if reason:
        raise Unsupported(reason)
    call = (sample.input, sample.args, dict(sample.kwargs))
    call[2].pop("device", None)
    input, args, kwargs = to_cuframe(call)
    theirs = quietly(op.op, *call[:1], *call[1], **call[2])
    if any(isinstance(t, torch.Tensor) and t.dtype.is_complex for t in flat(theirs)):
        raise Unsupported("complex numbers")
    mine = ours(input, *args, **kwargs)
    if op.name in TIES and not dtype.is_floating_point:
        mine, theirs = (flat(r)[:1] if len(flat(r)) > 1 else [] for r in (mine, theirs))
    name = DTYPES[dtype]
    tolerance = TOLERANCES.get(name, TOLERANCES["float32"])
    if name == "float32":
        tolerance = WIDER.get(op.name, tolerance)
    compare(mine, theirs, "result", tolerance, values=not random)
    if gradients and not random:
        pairs = {id(t): (c, t) for c, t in zip(flat([input, *args, kwargs]), flat([call[0], *call[1], call[2]]))
                 if isinstance(t, torch.Tensor) and t.requires_grad}  # fmt: skip
        compare_gradients(
            mine, theirs, [c for c, _ in pairs.values()], [t for _, t in pairs.values()], "gradients"
        )


def describe(sample: Any, dtype: torch.dtype) -> str:
    def short(v: Any) -> Any:
        if isinstance(v, torch.Tensor):
            return f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}"
        if isinstance(v, (list, tuple)):
            return "[" + ", ".join(str(short(x)) for x in v) + "]"
        return repr(v)

    words = [short(sample.input), *(short(a) for a in sample.args)]
    words += [f"{k}={short(v)}" for k, v in sample.kwargs.items()]
    return f"{DTYPES[dtype]}: ({', '.join(map(str, words))})"


@pytest.mark.parametrize("op", PRESENT, ids=full_name)
def test_op(op: Any, record_property: Any) -> None:
    ours = ADAPTED.get(full_name(op)) or ADAPTED.get(op.name) or counterpart(op.name)
    assert ours is not None
    floats = [d for d in (torch.float64, torch.float32) if d in op.dtypes]
    dtypes = floats + [d for d in (torch.int64, torch.bool) if d in op.dtypes]
    passed = total = 0
    reasons: Counter[str] = Counter()
    failures: list[str] = []
    for dtype in dtypes:
        wants = dtype is torch.float64 and op.supports_autograd
        samples = quietly(lambda d, w: list(op.sample_inputs("cpu", d, requires_grad=w)), dtype, wants)
        for sample in spread(samples, SAMPLES if dtype in floats else SAMPLES // 4):
            torch.manual_seed(0)
            try:
                run_sample(op, ours, sample, dtype)
            except Unsupported as reason:
                reasons[str(reason)] += 1
                continue
            except Exception as error:
                failures.append(f"{describe(sample, dtype)}\n      {type(error).__name__}: {error}".rstrip())
            else:
                passed += 1
            total += 1
    record_property("parity", json.dumps({
        "table": "op_db", "name": full_name(op), "passed": passed, "total": total,
        "excluded": sum(reasons.values()), "reasons": reasons,
    }))  # fmt: skip
    shown = "\n".join(f"  {i + 1}. {text}" for i, text in enumerate(failures[:5]))
    assert not failures, f"{full_name(op)}: {len(failures)} of {total} samples differ:\n{shown}"


def test_list_of_what_is_not_compared(record_property: Any) -> None:
    """Prints the names that cuframe lacks, and holds the exclusions to entries that exist."""
    names = {full_name(op) for op in OP_DB}
    stale = sorted(name for name in EXCLUDED if name not in names)
    assert not stale, f"excluded, but not in op_db: {stale}"
    absent = sorted({op.name for op in OP_DB if counterpart(op.name) is None})
    record_property("parity", json.dumps({"table": "op_db", "absent": absent, "skipped": EXCLUDED}))
