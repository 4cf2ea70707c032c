"""What the environment asks of the simulator, and the limits of the GPU that it stands for.

CUFRAME_SIM_ORDER     in which order the threads of a block run: forward, reverse, random:SEED, ahead:SEED
CUFRAME_SIM_SANITIZE  address or thread: the sanitizer that kernels are compiled with
CUFRAME_SIM_DEBUG     1: kernels without optimisation and with debug information
CUFRAME_SIM_ARCH      the GPU whose limits hold, default sm_90
CUFRAME_SIM_SMS       how many multiprocessors it has, default 4
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Limits", "debug", "limits", "order", "parse_order", "sanitizer", "set_order"]

# as enum Order of kernels/sim/state.h has them
_ORDERS = ("forward", "reverse", "random", "ahead")
_current: tuple[int, int] | None = None

# bytes of shared memory that one block can have, and that one multiprocessor has
_SHARED = {"sm_75": (65536, 65536), "sm_80": (166912, 167936), "sm_86": (101376, 102400), "sm_89": (101376, 102400),
           "sm_90": (232448, 233472), "sm_100": (232448, 233472), "sm_120": (101376, 102400)}
_THREADS = {"sm_75": 1024, "sm_86": 1536, "sm_89": 1536, "sm_120": 1536}


class Limits(NamedTuple):
    """What the simulated GPU offers: shared memory in bytes, and threads."""

    arch: str
    multiprocessors: int
    static_shared: int
    block_shared: int
    multiprocessor_shared: int
    multiprocessor_threads: int

    def resident_blocks(self, threads: int, shared: int) -> int:
        """How many blocks run at once; registers are not counted, which only a GPU's compiler knows.

        >>> limits()._replace(multiprocessors=4).resident_blocks(1024, 0)
        8
        """
        blocks = min(32, self.multiprocessor_threads // max(threads, 1))
        # the system takes 1 KB of each block's shared memory
        return self.multiprocessors * min(blocks, self.multiprocessor_shared // (shared + 1024))


def limits() -> Limits:
    """The limits of the simulated GPU.

    Raises:
        ValueError: CUFRAME_SIM_ARCH or CUFRAME_SIM_SMS is not understood.
    """
    arch = os.environ.get("CUFRAME_SIM_ARCH", "sm_90").removesuffix("a")
    if arch not in _SHARED:
        raise ValueError(f"CUFRAME_SIM_ARCH must be one of {', '.join(_SHARED)}, got {arch!r}")
    given = os.environ.get("CUFRAME_SIM_SMS", "4")
    if not given.isdigit() or not 1 <= int(given) <= 1024:
        raise ValueError(f"CUFRAME_SIM_SMS must be a number from 1 to 1024, got {given!r}")
    return Limits(arch, int(given), 48 << 10, *_SHARED[arch], _THREADS.get(arch, 2048))


def sanitizer() -> str:
    """The sanitizer in use: address, thread, or nothing."""
    value = os.environ.get("CUFRAME_SIM_SANITIZE", "")
    if value not in ("", "address", "thread"):
        raise ValueError(f"CUFRAME_SIM_SANITIZE must be address or thread, got {value!r}")
    return value


def debug() -> bool:
    """Whether kernels are compiled for a debugger."""
    return os.environ.get("CUFRAME_SIM_DEBUG", "0") not in ("", "0")


def parse_order(text: str) -> tuple[int, int]:
    """The number of an order, and its seed.

    >>> parse_order("random:7"), parse_order("reverse")
    ((2, 7), (1, 0))
    """
    name, colon, seed = text.partition(":")
    if name not in _ORDERS or (colon and (name not in ("random", "ahead") or not seed.isdigit())):
        raise ValueError(f"order must be forward, reverse, random:SEED or ahead:SEED, got {text!r}")
    return _ORDERS.index(name), int(seed or 0) % 2**63


def current_order() -> tuple[int, int]:
    """The order that the next launch uses."""
    global _current
    if _current is None:
        _current = parse_order(os.environ.get("CUFRAME_SIM_ORDER", "forward"))
    return _current


def set_order(text: str) -> None:
    """Set in which order the threads of a block run from now on, in this process.

    Args:
        text: "forward", "reverse", "random:SEED" (threads shuffled) or "ahead:SEED" (warps shuffled, and each goes on
            to the next barrier of the block before the others do).

    Raises:
        ValueError: it is none of these.
    """
    global _current
    _current = parse_order(text)


@contextlib.contextmanager
def order(text: str) -> Iterator[None]:
    """Run the threads of blocks in this order inside the context.

    >>> with order("reverse"):
    ...     current_order()
    (1, 0)
    """
    global _current
    before = current_order()
    _current = parse_order(text)
    try:
        yield
    finally:
        _current = before
