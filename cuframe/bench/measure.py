"""Makes rows: a case is built in both libraries, compared with a reference, timed by turns, set against its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import machine
from .case import Case, Family, Side, Work, host_arrays, passes
from .clocks import Clock, quiet_collector
from .resources import Launched, launched, summed
from .statistics import interval, noted, ratio, summary, verdict

__all__ = ["Session", "difference", "rows_of", "sample"]

_LEAST_ROUNDS = 7
_MOST_EACH = 10
# where neighbours make calls many times as long as the first ones were: rounds that are enough, and times the seconds
_ENOUGH, _PATIENCE = 5, 4
# a float64 reference beyond these would take longer than the timing
_REFERENCE_FLOPS, _REFERENCE_BYTES = 10**10, 1 << 28


@dataclass
class Session:
    """What all rows of a run share.

    Attributes:
        kind: "cpu" or "cuda"; device: as cuframe and PyTorch name it.
        torch: the other library; None for none.
        seconds: that the samples of a row may take.
        copy: bytes a second of a copy; products: dtype to operations a second; see `machine`.
        arch: of the GPU, such as sm_90.
        exact: compare results with float64 on the CPU where that takes no longer than the timing; else with PyTorch.
    """

    kind: str
    device: str
    clock: Clock
    torch: Any = None
    cold: bool = True
    warm: bool = True
    seconds: float = 0.6
    copy: float = 0.0
    products: dict[str, float] = field(default_factory=dict)
    measure_products: Callable[[str], float] | None = None
    arch: str | None = None
    exact: bool = True

    def product_rate(self, dtype: str) -> float:
        if dtype not in self.products and self.measure_products is not None:
            self.products[dtype] = self.measure_products(dtype)
        return self.products.get(dtype, 0.0)


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest value or 1."""
    worst = 0.0
    for a, b in zip(host_arrays(ours), host_arrays(theirs), strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.size:
            off = np.abs(a - b).max() / max(1.0, np.abs(b).max())
            worst = max(worst, float("inf") if np.isnan(off) else float(off))
    return worst


@dataclass
class _Side:
    library: Any
    work: Work
    modes: dict[str, Callable[[], Any]]


def _set_up(family: Family, side: Side, sizes: Sequence[int], variant: str = "") -> _Side:
    work = family.build(side, *sizes, variant=variant)
    return _Side(side.lib, work, passes(work, side.lib))


def _contestants(case: Case, session: Session) -> tuple[dict[str, _Side], dict[str, str]]:
    """Ours and PyTorch's ways to do it, with the reasons of those that cannot."""
    import cuframe as cf

    family = case.family
    sides = {"cuframe": _set_up(family, Side(cf, session.device, case.dtype), case.sizes)}
    notes: dict[str, str] = {}
    variants = family.variants if session.kind == "cuda" else family.cpu_variants
    for variant in variants if session.torch is not None else ():
        try:
            side = Side(session.torch, session.device, case.dtype)
            sides[variant] = _set_up(family, side, case.sizes, variant)
        except Exception as error:
            notes[variant] = f"{type(error).__name__}: {error}"[:200]
    return sides, notes


class _Reference:
    """What a case is compared with: itself in float64 on the CPU, or PyTorch where that would take too long."""

    def __init__(self, case: Case, exact: bool) -> None:
        import cuframe as cf

        self._case = case
        self._mine: _Side | None = None
        if exact and case.flops("training") <= _REFERENCE_FLOPS and case.traffic("training") <= _REFERENCE_BYTES:
            through = None if case.dtype in ("float32", "float64") else case.dtype
            self._mine = _set_up(case.family, Side(cf, "cpu", "float64", through), case.sizes)

    def errors(self, mode: str, results: Mapping[str, Any]) -> dict[str, Any]:
        """By contestant, with what it was compared with."""
        if not self._case.family.same:
            return {}
        if self._mine is not None:
            right, against = self._mine.modes[mode](), "float64 on the CPU"
        else:
            others = [label for label in results if label != "cuframe"]
            if not others:
                return {}
            right, against = results[others[0]], others[0]
        found = {label: difference(result, right) for label, result in results.items() if label != against}
        return {"value": found.pop("cuframe"), "against": against, **({"others": found} if found else {})}


def sample(
    calls: Mapping[str, tuple[str, Callable[[], Any]]], clock: Clock, kinds: Sequence[str], seconds: float
) -> tuple[dict[str, dict[str, list[list[float]]]], dict[str, float]]:
    """Microseconds by contestant, kind and round, contestants by turns; and the microseconds that the host takes.

    Args:
        calls: contestant to its library and what it calls.
        kinds: of `clock`.
        seconds: that all may take, roughly.
    """
    who = {label: clock.prepare(call, library) for label, (library, call) in calls.items()}
    one = max(sum(w.length * w.calls for w in who.values()) * len(kinds), 1e-6)
    rounds = int(np.clip(3 * seconds / one, min(_LEAST_ROUNDS, clock.rounds), clock.rounds))
    each = int(np.clip(seconds / one / rounds, 1, _MOST_EACH))
    found: dict[str, dict[str, list[list[float]]]] = {label: {} for label in who}
    began = time.monotonic()
    with quiet_collector():
        for turn in range(rounds):
            if turn >= _ENOUGH and time.monotonic() - began > _PATIENCE * seconds:
                break
            for label in list(who) if turn % 2 == 0 else reversed(who):
                clock.turn()
                taken: dict[str, list[float]] = {}
                for kind in kinds:
                    if kind == "warm" and who[label].length < 0.005:
                        who[label].call()  # the caches held the other's numbers
                    for _ in range(each):
                        for name, us in clock.take(who[label], kind).items():
                            taken.setdefault(name, []).append(us)
                for name, values in taken.items():
                    found[label].setdefault(name, []).append(values)
    return found, {label: w.host * 1e6 for label, w in who.items()}


def _limits(case: Case, mode: str, us: float, session: Session) -> dict[str, Any]:
    """Rates, and the share of the time that this very machine's copy and product rates allow."""
    traffic, flops = case.traffic(mode), case.flops(mode)
    found: dict[str, Any] = {"bytes": traffic, "flops": flops}
    by_memory = traffic / session.copy * 1e6 if traffic and session.copy else 0.0
    by_products = flops / rate * 1e6 if flops and (rate := session.product_rate(case.dtype)) else 0.0
    if traffic:
        found["gbs"] = round(traffic / us / 1e3, 2)
    if flops:
        found["tflops"] = round(flops / us / 1e6, 4)
    if traffic and flops:
        found["intensity"] = round(flops / traffic, 2)
    floor = max(by_memory, by_products)
    if floor:
        found |= {"floor_us": round(floor, 3), "of_roofline": round(floor / us, 4),
                  "bound": "memory" if by_memory >= by_products else "products"}
    return found


def _unmoved(session: Session, figure: str) -> bool:
    """Whether other programs on the CPU leave a figure as it is: a GPU's own time, and one thread's processor time."""
    if session.kind == "cuda":
        return figure != "wall"
    return figure == "process" and machine.cores() == 1


def _beside(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """The quickest of the others, and what can be said of the ratio."""
    others = [label for label in times if label != "cuframe"]
    if not others:
        return {"baseline": None}
    best = min(others, key=lambda label: float(np.median(times[label])))
    value, bounds = ratio(times[best], times["cuframe"]), interval(times[best], times["cuframe"])
    return {"baseline": best, "speedup": round(value, 4), "interval": list(bounds), "verdict": verdict(value, bounds)}


def rows_of(case: Case, session: Session, known: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a case, one a mode, as they are measured; those of `known` are left out."""
    family = case.family
    sides, notes = _contestants(case, session)
    reference = _Reference(case, session.exact)
    wall = family.timer == "wall"
    kinds = session.clock.kinds(session.cold and (family.cold or not session.warm), session.warm, wall)
    if wall and "wall" in kinds:
        kinds = ("wall",)
    figure = session.clock.figure(kinds, wall)
    modes = list(sides["cuframe"].modes)
    for mode in modes:
        key = f"{case.key} {mode}"
        if known is not None and key in known:
            continue
        began, before = time.monotonic(), machine.load()
        results = {}
        kernels: list[Launched] = []
        for label, side in list(sides.items()):
            try:
                if label == "cuframe" and session.arch is not None:
                    with launched() as kernels:
                        results[label] = side.modes[mode]()
                else:
                    results[label] = side.modes[mode]()
            except Exception as cause:
                if label == "cuframe":
                    raise
                notes[label] = f"{type(cause).__name__}: {cause}"[:200]  # PyTorch cannot do this one
                del sides[label]
        error = reference.errors(mode, results)
        del results
        calls = {label: ("cuframe" if label == "cuframe" else "torch", side.modes[mode])
                 for label, side in sides.items()}
        found, host = sample(calls, session.clock, kinds, session.seconds)
        count = sides["cuframe"].work.count
        times = {label: [float(np.median(r)) / count for r in by[figure]] for label, by in found.items()}
        us: dict[str, dict[str, Any]] = {}
        for label, by in found.items():
            us[label] = {kind: summary([v / count for r in rounds for v in r]) for kind, rounds in by.items()}
            us[label]["host"] = round(host[label] / count, 3)
        row: dict[str, Any] = {
            "key": key, "family": family.name, "group": family.group, "sizes": dict(zip(family.dims, case.sizes)),
            "label": case.label, "dtype": case.dtype, "mode": mode, "modes": modes, "device": session.kind,
            "timer": session.clock.timer, "figure": figure, "us": us,
            "samples_us": {label: [round(v, 3) for v in values] for label, values in times.items()}}
        row |= _limits(case, mode, us["cuframe"][figure]["median"], session)
        row |= _beside(times)
        if session.kind == "cpu":
            row["aim"] = round(family.aim, 3)
        tolerance = family.tolerance[case.dtype]
        row |= {"error": error or None, "tolerance": tolerance,
                "within": None if not error else bool(error["value"] <= tolerance)}
        if session.arch is not None:
            row |= summed(kernels, session.arch)
        noise = machine.noise(before, machine.load())
        if noise and _unmoved(session, figure):
            noise = {"steal": noise["steal"], "others": noise["others"], "much": False}
        noted(row, noise)
        if notes:
            row["notes"] = dict(notes)
        row["seconds"] = round(time.monotonic() - began, 2)
        yield row
