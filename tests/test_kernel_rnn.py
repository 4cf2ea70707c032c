"""`kernels/rnn_cells.cu` through whole layers, against the CPU's engine in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.cpu import rnn as host
from cuframe.gpu import rnn
from tests.kernels import FLOATS, Array, assert_near, numbers, put, untuned  # noqa: F401

CELLS = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def arguments(cell: str, t: int, n: int, i: int, h: int, dtype: str, proj: int = 0, bias: bool = True,
              packed: Any = None) -> tuple[list[Any], list[Any]]:
    """x, weights and states; and the gradients of the results."""
    g, p = CELLS[cell] * h, proj or h
    rows = (sum(packed), i) if packed else (t, n, i)

    def make(*shape: int, seed: int) -> Array:
        return numbers(*shape, dtype=dtype, seed=seed, low=-0.6, high=0.6)

    has_c = cell == "lstm"
    given = [make(*rows, seed=1), make(g, i, seed=2), make(g, p, seed=3), *(
        make(g, seed=s) if bias else None for s in (4, 5)), make(proj, h, seed=6) if proj else None, make(n, p, seed=7),
        make(n, h, seed=8) if has_c else None]
    grads = [make(*rows[:-1], p, seed=9), make(n, p, seed=10), make(n, h, seed=11) if has_c else None]
    return given, grads


def check(cell: str, t: int, n: int, i: int, h: int, dtype: str, device: str, scale: float = 4, proj: int = 0,
          bias: bool = True, packed: Any = None, **kwargs: Any) -> None:
    given, grads = arguments(cell, t, n, i, h, dtype, proj, bias, packed)
    kwargs["batch_sizes"] = packed and np.array(packed)

    def wide(a: Any) -> Any:
        return None if a is None else a.astype(np.float64)

    def there(a: Any) -> Any:
        return None if a is None else put(a, device)

    expected = host.forward(cell, *map(wide, given), **kwargs)
    got = rnn.forward(cell, *map(there, given), **kwargs)
    for name, a, b in zip(("y", "h_n", "c_n"), got, expected):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == given[0].dtype
            assert_near(a, b, dtype, scale, name)
    expected_g = host.backward(expected[3], *map(wide, grads))  # type: ignore[arg-type]
    got_g = rnn.backward(got[3], *map(there, grads))  # type: ignore[arg-type]
    for name, a, b in zip(host.Grads._fields, got_g, expected_g):
        assert (a is None) == (b is None), name
        if a is not None:
            assert_near(a, b, dtype, 3 * scale, f"gradient of {name}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cell", CELLS)
def test_dtypes(cell: str, dtype: str, device: str) -> None:
    check(cell, 4, 3, 5, 16, dtype, device)


@pytest.mark.parametrize("hidden", [1, 7, 31, 33, 200])
@pytest.mark.parametrize("cell", CELLS)
def test_sizes(cell: str, hidden: int, device: str) -> None:
    check(cell, 3, 5, 4, hidden, "float32", device, scale=8)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_lengths(cell: str, reverse: bool, device: str) -> None:
    check(cell, 5, 4, 3, 8, "float64", device, lengths=np.array([2, 0, 5, 4]), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_packed(cell: str, reverse: bool, device: str) -> None:
    check(cell, 4, 5, 3, 8, "float64", device, packed=[5, 3, 3, 1], reverse=reverse)


@pytest.mark.parametrize(
    "how", [{}, {"reverse": True}, {"lengths": np.array([2, 0, 3])}, {"packed": [3, 2, 2]}], ids=str)
def test_projection(how: dict, device: str) -> None:
    check("lstm", 3, 3, 4, 8, "float64", device, proj=5, **how)


@pytest.mark.parametrize("cell", CELLS)
def test_no_bias_no_steps_no_sequences(cell: str, device: str) -> None:
    check(cell, 3, 2, 4, 8, "float64", device, bias=False)
    check(cell, 0, 2, 4, 8, "float64", device)
    check(cell, 3, 0, 4, 8, "float64", device)


def test_lengths_on_the_device_and_bad_ones(device: str) -> None:
    x = cf.randn(4, 2, 3).to(device)
    layer = cf.nn.GRU(3, 8).to(device)
    a, _ = layer(x, lengths=cf.tensor([2, 4], device=device))
    b, _ = layer(x, lengths=[2, 4])
    np.testing.assert_array_equal(a.detach().cpu().numpy(), b.detach().cpu().numpy())
    assert not a[2:, 0].any()
    with pytest.raises(ValueError, match="gru: lengths must be between 0 and 4, got 2 to 5"):
        layer(x, lengths=[2, 5])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_module_equals_the_cpu(kind: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    true = rnn.forward
    monkeypatch.setattr(rnn, "forward", lambda *a, **k: (calls.append(a[0]), true(*a, **k))[1])
    layer = getattr(cf.nn, kind)(4, 8, 2, bidirectional=True).double()
    x = cf.randn(5, 3, 4, dtype="float64")
    there = getattr(cf.nn, kind)(4, 8, 2, bidirectional=True).double().to(device)
    there.load_state_dict(layer.state_dict())
    y, z = layer(x)[0], there(x.to(device))[0]
    assert len(calls) == 4
    (y * y).sum().backward(), (z * z).sum().backward()
    np.testing.assert_allclose(z.detach().cpu().numpy(), y.detach().numpy(), atol=1e-12)
    for a, b in zip(there.parameters(), layer.parameters()):
        np.testing.assert_allclose(a.grad.cpu().numpy(), b.grad.numpy(), atol=1e-11)  # type: ignore[union-attr]


def test_cell_modules(device: str) -> None:
    for kind in (cf.nn.LSTMCell, cf.nn.GRUCell, cf.nn.RNNCell):
        cell, x = kind(4, 8), cf.randn(3, 4)
        here = cell(x)
        there = cell.to(device)(x.to(device))
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (here, there))):
            np.testing.assert_allclose(b.detach().cpu().numpy(), a.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_runs_are_bit_identical(cell: str, device: str) -> None:
    given, grads = arguments(cell, 3, 4, 5, 33, "float32")
    there = [None if a is None else put(a, device) for a in given]
    results = []
    for _ in range(2):
        *_, saved = out = rnn.forward(cell, *there)
        g = rnn.backward(saved, *(None if a is None else put(a, device) for a in grads))  # type: ignore[arg-type]
        results.append([a.tobytes() for a in (*out[:2], *g) if a is not None])
    assert results[0] == results[1]


def test_double_backward(device: str) -> None:
    layer = cf.nn.GRU(2, 3).double().to(device)
    x = cf.randn(2, 1, 2, dtype="float64").to(device).requires_grad_()
    assert cf.autograd.gradgradcheck(lambda t: layer(t)[0], (x,))
