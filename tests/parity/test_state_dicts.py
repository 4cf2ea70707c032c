"""state_dicts from PyTorch to cuframe and back: the same keys in the same order, the same dtypes, the same bits."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from tests.parity.bridge import Unsupported, dtype_name, host, quietly, to_cuframe
from tests.parity.test_module_db import PRESENT, plain

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*dropout.*:UserWarning"),
]


def filled(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Other numbers in every parameter and buffer, running statistics included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for t in [*module.parameters(), *module.buffers()]:
            if t.dtype.is_floating_point:
                t.copy_(torch.rand(t.shape, generator=generator, dtype=torch.float64) + 0.5)
            else:
                t.copy_(torch.randint(0, 100, t.shape, generator=generator))
    return module


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert dtype_name(ours[key]) == dtype_name(value), key
        assert tuple(ours[key].shape) == tuple(value.shape), key
        assert host(ours[key]).tobytes() == host(value).tobytes(), key


def round_trip(ours: cf.nn.Module, theirs: torch.nn.Module, again: torch.nn.Module, folder: Path) -> int:
    """Theirs into ours, as arrays and through a file, and into another one of theirs; how many entries there were."""
    state = filled(theirs, 0).state_dict()
    torch.save(state, folder / "state.pt")
    from_file = cf.load_torch(folder / "state.pt")
    same(from_file, state)
    without_metadata = {key: host(value) for key, value in state.items()}
    for given in (without_metadata, from_file, OrderedDict(from_file)):
        with cf.no_grad():
            for t in [*ours.parameters(), *ours.buffers()]:
                t.zero_()
        report = ours.load_state_dict(given)
        assert not report.missing_keys and not report.unexpected_keys
        same(ours.state_dict(), state)
    back = OrderedDict((key, torch.from_numpy(np.array(host(value)))) for key, value in ours.state_dict().items())
    filled(again, 1)
    again.load_state_dict(back)
    same(ours.state_dict(), again.state_dict())
    same(again.state_dict(), state)
    return len(state)


@pytest.mark.parametrize("info", PRESENT, ids=plain)
def test_module(info: Any, tmp_path: Path) -> None:
    """Every way in which PyTorch's own table builds the module."""
    seen: set[str] = set()
    for sample in quietly(
        lambda: list(info.module_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
        ))
    ):  # fmt: skip
        made = sample.constructor_input
        given = {k: v for k, v in made.kwargs.items() if k not in ("device", "dtype")}
        key = repr((made.args, given))
        if key in seen:
            continue
        seen.add(key)
        try:
            args, kwargs = to_cuframe((made.args, given))
        except Unsupported:
            continue
        ours = getattr(cf.nn, plain(info))(*args, **kwargs)
        theirs, again = (quietly(info.module_cls, *made.args, **made.kwargs) for _ in range(2))
        round_trip(ours, theirs, again, tmp_path)
    assert seen


class _Tied:
    """An embedding whose matrix is that of the last layer, too."""

    def __new__(cls, n: Any) -> Any:
        class Tied(n.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = n.Embedding(7, 4, padding_idx=0)
                self.out = n.Linear(4, 7, bias=False)
                self.out.weight = self.embedding.weight

        return Tied()


def _symmetric(n: Any) -> Any:
    class Symmetric(n.Module):
        def forward(self, x: Any) -> Any:
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, a: Any) -> Any:
            return a.triu()

    layer = n.Linear(3, 3)
    n.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


MODELS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "transformer": (64, lambda n: n.Transformer(8, 2, 2, 2, 16)),
    "transformer without bias, norm first": (
        32, lambda n: n.Transformer(8, 2, 2, 2, 16, norm_first=True, batch_first=True, bias=False),
    ),
    "encoder with norm": (
        26, lambda n: n.TransformerEncoder(n.TransformerEncoderLayer(8, 2, 16), 2, norm=n.LayerNorm(8)),
    ),
    "attention, other sizes, bias_kv": (8, lambda n: n.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True)),
    "bidirectional LSTM with projection": (20, lambda n: n.LSTM(5, 7, 2, bidirectional=True, proj_size=3)),
    "bidirectional GRU": (24, lambda n: n.GRU(5, 7, 3, bidirectional=True)),
    "RNN without bias": (4, lambda n: n.RNN(5, 7, 2, bias=False)),
    "cells": (12, lambda n: n.ModuleList([n.RNNCell(2, 3), n.LSTMCell(2, 3), n.GRUCell(2, 3)])),
    "acoustic model": (
        17,
        lambda n: n.Sequential(
            n.Linear(4, 8), n.BatchNorm1d(8), n.ReLU(), n.LayerNorm(8), n.ModuleDict({"rnn": n.LSTM(8, 4)}),
            n.GroupNorm(2, 4), n.Linear(4, 3, bias=False), n.PReLU(),
        ),
    ),
    "norms": (
        11,
        lambda n: n.ModuleList([
            n.BatchNorm2d(3), n.InstanceNorm1d(3), n.BatchNorm3d(3, affine=False), n.InstanceNorm2d(3, affine=True),
            n.RMSNorm(4),
        ]),
    ),
    "running instance norm": (5, lambda n: n.InstanceNorm1d(3, affine=True, track_running_stats=True)),
    "adaptive softmax": (6, lambda n: n.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], head_bias=True)),
    "losses": (3, lambda n: n.ModuleList([n.CrossEntropyLoss(_ones(n, 3)), n.BCEWithLogitsLoss(
        _ones(n, 2), pos_weight=_ones(n, 2)), n.MSELoss()])),
    "tied": (2, _Tied),
    "parametrized": (2, _symmetric),
    "parametrized weight_norm": (3, lambda n: n.utils.parametrizations.weight_norm(n.Linear(3, 4))),
    "weight_norm by hooks": (3, lambda n: n.utils.weight_norm(n.Linear(3, 4))),
    "weight_norm of all recurrent weights": (
        5, lambda n: n.utils.weight_norm(n.LSTM(3, 4), "weight_hh_l0", dim=None),
    ),
    "spectral_norm by hooks": (4, lambda n: n.utils.spectral_norm(n.Linear(3, 4))),
    "parametrized spectral_norm": (4, lambda n: n.utils.parametrizations.spectral_norm(n.Linear(3, 4))),
    "embedding bag": (1, lambda n: n.EmbeddingBag(5, 3, padding_idx=1)),
    "convolutions": (
        7,
        lambda n: n.Sequential(
            n.Conv1d(2, 4, 3), n.Conv2d(4, 4, (3, 1), groups=2, padding_mode="circular"),
            n.ConvTranspose1d(4, 2, 3, bias=False), n.ConvTranspose3d(4, 2, 3),
        ),
    ),
    "dtypes": (4, lambda n: _dtypes(n)),
}  # fmt: skip


def _lib(n: Any) -> Any:
    return torch if n is torch.nn else cf


def _ones(n: Any, size: int) -> Any:
    return _lib(n).ones(size)


def _dtypes(n: Any) -> Any:
    module = n.Module()
    for i, dtype in enumerate(("float64", "bfloat16", "int32", "bool")):
        module.register_buffer(f"b{i}", _lib(n).ones(3).to(getattr(torch, dtype) if n is torch.nn else dtype))
    return module


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, tmp_path: Path) -> None:
    count, build = MODELS[name]
    ours, theirs, again = (quietly(build, n) for n in (cf.nn, torch.nn, torch.nn))
    assert round_trip(ours, theirs, again, tmp_path) == count


def test_half_precision(tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        theirs, again = (torch.nn.GRU(3, 4, bidirectional=True).to(dtype) for _ in range(2))
        ours = cf.nn.GRU(3, 4, bidirectional=True).to(str(dtype).removeprefix("torch."))
        state = filled(theirs, 0).state_dict()
        torch.save(state, tmp_path / "state.pt")
        ours.load_state_dict(cf.load_torch(tmp_path / "state.pt"))
        same(ours.state_dict(), state)
        again.load_state_dict({k: torch.tensor(host(v)).to(dtype) for k, v in ours.state_dict().items()})
        same(ours.state_dict(), again.state_dict())
