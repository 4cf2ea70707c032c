"""The compiled steps against the rules in NumPy, and its independence of threads and layout."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn, optim
from cuframe.cpu import jit
from cuframe.cpu import optim as compiled

if importlib.util.find_spec("llvmlite") is None:
    pytest.skip("llvmlite is not installed", allow_module_level=True)

# less than a vector, whole vectors, and ends of all kinds
SHAPES = [(1,), (3, 5), (64,), (37, 29), (16, 64), (1025,)]
SETTINGS = [
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adam", {"maximize": True, "betas": (0.5, 0.75), "eps": 1e-3}),
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adagrad", {"weight_decay": 0.1, "lr_decay": 0.1}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "maximize": True}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "alpha": 0.8}),
]
FUNCTIONS = ("adam", "sgd", "momentum", "adagrad", "rmsprop")


def train(settings: dict, layout: str = "C", steps: int = 5, rule: str = "Adam") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    parameters = [nn.Parameter(rng.standard_normal(s, dtype=np.float32)) for s in SHAPES]
    optimizer = getattr(optim, rule)(parameters, lr=0.01, **settings)
    for _ in range(steps):
        for p in parameters:
            p.grad = cf.from_numpy(np.asarray(rng.standard_normal(p.shape, dtype=np.float32), order=layout))
        optimizer.step()
    states = [s for p in parameters for s in optimizer.state[p].values() if isinstance(s, cf.Tensor)]
    return [t.detach().numpy().copy() for t in (*parameters, *states)]


def calls_of(monkeypatch: pytest.MonkeyPatch, threads: int) -> list[int]:
    """Let all parameters take the compiled step, by so many threads; the sets of each call."""
    seen: list[int] = []

    def counted(step: Callable) -> Callable:
        def call(sets: list, *settings: float) -> None:
            seen.append(len(sets))
            step(sets, *settings)

        return call

    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(jit, "cpus", lambda: threads)
    for name, value in (("_LEAST", 1), ("_THREAD", 1), *((f, counted(getattr(compiled, f))) for f in FUNCTIONS)):
        monkeypatch.setattr(compiled, name, value)
    return seen


@pytest.mark.parametrize("rule, settings", SETTINGS)
def test_is_the_rule_in_numpy(rule: str, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(settings, rule=rule)
    seen = calls_of(monkeypatch, threads=1)
    for a, e in zip(train(settings, rule=rule), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)
    assert seen == [len(SHAPES)] * 5


@pytest.mark.parametrize("rule", ("Adam", "SGD", "RMSprop"))
def test_threads_and_layout_change_nothing(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls_of(monkeypatch, threads=1)
    expected = train({}, rule=rule)
    for threads, layout in ((2, "C"), (3, "C"), (1, "F")):
        monkeypatch.setattr(jit, "cpus", lambda count=threads: count)
        assert all((a == e).all() for a, e in zip(train({}, layout, rule=rule), expected, strict=True))
