"""Creation, and the copies and questions of `convert`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import cuframe as cf

from .core import ALL, FLOATS, ErrorInput, Make, OpInfo, Sample

SIZES = ((2, 3), (0,), (1, 2, 0))


def filled(make: Make) -> Iterable[Sample]:
    for size in SIZES:
        yield Sample((size,), {"dtype": make.dtype})
    yield Sample((2, 3), {"dtype": make.dtype})
    yield Sample((), {"dtype": make.dtype})
    yield Sample(([2],), {"dtype": make.dtype, "device": "cpu"})


def filled_ref(value: int) -> Any:
    def reference(*size: Any, dtype: Any, device: Any = None) -> Any:
        size = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        return np.full(size, value, dtype)

    return reference


def size_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((-1,), {}, RuntimeError, r"sizes must not be negative, got \(-1,\)")
    yield ErrorInput((2.0,), {}, TypeError, "sizes must be ints")
    yield ErrorInput((2,), {"dtype": "int64", "requires_grad": True}, RuntimeError, "floating point or complex")
    yield ErrorInput((2,), {"dtype": "nonsense"}, TypeError, "'nonsense' is not a dtype")
    yield ErrorInput((2,), {"device": "abacus"}, ValueError, "unknown type 'abacus'")


def full(make: Make) -> Iterable[Sample]:
    for size in SIZES:
        yield Sample((size, 1), {"dtype": make.dtype})
    if make.dtype == np.float32:
        yield Sample(((2,), 2.5))
        yield Sample(((2,), 2))
        yield Sample(((2,), True))
        yield Sample(((), cf.tensor(2.5)))


def full_ref(size: Any, value: Any, dtype: Any = None) -> Any:
    kind = np.float32 if isinstance(value, (float, np.ndarray)) else None
    return np.full(size, value, dtype or kind)


def full_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(((2,), "a"), {}, TypeError, "full: expected a number, got str")
    yield ErrorInput(((-2,), 1), {}, RuntimeError, "must not be negative")


def like(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    yield Sample((make(2),), {"dtype": np.dtype(np.float64)})


def like_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(((2, 3),), {}, TypeError, "input must be a Tensor, got tuple")


def full_like(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 1))


def arange(make: Make) -> Iterable[Sample]:
    kind = {"dtype": make.dtype}
    yield Sample((5,), kind)
    yield Sample((1, 9, 3), kind)
    yield Sample((5, 1, -2), kind)
    yield Sample((3, 3), kind)
    if make.dtype == np.float32:
        yield Sample((5,))
        yield Sample((0.5, 3))
        yield Sample((0, 1, 0.25))


def arange_ref(*args: Any, dtype: Any = None) -> Any:
    if dtype is None and any(isinstance(a, float) for a in args):
        dtype = np.float32
    return np.arange(*args).astype(dtype) if dtype is not None else np.arange(*args)


def arange_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((0, 5, 0), {}, RuntimeError, "step must not be zero")
    yield ErrorInput((0, 5, -1), {}, RuntimeError, "step -1 leads away from end 5, starting at 0")


def linspace(make: Make) -> Iterable[Sample]:
    kind = {"dtype": make.dtype}
    yield Sample((0, 1, 5), kind)
    yield Sample((-2.5, 3, 1), kind)
    yield Sample((3, -3, 0), kind)


def linspace_ref(start: Any, end: Any, steps: int, dtype: Any = None) -> Any:
    return np.linspace(start, end, steps).astype(dtype)


def steps_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((0, 1, -1), {}, RuntimeError, "steps must not be negative, got -1")


def eye(make: Make) -> Iterable[Sample]:
    yield Sample((3,), {"dtype": make.dtype})
    yield Sample((2, 3), {"dtype": make.dtype})
    yield Sample((0, 2), {"dtype": make.dtype})


def eye_ref(n: int, m: int | None = None, dtype: Any = None) -> Any:
    return np.eye(n, m).astype(dtype)


def triangle(make: Make) -> Iterable[Sample]:
    for offset in (-1, 0, 2):
        yield Sample((3, 4, offset))
    yield Sample((3, 4), {"dtype": np.dtype(np.int32)})
    yield Sample((0, 2))


def triangle_ref(indices: Any) -> Any:
    return lambda row, col, offset=0, dtype=np.int64: np.stack(indices(row, offset, col)).astype(dtype)


def tensor(make: Make) -> Iterable[Sample]:
    yield Sample(([[1, 2], [3, 4]],), {"dtype": make.dtype})
    yield Sample(((1, 0),), {"dtype": make.dtype})
    yield Sample((make(2, 3),))
    yield Sample((np.ones((2, 3), make.dtype),))
    yield Sample((1,), {"dtype": make.dtype})


def tensor_ref(data: Any, dtype: Any = None) -> Any:
    return np.array(data, dtype)


def tensor_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([[1, 2], [3]],), {}, ValueError, "data must be a rectangular nest of numbers")
    yield ErrorInput(("text",), {}, TypeError, "data must be numbers, got str")
    yield ErrorInput(([None],), {}, TypeError, "data must be numbers, got list with NoneType")


def arrays(make: Make) -> Iterable[Sample]:
    yield Sample((np.arange(6).reshape(2, 3).astype(make.dtype),))
    yield Sample((np.ones((), make.dtype),))


def from_numpy_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([1],), {}, TypeError, "expected a numpy.ndarray, got list")
    yield ErrorInput((np.array(["a"]),), {}, TypeError, "have no tensor counterpart")


def from_dlpack_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([1],), {}, TypeError, "expected an object with __dlpack__, got list")


def scalar_tensor(make: Make) -> Iterable[Sample]:
    yield Sample((1,), {"dtype": make.dtype})


def one(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    yield Sample((make(),))


def anything(make: Make) -> Iterable[Sample]:
    yield Sample((make(2),))
    yield Sample((1.0,))


def info(name: str, samples: Any, reference: Any, errors: Any, **options: Any) -> OpInfo:
    options = {"dtypes": ALL, "gradient": False, "zero_size": False} | options
    return OpInfo(name, samples=samples, reference=reference, errors=errors, **options)


NUMBERS = tuple(d for d in ALL if d != "bool")
EXACT = tuple(d for d in NUMBERS if d not in ("bfloat16", "float16"))

OPS = [
    info("zeros", filled, filled_ref(0), size_errors),
    info("ones", filled, filled_ref(1), size_errors),
    info("empty", filled, None, size_errors),
    info("full", full, full_ref, full_errors),
    info("zeros_like", like, np.zeros_like, like_errors),
    info("ones_like", like, np.ones_like, like_errors),
    info("empty_like", like, None, like_errors, method=False),
    info("full_like", full_like, np.full_like, None),
    info("scalar_tensor", scalar_tensor, lambda v, dtype: np.asarray(v, dtype), None),
    info("arange", arange, arange_ref, arange_errors, dtypes=EXACT),
    info("linspace", linspace, linspace_ref, steps_errors, dtypes=FLOATS),
    info("logspace", linspace, lambda a, b, n, dtype: np.logspace(a, b, n).astype(dtype), steps_errors, dtypes=FLOATS),
    info("eye", eye, eye_ref, None),
    info("tril_indices", triangle, triangle_ref(np.tril_indices), None, dtypes=("float32",)),
    info("triu_indices", triangle, triangle_ref(np.triu_indices), None, dtypes=("float32",)),
    info("tensor", tensor, tensor_ref, tensor_errors),
    info("as_tensor", tensor, tensor_ref, None),
    info("from_numpy", arrays, lambda a: a, from_numpy_errors),
    info("from_dlpack", arrays, lambda a: a, from_dlpack_errors, dtypes=EXACT),
    info("clone", one, np.copy, None, gradient=True, zero_size=True),
    info("numel", one, np.size, None),
    info("is_floating_point", one, lambda x: x.dtype.kind == "f", None, dtypes=("float32", "float64", "int64")),
    info("is_tensor", anything, lambda x: isinstance(x, np.ndarray), None, dtypes=("float32",)),
]
