"""Checkpoints as safetensors files: a tree of dicts, lists and tuples whose arrays are the file's tensors.

Note [What a checkpoint file holds]
Arrays are tensors named by their path (``model.lstm.weight_ih_l0``), so that any safetensors reader sees
them.  The tree is JSON in the metadata entry ``cuframe.tree``: a JSON list is a list, a JSON scalar itself,
and an object with one key is one of

=========================  ==============================================================
``{"dict": {key: node}}``   a dict whose keys are all str
``{"items": [[k, node]]}``  a dict with other keys too (int, float, bool, None, tuples of these)
``{"tuple": [node]}``       a tuple
``{"tensor": name}``        a Tensor
``{"array": name}``         a NumPy array
``{"float": "nan"}``        a float that JSON lacks: nan, inf, -inf
``{"bytes": base64}``       bytes
=========================  ==============================================================

The file is written here and not by the safetensors package because that one stores a HashMap in whatever
order it iterates (we want the same bytes for the same tree), takes no open file (we need its fsync and
errno), and does not look at strides.  Reading, where a hostile file must be met, is the package's.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import reprlib
from collections.abc import Mapping
from typing import IO, Any, NoReturn

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from .files import (
    Array,
    CheckpointError,
    Path,
    array_of,
    as_bytes,
    open_checkpoint,
    tensor_of,
    write_atomically,
)

__all__ = ["load", "read_metadata", "save"]

_DTYPES = {
    np.dtype(kind): name
    for kind, name in {
        np.bool_: "BOOL", np.uint8: "U8", np.int8: "I8", np.uint16: "U16", np.int16: "I16", np.uint32: "U32",
        np.int32: "I32", np.uint64: "U64", np.int64: "I64", np.float16: "F16", ml_dtypes.bfloat16: "BF16",
        np.float32: "F32", np.float64: "F64", np.complex64: "C64",
    }.items()
}  # fmt: skip
_READABLE = frozenset(_DTYPES.values())
_FORMAT, _TREE = "cuframe.format", "cuframe.tree"
_MAX_DEPTH, _MAX_KEY_DEPTH = 100, 10
_MAX_HEADER = 100_000_000  # the safetensors package reads no larger header
_MAX_INT_BITS = 10_000  # Python reads back decimal integers of at most 4300 digits


def _is_tensor(obj: Any) -> bool:
    from cuframe.tensor import Tensor

    return isinstance(obj, Tensor)


def _memory(array: Any) -> Any:
    """What two arrays have in common exactly when they are the same elements of the same memory."""
    if array.size == 0:
        return id(array)
    view = getattr(array, "__array_interface__", None) or array.__cuda_array_interface__
    return view["data"][0], array.shape, array.strides, array.dtype


class _Encoder:
    """Turns a tree into JSON, and collects its arrays under the names they get in the file."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self.names: dict[Any, str] = {}  # memory -> name
        self.open: set[int] = set()  # containers on the way from the root

    def refuse(self, where: str, why: str) -> NoReturn:
        raise CheckpointError(f"save: {where or 'the object'} {why}")

    def node(self, obj: Any, path: tuple[str, ...], where: str) -> Any:
        if obj is None or isinstance(obj, (bool, str, int, float, bytes, np.generic)):
            return self.scalar(obj, where)
        if isinstance(obj, (dict, list, tuple)):
            if id(obj) in self.open:
                self.refuse(where, f"is a {type(obj).__name__} that contains itself")
            if len(path) >= _MAX_DEPTH:
                self.refuse(where, f"is nested deeper than {_MAX_DEPTH} levels")
            self.open.add(id(obj))
            node = (
                self.mapping(obj, path, where) if isinstance(obj, dict) else self.sequence(obj, path, where)
            )
            self.open.remove(id(obj))
            return node
        if isinstance(obj, np.ndarray) and not isinstance(obj, np.ma.MaskedArray):
            return {"array": self.name(obj, obj, path, where)}
        if _is_tensor(obj):
            return {"tensor": self.name(obj, obj.array, path, where)}
        kind = f"{type(obj).__module__}.{type(obj).__qualname__}".removeprefix("builtins.")
        return self.refuse(
            where,
            f"is of type {kind}; a checkpoint holds Tensors, NumPy arrays, dict, list, tuple, "
            "str, int, float, bool, None and bytes",
        )

    def scalar(self, obj: Any, where: str) -> Any:
        if isinstance(obj, np.generic) and not isinstance(obj, (str, bytes)):
            if obj.dtype not in _DTYPES or obj.dtype.kind == "c":
                self.refuse(where, f"is a NumPy scalar of dtype {obj.dtype}, which has no Python number")
            obj = obj.item() if obj.dtype.kind in "biu" else float(obj)
        if obj is None or isinstance(obj, bool):
            return obj
        if isinstance(obj, str):
            return str(obj)
        if isinstance(obj, bytes):
            return {"bytes": base64.b64encode(obj).decode()}
        if isinstance(obj, int):
            if obj.bit_length() > _MAX_INT_BITS:
                self.refuse(
                    where, f"is an int of {obj.bit_length()} bits; at most {_MAX_INT_BITS} are supported"
                )
            return int(obj)
        return float(obj) if math.isfinite(obj) else {"float": repr(float(obj))}

    def key(self, obj: Any, where: str, depth: int = 0) -> Any:
        if isinstance(obj, tuple):
            if depth == _MAX_KEY_DEPTH:
                self.refuse(where, f"has a key of tuples nested deeper than {_MAX_KEY_DEPTH} levels")
            return {"tuple": [self.key(k, where, depth + 1) for k in obj]}
        if obj is None or isinstance(obj, (bool, str, int, float, np.generic)):
            return self.scalar(obj, f"a key of {where or 'the object'}")
        return self.refuse(
            where,
            f"has a key of type {type(obj).__name__}; keys are str, int, float, bool, None or "
            "tuples of these",
        )

    def mapping(self, obj: dict[Any, Any], path: tuple[str, ...], where: str) -> Any:
        items = [
            (self.key(k, where), self.node(v, (*path, str(k)), f"{where}[{k!r}]")) for k, v in obj.items()
        ]
        if all(isinstance(k, str) for k, _ in items):
            return {"dict": dict(items)}
        return {"items": [list(item) for item in items]}

    def sequence(self, obj: Any, path: tuple[str, ...], where: str) -> Any:
        nodes = [self.node(v, (*path, str(i)), f"{where}[{i}]") for i, v in enumerate(obj)]
        return {"tuple": nodes} if isinstance(obj, tuple) else nodes

    def name(self, obj: Any, array: Any, path: tuple[str, ...], where: str) -> str:
        """The name the array is stored under: its path, made unique, or the name its memory already has."""
        if array.dtype.newbyteorder("=") not in _DTYPES:
            self.refuse(where, f"has dtype {array.dtype}, which safetensors does not hold")
        key = _memory(array)
        if key not in self.names:
            base = ".".join(path).encode("utf-8", "backslashreplace").decode() or "tensor"
            name, k = base, 2
            while name in self.arrays or name == "__metadata__":
                name, k = f"{base}~{k}", k + 1
            self.names[key] = name
            self.arrays[name] = array if obj is array else array_of(obj)
        return self.names[key]


def save(obj: Any, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Saves a tree of Tensors, arrays and plain values as one safetensors file, atomically.

    Dicts (with any str, int, float, bool, None or tuple keys), lists, tuples, str, int, float (nan and inf
    too), bool, None, bytes, Tensors and NumPy arrays come back from `load` as they were; subclasses as their
    base, NumPy scalars as Python numbers, Tensors without their graph.  Arrays on the same memory are stored
    once and are one object after loading.  A flat dict of arrays is also what ``safetensors.numpy.load_file``
    reads: the same names (a shared array under the first).

    The file is written beside ``path``, synced to the disk and renamed: whatever fails, the old file
    survives.  The same tree gives the same bytes.

    Args:
        obj: the tree.
        path: file to write; a symbolic link is followed.
        metadata: text to store with it, read by `read_metadata`; keys must not start with ``cuframe.``.

    Raises:
        CheckpointError: something that a checkpoint does not hold; the message names where in the tree and
        its type. OSError: the file cannot be written (disk full, no such folder, ...).

    Example:
        >>> import tempfile, os, numpy as np
        >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
        >>> save({"step": 3, "w": np.ones(2), 0: (None, [1.5])}, path)
        >>> load(path)
        {'step': 3, 'w': array([1., 1.]), 0: (None, [1.5])}
    """
    texts = dict(metadata or {})
    for key, value in texts.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"save: metadata must map str to str, got {key!r}: {type(value).__name__}")
        if key.startswith("cuframe."):
            raise ValueError(f"save: metadata keys must not start with 'cuframe.', got {key!r}")
    encoder = _Encoder()
    tree = encoder.node(obj, (), "")
    texts |= {_FORMAT: "1", _TREE: json.dumps(tree, allow_nan=False, separators=(",", ":"))}
    header: dict[str, Any] = {"__metadata__": dict(sorted(texts.items()))}
    # wide elements first, so that every tensor is aligned to its element
    arrays = sorted(encoder.arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    start = 0
    for name, array in arrays:
        kind = _DTYPES[array.dtype.newbyteorder("=")]
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    if len(head) > _MAX_HEADER:
        raise CheckpointError(
            f"save: the tree takes {len(head)} bytes beside its arrays, safetensors holds {_MAX_HEADER}"
        )

    def write(file: IO[bytes]) -> None:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for _, array in arrays:
            file.write(as_bytes(array))

    write_atomically("save", path, write)


def _sniff(path: Path) -> None:
    """Raises where the file cannot be safetensors, saying what it seems to be."""
    with open_checkpoint("load", path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(16)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        raise CheckpointError(
            f"load: {path} is a zip archive, as torch.save writes; cf.load_torch reads those"
        )
    if start[:1] == b"\x80" and start[8:9] != b"{":
        raise CheckpointError(f"load: {path} is a pickle, not a safetensors file; cuframe reads no pickles")
    if size < 8:
        raise CheckpointError(f"load: {path} is {size} bytes long, too short for a safetensors file")
    length = int.from_bytes(start[:8], "little")
    if length > min(size - 8, _MAX_HEADER):
        raise CheckpointError(
            f"load: {path} is truncated or not a safetensors file: "
            f"it begins with a header length of {length}, {size - 8} bytes follow"
        )


class _Decoder:
    """Rebuilds the tree, reading each tensor when it is first met."""

    def __init__(self, path: Path, handle: Any, device: Any) -> None:
        self.path, self.handle, self.device = path, handle, device
        self.names = set(handle.keys())
        self.arrays: dict[str, Array] = {}
        self.tensors: dict[str, Any] = {}

    def refuse(self, why: str) -> NoReturn:
        raise CheckpointError(f"load: {self.path}: {why}")

    def array(self, name: Any) -> Array:
        if name not in self.arrays:
            if not isinstance(name, str) or name not in self.names:
                self.refuse(f"the tree names a tensor {name!r} that the file does not have")
            kind = self.handle.get_slice(name).get_dtype()
            if kind not in _READABLE:
                self.refuse(f"tensor {name!r} has dtype {kind}, which cuframe does not have")
            array = self.handle.get_tensor(name)
            if kind == "BOOL" and (array.view(np.uint8) > 1).any():
                self.refuse(f"tensor {name!r} is bool and holds bytes other than 0 and 1")
            self.arrays[name] = array
        return self.arrays[name]

    def tensor(self, name: Any) -> Any:
        if name not in self.tensors:
            self.tensors[name] = tensor_of(self.array(name), self.device)
        return self.tensors[name]

    def node(self, node: Any, depth: int = 0) -> Any:
        if node is None or isinstance(node, (bool, str, int, float)):
            return node
        if depth > _MAX_DEPTH:
            self.refuse(f"the tree is nested deeper than {_MAX_DEPTH} levels")
        if isinstance(node, list):
            return [self.node(v, depth + 1) for v in node]
        (kind, value), *more = node.items() or [(None, None)]
        if not more:
            if kind == "dict" and isinstance(value, dict):
                return {k: self.node(v, depth + 1) for k, v in value.items()}
            if (
                kind == "items"
                and isinstance(value, list)
                and all(isinstance(v, list) and len(v) == 2 for v in value)
            ):
                return {self.key(k): self.node(v, depth + 1) for k, v in value}
            if kind == "tuple" and isinstance(value, list):
                return tuple(self.node(v, depth + 1) for v in value)
            if isinstance(value, str):
                if kind == "tensor":
                    return self.tensor(value)
                if kind == "array":
                    return self.array(value)
                if kind == "float" and value in ("nan", "inf", "-inf"):
                    return float(value)
                if kind == "bytes":
                    try:
                        return base64.b64decode(value, validate=True)
                    except binascii.Error as e:
                        self.refuse(f"the tree holds bytes that are not base64: {e}")
        return self.refuse(f"the tree holds a node that is none of ours: {reprlib.repr(node)}")

    def key(self, node: Any, depth: int = 0) -> Any:
        if (
            isinstance(node, dict)
            and list(node) == ["tuple"]
            and isinstance(node["tuple"], list)
            and depth < _MAX_KEY_DEPTH
        ):
            return tuple(self.key(k, depth + 1) for k in node["tuple"])
        if isinstance(node, list) or (isinstance(node, dict) and list(node) != ["float"]):
            self.refuse(f"the tree holds a dict key that is none of ours: {reprlib.repr(node)}")
        return self.node(node)


def _open(path: Path) -> Any:
    _sniff(path)
    try:
        # not mmap: mapped pages count against our memory, and a file that shrinks under us gives SIGBUS
        return safe_open(path, framework="numpy", backend="pread")
    except SafetensorError as e:
        raise CheckpointError(f"load: {path} is damaged or not a safetensors file: {e}") from e


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"load: {path}: the metadata entry {_TREE!r} is not usable JSON: {e}") from e


def load(path: Path, device: Any = None) -> Any:
    """Loads what `save` wrote; nothing in a file can run code.

    Each array is read straight into its own memory: at no time are there two copies.  A safetensors file from
    elsewhere loads as a flat dict of Tensors.

    Args:
        path: file to read.
        device: where Tensors go; by default the CPU.  What was saved as a NumPy array comes back as one.

    Returns:
        the tree, with the types it was saved with.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is truncated, damaged or of another kind.

    Example:
        >>> load("nowhere.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] load: cannot open: No such file or directory: 'nowhere.safetensors'
    """
    with _open(path) as handle:
        texts = handle.metadata() or {}
        decoder = _Decoder(path, handle, device)
        try:
            if _FORMAT not in texts:
                return {name: decoder.tensor(name) for name in handle.keys()}
            if texts[_FORMAT] != "1" or _TREE not in texts:
                decoder.refuse(f"format {texts[_FORMAT]!r} is not one this version reads (1)")
            return decoder.node(_parse(path, texts[_TREE]))
        except (SafetensorError, OSError) as e:
            raise CheckpointError(f"load: {path} cannot be read to its end: {e}") from e


def read_metadata(path: Path) -> dict[str, str]:
    """The ``metadata`` given to `save`, or that of any safetensors file, without reading a tensor.

    Raises:
        FileNotFoundError, CheckpointError: as `load`.
    """
    with _open(path) as handle:
        return {k: v for k, v in sorted((handle.metadata() or {}).items()) if k not in (_FORMAT, _TREE)}
