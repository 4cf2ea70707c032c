"""Views and in-place writes: memory, graph and errors. Programs are drawn at random and compared with PyTorch."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.autograd import gradcheck, gradgradcheck


def leaf(*shape: int, seed: int = 0) -> cf.Tensor:
    return cf.tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape), requires_grad=True)


# -- gradients of functions that write in place, by finite differences --------------------------------------------
def scale_a_row(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * 1
    a[0] *= y[0]
    return a


def write_through_two_views(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * 1
    v = a.t()[1:]
    w = v[0]
    w.mul_(y.sum())
    v.add_(w.sum())
    return a * v.sum()


def base_changes_under_views(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * 1
    v, w = a[0], a.reshape(-1)
    a.mul_(y)
    return v * 2 + w.sum()


def view_of_constant_becomes_recorded(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = cf.zeros(3, 2, dtype=cf.float64)
    v = a[1:]
    v[0] = x[0] * y[0]
    v[1].copy_(y.sum(0))
    return a * a


def setitem_chain(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = cf.empty(4, 2, dtype=cf.float64)
    a[0] = x[0]
    for i in range(1, 4):
        a[i] = a[i - 1].clone() * y[i % 2]
    a[:, 0] = a[:, 1].exp() * 0.1
    return a


def masks_and_positions(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * y
    a[a.detach() > 1] = y.sum()
    a[cf.tensor([1, 0]), cf.tensor([0, 1])] = x.diagonal()
    return a


def swapped_rows(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * y
    a[0], a[1] = a[1].clone(), a[0].clone()
    return a


def diagonal_and_windows(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * 1
    a.diagonal().mul_(y[0])
    a.unfold(0, 2, 1)[:, :, 0].add_(y.sum())
    return a


def pieces(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * 1
    top, bottom = a.split(1)
    top.mul_(y[0])
    left, right = a.unbind(1)
    right.mul_(left.clone())
    return a + bottom


def constants_over_it(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * y
    a[0].zero_()
    b = x * 2
    b.fill_(1.0)
    c = y * 2
    c.fill_(x.sum())
    return a + b * y + c


def with_itself(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * y
    a.mul_(a)
    a.mul_(a[0])  # saves a view of what it writes
    a.scatter_reduce_(0, cf.tensor([[0, 1]]), a, "prod")
    a.pow_(2)
    return a


def transposed_in_place(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x * 1
    row = a[0]
    a.t_()
    a[0].mul_(y[0])  # a column of what `row` is a row of
    row.add_(y[1])
    return a + a.unsqueeze(0).squeeze_(0)


def in_half_of_a_leaf_copy(x: cf.Tensor, y: cf.Tensor) -> cf.Tensor:
    a = x.clone()
    a.narrow(1, 0, 1).copy_(y.narrow(1, 1, 1))
    a.select(0, 1).masked_fill_(cf.tensor([True, False]), y.sum())
    return a.index_fill_(0, cf.tensor([0]), x.sum())


WRITERS = [
    scale_a_row, write_through_two_views, base_changes_under_views, view_of_constant_becomes_recorded, setitem_chain,
    masks_and_positions, swapped_rows, diagonal_and_windows, pieces, constants_over_it, with_itself,
    transposed_in_place, in_half_of_a_leaf_copy,
]  # fmt: skip


@pytest.mark.parametrize("function", WRITERS, ids=lambda f: f.__name__)
def test_gradients_through_writes(function: Callable) -> None:
    inputs = (leaf(2, 2), leaf(2, 2, seed=1))
    gradcheck(function, inputs)
    gradgradcheck(function, inputs)


# -- errors -------------------------------------------------------------------------------------------------------
def test_leaf_cannot_be_written() -> None:
    x = leaf(2, 2)
    before = x.array.copy()
    for write in (
        lambda: x.mul_(2), lambda: x.__setitem__(0, 1.0), lambda: x[0].zero_(), lambda: x.t().add_(1),
        lambda: x.copy_(x.detach() * 2), lambda: x.t_(), lambda: x.normal_(), lambda: x.fill_(0.0),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="leaf tensor that requires a gradient cannot be changed in place"):
            write()
    np.testing.assert_array_equal(x.array, before)
    with cf.no_grad():
        x.mul_(2)
        x[0] = 0.0
        x.t_()
    assert x.requires_grad and x.is_leaf
    np.testing.assert_array_equal(x.array, [[0, before[1, 0] * 2], [0, before[1, 1] * 2]])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.mul_(2), lambda a: a[0].zero_(), lambda a: a.__setitem__(0, 1.0), lambda a: a.detach().add_(1),
        lambda a: a.t()[0].add_(1), lambda a: a.diagonal().add_(1), lambda a: a.unfold(0, 2, 1).zero_(),
    ],
)  # fmt: skip
def test_saved_array_that_was_written_raises(spoil: Callable) -> None:
    a = leaf(2, 2) * 1
    out = a.sin()  # saves its input
    spoil(a)
    with pytest.raises(RuntimeError, match="saved for its gradient was changed in place by"):
        out.sum().backward()


def test_saved_array_of_a_view_that_was_written_raises() -> None:
    a = leaf(4, 2) * 1
    for view in (a[1:], a.t(), a.diagonal(), a.unfold(0, 2, 1), a.expand(3, 4, 2)):
        out = view.sin()
        with cf.no_grad():
            a.mul_(2)
        with pytest.raises(RuntimeError, match="sin saved for its gradient was changed in place by mul_"):
            out.sum().backward()


def test_writing_what_was_not_saved_is_fine() -> None:
    x = leaf(2, 2)
    a = x * 3
    b = a + 1  # add saves nothing
    a.mul_(0)
    b.sum().backward()
    np.testing.assert_array_equal(x.grad.array, np.full((2, 2), 3.0))


def test_result_must_fit() -> None:
    a = cf.ones(3)
    with pytest.raises(RuntimeError, match=r"add_: the result has shape \(2, 3\), which does not fit"):
        a.add_(cf.ones(2, 3))
    n = cf.tensor([1, 2])
    for change in (lambda: n.div_(2), lambda: n.add_(0.5), lambda: n.__imul__(1.5)):
        with pytest.raises(RuntimeError, match="a float32 result cannot be written into int64"):
            change()
    assert n.tolist() == [1, 2] and a.tolist() == [1.0, 1.0, 1.0]
    half = cf.ones(2, dtype="float16")
    half += cf.ones(2, dtype="float64")
    assert half.dtype == np.float16


def test_expanded_and_read_only_memory_cannot_be_written() -> None:
    wide = cf.zeros(1).expand(3)
    for write in (lambda: wide.add_(1), lambda: wide.__setitem__(0, 1.0), lambda: wide.zero_()):
        with pytest.raises(RuntimeError, match="several elements of an expanded tensor share memory"):
            write()
    array = np.zeros(3)
    array.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        cf.from_numpy(array).add_(1)


def test_view_made_under_no_grad() -> None:
    a = leaf(3) * 1
    with cf.no_grad():
        v = a[1:]
        v.mul_(2)
    with pytest.raises(RuntimeError, match="mul_: a view made under no_grad"):
        v.mul_(2)
    with pytest.raises(RuntimeError, match="setitem: a view made under no_grad"):
        v[0] = leaf(1)[0]
    plain = cf.zeros(3)
    with cf.no_grad():
        v = plain[1:]
    v += 1
    assert plain.tolist() == [0.0, 1.0, 1.0]


def test_augmented_assignment_with_other_things() -> None:
    a = cf.ones(2)
    for other in ([1.0, 2.0], "a", None, object()):
        with pytest.raises(TypeError):
            a += other
    a += np.ones(2, np.float32)
    a -= 0.5
    a *= cf.tensor(2)
    a /= 2
    a **= 2
    a //= 1
    a %= 2
    assert a.tolist() == [0.0, 0.0]
    number = 3.0
    number += cf.ones(2)
    assert isinstance(number, cf.Tensor) and number.tolist() == [4.0, 4.0]
    bits = cf.tensor([1, 2])
    bits |= 1
    bits &= 3
    bits ^= 1
    assert bits.tolist() == [0, 2]
    m = cf.eye(2)
    m @= cf.ones(2, 2)  # no in-place product: a new tensor
    assert m.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_augmented_assignment_keeps_the_object() -> None:
    a = alias = cf.ones(2)
    memory = a.array
    a += 1
    a *= 3
    assert a is alias and a.array is memory and alias.tolist() == [6.0, 6.0]


# -- what stays what it was ---------------------------------------------------------------------------------------
def test_write_of_constants_keeps_requires_grad() -> None:
    x = leaf(2)
    a = x * 2
    a.zero_()
    assert a.requires_grad
    a.sum().backward()
    np.testing.assert_array_equal(x.grad.array, [0.0, 0.0])


def test_view_shares_memory_and_copy_does_not() -> None:
    a = cf.arange(6.0).reshape(2, 3)
    for view in (a[0], a[:, 1:], a.t(), a.reshape(3, 2), a.view(6), a.unsqueeze(0), a.squeeze(), a.diagonal(),
                 a.permute(1, 0), a.expand(4, 2, 3), a.unfold(1, 2, 1), a.unbind()[1], a.split(1)[0], a.detach(),
                 a.movedim(0, 1), a.flatten(), a.narrow(1, 0, 2), a.T, a.mT, a[None], a[...]):  # fmt: skip
        assert np.shares_memory(view.array, a.array)
    for copy in (a[[0, 1]], a[a > 0], a.clone(), a.flip(0), a.roll(1), a.repeat(1, 1), a.t().reshape(6), a.tril(),
                 a.t().contiguous(), a.to(cf.float64), a.to(cf.float32, copy=True),
                 a.index_select(0, cf.tensor([0]))):  # fmt: skip
        assert not np.shares_memory(copy.array, a.array)
    assert a.contiguous() is a and a.to(cf.float32) is a and a.float() is a and a.cpu() is a


def test_retained_gradient_follows_the_write() -> None:
    x = leaf(2)
    a = x * 2
    a.retain_grad()
    a.mul_(3)
    a.sum().backward()
    np.testing.assert_array_equal(a.grad.array, [1.0, 1.0])
    np.testing.assert_array_equal(x.grad.array, [6.0, 6.0])


def test_dead_views_are_forgotten() -> None:
    a = cf.zeros(4) * 1
    for _ in range(3000):
        a[0]
    gc.collect()
    assert len(a.__dict__["_views"]) < 100
    a.add_(leaf(1)[0])
    assert a[1].requires_grad


def test_view_that_is_a_leaf_of_its_own_is_left_alone() -> None:
    a = cf.ones(3, dtype=cf.float64)
    v = a[0].requires_grad_()
    a.mul_(2)
    assert v.is_leaf and v.requires_grad
    with pytest.raises(RuntimeError, match="a view of a leaf"):
        v.add_(1)


def test_in_place_reshapes() -> None:
    a = cf.arange(6.0).reshape(2, 3)
    row = a[0]
    assert a.t_() is a and a.shape == (3, 2)
    a.unsqueeze_(0).transpose_(0, 1).squeeze_(1)
    assert a.shape == (3, 2)
    a[0] = 9.0
    assert row.tolist() == [9.0, 1.0, 2.0]
    row.zero_()
    assert a[:, 0].tolist() == [0.0, 0.0, 0.0]


# -- programs drawn at random -------------------------------------------------------------------------------------
VIEWS: list[Callable] = [
    lambda t, r: t[r.randrange(t.shape[0])],
    lambda t, r: t[1:] if t.shape[0] > 1 else t[:],
    lambda t, r: t[..., ::2],
    lambda t, r: t.transpose(0, -1),
    lambda t, r: t.reshape(-1),
    lambda t, r: t.unsqueeze(0),
    lambda t, r: t.squeeze(),
    lambda t, r: t.diagonal() if len(t.shape) == 2 else t[...],
    lambda t, r: t.narrow(-1, 0, 1),
    lambda t, r: t.permute(*range(len(t.shape))[::-1]),
    lambda t, r: t.unfold(0, 2, 2) if t.shape[0] > 1 else t.view(t.shape),
    lambda t, r: t.select(-1, 0),
    lambda t, r: t.flatten(),
]


def set_item(t: Any, r: random.Random, other: Any) -> None:
    where = r.choice([slice(0, 1), r.randrange(t.shape[0]), (..., slice(None, None, 2)), t.detach() > 0])
    t[where] = r.choice([0.5, other.mean()])


WRITES: list[Callable] = [
    lambda t, r, o: t.mul_(0.7),
    lambda t, r, o: t.mul_(o.mean()),
    lambda t, r, o: t.add_(o.mean()),
    lambda t, r, o: t.zero_(),
    lambda t, r, o: t.fill_(0.3),
    lambda t, r, o: t.fill_(o.mean()),
    lambda t, r, o: t.sin_(),
    lambda t, r, o: t.tanh_(),
    lambda t, r, o: t.copy_(o.mean() * o.reshape(-1)[0]),
    lambda t, r, o: t.sub_(o.mean()),
    lambda t, r, o: t.pow_(2),
    lambda t, r, o: t.masked_fill_(t.detach() > 0.5, 0.25),
    lambda t, r, o: t.clamp_(-1, 1),
    lambda t, r, o: t.__imul__(t.mean()),
    set_item,
    set_item,
]
USES: list[Callable] = [lambda t, o: t * 2, lambda t, o: t.sin(), lambda t, o: t * o.mean(), lambda t, o: t * t]


def program(make: Callable, no_grad: Callable, seed: int) -> tuple:
    """Run one program; what it ends with: the loss and the gradients of its two leaves, or an error."""
    r = random.Random(seed)
    a, b = make(0, True), make(1, True)
    pool, results = [a * 1.0, b * 1.0, make(2, False)], []
    for _ in range(12):
        kind, t, other = r.random(), r.choice(pool), r.choice(pool)
        if kind < 0.4 and len(t.shape):
            pool.append(r.choice(VIEWS)(t, r))
        elif kind < 0.7 and len(t.shape):
            _ = t.grad_fn  # PyTorch takes a view whose base has become recorded for a leaf until it is looked at
            r.choice(WRITES)(t, r, other)
        elif kind < 0.95:
            results.append(r.choice(USES)(t, other))
            if r.random() < 0.3:
                pool.append(results[-1])
        else:
            with no_grad():
                t.mul_(0.5)
        if len(pool) > 6:
            del pool[r.randrange(len(pool))]
    loss = sum(v.sin().sum() for v in results + pool) + a.sum()
    loss.backward()
    return loss.item(), *[None if x.grad is None else np.array(x.grad.tolist()) for x in (a, b)]


@pytest.mark.parametrize("block", range(8))
def test_programs_against_torch(block: int) -> None:
    """Where PyTorch computes, the same gradients; it refuses more, for it saves results that are written later."""
    torch = pytest.importorskip("torch", reason="PyTorch, the reference of these programs, is not installed")
    agreed = 0
    for seed in range(60 * block, 60 * block + 60):
        shape = ((3, 3), (2, 4), (4,), (2, 3, 2))[seed % 4]
        arrays = np.random.default_rng(seed).uniform(-1, 1, (3, *shape))
        try:
            expected = program(
                lambda i, g, arrays=arrays: torch.tensor(arrays[i], requires_grad=g), torch.no_grad, seed
            )
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error), f"seed {seed}: {error}"
            continue
        actual = program(lambda i, g, arrays=arrays: cf.tensor(arrays[i], requires_grad=g), cf.no_grad, seed)
        for x, y in zip(actual, expected):
            x, y = (np.zeros(shape) if v is None else v for v in (x, y))
            np.testing.assert_allclose(x, y, 1e-9, 1e-12, err_msg=f"seed {seed}")
        agreed += 1
    assert agreed > 10
