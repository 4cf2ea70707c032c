"""What both checkpoint formats share: their error, the way to and from Tensors, and atomic writing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Path = str | os.PathLike[str]


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message names the file or key and what is wrong with it.

    >>> import cuframe as cf
    >>> try:
    ...     cf.save({"step": {1, 2}}, "job.safetensors")
    ... except cf.CheckpointError as error:
    ...     print(error)
    save: ['step'] is of type set; a checkpoint holds Tensors, NumPy arrays, dict, ...
    """


def array_of(tensor: Any) -> Array:
    """The values of a Tensor on the host."""
    return tensor.numpy(force=True)


def tensor_of(array: Array, device: Any) -> Any:
    """A Tensor on the array's memory, or a copy of it on ``device``."""
    from cuframe.ops.create import from_numpy

    tensor: Any = from_numpy(array)
    return tensor if device is None else tensor.to(device)


def check_path(op: str, path: Path) -> str:
    """The path as a string."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{op}: path must be a str or os.PathLike, got {type(path).__name__}")
    return os.fspath(path)


def open_checkpoint(op: str, path: Path) -> IO[bytes]:
    """Opens a file for reading, with errors that say which operation wanted it."""
    name = check_path(op, path)
    try:
        return open(name, "rb")
    except OSError as e:
        raise OSError(e.errno, f"{op}: cannot open: {e.strerror}", name) from None


def write_atomically(op: str, path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Calls ``write(file)`` on a temporary beside ``path`` and puts it in place once it is on the disk.

    At every moment ``path`` holds the old content or the new, whatever fails.  A symbolic link is followed:
    its target is replaced and the link stays.  The new file's permissions are those of any new file (0o666
    less the umask).

    Raises:
        OSError: with the cause's errno (disk full, no permission, ...); ``path`` and its folder are as
        before.
    """
    name = check_path(op, path)
    target = os.path.realpath(name)
    if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
        kind = "a folder" if os.path.isdir(target) else "not a regular file"
        raise OSError(errno.EISDIR if kind == "a folder" else errno.EINVAL, f"{op}: the path is {kind}", name)
    folder, base = os.path.split(target)
    temporary = os.path.join(folder, f".{base[:100]}.{os.urandom(6).hex()}.tmp")
    try:
        # os.open and not tempfile, which would leave the file readable by its owner only
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(fd, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as e:
        raise OSError(e.errno, f"{op}: cannot write, nothing was changed: {e.strerror}", name) from e
    if os.name == "posix":
        # the rename itself must survive a power cut
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def as_bytes(array: Array) -> memoryview:
    """The elements in C order and little-endian, without a copy where they already are."""
    plain = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return plain.reshape(-1).view(np.uint8).data
