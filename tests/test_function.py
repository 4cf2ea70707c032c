"""autograd.Function: a user's own forward and backward."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

import cuframe as cf
from cuframe.autograd import Function, FunctionCtx, grad, gradcheck, gradgradcheck, once_differentiable


def leaf(*values, dtype="float64"):
    return cf.tensor(list(values), dtype=dtype, requires_grad=True)


def host(t):
    return t.array.tolist()


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x * x * 3.0)


class Exp(Function):
    """Saves its output."""

    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


class ScaleSum(Function):
    """Several inputs, numbers among them, in the split style."""

    @staticmethod
    def forward(x, scale, y, power=2):
        return x * scale + y**power

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.scale, y, *rest = inputs
        ctx.power = rest[0] if rest else 2
        ctx.arguments = len(inputs)
        ctx.save_for_backward(y)

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        grads = (g * ctx.scale, None, g * y ** (ctx.power - 1) * ctx.power, None)
        return grads[: ctx.arguments]


class SumAndProduct(Function):
    @staticmethod
    def forward(ctx, x, y):
        s, p = x + y, x * y
        ctx.save_for_backward(x, y, p)
        return s, p

    @staticmethod
    def backward(ctx, gs, gp):
        x, y, _ = ctx.saved_tensors
        return gs + gp * y, gs + gp * x


def test_gradient_and_higher_derivatives():
    x = leaf(2.0, 3.0)
    (g,) = grad(Cube.apply(x).sum(), x, create_graph=True)
    assert host(g) == [12.0, 27.0]
    (gg,) = grad(g.sum(), x, create_graph=True)
    assert host(gg) == [12.0, 18.0]
    assert host(grad(gg.sum(), x)[0]) == [6.0, 6.0]


@pytest.mark.parametrize(
    "function, inputs",
    [
        (Cube.apply, (leaf(0.5, -1.5),)),
        (Exp.apply, (leaf(0.5, -1.5),)),
        (lambda x, y: ScaleSum.apply(x, 3.0, y, 3), (leaf(0.5, -1.5), leaf(2.0, 1.0))),
        (SumAndProduct.apply, (leaf(0.5, -1.5), leaf(2.0, 1.0))),
    ],
    ids=["saves input", "saves output", "split style", "two outputs"],
)
def test_gradcheck_of_functions(function, inputs):
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_default_argument_left_out():
    x, y = leaf(1.0), leaf(3.0)
    ScaleSum.apply(x, 3.0, y).backward()
    assert (host(x.grad), host(y.grad)) == ([3.0], [6.0])


def test_output_with_several_saved_outputs_is_connected():
    class Both(Function):
        @staticmethod
        def forward(ctx, x):
            a, b = x * x, x.exp()
            ctx.save_for_backward(x, b)
            return a, b

        @staticmethod
        def backward(ctx, ga, gb):
            x, b = ctx.saved_tensors
            return ga * x * 2.0 + gb * b

    assert gradgradcheck(Both.apply, (leaf(0.5, -0.25),))


def test_needs_input_grad():
    seen = []

    class Watch(Function):
        @staticmethod
        def forward(ctx, x, k, y):
            assert isinstance(ctx, FunctionCtx)
            seen.append(ctx.needs_input_grad)
            return x * y

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.needs_input_grad)
            return g, None, g

    x = leaf(1.0)
    Watch.apply(x, 3, cf.tensor([2.0], dtype="float64")).backward()
    assert seen == [(True, False, False)] * 2


def test_forward_is_not_recorded_and_result_is_a_leafless_node():
    inside = []

    class Plain(Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2.0
            inside.append((y.requires_grad, cf.is_grad_enabled()))
            return y

        @staticmethod
        def backward(ctx, g):
            inside.append(cf.is_grad_enabled())
            return g * 2.0

    x = leaf(1.0)
    y = Plain.apply(x)
    assert inside == [(False, False)]
    assert y.requires_grad and not y.is_leaf and y.grad_fn.name() == "PlainBackward0"
    y.backward()
    assert inside[1:] == [False]


def test_apply_under_no_grad_and_without_gradients():
    x = leaf(2.0)
    with cf.no_grad():
        assert not Cube.apply(x).requires_grad
    assert not Cube.apply(cf.tensor([2.0])).requires_grad
    assert host(Cube.apply(cf.tensor([2.0]))) == [8.0]


def test_input_returned_as_it_is():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 5.0

    x = leaf(1.0)
    y = Same.apply(x)
    assert y is not x and x.is_leaf
    y.backward()
    assert host(x.grad) == [5.0]
    with cf.no_grad():
        assert Same.apply(x) is not x


def test_none_gradients_mean_no_gradient():
    class Half(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return g, None

    x, y = leaf(1.0), leaf(1.0)
    Half.apply(x, y).backward()
    assert host(x.grad) == [1.0] and y.grad is None


def _returning(*gradients):
    class Odd(Function):
        @staticmethod
        def forward(ctx, first, second, *rest):
            return first * 1.0

        @staticmethod
        def backward(ctx, g):
            return gradients if len(gradients) != 1 else gradients[0]

    return Odd


@pytest.mark.parametrize(
    "gradients, error, message",
    [
        (
            (1.0, None),
            TypeError,
            r"Odd: the gradient for argument 0 \(first\) must be a Tensor or None, got float",
        ),
        ((cf.ones(3), None), RuntimeError, r"argument 0 \(first\) must have shape \(2,\), got \(3,\)"),
        ((cf.ones(()), None), RuntimeError, r"argument 0 \(first\) must have shape \(2,\), got \(\)"),
        ((cf.ones(2),), RuntimeError, r"Odd: backward must return 2 gradient\(s\), .* got 1"),
        ((cf.ones(2), None, cf.ones(2)), RuntimeError, r"must return 2 gradient\(s\), .* got 3"),
        (
            (cf.ones(2), cf.ones(2)),
            RuntimeError,
            r"Odd: .* gradient for argument 1 \(second\), which is not a Tensor",
        ),
    ],
)
def test_wrong_gradients(gradients, error, message):
    x = leaf(1.0, 2.0)
    with pytest.raises(error, match=message):
        _returning(*gradients).apply(x, 7).sum().backward()
    assert x.grad is None


def test_additional_none_gradients_are_ignored():
    x = leaf(1.0, 2.0)
    _returning(cf.ones(2), None, None, None).apply(x, 7).sum().backward()
    assert host(x.grad) == [1.0, 1.0]


def test_broadcast_gradients_are_summed_and_cast():
    x = leaf(1.0, 2.0, dtype="float32")
    _returning(cf.ones(3, 2, dtype="float64"), None).apply(x, 7).sum().backward()
    assert x.grad.dtype == np.float32 and host(x.grad) == [3.0, 3.0]


def test_gradients_of_repeated_results_do_not_share_memory():
    class Twice(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return g, g

    x, y = leaf(1.0), leaf(1.0)
    Twice.apply(x, y).backward()
    assert not np.shares_memory(x.grad.array, y.grad.array)


# -- saved tensors --------------------------------------------------
def test_saved_tensors_are_freed_by_backward():
    x = leaf(2.0)
    y = Cube.apply(x * 1.0)
    saved = weakref.ref(y.grad_fn.saved[0])
    y.backward()
    assert saved() is None
    with pytest.raises(RuntimeError, match="arrays that Cube saved were freed"):
        y.backward()


def test_retain_graph_keeps_saved_tensors():
    x = leaf(2.0)
    y = Cube.apply(x)
    y.backward(retain_graph=True)
    y.backward()
    assert host(x.grad) == [24.0]


def test_context_kept_by_the_user_says_that_it_was_freed():
    kept = []

    class Keep(Cube):
        @staticmethod
        def forward(ctx, x):
            kept.append(ctx)
            return Cube.forward(ctx, x)

    y = Keep.apply(leaf(2.0))
    assert host(kept[0].saved_tensors[0]) == [2.0]
    y.backward()
    with pytest.raises(RuntimeError, match="Keep: the saved tensors were freed"):
        _ = kept[0].saved_tensors


def test_backward_without_saved_tensors_runs_twice():
    x = leaf(2.0)
    y = _returning(cf.ones(1, dtype="float64"), None).apply(x, 7)
    y.backward()
    y.backward()
    assert host(x.grad) == [2.0]


def test_saved_tensor_changed_in_place():
    x = leaf(2.0)
    inner = x * 1.0
    y = Cube.apply(inner)
    inner.mul_(2.0)
    with pytest.raises(RuntimeError, match="that Cube saved .* changed in place by mul_"):
        y.backward()


def test_saved_tensors_in_backward_are_connected_and_none_is_kept():
    seen = []

    class Some(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, None, x * 2.0)
            return x * 1.0

        @staticmethod
        def backward(ctx, g):
            a, b, c = ctx.saved_tensors
            seen.append((a.requires_grad, b, c.requires_grad))
            return g

    x = leaf(1.0)
    Some.apply(x).backward()
    assert seen == [(True, None, False)]


def test_saving_something_else_is_refused():
    class Bad(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, 3)
            return x

    with pytest.raises(
        TypeError, match="Bad: save_for_backward takes Tensors and None, got int as argument 1"
    ):
        Bad.apply(leaf(1.0))


# -- outputs --------------------------------------------------
class MaxAndPlace(Function):
    @staticmethod
    def forward(ctx, x):
        place = int(np.argmax(x.array))
        ctx.place, ctx.count = place, x.array.size
        index = cf.tensor([float(place)], dtype="float64")
        ctx.mark_non_differentiable(index)
        return x[place : place + 1] * 1.0, index

    @staticmethod
    def backward(ctx, g, g_index):
        assert host(g_index) == [0.0]
        whole = np.zeros(ctx.count)
        whole[ctx.place] = g.array[0]
        return cf.Tensor(whole)


def test_non_differentiable_output():
    x = leaf(1.0, 5.0, 2.0)
    value, index = MaxAndPlace.apply(x)
    assert value.requires_grad and not index.requires_grad
    value.backward()
    assert host(x.grad) == [0.0, 1.0, 0.0]


def test_integer_and_other_outputs_carry_no_gradient():
    class Mixed(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2.0, cf.tensor([1, 2]), "text", None

        @staticmethod
        def backward(ctx, g, *rest):
            assert [None if r is None else r.dtype.kind for r in rest] == ["i", None, None]
            return g * 2.0

    x = leaf(1.0)
    y, k, text, nothing = Mixed.apply(x)
    assert not k.requires_grad and text == "text" and nothing is None
    y.backward()
    assert host(x.grad) == [2.0]


@pytest.mark.parametrize("materialize", [True, False])
def test_gradients_of_unused_outputs(materialize):
    seen = []

    class Pair(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(materialize)
            return x * 1.0, x * 2.0

        @staticmethod
        def backward(ctx, a, b):
            seen.append(None if b is None else host(b))
            return a

    x = leaf(1.0, 2.0)
    Pair.apply(x)[0].sum().backward()
    assert seen == [[0.0, 0.0] if materialize else None]


def test_list_output_is_refused():
    class Listed(Function):
        @staticmethod
        def forward(ctx, x):
            return [x * 1.0]

    with pytest.raises(TypeError, match="Listed: forward must return a Tensor or a tuple, got a list"):
        Listed.apply(leaf(1.0))


# -- in place --------------------------------------------------
class Double_(Function):
    @staticmethod
    def forward(ctx, x):
        with cf.no_grad():
            x.mul_(2.0)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, g):
        return g * 2.0


def test_dirty_input():
    x = leaf(1.0, 3.0)
    y = x * 1.0
    z = Double_.apply(y)
    assert z is y and host(y) == [2.0, 6.0]
    (z * z).sum().backward()
    assert host(x.grad) == [8.0, 24.0]


def test_dirty_view_reaches_its_base():
    x = leaf(1.0, 3.0)
    y = x * 1.0
    Double_.apply(y[0:1])
    assert host(y) == [2.0, 3.0]
    y.sum().backward()
    assert host(x.grad) == [2.0, 1.0]


def test_dirty_leaf_is_refused():
    with pytest.raises(RuntimeError, match="Double_: a leaf tensor that requires a gradient"):
        Double_.apply(leaf(1.0))


def test_dirty_input_that_somebody_saved():
    x = leaf(1.0, 3.0)
    y = x * 1.0
    z = y * y
    Double_.apply(y)
    with pytest.raises(RuntimeError, match="mul saved .* changed in place by"):
        z.sum().backward()


def test_mark_dirty_wants_inputs_that_are_returned():
    class NotInput(Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 1.0
            ctx.mark_dirty(y)
            return y

    class NotReturned(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            return x * 1.0

    with pytest.raises(RuntimeError, match="NotInput: mark_dirty takes inputs of forward only"):
        NotInput.apply(leaf(1.0))
    with pytest.raises(RuntimeError, match="NotReturned: an input marked as dirty must be returned"):
        NotReturned.apply(leaf(1.0) * 1.0)


# -- once_differentiable, errors --------------------------------------------------
class Once(Cube):
    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x * x * 3.0


def test_once_differentiable():
    x = leaf(2.0)
    Once.apply(x).backward()
    assert host(x.grad) == [12.0]
    (g,) = grad(Once.apply(x), x, create_graph=True)
    assert host(g) == [12.0]
    with pytest.raises(RuntimeError, match="Once: backward is marked once_differentiable"):
        g.backward()


def test_once_differentiable_does_not_disturb_other_parts_of_the_graph():
    x, w = leaf(2.0), leaf(3.0)
    (g,) = grad(Once.apply(x) * 1.0 + w * w, w, create_graph=True)
    g.backward()
    assert host(w.grad) == [2.0]


def test_function_is_not_instantiated():
    with pytest.raises(TypeError, match=r"Cube: .*Cube\.apply"):
        Cube()


def test_missing_methods_are_named():
    class Empty(Function):
        pass

    class ForwardOnly(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

    with pytest.raises(NotImplementedError, match="must define forward"):
        Empty.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="must define backward"):
        ForwardOnly.apply(leaf(1.0)).backward()


def test_anomaly_mode_names_the_function():
    class Nan(Function):
        @staticmethod
        def forward(ctx, x):
            return x * float("nan")

        @staticmethod
        def backward(ctx, g):
            return g

    with cf.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="Nan gave NaN in the forward"):
        Nan.apply(leaf(1.0))


def test_functions_in_threads():
    results = {}

    def work(k):
        x = leaf(float(k))
        for _ in range(20):
            Cube.apply(x).backward()
        results[k] = host(x.grad)[0]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: 60.0 * k * k for k in range(4)}


def test_long_chain_of_functions():
    x = leaf(1.0)
    y = x
    for _ in range(5_000):
        y = Exp.apply(y * 0.0)
    y.backward()
    assert host(x.grad) == [0.0]
