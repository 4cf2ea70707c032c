"""`kernels/multi_tensor.cu` against the same steps on the CPU in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.cuda.launch import Kernel
from cuframe.gpu import optim as fused
from tests.kernels import FLOATS, SIZES, Array, assert_near, fetch, numbers, put

# several blocks, an empty tensor, a scalar, one that no pack divides
SHAPES: tuple[tuple[int, ...], ...] = (*[(n,) for n in SIZES], (3, 5), (0,), (), (8193,))

RULES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.1, "maximize": True}),
    ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.1, "betas": (0.9, 0.9), "weight_decay": 0.1}),
]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels launched."""
    names: list[str] = []
    true = Kernel.__call__

    def call(self: Kernel, *args: Any, **kwargs: Any) -> None:
        names.append(self.name)
        true(self, *args, **kwargs)

    monkeypatch.setattr(Kernel, "__call__", call)
    return names


def steps(name: str, options: dict[str, Any], start: list[Array], grads: list[list[Array]], device: str) -> list[Any]:
    params = [nn.Parameter(cf.tensor(a, device=device)) for a in start]
    optimizer = getattr(cf.optim, name)(params, **options)
    for step in grads:
        for p, g in zip(params, step):
            p.grad = cf.tensor(g, device=device)
        optimizer.step()
    return [p.detach().array for p in params] + [
        value.array for p in params for value in optimizer.state[p].values() if isinstance(value, cf.Tensor)]


@pytest.mark.parametrize(("name", "options"), RULES, ids=lambda v: v if isinstance(v, str) else ",".join(v))
@pytest.mark.parametrize("dtype", FLOATS)
def test_steps(name: str, options: dict[str, Any], dtype: str, device: str) -> None:
    start = [numbers(*s, dtype=dtype) for s in SHAPES]
    grads = [[numbers(*s, dtype=dtype, seed=k) for s in SHAPES] for k in range(1, 8 if name == "RAdam" else 4)]
    ours = steps(name, options, start, grads, device)
    wide = steps(name, options, [a.astype(np.float64) for a in start],
                 [[g.astype(np.float64) for g in step] for step in grads], "cpu")
    for a, b in zip(ours, wide, strict=True):
        assert a.dtype == start[0].dtype
        # RAdam rectifies from the sixth step on; each step rounds parameter and states; Adam divides by a rounded root,
        # which near 0 is all there is
        assert_near(a, fetch(b), dtype, 20 if name == "SGD" else 60, what=f"{name} {a.shape}")


def test_launches_do_not_grow_with_parameters(device: str, launches: list[str]) -> None:
    found = []
    for count in (2, 40):
        params = [nn.Parameter(cf.tensor(numbers(n % 5 + 1, seed=n, dtype=FLOATS[n % 2]), device=device))
                  for n in range(count)]
        for p in params:
            p.grad = p.detach() * 2
        launches.clear()
        nn.utils.clip_grad_norm_(params, 1.0)
        cf.optim.AdamW(params).step()
        nn.utils.clip_grad_value_(params, 0.01)
        found.append(list(launches))
    assert found[0] == found[1]
    assert found[0] == ["gradient_norm_partials"] * 2 + ["gradient_norm"] + ["scale_step"] * 2 + ["adam_step"] * 2 + [
        "clamp_step"] * 2


def test_tables_are_kept(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = nn.Parameter(cf.tensor(numbers(33), device=device))
    p.grad = p.detach() * 2
    optimizer = cf.optim.SGD([p], lr=0.1)
    optimizer.step()
    backend = cf.backend.backend_of(p.array)
    monkeypatch.setattr(type(backend), "from_host", lambda *a: pytest.fail("a table was made again"))
    optimizer.step()


def test_chunks_cover_every_element_once() -> None:
    for sizes in ((0, 1, 2048, 2049, 0, 5000), (40_000_000, 3), (2_000_000_000,)):
        chunk = fused._chunk(sizes)
        plan = fused._plan(sizes, chunk)
        assert len(plan) == fused._blocks(sizes, chunk) <= 2 * 4096 + len(sizes)
        assert (plan[:, 1] % 2048 == 0).all() and (plan[:, 1] < plan[:, 2]).all()
        ends = np.zeros(len(sizes), np.int64)
        for tensor, start, end in plan:
            assert start == ends[tensor]
            ends[tensor] = end
        np.testing.assert_array_equal(ends, sizes)


def test_different_counts_of_steps(device: str) -> None:
    def run(where: str) -> list[Any]:
        a, b = (nn.Parameter(cf.tensor(numbers(33, seed=i), device=where)) for i in (0, 1))
        optimizer = cf.optim.Adam([a, b], lr=0.1)
        for grads in ((a,), (a, b)):
            optimizer.zero_grad()
            for p in grads:
                p.grad = p.detach() * 3
            optimizer.step()
        return [a.detach().array, b.detach().array]

    for ours, expected in zip(run(device), run("cpu")):
        assert_near(ours, fetch(expected), "float32", 10)


def test_strided_parameters_and_views(device: str) -> None:
    def run(where: str) -> Any:
        base = cf.tensor(numbers(6, 9), device=where)
        turned, offset = nn.Parameter(base.T), nn.Parameter(cf.tensor(numbers(70), device=where)[3:])
        for p in (turned, offset):
            p.grad = p.detach() * 2
        turned.grad = cf.tensor(numbers(6, 9, seed=2), device=where).T
        nn.utils.clip_grad_norm_([turned, offset], 3.0)
        cf.optim.SGD([turned, offset], lr=0.5, momentum=0.9).step()
        return [turned.detach().array, offset.detach().array, turned.grad.array]

    for ours, expected in zip(run(device), run("cpu")):
        assert_near(ours, fetch(expected), "float32", 2)


ORDERS = (2.0, 1.0, math.inf, -math.inf, 0.0, 3.0, 0.5, -1.0)


@pytest.mark.parametrize("order", ORDERS)
def test_norm(order: float, device: str) -> None:
    arrays = [numbers(*s, dtype=FLOATS[i % 4], seed=i, low=0.5) for i, s in enumerate(SHAPES) if 0 not in s]
    arrays.append(np.zeros(5, np.float32))
    total = fetch(fused.norm([put(a, device) for a in arrays], order))[0]
    flat = np.abs(np.concatenate([a.astype(np.float64).reshape(-1) for a in arrays]))
    with np.errstate(divide="ignore"):
        expected = len(arrays) - 1 if order == 0 else np.linalg.norm(flat, order)
    assert total == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", [2.0, math.inf])
def test_norm_of_many_blocks(dtype: str, order: float, device: str) -> None:
    x = numbers(30_001, dtype=dtype)
    found = [fetch(fused.norm([put(x, device), put(x[:1], device)], order)) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    expected = np.linalg.norm(np.append(x, x[:1]).astype(np.float64), order)
    assert found[0][0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e30])
@pytest.mark.parametrize("order", [2.0, math.inf, 1.0])
def test_clip_with_extremes(bad: float, order: float, device: str) -> None:
    def run(where: str) -> tuple[float, Array]:
        a, b = (nn.Parameter(cf.zeros(3, device=where)) for _ in range(2))
        a.grad, b.grad = cf.tensor([1.0, bad, 2.0], device=where), cf.tensor([3.0, 4.0, 5.0], device=where)
        total = nn.utils.clip_grad_norm_([a, b], 1.0, order)
        assert total.device.type == where
        return total.item(), np.concatenate([fetch(p.grad.array) for p in (a, b)])

    (total, grads), (expected, expected_grads) = run(device), run("cpu")
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    np.testing.assert_allclose(grads, expected_grads, rtol=1e-6)


def test_error_if_nonfinite_leaves_gradients(device: str) -> None:
    p = nn.Parameter(cf.zeros(2, device=device))
    p.grad = cf.tensor([math.inf, 5.0], device=device)
    with pytest.raises(RuntimeError, match="clip_grad_norm_: the norm of order 2 of the gradients is inf"):
        nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert fetch(p.grad.array)[1] == 5


def test_clipping_does_not_wait_for_the_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = nn.Parameter(cf.zeros(2, device=device))
    p.grad = cf.tensor([3.0, 4.0], device=device)
    backend = cf.backend.backend_of(p.array)
    monkeypatch.setattr(type(backend), "to_host", lambda *a: pytest.fail("read"))
    if device == "sim":
        monkeypatch.setattr(type(p.array), "item", lambda *a: pytest.fail("read"), raising=False)
    total = nn.utils.clip_grad_norm_([p], 1.0)
    nn.utils.clip_grads_with_norm_([p], 0.5, nn.utils.get_total_norm([p.grad]))
    monkeypatch.undo()
    assert total.item() == 5.0
    np.testing.assert_allclose(fetch(p.grad.array), [0.3, 0.4], rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_clip_grads_with_norm_and_value(dtype: str, device: str) -> None:
    p = nn.Parameter(cf.zeros(1025, dtype=getattr(cf, dtype), device=device))
    g = numbers(1025, dtype=dtype, low=-9, high=9)
    g[3] = np.nan
    p.grad = cf.tensor(g, device=device)
    nn.utils.clip_grad_value_([p], 1.5)
    np.testing.assert_array_equal(fetch(p.grad.array), np.clip(g.astype(np.float64), -1.5, 1.5))
    g[3] = 0
    p.grad = cf.tensor(g, device=device)
    nn.utils.clip_grads_with_norm_([p], 3.0, 6.0)
    expected = g.astype(np.float64) * (3 / (6 + 1e-6))
    assert_near(p.grad.array, expected, dtype, what="given norm")
    nn.utils.clip_grads_with_norm_([p], 3.0, 2.0)
    assert_near(p.grad.array, expected, dtype, what="norm small enough")


@pytest.mark.parametrize("order", ["forward", "reverse", "random:3"])
def test_any_order_of_threads(order: str, device: str) -> None:
    if device != "sim":
        pytest.skip("the order of threads is the simulator's to choose")
    from cuframe.cuda import sim

    x = numbers(9000)
    expected = fetch(fused.norm([put(x, device)], 3.0))
    with sim.order(order):
        np.testing.assert_array_equal(fetch(fused.norm([put(x, device)], 3.0)), expected)
