"""Gradients in flat buffers, which the ranks average while backward still runs.

Note [Buckets]
    Every parameter's `.grad` is a view of a bucket: a flat buffer for parameters of one dtype and device. When the last
    gradient of a bucket has arrived (post-accumulate hooks tell), its all-reduce starts in the group's own thread or
    stream. Buckets start in their order, the same on all ranks, whichever is complete first.

Note [Order of buckets]
    What is not hidden behind backward is the all-reduce of the last bucket, which cannot start before the last gradient
    is there. So that one is small, and the first as well, so that the network has something to do early. Before
    anything is known, gradients are expected in the reverse order of the parameters; after the first backward the
    buckets are made anew in the order in which rank 0 saw them come. Each element is the sum of the ranks' in their
    order, wherever it lies, so this changes no bit of the result.

Note [Unused parameters]
    With `find_unused_parameters` a forward notes which parameters its outputs lead to. The others count as arrived as
    soon as backward starts, with zeros, or what they have from before. At the end the ranks tell each other what each
    has used: a parameter that no rank used keeps its `.grad` as it was.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ...autograd import versions
from ...autograd.engine import end_of_backward
from ...autograd.graph import Leaf
from ...backend import Device, backend_for
from ...distributed import ProcessGroup, ReduceOp, all_reduce
from ...tensor import Tensor
from .agreement import all_max, broadcast_array

__all__ = ["GradBucket", "Reducer", "assign"]

SMALL = 1 << 20  # bytes of the first and the last bucket
_ALIGN = 64  # bytes: each view starts at a cache line
_SHARED = 1 << 16  # bytes from which a bucket is worth memory of its own that the ranks share


def assign(
    sizes: Sequence[tuple[Any, int]], order: Iterable[int], cap: int, first: int = SMALL, last: int = 0
) -> list[list[int]]:
    """Which parameters share a bucket.

    Args:
        sizes: of each parameter a key, which all of a bucket share, and its bytes.
        order: the parameters in the order in which their gradients come.
        cap: bytes at which a bucket is full.
        first: the same for the first bucket of each key.
        last: the most that the bucket of the last gradient holds, unless that gradient alone is larger; 0 for no
            bucket of its own.

    Returns:
        The parameters of each bucket; the bucket that is complete first is the first.

    >>> assign([("f", 4), ("f", 4), ("d", 8), ("f", 4)], [3, 2, 1, 0], cap=8, first=4)
    [[3], [2], [1, 0]]
    """
    rest = list(order)
    tail: list[int] = []
    size = 0
    while last and rest and (not tail or sizes[rest[-1]][0] == sizes[tail[0]][0]):
        size += sizes[rest[-1]][1]
        if tail and size > last:
            break
        tail.insert(0, rest.pop())
    buckets: list[list[int]] = []
    open_: dict[Any, tuple[list[int], int]] = {}
    full: set[Any] = set()
    for i in rest:
        key, nbytes = sizes[i]
        members, held = open_.pop(key, ([], 0))
        members.append(i)
        if held + nbytes >= (cap if key in full else min(first, cap)):
            buckets.append(members)
            full.add(key)
        else:
            open_[key] = (members, held + nbytes)
    buckets += [members for members, _ in open_.values()]
    place = {i: at for at, i in enumerate(rest)}
    buckets.sort(key=lambda members: place[members[-1]])
    return [*buckets, tail] if tail else buckets


class _Slot:
    """A parameter's place: its view of a bucket, and what has become of its gradient."""

    __slots__ = ("bucket", "leaf", "name", "number", "param", "ready", "used", "view")

    def __init__(self, number: int, name: str, param: Tensor) -> None:
        self.number = number
        self.name = name
        self.param = param
        assert isinstance(param.node, Leaf)
        self.leaf = param.node
        self.bucket: GradBucket
        self.view: Tensor
        self.ready = 0  # the last backward in which its gradient came, or was not waited for
        self.used = False  # has got a gradient since the last reduction


class GradBucket:
    """The gradients that are communicated together: what a communication hook is given.

    Made by `DistributedDataParallel`; see `register_comm_hook`.

    >>> import cuframe as cf, cuframe.distributed as dist
    >>> from cuframe import nn
    >>> from cuframe.nn.parallel import DistributedDataParallel, hooks
    >>> dist.init_process_group()  # here a job of one
    >>> model = DistributedDataParallel(nn.Linear(2, 1, bias=False))
    >>> def hook(state, bucket):
    ...     print(bucket.index(), bucket.is_last(), bucket.gradients())
    ...     return hooks.allreduce_hook(state, bucket)
    >>> model.register_comm_hook(None, hook)
    >>> model(cf.ones(1, 2)).sum().backward()
    0 True [tensor([[1., 1.]])]
    >>> dist.destroy_process_group()
    """

    def __init__(self, index: int, slots: list[_Slot], flat: Tensor, last: bool, extra: int) -> None:
        self._index = index
        self._slots = slots
        self._flat = flat
        self._last = last
        self._extra = extra
        self._pending = len(slots) + extra  # gradients that have not come
        self._outcome: Any = None  # what has to be waited for

    def index(self) -> int:
        """Its place in the order in which buckets are communicated."""
        return self._index

    def buffer(self) -> Tensor:
        """All gradients as one vector; a few elements between them are zeros."""
        return self._flat

    def set_buffer(self, buffer: Tensor) -> None:
        """Replace the values of the vector."""
        self._flat.array[...] = buffer.array

    def gradients(self) -> list[Tensor]:
        """Each parameter's part of the vector, in its shape, on the same memory."""
        return [slot.view for slot in self._slots]

    def parameters(self) -> list[Tensor]:
        """The parameters, in the order of `gradients`."""
        return [slot.param for slot in self._slots]

    def is_last(self) -> bool:
        """True for the last bucket of a backward."""
        return self._last


def _fits(gradient: Any, place: Any) -> bool:
    """Whether a gradient can be copied to its place without changing its meaning."""
    return (gradient.__class__ is place.__class__ and gradient.dtype == place.dtype
            and gradient.device == place.device)  # fmt: skip


def _zeros(size: int, dtype: np.dtype, device: Device, group: ProcessGroup) -> Any:
    """`size` zeros, in host memory from the start of a cache line; where ranks share memory, in that."""
    if group.host and group.size > 1 and backend_for(device).host and size * dtype.itemsize >= _SHARED:
        shared = group.empty((size,), dtype)
        shared[...] = 0
        return shared
    pad = _ALIGN // dtype.itemsize
    memory = backend_for(device).empty((size + pad,), dtype, device)
    memory[...] = 0
    start = -memory.ctypes.data % _ALIGN // dtype.itemsize if isinstance(memory, np.ndarray) else 0
    return memory[start : start + size]


class Reducer:
    """Keeps gradients in buckets and averages them over a group.

    Args:
        named: the parameters, in the same order on all ranks.
        group: the ranks.
        cap: bytes of a bucket.
        find_unused: parameters may be left without a gradient, others in every backward.
        static: as `find_unused`, but always the same ones.
        delayed: names of parameters whose bucket waits for the parameter `trigger`.
    """

    def __init__(
        self, named: Sequence[tuple[str, Tensor]], group: ProcessGroup, cap: int, find_unused: bool = False,
        static: bool = False, delayed: Iterable[str] = (), trigger: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.group = group
        self._direct = not group.host or backend_for(named[0][1].device).host
        self.hook: tuple[Any, Callable[[Any, GradBucket], Any]] | None = None
        self.sync = False  # the last forward asked for a reduction
        self.divisor = 0  # instead of the group's size
        self.completed = 0
        self._cap = cap
        self._find_unused = find_unused
        self._static = static
        self._slots = [_Slot(i, name, param) for i, (name, param) in enumerate(named)]
        self._by_leaf = {id(slot.leaf): slot for slot in self._slots}
        names = set(delayed)
        self._delayed = [slot.number for slot in self._slots if slot.name in names]
        self._trigger = next((slot for slot in self._slots if slot.param is trigger), None)
        self._reachable: set[int] | None = None  # what the forwards since the last reduction lead to
        self._known: tuple[set[int], np.ndarray] | None = None  # of a static graph: unused here; used anywhere
        self._arrivals: list[int] = []
        self._started = False
        self._pass = 1  # the number of the backward under way
        self._left = len(self._slots)  # gradients that have not come
        self._next = 0  # the bucket to start next
        self._rebuilt = False
        ordinary = [slot.number for slot in reversed(self._slots) if slot.name not in names]
        self._build(assign(self._sizes(), ordinary, cap))
        handles = []
        me = weakref.ref(self)
        for slot in self._slots:
            handles.append(slot.param.register_post_accumulate_grad_hook(functools.partial(_arrived, me, slot.number)))
        weakref.finalize(self, _remove, handles)

    # -- buckets ------------------------------------------------------------------------------------------------
    def _sizes(self) -> list[tuple[Any, int]]:
        return [((s.param.dtype, s.param.device), s.param.nbytes) for s in self._slots]

    def _build(self, plan: list[list[int]]) -> None:
        """New buckets; gradients that lie in the old ones move."""
        if self._delayed:
            plan = plan + assign(self._sizes(), self._delayed, self._cap, self._cap)
        buckets = []
        for index, numbers in enumerate(plan):
            slots = [self._slots[i] for i in numbers]
            dtype, device = slots[0].param.dtype, slots[0].param.device
            step = _ALIGN // dtype.itemsize or 1
            starts = [0]
            for slot in slots:
                starts.append(starts[-1] + -(-slot.param.numel() // step) * step)  # type: ignore[attr-defined]
            flat = _zeros(starts[-1], dtype, device, self.group)
            extra = int(self._trigger is not None and numbers[0] in self._delayed)
            bucket = GradBucket(index, slots, Tensor(flat), index == len(plan) - 1, extra)
            for slot, start in zip(slots, starts):
                shape = slot.param.array.shape
                view = Tensor(flat[start : start + math.prod(shape)].reshape(shape))
                grad = slot.leaf.grad
                if grad is not None and hasattr(slot, "view") and grad is slot.view:
                    view.array[...] = grad.array
                    slot.leaf.grad = view
                slot.view, slot.bucket = view, bucket
            buckets.append(bucket)
        self.buckets = buckets

    def _rebuild(self, order: list[int]) -> None:
        self._rebuilt = True
        if len(self.buckets) - bool(self._delayed) < 2:
            return
        like = self._slots[0].param
        agreed = broadcast_array(np.array(order, np.int64), 0, self.group, like).tolist()
        held = set(self._delayed)
        self._build(assign(self._sizes(), [i for i in agreed if i not in held], self._cap, last=min(SMALL, self._cap)))

    # -- a backward ---------------------------------------------------------------------------------------------
    def arm(self, sync: bool) -> None:
        """A forward begins, whose gradients are to be averaged (`sync`) or kept for later."""
        if self._started:  # an error ended the backward before this
            self._reset()
        self.sync = sync

    def note_outputs(self, outputs: Iterable[Tensor]) -> None:
        """Note which parameters these lead to; see Note [Unused parameters]."""
        if self._reachable is None:
            self._reachable = set()
        seen: set[int] = set()
        stack = [t.node for t in outputs if t.node is not None]
        while stack:
            node = stack.pop()
            if node.seq in seen:
                continue
            seen.add(node.seq)
            if isinstance(node, Leaf):
                slot = self._by_leaf.get(id(node))
                if slot is not None:
                    self._reachable.add(slot.number)
            stack.extend([edge for edge in node.inputs if edge is not None])

    def arrived(self, number: int) -> None:
        """The gradient of a parameter is complete."""
        slot = self._slots[number]
        grad, view = slot.leaf.grad, slot.view
        if grad is not view:
            if grad.__class__ is not Tensor or grad.node is not None or not _fits(grad.array, view.array):
                self._check(slot)
            view.array[...] = grad.array
            slot.leaf.grad = view
        slot.used = True
        if not self.sync:
            return
        if not self._started:
            self._begin()
        if slot.ready == self._pass:
            raise RuntimeError(
                f"DistributedDataParallel: parameter {slot.name!r} received a gradient after it was taken for unused: "
                + ("with static_graph=True every backward must use the same parameters" if self._static else
                   "the output of the last forward does not lead to it")
            )  # fmt: skip
        if not self._rebuilt:
            self._arrivals.append(number)
        self._mark(slot)
        if slot is self._trigger:
            for bucket in self.buckets:
                bucket._pending -= bucket._extra
            self._start(len(self.buckets) - 1)

    def _check(self, slot: _Slot) -> None:
        """Raise where a gradient cannot become part of its bucket."""
        grad = slot.leaf.grad
        if getattr(grad, "is_sparse", False):
            raise RuntimeError(
                f"DistributedDataParallel: parameter {slot.name!r} has a sparse gradient, and only dense ones are "
                "averaged (Embedding with sparse=False has one)"
            )
        if grad.node is not None:
            raise RuntimeError(
                f"DistributedDataParallel: the gradient of parameter {slot.name!r} is itself recorded "
                "(create_graph=True), which is lost when it is averaged; use autograd.grad for such a gradient"
            )
        if grad.array.dtype != slot.view.array.dtype or grad.device != slot.view.device:
            raise RuntimeError(
                f"DistributedDataParallel: parameter {slot.name!r} was {slot.view.array.dtype.name} on "
                f"{slot.view.device} when it was wrapped, now its gradient is {grad.array.dtype.name} on "
                f"{grad.device}; move and cast the module before wrapping it"
            )

    def _begin(self) -> None:
        self._started = True
        end_of_backward(self._finish, outermost=True)
        if self._known is not None:
            unused = self._known[0]
        elif self._reachable is not None:
            unused = {s.number for s in self._slots} - self._reachable
        else:
            return
        for number in sorted(unused):
            self._leave_out(self._slots[number])

    def _leave_out(self, slot: _Slot) -> None:
        """Count a parameter as arrived, with what it has from before, or zeros."""
        grad = slot.leaf.grad
        if grad is None:
            slot.view.array[...] = 0
        elif grad is not slot.view:
            self._check(slot)
            slot.view.array[...] = grad.array
            slot.leaf.grad = slot.view
        self._mark(slot)

    def _mark(self, slot: _Slot) -> None:
        slot.ready = self._pass
        self._left -= 1
        bucket = slot.bucket
        bucket._pending -= 1
        if not bucket._pending:
            # The last one waits for the end of backward, which is near: there it needs no other thread.
            self._start(len(self.buckets) - 1)

    def _start(self, end: int) -> None:
        """Start the complete buckets whose turn it is, up to `end`."""
        while self._next < end and not self.buckets[self._next]._pending:
            self._communicate(self.buckets[self._next], True)
            self._next += 1

    def _communicate(self, bucket: GradBucket, background: bool) -> None:
        if self.hook is not None:
            bucket._outcome = self.hook[1](self.hook[0], bucket)
        elif self.group.size > 1:
            op = ReduceOp.SUM if self.divisor else ReduceOp.AVG
            if self._direct:  # that the vector was written is noted once, at the end
                bucket._outcome = self.group.all_reduce(bucket._flat.array, op, background)
            else:
                bucket._outcome = all_reduce(bucket._flat, op, self.group, async_op=background)

    def _complete(self, bucket: GradBucket) -> None:
        outcome, bucket._outcome = bucket._outcome, None
        result = outcome.wait() if hasattr(outcome, "wait") else outcome
        if isinstance(result, Tensor) and result is not bucket._flat:
            bucket.set_buffer(result)
        if self.divisor and self.hook is None:
            bucket._flat.array[...] /= self.divisor
        if self.group.size > 1:
            versions.written(bucket._flat.array, "DistributedDataParallel (averaging gradients)")

    def _finish(self) -> None:
        """Backward is over: start what is left, and wait for all."""
        missing = [slot for slot in self._slots if slot.ready != self._pass] if self._left else []
        first = self._static and self._known is None
        if missing and not (self._find_unused or first):
            self._reset()
            names = ", ".join(repr(s.name) for s in missing[:8]) + (", ..." if len(missing) > 8 else "")
            advice = (
                "with static_graph=True every backward must use the same parameters" if self._static else
                "pass find_unused_parameters=True if a loss may leave parameters out"
            )  # fmt: skip
            raise RuntimeError(
                f"DistributedDataParallel: parameter{'s' * (len(missing) > 1)} {names} received no gradient in this "
                f"backward; {advice}"
            )
        for slot in missing:
            self._leave_out(slot)
        self._average()
        if first:
            assert self._known is not None
            self._known = ({slot.number for slot in missing}, self._known[1])

    def shadow(self) -> None:
        """Take part in the reduction of ranks that still have inputs, with zeros."""
        for bucket in self.buckets:
            bucket._flat.array[...] = 0
            bucket._pending = 0
        for slot in self._slots:
            slot.used = False
        self._average()

    def _average(self) -> None:
        """Communicate what is left, wait for all, and hand out the gradients."""
        last = len(self.buckets) - 1
        self._start(last)
        for bucket in self.buckets[self._next :]:
            self._communicate(bucket, False)
        anywhere: Any = None
        if self._known is not None:
            anywhere = self._known[1]
        elif self._find_unused or self._static:
            used = np.array([slot.used for slot in self._slots], np.uint8)
            anywhere = all_max(used, self.group, self._slots[0].param)
            if self._static:
                self._known = (set(), anywhere)
        for bucket in self.buckets:
            self._complete(bucket)
        for slot in self._slots:
            if slot.leaf.grad is not slot.view and (anywhere is None or anywhere[slot.number]):
                slot.leaf.grad = slot.view
            slot.used = False
        order = self._arrivals
        self._reset()
        self.completed += 1
        if not self._rebuilt:
            came = set(order)
            self._rebuild(order + [slot.number for slot in reversed(self._slots) if slot.number not in came])

    def _reset(self) -> None:
        self._started, self._next, self._arrivals, self._reachable = False, 0, [], None
        self._pass += 1
        self._left = len(self._slots)
        for bucket in self.buckets:
            bucket._pending, bucket._outcome = len(bucket._slots) + bucket._extra, None


def _arrived(reducer: weakref.ref[Reducer], number: int, param: Tensor) -> None:
    found = reducer()
    if found is not None:
        found.arrived(number)


def _remove(handles: list) -> None:
    for handle in handles:
        handle.remove()
