"""Random tensors: one seed, one stream; the distributions; in-place draws; generators of one's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

import cuframe as cf

DRAWS: list[Callable] = [
    lambda: cf.rand(3, 4), lambda: cf.randn(3, 4), lambda: cf.randint(0, 100, (12,)), lambda: cf.randperm(12),
    lambda: cf.rand_like(cf.zeros(5)), lambda: cf.randn_like(cf.zeros(5)), lambda: cf.randint_like(cf.zeros(5), 50),
    lambda: cf.normal(0.0, cf.ones(7)), lambda: cf.bernoulli(cf.full((20,), 0.5)),
    lambda: cf.poisson(cf.full((20,), 5.0)),
    lambda: cf.multinomial(cf.ones(9), 4), lambda: cf.multinomial(cf.ones(2, 9), 4, replacement=True),
    lambda: cf.empty(6).uniform_(), lambda: cf.empty(6).normal_(), lambda: cf.empty(6).exponential_(),
    lambda: cf.empty(20).bernoulli_(), lambda: cf.empty(6, dtype=cf.int64).random_(),
]  # fmt: skip


@pytest.mark.parametrize("draw", DRAWS)
def test_seed_repeats(draw: Callable) -> None:
    cf.manual_seed(3)
    first, second = draw(), draw()
    cf.manual_seed(3)
    again = draw()
    assert first.array.tobytes() == again.array.tobytes()
    assert first.array.tobytes() != second.array.tobytes()


def test_state_and_generators() -> None:
    cf.manual_seed(5)
    assert cf.initial_seed() == 5
    cf.rand(3)
    state = cf.get_rng_state()
    a = cf.rand(3)
    cf.set_rng_state(state)
    assert cf.rand(3).tolist() == a.tolist()
    g = cf.Generator(7)
    mine = cf.randn(4, generator=g)
    assert cf.randn(4, generator=cf.Generator(7)).tolist() == mine.tolist()
    cf.set_rng_state(state)
    cf.randn(4, generator=g)
    assert cf.rand(3).tolist() == a.tolist()  # a generator of one's own leaves the default one alone
    first = cf.seed()
    assert cf.initial_seed() == first != cf.seed()


def test_distributions() -> None:
    cf.manual_seed(0)
    n = 20_000
    for sample, cdf in (
        (cf.rand(n), "uniform"), (cf.randn(n), "norm"), (cf.empty(n).exponential_(), "expon"),
        (cf.empty(n).uniform_(-1, 3).add(1).div(4), "uniform"), (cf.empty(n).normal_(2, 3).sub(2).div(3), "norm"),
        (cf.normal(cf.full((n,), 2.0), 3.0).sub(2).div(3), "norm"), (cf.empty(n).exponential_(2.0).mul(2), "expon"),
    ):  # fmt: skip
        assert stats.kstest(sample.array.astype(np.float64), cdf).pvalue > 1e-4
    counts = cf.bincount(cf.randint(0, 10, (n,)), minlength=10).array
    assert stats.chisquare(counts).pvalue > 1e-4
    assert abs(cf.bernoulli(cf.full((n,), 0.3)).mean().item() - 0.3) < 0.02


def test_multinomial_follows_the_weights() -> None:
    cf.manual_seed(0)
    weights = cf.tensor([0.0, 1.0, 3.0, 6.0])
    drawn = cf.multinomial(weights, 20_000, replacement=True)
    counts = cf.bincount(drawn, minlength=4).array
    assert counts[0] == 0 and stats.chisquare(counts[1:], [2000, 6000, 12000]).pvalue > 1e-4
    first = cf.multinomial(weights.expand(20_000, 4), 1)[:, 0]
    assert stats.chisquare(cf.bincount(first, minlength=4).array[1:], [2000, 6000, 12000]).pvalue > 1e-4
    rows = cf.multinomial(cf.ones(100, 5), 5)
    assert all(sorted(r) == [0, 1, 2, 3, 4] for r in rows.tolist())


@pytest.mark.parametrize("rate", [0.3, 4.0, 60.0])
def test_poisson_counts(rate: float) -> None:
    n = 20_000
    drawn = cf.poisson(cf.full((n,), rate, dtype=cf.float64), generator=cf.Generator(1)).array
    low, high = (int(v) for v in stats.poisson.ppf([0.005, 0.995], rate))
    edges = np.arange(low, high + 1)
    expected = n * np.array([*stats.poisson.pmf(edges, rate), stats.poisson.sf(high, rate)])
    observed = np.array([*[(drawn == k).sum() for k in edges], (drawn > high).sum()])
    if low:
        expected, observed = (
            np.append(expected, n * stats.poisson.cdf(low - 1, rate)),
            np.append(observed, (drawn < low).sum()),
        )
    keep = expected > 5
    scale = observed[keep].sum() / expected[keep].sum()
    assert stats.chisquare(observed[keep], expected[keep] * scale).pvalue > 1e-4
    assert abs(scale - 1) < 0.01


def test_permutation_is_one() -> None:
    assert sorted(cf.randperm(100).tolist()) == list(range(100))
    assert cf.randperm(5, dtype=cf.int32).dtype == np.int32


def test_in_place_draws() -> None:
    t = cf.empty(1000)
    assert t.uniform_(2, 3) is t and 2 <= t.min().item() and t.max().item() < 3
    t.uniform_(**{"from": -1, "to": 0})
    assert t.max().item() < 0
    assert set(t.bernoulli_(0.5).tolist()) == {0.0, 1.0}
    assert t.random_(3, 5).min().item() == 3 and t.max().item() == 4
    assert t.random_(2).max().item() == 1
    assert (t.random_() == t.round()).all()
    flags = cf.zeros(100, dtype=cf.bool_).random_()
    assert 0 < flags.sum().item() < 100
    p = cf.tensor([0.0, 1.0])
    assert cf.empty(3, 2).bernoulli_(p).tolist() == [[0.0, 1.0]] * 3
    x = cf.ones(3, requires_grad=True)
    for name in ("uniform_", "normal_", "exponential_", "bernoulli_", "random_"):
        with pytest.raises(RuntimeError, match=f"{name}: a leaf tensor"):
            getattr(x, name)()
    with cf.no_grad():
        assert x.normal_().requires_grad


@pytest.mark.parametrize(
    "draw, error, match",
    [
        (lambda: cf.empty(2).uniform_(1, 0), RuntimeError, "uniform_: from must be at most to"),
        (lambda: cf.empty(2).uniform_(low=0), TypeError, "unexpected arguments low"),
        (lambda: cf.empty(2).normal_(0, -1), RuntimeError, "normal_: std must not be negative"),
        (lambda: cf.empty(2).exponential_(0), RuntimeError, "exponential_: lambd must be positive"),
        (lambda: cf.empty(2).bernoulli_(2), RuntimeError, r"probabilities must be in \[0, 1\]"),
        (lambda: cf.empty(2).random_(3, 3), RuntimeError, "low must be below high"),
        (lambda: cf.empty(2, dtype=cf.int8).random_(300), RuntimeError, r"\[0, 300\) does not fit int8"),
        (lambda: cf.empty(2, dtype=cf.int8).normal_(), TypeError, "the tensor must be floating point, got int8"),
    ],
)
def test_errors(draw: Callable, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        draw()


def test_draws_pass_no_gradient() -> None:
    p = cf.full((3,), 0.5, requires_grad=True)
    assert not cf.bernoulli(p).requires_grad and not cf.normal(p, 1.0).requires_grad
    a = p * 2
    a.normal_()
    a.sum().backward()
    assert p.grad.tolist() == [0.0, 0.0, 0.0]
