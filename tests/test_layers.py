"""Layers: each against the function it keeps settings for, its text, its start and its state."""

import copy

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn

RNG = np.random.default_rng(0)


def t(*shape, low=-2.0, high=2.0):
    return cf.Tensor(RNG.uniform(low, high, shape).astype(np.float32))


def same(actual, expected):
    np.testing.assert_array_equal(actual.array, expected.array)


X = t(2, 4, 3)

# layer, the same as a function, text
ACTIVATIONS = [
    (nn.CELU(1.5), lambda x: F.celu(x, 1.5), "CELU(alpha=1.5)"),
    (nn.ELU(), F.elu, "ELU(alpha=1.0)"),
    (nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh"), "GELU(approximate='tanh')"),
    (nn.GLU(1), lambda x: F.glu(x, 1), "GLU(dim=1)"),
    (nn.Hardshrink(0.3), lambda x: F.hardshrink(x, 0.3), "Hardshrink(0.3)"),
    (nn.Hardsigmoid(), F.hardsigmoid, "Hardsigmoid()"),
    (nn.Hardswish(), F.hardswish, "Hardswish()"),
    (nn.Hardtanh(-0.5, 2.0), lambda x: F.hardtanh(x, -0.5, 2.0), "Hardtanh(min_val=-0.5, max_val=2.0)"),
    (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2), "LeakyReLU(negative_slope=0.2)"),
    (nn.LogSigmoid(), F.logsigmoid, "LogSigmoid()"),
    (nn.LogSoftmax(1), lambda x: F.log_softmax(x, 1), "LogSoftmax(dim=1)"),
    (nn.Mish(), F.mish, "Mish()"),
    (nn.PReLU(4), lambda x: F.prelu(x, cf.full((4,), 0.25)), "PReLU(num_parameters=4)"),
    (nn.RReLU(0.1, 0.3).eval(), lambda x: F.rrelu(x, 0.1, 0.3), "RReLU(lower=0.1, upper=0.3)"),
    (nn.ReLU(), F.relu, "ReLU()"),
    (nn.ReLU6(), F.relu6, "ReLU6()"),
    (nn.SELU(), F.selu, "SELU()"),
    (nn.SiLU(), F.silu, "SiLU()"),
    (nn.Sigmoid(), F.sigmoid, "Sigmoid()"),
    (nn.Softmax(-1), lambda x: F.softmax(x, -1), "Softmax(dim=-1)"),
    (nn.Softmax2d(), lambda x: F.softmax(x, 0), "Softmax2d()"),
    (nn.Softmin(1), lambda x: F.softmin(x, 1), "Softmin(dim=1)"),
    (nn.Softplus(2.0), lambda x: F.softplus(x, 2.0), "Softplus(beta=2.0, threshold=20.0)"),
    (nn.Softshrink(), F.softshrink, "Softshrink(0.5)"),
    (nn.Softsign(), F.softsign, "Softsign()"),
    (nn.Tanh(), F.tanh, "Tanh()"),
    (nn.Tanhshrink(), F.tanhshrink, "Tanhshrink()"),
    (nn.Threshold(0.1, 20), lambda x: F.threshold(x, 0.1, 20), "Threshold(threshold=0.1, value=20)"),
]


@pytest.mark.parametrize("layer, function, text", ACTIVATIONS, ids=lambda v: type(v).__name__)
def test_activation(layer, function, text):
    same(layer(X), function(X))
    assert repr(layer) == text
    same(copy.deepcopy(layer)(X), function(X))


@pytest.mark.parametrize(
    "make", [nn.CELU, nn.ELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.RReLU, nn.ReLU,
             nn.ReLU6, nn.SELU, nn.SiLU, lambda inplace: nn.Threshold(0.1, 20, inplace)],
    ids=lambda m: getattr(m, "__name__", "Threshold"),
)  # fmt: skip
def test_activation_in_place(make):
    layer = make(inplace=True).eval()
    x = X.clone()
    expected = make(inplace=False).eval()(X)
    assert layer(x) is x
    same(x, expected)
    assert "inplace=True" in repr(layer)


P, Q = t(4, 5, low=0.05, high=0.95), t(4, 5, low=0.05, high=0.95)
A, B, C = t(4, 5), t(4, 5), t(4, 5)
LABELS = cf.tensor([0, 4, 2, 2])
SIGNS = cf.tensor([1.0, -1.0, -1.0, 1.0])
WEIGHT = t(5, low=0.1)

LOSSES = [
    (nn.BCELoss(WEIGHT), (P, Q), lambda *a: F.binary_cross_entropy(*a, WEIGHT)),
    (
        nn.BCEWithLogitsLoss(pos_weight=WEIGHT), (A, Q),
        lambda *a: F.binary_cross_entropy_with_logits(*a, pos_weight=WEIGHT),
    ),
    (nn.CosineEmbeddingLoss(0.1), (A, B, SIGNS), lambda *a: F.cosine_embedding_loss(*a, 0.1)),
    (
        nn.CrossEntropyLoss(WEIGHT, ignore_index=2, label_smoothing=0.1), (A, LABELS),
        lambda *a: F.cross_entropy(*a, WEIGHT, ignore_index=2, label_smoothing=0.1),
    ),
    (nn.GaussianNLLLoss(full=True), (A, B, P), lambda *a: F.gaussian_nll_loss(*a, full=True)),
    (nn.HingeEmbeddingLoss(0.5), (SIGNS, SIGNS), lambda *a: F.hinge_embedding_loss(*a, 0.5)),
    (nn.HuberLoss(delta=0.5), (A, B), lambda *a: F.huber_loss(*a, delta=0.5)),
    (nn.KLDivLoss(reduction="batchmean"), (A, P), lambda *a: F.kl_div(*a, reduction="batchmean")),
    (nn.L1Loss(), (A, B), F.l1_loss),
    (nn.MSELoss(reduction="sum"), (A, B), lambda *a: F.mse_loss(*a, reduction="sum")),
    (nn.MarginRankingLoss(0.1), (SIGNS, SIGNS * 2, SIGNS), lambda *a: F.margin_ranking_loss(*a, 0.1)),
    (nn.NLLLoss(WEIGHT, ignore_index=0), (A, LABELS), lambda *a: F.nll_loss(*a, WEIGHT, ignore_index=0)),
    (nn.PoissonNLLLoss(log_input=False), (P, Q), lambda *a: F.poisson_nll_loss(*a, log_input=False)),
    (nn.SmoothL1Loss(beta=0.5), (A, B), lambda *a: F.smooth_l1_loss(*a, beta=0.5)),
    (nn.SoftMarginLoss(), (SIGNS, SIGNS), F.soft_margin_loss),
    (nn.TripletMarginLoss(0.5, swap=True), (A, B, C), lambda *a: F.triplet_margin_loss(*a, 0.5, swap=True)),
]  # fmt: skip


@pytest.mark.parametrize("layer, args, function", LOSSES, ids=lambda v: type(v).__name__)
def test_loss(layer, args, function):
    same(layer(*args), function(*args))
    assert repr(layer) == f"{type(layer).__name__}()"


def test_class_weights_are_state_and_take_no_gradient():
    layer = nn.CrossEntropyLoss(WEIGHT)
    assert list(layer.state_dict()) == ["weight"] and not list(layer.parameters())
    assert not nn.CrossEntropyLoss().state_dict()


def test_no_target_counts():
    x = t(2, 3).requires_grad_()
    for function in (F.cross_entropy, F.nll_loss):
        x.grad = None
        loss = function(x, cf.tensor([1, 1]), ignore_index=1)
        loss.backward()
        assert np.isnan(loss.item()) and not x.grad.array.any()


def test_a_loss_checks_its_reduction_when_made():
    with pytest.raises(ValueError, match=r"MSELoss: reduction must be one of none, mean, sum, got 'avg'"):
        nn.MSELoss(reduction="avg")
    with pytest.warns(DeprecationWarning, match="MSELoss: size_average and reduce are deprecated"):
        assert nn.MSELoss(size_average=False).reduction == "sum"


def test_linear_starts_within_its_bounds():
    cf.manual_seed(0)
    layer = nn.Linear(64, 500)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.weight.shape == (500, 64) and layer.bias.shape == (500,)
    for p in (layer.weight, layer.bias):
        assert 0.95 / 8 < np.abs(p.array).max() <= 1 / 8
    x = t(3, 2, 64)
    np.testing.assert_allclose(layer(x).array, x.array @ layer.weight.array.T + layer.bias.array, 1e-5, 1e-6)
    assert repr(nn.Linear(2, 3, bias=False)) == "Linear(in_features=2, out_features=3, bias=False)"
    assert list(nn.Linear(2, 3, bias=False).state_dict()) == ["weight"]
    assert nn.Linear(2, 3, dtype="float64").weight.dtype == np.float64


def test_linear_learns():
    cf.manual_seed(1)
    layer, x = nn.Linear(3, 2), t(64, 3)
    target = x @ cf.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    opt = cf.optim.SGD(layer.parameters(), lr=0.2)
    for _ in range(200):
        opt.zero_grad()
        loss = nn.MSELoss()(layer(x), target)
        loss.backward()
        opt.step()
    assert loss.item() < 1e-6


def test_bilinear():
    cf.manual_seed(0)
    layer = nn.Bilinear(2, 3, 4)
    assert repr(layer) == "Bilinear(in1_features=2, in2_features=3, out_features=4, bias=True)"
    assert np.abs(layer.weight.array).max() <= 2**-0.5
    a, b = t(5, 2), t(5, 3)
    same(layer(a, b), F.bilinear(a, b, layer.weight, layer.bias))
    with pytest.raises(ValueError, match="Bilinear: in1_features must be positive, got 0"):
        nn.Bilinear(0, 3, 4)


def test_identity():
    assert nn.Identity(3, option=True)(X) is X


DROPOUTS = [
    (nn.Dropout, (400, 300)), (nn.Dropout1d, (400, 300, 2)), (nn.Dropout2d, (400, 300, 1, 2)),
    (nn.Dropout3d, (400, 300, 1, 2, 1)), (nn.AlphaDropout, (400, 300)), (nn.FeatureAlphaDropout, (400, 300, 2)),
]  # fmt: skip


@pytest.mark.parametrize("make, shape", DROPOUTS, ids=lambda v: getattr(v, "__name__", ""))
def test_dropout(make, shape):
    cf.manual_seed(3)
    layer = make(0.25)
    assert repr(layer) == f"{make.__name__}(p=0.25, inplace=False)"
    x = cf.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32)).requires_grad_()
    assert layer.eval()(x) is x
    y = layer.train()(x)
    y.sum().backward()
    kept = x.grad.array != 0
    features = kept.reshape(400, 300, -1)
    assert (features == features[:, :, :1]).all() or make in (nn.Dropout, nn.AlphaDropout)
    assert abs(kept.mean() - 0.75) < 0.01
    assert abs(y.array.mean()) < 0.02
    if "Alpha" in make.__name__:
        assert abs(y.array.var() - 1) < 0.02
    else:
        np.testing.assert_allclose(x.grad.array[kept], 1 / 0.75, 1e-6)
    cf.manual_seed(3)
    same(layer(x), y)
    with pytest.raises(ValueError, match=rf"{make.__name__}: p must be in \[0, 1\], got 2"):
        make(2)


def test_dropout_in_place():
    cf.manual_seed(3)
    x = cf.ones(50)
    assert nn.Dropout(0.5, inplace=True)(x) is x
    assert set(x.tolist()) == {0.0, 2.0}
    with pytest.raises(RuntimeError, match="dropout_: a leaf tensor that requires a gradient cannot be changed"):
        F.dropout(cf.ones(3, requires_grad=True), inplace=True)


def test_functional_names_are_the_operations_themselves():
    from cuframe.ops import matmul, softmax

    assert F.softmax is softmax and cf.softmax is softmax and cf.matmul is matmul
    for name in F.__all__:
        assert callable(getattr(F, name)), name
