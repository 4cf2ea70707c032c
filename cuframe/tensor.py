"""Tensor: an array and its place in the graph.

The operations live in `cuframe.ops`, one file a family, and are attached as methods by `cuframe.ops.methods`. What
stands here is what makes a Tensor a Tensor: its array, its node, its gradient, and how NumPy sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .autograd.graph import Leaf, Node, Op, Output, mode, next_sequence, paused, watched
from .backend import Device, backend_of

__all__ = ["Parameter", "Tensor", "as_tensor_like", "record", "record_outputs"]


class Tensor:
    """A multi-dimensional array that can record the operations applied to it.

    Made with `cf.tensor`, the creation functions and operations. `Tensor(array)` wraps a NumPy or CuPy array without
    copying; `Tensor.array` is that array.

    >>> import numpy as np
    >>> import cuframe as cf
    >>> x = cf.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    >>> cf.Tensor(np.arange(3))
    tensor([0, 1, 2])
    """

    __slots__ = ("__dict__", "__weakref__", "array", "node")
    __array_priority__ = 1000

    def __init__(self, array: Any, node: Node | None = None) -> None:
        self.array = array
        self.node = node

    if TYPE_CHECKING:  # cuframe.ops.methods attaches these, and every operation as a method
        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...

    # -- what it is ---------------------------------------------------------------------------------------------
    @property
    def shape(self) -> Size:
        """The sizes of the dimensions.

        >>> import cuframe as cf
        >>> cf.ones(2, 3).shape
        cuframe.Size([2, 3])
        """
        return Size(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype.

        >>> import cuframe as cf
        >>> cf.ones(2).dtype, cf.arange(2).dtype
        (dtype('float32'), dtype('int64'))
        """
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions.

        >>> import cuframe as cf
        >>> cf.ones(2, 3).ndim
        2
        """
        return self.array.ndim

    @property
    def device(self) -> Device:
        """Where the array lives.

        >>> import cuframe as cf
        >>> cf.ones(2).device, cf.ones(2, device="sim").device
        (device(type='cpu'), device(type='sim', index=0))
        """
        return backend_of(self.array).device_of(self.array)

    @property
    def itemsize(self) -> int:
        """Bytes of one element.

        >>> import cuframe as cf
        >>> cf.ones(2).itemsize
        4
        """
        return self.array.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements.

        >>> import cuframe as cf
        >>> cf.ones(2, 3).nbytes
        24
        """
        return self.array.nbytes

    @property
    def is_cuda(self) -> bool:
        """True if the array lives on a CUDA device.

        >>> import cuframe as cf
        >>> cf.ones(2).is_cuda
        False
        """
        return self.device.type == "cuda"

    # -- autograd -----------------------------------------------------------------------------------------------
    @property
    def requires_grad(self) -> bool:
        """True if backward computes a gradient for this tensor.

        >>> import cuframe as cf
        >>> w = cf.ones(2, requires_grad=True)
        >>> w.requires_grad, (w * 2).requires_grad, w.detach().requires_grad
        (True, True, False)
        """
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Start (or stop) recording operations on this leaf; returns self.

        Raises:
            RuntimeError: the dtype is not floating point, or the tensor is the result of a recorded operation.

        >>> import cuframe as cf
        >>> cf.ones(2).requires_grad_()
        tensor([1., 1.], requires_grad=True)
        """
        if requires_grad:
            if self.node is None:
                if self.array.dtype.kind not in "fcV":
                    raise RuntimeError(
                        "requires_grad: the dtype must be floating point or complex, got "
                        f"{self.array.dtype.name}"
                    )
                if mode.inference:
                    raise RuntimeError("requires_grad_: not allowed on tensors inside cf.inference_mode()")
                leaf = Leaf(self.array.shape, self.array.dtype)
                leaf.grad = self.__dict__.pop("_grad", None)
                self.node = leaf
        elif self.node is not None:
            if not isinstance(self.node, Leaf):
                raise RuntimeError(
                    "requires_grad_(False) works on leaf tensors only; use detach() to cut a result off the graph"
                )
            if self.node.grad is not None:
                self.__dict__["_grad"] = self.node.grad
            self.node = None
        return self

    @property
    def is_leaf(self) -> bool:
        """True if no recorded operation made this tensor.

        >>> import cuframe as cf
        >>> w = cf.ones(2, requires_grad=True)
        >>> w.is_leaf, (w * 2).is_leaf
        (True, False)
        """
        return self.node is None or isinstance(self.node, Leaf)

    @property
    def grad_fn(self) -> Node | None:
        """The node of the operation that made this tensor; None for leaves.

        >>> import cuframe as cf
        >>> w = cf.ones(2, requires_grad=True)
        >>> w.grad_fn, (w * 2).grad_fn
        (None, <MulBackward0>)
        """
        node = self.node
        if node is None or isinstance(node, Leaf):
            return None
        return node.inputs[0] if isinstance(node, Output) else node

    @property
    def grad(self) -> Any:
        """The gradient accumulated by backward: a Tensor of this shape (or a sparse gradient), or None.

        >>> import cuframe as cf
        >>> w = cf.tensor([3.0], requires_grad=True)
        >>> (w * w).sum().backward()
        >>> w.grad
        tensor([6.])
        """
        node = self.node
        if isinstance(node, Leaf):
            return node.grad
        return self.__dict__.get("_grad")

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None and not getattr(value, "is_sparse", False):
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            if value.array.shape != self.array.shape:
                raise RuntimeError(
                    f"grad must have the tensor's shape {tuple(self.array.shape)}, got {tuple(value.array.shape)}"
                )
            if value.array.dtype != self.array.dtype:
                raise RuntimeError(
                    f"grad must have the tensor's dtype {self.array.dtype.name}, got {value.array.dtype.name}"
                )
            if value.device != self.device:
                raise RuntimeError(f"grad must be on the tensor's device {self.device}, got {value.device}")
        if isinstance(self.node, Leaf):
            self.node.grad = value
        else:
            self.__dict__["_grad"] = value

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add d(self)/d(leaf) times `gradient` to the `.grad` of every leaf this tensor depends on.

        Args:
            gradient: of this tensor's shape; may be left out where that is a single element.
            retain_graph: keep what the graph saved, for another backward; by default as `create_graph`.
            create_graph: record the backward pass itself, for higher derivatives.
            inputs: accumulate into these tensors only.

        Raises:
            RuntimeError: nothing was recorded, the graph's saved arrays were already freed, or one of them was
                changed in place since.

        >>> import cuframe as cf
        >>> w = cf.tensor([1.0, 2.0], requires_grad=True)
        >>> (w * w).backward(cf.tensor([1.0, 10.0]))
        >>> w.grad
        tensor([ 2., 40.])
        """
        from .autograd.engine import backward

        backward(self, gradient, retain_graph, create_graph, inputs)

    def detach(self) -> Tensor:
        """A tensor on the same memory that is cut off the graph.

        >>> import cuframe as cf
        >>> w = cf.ones(2, requires_grad=True)
        >>> (w * 2).detach()
        tensor([2., 2.])
        """
        return Tensor(self.array)

    def detach_(self) -> Tensor:
        """Cut this tensor off the graph; returns self.

        >>> import cuframe as cf
        >>> y = cf.ones(2, requires_grad=True) * 2
        >>> y.detach_()
        tensor([2., 2.])
        """
        if "_view" in self.__dict__:
            raise RuntimeError("detach_: a view cannot be detached in place; use detach()")
        self.node = None
        return self

    @property
    def data(self) -> Tensor:
        """The values without the graph, on the same memory. Assigning replaces the array.

        >>> import cuframe as cf
        >>> w = cf.ones(2, requires_grad=True)
        >>> w.data
        tensor([1., 1.])
        """
        return Tensor(self.array)

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data must be a Tensor, got {type(value).__name__}")
        self.array = value.array
        if isinstance(self.node, Leaf):
            self.node.shape, self.node.dtype = value.array.shape, value.array.dtype

    def retain_grad(self) -> None:
        """Keep this result's gradient in `.grad` when backward passes through.

        >>> import cuframe as cf
        >>> w = cf.tensor([3.0], requires_grad=True)
        >>> y = w * w
        >>> y.retain_grad()
        >>> y.sum().backward()
        >>> y.grad
        tensor([1.])
        """
        node = self.node
        if node is None:
            raise RuntimeError("retain_grad: the tensor does not require a gradient")
        if isinstance(node, Leaf) or self.__dict__.get("_retains"):
            return
        self.__dict__["_retains"] = True
        import weakref

        me = weakref.ref(self)

        def keep(g: Tensor) -> None:
            tensor = me()
            if tensor is not None:
                old = tensor.__dict__.get("_grad")
                tensor.__dict__["_grad"] = g if old is None else old + g

        node.add_hook("retain", keep)

    @property
    def retains_grad(self) -> bool:
        """True if `.grad` of this non-leaf is filled by backward.

        >>> import cuframe as cf
        >>> y = cf.ones(2, requires_grad=True) * 2
        >>> y.retains_grad
        False
        """
        return bool(self.__dict__.get("_retains"))

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `hook(gradient)` whenever a gradient for this tensor is computed; it may return a replacement.

        >>> import cuframe as cf
        >>> w = cf.ones(2, requires_grad=True)
        >>> _ = w.register_hook(lambda g: g * 10)
        >>> w.sum().backward()
        >>> w.grad
        tensor([10., 10.])
        """
        if self.node is None:
            raise RuntimeError("register_hook: the tensor does not require a gradient")
        return HookHandle(*self.node.add_hook("tensor", hook))

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> HookHandle:
        """Call `hook(self)` each time backward has added to this leaf's `.grad`.

        It runs as soon as the last contribution has arrived, while backward goes on.

        >>> import cuframe as cf
        >>> w = cf.ones(2, requires_grad=True)
        >>> _ = w.register_post_accumulate_grad_hook(lambda t: print("complete:", t.grad))
        >>> w.sum().backward()
        complete: tensor([1., 1.])
        """
        if not isinstance(self.node, Leaf):
            raise RuntimeError("register_post_accumulate_grad_hook: only leaf tensors that require a gradient have one")
        import weakref

        me = weakref.ref(self)

        def call() -> None:
            tensor = me()
            if tensor is not None:
                hook(tensor)

        first = not (self.node.meta or {}).get("post")
        handle = HookHandle(*self.node.add_hook("post", call))
        if first:
            Leaf.hooked += 1
            weakref.finalize(self.node, _leaf_unhooked)
        return handle

    # -- out of the framework -----------------------------------------------------------------------------------
    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The values as a NumPy array, on the same memory where the tensor lives on the CPU.

        Raises:
            RuntimeError: the tensor requires a gradient, or lives on another device (`force=True` copies it anyway).

        >>> import cuframe as cf
        >>> cf.arange(3).numpy()
        array([0, 1, 2])
        """
        if not force:
            if self.node is not None:
                raise RuntimeError("numpy: the tensor requires a gradient; use t.detach().numpy()")
            if not backend_of(self.array).host:
                raise RuntimeError(f"numpy: the tensor is on {self.device}; use t.cpu().numpy()")
        return backend_of(self.array).to_host(self.array)

    def item(self) -> Any:
        """The single element as a Python number.

        >>> import cuframe as cf
        >>> cf.tensor([2.5]).item()
        2.5
        """
        if self.array.size != 1:
            raise RuntimeError(f"item: needs a tensor with one element, got shape {tuple(self.array.shape)}")
        return self.array.item()

    def tolist(self) -> Any:
        """The values as (nested lists of) Python numbers.

        >>> import cuframe as cf
        >>> cf.tensor([[1, 2], [3, 4]]).tolist()
        [[1, 2], [3, 4]]
        """
        return self.array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        host = self.numpy()
        if copy is None:
            return np.asarray(host, dtype=dtype)
        return np.array(host, dtype=dtype, copy=copy)

    @property
    def __cuda_array_interface__(self) -> dict:
        interface = self.array.__cuda_array_interface__  # AttributeError on the CPU, as the protocol asks
        if self.node is not None:
            raise RuntimeError("__cuda_array_interface__: the tensor requires a gradient; use t.detach()")
        return interface

    def __dlpack__(self, **options: Any) -> Any:
        if self.node is not None:
            raise BufferError("__dlpack__: the tensor requires a gradient; use t.detach()")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from .ops.numpy_api import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        from .ops.numpy_api import call_function

        return call_function(func, args, kwargs)

    # -- Python -------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.array.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))  # type: ignore[attr-defined]  # one node for all: backward stays linear

    def __bool__(self) -> bool:
        if self.array.size != 1:
            shape = tuple(self.array.shape)
            raise RuntimeError(f"bool: needs a tensor with one element, got shape {shape}; ask any() or all()")
        return bool(self.array.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __round__(self, ndigits: int | None = None) -> Any:
        """`round(t)`: a tensor, to `ndigits` decimal places."""
        return self.round(decimals=ndigits or 0)  # type: ignore[attr-defined]

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.array.dtype.kind not in "iub":
            raise TypeError(f"only integer tensors of one element can be an index, got {self.array.dtype.name}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        if spec and self.array.ndim == 0:
            return format(self.item(), spec)
        return object.__format__(self, spec)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        from .tensor_repr import tensor_repr

        return tensor_repr(self)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("deepcopy: only leaf tensors can be copied deeply; detach() the result first")
        if id(self) in memo:
            return memo[id(self)]
        twin = type(self).__new__(type(self))
        twin.array, twin.node = self.array.copy(), None
        memo[id(self)] = twin
        if self.node is not None:
            twin.requires_grad_()
            if self.grad is not None:
                twin.grad = self.grad.clone()  # type: ignore[attr-defined]
        return twin

    def __reduce__(self) -> Any:
        # Multiprocess data loading passes tensors between processes of one user; files go through cf.save.
        if not self.is_leaf:
            raise RuntimeError("only leaf tensors can be pickled; detach() the result first")
        return _rebuild, (type(self), backend_of(self.array).to_host(self.array), self.requires_grad)


def _rebuild(cls: type[Tensor], array: np.ndarray, requires_grad: bool) -> Tensor:
    twin = cls.__new__(cls)
    twin.array, twin.node = array, None
    return twin.requires_grad_(requires_grad)


def _leaf_unhooked() -> None:
    Leaf.hooked -= 1


class Parameter(Tensor):
    """A Tensor that a Module finds by itself when it is assigned to one of its attributes.

    Args:
        data: a Tensor or an array, which it shares, or numbers, as float32.
        requires_grad: record what is done with it.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = nn.Parameter(cf.ones(2))
    >>> [name for name, _ in Scale().named_parameters()]
    ['factor']
    """

    __slots__ = ()

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        if data is None:
            data = np.empty(0, np.float32)
        array = data.array if isinstance(data, Tensor) else data
        if not hasattr(array, "dtype"):
            try:
                array = np.asarray(array, np.float32)
            except (TypeError, ValueError):
                raise TypeError(f"Parameter: data must be a Tensor, an array or numbers, got {data!r:.60}") from None
        super().__init__(array)
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Size(tuple):
    """The shape of a tensor: a tuple with `numel()`.

    >>> import cuframe as cf
    >>> shape = cf.ones(2, 3).shape
    >>> shape, shape.numel(), shape == (2, 3)
    (cuframe.Size([2, 3]), 6, True)
    """

    __slots__ = ()

    def numel(self) -> int:
        """The product of the sizes."""
        count = 1
        for size in self:
            count *= size
        return count

    def __getitem__(self, index: Any) -> Any:
        sizes = tuple.__getitem__(self, index)
        return Size(sizes) if index.__class__ is slice else sizes

    def __repr__(self) -> str:
        return f"cuframe.Size({list(self)})"


class HookHandle:
    """Removes a hook: call `remove()`, or use it as a context manager."""

    def __init__(self, hooks: dict, key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Drop the hook; more than once does no harm."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def record(array: Any, op: Op, inputs: tuple[Tensor | None, ...], saved: tuple) -> Tensor:
    """The result of an operation as a Tensor, with its node if any input requires a gradient.

    Args:
        array: the result.
        op: what backward is to do.
        inputs: the operation's tensors in the order of the gradients that `op.vjp` returns.
        saved: what `op.vjp` receives after `g` and `needs`, in the order of `op.saves`.
    """
    if not paused or mode.grad:
        nodes = tuple([None if t is None else t.node for t in inputs])
        for node in nodes:
            if node is not None:
                fresh = Node(next_sequence(), op, nodes, saved)
                if watched:
                    anomaly_check(fresh, array)
                return Tensor(array, fresh)
    return Tensor(array)


def record_outputs(
    arrays: tuple, op: Op, inputs: tuple[Tensor | None, ...], saved: tuple, differentiable: int | None = None
) -> list[Tensor]:
    """As `record`, for several outputs; only the first `differentiable` of them (default all) carry gradients."""
    outs = [Tensor(a) for a in arrays]
    if not paused or mode.grad:
        nodes = tuple([None if t is None else t.node for t in inputs])
        if any(node is not None for node in nodes):
            parent = Node(next_sequence(), op, nodes, saved)
            if watched:
                anomaly_check(parent, *arrays)
            for i, out in enumerate(outs[:differentiable]):
                out.node = Output(next_sequence(), OUTPUT, (parent,), (i, len(outs)))
    return outs


def _output_vjp(g: Any, needs: tuple, i: int, n: int) -> tuple:
    raise AssertionError("the engine routes output gradients itself")


OUTPUT = Op("output", _output_vjp, (None, None))


def anomaly_check(node: Node, *arrays: Any) -> None:
    """In anomaly mode: keep the forward stack, and raise if an output holds NaN."""
    if mode.anomaly:
        from .autograd.anomaly import check_forward

        check_forward(node, arrays)


def as_tensor_like(value: Any, like: Tensor) -> Tensor:
    """`value` (number, list, array or Tensor) as a Tensor on the device of `like`."""
    if isinstance(value, Tensor):
        return value
    return Tensor(backend_of(like.array).asarray(value, like.array))
