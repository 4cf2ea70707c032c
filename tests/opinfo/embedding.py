"""Looking up rows of a table."""

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

INDICES = ([2, 0, 2, 4], [[1, 1], [0, 3]], [], 3)


def samples(make):
    for index in INDICES:
        yield Sample((cf.tensor(index, dtype="int64"), make(5, 3)))
    index = cf.tensor([[2, 0, 2], [4, 4, 2]])
    for kwargs in ({"padding_idx": 2}, {"padding_idx": -1}, {"scale_grad_by_freq": True}):
        yield Sample((index, make(5, 3)), kwargs)
    yield Sample((index, make(5, 3)), {"scale_grad_by_freq": True, "padding_idx": 4})
    yield Sample((cf.tensor([2, 0, 2], dtype="int32"), make(5, 3)))
    # Enough rows to go another way than a few do, and columns to be checked along one direction only.
    yield Sample((cf.Tensor(make.rng.integers(0, 9, (40, 40))), make(9, 3)))


def sparse_samples(make):
    for sample in samples(make):
        yield Sample(sample.args, {**sample.kwargs, "sparse": True})


def errors(make):
    table = make(5, 3)
    yield ErrorInput((cf.tensor([0, 5]), table), {}, IndexError, r"embedding: input must be in \[0, 5\), got 5")
    yield ErrorInput((cf.tensor([-1]), table), {}, IndexError, r"embedding: input must be in \[0, 5\), got -1")
    yield ErrorInput((cf.tensor([1.0]), table), {}, TypeError, r"embedding: input must hold row numbers .* got float32")
    yield ErrorInput(
        (cf.tensor([1]), make(5)), {}, RuntimeError, r"weight must be \(num_embeddings, embedding_dim\), got \(5,\)"
    )
    yield ErrorInput(
        (cf.tensor([1]), table), {"padding_idx": 5}, ValueError, r"padding_idx must be in \[-5, 5\), got 5"
    )
    yield ErrorInput(([1], table), {}, TypeError, r"embedding: input must be a Tensor, got list")


def reference(index, table, **kwargs):
    return table[index]


OPS = [
    OpInfo(
        "nn.functional.embedding", samples=samples, reference=reference, dtypes=(*FLOATS, *HALVES), errors=errors,
        # Rows that padding or frequency keep from their gradient: not what finite differences find.
        gradient=False,
    ),
    OpInfo(
        "nn.functional.embedding", variant="plain", reference=reference, dtypes=(*FLOATS, *HALVES),
        samples=lambda make: [s for s in samples(make) if not s.kwargs],
    ),
    OpInfo(
        "nn.functional.embedding", variant="sparse", reference=reference, samples=sparse_samples, gradient=False
    ),
]  # fmt: skip
