"""The collectives as functions of Tensors, with the names and arguments of `torch.distributed`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import versions
from ..backend import backend_of
from ..dtypes import as_dtype, get_default_dtype
from ..tensor import Tensor
from . import objects
from .group import member, resolve
from .process_group import Around, ProcessGroup, ReduceOp, Work

__all__ = [
    "P2POp", "all_gather", "all_gather_into_tensor", "all_reduce", "all_to_all", "all_to_all_single", "barrier",
    "batch_isend_irecv", "broadcast", "broadcast_object", "gather", "irecv", "isend", "recv", "reduce",
    "reduce_scatter", "reduce_scatter_tensor", "scatter", "send", "shared_empty",
]  # fmt: skip


class _Handle(Around):
    """Work whose results have to be put where they belong, once it is over."""

    def __init__(self, inner: Work, after: list[Callable[[], None]]) -> None:
        super().__init__(inner)
        self._after = after

    def wait(self, timeout: float | None = None) -> bool:
        self._inner.wait(timeout)
        while self._after:
            self._after.pop(0)()
        return True


class _All(Work):
    """Several works as one."""

    def __init__(self, works: Sequence[Work]) -> None:
        self._works = works

    def is_completed(self) -> bool:
        return all(work.is_completed() for work in self._works)

    def is_success(self) -> bool:
        return all(work.is_success() for work in self._works)

    def exception(self) -> BaseException | None:
        return next((e for work in self._works if (e := work.exception()) is not None), None)

    def wait(self, timeout: float | None = None) -> bool:
        return all(work.wait(timeout) for work in self._works)


class _Call:
    """The arrays of one call: as the group takes them, and what has to be done with them afterwards."""

    def __init__(self, name: str, group: Any, async_op: bool) -> None:
        self.name = name
        self.group: ProcessGroup = resolve(name, group)
        self.background = async_op
        self.after: list[Callable[[], None]] = []

    def source(self, tensor: Any, argument: str = "tensor") -> Any:
        """The array of an input."""
        array = self._array(tensor, argument)
        return backend_of(array).to_host(array) if self.group.host else array

    def target(self, tensor: Any, argument: str = "tensor") -> Any:
        """The array of an output, or one in host memory that is copied to it."""
        array = self._array(tensor, argument)
        versions.written(array, self.name)
        backend = backend_of(array)
        if not self.group.host or backend.host:
            return array
        host = backend.to_host(array)
        self.after.append(lambda: array.__setitem__(..., backend.from_host(host, tensor.device)))
        return host

    def _array(self, tensor: Any, argument: str) -> Any:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{self.name}: {argument} must be a Tensor, got {type(tensor).__name__}")
        return tensor.array

    def same(self, tensors: Any, like: Tensor, argument: str) -> Sequence[Tensor]:
        """A list of one tensor a rank, all like another tensor."""
        size = self.group.size
        if not isinstance(tensors, (list, tuple)) or len(tensors) != size:
            got = len(tensors) if isinstance(tensors, (list, tuple)) else type(tensors).__name__
            raise ValueError(f"{self.name}: {argument} must be a list of {size} tensors, one a rank, got {got}")
        for i, t in enumerate(tensors):
            self._array(t, f"{argument}[{i}]")
            if t.array.shape != like.array.shape or t.array.dtype != like.array.dtype:
                raise ValueError(
                    f"{self.name}: {argument}[{i}] must be {like.array.dtype.name} {tuple(like.array.shape)}, "
                    f"got {t.array.dtype.name} {tuple(t.array.shape)}"
                )
        return tensors

    def stacked(self, tensors: Sequence[Tensor], argument: str) -> Any:
        """A new array [size, ...] of the values of a list."""
        arrays = [self.source(t, argument) for t in tensors]
        return backend_of(arrays[0]).xp.stack(arrays)

    def unstacked(self, tensors: Sequence[Tensor], argument: str) -> Any:
        """A new array [size, ...] whose rows are copied into a list of tensors afterwards."""
        outs = [self.target(t, argument) for t in tensors]
        rows = backend_of(outs[0]).xp.empty((self.group.size, *outs[0].shape), outs[0].dtype)

        def copy() -> None:
            for out, row in zip(outs, rows):
                out[...] = row

        self.after.insert(0, copy)
        return rows

    def rows(self, tensor: Any, like: Any, argument: str, other: str) -> None:
        """Raise unless `tensor` holds `size` times the elements of `like`, along its first dimension or a new one."""
        whole, part, size = self._array(tensor, argument), self._array(like, other), self.group.size
        joined = (size * part.shape[0], *part.shape[1:]) if part.ndim else (size,)
        if whole.shape not in (joined, (size, *part.shape)) or whole.dtype != part.dtype:
            raise ValueError(
                f"{self.name}: {argument} must be {part.dtype.name} {joined} or {(size, *part.shape)}, "
                f"got {whole.dtype.name} {tuple(whole.shape)}"
            )

    def done(self, work: Work) -> Work | None:
        handle = _Handle(work, self.after)
        if self.background:
            return handle
        handle.wait()
        return None


def _reduction(name: str, op: ReduceOp | str) -> ReduceOp:
    try:
        return ReduceOp(op)
    except ValueError:
        known = ", ".join(o.value for o in ReduceOp)
        raise ValueError(f"{name}: op must be a ReduceOp or one of {known}, got {op!r}") from None


def all_reduce(
    tensor: Tensor, op: ReduceOp | str = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Work | None:
    """Replace `tensor` by the reduction of all ranks' tensors, the same bits on every rank and in every run.

    Args:
        tensor: any shape and dtype, the same on all ranks; 16-bit floats are added up in float32 and rounded once.
        op: sum, avg (floating point only), min, max or product.
        group: the ranks that take part, by default all.
        async_op: return a Work at once; the tensor must be left alone until its `wait()` has returned.

    Raises:
        DistributedError: a rank died, left or called something else; the message names it.
        DistributedTimeout: ranks did not come in time; the message names them.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()
    >>> x = cf.ones(2)
    >>> dist.all_reduce(x); x
    tensor([1., 1.])
    >>> dist.destroy_process_group()
    """
    call = _Call("all_reduce", group, async_op)
    reduction = _reduction("all_reduce", op)
    return call.done(call.group.all_reduce(call.target(tensor), reduction, async_op))


def reduce(
    tensor: Tensor, dst: int, op: ReduceOp | str = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Work | None:
    """Replace `tensor` of rank `dst` (of the job) by the reduction of all ranks' tensors; otherwise as `all_reduce`.

    What the other ranks' tensors hold afterwards is not defined.

    Args:
        tensor, op, group, async_op: as in `all_reduce`.
        dst: a rank of the job.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> x = cf.ones(2)
    >>> dist.reduce(x, dst=0); x
    tensor([1., 1.])
    >>> dist.destroy_process_group()
    """
    call = _Call("reduce", group, async_op)
    reduction, root = _reduction("reduce", op), member("reduce", call.group, dst, "dst")
    return call.done(call.group.reduce(call.target(tensor), root, reduction, async_op))


def broadcast(tensor: Tensor, src: int, group: Any = None, async_op: bool = False) -> Work | None:
    """Replace `tensor` by that of rank `src` (of the job); otherwise as `all_reduce`.

    Args:
        tensor: any shape and dtype, the same on all ranks; what `src` has is sent, the others' is filled.
        src: a rank of the job.
        group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> x = cf.arange(3)
    >>> dist.broadcast(x, src=0); x
    tensor([0, 1, 2])
    >>> dist.destroy_process_group()
    """
    call = _Call("broadcast", group, async_op)
    root = member("broadcast", call.group, src, "src")
    return call.done(call.group.broadcast(call.target(tensor), root, async_op))


def all_gather(tensor_list: list[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """Fill `tensor_list`, one tensor a rank, with the ranks' tensors.

    Args:
        tensor_list: filled, in the order of ranks, with tensors of the shape and dtype of `tensor`.
        tensor: the same shape and dtype on all ranks.
        group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> parts = [cf.empty(2) for _ in range(dist.get_world_size())]
    >>> dist.all_gather(parts, cf.tensor([3.0, 4.0])); parts
    [tensor([3., 4.])]
    >>> dist.destroy_process_group()
    """
    call = _Call("all_gather", group, async_op)
    source = call.source(tensor)
    rows = call.unstacked(call.same(tensor_list, tensor, "tensor_list"), "tensor_list")
    return call.done(call.group.all_gather(rows, source, async_op))


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill `output_tensor` with the ranks' tensors, joined along the first dimension or stacked along a new one.

    Args:
        output_tensor: (size * n, ...) or (size, n, ...), filled.
        input_tensor: (n, ...), the same shape and dtype on all ranks.
        group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> joined = cf.empty(2 * dist.get_world_size())
    >>> dist.all_gather_into_tensor(joined, cf.tensor([3.0, 4.0])); joined
    tensor([3., 4.])
    >>> dist.destroy_process_group()
    """
    call = _Call("all_gather_into_tensor", group, async_op)
    call.rows(output_tensor, input_tensor, "output_tensor", "input_tensor")
    return call.done(call.group.all_gather(call.target(output_tensor), call.source(input_tensor), async_op))


def reduce_scatter(
    output: Tensor, input_list: list[Tensor], op: ReduceOp | str = ReduceOp.SUM, group: Any = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Fill `output` with the reduction over ranks of their `input_list[rank]`.

    Args:
        output: filled.
        input_list: one tensor for each rank, of the shape and dtype of `output`.
        op, group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> mine, parts = cf.empty(2), [cf.ones(2) * r for r in range(dist.get_world_size())]
    >>> dist.reduce_scatter(mine, parts); mine
    tensor([0., 0.])
    >>> dist.destroy_process_group()
    """
    call = _Call("reduce_scatter", group, async_op)
    reduction = _reduction("reduce_scatter", op)
    stacked = call.stacked(call.same(input_list, output, "input_list"), "input_list")
    return call.done(call.group.reduce_scatter(call.target(output, "output"), stacked, reduction, async_op))


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: ReduceOp | str = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Work | None:
    """As `reduce_scatter`, of one tensor that is cut along its first dimension.

    Args:
        output: (n, ...), filled.
        input: (size * n, ...) or (size, n, ...).
        op, group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> mine = cf.empty(2)
    >>> dist.reduce_scatter_tensor(mine, cf.arange(2.0 * dist.get_world_size())); mine
    tensor([0., 1.])
    >>> dist.destroy_process_group()
    """
    call = _Call("reduce_scatter_tensor", group, async_op)
    reduction = _reduction("reduce_scatter_tensor", op)
    call.rows(input, output, "input", "output")
    return call.done(call.group.reduce_scatter(call.target(output), call.source(input), reduction, async_op))


def gather(
    tensor: Tensor, gather_list: list[Tensor] | None = None, dst: int = 0, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill `gather_list` of rank `dst` with the ranks' tensors; other ranks give no list.

    Args:
        tensor: the same shape and dtype on all ranks.
        gather_list: on `dst`, one tensor for each rank.
        dst: a rank of the job.
        group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> parts = [cf.empty(1) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
    >>> dist.gather(cf.tensor([5.0]), parts, dst=0); parts
    [tensor([5.])]
    >>> dist.destroy_process_group()
    """
    call = _Call("gather", group, async_op)
    root = member("gather", call.group, dst, "dst")
    source, rows = call.source(tensor), None
    if root == call.group.rank:
        rows = call.unstacked(call.same(gather_list, tensor, "gather_list"), "gather_list")
    elif gather_list is not None:
        raise ValueError(f"gather: gather_list is for rank {dst} (dst) alone")
    return call.done(call.group.gather(rows, source, root, async_op))


def scatter(
    tensor: Tensor, scatter_list: list[Tensor] | None = None, src: int = 0, group: Any = None, async_op: bool = False
) -> Work | None:
    """Fill `tensor` with `scatter_list[rank]` of rank `src`; other ranks give no list.

    Args:
        tensor: filled.
        scatter_list: on `src`, one tensor for each rank, of the shape and dtype of `tensor`.
        src: a rank of the job.
        group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> x, parts = cf.empty(1), [cf.tensor([5.0])] * dist.get_world_size() if dist.get_rank() == 0 else None
    >>> dist.scatter(x, parts, src=0); x
    tensor([5.])
    >>> dist.destroy_process_group()
    """
    call = _Call("scatter", group, async_op)
    root = member("scatter", call.group, src, "src")
    target, rows = call.target(tensor), None
    if root == call.group.rank:
        rows = call.stacked(call.same(scatter_list, tensor, "scatter_list"), "scatter_list")
    elif scatter_list is not None:
        raise ValueError(f"scatter: scatter_list is for rank {src} (src) alone")
    return call.done(call.group.scatter(target, rows, root, async_op))


def all_to_all(
    output_tensor_list: list[Tensor], input_tensor_list: list[Tensor], group: Any = None, async_op: bool = False
) -> Work | None:
    """`output_tensor_list[r]` becomes `input_tensor_list[rank]` of rank r; all tensors are of one shape.

    Args:
        output_tensor_list: filled, one tensor for each rank.
        input_tensor_list: what goes to each rank.
        group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> size = dist.get_world_size()
    >>> received, sent = [cf.empty(1) for _ in range(size)], [cf.full((1,), 7.0) for _ in range(size)]
    >>> dist.all_to_all(received, sent); received
    [tensor([7.])]
    >>> dist.destroy_process_group()
    """
    call = _Call("all_to_all", group, async_op)
    like = input_tensor_list[0] if input_tensor_list else output_tensor_list
    if not isinstance(like, Tensor):
        raise TypeError("all_to_all: input_tensor_list must be a list of Tensors")
    stacked = call.stacked(call.same(input_tensor_list, like, "input_tensor_list"), "input_tensor_list")
    rows = call.unstacked(call.same(output_tensor_list, like, "output_tensor_list"), "output_tensor_list")
    return call.done(call.group.all_to_all(rows, stacked, async_op))


def all_to_all_single(output: Tensor, input: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """As `all_to_all`, of one tensor that is cut into equal parts along its first dimension.

    Args:
        output: filled, of the shape and dtype of `input`.
        input: (size * n, ...).
        group, async_op: as in `all_reduce`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> size = dist.get_world_size()
    >>> received = cf.empty(2 * size)
    >>> dist.all_to_all_single(received, cf.arange(2.0 * size)); received
    tensor([0., 1.])
    >>> dist.destroy_process_group()
    """
    call = _Call("all_to_all_single", group, async_op)
    target, source, size = call.target(output, "output"), call.source(input, "input"), call.group.size
    if target.shape != source.shape or target.dtype != source.dtype:
        raise ValueError(
            f"all_to_all_single: output must be {source.dtype.name} {source.shape}, "
            f"got {target.dtype.name} {target.shape}"
        )
    if not source.ndim or source.shape[0] % size:
        raise ValueError(f"all_to_all_single: the first dimension must be a multiple of {size}, got {source.shape}")
    cut = (size, source.shape[0] // size, *source.shape[1:])
    xp = backend_of(source).xp
    rows = xp.empty(cut, source.dtype)
    call.after.insert(0, lambda: target.__setitem__(..., rows.reshape(target.shape)))
    return call.done(call.group.all_to_all(rows, source.reshape(cut), async_op))


def isend(tensor: Tensor, dst: int, group: Any = None, tag: int = 0) -> Work:
    """Start handing `tensor` to rank `dst`.

    Args:
        tensor: any shape and dtype; it must be left alone until the Work is over.
        dst, group, tag: as in `send`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> if dist.get_world_size() == 2:
    ...     x = cf.ones(3) * dist.get_rank()
    ...     work = dist.isend(x, 1) if dist.get_rank() == 0 else dist.irecv(x, 0)
    ...     assert work.wait() and x.tolist() == [0.0, 0.0, 0.0]
    >>> dist.destroy_process_group()
    """
    call = _Call("isend", group, True)
    peer = member("isend", call.group, dst, "dst")
    return call.group.send(call.source(tensor), peer, tag, True)


def irecv(tensor: Tensor, src: int, group: Any = None, tag: int = 0) -> Work:
    """Start filling `tensor` with what rank `src` sends.

    Args:
        tensor: of the shape and dtype of what comes; it must be left alone until the Work is over.
        src: a rank of the job.
        group, tag: as in `send`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> if dist.get_world_size() == 2:
    ...     x = cf.ones(3) * dist.get_rank()
    ...     work = dist.isend(x, 1) if dist.get_rank() == 0 else dist.irecv(x, 0)
    ...     assert work.wait() and x.tolist() == [0.0, 0.0, 0.0]
    >>> dist.destroy_process_group()
    """
    call = _Call("irecv", group, True)
    peer = member("irecv", call.group, src, "src")
    return _Handle(call.group.recv(call.target(tensor), peer, tag, True), call.after)


@dataclass
class P2POp:
    """A message for `batch_isend_irecv`.

    Args:
        op: `isend` or `irecv`.
        tensor: what is sent, or filled.
        peer: a rank of the job.
        group: by default the whole job.
        tag: must be 0: messages of a batch are matched by their order.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.P2POp(dist.isend, cf.ones(3), peer=1).peer
    1
    """

    op: Callable[..., Work]
    tensor: Tensor
    peer: int
    group: Any = None
    tag: int = 0


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Work]:
    """Start messages together, so that none waits for another; both sides of a message must give it in a batch.

    Args:
        p2p_op_list: of one group, in any order of peers.

    Returns:
        Handles; all messages are over when all of them have been waited for. With `nccl` it is one for all.

    Raises:
        TypeError, ValueError: something else was given; messages of different groups; a tag.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()
    >>> if dist.get_world_size() == 2:
    ...     x, y, other = cf.ones(3), cf.zeros(3), 1 - dist.get_rank()
    ...     for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, x, other), dist.P2POp(dist.irecv, y, other)]):
    ...         assert work.wait()
    >>> dist.destroy_process_group()
    """
    name = "batch_isend_irecv"
    ops = list(p2p_op_list)
    if not ops or not all(isinstance(op, P2POp) and op.op in (isend, irecv) for op in ops):
        raise TypeError(f"{name}: p2p_op_list must be P2POps of isend or irecv, and one at least")
    call = _Call(name, ops[0].group, True)
    messages = []
    for op in ops:
        if op.group is not ops[0].group or op.tag:
            raise ValueError(f"{name}: all messages must be of one group, and have no tag")
        array = call.source(op.tensor) if op.op is isend else call.target(op.tensor)
        messages.append(("send" if op.op is isend else "recv", array, member(name, call.group, op.peer, "peer")))
    *works, last = call.group.batch(messages)
    return [*works, _Handle(_All([*works, last]), call.after) if call.after else last]


def send(tensor: Tensor, dst: int, group: Any = None, tag: int = 0) -> None:
    """Hand `tensor` to rank `dst`; returns once the tensor may be changed, which may be before it was received.

    Args:
        tensor: any shape and dtype.
        dst: a rank of the job.
        group: by default the whole job.
        tag: must be the receiver's; messages between two ranks arrive in the order they were sent.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> if dist.get_world_size() == 2:
    ...     x = cf.ones(3) * dist.get_rank()
    ...     _ = dist.send(x, 1) if dist.get_rank() == 0 else dist.recv(x, 0)
    ...     assert x.tolist() == [0.0, 0.0, 0.0]  # what rank 0 had
    >>> dist.destroy_process_group()
    """
    call = _Call("send", group, False)
    call.group.send(call.source(tensor), member("send", call.group, dst, "dst"), tag)


def recv(tensor: Tensor, src: int, group: Any = None, tag: int = 0) -> int:
    """Fill `tensor` with what rank `src` sends, of the same shape, dtype and tag; returns `src`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> if dist.get_world_size() == 2:
    ...     x = cf.ones(3) * dist.get_rank()
    ...     _ = dist.send(x, 1) if dist.get_rank() == 0 else dist.recv(x, 0)
    ...     assert x.tolist() == [0.0, 0.0, 0.0]  # what rank 0 had
    >>> dist.destroy_process_group()
    """
    call = _Call("recv", group, False)
    call.done(call.group.recv(call.target(tensor), member("recv", call.group, src, "src"), tag))
    return src


def barrier(group: Any = None, async_op: bool = False) -> Work | None:
    """Wait until every rank has come here.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> dist.init_process_group()  # here a job of one
    >>> dist.barrier()
    >>> dist.destroy_process_group()
    """
    call = _Call("barrier", group, async_op)
    return call.done(call.group.barrier(async_op))


def broadcast_object(thing: Any = None, src: int = 0, group: Any = None) -> Any:
    """The object that rank `src` gave; nothing is pickled.

    Args:
        thing: on `src`: None, bool, int, float, str, bytes, lists, tuples and dicts of these, NumPy arrays and Tensors.

    Returns:
        On `src` the object itself, elsewhere a copy, with tensors on the CPU.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()
    >>> dist.broadcast_object({"epoch": 3})
    {'epoch': 3}
    >>> dist.destroy_process_group()
    """
    found = resolve("broadcast_object", group)
    root = member("broadcast_object", found, src, "src")
    data = np.frombuffer(objects.encode(thing), np.uint8) if found.rank == root else np.empty(0, np.uint8)
    if found.size == 1:
        return thing
    size = found.staged(np.array([data.size], np.int64))
    found.broadcast(size, root).wait()
    if found.rank != root:
        data = np.empty(int(size[0]), np.uint8)
    shared = found.staged(data)
    found.broadcast(shared, root).wait()
    return thing if found.rank == root else objects.decode(backend_of(shared).to_host(shared).tobytes())


def shared_empty(*size: Any, dtype: Any = None, group: Any = None) -> Tensor:
    """A Tensor with undefined values, in memory that the ranks of a group share: `all_reduce` moves half the bytes.

    All ranks of the group must call it with the same size and dtype, in the same order. `all_reduce` of the tensor, or
    of a contiguous part of it, must then be given the same part on all ranks. Where the backend shares no memory this
    is an ordinary tensor.

    Args:
        size: the shape, as numbers or as one tuple.
        dtype: by default the default dtype.
        group: by default the whole job.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()
    >>> tuple(dist.shared_empty(2, 3).shape)
    (2, 3)
    >>> dist.destroy_process_group()
    """
    shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    if any(not isinstance(n, (int, np.integer)) or n < 0 for n in shape):
        raise ValueError(f"shared_empty: size must be whole numbers from 0 on, got {shape}")
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    return Tensor(resolve("shared_empty", group).empty(tuple(map(int, shape)), kind))
