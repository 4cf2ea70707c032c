"""Optimizers, schedules, clipping and state against PyTorch's, step for step."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from cuframe import nn, optim
from tests.parity.bridge import quietly

pytestmark = pytest.mark.parity

SHAPES = [(7, 5), (11,), (2, 3, 4), (9000,)]
RULES = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.01, "maximize": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    ("Adamax", {"weight_decay": 0.01}),
    ("NAdam", {"weight_decay": 0.01}),
    ("NAdam", {"weight_decay": 0.01, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {"weight_decay": 0.01}),
    ("RAdam", {"weight_decay": 0.01, "decoupled_weight_decay": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.001, "momentum": 0.9, "centered": True}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"weight_decay": 0.01}),
]
IDS = [f"{name}-{'-'.join(map(str, options))}" for name, options in RULES]


def pair(seed: int = 0) -> tuple[list[nn.Parameter], list[torch.nn.Parameter]]:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in SHAPES]
    return [nn.Parameter(a.copy()) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays]


def advance(mine: list, theirs: list, a: Any, b: Any, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        rng = np.random.default_rng(1000 + step)
        for p, q in zip(mine, theirs):
            g = rng.standard_normal(p.shape).astype(np.float32)
            p.grad, q.grad = cf.tensor(g), torch.tensor(g)
        a.step()
        b.step()


def agree(mine: list, theirs: list) -> None:
    for p, q in zip(mine, theirs):
        theirs_now = q.detach().numpy()
        assert abs(p.array - theirs_now).max() <= 2e-6 * abs(theirs_now).max()


@pytest.mark.parametrize(("name", "options"), RULES, ids=IDS)
def test_100_steps(name: str, options: dict) -> None:
    mine, theirs = pair()
    a, b = getattr(optim, name)(mine, **options), getattr(torch.optim, name)(theirs, **options)
    advance(mine, theirs, a, b, 100)
    agree(mine, theirs)


@pytest.mark.parametrize(("name", "options"), RULES, ids=IDS)
def test_state_goes_both_ways(name: str, options: dict) -> None:
    mine, theirs = pair()
    a, b = getattr(optim, name)(mine, **options), getattr(torch.optim, name)(theirs, **options)
    advance(mine, theirs, a, b, 10)
    # Theirs into ours, with tensors as arrays.
    copies = [nn.Parameter(q.detach().numpy().copy()) for q in theirs]
    c = getattr(optim, name)(copies)
    state = b.state_dict()
    state["state"] = {
        i: {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in s.items()} for i, s in state["state"].items()
    }
    c.load_state_dict(state)
    # Ours into theirs.
    others = [torch.nn.Parameter(torch.tensor(p.array.copy())) for p in mine]
    d = getattr(torch.optim, name)(others)
    state = a.state_dict()
    assert set(state["state"]) == set(b.state_dict()["state"])
    for i, s in state["state"].items():
        assert set(s) == set(b.state_dict()["state"][i])
    state["state"] = {
        i: {k: torch.tensor(v.array) if isinstance(v, cf.Tensor) else v for k, v in s.items()}
        for i, s in state["state"].items()
    }
    d.load_state_dict(state)
    advance(copies, others, c, d, 10, start=10)
    advance(mine, theirs, a, b, 10, start=10)
    agree(mine, theirs)
    agree(copies, theirs)
    agree(mine, others)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "SparseAdam"])
def test_sparse_gradients(name: str) -> None:
    table = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    mine, theirs = nn.Embedding(10, 4, sparse=True), torch.nn.Embedding(10, 4, sparse=True)
    mine.load_state_dict({"weight": table})
    theirs.load_state_dict({"weight": torch.tensor(table)})
    a = getattr(optim, name)(mine.parameters(), lr=0.1)
    b = getattr(torch.optim, name)(list(theirs.parameters()), lr=0.1)
    for step in range(20):
        index = np.random.default_rng(step).integers(0, 10, 6)
        for module, opt, lib in ((mine, a, cf), (theirs, b, torch)):
            opt.zero_grad()
            (module(lib.tensor(index)) ** 3).sum().backward()
            quietly(opt.step)  # PyTorch warns of its own sparse tensors
        np.testing.assert_allclose(mine.weight.array, theirs.weight.detach().numpy(), rtol=1e-5, atol=1e-6)


# -- schedules ----------------------------------------------------------------------------------------------------


def _sequential(s: Any, o: Any) -> Any:
    return s.SequentialLR(o, [s.LinearLR(o, 0.1, 1, 5), s.CosineAnnealingLR(o, 30), s.ExponentialLR(o, 0.9)], [5, 35])


SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda e: 1 / (1 + e)),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, [lambda e: 0.95, lambda e: 0.9]),
    "StepLR": lambda s, o: s.StepLR(o, 7, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [3, 10, 10, 40], 0.3),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.3, 7),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.1, 0.9, 10),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 20, 2.0),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 13, 0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 2, 0.01),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, [0.5, 0.7], total_steps=80),
    "OneCycleLR-three-linear": lambda s, o: s.OneCycleLR(
        o, 0.5, epochs=8, steps_per_epoch=10, three_phase=True, anneal_strategy="linear"
    ),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.3, 5, 7),
    "CyclicLR-triangular2": lambda s, o: s.CyclicLR(o, 0.01, 0.3, 5, 7, mode="triangular2"),
    "CyclicLR-exp_range": lambda s, o: s.CyclicLR(o, 0.01, 0.3, 5, 7, mode="exp_range", gamma=0.97),
    "CyclicLR-own": lambda s, o: s.CyclicLR(o, 0.01, 0.3, 5, scale_fn=lambda x: 0.9**x, scale_mode="iterations"),
    "SequentialLR": _sequential,
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.1, 1, 5), s.ExponentialLR(o, 0.9)]),
}


def optimizers(**options: Any) -> tuple[optim.SGD, torch.optim.SGD]:
    mine, theirs = pair()
    return (
        optim.SGD([{"params": mine[:1]}, {"params": mine[1:], "lr": 0.2}], lr=0.1, **options),
        torch.optim.SGD([{"params": theirs[:1]}, {"params": theirs[1:], "lr": 0.2}], lr=0.1, **options),
    )


def settings(opt: Any) -> list[tuple[float, float]]:
    return [(float(g["lr"]), g["momentum"]) for g in opt.param_groups]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_of_70_steps(name: str) -> None:
    a, b = optimizers(momentum=0.9)
    mine, theirs = SCHEDULES[name](optim.lr_scheduler, a), SCHEDULES[name](torch.optim.lr_scheduler, b)
    for _ in range(70):
        np.testing.assert_allclose(settings(a), settings(b), rtol=1e-12, atol=1e-15)
        assert mine.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-12)
        a.step()
        b.step()
        quietly(theirs.step)  # OneCycleLR and SequentialLR warn of their own calls
        mine.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_of_200_steps(mode: str, threshold_mode: str) -> None:
    a, b = optimizers(momentum=0.9)
    options: dict[str, Any] = {
        "mode": mode, "threshold_mode": threshold_mode, "factor": 0.7, "patience": 2, "cooldown": 3,
        "threshold": 0.05, "min_lr": [0.001, 0.01],
    }  # fmt: skip
    mine = optim.lr_scheduler.ReduceLROnPlateau(a, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **options)
    for loss in np.random.default_rng(0).standard_normal(200).cumsum():
        mine.step(float(loss))
        theirs.step(float(loss))
        assert settings(a) == settings(b)
        assert (mine.num_bad_epochs, mine.cooldown_counter, mine.best) == (
            theirs.num_bad_epochs, theirs.cooldown_counter, theirs.best)  # fmt: skip


# -- clipping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clip_grad_norm(order: float, limit: float) -> None:
    mine, theirs = pair()
    for p, q in zip(mine, theirs):
        p.grad, q.grad = cf.tensor(p.array.copy()), q.detach().clone()
    a = nn.utils.clip_grad_norm_(mine, limit, order)
    b = torch.nn.utils.clip_grad_norm_(theirs, limit, order)
    assert a.item() == pytest.approx(b.item(), rel=1e-5)
    for p, q in zip(mine, theirs):
        np.testing.assert_allclose(p.grad.array, q.grad.numpy(), rtol=1e-5)
