"""Transformers: order of norms, masks, stacks, activations, gradients and names."""

from __future__ import annotations

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn
from cuframe.autograd import gradcheck, gradgradcheck


def sequence(*shape: int, seed: int = 0) -> cf.Tensor:
    return cf.Tensor(np.random.default_rng(seed).standard_normal(shape)).requires_grad_()


def encoder_layer(**options) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(4, 2, 6, 0.0, **options).double()


def test_decoder_is_its_layers_in_turn() -> None:
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 6, 0.0), 2, nn.LayerNorm(4)).double()
    tgt, memory = sequence(3, 2, 4), sequence(5, 2, 4, seed=1)
    expected = decoder.norm(decoder.layers[1](decoder.layers[0](tgt, memory), memory))
    np.testing.assert_array_equal(decoder(tgt, memory).array, expected.array)
    assert decoder.layers[0] is not decoder.layers[1]


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer_is_its_formula(norm_first: bool) -> None:
    layer, x = encoder_layer(norm_first=norm_first), sequence(3, 2, 4)

    def attention(x: cf.Tensor) -> cf.Tensor:
        return layer.self_attn(x, x, x)[0]

    def network(x: cf.Tensor) -> cf.Tensor:
        return layer.linear2(F.relu(layer.linear1(x)))

    if norm_first:
        y = x + attention(layer.norm1(x))
        expected = y + network(layer.norm2(y))
    else:
        y = layer.norm1(x + attention(x))
        expected = layer.norm2(y + network(y))
    np.testing.assert_allclose(layer(x).array, expected.array, 1e-10)


def test_batch_first_is_a_transposition() -> None:
    model = nn.Transformer(4, 2, 1, 1, 6, 0.0).double()
    other = nn.Transformer(4, 2, 1, 1, 6, 0.0, batch_first=True).double()
    other.load_state_dict(model.state_dict())
    src, tgt = sequence(5, 2, 4), sequence(3, 2, 4, seed=1)
    out = other(src.transpose(0, 1), tgt.transpose(0, 1))
    np.testing.assert_allclose(out.transpose(0, 1).array, model(src, tgt).array, 1e-9)


def test_unbatched_is_a_batch_of_one() -> None:
    model = nn.Transformer(4, 2, 1, 1, 6, 0.0).double()
    src, tgt = sequence(5, 4), sequence(3, 4, seed=1)
    mask = model.generate_square_subsequent_mask(3)
    many = model(src.unsqueeze(1), tgt.unsqueeze(1), tgt_mask=mask)
    np.testing.assert_allclose(model(src, tgt, tgt_mask=mask).array, many.array[:, 0], 1e-9)


def test_the_future_does_not_reach_back() -> None:
    model = nn.Transformer(4, 2, 1, 2, 6, 0.0).double()
    src, tgt = sequence(5, 1, 4), sequence(6, 1, 4, seed=1)
    mask = model.generate_square_subsequent_mask(6)
    before = model(src, tgt, tgt_mask=mask).array
    tgt.array[4:] += 1
    after = model(src, tgt, tgt_mask=mask).array
    np.testing.assert_array_equal(before[:4], after[:4])
    assert not np.allclose(before[4:], after[4:])


def test_padding_does_not_matter() -> None:
    stack = nn.TransformerEncoder(encoder_layer(), 2)
    x = sequence(5, 2, 4)
    padding = cf.tensor([[False] * 5, [False] * 3 + [True] * 2])
    before = stack(x, src_key_padding_mask=padding).array
    x.array[3:, 1] = 7
    after = stack(x, src_key_padding_mask=padding).array
    np.testing.assert_allclose(before[:3], after[:3], 1e-12)
    np.testing.assert_allclose(before[:, 0], after[:, 0], 1e-12)


@pytest.mark.parametrize("kind", ["float", "bool"])
def test_a_causal_mask_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    stack = nn.TransformerEncoder(encoder_layer(), 1)
    inner = stack.layers[0].forward
    monkeypatch.setattr(stack.layers[0], "forward", lambda *a, **k: seen.append(k["is_causal"]) or inner(*a, **k))
    x, mask = sequence(4, 1, 4), nn.Transformer.generate_square_subsequent_mask(4)
    other = mask.array.copy()
    other[0, 1] = 0
    for array in (mask.array, other):
        stack(x, mask=cf.Tensor(array != 0 if kind == "bool" else array))
    stack(x)
    assert seen == [True, False, False]


def test_copies_of_a_stack_are_their_own() -> None:
    layer = encoder_layer()
    stack = nn.TransformerEncoder(layer, 2, nn.LayerNorm(4))
    parts = [p for part in (layer, *stack.layers) for p in part.parameters()]
    assert len({id(p) for p in parts}) == len(parts) == 3 * 12
    np.testing.assert_array_equal(stack.layers[0].linear1.weight.array, stack.layers[1].linear1.weight.array)


@pytest.mark.parametrize("activation, same", [("gelu", F.gelu), (F.relu, "relu"), (lambda x: x.tanh(), nn.Tanh())])
def test_activations(activation, same) -> None:
    one, other = encoder_layer(activation=activation), encoder_layer(activation=same)
    other.load_state_dict(one.state_dict())
    x = sequence(3, 2, 4)
    np.testing.assert_array_equal(one(x).array, other(x).array)


def test_without_bias() -> None:
    names = {name.rpartition(".")[2] for name, _ in nn.Transformer(4, 2, 1, 1, 6, bias=False).named_parameters()}
    assert names == {"in_proj_weight", "weight"}


def test_state_dict_keys_of_a_decoder_layer() -> None:
    expected = []
    for name in ("self_attn", "multihead_attn"):
        expected += [f"{name}.{p}" for p in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")]
    for name in ("linear1", "linear2", "norm1", "norm2", "norm3"):
        expected += [f"{name}.weight", f"{name}.bias"]
    assert list(nn.TransformerDecoderLayer(4, 2, 6).state_dict()) == expected


@pytest.mark.parametrize("norm_first", [False, True])
def test_gradients(norm_first: bool) -> None:
    layer = nn.TransformerDecoderLayer(4, 2, 5, 0.0, activation="gelu", norm_first=norm_first).double()
    x, memory = sequence(3, 1, 4), sequence(2, 1, 4, seed=1)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    parameters = [layer.self_attn.in_proj_weight, layer.multihead_attn.in_proj_bias, layer.norm2.weight]
    gradcheck(lambda *given: layer(given[0], given[1], tgt_mask=mask), [x, memory, *parameters], fast_mode=True)
    gradgradcheck(lambda a, b: layer(a, b, tgt_mask=mask), [x, memory], fast_mode=True)


def test_custom_stacks() -> None:
    class Passing(nn.Module):
        def forward(self, x, *args, **kwargs):
            return x

    model = nn.Transformer(4, 2, custom_encoder=Passing(), custom_decoder=Passing())
    tgt = cf.ones(3, 2, 4)
    assert model(cf.ones(5, 2, 4), tgt) is tgt and not list(model.parameters())


def test_training_has_dropout_evaluation_has_none() -> None:
    model = nn.Transformer(4, 2, 1, 1, 6, dropout=0.5)
    x = cf.ones(3, 2, 4)
    assert not np.array_equal(model(x, x).array, model(x, x).array)
    model.eval()
    np.testing.assert_array_equal(model(x, x).array, model(x, x).array)


@pytest.mark.parametrize("call, error, text", [
    (lambda: encoder_layer(activation="tanh"), RuntimeError, "'relu', 'gelu' or a callable, got 'tanh'"),
    (lambda: encoder_layer(activation=3), TypeError, "activation must be .*, got int"),
    (lambda: nn.Transformer(4, 2, 1, 1, 6)(cf.ones(3, 2, 4), cf.ones(3, 1, 4)), RuntimeError, "agree in batch size"),
    (lambda: nn.Transformer(4, 2, 1, 1, 6)(cf.ones(3, 2, 4), cf.ones(3, 2, 5)), RuntimeError, r"tgt must be \(..., 4"),
])  # fmt: skip
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
