"""What a case is: one definition for cuframe and PyTorch, for a CPU and a GPU.

A family's `build` is given a `Side` - one of the two libraries, which share their API, on one device - and sizes, and
gives back a `Work`: what is called, and the inputs it is differentiated by.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

__all__ = ["FLOATS", "Case", "Family", "Side", "Sizes", "Work", "host_arrays", "itemsize", "moves", "passes"]

FLOATS = ("float32", "bfloat16", "float16", "float64")
Sizes = tuple[int, ...]
# numbers of a result beyond which a copy in float64 takes longer than its timing
_MANY = 1 << 24


class Side:
    """One of the two libraries on one device, with numbers that are the same for both.

    `through` names a dtype that numbers are rounded to first: a float64 reference sees what a float16 side sees.
    """

    def __init__(self, lib: Any, device: str, dtype: str, through: str | None = None) -> None:
        self.lib, self.device, self.dtype, self.through = lib, device, dtype, through
        self.nn, self.F = lib.nn, lib.nn.functional
        self.ours = lib.__name__ == "cuframe"

    def floats(self, *shape: int, grad: bool = True, scale: float = 1.0, seed: int = 0) -> Any:
        """Uniform numbers as a leaf of the dtype under test."""
        values = np.random.default_rng([seed, *shape]).random(shape, np.float32)
        values = (2 * values - 1) * np.float32(scale)
        x = self.put(values)
        if self.through:
            x = x.to(getattr(self.lib, self.through))
        return x.to(getattr(self.lib, self.dtype)).requires_grad_(grad)

    def named(self, name: str, *shape: int, grad: bool = True, scale: float = 0.1) -> Any:
        """The numbers that a parameter of this name gets in `filled`."""
        return self.floats(*shape, grad=grad, scale=scale, seed=zlib.crc32(name.encode()))

    def ints(self, high: int, *shape: int, low: int = 0, seed: int = 0) -> Any:
        return self.put(np.random.default_rng([seed, *shape]).integers(low, high, shape))

    def put(self, values: np.ndarray) -> Any:
        """A host array's copy on the device."""
        return self.lib.from_numpy(values).to(self.device)

    @contextlib.contextmanager
    def tf32(self) -> Iterator[None]:
        """float32 products may be rounded to TF32; of ours, those of the kernels that have such a way."""
        if self.ours:
            before = self.lib.cuda.allow_tf32()
            self.lib.cuda.set_allow_tf32(True)
            try:
                yield
            finally:
                self.lib.cuda.set_allow_tf32(before)
            return
        products = self.lib.backends.cuda.matmul
        before, products.allow_tf32 = products.allow_tf32, True
        try:  # PyTorch's tests, once imported, forbid to set what cuDNN may do but in this way
            with self.lib.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
                yield
        finally:
            products.allow_tf32 = before

    def filled(self, module: Any, scale: float = 0.1) -> Any:
        """`module` on the device, in the dtype, with parameters that are the same on both sides."""
        module = module.to(self.device).to(getattr(self.lib, self.dtype))
        with self.lib.no_grad():
            for name, p in module.named_parameters():
                p.copy_(self.named(name, *p.shape, grad=False, scale=scale))
        return module


@dataclass
class Work:
    """`call` gives the result; gradients are taken by `inputs`.

    `stateful` work is a step that changes what it works on: it has no backward of its own and is built anew for each
    repeat. `count` operations are in a call; times are those of one. `within` is around a call and its backward.
    """

    call: Callable[[], Any]
    inputs: Sequence[Any] = ()
    stateful: bool = False
    count: int = 1
    within: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


def moves(forward: float, backward: float) -> Callable[..., tuple[int, int]]:
    """Traffic as multiples of the elements of the sizes' product."""
    return lambda item, *sizes: (int(forward * prod(sizes) * item), int((forward + backward) * prod(sizes) * item))


@dataclass(frozen=True)
class Family:
    """Cases of one kind.

    Attributes:
        build: (side, *sizes, variant=...) -> Work.
        dims: names of the sizes.
        cuda, cpu: sizes that are timed there, the most telling first; small: what is repeated, run under a sanitizer
            and in tests.
        traffic: (itemsize, *sizes) -> the fewest bytes that forward, and forward with backward, must move.
        flops: the same for arithmetic; None where it does not matter.
        dtypes, cpu_dtypes, small_dtypes: of the cases timed on a GPU, on a CPU, and of the small one.
        variants: PyTorch's ways to do it on a GPU; the quickest is the baseline. On a CPU `cpu_variants`.
        timer: "device", or "wall" where launching is what it measures.
        cold: whether it is also timed with caches overwritten on a GPU, and that is its figure.
        aim: times as fast as PyTorch that is aimed at on a CPU.
        same: whether both libraries compute the same; not where each draws its own random numbers.
        grid: rounds of sizes that `make gpu-check` goes through where time is left, with `grid_dtypes` and
            `grid_variants`; `bench run` leaves them out.
    """

    name: str
    group: str
    build: Callable[..., Work]
    dims: tuple[str, ...]
    cuda: Sequence[Sizes]
    cpu: Sequence[Sizes]
    small: Sizes
    traffic: Callable[..., tuple[int, int]]
    flops: Callable[..., tuple[int, int]] | None = None
    dtypes: Sequence[str] = FLOATS[:2]
    cpu_dtypes: Sequence[str] = FLOATS[:1]
    small_dtypes: Sequence[str] = FLOATS
    variants: Sequence[str] = ("torch",)
    cpu_variants: Sequence[str] = ("torch",)
    timer: str = "device"
    cold: bool = True
    aim: float = 1.0
    same: bool = True
    grid: Sequence[Sequence[Sizes]] = ()
    grid_dtypes: Sequence[str] = ()
    grid_variants: Sequence[str] = ("torch",)
    tolerance: Mapping[str, float] = field(default_factory=lambda: {
        "float32": 1e-4, "float64": 1e-4, "bfloat16": 0.05, "float16": 0.01})

    def cases(self, kind: str, dtypes: Iterable[str] | None = None) -> list[Case]:
        """What is timed on a kind of device, in the order of interest."""
        own = self.dtypes if kind == "cuda" else self.cpu_dtypes
        chosen = list(own) if dtypes is None else [d for d in dtypes if d in self.small_dtypes]
        return [Case(self, sizes, d) for sizes in (self.cuda if kind == "cuda" else self.cpu) for d in chosen]

    def grid_cases(self) -> list[tuple[int, Case]]:
        """Those of the grid, with the number of their round."""
        own = replace(self, variants=self.grid_variants)
        return [(i, Case(own, sizes, d)) for i, sizes_of in enumerate(self.grid) for sizes in sizes_of
                for d in self.grid_dtypes]


@dataclass(frozen=True)
class Case:
    """A family with sizes and dtype: what is set up once; its rows are its modes."""

    family: Family
    sizes: Sizes
    dtype: str

    @property
    def label(self) -> str:
        """The sizes with their names."""
        return " ".join(f"{d}{s}" for d, s in zip(self.family.dims, self.sizes))

    @property
    def key(self) -> str:
        return f"{self.family.name} {self.label} {self.dtype}"

    def traffic(self, mode: str) -> int:
        return self.family.traffic(itemsize(self.dtype), *self.sizes)[mode == "training"]

    def flops(self, mode: str) -> int:
        return self.family.flops(1, *self.sizes)[mode == "training"] if self.family.flops else 0


def itemsize(dtype: str) -> int:
    """Bytes of an element."""
    return {"float64": 8, "float32": 4}.get(dtype, 2)


def passes(work: Work, lib: Any) -> dict[str, Callable[[], Any]]:
    """What is timed, by mode."""
    if work.stateful:
        return {"step": work.call}

    def forward() -> Any:
        with lib.no_grad(), work.within():
            return work.call()

    if not work.inputs:
        return {"forward": forward}
    out = forward()
    # not ones: behind a normalisation the gradient of a sum is zero but for rounding
    weights = np.random.default_rng(0).standard_normal(tuple(out.shape), np.float32)
    g = lib.from_numpy(weights).to(out.device).to(out.dtype)

    def training() -> Any:
        with work.within():
            return lib.autograd.grad(work.call(), list(work.inputs), g)

    return {"forward": forward, "training": training}


def host_arrays(result: Any) -> list[np.ndarray]:
    """Tensors of either library on the host, as float64, or as float32 where they are many numbers."""
    several = result if isinstance(result, (tuple, list)) else (result,)
    libs = [sys.modules[type(r).__module__.partition(".")[0]] for r in several]
    return [r.detach().cpu().to(lib.float64 if r.numel() <= _MANY else lib.float32).numpy()
            for r, lib in zip(several, libs)]
