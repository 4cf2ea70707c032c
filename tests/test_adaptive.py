"""AdaptiveLogSoftmaxWithLoss, held to its definition class by class; the modules of related losses and of distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn
from cuframe.autograd import gradcheck, gradgradcheck

CUTOFFS = ([4], [3, 7], [1, 5, 11])


def make(cutoffs: list[int], head_bias: bool = False) -> nn.AdaptiveLogSoftmaxWithLoss:
    cf.manual_seed(0)
    return nn.AdaptiveLogSoftmaxWithLoss(8, 12, cutoffs, div_value=2.0, head_bias=head_bias).double()


def table(layer: nn.AdaptiveLogSoftmaxWithLoss, x: np.ndarray) -> np.ndarray:
    """The log probability of every class from the weights, one class at a time."""
    weights = {k: v.array for k, v in layer.state_dict().items()}
    head = log_softmax(x @ weights["head.weight"].T + weights.get("head.bias", 0), axis=1)
    starts, out = layer.cutoffs, np.zeros((len(x), layer.n_classes))
    for c in range(layer.n_classes):
        if c < starts[0]:
            out[:, c] = head[:, c]
            continue
        i = max(k for k in range(len(starts) - 1) if starts[k] <= c)
        tail = log_softmax(x @ weights[f"tail.{i}.0.weight"].T @ weights[f"tail.{i}.1.weight"].T, axis=1)
        out[:, c] = head[:, starts[0] + i] + tail[:, c - starts[i]]
    return out


@pytest.mark.parametrize("cutoffs", CUTOFFS, ids=str)
@pytest.mark.parametrize("head_bias", [False, True])
def test_every_way_through_it_is_one_table(cutoffs, head_bias):
    layer = make(cutoffs, head_bias)
    x = cf.randn(40, 8, dtype="float64") * 4
    target = cf.arange(40) % 12
    expected = table(layer, x.array)
    np.testing.assert_allclose(np.exp(expected).sum(1), 1, 1e-12)
    np.testing.assert_allclose(layer.log_prob(x).detach().array, expected, 1e-12)
    np.testing.assert_array_equal(layer.predict(x).array, expected.argmax(1))
    output, loss = layer(x, target)
    np.testing.assert_allclose(output.detach().array, expected[np.arange(40), target.array], 1e-12)
    np.testing.assert_allclose(loss.item(), -output.detach().array.mean(), 1e-12)


@pytest.mark.parametrize("target", [0, 5, 11])
def test_one_row(target):
    layer = make([3, 7])
    x = cf.randn(1, 8, dtype="float64")
    alone, batch = layer(x[0], cf.tensor(target)), layer(x, cf.tensor([target]))
    assert alone.output.shape == () and alone.output.item() == batch.output.item() == -alone.loss.item()
    assert layer.log_prob(x[0]).shape == (12,) and layer.predict(x[0]).item() == layer.predict(x).item()


def test_gradients():
    layer = make([2, 6], head_bias=True)
    x = cf.randn(4, 8, dtype="float64").requires_grad_()
    target = cf.tensor([0, 9, 3, 5])
    parameters = list(layer.parameters())
    assert gradcheck(lambda x, *_: layer(x, target).loss, (x, *parameters))
    assert gradgradcheck(lambda x: layer(x, target).loss, (x,))
    assert gradcheck(layer.log_prob, (x,))


def test_a_cluster_that_does_not_occur_takes_no_gradient():
    layer = make([3, 7])
    layer(cf.randn(2, 8, dtype="float64"), cf.tensor([0, 4])).loss.backward()
    given = {name for name, p in layer.named_parameters() if p.grad is not None}
    assert given == {"head.weight", "tail.0.0.weight", "tail.0.1.weight"}


def test_names_and_sizes():
    layer = nn.AdaptiveLogSoftmaxWithLoss(64, 100, [10, 40], head_bias=True)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {
        "head.weight": (12, 64), "head.bias": (12,), "tail.0.0.weight": (16, 64), "tail.0.1.weight": (30, 16),
        "tail.1.0.weight": (4, 64), "tail.1.1.weight": (60, 4),
    }  # fmt: skip
    before = layer.tail[1][1].weight.clone()
    layer.reset_parameters()
    assert (layer.tail[1][1].weight != before).all()


@pytest.mark.parametrize("cutoffs", [[], [0, 3], [5, 5], [7, 3], [12], [13], [2.5], [3, True]], ids=str)
def test_bad_cutoffs(cutoffs):
    with pytest.raises(ValueError, match=r"cutoffs must be (increasing )?integers"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 12, cutoffs)


@pytest.mark.parametrize(
    ("x", "target", "error", "match"),
    [
        (cf.zeros(2, 7), cf.tensor([0, 1]), ValueError, r"input must be \(N, 8\) or \(8,\), got \(2, 7\)"),
        (cf.zeros(1, 2, 8), cf.tensor([0, 1]), ValueError, r"input must be \(N, 8\) or \(8,\), got \(1, 2, 8\)"),
        (cf.zeros(2, 8), cf.tensor([0]), ValueError, r"target must be \(2,\) for an input of .* \(2, 8\), got \(1,\)"),
        (cf.zeros(2, 8), cf.tensor([0.0, 1.0]), TypeError, r"target must hold class indices .*, got float32"),
        (cf.zeros(2, 8), cf.tensor([0, 12]), IndexError, r"target must be in \[0, 12\), got 12"),
        (cf.zeros(2, 8), cf.tensor([0, -1]), IndexError, r"target must be in \[0, 12\), got -1"),
        (cf.zeros(2, 8, dtype="int64"), cf.tensor([0, 1]), TypeError, r"input must be floating point, got int64"),
    ],
)
def test_bad_input(x, target, error, match):
    with pytest.raises(error, match="AdaptiveLogSoftmaxWithLoss: " + match):
        nn.AdaptiveLogSoftmaxWithLoss(8, 12, [4])(x, target)


# -- losses over several labels, distances ------------------------------------------------------------------------
X, LABELS = cf.linspace(-1.0, 2.0, 12).reshape(3, 4), cf.tensor([0, 3, 2])
SETS = cf.tensor([[3, 0, -1, 1], [1, 1, 2, -1], [-1, 0, 1, 2]])
WEIGHT = cf.tensor([0.5, 1.0, 2.0, 3.0])


def far(a: cf.Tensor, b: cf.Tensor) -> cf.Tensor:
    return (a - b).abs().sum(-1)


@pytest.mark.parametrize(
    ("layer", "args", "function"),
    [
        (nn.MultiLabelMarginLoss(reduction="sum"), (X, SETS),
         lambda *a: F.multilabel_margin_loss(*a, reduction="sum")),
        (nn.MultiLabelSoftMarginLoss(WEIGHT), (X, (SETS > 0) * 1),
         lambda *a: F.multilabel_soft_margin_loss(*a, WEIGHT)),
        (nn.MultiMarginLoss(2, 0.5, WEIGHT), (X, LABELS), lambda *a: F.multi_margin_loss(*a, 2, 0.5, WEIGHT)),
        (nn.TripletMarginWithDistanceLoss(distance_function=far, margin=4.0, swap=True), (X, X * 0.5, X + 1),
         lambda *a: F.triplet_margin_with_distance_loss(*a, distance_function=far, margin=4.0, swap=True)),
        (nn.PairwiseDistance(3.0, 0.1, keepdim=True), (X[0], X[1]),
         lambda *a: F.pairwise_distance(*a, 3.0, 0.1, keepdim=True)),
        (nn.CosineSimilarity(0, 10.0), (X[0], X[1]), lambda *a: F.cosine_similarity(*a, 0, 10.0)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)  # fmt: skip
def test_module_is_the_function_with_its_settings_kept(layer, args, function):
    result, expected = layer(*args), function(*args)
    assert result.shape == expected.shape and result.item() == expected.item() != 0
    plain = nn.CosineSimilarity(0) if isinstance(layer, nn.CosineSimilarity) else type(layer)()
    assert plain(*args).item() != layer(*args).item()


def test_modules_check_their_settings_when_made():
    with pytest.raises(ValueError, match="MultiMarginLoss: p must be 1 or 2, got 3"):
        nn.MultiMarginLoss(p=3)
    with pytest.raises(ValueError, match="TripletMarginWithDistanceLoss: margin must be positive, got 0"):
        nn.TripletMarginWithDistanceLoss(margin=0)
    with pytest.raises(ValueError, match="MultiLabelMarginLoss: reduction must be one of"):
        nn.MultiLabelMarginLoss(reduction="avg")
    assert set(nn.MultiMarginLoss(weight=WEIGHT).state_dict()) == {"weight"}
