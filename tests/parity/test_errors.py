"""PyTorch's own bad calls: each must raise here too, by a type that its callers would catch, and say what was wrong."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from tests.parity.bridge import Unsupported, quietly, to_cuframe
from tests.parity.exclusions import ADAPTED, OTHER_ERRORS, SHOWN_AS, excluded_error
from tests.parity.test_module_db import MODULE_DB, plain
from tests.parity.test_op_db import OP_DB, counterpart, full_name

pytestmark = pytest.mark.parity

OPS = [op for op in OP_DB if op.error_inputs_func is not None and counterpart(op.name) is not None]
MODULES = [m for m in MODULE_DB if m.module_error_inputs_func is not None and hasattr(cf.nn, plain(m))]
# PyTorch's C++ raises RuntimeError for everything; Python's own type for the same mistake is as good.
FINER = (RuntimeError, ValueError, TypeError, IndexError)


def short(v: Any) -> str:
    if isinstance(v, torch.Tensor):
        return f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}"
    if isinstance(v, (list, tuple)):
        return f"[{', '.join(short(x) for x in v)}]"
    return repr(v)


def call_text(args: Any, kwargs: dict) -> str:
    return f"({', '.join([*(short(a) for a in args), *(f'{k}={short(v)}' for k, v in kwargs.items())])})"


def unlike(name: str, error: Exception, wanted: type[Exception]) -> str | None:
    """What is wrong with an error: its type, or a text that does not tell operation and reason."""
    expected = FINER if wanted is RuntimeError else OTHER_ERRORS.get(name, wanted)
    if not isinstance(error, expected):
        return f"{type(error).__name__}, expected {wanted.__name__}: {error}"
    speaker = re.match(r"(\w+)(\.\w+)*: ", str(error))
    last = name.rpartition(".")[2]
    if speaker is None or speaker[1] not in (last, *SHOWN_AS.get(last, ())):
        return f"does not say that it is {last}: {error}"
    if not re.search(r"\bgot\b|\bhas shape\b|\bmust not\b|\band \d|shapes|\d", str(error)):
        return f"does not say what came: {error}"
    return None


class Tally:
    """Counts of one entry, for the table at the end of `make parity`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.passed = self.total = 0
        self.reasons: Counter[str] = Counter()
        self.failures: list[str] = []

    def add(self, text: str, problem: str | None) -> None:
        self.total += 1
        self.passed += problem is None
        if problem:
            self.failures.append(f"{text}\n      {problem}")

    def close(self, record_property: Any) -> None:
        record_property("parity", json.dumps({
            "table": "bad calls", "name": self.name, "passed": self.passed, "total": self.total,
            "excluded": sum(self.reasons.values()), "reasons": self.reasons,
        }))  # fmt: skip
        shown = "\n".join(f"  {i + 1}. {text}" for i, text in enumerate(self.failures[:8]))
        if self.failures:
            pytest.fail(f"{self.name}: {len(self.failures)} of {self.total} bad calls:\n{shown}", pytrace=False)


@pytest.mark.parametrize("op", OPS, ids=full_name)
def test_op(op: Any, record_property: Any) -> None:
    ours = ADAPTED.get(full_name(op)) or ADAPTED.get(op.name) or counterpart(op.name)
    assert ours is not None
    tally = Tally(full_name(op))
    for case in quietly(lambda: list(op.error_inputs("cpu"))):
        sample = case.sample_input
        kwargs = {k: v for k, v in sample.kwargs.items() if k != "device"}
        args = (sample.input, *sample.args)
        reason = excluded_error(full_name(op), args, kwargs, case.error_type)
        if reason is None:
            try:
                our_args, our_kwargs = to_cuframe((args, kwargs))
            except Unsupported as unsupported:
                reason = str(unsupported)
        if reason:
            tally.reasons[reason] += 1
            continue
        try:
            ours(*our_args, **our_kwargs)
        except Exception as error:
            problem = unlike(op.name, error, case.error_type)
        else:
            problem = f"raises nothing; PyTorch: {case.error_type.__name__}: {case.error_regex}"
        tally.add(call_text(args, kwargs), problem)
    tally.close(record_property)


@pytest.mark.parametrize("info", MODULES, ids=plain)
def test_module(info: Any, record_property: Any) -> None:
    name = plain(info)
    tally = Tally(name)
    for case in quietly(
        lambda: list(info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=False, training=True
        ))
    ):  # fmt: skip
        made, called = case.module_error_input.constructor_input, case.module_error_input.forward_input
        kwargs = {k: v for k, v in made.kwargs.items() if k not in ("device", "dtype")}
        text = f"{call_text(made.args, kwargs)}{call_text(called.args, called.kwargs) if called else ''}"
        try:
            args, kwargs = to_cuframe((made.args, kwargs))
            inputs = to_cuframe((called.args, called.kwargs)) if called else ((), {})
        except Unsupported as unsupported:
            tally.reasons[str(unsupported)] += 1
            continue
        construction = "CONSTRUCTION" in case.error_on.name
        try:
            module = getattr(cf.nn, name)(*args, **kwargs)
        except Exception as error:
            problem = unlike(name, error, case.error_type) if construction else f"construction fails: {error}"
        else:
            problem = f"construction raises nothing; PyTorch: {case.error_type.__name__}: {case.error_regex}"
            if not construction:
                try:
                    module.double()(*inputs[0], **inputs[1])
                except Exception as error:
                    problem = unlike(name, error, case.error_type)
                else:
                    problem = f"the call raises nothing; PyTorch: {case.error_type.__name__}: {case.error_regex}"
        tally.add(text, problem)
    tally.close(record_property)
