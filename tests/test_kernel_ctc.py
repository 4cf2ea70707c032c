"""`kernels/ctc.cu` against the CPU's CTC in float64, which PyTorch and enumeration of all paths check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.cpu import ctc as host
from cuframe.cuda import sim
from cuframe.gpu import ctc
from tests.kernels import FLOATS, Array, assert_near, fetch, numbers, put

F = cf.nn.functional


def log_softmax(x: Array) -> Array:
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _worst(a: Array, b: Array) -> float:
    finite = np.isfinite(b)
    return float(np.abs(a[finite] - b[finite]).max(initial=0))


def check(x: Array, labels: Any, lengths: Any, sizes: Any, device: str, blank: int = 0, scale: float = 4,
          concatenated: bool = False) -> None:
    """Losses and gradients of logits x [T, N, C], given as logits and as log probabilities."""
    labels, lengths, sizes = (np.asarray(a, np.int64) for a in (labels, lengths, sizes))
    g = numbers(x.shape[1], dtype="float64", seed=5, low=0.5)
    wide = log_softmax(x)
    expected, kept = host.forward(wide, labels, lengths, sizes, blank)
    gradient = host.backward(kept, g)  # type: ignore[arg-type]
    # rounding grows with the steps; the CPU in this precision tells how much is fair
    narrow = wide.astype(x.dtype if x.dtype.itemsize > 2 else np.float32)
    fair, kept = host.forward(narrow, labels, lengths, sizes, blank)
    fair_gradient = host.backward(kept, g)  # type: ignore[arg-type]
    floor = 3 * max(_worst(fair, expected), _worst(fair_gradient, gradient))
    flat = np.concatenate([row[:n] for row, n in zip(labels, sizes)]) if concatenated else labels.reshape(-1)
    for logits, given in ((True, x), (False, wide.astype(x.dtype))):
        targets = ctc.Targets(put(flat, device), None if concatenated else labels.shape[1], put(sizes, device),
                              put(lengths, device), min(len(flat) if concatenated else labels.shape[1], len(x)))
        loss, saved = ctc.forward(put(given, device), targets, blank, logits)
        assert_near(loss, expected, str(x.dtype), scale, f"loss, logits={logits}", floor)
        got = ctc.backward(saved, put(g, device))  # type: ignore[arg-type]
        assert got.dtype == x.dtype
        finite = np.isfinite(gradient)
        assert_near(np.where(finite, fetch(got), 0), np.where(finite, gradient, 0), str(x.dtype), 2 * scale, "gradient",
                    floor)
        assert np.isnan(fetch(got)[~finite]).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("concatenated", [False, True])
def test_batch_of_all_sorts(dtype: str, concatenated: bool, device: str) -> None:
    """Repeats, an empty target, one that just fits, one that does not, an empty sequence with and without labels."""
    labels = [[1, 1, 2], [3, 1, 3], [0] * 3, [1, 1, 1], [1, 1, 1], [0] * 3, [2, 0, 0]]
    check(numbers(6, 7, 5, dtype=dtype), labels, [6, 4, 5, 5, 4, 0, 0], [3, 3, 0, 3, 3, 0, 1], device,
          concatenated=concatenated)


@pytest.mark.parametrize("blank", [0, 2, 4])
def test_blank(blank: int, device: str) -> None:
    others = [c for c in range(5) if c != blank]
    labels = [[others[0], others[0], others[3]], others[1:]]
    check(numbers(5, 2, 5, dtype="float64"), labels, [5, 4], [3, 2], device, blank)


@pytest.mark.parametrize("classes", [2, 31, 33, 1025])
def test_classes(classes: int, device: str) -> None:
    check(numbers(4, 2, classes), [[1, 1], [classes - 1, 1]], [4, 3], [2, 2], device)


@pytest.mark.parametrize("size", [31, 33, 520, 1100])
def test_many_labels(size: int, device: str) -> None:
    """Past a warp, past a block, and several states a thread."""
    steps = size + 12
    labels = np.arange(2 * size).reshape(2, size) % 3 + 1
    check(numbers(steps, 2, 4), labels, [steps, steps - 3], [size, size - 5], device)


def test_long_sequence_keeps_its_digits(device: str) -> None:
    check(numbers(3000, 1, 4, low=-168, high=168), [[1, 2, 3]], [3000], [3], device, scale=4)


def test_labels_that_are_no_class(device: str) -> None:
    x = cf.tensor(numbers(4, 2, 3), device=device, requires_grad=True)
    targets = cf.tensor([[1, 7], [1, -2]], device=device)
    loss = F.ctc_loss(x, targets, [4, 4], cf.tensor([2, 2], device=device), reduction="none", zero_infinity=True)
    assert loss.tolist() == [0, 0]
    loss.sum().backward()
    assert not x.grad.any()  # type: ignore[union-attr]
    with pytest.raises(IndexError, match=r"targets must be in \[0, 3\), got 7"):
        F.ctc_loss(x, [[1, 7], [1, 2]], [4, 4], [2, 2])


def test_too_many_labels(device: str) -> None:
    x = cf.zeros(5000, 1, 3, device=device)
    with pytest.raises(ValueError, match="ctc_loss: targets may have up to 4095 labels, got 4100"):
        F.ctc_loss(x, cf.ones(1, 4100, dtype="int64"), [5000], [4100])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_function(reduction: str, dtype: str, device: str) -> None:
    def run(where: str, logits: bool) -> tuple[Array, Array]:
        x = cf.tensor(numbers(6, 3, 5, dtype="float64"), device=where, requires_grad=True)
        given = [cf.tensor(a, dtype=dtype, device=where) for a in ([[1, 2], [3, 3], [4, 0]], [6, 5, 4], [2, 2, 1])]
        loss = F.ctc_loss(x if logits else F.log_softmax(x, -1), *given, reduction=reduction, from_logits=logits)
        loss.sum().backward()
        return loss.detach().cpu().numpy(), x.grad.cpu().numpy()  # type: ignore[union-attr]

    expected = run("cpu", False)
    for where in ("cpu", device):
        for logits in (False, True):
            for a, b in zip(run(where, logits), expected):
                np.testing.assert_allclose(a, b, atol=1e-12)


def test_rows_of_the_gradient_sum_to_zero_and_padding_is_still(device: str) -> None:
    x = numbers(7, 2, 5)
    x[4:, 1] = np.nan
    there = cf.tensor(x, device=device, requires_grad=True)
    F.ctc_loss(there, [[1, 2], [3, 3]], [7, 4], [2, 2], from_logits=True).backward()
    g = there.grad.cpu().numpy()  # type: ignore[union-attr]
    assert np.abs(g.sum(-1)).max() < 1e-6
    assert not g[4:, 1].any()


def test_module_and_double_backward(device: str) -> None:
    x = cf.tensor(numbers(4, 1, 3, dtype="float64"), device=device, requires_grad=True)
    loss = cf.nn.CTCLoss(from_logits=True)
    target = cf.tensor([[1, 2]], device=device)
    assert cf.autograd.gradcheck(lambda t: loss(t, target, [4], [2]), (x,))
    assert cf.autograd.gradgradcheck(lambda t: loss(t, target, [4], [2]), (x,))


@pytest.mark.parametrize("order", ["forward", "reverse", "random:1"])
def test_bits_do_not_depend_on_the_order_of_lanes(order: str, device: str) -> None:
    if device != "sim":
        pytest.skip("only the simulator has an order of lanes")
    x = numbers(9, 2, 40)
    labels, sizes, lengths = (put(np.array(a), device) for a in ([1, 2, 1, 5, 5, 7], [3, 3], [9, 8]))
    targets = ctc.Targets(labels, 3, sizes, lengths, 3)

    def run() -> tuple[bytes, bytes]:
        loss, saved = ctc.forward(put(x, device), targets, 0, True)
        return loss.tobytes(), ctc.backward(saved, put(np.ones(2), device)).tobytes()  # type: ignore[arg-type]

    expected = run()
    with sim.order(order):
        assert run() == expected
