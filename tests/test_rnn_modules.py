"""RNN, LSTM, GRU and their cells as modules: layers, directions, packing, lengths, shapes, errors."""

import time

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@pytest.fixture(autouse=True)
def seed():
    cf.manual_seed(0)


def states(result):
    """(output, [h] or [h, c])."""
    y, h = result
    return y, list(h) if isinstance(h, tuple) else [h]


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


def single(model, layer, direction):
    """One layer and direction of a model as a model of its own."""
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    inputs = getattr(model, f"weight_ih{suffix}").shape[1]
    options = {"proj_size": model.proj_size} if isinstance(model, nn.LSTM) else {}
    part = type(model)(inputs, model.hidden_size, dtype=cf.float64, **options)
    own = {name: value for name, value in model.state_dict().items() if name.endswith(suffix)}
    part.load_state_dict({name.replace(suffix, "_l0"): value for name, value in own.items()})
    return part


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_directions_compose(kind):
    model = KINDS[kind](3, 4, num_layers=2, bidirectional=True, dtype=cf.float64)
    x = cf.randn(5, 2, 3, dtype=cf.float64)
    y, hs = states(model(x))
    h = x
    for layer in range(2):
        forward, f_states = states(single(model, layer, 0)(h))
        backward, b_states = states(single(model, layer, 1)(h.flip(0)))
        for got, f, b in zip(hs, f_states, b_states, strict=True):
            close(got[2 * layer], f[0])
            close(got[2 * layer + 1], b[0])
        h = cf.cat([forward, backward.flip(0)], -1)
    close(y, h)


def test_projection_sizes_every_layer():
    model = nn.LSTM(3, 6, num_layers=2, bidirectional=True, proj_size=2, dtype=cf.float64)
    x = cf.randn(5, 2, 3, dtype=cf.float64)
    y, (h, c) = model(x)
    below = cf.cat([single(model, 0, 0)(x)[0], single(model, 0, 1)(x.flip(0))[0].flip(0)], -1)
    close(y[..., :2], single(model, 1, 0)(below)[0])
    assert y.shape == (5, 2, 4) and h.shape == (4, 2, 2) and c.shape == (4, 2, 6)
    names = [n for n, _ in model.named_parameters()][:5]
    assert names == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0"]


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_single_steps(kind):
    model = KINDS[kind](3, 4, dtype=cf.float64)
    cell = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](3, 4, dtype=cf.float64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in model.state_dict().items()})
    x = cf.randn(5, 2, 3, dtype=cf.float64)
    y, hs = states(model(x))
    state = None
    for t in range(5):
        state = cell(x[t], state)
        close(state[0] if kind == "lstm" else state, y[t])
    for got, want in zip(list(state) if kind == "lstm" else [state], hs, strict=True):
        close(got, want[0])
    one = cell(x[0, 0])
    close(one[0] if kind == "lstm" else one, y[0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_and_unbatched(kind):
    model = KINDS[kind](3, 4, num_layers=2, dtype=cf.float64)
    x = cf.randn(5, 2, 3, dtype=cf.float64)
    y, hs = states(model(x))
    model.batch_first = True
    y2, hs2 = states(model(x.transpose(0, 1)))
    close(y2.transpose(0, 1), y)
    one, h_one = states(model(x[:, 0]))
    close(one, y[:, 0])
    for a, b, c in zip(hs, hs2, h_one, strict=True):
        close(a, b)
        close(c, a[:, 0])


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_lengths_equals_one_by_one(kind, enforce_sorted):
    lengths = [5, 3, 1] if enforce_sorted else [1, 5, 3]
    model = KINDS[kind](3, 4, num_layers=2, bidirectional=True, dtype=cf.float64)
    x = cf.randn(5, 3, 3, dtype=cf.float64, requires_grad=True)
    h0 = cf.randn(4, 3, 4, dtype=cf.float64)
    start = (h0, h0 * 0.5) if kind == "lstm" else h0

    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    out, h_packed = states(model(packed, start))
    assert isinstance(out, PackedSequence)
    y_packed, got = pad_packed_sequence(out)
    assert got.tolist() == lengths
    y_lengths, h_lengths = states(model(x, start, lengths=cf.tensor(lengths)))
    close(y_packed, y_lengths)
    for a, b in zip(h_packed, h_lengths, strict=True):
        close(a, b)
    for i, n in enumerate(lengths):
        part = (start[0][:, i : i + 1], start[1][:, i : i + 1]) if kind == "lstm" else start[:, i : i + 1]
        y_one, h_one = states(model(x[:n, i : i + 1], part))
        close(y_one[:, 0], y_lengths[:n, i])
        for a, b in zip(h_one, h_lengths, strict=True):
            close(a[:, 0], b[:, i])
    (g_packed,) = cf.autograd.grad((y_packed**2).sum(), x)
    (g_lengths,) = cf.autograd.grad((y_lengths**2).sum(), x)
    close(g_packed, g_lengths)
    assert not g_lengths.numpy()[lengths[-1] :, -1].any()


def test_zero_lengths_are_allowed():
    model = nn.GRU(3, 4, bidirectional=True)
    y, h = model(cf.randn(5, 2, 3), lengths=cf.tensor([0, 2]))
    assert not y.detach().numpy()[:, 0].any() and not h.detach().numpy()[:, 0].any() and h.detach().numpy()[:, 1].all()


def test_dropout_between_layers_in_training_only():
    model = nn.LSTM(3, 8, num_layers=2, dropout=0.5)
    x = cf.randn(4, 2, 3)
    assert not cf.equal(model(x)[0], model(x)[0])
    cf.manual_seed(3)
    a = model(x)[0]
    cf.manual_seed(3)
    assert cf.equal(a, model(x)[0])
    model.eval()
    assert cf.equal(model(x)[0], model(x)[0])
    with pytest.warns(UserWarning, match="num_layers=1 dropout=0.5 has no effect"):
        nn.LSTM(3, 8, dropout=0.5)


def test_backward_in_eval_mode_and_changing_batch_sizes():
    model = nn.LSTM(3, 4).eval()
    for steps, batch in [(4, 2), (1, 7), (6, 1), (0, 3), (2, 0)]:
        model.zero_grad()
        y, (h, c) = model(cf.randn(steps, batch, 3))
        (y.sum() + h.sum() + c.sum()).backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_ten_thousand_steps_take_linear_time():
    model = nn.RNN(2, 3)
    times = []
    for steps in (2_500, 10_000):
        best = 1e9
        for _ in range(3):
            x = cf.randn(steps, 1, 2)
            start = time.process_time()
            model(x)[0].sum().backward()
            best = min(best, time.process_time() - start)
        times.append(best)
    assert times[1] < 10 * times[0]  # 4 if linear, 16 if quadratic


def test_a_loop_over_cells_for_ten_thousand_steps():
    cell = nn.RNNCell(2, 3)
    x = cf.randn(10_000, 1, 2)
    h = None
    for t in range(10_000):
        h = cell(x[t], h)
    h.sum().backward()
    assert np.isfinite(cell.weight_hh.grad.numpy()).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LSTM(3, 0), ValueError, "LSTM: hidden_size must be positive, got 0"),
        (lambda: nn.LSTM(3.0, 4), TypeError, "LSTM: input_size must be an int, got float"),
        (lambda: nn.GRU(3, 4, num_layers=0), ValueError, "num_layers must be a positive int"),
        (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, r"proj_size must be in \[0, hidden_size\), got 4 of 4"),
        (lambda: nn.LSTM(3, 4, dropout=1.5), ValueError, r"dropout must be a probability in \[0, 1\], got 1.5"),
        (lambda: nn.RNN(3, 4, nonlinearity="gelu"), ValueError, "nonlinearity must be 'tanh' or 'relu', got 'gelu'"),
        (lambda: nn.LSTM(3, 4)(cf.zeros(2, 2, 5)), RuntimeError, r"must be input_size 3, got \(2, 2, 5\)"),
        (lambda: nn.LSTM(3, 4)(cf.zeros(3)), ValueError, r"must be \[T, N, I\] or unbatched \[T, I\], got \(3,\)"),
        (lambda: nn.LSTM(3, 4)([1.0]), TypeError, "input must be a Tensor or a PackedSequence, got list"),
        (lambda: nn.LSTM(3, 4)(cf.zeros(2, 2, 3), cf.zeros(1, 2, 4)), TypeError, r"hx must be a pair \(h_0, c_0\)"),
        (
            lambda: nn.GRU(3, 4)(cf.zeros(2, 2, 3), cf.zeros(1, 3, 4)),
            RuntimeError,
            r"GRU: hx must have shape \(1, 2, 4\), got \(1, 3, 4\)",
        ),
        (
            lambda: nn.GRU(3, 4)(cf.zeros(2, 2, 3), lengths=cf.tensor([3, 1])),
            ValueError,
            r"gru: lengths must be .* 3",
        ),
        (lambda: nn.LSTMCell(3, 4)(cf.zeros(2, 5)), RuntimeError, r"input must be \(N, 3\) or \(3,\), got \(2, 5\)"),
        (lambda: nn.GRUCell(3, 4)(cf.zeros(2, 3), cf.zeros(1, 4)), RuntimeError, r"hx must have shape \(2, 4\)"),
        (lambda: nn.GRUCell(3, 4)(cf.zeros(2, 3), cf.zeros(1, 1, 4)), ValueError, r"hx must have shape \(2, 4\)"),
        (lambda: nn.LSTM(3, 4, bias=1), TypeError, "LSTM: bias must be a bool, got int"),
        (lambda: nn.RNN(3, 4, batch_first="yes"), TypeError, "RNN: batch_first must be a bool, got str"),
        (
            lambda: nn.GRU(3, 4)(cf.zeros(2, 1, 3, dtype="float64")),
            ValueError,
            "GRU: input must be float32 as the weights are, got float64",
        ),
        (lambda: nn.LSTM(3, 4, dtype=cf.float64)(cf.zeros(2, 2, 3)), ValueError, "float64.*float32|float32.*float64"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_repr():
    assert repr(nn.LSTM(3, 4, num_layers=2, bidirectional=True)) == "LSTM(3, 4, num_layers=2, bidirectional=True)"
    assert repr(nn.GRUCell(3, 4, bias=False)) == "GRUCell(3, 4, bias=False)"


def test_initial_weights_lie_in_the_documented_interval():
    model = nn.LSTM(3, 16)
    values = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    assert np.abs(values).max() <= 0.25 and values.std() > 0.13
