"""What PyTorch gave for its own sample inputs, kept in tests/golden by make_ops.py: results and gradients agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf

GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """The cases of one file; tensors are made afresh for each."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(GOLDEN / name, allow_pickle=False)
        self.cases = json.loads(self.arrays["cases"].tobytes())

    def array(self, index: int) -> np.ndarray:
        return self.arrays[f"a{index}"]

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(v) for v in value]
        if not isinstance(value, dict):
            return value
        ((kind, inner), *_) = value.items()
        if kind == "tensor":
            t = cf.tensor(self.array(inner))
            return t.requires_grad_() if value["grad"] else t
        if kind == "dtype":
            return cf.as_dtype(inner)
        if kind == "slice":
            return slice(*self.decode(inner))
        if kind == "ellipsis":
            return ...
        if kind == "dict":
            return {k: self.decode(v) for k, v in inner.items()}
        return tuple(self.decode(inner))


def flat(value: Any) -> list[cf.Tensor]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in flat(v)]
    return [value] if isinstance(value, cf.Tensor) else []


def check(golden: Golden, case: dict, outputs: Any, inputs: list[cf.Tensor]) -> None:
    outputs = flat(outputs)
    expected = [golden.array(i) for i in case["outputs"]]
    assert [o.array.shape for o in outputs] == [e.shape for e in expected]
    assert [o.dtype for o in outputs] == [e.dtype for e in expected]
    for o, e in zip(outputs, expected):
        np.testing.assert_allclose(o.array, e, 1e-7, 1e-7)
    if not case["grads"]:
        return
    outputs = [o for o in outputs if o.requires_grad]
    rng = np.random.default_rng(0)
    weights = [cf.tensor(np.asarray(rng.uniform(0.5, 1.5, o.array.shape))) for o in outputs]
    grads = cf.autograd.grad(outputs, inputs, weights, materialize_grads=True)
    for i, (g, wanted, x) in enumerate(zip(grads, case["grads"], inputs, strict=True)):
        full = np.zeros(x.array.shape) if wanted is None else golden.array(wanted)
        got = g.to_dense() if getattr(g, "is_sparse", False) else g
        np.testing.assert_allclose(got.array, full, 1e-6, 1e-8, err_msg=f"gradient of input {i}")


def numbered(cases: list[dict]) -> list[Any]:
    return [pytest.param(case, id=f"{case['name']}-{i}") for i, case in enumerate(cases)]


OPS, MODULES = Golden("ops.npz"), Golden("modules.npz")


def function_of(name: str) -> Any:
    place: Any = cf
    for part in name.split("."):
        place = getattr(place, part, None)
    return place if callable(place) and not isinstance(place, type) else getattr(cf.Tensor, name)


@pytest.mark.parametrize("case", numbered(OPS.cases))
def test_op(case: dict) -> None:
    args, kwargs = OPS.decode(case["args"]), OPS.decode(case["kwargs"])
    inputs = [t for t in flat([args, kwargs]) if t.requires_grad]
    check(OPS, case, function_of(case["name"])(*args, **kwargs), inputs)


@pytest.mark.parametrize("case", numbered(MODULES.cases))
def test_module(case: dict) -> None:
    made_args, made_kwargs = MODULES.decode(case["made"])
    module = getattr(cf.nn, case["name"])(*made_args, **made_kwargs).double()
    module.load_state_dict({k: MODULES.array(i) for k, i in case["state"].items()})
    args, kwargs = MODULES.decode(case["args"]), MODULES.decode(case["kwargs"])
    inputs = [t for t in flat([args, kwargs]) if t.requires_grad]
    check(MODULES, case, module(*args, **kwargs), inputs + list(module.parameters()))
