"""The compiled step of Adam against the rule in NumPy, and its independence of threads and layout."""

from __future__ import annotations

import importlib.util

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
    {},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled_weight_decay": True},
    {"maximize": True, "betas": (0.5, 0.75), "eps": 1e-3},
]


def train(settings: dict, layout: str = "C", steps: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    parameters = [nn.Parameter(rng.standard_normal(s, dtype=np.float32)) for s in SHAPES]
    optimizer = optim.Adam(parameters, lr=0.01, **settings)
    for _ in range(steps):
        for p in parameters:
            p.grad = cf.from_numpy(np.asarray(rng.standard_normal(p.shape, dtype=np.float32), order=layout))
        optimizer.step()
    states = [optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq")]
    return [t.detach().numpy().copy() for t in (*parameters, *states)]


def calls_of(monkeypatch: pytest.MonkeyPatch, threads: int) -> list[int]:
    """Let all parameters take the compiled step, by so many threads; the sets of each call."""
    seen: list[int] = []
    step = compiled.adam

    def counted(sets: list, *settings: float) -> None:
        seen.append(len(sets))
        step(sets, *settings)

    monkeypatch.setattr(jit, "available", lambda: True)
    monkeypatch.setattr(jit, "cpus", lambda: threads)
    for name, value in (("_LEAST", 1), ("_THREAD", 1), ("adam", counted)):
        monkeypatch.setattr(compiled, name, value)
    return seen


@pytest.mark.parametrize("settings", SETTINGS)
def test_is_the_rule_in_numpy(settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(settings)
    seen = calls_of(monkeypatch, threads=1)
    for a, e in zip(train(settings), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)
    assert seen == [len(SHAPES)] * 5


def test_threads_and_layout_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls_of(monkeypatch, threads=1)
    expected = train({})
    for threads, layout in ((2, "C"), (3, "C"), (1, "F")):
        monkeypatch.setattr(jit, "cpus", lambda count=threads: count)
        assert all((a == e).all() for a, e in zip(train({}, layout), expected, strict=True))
