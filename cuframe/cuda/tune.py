"""Measures launches on the GPU that is here, and keeps what was fastest: `cuframe kernels tune`."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from cuframe.cuda.persistent import GATES, DeviceFacts, Plan, persistent_plan
from cuframe.cuda.tuned import EXCHANGES, FORMAT

__all__ = ["Bench", "Case", "GpuBench", "candidates", "cases", "search"]

_HIDDEN = (512, 1024, 256, 768, 128, 1536, 2048)
_BATCH = (16, 1, 64)
_UNITS = (4, 8, 16, 32, 64)
# float32 last: its sizes are the slowest.  What float16 wants, bfloat16 gets
_KINDS = ("float16", "tf32", "float32")
_STEPS = 128
_REPEATS = 4
_LEAST_STEPS = (1, 2, 4, 8, 16, 32)
_CHUNK_STEPS = (16, 32, 64, 128)
# part of the time that is for the two numbers above, which come last
_RESERVE = 0.1


class Case(NamedTuple):
    """A layer whose launch is looked for; `kind` is a dtype or "tf32"."""

    cell: str
    kind: str
    hidden: int
    batch: int
    directions: int


class Bench(Protocol):
    """What times things."""

    facts: DeviceFacts

    def layer(self, case: Case, plan: Plan) -> float:
        """Microseconds a step, forward and backward."""

    def engine(self, engine: str, steps: int) -> float:
        """Microseconds of a layer of so many steps, forward and backward."""

    def stack(self, chunk: int) -> float:
        """Microseconds of layers beside one another, forward and backward."""


def cases() -> Iterator[Case]:
    """What is measured, what matters most first."""
    for directions, kind, batch in itertools.product((1, 2), _KINDS, _BATCH):
        for hidden, cell in itertools.product(_HIDDEN, ("lstm", "gru", "rnn_tanh")):
            yield Case(cell, kind, hidden, batch, directions)


def candidates(facts: DeviceFacts, case: Case) -> list[tuple[Plan, int]]:
    """The launches to choose from, with the limit of sequences at a time that each has been given."""
    found: dict[Plan, int] = {}
    for units in _UNITS:
        plan = persistent_plan(facts, case.cell, case.kind, case.hidden, case.batch, units, case.directions)
        if plan is None:
            return []
        for tile in (0, plan.forward.tile // 2):
            other = persistent_plan(facts, case.cell, case.kind, case.hidden, case.batch, units, case.directions, tile)
            if other is not None:
                for exchange in EXCHANGES[:2]:
                    found.setdefault(other._replace(exchange=exchange), tile)
        together = persistent_plan(facts, case.cell, case.kind, case.hidden, case.batch, units, case.directions,
                                   cluster=True)
        if together is not None:
            found.setdefault(together, 0)
    return list(found.items())


def search(bench: Bench, seconds: float, chosen: Iterable[Case] | None = None,
           clock: Callable[[], float] = time.monotonic,
           say: Callable[[str], None] = lambda text: None,
           keep: Callable[[dict[str, Any]], Any] = lambda row: None) -> tuple[dict[str, Any], int]:
    """Measure until the time is over.

    Args:
        bench: what times launches; seconds: in all, which the last case may pass by its own time.
        chosen: the cases, in their order.
        say: told each result, as a line; keep: given each row of the table as it is found.

    Returns:
        What the table has under "rnn_persistent", and the number of cases that were left for want of time.
    """
    start, rows, left = clock(), [], 0
    for case in cases() if chosen is None else chosen:
        plans = candidates(bench.facts, case)
        if not plans:
            continue
        if clock() - start > seconds * (1 - _RESERVE):
            left += 1
            continue
        times = []
        for number, (plan, _) in enumerate(plans):
            try:
                times.append((bench.layer(case, plan), number))
            except (RuntimeError, ValueError) as error:  # one that a device refuses is not the fastest
                say(f"{case}: {plan.exchange}, {plan.blocks} blocks: {error}")
        if not times:
            continue
        us, best = min(times)
        plan, tile = plans[best]
        rows.append({"cell": case.cell, "dtype": case.kind, "hidden": case.hidden, "batch": case.batch,
                     "directions": case.directions, "exchange": plan.exchange, "units": plan.units, "tile": tile,
                     "us": round(us, 3)})
        keep(rows[-1])
        say(f"{case.cell:8} {case.kind:8} H {case.hidden:4} N {case.batch:2} x{case.directions}   {us:8.2f} us a step: "
            f"{plan.exchange}, {plan.blocks} blocks of {plan.units} units, {plan.forward.tile} at a time; "
            f"slowest {max(times)[0]:.2f}")
    # from where on one launch is never slower than many
    least = _LEAST_STEPS[-1]
    for steps in reversed(_LEAST_STEPS):
        if bench.engine("persistent", steps) > bench.engine("steps", steps):
            break
        least = steps
    chunk = min((bench.stack(steps), steps) for steps in _CHUNK_STEPS)[1]
    say(f"one launch for all steps from {least} steps on; layers follow one another in chunks of {chunk} steps")
    common = Counter(row["exchange"] for row in rows).most_common(1)
    return {"least_steps": least, "chunk_steps": chunk, "exchange": common[0][0] if common else EXCHANGES[0],
            "units": 8, "tile": 0, "measured": rows}, left


def report(found: dict[str, Any], **where: Any) -> dict[str, Any]:
    """The table for a file; `where` tells GPU, driver and the like."""
    return {"format": FORMAT, **where, "rnn_persistent": found}


class GpuBench:
    """Times on the device that holds `like`.

    Args:
        like: any array there; timer: gives microseconds of a function's work there; size: of the layers that the two
            numbers for all sizes are measured on, (hidden, batch, steps of a stack).
    """

    def __init__(self, like: Any, timer: Callable[[Callable[[], Any]], float],
                 size: tuple[int, int, int] = (256, 16, 512), repeats: int = _REPEATS, steps: int = _STEPS) -> None:
        from cuframe.gpu import _rnn_persistent as persistent

        self._like, self._timer, self._size, self._repeats, self._steps = like, timer, size, repeats, steps
        self.facts = persistent.facts_of(like)

    def _best(self, work: Callable[[], Any]) -> float:
        work()  # compiles, and takes memory
        return min(self._timer(work) for _ in range(self._repeats))

    def _new(self, *shape: int, kind: str = "float16") -> Any:
        dtype = np.dtype("float32" if kind == "tf32" else kind)
        return np.full_like(self._like, 0.01, shape=shape, dtype=dtype, order="C")

    def layer(self, case: Case, plan: Plan) -> float:
        from cuframe.gpu import _rnn_persistent as persistent

        steps, gates = self._steps, GATES[case.cell]
        rows, width = steps * case.batch, case.directions * gates * case.hidden
        gx = self._new(rows, width, kind=case.kind)
        side = (self._new(gates * case.hidden, case.hidden, kind=case.kind), None, None)
        kept = self._new(rows, case.directions * 4 * case.hidden, kind=case.kind) if gates > 1 else None
        carry = np.full_like(self._like, 0, shape=(case.directions, case.batch, case.hidden), dtype=np.float32)
        dc = np.zeros_like(carry) if case.cell == "lstm" else None
        sides = [side] * case.directions

        def work() -> None:
            r = persistent.forward(case.cell, plan, gx, sides, None, None, None, kept, True, steps, case.batch, False)
            persistent.backward(case.cell, plan, [side[0]] * case.directions, r.states[1:1 + steps] if kept is None else
                                kept, r.states, r.c_states, None, carry, dc, None, steps, case.batch, False)

        return self._best(work) / steps

    def engine(self, engine: str, steps: int) -> float:
        from cuframe.gpu import rnn

        hidden, batch, _ = self._size
        x, w = self._new(steps, batch, hidden), self._new(4 * hidden, hidden)

        def work() -> None:
            y, *_, saved = rnn.forward("lstm", x, w, w, engine=engine)
            rnn.backward(saved, y)  # type: ignore[arg-type]

        return self._best(work)

    def stack(self, chunk: int) -> float:
        from cuframe.gpu import rnn_stack

        hidden, batch, steps = self._size
        x, w = self._new(steps, batch, hidden), self._new(4 * hidden, hidden)

        def work() -> None:
            y, *_, saved = rnn_stack.forward("lstm", x, [(w, w, None, None)] * 4, chunk=chunk)
            rnn_stack.backward(saved, y)  # type: ignore[arg-type]

        return self._best(work)


def event_time(work: Callable[[], Any]) -> float:
    """Microseconds that a GPU takes for `work`, by events; a first one keeps it busy while the host gives out that."""
    from cuframe.cuda.streams import Event

    start, end = Event(enable_timing=True), Event(enable_timing=True)
    work()
    start.record()
    work()
    end.record()
    end.synchronize()
    return 1000 * start.elapsed_time(end)
