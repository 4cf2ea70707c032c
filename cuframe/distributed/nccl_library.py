"""NCCL's C functions through ctypes, and its errors in words.

Not CuPy's binding: that answers `ncclInProgress` with a KeyError, so communicators cannot be made without blocking, and
a rank that dies meanwhile would leave the others in a call that nothing ends; nor does it know `ncclCommFinalize` and
`ncclGetLastError`. ctypes lets other threads run during a call, and needs no GPU to be tested.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from .._paths import install_command
from .errors import DistributedError

__all__ = ["IN_PROGRESS", "TYPES", "Nccl", "NcclError", "library_path", "load", "version_text"]

IN_PROGRESS = 7
OLDEST = 21400  # the first that makes communicators without blocking
TYPES = {"int8": 0, "uint8": 1, "int32": 2, "uint32": 3, "int64": 4, "uint64": 5, "float16": 6, "float32": 7,
         "float64": 8, "bfloat16": 9}  # fmt: skip

_pointer, _size, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_MAGIC = 0xCAFEBEEF


class _UniqueId(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 128)]


class _Config(ctypes.Structure):
    """`ncclConfig_t` as it was in 2.14; NCCL reads as much of it as `size` and `version` say there is."""

    _fields_ = [("size", _size), ("magic", ctypes.c_uint), ("version", ctypes.c_uint), ("blocking", _int)]


_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "ncclGetVersion": (ctypes.POINTER(_int),),
    "ncclGetUniqueId": (ctypes.POINTER(_UniqueId),),
    "ncclCommInitRankConfig": (ctypes.POINTER(_pointer), _int, _UniqueId, _int, ctypes.POINTER(_Config)),
    "ncclCommGetAsyncError": (_pointer, ctypes.POINTER(_int)),
    "ncclCommFinalize": (_pointer,),
    "ncclCommDestroy": (_pointer,),
    "ncclCommAbort": (_pointer,),
    "ncclGroupStart": (),
    "ncclGroupEnd": (),
    "ncclAllReduce": (_pointer, _pointer, _size, _int, _int, _pointer, _pointer),
    "ncclReduce": (_pointer, _pointer, _size, _int, _int, _int, _pointer, _pointer),
    "ncclBroadcast": (_pointer, _pointer, _size, _int, _int, _pointer, _pointer),
    "ncclAllGather": (_pointer, _pointer, _size, _int, _pointer, _pointer),
    "ncclReduceScatter": (_pointer, _pointer, _size, _int, _int, _pointer, _pointer),
    "ncclSend": (_pointer, _size, _int, _int, _pointer, _pointer),
    "ncclRecv": (_pointer, _size, _int, _int, _pointer, _pointer),
}

_ERRORS = {
    1: ("a CUDA call failed",
        "an earlier kernel may have failed, or the GPU's memory be full: run again with CUDA_LAUNCH_BLOCKING=1"),
    2: ("a call of the operating system failed",
        "NCCL_DEBUG=INFO names it; look at NCCL_SOCKET_IFNAME, `ulimit -l` and the room in /dev/shm"),
    3: ("NCCL found itself in a wrong state", "run with NCCL_DEBUG=INFO, and try another version of NCCL"),
    4: ("NCCL refuses an argument", "run with NCCL_DEBUG=WARN, which names it"),
    5: ("NCCL refuses this use of it",
        "run with NCCL_DEBUG=WARN; two ranks on one GPU need NCCL_MULTI_RANK_GPU_ENABLE=1"),
    6: ("another rank has ended, or the network broke", "that rank's own output tells more"),
    7: ("an operation is still under way", "nothing else may be asked of the communicator until it is over"),
    8: ("NCCL's own deadline passed", "look for the rank that stands still"),
}  # fmt: skip


class NcclError(DistributedError):
    """NCCL reported an error.

    Attributes:
        code: NCCL's number for it.
    """

    def __init__(self, where: str, code: int, detail: str = "") -> None:
        what, advice = _ERRORS.get(code, ("an error that cuframe does not know", "run with NCCL_DEBUG=INFO"))
        told = f" ({detail})" if detail else ""
        super().__init__(f"{where}: NCCL error {code}: {what}{told}; {advice}")
        self.code = code


def version_text(code: int) -> str:
    """`2.28.3` for 22803."""
    return f"{code // 10000}.{code // 100 % 100}.{code % 100}"


def library_path() -> str:
    """Where NCCL is: `CUFRAME_NCCL_LIBRARY`, NVIDIA's pip package, or where the dynamic linker finds it."""
    given = os.environ.get("CUFRAME_NCCL_LIBRARY")
    if given:
        return given
    for entry in sys.path:
        path = Path(entry or ".") / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
        if path.is_file():
            return str(path)
    return "libnccl.so.2"


class Nccl:
    """The library at `path`.

    Raises:
        DistributedError: it cannot be loaded, or is too old.
    """

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise DistributedError(
                f"nccl: {path} cannot be loaded ({error}); NCCL comes with {install_command('cuda12')} (or cuda13)"
            ) from None
        self.path = path
        found = _int()
        self._library.ncclGetVersion(ctypes.byref(found))
        self.version = found.value
        if self.version < OLDEST:
            raise DistributedError(
                f"nccl: version {version_text(OLDEST)} or newer is needed, {path} is {version_text(self.version)}"
            )
        for name, parameters in _FUNCTIONS.items():
            getattr(self._library, name).argtypes = parameters
        self._library.ncclGetLastError.argtypes = (_pointer,)
        self._library.ncclGetLastError.restype = ctypes.c_char_p

    def call(self, where: str, comm: int | None, name: str, *arguments: Any) -> int:
        """Call a function; returns 0, or `IN_PROGRESS`.

        Raises:
            NcclError: it failed; the message begins with `where`.
        """
        code = getattr(self._library, name)(*arguments)
        if code not in (0, IN_PROGRESS):
            raise self.error(where, code, comm)
        return code

    def error(self, where: str, code: int, comm: int | None) -> NcclError:
        """The exception for an error code."""
        text = self._library.ncclGetLastError(comm)
        return NcclError(where, code, text.decode(errors="replace").strip() if text else "")

    def unique_id(self, where: str) -> bytes:
        """What the members of a new communicator must know."""
        made = _UniqueId()
        self.call(where, None, "ncclGetUniqueId", ctypes.byref(made))
        return bytes(made.bytes)

    def begin(self, where: str, size: int, identity: bytes, rank: int) -> int:
        """Begin to make a communicator, and return its handle; it is usable once `state` is 0."""
        config = _Config(ctypes.sizeof(_Config), _MAGIC, OLDEST, 0)
        comm = _pointer()
        self.call(where, None, "ncclCommInitRankConfig", ctypes.byref(comm), size,
                  _UniqueId.from_buffer_copy(identity), rank, ctypes.byref(config))  # fmt: skip
        if comm.value is None:
            raise DistributedError(f"{where}: NCCL made no communicator")
        return comm.value

    def state(self, comm: int) -> int:
        """0, `IN_PROGRESS`, or the error that a communicator ran into."""
        code = _int()
        failed = self._library.ncclCommGetAsyncError(comm, ctypes.byref(code))
        return failed or code.value


@cache
def load(path: str) -> Nccl:
    """The library at `path`, opened once."""
    return Nccl(path)
