"""Sequences of different lengths: packed, padded, and back; gradients flow through all of it.

Note [Packed order]
    A packed sequence holds the steps of all sequences, time after time, and within a time the sequences from the
    longest to the shortest, so each time step is a block of rows and `batch_sizes[t]` is its height. Packing and
    padding move rows that are all different, so each is the other's gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...backend import backend_of
from ...ops.define import Op
from ...ops.join import cat
from ...tensor import Tensor, record

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
    "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """Sequences of different lengths without padding; made by `pack_padded_sequence` and `pack_sequence`.

    Attributes:
        data: (sum of lengths, *), in the order of Note [Packed order].
        batch_sizes: how many sequences reach each time step; int64 on the CPU.
        sorted_indices: the sequences from the longest to the shortest, or None where they came so.
        unsorted_indices: the way back.

    Raises:
        TypeError: data or batch_sizes are no Tensors.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import pack_sequence
    >>> packed = pack_sequence([cf.tensor([1, 2]), cf.tensor([3, 4, 5])], enforce_sorted=False)
    >>> packed.data, packed.batch_sizes, packed.sorted_indices
    (tensor([3, 1, 4, 2, 5]), tensor([2, 2, 1]), tensor([1, 0]))
    >>> packed.to(dtype=cf.float64).data.dtype
    dtype('float64')
    """

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Tensor,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if not isinstance(data, Tensor) or not isinstance(batch_sizes, Tensor):
            raise TypeError(
                "PackedSequence: data and batch_sizes must be Tensors, "
                f"got {type(data).__name__} and {type(batch_sizes).__name__}"
            )
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with `data.to(...)`."""
        data = self.data.to(*args, **kwargs)  # type: ignore[attr-defined]
        if data is self.data:
            return self
        where = data.device
        moved = [None if i is None else i.to(where) for i in (self.sorted_indices, self.unsorted_indices)]  # type: ignore[attr-defined]
        return PackedSequence(data, self.batch_sizes, *moved)

    def cpu(self) -> PackedSequence:
        """The same on the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = "cuda") -> PackedSequence:
        """The same on a CUDA device."""
        return self.to(device)

    def double(self) -> PackedSequence:
        """The same with data in float64."""
        return self.to(dtype="float64")

    def float(self) -> PackedSequence:
        """The same with data in float32."""
        return self.to(dtype="float32")

    def half(self) -> PackedSequence:
        """The same with data in float16."""
        return self.to(dtype="float16")

    @property
    def is_cuda(self) -> bool:
        """True if the data is on a CUDA device."""
        return self.data.is_cuda


def _take_vjp(g: Any, needs: tuple, rows: Any, count: int) -> tuple:
    return (_place(g, rows, count, 0) if isinstance(g, Tensor) else _placed(g, rows, count, 0),)


def _place_vjp(g: Any, needs: tuple, rows: Any) -> tuple:
    return (_take(g, rows) if isinstance(g, Tensor) else g[rows],)


_TAKE = Op("pack_rows", _take_vjp, (None, None))
_PLACE = Op("pad_rows", _place_vjp, (None,))


def _take(x: Tensor, rows: Any) -> Tensor:
    """`x[rows]`, all rows different."""
    return record(x.array[rows], _TAKE, (x,), (rows, x.array.shape[0]))


def _placed(x: Any, rows: Any, count: int, fill: float) -> Any:
    out = backend_of(x).xp.full((count, *x.shape[1:]), fill, dtype=x.dtype)
    out[rows] = x
    return out


def _place(x: Tensor, rows: Any, count: int, fill: float) -> Tensor:
    """`count` rows of `fill`, with `x` at `rows`, all different."""
    return record(_placed(x.array, rows, count, fill), _PLACE, (x,), (rows,))


def _beside(index: np.ndarray, x: Tensor) -> Any:
    """Indices on the device of `x`."""
    return backend_of(x.array).asarray(index, x.array)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another; None for None.

    Args:
        permutation: (N,) of the integers below N.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import invert_permutation
    >>> invert_permutation(cf.tensor([2, 0, 1]))
    tensor([1, 2, 0])
    """
    if permutation is None:
        return None
    order = permutation.array
    inverse = backend_of(order).xp.empty_like(order)
    inverse[order] = backend_of(order).xp.arange(order.size, dtype=order.dtype)
    return Tensor(inverse)


def _lengths(name: str, lengths: Any) -> np.ndarray:
    given = lengths.numpy(force=True) if isinstance(lengths, Tensor) else np.asarray(lengths)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise TypeError(
            f"{name}: lengths must be a list of integers, got shape {given.shape} of {given.dtype.name}"
        )
    return given.astype(np.int64)


def _steps(sorted_lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For falling lengths: the time and the sequence of every packed row, and the batch sizes."""
    longest = int(sorted_lengths[0]) if sorted_lengths.size else 0
    reaches = np.arange(longest)[:, None] < sorted_lengths[None, :]
    time, sequence = np.nonzero(reaches)
    return time, sequence, reaches.sum(axis=1, dtype=np.int64)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack padded sequences, leaving the padding out.

    Args:
        input: (T, N, *), or (N, T, *) with `batch_first`.
        lengths: N integers from 1 to T, as a list or a Tensor.
        batch_first: the layout of `input`.
        enforce_sorted: the sequences come from the longest to the shortest; otherwise they are sorted here, and
            `pad_packed_sequence` restores their order.

    Raises:
        TypeError: `input` is no Tensor, or the lengths are no integers.
        ValueError: the lengths do not fit the input, or are not sorted where that was promised.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import pack_padded_sequence
    >>> x = cf.tensor([[1, 2], [3, 4], [5, 0]])
    >>> p = pack_padded_sequence(x, [3, 2])
    >>> p.data, p.batch_sizes
    (tensor([1, 2, 3, 4, 5]), tensor([2, 2, 1]))
    """
    name = "pack_padded_sequence"
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: input must be a Tensor, got {type(input).__name__}")
    if input.array.ndim < 2:
        raise ValueError(f"{name}: input must have at least 2 dimensions, got shape {tuple(input.shape)}")
    sizes = _lengths(name, lengths)
    n, t = (0, 1) if batch_first else (1, 0)
    batch, longest = input.array.shape[n], input.array.shape[t]
    if sizes.size != batch:
        raise ValueError(f"{name}: lengths must have {batch} entries, one for each sequence, got {sizes.size}")
    if sizes.size and (sizes.min() < 1 or sizes.max() > longest):
        bad = int(sizes.min() if sizes.min() < 1 else sizes.max())
        raise ValueError(f"{name}: lengths must be in [1, {longest}], got {bad}")
    order = None
    if enforce_sorted:
        if (np.diff(sizes) > 0).any():
            raise ValueError(
                f"{name}: lengths must be sorted from the longest to the shortest, got {sizes.tolist()}; "
                "enforce_sorted=False sorts them"
            )
        time, sequence, batch_sizes = _steps(sizes)
    else:
        order = np.argsort(-sizes, kind="stable")
        time, sequence, batch_sizes = _steps(sizes[order])
        sequence = order[sequence]
    rows = sequence * longest + time if batch_first else time * batch + sequence
    flat = input.reshape(batch * longest, *input.array.shape[2:])  # type: ignore[attr-defined]
    data = _take(flat, _beside(rows, input))
    return PackedSequence(
        data, Tensor(batch_sizes), None if order is None else Tensor(_beside(order.astype(np.int64), input))
    )


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Pad packed sequences again, in their original order.

    Args:
        sequence: from `pack_padded_sequence`, `pack_sequence` or a recurrent layer.
        batch_first: the layout of the result.
        padding_value: what stands behind the end of a sequence.
        total_length: pad to this length instead of that of the longest.

    Returns:
        The padded sequences, (T, N, *) or (N, T, *), and their lengths, int64 on the CPU.

    Raises:
        ValueError: a sequence is longer than `total_length`.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import pack_sequence, pad_packed_sequence
    >>> pad_packed_sequence(pack_sequence([cf.tensor([1, 2]), cf.tensor([3])]), batch_first=True)
    (tensor([[1, 2], [3, 0]]), tensor([2, 1]))
    """
    if not isinstance(sequence, PackedSequence):
        raise TypeError(f"pad_packed_sequence: sequence must be a PackedSequence, got {type(sequence).__name__}")
    data, batch_sizes, sorted_indices, _ = sequence
    sizes = batch_sizes.numpy(force=True)
    batch, longest = (int(sizes[0]) if sizes.size else 0), sizes.size
    length = longest if total_length is None else total_length
    if length < longest:
        raise ValueError(
            f"pad_packed_sequence: total_length must be at least the longest sequence's {longest}, got {total_length}"
        )
    lengths = (sizes[:, None] > np.arange(batch)[None, :]).sum(axis=0, dtype=np.int64)
    time, place, _ = _steps(lengths)
    if sorted_indices is not None:
        order = sorted_indices.numpy(force=True)
        place = order[place]
        restored = np.empty_like(lengths)
        restored[order] = lengths
        lengths = restored
    rows = place * length + time if batch_first else time * batch + place
    flat = _place(data, _beside(rows, data), batch * length, padding_value)
    shape = (batch, length) if batch_first else (length, batch)
    return flat.reshape(*shape, *data.array.shape[1:]), Tensor(lengths)  # type: ignore[attr-defined]


def _checked(name: str, sequences: Any) -> list[Tensor]:
    if isinstance(sequences, Tensor):
        sequences = list(sequences)
    if not isinstance(sequences, Iterable):
        raise TypeError(f"{name}: sequences must be a list of Tensors, got {type(sequences).__name__}")
    found = list(sequences)
    if not found:
        raise ValueError(f"{name}: got no sequences")
    for i, s in enumerate(found):
        if not isinstance(s, Tensor):
            raise TypeError(f"{name}: sequences[{i}] must be a Tensor, got {type(s).__name__}")
        if s.array.ndim < 1 or s.array.shape[1:] != found[0].array.shape[1:]:
            raise ValueError(
                f"{name}: sequences must agree in all dimensions but the first, "
                f"got {tuple(found[0].array.shape)} and, at {i}, {tuple(s.array.shape)}"
            )
    return found


def pad_sequence(
    sequences: Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stack sequences of different lengths, the shorter ones padded.

    Args:
        sequences: N tensors (length, *).
        batch_first: give (N, T, *) instead of (T, N, *).
        padding_value: what the padding holds.
        padding_side: `"right"` or `"left"`.

    Raises:
        ValueError: there are none, or they differ in more than length.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import pad_sequence
    >>> pad_sequence([cf.tensor([1, 2]), cf.tensor([3])], batch_first=True, padding_value=-1)
    tensor([[ 1,  2],
            [ 3, -1]])
    """
    found = _checked("pad_sequence", sequences)
    if padding_side not in ("left", "right"):
        raise ValueError(f"pad_sequence: padding_side must be 'left' or 'right', got {padding_side!r}")
    lengths = np.array([s.array.shape[0] for s in found], np.int64)
    longest, batch = int(lengths.max()), len(found)
    starts = longest - lengths if padding_side == "left" else np.zeros(batch, np.int64)
    time = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, lengths)])
    sequence = np.repeat(np.arange(batch), lengths)
    rows = sequence * longest + time if batch_first else time * batch + sequence
    flat = _place(cat(found), _beside(rows, found[0]), batch * longest, padding_value)
    shape = (batch, longest) if batch_first else (longest, batch)
    return flat.reshape(*shape, *found[0].array.shape[1:])  # type: ignore[attr-defined]


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded batch, each in its own length.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import unpad_sequence
    >>> unpad_sequence(cf.tensor([[1, 2], [3, 0]]), [2, 1], batch_first=True)
    [tensor([1, 2]), tensor([3])]
    """
    sizes = _lengths("unpad_sequence", lengths)
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)  # type: ignore[attr-defined]
    if sizes.size != padded_sequences.shape[0]:
        raise ValueError(
            f"unpad_sequence: lengths must have {padded_sequences.shape[0]} entries, got {sizes.size}"
        )
    return [padded_sequences[i, : int(n)] for i, n in enumerate(sizes)]  # type: ignore[index]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (length, *) of different lengths; `enforce_sorted` as in `pack_padded_sequence`.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import pack_sequence
    >>> packed = pack_sequence([cf.tensor([1, 2, 3]), cf.tensor([4])])
    >>> packed.data, packed.batch_sizes
    (tensor([1, 4, 2, 3]), tensor([2, 1, 1]))
    """
    found = _checked("pack_sequence", sequences)
    return pack_padded_sequence(pad_sequence(found), [s.array.shape[0] for s in found], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a PackedSequence, in their original order.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils.rnn import pack_sequence, unpack_sequence
    >>> unpack_sequence(pack_sequence([cf.tensor([1, 2, 3]), cf.tensor([4])]))
    [tensor([1, 2, 3]), tensor([4])]
    """
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
