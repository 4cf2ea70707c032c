"""Communication hooks: other ways for the ranks to average a bucket of gradients.

A hook is called as `hook(state, bucket)` when the gradients of a `GradBucket` are there, while backward goes on, and
returns the averaged vector, or something whose `wait()` returns it. `DistributedDataParallel.register_comm_hook` takes
it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...backend import backend_of
from ...distributed import ReduceOp, all_reduce
from ...dtypes import bfloat16
from ...tensor import Tensor
from .buckets import GradBucket

__all__ = ["Future", "PowerSGDState", "allreduce_hook", "bf16_compress_hook", "fp16_compress_hook", "powerSGD_hook"]


class Future:
    """A value that is computed when it is waited for.

    Args:
        compute: takes nothing and returns the value; it is called once.

    >>> from cuframe.nn.parallel.hooks import Future
    >>> Future(lambda: 20).then(lambda future: future.value() + 1).wait()
    21
    """

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute: Callable[[], Any] | None = compute
        self._value: Any = None

    def wait(self) -> Any:
        """The value."""
        if self._compute is not None:
            compute, self._compute = self._compute, None
            self._value = compute()
        return self._value

    def value(self) -> Any:
        """The value."""
        return self.wait()

    def then(self, follow: Callable[[Future], Any]) -> Future:
        """The value of `follow(self)`."""
        return Future(lambda: follow(self))


def _averaged(tensor: Tensor, group: Any) -> Future:
    """The ranks' average of `tensor`, which it replaces."""
    work = all_reduce(tensor, ReduceOp.AVG, group, async_op=True)
    assert work is not None

    def finish() -> Tensor:
        work.wait()
        return tensor

    return Future(finish)


def allreduce_hook(process_group: Any, bucket: GradBucket) -> Future:
    """Average the gradients as they are: what happens without a hook.

    Args:
        process_group: None for that of the whole job.
        bucket: the gradients.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> from cuframe import nn
    >>> from cuframe.nn.parallel import DistributedDataParallel, hooks
    >>> dist.init_process_group()  # here a job of one
    >>> model = DistributedDataParallel(nn.Linear(2, 1, bias=False))
    >>> model.register_comm_hook(None, hooks.allreduce_hook)
    >>> model(cf.ones(1, 2)).sum().backward()
    >>> model.module.weight.grad
    tensor([[1., 1.]])
    >>> dist.destroy_process_group()
    """
    return _averaged(bucket.buffer(), process_group)


def _compressed(dtype: np.dtype, process_group: Any, bucket: GradBucket) -> Future:
    flat = bucket.buffer()
    small = Tensor(flat.array.astype(dtype))
    return _averaged(small, process_group).then(lambda done: Tensor(done.value().array.astype(flat.dtype)))


def fp16_compress_hook(process_group: Any, bucket: GradBucket) -> Future:
    """Send gradients as float16: half the bytes of float32. Arguments as in `allreduce_hook`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> from cuframe import nn
    >>> from cuframe.nn.parallel import DistributedDataParallel, hooks
    >>> dist.init_process_group()  # here a job of one
    >>> model = DistributedDataParallel(nn.Linear(2, 1, bias=False))
    >>> model.register_comm_hook(None, hooks.fp16_compress_hook)
    >>> model(cf.ones(1, 2)).sum().backward()
    >>> model.module.weight.grad
    tensor([[1., 1.]])
    >>> dist.destroy_process_group()
    """
    return _compressed(np.dtype(np.float16), process_group, bucket)


def bf16_compress_hook(process_group: Any, bucket: GradBucket) -> Future:
    """Send gradients as bfloat16: half the bytes, all of float32's range. Arguments as in `allreduce_hook`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> from cuframe import nn
    >>> from cuframe.nn.parallel import DistributedDataParallel, hooks
    >>> dist.init_process_group()  # here a job of one
    >>> model = DistributedDataParallel(nn.Linear(2, 1, bias=False))
    >>> model.register_comm_hook(None, hooks.bf16_compress_hook)
    >>> model(cf.ones(1, 2)).sum().backward()
    >>> model.module.weight.grad
    tensor([[1., 1.]])
    >>> dist.destroy_process_group()
    """
    return _compressed(np.dtype(bfloat16), process_group, bucket)


class PowerSGDState:
    """What `powerSGD_hook` keeps from step to step.

    Args:
        process_group: None for that of the whole job.
        matrix_approximation_rank: of the two factors that are sent in the place of a matrix.
        start_powerSGD_iter: steps that are averaged exactly before.
        min_compression_rate: a matrix is sent as it is unless its factors are that much smaller.
        use_error_feedback: add what compression lost to the next step's gradients.
        warm_start: begin with the factor of the last step.
        random_seed: of the first factors, the same on all ranks.

    Raises:
        ValueError: a rank below 1.

    >>> from cuframe.nn.parallel import hooks
    >>> hooks.PowerSGDState(None, matrix_approximation_rank=2)
    PowerSGDState(rank=2, iter=0)
    """

    def __init__(
        self, process_group: Any, matrix_approximation_rank: int = 1, start_powerSGD_iter: int = 1000,
        min_compression_rate: float = 2, use_error_feedback: bool = True, warm_start: bool = True,
        random_seed: int = 0,
    ) -> None:  # fmt: skip
        if matrix_approximation_rank < 1:
            raise ValueError(
                f"PowerSGDState: matrix_approximation_rank must be at least 1, got {matrix_approximation_rank}"
            )
        self.process_group = process_group
        self.matrix_approximation_rank = matrix_approximation_rank
        self.start_powerSGD_iter = start_powerSGD_iter
        self.min_compression_rate = min_compression_rate
        self.use_error_feedback = use_error_feedback
        self.warm_start = warm_start
        self.random_seed = random_seed
        self.iter = 0
        self.error_dict: dict[int, Any] = {}  # bucket -> what was lost
        self.q_memory_dict: dict[int, list[Any]] = {}  # bucket -> the right factors, [M, R] each

    def __repr__(self) -> str:
        return f"PowerSGDState(rank={self.matrix_approximation_rank}, iter={self.iter})"


def _join(xp: Any, arrays: list[Any], dtype: Any, like: Any) -> Tensor:
    empty = xp.empty_like(like, shape=(0,), dtype=dtype)
    return Tensor(xp.concatenate([empty, *[a.reshape(-1) for a in arrays]]))


def _split(flat: Tensor, like: list[Any]) -> list[Any]:
    parts, at = [], 0
    for a in like:
        parts.append(flat.array[at : at + a.size].reshape(a.shape))
        at += a.size
    return parts


def powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Future:
    """Send two thin factors instead of each gradient matrix M [N, M]: M ~ P Q^T with P [N, R], Q [M, R].

        P = orthogonal(mean over ranks of M Q);  Q = mean over ranks of M^T P

    What is lost is added to the next step's gradients. Vogels et al., PowerSGD (2019). Vectors, and matrices that would
    hardly get smaller, are averaged as they are.

    Args:
        state: a `PowerSGDState`.
        bucket: the gradients.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> from cuframe import nn
    >>> from cuframe.nn.parallel import DistributedDataParallel, hooks
    >>> dist.init_process_group()  # here a job of one
    >>> model = DistributedDataParallel(nn.Linear(2, 1, bias=False))
    >>> state = hooks.PowerSGDState(None, start_powerSGD_iter=0)
    >>> model.register_comm_hook(state, hooks.powerSGD_hook)
    >>> model(cf.ones(1, 2)).sum().backward()
    >>> model.module.weight.grad
    tensor([[1., 1.]])
    >>> dist.destroy_process_group()
    """
    if bucket.is_last():
        state.iter += 1
    if state.iter <= state.start_powerSGD_iter:
        return allreduce_hook(state.process_group, bucket)
    flat, index = bucket.buffer().array, bucket.index()
    xp = backend_of(flat).xp
    lost = state.error_dict.get(index)
    if state.use_error_feedback and lost is not None and lost.shape == flat.shape:
        flat += lost
    given = flat.copy() if state.use_error_feedback else None

    matrices: list[tuple[Any, Any]] = []  # where it goes; [N, M] in the precision of the factors
    vectors: list[Any] = []
    dtype = np.dtype(np.float32) if flat.dtype.itemsize == 2 else flat.dtype
    rank = state.matrix_approximation_rank
    for gradient in bucket.gradients():
        place = gradient.array
        n = place.shape[0] if place.ndim > 1 else 0
        m = place.size // n if n else 0
        r = min(n, m, rank)
        if r and (n + m) * r * state.min_compression_rate < n * m:
            matrices.append((place, place.reshape(n, m).astype(dtype, copy=False)))
        else:
            vectors.append(place)

    factors = state.q_memory_dict.get(index, []) if state.warm_start else []
    shapes = [(m.shape[1], min(*m.shape, rank)) for _, m in matrices]
    if [q.shape for q in factors] != shapes:
        random = np.random.default_rng([state.random_seed, index, state.iter])
        backend = backend_of(flat)
        factors = [backend.asarray(random.standard_normal(s).astype(dtype), flat) for s in shapes]
    factors = [xp.linalg.qr(q)[0] for q in factors]
    plain = _join(xp, vectors, flat.dtype, flat)
    plain_work = _averaged(plain, state.process_group)
    left = [m @ q for (_, m), q in zip(matrices, factors)]
    left_flat = _join(xp, left, dtype, flat)
    left_work = _averaged(left_flat, state.process_group)

    def finish() -> Tensor:
        ps = [xp.linalg.qr(p)[0] for p in _split(left_work.wait(), left)]
        right = [m.T @ p for (_, m), p in zip(matrices, ps)]
        qs = _split(_averaged(_join(xp, right, dtype, flat), state.process_group).wait(), right)
        for (place, _), p, q in zip(matrices, ps, qs):
            place[...] = (p @ q.T).reshape(place.shape).astype(place.dtype, copy=False)
        if state.warm_start:
            state.q_memory_dict[index] = [q.copy() for q in qs]
        if given is not None:
            state.error_dict[index] = given - flat  # zeros for vectors, which are still as they were
        for place, value in zip(vectors, _split(plain_work.wait(), vectors)):
            place[...] = value
        return bucket.buffer()

    return Future(finish)
