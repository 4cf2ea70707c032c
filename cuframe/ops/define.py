"""How an operation is defined: one factory for each common form, and `record` for everything else.

Note [One formula, arrays and Tensors]
    Forwards and vjps are written with operators and plain `np` functions. NumPy arrays take them as they are, CuPy
    arrays through NumPy's protocols, and Tensors through `Tensor.__array_ufunc__` and `__array_function__`, which
    look up `UFUNCS` and `FUNCTIONS` here. So no formula names a device, and a vjp that runs on Tensors under
    `create_graph` is differentiated by the very operations it uses.

Note [Warnings]
    PyTorch gives inf and NaN silently. NumPy would warn from our frames, so `cuframe.ops` silences RuntimeWarning for
    its own modules, and only there: `np.errstate` around each call would cost more than the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.graph import Node, Op, mode, next_sequence, paused, watched
from ..backend import backend_of, is_array
from ..dtypes import get_default_dtype, is_floating, result_type
from ..tensor import Tensor, anomaly_check, record, record_outputs

__all__ = [
    "FUNCTIONS", "UFUNCS", "Op", "as_operands", "as_result", "binary", "cast", "fit", "need_tensor", "numpy_name",
    "record", "record_outputs", "unary", "zeros_like",
]  # fmt: skip

UFUNCS: dict[Any, Callable] = {}
FUNCTIONS: dict[Any, Callable] = {}


def numpy_name(*functions: Any) -> Callable:
    """Decorator: this operation serves these NumPy ufuncs and functions when they meet a Tensor."""

    def register(operation: Callable) -> Callable:
        for f in functions:
            (UFUNCS if isinstance(f, np.ufunc) else FUNCTIONS)[f] = operation
        return operation

    return register


def need_tensor(name: str, argument: str, value: Any) -> None:
    """Raise TypeError unless `value` is a Tensor."""
    if not isinstance(value, Tensor):
        layer = isinstance(value, tuple) and len(value) > 0 and isinstance(value[0], Tensor)
        hint = "; a recurrent layer gives its output and its state" if layer else ""
        raise TypeError(f"{name}: {argument} must be a Tensor, got {type(value).__name__}{hint}")


def as_result(r: Any, x: Any) -> Any:
    """`r` as an array of the kind of `x`: NumPy gives scalars where PyTorch gives 0-d tensors."""
    return r if r.__class__ is x.__class__ else backend_of(x).asarray(r, x)


def zeros_like(x: Any, shape: tuple) -> Any:
    """Zeros of a shape, which may be (), beside `x` and of its dtype: CuPy's `zeros_like` takes () for no shape."""
    return np.zeros_like(x, shape=shape or (1,)).reshape(shape)


def fit(g: Any, like: Any) -> Any:
    """Sum `g` over the dimensions that broadcasting added to an input; `like` is that input or its shape."""
    shape = like if like.__class__ is tuple else like.shape
    if g.shape == shape:
        return g
    extra = len(g.shape) - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, size in enumerate(shape) if size == 1 and g.shape[i + extra] != 1
    )
    if axes:
        g = g.sum(axis=axes, keepdims=True)
    return g.reshape(shape)


def _cast_vjp(g: Any, needs: tuple, dtype: Any) -> tuple:
    return (g.astype(dtype),)


_CAST = Op("to_copy", _cast_vjp, (None,))


def cast(t: Tensor, dtype: np.dtype) -> Tensor:
    """`t` in another dtype; `t` itself where it has it. The gradient is cast back (none through integers)."""
    old = t.array.dtype
    if old == dtype:
        return t
    if t.node is None or dtype.kind in "iub":
        return Tensor(t.array.astype(dtype))
    return record(t.array.astype(dtype), _CAST, (t,), (old,))


def as_operands(name: str, a: Any, b: Any, floating: bool = False) -> tuple[Tensor, Tensor]:
    """Two operands, at least one of them a Tensor, as Tensors of one dtype on one device.

    Raises:
        TypeError: an operand is neither tensor, array nor number.
        RuntimeError: they live on different devices.
    """
    a_is, b_is = isinstance(a, Tensor), isinstance(b, Tensor)
    if not (a_is and b_is):
        if not a_is and not b_is:
            raise TypeError(f"{name}: expected a Tensor, got {type(a).__name__} and {type(b).__name__}")
        other = b if a_is else a
        if isinstance(other, np.generic) or not isinstance(other, (bool, int, float, complex)) and is_array(other):
            other = Tensor(np.asanyarray(other) if isinstance(other, np.generic) else other)
            a, b = (a, other) if a_is else (other, b)
        elif not isinstance(other, (bool, int, float, complex)):
            which = "second" if a_is else "first"
            raise TypeError(f"{name}: the {which} operand must be a Tensor or a number, got {type(other).__name__}")
    dtype = result_type(a, b)
    if floating and dtype.kind in "iub":
        dtype = get_default_dtype()
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.array.__class__ is not b.array.__class__:
        da, db = a.device, b.device
        if da != db:
            if a.array.ndim and b.array.ndim:
                raise RuntimeError(f"{name}: tensors must be on one device, got {da} and {db}")
            if b.array.ndim == 0:
                b = Tensor(backend_of(a.array).asarray(b.array.item(), a.array)) if b.node is None else b.to(da)
            else:
                a = Tensor(backend_of(b.array).asarray(a.array.item(), b.array)) if a.node is None else a.to(db)
    a_out = cast(a, dtype) if isinstance(a, Tensor) else Tensor(backend_of(b.array).asarray(a, b.array).astype(dtype))
    b_out = cast(b, dtype) if isinstance(b, Tensor) else Tensor(backend_of(a.array).asarray(b, a.array).astype(dtype))
    return a_out, b_out


def unary(
    name: str,
    forward: Callable,
    vjp: Callable,
    saves: tuple = (0,),
    doc: str = "",
    floating: bool = True,
) -> Callable[[Tensor], Tensor]:
    """An elementwise operation of one tensor.

    Args:
        forward: array -> array, a ufunc where there is one (it is then served to Tensors, too).
        vjp: `vjp(g, needs, *saved)`.
        saves: `(0,)` the input, `("out",)` the result, both, or `()`.
        floating: integers and bools are cast to the default dtype first.
    """
    op = Op(name, vjp, saves)
    keep_input, keep_out = 0 in saves, "out" in saves

    def operation(input: Tensor) -> Tensor:
        try:
            x = input.array
        except AttributeError:
            raise TypeError(f"{name}: input must be a Tensor, got {type(input).__name__}") from None
        if floating and x.dtype.kind in "iub":
            x = x.astype(get_default_dtype())
        r = forward(x)
        if r.__class__ is not x.__class__:
            r = as_result(r, x)
        node = input.node
        if node is not None and (not paused or mode.grad):
            if keep_input:
                saved: tuple = (x, r) if keep_out else (x,)
            else:
                saved = (r,) if keep_out else ()
            node = Node(next_sequence(), op, (node,), saved)
            if watched:
                anomaly_check(node, r)
            return Tensor(r, node)
        return Tensor(r)

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = doc
    if isinstance(forward, np.ufunc):
        UFUNCS.setdefault(forward, operation)
    return operation


def binary(
    name: str,
    forward: Callable,
    vjp: Callable | None,
    saves: tuple = (0, 1),
    doc: str = "",
    floating: bool = False,
) -> Callable[[Any, Any], Tensor]:
    """An elementwise operation of two operands with broadcasting and promotion.

    Args:
        forward: the NumPy ufunc.
        vjp: `vjp(g, needs, x, y)`, or `vjp(g, needs, x, y, out)`; None for results without gradient (comparisons).
            It must need x only for the second gradient and y only for the first, unless `saves` says otherwise; what
            it does not need it receives as a shape, and a Python number operand as that number.
        saves: `()` shapes only; `(0, 1)` x for y's gradient and y for x's, as a product does; `(0, 1, 1)` y for
            both, as a quotient does; `(0, 0, 1, 1)` both for both; with `"out"` at the end the result as well.
        floating: integers and bools are cast to the default dtype first.
    """
    keep_out = "out" in saves
    op = Op(name, vjp, (0, 1, "out") if keep_out else (0, 1)) if vjp else None
    keep = bool(saves)
    x_always, y_always = saves.count(0) > 1, saves.count(1) > 1

    def operation(input: Any, other: Any) -> Tensor:
        kind = other.__class__
        if kind is not Tensor or input.__class__ is not Tensor:
            if (kind is float or kind is int) and isinstance(input, Tensor) and input.array.dtype.kind == "f":
                return with_number(input, other)
            if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
                input, other = as_operands(name, input, other, floating)
        x = input.array
        y = other.array
        if x.dtype is not y.dtype or x.__class__ is not y.__class__ or (floating and x.dtype.kind in "iub"):
            input, other = as_operands(name, input, other, floating)
            x = input.array
            y = other.array
        try:
            r = forward(x, y)
        except ValueError as error:
            raise shape_error(name, x, y, error) from None
        if r.__class__ is not x.__class__:
            r = as_result(r, x)
        if op is not None:
            a = input.node
            b = other.node
            if (a is not None or b is not None) and (not paused or mode.grad):
                if keep:
                    x = x if x_always or b is not None else x.shape
                    y = y if y_always or a is not None else y.shape
                    saved: tuple = (x, y, r) if keep_out else (x, y)
                else:
                    saved = (x.shape, y.shape)
                node = Node(next_sequence(), op, (a, b), saved)
                if watched:
                    anomaly_check(node, r)
                return Tensor(r, node)
        return Tensor(r)

    def with_number(input: Tensor, other: float) -> Tensor:
        # A Python number takes the tensor's dtype, so it needs no array of its own.
        x = input.array
        r = forward(x, other)
        if r.__class__ is not x.__class__:
            r = as_result(r, x)
        a = input.node
        if op is None or a is None or (paused and not mode.grad):
            return Tensor(r)
        x = x if x_always else x.shape
        node = Node(next_sequence(), op, (a, None), (x, other, r) if keep_out else (x, other))
        if watched:
            anomaly_check(node, r)
        return Tensor(r, node)

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = doc
    if isinstance(forward, np.ufunc):
        UFUNCS.setdefault(forward, operation)
    return operation


def shape_error(name: str, x: Any, y: Any, error: Exception) -> Exception:
    """A broadcasting failure in terms of the operation and the two shapes; any other error as it was."""
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return RuntimeError(f"{name}: shapes {tuple(x.shape)} and {tuple(y.shape)} cannot be broadcast together")
    return error


def is_number(value: Any) -> bool:
    """True for Python and NumPy scalars."""
    return isinstance(value, (bool, int, float, complex, np.generic))


def check_floating(name: str, argument: str, t: Tensor) -> None:
    """Raise TypeError unless `t` is floating point."""
    need_tensor(name, argument, t)
    if not is_floating(t.array.dtype):
        raise TypeError(f"{name}: {argument} must be floating point, got {t.array.dtype.name}")
