"""The examples of the documentation of torch.nn 1.2, with no more than the import changed.

Those that print numbers must give these numbers; of the others, shapes are looked at, and what the text says of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as torch
from cuframe import nn
from cuframe.nn.utils import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm
from cuframe.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence, pad_sequence


def shows(t: torch.Tensor, *expected: Any) -> None:
    """The values that are printed, to the four digits printed."""
    wanted = np.asarray(expected[0] if len(expected) == 1 else expected)
    assert tuple(t.shape) == wanted.shape
    np.testing.assert_allclose(t.detach().numpy(), wanted, rtol=0, atol=5.1e-5)


# -- recurrent layers -----------------------------------------------------------------------------------------------
def test_rnn() -> None:
    rnn = nn.RNN(10, 20, 2)
    input = torch.randn(5, 3, 10)
    h0 = torch.randn(2, 3, 20)
    output, hn = rnn(input, h0)
    assert output.shape == (5, 3, 20) and hn.shape == (2, 3, 20)
    assert torch.equal(output.view(5, 3, 1, 20)[-1, :, 0], hn.view(2, 1, 3, 20)[1, 0])


def test_lstm() -> None:
    rnn = nn.LSTM(10, 20, 2)
    input = torch.randn(5, 3, 10)
    h0 = torch.randn(2, 3, 20)
    c0 = torch.randn(2, 3, 20)
    output, (hn, cn) = rnn(input, (h0, c0))
    assert output.shape == (5, 3, 20) and hn.shape == cn.shape == (2, 3, 20)


def test_gru() -> None:
    rnn = nn.GRU(10, 20, 2)
    input = torch.randn(5, 3, 10)
    h0 = torch.randn(2, 3, 20)
    output, hn = rnn(input, h0)
    assert output.shape == (5, 3, 20) and hn.shape == (2, 3, 20)


def test_rnn_cell() -> None:
    rnn = nn.RNNCell(10, 20)
    input = torch.randn(6, 3, 10)
    hx = torch.randn(3, 20)
    output = []
    for i in range(6):
        hx = rnn(input[i], hx)
        output.append(hx)
    assert torch.stack(output).shape == (6, 3, 20)


def test_lstm_cell() -> None:
    rnn = nn.LSTMCell(10, 20)
    input = torch.randn(6, 3, 10)
    hx = torch.randn(3, 20)
    cx = torch.randn(3, 20)
    output = []
    for i in range(6):
        hx, cx = rnn(input[i], (hx, cx))
        output.append(hx)
    assert torch.stack(output).shape == (6, 3, 20) and cx.shape == (3, 20)


def test_gru_cell() -> None:
    rnn = nn.GRUCell(10, 20)
    input = torch.randn(6, 3, 10)
    hx = torch.randn(3, 20)
    output = []
    for i in range(6):
        hx = rnn(input[i], hx)
        output.append(hx)
    assert torch.stack(output).shape == (6, 3, 20)


# -- Transformer ----------------------------------------------------------------------------------------------------
def test_transformer() -> None:
    """The documentation calls its first two arguments src_vocab and tgt_vocab; they are d_model and nhead."""
    src_vocab, tgt_vocab = 32, 4
    transformer_model = nn.Transformer(src_vocab, tgt_vocab)
    assert len(transformer_model.encoder.layers) == len(transformer_model.decoder.layers) == 6
    transformer_model = nn.Transformer(src_vocab, nhead=16, num_encoder_layers=2)
    assert len(transformer_model.encoder.layers) == 2
    src, tgt = torch.rand(10, 3, 32), torch.rand(7, 3, 32)
    src_mask = transformer_model.generate_square_subsequent_mask(10)
    tgt_mask = transformer_model.generate_square_subsequent_mask(7)
    output = transformer_model(src, tgt, src_mask=src_mask, tgt_mask=tgt_mask)
    assert output.shape == tgt.shape


def test_square_subsequent_mask() -> None:
    """-inf hides a position, 0 leaves it."""
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    inf = -np.inf
    assert np.array_equal(mask.numpy(), [[0, inf, inf], [0, 0, inf], [0, 0, 0]])


def test_transformer_parts() -> None:
    d_model, nhead, num_layers = 16, 4, 2
    encoder_layer = nn.TransformerEncoderLayer(d_model, nhead)
    transformer_encoder = nn.TransformerEncoder(encoder_layer, num_layers)
    decoder_layer = nn.TransformerDecoderLayer(d_model, nhead)
    transformer_decoder = nn.TransformerDecoder(decoder_layer, num_layers)
    src, tgt = torch.rand(5, 3, d_model), torch.rand(4, 3, d_model)
    assert encoder_layer(src).shape == transformer_encoder(src).shape == src.shape
    assert decoder_layer(tgt, src).shape == transformer_decoder(tgt, src).shape == tgt.shape


# -- linear, dropout ------------------------------------------------------------------------------------------------
def test_identity() -> None:
    m = nn.Identity(54, unused_argument1=0.1, unused_argument2=False)
    input = torch.randn(128, 20)
    output = m(input)
    assert output.size() == torch.Size([128, 20])
    assert output is input


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (nn.Dropout, (20, 16)),
        (nn.Dropout2d, (20, 16, 32, 32)),
        (nn.Dropout3d, (20, 16, 4, 32, 32)),
        (nn.AlphaDropout, (20, 16)),
    ],
)
def test_dropout(kind: type, shape: tuple) -> None:
    m = kind(p=0.2)
    input = torch.randn(*shape)
    output = m(input)
    assert output.shape == shape and not torch.equal(output, input)
    assert torch.equal(m.eval()(input), input)


# -- embeddings -----------------------------------------------------------------------------------------------------
def test_embedding() -> None:
    # an Embedding module containing 10 tensors of size 3
    embedding = nn.Embedding(10, 3)
    # a batch of 2 samples of 4 indices each
    input = torch.LongTensor([[1, 2, 4, 5], [4, 3, 2, 9]])
    output = embedding(input)
    assert output.shape == (2, 4, 3)
    assert torch.equal(output[0, 2], output[1, 0]) and torch.equal(output[0, 1], output[1, 2])  # as printed
    assert torch.equal(output[1, 3], embedding.weight[9])

    # example with padding_idx
    embedding = nn.Embedding(10, 3, padding_idx=0)
    input = torch.LongTensor([[0, 2, 0, 5]])
    output = embedding(input)
    shows(output[0, 0], [0.0, 0.0, 0.0])
    shows(output[0, 2], [0.0, 0.0, 0.0])
    assert output[0, 1].abs().min().item() > 0


def test_embedding_from_pretrained() -> None:
    # FloatTensor containing pretrained weights
    weight = torch.FloatTensor([[1, 2.3, 3], [4, 5.1, 6.3]])
    embedding = nn.Embedding.from_pretrained(weight)
    # Get embeddings for index 1
    input = torch.LongTensor([1])
    shows(embedding(input), [[4.0000, 5.1000, 6.3000]])
    assert not embedding.weight.requires_grad


def test_embedding_bag() -> None:
    # an Embedding module containing 10 tensors of size 3
    embedding_sum = nn.EmbeddingBag(10, 3, mode="sum")
    # a batch of 2 samples of 4 indices each
    input = torch.LongTensor([1, 2, 4, 5, 4, 3, 2, 9])
    offsets = torch.LongTensor([0, 4])
    output = embedding_sum(input, offsets)
    rows = embedding_sum.weight.detach().numpy()[input.numpy()]
    shows(output, rows[:4].sum(0), rows[4:].sum(0))


def test_embedding_bag_from_pretrained() -> None:
    # FloatTensor containing pretrained weights
    weight = torch.FloatTensor([[1, 2.3, 3], [4, 5.1, 6.3]])
    embeddingbag = nn.EmbeddingBag.from_pretrained(weight)
    # Get embeddings for index 1
    input = torch.LongTensor([[1, 0]])
    shows(embeddingbag(input), [[2.5000, 3.7000, 4.6500]])
    assert not embeddingbag.weight.requires_grad


# -- distances ------------------------------------------------------------------------------------------------------
def test_cosine_similarity() -> None:
    input1 = torch.randn(100, 128)
    input2 = torch.randn(100, 128)
    cos = nn.CosineSimilarity(dim=1, eps=1e-6)
    output = cos(input1, input2)
    assert output.shape == (100,) and output.abs().max().item() <= 1


def test_pairwise_distance() -> None:
    pdist = nn.PairwiseDistance(p=2)
    input1 = torch.randn(100, 128)
    input2 = torch.randn(100, 128)
    output = pdist(input1, input2)
    assert output.shape == (100,) and output.min().item() > 0


# -- losses ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [nn.L1Loss, nn.MSELoss])
def test_regression(kind: type) -> None:
    loss = kind()
    input = torch.randn(3, 5, requires_grad=True)
    target = torch.randn(3, 5)
    output = loss(input, target)
    output.backward()
    assert output.shape == () and input.grad.shape == (3, 5)


def test_cross_entropy() -> None:
    loss = nn.CrossEntropyLoss()
    input = torch.randn(3, 5, requires_grad=True)
    target = torch.empty(3, dtype=torch.long).random_(5)
    output = loss(input, target)
    output.backward()
    assert output.item() > 0 and input.grad.shape == (3, 5)


def test_ctc() -> None:
    T = 50  # Input sequence length
    C = 20  # Number of classes (including blank)
    N = 16  # Batch size
    S = 30  # Target sequence length of longest target in batch
    S_min = 10  # Minimum target length, for demonstration purposes

    # Initialize random batch of input vectors, for *size = (T,N,C)
    input = torch.randn(T, N, C).log_softmax(2).detach().requires_grad_()

    # Initialize random batch of targets (0 = blank, 1:C = classes)
    target = torch.randint(low=1, high=C, size=(N, S), dtype=torch.long)

    input_lengths = torch.full(size=(N,), fill_value=T, dtype=torch.long)
    target_lengths = torch.randint(low=S_min, high=S, size=(N,), dtype=torch.long)
    ctc_loss = nn.CTCLoss()
    loss = ctc_loss(input, target, input_lengths, target_lengths)
    loss.backward()
    assert loss.shape == () and np.isfinite(loss.item()) and input.grad.shape == (T, N, C)


def test_poisson_nll() -> None:
    loss = nn.PoissonNLLLoss()
    log_input = torch.randn(5, 2, requires_grad=True)
    target = torch.randn(5, 2)
    output = loss(log_input, target)
    output.backward()
    assert log_input.grad.shape == (5, 2)


def test_bce() -> None:
    m = nn.Sigmoid()
    loss = nn.BCELoss()
    input = torch.randn(3, requires_grad=True)
    target = torch.empty(3).random_(2)
    output = loss(m(input), target)
    output.backward()
    assert input.grad.shape == (3,)


def test_bce_with_logits() -> None:
    target = torch.ones([10, 64], dtype=torch.float32)  # 64 classes, batch size = 10
    output = torch.full([10, 64], 0.999)  # A prediction (logit)
    pos_weight = torch.ones([64])  # All weights are equal to 1
    criterion = torch.nn.BCEWithLogitsLoss(pos_weight=pos_weight)
    shows(criterion(output, target), 0.3135)  # -log(sigmoid(0.999))

    loss = nn.BCEWithLogitsLoss()
    input = torch.randn(3, requires_grad=True)
    target = torch.empty(3).random_(2)
    output = loss(input, target)
    output.backward()
    assert input.grad.shape == (3,)


def test_multilabel_margin() -> None:
    loss = nn.MultiLabelMarginLoss()
    x = torch.FloatTensor([[0.1, 0.2, 0.4, 0.8]])
    # for target y, only consider labels 3 and 0, not after label -1
    y = torch.LongTensor([[3, 0, -1, 1]])
    # 0.25 * ((1-(0.1-0.2)) + (1-(0.1-0.4)) + (1-(0.8-0.2)) + (1-(0.8-0.4)))
    shows(loss(x, y), 0.8500)
    assert repr(loss(x, y)) == "tensor(0.8500)"


def test_triplet_margin() -> None:
    triplet_loss = nn.TripletMarginLoss(margin=1.0, p=2)
    anchor = torch.randn(100, 128, requires_grad=True)
    positive = torch.randn(100, 128, requires_grad=True)
    negative = torch.randn(100, 128, requires_grad=True)
    output = triplet_loss(anchor, positive, negative)
    output.backward()
    assert anchor.grad.shape == positive.grad.shape == negative.grad.shape == (100, 128)


# -- utilities ------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm() -> None:
    m = weight_norm(nn.Linear(20, 40), name="weight")
    assert repr(m) == "Linear(in_features=20, out_features=40, bias=True)"
    assert m.weight_g.size() == torch.Size([40, 1])
    assert m.weight_v.size() == torch.Size([40, 20])

    m = weight_norm(nn.Linear(20, 40))
    weight = m.weight.detach().clone()
    remove_weight_norm(m)
    assert sorted(m.state_dict()) == ["bias", "weight"] and torch.allclose(m.weight, weight)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_spectral_norm() -> None:
    m = spectral_norm(nn.Linear(20, 40))
    assert repr(m) == "Linear(in_features=20, out_features=40, bias=True)"
    assert m.weight_u.size() == torch.Size([40])

    m = spectral_norm(nn.Linear(40, 10))
    remove_spectral_norm(m)
    assert sorted(m.state_dict()) == ["bias", "weight"]


def test_packed_sequence() -> None:
    """abc and x are packed as axbc, in steps of 2, 1 and 1."""
    a, b, c, x = (torch.tensor([ord(letter)]) for letter in "abcx")
    packed = pack_sequence([torch.cat([a, b, c]), x])
    assert "".join(chr(letter) for letter in packed.data.tolist()) == "axbc"
    assert packed.batch_sizes.tolist() == [2, 1, 1]


def test_pack_padded_sequence_inverse() -> None:
    """Padding takes packing back; packed labels stand in `data`."""
    padded = torch.tensor([[1, 4, 6], [2, 5, 0], [3, 0, 0]])
    packed = pack_padded_sequence(padded, torch.tensor([3, 2, 1]))
    assert packed.data.tolist() == [1, 4, 6, 2, 5, 3]
    back, lengths = pad_packed_sequence(packed)
    assert torch.equal(back, padded) and lengths.tolist() == [3, 2, 1]


def test_pad_sequence() -> None:
    a = torch.ones(25, 300)
    b = torch.ones(22, 300)
    c = torch.ones(15, 300)
    assert pad_sequence([a, b, c]).size() == torch.Size([25, 3, 300])


def test_pack_sequence() -> None:
    a = torch.tensor([1, 2, 3])
    b = torch.tensor([4, 5])
    c = torch.tensor([6])
    packed = pack_sequence([a, b, c])
    assert repr(packed.data) == "tensor([1, 4, 6, 2, 5, 3])" and repr(packed.batch_sizes) == "tensor([3, 2, 1])"


# -- constructors that the examples use -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("BoolTensor", "bool"), ("ByteTensor", "uint8"), ("CharTensor", "int8"), ("ShortTensor", "int16"),
        ("IntTensor", "int32"), ("LongTensor", "int64"), ("HalfTensor", "float16"), ("FloatTensor", "float32"),
        ("DoubleTensor", "float64"),
    ],
)  # fmt: skip
def test_typed_constructors(name: str, dtype: str) -> None:
    make = getattr(torch, name)
    t = make([[1, 0], [1, 1]])
    assert t.dtype.name == dtype and t.tolist() == [[1, 0], [1, 1]]
    assert make(2, 3).shape == (2, 3) and make(2, 3).dtype.name == dtype
    assert make().shape == (0,) and make(np.ones(2)).tolist() == [1, 1]
    with pytest.raises(TypeError, match=rf"{name}: expected sizes, or one sequence or array, got list, int"):
        make([1], 2)


def test_short_names_of_dtypes() -> None:
    names = "half float double short int long bool"
    kinds = "float16 float32 float64 int16 int32 int64 bool"
    for name, kind in zip(names.split(), kinds.split()):
        assert torch.zeros(1, dtype=getattr(torch, name)).dtype.name == kind
        assert name not in torch.__all__
