"""What fits a GPU of a recurrent layer whose weights stay on chip: the plan of `kernels/rnn_persistent.cu`.

Arithmetic on numbers alone, so that it can be asked for GPUs that are not here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

__all__ = ["DeviceFacts", "GPUS", "GATES", "MOST_OF_CLUSTER", "Part", "Plan", "persistent_limits", "persistent_plan"]

_KIB = 1024
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
# "tf32" is float32 by tensor cores
_SIZES = {"float64": 8, "float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
_TENSOR = ("tf32", "float16", "bfloat16")
# the first architecture that has tensor cores for it
_LEAST = {"bfloat16": 80, "tf32": 80}
# as kernels/common/resident.cuh has them
_WARPS, _PIECE = 8, 32 * 64
_THREADS = 32 * _WARPS
_STAGE = _WARPS * _PIECE
# static shared memory of the kernels, rounded up
_STATIC = 256
# the first architecture with clusters, and the blocks that each may have on all of them
_CLUSTERS, MOST_OF_CLUSTER = 90, 8


class DeviceFacts(NamedTuple):
    """What a plan asks of a GPU: its architecture, multiprocessors, and bytes of shared memory a block may have."""

    arch: str
    multiprocessors: int
    shared: int


GPUS = {
    "T4": DeviceFacts("sm_75", 40, 64 * _KIB),
    "A100": DeviceFacts("sm_80", 108, 163 * _KIB),
    "A10": DeviceFacts("sm_86", 72, 99 * _KIB),
    "RTX 3090": DeviceFacts("sm_86", 82, 99 * _KIB),
    "L4": DeviceFacts("sm_89", 58, 99 * _KIB),
    "L40S": DeviceFacts("sm_89", 142, 99 * _KIB),
    "RTX 4090": DeviceFacts("sm_89", 128, 99 * _KIB),
    "H100": DeviceFacts("sm_90", 132, 227 * _KIB),
    "H200": DeviceFacts("sm_90", 132, 227 * _KIB),
    "B200": DeviceFacts("sm_100", 148, 227 * _KIB),
    "RTX 5090": DeviceFacts("sm_120", 170, 99 * _KIB),
}


class Part(NamedTuple):
    """The launch of one pass: warps that divide the columns, sequences at a time, bytes of dynamic shared memory."""

    split: int
    tile: int
    shared: int


class Plan(NamedTuple):
    """How a layer is laid out: blocks of `units` hidden units each in every direction, forward and backward."""

    blocks: int
    units: int
    forward: Part
    backward: Part
    directions: int = 1
    tf32: bool = False
    exchange: str = "barrier"


@lru_cache(1024)
def persistent_plan(facts: DeviceFacts, cell: str, dtype: str, hidden: int, batch: int, units: int = 8,
                    directions: int = 1, tile: int = 0, cluster: bool = False) -> Plan | None:
    """How the layer is laid out on such a GPU, or None where it does not fit.

    Args:
        facts: of the GPU; cell: "lstm", "gru", "rnn_tanh" or "rnn_relu"; hidden, batch: sizes.
        dtype: "float32", ..., or "tf32".
        units: hidden units that a block is to have; more, or fewer, where the layer fits no other way.
        directions: 2 for both of a layer in one launch.
        tile: sequences at a time, at most; 0 for as many as fit.
        cluster: the blocks of a direction are one cluster.
    """
    arch, blocks = int(facts.arch[3:].rstrip("a")), facts.multiprocessors // directions
    if hidden < 1 or batch < 1 or arch < max(_LEAST.get(dtype, 0), _CLUSTERS if cluster else 0):
        return None
    # one block a multiprocessor
    fewest = -(-hidden // max(min(blocks, MOST_OF_CLUSTER) if cluster else blocks, 1))
    for chosen in dict.fromkeys((max(fewest, min(units, hidden)), max(fewest, min(8, hidden)), fewest)):
        if chosen > _THREADS or facts.multiprocessors < directions:
            continue
        gates = GATES[cell]
        # a thread has a unit, and of the sequences at a time one
        most = min(tile or batch, batch, 8 if dtype in _TENSOR else 4, _THREADS // chosen)
        # a cluster's box has room for all sequences, each row of units in whole 16 bytes
        wide = 16 // _SIZES[dtype]
        boxed = batch * -(-chosen // wide) * wide if cluster else 0
        forward = _part(facts.shared, dtype, gates * chosen, hidden, chosen, most, boxed)
        backward = _part(facts.shared, dtype, chosen, gates * hidden, gates * chosen, most, gates * boxed)
        if forward and backward:
            return Plan(-(-hidden // chosen), chosen, forward, backward, directions, dtype == "tf32",
                        "cluster" if cluster else "barrier")
    return None


def _part(limit: int, dtype: str, rows: int, columns: int, sent: int, most: int, boxed: int) -> Part | None:
    """The launch for weights [rows, columns] a block; it hands on `sent` numbers a sequence, of `most` at a time.

    `boxed` are the numbers of a box for all sequences, 0 where it has room for those `most`.
    """
    size, tensor = _SIZES[dtype], dtype in _TENSOR
    height, width, held, together = (16, 128 // size, 8, 8) if tensor else (4, 512 // size, 6, 4)
    groups, chunks = -(-rows // height), -(-columns // width)
    # the fewest pieces a warp; of equals, the fewest sums to add
    pieces, split = min((-(-groups // (_WARPS // k)) * -(-chunks // k), k) for k in (1, 2, 4, 8))
    weights = _WARPS * (pieces - min(held, -(-chunks // split))) * _PIECE
    vector = chunks * width + (8 if tensor else 0)
    sums = split * together * groups * height * max(size, 4)
    for tile in range(most, 0, -1):
        shared = weights + max(_up(tile * vector * size) + _up(sums) + _up(2 * (boxed or tile * sent) * size), _STAGE)
        if shared + _STATIC <= limit:
            return Part(split, tile, shared)
    return None


def _up(count: int) -> int:
    return -(-count // 16) * 16


def persistent_limits(device: str, cell: str, dtype: str = "float32", directions: int = 1) -> int:
    """The hidden size up to which recurrent weights stay on chip for a whole sequence; 0 where none does.

    Some larger ones fit, too; the others run step by step, with the same results.

    Args:
        device: a GPU's name ("H200", "A100", "RTX 4090"), or a device that is here ("cuda:0", "sim").
        cell: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        dtype: "float32", "float64", "float16" or "bfloat16"; "tf32" for float32 with `set_allow_tf32(True)`.
        directions: 2 for both directions of a layer in one launch; where they do not fit, each has a launch of its own.

    Raises:
        ValueError: a name that is none of these, or another number of directions.

    >>> import cuframe as cf
    >>> cf.cuda.persistent_limits("H200", "lstm", "float16") > cf.cuda.persistent_limits("A100", "lstm", "float16")
    True
    """
    for name, value, known in (("cell", cell, GATES), ("dtype", dtype, _SIZES)):
        if value not in known:
            raise ValueError(f"persistent_limits: {name} must be one of {', '.join(known)}, got {value!r}")
    if directions not in (1, 2):
        raise ValueError(f"persistent_limits: directions must be 1 or 2, got {directions!r}")
    return _limit(_facts(device), cell, dtype, directions)


@lru_cache(256)
def _limit(facts: DeviceFacts, cell: str, dtype: str, directions: int) -> int:
    hidden = 0
    while persistent_plan.__wrapped__(facts, cell, dtype, hidden + 1, 1, 8, directions):
        hidden += 1
    return hidden


def _facts(device: str) -> DeviceFacts:
    if device in GPUS:
        return GPUS[device]
    from cuframe.backend import Device, backend_for
    from cuframe.cuda.launch import device_facts

    try:
        where = Device(device)
    except ValueError:
        raise ValueError(f"persistent_limits: device must be 'cuda', 'sim' or one of {', '.join(GPUS)}, "
                         f"got {device!r}") from None
    return DeviceFacts(*device_facts(backend_for(device).array_type, where.index or 0))
