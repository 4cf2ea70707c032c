"""Shapes: views, joining and splitting, copies in another order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import cuframe as cf

from .core import ALL, ErrorInput, Make, OpInfo, Sample


def _sizes(args: tuple) -> tuple:
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


def reshape(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), (3, 2)))
    yield Sample((make(2, 3), -1))
    yield Sample((make(2, 3, 4), 4, -1, 2))
    yield Sample((make(1), ()))
    yield Sample((make(), (1, 1)))
    yield Sample((make(0, 3), (3, 0)))
    yield Sample((make(2, 3), [6]))


def reshape_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (4, 2)), {}, RuntimeError, r"a tensor of shape \(2, 3\) \(6 elements\) has no shape")
    yield ErrorInput((make(2, 3), (-1, -1)), {}, RuntimeError, "only one size can be -1")
    yield ErrorInput((make(2, 3), (-2, 3)), {}, RuntimeError, "must not be negative")
    yield ErrorInput((make(0, 3), (-1, 0)), {}, RuntimeError, "cannot be worked out")
    yield ErrorInput((make(2, 3), 1.5), {}, TypeError, "sizes must be ints")


def views(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), (2, 3, 1)))


def view_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (5,)), {}, RuntimeError, "view: .* has no shape")
    yield ErrorInput((make(2, 3).t(), (6,)), {}, RuntimeError, r"without a copy; use reshape\(\)")
    yield ErrorInput((make(2, 3), cf.float16, 3), {}, TypeError, "view: sizes must be ints")


def _reshape_ref(x: Any, *sizes: Any) -> Any:
    return np.reshape(x, _sizes(sizes))


def as_other(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), make(3, 2, requires_grad=False)))
    yield Sample((make(4), make(2, 2, requires_grad=False)))


def as_other_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), make(5)), {}, RuntimeError, "has no shape")
    yield ErrorInput((make(2, 3), (3, 2)), {}, TypeError, "other must be a Tensor, got tuple")


def flatten(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, 4),))
    yield Sample((make(2, 3, 4), 1))
    yield Sample((make(2, 3, 4), 0, 1))
    yield Sample((make(2, 3, 4), -2, -1))
    yield Sample((make(2, 3), 1, 1))
    yield Sample((make(),))


def flatten_ref(x: Any, start: int = 0, end: int = -1) -> Any:
    n = max(x.ndim, 1)
    start, end = start % n, end % n
    shape = x.shape or (1,)
    return x.reshape(*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])


def flatten_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 2), {}, IndexError, r"start_dim must be in \[-2, 1\] for a 2-d tensor, got 2")
    yield ErrorInput((make(2, 3, 4), 2, 1), {}, RuntimeError, "start_dim must not come after end_dim")


def unflatten(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 12), 1, (3, 4)))
    yield Sample((make(6, 2), 0, (-1, 2)))
    yield Sample((make(4), -1, (2, 2)))


def unflatten_ref(x: Any, dim: int, sizes: tuple) -> Any:
    d = dim % x.ndim
    return x.reshape(*x.shape[:d], *sizes, *x.shape[d + 1 :])


def unflatten_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 12), 1, (5, 2)), {}, RuntimeError, r"sizes \(5, 2\) do not multiply to 12")
    yield ErrorInput((make(2, 12), 1, (-1, -1)), {}, RuntimeError, "do not multiply")
    yield ErrorInput((make(2, 12), 1, ()), {}, RuntimeError, "must not be empty")
    yield ErrorInput((make(2, 12), 2, (3, 4)), {}, IndexError, "dim must be in")


def permute(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, 4), (2, 0, 1)))
    yield Sample((make(2, 3, 4), 0, -1, 1))
    yield Sample((make(2, 3), (1, 0)))
    yield Sample((make(), ()))


def permute_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (0, 0)), {}, RuntimeError, "dims must hold each dimension of a 2-d tensor once")
    yield ErrorInput((make(2, 3), (0,)), {}, RuntimeError, "dims must hold each dimension")
    yield ErrorInput((make(2, 3), (0, 2)), {}, RuntimeError, "dims must hold each dimension")


def transpose(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 0, 1))
    yield Sample((make(2, 3, 4), 0, -1))
    yield Sample((make(2, 3, 4), -2, 0))
    yield Sample((make(2, 3), 1, 1))


def transpose_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 0, 2), {}, IndexError, r"dim1 must be in \[-2, 1\] for a 2-d tensor, got 2")
    yield ErrorInput((make(2, 3), -3, 0), {}, IndexError, "dim0 must be in")
    yield ErrorInput((make(2, 3), 0.5, 0), {}, TypeError, "dim0 must be an int, got float")


def t_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3, 4),), {}, RuntimeError, r"t: input must have at most 2 dimensions")


def adjoint_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(3),), {}, RuntimeError, "adjoint: input must have at least 2 dimensions")


def movedim(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3, 4), 0, 2))
    yield Sample((make(2, 3, 4), -1, 0))
    yield Sample((make(2, 3, 4), (0, 1), (1, 2)))
    yield Sample((make(2, 3, 4, 1), (3, 0), (0, -1)))


def movedim_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (0, 1), (0,)), {}, RuntimeError, "must be equally long")
    yield ErrorInput((make(2, 3), (0, 0), (0, 1)), {}, RuntimeError, "a dimension occurs twice")
    yield ErrorInput((make(2, 3), 2, 0), {}, IndexError, "source must be in")


def squeeze(make: Make) -> Iterable[Sample]:
    yield Sample((make(1, 3, 1),))
    yield Sample((make(1, 3, 1), 0))
    yield Sample((make(1, 3, 1), 1))
    yield Sample((make(1, 3, 1), (0, -1)))
    yield Sample((make(1, 3, 1), (0, 1)))
    yield Sample((make(2, 3),))
    yield Sample((make(), 0))


def squeeze_ref(x: Any, dim: Any = None) -> Any:
    if dim is None:
        return np.squeeze(x)
    dims = {d % max(x.ndim, 1) for d in (dim if isinstance(dim, tuple) else (dim,))}
    return x.reshape([s for i, s in enumerate(x.shape) if s != 1 or i not in dims])


def squeeze_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(1, 3), 2), {}, IndexError, "dim must be in")
    yield ErrorInput((make(1, 3), (0, -2)), {}, RuntimeError, "a dimension occurs twice")


def unsqueeze(make: Make) -> Iterable[Sample]:
    for d in (0, 1, 2, -1, -3):
        yield Sample((make(2, 3), d))
    yield Sample((make(), 0))


def unsqueeze_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 3), {}, IndexError, r"dim must be in \[-3, 2\]")


def expand(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 1), (2, 3)))
    yield Sample((make(2, 1), -1, 3))
    yield Sample((make(3), (2, 2, -1)))
    yield Sample((make(), (2, 3)))
    yield Sample((make(1, 3), (0, 3)))


def expand_ref(x: Any, *sizes: Any) -> Any:
    sizes = _sizes(sizes)
    extra = len(sizes) - x.ndim
    return np.broadcast_to(x, [x.shape[i - extra] if s == -1 else s for i, s in enumerate(sizes)])


def expand_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (2, 4)), {}, RuntimeError, r"a tensor of shape \(2, 3\) cannot be expanded to")
    yield ErrorInput((make(2, 3), (3,)), {}, RuntimeError, "too few")
    yield ErrorInput((make(3), (-1, 3)), {}, RuntimeError, "cannot be expanded")


def broadcast_to(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 1), (2, 3)))
    yield Sample((make(3), (2, 3)))


def broadcast_to_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (2, 4)), {}, RuntimeError, "broadcast_to: .* cannot be expanded")


def expand_as(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 1), make(2, 3, requires_grad=False)))


def expand_as_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), make(2)), {}, RuntimeError, "expand_as: 1 sizes are too few")


def broadcast_tensors(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 1), make(3)))
    yield Sample((make(2, 1), make(1, 3), make()))


def broadcast_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), make(3)), {}, RuntimeError, r"shapes \(2,\), \(3,\) cannot be broadcast together")


def broadcast_shapes(make: Make) -> Iterable[Sample]:
    yield Sample(((2, 1), (3,)))
    yield Sample(((0, 1), (1, 4), ()))


def broadcast_shapes_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(((2,), (3,)), {}, RuntimeError, "cannot be broadcast together")


def narrow(make: Make) -> Iterable[Sample]:
    yield Sample((make(5, 2), 0, 1, 3))
    yield Sample((make(2, 5), 1, -2, 2))
    yield Sample((make(2, 5), -1, 5, 0))


def narrow_ref(x: Any, dim: int, start: int, length: int) -> Any:
    start = start + x.shape[dim] if start < 0 else start
    return np.take(x, range(start, start + length), dim)


def narrow_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(5), 0, 3, 3), {}, RuntimeError, r"start \(3\) \+ length \(3\) goes beyond dim 0 of size 5")
    yield ErrorInput((make(5), 0, 0, -1), {}, RuntimeError, "length must not be negative")
    yield ErrorInput((make(5), 0, 6, 0), {}, IndexError, r"start must be in \[-5, 5\]")
    yield ErrorInput((make(), 0, 0, 0), {}, RuntimeError, "at least one dimension")


def select(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), 0, 1))
    yield Sample((make(2, 3), -1, -3))
    yield Sample((make(3), 0, 2))


def select_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 1, 3), {}, IndexError, r"index must be in \[-3, 2\] for dim 1, got 3")
    yield ErrorInput((make(), 0, 0), {}, IndexError, "at least one dimension")


def diagonal(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 3),))
    yield Sample((make(2, 3), 1))
    yield Sample((make(3, 2), -1))
    yield Sample((make(2, 3, 4), 0, 1, 2))
    yield Sample((make(2, 3, 4), -1, -1, 0))
    yield Sample((make(2, 2), 5))


def diagonal_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 0, 0, 0), {}, RuntimeError, "dim1 and dim2 must differ")
    yield ErrorInput((make(2, 3), 0, 0, 2), {}, IndexError, "dim2 must be in")


def unfold(make: Make) -> Iterable[Sample]:
    yield Sample((make(5), 0, 3, 1))
    yield Sample((make(2, 7), 1, 3, 2))
    yield Sample((make(5, 2), 0, 2, 3))
    yield Sample((make(4), 0, 4, 1))
    yield Sample((make(), 0, 1, 1))


def unfold_ref(x: Any, d: int, size: int, step: int) -> Any:
    if not x.ndim:
        return x.reshape(1)
    return np.lib.stride_tricks.sliding_window_view(x, size, d)[(slice(None),) * d + (slice(None, None, step),)]


def unfold_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(5), 0, 6, 1), {}, RuntimeError, r"size must be in \[0, 5\]")
    yield ErrorInput((make(5), 0, 2, 0), {}, RuntimeError, "step must be positive")


# -- join ---------------------------------------------------------------------------------------------------------
def cat(make: Make) -> Iterable[Sample]:
    yield Sample(([make(2, 3), make(1, 3)],))
    yield Sample(((make(2, 3), make(2, 1), make(2, 2)), 1))
    yield Sample(((make(2, 3), make(2, 1)), -1))
    yield Sample(((make(3), make(0), make(2)),))
    yield Sample(((make(2, 0), make(2, 3)), 1))


def cat_ref(tensors: Any, dim: int = 0) -> Any:
    return np.concatenate(tensors, dim)


def cat_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([],), {}, ValueError, "tensors must not be empty")
    yield ErrorInput((make(2),), {}, TypeError, "tensors must be a tuple or list of Tensors, got Tensor")
    yield ErrorInput(([make(2), 1.0],), {}, TypeError, r"tensors\[1\] must be a Tensor, got float")
    yield ErrorInput(([make(2, 3), make(2, 2)],), {}, RuntimeError, r"tensors\[1\] has shape \(2, 2\)")
    yield ErrorInput(([make(2, 3), make(2)],), {}, RuntimeError, r"tensors\[1\] has shape \(2,\)")
    yield ErrorInput(([make(), make()],), {}, RuntimeError, "0-d tensors")
    yield ErrorInput(([make(2), make(3)], 1), {}, IndexError, "dim must be in")


def stack(make: Make) -> Iterable[Sample]:
    yield Sample(([make(2, 3), make(2, 3)],))
    yield Sample(((make(2), make(2), make(2)), 1))
    yield Sample(((make(2, 3), make(2, 3)), -2))
    yield Sample(((make(), make()), 0))


def stack_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([],), {}, RuntimeError, "tensors must not be empty")
    yield ErrorInput(([make(2), make(3)],), {}, RuntimeError, r"got \(2,\) and \(3,\) \(tensors\[1\]\)")
    yield ErrorInput(([make(2), make(2)], 2), {}, IndexError, "dim must be in")


def stacks(make: Make) -> Iterable[Sample]:
    yield Sample(([make(3), make(3)],))
    yield Sample(([make(2, 3), make(2, 3)],))
    yield Sample(([make(2, 3, 1), make(2, 3, 1)],))
    yield Sample(([make(), make()],))


def stacks_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput(([],), {}, RuntimeError, "stack: tensors must not be empty")


def split(make: Make) -> Iterable[Sample]:
    yield Sample((make(5, 2), 2))
    yield Sample((make(2, 5), [1, 0, 4], 1))
    yield Sample((make(4), 4))
    yield Sample((make(0, 2), 3))


def split_ref(x: Any, sections: Any, dim: int = 0) -> Any:
    if isinstance(sections, list):
        return np.split(x, np.cumsum(sections)[:-1], dim)
    return np.split(x, range(sections, x.shape[dim], sections), dim)


def split_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(5), [2, 2]), {}, RuntimeError, r"sections \[2, 2\] must be >= 0 and add up to 5")
    yield ErrorInput((make(5), 0), {}, RuntimeError, "split_size must be positive")
    yield ErrorInput((make(), 1), {}, RuntimeError, "at least one dimension")


def chunk(make: Make) -> Iterable[Sample]:
    yield Sample((make(5, 2), 2))
    yield Sample((make(2, 5), 4, 1))
    yield Sample((make(2), 5))


def chunk_ref(x: Any, chunks: int, dim: int = 0) -> Any:
    return split_ref(x, -(-x.shape[dim] // chunks), dim)


def chunk_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(5), 0), {}, RuntimeError, "chunks must be positive, got 0")


def tensor_split(make: Make) -> Iterable[Sample]:
    yield Sample((make(5, 2), 3))
    yield Sample((make(2, 5), (1, 3), 1))
    yield Sample((make(2, 5), (3, 1, 9), -1))
    yield Sample((make(3), 5))


def tensor_split_ref(x: Any, how: Any, dim: int = 0) -> Any:
    return np.array_split(x, how, dim)


def tensor_split_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(5), 0), {}, RuntimeError, "number of sections must be positive")


def even(*shape: int) -> Any:
    def samples(make: Make) -> Iterable[Sample]:
        yield Sample((make(*shape), 2))
        yield Sample((make(*shape), (1,)))

    return samples


def even_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(3, 3, 3), 2), {}, RuntimeError, "of size 3 cannot be cut into 2 equal pieces")
    yield ErrorInput((make(), 2), {}, RuntimeError, "must have at least")


def unbind(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 2),))
    yield Sample((make(2, 3), 1))
    yield Sample((make(2),))


def unbind_ref(x: Any, dim: int = 0) -> Any:
    return list(np.moveaxis(x, dim, 0))


def unbind_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(),), {}, IndexError, "at least one dimension")
    yield ErrorInput((make(2), 1), {}, IndexError, "dim must be in")


def atleast(make: Make) -> Iterable[Sample]:
    for shape in ((), (3,), (2, 3), (2, 3, 1), (1, 2, 1, 2)):
        yield Sample((make(*shape),))
    yield Sample((make(), make(2)))
    yield Sample(([make(), make(2)],))


def atleast_ref(function: Any) -> Any:
    def reference(*tensors: Any) -> Any:
        given = tensors[0] if isinstance(tensors[0], list) else tensors
        return [function(t) for t in given]

    return reference


def atleast_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((1.0,), {}, TypeError, "must be a Tensor, got float")


# -- rearrange ----------------------------------------------------------------------------------------------------
def repeat(make: Make) -> Iterable[Sample]:
    yield Sample((make(3), 2))
    yield Sample((make(2, 3), (2, 1)))
    yield Sample((make(2, 1), 2, 3, 2))
    yield Sample((make(2), (0,)))
    yield Sample((make(), (2, 2)))


def repeat_ref(x: Any, *counts: Any) -> Any:
    return np.tile(x, _sizes(counts))


def repeat_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 2), {}, RuntimeError, r"repeats \(2,\) are fewer than the dimensions")
    yield ErrorInput((make(2), -1), {}, RuntimeError, "must not be negative")


def tile(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), (2,)))
    yield Sample((make(3), 2, 2))


def tile_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), -1), {}, RuntimeError, "tile: counts must not be negative")


def repeat_interleave(make: Make) -> Iterable[Sample]:
    yield Sample((make(3), 2))
    yield Sample((make(2, 3), 2))
    yield Sample((make(2, 3), 3, 1))
    yield Sample((make(2, 2), cf.tensor([1, 2]), 0))
    yield Sample((make(2, 2), cf.tensor([0, 3]), -1), {"output_size": 3})
    yield Sample((make(2, 2), 0, 0))


def repeat_interleave_ref(x: Any, n: Any, dim: Any = None, output_size: Any = None) -> Any:
    return np.repeat(x, n, dim)


def repeat_interleave_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(3), -1), {}, RuntimeError, "repeats must not be negative")
    yield ErrorInput((make(3), cf.tensor([1, 2])), {}, RuntimeError, r"repeats must have shape \(3,\) to fit dim 0")
    yield ErrorInput((make(2), cf.tensor([1.0, 2.0])), {}, RuntimeError, "repeats must be integers, got float32")
    yield ErrorInput((make(2), cf.tensor([-1, 2])), {}, RuntimeError, "repeats must not be negative")
    yield ErrorInput((make(2), 2), {"output_size": 5}, RuntimeError, "output_size must be 4")


def flip(make: Make) -> Iterable[Sample]:
    yield Sample((make(3), 0))
    yield Sample((make(2, 3), (0, 1)))
    yield Sample((make(2, 3, 2), -1, 0))
    yield Sample((make(2, 3), ()))


def flip_ref(x: Any, *dims: Any) -> Any:
    return np.flip(x, _sizes(dims))


def flip_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (0, -2)), {}, RuntimeError, "a dimension occurs twice")
    yield ErrorInput((make(2, 3), 2), {}, IndexError, "dims must be in")


def matrices(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3),))
    yield Sample((make(3, 2, 2),))


def fliplr_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2),), {}, RuntimeError, "at least 2 dimensions")


def flipud_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(),), {}, RuntimeError, "at least 1 dimension")


def roll(make: Make) -> Iterable[Sample]:
    yield Sample((make(5), 2))
    yield Sample((make(2, 3), -1))
    yield Sample((make(2, 3), 1, 1))
    yield Sample((make(2, 3), (1, -5), (0, -1)))
    yield Sample((make(2, 3), (1, 1), (1, 1)))


def roll_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), (1, 2)), {}, RuntimeError, "several shifts need as many dims")
    yield ErrorInput((make(2, 3), (1, 2), 0), {}, RuntimeError, "must be equally many")
    yield ErrorInput((make(2, 3), 1, 2), {}, IndexError, "dims must be in")
    yield ErrorInput((make(), 0, 0), {}, IndexError, "roll: dims must be empty for a 0-d tensor, got 0")


def rot90(make: Make) -> Iterable[Sample]:
    for k in range(-1, 4):
        yield Sample((make(2, 3), k))
    yield Sample((make(2, 3, 2), 1, (2, 0)))


def rot90_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), 1, (0, 0)), {}, RuntimeError, "two different dimensions")
    yield ErrorInput((make(2, 3), 1, (0,)), {}, RuntimeError, "must be two dimensions")


def triangle(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 3),))
    yield Sample((make(2, 3), 1))
    yield Sample((make(2, 3, 2), -1))
    yield Sample((make(3, 3), 7))


def triangle_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(3),), {}, RuntimeError, "at least 2 dimensions")


def diag(make: Make) -> Iterable[Sample]:
    yield Sample((make(3),))
    yield Sample((make(2), -1))
    yield Sample((make(3, 2),))
    yield Sample((make(3, 3), 1))


def diag_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(),), {}, RuntimeError, "1 or 2 dimensions")


def diag_embed(make: Make) -> Iterable[Sample]:
    yield Sample((make(3),))
    yield Sample((make(2, 3), 1))
    yield Sample((make(2, 3), -2, 0, 2))
    yield Sample((make(2, 3), 0, 2, 0))


def diag_embed_ref(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    n = x.shape[-1] + abs(offset)
    out = np.zeros((*x.shape[:-1], n, n), x.dtype)
    i = np.arange(x.shape[-1])
    out[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return np.moveaxis(out, (-2, -1), (dim1, dim2))


def diag_embed_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(3), 0, 1, 1), {}, RuntimeError, "dim1 and dim2 must differ")
    yield ErrorInput((make(),), {}, RuntimeError, "at least 1 dimension")


def meshgrid(make: Make) -> Iterable[Sample]:
    yield Sample((make(2), make(3)))
    yield Sample((make(2), make(3), make()), {"indexing": "xy"})
    yield Sample(([make(2), make(1)],))


def meshgrid_ref(*tensors: Any, indexing: str = "ij") -> Any:
    return np.meshgrid(*(tensors[0] if isinstance(tensors[0], list) else tensors), indexing=indexing)


def meshgrid_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), make(2, 3)), {}, RuntimeError, r"tensors\[1\] must be 0-d or 1-d")
    yield ErrorInput((make(2),), {"indexing": "ji"}, ValueError, "indexing must be 'ij' or 'xy'")


def diagflat_ref(x: Any, offset: int = 0) -> Any:
    return np.diagflat(x, offset)


def blocks(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 2), make(3), make(), make(1, 2)))
    yield Sample((make(0, 2), make(2, 1)))


def blocks_ref(*tensors: Any) -> Any:
    tensors = [np.atleast_2d(t) for t in tensors]
    out = np.zeros(np.sum([t.shape for t in tensors], axis=0), tensors[0].dtype)
    i = j = 0
    for t in tensors:
        out[i : i + t.shape[0], j : j + t.shape[1]] = t
        i, j = i + t.shape[0], j + t.shape[1]
    return out


def blocks_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 2), make(2, 2, 2)), {}, RuntimeError, r"tensors\[1\] must be at most 2-d")


def vectors(make: Make) -> Iterable[Sample]:
    yield Sample((make(2), make(3)))
    yield Sample((make(2), make(1), make(2)))
    yield Sample((make(3),))


def vectors_ref(*tensors: Any) -> Any:
    if len(tensors) == 1:
        return tensors[0]
    return np.stack([g.reshape(-1) for g in np.meshgrid(*tensors, indexing="ij")], 1)


def vectors_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2), make(2, 2)), {}, RuntimeError, r"tensors\[1\] must be 1-d")


def trace_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 2, 2),), {}, RuntimeError, "input must have 2 dimensions")


def select_scatter(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), make(3), 0, 1))
    yield Sample((make(2, 3), make(2), -1, -3))


def select_scatter_ref(x: Any, src: Any, d: int, i: int) -> Any:
    x = x.copy()
    np.moveaxis(x, d, 0)[i] = src
    return x


def select_scatter_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(2, 3), make(2), 0, 1), {}, RuntimeError, r"src must have shape \(3,\), got \(2,\)")
    yield ErrorInput((make(2, 3), make(3), 0, 2), {}, IndexError, "index must be in")


def slice_scatter(make: Make) -> Iterable[Sample]:
    yield Sample((make(4, 2), make(2, 2), 0, 1, 3))
    yield Sample((make(2, 5), make(2, 3), -1, None, None, 2))
    yield Sample((make(3), make(3)))


def slice_scatter_ref(x: Any, src: Any, d: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    x = x.copy()
    np.moveaxis(x, d, 0)[start:end:step] = np.moveaxis(src, d, 0)
    return x


def slice_scatter_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(4), make(3), 0, 0, 2), {}, RuntimeError, r"src must have shape \(2,\)")
    yield ErrorInput((make(4), make(4), 1), {}, IndexError, "dim must be in")


def diagonal_scatter(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 3), make(3)))
    yield Sample((make(2, 3), make(2), 1))
    yield Sample((make(2, 3, 2), make(3, 2), 0, 0, 2))


def diagonal_scatter_ref(x: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    x = x.copy()
    d = np.diagonal(x, offset, dim1, dim2)
    d.flags.writeable = True
    d[...] = src
    return x


def diagonal_scatter_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(3, 3), make(2)), {}, RuntimeError, r"src must have shape \(3,\)")


def info(name: str, samples: Any, reference: Any, errors: Any, **options: Any) -> OpInfo:
    return OpInfo(name, samples=samples, reference=reference, errors=errors, dtypes=ALL, **options)


OPS = [
    info("reshape", reshape, _reshape_ref, reshape_errors),
    # A view of non-contiguous memory is an error, so the copies in other layouts are made contiguous first.
    info("view", reshape, _reshape_ref, None, op=lambda x, *s: x.contiguous().view(*s), method=False),
    OpInfo("view", samples=views, reference=_reshape_ref, errors=view_errors, variant="strided", gradient=False),
    info("reshape_as", as_other, lambda x, y: x.reshape(y.shape), as_other_errors),
    info("view_as", as_other, lambda x, y: x.reshape(y.shape), None, op=lambda x, y: x.contiguous().view_as(y)),
    info("ravel", matrices, np.ravel, None),
    info("flatten", flatten, flatten_ref, flatten_errors),
    info("unflatten", unflatten, unflatten_ref, unflatten_errors),
    info("permute", permute, lambda x, *d: np.transpose(x, _sizes(d)), permute_errors),
    info("transpose", transpose, np.swapaxes, transpose_errors),
    info("swapaxes", transpose, np.swapaxes, transpose_errors),
    info("swapdims", transpose, np.swapaxes, transpose_errors),
    info("t", lambda make: [Sample((make(*s),)) for s in ((2, 3), (3,), ())], np.transpose, t_errors),
    info("adjoint", matrices, lambda x: np.swapaxes(x, -1, -2), adjoint_errors),
    info("movedim", movedim, np.moveaxis, movedim_errors),
    info("moveaxis", movedim, np.moveaxis, movedim_errors),
    info("squeeze", squeeze, squeeze_ref, squeeze_errors),
    info("unsqueeze", unsqueeze, np.expand_dims, unsqueeze_errors),
    info("expand", expand, expand_ref, expand_errors),
    info("expand_as", expand_as, lambda x, y: np.broadcast_to(x, y.shape), expand_as_errors),
    info("broadcast_to", broadcast_to, np.broadcast_to, broadcast_to_errors),
    info("broadcast_tensors", broadcast_tensors, np.broadcast_arrays, broadcast_errors),
    info("broadcast_shapes", broadcast_shapes, np.broadcast_shapes, broadcast_shapes_errors, gradient=False),
    info("narrow", narrow, narrow_ref, narrow_errors),
    info("select", select, lambda x, d, i: np.take(x, i, d), select_errors),
    info("diagonal", diagonal, np.diagonal, diagonal_errors),
    info("unfold", unfold, unfold_ref, unfold_errors),
    info("cat", cat, cat_ref, cat_errors),
    info("concat", cat, cat_ref, cat_errors),
    info("concatenate", cat, cat_ref, cat_errors),
    info("stack", stack, np.stack, stack_errors),
    info("hstack", stacks, np.hstack, stacks_errors),
    info("vstack", stacks, np.vstack, stacks_errors),
    info("row_stack", stacks, np.vstack, stacks_errors),
    info("dstack", stacks, np.dstack, stacks_errors),
    info("column_stack", stacks, np.column_stack, stacks_errors),
    info("split", split, split_ref, split_errors),
    info("chunk", chunk, chunk_ref, chunk_errors),
    info("tensor_split", tensor_split, tensor_split_ref, tensor_split_errors),
    info("hsplit", even(2, 4), np.hsplit, even_errors),
    info("vsplit", even(4, 2), np.vsplit, even_errors),
    info("dsplit", even(1, 2, 4), np.dsplit, even_errors),
    info("unbind", unbind, unbind_ref, unbind_errors),
    info("atleast_1d", atleast, atleast_ref(np.atleast_1d), atleast_errors),
    info("atleast_2d", atleast, atleast_ref(np.atleast_2d), atleast_errors),
    info("atleast_3d", atleast, atleast_ref(np.atleast_3d), atleast_errors),
    info("repeat", repeat, repeat_ref, repeat_errors),
    info("tile", tile, repeat_ref, tile_errors),
    info("repeat_interleave", repeat_interleave, repeat_interleave_ref, repeat_interleave_errors),
    info("flip", flip, flip_ref, flip_errors),
    info("fliplr", matrices, np.fliplr, fliplr_errors),
    info("flipud", matrices, np.flipud, flipud_errors),
    info("roll", roll, np.roll, roll_errors),
    info("rot90", rot90, np.rot90, rot90_errors, zero_size=False),
    info("tril", triangle, np.tril, triangle_errors),
    info("triu", triangle, np.triu, triangle_errors),
    info("diag", diag, np.diag, diag_errors),
    info("diag_embed", diag_embed, diag_embed_ref, diag_embed_errors),
    info("meshgrid", meshgrid, meshgrid_ref, meshgrid_errors),
    info("diagflat", matrices, diagflat_ref, None),
    info("block_diag", blocks, blocks_ref, blocks_errors),
    info("cartesian_prod", vectors, vectors_ref, vectors_errors),
    OpInfo("trace", samples=lambda make: [Sample((make(2, 3),))], reference=np.trace, errors=trace_errors),
    info("select_scatter", select_scatter, select_scatter_ref, select_scatter_errors),
    info("slice_scatter", slice_scatter, slice_scatter_ref, slice_scatter_errors),
    info("diagonal_scatter", diagonal_scatter, diagonal_scatter_ref, diagonal_scatter_errors),
]
