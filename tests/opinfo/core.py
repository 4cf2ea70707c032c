"""One entry per operation; `tests/test_ops.py` derives every check from it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import cuframe as cf
from cuframe.dtypes import as_dtype, is_floating
from cuframe.ops.methods import INPLACE

FLOATS = ("float32", "float64")
HALVES = ("bfloat16", "float16")
INTS = ("uint8", "int8", "int16", "int32", "int64")
ALL = (*FLOATS, *HALVES, *INTS, "bool")

# (rtol, atol); those of torch.testing.assert_close.
TOLERANCES = {
    "float64": (1e-7, 1e-7),
    "float32": (1.3e-6, 1e-5),
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
}


@dataclass
class Sample:
    """One call: `op(*args, **kwargs)`. Tensors may stand inside lists, tuples and dicts."""

    args: tuple = ()
    kwargs: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.args, (tuple, list)):
            raise TypeError(f"Sample: args must be a tuple, got {type(self.args).__name__}")
        self.args = tuple(self.args)

    def tensors(self) -> list[cf.Tensor]:
        """All tensors of the call, in order."""
        found: list[cf.Tensor] = []
        tree_map(lambda t: found.append(t), (self.args, self.kwargs))
        return found

    def map(self, change: Callable[[cf.Tensor], Any]) -> Sample:
        """The same call with every tensor replaced."""
        return Sample(tree_map(change, self.args), tree_map(change, self.kwargs))

    def __repr__(self) -> str:
        args, kwargs = tree_map(_describe, (self.args, self.kwargs))
        words = [str(a) for a in args] + [f"{k}={v}" for k, v in kwargs.items()]
        return "(" + ", ".join(words) + ")"


@dataclass
class ErrorInput:
    """A call that must raise `exception` with a message that `match` (a regular expression) is found in."""

    args: tuple
    kwargs: dict
    exception: type[Exception]
    match: str


@dataclass
class OpInfo:
    """What the tests need to know of one operation.

    Args:
        name: where it stands under `cuframe`, e.g. `"exp"` or `"nn.functional.gelu"`.
        op: the function, by default the one of that name.
        samples: `samples(make)` yields Samples; `make(*shape, low=-2, high=2, dtype=None,
            requires_grad=True)` gives a tensor of the dtype under test with values in [low, high), the same
            in every run.
        reference: NumPy's way to the expected result, called with arrays; None where the values are random.
        dtypes: names of the dtypes to test. bfloat16 and float16 are compared with the reference in float32.
        gradient: the gradients are checked against finite differences.
        double_gradient: and theirs.
        tolerances: `{dtype: (rtol, atol)}` where the defaults cannot be met, with a comment why.
        errors: `errors(make)` yields ErrorInputs.
        method: it is a method as well; by default if Tensor has one of this name.
        inplace: and has an in-place method; by default if it is in `methods.INPLACE`.
        broadcasts: operands of different shapes are broadcast; by default for what `define.binary` made.
        zero_size: where input and output have one shape, an empty tensor goes through.
        variant: tells entries of one name apart.
    """

    name: str
    op: Callable | None = None
    samples: Callable[[Make], Iterable[Sample]] | None = None
    reference: Callable | None = None
    dtypes: tuple[str, ...] = FLOATS
    gradient: bool = True
    double_gradient: bool = True
    tolerances: dict[str, tuple[float, float]] = field(default_factory=dict)
    errors: Callable[[Make], Iterable[ErrorInput]] | None = None
    method: bool | None = None
    inplace: bool | None = None
    broadcasts: bool | None = None
    zero_size: bool = True
    variant: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}.{self.variant}" if self.variant else self.name

    @property
    def function(self) -> Callable:
        if self.op is not None:
            return self.op
        place: Any = cf
        for part in self.name.split("."):
            place = getattr(place, part)
        return place

    def is_method(self) -> bool:
        if self.method is None:
            return self.op is None and "." not in self.name and callable(getattr(cf.Tensor, self.name, None))
        return self.method

    def is_inplace(self) -> bool:
        if self.inplace is None:
            return self.op is None and self.name in INPLACE
        return self.inplace

    def is_broadcasting(self) -> bool:
        if self.broadcasts is None:
            code = getattr(self.function, "__code__", None)
            return code is not None and code is getattr(cf.mul, "__code__", None)
        return self.broadcasts

    def make(self, dtype: str, requires_grad: bool = True) -> Make:
        return Make(self.id, dtype, requires_grad)

    def each(self, dtype: str, requires_grad: bool = True) -> Iterator[Sample]:
        """The samples in one dtype."""
        if self.samples is None:
            raise TypeError(f"the entry of {self.id} has no samples")
        count = 0
        for sample in self.samples(self.make(dtype, requires_grad)):
            count += 1
            yield sample
        if not count:
            raise AssertionError(f"the entry of {self.id} gave no sample in {dtype}")

    def tolerance(self, dtype: str) -> tuple[float, float]:
        return self.tolerances.get(dtype) or TOLERANCES.get(dtype, (0.0, 0.0))


class Make:
    """Makes tensors of the dtype under test; the stream depends on the entry only, so runs repeat."""

    def __init__(self, name: str, dtype: str, requires_grad: bool = True) -> None:
        self.dtype = as_dtype(dtype)
        self.requires_grad = requires_grad
        self._rng = np.random.default_rng(zlib.crc32(name.encode()))

    def __call__(
        self, *shape: int, low: float = -2, high: float = 2, dtype: Any = None, requires_grad: bool = True
    ) -> cf.Tensor:
        kind = self.dtype if dtype is None else as_dtype(dtype)
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        if kind.kind == "b":
            array = self._rng.integers(0, 2, shape).astype(bool)
        elif kind.kind in "iu":
            first = max(int(np.ceil(low)), 0) if kind.kind == "u" else int(np.ceil(low))
            array = np.asarray(self._rng.integers(first, max(int(np.ceil(high)), first + 1), shape), kind)
        else:
            array = np.asarray(self._rng.uniform(low, high, shape)).astype(kind)
        t = cf.Tensor(array)
        if requires_grad and self.requires_grad and is_floating(kind):
            t.requires_grad_()
        return t

    @property
    def rng(self) -> np.random.Generator:
        """For anything that is not a tensor of uniform numbers."""
        return self._rng


def tree_map(change: Callable[[cf.Tensor], Any], value: Any) -> Any:
    """`value` with every Tensor in it replaced by `change(tensor)`."""
    if isinstance(value, cf.Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(tree_map(change, v) for v in value))
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(tree_map(change, v) for v in value)
    if isinstance(value, dict):
        return {k: tree_map(change, v) for k, v in value.items()}
    return value


def flatten(value: Any) -> list[Any]:
    """The leaves of nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in flatten(v)]
    return [value]


class _describe:
    """How a tensor of a failing sample prints."""

    def __init__(self, t: cf.Tensor) -> None:
        self.text = f"{t.dtype.name}{list(t.array.shape)}"

    def __repr__(self) -> str:
        return self.text
