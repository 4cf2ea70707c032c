"""`kernels/loss.cu` against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.cuda import sim
from cuframe.gpu import loss
from tests.kernels import FLOATS, MANY_ROWS, SIZES, Array, assert_near, fetch, numbers, put

IGNORE = -100
REDUCTIONS = ("none", "mean", "sum")


def classes(*shape: int, count: int, ignored: bool = True, seed: int = 9) -> Array:
    """Class indices [N, d1, ...] of logits [N, C, d1, ...], the first of them ignored."""
    t = np.random.default_rng([seed, *shape]).integers(0, count, shape)
    if ignored:
        t.reshape(-1)[:1] = IGNORE
    return t


def reference(x: Array, t: Array, w: Array | None, reduction: str, smoothing: float,
              logits: bool) -> tuple[Array, Array]:
    """The loss, and the gradient of the losses' sum weighted by 1, 2, 3, ... (with "none") or of the loss."""
    x = np.moveaxis(x.astype(np.float64), 1, -1)
    c = x.shape[-1]
    w = np.ones(c) if w is None else w.astype(np.float64)
    logp = x
    if logits:
        d = x - x.max(-1, keepdims=True)
        logp = d - np.log(np.exp(d).sum(-1, keepdims=True))
    counts = t != IGNORE
    index = np.where(counts, t, 0)
    q = np.eye(c)[index] * w[index][..., None] * (1 - smoothing) + smoothing / c * w
    q = q * counts[..., None]
    losses = -(q * logp).sum(-1)
    scale = np.ones(t.shape)
    if reduction == "none":
        scale = 1.0 + np.arange(t.size).reshape(t.shape) % 7
        value = losses
    else:
        total = (w[index] * counts).sum() if reduction == "mean" else 1.0
        scale, value = scale / total, losses.sum() / total
    gx = -scale[..., None] * (q - (np.exp(logp) * q.sum(-1, keepdims=True) if logits else 0))
    return np.asarray(value), np.moveaxis(gx, -1, 1)


def check(shape: tuple[int, ...], dtype: str, device: str, weighted: bool = False, smoothing: float = 0.0,
          reductions: tuple[str, ...] = REDUCTIONS, logits: bool = True) -> None:
    x, c = numbers(*shape, dtype=dtype), shape[1]
    t = classes(shape[0], *shape[2:], count=c)
    w = numbers(c, dtype=dtype, low=0.5) if weighted else None
    there = put(x, device), put(t, device), None if w is None else put(w, device)
    for reduction in reductions:
        if logits:
            r, saved = loss.cross_entropy_forward(*there, IGNORE, reduction, smoothing)
        else:
            r, saved = loss.nll_forward(*there, IGNORE, reduction)
        value, gradient = reference(x, t, w, reduction, smoothing, logits)
        assert r.dtype == x.dtype
        assert_near(r, value, dtype, 4, reduction)
        g = 1.0 + np.arange(t.size).reshape(t.shape) % 7 if reduction == "none" else np.ones(())
        gx = (loss.cross_entropy_backward if logits else loss.nll_backward)(put(g.astype(x.dtype), device), saved)
        assert gx.dtype == x.dtype
        assert_near(gx, gradient, dtype, 2, f"gradient, {reduction}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [*SIZES, 1032])
def test_rows(size: int, dtype: str, device: str) -> None:
    check((5, size), dtype, device, weighted=size != 31, smoothing=0.1 if size in (33, 1032) else 0.0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 33, 2, 65), (40, 16), (70, 24), (2, 1, 1)], ids=str)
def test_layouts(shape: tuple[int, ...], dtype: str, device: str) -> None:
    check(shape, dtype, device, weighted=len(shape) > 2, smoothing=0.2 if shape[1] != 16 else 0.0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(5, 33), (300, 3), (2, 3, 5, 31)], ids=str)
def test_likelihood(shape: tuple[int, ...], dtype: str, device: str) -> None:
    check(shape, dtype, device, logits=False, weighted=shape[0] == 5)


def test_many_rows(device: str) -> None:
    check((MANY_ROWS, 3), "float32", device, weighted=True, reductions=("none", "mean"))
    check((MANY_ROWS, 3), "float32", device, logits=False, reductions=("sum",))
    check((4200, 20), "float32", device, reductions=("mean",))  # more rows than blocks have groups
    check((1030, 1028), "float16", device, reductions=("mean",))


def test_extremes(device: str) -> None:
    inf = np.inf
    x = np.array([[1e30, 0, -1e30], [-inf, 0, -inf], [300, -336, 0], [-inf, -inf, -inf], [1, np.nan, 2]], np.float32)
    t = np.array([0, 1, 2, 0, 0])
    r, saved = loss.cross_entropy_forward(put(x, device), put(t, device), None, IGNORE, "none")
    np.testing.assert_allclose(fetch(r)[:3], [0, 0, 300])
    assert np.isnan(fetch(r)[3:]).all()
    gx = fetch(loss.cross_entropy_backward(put(np.ones(5, np.float32), device), saved))
    np.testing.assert_allclose(gx[:3], [[0, 0, 0], [0, 0, 0], [1, 0, -1]], atol=1e-30)
    assert np.isnan(gx[3:]).all()
    r = loss.cross_entropy_forward(put(x[1:2], device), put(t[:1], device), None, IGNORE, "sum")[0]
    assert fetch(r) == inf


def test_large_logits_keep_their_digits(device: str) -> None:
    x = numbers(4, 50)
    for shift in (0, 2.0**13):
        r, saved = loss.cross_entropy_forward(put((np.round(x * 64) / 64 + shift).astype(np.float32), device),
                                              put(np.array([1, 2, 3, 4]), device), None, IGNORE, "none")
        gx = loss.cross_entropy_backward(put(np.ones(4, np.float32), device), saved)
        if not shift:
            first = fetch(r), fetch(gx)
    np.testing.assert_array_equal(fetch(r), first[0])
    np.testing.assert_array_equal(fetch(gx), first[1])


@pytest.mark.parametrize("shape", [(6, 3), (6, 40), (6, 1500), (2, 5, 3)], ids=str)
def test_targets_that_are_no_class(shape: tuple[int, ...], device: str) -> None:
    x = numbers(*shape)
    t = classes(shape[0], *shape[2:], count=shape[1], ignored=False)
    bad = np.zeros(t.shape, bool)
    bad.reshape(-1)[[0, 3]] = True
    t.reshape(-1)[[0, 3]] = shape[1], -1
    weights = put(numbers(shape[1], low=0.5), device)
    for w in (None, weights):
        for smoothing in (0.0, 0.1):
            r, saved = loss.cross_entropy_forward(put(x, device), put(t, device), w, IGNORE, "none", smoothing)
            np.testing.assert_array_equal(np.isnan(fetch(r)), bad)
            gx = np.moveaxis(fetch(loss.cross_entropy_backward(put(np.ones_like(t, np.float32), device), saved)), 1, -1)
            np.testing.assert_array_equal(gx.any(-1), ~bad)
        assert np.isnan(fetch(loss.cross_entropy_forward(put(x, device), put(t, device), w, IGNORE, "mean")[0]))
        r, saved = loss.nll_forward(put(x, device), put(t, device), w, IGNORE, "none")
        np.testing.assert_array_equal(np.isnan(fetch(r)), bad)
        gx = np.moveaxis(fetch(loss.nll_backward(put(np.ones_like(t, np.float32), device), saved)), 1, -1)
        np.testing.assert_array_equal(gx.any(-1), ~bad)


def test_nothing_counts(device: str) -> None:
    for t in (np.full(3, IGNORE), np.zeros(0, np.int64)):
        for name in ("cross_entropy", "nll"):
            x = put(numbers(len(t), 4), device)
            r, saved = getattr(loss, f"{name}_forward")(x, put(t, device), None, IGNORE, "mean")
            assert np.isnan(fetch(r)) and r.shape == ()
            gx = fetch(getattr(loss, f"{name}_backward")(put(np.ones((), np.float32), device), saved))
            assert gx.shape == x.shape and not gx.any()


def test_strided(device: str) -> None:
    x, t = put(numbers(6, 8), device), put(classes(6, count=4), device)
    wide, wide_t = x[::2, ::2], t[::2]
    value, gradient = reference(numbers(6, 8)[::2, ::2], classes(6, count=4)[::2], None, "mean", 0.0, True)
    r, saved = loss.cross_entropy_forward(wide, wide_t, None, IGNORE, "mean")
    assert_near(r, value, "float32", 2)
    assert_near(loss.cross_entropy_backward(put(np.ones((), np.float32), device), saved), gradient, "float32", 2)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_misaligned(dtype: str, device: str) -> None:
    x, t = numbers(1 + 3 * 40, dtype=dtype), classes(3, count=40)
    r, saved = loss.cross_entropy_forward(put(x, device)[1:].reshape(3, 40), put(t, device), None, IGNORE, "mean", 0.1)
    value, gradient = reference(x[1:].reshape(3, 40), t, None, "mean", 0.1, True)
    assert_near(r, value, dtype, 2)
    gx = loss.cross_entropy_backward(put(np.ones((), dtype), device), saved)
    assert_near(gx, gradient, dtype, 2)


def test_transposed_logits_are_not_copied(device: str) -> None:
    x, t = numbers(2, 5, 33), classes(2, 5, count=33)
    there = np.moveaxis(put(x, device), -1, 1)
    for name in ("cross_entropy", "nll"):
        r, saved = getattr(loss, f"{name}_forward")(there, put(t, device), None, IGNORE, "sum")
        assert saved.last and (saved.x is None or np.shares_memory(saved.x, there))
        value, gradient = reference(np.moveaxis(x, -1, 1), t, None, "sum", 0.0, name == "cross_entropy")
        assert_near(r, value, "float32", 2)
        gx = getattr(loss, f"{name}_backward")(put(np.ones((), np.float32), device), saved)
        assert_near(gx, gradient, "float32", 2)


@pytest.mark.parametrize("order", ["reverse", "random:3"])
def test_order_of_lanes(order: str, device: str) -> None:
    if device != "sim":
        pytest.skip("the order of lanes is the simulator's")
    with sim.order(order):
        for shape in ((9, 33), (3, 1100), (40, 5, 3)):
            check(shape, "float32", device, weighted=True, smoothing=0.1)


def test_same_bits_again(device: str) -> None:
    x, t = put(numbers(3000, 40), device), put(classes(3000, count=40), device)

    def run() -> list[bytes]:
        r, saved = loss.cross_entropy_forward(x, t, None, IGNORE, "mean", 0.1)
        gx = loss.cross_entropy_backward(put(np.ones((), np.float32), device), saved)
        return [fetch(a).tobytes() for a in (r, gx)]

    assert run() == run()


def functions() -> dict[str, Any]:
    def cross_entropy(x: cf.Tensor, t: cf.Tensor, w: Any, **options: Any) -> cf.Tensor:
        return F.cross_entropy(x, t, w, label_smoothing=0.1, **options)

    return {"cross_entropy": cross_entropy, "nll": F.nll_loss}


@pytest.mark.parametrize("name", ["cross_entropy", "nll"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_functions_use_the_kernels(name: str, reduction: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for part in ("forward", "backward"):
        true = getattr(loss, f"{name}_{part}")
        monkeypatch.setattr(loss, f"{name}_{part}", lambda *a, true=true, part=part: (calls.append(part), true(*a))[1])
    function = functions()[name]
    t = cf.tensor(classes(2, 2, count=3), device=device)
    w = cf.tensor(numbers(3, dtype="float64", low=0.5), device=device)
    x = cf.tensor(numbers(2, 3, 2, dtype="float64"), device=device, requires_grad=True)
    function(x, t, w, reduction=reduction).sum().backward()
    assert calls == ["forward", "backward"]
    again = x.detach().requires_grad_()
    assert cf.autograd.gradcheck(lambda x: function(x, t, w, reduction=reduction), (again,))
    # squared, since a likelihood alone is linear
    assert cf.autograd.gradgradcheck(lambda x: function(x, t, w, reduction=reduction) ** 2, (again,))


def test_smoothing_of_a_class_of_weight_zero(device: str) -> None:
    x, t, w = numbers(4, 3), np.array([0, 1, 2, IGNORE]), np.array([0, 1, 2], np.float32)
    for where in ("cpu", device):
        for reduction in REDUCTIONS:
            leaf = cf.tensor(x, device=where, requires_grad=True)
            value = F.cross_entropy(leaf, cf.tensor(t, device=where), cf.tensor(w, device=where), reduction=reduction,
                                    label_smoothing=0.3)
            expected, gradient = reference(x, t, w, reduction, 0.3, True)
            assert_near(value.detach().array, expected, "float32", 2)
            (value * cf.tensor(1.0 + np.arange(4.0), device=where).float() if value.ndim else value).sum().backward()
            assert_near(leaf.grad.array, gradient, "float32", 2)


@pytest.mark.parametrize("module", [cf.nn.CrossEntropyLoss, cf.nn.NLLLoss])
def test_modules(module: Any, device: str) -> None:
    x, t, w = numbers(4, 3), classes(4, count=3), numbers(3, low=0.5)
    values = []
    for where in ("cpu", device):
        leaf = cf.tensor(x, device=where, requires_grad=True)
        value = module(cf.tensor(w, device=where))(leaf, cf.tensor(t.astype(np.int32), device=where))
        value.backward()
        values.append((fetch(value.detach().array), fetch(leaf.grad.array)))
    for ours, theirs in zip(*values):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
