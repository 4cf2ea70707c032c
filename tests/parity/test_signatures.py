"""Parameters by name, order and default: everything of torch.nn that cuframe has is called in the same way."""

from __future__ import annotations

import importlib.util
import inspect
import json
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from cuframe import nn

pytestmark = pytest.mark.parity

SPACES: dict[str, tuple[Any, Any]] = {
    "nn": (nn, torch.nn),
    "nn.functional": (nn.functional, torch.nn.functional),
    "nn.init": (nn.init, torch.nn.init),
    "nn.utils": (nn.utils, torch.nn.utils),
    "nn.utils.rnn": (nn.utils.rnn, torch.nn.utils.rnn),
    "nn.utils.parametrizations": (nn.utils.parametrizations, torch.nn.utils.parametrizations),
    "nn.utils.parametrize": (nn.utils.parametrize, torch.nn.utils.parametrize),
}
# Parameters that PyTorch keeps for itself, or that cuframe has no use for.
PRIVATE = {"_stacklevel", "out"}
DIFFERENT: dict[str, str] = {
    "nn.AdaptiveLogSoftmaxWithLoss.forward": "input and target are spelled so, as its documentation does",
    "nn.RMSNorm.forward": "the input is called input, as in all other layers",
    "nn.RNNBase": "a base of ours; its cell is PyTorch's mode",
    "nn.RNNCellBase": "a base of ours; it knows its number of gates",
}


def parameters(function: Callable) -> list[tuple[str, Any]] | None:
    """Names and defaults; None where PyTorch hides them behind *args, or in C."""
    try:
        found = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in found):
        return None
    return [(p.name, p.default) for p in found if p.name not in PRIVATE]


def differs(ours: Callable, theirs: Callable) -> str | None:
    """What is not the same; parameters beyond PyTorch's may follow."""
    expected = parameters(theirs)
    if expected is None:
        return None
    actual = parameters(ours)
    assert actual is not None
    names = [name for name, _ in expected]
    if [name for name, _ in actual[: len(names)]] != names:
        return f"parameters {[name for name, _ in actual]}, PyTorch's {names}"
    for (name, mine), (_, default) in zip(actual, expected):
        same = callable(mine) and callable(default) if callable(default) else mine == default
        if not same and name != "return_indices":  # the _with_indices forms always return them
            return f"{name}={mine!r}, PyTorch's default is {default!r}"
    return None


def public(theirs: Any) -> list[str]:
    """PyTorch's public names."""
    if theirs is torch.nn:
        return list(torch.nn.modules.__all__)
    if theirs is torch.nn.functional:
        functions = (n for n, f in vars(theirs).items() if inspect.isroutine(f) or inspect.isbuiltin(f))
        return [n for n in functions if not n.startswith("_") and "torch_function" not in n]
    return list(getattr(theirs, "__all__", ()))


def callables(space: str) -> Iterator[tuple[str, Callable, Callable]]:
    """Functions, constructors and forward methods that both have."""
    ours, theirs = SPACES[space]
    for name in dir(ours):
        a, b = getattr(ours, name), getattr(theirs, name, None)
        if name.startswith("_") or not callable(a) or not callable(b) or isinstance(a, types.ModuleType):
            continue
        if not isinstance(a, type):
            yield f"{space}.{name}", a, b
        elif "cuframe" in a.__module__:
            yield f"{space}.{name}", a.__init__, b.__init__  # type: ignore[misc]
            if a is not nn.Module and "forward" in dir(a) and "forward" in dir(b):
                yield f"{space}.{name}.forward", a.forward, b.forward  # type: ignore[attr-defined]


@pytest.mark.parametrize("space", SPACES)
def test_signatures(space: str, record_property: Any) -> None:
    """The same but for those named in DIFFERENT, which must differ."""
    problems = {}
    count = 0
    for name, ours, theirs in callables(space):
        problem = differs(ours, theirs)
        count += 1
        if (problem is not None) != (name in DIFFERENT):
            problems[name] = problem or "named in DIFFERENT, but the same"
    ours, theirs = SPACES[space]
    absent = sorted(f"{space}.{n}" for n in public(theirs) if not hasattr(ours, n))
    entry = {"name": space, "passed": count - len(problems), "total": count, "excluded": 0, "reasons": {}}
    record_property("parity", json.dumps({"table": "signatures", **entry}))
    record_property("parity", json.dumps({"table": "signatures", "absent": absent, "skipped": {}}))
    assert count > 3
    shown = "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
    if problems:
        pytest.fail(f"{len(problems)} of {count} signatures in {space}:\n{shown}", pytrace=False)
