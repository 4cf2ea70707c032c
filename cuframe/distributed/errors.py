"""Errors of distribution, and how ranks and ends of processes are put into words."""

from __future__ import annotations

import signal
from collections.abc import Iterable

__all__ = ["DistributedError", "DistributedTimeout", "how_it_ended", "name_ranks"]


class DistributedError(RuntimeError):
    """Ranks cannot go on together: one died, left, or called something else; the message names it.

    >>> import cuframe.distributed as dist
    >>> issubclass(dist.DistributedTimeout, dist.DistributedError)
    True
    """


class DistributedTimeout(DistributedError, TimeoutError):
    """A deadline passed; the message names the ranks that were waited for.

    >>> import cuframe.distributed as dist
    >>> issubclass(dist.DistributedTimeout, TimeoutError)
    True
    """


def name_ranks(ranks: Iterable[int]) -> str:
    """`rank 1`, `ranks 1 and 3`, `ranks 0, 1 and 3`."""
    texts = [str(r) for r in sorted(ranks)]
    if len(texts) == 1:
        return f"rank {texts[0]}"
    return f"ranks {', '.join(texts[:-1])} and {texts[-1]}"


def how_it_ended(code: int) -> str:
    """A process's end in words, from its exit code as `subprocess` gives it (negative: a signal's number)."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"
