"""Connectionist temporal classification: `kernels/ctc.cu`.  Targets and lengths stay on the device; nothing waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cuda.launch import Kernel, accumulator
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["Saved", "Targets", "backward", "forward"]

_T: dict[str, Any] = {"types": {"T": FLOATS}}
_THREADS = 256
# rows of up to this many classes are a warp's
_WARP_ROW = 1024
# states that a thread may have, and bytes of the accumulator -> threads that a block may have
_EACH = (1, 4, 8)
_WIDEST = {4: 1024, 8: 512}

_NORMALIZERS = Kernel("ctc.cu", "ctc_normalizers", (
    "const T* x[rows, C]", "acc_t<T>* lse[rows]", "int64 rows", "int32 C"), constants={"GROUP": (32, _THREADS)}, **_T)
_CHAINS = Kernel("ctc.cu", "ctc_chains", (
    "const int64* targets", "const int64* offsets", "const int64* sizes", "int32* chain", "bool* first", "int32 most"))
_PATHS = Kernel("ctc.cu", "ctc_paths", (
    "const T* x[steps, N, C]", "const acc_t<T>* lse?[steps, N]", "const int64* targets", "const int64* offsets[N]",
    "const int64* sizes[N]", "const int64* lengths[N]", "acc_t<T>* paths?[2, N, steps, L]",
    "double* base?[2, N, steps]", "double* loss[N]", "int32 steps", "int32 N", "int32 C", "int32 L", "int32 blank"),
    constants={"K": _EACH}, **_T)
_GRADIENT = Kernel("ctc.cu", "ctc_gradient", (
    "const T* x[steps, N, C]", "const acc_t<T>* lse?[steps, N]", "const int64* targets", "const int64* offsets[N]",
    "const int64* sizes[N]", "const int64* lengths[N]", "const int32* chain[N, most]", "const bool* first[N, most]",
    "const acc_t<T>* paths[2, N, steps, L]", "const double* base[2, N, steps]", "const double* loss[N]",
    "const acc_t<T>* g[N]", "T* grad[steps, N, C]", "int32 steps", "int32 N", "int32 C", "int32 L", "int32 most",
    "int32 blank"), **_T)


@dataclass(slots=True)
class Targets:
    """Targets on the device: labels in rows of `width`, or all in a row where it is None.

    `sizes` and `lengths` are [N] int64; `most` bounds the labels of a target that can fit into its steps.
    """

    labels: Any
    width: int | None
    sizes: Any
    lengths: Any
    most: int

    @property
    def offsets(self) -> Any:
        """Where each target begins."""
        if self.width is None:
            return np.cumsum(self.sizes) - self.sizes
        return backend_of(self.sizes).asarray(np.arange(len(self.sizes)) * self.width, self.sizes)


@dataclass(slots=True)
class Saved:
    """What `backward` needs."""

    x: Any
    lse: Any
    targets: Targets
    offsets: Any
    paths: Any
    base: Any
    loss: Any
    blank: int

    @property
    def impossible(self) -> Any:
        """[N]: whether the labels do not fit into the steps."""
        return np.isinf(self.loss)


def forward(x: Any, targets: Targets, blank: int, logits: bool, need_backward: bool = True) -> tuple[Any, Saved | None]:
    """Minus the log probability that each sequence spells its labels.

    Args:
        x: [T, N, C] log probabilities, or logits where `logits` is true.

    Returns:
        The losses, [N] float64, inf where the labels do not fit; and what `backward` needs.

    Raises:
        ValueError: targets of more labels than a block's threads have states for.
    """
    x = dense(x)
    steps, batch, classes = x.shape
    acc = accumulator(x.dtype)

    def new(*shape: int, dtype: Any = acc) -> Any:
        return np.empty_like(x, shape=shape, dtype=dtype, order="C")

    lse = None
    if logits:
        lse = new(steps, batch)
        group = 32 if classes <= _WARP_ROW else _THREADS
        _NORMALIZERS(-(-steps * batch * group // _THREADS), _THREADS, x, lse, steps * batch, classes, GROUP=group)
    states = 2 * targets.most + 1
    widest = _WIDEST[acc.itemsize]
    each = next((k for k in _EACH if k * widest >= states), None)
    if each is None:
        raise ValueError(f"ctc_loss: targets may have up to {_EACH[-1] * widest // 2 - 1} labels, got {targets.most}")
    width = -(-states // (32 * each)) * 32
    paths = new(2, batch, steps, states) if need_backward else None
    base = new(2, batch, steps, dtype=np.float64) if need_backward else None
    loss, offsets = new(batch, dtype=np.float64), targets.offsets
    _PATHS((batch, 2 if need_backward else 1), width, x, lse, targets.labels, offsets, targets.sizes, targets.lengths,
           paths, base, loss, steps, batch, classes, states, blank, shared=2 * (states + 2) * acc.itemsize, K=each)
    return loss, Saved(x, lse, targets, offsets, paths, base, loss, blank) if need_backward else None


def backward(saved: Saved, g: Any) -> Any:
    """The gradient of the logits: `g[n] (softmax(x) - posterior)` up to each length, zero beyond.

    Args:
        saved: from `forward`; it is only read.
        g: [N], the gradient of each loss.

    Returns:
        [T, N, C] in the dtype of x; NaN for sequences that cannot spell their labels, unless g is zero there.
    """
    s, t = saved, saved.targets
    steps, batch, classes = s.x.shape
    most = max(t.most, 1)
    chain = np.empty_like(s.x, shape=(batch, most), dtype=np.int32, order="C")
    first = np.empty_like(chain, dtype=np.bool_)
    _CHAINS((-(-most // 128), batch), 128, t.labels, s.offsets, t.sizes, chain, first, most)
    grad = np.empty_like(s.x)
    acc = s.paths.dtype
    _GRADIENT(steps * batch, 128, s.x, s.lse, t.labels, s.offsets, t.sizes, t.lengths, chain, first, s.paths, s.base,
              s.loss, g.astype(acc, order="C"), grad, steps, batch,
              classes, s.paths.shape[3], most, s.blank)
    return grad
