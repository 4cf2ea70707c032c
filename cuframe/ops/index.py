"""Indexing: `t[...]` and writing through it. The functions that gather and scatter stand in `gather.py`.

Note [Indexing in two steps]
    NumPy lets an integer beside an index array take part in their broadcasting, which moves dimensions; PyTorch does
    not. So an index is taken apart: integers, slices, None and Ellipsis make a view first, and index arrays and masks
    then pick from that view. A basic index alone is the view itself.
"""

from __future__ import annotations

import math
from operator import index as _as_int
from typing import Any

import numpy as np

from ..autograd import versions
from ..autograd.graph import Node, mode, next_sequence, watched
from ..autograd.region import Region
from ..backend import backend_of
from ..tensor import Tensor, anomaly_check
from .define import Op, fit, record
from .inplace import check_followed, check_writable, follow, view

__all__ = ["getitem", "setitem"]

_FULL = slice(None)
_INT_OR_NONE = (int, type(None))


# -- taking an index apart ----------------------------------------------------------------------------------------
def _slice(name: str, s: slice) -> slice:
    """A slice of plain ints; PyTorch has no negative steps."""
    start, stop, step = [None if v is None else _as_int(v) for v in (s.start, s.stop, s.step)]
    if step is not None and step <= 0:
        raise ValueError(f"{name}: slice step must be positive, got {step}; use flip() to reverse")
    return slice(start, stop, step)


def _array_item(name: str, item: Any, x: Any) -> Any:
    """An index array beside `x`: int64 or bool."""
    a = item.array if isinstance(item, Tensor) else item
    if not (hasattr(a, "dtype") and hasattr(a, "shape")):
        if isinstance(a, (list, tuple, range)):
            a = np.asarray([v.array.tolist() if isinstance(v, Tensor) else v for v in a])
            a = a.astype(np.int64) if a.size == 0 else a
        else:
            raise IndexError(
                f"{name}: an index must be ints, slices (`:`), ellipsis (`...`), None, or integer or bool tensors, "
                f"got {type(item).__name__}"
            )
    if a.dtype.kind == "u" and a.dtype.itemsize == 1:
        raise IndexError(f"{name}: a uint8 index is ambiguous; use .bool() for a mask or .long() for positions")
    if a.dtype.kind not in "iub":
        raise IndexError(f"{name}: tensors used as indices must be integer or bool, got {a.dtype.name}")
    a = a if a.__class__ is x.__class__ else backend_of(x).asarray(a, x)
    return row_major(a)


def row_major(a: Any) -> Any:
    """An array in row-major memory. NumPy walks through an index in memory order: only so the last entry wins."""
    return a if a.flags.c_contiguous else backend_of(a).xp.ascontiguousarray(a)


def _parse(name: str, x: Any, index: Any) -> tuple[tuple | None, tuple | None]:
    """An index as (basic, advanced): first `x[basic]`, a view, then `[advanced]`; None where there is no such step."""
    items = index if isinstance(index, tuple) else (index,)
    given: list[Any] = []
    consumed = 0
    arrays = False
    for item in items:
        kind = item.__class__
        if kind is int:
            consumed += 1
        elif kind is slice:
            item = _slice(name, item)
            consumed += 1
        elif item is None or item is Ellipsis:
            pass
        elif isinstance(item, (bool, np.bool_)):
            item, arrays = bool(item), True
        elif isinstance(item, np.integer) or (
            isinstance(item, (Tensor, np.ndarray)) and item.ndim == 0 and item.dtype.kind in "iu"
        ):
            item = _as_int(item)
            consumed += 1
        else:
            item, arrays = _array_item(name, item, x), True
            if item.dtype.kind == "b" and item.ndim == 0:
                item = bool(item)
            else:
                consumed += item.ndim if item.dtype.kind == "b" else 1
        given.append(item)
    dots = sum(item is Ellipsis for item in given)
    shape = x.shape
    if dots > 1:
        raise IndexError(f"{name}: an index can hold only one ellipsis (`...`), got {dots}")
    if consumed > len(shape):
        raise IndexError(
            f"{name}: too many indices for a {len(shape)}-d tensor of shape {tuple(shape)}, got {consumed}"
        )
    if not dots:
        given.append(Ellipsis)
    basic: list[Any] = []
    advanced: list[Any] = []
    d = 0
    for item in given:
        if item is Ellipsis:
            rest = len(shape) - consumed
            basic += [_FULL] * rest
            advanced += [_FULL] * rest
            d += rest
        elif item is None:
            basic.append(None)
            advanced.append(_FULL)
        elif item is True or item is False:
            basic.append(None)
            advanced.append(backend_of(x).asarray(np.array([item]), x))
        elif item.__class__ is int:
            if not -shape[d] <= item < shape[d]:
                raise IndexError(f"{name}: index {item} is out of range for dim {d} of size {shape[d]}")
            basic.append(item)
            d += 1
        elif item.__class__ is slice:
            basic.append(item)
            advanced.append(_FULL)
            d += 1
        elif item.dtype.kind == "b":
            if item.shape != shape[d : d + item.ndim]:
                raise IndexError(
                    f"{name}: a mask of shape {tuple(item.shape)} does not fit dims {d} to {d + item.ndim - 1} "
                    f"of a tensor of shape {tuple(shape)}"
                )
            basic += [_FULL] * item.ndim
            advanced.append(item)
            d += item.ndim
        else:
            check_positions(name, item, f"dim {d} of size {shape[d]}", shape[d])
            basic.append(_FULL)
            advanced.append(item)
            d += 1
    if not arrays:
        return (*basic, ...), None
    picks = [a for a in advanced if a.__class__ is not slice]
    if len(picks) > 1:
        _check_broadcast(name, picks)
    while advanced[-1].__class__ is slice:
        advanced.pop()
    plain = all(b.__class__ is slice and b == _FULL for b in basic)
    return (None if plain else (*basic, ...)), tuple(advanced)


def check_positions(name: str, index: Any, what: str, size: int) -> None:
    """Raise IndexError unless all of an index array is in [-size, size); not looked at on a device that would stall."""
    if isinstance(index, np.ndarray) and index.size:
        low, high = int(index.min()), int(index.max())
        if low < -size or high >= size:
            bad = low if low < -size else high
            raise IndexError(f"{name}: index {bad} is out of range for {what}")


def _check_broadcast(name: str, picks: list) -> None:
    shapes = [(int(p.sum()),) if p.dtype.kind == "b" else p.shape for p in picks]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        text = ", ".join(str(tuple(s)) for s in shapes)
        raise IndexError(f"{name}: index tensors of shapes {text} cannot be broadcast together") from None


# -- what the gradients need --------------------------------------------------------------------------------------
def pick_at(g: Any, index: Any) -> Any:
    """`g[index]` of an array or Tensor; the index holds slices, or full slices and index arrays."""
    if isinstance(g, Tensor):
        return record(pick_at(g.array, index), _PICK_AT, (g,), (index, g.array.shape))
    last: Any = index[-1] if index.__class__ is tuple and index else None
    if hasattr(last, "dtype") and last.dtype.kind != "b" and all(i.__class__ is slice for i in index[:-1]):
        return g.take(last, axis=len(index) - 1)  # several times faster than g[index], and row-major
    r = g[index]
    return r if r.base is not None else row_major(r)


def put_at(g: Any, shape: tuple, index: Any) -> Any:
    """Zeros of a shape with `g` added at an index, an array or a Tensor as `g` is: the transpose of `pick_at`."""
    if isinstance(g, Tensor):
        return record(put_at(g.array, shape, index), _PUT_AT, (g,), (index,))
    backend = backend_of(g)
    items = index if index.__class__ is tuple else (index,)
    arrays = [i for i in items if hasattr(i, "dtype")]
    if arrays and not (len(arrays) == 1 and arrays[0].dtype.kind == "b"):
        return backend.sum_at(shape, index, g)
    r = backend.xp.zeros(shape, g.dtype)
    r[index] = g
    return r


def _pick_at_vjp(g: Any, needs: tuple, index: tuple, shape: tuple) -> tuple:
    return (put_at(g, shape, index),)


def _put_at_vjp(g: Any, needs: tuple, index: Any) -> tuple:
    return (pick_at(g, index),)


_PICK_AT = Op("index", _pick_at_vjp, (None, None))
_PUT_AT = Op("index_backward", _put_at_vjp, (None,))


def clear(g: Any, basic: tuple | None, advanced: tuple | None) -> Any:
    """A copy of an array or Tensor with zeros at an index."""
    if isinstance(g, Tensor):
        return record(clear(g.array, basic, advanced), _CLEAR, (g,), (basic, advanced))
    r = g.copy()
    (r if basic is None else r[basic])[... if advanced is None else advanced] = 0
    return r


def _clear_vjp(g: Any, needs: tuple, basic: tuple | None, advanced: tuple | None) -> tuple:
    return (clear(g, basic, advanced),)


_CLEAR = Op("index_put", _clear_vjp, (None, None))


def keep_written(g: Any, shape: tuple, index: tuple) -> Any:
    """`g`, of the shape that `index` picks, with zeros where a later entry wrote to the same position."""
    arrays = [i for i in index if hasattr(i, "dtype")]
    if len(arrays) == 1 and (arrays[0].dtype.kind == "b" or arrays[0].size == 1):
        return g
    xp = backend_of(arrays[0]).xp
    numbers = xp.empty(shape, np.int64)
    mine = xp.arange(math.prod(g.shape)).reshape(g.shape)
    numbers[index] = mine
    return where_kept(g, numbers[index] == mine)


def where_kept(g: Any, kept: Any) -> Any:
    """`g` of an array or Tensor where `kept` is true, zeros elsewhere."""
    if isinstance(g, Tensor):
        return record(where_kept(g.array, kept), _WHERE_KEPT, (g,), (kept,))
    return np.where(kept, g, g.dtype.type(0))


def _where_kept_vjp(g: Any, needs: tuple, kept: Any) -> tuple:
    return (where_kept(g, kept),)


_WHERE_KEPT = Op("masked_fill", _where_kept_vjp, (None,))


# -- reading ------------------------------------------------------------------------------------------------------
def _slice_vjp(g: Any, needs: tuple, index: Any, shape: tuple) -> tuple:
    return (put_at(g, shape, index) if isinstance(g, Tensor) else Region(g, shape, index),)


_SLICE = Op("slice", _slice_vjp, (None, None))


def _basic(input: Tensor, index: Any) -> Tensor:
    x = input.array
    return view(x[index], _SLICE, input, (index, x.shape), _basic, index)


def _plain(index: Any) -> Any:
    """An index of ints, forward slices of ints, None and Ellipsis as NumPy takes it for a view; None for any other."""
    kind = index.__class__
    if kind is int:
        return (index, ...)
    if kind is slice:
        return index if _plain_slice(index) else None
    if kind is not tuple:
        return None
    dots = False
    for item in index:
        kind = item.__class__
        if kind is slice:
            if not _plain_slice(item):
                return None
        elif item is Ellipsis:
            dots = True
        elif kind is not int and item is not None:
            return None
    return index if dots else (*index, ...)


def _plain_slice(s: slice) -> bool:
    step = s.step
    return (
        (step is None or (step.__class__ is int and step > 0))
        and s.start.__class__ in _INT_OR_NONE
        and s.stop.__class__ in _INT_OR_NONE
    )


def getitem(input: Tensor, index: Any) -> Tensor:
    """`input[index]`, as PyTorch indexes.

    Args:
        input: any tensor.
        index: ints, slices with positive steps, None, Ellipsis, bool masks and integer tensors (or lists of ints), in
            any mixture.

    Returns:
        A view for ints, slices, None and Ellipsis alone; otherwise a copy. Where an element is picked several times,
        its gradients are added in a fixed order.

    Raises:
        IndexError: an index out of range, too many of them, or a mask that does not fit.
        ValueError: a slice step that is not positive.

    >>> import cuframe as cf
    >>> t = cf.tensor([[1, 2, 3], [4, 5, 6]])
    >>> t[:, [0, 2]]
    tensor([[1, 3],
            [4, 6]])
    >>> t[t > 2]
    tensor([3, 4, 5, 6])
    """
    x = input.array
    # What loops are made of goes straight to NumPy; whatever it refuses is taken apart below, for a better message.
    plain = _plain(index)
    if plain is not None:
        try:
            r = x[plain]
        except IndexError:
            pass
        else:
            return view(r, _SLICE, input, (plain, x.shape), _basic, plain)
    elif isinstance(index, Tensor) and index.array.dtype.kind == "i" and index.array.ndim and x.ndim:
        i = index.array
        if i.__class__ is x.__class__:
            try:
                r = x.take(i, axis=0)
            except IndexError:
                pass
            else:
                return record(r, _PICK[1], (input,), (x.shape, (True,), i))
    basic, advanced = _parse("getitem", x, index)
    if basic is not None:
        input = _basic(input, basic)
    return input if advanced is None else _pick(input, advanced)


def _pick_vjp(g: Any, needs: tuple, shape: tuple, places: tuple, *arrays: Any) -> tuple:
    return (put_at(g, shape, _join(places, arrays)),)


# Index arrays are saved one by one, so that a change of one in place is noticed; hence an Op for each number of them.
_PICK = [Op("index", _pick_vjp, (None,) * (2 + n)) for n in range(65)]


def _join(places: tuple, arrays: tuple) -> tuple:
    """The advanced index from its layout (True where an array stands) and its arrays."""
    each = iter(arrays)
    return tuple([next(each) if p else _FULL for p in places])


def _pick(input: Tensor, index: tuple) -> Tensor:
    """`input[index]` with index arrays and full slices only; a copy."""
    x = input.array
    places = tuple([i.__class__ is not slice for i in index])
    arrays = tuple([i for i in index if i.__class__ is not slice])
    return record(pick_at(x, index), _PICK[len(arrays)], (input,), (x.shape, places, *arrays))


# -- writing ------------------------------------------------------------------------------------------------------
def _setitem_vjp(
    g: Any, needs: tuple, basic: tuple | None, advanced: tuple | None, shape: tuple | None, dtype: Any
) -> tuple:
    g_value = None
    if needs[1] is not None and shape is not None:
        g_value = g if basic is None else g[basic]
        if advanced is not None:
            g_value = keep_written(pick_at(g_value, advanced), g_value.shape, advanced)
        extra = max(len(shape) - g_value.ndim, 0)
        g_value = fit(g_value, shape[extra:]).reshape(shape)
        if g_value.dtype != dtype:
            g_value = g_value.astype(dtype)
    return (clear(g, basic, advanced) if needs[0] is not None else None, g_value)


_SETITEM = Op("index_put_", _setitem_vjp, (None, None, None, None))


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """`input[index] = value` in place; gradients pass to both.

    Args:
        input: the tensor to write into.
        index: as for reading.
        value: a number, array or Tensor that broadcasts to `input[index]`; it is cast to the dtype of `input`. Where
            an index occurs several times, the last value written stays.

    Raises:
        RuntimeError: the shape of `value` does not fit, it lives on another device, or `input` is (a view of) a leaf
            that requires a gradient.
        IndexError, ValueError: as for reading.

    >>> import cuframe as cf
    >>> t = cf.zeros(3)
    >>> t[1:] = 2.0
    >>> t
    tensor([0., 2., 2.])
    """
    check_writable(input, "setitem")
    x = input.array
    basic, advanced = _plain(index), None
    target = None
    if basic is not None:
        try:
            target = x[basic]
        except IndexError:
            pass
    if target is None:
        basic, advanced = _parse("setitem", x, index)
        target = x if basic is None else x[basic]
    source: Any = None
    if isinstance(value, Tensor):
        source, given = value, value.array
        if given.__class__ is not x.__class__ or value.device != input.device:
            if given.ndim:
                raise RuntimeError(f"setitem: value must be on {input.device}, got {value.device}")
            source, given = None, given.item()
            if value.node is not None and mode.grad:
                source = value.to(input.device)  # type: ignore[attr-defined]
                given = source.array
    elif isinstance(value, (list, tuple)):
        given = backend_of(x).asarray(np.asarray(value), x)
    else:
        given = value
    if hasattr(given, "dtype") and given.dtype.kind == "c" and x.dtype.kind != "c":
        raise RuntimeError(f"setitem: a {given.dtype.name} value cannot be written into {x.dtype.name}")
    node = None if source is None else source.node
    check_followed(input, node, "setitem")
    try:
        if advanced is None:
            target[...] = given
        else:
            target[advanced] = row_major(given) if hasattr(given, "flags") else given
    except ValueError:
        where = target if advanced is None else target[advanced]
        raise RuntimeError(
            f"setitem: value of shape {tuple(np.shape(given))} does not fit the indexed shape {tuple(where.shape)}"
        ) from None
    versions.written(x, "setitem")
    if not mode.grad:
        return
    out = Tensor(x)
    if input.node is not None or node is not None:
        shape, dtype = (None, None) if node is None else (given.shape, given.dtype)
        if advanced is not None:
            advanced = tuple([a if a.__class__ is slice else a.copy() for a in advanced])
        out.node = Node(next_sequence(), _SETITEM, (input.node, node), (basic, advanced, shape, dtype))
        if watched:
            anomaly_check(out.node, x)
    follow(input, out)
