"""Looking up bags of rows of a table."""

import numpy as np

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample


def ints(*values, dtype="int64"):
    return cf.tensor(list(values), dtype=dtype)


def plain(make):
    """What finite differences can check."""
    index, offsets = ints(2, 0, 2, 4, 1), ints(0, 2, 2)
    for mode in ("sum", "mean", "max"):
        yield Sample((index, make(5, 3), offsets), {"mode": mode})
        yield Sample((cf.tensor([[1, 1], [0, 3]]), make(5, 2)), {"mode": mode})
    last = {"include_last_offset": True}
    yield Sample((ints(3, 0, dtype="int32"), make(4, 2), ints(0, 1, 2, 2, dtype="int32")), {**last, "mode": "max"})
    yield Sample((ints(), make(4, 2), ints(0, 0)), {"mode": "max"})
    yield Sample((ints(), make(4, 2), ints()))
    yield Sample((ints(3, 0), make(4, 2), ints()))  # no bags
    weights = {"mode": "sum", "per_sample_weights": make(5)}
    yield Sample((index, make(5, 3), offsets), weights)
    yield Sample((index, make(5, 3), ints(0, 4, 5)), {**last, **weights})


def samples(make):
    yield from plain(make)
    index = cf.tensor([[2, 0, 2], [4, 4, 4]])
    for mode in ("sum", "mean", "max"):
        for row in (2, -1):
            yield Sample((index, make(5, 3)), {"mode": mode, "padding_idx": row})
    yield Sample((index, make(5, 3)), {"mode": "sum", "padding_idx": 4, "per_sample_weights": make(2, 3)})
    for mode in ("sum", "mean"):
        yield Sample((index, make(5, 3)), {"mode": mode, "scale_grad_by_freq": True})
        yield Sample((index, make(5, 3)), {"mode": mode, "sparse": True, "padding_idx": 0})


def reference(index, table, offsets=None, mode="mean", per_sample_weights=None, include_last_offset=False,
              padding_idx=None, **kwargs):  # fmt: skip
    """Bag by bag."""
    if offsets is None:
        bags = [list(range(k * index.shape[1], (k + 1) * index.shape[1])) for k in range(index.shape[0])]
    else:
        ends = [*offsets, *([] if include_last_offset else [index.size])]
        bags = [list(range(a, b)) for a, b in zip(ends, ends[1:])]
    flat = index.reshape(-1)
    w = np.ones(flat.size, table.dtype) if per_sample_weights is None else per_sample_weights.reshape(-1)
    out = np.zeros((len(bags), table.shape[1]), table.dtype)
    for k, bag in enumerate(bags):
        used = [i for i in bag if padding_idx is None or flat[i] != padding_idx % table.shape[0]]
        if used:
            rows = table[flat[used]] * w[used, None]
            out[k] = getattr(np, mode)(rows, axis=0)
    return out


def errors(make):
    table, index, offsets = make(5, 3), ints(0, 1, 2), ints(0, 2)
    many = cf.tensor([[0, 1]])
    for args, kwargs, kind, text in (
        ((ints(0, 5), table, offsets), {}, IndexError, r"embedding_bag: input must be in \[0, 5\), got 5"),
        ((ints(-1), table, ints(0)), {}, IndexError, r"input must be in \[0, 5\), got -1"),
        ((cf.tensor([1.0]), table, offsets), {}, TypeError, "input must hold row numbers .* got float32"),
        (([1], table, offsets), {}, TypeError, "input must be a Tensor, got list"),
        ((index, ints(1), offsets), {}, TypeError, "weight must be floating point, got int64"),
        ((index, make(5), offsets), {}, RuntimeError, r"weight must be \(num_embeddings, embedding_dim\), got \(5,\)"),
        ((index, table, offsets), {"mode": "min"}, ValueError, "mode must be 'sum', 'mean' or 'max', got 'min'"),
        ((index, table, offsets), {"mode": "max", "sparse": True}, ValueError, "sparse=True is for .* got mode 'max'"),
        ((many, table), {"mode": "max", "scale_grad_by_freq": True}, ValueError, "scale_grad_by_freq=True is for"),
        ((many, table, offsets), {}, ValueError, "offsets must be None for a 2-d input"),
        ((cf.tensor([[[0]]]), table), {}, ValueError, r"input must be 1-d or 2-d, got shape \(1, 1, 1\)"),
        ((index, table), {}, ValueError, "a 1-d input needs offsets, .*; got None"),
        ((index, table, [0]), {}, TypeError, "offsets must be a Tensor, got list"),
        ((index, table, many), {}, ValueError, r"offsets must be 1-d, got shape \(1, 2\)"),
        ((index, table, cf.tensor([0.0])), {}, TypeError, "offsets must be of an integer dtype, got float32"),
        ((index, table, ints(1, 2)), {}, RuntimeError, "offsets must begin with 0, got 1"),
        ((index, table, ints(0, 4)), {}, RuntimeError, "offsets must be at most the input's length 3, got 4"),
        ((index, table, ints(0, 2, 1)), {}, RuntimeError, r"offsets must not decrease, got \[0, 2, 1\]"),
        ((index, table, ints()), {"include_last_offset": True}, ValueError, "offsets must have at least 1 entry"),
        ((index, table, offsets), {"include_last_offset": True}, RuntimeError,
         "with include_last_offset=True offsets must end with the input's length 3, got 2"),
        ((index, table, offsets), {"padding_idx": 5}, RuntimeError, r"padding_idx must be in \[-5, 5\), got 5"),
        ((many, table), {"per_sample_weights": make(1, 2)}, NotImplementedError, "for mode 'sum', got mode 'mean'"),
        ((many, table), {"mode": "sum", "per_sample_weights": make(2)}, ValueError,
         r"per_sample_weights must have the input's shape \(1, 2\), got \(2,\)"),
        ((many, table), {"mode": "sum", "per_sample_weights": make(1, 2).double()}, RuntimeError,
         "per_sample_weights must be of the weight's dtype float32, got float64"),
    ):  # fmt: skip
        yield ErrorInput(args, kwargs, kind, text)


OPS = [
    OpInfo(
        "nn.functional.embedding_bag", samples=samples, reference=reference, dtypes=(*FLOATS, *HALVES), errors=errors,
        # Rows that frequency keeps from their gradient: not what finite differences find.
        gradient=False,
    ),
    OpInfo("nn.functional.embedding_bag", variant="plain", reference=reference, samples=plain),
]  # fmt: skip
