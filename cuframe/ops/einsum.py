"""Einstein summation as matrix products, for any subscripts; `tensordot` and `inner` are cases of it.

Note [Einsum]
    Subscripts become tuples of integer labels, the ellipsis included. Two operands are contracted as one batched GEMM:
    labels of both and of the result are batch, labels of both only are summed, the rest are rows and columns. Three and
    more are contracted pair by pair, in the order `np.einsum_path` finds cheapest. The gradient of an operand is the
    einsum of `g` and the other operands over the same labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of, is_array
from ..dtypes import is_floating
from ..tensor import Tensor
from .define import Op, as_result, need_tensor, numpy_name, record

__all__ = ["einsum", "inner", "tensordot"]

Labels = tuple[int, ...]


def _like(r: Any, constant: Any) -> Any:
    """A host array beside `r`, an array or a Tensor."""
    x = getattr(r, "array", r)
    return backend_of(x).asarray(constant, x)


def same_kind(name: str, *named: tuple[str, Any]) -> tuple[Tensor, ...]:
    """The operands as Tensors (arrays are wrapped), after checking that dtype and device agree."""
    out = []
    for argument, value in named:
        if is_array(value):
            value = Tensor(value)
        need_tensor(name, argument, value)
        out.append(value)
    first = out[0].array
    for (argument, _), t in zip(named[1:], out[1:]):
        if t.array.dtype != first.dtype:
            raise RuntimeError(
                f"{name}: {named[0][0]} and {argument} must have one dtype, got {first.dtype.name} and "
                f"{t.array.dtype.name}"
            )
        if t.array.__class__ is not first.__class__ and t.device != out[0].device:
            raise RuntimeError(
                f"{name}: {named[0][0]} and {argument} must be on one device, got {out[0].device} and {t.device}"
            )
    return tuple(out)


def _plain(x: Any, labels: Labels, sizes: dict[int, int]) -> tuple[Any, Labels]:
    """Each label once (a repeated one means its diagonal), and none for a dimension of 1 that is broadcast."""
    names = list(labels)
    i = 0
    while i < len(names):
        label = names[i]
        if x.shape[i] == 1 and sizes[label] != 1:
            x = x.reshape(x.shape[:i] + x.shape[i + 1 :])
            del names[i]
        elif label in names[:i]:
            first = names.index(label)
            x = np.diagonal(x, axis1=first, axis2=i)  # the diagonal becomes the last dimension
            del names[i], names[first]
            names.append(label)
            i -= 1
        else:
            i += 1
    return x, tuple(names)


def _sum_out(x: Any, labels: Labels, keep: set[int]) -> tuple[Any, Labels]:
    axes = tuple(i for i, label in enumerate(labels) if label not in keep)
    if axes:
        x = x.sum(axis=axes, dtype=x.dtype)
    return x, tuple(label for label in labels if label in keep)


def _arrange(x: Any, labels: Labels, order: Labels) -> Any:
    return x if labels == order else np.transpose(x, [labels.index(label) for label in order])


def _pair(a: Any, la: Labels, b: Any, lb: Labels, keep: set[int]) -> tuple[Any, Labels]:
    """Contract two plain operands over the labels that are not in `keep`."""
    from .matmul import product  # which imports this module

    a, la = _sum_out(a, la, keep.union(lb))
    b, lb = _sum_out(b, lb, keep.union(la))
    both = [label for label in la if label in lb]
    batch = tuple(label for label in both if label in keep)
    summed = tuple(label for label in both if label not in keep)
    rows = tuple(label for label in la if label not in lb)
    columns = tuple(label for label in lb if label not in la)
    size = dict(zip(la, a.shape)) | dict(zip(lb, b.shape))
    m, n = (prod(size[label] for label in group) for group in (rows, columns))
    lead = (prod(size[label] for label in batch),) if batch else ()
    k = prod(size[label] for label in summed)
    a = _arrange(a, la, batch + rows + summed).reshape((*lead, m, k))
    b = _arrange(b, lb, batch + summed + columns).reshape((*lead, k, n))
    r = product(a, b) if summed else a * b
    out = batch + rows + columns
    return r.reshape(tuple(size[label] for label in out)), out


def contract(arrays: Sequence[Any], labels: Sequence[Labels], out: Labels) -> Any:
    """The einsum of arrays; every label of `out` occurs in an operand at its full size."""
    dtype = arrays[0].dtype
    sizes = _sizes(arrays, labels)
    if dtype.itemsize == 2 and is_floating(dtype):
        arrays = [x.astype(np.float32) for x in arrays]
    work = [_plain(x, names, sizes) for x, names in zip(arrays, labels)]
    if len(work) > 2:
        path = [pair for pair in _path(work, out) if len(pair) > 1]
    else:
        path = [(0, 1)] if len(work) == 2 else []
    for pair in path:
        group = [work[i] for i in pair]
        work = [w for i, w in enumerate(work) if i not in pair]
        x, names = group[0]
        for j, (y, other) in enumerate(group[1:]):
            later = [ls for _, ls in group[j + 2 :]] + [ls for _, ls in work]
            x, names = _pair(x, names, y, other, set(out).union(*later))
        work.append((x, names))
    x, names = _sum_out(*work[0], set(out))
    return as_result(_arrange(x, names, out).astype(dtype, copy=x is arrays[0]), arrays[0])


def _path(work: list, out: Labels) -> list:
    arguments: list[Any] = []
    number: dict[int, int] = {}
    for x, labels in work:
        arguments += [np.broadcast_to(np.float32(0), x.shape), [number.setdefault(i, len(number)) for i in labels]]
    return np.einsum_path(*arguments, [number[i] for i in out], optimize="greedy")[0][1:]


def _sizes(arrays: Sequence[Any], labels: Sequence[Labels]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for x, names in zip(arrays, labels):
        for size, label in zip(x.shape, names):
            if sizes.get(label, 1) == 1:
                sizes[label] = size
    return sizes


def _einsum_vjp(g: Any, needs: tuple, labels: tuple, out: Labels, *operands: Any) -> tuple:
    sizes = _sizes(operands, labels)
    grads: list[Any] = []
    for i, own in enumerate(labels):
        if needs[i] is None:
            grads.append(None)
            continue
        terms = [g, *operands[:i], *operands[i + 1 :]]
        names = [out, *labels[:i], *labels[i + 1 :]]
        shape = tuple(operands[i].shape)
        known = {n for t, ls in zip(terms, names) for n, size in zip(ls, t.shape) if size == sizes[n]}
        target = tuple(dict.fromkeys(n for n, size in zip(own, shape) if n in known and size == sizes[n]))
        r = _contract_any(terms, names, target)
        # Back to the operand's own dimensions: a repeated label only has a diagonal, a label that no other term
        # has was only summed over.
        first = [own.index(n) == d and n in target and shape[d] == sizes[n] for d, n in enumerate(own)]
        if target:
            order = tuple(n for d, n in enumerate(own) if first[d])
            if order != target:
                r = np.transpose(r, [target.index(n) for n in order])
        r = r.reshape(tuple(size if f else 1 for size, f in zip(shape, first)))
        for d, n in enumerate(own):
            if own.index(n) != d and shape[d] != 1:
                box = [1] * len(own)
                box[own.index(n)] = box[d] = shape[d]
                r = r * _like(r, np.eye(shape[d], dtype=r.dtype)).reshape(box)
        grads.append(r if tuple(r.shape) == shape else r * _like(r, np.ones(shape, r.dtype)))
    return tuple(grads)


def _contract_any(terms: list, names: list, out: Labels) -> Any:
    if any(isinstance(t, Tensor) for t in terms):
        return _record(tuple(t if isinstance(t, Tensor) else Tensor(t) for t in terms), tuple(names), out)
    return contract(terms, names, out)


def _record(operands: tuple, labels: tuple, out: Labels) -> Tensor:
    arrays = tuple(t.array for t in operands)
    # As many operands as the call has, so the Op is made for the call.
    op = Op("einsum", _einsum_vjp, (None, None, *range(len(operands))))
    return record(contract(arrays, labels, out), op, operands, (labels, out, *arrays))


def _letter(label: int) -> str:
    return "..." if label < 0 else chr(label) if label > 64 else str(label)


def _parse(subscripts: str, count: int) -> tuple[list[list], list | None]:
    """Lists of characters and Ellipsis, one for each operand, and that of the result if it is given."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = []
    for part in [*left.split(","), *([right] if arrow else [])]:
        letters: list[Any] = []
        for token in re.findall(r"\.\.\.|.", part):
            if token == "..." and Ellipsis in letters:
                raise ValueError(f"einsum: '...' may occur once in each operand, got {subscripts!r}")
            if token != "..." and not (token.isascii() and token.isalpha()):
                raise ValueError(f"einsum: subscripts must be letters, '...', ',' and '->', got {subscripts!r}")
            letters.append(Ellipsis if token == "..." else ord(token))
        terms.append(letters)
    out = terms.pop() if arrow else None
    if len(terms) != count:
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} operand(s), got {count}")
    return terms, out


def _resolve(terms: list[list], out: list | None, operands: tuple) -> tuple[tuple, Labels]:
    """Put negative labels for what an ellipsis stands for, find the result's labels, and check all sizes."""
    labels: list[Labels] = []
    widest = 0
    for i, (letters, t) in enumerate(zip(terms, operands)):
        ndim = t.array.ndim
        hidden = ndim - len([c for c in letters if c is not Ellipsis])
        if hidden < 0 or (hidden and Ellipsis not in letters):
            raise RuntimeError(
                f"einsum: operand {i} has shape {tuple(t.array.shape)}, but its subscripts name "
                f"{len([c for c in letters if c is not Ellipsis])} dimension(s)"
            )
        widest = max(widest, hidden)
        dots = tuple(range(-hidden, 0))
        labels.append(tuple(n for c in letters for n in (dots if c is Ellipsis else (c,))))
    dots = tuple(range(-widest, 0))
    flat = [n for names in labels for n in names]
    if out is None:
        result = dots + tuple(sorted(n for n in set(flat) if n >= 0 and flat.count(n) == 1))
    else:
        result = tuple(n for c in out for n in (dots if c is Ellipsis else (c,)))
    if len(set(result)) != len(result):
        raise RuntimeError(f"einsum: the result names label {_letter(max(result, key=result.count))!r} more than once")
    for n in result:
        if n not in flat:
            raise RuntimeError(f"einsum: the result's label {_letter(n)!r} occurs in no operand")
    sizes: dict[int, tuple[int, int]] = {}
    for i, (names, t) in enumerate(zip(labels, operands)):
        for n, size in zip(names, t.array.shape):
            known = sizes.setdefault(n, (size, i))
            if known[0] == 1:
                sizes[n] = (size, i)
            elif size not in (1, known[0]):
                raise RuntimeError(
                    f"einsum: label {_letter(n)!r} has size {known[0]} in operand {known[1]} and {size} in operand {i}"
                )
    return tuple(labels), result


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sum products of the operands' elements over the labels that the result does not have.

    `einsum("ik,kj->ij", a, b)` is the matrix product. Without `->` the result has the labels that occur once, in
    alphabetical order; `...` stands for any further dimensions, broadcast, and a label that is repeated in one operand
    for its diagonal.

    Args:
        equation: the subscripts; or operands and lists of integer labels in turn, as in
            `einsum(a, [0, 1], b, [1, 2], [0, 2])`.
        *operands: tensors of one dtype, as many as there are subscripts.

    Returns:
        A tensor of that dtype.

    Raises:
        ValueError: the subscripts cannot be read.
        RuntimeError: they do not fit the operands' shapes.

    >>> import cuframe as cf
    >>> cf.einsum("ii->i", cf.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([1., 4.])
    >>> cf.einsum("bij,bjk->bik", cf.ones(2, 3, 4), cf.ones(2, 4, 5)).shape
    cuframe.Size([2, 3, 5])
    """
    out: list | None
    if isinstance(equation, str):
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
        if not operands:
            raise ValueError("einsum: needs at least one operand")
        terms, out = _parse(equation, len(operands))
    else:
        given = [equation, *operands]
        last = given.pop() if len(given) % 2 else None
        # Integers become letters from "A" on, so that messages of both forms agree in order.
        terms, given_operands = [[_label(n) for n in names] for names in given[1::2]], given[::2]
        out = None if last is None else [_label(n) for n in last]
        operands = tuple(given_operands)
    operands = same_kind("einsum", *[(f"operand {i}", t) for i, t in enumerate(operands)])
    labels, result = _resolve(terms, out, operands)
    return _record(operands, labels, result)


def _label(n: Any) -> Any:
    if n is Ellipsis:
        return n
    if not isinstance(n, int) or not 0 <= n < 52:
        raise ValueError(f"einsum: labels must be integers from 0 to 51 or Ellipsis, got {n!r}")
    return 65 + n if n < 26 else 71 + n


@numpy_name(np.einsum)
def _numpy_einsum(*operands: Any, optimize: Any = True) -> Tensor:
    return einsum(*operands)


def _dims(value: Any, t: Tensor, argument: str) -> list[int]:
    dims = [int(d) for d in value] if isinstance(value, (list, tuple)) else [int(value)]
    for d in dims:
        if not -t.array.ndim <= d < t.array.ndim:
            raise IndexError(f"tensordot: {argument} has {t.array.ndim} dimension(s), got dimension {d}")
    return [d % t.array.ndim for d in dims]


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sum products of two tensors over pairs of dimensions.

    Args:
        a: a tensor.
        b: a tensor of the same dtype.
        dims: how many of the last dimensions of `a` are paired with the first of `b`; or two lists, the dimensions of
            `a` and those of `b`.

    Returns:
        A tensor of the other dimensions of `a`, then those of `b`.

    Raises:
        RuntimeError: paired dimensions differ in size.

    >>> import cuframe as cf
    >>> cf.tensordot(cf.ones(2, 3, 4), cf.ones(4, 3, 5), dims=([1, 2], [1, 0])).shape
    cuframe.Size([2, 5])
    """
    a, b = same_kind("tensordot", ("a", a), ("b", b))
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.array.ndim, b.array.ndim):
            raise RuntimeError(
                f"tensordot: dims must be from 0 to {min(a.array.ndim, b.array.ndim)} for shapes "
                f"{tuple(a.array.shape)} and {tuple(b.array.shape)}, got {dims}"
            )
        dims_a, dims_b = list(range(a.array.ndim - dims, a.array.ndim)), list(range(dims))
    else:
        dims_a, dims_b = _dims(dims[0], a, "a"), _dims(dims[1], b, "b")
    if len(dims_a) != len(dims_b) or len(set(dims_a)) != len(dims_a) or len(set(dims_b)) != len(dims_b):
        raise RuntimeError(f"tensordot: dims must pair different dimensions, got {dims_a} and {dims_b}")
    for i, j in zip(dims_a, dims_b):
        if a.array.shape[i] != b.array.shape[j]:
            raise RuntimeError(
                f"tensordot: dimension {i} of a has size {a.array.shape[i]}, dimension {j} of b {b.array.shape[j]}"
            )
    la = tuple(range(a.array.ndim))
    lb = tuple(dims_a[dims_b.index(j)] if j in dims_b else 1000 + j for j in range(b.array.ndim))
    out = tuple(n for n in la if n not in dims_a) + tuple(n for n in lb if n >= 1000)
    return _record((a, b), (la, lb), out)


@numpy_name(np.tensordot)
def _numpy_tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    return tensordot(a, b, axes)


@numpy_name(np.inner)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sum products over the last dimension of both; with a 0-d operand, the product with that number.

    Args:
        input: (..., K), or 0-d.
        other: (..., K), or 0-d, of the dtype of input.

    Returns:
        The leading dimensions of the first, then those of the second.

    >>> import cuframe as cf
    >>> cf.inner(cf.ones(2, 3), cf.ones(4, 3)).shape
    cuframe.Size([2, 4])
    """
    input, other = same_kind("inner", ("input", input), ("other", other))
    if not input.array.ndim or not other.array.ndim:
        return input * other
    if input.array.shape[-1] != other.array.shape[-1]:
        raise RuntimeError(
            f"inner: the last dimensions must agree, got shapes {tuple(input.array.shape)} and "
            f"{tuple(other.array.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))
