"""`kernels/norm.cu` against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.cuda import sim
from cuframe.gpu import norm
from tests.kernels import FLOATS, MANY_ROWS, SIZES, Array, assert_near, fetch, numbers, put

EPS = 1e-5
ALL = (True, True, True)


def host(x: Array) -> Array:
    return x.astype(np.float64)


def rows_reference(x: Array, w: Any, b: Any, centred: bool) -> tuple[Array, Array, Array]:
    x = host(x)
    mean = x.mean(1, keepdims=True) if centred else np.zeros((len(x), 1))
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(1, keepdims=True) + EPS)
    return (x - mean) * rstd * (1 if w is None else host(w)) + (0 if b is None else host(b)), mean, rstd


def rows_gradients(g: Array, x: Array, w: Any, centred: bool) -> tuple[Array, Array, Array]:
    _, mean, rstd = rows_reference(x, None, None, centred)
    g, h = host(g), (host(x) - mean) * rstd
    k = g if w is None else g * host(w)
    gx = rstd * (k - (k.mean(1, keepdims=True) if centred else 0) - h * (k * h).mean(1, keepdims=True))
    return gx, (g * h).sum(0), g.sum(0)


def check_rows(shape: tuple[int, int], dtype: str, device: str, factors: str | None, centred: bool = True) -> None:
    x, g = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    if shape[1] == 2:
        x[:, 1] += 6  # apart from one another, or their difference would have few digits
    w, b = (numbers(shape[1], dtype=factors, seed=s) if factors else None for s in (2, 3))
    dw, db = (None if f is None else put(f, device) for f in (w, b))
    y, mean, rstd = norm.rows_forward(put(x, device), dw, db, EPS, centred)
    expected = rows_reference(x, w, b, centred)
    narrow = "float64" if dtype == "float64" else "float32"
    assert y.dtype == x.dtype and rstd.dtype == narrow
    assert_near(y, expected[0], dtype, 2, "forward")
    assert_near(rstd, expected[2], narrow, 4, "rstd")
    assert (mean is not None) == centred
    if centred:
        assert_near(mean, expected[1], narrow, 2, "mean")
    grads = norm.rows_backward(put(g, device), put(x, device), dw, mean, rstd, ALL)
    for name, ours, theirs in zip(("gx", "gw", "gb"), grads, rows_gradients(g, x, w, centred)):
        wanted = dtype if name == "gx" else factors or narrow
        assert ours.dtype.name == wanted
        assert_near(ours, theirs, wanted, 4, name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_rows(size: int, dtype: str, device: str) -> None:
    check_rows((3, size), dtype, device, dtype, centred=size != 33)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 32), (5, 512), (2, 2056), (1, 8200)])
def test_rows_in_packs(shape: tuple[int, int], dtype: str, device: str) -> None:
    check_rows(shape, dtype, device, "float64" if dtype == "float64" else "float32", centred=shape[0] != 5)


def test_long_rows_and_no_factors(device: str) -> None:
    check_rows((2, 5001), "float32", device, None)
    check_rows((2, 20_000), "float16", device, "float16")


def test_many_rows(device: str) -> None:
    check_rows((MANY_ROWS, 2), "float32", device, "float32")


def test_parts_of_rows(device: str) -> None:
    check_rows((300, 7), "bfloat16", device, "bfloat16", centred=False)
    check_rows((130, 264), "float16", device, "float32")


def test_nothing_cancels(device: str) -> None:
    x = (1e4 + numbers(3, 1000)).astype(np.float32)
    y, mean, rstd = norm.rows_forward(put(x, device), None, None, EPS, True)
    assert_near(y, rows_reference(x, None, None, True)[0], "float32", 1000)  # of the mean's own rounding
    moments = norm.channels_forward(put(x.reshape(3, 1, 1000), device), None, None, 0, EPS, None)
    np.testing.assert_allclose(fetch(moments[2]).ravel(), host(x).var(), rtol=1e-4)


def test_misaligned_rows(device: str) -> None:
    x, g = numbers(25), numbers(25, seed=1)
    at = put(x, device)[1:].reshape(3, 8)
    y, mean, rstd = norm.rows_forward(at, None, None, EPS, True)
    assert_near(y, rows_reference(x[1:].reshape(3, 8), None, None, True)[0], "float32", 2)
    ours = norm.rows_backward(put(g, device)[1:].reshape(3, 8), at, None, mean, rstd, ALL)
    for a, b in zip(ours, rows_gradients(g[1:].reshape(3, 8), x[1:].reshape(3, 8), None, True)):
        assert_near(a, b, "float32", 4)
    y = norm.channels_forward(at.reshape(1, 3, 8), None, None, 3, EPS, None)[0]
    assert_near(y.reshape(3, 8), rows_reference(x[1:].reshape(3, 8), None, None, True)[0], "float32", 2)


def test_empty_rows(device: str) -> None:
    x = put(numbers(4, 6), device)
    for part in (x[:0], norm.operand(x[:, :0])):
        y, mean, rstd = norm.rows_forward(part, None, None, EPS, True)
        gx, gw, gb = norm.rows_backward(part, part, None, mean, rstd, ALL)
        assert y.shape == gx.shape == part.shape and gw.shape == gb.shape == part.shape[1:]
        assert not fetch(gw).any() and not fetch(gb).any()


def channels_reference(x: Array, w: Any, b: Any, groups: int, fixed: Any) -> tuple[Array, Array, Array]:
    """The result, mean and variance, as arrays that broadcast against x [N, C, L]."""
    n, c, size = x.shape
    x = host(x)
    if fixed is not None:
        mean, var = (host(f).reshape(1, c, 1) for f in fixed)
    else:
        v = x.reshape(n, groups, c // groups, size) if groups else x.reshape(n, 1, c, size)
        axes = (2, 3) if groups else (0, 3)
        mean, var = (np.broadcast_to(s, v.shape)[..., :1].reshape(n, c, 1)
                     for s in (v.mean(axes, keepdims=True), v.var(axes, keepdims=True)))
    scale, shift = (f if a is None else host(a).reshape(1, c, 1) for a, f in ((w, 1.0), (b, 0.0)))
    return (x - mean) / np.sqrt(var + EPS) * scale + shift, mean, var


def channels_gradients(g: Array, x: Array, w: Any, groups: int, fixed: Any) -> tuple[Array, Array, Array]:
    n, c, size = x.shape
    _, mean, var = channels_reference(x, None, None, groups, fixed)
    g, rstd = host(g), 1 / np.sqrt(var + EPS)
    h = (host(x) - mean) * rstd
    k = g if w is None else g * host(w).reshape(1, c, 1)
    gw, gb = (g * h).sum((0, 2)), g.sum((0, 2))
    if fixed is not None:
        return k * rstd, gw, gb
    shape, axes = ((n, groups, c // groups, size), (2, 3)) if groups else ((n, 1, c, size), (0, 3))
    k1, k2 = (np.broadcast_to(a.reshape(shape).mean(axes, keepdims=True), shape).reshape(n, c, size)
              for a in (k, k * h))
    return rstd * (k - k1 - h * k2), gw, gb


def check_channels(shape: tuple[int, int, int], groups: int, dtype: str, device: str, factors: str | None = None,
                   fixed: bool = False) -> None:
    x, g = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    w, b = (numbers(shape[1], dtype=factors, seed=s) if factors else None for s in (2, 3))
    dw, db = (None if f is None else put(f, device) for f in (w, b))
    given = (numbers(shape[1], seed=4), numbers(shape[1], seed=5, low=0.5)) if fixed else None
    there = None if given is None else tuple(put(f, device) for f in given)
    y, mean, var, rstd = norm.channels_forward(put(x, device), dw, db, groups, EPS, there)
    expected = channels_reference(x, w, b, groups, given)
    assert y.dtype == x.dtype
    assert_near(y, expected[0], dtype, 4, "forward")
    n, c = shape[:2]
    assert mean.shape == var.shape == rstd.shape == ((n, groups, 1) if groups else (1, 1, c))
    narrow = "float64" if dtype == "float64" and not fixed else "float32"
    for ours, theirs in zip((mean, var), expected[1:]):
        theirs = np.broadcast_to(theirs, (n, c, 1)).reshape(n, groups or 1, -1)
        assert_near(ours, theirs[:, :, :1] if groups else theirs[:1], narrow, 4)
    grads = norm.channels_backward(put(g, device), put(x, device), dw, groups, mean, rstd, fixed, ALL)
    for name, ours, theirs in zip(("gx", "gw", "gb"), grads, channels_gradients(g, x, w, groups, given)):
        assert_near(ours, theirs, dtype if name == "gx" else factors or narrow, 8, name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "groups"), [
    ((3, 5, 33), 0), ((3, 4, 8), 0), ((150, 33, 1), 0), ((2, 6, 31), 3), ((2, 6, 1), 2), ((2, 3, 1023), 3),
    ((2, 4, 1025), 1)], ids=str)  # fmt: skip
def test_channels(shape: tuple[int, int, int], groups: int, dtype: str, device: str) -> None:
    check_channels(shape, groups, dtype, device, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_fixed_statistics(dtype: str, device: str) -> None:
    check_channels((3, 5, 7), 0, dtype, device, "float32", fixed=True)
    check_channels((3, 5, 8), 0, dtype, device, fixed=True)


def test_many_rows_of_channels(device: str) -> None:
    check_channels((MANY_ROWS, 2, 1), 0, "float32", device, "float32")
    check_channels((1100, 3, 2), 0, "float32", device)
    check_channels((600, 2, 4), 2, "float16", device, "float32")


@pytest.mark.parametrize(("shape", "groups"), [((2, 3, 16_384), 0), ((1, 2, 32_768), 0), ((2, 4, 8192), 2)], ids=str)
def test_long_rows_in_parts(shape: tuple[int, int, int], groups: int, device: str) -> None:
    check_channels(shape, groups, "float32", device, "float32")


def test_only_what_is_needed(device: str) -> None:
    x = put(numbers(3, 4, 5), device)
    for groups in (0, 2):
        _, mean, _, rstd = norm.channels_forward(x, None, None, groups, EPS, None)
        every = norm.channels_backward(x, x, None, groups, mean, rstd, False, ALL)
        for i in range(3):
            some = norm.channels_backward(x, x, None, groups, mean, rstd, False, tuple(j == i for j in range(3)))
            assert [s is None for s in some] == [j != i for j in range(3)]
            np.testing.assert_array_equal(fetch(some[i]), fetch(every[i]))


def test_empty_channels(device: str) -> None:
    for shape in ((0, 4, 3), (2, 4, 0)):
        x = put(np.zeros(shape, np.float32), device)
        for groups in (0, 2):
            y, mean, _, rstd = norm.channels_forward(x, None, None, groups, EPS, None)
            gx, gw, gb = norm.channels_backward(x, x, None, groups, mean, rstd, False, ALL)
            assert y.shape == gx.shape == shape and fetch(gw).shape == (4,)
            assert not fetch(gw).any() and not fetch(gb).any()


@pytest.mark.parametrize("order", ["reverse", "random:3"])
def test_order_of_lanes(order: str, device: str) -> None:
    if device != "sim":
        pytest.skip("the order of lanes is the simulator's")
    with sim.order(order):
        check_rows((3, 33), "float32", device, "float32")
        check_rows((130, 264), "float16", device, "float32")
        check_channels((150, 9, 1), 0, "float32", device)
        check_channels((3, 4, 1100), 2, "float32", device, "float32")


def test_same_bits_again(device: str) -> None:
    x, g = put(numbers(300, 40), device), put(numbers(300, 40, seed=1), device)

    def run() -> list[bytes]:
        y, mean, rstd = norm.rows_forward(x, None, None, EPS, True)
        grads = norm.rows_backward(g, x, None, mean, rstd, ALL)
        c = norm.channels_forward(x.reshape(60, 5, 40), None, None, 0, EPS, None)
        more = norm.channels_backward(g.reshape(60, 5, 40), x.reshape(60, 5, 40), None, 0, c[1], c[3], False, ALL)
        return [fetch(a).tobytes() for a in (y, mean, rstd, *grads, *c, *more)]

    assert run() == run()


def function_of(name: str) -> Any:
    return {"layer": lambda x, w, b: F.layer_norm(x, (6,), w, b), "rms": lambda x, w, b: F.rms_norm(x, (6,), w) + b,
            "batch": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            "group": lambda x, w, b: F.group_norm(x, 3, w, b),
            "instance": lambda x, w, b: F.instance_norm(x.reshape(2, 6, 4), None, None, w, b)}[name]


@pytest.mark.parametrize("name", ["layer", "rms", "batch", "group", "instance"])
def test_functions_use_the_kernels(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = function_of(name)
    calls = []
    for part in ("rows_forward", "rows_backward", "channels_forward", "channels_backward"):
        true = getattr(norm, part)
        monkeypatch.setattr(norm, part, lambda *a, true=true, part=part: (calls.append(part), true(*a))[1])
    x, w, b = (cf.tensor(numbers(*s, dtype="float64"), device=device, requires_grad=True) for s in ((8, 6), (6,), (6,)))
    (function(x, w, b) ** 2).sum().backward()
    kind = "rows" if name in ("layer", "rms") else "channels"
    assert calls == [f"{kind}_forward", f"{kind}_backward"]
    assert w.grad is not None and b.grad is not None
    leaves = tuple(t.detach().requires_grad_() for t in (x, w, b))
    assert cf.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_not_widened(dtype: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    true = norm.rows_forward
    monkeypatch.setattr(norm, "rows_forward", lambda x, *a: (seen.append(x.dtype.name), true(x, *a))[1])
    x = cf.tensor(numbers(3, 8, dtype=dtype), device=device, requires_grad=True)
    w = cf.tensor(numbers(8), device=device, requires_grad=True)
    F.layer_norm(x, (8,), w).float().sum().backward()
    assert seen == [dtype] and x.grad.dtype == x.dtype and w.grad.dtype == w.dtype


@pytest.mark.parametrize("dtype", FLOATS)
def test_follow(dtype: str, device: str) -> None:
    running = numbers(6, 300, dtype=dtype)
    values = numbers(4, 300, dtype="float64" if dtype == "float64" else "float32")
    there = put(running, device)
    for column in (there[0], there[:, 1]):  # in one piece, and not
        n = column.shape[0]
        expected = 0.9 * fetch(column) + 0.1 * 1.25 * values[:, :n].mean(0)
        norm.follow(column, put(values[:, :n].copy(), device), 0.1, 1.25)
        assert_near(column, expected, dtype, 1)
    assert_near(there[1:, 2:], running[1:, 2:].astype(np.float64), dtype, 0)


def test_running_statistics(device: str) -> None:
    x = numbers(4, 3, 5)
    there, here = (cf.nn.BatchNorm1d(3).to(d) for d in (device, "cpu"))
    for training in (True, True, False):
        there.train(training)
        here.train(training)
        ours, theirs = (m(cf.tensor(x, device=d)).detach().array for m, d in ((there, device), (here, "cpu")))
        assert_near(ours, fetch(theirs), "float32", 4)
    for name, value in here.state_dict().items():
        np.testing.assert_allclose(fetch(there.state_dict()[name].array), fetch(value.array), rtol=1e-5, err_msg=name)
