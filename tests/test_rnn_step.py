"""A recurrent layer over one step, as the cells run it, against the same maths in basic operations."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import cuframe as cf
from cuframe.cpu import rnn, rnn_step
from cuframe.ops.rnn import CELLS, rnn_layer, rnn_layer_composite

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def tensors(cell: str, dtype: str, states: bool = True, bias: bool = True) -> list[cf.Tensor | None]:
    """x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr"""
    rng = np.random.default_rng(0)
    rows = GATES[cell] * 5
    shapes = [(1, 3, 4), (3, 5), (3, 5), (rows, 4), (rows, 5), (rows,), (rows,)]
    given = [True, states, states and cell == "lstm", True, True, bias, bias]
    kind = getattr(ml_dtypes, dtype, dtype)
    made = [cf.Tensor(rng.standard_normal(s).astype(kind)).requires_grad_() for s in shapes]
    return [*(t if g else None for t, g in zip(made, given)), None]


def grads(outs: list, inputs: list, which: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    gs = [cf.Tensor(rng.standard_normal(o.shape).astype(o.array.dtype)) for o in outs]
    wanted = [t for t in inputs if t is not None]
    found = cf.autograd.grad([outs[i] for i in which], wanted, [gs[i] for i in which], retain_graph=True,
                             allow_unused=True)
    return [np.zeros(t.shape) if g is None else g.array for g, t in zip(found, wanted)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("states", (True, False))
@pytest.mark.parametrize("bias", (True, False))
def test_equals_basic_operations(cell: str, states: bool, bias: bool) -> None:
    given = tensors(cell, "float64", states, bias)
    x, h0, c0, *weights = given
    mine = [o for o in rnn_layer(cell, x, weights, h0, c0) if o is not None]
    plain = rnn_layer_composite(x, h0, c0, *weights, cell, None, None, False)
    for a, b in zip(mine, plain, strict=True):
        np.testing.assert_allclose(a.detach().array, b.detach().array, rtol=1e-12)
    for which in ((0,), (1,), tuple(range(len(mine))), (len(mine) - 1,)):
        for a, b in zip(grads(mine, given, which), grads(plain, given, which), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_16_bits_are_computed_in_float32(cell: str, dtype: str) -> None:
    given, wide = tensors(cell, dtype), tensors(cell, dtype)
    wide = [None if t is None else t.float().detach().requires_grad_() for t in wide]
    outs = [[o for o in rnn_layer(cell, t[0], t[3:], t[1], t[2]) if o is not None] for t in (given, wide)]
    eps = float(ml_dtypes.finfo(given[0].array.dtype).eps)
    for a, b in zip(*outs, strict=True):
        assert a.array.dtype == given[0].array.dtype
        np.testing.assert_allclose(a.detach().array.astype("f"), b.detach().array, rtol=eps, atol=eps)
    for a, b in zip(*(grads(o, t, (1,)) for o, t in zip(outs, (given, wide))), strict=True):
        assert a.dtype == given[0].array.dtype
        np.testing.assert_allclose(a.astype("f"), b, rtol=3 * eps, atol=8 * eps)


@pytest.mark.parametrize("cell", CELLS)
def test_only_what_is_asked_for_is_computed(cell: str) -> None:
    arrays = [None if t is None else t.array for t in tensors(cell, "float32")]
    x, h0, c0, *weights = arrays
    y, h_n, _, saved = rnn.forward(cell, x, *weights, h0, c0)
    assert isinstance(saved, rnn_step.Saved) and not np.shares_memory(y, h_n)
    assert rnn.forward(cell, x, *weights, h0, c0, need_backward=False)[3] is None
    full = rnn.backward(saved, y, h_n)
    for k in range(7):
        needs = [i == k for i in range(8)]
        for i, g in enumerate(rnn.backward(saved, y, h_n, needs=needs)):
            assert (g is None) == (i != k or arrays[k] is None)
            if g is not None:
                np.testing.assert_array_equal(g, full[i])


def test_both_biases_have_gradients_of_their_own() -> None:
    arrays = [None if t is None else t.array for t in tensors("lstm", "float32")]
    y, h_n, _, saved = rnn.forward("lstm", arrays[0], *arrays[3:], *arrays[1:3])
    g = rnn.backward(saved, y)
    assert not np.shares_memory(g.b_ih, g.b_hh)
    np.testing.assert_array_equal(g.b_ih, g.b_hh)
