"""The recurrent layer as a node: kernel against composite, first and second derivatives, odd lengths and sizes."""

import numpy as np
import pytest

import cuframe as cf
from cuframe.autograd import grad, gradcheck, gradgradcheck
from cuframe.ops.rnn import CELLS, rnn_layer, rnn_layer_composite

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def make(cell, *, batch=3, steps=4, features=3, hidden=4, projection=0, bias=True, dtype="float64", packed=None):
    rng = np.random.default_rng(sum(map(ord, cell)) + projection)
    out = projection or hidden

    def draw(*shape):
        return cf.tensor(rng.uniform(-0.8, 0.8, shape).astype(dtype), requires_grad=True)

    x = draw(int(np.sum(packed)), features) if packed is not None else draw(steps, batch, features)
    gates = GATES[cell] * hidden
    weights = [draw(gates, features), draw(gates, out)]
    weights += [draw(gates), draw(gates)] if bias else [None, None]
    weights += [draw(out, hidden) if projection else None]
    h0, c0 = draw(batch, out), draw(batch, hidden) if cell == "lstm" else None
    return x, h0, c0, weights


def outputs(cell, x, h0, c0, weights, **options):
    return [t for t in rnn_layer(cell, x, tuple(weights), h0, c0, **options) if t is not None]


CASES = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": np.array([4, 0, 2])},
    "lengths-reverse": {"lengths": np.array([1, 4, 3]), "reverse": True},
    "packed": {"batch_sizes": np.array([3, 3, 2, 1])},
    "packed-reverse": {"batch_sizes": np.array([3, 2, 2, 1]), "reverse": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_kernel_equals_composite(cell, case):
    options = CASES[case]
    x, h0, c0, weights = make(cell, packed=options.get("batch_sizes"))
    inputs = [t for t in (x, h0, c0, *weights) if t is not None]
    ours = outputs(cell, x, h0, c0, weights, **options)
    expected = rnn_layer_composite(
        x, h0, c0, *weights, cell, options.get("lengths"), options.get("batch_sizes"), options.get("reverse", False)
    )
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)
    rng = np.random.default_rng(0)
    seeds = [cf.tensor(rng.standard_normal(t.shape)) for t in ours]
    for a, b in zip(grad(ours, inputs, seeds), grad(expected, inputs, seeds), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("projection", [0, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_both_derivatives(cell, projection):
    if projection and cell != "lstm":
        projection = 0
    x, h0, c0, weights = make(cell, batch=2, steps=2, features=2, hidden=3, projection=projection)
    present = [t is not None for t in (h0, c0, *weights)]
    inputs = [x] + [t for t in (h0, c0, *weights) if t is not None]

    def run(x, *rest):
        it = iter(rest)
        h, c, *w = [next(it) if p else None for p in present]
        return tuple(outputs(cell, x, h, c, w, lengths=np.array([2, 1])))

    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


@pytest.mark.parametrize("cell", CELLS)
def test_unused_outputs(cell):
    x, h0, c0, weights = make(cell)
    for i in range(3 if cell == "lstm" else 2):
        out = outputs(cell, x, h0, c0, weights)[i]
        a = grad(out.sum(), [x, weights[1]], allow_unused=True)
        b = grad(
            rnn_layer_composite(x, h0, c0, *weights, cell, None, None, False)[i].sum(),
            [x, weights[1]],
            allow_unused=True,
        )
        for g, e in zip(a, b, strict=True):
            np.testing.assert_allclose(g.numpy(), e.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (1, 1), (3, 0)])
def test_degenerate_sizes(cell, steps, batch):
    x, h0, c0, weights = make(cell, steps=steps, batch=batch)
    ours = outputs(cell, x, h0, c0, weights)
    assert ours[0].shape == (steps, batch, 4) and ours[1].shape == (batch, 4)
    sum(t.sum() for t in ours).backward()
    assert x.grad.shape == x.shape and weights[0].grad.shape == weights[0].shape
    if not steps:
        np.testing.assert_array_equal(ours[1].detach().numpy(), h0.detach().numpy())
        np.testing.assert_array_equal(h0.grad.numpy(), np.ones((batch, 4)))


def test_only_wanted_gradients_are_computed():
    x, h0, c0, weights = make("lstm")
    x.requires_grad_(False)
    y, *_ = outputs("lstm", x, h0, c0, weights)
    (y.sum()).backward()
    assert x.grad is None and weights[0].grad is not None


def test_saved_input_changed_in_place_is_noticed():
    x, h0, c0, weights = make("lstm")
    scaled = x * 1
    y, *_ = outputs("lstm", scaled, h0, c0, weights)
    scaled.mul_(2)
    with pytest.raises(RuntimeError, match="rnn saved for its gradient was changed in place by mul_"):
        y.sum().backward()


def test_output_changed_in_place_is_noticed():
    x, h0, c0, weights = make("lstm")
    y, *_ = outputs("lstm", x, h0, c0, weights)
    y.relu_()
    with pytest.raises(RuntimeError, match="rnn saved for its gradient was changed in place by relu_"):
        y.sum().backward()


def test_no_graph_without_recording():
    x, h0, c0, weights = make("gru")
    with cf.no_grad():
        y, h = outputs("gru", x, h0, c0, weights)
    assert not y.requires_grad and not h.requires_grad
