"""What beginners get wrong, and what they are told: operation or layer, argument, what was expected, what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn, optim
from cuframe.data import DataLoader, TensorDataset
from cuframe.nn import functional as F
from cuframe.optim import lr_scheduler

X = cf.ones(4, 8)
CLASSES = cf.tensor([0, 1, 2, 3])
SEQUENCE = cf.ones(5, 2, 8)


def sgd() -> optim.SGD:
    return optim.SGD([nn.Parameter([1.0])], lr=0.1)


class Ragged:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> cf.Tensor:
        return cf.ones(index + 1)


MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # layers: sizes
    (lambda: nn.Linear(8.0, 2), TypeError, "Linear: in_features must be an int, got float"),
    (lambda: nn.Linear(8, -2), RuntimeError, "Linear: out_features must not be negative, got -2"),
    (lambda: nn.Linear(6, 2)(X), RuntimeError, "linear: weight must be (out_features, 8), got (2, 6)"),
    (lambda: nn.Linear(8, 2)(X.double()), RuntimeError,
     "linear: input and weight must have one dtype, got float64 and float32"),
    (lambda: nn.Linear(8, 2)(X.numpy()), TypeError, "linear: input must be a Tensor, got ndarray"),
    (lambda: nn.Bilinear(2, "3", 4), TypeError, "Bilinear: in2_features must be an int, got str"),
    (lambda: nn.Embedding("4", 2), TypeError, "Embedding: num_embeddings must be an int, got str"),
    (lambda: nn.EmbeddingBag(4, 2.0), TypeError, "EmbeddingBag: embedding_dim must be an int, got float"),
    (lambda: nn.Embedding(4, 2)(cf.tensor([4])), IndexError, "embedding: input must be in [0, 4), got 4"),
    (lambda: nn.Embedding(4, 2)(X), TypeError,
     "embedding: input must hold row numbers of an integer dtype, got float32"),
    (lambda: nn.Conv2d(1.0, 2, 3), TypeError, "Conv2d: in_channels must be an int, got float"),
    (lambda: nn.Conv2d(3, 4, 3)(cf.ones(1, 1, 8, 8)), RuntimeError,
     "conv2d: input must have 3 channels for weight (4, 3, 3, 3) and groups 1, got 1 in (1, 1, 8, 8)"),
    (lambda: nn.BatchNorm1d("8"), TypeError, "BatchNorm1d: num_features must be an int, got str"),
    (lambda: nn.BatchNorm1d(7)(X), RuntimeError, "BatchNorm1d: input must have 7 channels, got shape (4, 8)"),
    (lambda: nn.BatchNorm2d(8)(X), ValueError, "BatchNorm2d: input must be 4D, got 2D of shape (4, 8)"),
    (lambda: nn.LayerNorm("8"), TypeError, "LayerNorm: normalized_shape must be an int or ints, got '8'"),
    (lambda: nn.RMSNorm((2, 3.0)), TypeError, "RMSNorm: normalized_shape must be an int or ints, got (2, 3.0)"),
    (lambda: nn.LayerNorm(7)(X), RuntimeError,
     "layer_norm: input must end in the dimensions (7,) of normalized_shape, got (4, 8)"),
    (lambda: nn.MultiheadAttention(10, 3), ValueError,
     "MultiheadAttention: embed_dim must be a positive multiple of num_heads, got 10 and 3"),
    # layers: recurrent
    (lambda: nn.LSTM(6, 3)(SEQUENCE), RuntimeError,
     "LSTM: the input's last dimension must be input_size 6, got (5, 2, 8)"),
    (lambda: nn.LSTM(8, 3)(SEQUENCE, cf.zeros(1, 2, 3)), TypeError,
     "LSTM: hx must be a pair (h_0, c_0), got Tensor"),
    (lambda: nn.LSTM(8, 3)(SEQUENCE, lengths=cf.tensor([6, 2])), ValueError,
     "lstm: lengths must be between 0 and 5, got 2 to 6"),
    (lambda: nn.utils.rnn.pad_packed_sequence(SEQUENCE), TypeError,
     "pad_packed_sequence: sequence must be a PackedSequence, got Tensor"),
    (lambda: nn.Linear(3, 1)(nn.LSTM(8, 3)(SEQUENCE)), TypeError,
     "linear: input must be a Tensor, got tuple; a recurrent layer gives its output and its state"),
    # layers that are called as if they were functions, and the other way round
    (lambda: nn.ReLU(X), TypeError,
     "ReLU: inplace must be a bool, got Tensor; make the module first, then call it: ReLU()(input)"),
    (lambda: nn.Dropout(X), TypeError,
     "Dropout: p must be a number, got Tensor; make the module first, then call it: Dropout()(input)"),
    (lambda: nn.Dropout("0.5"), TypeError, "Dropout: p must be a number, got str"),
    (lambda: nn.MSELoss(X, X), TypeError,
     "MSELoss: size_average must not be a Tensor; make the module, then call it: MSELoss()(input, target)"),
    (lambda: nn.CrossEntropyLoss(X, CLASSES), TypeError,
     "CrossEntropyLoss: size_average must not be a Tensor; make the module, then call it: "
     "CrossEntropyLoss()(input, target)"),
    (lambda: nn.Sequential([nn.Linear(8, 2)]), TypeError,
     "Sequential: expected a Module, got list; give them one by one: Sequential(*modules)"),
    (lambda: nn.Sequential(nn.Linear(8, 2), F.relu), TypeError,
     "Sequential: expected a Module, got function; functions have modules of their own, nn.ReLU() for F.relu"),
    # losses
    (lambda: F.cross_entropy(X, cf.tensor([0, 1, 2, 8])), IndexError,
     "cross_entropy: target must be in [0, 8), got 8"),
    (lambda: F.cross_entropy(X, CLASSES.reshape(4, 1)), ValueError,
     "cross_entropy: target must be (4,) for an input of shape (4, 8), got (4, 1)"),
    (lambda: F.cross_entropy(CLASSES, X), TypeError, "cross_entropy: input must be floating point, got int64"),
    (lambda: nn.CrossEntropyLoss(reduction="avg"), ValueError,
     "CrossEntropyLoss: reduction must be one of none, mean, sum, got 'avg'"),
    (lambda: F.mse_loss(cf.ones(4, 3), cf.ones(4)), RuntimeError,
     "mse_loss: input of shape (4, 3) and target of shape (4,) cannot be broadcast together"),
    (lambda: F.kl_div(cf.ones(2, 3), cf.ones(2, 4)), RuntimeError,
     "kl_div: input, target must broadcast together, got shapes (2, 3), (2, 4)"),
    (lambda: F.cosine_embedding_loss(cf.ones(2, 3), cf.ones(2, 3), cf.ones(3)), RuntimeError,
     "cosine_embedding_loss: target must be (2,) for inputs of shapes (2, 3) and (2, 3), got (3,)"),
    (lambda: F.ctc_loss(cf.ones(5, 1, 8).log_softmax(2), cf.tensor([[1, 9]]), cf.tensor([5]), cf.tensor([2])),
     IndexError, "ctc_loss: targets must be in [0, 8), got 9"),
    # optimizers and schedules
    (lambda: optim.Adam(nn.Linear(8, 2)), TypeError,
     "Adam: params must be a list of Tensors or dicts, got Linear; pass its parameters()"),
    (lambda: optim.Adam(nn.Linear(8, 2).parameters), TypeError,
     "Adam: params must be a list of Tensors or dicts, got method; call it"),
    (lambda: optim.Adam([1, 2]), TypeError, "Adam: parameters must be Tensors, got int at position 0"),
    (lambda: optim.SGD([{"lr": 0.1}]), TypeError,
     """SGD: a parameter group must be a dict with "params", got one with ['lr']"""),
    (lambda: optim.SGD([nn.Parameter([1.0])], lr="0.1"), TypeError, "SGD: lr must be a number, got str"),
    (lambda: optim.SGD([nn.Parameter([1.0])], lr=-1), ValueError, "SGD: lr must be >= 0, got -1"),
    (lambda: optim.Adam([nn.Parameter([1.0])], betas=0.9), ValueError, "Adam: betas must be two numbers, got 0.9"),
    (lambda: lr_scheduler.StepLR(nn.Linear(8, 2), 2), TypeError,
     "StepLR: optimizer must be an Optimizer, got Linear"),
    (lambda: lr_scheduler.StepLR(sgd(), 0), ValueError, "StepLR: step_size must be at least 1, got 0"),
    (lambda: lr_scheduler.MultiStepLR(sgd(), 3), TypeError,
     "MultiStepLR: milestones must be a list of epochs, got int"),
    (lambda: lr_scheduler.ExponentialLR(sgd(), "0.1"), TypeError, "ExponentialLR: gamma must be a number, got str"),
    (lambda: lr_scheduler.CosineAnnealingLR(sgd(), 0), ValueError,
     "CosineAnnealingLR: T_max must be positive, got 0"),
    (lambda: lr_scheduler.LambdaLR(sgd(), 0.5), TypeError,
     "LambdaLR: lr_lambda must be a function of the epoch, got float"),
    (lambda: lr_scheduler.LambdaLR(nn.Linear(8, 2), abs), TypeError,
     "LambdaLR: optimizer must be an Optimizer, got Linear"),
    (lambda: nn.utils.clip_grad_norm_(None, 1.0), TypeError,
     "clip_grad_norm_: parameters must be Tensors, got NoneType"),
    # data
    (lambda: DataLoader(5), TypeError,
     "DataLoader: dataset must have __getitem__ and __len__, or be an IterableDataset, got int"),
    (lambda: DataLoader(iter([1, 2]), sampler=[0]), TypeError,
     "DataLoader: dataset must have __getitem__, or be an IterableDataset, got list_iterator"),
    (lambda: DataLoader(Ragged(), batch_size=0), ValueError,
     "DataLoader: batch_size must be a positive integer or None, got 0"),
    (lambda: next(iter(DataLoader(Ragged(), batch_size=3))), ValueError,
     "collate: sample 0 has shape (1,) and sample 1 has (2,); pad_collate pads sequences of different length"),
    (lambda: TensorDataset(cf.ones(3), cf.ones(4)), ValueError,
     "TensorDataset: the tensors' first dimensions must be equal, got [3, 4]"),
    # tensors, dtypes, devices
    (lambda: cf.tensor("1.5"), TypeError, "tensor: data must be numbers, got str"),
    (lambda: cf.tensor([[1, "a"]]), TypeError, "tensor: data must be numbers, got list with str"),
    (lambda: cf.tensor(np.array(["a"])), TypeError, "tensor: data must be numbers, got an array of str32"),
    (lambda: bool(X > 0), RuntimeError,
     "bool: needs a tensor with one element, got shape (4, 8); ask any() or all()"),
    (lambda: cf.tensor([1, 2], requires_grad=True), RuntimeError,
     "requires_grad: the dtype must be floating point or complex, got int64"),
    (lambda: nn.Parameter("a"), TypeError, "Parameter: data must be a Tensor, an array or numbers, got 'a'"),
    (lambda: cf.scalar_tensor([1, 2]), TypeError, "scalar_tensor: value must be a number, got list"),
    (lambda: cf.ones(2, device="gpu"), ValueError, "device: unknown type 'gpu' in 'gpu'; known: cpu, cuda, sim"),
    (lambda: X.to("gpu"), TypeError, "to: 'gpu' is neither a dtype nor a device; devices are cpu, cuda, sim"),
    (lambda: nn.Linear(8, 2).to("gpu"), TypeError,
     "to: 'gpu' is neither a dtype nor a device; devices are cpu, cuda, sim"),
    (lambda: nn.Linear(8, 2)(X.to("sim")), RuntimeError,
     "linear: input and weight must be on one device, got sim:0 and cpu"),
    (lambda: cf.iinfo(cf.float32), TypeError, "iinfo: dtype must be an integer dtype, got float32"),
    (lambda: cf.finfo(cf.int8), TypeError, "finfo: dtype must be floating point, got int8"),
    (lambda: cf.column_stack([cf.ones(2), cf.ones(3)]), RuntimeError,
     "column_stack: tensors[1] has shape (3, 1), which differs from (2, 1) elsewhere than in dim 1"),
    (lambda: nn.Linear(8, 2)(X).numpy(), RuntimeError,
     "numpy: the tensor requires a gradient; use t.detach().numpy()"),
]  # fmt: skip


@pytest.mark.parametrize("mistake, kind, text", MISTAKES, ids=[text[:60] for *_, text in MISTAKES])
def test_message(mistake: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        mistake()


def test_a_tensor_on_the_host_has_no_cuda_interface() -> None:
    """Libraries ask by hasattr, which an error of another kind would pass through."""
    assert not hasattr(cf.ones(2, requires_grad=True), "__cuda_array_interface__")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(cf.CheckpointError, match="^save: the object is of type .*Linear; a checkpoint holds Tensors, "):
        cf.save(nn.Linear(2, 2), path)
    with pytest.raises(TypeError, match=r"^save: path must be a str or os.PathLike, got dict$"):
        cf.save(str(path), {"w": X})
    with pytest.raises(FileNotFoundError, match="load: cannot open: No such file or directory"):
        cf.load(path)
    path.write_bytes(b"hello, this is no checkpoint")
    with pytest.raises(cf.CheckpointError, match="^load: .* is truncated or not a safetensors file"):
        cf.load(path)
    with pytest.raises(RuntimeError, match=r"(?s)does not fit Linear.*missing key\(s\): \"bias\"$"):
        nn.Linear(8, 2).load_state_dict({"weight": cf.ones(2, 8)})


def test_what_is_like_an_array_becomes_one() -> None:
    """A column of pandas, say: it has dtype and shape, and is no array."""

    class Column:
        dtype, shape = np.dtype(np.int64), (3,)

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.arange(3)

    for make in (cf.tensor, cf.as_tensor):
        made = make(Column())
        assert type(made.array) is np.ndarray and made.tolist() == [0, 1, 2]
