"""What is said about samples of time: spread, the interval of a ratio, and a verdict.

Note [Ratio] Contestants take turns; a round gives each one figure, its median there. A ratio is that of the medians of
these figures, and its interval comes from drawing rounds with replacement, the same rounds for both: what disturbs a
round disturbs both, and cancels. Between two files there are no common rounds, and each side draws its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["DRAWS", "EFFECT", "interval", "noted", "ratio", "summary", "verdict"]

DRAWS = 2000
EFFECT = 0.03  # a smaller difference is none, however sure
_SEED = 20261123


def summary(us: Sequence[float]) -> dict[str, float]:
    """Median, interquartile range, 5th and 95th percentile and number of samples.

    >>> summary([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'iqr': 2.0, 'p5': 1.2, 'p95': 4.8, 'n': 5}
    """
    low, q1, median, q3, high = np.percentile(np.asarray(us, float), (5, 25, 50, 75, 95))
    found = {k: round(float(v), 3) for k, v in {"median": median, "iqr": q3 - q1, "p5": low, "p95": high}.items()}
    return {**found, "n": len(us)}


def ratio(over: ArrayLike, under: ArrayLike) -> float:
    """The ratio of the medians."""
    return float(np.median(np.asarray(over, float)) / np.median(np.asarray(under, float)))


def interval(
    over: ArrayLike, under: ArrayLike, *, paired: bool = True, confidence: float = 0.95
) -> tuple[float, float]:
    """The bootstrap interval of `ratio(over, under)`; the same samples give the same interval.

    >>> interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    (2.0, 2.0)

    Args:
        over, under: a figure a round; of equal length if `paired`.
        paired: draw the same rounds for both: Note [Ratio].
        confidence: the share of draws within.
    """
    a, b = np.asarray(over, float), np.asarray(under, float)
    if paired and len(a) != len(b):
        raise ValueError(f"interval: paired samples must be of equal number, got {len(a)} and {len(b)}")
    rng = np.random.default_rng(_SEED)
    picks = rng.integers(len(a), size=(DRAWS, len(a)))
    others = picks if paired else rng.integers(len(b), size=(DRAWS, len(b)))
    ratios = np.median(a[picks], axis=1) / np.median(b[others], axis=1)
    low, high = np.quantile(ratios, ((1 - confidence) / 2, (1 + confidence) / 2))
    return round(float(low), 4), round(float(high), 4)


def verdict(value: float, bounds: tuple[float, float], effect: float = EFFECT) -> str:
    """What a ratio of times (theirs over ours) and its interval allow to say.

    `faster` and `slower` need an interval without 1 and a difference of at least `effect`; `same`: the whole interval
    is within `effect` of 1; else `unclear`.

    >>> verdict(1.5, (1.4, 1.6)), verdict(1.01, (1.005, 1.015)), verdict(1.1, (0.9, 1.3))
    ('faster', 'same', 'unclear')
    """
    low, high = bounds
    if low > 1 and value >= 1 + effect:
        return "faster"
    if high < 1 and value <= 1 / (1 + effect):
        return "slower"
    return "same" if low >= 1 / (1 + effect) and high <= 1 + effect else "unclear"


def noted(row: dict[str, Any], noise: Mapping[str, Any]) -> dict[str, Any]:
    """The row with `machine.noise` of its time; where that was much, its verdict is `disturbed`."""
    if noise:
        row["noise"] = dict(noise)
        if noise["much"] and row["baseline"]:
            row["verdict"] = "disturbed"
    return row
