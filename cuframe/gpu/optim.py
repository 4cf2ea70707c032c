"""Optimizer steps, gradient norms and clipping for many tensors in one launch: `kernels/multi_tensor.cu`.

A launch finds its tensors through tables in device memory, which are made when a set of tensors is first seen and kept:
in training the same addresses come back step after step, so a step moves nothing but scalars to the device.  Tensors
of one dtype share a launch; nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cuda.launch import Kernel, launcher_of
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["adam", "amsgrad", "clamp", "momentum", "nadam", "norm", "radam", "scale", "sgd", "takes", "together"]

_THREADS = 256
_BLOCKS = 4096  # about as many are launched, with no less than this many elements each
_SMALLEST = 2048
_TYPES: dict[str, Any] = {"types": {"T": FLOATS}}


def _declare(name: str, arrays: int, *scalars: str, **options: Any) -> Kernel:
    return Kernel("multi_tensor.cu", name, (
        "const T* like", f"const int64* addresses[{arrays}*tensors]", "const int64* plan[3*blocks]", "int32 tensors",
        "int32 blocks", *scalars), **_TYPES, **options)


_SGD = _declare("sgd_step", 2, "double lr", "double decay", "bool maximize")
_MOMENTUM = _declare("momentum_step", 3, "double lr", "double decay", "double momentum", "double keep",
                     "bool nesterov", "bool first", "bool maximize")
_ADAM = Kernel("multi_tensor.cu", "adam_step", (
    "const T* like", "const int64* addresses", "const int64* plan[3*blocks]", "int32 tensors", "int32 blocks",
    "double beta1", "double beta2", "double step", "double fresh", "double eps", "double decay", "double shrink",
    "bool divide", "bool maximize"), **_TYPES, constants={"AMSGRAD": (False, True)})
_PARTIALS = Kernel("multi_tensor.cu", "gradient_norm_partials", (
    "const T* like", "const int64* addresses[tensors]", "const int64* plan[3*blocks]", "double* partials[blocks]",
    "int32 tensors", "int32 blocks", "double order"), **_TYPES, constants={"SQUARES": (False, True)})
_TOTAL = Kernel("multi_tensor.cu", "gradient_norm", (
    "const double* partials[blocks]", "const int64* plan[3*blocks]", "double* total[1]", "int32 blocks",
    "double order"), threads=1024)
_SCALE = Kernel("multi_tensor.cu", "scale_step", (
    "const T* like", "const int64* addresses[tensors]", "const int64* plan[3*blocks]", "const double* total?[1]",
    "int32 tensors", "int32 blocks", "double limit"), **_TYPES)
_CLAMP = _declare("clamp_step", 1, "double limit")

Sets = Sequence[tuple[Any, ...]]


class _Tables:
    """Arrays of integers on a device, found again by what they were made of."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[Hashable, Any] = {}

    def get(self, key: Hashable, like: Any, make: Callable[[], np.ndarray]) -> Any:
        found = self._known.get(key)
        if found is None:
            backend = backend_of(like)
            found = backend.from_host(make(), backend.device_of(like))
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = found
        return found


# addresses change with the order of allocations; sizes hardly ever do
_addresses, _plans = _Tables(256), _Tables(64)


def _chunk(sizes: Sequence[int]) -> int:
    """Elements of a block: a power of two."""
    return max(_SMALLEST, 1 << (sum(sizes) // _BLOCKS).bit_length())


def _blocks(sizes: Sequence[int], chunk: int) -> int:
    return sum([-(-n // chunk) for n in sizes])


def _plan(sizes: Sequence[int], chunk: int) -> np.ndarray:
    """A row (tensor, first element, end) for each block."""
    chunks = [-(-n // chunk) for n in sizes]
    plan = np.empty((sum(chunks), 3), np.int64)
    plan[:, 0] = np.repeat(np.arange(len(sizes)), chunks)
    first = np.repeat(np.cumsum(chunks) - chunks, chunks)
    plan[:, 1] = (np.arange(len(plan)) - first) * chunk
    plan[:, 2] = np.minimum(plan[:, 1] + chunk, np.asarray(sizes, np.int64)[plan[:, 0]])
    return plan


class _Set:
    """Tensors of one dtype on one device, with their tables."""

    def __init__(self, sets: Sets, chunk: int | None = None) -> None:
        self.like = like = sets[0][0]
        launcher = launcher_of(like)
        device, address, dtype = launcher.device(like), launcher.address, like.dtype
        for arrays in sets:
            size = arrays[0].size
            for a in arrays:
                if a.size != size or a.dtype != dtype or launcher.device(a) != device:
                    raise RuntimeError("optim: a parameter, its gradient and its states must agree in size, dtype and "
                                       f"device, got {[(b.shape, b.dtype.name) for b in arrays]}")
        # a stream must not use a table whose copy another one has not made yet
        where = (type(like), device, launcher.stream(device))
        sizes = tuple([arrays[0].size for arrays in sets])
        addresses = tuple([tuple([address(a) for a in column]) for column in zip(*sets)])
        length = chunk or _chunk(sizes)
        self.tensors, self.blocks = len(sets), _blocks(sizes, length)
        self.addresses = _addresses.get((where, addresses), like, lambda: np.asarray(addresses, np.int64))
        self.plan = _plans.get((where, sizes, length), like, lambda: _plan(sizes, length))

    def run(self, kernel: Kernel, *scalars: Any, **constants: bool) -> None:
        if self.blocks:
            kernel(self.blocks, _THREADS, self.like, self.addresses, self.plan, *scalars[:-1],
                   self.tensors, self.blocks, *scalars[-1], **constants)


def _by_dtype(sets: Sets) -> list[list[tuple[Any, ...]]]:
    """The sets of each dtype and device, in the order of their first."""
    kinds: dict[Hashable, list[tuple[Any, ...]]] = {}
    for arrays in sets:
        x = arrays[0]
        kinds.setdefault((x.dtype, launcher_of(x).device(x)), []).append(arrays)
    return list(kinds.values())


def _update(kernel: Kernel, sets: Sets, scalars: tuple, reads: int | None = None, total: tuple = (),
            **constants: bool) -> None:
    """Launch on all tensors; arrays that are not contiguous are copied, and written back but for number `reads`."""
    for kind in _by_dtype(sets):
        packed = [tuple([dense(a) for a in arrays]) for arrays in kind]
        _Set(packed).run(kernel, *total, scalars, **constants)
        for given, used in zip(kind, packed):
            for i, (a, b) in enumerate(zip(given, used)):
                if a is not b and i != reads:
                    a[...] = b


def takes(p: Any) -> bool:
    """Whether the functions of this module serve a parameter like `p`."""
    return p.dtype.name in FLOATS


def together(arrays: Sequence[Any]) -> bool:
    """Whether all are on the device of the first."""
    kind, launcher = type(arrays[0]), launcher_of(arrays[0])
    device = launcher.device(arrays[0])
    return all(type(a) is kind and launcher.device(a) == device for a in arrays)


def sgd(sets: Sets, lr: float, decay: float, maximize: bool) -> None:
    """One step for sets (parameter, gradient)."""
    _update(_SGD, sets, (lr, decay, maximize), reads=1)


def momentum(sets: Sets, lr: float, decay: float, momentum: float, keep: float, nesterov: bool, first: bool,
             maximize: bool) -> None:
    """One step for sets (parameter, gradient, buffer); at the `first` the buffer's content does not count."""
    _update(_MOMENTUM, sets, (lr, decay, momentum, keep, nesterov, first, maximize), reads=1)


def _adam(sets: Sets, beta1: float, beta2: float, step: float, eps: float, l2: float, shrink: float, maximize: bool,
          fresh: float = 0.0, divide: bool = True, largest: bool = False) -> None:
    _update(_ADAM, sets, (beta1, beta2, step, fresh, eps, l2, shrink, divide, maximize), reads=1, AMSGRAD=largest)


def adam(sets: Sets, beta1: float, beta2: float, step: float, eps: float, l2: float, shrink: float,
         maximize: bool) -> None:
    """One step for sets (parameter, gradient, average, average of squares)."""
    _adam(sets, beta1, beta2, step, eps, l2, shrink, maximize)


def amsgrad(sets: Sets, beta1: float, beta2: float, step: float, eps: float, l2: float, shrink: float,
            maximize: bool) -> None:
    """As `adam`, with the largest average of squares as the fifth of a set."""
    _adam(sets, beta1, beta2, step, eps, l2, shrink, maximize, largest=True)


def nadam(sets: Sets, beta1: float, beta2: float, root: float, step_g: float, step_m: float, eps: float, l2: float,
          shrink: float, maximize: bool) -> None:
    """As `adam`, with part of the step along the gradient itself."""
    _adam(sets, beta1, beta2, root * step_m, eps, l2, shrink, maximize, fresh=root * step_g)


def radam(sets: Sets, beta1: float, beta2: float, step: float, eps: float, rectified: bool, l2: float, shrink: float,
          maximize: bool) -> None:
    """As `adam`, along the average alone where the step is not rectified."""
    _adam(sets, beta1, beta2, step, eps, l2, shrink, maximize, divide=rectified)


def norm(arrays: Sequence[Any], order: float) -> Any:
    """The norm of all elements of arrays on one device: float64, of shape (1,), there."""
    packed = [(dense(a),) for a in arrays]
    kinds = _by_dtype(packed)
    like = packed[0][0]
    launcher = launcher_of(like)
    device = launcher.device(like)
    sizes = tuple([arrays[0].size for kind in kinds for arrays in kind])
    chunk = _chunk(sizes)
    where = (type(like), device, launcher.stream(device))
    plan = _plans.get((where, sizes, chunk), like, lambda: _plan(sizes, chunk))
    blocks = _blocks(sizes, chunk)
    partials = np.empty_like(like, shape=(blocks,), dtype=np.float64)
    total = np.empty_like(like, shape=(1,), dtype=np.float64)
    first = 0
    for kind in kinds:
        one = _Set(kind, chunk)
        one.run(_PARTIALS, partials[first:first + one.blocks], (order,), SQUARES=order == 2.0)
        first += one.blocks
    _TOTAL(1, _TOTAL.threads, partials, plan, total, blocks, order)
    return total


def scale(arrays: Sequence[Any], limit: float, total: Any = None) -> None:
    """Multiply by min(1, limit / (total + 1e-6)), with `total` as `norm` gives it, or by min(1, limit) without."""
    _update(_SCALE, [(a,) for a in arrays], (limit,), total=(total,))


def clamp(arrays: Sequence[Any], limit: float) -> None:
    """Clip every element to [-limit, limit]."""
    _update(_CLAMP, [(a,) for a in arrays], (limit,))
