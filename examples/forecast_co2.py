"""Forecast a year of weekly CO2 at Mauna Loa with a GRU, from what had been measured by the day of the forecast.

    python examples/forecast_co2.py --out runs/forecast_co2

The series (1958 to 2001, in ppm) comes with statsmodels. Training ends with 1995; from every week since, the network
forecasts the next 52 at once, without seeing any of them. It forecasts the growth within a year, which the seasonal
naive baseline takes for zero and the two baselines with drift for that of the last year, or of all years so far.
Sizes and the number of steps were chosen on 1990 to 1995 with training up to 1989. It takes a few seconds, and
statsmodels and matplotlib (pip install -e '.[examples]').
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import cuframe as cf
from cuframe import nn, optim
from cuframe.nn import functional as F

try:
    from matplotlib.figure import Figure
    from statsmodels.datasets import co2
except ImportError:
    sys.exit("this example needs statsmodels and matplotlib: pip install -e '.[examples]'")

YEAR, STRIDE, PAST = 52, 4, 78  # weeks of a forecast; weeks from step to step, and steps, that the network sees
AHEAD = np.arange(1, YEAR + 1)
console = Console(highlight=False, soft_wrap=True)


class Forecaster(nn.Module):
    """The standardised growth within a year at each of the next 52 weeks, from that of the past."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.gru = nn.GRU(3, hidden)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(hidden, YEAR)

    def forward(self, x: cf.Tensor) -> cf.Tensor:
        _, h = self.gru(x)  # [T, N, 3] -> [1, N, H]
        return self.out(self.dropout(h[0]))  # [N, 52]


def series() -> tuple[np.ndarray, np.ndarray, int]:
    """Date and ppm of each week, gaps (all of them before 1986) filled by straight lines; and how many were filled."""
    ppm = co2.load_pandas().data["co2"]
    return ppm.index.to_numpy().astype("datetime64[D]"), ppm.interpolate().to_numpy(np.float64), int(ppm.isna().sum())


def windows(growth: np.ndarray, angle: np.ndarray, origins: np.ndarray) -> cf.Tensor:
    """What is known in the weeks `origins`: growth and time of the year of every fourth week so far, [T, N, 3]."""
    weeks = origins + np.arange(-STRIDE * (PAST - 1), 1, STRIDE)[:, None]  # [T, N]
    return cf.from_numpy(np.stack([growth, np.sin(angle), np.cos(angle)], 1).astype(np.float32)[weeks])


def baselines(ppm: np.ndarray, origins: np.ndarray) -> dict[str, np.ndarray]:
    """Forecasts [N, 52] that take the same week a year before, and add nothing or a growth."""
    before = ppm[origins[:, None] + AHEAD - YEAR]
    mean = np.array([(ppm[YEAR : o + 1] - ppm[: o + 1 - YEAR]).mean() for o in origins])
    return {
        "seasonal naive": before,
        "seasonal naive + last year's growth": before + (ppm[origins] - ppm[origins - YEAR])[:, None],
        "seasonal naive + mean growth": before + mean[:, None],
    }


def plot(path: Path, dates: np.ndarray, ppm: np.ndarray, origins: np.ndarray, forecasts: dict, errors: dict) -> None:
    """Draw a forecast of each year against the truth, and the error of each method by weeks ahead."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 2])
    since = origins[0] - YEAR
    upper.plot(dates[since:], ppm[since:], color="black", lw=1, label="measured")
    for n in range(0, len(origins), YEAR):
        when = dates[origins[n] + AHEAD]
        for name, color in (("seasonal naive", "tab:gray"), ("GRU", "tab:red")):
            upper.plot(when, forecasts[name][n], color=color, lw=1.5, label=name if n == 0 else None)
        upper.axvline(dates[origins[n]], color="tab:blue", lw=0.5, ls=":")
    upper.set(ylabel="CO2, ppm", title="Forecasts made at the dotted lines, each for a year")
    for name, e in errors.items():
        lower.plot(AHEAD, np.abs(e).mean(axis=0), label=name, lw=2 if name == "GRU" else 1)
    lower.set(xlabel="weeks ahead", ylabel="mean absolute error, ppm", ylim=(0, None))
    for axes in (upper, lower):
        axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("runs/forecast_co2"), help="folder for the picture")
    p.add_argument("--until", type=int, default=1995, help="last year of training, 1986 to 1999 (%(default)s)")
    p.add_argument("--steps", type=int, default=200, help="training steps (%(default)s)")
    p.add_argument("--lr", type=float, default=5e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cuda" if cf.cuda.is_available() else "cpu")
    args = p.parse_args(argv)
    if args.steps < 1 or not 1986 <= args.until <= 1999:
        p.error("--steps must be positive and --until a year from 1986 to 1999")
    args.out.mkdir(parents=True, exist_ok=True)
    cf.manual_seed(args.seed)
    rng, (dates, ppm, filled) = np.random.default_rng(args.seed), series()
    cut = int(np.searchsorted(dates, np.datetime64(f"{args.until + 1}-01-01")))  # weeks from here on are for the test
    growth = np.concatenate([np.zeros(YEAR), ppm[YEAR:] - ppm[:-YEAR]])
    mean, std = growth[YEAR:cut].mean(), growth[YEAR:cut].std()
    growth = (growth - mean) / std
    angle = 2 * np.pi * ((dates - dates.astype("datetime64[Y]")).astype(int) / 365.25)
    train, test = np.arange(YEAR + STRIDE * (PAST - 1), cut - YEAR), np.arange(cut - 1, len(ppm) - YEAR)
    console.print(f"{cut:,} weeks to train ({filled} gaps filled), {len(ppm) - cut} to test; training on {args.device}")

    model = Forecaster().to(args.device)
    optimizer = optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.1)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)
    started = time.perf_counter()
    shown = TextColumn("step {task.completed}/{task.total} loss {task.fields[loss]:.3f}")
    with Progress(BarColumn(bar_width=None), shown, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=args.steps, loss=np.nan)
        for _ in range(args.steps):
            origins = rng.choice(train, 64)
            target = cf.from_numpy(growth[origins[:, None] + AHEAD].astype(np.float32))
            loss = F.mse_loss(model(windows(growth, angle, origins).to(args.device)), target.to(args.device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update(task, advance=1, loss=loss.item())

    model.eval()
    with cf.no_grad():
        predicted = model(windows(growth, angle, test).to(args.device)).cpu().numpy() * std + mean
    forecasts = baselines(ppm, test)
    forecasts["GRU"] = forecasts["seasonal naive"] + predicted
    errors = {name: forecast - ppm[test[:, None] + AHEAD] for name, forecast in forecasts.items()}
    plot(args.out / "forecast.png", dates, ppm, test, forecasts, errors)
    console.print(f"forecast and truth: {args.out / 'forecast.png'}   {time.perf_counter() - started:.0f} s")
    console.print(f"{len(test)} forecasts of a year, made from {dates[test[0]]} to {dates[test[-1]]}:")
    for name, e in errors.items():
        console.print(f"{name:37}MAE {np.abs(e).mean():.2f} ppm   RMSE {np.sqrt((e * e).mean()):.2f} ppm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
