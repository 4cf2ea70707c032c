"""Layer normalisation, dropout held over time and zoneout in recurrent layers, against a loop over the formulas."""

import itertools

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.autograd import grad, gradcheck, gradgradcheck
from cuframe.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from cuframe.ops.rnn_options import rnn_options_composite, rnn_options_layer
from cuframe.random import default_generator

MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def states(result):
    """(output, [h] or [h, c])."""
    y, h = result
    return y, list(h) if isinstance(h, tuple) else [h]


def close(a, b, tolerance=1e-11):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


# -- the formulas, written out ----------------------------------------------------------------------------------------
def standard(a, gain, sets):
    """LN(a) * gain over each set of columns."""
    parts = []
    for cut in sets:
        part = a[:, cut]
        d = part - part.mean(1, keepdim=True)
        parts.append(d / ((d * d).mean(1, keepdim=True) + 1e-5).sqrt() * gain[cut])
    return cf.cat(parts, 1)


def one_step(model, suffix, x, h, c, mask, zones):
    """h and c after one step of a layer, from the formulas in the docstrings."""
    p = dict(model.named_parameters())
    size = model.hidden_size
    product_x, product_h = x @ p[f"weight_ih{suffix}"].T, (h * mask) @ p[f"weight_hh{suffix}"].T
    if model.layer_norm:
        wide = product_x.shape[1]
        sets = [slice(0, 2 * size), slice(2 * size, wide)] if isinstance(model, nn.GRU) else [slice(0, wide)]
        product_x = standard(product_x, p[f"weight_ln_ih{suffix}"], sets)
        product_h = standard(product_h, p[f"weight_ln_hh{suffix}"], sets)
    if model.bias:
        product_x, product_h = product_x + p[f"bias_ih{suffix}"], product_h + p[f"bias_hh{suffix}"]
    if isinstance(model, nn.LSTM):
        i, f, g, o = (product_x + product_h).chunk(4, 1)
        c_new = f.sigmoid() * c + i.sigmoid() * g.tanh()
        inner = c_new
        if model.layer_norm:
            inner = standard(c_new, p[f"weight_ln_c{suffix}"], [slice(None)])
            inner = inner + p[f"bias_ln_c{suffix}"] if model.bias else inner
        h_new = o.sigmoid() * inner.tanh()
        if model.proj_size:
            h_new = h_new @ p[f"weight_hr{suffix}"].T
        return zones[0] * h + (1 - zones[0]) * h_new, zones[1] * c + (1 - zones[1]) * c_new
    if isinstance(model, nn.GRU):
        (rx, zx, nx), (rh, zh, nh) = product_x.chunk(3, 1), product_h.chunk(3, 1)
        z = (zx + zh).sigmoid()
        h_new = (1 - z) * (nx + (rx + rh).sigmoid() * nh).tanh() + z * h
    else:
        h_new = (product_x + product_h).tanh()
    return zones[0] * h + (1 - zones[0]) * h_new, c


def draw(p, *shape):
    return cf.tensor(default_generator.bernoulli(p, shape).astype(float))


def reference(model, x, lengths):
    """A model on x [T, N, I], sequence by sequence and step by step, drawing the masks that the model draws."""
    steps, batch = x.shape[:2]
    features, train, p = model.proj_size or model.hidden_size, model.training, model.recurrent_dropout
    zoneout = model.zoneout if isinstance(model.zoneout, tuple) else (model.zoneout, model.zoneout)
    if model.input_dropout and train:
        x = x * draw(1 - model.input_dropout, batch, x.shape[2]) / (1 - model.input_dropout)
    finals = []
    for layer in range(model.num_layers):
        outputs = []
        for suffix in ["", "_reverse"][: 2 if model.bidirectional else 1]:
            mask = draw(1 - p, batch, features) / (1 - p) if p and train else cf.ones(batch, features)
            zones = []
            for share, size in zip(zoneout, (features, model.hidden_size), strict=True):
                wanted = share and train and (not zones or isinstance(model, nn.LSTM))
                fixed = cf.full((steps, batch, size), share, dtype=x.dtype)
                zones.append(draw(share, steps, batch, size) if wanted else fixed)
            columns, last = [], []
            for n in range(batch):
                h = cf.zeros(1, features, dtype=x.dtype)
                c = cf.zeros(1, model.hidden_size, dtype=x.dtype)
                ys = [cf.zeros(1, features, dtype=x.dtype)] * steps
                times = range(lengths[n])
                for t in reversed(times) if suffix else times:
                    share = [zone[t, n : n + 1].to(x.dtype) for zone in zones]
                    kept = mask[n : n + 1].to(x.dtype)
                    h, c = one_step(model, f"_l{layer}{suffix}", x[t, n : n + 1], h, c, kept, share)
                    ys[t] = h
                columns.append(cf.cat(ys))
                last.append((h, c))
            outputs.append(cf.stack(columns, 1))
            finals.append([cf.cat(s) for s in zip(*last, strict=True)])
        x = cf.cat(outputs, -1)
        if model.dropout and layer + 1 < model.num_layers and train:
            assert model.variational
            x = x * draw(1 - model.dropout, batch, x.shape[2]) / (1 - model.dropout)
    return x, [cf.stack(s) for s in zip(*finals, strict=True)]


OPTIONS = {
    "variational": {"variational": True, "dropout": 0.4, "num_layers": 2},
    "input": {"input_dropout": 0.4},
    "recurrent": {"recurrent_dropout": 0.4},
    "zoneout": {"zoneout": 0.3},
    "norm": {"layer_norm": True},
    "norm-no-bias": {"layer_norm": True, "bias": False},
    "all": {
        "variational": True, "dropout": 0.3, "input_dropout": 0.2, "recurrent_dropout": 0.4, "zoneout": 0.3,
        "layer_norm": True, "num_layers": 2, "bidirectional": True,
    },
}  # fmt: skip


def check_model(model, lengths):
    x = cf.randn(4, 3, 3, dtype=cf.float64, requires_grad=True)
    cf.manual_seed(5)
    y, hs = states(model(x, lengths=lengths))
    cf.manual_seed(5)
    expected, finals = reference(model, x, [4, 4, 4] if lengths is None else lengths)
    close(y, expected)
    seeds = [cf.randn(*t.shape, dtype=cf.float64) for t in (y, *hs)]
    parameters = [x, *model.parameters()]
    for a, b in zip(hs, finals, strict=False):
        close(a, b)
    ours, theirs = grad([y, *hs], parameters, seeds), grad([expected, *finals[: len(hs)]], parameters, seeds)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, 1e-9)


@pytest.mark.parametrize("lengths", [None, [2, 0, 4]])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", MODULES)
def test_training_is_the_formula(kind, options, lengths):
    check_model(MODULES[kind](3, 4, dtype=cf.float64, **OPTIONS[options]), lengths)


@pytest.mark.parametrize("kind", MODULES)
def test_eval_is_the_formula_with_expectations(kind):
    model = MODULES[kind](3, 4, dtype=cf.float64, **OPTIONS["all"]).eval()
    check_model(model, [2, 0, 4])
    offset = default_generator.offset
    model(cf.zeros(2, 1, 3, dtype=cf.float64))
    assert default_generator.offset == offset  # nothing is drawn


def test_pair_and_projection():
    options = {"zoneout": (0.2, 0.5), "layer_norm": True, "recurrent_dropout": 0.5, "bidirectional": True}
    model = nn.LSTM(3, 4, proj_size=2, dtype=cf.float64, **options)
    assert model.weight_ln_hh_l0.shape == (16,) and model.weight_ln_c_l0_reverse.shape == (4,)
    with cf.no_grad():
        for p in model.parameters():  # gains and biases that are not 1 and 0
            p.add_(0.3 * cf.randn(*p.shape, dtype=cf.float64))
    check_model(model, [4, 1, 2])


# -- the node ---------------------------------------------------------------------------------------------------------
CASES = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": np.array([4, 0, 2])},
    "lengths-reverse": {"lengths": np.array([1, 4, 3]), "reverse": True},
    "packed": {"batch_sizes": np.array([3, 3, 2, 1])},
    "packed-reverse": {"batch_sizes": np.array([3, 2, 2, 1]), "reverse": True},
}


def build(
    cell, *, steps=4, batch=3, features=3, hidden=4, projection=0, bias=True, norm=True, noise="mask", sizes=None
):
    """Inputs of the node with masks or numbers, and its keyword arguments."""
    rng = np.random.default_rng(sum(map(ord, cell)) + projection)
    out, gates = projection or hidden, GATES[cell] * hidden

    def tensor(*shape):
        return cf.tensor(rng.uniform(-0.8, 0.8, shape), requires_grad=True)

    lead = (steps, batch) if sizes is None else (int(np.sum(sizes)),)
    weights = [tensor(gates, features), tensor(gates, out)]
    weights += [tensor(gates), tensor(gates)] if bias else [None, None]
    weights.append(tensor(out, hidden) if projection else None)
    norms = [None] * 4
    if norm:
        norms = [tensor(gates), tensor(gates)]
        norms += [tensor(hidden) if cell == "lstm" else None, tensor(hidden) if cell == "lstm" and bias else None]
    tensors = [tensor(*lead, features), tensor(batch, out), tensor(batch, hidden) if cell == "lstm" else None]
    options = {"mask": None, "zone_h": None, "zone_c": None}
    if noise == "mask":
        options = {"mask": rng.choice([0, 2.0], (batch, out)), "zone_h": rng.random((*lead, out)) < 0.4}
        options["zone_c"] = rng.random((*lead, hidden)) < 0.4 if cell == "lstm" else None
    elif noise == "number":
        options = {"mask": None, "zone_h": 0.3, "zone_c": 0.2 if cell == "lstm" else None}
    return [*tensors, *weights, *norms], options


def run(cell, tensors, options):
    x, h0, c0, *rest = tensors
    norms = rest[5:] if rest[5] is not None else None
    return [t for t in rnn_options_layer(cell, x, rest[:5], norms, h0, c0, **options) if t is not None]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cell", GATES)
def test_kernel_equals_composite(cell, case):
    where = {"lengths": None, "batch_sizes": None, "reverse": False, **CASES[case]}
    for norm, noise, bias in itertools.product((True, False), ("mask", "number", ""), (True, False)):
        projection = 2 if cell == "lstm" and bias else 0
        sizes = where["batch_sizes"]
        tensors, options = build(cell, norm=norm, noise=noise, bias=bias, projection=projection, sizes=sizes)
        ours = run(cell, tensors, {**where, **options})
        expected = rnn_options_composite(*tensors, cell, *where.values(), *options.values(), 1e-5)
        inputs = [t for t in tensors if t is not None]
        seeds = [cf.randn(*t.shape, dtype=cf.float64) for t in ours]
        for a, b in zip(ours, expected, strict=True):
            close(a, b)
        for a, b in zip(grad(ours, inputs, seeds), grad(expected, inputs, seeds), strict=True):
            close(a, b, 1e-9)


def differentiable(cell, noise, projection):
    """The node as a function of its tensors, and them."""
    tensors, options = build(cell, batch=2, steps=2, features=1, hidden=3, noise=noise, projection=projection)
    given = [t is not None for t in tensors]

    def call(*args):
        it = iter(args)
        return tuple(run(cell, [next(it) if g else None for g in given], {**options, "lengths": np.array([2, 1])}))

    return call, [t for t in tensors if t is not None]


@pytest.mark.parametrize("noise", ["mask", "number"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_both_derivatives(cell, noise):
    call, inputs = differentiable(cell, noise, 2 if cell == "lstm" and noise == "mask" else 0)
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_second_derivative_in_every_element(cell):
    assert gradgradcheck(*differentiable(cell, "mask", 0))


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (1, 1), (3, 0)])
def test_degenerate_sizes(cell, steps, batch):
    tensors, options = build(cell, steps=steps, batch=batch)
    ours = run(cell, tensors, options)
    assert ours[0].shape == (steps, batch, 4) and ours[1].shape == (batch, 4)
    sum(t.sum() for t in ours).backward()
    assert all(t.grad.shape == t.shape for t in tensors if t is not None)
    if not steps:
        np.testing.assert_array_equal(tensors[1].grad.numpy(), np.ones((batch, 4)))


@pytest.mark.parametrize("cell", GATES)
def test_without_recording_the_numbers_are_the_same(cell):
    tensors, options = build(cell, steps=40)
    recorded = run(cell, tensors, options)
    with cf.no_grad():
        plain = run(cell, tensors, options)
    for a, b in zip(recorded, plain, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.numpy())
        assert a.requires_grad and not b.requires_grad


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("cell", GATES)
def test_other_dtypes(cell, dtype):
    tensors, options = build(cell)
    exact = run(cell, tensors, options)
    narrow = [None if t is None else t.detach().to(cf.as_dtype(dtype)).requires_grad_() for t in tensors]
    ours = run(cell, narrow, options)
    sum(t.float().sum() for t in ours).backward()
    sum(t.sum() for t in exact).backward()
    tolerance = {"float32": 1e-5, "float16": 3e-2, "bfloat16": 2e-1}[dtype]
    for a, b in zip([*ours, *(t.grad for t in narrow if t is not None)],
                    [*exact, *(t.grad for t in tensors if t is not None)], strict=True):  # fmt: skip
        assert a.dtype == cf.as_dtype(dtype)
        scale = max(1.0, float(b.detach().abs().max()))
        np.testing.assert_allclose(a.detach().double().numpy() / scale, b.detach().numpy() / scale, atol=tolerance)


def test_only_wanted_gradients_are_computed():
    tensors, options = build("lstm")
    for t in tensors[:5]:
        t.requires_grad_(False)
    run("lstm", tensors, options)[2].sum().backward()
    assert tensors[0].grad is None and tensors[3].grad is None
    assert all(t.grad is not None for t in tensors[5:] if t is not None)


def test_output_changed_in_place_is_noticed():
    tensors, options = build("gru")
    y, _ = run("gru", tensors, options)
    y.relu_()
    with pytest.raises(RuntimeError, match="rnn saved for its gradient was changed in place by relu_"):
        y.sum().backward()


def test_backward_twice():
    tensors, options = build("lstm")
    y, *_ = run("lstm", tensors, options)
    first = grad(y.sum(), tensors[4], retain_graph=True)[0]
    close(grad(y.sum(), tensors[4])[0], first, 0)


# -- modules ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", MODULES)
def test_a_sequence_is_one_node(kind):
    model = MODULES[kind](3, 4, layer_norm=True, recurrent_dropout=0.5, zoneout=0.1)
    y, _ = model(cf.randn(50, 2, 3))
    assert y.grad_fn.name() == "RnnBackward0"
    assert {f.name() for f, _ in y.grad_fn.next_functions if f is not None} == {"AccumulateGrad"}


@pytest.mark.parametrize("kind", MODULES)
def test_options_that_are_off_change_nothing(kind, monkeypatch):
    cf.manual_seed(1)
    plain = MODULES[kind](3, 4, 2)
    cf.manual_seed(1)
    switches = {"variational": False, "input_dropout": 0.0, "recurrent_dropout": 0.0, "zoneout": 0, "layer_norm": False}
    off = MODULES[kind](3, 4, 2, **switches)
    assert list(plain.state_dict()) == list(off.state_dict())
    monkeypatch.setattr(nn.modules.rnn_base, "rnn_options_layer", None)
    x = cf.randn(4, 2, 3)
    for a, b in zip(plain.parameters(), off.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    noisy = MODULES[kind](3, 4, 2, variational=True, input_dropout=0.5, recurrent_dropout=0.5, dropout=0.5).eval()
    noisy.load_state_dict(plain.state_dict())
    offset = default_generator.offset
    y = plain(x)[0].detach().numpy()
    np.testing.assert_array_equal(off(x)[0].detach().numpy(), y)
    np.testing.assert_array_equal(noisy(x)[0].detach().numpy(), y)
    assert default_generator.offset == offset


@pytest.mark.parametrize("kind", MODULES)
def test_parameters_of_layer_norm(kind):
    model = MODULES[kind](3, 4, num_layers=2, bidirectional=True, layer_norm=True)
    extra = ["weight_ln_ih", "weight_ln_hh", *(["weight_ln_c", "bias_ln_c"] if kind == "lstm" else [])]
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", *extra]
    places = [f"_l{layer}{way}" for layer in range(2) for way in ("", "_reverse")]
    assert list(model.state_dict()) == [n + place for place in places for n in names]
    assert (model.weight_ln_hh_l1_reverse == 1).all()
    assert [len(ws) for ws in model.all_weights] == [len(names)] * 4
    if kind == "lstm":
        assert not model.bias_ln_c_l0.detach().numpy().any()
    other = MODULES[kind](3, 4, num_layers=2, bidirectional=True, layer_norm=True)
    other.load_state_dict(model.state_dict())
    x = cf.randn(3, 2, 3)
    np.testing.assert_array_equal(other(x)[0].detach().numpy(), model(x)[0].detach().numpy())


@pytest.mark.parametrize("kind", MODULES)
def test_layer_norm_does_not_see_the_scale_of_weights(kind):
    model = MODULES[kind](3, 4, layer_norm=True, dtype=cf.float64)
    x = cf.randn(5, 2, 3, dtype=cf.float64)
    with cf.no_grad():
        model.weight_hh_l0.mul_(1e3)
        model.weight_ih_l0.mul_(1e3)
        y = model(x)[0]
        model.weight_hh_l0.mul_(1e3)
        model.weight_ih_l0.mul_(1e3)
        close(model(x)[0], y, 1e-6)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", MODULES)
def test_packed_equals_lengths_and_batch_first(kind, enforce_sorted):
    lengths = [5, 3, 1] if enforce_sorted else [1, 5, 3]
    model = MODULES[kind](3, 4, dtype=cf.float64, **OPTIONS["all"])
    x = cf.randn(5, 3, 3, dtype=cf.float64)

    def with_masks(call):
        cf.manual_seed(7)
        return states(call())

    out, packed = with_masks(lambda: model(pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)))
    padded, by_lengths = with_masks(lambda: model(x, lengths=cf.tensor(lengths)))
    close(pad_packed_sequence(out)[0], padded)
    for a, b in zip(packed, by_lengths, strict=True):
        close(a, b)
    model.batch_first = True
    close(with_masks(lambda: model(x.transpose(0, 1), lengths=lengths))[0].transpose(0, 1), padded)
    model.batch_first = False
    one, h_one = with_masks(lambda: model(x[:, 0]))
    batched, h_batched = with_masks(lambda: model(x[:, :1]))
    close(one, batched[:, 0])
    close(h_one[0], h_batched[0][:, 0])


@pytest.mark.parametrize("kind", MODULES)
def test_a_device_without_the_kernel_gives_the_same(kind):
    model = MODULES[kind](3, 4, dtype=cf.float64, **OPTIONS["all"])
    x = cf.randn(5, 3, 3, dtype=cf.float64)

    def train(device):
        model.to(device)
        model.zero_grad()
        cf.manual_seed(7)
        moved = x.to(device)
        y, hs = states(model(pack_padded_sequence(moved, [1, 5, 3], enforce_sorted=False)))
        z, _ = states(model(moved, lengths=cf.tensor([4, 0, 2]).to(device)))
        (y.data.sin().sum() + hs[-1].sum() + z.cos().sum()).backward()
        return [t.detach().cpu() for t in (y.data, z, *hs, *(p.grad for p in model.parameters()))]

    for a, b in zip(train("sim"), train("cpu"), strict=True):
        close(a, b, 1e-9)


def test_the_seed_decides_and_masks_differ_between_sequences():
    model = nn.GRU(3, 16, recurrent_dropout=0.5)
    x, h0 = cf.ones(6, 2, 3), cf.ones(1, 2, 16)
    cf.manual_seed(3)
    a = model(x, h0)[0]
    cf.manual_seed(3)
    assert cf.equal(a, model(x, h0)[0])
    assert not cf.equal(a, model(x, h0)[0])
    assert not cf.equal(a[:, 0], a[:, 1])


def test_certain_dropout_and_zoneout():
    model = nn.LSTM(3, 4, recurrent_dropout=1.0)
    x, h0, c0 = cf.randn(1, 2, 3), cf.randn(1, 2, 4), cf.randn(1, 2, 4)
    y = model(x, (h0, c0))[0]
    np.testing.assert_allclose(model(x, (h0 * 0, c0))[0].detach().numpy(), y.detach().numpy(), rtol=1e-6)
    held = nn.LSTM(3, 4, zoneout=1)
    y, (h, c) = held(cf.randn(5, 2, 3), (h0, c0))
    assert cf.equal(h, h0) and cf.equal(c, c0) and cf.equal(y[2], h0[0])
    dropped = nn.RNN(3, 4, input_dropout=1.0)
    assert cf.equal(dropped(cf.randn(5, 2, 3))[0], dropped(cf.zeros(5, 2, 3))[0])


def test_zoneout_in_eval_mode_is_the_mean_of_training():
    cell = nn.LSTMCell(3, 4, zoneout=(0.3, 0.6))
    h0, c0 = cf.randn(1, 4).expand(20_000, 4), cf.randn(1, 4).expand(20_000, 4)
    x = cf.randn(1, 3).expand(20_000, 3)
    h, c = (t.detach().numpy() for t in cell(x, (h0, c0)))
    cell.eval()
    h_mean, c_mean = (t.detach().numpy() for t in cell(x[:1], (h0[:1], c0[:1])))
    np.testing.assert_allclose(h.mean(0), h_mean[0], atol=0.02)
    np.testing.assert_allclose(c.mean(0), c_mean[0], atol=0.02)
    assert np.isclose((c == c0.numpy()).mean(), 0.6, atol=0.01)


@pytest.mark.parametrize("kind", MODULES)
def test_cells_are_single_steps(kind):
    model = MODULES[kind](3, 4, dtype=cf.float64, layer_norm=True, zoneout=0.2).eval()
    cell = CELLS[kind](3, 4, dtype=cf.float64, layer_norm=True, zoneout=0.2).eval()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in model.state_dict().items()})
    x = cf.randn(5, 2, 3, dtype=cf.float64)
    y, _ = model(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        close(state[0] if kind == "lstm" else state, y[t])
    one = cell(x[0, 0])
    close(one[0] if kind == "lstm" else one, y[0, 0])
    cell.train()
    cf.manual_seed(2)
    a = cell(x[0])
    cf.manual_seed(2)
    b = cell(x[0])
    assert cf.equal(a[0] if kind == "lstm" else a, b[0] if kind == "lstm" else b)
    assert repr(cell) == f"{kind.upper()}Cell(3, 4, zoneout=0.2, layer_norm=True)"


def test_repr():
    model = nn.LSTM(3, 4, recurrent_dropout=0.25, zoneout=(0.1, 0.2), layer_norm=True)
    assert repr(model) == "LSTM(3, 4, recurrent_dropout=0.25, zoneout=(0.1, 0.2), layer_norm=True)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LSTM(3, 4, recurrent_dropout=1.5), ValueError, r"recurrent_dropout must be .* \[0, 1\], got 1.5"),
        (lambda: nn.RNN(3, 4, input_dropout=-1), ValueError, r"RNN: input_dropout must be a probability .*, got -1"),
        (lambda: nn.GRU(3, 4, zoneout=(0.1, 0.1)), ValueError, r"GRU: zoneout must be a number, a pair .* LSTM only"),
        (lambda: nn.LSTM(3, 4, zoneout=(0.1, 0.1, 0.1)), ValueError, r"zoneout must be a number or a pair \(h, c\)"),
        (lambda: nn.LSTM(3, 4, zoneout=(0.1, 2)), ValueError, r"zoneout of c must be a probability in \[0, 1\], got 2"),
        (lambda: nn.LSTMCell(3, 4, zoneout="x"), ValueError, "LSTMCell: zoneout must be a probability .*, got 'x'"),
        (lambda: nn.LSTM(3, 4, layer_norm=1), TypeError, "LSTM: layer_norm must be a bool, got int"),
        (lambda: nn.GRUCell(3, 4, layer_norm="yes"), TypeError, "GRUCell: layer_norm must be a bool, got str"),
        (lambda: nn.GRU(3, 4, variational=0.5), TypeError, "GRU: variational must be a bool, got float"),
        (lambda: nn.LSTMCell(3, 4, recurrent_dropout=0.5), TypeError, "recurrent_dropout"),
    ],
)
def test_errors_of_modules(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({8: (3,)}, r"lstm: ln_ih must be \(16,\), got \(3,\)"),
        ({10: (5,)}, r"lstm: ln_c must be \(4,\), got \(5,\)"),
        ({10: None}, "lstm: ln_ih, ln_hh and ln_c must be given together"),
        ({"mask": np.ones((3, 5))}, r"lstm: mask must be \(3, 4\), got \(3, 5\)"),
        ({"zone_h": np.ones((4, 3, 1), bool)}, r"lstm: zone_h must be \(4, 3, 4\) or a number, got \(4, 3, 1\)"),
        ({"lengths": np.array([5, 1, 1])}, "lstm: lengths must be between 0 and 4"),
    ],
)
def test_errors_of_the_node(change, message):
    tensors, options = build("lstm")
    for key, value in change.items():
        if isinstance(key, int):
            tensors[key] = value if value is None else cf.zeros(*value, dtype=cf.float64)
        else:
            options[key] = value
    with pytest.raises(ValueError, match=message):
        run("lstm", tensors, options)
