"""Learning rate schedules against their formulas; `tests/parity/test_schedulers.py` compares them with PyTorch's."""

import math

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn, optim
from cuframe.optim import lr_scheduler as sched

STEPS = 60


def optimizer(*rates, momentum=0.9):
    return optim.SGD([{"params": [nn.Parameter([1.0])], "lr": r} for r in rates], momentum=momentum)


def rates(make, *bases, steps=STEPS):
    """The rates of each group in the epochs 0, 1, ...: (steps, groups)."""
    opt = optimizer(*bases)
    schedule = make(opt)
    seen = []
    for _ in range(steps):
        seen.append([g["lr"] for g in opt.param_groups])
        assert schedule.get_last_lr() == seen[-1]
        opt.step()
        schedule.step()
    return np.array(seen)


def warm(start, end, total):
    return lambda t: start + (end - start) * min(t, total) / total


def cosine(low, T):
    return lambda base, t: low + (base - low) * (1 + math.cos(math.pi * t / T)) / 2


def restarts(t, T, mult):
    while t >= T:
        t -= T
        T *= mult
    return (1 + math.cos(math.pi * t / T)) / 2


CASES = {
    "LambdaLR": (lambda o: sched.LambdaLR(o, lambda t: 1 / (1 + t)), lambda b, t: b / (1 + t)),
    "MultiplicativeLR": (lambda o: sched.MultiplicativeLR(o, lambda t: 0.95), lambda b, t: b * 0.95**t),
    "StepLR": (lambda o: sched.StepLR(o, 7, 0.5), lambda b, t: b * 0.5 ** (t // 7)),
    "MultiStepLR": (
        lambda o: sched.MultiStepLR(o, [3, 10, 10, 40], 0.3),
        lambda b, t: b * 0.3 ** sum(m <= t for m in (3, 10, 10, 40)),
    ),
    "ConstantLR": (lambda o: sched.ConstantLR(o, 0.3, 7), lambda b, t: b * (0.3 if t < 7 else 1)),
    "LinearLR": (lambda o: sched.LinearLR(o, 0.1, 0.9, 10), lambda b, t: b * warm(0.1, 0.9, 10)(t)),
    "ExponentialLR": (lambda o: sched.ExponentialLR(o, 0.9), lambda b, t: b * 0.9**t),
    "PolynomialLR": (lambda o: sched.PolynomialLR(o, 20, 2.0), lambda b, t: b * max(0, 1 - t / 20) ** 2),
    "CosineAnnealingLR": (lambda o: sched.CosineAnnealingLR(o, 13, 0.01), cosine(0.01, 13)),
    "CosineAnnealingWarmRestarts": (
        lambda o: sched.CosineAnnealingWarmRestarts(o, 5, 2, 0.01),
        lambda b, t: 0.01 + (b - 0.01) * restarts(t, 5, 2),
    ),
    "warm restarts of one length": (
        lambda o: sched.CosineAnnealingWarmRestarts(o, 5),
        lambda b, t: b * restarts(t, 5, 1),
    ),
    "ChainedScheduler": (
        lambda o: sched.ChainedScheduler([sched.LinearLR(o, 0.1, 1.0, 5), sched.ExponentialLR(o, 0.9)]),
        lambda b, t: b * warm(0.1, 1, 5)(t) * 0.9**t,
    ),
    "SequentialLR": (
        lambda o: sched.SequentialLR(
            o, [sched.LinearLR(o, 0.1, 1.0, 5), sched.CosineAnnealingLR(o, 30), sched.ExponentialLR(o, 0.9)], [5, 35]
        ),
        lambda b, t: b * warm(0.1, 1, 5)(t) if t < 5 else cosine(0, 30)(b, t - 5) if t < 35 else b * 0.9 ** (t - 35),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_formula(name):
    make, formula = CASES[name]
    expected = [[formula(b, t) for b in (0.1, 0.2)] for t in range(STEPS)]
    np.testing.assert_allclose(rates(make, 0.1, 0.2), expected, rtol=1e-9, atol=1e-12)


def test_one_function_for_each_group():
    got = rates(lambda o: sched.LambdaLR(o, [lambda t: 1.0, lambda t: 0.5]), 0.1, 0.2, steps=2)
    np.testing.assert_allclose(got, [[0.1, 0.1], [0.1, 0.1]])


# -- cycles -------------------------------------------------------------------------------------------------------


def one_cycle(t, total, pct, three, between):
    """Rate (in units of max_lr = 1, div_factor 25, final 1e4) and momentum of OneCycleLR."""
    first, last = 1 / 25, 1 / 25 / 1e4
    ends = [pct * total - 1, 2 * pct * total - 2, total - 1] if three else [pct * total - 1, total - 1]
    lr = [first, 1, first, last] if three else [first, 1, last]
    mom = [0.95, 0.85, 0.95, 0.95] if three else [0.95, 0.85, 0.95]
    starts = [0, *ends]
    i = next(i for i, e in enumerate(ends) if t <= e)
    part = (t - starts[i]) / (ends[i] - starts[i])
    return between(lr[i], lr[i + 1], part), between(mom[i], mom[i + 1], part)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle(three, strategy):
    def between(a, b, part):
        return a + (b - a) * (part if strategy == "linear" else (1 - math.cos(math.pi * part)) / 2)

    opt = optimizer(0.1)
    schedule = sched.OneCycleLR(opt, 2.0, epochs=6, steps_per_epoch=10, anneal_strategy=strategy, three_phase=three)
    for t in range(60):
        lr, momentum = one_cycle(t, 60, 0.3, three, between)
        assert opt.param_groups[0]["lr"] == pytest.approx(2 * lr, rel=1e-12)
        assert opt.param_groups[0]["momentum"] == pytest.approx(momentum, rel=1e-12)
        opt.step()
        schedule.step()
    with pytest.raises(ValueError, match="step 61 is beyond the cycle of 60 steps"):
        schedule.step()


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic(mode):
    opt = optimizer(5.0)
    schedule = sched.CyclicLR(opt, 0.1, 0.5, 4, 6, mode=mode, gamma=0.97)
    for t in range(40):
        cycle, x = divmod(t, 10)
        part = x / 4 if x <= 4 else (10 - x) / 6
        part *= {"triangular": 1, "triangular2": 0.5**cycle, "exp_range": 0.97**t}[mode]
        assert opt.param_groups[0]["lr"] == pytest.approx(0.1 + 0.4 * part)
        assert opt.param_groups[0]["momentum"] == pytest.approx(0.9 - 0.1 * part)
        opt.step()
        schedule.step()


def test_cycles_move_the_first_beta():
    opt = optim.Adam([nn.Parameter([1.0])])
    schedule = sched.OneCycleLR(opt, 1.0, total_steps=10)
    assert opt.param_groups[0]["betas"] == (0.95, 0.999)
    opt.step()
    schedule.step()
    assert opt.param_groups[0]["betas"][0] < 0.95 and opt.param_groups[0]["betas"][1] == 0.999


def test_warm_restarts_within_an_epoch():
    opt = optimizer(1.0)
    schedule = sched.CosineAnnealingWarmRestarts(opt, 4, 2)
    for t in (0.5, 3.75, 4.25, 11.5, 12.0, 1.0):
        schedule.step(t)
        assert opt.param_groups[0]["lr"] == pytest.approx(restarts(t, 4, 2))
    with pytest.raises(ValueError, match="must not be negative"):
        schedule.step(-1)


# -- plateau ------------------------------------------------------------------------------------------------------


def plateau(losses, **options):
    opt = optimizer(1.0)
    schedule = sched.ReduceLROnPlateau(opt, **options)
    seen = []
    for loss in losses:
        schedule.step(loss)
        seen.append(opt.param_groups[0]["lr"])
    return seen


def test_plateau():
    assert plateau([1, 0.9, 0.9, 0.9, 0.9, 0.8], factor=0.5, patience=1) == [1, 1, 1, 0.5, 0.5, 0.5]
    assert plateau([1, 1, 1, 1], patience=0, factor=0.5, cooldown=1) == [1, 0.5, 0.5, 0.25]
    assert plateau([1, 2, 2, 3], mode="max", patience=0, factor=0.5) == [1, 1, 0.5, 0.5]
    assert plateau([1, 0.95, 0.85], patience=0, factor=0.5, threshold=0.1, threshold_mode="abs") == [1, 0.5, 0.25 * 2]
    assert plateau([1] * 4, patience=0, factor=0.1, min_lr=0.05) == pytest.approx([1, 0.1, 0.05, 0.05])
    assert plateau([1, cf.tensor(1.0)], patience=0, factor=0.5) == [1, 0.5]
    assert plateau([math.nan, math.nan], patience=0, factor=0.5) == [0.5, 0.25]


def test_plateau_resumes():
    opt = optimizer(1.0)
    schedule = sched.ReduceLROnPlateau(opt, patience=1, factor=0.5)
    schedule.step(1.0)
    schedule.step(1.0)
    other = sched.ReduceLROnPlateau(opt, patience=7)
    other.load_state_dict(schedule.state_dict())
    other.step(1.0)
    assert opt.param_groups[0]["lr"] == 0.5 and other.last_epoch == 3


# -- state, order, errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_state_dict_resumes(name):
    make, _ = CASES[name]
    opt = optimizer(0.1, 0.2)
    schedule = make(opt)
    for _ in range(12):
        opt.step()
        schedule.step()
    state, opt_state = schedule.state_dict(), opt.state_dict()
    assert "optimizer" not in state
    other_opt = optimizer(7.0, 8.0)
    other = make(other_opt)
    other_opt.load_state_dict(opt_state)
    other.load_state_dict(state)
    for _ in range(30):
        opt.step()
        other_opt.step()
        schedule.step()
        other.step()
        assert other.get_last_lr() == schedule.get_last_lr() == [g["lr"] for g in other_opt.param_groups]


@pytest.mark.parametrize("name", [*CASES, "OneCycleLR", "CyclicLR", "ReduceLROnPlateau"])
def test_checkpoints_resume(name, tmp_path):
    """Schedule and optimizer through a file: the same rates afterwards, bit for bit."""
    cycles = {
        "OneCycleLR": lambda o: sched.OneCycleLR(o, 0.1, total_steps=40),
        "CyclicLR": lambda o: sched.CyclicLR(o, 0.01, 0.1, 4),
        "ReduceLROnPlateau": lambda o: sched.ReduceLROnPlateau(o, patience=2),
    }
    make = cycles.get(name) or CASES[name][0]

    def advance(opt, schedule):
        seen = []
        for _ in range(11):
            opt.step()
            schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            seen.append([(g["lr"], g["momentum"]) for g in opt.param_groups])
        return seen

    opt = optimizer(0.1, 0.2)
    schedule = make(opt)
    advance(opt, schedule)
    cf.save({"optimizer": opt.state_dict(), "schedule": schedule.state_dict()}, tmp_path / "state")
    state = cf.load(tmp_path / "state")
    other_opt = optimizer(7.0, 8.0)
    other = make(other_opt)
    other_opt.load_state_dict(state["optimizer"])
    other.load_state_dict(state["schedule"])
    assert advance(other_opt, other) == advance(opt, schedule)


def test_callable_objects_keep_their_state():
    class Decay:
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, epoch):
            return self.rate**epoch

    a = sched.LambdaLR(optimizer(1.0, 1.0), [Decay(0.5), lambda t: 1.0])
    state = a.state_dict()
    assert state["lr_lambdas"] == [{"rate": 0.5}, None]
    b = sched.LambdaLR(optimizer(1.0, 1.0), [Decay(0.9), lambda t: 1.0])
    b.load_state_dict(state)
    assert b.lr_lambdas[0].rate == 0.5 and b.lr_lambdas[1](3) == 1


def test_jumping_to_an_epoch():
    for name in ("StepLR", "MultiStepLR", "LinearLR", "CosineAnnealingLR", "PolynomialLR", "ExponentialLR", "LambdaLR"):
        make, formula = CASES[name]
        opt = optimizer(0.1)
        schedule = make(opt)
        opt.step()
        schedule.step(8)
        assert opt.param_groups[0]["lr"] == pytest.approx(formula(0.1, 8)), name


def test_resuming_by_last_epoch():
    opt = optimizer(0.1)
    with pytest.raises(KeyError, match="needs 'initial_lr', group 0 has none"):
        sched.ExponentialLR(opt, 0.5, last_epoch=3)
    opt.param_groups[0]["initial_lr"] = 0.1
    schedule = sched.CosineAnnealingLR(opt, 10, last_epoch=3)
    assert schedule.last_epoch == 4 and schedule.get_last_lr()[0] == pytest.approx(cosine(0, 10)(0.1, 4))


def test_a_rate_changed_by_hand_is_kept():
    opt = optimizer(1.0)
    schedule = sched.ExponentialLR(opt, 0.5)
    opt.param_groups[0]["lr"] = 8.0
    opt.step()
    schedule.step()
    assert schedule.get_last_lr() == [4.0]


def test_the_wrong_order_is_told():
    opt = optimizer(1.0)
    schedule = sched.StepLR(opt, 1)
    with pytest.warns(UserWarning, match="StepLR.step.. came before the first optimizer.step"):
        schedule.step()


SGD = optimizer(1.0)
PLAIN = optim.Adagrad([nn.Parameter([1.0])])


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: sched.StepLR(3, 1), TypeError, "StepLR: optimizer must be an Optimizer, got int"),
        (lambda: sched.LambdaLR(SGD, [len, len]), ValueError, r"one entry for each of 1 group\(s\), got 2"),
        (lambda: sched.ConstantLR(SGD, 2), ValueError, r"factor must be in \[0, 1\], got 2"),
        (lambda: sched.LinearLR(SGD, 0), ValueError, r"start_factor must be in \(0, 1\], got 0"),
        (lambda: sched.LinearLR(SGD, 1, 2), ValueError, r"end_factor must be in \[0, 1\], got 2"),
        (lambda: sched.OneCycleLR(SGD, 1), ValueError, "needs total_steps, or both"),
        (lambda: sched.OneCycleLR(SGD, 1, 0), ValueError, "total_steps must be a positive integer, got 0"),
        (lambda: sched.OneCycleLR(SGD, 1, epochs=2.5, steps_per_epoch=1), ValueError, "epochs must be a positive"),
        (lambda: sched.OneCycleLR(SGD, 1, 9, pct_start=2), ValueError, r"pct_start must be in \[0, 1\]"),
        (lambda: sched.OneCycleLR(SGD, 1, 9, anneal_strategy="x"), ValueError, "'cos' or 'linear', got 'x'"),
        (lambda: sched.OneCycleLR(PLAIN, 1, 9), ValueError, "needs momentum or betas, which Adagrad has not"),
        (lambda: sched.CyclicLR(SGD, 0, 1, mode="x"), ValueError, "mode must be 'triangular'"),
        (lambda: sched.CosineAnnealingWarmRestarts(SGD, 0), ValueError, "T_0 must be a positive integer"),
        (lambda: sched.CosineAnnealingWarmRestarts(SGD, 1, 0), ValueError, "T_mult must be an integer of at least 1"),
        (lambda: sched.ReduceLROnPlateau(SGD, factor=1), ValueError, "factor must be below 1"),
        (lambda: sched.ReduceLROnPlateau(SGD, mode="x"), ValueError, "mode must be 'min' or 'max'"),
        (lambda: sched.ReduceLROnPlateau(SGD, threshold_mode="x"), ValueError, "'rel' or 'abs'"),
        (lambda: sched.SequentialLR(SGD, [], []), ValueError, "SequentialLR: got no schedulers"),
        (lambda: sched.SequentialLR(SGD, [sched.StepLR(SGD, 1)], [3]), ValueError, r"need 0 milestone\(s\), got 1"),
        (lambda: sched.SequentialLR(PLAIN, [sched.StepLR(SGD, 1)], []), ValueError, "belongs to another optimizer"),
        (lambda: sched.ChainedScheduler([]), ValueError, "got no schedulers"),
        (lambda: sched.ChainedScheduler([sched.ReduceLROnPlateau(SGD)]), ValueError, "whose step needs a measure"),
        (lambda: sched.ChainedScheduler([3], SGD), TypeError, "must be an LRScheduler, got int"),
        (lambda: sched.LRScheduler(SGD), NotImplementedError, "get_lr is not defined"),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()
