"""`kernels/attention.cu` and `attention_mma.cu` against the CPU's blocks and formulas in float64."""

from __future__ import annotations

import copy
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn
from cuframe.cpu import attention as host
from cuframe.cuda import sim
from cuframe.gpu import attention
from tests.kernels import FLOATS, Array, assert_near, fetch, numbers, put, tensors
from tests.sim_helpers import needs_compiler

# gradients add up more than results do
_ROOM = {"float32": 4.0, "float64": 8.0, "float16": 2.0, "bfloat16": 2.0}


def wide(x: Array | None) -> Any:
    return x if x is None or x.dtype == bool else x.astype(np.float64)


def check(
    device: str, dtype: str, heads: tuple[int, int], lengths: tuple[int, int], widths: tuple[int, int], batch: int = 1,
    mask: Array | None = None, causal: bool = False, p: float = 0.0, own_keys: Sequence[int] | None = None,
) -> None:  # fmt: skip
    """Forward and all gradients, against the CPU's in float64."""
    within = "float16" if dtype == "float32" and cf.cuda.allow_tf32() else dtype  # TF32 has as many digits
    (own, shared), (length, keys), (e, ev) = heads, lengths, widths
    q = numbers(batch, own, length, e, dtype=dtype)
    k, v = numbers(batch, shared, keys, e, dtype=dtype, seed=1), numbers(batch, shared, keys, ev, dtype=dtype, seed=2)
    g = numbers(batch, own, length, ev, dtype=dtype, seed=3)
    mask = mask if mask is None or mask.dtype == bool else mask.astype(q.dtype)
    drop = host.Dropout(5, 77, p) if p else None
    rest = (causal, 0.3, drop)
    present: Any = None if own_keys is None else np.array(own_keys)
    out, lse = host.forward(wide(q), wide(k), wide(v), wide(mask), *rest, present)
    needs_mask = mask is not None and mask.dtype != bool
    expected = host.backward(wide(g), wide(q), wide(k), wide(v), wide(mask), *rest, out, lse, needs_mask, present)
    if present is not None:
        for n, own in enumerate(own_keys or ()):
            k[n, :, own:], v[n, :, own:] = np.nan, np.inf  # what is not read may be anything
        present = put(present, device)
    inputs = [a if a is None else put(a, device) for a in (q, k, v, mask)]
    got, got_lse = attention.forward(*inputs, *rest, present)
    assert got.dtype == q.dtype
    what = f"{dtype} {heads} {lengths} {widths}"
    assert_near(got, out, within, _ROOM[within], what=f"{what}: out")
    grads = attention.backward(put(g, device), *inputs, *rest, got, got_lse, needs_mask, present)
    for name, a, b in zip("qkvm", grads, expected):
        assert (a is None) == (b is None)
        if b is not None:
            assert_near(a, b, within, _ROOM[within], what=f"{what}: gradient of {name}")


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 65), (31, 33), (64, 64), (65, 63), (128, 97)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lengths(dtype: str, lengths: tuple[int, int], causal: bool, device: str) -> None:
    check(device, dtype, (1, 1), lengths, (16, 16), causal=causal)


@pytest.mark.parametrize("lengths", [(1, 1), (1, 65), (63, 64), (64, 33), (65, 128), (129, 31)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lengths_by_tensor_cores(dtype: str, lengths: tuple[int, int], device: str) -> None:
    for causal in (False, True):
        check(device, dtype, (1, 1), lengths, (16, 16), causal=causal)


def padding(keys: int) -> Array:
    mask = np.ones((2, 1, 1, keys), bool)
    mask[1, ..., keys // 2:] = False
    return mask


MASKS = {
    "padding": padding(41),
    "bool": numbers(33, 41) > -1,
    "nothing": numbers(2, 4, 33, 1) > 0,
    "numbers": numbers(33, 41),
    "numbers of heads": numbers(1, 4, 33, 41),
    "numbers of samples": numbers(2, 1, 1, 41),
    "numbers of rows": numbers(2, 4, 33, 1),
    "infinities": np.where(numbers(1, 1, 33, 41) > -1, 0, -np.inf),
}


@pytest.fixture
def tf32() -> Iterator[None]:
    cf.cuda.set_allow_tf32(True)
    yield
    cf.cuda.set_allow_tf32(False)


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("lengths", [(1, 1), (63, 64), (64, 33), (65, 128), (129, 31)])
def test_lengths_in_tf32(lengths: tuple[int, int], device: str) -> None:
    for causal in (False, True):
        check(device, "float32", (1, 1), lengths, (16, 16), causal=causal)


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("widths", [(1, 1), (7, 9), (12, 20), (64, 65), (80, 80), (128, 128), (129, 30)])
def test_widths_in_tf32(widths: tuple[int, int], device: str) -> None:
    check(device, "float32", (2, 1), (17, 35), widths, p=0.3)


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("name", MASKS)
def test_masks_in_tf32(name: str, device: str) -> None:
    check(device, "float32", (4, 2), (33, 41), (8, 8), batch=2, mask=MASKS[name], own_keys=(41, 12))


def rounded(x: Array) -> Array:
    """To TF32: 10 bits of fraction, to nearest."""
    return ((x.astype(np.float32).view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("width", [64, 128])
def test_error_in_tf32_against_the_formula(width: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the error of the formula with its products' factors rounded, three times for gradients; and it is TF32."""
    q, k, v, g = (numbers(1, 1, n, width, seed=i) for i, n in enumerate((66, 130, 130, 66)))
    scale = width**-0.5
    truth, lse = host.forward(*map(wide, (q, k, v)), None, False, scale, None)
    true = [truth, *host.backward(*map(wide, (g, q, k, v)), None, False, scale, None, truth, lse, False)[:3]]
    q2, k2, v2, g2 = map(rounded, (q, k, v, g))
    s = q2 @ k2.swapaxes(-1, -2) * scale
    p = np.exp(s - s.max(-1, keepdims=True))
    total = p.sum(-1, keepdims=True)
    out = rounded(p) @ v2 / total
    p /= total
    ds = p * (g2 @ v2.swapaxes(-1, -2) - (g * out).sum(-1, keepdims=True))
    plain = [out, rounded(ds) @ k2 * scale, rounded(ds).swapaxes(-1, -2) @ q2 * scale, rounded(p).swapaxes(-1, -2) @ g2]
    results = []
    for allowed in (True, False):
        monkeypatch.setattr("cuframe.cuda.precision._allowed", allowed)
        inputs = [put(a, device) for a in (q, k, v)]
        ours, own = attention.forward(*inputs, None, False, scale, None)
        grads = attention.backward(put(g, device), *inputs, None, False, scale, None, ours, own, False)
        results.append([fetch(a) for a in (ours, *grads[:3])])
    for i, (fast, slow, formula, exact) in enumerate(zip(*results, plain, true)):
        error = np.abs(fast - exact).max()
        assert error <= (3 if i else 2) * np.abs(formula - exact).max()
        assert np.abs(slow - exact).max() < 0.1 * error


@pytest.mark.parametrize("widths", [(1, 1), (7, 7), (8, 20), (32, 32), (64, 65), (80, 80), (128, 128), (129, 30),
                                    (256, 256)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_widths(dtype: str, widths: tuple[int, int], device: str) -> None:
    check(device, dtype, (1, 1), (17, 35), widths)


@pytest.mark.slow  # many simulated products
@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("dtype", [*FLOATS, "tf32"])
def test_tiles_of_every_width(dtype: str, width: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuframe.cuda.precision._allowed", dtype == "tf32")
    dtype = "float32" if dtype == "tf32" else dtype
    for lengths in ((64, 65), (127, 128), (128, 129), (130, 63), (33, 31), (32, 32)):
        check(device, dtype, (2, 1), lengths, (width, width), causal=True)
        check(device, dtype, (1, 1), lengths, (width, width), p=0.3)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_masks_and_shared_heads(dtype: str, name: str, device: str) -> None:
    mask = MASKS[name]
    check(device, dtype, (4, 2), (33, 41), (8, 8), batch=2, mask=mask, p=0.25 if "numbers" in name else 0.0)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout_is_the_hosts(dtype: str, causal: bool, device: str) -> None:
    check(device, dtype, (3, 1), (66, 45), (8, 8), batch=2, causal=causal, p=0.4)


@pytest.mark.parametrize("dtype", FLOATS)
def test_samples_with_fewer_keys(dtype: str, device: str) -> None:
    """Nothing behind is read, in all kernels and under all masks; a sample without keys gives zeros."""
    own = (70, 0, 33, 64)
    check(device, dtype, (2, 1), (5, 70), (8, 8), batch=4, own_keys=own)
    check(device, dtype, (2, 2), (66, 70), (8, 8), batch=4, own_keys=own, causal=True, p=0.3)
    check(device, dtype, (2, 1), (5, 70), (8, 8), batch=4, own_keys=own, mask=numbers(4, 1, 1, 70) > -1)
    check(device, dtype, (2, 1), (5, 70), (8, 8), batch=4, own_keys=own, mask=numbers(2, 5, 70), p=0.3)
    check(device, dtype, (4, 1), (1, 70), (8, 8), batch=4, own_keys=own)


def test_keys_that_are_not_there_cost_nothing(device: str) -> None:
    """Blocks stop where the keys do, which the simulator's time shows."""
    q, k = put(numbers(1, 2, 70, 16, dtype="float16"), device), put(numbers(1, 2, 2000, 16, dtype="float16"), device)
    took = []
    for keys in (2000, 0):
        lengths = put(np.array([keys]), device)
        attention.forward(q, k, k, None, False, 0.5, None, lengths)
        start = time.perf_counter()
        out, lse = attention.forward(q, k, k, None, False, 0.5, None, lengths)
        attention.backward(out, q, k, k, None, False, 0.5, None, out, lse, False, lengths)
        took.append(time.perf_counter() - start)
    assert device != "sim" or took[1] < 0.5 * took[0]


def test_padding_tells_the_lengths(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of whole samples, wherever it has holes, lets the tiles behind its last key be skipped."""
    mask = np.zeros((3, 1, 1, 300), bool)
    mask[0, ..., [3, 270]], mask[1, ..., 7:9] = True, True
    seen = []
    true = attention._LENGTHS

    def lengths(*given: Any) -> None:
        true(*given)
        seen.append(fetch(given[3]).tolist())

    monkeypatch.setattr(attention, "_LENGTHS", lengths)
    for dtype in ("float32", "float16"):
        check(device, dtype, (2, 1), (9, 300), (8, 8), batch=3, mask=mask)
        check(device, dtype, (2, 1), (9, 300), (8, 8), batch=2, mask=mask[1:2])
    assert seen == 2 * (2 * [[271, 9, 0]] + 2 * [[9]])


@pytest.mark.parametrize("where", ["cpu", "device"])
def test_key_lengths_of_tensors(where: str, device: str) -> None:
    """Against the composite: gradients, those of gradients, and samples of three dimensions."""
    where = device if where == "device" else where
    q, k, v = tensors(*(numbers(3, 2, n, 2, dtype="float64", seed=n) for n in (2, 3, 4)), device=where)
    k, v = (t[..., :3, :].detach().requires_grad_() for t in (k, v))
    bias = tensors(numbers(2, 1, 3, dtype="float64"), device=where)[0]
    lengths = cf.tensor([2, 0, 3], device=where)

    def function(q: Any, k: Any, v: Any, *mask: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, *mask, key_lengths=lengths)

    assert cf.autograd.gradcheck(function, (q, k, v, bias))
    assert cf.autograd.gradgradcheck(function, tuple(t[:, :1, :, :1].detach().requires_grad_() for t in (q, k, v)))
    out = function(q, k, v)
    assert not fetch(out.array[1]).any()
    np.testing.assert_allclose(fetch(function(q[:, 0], k[:, 0], v[:, 0]).array), fetch(out.array[:, 0]), 1e-12)
    mask = cf.tensor(numbers(3, 2, 3, dtype="float64"), device=where)
    np.testing.assert_allclose(fetch(function(q[:, 0], k[:, 0], v[:, 0], mask).array),
                               fetch(function(q, k, v, mask[:, None]).array[:, 0]), 1e-12)
    k.array[0, :, 2], v.array[0, :, 2] = np.nan, np.inf
    np.testing.assert_array_equal(fetch(function(q, k, v).array), fetch(out.array))
    with pytest.raises(RuntimeError, match=r"key_lengths must be \(3,\) for query \(3, 2, 2, 2\), got \(2,\)"):
        F.scaled_dot_product_attention(q, k, v, key_lengths=lengths[:2])


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_that_see_nothing(dtype: str, device: str) -> None:
    q, k, v = (put(numbers(1, 1, n, 8, dtype=dtype, seed=n), device) for n in (5, 7, 7))
    mask = np.ones((5, 7), bool)
    mask[2] = False
    out, lse = attention.forward(q, k, v, put(mask, device), False, 1.0, None)
    assert not fetch(out)[0, 0, 2].any() and fetch(out)[0, 0, 1].any()
    grads = attention.backward(out, q, k, v, put(mask, device), False, 1.0, None, out, lse, False)
    assert not fetch(grads[0])[0, 0, 2].any() and np.isfinite(fetch(grads[1])).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_strides(dtype: str, device: str) -> None:
    """[B, L, H, E] is read and written as it lies; slices that are not aligned, or have gaps, are right as well."""
    host_arrays = [numbers(2, n, 3, 18, dtype=dtype, seed=n) for n in (9, 12, 13)]
    host_arrays[2] = host_arrays[2][:, :12]
    there = [put(a, device) for a in host_arrays]
    for part in (slice(0, 16), slice(1, 9), slice(0, 18, 2)):
        q, k, v = (a[..., part].swapaxes(1, 2) for a in host_arrays)
        out, _ = attention.forward(*(a[..., part].swapaxes(1, 2) for a in there), None, False, 0.5, None)
        expected, _ = host.forward(wide(q), wide(k), wide(v), None, False, 0.5, None)
        assert out.swapaxes(1, 2).flags.c_contiguous
        assert_near(out, expected, dtype, 4)
    q, k, v = (a[..., :16].swapaxes(1, 2) for a in there)
    out, lse = attention.forward(q, k, v, None, False, 0.5, None)
    grads = attention.backward(out, q, k, v, None, False, 0.5, None, out, lse, False)
    assert all(g.swapaxes(1, 2).flags.c_contiguous for g in grads[:3])
    dense = attention.backward(*(a.copy() for a in (out, q, k, v)), None, False, 0.5, None, out, lse, False)
    for a, b in zip(grads[:3], dense):
        np.testing.assert_array_equal(fetch(a), fetch(b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_few_queries_share_the_keys_out(dtype: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks for parts of the keys give what one block gives, also where a part is hidden altogether."""
    monkeypatch.setattr(attention, "_SPLIT", 64)
    keys = 300
    hidden = np.ones((1, 1, 1, keys), bool)
    hidden[..., 100:260] = False
    nothing = np.arange(3)[:, None] != np.full(keys, 1)
    seen = []
    monkeypatch.setattr(attention, "_splits", lambda *a, true=attention._splits: (seen.append(true(*a)), seen[-1])[1])
    for mask in (None, hidden, nothing):
        check(device, dtype, (2, 1), (3, keys), (8, 20), mask=mask, p=0.2)
    check(device, dtype, (4, 2), (1, keys), (8, 8), batch=2)
    check(device, dtype, (1, 1), (100, 200), (8, 8), causal=True)
    if device == "sim":
        assert all(count > 1 and span % 64 == 0 for count, span in seen)


def test_nothing_to_do(device: str) -> None:
    for length, keys in ((0, 3), (3, 0), (0, 0)):
        for dtype in ("float32", "float16"):
            q, k = put(numbers(2, 1, length, 8, dtype=dtype), device), put(numbers(2, 1, keys, 8, dtype=dtype), device)
            out, lse = attention.forward(q, k, k, None, False, 1.0, None)
            assert out.shape == q.shape and not fetch(out).any()
            gq, gk, gv, _ = attention.backward(out, q, k, k, None, False, 1.0, None, out, lse, False)
            assert gq.shape == q.shape and gk.shape == gv.shape == k.shape and not fetch(gk).any()


def test_too_wide(device: str) -> None:
    x = put(numbers(2, 3, 257), device)
    with pytest.raises(ValueError, match="heads must be at most 256 wide"):
        attention.forward(x, x, x, None, False, 1.0, None)


@pytest.mark.parametrize("dtype", ["float32", "float16", "tf32"])
def test_orders_and_repeats(dtype: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits whichever thread runs first, and every time."""
    monkeypatch.setattr("cuframe.cuda.precision._allowed", dtype == "tf32")
    dtype = "float32" if dtype == "tf32" else dtype
    orders = ["forward", "reverse", "random:3"] if device == "sim" else ["forward"] * 3
    q, g = (put(numbers(1, 2, 70, 24, dtype=dtype, seed=i), device) for i in (0, 1))
    k, v = (put(numbers(1, 1, 70, 24, dtype=dtype, seed=i), device) for i in (2, 3))
    bias = put(numbers(1, 1, 70, 70, dtype=dtype, seed=4), device)
    drop, own = host.Dropout(1, 2, 0.2), put(np.array([66]), device)
    seen = []
    for order in orders:
        with sim.order(order):
            out, lse = attention.forward(q, k, v, bias, True, 0.3, drop, own)
            grads = attention.backward(g, q, k, v, bias, True, 0.3, drop, out, lse, True, own)
            seen.append([fetch(a).tobytes() for a in (out, lse, *grads)])
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(
    "kind", ["all", *(pytest.param(k, marks=pytest.mark.slow) for k in ("causal", "keys", "numbers"))])
@pytest.mark.parametrize("width", [64, *(pytest.param(w, marks=pytest.mark.slow) for w in (128, 256))])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_error_against_the_plain_formula(dtype: str, width: int, kind: str, device: str) -> None:
    """At most twice the error of the same formula in the same dtype, three times for gradients."""
    arrays = [numbers(1, 1, n, width, dtype=dtype, seed=i) for i, n in enumerate((66, 130, 130, 66))]
    own = {"keys": numbers(66, 130, seed=7) > -1, "numbers": numbers(66, 130, dtype=dtype)}.get(kind)
    causal, scale = kind == "causal", width**-0.5
    errors = []
    for fused in (True, False):
        q, k, v = tensors(*arrays[:3], device=device)
        mask = None if own is None else tensors(own, device=device, requires_grad=False)[0]
        if fused:
            out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        else:
            scores = cf.matmul(q, k.swapaxes(-1, -2)) * scale
            if causal:
                mask = tensors(np.tri(66, 130, dtype=bool), device=device, requires_grad=False)[0]
            if mask is not None:
                scores = scores + mask if kind == "numbers" else cf.where(mask, scores, -math.inf)
            out = cf.matmul(cf.softmax(scores, -1), v)
        grads = cf.autograd.grad(out, (q, k, v), tensors(arrays[3], device=device, requires_grad=False)[0])
        errors.append([fetch(a.detach().array) for a in (out, *grads)])
    q8, k8, v8, g8 = map(wide, arrays)
    exact, lse = host.forward(q8, k8, v8, wide(own), causal, scale, None)
    truth = [exact, *host.backward(g8, q8, k8, v8, wide(own), causal, scale, None, exact, lse, False)[:3]]
    for i, (ours, plain, true) in enumerate(zip(*errors, truth)):
        assert np.abs(ours - true).max() <= (3 if i else 2) * np.abs(plain - true).max()


def test_old_gpus_compute_in_float32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_too_old", lambda x: x.itemsize == 2)
    check(device, "bfloat16", (2, 1), (9, 11), (8, 8), mask=numbers(9, 11))


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_gradients(causal: bool, device: str) -> None:
    q, k, v = tensors(*(numbers(1, 2, n, 2, dtype="float64", seed=n) for n in (2, 3, 4)), device=device)
    v = v[:, :, :3].detach().requires_grad_()
    mask = None if causal else tensors(numbers(2, 1, 3, dtype="float64"), device=device)[0]

    def function(q: Any, k: Any, v: Any, *mask: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, *mask, is_causal=causal)

    inputs = (q, k, v) if mask is None else (q, k, v, mask)
    assert cf.autograd.gradcheck(function, inputs)
    shared = (q[..., :1], k[:, :1, :2, :1], v[:, :1, :2, :1])
    few = tuple(t.detach().requires_grad_() for t in shared)
    assert cf.autograd.gradgradcheck(lambda *a: F.scaled_dot_product_attention(*a, enable_gqa=True), few)


@pytest.mark.parametrize("mask", [(2, 1, 2, 4, 5), (1, 3, 1, 1, 5), (2, 3, 2, 1, 1), (4, 5)])
def test_more_than_four_dimensions(mask: tuple[int, ...], device: str) -> None:
    arrays = [numbers(2, 3, 2, n, 4, dtype="float64", seed=n) for n in (4, 5, 6)]
    arrays = [*arrays[:2], arrays[2][..., :5, :], numbers(*mask, dtype="float64")]
    results = []
    for where in ("cpu", device):
        inputs = tensors(*arrays, device=where)
        out = F.scaled_dot_product_attention(*inputs)
        results.append([fetch(a.detach().array) for a in (out, *cf.autograd.grad((out * out).sum(), inputs))])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-10, 1e-12)


def layer(name: str) -> tuple[nn.Module, Any]:
    if name == "MultiheadAttention":
        module = nn.MultiheadAttention(12, 3, batch_first=True)
        return module, lambda m, x: m(x, x, x, need_weights=False)[0]
    return nn.TransformerEncoderLayer(12, 3, 16, dropout=0.1, batch_first=True), lambda m, x: m(x)


@pytest.mark.parametrize("name", ["MultiheadAttention", "TransformerEncoderLayer"])
def test_layers_use_the_kernels(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, call = layer(name)
    x, results, calls = numbers(2, 5, 12), [], []
    for function in ("forward", "backward"):
        true = getattr(attention, function)
        monkeypatch.setattr(attention, function, lambda *a, true=true, n=function: (calls.append(n), true(*a))[1])
    for where in ("cpu", device):
        module.to(where)
        module.zero_grad()
        cf.manual_seed(3)
        out = call(module, cf.tensor(x, device=where))
        (out * out).sum().backward()
        results.append([fetch(t.array) for t in (out.detach(), *(p.grad for p in module.parameters()))])
    assert calls == ["forward", "backward"]
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-3, 1e-4)


def test_padding_of_an_encoder_is_skipped(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`key_padding_mask` comes as a mask of whole samples, which tells how many keys they have."""
    seen, true = [], attention._LENGTHS

    def lengths(*given: Any) -> None:
        true(*given)
        seen.append(fetch(given[3]).tolist())

    monkeypatch.setattr(attention, "_LENGTHS", lengths)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 16, batch_first=True), 2).to(device)
    hidden = np.zeros((2, 5), bool)
    hidden[1, 3:] = True
    x = cf.tensor(numbers(2, 5, 12), device=device)
    encoder(x, src_key_padding_mask=cf.tensor(hidden, device=device)).sum().backward()
    assert seen == [[5, 3]] * 4


def break_kernel(kernel: Any, tmp_path: Path, dtype: str, line: str, number: int) -> Any:
    """The kernel's first width, without the occurrence `number` of a line."""
    text = kernel.source.text
    at = [m.start() for m in re.finditer(re.escape(line), text)][number]
    path = tmp_path / kernel.source.path.name
    path.write_text(text[:at] + text[at + len(line):])
    broken = copy.copy(kernel)
    broken._source, broken._opened = path, None
    broken._forget()
    broken.types, broken.constants = {"T": (dtype,)}, {**kernel.constants, "D": kernel.constants["D"][:1]}
    return broken


WAIT, BARRIER = "cp_async_wait<0>();", "__syncthreads();"


@pytest.mark.parametrize("name, dtype, line, number", [
    ("_MMA_FORWARD", "float16", BARRIER, 0),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("_MMA_FORWARD", "float16", WAIT, 0), ("_MMA_FORWARD", "float16", WAIT, 1),
        ("_MMA_FORWARD", "float16", BARRIER, 1), ("_MMA_BACKWARD", "float16", WAIT, 3),
        ("_MMA_BACKWARD", "float16", BARRIER, 3), ("_MMA_BACKWARD", "float16", BARRIER, 4),
        ("_MMA_WIDE_BACKWARD", "float16", BARRIER, 5),
        ("_FORWARD", "float32", "__syncthreads(); ", 0), ("_FORWARD", "float32", "__syncthreads()\n", 0),
        ("_BACKWARD", "float32", "__syncthreads(); ", 0), ("_BACKWARD", "float32", "__syncthreads()\n", 0),
        ("_BACKWARD", "float32", "if (KEYS) __syncthreads();", 0),
        ("_BIAS_BACKWARD", "float32", "                __syncthreads();\n", 0),
        ("_BIAS_BACKWARD", "float32", "__syncthreads(); // before other bits are drawn", 0),
        ("_TF32_FORWARD", "float32", WAIT, 0), ("_TF32_FORWARD", "float32", BARRIER, 0),
        ("_TF32_BACKWARD", "float32", BARRIER, 3),
    )),
])  # fmt: skip
def test_a_missing_line_shows(
    name: str, dtype: str, line: str, number: int, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a wait or a barrier results are wrong in one order of threads at least."""
    if device != "sim":
        pytest.skip("on a GPU a missing barrier may go unnoticed; the simulator's orders show it")
    monkeypatch.setattr("cuframe.cuda.precision._allowed", "TF32" in name)
    width = 136 if "WIDE" in name else 16
    q, k, v, g = (put(numbers(1, 1, 150, width, dtype=dtype, seed=i), device) for i in range(4))
    out, lse = attention.forward(q, k, v, None, False, 0.5, None)

    def results() -> list[np.ndarray]:
        if name.startswith("_BIAS"):
            two = [cf.cat([cf.Tensor(a)] * 2).array for a in (g, q, k, v)]
            drop, bias = host.Dropout(5, 0, 0.5), put(numbers(150, 150), device)
            o, own = attention.forward(*two[1:], bias, False, 0.5, drop)
            return [fetch(attention.backward(*two, bias, False, 0.5, drop, o, own, True)[3])]
        if name.endswith("FORWARD"):
            return [fetch(attention.forward(q, k, v, None, False, 0.5, None)[0])]
        return [fetch(a) for a in attention.backward(g, q, k, v, None, False, 0.5, None, out, lse, False)[:3]]

    expected = results()
    monkeypatch.setattr(attention, name, break_kernel(getattr(attention, name), tmp_path, dtype, line, number))
    same = []
    for order in ("forward", "reverse", "random:3", "ahead:1", "ahead:2"):
        with sim.order(order):
            same += [np.array_equal(a, b) for a, b in zip(results(), expected)]
    assert not all(same)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name, number", [("_MMA_FORWARD", 2), ("_MMA_BACKWARD", 4)])
def test_a_wait_for_copies_that_nobody_reads(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block without keys, or queries, would write its result where its copies still come in."""
    monkeypatch.setattr(attention, name, break_kernel(getattr(attention, name), tmp_path, "float16", WAIT, number))
    q, k = (put(numbers(1, 1, n, 16, dtype="float16"), "sim") for n in (10, 150 if "BACK" in name else 0))
    lse = put(numbers(1, 1, 10), "sim")
    with pytest.raises(sim.SimError, match="the thread ends while .* copies are under way"):
        if "BACK" in name:
            attention.backward(q, q, k, k, None, True, 0.5, None, q, lse, False)
        else:
            attention.forward(q, k, k, None, False, 0.5, None)


RACES = """
import sys
from pathlib import Path
from cuframe.gpu import attention
from tests.kernels import numbers, put
from tests.test_kernel_attention import break_kernel
name, line, folder = sys.argv[1:]
q = put(numbers(1, 1, 10, 16, dtype="float16"), "sim")
k = put(numbers(1, 1, 150 if "BACK" in name else 0, 16, dtype="float16"), "sim")
right = getattr(attention, name)
if line:
    setattr(attention, name, break_kernel(right, Path(folder), "float16", line, 0))
else:
    right.types, right.constants = {"T": ("float16",)}, {**right.constants, "D": right.constants["D"][:1]}
if "BACK" in name:
    out, lse = q, put(numbers(1, 1, 10, dtype="float32"), "sim")
    attention.backward(q, q, k, k, None, True, 0.5, None, out, lse, False)
else:
    attention.forward(q, k, k, None, False, 0.5, None)
print("ended")
"""


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name, line", [
    ("_MMA_FORWARD", "if (begin >= stop) __syncthreads();"), ("_MMA_BACKWARD", "if (count == 0) __syncthreads();")])
def test_a_barrier_for_blocks_that_have_nothing_to_read(name: str, line: str, tmp_path: Path) -> None:
    """Theirs is a race that no order of threads shows."""
    script = tmp_path / "races.py"
    script.write_text(RACES)
    for taken_out in ("", line):
        done = subprocess.run([sys.executable, "-m", "cuframe", "sim", "run", "--sanitize", "thread", str(script), name,
                               taken_out, str(tmp_path)], capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
        assert done.returncode == (66 if taken_out else 0), done.stderr
        assert ("data race" in done.stderr) == bool(taken_out) and "ended" in done.stdout
