"""Indexing, gathering and scattering, masks, counting and searching."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import cuframe as cf
from cuframe.ops.mask import one_hot

from .core import ALL, FLOATS, INTS, ErrorInput, Make, OpInfo, Sample

T = cf.tensor
BASIC = [
    1, -1, slice(1, 3), slice(None, None, 2), (0, 1), (slice(None), 1), (..., 2), (None, 0), (slice(1, None), None, 2),
    (), ..., None, (slice(3, 1),), (-1, ..., slice(1, 3)),
]  # fmt: skip
ADVANCED = [
    T([0, 2, 0]), T([[0, 1], [2, -1]]), [0, 1, 1], (slice(None), T([1, 1])), (T([0, 1]), T([1, 3])), (T([0, 1]), 2),
    (0, T([1, 2])), (T([[0], [1]]), T([1, 2])), (..., T([0, 0])), (None, T([1, 0])), T([True, False, True]),
    (slice(None), T([True, False, True, False])), (T([True, False, True]), T([0, 3])), (slice(0, 2), [1, 1, 1]),
    T(np.arange(12).reshape(3, 4) % 3 == 0), True, False, T([], dtype=cf.int64), (T(1), slice(None)),
]  # fmt: skip


def getitem(make: Make) -> Iterable[Sample]:
    for index in BASIC + ADVANCED:
        yield Sample((make(3, 4), index))
    # Where NumPy would move dimensions: an int beside an index array is a selection, not an index array.
    yield Sample((make(2, 3, 4), (0, slice(None), T([1, 2, 2]))))
    yield Sample((make(2, 3, 4), (T([1, 0]), slice(None), T([1, 2]))))
    yield Sample((make(2, 3, 4), (slice(None), T([1, 0]), T([1, 2]))))


def _plain(index: Any) -> Any:
    if isinstance(index, cf.Tensor):
        return index.array
    return tuple(_plain(i) for i in index) if isinstance(index, tuple) else index


def getitem_ref(x: Any, index: Any) -> Any:
    items = index if isinstance(index, tuple) else (index,)
    if len(items) == 3 and isinstance(items[0], int) and isinstance(items[2], np.ndarray):
        return x[items[0]][:, items[2]]
    return x[_plain(index)]


def index_errors(make: Make, *value: Any) -> Iterable[ErrorInput]:
    x = make(3, 4)
    yield ErrorInput((x, 3, *value), {}, IndexError, "index 3 is out of range for dim 0 of size 3")
    yield ErrorInput((x, (0, -5), *value), {}, IndexError, "index -5 is out of range for dim 1 of size 4")
    yield ErrorInput((x, T([0, 3]), *value), {}, IndexError, "index 3 is out of range for dim 0 of size 3")
    yield ErrorInput((x, (0, 0, 0), *value), {}, IndexError, r"too many indices for a 2-d tensor .*, got 3")
    yield ErrorInput((x, (..., ...), *value), {}, IndexError, "only one ellipsis")
    yield ErrorInput((x, slice(None, None, -1), *value), {}, ValueError, "step must be positive, got -1; use flip")
    yield ErrorInput((x, 1.0, *value), {}, IndexError, "got float")
    yield ErrorInput((x, "a", *value), {}, IndexError, "got str")
    yield ErrorInput((x, T([1.0]), *value), {}, IndexError, "must be integer or bool, got float32")
    yield ErrorInput((x, T([1], dtype="uint8"), *value), {}, IndexError, "uint8 index is ambiguous")
    yield ErrorInput((x, T([True, False]), *value), {}, IndexError, r"mask of shape \(2,\) does not fit dims 0 to 0")
    yield ErrorInput((x, (T([0, 1]), T([0, 1, 2])), *value), {}, IndexError, r"\(2,\), \(3,\) cannot be broadcast")


def set_item(x: cf.Tensor, index: Any, value: Any) -> cf.Tensor:
    out = x.clone()
    cf.setitem(out, index, value)
    return out


def setitem(make: Make) -> Iterable[Sample]:
    for index in BASIC + ADVANCED:
        yield Sample((make(3, 4), index, make()))
    yield Sample((make(3, 4), 1, make(4)))
    yield Sample((make(3, 4), slice(0, 2), make(4)))
    yield Sample((make(3, 4), (slice(None), 1), make(1, 3)))
    yield Sample((make(3, 4), (T([2, 0]),), make(2, 4)))
    yield Sample((make(3, 4), (T([2, 0, 2]),), make(3, 4)))  # the last written stays, and only it has a gradient
    yield Sample((make(3, 4), (slice(None), T([2, 0])), make(3, 1)))
    yield Sample((make(3, 4), T([True, False, True]), make(4)))
    yield Sample((make(2, 3, 4), (0, slice(None), T([1, 2])), make(3, 2)))
    yield Sample((make(3, 4), (0, 0), 1.0))
    yield Sample((make(3, 4), 0, [0.0, 1.0, 1.0, 0.0]))


def setitem_ref(x: Any, index: Any, value: Any) -> Any:
    x = x.copy()
    items = index if isinstance(index, tuple) else (index,)
    if len(items) == 3 and isinstance(items[0], int) and isinstance(items[2], np.ndarray):
        x[items[0]][:, items[2]] = value
    else:
        x[_plain(index)] = value
    return x


def setitem_errors(make: Make) -> Iterable[ErrorInput]:
    yield from index_errors(make, 1.0)
    yield ErrorInput((make(3, 4), 0, make(3)), {}, RuntimeError, r"value of shape \(3,\) does not fit .* \(4,\)")
    yield ErrorInput((make(3, 4), T([0, 1]), make(3, 4)), {}, RuntimeError, r"does not fit the indexed shape \(2, 4\)")


# -- along one dimension ------------------------------------------------------------------------------------------
def index_select(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 2), 0, T([2, 0, 2])))
    yield Sample((make(2, 3), -1, T([1])))
    yield Sample((make(2, 3, 2), 1, T([0, 0, 1, 2], dtype=cf.int32)))
    yield Sample((make(3), 0, T(1)))
    yield Sample((make(2, 3), 1, T([], dtype=cf.int64)))
    yield Sample((make(), 0, T([0])))


def index_select_ref(x: Any, d: int, i: Any) -> Any:
    return np.take(x, np.atleast_1d(i), d) if x.ndim else x


def vector_errors(make: Make, *rest: Any) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 1, T([0, 3]), *rest), {}, IndexError, r"index for dim 1 must be in \[0, 3\), got 3")
    yield ErrorInput((make(2, 3), 1, T([-1]), *rest), {}, IndexError, r"must be in \[0, 3\), got -1")
    yield ErrorInput((make(2, 3), 2, T([0]), *rest), {}, IndexError, "dim must be in")
    yield ErrorInput((make(2, 3), 1, T([[0]]), *rest), {}, IndexError, "index must be 0-d or 1-d")
    yield ErrorInput((make(2, 3), 1, T([0.0]), *rest), {}, TypeError, "index must be an integer tensor, got float32")
    yield ErrorInput((make(2, 3), 1, [0], *rest), {}, TypeError, "index must be a Tensor, got list")


def index_add(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 2), 0, T([2, 0, 2]), make(3, 2)))
    yield Sample((make(2, 3), -1, T([1]), make(2, 1)), {"alpha": 2})
    yield Sample((make(2, 3, 2), 1, T([0, 0, 1, 2]), make(2, 4, 2)))
    yield Sample((make(3), 0, T([1, 1]), make(2)))
    yield Sample((make(), 0, T([0]), make(1)))


def index_add_ref(x: Any, d: int, i: Any, source: Any, alpha: Any = 1) -> Any:
    r = np.atleast_1d(x).copy()
    np.add.at(r, (slice(None),) * (d % r.ndim) + (i,), (source * alpha).astype(x.dtype))
    return r.reshape(x.shape)


def source_errors(make: Make) -> Iterable[ErrorInput]:
    yield from vector_errors(make, make(2, 1))
    i = T([0, 1])
    yield ErrorInput((make(2, 3), 1, i, make(2, 3)), {}, RuntimeError, r"source must have shape \(2, 2\), got")
    yield ErrorInput((make(2, 3), 1, i, make(2, 2, dtype="int32")), {}, RuntimeError, "source must have the dtype of")


def index_copy(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 2), 0, T([2, 0]), make(2, 2)))
    yield Sample((make(2, 3), -1, T([1]), make(2, 1)))
    yield Sample((make(3), 0, T([1, 2]), make(2)))
    yield Sample((make(3), 0, T([1, 2, 1]), make(3)))
    yield Sample((make(), 0, T([0]), make(1)))


def index_copy_ref(x: Any, d: int, i: Any, source: Any) -> Any:
    r = np.atleast_1d(x).copy()
    r[(slice(None),) * (d % r.ndim) + (i,)] = source
    return r.reshape(x.shape)


def index_fill(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 2), 0, T([2, 0]), 1))
    yield Sample((make(2, 3), -1, T([1]), make()))
    yield Sample((make(2, 3), 1, T([1, 1, 2]), make()))
    yield Sample((make(), 0, T([0]), make()))


def index_fill_errors(make: Make) -> Iterable[ErrorInput]:
    yield from vector_errors(make, 1.0)
    yield ErrorInput((make(3), 0, T([0]), make(1)), {}, RuntimeError, r"a number or a 0-d Tensor, got shape \(1,\)")
    yield ErrorInput((make(3), 0, T([0]), "a"), {}, TypeError, "a number or a 0-d Tensor, got str")
    yield ErrorInput((make(3, dtype="int64"), 0, T([0]), 0.5), {}, RuntimeError, "value 0.5 does not fit a tensor of")


def index_put(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 2), (T([2, 0]),), make(2, 2)))
    yield Sample((make(3, 2), (T([2, 0]), T([1, 1])), make(2)))
    yield Sample((make(3, 2), (T([2, 2]), T([1, 1])), make(2)), {"accumulate": True})
    yield Sample((make(3, 2), (T([True, False, True]),), make(2)), {"accumulate": True})


def index_put_ref(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    r = x.copy()
    if accumulate:
        np.add.at(r, _plain(indices), values)
    else:
        r[_plain(indices)] = values
    return r


def index_put_errors(make: Make) -> Iterable[ErrorInput]:
    where = (T([0]),)
    yield ErrorInput((make(3), where, make(1, dtype="int32")), {}, RuntimeError, "values must have the dtype of input")
    yield ErrorInput((make(3), where, make(2)), {"accumulate": True}, RuntimeError, r"\(2,\) do not fit .* \(1,\)")
    yield ErrorInput((make(3), where, 1.0), {}, TypeError, "values must be a Tensor")


# -- gather and scatter -------------------------------------------------------------------------------------------
GATHERS = [
    ((2, 3), 1, [[0, 0, 2], [1, 2, 2]]),
    ((3, 2), 0, [[2, 0], [1, 1], [0, 0]]),
    ((3, 2), 0, [[2], [2]]),
    ((2, 3, 2), -2, [[[0, 1], [2, 2]], [[1, 1], [0, 2]]]),
    ((4,), 0, [3, 3, 0, 1, 3]),
    ((2, 2), 1, np.zeros((2, 0), np.int64)),
    ((), 0, 0),
]


def gather(make: Make) -> Iterable[Sample]:
    for shape, d, index in GATHERS:
        yield Sample((make(*shape), d, T(index)))


def _cut(x: Any, d: int, i: Any) -> Any:
    return x[tuple(slice(None) if k == d % x.ndim else slice(n) for k, n in enumerate(i.shape))]


def gather_ref(x: Any, d: int, i: Any) -> Any:
    return np.take_along_axis(_cut(x, d, i), i, d) if x.ndim else x.reshape(i.shape)


def along_errors(make: Make, *rest: Any) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 1, T([[3]]), *rest), {}, IndexError, r"index for dim 1 must be in \[0, 3\), got 3")
    yield ErrorInput((make(2, 3), 1, T([[-1]]), *rest), {}, IndexError, r"must be in \[0, 3\), got -1")
    yield ErrorInput((make(2, 3), 1, T([0]), *rest), {}, RuntimeError, "index must have as many dimensions as input")
    yield ErrorInput((make(2, 3), 1, T([[0]] * 3), *rest), {}, RuntimeError, r"\(3, 1\) is larger than input .* dim 0")
    yield ErrorInput((make(2, 3), 2, T([[0]]), *rest), {}, IndexError, "dim must be in")
    yield ErrorInput((make(2, 3), 1, T([[0.0]]), *rest), {}, TypeError, "index must be an integer tensor")


def take_along_dim(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), T([[2, 0], [1, 1]]), 1))
    yield Sample((make(2, 3), T([[2], [1]]), -1))
    yield Sample((make(2, 3), T([[2, 0]]), 1))
    yield Sample((make(1, 3), T([[2], [1]]), 1))
    yield Sample(
        (
            make(2, 3),
            T([5, 0]),
        )
    )


def take_along_dim_ref(x: Any, i: Any, d: Any = None) -> Any:
    if d is None:
        return x.reshape(-1)[i.reshape(-1)]
    return np.take_along_axis(x, i, d)


def take_along_dim_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), T([0]), 1), {}, RuntimeError, "as many dimensions")
    yield ErrorInput((make(2, 3), T([[0]] * 3), 1), {}, RuntimeError, "do not broadcast beside dim 1")
    yield ErrorInput((make(2, 3), T([[3]]), 1), {}, IndexError, r"must be in \[0, 3\), got 3")


def scatter(make: Make) -> Iterable[Sample]:
    for shape, d, index in GATHERS:
        i = np.asarray(index)
        yield Sample((make(*shape), d, T(i), make(*i.shape)))
        yield Sample((make(*shape), d, T(i), 1.0))
    yield Sample((make(2, 3), 1, T([[2], [0]]), make(3, 3)))
    yield Sample((make(2, 3), 1, T([[2], [0]])), {"value": 0.0})


def scatter_ref(x: Any, d: int, i: Any, src: Any = None, value: Any = None) -> Any:
    r = x.copy()
    src = value if src is None else src
    if not x.ndim:
        return np.asarray(src, x.dtype)
    if np.ndim(src):
        src = src[tuple(slice(n) for n in i.shape)]
    np.put_along_axis(_cut(r, d, i), i, np.asarray(src, x.dtype), d)
    return r


def src_errors(make: Make, *rest: Any) -> Iterable[ErrorInput]:
    yield from along_errors(make, make(1, 1), *rest)
    i = T([[0, 1]])
    yield ErrorInput((make(2, 3), 1, i, make(1, 1), *rest), {}, RuntimeError, "src must be at least as large as index")
    bad = make(1, 2, dtype="int64")
    yield ErrorInput((make(2, 3), 1, i, bad, *rest), {}, RuntimeError, "src must have the dtype of input, float32, got")


def scatter_errors(make: Make) -> Iterable[ErrorInput]:
    yield from src_errors(make)
    yield ErrorInput((make(2), 0, T([0])), {}, TypeError, "exactly one of src and value")
    yield ErrorInput((make(2), 0, T([0]), 1.0), {"reduce": "max"}, ValueError, "reduce must be 'add', 'multiply' or")


def scatter_add(make: Make) -> Iterable[Sample]:
    for shape, d, index in GATHERS:
        yield Sample((make(*shape), d, T(index), make(*np.shape(index))))
    yield Sample((make(2, 3), 1, T([[2, 2], [0, 0]]), make(3, 4)))


def scatter_add_ref(x: Any, d: int, i: Any, src: Any) -> Any:
    return reduce_ref(x, d, i, src, "sum")


def reduce_ref(x: Any, d: int, i: Any, src: Any, reduce: str, include_self: bool = True) -> Any:
    """Entry by entry."""
    r = np.atleast_1d(x).astype(np.int64 if x.dtype.kind in "iu" else x.dtype)
    i, src = np.atleast_1d(i), np.atleast_1d(src)
    groups: dict = {}
    for place in np.ndindex(i.shape):
        to = list(place)
        to[d] = i[place]
        groups.setdefault(tuple(to), []).append(src[place])
    functions = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}
    for to, values in groups.items():
        value = functions[reduce](np.array(([r[to]] if include_self else []) + values, r.dtype))
        r[to] = np.floor(value) if r.dtype.kind == "i" else value
    return r.astype(x.dtype).reshape(x.shape)


def scatter_reduce(make: Make) -> Iterable[Sample]:
    for kind in ("sum", "prod", "mean", "amax", "amin"):
        for shape, d, index in GATHERS:
            for self in (True, False):
                args = (make(*shape), d, T(index), make(*np.shape(index)), kind)
                yield Sample(args, {"include_self": self})
    yield Sample((make(2, 3), 1, T([[2, 2], [0, 0]]), make(3, 4), "mean"))


def scatter_reduce_errors(make: Make) -> Iterable[ErrorInput]:
    yield from src_errors(make, "sum")
    yield ErrorInput((make(2), 0, T([0]), make(1), "max"), {}, ValueError, "reduce must be one of sum, prod, mean")


def take(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), T([5, 0, 0])))
    yield Sample((make(2, 3), T([[-1, 2]])))
    yield Sample((make(4), T(2)))


def take_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), T([6])), {}, IndexError, "index 6 is out of range for 6 elements")
    yield ErrorInput((make(2, 3), T([0.0])), {}, TypeError, "index must be an integer tensor")


def put(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), T([5, 0]), make(2)))
    yield Sample((make(2, 3), T([[-1, 2]]), make(2, 1)))
    yield Sample((make(2, 3), T([5, 5]), make(2), True))


def put_ref(x: Any, i: Any, source: Any, accumulate: bool = False) -> Any:
    r = x.copy().reshape(-1)
    if accumulate:
        np.add.at(r, i.reshape(-1), source.reshape(-1))
    else:
        r[i.reshape(-1)] = source.reshape(-1)
    return r.reshape(x.shape)


def put_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), T([6]), make(1)), {}, IndexError, "index 6 is out of range for 6 elements")
    yield ErrorInput((make(2, 3), T([0]), make(2)), {}, RuntimeError, "source must have 1 elements as index, got 2")
    yield ErrorInput((make(2), T([0]), make(1, dtype="int64")), {}, RuntimeError, "source must have the dtype of input")


# -- masks --------------------------------------------------------------------------------------------------------
MASK = T([[True, False, True], [False, False, True]])


def masked_fill(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), MASK, 1.0))
    yield Sample((make(2, 3), MASK, make()))
    yield Sample((make(2, 3), T([True, False, True]), 0))
    yield Sample((make(3), MASK, make()))
    yield Sample((make(), T(True), 1))


def masked_fill_ref(x: Any, m: Any, value: Any) -> Any:
    return np.where(m, np.asarray(value, x.dtype), x)


def mask_errors(make: Make, *rest: Any) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), T([1, 0]), *rest), {}, RuntimeError, "mask must be a bool tensor, got int64")
    yield ErrorInput((make(2), T([True] * 3), *rest), {}, RuntimeError, "shapes .* cannot be broadcast together")
    yield ErrorInput((make(2), [True, False], *rest), {}, TypeError, "mask must be a Tensor, got list")


def masked_fill_errors(make: Make) -> Iterable[ErrorInput]:
    yield from mask_errors(make, 1.0)
    yield ErrorInput((make(2), T([True, False]), make(1)), {}, RuntimeError, "a number or a 0-d Tensor, got shape")


def masked_select(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), MASK))
    yield Sample((make(2, 3), T([True, False, True])))
    yield Sample((make(3), MASK))
    yield Sample((make(2, 3), T(False)))


def masked_select_ref(x: Any, m: Any) -> Any:
    x, m = np.broadcast_arrays(x, m)
    return x[m]


def masked_scatter(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), MASK, make(4)))
    yield Sample((make(2, 3), T([True, False, True]), make(2, 2)))
    yield Sample((make(3), MASK, make(3)))


def masked_scatter_ref(x: Any, m: Any, source: Any) -> Any:
    x, m = (a.copy() for a in np.broadcast_arrays(x, m))
    x[m] = source.reshape(-1)[: m.sum()]
    return x


def masked_scatter_errors(make: Make) -> Iterable[ErrorInput]:
    yield from mask_errors(make, make(3))
    yield ErrorInput((make(2, 3), MASK, make(2)), {}, RuntimeError, "source must have at least 3 elements, got 2")
    yield ErrorInput((make(2, 3), MASK, make(3, dtype="int64")), {}, RuntimeError, "source must have the dtype of")


def where(make: Make) -> Iterable[Sample]:
    yield Sample((MASK, make(2, 3), make(2, 3)))
    yield Sample((MASK, make(3), make(2, 1)))
    yield Sample((T([True, False]), make(2, 2), make()))
    yield Sample((MASK, make(2, 3), 0))
    yield Sample((MASK, 1, make(3)))


def where_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((MASK, make(2), make(3)), {}, RuntimeError, "shapes .* cannot be broadcast together")
    yield ErrorInput((T([1, 0]), make(2), make(2)), {}, RuntimeError, "condition must be a bool tensor, got int64")
    yield ErrorInput((MASK, make(3)), {}, TypeError, "both or neither")
    yield ErrorInput((MASK, make(3), "a"), {}, TypeError, "str")


def nonzero(make: Make) -> Iterable[Sample]:
    yield Sample((T([[0, 1], [2, 0]]).to(make.dtype),))
    yield Sample((T([0, 1, 2]).to(make.dtype),), {"as_tuple": True})
    yield Sample((make(3) * 0,))
    yield Sample((T(1).to(make.dtype),))


def nonzero_ref(x: Any, as_tuple: bool = False) -> Any:
    if as_tuple:
        return list(np.nonzero(x))
    return np.argwhere(x) if x.ndim else np.zeros((1, 0), np.int64)


def argwhere(make: Make) -> Iterable[Sample]:
    yield Sample((T([[0, 1], [2, 0]]).to(make.dtype),))


def bincount(make: Make) -> Iterable[Sample]:
    yield Sample((T([0, 3, 3]).to(make.dtype),))
    yield Sample((T([0, 3, 3]).to(make.dtype),), {"minlength": 6})
    yield Sample((T([0, 1, 1]).to(make.dtype), T([0.5, 1.0, 2.0], dtype=cf.float64)))
    yield Sample((T([]).to(make.dtype),))


def bincount_ref(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    return np.bincount(x.astype(np.int64), weights, minlength)


def bincount_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((T([-1]),), {}, RuntimeError, "must not be negative, got -1")
    yield ErrorInput((T([[1]]),), {}, RuntimeError, "must be a 1-d integer tensor")
    yield ErrorInput((T([1.0]),), {}, RuntimeError, "must be a 1-d integer tensor, got float32")
    yield ErrorInput((T([1]), T([1.0, 2.0])), {}, RuntimeError, r"weights must have shape \(1,\)")
    yield ErrorInput((T([1]),), {"minlength": -1}, RuntimeError, "minlength must not be negative")


def searchsorted(make: Make) -> Iterable[Sample]:
    s = T([1, 3, 3, 5]).to(make.dtype)
    v = T([[3, 0], [5, 9]]).to(make.dtype)
    yield Sample((s, v))
    yield Sample((s, v), {"right": True})
    yield Sample((s, v), {"side": "right", "out_int32": True})
    yield Sample((cf.stack([s, s + s]), v))
    yield Sample((s, 4))


def searchsorted_ref(s: Any, v: Any, right: bool = False, side: str = "left", out_int32: bool = False) -> Any:
    side = "right" if right else side
    if s.ndim == 1:
        return np.searchsorted(s, v, side)
    return np.stack([np.searchsorted(a, b, side) for a, b in zip(s, v)])


def searchsorted_errors(make: Make) -> Iterable[ErrorInput]:
    s = T([1.0, 2.0])
    yield ErrorInput((s, s), {"side": "up"}, ValueError, "side must be 'left' or 'right'")
    yield ErrorInput((s, s), {"side": "left", "right": True}, ValueError, "contradicts right=True")
    yield ErrorInput((cf.stack([s, s]), s), {}, RuntimeError, "must have the leading dimensions")
    yield ErrorInput((s, s), {"sorter": T([0])}, RuntimeError, r"sorter must have shape \(2,\)")


def bucketize(make: Make) -> Iterable[Sample]:
    b = T([1, 3, 5]).to(make.dtype)
    yield Sample((T([[0, 1], [4, 9]]).to(make.dtype), b))
    yield Sample((T([1, 3]).to(make.dtype), b), {"right": True})


def bucketize_ref(x: Any, b: Any, right: bool = False) -> Any:
    return np.searchsorted(b, x, "right" if right else "left")


def bucketize_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((T([1.0]), T([[1.0]])), {}, RuntimeError, "boundaries must be 1-d")


def unravel(make: Make) -> Iterable[Sample]:
    yield Sample((T([0, 5, 3]).to(make.dtype), (2, 3)))
    yield Sample((T([[23]]).to(make.dtype), (2, 3, 4)))
    yield Sample((T(1).to(make.dtype), (4,)))


def unravel_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((T([6]), (2, 3)), {}, IndexError, r"indices into shape \(2, 3\) must be in \[0, 6\), got 6")
    yield ErrorInput((T([0.5]), (2, 3)), {}, TypeError, "indices must be an integer tensor")


def one_hot_samples(make: Make) -> Iterable[Sample]:
    yield Sample((T([1, 0, 2]).to(make.dtype),))
    yield Sample((T([[1], [0]]).to(make.dtype), 4))


def one_hot_ref(x: Any, n: int = -1) -> Any:
    return np.eye(int(x.max()) + 1 if n == -1 else n, dtype=np.int64)[x]


def one_hot_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((T([0.5]),), {}, TypeError, "must be an integer tensor, got float32")
    yield ErrorInput((T([3]), 3), {}, RuntimeError, r"must be in \[0, 3\), got 3")
    yield ErrorInput((T([-1]), 3), {}, RuntimeError, r"must be in \[0, 3\), got -1")
    yield ErrorInput((T([], dtype="int64"),), {}, RuntimeError, "num_classes must be given")


def info(name: str, samples: Any, reference: Any, errors: Any, **options: Any) -> OpInfo:
    options.setdefault("dtypes", ALL)
    return OpInfo(name, samples=samples, reference=reference, errors=errors, **options)


NUMBERS = tuple(d for d in ALL if d != "bool")
ORDERED = (*FLOATS, "int64")
PLAIN: dict[str, Any] = {"gradient": False, "zero_size": False}
# A sum of float16 products rounds at every step here and once in the float32 reference.
HALF_SUMS = {"float16": (4e-3, 4e-3), "bfloat16": (3e-2, 3e-2)}

OPS = [
    info("getitem", getitem, getitem_ref, index_errors, zero_size=False),
    info("setitem", setitem, setitem_ref, setitem_errors, op=set_item, zero_size=False),
    info("index_select", index_select, index_select_ref, vector_errors),
    info("index_add", index_add, index_add_ref, source_errors, dtypes=NUMBERS, tolerances=HALF_SUMS),
    info("index_copy", index_copy, index_copy_ref, source_errors),
    info("index_fill", index_fill, lambda x, d, i, v: index_copy_ref(x, d, i, v), index_fill_errors),
    info("index_put", index_put, index_put_ref, index_put_errors, dtypes=NUMBERS, tolerances=HALF_SUMS),
    info("gather", gather, gather_ref, along_errors),
    info("take_along_dim", take_along_dim, take_along_dim_ref, take_along_dim_errors),
    info("scatter", scatter, scatter_ref, scatter_errors),
    info("scatter_add", scatter_add, scatter_add_ref, src_errors, dtypes=NUMBERS, tolerances=HALF_SUMS),
    info("scatter_reduce", scatter_reduce, reduce_ref, scatter_reduce_errors, dtypes=(*FLOATS, "int64")),
    info("take", take, lambda x, i: x.reshape(-1)[i], take_errors),
    info("put", put, put_ref, put_errors, dtypes=NUMBERS, tolerances=HALF_SUMS),
    info("masked_fill", masked_fill, masked_fill_ref, masked_fill_errors),
    info("masked_select", masked_select, masked_select_ref, mask_errors),
    info("masked_scatter", masked_scatter, masked_scatter_ref, masked_scatter_errors),
    info("where", where, np.where, where_errors, method=False),
    info("nonzero", nonzero, nonzero_ref, None, **PLAIN),
    info("argwhere", argwhere, np.argwhere, None, **PLAIN),
    info("bincount", bincount, bincount_ref, bincount_errors, **(PLAIN | {"dtypes": INTS})),
    info("unravel_index", unravel, np.unravel_index, unravel_errors, **PLAIN, dtypes=("int32", "int64")),
    info("searchsorted", searchsorted, searchsorted_ref, searchsorted_errors, **PLAIN, dtypes=ORDERED),
    info("bucketize", bucketize, bucketize_ref, bucketize_errors, **PLAIN, dtypes=ORDERED),
    info(
        "nn.functional.one_hot", one_hot_samples, one_hot_ref, one_hot_errors, op=one_hot,
        **(PLAIN | {"dtypes": ("int32", "int64")}),
    ),
]  # fmt: skip
