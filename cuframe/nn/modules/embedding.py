"""Tables of vectors."""

from __future__ import annotations

from typing import Any

from ...autograd.modes import no_grad
from ...ops.create import empty
from ...tensor import Parameter, Tensor
from .. import functional as F
from .. import init
from ..module import Module
from .checks import check_sizes_of

__all__ = ["Embedding", "EmbeddingBag"]


def _padding_row(name: str, padding_idx: int | None, num_embeddings: int, embedding_dim: int) -> int | None:
    """A padding row's number, counted from the first, after the sizes have been checked."""
    check_sizes_of(name, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
    if padding_idx is None:
        return None
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ValueError(f"{name}: padding_idx must be in [{-num_embeddings}, {num_embeddings}), got {padding_idx}")
    return padding_idx % num_embeddings


def _given_table(name: str, weight: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(weight.shape) != shape:
        raise ValueError(f"{name}: _weight must be {shape}, got {tuple(weight.shape)}")
    return weight


def _rows_and_columns(embeddings: Tensor) -> tuple[int, int]:
    if embeddings.ndim != 2:
        raise ValueError(f"from_pretrained: embeddings must have 2 dimensions, got {tuple(embeddings.shape)}")
    return tuple(embeddings.shape)  # type: ignore[return-value]


class Embedding(Module):
    """A table of vectors, looked up by number: `out[...] = weight[input[...]]`.

    `weight` (num_embeddings, embedding_dim) starts from the standard normal distribution.

    Args:
        num_embeddings: the number of rows.
        embedding_dim: the length of each.
        padding_idx: a row that starts as zeros and takes no gradient; negative ones count from the end.
        max_norm: rows that are looked up and whose norm is larger are scaled down to it, in place.
        norm_type: the order of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it occurs in the input.
        sparse: make the gradient hold only the rows used; SGD, Adagrad and SparseAdam take it.
        device, dtype: of the parameter.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> table = nn.Embedding(10, 3, padding_idx=0)
    >>> table
    Embedding(10, 3, padding_idx=0)
    >>> table(cf.tensor([[0, 2], [9, 0]])).shape
    cuframe.Size([2, 2, 3])
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = _padding_row("Embedding", padding_idx, num_embeddings, embedding_dim)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if _weight is None:
            table = empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
            self.weight = Parameter(table, requires_grad=not _freeze)
            self.reset_parameters()
        else:
            table = _given_table("Embedding", _weight, (num_embeddings, embedding_dim))
            self.weight = Parameter(table, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Draw the table anew, with zeros in the padding row."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        for name, default in (
            ("padding_idx", None), ("max_norm", None), ("norm_type", 2.0), ("scale_grad_by_freq", False),
        ):  # fmt: skip
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value}"
        return text + (", sparse=True" if self.sparse else "")

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """A layer on the memory of a given table (num_embeddings, embedding_dim).

        Args:
            embeddings: the table.
            freeze: it takes no gradient.
            padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse: as for the class.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> nn.Embedding.from_pretrained(cf.tensor([[1.0, 2.0], [3.0, 4.0]]))(cf.tensor([1]))
        tensor([[3., 4.]])
        """
        rows, columns = _rows_and_columns(embeddings)
        return cls(
            rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            _weight=embeddings, _freeze=freeze,
        )  # fmt: skip


class EmbeddingBag(Module):
    """Sums, means or maxima of bags of rows of a table, without the rows in between; see `F.embedding_bag`.

        out[b] = reduce over i in bag b of (per_sample_weights[i] *) weight[input[i]]

    `weight` (num_embeddings, embedding_dim) starts from the standard normal distribution.

    Args:
        num_embeddings: the number of rows.
        embedding_dim: the length of each.
        max_norm: rows that are looked up and whose norm is larger are scaled down to it, in place.
        norm_type: the order of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it occurs in the input; not for `"max"`.
        mode: `"sum"`, `"mean"` or `"max"`.
        sparse: make the gradient hold only the rows used; not for `"max"`.
        include_last_offset: the last entry of `offsets` is the end of the last bag.
        padding_idx: a row that starts as zeros, is left out of every bag and takes no gradient.
        device, dtype: of the parameter.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> bags = nn.EmbeddingBag(10, 3, mode="sum")
    >>> bags
    EmbeddingBag(10, 3, mode='sum')
    >>> bags(cf.tensor([1, 2, 4, 5]), cf.tensor([0, 3])).shape
    cuframe.Size([2, 3])
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"EmbeddingBag: mode must be 'sum', 'mean' or 'max', got {mode!r}")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.padding_idx = _padding_row("EmbeddingBag", padding_idx, num_embeddings, embedding_dim)
        self.mode = mode
        self.sparse = sparse
        self.include_last_offset = include_last_offset
        if _weight is None:
            self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
            self.reset_parameters()
        else:
            self.weight = Parameter(_given_table("EmbeddingBag", _weight, (num_embeddings, embedding_dim)))

    def reset_parameters(self) -> None:
        """Draw the table anew, with zeros in the padding row."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode,
            self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        for name, default in (("max_norm", None), ("norm_type", 2.0), ("scale_grad_by_freq", False)):
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value}"
        text += f", mode={self.mode!r}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:
        """A layer on the memory of a given table (num_embeddings, embedding_dim).

        Args:
            embeddings: the table.
            freeze: it takes no gradient.
            max_norm, norm_type, scale_grad_by_freq, mode, sparse, include_last_offset, padding_idx: as for the class.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> bags = nn.EmbeddingBag.from_pretrained(cf.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> bags(cf.tensor([[0, 1]]))
        tensor([[2., 3.]])
        """
        rows, columns = _rows_and_columns(embeddings)
        layer = cls(
            rows, columns, max_norm, norm_type, scale_grad_by_freq, mode, sparse, _weight=embeddings,
            include_last_offset=include_last_offset, padding_idx=padding_idx,
        )  # fmt: skip
        layer.weight.requires_grad_(not freeze)
        return layer
