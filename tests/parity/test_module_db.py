"""PyTorch's own cases for every module that cuframe has: outputs and gradients with one state_dict for both."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from tests.parity.bridge import Unsupported, compare, flat, host, quietly, to_cuframe
from tests.parity.exclusions import MODULES as EXCLUDED
from tests.parity.exclusions import excluded_module_sample

pytestmark = pytest.mark.parity


def _module_db() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    return module_db


MODULE_DB = _module_db()
PRESENT = [
    m
    for m in MODULE_DB
    if hasattr(cf.nn, m.name.removeprefix("nn.")) and m.name.removeprefix("nn.") not in EXCLUDED
]


def plain(module: Any) -> str:
    return module.name.removeprefix("nn.")


def run_sample(name: str, kind: type, sample: Any, training: bool) -> None:
    """Build both, copy the state, compare outputs, gradients of inputs and of parameters."""
    made, called = sample.constructor_input, sample.forward_input
    reason = excluded_module_sample(name, made, called)
    if reason or called is None:
        raise Unsupported(reason or "nothing is called")
    theirs = quietly(kind, *made.args, **made.kwargs).double().train(training)
    args, kwargs = to_cuframe(
        (made.args, {k: v for k, v in made.kwargs.items() if k not in ("device", "dtype")})
    )
    ours = getattr(cf.nn, name)(*args, **kwargs).double().train(training)
    state = {k: host(v) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    for key, value in ours.state_dict().items():
        assert np.array_equal(host(value), state[key], equal_nan=True), f"state_dict entry {key}"
    inputs = (called.args, called.kwargs)
    our_args, our_kwargs = to_cuframe(inputs)
    expected = quietly(theirs, *called.args, **called.kwargs)
    actual = ours(*our_args, **our_kwargs)
    compare(actual, expected, "output", (1e-7, 1e-7))
    _compare_gradients(ours, theirs, actual, expected, flat([our_args, our_kwargs]), flat(list(inputs)))
    for key, value in theirs.state_dict().items():  # running statistics
        np.testing.assert_allclose(
            host(ours.state_dict()[key]), host(value), 1e-7, 1e-9, err_msg=f"after: {key}"
        )


def _compare_gradients(
    ours: Any, theirs: Any, actual: Any, expected: Any, our_in: list, their_in: list
) -> None:
    pairs = [
        (a, e)
        for a, e in zip(flat(actual), flat(expected))
        if isinstance(e, torch.Tensor) and e.requires_grad
    ]
    if not pairs:
        return
    inputs = [
        (a, e, f"input {i}")
        for i, (a, e) in enumerate(zip(our_in, their_in))
        if isinstance(e, torch.Tensor) and e.requires_grad
    ]
    parameters = dict(theirs.named_parameters())
    inputs += [(p, parameters[key], key) for key, p in ours.named_parameters()]
    rng = np.random.default_rng(0)
    weights = [np.asarray(rng.uniform(0.5, 1.5, tuple(e.shape))) for _, e in pairs]
    wanted = quietly(
        torch.autograd.grad, [e for _, e in pairs], [e for _, e, _ in inputs],
        [torch.from_numpy(w) for w in weights], allow_unused=True,
    )  # fmt: skip
    got = cf.autograd.grad(
        [a for a, _ in pairs], [a for a, _, _ in inputs], [cf.Tensor(w) for w in weights], allow_unused=True
    )
    for a, e, (x, _, what) in zip(got, wanted, inputs):
        left = (
            np.zeros(x.array.shape)
            if a is None
            else host(a.to_dense() if getattr(a, "is_sparse", False) else a)
        )
        right = np.zeros(x.array.shape) if e is None else host(e.to_dense())
        np.testing.assert_allclose(left, right, 1e-6, 1e-8, err_msg=f"gradient of {what}")


def describe(sample: Any, training: bool) -> str:
    def short(v: Any) -> str:
        if isinstance(v, torch.Tensor):
            return f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}"
        return repr(v)

    def call(part: Any) -> str:
        words = [short(a) for a in flat(list(part.args))] + [
            f"{k}={short(v)}" for k, v in part.kwargs.items()
        ]
        return f"({', '.join(words)})"

    mode = "train" if training else "eval"
    return f"{mode} {call(sample.constructor_input)}{call(sample.forward_input)} {sample.desc}"


@pytest.mark.parametrize("info", PRESENT, ids=plain)
def test_module(info: Any, record_property: Any) -> None:
    name = plain(info)
    modes = [True, False] if info.train_and_eval_differ else [True]
    passed = total = 0
    reasons: Counter[str] = Counter()
    failures: list[str] = []
    for training in modes:
        samples = quietly(
            info.module_inputs_func,
            info,
            device="cpu",
            dtype=torch.float64,
            requires_grad=True,
            training=training,
        )
        for sample in samples:
            torch.manual_seed(0)
            try:
                run_sample(name, info.module_cls, sample, training)
            except Unsupported as reason:
                reasons[str(reason)] += 1
                continue
            except Exception as error:
                failures.append(
                    f"{describe(sample, training)}\n      {type(error).__name__}: {error}".rstrip()
                )
            else:
                passed += 1
            total += 1
    record_property("parity", json.dumps({
        "table": "module_db", "name": name, "passed": passed, "total": total,
        "excluded": sum(reasons.values()), "reasons": reasons,
    }))  # fmt: skip
    shown = "\n".join(f"  {i + 1}. {text}" for i, text in enumerate(failures[:5]))
    assert not failures, f"nn.{name}: {len(failures)} of {total} samples differ:\n{shown}"


def test_list_of_what_is_not_compared(record_property: Any) -> None:
    """Prints the modules that cuframe lacks, and holds the exclusions to entries that exist."""
    names = {plain(m) for m in MODULE_DB}
    stale = sorted(name for name in EXCLUDED if name not in names)
    assert not stale, f"excluded, but not in module_db: {stale}"
    absent = sorted(name for name in names if not hasattr(cf.nn, name))
    record_property("parity", json.dumps({"table": "module_db", "absent": absent, "skipped": EXCLUDED}))
