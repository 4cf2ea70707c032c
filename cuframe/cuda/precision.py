"""Whether float32 products may be rounded to TF32, which tensor cores multiply."""

from __future__ import annotations

__all__ = ["allow_tf32", "set_allow_tf32"]

_allowed = False


def set_allow_tf32(allowed: bool) -> None:
    """Let kernels multiply float32 numbers rounded to TF32: 10 bits of fraction in the place of 23, sums in float32.

    It is off by default, and then float32 means float32.  Kernels with such a path, on GPUs from sm_80 on: recurrent
    layers whose weights stay on chip, where what is recorded already keeps the way it has begun, and attention with
    heads to 128 wide, whose backward pass asks again.  Products of matrices follow CuPy's own switch, the environment
    variable `CUPY_TF32=1`.

    Raises:
        TypeError: not a bool.

    >>> import cuframe as cf
    >>> cf.cuda.set_allow_tf32(True)
    >>> cf.cuda.allow_tf32()
    True
    >>> cf.cuda.set_allow_tf32(False)
    """
    global _allowed
    if not isinstance(allowed, bool):
        raise TypeError(f"set_allow_tf32: allowed must be a bool, got {type(allowed).__name__}")
    _allowed = allowed


def allow_tf32() -> bool:
    """Whether float32 products may be rounded to TF32: see `set_allow_tf32`.

    >>> import cuframe as cf
    >>> cf.cuda.allow_tf32()
    False
    """
    return _allowed
