"""Objects as bytes without pickle: what JSON knows, and arrays, tensors, tuples and bytes besides."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import as_dtype
from ..tensor import Tensor

__all__ = ["decode", "encode"]


def encode(thing: Any) -> bytes:
    """`thing` as a line of JSON, whose places for arrays refer to the raw bytes behind it.

    Raises:
        TypeError: it holds something else than None, bool, int, float, str, bytes, list, tuple, dict, NumPy arrays
            and Tensors.

    >>> decode(encode({"step": 3, "best": (0.5, None)}))
    {'step': 3, 'best': (0.5, None)}
    """
    blobs: list[bytes] = []
    text = json.dumps(_tagged(thing, blobs), separators=(",", ":")).encode()
    return text + b"\n" + b"".join(blobs)


def _tagged(thing: Any, blobs: list[bytes]) -> Any:
    if thing is None or isinstance(thing, (bool, int, float, str)) and type(thing).__module__ == "builtins":
        return thing
    if isinstance(thing, (list, tuple)):
        return ["list" if isinstance(thing, list) else "tuple", [_tagged(x, blobs) for x in thing]]
    if isinstance(thing, dict):
        return ["dict", [[_tagged(k, blobs), _tagged(v, blobs)] for k, v in thing.items()]]
    if isinstance(thing, bytes):
        blobs.append(thing)
        return ["bytes", len(thing)]
    if isinstance(thing, (np.ndarray, np.generic, Tensor)):
        array = thing.array if isinstance(thing, Tensor) else np.asarray(thing)
        host = np.ascontiguousarray(backend_of(array).to_host(array))
        if host.dtype.hasobject or host.dtype.names:
            raise TypeError(f"broadcast_object: arrays of dtype {host.dtype} cannot be sent")
        blobs.append(host.tobytes())
        kind = "tensor" if isinstance(thing, Tensor) else "array"
        return [kind, host.dtype.name, list(array.shape)]
    raise TypeError(
        "broadcast_object: takes None, bool, int, float, str, bytes, list, tuple, dict, arrays and Tensors, "
        f"got {type(thing).__name__}"
    )


def decode(data: bytes) -> Any:
    """What was encoded; tensors come back on the CPU."""
    text, _, rest = data.partition(b"\n")
    at = 0

    def take(length: int) -> bytes:
        nonlocal at
        at += length
        return rest[at - length : at]

    def plain(item: Any) -> Any:
        if not isinstance(item, list):
            return item
        match item:
            case ["list", values]:
                return [plain(v) for v in values]
            case ["tuple", values]:
                return tuple([plain(v) for v in values])
            case ["dict", pairs]:
                return {plain(k): plain(v) for k, v in pairs}
            case ["bytes", length]:
                return take(length)
            case _:
                kind, name, shape = item
                dtype = as_dtype(name)
                size = int(np.prod(shape, dtype=np.int64))
                array = np.frombuffer(take(size * dtype.itemsize), dtype).reshape(shape).copy()
                return Tensor(array) if kind == "tensor" else array

    return plain(json.loads(text))
