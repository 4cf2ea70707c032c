"""nn.EmbeddingBag and nn.SyncBatchNorm against PyTorch's, for which module_db has no entries."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from tests.parity.bridge import host, quietly

pytestmark = pytest.mark.parity

CASES = [
    (mode, padding, offsets, last, norm, dtype)
    for mode, padding, (offsets, last), norm, dtype in itertools.product(
        ("sum", "mean", "max"), (None, 2, -1),
        (([0, 2, 2, 7], False), ([0, 0, 5, 9, 12], True), ([0, 12], True), (None, False)),
        (None, 1.0), ("int64", "int32"),
    )
]  # fmt: skip


def both(**kwargs: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    theirs = torch.nn.EmbeddingBag(6, 3, dtype=torch.float64, **kwargs)
    ours = cf.nn.EmbeddingBag(6, 3, dtype="float64", **kwargs)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def test_embedding_bag() -> None:
    rng = np.random.default_rng(0)
    for case in CASES:
        mode, padding, offsets, last, norm, dtype = case
        index = rng.integers(0, 6, 12).astype(dtype)
        where = None if offsets is None else np.array(offsets, dtype)
        index = index.reshape(4, 3) if where is None else index
        theirs, ours = both(mode=mode, padding_idx=padding, include_last_offset=last, max_norm=norm)
        results = []
        for lib, module in ((torch, theirs), (cf, ours)):
            weights = lib.tensor(np.linspace(-1, 1, 12).reshape(index.shape)) if mode == "sum" else None
            if weights is not None:
                weights.requires_grad_()
            out = quietly(module, lib.tensor(index), None if where is None else lib.tensor(where), weights)
            (out * out).sum().backward()
            found = [out.detach(), module.weight.detach(), module.weight.grad]
            results.append([host(t) for t in (found if weights is None else [*found, weights.grad])])
        for a, e in zip(results[1], results[0], strict=True):
            np.testing.assert_allclose(a, e, 1e-9, 1e-12, err_msg=str(case))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_sparse_gradient(mode: str) -> None:
    theirs, ours = both(mode=mode, sparse=True)
    index = np.array([[0, 2, 2], [5, 0, 1]])
    theirs(torch.tensor(index)).square().sum().backward()
    ours(cf.tensor(index)).square().sum().backward()
    assert ours.weight.grad.is_sparse and theirs.weight.grad.is_sparse
    g, e = ours.weight.grad.coalesce(), theirs.weight.grad.coalesce()
    np.testing.assert_array_equal(host(g.indices()), host(e.indices()))
    np.testing.assert_allclose(host(g.values()), host(e.values()), 1e-9)


def test_sync_batch_norm() -> None:
    """In evaluation: PyTorch's does not train on the CPU. Training is held to BatchNorm's in tests/test_norm.py."""
    theirs, ours = torch.nn.SyncBatchNorm(3).double().eval(), cf.nn.SyncBatchNorm(3).double().eval()
    assert list(ours.state_dict()) == list(theirs.state_dict()) and repr(ours) == repr(theirs)
    with torch.no_grad():
        for t in theirs.state_dict().values():
            t.add_(torch.rand(t.shape, dtype=torch.float64).to(t.dtype))
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 2))
    np.testing.assert_allclose(host(ours(cf.tensor(x)).detach()), host(theirs(torch.tensor(x))), 1e-9, 1e-12)
    models = [
        lib.nn.SyncBatchNorm.convert_sync_batchnorm(lib.nn.Sequential(lib.nn.BatchNorm2d(3), lib.nn.Linear(2, 2)))
        for lib in (torch, cf)
    ]
    assert repr(models[1]) == repr(models[0])
