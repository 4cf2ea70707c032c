"""Attention beyond the table: blocks, memory, dropout, and the layer's ways through it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn
from cuframe.cpu import attention as kernel
from cuframe.ops.attention import _attention_composite
from cuframe.random import default_generator, manual_seed


def leaves(*shapes: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> list[cf.Tensor]:
    rng = np.random.default_rng(seed)
    return [cf.Tensor(rng.standard_normal(s) * scale).requires_grad_() for s in shapes]


def gradients(out: cf.Tensor, inputs: list[cf.Tensor]) -> list[np.ndarray]:
    weight = np.random.default_rng(9).uniform(0.5, 1.5, out.array.shape)
    return [g.array for g in cf.autograd.grad(out, inputs, cf.Tensor(weight))]


def additive(shape: tuple[int, ...]) -> cf.Tensor:
    return cf.Tensor(np.random.default_rng(5).standard_normal(shape))


def padding(keys: int) -> cf.Tensor:
    mask = np.ones((2, 1, 1, keys), bool)
    mask[1, ..., keys // 2 :] = False
    return cf.Tensor(mask)


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["small scores", "large scores"])
@pytest.mark.parametrize("length, keys", [(300, 700), (5, 600), (270, 3)])
@pytest.mark.parametrize("kind", ["plain", "causal", "padding", "numbers", "dropout", "causal dropout"])
def test_blocks_equal_the_formula(kind: str, length: int, keys: int, scale: float) -> None:
    """Several blocks of rows and of keys, with scores that need a maximum and such that do not."""
    inputs = leaves((2, 2, length, 4), (2, 2, keys, 4), (2, 2, keys, 3), scale=scale)
    mask = padding(keys) if kind == "padding" else additive((length, keys)) if kind == "numbers" else None
    if mask is not None and kind == "numbers":
        mask.requires_grad_()
        inputs.append(mask)
    causal = "causal" in kind
    manual_seed(4)
    drop = kernel.Dropout(4, 0, 0.3) if "dropout" in kind else None
    out = F.scaled_dot_product_attention(*inputs[:3], mask, 0.3 if drop else 0.0, causal)
    expected = _attention_composite(*inputs[:3], mask, causal, 0.5, drop)
    np.testing.assert_allclose(out.array, expected.array, 1e-9, 1e-12)
    for a, e in zip(gradients(out, inputs), gradients(expected, inputs)):
        np.testing.assert_allclose(a, e, 1e-7, 1e-9)


def test_heads_together_equal_heads_alone() -> None:
    q, k, v = leaves((3, 40, 6, 5), (3, 40, 7, 5), (3, 40, 7, 5))
    together = F.scaled_dot_product_attention(q, k, v)
    alone = [F.scaled_dot_product_attention(q[i, j], k[i, j], v[i, j]).array for i in range(3) for j in range(40)]
    np.testing.assert_allclose(together.array.reshape(-1, 6, 5), alone, 1e-12, 1e-14)


def test_memory_does_not_grow_as_the_square() -> None:
    """At 4096 x 4096 the weights alone would be 64 MiB."""
    q, k, v = (cf.Tensor(np.random.default_rng(i).standard_normal((1, 1, 4096, 8), np.float32)).requires_grad_()
               for i in range(3))  # fmt: skip

    def step() -> None:
        F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True).sum().backward()

    step()  # where there is llvmlite, it takes memory to compile
    tracemalloc.start()
    step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_saved_between_the_passes_is_linear() -> None:
    q, k, v = (cf.Tensor(np.zeros((1, 1, 1024, 4), np.float32)).requires_grad_() for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v)
    sizes = [a.size for a in out.node.saved if isinstance(a, np.ndarray)]
    assert max(sizes) == 1024 * 4


def test_rows_that_see_nothing_give_zeros_and_take_no_gradient() -> None:
    q, k, v = leaves((3, 4), (5, 4), (5, 4))
    mask = np.ones((3, 5), bool)
    mask[1] = False
    for m in (mask, np.where(mask, 0, -np.inf)):
        out = F.scaled_dot_product_attention(q, k, v, cf.Tensor(m))
        assert not out.array[1].any() and out.array[0].any()
        (gq,) = cf.autograd.grad(out.sum(), q)
        assert np.isfinite(gq.array).all() and not gq.array[1].any()


def test_nan_is_not_hidden() -> None:
    q, k, v = leaves((2, 3), (4, 3), (4, 3))
    q.array[0, 0] = np.nan
    out = F.scaled_dot_product_attention(q, k, v).array
    assert np.isnan(out[0]).all() and np.isfinite(out[1]).all()


def test_scores_beyond_the_range_of_exp() -> None:
    x = cf.tensor([[1000.0], [-1000.0]])
    np.testing.assert_array_equal(F.scaled_dot_product_attention(x, x, cf.tensor([[1.0], [2.0]])).array, [[1], [2]])


def test_dropout_keeps_the_expectation_and_the_generator_moves() -> None:
    manual_seed(1)
    q, k = cf.zeros(1, 200, 2), cf.zeros(1, 100, 2)
    ones = cf.ones(1, 100, 1)
    first = F.scaled_dot_product_attention(q, k, ones, dropout_p=0.25).array
    assert abs(first.mean() - 1) < 0.02 and first.std() > 0.02
    assert default_generator.offset == kernel.dropout_blocks(1, 200, 100)
    assert not np.array_equal(first, F.scaled_dot_product_attention(q, k, ones, dropout_p=0.25).array)
    manual_seed(1)
    np.testing.assert_array_equal(first, F.scaled_dot_product_attention(q, k, ones, dropout_p=0.25).array)


def test_result_lies_in_memory_as_the_query() -> None:
    q, k, v = (cf.Tensor(np.zeros((6, 2, 3, 4))).permute(1, 2, 0, 3) for _ in range(3))
    assert F.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).array.flags.c_contiguous


# -- the layer ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [
    {}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 3, "vdim": 5},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}, {"batch_first": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("masked", [False, True])
def test_with_and_without_weights_agree(options: dict, masked: bool) -> None:
    layer = nn.MultiheadAttention(8, 2, **options).double()
    first = options.get("batch_first", False)
    query, key, value = leaves(
        *((3, n, size) if first else (n, 3, size)
          for n, size in ((4, 8), (6, options.get("kdim", 8)), (6, options.get("vdim", 8))))
    )
    masks = {}
    if masked:
        hidden = np.zeros((3, 6), bool)
        hidden[1, 3:] = True
        masks = {"key_padding_mask": cf.Tensor(hidden), "attn_mask": additive((4, 6))}
    with_weights, weights = layer(query, key, value, **masks)
    without, none = layer(query, key, value, need_weights=False, **masks)
    assert none is None
    np.testing.assert_allclose(without.array, with_weights.array, 1e-9, 1e-12)
    extra = options.get("add_bias_kv", False) + options.get("add_zero_attn", False)
    assert weights is not None and weights.shape == (3, 4, 6 + extra)
    np.testing.assert_allclose(weights.array.sum(-1), 1)
    parameters = [*layer.parameters(), query, key, value]
    for a, e in zip(gradients(without, parameters), gradients(with_weights, parameters)):
        np.testing.assert_allclose(a, e, 1e-7, 1e-10)


def test_one_tensor_given_thrice_equals_three_tensors() -> None:
    layer = nn.MultiheadAttention(4, 2).double()
    (x,) = leaves((5, 2, 4))
    packed = layer(x, x, x)[0]
    apart = layer(x, x * 1, x * 1)[0]
    half = layer(x, *(2 * (x * 1,)))[0]
    np.testing.assert_allclose(packed.array, apart.array, 1e-12)
    np.testing.assert_allclose(packed.array, half.array, 1e-12)


def test_unbatched_input_is_a_batch_of_one() -> None:
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    (x,) = leaves((5, 4))
    hidden = cf.tensor([False, False, True, False, False])
    out, weights = layer(x, x, x, hidden)
    many, many_weights = layer(x[None], x[None], x[None], hidden[None])
    np.testing.assert_allclose(out.array, many.array[0], 1e-12)
    np.testing.assert_allclose(weights.array, many_weights.array[0], 1e-12)
    assert not weights.array[:, 2].any()


def test_causal_hint() -> None:
    layer = nn.MultiheadAttention(4, 2).double()
    (x,) = leaves((5, 2, 4))
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    hinted = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
    np.testing.assert_allclose(hinted.array, layer(x, x, x, attn_mask=mask)[0].array, 1e-9)


def test_dropout_only_in_training() -> None:
    layer = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = cf.ones(5, 2, 4)
    assert not np.array_equal(layer(x, x, x)[1].array, layer(x, x, x)[1].array)
    layer.eval()
    np.testing.assert_allclose(layer(x, x, x)[1].array, 0.2, rtol=1e-6)


@pytest.mark.parametrize("options, keys", [
    ({}, ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]),
    ({"bias": False}, ["in_proj_weight", "out_proj.weight"]),
    ({"kdim": 2, "bias": False}, ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]),
    ({"add_bias_kv": True, "bias": False}, ["in_proj_weight", "bias_k", "bias_v", "out_proj.weight"]),
], ids=str)  # fmt: skip
def test_state_dict_keys(options: dict, keys: list[str]) -> None:
    assert list(nn.MultiheadAttention(4, 2, **options).state_dict()) == keys


@pytest.mark.parametrize("call, error, text", [
    (lambda: nn.MultiheadAttention(5, 2), ValueError, "must be a positive multiple of num_heads, got 5 and 2"),
    (lambda: nn.MultiheadAttention(4, 2, dropout=2.0), ValueError, r"dropout must be in \[0, 1\], got 2.0"),
    (lambda: nn.MultiheadAttention(4, 2)(*(cf.ones(3, 2, 5),) * 3), RuntimeError, r"query must be \(..., 4\), got"),
    (lambda: nn.MultiheadAttention(4, 2, kdim=3)(*(cf.ones(3, 2, 4),) * 3), RuntimeError, r"key must be \(..., 3\)"),
])  # fmt: skip
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
