"""Recurrent modules against PyTorch's, weights copied over: outputs, states and every gradient."""

import numpy as np
import pytest
import torch

import cuframe as cf
from cuframe import nn
from cuframe.nn.utils import rnn as packing

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

OPTIONS = {
    "plain": {},
    "two-layers": {"num_layers": 2},
    "bidirectional": {"num_layers": 2, "bidirectional": True},
    "batch-first": {"batch_first": True, "bidirectional": True},
    "no-bias": {"bias": False},
    "projection": {"proj_size": 3, "num_layers": 2, "bidirectional": True},
    "relu": {"nonlinearity": "relu"},
}
CASES = [
    (kind, name)
    for kind in ("RNN", "LSTM", "GRU")
    for name, options in OPTIONS.items()
    if not ("proj_size" in options and kind != "LSTM") and not ("nonlinearity" in options and kind != "RNN")
]


def pair(kind, options, dtype):
    theirs = getattr(torch.nn, kind)(5, 7, dtype=getattr(torch, dtype), **options)
    ours = getattr(nn, kind)(5, 7, dtype=dtype, **options)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert list(state) == list(ours.state_dict())
    ours.load_state_dict(state)
    return ours, theirs


def flat(result):
    y, h = result
    return [y, *(h if isinstance(h, tuple) else [h])]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("lengths", [None, [4, 2, 1], [1, 4, 3]], ids=["full", "sorted", "unsorted"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_outputs_and_gradients(kind, name, lengths, dtype):
    options = OPTIONS[name]
    torch.manual_seed(0)
    ours, theirs = pair(kind, options, dtype)
    rng = np.random.default_rng(1)
    first = options.get("batch_first", False)
    x = rng.standard_normal((3, 4, 5) if first else (4, 3, 5)).astype(dtype)
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    h = rng.standard_normal((rows, 3, options.get("proj_size", 7))).astype(dtype)
    c = rng.standard_normal((rows, 3, 7)).astype(dtype)
    a = [cf.tensor(v, requires_grad=True) for v in (x, h, c)]
    b = [torch.tensor(v, requires_grad=True) for v in (x, h, c)]
    pack = {"batch_first": first, "enforce_sorted": False}
    a_in = a[0] if lengths is None else packing.pack_padded_sequence(a[0], lengths, **pack)
    b_in = b[0] if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(b[0], lengths, **pack)
    out_a = flat(ours(a_in, (a[1], a[2]) if kind == "LSTM" else a[1]))
    out_b = flat(theirs(b_in, (b[1], b[2]) if kind == "LSTM" else b[1]))
    if lengths is not None:
        assert out_a[0].batch_sizes.tolist() == out_b[0].batch_sizes.tolist()
        assert out_a[0].sorted_indices.tolist() == out_b[0].sorted_indices.tolist()
        out_a[0], out_b[0] = out_a[0].data, out_b[0].data
    tolerance = 1e-6 if dtype == "float64" else 2e-5
    for got, want in zip(out_a, out_b, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=tolerance, atol=tolerance)
    weights = [rng.standard_normal(t.shape).astype(dtype) for t in out_a]
    sum((o * cf.tensor(w)).sum() for o, w in zip(out_a, weights, strict=True)).backward()
    sum((o * torch.tensor(w)).sum() for o, w in zip(out_b, weights, strict=True)).backward()
    used = slice(None) if kind == "LSTM" else slice(2)
    named = [(f"input {i}", s, t) for i, (s, t) in enumerate(zip(a[used], b[used], strict=True))]
    named += [(n, p, dict(theirs.named_parameters())[n]) for n, p in ours.named_parameters()]
    for label, got, want in named:
        scale = max(1.0, float(want.grad.abs().max()))
        np.testing.assert_allclose(
            got.grad.numpy() / scale, want.grad.numpy() / scale, rtol=tolerance, atol=tolerance, err_msg=label
        )


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells(kind):
    ours, theirs = pair(kind, {}, "float64")
    x = np.random.default_rng(0).standard_normal((3, 5))
    a, b = ours(cf.tensor(x)), theirs(torch.tensor(x))
    for got, want in zip(a if kind == "LSTMCell" else [a], b if kind == "LSTMCell" else [b], strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_state_dicts_travel_both_ways_bit_for_bit(tmp_path):
    ours, theirs = pair("LSTM", OPTIONS["projection"], "float32")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    ours.load_state_dict(cf.load_torch(tmp_path / "theirs.pt"))
    back = {name: torch.from_numpy(value.numpy().copy()) for name, value in ours.state_dict().items()}
    theirs.load_state_dict(back)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), ours.state_dict()[name].numpy())
