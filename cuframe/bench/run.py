"""A run: the machine is asked, limits are measured, cases are gone through until the time is over."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from cuframe import _paths

from . import collectives, machine
from .case import Case
from .clocks import TIMERS, DeviceClock, HostClock
from .collectives import CollectiveCase
from .measure import Session, rows_of
from .results import Results
from .selection import Chosen, first_size

__all__ = ["Options", "Outcome", "Refused", "facts_of", "go", "open_session", "use_threads"]


class Refused(RuntimeError):
    """This machine, or this device, cannot be asked; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    device: str
    timer: str | None = None
    baseline: str | None = None
    cold: bool = True
    warm: bool = True
    seconds: float = 0.6
    budget: float | None = None
    threads: int | None = None
    ranks: int = 2
    path: Path | None = None
    retry: bool = False


@dataclass
class Outcome:
    """What became of a run."""

    results: Results
    left: list[str]
    failed: int = 0
    off: int = 0
    stopped: bool = False
    notes: list[str] = field(default_factory=list)


def use_threads(count: int | None) -> int:
    """Let this process, and so cuframe, have so many cores; to be called before anything asks for them."""
    if count is not None:
        allowed = sorted(os.sched_getaffinity(0))
        if not 1 <= count <= len(allowed):
            raise Refused(f"--threads must be from 1 to {len(allowed)}, got {count}")
        os.sched_setaffinity(0, allowed[:count])
        from cuframe.cpu import blas

        blas.limit(count)  # more threads than cores would wait for one another
    return machine.cores()


def _baseline(name: str | None, threads: int) -> Any:
    if name is None:
        return None
    try:
        torch = import_module("torch")
        import_module("torch.nn.attention")
    except ImportError as error:
        raise Refused(f"--baseline torch: PyTorch cannot be imported ({error}); pip install torch, or leave "
                      "--baseline out") from None
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch


def open_session(options: Options) -> Session:
    """Device, clock and baseline for a run.

    Raises:
        Refused: there is no such device, it cannot be timed, or PyTorch is missing.
    """
    kind = options.device.partition(":")[0]
    if kind == "sim":
        raise Refused("sim is not timed: its threads are simulated one after another on the CPU, so their time says "
                      "nothing of a GPU's; use --device cpu, or cuda on a machine with a GPU")
    if kind not in TIMERS:
        raise Refused(f"unknown device {options.device!r}; one of cpu, cuda")
    timer = options.timer or TIMERS[kind][0]
    if timer not in TIMERS[kind]:
        raise Refused(f"--timer {timer} is not for {kind}; it has {', '.join(TIMERS[kind])}")
    if kind == "cpu":
        threads = use_threads(options.threads)
        # caches are overwritten only where it is asked for: their loss hides behind what else a CPU does
        cold = options.cold and not options.warm
        now = time.process_time if timer == "process" else time.perf_counter
        return Session("cpu", "cpu", HostClock(timer), _baseline(options.baseline, threads), cold, options.warm,
                       options.seconds, machine.peak_copy(now=now),
                       measure_products=lambda dtype: machine.peak_products(dtype, now=now))
    import cuframe as cf

    try:
        cf.ones(1, device=options.device)
        import cupy
    except (ImportError, RuntimeError) as error:
        extra = _paths.install_command("cuda12")
        raise Refused(f"no GPU can be used here: {error}; with a GPU: {extra}; without one: --device cpu") from None
    cupy.cuda.Device(int(options.device.partition(":")[2] or 0)).use()
    events = DeviceClock(cupy, timer)
    facts = machine.device()
    return Session("cuda", options.device, events, _baseline(options.baseline, machine.cores()), options.cold,
                   options.warm, options.seconds, machine.peak_copy(events, cupy),
                   measure_products=lambda dtype: machine.peak_products(dtype, events),
                   arch=f"sm_{facts['major']}{facts['minor']}")


def facts_of(session: Session) -> dict[str, Any]:
    """What is the same for all rows."""
    from cuframe.cpu import jit

    known = machine.machine()
    facts: dict[str, Any] = {
        "device": session.kind, "cpu": known["cpu"], "cores": known["cores"], "timer": session.clock.timer,
        "python": known["python"], "platform": known["platform"], "packages": known["packages"],
        "compiled": jit.available(), "torch": session.torch.__version__ if session.torch is not None else None,
        "threads": machine.cores(), **machine.commit()}
    if session.kind == "cuda":
        found, smi = machine.device(), known["nvidia-smi"] or {}
        facts |= {"gpu": found["gpu"], "arch": session.arch, "cupy": found["cupy"], "nvrtc": found["nvrtc"],
                  "driver": smi.get("driver_version"), "clocks": {k: v for k, v in smi.items() if "clocks" in k}}
    return facts


def go(chosen: Chosen, session: Session, options: Options, say: Callable[[str, int, int], None] = lambda *_: None
       ) -> Outcome:
    """Measure what has no rows yet, writing each as it comes; Ctrl-C ends it, and what is measured is kept.

    With a budget the first size of every family comes first, then collectives, then the other sizes.

    Args:
        say: called with what is under way, how many cases are done and how many there are.

    Raises:
        BadResults: the file holds other rows.
    """
    results = Results.open(options.path, options.retry, **facts_of(session))
    session.products.update(results.data["peaks"].get("products", {}))
    results.data["peaks"] = {"copy": session.copy, "products": session.products}
    outcome = Outcome(results, [])
    limited = options.budget is not None
    first = [c for c in chosen.cases if first_size(c, session.kind)] if limited else chosen.cases
    ranks = collectives.todo(chosen.collectives, session.kind, options.ranks, results.keys)
    if ranks and session.kind == "cpu" and machine.cores() < options.ranks:
        outcome.notes.append(f"collectives left out: {options.ranks} ranks would share {machine.cores()} core(s)")
        ranks = []
    if "collectives error" in results.keys:
        ranks = []
    tasks: list[Case | list[CollectiveCase]] = [*first, *([ranks] if ranks else [])]
    tasks += [c for c in chosen.cases if c not in first]
    start, over = time.monotonic(), False
    try:
        for done, task in enumerate(tasks):
            if isinstance(task, Case) and results.done(task.key):
                continue
            over = over or (options.budget is not None and time.monotonic() - start >= options.budget)
            name = task.key if isinstance(task, Case) else "collectives"
            if over:
                outcome.left.append(name)
                continue
            say(name, done, len(tasks))
            if isinstance(task, Case):
                over = not _case(task, session, outcome)
            else:
                _among_ranks(task, session, options, outcome)
    except KeyboardInterrupt:
        results.end()
        outcome.stopped = True
    results.save()
    return outcome


def _case(case: Case, session: Session, outcome: Outcome) -> bool:
    """Add its rows; whether the device is still usable."""
    results = outcome.results
    results.begin(case.key)
    usable = True
    try:
        for row in rows_of(case, session, results.keys):
            results.add(row)
            outcome.off += row["within"] is False
    except Exception as error:
        outcome.failed += 1
        results.add({"key": f"{case.key} error", "case": case.key,
                     "error_text": f"{type(error).__name__}: {error}"[:1000]})
        usable = _usable(session)
        if not usable:
            print("cuframe bench: the device is unusable after this error; the same command goes on with the next",
                  file=sys.stderr)
    results.end()
    return usable


def _usable(session: Session) -> bool:
    """Whether the device still answers; after an error of its own nothing works in this process."""
    try:
        session.clock.turn()
    except Exception:
        return False
    return True


def _among_ranks(cases: list[CollectiveCase], session: Session, options: Options, outcome: Outcome) -> None:
    results = outcome.results
    results.begin("collectives")
    try:
        for row in collectives.measure(cases, session.kind, options.ranks, session.torch is not None):
            results.add(row)
            outcome.off += row["wrong"] > 0
    except RuntimeError as error:
        outcome.failed += 1
        results.add({"key": "collectives error", "case": "collectives", "error_text": str(error)[:1000]})
    results.end()
