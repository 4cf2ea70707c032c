"""nn.DataParallel on all devices of a kind, `sim` unless `--device cuda` says otherwise; and threads on one of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.backend import backend_for
from cuframe.nn.parallel import parallel_apply
from cuframe.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


@pytest.fixture(autouse=True)
def three_devices() -> Iterator[None]:
    cf.cuda.set_sim_device_count(3)
    yield
    cf.cuda.set_sim_device_count(1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 8), nn.LayerNorm(8)
        self.attend = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.rnn, self.out = nn.GRU(8, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, ids: cf.Tensor, lengths: cf.Tensor) -> cf.Tensor:
        packed = pack_padded_sequence(self.attend(self.norm(self.embed(ids))), lengths, True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=ids.shape[1])
        return self.out(y).tanh()


def batch(size: int) -> tuple[cf.Tensor, cf.Tensor]:
    return cf.randint(0, 9, (size, 5)), 1 + cf.arange(size) % 5


def weighed(out: cf.Tensor) -> cf.Tensor:
    """A loss to which every number contributes differently."""
    return (out * cf.arange(1.0, out.numel() + 1).reshape(*out.shape).to(out.device)).mean()


def host(t: cf.Tensor) -> np.ndarray:
    return t.detach().cpu().numpy()


def test_training_equals_the_cpu_in_float64(device: str) -> None:
    devices = backend_for(device).devices()
    model = Model()
    wide = nn.DataParallel(copy.deepcopy(model).to(devices[0]))
    model.double()
    assert wide.device_ids == devices
    steps = [cf.optim.SGD(m.parameters(), lr=0.1) for m in (model, wide)]
    for size in (7, 6):
        given = batch(size)
        for m, step in zip((model, wide), steps):
            step.zero_grad()
            weighed(m(*given)).backward()
            step.step()
    for (name, p), q in zip(model.named_parameters(), wide.parameters()):
        np.testing.assert_allclose(host(q), host(p), rtol=1e-5, atol=1e-5, err_msg=name)
    wide.eval(), model.eval()
    with cf.no_grad():
        np.testing.assert_allclose(host(wide(*given)), host(model(*given)), rtol=1e-5, atol=1e-5)


def test_threads_on_one_device_change_nothing(device: str) -> None:
    model = Model().to(device)
    parts = [tuple(t.to(device) for t in batch(size)) for size in (4, 6, 5)]

    def gradients(outs: list[cf.Tensor]) -> list[np.ndarray]:
        grads = cf.autograd.grad([weighed(out) for out in outs], list(model.parameters()))
        return [host(g) for g in grads]

    def run() -> Any:
        return parallel_apply([model] * 3, parts)

    alone, beside = [model(*part) for part in parts], run()
    for a, b in zip(alone, beside):
        assert (host(a) == host(b)).all()
    wanted = gradients(alone)
    for got in (gradients(beside), gradients(run())):
        for g, w in zip(got, wanted):
            np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)
