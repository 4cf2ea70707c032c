"""Modules run side by side, each in a thread of its own."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ... import random
from ...autograd.anomaly import detect_anomaly
from ...autograd.graph import mode, switch_recording
from ...backend import Device, backend_for
from ..module import Module
from .scatter import as_devices, tensors_in

__all__ = ["parallel_apply"]


def parallel_apply(
    modules: Sequence[Module],
    inputs: Sequence[Any],
    kwargs_tup: Sequence[dict[str, Any]] | None = None,
    devices: Sequence[Any] | None = None,
) -> list[Any]:
    """Call each module with its inputs, all at the same time, each in a thread of its own.

    The threads record gradients or not, look for anomalies or not, and have the context variables and current streams
    of the caller; random numbers come from streams of their own, the same ones in every run.

    Args:
        modules: one for each device.
        inputs: the positional arguments of each, as a tuple or list; something else is the only one.
        kwargs_tup: the keyword arguments of each.
        devices: the current device of each thread; by default that of its first tensor. Numbers count devices of that
            kind.

    Returns:
        What the modules return.

    Raises:
        ValueError: not as many inputs, kwargs or devices as modules.
        Exception: what a module has raised, of that type where it can be made from a text, with the number and the
            device of the replica; its cause is the original. Of several, that of the first.
        KeyboardInterrupt: the user has ended the wait; tells which modules are still running, and where.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> double, half = nn.Identity(), nn.Identity()
    >>> nn.parallel.parallel_apply([nn.ReLU(), nn.Identity()], [cf.tensor([-1.0]), cf.tensor([-1.0])])
    [tensor([0.]), tensor([-1.])]
    """
    count = len(modules)
    kwargs = [{} for _ in modules] if kwargs_tup is None else kwargs_tup
    for name, given in (("inputs", inputs), ("kwargs_tup", kwargs), ("devices", devices)):
        if given is not None and len(given) != count:
            raise ValueError(f"parallel_apply: expected {name} for {count} modules, got {len(given)}")
    args = [tuple(x) if type(x) in (tuple, list) else (x,) for x in inputs]
    firsts = [next(tensors_in((a, k)), None) for a, k in zip(args, kwargs)]
    if devices is None:
        places = [None if t is None else t.device for t in firsts]
    else:
        like = next((t.device for t in firsts if t is not None), None)
        places = list(as_devices("parallel_apply", devices, like))
    calls = [lambda i=i: modules[i](*args[i], **kwargs[i]) for i in range(count)]  # type: ignore[misc]
    if count > 1:
        return _side_by_side(calls, places)
    with _on(places[0]):
        return [calls[0]()]


def _on(place: Device | None) -> AbstractContextManager:
    return nullcontext() if place is None else backend_for(place).on(place)


def _side_by_side(calls: Sequence[Callable[[], Any]], places: Sequence[Device | None]) -> list[Any]:
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException | None] = [None] * len(calls)
    drawn = random.default_generator.reserve(1)
    # Threads made for the call: a pool of them could be full of modules that wait for the pool.
    threads = []
    for i, (call, place) in enumerate(zip(calls, places)):
        state = _State(_on(place), (*drawn, i))

        def work(i: int = i, call: Callable[[], Any] = call, state: _State = state) -> None:
            try:
                results[i] = state.run(call)
            except BaseException as error:
                errors[i] = error

        name = f"replica {i}" if place is None else f"replica {i} on {place}"
        threads.append(threading.Thread(target=work, name=name, daemon=True))
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"still running: {_whereabouts(threads)}") from None
    failed = next(((e, t.name) for t, e in zip(threads, errors) if e is not None), None)
    if failed is None:
        return results
    errors.clear()  # the error's frames know this list, and what they hold should not wait for the garbage collector
    try:
        raise _with_place(*failed)
    finally:
        del failed


def _whereabouts(threads: Sequence[threading.Thread]) -> str:
    """The replicas that have not ended, and at which line they are."""
    frames = sys._current_frames()
    told = []
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        if frame is not None:
            told.append(f"{thread.name}, at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
    return "; ".join(told)


class _State:
    """What a thread takes over from the one that makes this."""

    def __init__(self, device: AbstractContextManager, stream: tuple[int, ...]) -> None:
        self._device = device
        self._stream = stream
        self._mode = (mode.grad, mode.inference)
        self._anomaly = detect_anomaly(mode.check_nan) if mode.anomaly else nullcontext()
        self._variables = contextvars.copy_context()

    def run(self, call: Callable[[], Any]) -> Any:
        switch_recording(*self._mode)
        try:
            with self._anomaly, self._device, random.forked(*self._stream):
                return self._variables.run(call)
        finally:
            switch_recording(True, False)


def _with_place(error: BaseException, where: str) -> BaseException:
    if not isinstance(error, Exception):
        return error
    told: Exception
    try:
        told = type(error)(f"{where}: {error}")
    except Exception:  # its constructor takes something else than a text
        told = RuntimeError(f"{where}: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told
