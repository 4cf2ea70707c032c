"""CTC: what the table of operations does not ask for. Its values are held to the sum over all paths there."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn
from cuframe.cpu import ctc, ctc_compiled, jit
from cuframe.ops import ctc as ops_ctc
from tests.opinfo.ctc import path_sum

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def same_numbers(monkeypatch):
    """Whichever tests have run before."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(7))


@pytest.fixture(autouse=True, params=["numpy", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs both ways, for small targets, too."""
    if request.param == "compiled" and importlib.util.find_spec("llvmlite") is None:
        pytest.skip("llvmlite is not installed")
    monkeypatch.setattr(jit, "available", lambda: request.param == "compiled")
    monkeypatch.setattr(ctc_compiled, "_LEAST", 1)
    return request.param


def log_probs(*shape: int, dtype: str = "float64", scale: float = 1.0) -> cf.Tensor:
    x = cf.tensor(RNG.normal(size=shape) * scale, dtype=dtype)
    return F.log_softmax(x, -1).requires_grad_()


def loss_and_grad(x: cf.Tensor, *args, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    x = x.detach().requires_grad_()
    loss = F.ctc_loss(x, *args, **kwargs)
    (g,) = cf.autograd.grad(loss.sum(), x)
    return loss.detach().array, g.array


def batch(n: int, steps: int, labels: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets with repeats, and lengths of all sizes that fit."""
    targets = RNG.integers(1, classes, (n, labels))
    sizes = RNG.integers(0, labels + 1, n)
    sizes[0] = labels
    lengths = np.minimum(2 * sizes + RNG.integers(0, steps, n), steps)
    return targets, lengths, sizes


# -- values -------------------------------------------------------------------------------------------------------
def test_many_small_batches_agree_with_the_sum_over_all_paths():
    for _ in range(40):
        steps, n, classes, labels = (int(RNG.integers(low, high)) for low, high in ((1, 6), (1, 4), (2, 4), (0, 4)))
        blank = int(RNG.integers(classes))
        x = log_probs(steps, n, classes)
        targets = RNG.integers(0, classes, (n, labels))
        targets[targets == blank] = (blank + 1) % classes
        lengths, sizes = RNG.integers(0, steps + 1, n), RNG.integers(0, labels + 1, n)
        expected = [path_sum(x.array[:t, i], targets[i, :s], blank) for i, (t, s) in enumerate(zip(lengths, sizes))]
        got = F.ctc_loss(x, targets, lengths, sizes, blank=blank, reduction="none")
        np.testing.assert_allclose(got.detach().array, expected, 1e-10, 1e-12)


def test_forms_of_one_call_agree():
    x = log_probs(8, 3, 5)
    targets, lengths, sizes = np.array([[1, 1, 2], [3, 4, 0], [2, 0, 0]]), np.array([8, 5, 4]), np.array([3, 2, 1])
    row = np.concatenate([t[:s] for t, s in zip(targets, sizes)])
    first = loss_and_grad(x, targets.tolist(), lengths.tolist(), tuple(sizes.tolist()))
    junk = targets.copy()
    junk[2, 1:] = -99
    for given in (
        (cf.tensor(targets), cf.tensor(lengths), cf.tensor(sizes)),
        (cf.tensor(targets, dtype="int32"), cf.tensor(lengths, dtype="int32"), cf.tensor(sizes, dtype="uint8")),
        (cf.tensor(row), lengths, sizes),
        (row.astype(np.int32), tuple(lengths), list(sizes)),
        (cf.tensor(junk), lengths, sizes),
        (np.pad(targets, ((0, 0), (0, 4))), lengths, sizes),
    ):
        for a, b in zip(loss_and_grad(x, *given), first):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_one_sequence_is_a_batch_of_one(reduction):
    x = log_probs(6, 1, 4)
    loss, grad = loss_and_grad(x, [[1, 2]], [5], [2], reduction=reduction)
    alone, alone_grad = loss_and_grad(x[:, 0], [1, 2], cf.tensor(5), 2, reduction=reduction)
    assert alone.shape == () and alone_grad.shape == (6, 4)
    np.testing.assert_array_equal(alone, loss.reshape(()))
    np.testing.assert_array_equal(alone_grad, grad[:, 0])


def test_blank_may_be_any_class():
    x = log_probs(7, 2, 4)
    lengths, sizes = [7, 6], [3, 2]
    loss, grad = loss_and_grad(x, [[1, 1, 3], [2, 3, 0]], lengths, sizes)
    order = [1, 2, 3, 0]  # class 0 becomes class 3
    moved, moved_grad = loss_and_grad(x[:, :, order], [[0, 0, 2], [1, 2, 0]], lengths, sizes, blank=3)
    np.testing.assert_allclose(moved, loss, 1e-12)
    np.testing.assert_allclose(moved_grad, grad[:, :, order], 1e-9, 1e-12)


def test_mean_divides_by_target_lengths_that_are_at_least_one():
    x = log_probs(6, 3, 4)
    args = ([[1, 2, 3], [1, 0, 0], [0, 0, 0]], [6, 6, 6], [3, 1, 0])
    each = F.ctc_loss(x, *args, reduction="none")
    mean = (each / cf.tensor([3.0, 1.0, 1.0], dtype="float64")).mean()
    np.testing.assert_allclose(F.ctc_loss(x, *args).item(), mean.item(), 1e-14)


def test_an_empty_target_is_all_blanks():
    x = log_probs(5, 2, 3)
    loss = F.ctc_loss(x, cf.zeros(2, 0, dtype="int64"), [5, 3], [0, 0], reduction="none")
    np.testing.assert_allclose(loss.detach().array, [-x.array[:5, 0, 0].sum(), -x.array[:3, 1, 0].sum()], 1e-12)


# -- gradients ----------------------------------------------------------------------------------------------------
def test_gradient_sums_to_zero_over_classes_and_is_zero_past_the_length():
    targets, lengths, sizes = batch(6, 20, 5, 7)
    x = log_probs(20, 6, 7)
    _, grad = loss_and_grad(x, targets, lengths, sizes)
    np.testing.assert_allclose(grad.sum(-1), 0, atol=1e-12)
    for n, length in enumerate(lengths):
        assert not grad[length:, n].any()
        assert grad[:length, n].any(-1).all()


def test_what_follows_a_sequence_does_not_matter():
    x = log_probs(9, 2, 4)
    args = ([[1, 2], [3, 3]], [9, 5], [2, 2])
    loss, grad = loss_and_grad(x, *args)
    x.array[5:, 1] = np.nan
    for a, b in zip(loss_and_grad(x, *args), (loss, grad)):
        np.testing.assert_array_equal(a, b)


def test_probabilities_of_zero_give_no_nan():
    x = log_probs(4, 1, 3)
    x.array[1] = [[0.0, -np.inf, -np.inf]]
    loss, grad = loss_and_grad(x, [[1, 2]], [4], [2])
    np.testing.assert_allclose(loss * 2, path_sum(x.array[:, 0], [1, 2], 0), 1e-12)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_targets_that_do_not_fit(reduction):
    x = log_probs(4, 3, 3)
    args = ([[1, 1, 1], [1, 2, 0], [1, 0, 0]], [4, 4, 0], [3, 2, 1])
    loss, grad = loss_and_grad(x, *args, reduction=reduction)
    assert np.isinf(loss).any() and (loss > 0).all()
    assert np.isnan(grad[:, 0]).all() and np.isfinite(grad[:, 1]).all() and not grad[:, 2].any()
    zeroed, grad = loss_and_grad(x, *args, reduction=reduction, zero_infinity=True)
    fits, fits_grad = loss_and_grad(x[:, 1:2], [[1, 2]], [4], [2], reduction=reduction)
    assert not grad[:, [0, 2]].any()
    scale = 3 if reduction == "mean" else 1
    np.testing.assert_allclose(grad[:, 1:2] * scale, fits_grad, 1e-12, 1e-15)
    np.testing.assert_allclose(zeroed.sum() * scale, fits.sum(), 1e-12)


def test_layout_of_the_input_does_not_matter():
    x = log_probs(6, 4, 5)
    targets, lengths, sizes = batch(4, 6, 2, 5)
    expected = loss_and_grad(x, targets, lengths, sizes)
    turned = cf.Tensor(np.asfortranarray(x.array))
    for a, b in zip(loss_and_grad(turned, targets, lengths, sizes), expected):
        np.testing.assert_array_equal(a, b)


def test_it_is_deterministic():
    targets, lengths, sizes = batch(8, 60, 20, 12)
    x = log_probs(60, 8, 12, dtype="float32")
    first = loss_and_grad(x, targets, lengths, sizes)
    for _ in range(3):
        for a, b in zip(loss_and_grad(x, targets, lengths, sizes), first):
            assert a.tobytes() == b.tobytes()


# -- numbers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit(dtype, monkeypatch):
    x = log_probs(40, 9, 6, dtype=dtype)
    given = batch(9, 40, 11, 6)
    one = loss_and_grad(x, *given, reduction="none")
    monkeypatch.setattr(ctc_compiled, "_THREAD", 1)
    monkeypatch.setattr(jit, "cpus", lambda: 3)
    for a, b in zip(loss_and_grad(x, *given, reduction="none"), one):
        assert a.tobytes() == b.tobytes()


def test_both_paths_agree(path, monkeypatch):
    x = log_probs(60, 7, 40, dtype="float32", scale=3.0)
    given = batch(7, 60, 19, 40)
    here = loss_and_grad(x, *given, reduction="none")
    monkeypatch.setattr(jit, "available", lambda: path == "numpy" and importlib.util.find_spec("llvmlite") is not None)
    for a, b in zip(loss_and_grad(x, *given, reduction="none"), here):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_nan_in_a_sequence_is_its_own():
    x = log_probs(12, 3, 5).detach().array.copy()
    x[4, 1, 0] = np.nan
    loss = F.ctc_loss(cf.tensor(x), [[1, 2]] * 3, [12] * 3, [2] * 3, reduction="none")
    assert np.isnan(loss.array).tolist() == [False, True, False]


def test_logits_in_the_hundreds_lose_no_digits():
    targets, lengths, sizes = batch(4, 200, 30, 10)
    logits = RNG.normal(size=(200, 4, 10)) * 300
    narrow = logits.astype(np.float32)
    results = []
    for array in (narrow, narrow.astype(np.float64)):
        x = F.log_softmax(cf.Tensor(array), -1).requires_grad_()
        results.append(loss_and_grad(x, targets, lengths, sizes, reduction="none"))
    assert results[0][0].dtype == np.float32 and results[0][0].max() > 1e4
    np.testing.assert_allclose(results[0][0], results[1][0], 1e-6)
    # float32 log probabilities of -2000 carry 1e-4 each.
    np.testing.assert_allclose(results[0][1], results[1][1], atol=5e-3)


def test_float32_keeps_its_digits_over_many_steps():
    x = log_probs(600, 4, 32, dtype="float32")
    targets = RNG.integers(1, 32, (4, 80))
    args = (targets, [600, 550, 600, 500], [80, 80, 60, 70])
    results = [loss_and_grad(cf.Tensor(x.array.astype(kind)), *args, reduction="sum") for kind in ("f4", "f8")]
    np.testing.assert_allclose(results[0][0], results[1][0], 2e-7)
    # Sums of 2,000 in float32 would be 1e-4 off each.
    np.testing.assert_allclose(results[0][1], results[1][1], atol=2e-4)


def test_paths_of_probability_below_any_float_count():
    steps, labels = 40, 12
    x = np.full((steps, 1, 3), -1000.0)
    x[:, 0, 2] = 0.0  # a class that the target does not have
    target = np.tile([1, 1], labels // 2)[None]
    # All paths are equally bad, so the loss is 1000 a step less the log of their number.
    loss, grad = loss_and_grad(cf.Tensor(x), target, [steps], [labels], reduction="sum")
    few = path_sum(np.zeros((5, 2)), [1, 1], 0)
    small, _ = loss_and_grad(cf.Tensor(np.full((5, 1, 3), -1000.0)), [[1, 1]], [5], [2], reduction="sum")
    np.testing.assert_allclose(small, 5000 + few, 1e-14)
    assert 1000 * steps - 40 * np.log(3) < loss < 1000 * steps
    np.testing.assert_allclose(grad[:, 0, :2].sum(-1), -1, 1e-9)


# -- the graph ----------------------------------------------------------------------------------------------------
def test_basic_operations_give_the_same(monkeypatch):
    targets, lengths, sizes = np.array([[1, 1, 2], [3, 2, 0], [3, 0, 0], [2, 2, 2]]), [7, 5, 3, 4], [3, 2, 0, 3]
    x = log_probs(7, 4, 4)
    x.array *= 1.3  # not normalised, where the gradient is exp(x) all the same
    for kwargs in ({}, {"reduction": "sum"}, {"reduction": "none", "blank": 0}):
        fused = loss_and_grad(x, targets, lengths, sizes, zero_infinity=True, **kwargs)
        with monkeypatch.context() as m:
            m.setattr(ops_ctc, "record", lambda r, op, inputs, saved: ops_ctc._ctc_composite(*inputs, *saved[1:-1]))
            composed = loss_and_grad(x, targets, lengths, sizes, zero_infinity=True, **kwargs)
        for a, b in zip(composed, fused):
            np.testing.assert_allclose(a, b, 1e-9, 1e-12)


def test_gradient_under_create_graph_is_the_fused_one():
    x = log_probs(6, 2, 4)
    args = ([[1, 2], [3, 3]], [6, 5], [2, 2])
    _, fused = loss_and_grad(x, *args)
    (recorded,) = cf.autograd.grad(F.ctc_loss(x, *args), x, create_graph=True)
    assert recorded.requires_grad
    np.testing.assert_allclose(recorded.detach().array, fused, 1e-9, 1e-12)


def test_log_probs_changed_before_backward_are_noticed():
    x = log_probs(5, 1, 3)
    y = x * 1.0
    loss = F.ctc_loss(y, [[1]], [5], [1])
    with cf.no_grad():
        y.mul_(2.0)
    with pytest.raises(RuntimeError, match="ctc_loss"):
        loss.backward()


def test_backward_keeps_one_number_for_each_step_and_label():
    x = log_probs(30, 2, 500).detach().array
    targets = np.tile([1, 2, 3], (2, 4))
    _, saved = ctc.forward(x, targets, np.array([30, 30]), np.array([12, 12]), 0)
    assert saved is not None and saved.posterior.shape == (30, 2 * 4)  # three labels and the blank
    np.testing.assert_allclose(saved.posterior.sum(1), 2, 1e-12)
    assert ctc.forward(x, targets, np.array([30, 30]), np.array([12, 12]), 0, need_backward=False)[1] is None


def test_no_gradient_is_prepared_without_need():
    x = log_probs(5, 1, 3)
    with cf.no_grad():
        assert not F.ctc_loss(x, [[1]], [5], [1]).requires_grad
    assert not F.ctc_loss(x.detach(), [[1]], [5], [1]).requires_grad


# -- the module ---------------------------------------------------------------------------------------------------
def test_module_is_the_function_with_its_settings_kept():
    x = log_probs(5, 2, 4)
    args = ([[0, 1], [1, 1]], [5, 2], [2, 2])
    layer = nn.CTCLoss(blank=3, reduction="sum", zero_infinity=True)
    expected = F.ctc_loss(x, *args, blank=3, reduction="sum", zero_infinity=True)
    assert layer(x, *args).item() == expected.item() and not layer.state_dict()
    assert nn.CTCLoss().reduction == "mean" and nn.CTCLoss().blank == 0
    with pytest.raises(ValueError, match=r"CTCLoss: reduction must be one of none, mean, sum, got 'avg'"):
        nn.CTCLoss(reduction="avg")


def test_training_learns_an_alignment():
    cf.manual_seed(0)
    logits = nn.Parameter(cf.zeros(12, 1, 4))
    optimizer = cf.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        loss = nn.CTCLoss()(F.log_softmax(logits, -1), [[1, 2, 2, 3]], [12], [4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = logits.argmax(-1).array[:, 0]
    read = [int(k) for i, k in enumerate(best) if k and (i == 0 or best[i - 1] != k)]
    assert read == [1, 2, 2, 3] and loss.item() < 0.05
