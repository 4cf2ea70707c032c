"""Queues of work that run beside one another: streams of a GPU; a simulated one has a single queue, and needs none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from cuframe.backend.base import backend_of
from cuframe.cuda import streams

__all__ = ["Lanes"]

_made: dict[int, list[streams.Stream]] = {}


class Lanes:
    """`count` lanes beside the current queue, for the time of a `with` block.

    Note [Lanes and memory] CuPy keeps memory that is given back for the queue that took it.  What a lane takes and
    gives back is its own, and its work is in order.  What the current queue has taken and a lane uses must be held
    until the current queue has waited for that: by `wait`, or by the end of the block.

    Products of matrices belong into the current queue: with several streams behind one handle, cuBLAS does not promise
    the same bits from run to run.
    """

    def __init__(self, like: Any, count: int) -> None:
        backend = backend_of(like)
        self._streams: list[streams.Stream] = []
        self._device: Any = contextlib.nullcontext()
        if hasattr(backend.xp, "cuda"):
            index = backend.device_of(like).index or 0
            self._device = streams.device(index)
            found = _made.setdefault(index, [])
            while len(found) < count:
                found.append(streams.Stream(index))
            self._streams = found[:count]

    def __enter__(self) -> Lanes:
        self._device.__enter__()
        if self._streams:
            self._main = streams.current_stream()
        return self

    def __exit__(self, *error: Any) -> None:
        for stream in self._streams:
            self._main.wait_stream(stream)
        self._device.__exit__(*error)

    @contextlib.contextmanager
    def on(self, number: int) -> Iterator[None]:
        """Give work to a lane, behind what is in the current queue so far."""
        if not self._streams:
            yield
            return
        event = streams.Event()
        event.record()
        self._streams[number].wait_event(event)
        with streams.stream(self._streams[number]):
            yield

    def mark(self, number: int) -> streams.Event | None:
        """The place that a lane has come to."""
        return self._streams[number].record_event() if self._streams else None

    def wait(self, mark: streams.Event | None) -> None:
        """Let later work of the current queue wait until a lane has come to this place."""
        if mark is not None:
            self._main.wait_event(mark)
