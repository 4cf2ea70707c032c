"""CTC over batches of all kinds, and adaptive softmax, which PyTorch's own tables leave out."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from cuframe import nn
from tests.parity.bridge import host

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc(reduction: str, zero_infinity: bool) -> None:
    """Lengths from 0, targets from empty to impossible, any blank; log probabilities that need not be normalised.

    Targets without blanks: the gradient that PyTorch gives where the last label is the blank lacks a term.
    """
    rng = np.random.default_rng(0)
    for _ in range(60):
        steps, n, classes, labels = (int(rng.integers(low, high)) for low, high in ((1, 14), (1, 6), (2, 6), (0, 6)))
        blank = int(rng.integers(classes))
        x = rng.normal(size=(steps, n, classes))
        targets = rng.integers(0, classes, (n, labels))
        targets[targets == blank] = (blank + 1) % classes
        lengths, sizes = rng.integers(0, steps + 1, n), rng.integers(0, labels + 1, n)
        settings = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
        theirs = torch.from_numpy(x).requires_grad_()
        expected = torch.nn.CTCLoss(**settings)(theirs, *map(torch.from_numpy, (targets, lengths, sizes)))
        ours = cf.Tensor(x).requires_grad_()
        actual = nn.CTCLoss(**settings)(ours, *map(cf.Tensor, (targets, lengths, sizes)))
        np.testing.assert_allclose(host(actual.detach()), host(expected), 1e-10, 1e-12)
        weight = rng.uniform(0.5, 1.5, tuple(expected.shape))
        expected.backward(torch.from_numpy(np.asarray(weight)))
        actual.backward(cf.Tensor(np.asarray(weight)))
        np.testing.assert_allclose(host(ours.grad), host(theirs.grad), 1e-8, 1e-10)


@pytest.mark.parametrize("head_bias", [False, True])
@pytest.mark.parametrize("cutoffs", [[4], [3, 7], [2, 5, 11]], ids=str)
def test_adaptive_softmax(cutoffs: list[int], head_bias: bool) -> None:
    torch.manual_seed(0)
    settings = {"div_value": 2.0, "head_bias": head_bias}
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(16, 15, cutoffs, **settings).double()
    ours = nn.AdaptiveLogSoftmaxWithLoss(16, 15, cutoffs, **settings).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x, target = torch.randn(30, 16, dtype=torch.float64) * 3, torch.arange(30) % 15
    a, b = cf.Tensor(x.numpy().copy()).requires_grad_(), x.clone().requires_grad_()
    actual, expected = ours(a, cf.Tensor(target.numpy())), theirs(b, target)
    assert actual._fields == expected._fields
    np.testing.assert_allclose(host(actual.output.detach()), host(expected.output), 1e-10)
    actual.loss.backward()
    expected.loss.backward()
    np.testing.assert_allclose(host(a.grad), host(b.grad), 1e-8, 1e-12)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        np.testing.assert_allclose(host(p.grad), host(q.grad), 1e-8, 1e-12, err_msg=name)
    np.testing.assert_allclose(host(ours.log_prob(a).detach()), host(theirs.log_prob(b)), 1e-10)
    np.testing.assert_array_equal(host(ours.predict(a)), host(theirs.predict(b)))
