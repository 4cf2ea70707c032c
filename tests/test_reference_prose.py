"""What the documentation of torch.nn 1.2 says in sentences, said again as tests."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn import functional as F
from cuframe.nn.utils import rnn as packing


def close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    a, b = (v.detach().numpy() if isinstance(v, cf.Tensor) else np.asarray(v) for v in (a, b))
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# -- recurrent layers -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "k"),
    [
        (lambda: nn.RNN(10, 25, 2), 1 / 25),
        (lambda: nn.LSTM(10, 25, 2, bidirectional=True), 1 / 25),
        (lambda: nn.GRU(10, 25), 1 / 25),
        (lambda: nn.RNNCell(10, 25), 1 / 25),
        (lambda: nn.LSTMCell(10, 25), 1 / 25),
        (lambda: nn.GRUCell(10, 25), 1 / 25),
        (lambda: nn.Linear(16, 200), 1 / 16),
        (lambda: nn.Bilinear(16, 5, 200), 1 / 16),
    ],
)
def test_initialised_uniformly(make: Callable, k: float) -> None:
    """Every weight and bias is drawn evenly from -sqrt(k) to sqrt(k)."""
    values = np.concatenate([p.detach().numpy().reshape(-1) for p in make().parameters()])
    bound = math.sqrt(k)
    assert abs(values).max() <= bound
    assert abs(values).max() > 0.95 * bound and abs(values.mean()) < 0.2 * bound
    assert abs(values.std() - bound / math.sqrt(3)) < 0.1 * bound


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_directions_can_be_separated(kind: type) -> None:
    """Outputs split into forward and backward by a view, states into layers and directions; packed or not."""
    rnn = kind(3, 4, 2, bidirectional=True)
    x = cf.randn(5, 2, 3)
    output, state = rnn(x)
    h_n = state[0] if kind is nn.LSTM else state
    directions = output.view(5, 2, 2, 4)
    last = h_n.view(2, 2, 2, 4)[-1]
    close(directions[-1, :, 0], last[0])
    close(directions[0, :, 1], last[1])
    packed, packed_state = rnn(packing.pack_padded_sequence(x, [5, 5]))
    assert isinstance(packed, packing.PackedSequence)
    close(packed.data.view(10, 2, 4), directions.reshape(10, 2, 4))
    close(packed_state[0] if kind is nn.LSTM else packed_state, h_n)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_dropout_between_layers(kind: type) -> None:
    """A layer's input is the output of the one below after dropout; the last output has none."""
    rnn = kind(3, 4, 2, dropout=1.0)
    second = kind(4, 4)
    second.load_state_dict({k.replace("l1", "l0"): v for k, v in rnn.state_dict().items() if "l1" in k})
    x = cf.randn(5, 2, 3)
    close(rnn(x)[0], second(cf.zeros(5, 2, 4))[0])
    assert abs(rnn(x)[0].detach().numpy()).max() > 0
    rnn.eval()
    assert abs(rnn(x)[0].detach().numpy() - second(cf.zeros(5, 2, 4))[0].detach().numpy()).max() > 1e-3


def test_batch_first_and_default_states() -> None:
    """batch_first changes where the batch stands in input and output, not in the states, which start as zeros."""
    a, b = nn.LSTM(3, 4), nn.LSTM(3, 4, batch_first=True)
    b.load_state_dict(a.state_dict())
    x = cf.randn(5, 2, 3)
    y, (h, c) = a(x, (cf.zeros(1, 2, 4), cf.zeros(1, 2, 4)))
    z, (k, d) = b(x.transpose(0, 1))
    close(y, z.transpose(0, 1))
    close(h, k)
    close(c, d)


def test_weights_may_be_buffers() -> None:
    """Frozen weights that are no parameters any more run as before."""
    rnn = nn.GRU(3, 4)
    x = cf.randn(5, 2, 3)
    expected = rnn(x)[0]
    for name, weight in list(rnn.named_parameters()):
        delattr(rnn, name)
        rnn.register_buffer(name, weight.detach())
    close(rnn(x)[0], expected)
    assert not list(rnn.parameters())


# -- Transformer ----------------------------------------------------------------------------------------------------
def test_masks_keep_the_future_out() -> None:
    """With a square mask, a position depends on those up to it and on no other."""
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0).double()
    mask = model.generate_square_subsequent_mask(5).double()
    src, tgt = cf.randn(6, 2, 8, dtype="float64"), cf.randn(5, 2, 8, dtype="float64")
    changed = tgt.clone()
    changed[3:] += 1.0
    a, b = (model(src, t, tgt_mask=mask) for t in (tgt, changed))
    close(a[:3], b[:3], 1e-12)
    assert (a[3:] - b[3:]).abs().max().item() > 1e-3


def test_padding_masks_belong_to_a_sequence() -> None:
    """A masked position tells nothing, in its own sequence; -inf to add is the same mask."""
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0).double()
    src, tgt = cf.randn(6, 2, 8, dtype="float64"), cf.randn(5, 2, 8, dtype="float64")
    hidden = cf.zeros(2, 6, dtype=cf.bool_)
    hidden[1, 4:] = True
    changed = src.clone()
    changed[4:] += 1.0
    settings = {"src_key_padding_mask": hidden, "memory_key_padding_mask": hidden}
    a, b = (model(s, tgt, **settings) for s in (src, changed))
    close(a[:, 1], b[:, 1], 1e-12)
    assert (a[:, 0] - b[:, 0]).abs().max().item() > 1e-3
    weights = cf.zeros(2, 6, dtype="float64").masked_fill(hidden, -np.inf)
    close(a, model(src, tgt, src_key_padding_mask=weights, memory_key_padding_mask=weights), 1e-12)


def test_custom_stacks() -> None:
    class Same(nn.Module):
        def forward(self, first: cf.Tensor, *rest: Any, **masks: Any) -> cf.Tensor:
            return first

    model = nn.Transformer(8, 2, custom_encoder=Same(), custom_decoder=Same())
    x = cf.randn(3, 2, 8)
    assert model(x, x) is x and not list(model.parameters())


# -- dropout --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "shape"), [(nn.Dropout2d, (40, 30, 4, 5)), (nn.Dropout3d, (40, 30, 2, 2, 2))])
def test_entire_channels(kind: type, shape: tuple) -> None:
    """Whole channels are 0, each by itself with probability p, and the others scaled by 1 / (1 - p)."""
    y = kind(p=0.25)(cf.ones(*shape)).numpy().reshape(1200, -1)
    assert (y == y[:, :1]).all()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y[:, 0] == 0).mean() - 0.25) < 0.05


def test_alpha_dropout_keeps_mean_and_deviation() -> None:
    """Numbers of mean 0 and deviation 1 stay so."""
    y = nn.AlphaDropout(p=0.4)(cf.randn(300, 300)).numpy()
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02


def test_inplace() -> None:
    """The input itself is changed and given back."""
    for kind, shape in ((nn.Dropout, (9,)), (nn.Dropout2d, (3, 3, 1, 1)), (nn.Dropout3d, (3, 3, 1, 1, 1))):
        x = cf.ones(*shape)
        assert kind(0.5, inplace=True)(x) is x and x.numpy().tolist() != cf.ones(*shape).tolist()


# -- normalisation --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dims", "kind"), [((), nn.BatchNorm1d), ((4,), nn.BatchNorm1d), ((4, 2), nn.BatchNorm2d),
                                           ((4, 2, 2), nn.BatchNorm3d)])  # fmt: skip
def test_batch_norm(dims: tuple, kind: type) -> None:
    """momentum=None averages all batches alike; without tracking it is the batch in eval, too; ones and zeros to begin
    with."""
    batches = [cf.randn(5, 3, *dims, dtype="float64") * 2 + i for i in range(4)]
    axes = (0, *range(2, 2 + len(dims)))
    norm = kind(3, momentum=None).double()
    assert norm.weight.tolist() == [1.0] * 3 and norm.bias.tolist() == [0.0] * 3
    for x in batches:
        y = norm(x)
        close(y.mean(axes), np.zeros(3), 1e-6)
    close(norm.running_mean, np.mean([x.numpy().mean(axes) for x in batches], 0))
    close(norm.running_var, np.mean([x.numpy().var(axes, ddof=1) for x in batches], 0))
    assert norm.num_batches_tracked.item() == 4
    untracked = kind(3, affine=False, track_running_stats=False).double().eval()
    assert not untracked.state_dict()
    close(untracked(batches[2]).mean(axes), np.zeros(3), 1e-6)


def test_other_norms_start_as_documented() -> None:
    """Weights of ones and biases of zeros; without affine none at all."""
    for norm in (nn.GroupNorm(3, 6), nn.LayerNorm((2, 3)), nn.InstanceNorm2d(6, affine=True)):
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
    assert not list(nn.GroupNorm(3, 6, affine=False).parameters())
    assert not list(nn.LayerNorm(6, elementwise_affine=False).parameters())


# -- embeddings -----------------------------------------------------------------------------------------------------
def test_padding_row() -> None:
    """Zeros to begin with, free to be changed later, and never with a gradient."""
    table = nn.Embedding(4, 3, padding_idx=2)
    assert table.weight[2].tolist() == [0.0] * 3
    with cf.no_grad():
        table.weight[2] = 7.0
    y = table(cf.tensor([0, 2, 2]))
    assert y[1].tolist() == [7.0] * 3
    y.sum().backward()
    assert table.weight.grad.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_constant_length(mode: str) -> None:
    """A bag is its rows reduced along the first dimension, an empty one zeros; a 2-d input holds a bag in each row."""
    bags = nn.EmbeddingBag(10, 3, mode=mode)
    index = cf.tensor([[1, 2, 4], [4, 4, 9]])
    rows = F.embedding(index, bags.weight)
    expected = rows.amax(1) if mode == "max" else getattr(rows, mode)(dim=1)
    close(bags(index), expected)
    close(bags(index.reshape(-1), cf.tensor([0, 3])), expected)
    close(bags(index.reshape(-1), cf.tensor([0, 0, 6]))[0], [0.0] * 3)
    close(bags(index.reshape(-1), cf.tensor([0, 0, 6]))[2], [0.0] * 3)


def test_per_sample_weights() -> None:
    """They scale rows before these are added, and only sums take them."""
    bags = nn.EmbeddingBag(10, 3, mode="sum")
    index, weights = cf.tensor([[1, 2], [4, 9]]), cf.tensor([[0.5, 2.0], [1.0, -1.0]])
    close(bags(index, per_sample_weights=weights), (F.embedding(index, bags.weight) * weights.unsqueeze(2)).sum(1))
    with pytest.raises(NotImplementedError, match="per_sample_weights"):
        nn.EmbeddingBag(10, 3)(index, per_sample_weights=weights)


# -- losses ---------------------------------------------------------------------------------------------------------
def test_losses_that_combine_two() -> None:
    """Cross entropy is log softmax and NLL, and with logits a sigmoid and BCE."""
    x, target, weight = cf.randn(4, 5), cf.tensor([1, 0, 4, 4]), cf.rand(5)
    close(nn.CrossEntropyLoss(weight)(x, target), nn.NLLLoss(weight)(nn.LogSoftmax(1)(x), target))
    t = cf.rand(4, 5)
    close(nn.BCEWithLogitsLoss()(x, t), nn.BCELoss()(nn.Sigmoid()(x), t))


@pytest.mark.parametrize("kind", [nn.NLLLoss, nn.CrossEntropyLoss])
def test_mean_over_targets_that_count(kind: type) -> None:
    """A mean is over targets that are not ignored, by weight, and over all further dimensions."""
    x, target, weight = cf.randn(4, 5, 2, 3), cf.randint(0, 5, (4, 2, 3)), cf.rand(5) + 0.5
    target[0] = -100
    each = kind(weight, reduction="none")(x, target)
    assert each.shape == (4, 2, 3) and not each[0].numpy().any()
    used = weight.numpy()[target.numpy()[1:]].sum()
    close(kind(weight)(x, target), each.numpy().sum() / used, 1e-5)


def test_kl_divergence_reductions() -> None:
    """'batchmean' divides the sum by the batch, 'mean' by the number of elements."""
    x, y = cf.randn(4, 5).log_softmax(1), cf.randn(4, 5).softmax(1)
    total = nn.KLDivLoss(reduction="sum")(x, y)
    close(nn.KLDivLoss(reduction="batchmean")(x, y), total / 4)
    close(nn.KLDivLoss()(x, y), total / 20)
    close(nn.KLDivLoss(reduction="none")(x, y), y * (y.log() - x))


def test_ctc_mean() -> None:
    """The mean is of losses over their target's length; targets may be joined; too short an input costs infinity."""
    x = cf.randn(9, 2, 4).log_softmax(2)
    padded, sizes, steps = cf.tensor([[1, 2, 3], [2, 2, 0]]), cf.tensor([3, 2]), cf.tensor([9, 7])
    each = nn.CTCLoss(reduction="none")(x, padded, steps, sizes)
    close(nn.CTCLoss()(x, padded, steps, sizes), (each / sizes).mean())
    close(nn.CTCLoss(reduction="none")(x, cf.tensor([1, 2, 3, 2, 2]), steps, sizes), each)
    short = cf.tensor([2, 7])
    assert nn.CTCLoss(reduction="none")(x, padded, short, sizes)[0].item() == np.inf
    assert nn.CTCLoss(reduction="none", zero_infinity=True)(x, padded, short, sizes)[0].item() == 0


def test_positive_weight() -> None:
    """A positive weight of 3 counts positive examples three times."""
    x = cf.randn(4, 1)
    y = cf.tensor([[1.0], [0.0], [0.0], [0.0]])
    repeated = cf.cat([x[:1], x[:1], x]), cf.cat([y[:1], y[:1], y])
    weighted = nn.BCEWithLogitsLoss(pos_weight=cf.tensor([3.0]), reduction="sum")
    close(weighted(x, y), nn.BCEWithLogitsLoss(reduction="sum")(*repeated))


def test_poisson_approximation() -> None:
    """Stirling's term is there for targets above 1 only; eps is added to rates."""
    x, y = cf.tensor([0.5, 0.5, 0.5]), cf.tensor([0.0, 1.0, 4.0])
    added = nn.PoissonNLLLoss(full=True, reduction="none")(x, y) - nn.PoissonNLLLoss(reduction="none")(x, y)
    close(added, [0.0, 0.0, 4 * math.log(4) - 4 + 0.5 * math.log(2 * math.pi * 4)], 1e-5)
    rate = nn.PoissonNLLLoss(log_input=False, eps=0.25, reduction="none")(x, y)
    close(rate, x - y * (x + 0.25).log())


def test_labels_after_the_first_gap_are_ignored() -> None:
    """What follows the first negative target counts for nothing."""
    x = cf.randn(1, 4)
    loss = nn.MultiLabelMarginLoss()
    close(loss(x, cf.tensor([[3, -1, 1, 2]])), loss(x, cf.tensor([[3, -1, -1, -1]])))


def test_triplet_swap() -> None:
    a, p, n = cf.tensor([[0.0, 0.0]]), cf.tensor([[0.0, 3.0]]), cf.tensor([[0.0, 5.0]])
    close(nn.TripletMarginLoss(margin=4.0)(a, p, n), 3 - 5 + 4.0, 1e-5)
    close(nn.TripletMarginLoss(margin=4.0, swap=True)(a, p, n), 3 - 2 + 4.0, 1e-5)


def test_adaptive_softmax() -> None:
    """Cutoffs end the head and the clusters; each cluster projects to floor(in_features / div_value^i)."""
    loss = nn.AdaptiveLogSoftmaxWithLoss(16, 1200, [10, 100, 1000], div_value=2.0, head_bias=True)
    assert loss.head.weight.shape == (10 + 3, 16) and loss.head.bias.shape == (13,)
    assert [t[1].weight.shape for t in loss.tail] == [(90, 8), (900, 4), (200, 2)]
    x, target = cf.randn(6, 16), cf.tensor([0, 9, 10, 99, 100, 1199])
    output, mean = loss(x, target)
    log_prob = loss.log_prob(x)
    close(log_prob.exp().sum(1), np.ones(6), 1e-5)
    close(output, log_prob.detach().numpy()[np.arange(6), target.numpy()], 1e-5)
    close(mean, -output.detach().numpy().mean(), 1e-6)
    assert loss.predict(x).tolist() == log_prob.argmax(1).tolist()


# -- utilities ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm_type", [1.0, 2, 3.5, "inf", math.inf])
def test_clipping(norm_type: Any) -> None:
    """The norm is that of all gradients as one vector; they are changed in place."""
    parameters = [nn.Parameter(cf.zeros(2, 3)), nn.Parameter(cf.zeros(4)), nn.Parameter(cf.zeros(1))]
    for p in parameters[:2]:
        p.grad = cf.randn(*p.shape)
    grads = [p.grad for p in parameters[:2]]
    whole = np.concatenate([g.numpy().reshape(-1) for g in grads]).copy()
    expected = np.linalg.norm(whole.astype(np.float64), float(norm_type))
    total = nn.utils.clip_grad_norm_(iter(parameters), 0.5, norm_type)
    close(total, expected, 1e-5)
    assert all(p.grad is g for p, g in zip(parameters, grads))
    close(np.concatenate([g.numpy().reshape(-1) for g in grads]), whole * 0.5 / expected, 1e-5)


def test_parameters_as_one_vector() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    vector = nn.utils.parameters_to_vector(model.parameters())
    close(vector, np.concatenate([p.detach().numpy().reshape(-1) for p in model.parameters()]))
    other = copy.deepcopy(model)
    nn.utils.vector_to_parameters(vector * 2, other.parameters())
    close(other[0].weight, model[0].weight * 2)


def test_padding_to_total_length() -> None:
    """Padding may go on to any length that is not too short; elements may have any shape."""
    for rest in ((), (2,), (2, 3)):
        parts = [cf.randn(n, *rest) for n in (3, 2, 1)]
        packed = packing.pack_sequence(parts)
        padded, lengths = packing.pad_packed_sequence(packed, padding_value=9.0, total_length=5)
        assert padded.shape == (5, 3, *rest) and lengths.tolist() == [3, 2, 1]
        close(padded[:2, 1], parts[1])
        assert (padded[2:, 1].numpy() == 9).all() and (padded[3:].numpy() == 9).all()
        with pytest.raises(ValueError, match="total_length"):
            packing.pad_packed_sequence(packed, total_length=2)
        close(packing.pad_sequence(parts, batch_first=True, padding_value=9.0).transpose(0, 1), padded[:3])


def test_sorting_is_enforced() -> None:
    """Unsorted sequences are refused unless asked for, and come back in the order given."""
    parts = [cf.randn(1, 2), cf.randn(3, 2), cf.randn(2, 2)]
    with pytest.raises(ValueError, match="enforce_sorted"):
        packing.pack_sequence(parts)
    padded, lengths = packing.pad_packed_sequence(packing.pack_sequence(parts, enforce_sorted=False))
    assert lengths.tolist() == [1, 3, 2]
    for i, part in enumerate(parts):
        close(padded[: len(part), i], part)
