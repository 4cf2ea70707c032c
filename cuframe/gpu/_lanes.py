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

    Note [Lanes and memory] Work in a lane waits for all that was in the current queue before the block, and what comes
    after the block waits for the lanes.  So memory may be taken and given back on either side: CuPy keeps what is given
    back for the queue that took it, and that queue's next use of it, inside a later block, waits for the current queue,
    where the last work was that may still read it.
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
            event = streams.Event()
            event.record()
            for stream in self._streams:
                stream.wait_event(event)
        return self

    def __exit__(self, *error: Any) -> None:
        for stream in self._streams:
            self._main.wait_stream(stream)
        self._device.__exit__(*error)

    @contextlib.contextmanager
    def on(self, number: int, after: streams.Event | None = None) -> Iterator[None]:
        """Give work to a lane, behind `after`."""
        if not self._streams:
            yield
            return
        stream = self._streams[number]
        if after is not None:
            stream.wait_event(after)
        with streams.stream(stream):
            yield

    def mark(self, number: int) -> streams.Event | None:
        """The place that a lane has come to, for others to wait for."""
        return self._streams[number].record_event() if self._streams else None
