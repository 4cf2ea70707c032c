"""Module, containers, parametrizations and packed sequences: the same names, texts and values as PyTorch's."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from cuframe import nn

pytestmark = pytest.mark.parity


def build(n: Any, lib: Any) -> Any:
    """The same model from either library."""

    class Block(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = n.ModuleList([n.Linear(3, 3), n.Linear(3, 3), n.ReLU()])
            self.gain = n.Parameter(lib.ones(3))
            self.register_buffer("seen", lib.zeros(2))
            self.register_buffer("hidden", lib.zeros(2), persistent=False)
            self.by_name = n.ModuleDict({"a": n.Linear(3, 1, bias=False), "b": n.Dropout(0.25)})
            self.params = n.ParameterList([lib.ones(2), lib.ones(2, 2)])
            self.table = n.ParameterDict({"z": lib.ones(1), "y": lib.ones(4)})
            # PyTorch runs the lines of a nested ParameterDict together.
            self.table.__class__ = type("Table", (n.ParameterDict,), {"__repr__": lambda self: "Table"})

    class Net(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = n.Embedding(5, 3)
            self.body = n.Sequential(Block(), n.Sequential(n.Linear(3, 4), n.LSTM(4, 5, 2, bidirectional=True)))
            self.tied = self.embed

    return Net()


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    return build(nn, cf), build(torch.nn, torch)


def test_names(both: tuple[Any, Any]) -> None:
    mine, theirs = both
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for listing in ("named_parameters", "named_buffers", "named_modules"):
        for unique in (True, False):
            a = [name for name, _ in getattr(mine, listing)(remove_duplicate=unique)]
            b = [name for name, _ in getattr(theirs, listing)(remove_duplicate=unique)]
            assert a == b, listing
    assert [n for n, _ in mine.named_children()] == [n for n, _ in theirs.named_children()]
    assert [n for n, _ in mine.named_parameters(prefix="p")] == [n for n, _ in theirs.named_parameters(prefix="p")]


def test_repr(both: tuple[Any, Any]) -> None:
    mine, theirs = both
    text = repr(theirs).replace("torch.float32", "float32").replace("torch.FloatTensor", "float32")
    assert repr(mine) == text


def test_state_goes_over(both: tuple[Any, Any]) -> None:
    mine, theirs = both
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    theirs.load_state_dict({k: torch.tensor(v.array) for k, v in mine.state_dict().items()})
    for k, v in mine.state_dict().items():
        np.testing.assert_array_equal(v.array, theirs.state_dict()[k].numpy())


def symmetric(n: Any) -> Any:
    class Symmetric(n.Module):
        def forward(self, x: Any) -> Any:
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, a: Any) -> Any:
            return a.triu()

    return Symmetric()


def test_parametrized_state() -> None:
    mine, theirs = nn.Linear(3, 3), torch.nn.Linear(3, 3)
    for m, lib in ((mine, nn), (theirs, torch.nn)):
        lib.utils.parametrize.register_parametrization(m, "weight", symmetric(lib))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert repr(mine) == repr(theirs)
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    np.testing.assert_array_equal(mine.weight.detach().array, theirs.weight.detach().numpy())


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim: int | None) -> None:
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 4), dim=dim)
    mine = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4), dim=dim)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    a, b = mine(cf.tensor(x)), theirs(torch.tensor(x))
    np.testing.assert_allclose(a.detach().array, b.detach().numpy(), rtol=1e-5, atol=1e-6)
    (a * a).sum().backward()
    (b * b).sum().backward()
    for (name, p), q in zip(mine.named_parameters(), theirs.parameters()):
        np.testing.assert_allclose(p.grad.array, q.grad.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[4, 4, 2, 1], [1, 3, 4, 3]])
def test_packing(batch_first: bool, lengths: list[int]) -> None:
    x = np.random.default_rng(0).standard_normal((4, 4, 2)).astype(np.float32)
    ordered = lengths == sorted(lengths, reverse=True)
    a = nn.utils.rnn.pack_padded_sequence(cf.tensor(x), lengths, batch_first, ordered)
    b = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), batch_first, ordered)
    for mine, theirs in zip(a, b):
        if theirs is None:
            assert mine is None
        else:
            np.testing.assert_array_equal(mine.array, theirs.numpy())
    y, n = nn.utils.rnn.pad_packed_sequence(a, batch_first, -2.0, 6)
    z, m = torch.nn.utils.rnn.pad_packed_sequence(b, batch_first, -2.0, 6)
    np.testing.assert_array_equal(y.array, z.numpy())
    assert n.tolist() == m.tolist()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_padding(side: str, batch_first: bool) -> None:
    parts = [np.arange(n * 2.0).reshape(n, 2) for n in (2, 4, 1)]
    a = nn.utils.rnn.pad_sequence([cf.tensor(p) for p in parts], batch_first, -1.0, side)
    b = torch.nn.utils.rnn.pad_sequence([torch.tensor(p) for p in parts], batch_first, -1.0, side)
    np.testing.assert_array_equal(a.array, b.numpy())
