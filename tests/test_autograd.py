"""What users call: grad, backward, the recording modes, anomaly mode, gradient checks."""

from __future__ import annotations

import asyncio
import copy
import threading

import numpy as np
import pytest

import cuframe as cf
from cuframe.autograd import GradcheckError, backward, grad, gradcheck, gradgradcheck
from cuframe.autograd.graph import Op
from cuframe.autograd.region import Region
from cuframe.tensor import record, record_outputs


def leaf(*values, dtype="float64"):
    return cf.tensor(list(values), dtype=dtype, requires_grad=True)


def host(t):
    return t.array.tolist()


# -- grad -----------------------------------------------------------
def test_grad_returns_and_does_not_accumulate():
    x, w = leaf(2.0), leaf(3.0)
    gx, gw = grad(x * w, [x, w])
    assert (host(gx), host(gw)) == ([3.0], [2.0])
    assert x.grad is None and w.grad is None
    assert not gx.requires_grad


def test_grad_of_one_input_given_alone():
    x = leaf(2.0)
    (g,) = grad(x * x, x)
    assert host(g) == [4.0]


def test_grad_of_a_generator_of_inputs():
    x, w = leaf(2.0), leaf(3.0)
    gx, gw = grad((y for y in [x * w]), (t for t in (x, w)))
    assert (host(gx), host(gw)) == ([3.0], [2.0])


def test_grad_of_one_input_given_twice():
    x = leaf(2.0)
    first, second = grad(x * x, [x, x])
    assert host(first) == host(second) == [4.0]


def test_grad_with_weights_for_several_outputs():
    x = leaf(1.0, 2.0)
    a, b = x * x, x * 3.0
    (g,) = grad([a, b], x, [cf.ones(2, dtype="float64"), cf.tensor([10.0, 100.0], dtype="float64")])
    assert host(g) == [32.0, 304.0]


def test_grad_of_results_in_the_middle():
    x = leaf(2.0)
    y = x * x
    z = y * y
    gz_y, gz_x = grad(z, [y, x], retain_graph=True)
    assert (host(gz_y), host(gz_x)) == ([8.0], [32.0])
    assert host(grad(z, z)[0]) == [1.0]


def test_grad_computes_nothing_outside_the_path():
    calls = []

    def vjp(g, needs):
        calls.append(tuple(n is not None for n in needs))
        return tuple(g if n is not None else None for n in needs)

    pair = Op("pair", vjp, ())
    x, w = leaf(1.0), leaf(1.0)
    side = record(w.array * 1, pair, (w,), ())
    side.register_hook(lambda g: calls.append("hook"))
    middle = record(x.array * 1, pair, (x, side), ())
    top = record(middle.array * 1, pair, (middle, w), ())
    grad(top, x)
    assert calls == [(True, False), (True, False)]
    calls.clear()
    grad(top, middle)
    assert calls == [(True, False)]


def test_grad_leaves_what_it_did_not_visit_for_later():
    x = leaf(2.0)
    y = x * x
    z = y * y
    grad(z, y)
    (g,) = grad(y, x)
    assert host(g) == [4.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_unused_inputs(create_graph):
    x, w = leaf(1.0, 2.0), leaf(1.0, 2.0)
    y = (x * x).sum()
    with pytest.raises(RuntimeError, match=r"grad: inputs\[1\] was not used .*allow_unused=True"):
        grad(y, [x, w], retain_graph=True)
    gx, gw = grad(y, [x, w], retain_graph=True, allow_unused=True, create_graph=create_graph)
    assert gw is None and host(gx) == [2.0, 4.0]
    gx, gw = grad(y, [x, w], materialize_grads=True, create_graph=create_graph)
    assert host(gw) == [0.0, 0.0] and gw.dtype == w.dtype
    with pytest.raises(ValueError, match="materialize_grads"):
        grad(y, [x, w], allow_unused=False, materialize_grads=True)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: grad(x * 1.0, [3.0]), TypeError, r"grad: inputs\[0\] must be a Tensor, got float"),
        (
            lambda x: grad(x * 1.0, [cf.ones(2)]),
            RuntimeError,
            r"grad: inputs\[0\] does not require a gradient",
        ),
        (lambda x: grad(cf.ones(1), x), RuntimeError, r"grad: tensor 0 does not require a gradient"),
        (lambda x: grad(3.0, x), TypeError, "grad: output 0 must be a Tensor, got float"),
        (lambda x: grad(x.sum(), 3), TypeError, r"grad: inputs\[0\] must be a Tensor, got int"),
        (lambda x: grad([3.0], x), TypeError, r"grad: output 0 must be a Tensor, got float"),
        (
            lambda x: (x * 1.0).backward(),
            RuntimeError,
            r"backward: .* only for a single element, got shape \(2,\)",
        ),
        (lambda x: (x * 1.0).backward(1.0), TypeError, r"gradients\[0\] must be a Tensor or None, got float"),
        (lambda x: (x * 1.0).backward(np.ones(2)), TypeError, r"gradients\[0\] must be a Tensor or None, got nd"),
        (
            lambda x: backward(x * 1.0, [1.0]),
            TypeError,
            r"gradients\[0\] must be a Tensor or None, got float",
        ),
        (
            lambda x: (x * 1.0).backward(cf.ones(3)),
            RuntimeError,
            r"gradients\[0\] must have shape \(2,\), got \(3,\)",
        ),
        (lambda x: backward([x, x], [cf.ones(2)]), RuntimeError, r"got 2 tensor\(s\) but 1 gradient\(s\)"),
        (lambda x: x.sum().backward(inputs=[]), RuntimeError, "backward: inputs must not be empty"),
        (
            lambda x: x.sum().backward(inputs=[cf.ones(1)]),
            RuntimeError,
            r"backward: inputs\[0\] does not require",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    x = leaf(1.0, 2.0)
    with pytest.raises(error, match=message):
        call(x)
    assert x.grad is None


def test_weights_of_another_dtype_are_cast():
    x = leaf(1.0, 2.0)
    (x * 1.0).backward(cf.tensor([1.0, 2.0], dtype="float32"))
    assert x.grad.dtype == np.float64
    (g,) = grad(x * 1.0, x, cf.tensor([1, 2]), create_graph=True)
    assert g.dtype == np.float64


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_third_derivatives(power):
    x = leaf(1.5, -2.0)
    y = (x * x * x * x).sum()
    for expected in (4 * x.array**3, 12 * x.array**2, 24 * x.array):
        (g,) = grad(y, x, create_graph=True)
        np.testing.assert_allclose(g.array, expected, 1e-12)
        y = g.sum()


def test_gradient_of_a_gradient_norm():
    x, w = leaf(1.0, 2.0), leaf(3.0, -1.0)
    out = (x.exp() * w).sum()
    (g,) = grad(out, x, create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_allclose(w.grad.array, 2 * np.exp(2 * x.array) * w.array)
    np.testing.assert_allclose(x.grad.array, 2 * (np.exp(x.array) * w.array) ** 2)


def test_second_backward_through_weights():
    x = leaf(2.0)
    seed = cf.tensor([1.0], dtype="float64", requires_grad=True)
    (g,) = grad(x * x, x, seed, create_graph=True)
    g.backward()
    assert host(seed.grad) == [4.0] and host(x.grad) == [2.0]


def test_create_graph_gradients_do_not_alias():
    a, b = leaf(1.0), leaf(1.0)
    (a + b).backward(create_graph=True)
    with cf.no_grad():
        a.grad.mul_(5.0)
    assert host(b.grad) == [1.0]


def test_fused_operation_is_differentiated_through_its_composite():
    """An input of the fused operation depends on another one: differentiation stops at the fused inputs."""

    def fused(x, w):
        return record(x.array * w.array * w.array, FUSED, (x, w), (x.array, w.array))

    def vjp(g, needs, x, w):
        return np.multiply(g, w * w), np.multiply(g, 2 * x * w)

    FUSED = Op("fused", vjp, (0, 1), composite=lambda x, w: x * w * w)
    w = leaf(3.0)
    x = w * 2.0
    y = fused(x, w)  # 2 w^3
    (g,) = grad(y, w, create_graph=True)
    assert host(g) == [54.0]
    (gg,) = grad(g, w)
    assert host(gg) == [36.0]
    assert host(grad(fused(w * 2.0, w), w)[0]) == [54.0]


# -- backward(inputs=) ----------------------------------------------
def test_backward_into_chosen_inputs():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    z = y * y
    z.backward(inputs=[x], retain_graph=True)
    assert host(x.grad) == [36.0] and w.grad is None
    z.backward(inputs=x, retain_graph=True)
    assert host(x.grad) == [72.0]
    z.backward(inputs=[y, w])
    assert host(y.grad) == [12.0] and host(w.grad) == [24.0] and host(x.grad) == [72.0]


def test_backward_into_inputs_runs_their_post_accumulate_hooks():
    x = leaf(2.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 3.0).backward(inputs=[x])
    assert seen == [3.0]


# -- leaves ---------------------------------------------------------
def test_requires_grad_needs_floating_point():
    for dtype in ("int64", "bool", "uint8"):
        with pytest.raises(RuntimeError, match=f"floating point .* got {dtype}"):
            cf.tensor([1], dtype=dtype).requires_grad_()
        with pytest.raises(RuntimeError, match="floating point"):
            cf.tensor([1], dtype=dtype, requires_grad=True)


def test_requires_grad_off_and_on_keeps_the_gradient():
    x = leaf(1.0)
    (x * 2.0).backward()
    x.requires_grad = False
    assert host(x.grad) == [2.0] and not x.requires_grad
    assert not (x * 2.0).requires_grad
    x.requires_grad = True
    (x * 2.0).backward()
    assert host(x.grad) == [4.0]
    with pytest.raises(RuntimeError, match="leaf"):
        (x * 2.0).requires_grad_(False)


def test_detach_shares_memory_and_cuts_the_graph():
    x = leaf(1.0)
    y = (x * 2.0).detach()
    assert not y.requires_grad and y.is_leaf
    y.array[0] = 7.0
    assert np.shares_memory(x.detach().array, x.array)


def test_deepcopy_copies_leaf_and_gradient():
    x = leaf(1.0)
    (x * 2.0).backward()
    twin = copy.deepcopy(x)
    assert twin.requires_grad and host(twin.grad) == [2.0]
    (twin * 2.0).backward()
    assert host(x.grad) == [2.0] and host(twin.grad) == [4.0]
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(x * 2.0)


@pytest.mark.parametrize(
    "value, error, message",
    [
        (cf.ones(3), RuntimeError, r"shape"),
        (1.0, TypeError, r"grad must be a Tensor"),
    ],
)
def test_assigned_gradient_is_checked(value, error, message):
    x = leaf(1.0, 2.0)
    with pytest.raises(error, match=message):
        x.grad = value
    assert x.grad is None


def test_grad_fn_names_and_edges():
    x = leaf(1.0)
    y = x * 2.0 + 1.0
    assert y.grad_fn.name() == "AddBackward0"
    (mul, _), *_ = y.grad_fn.next_functions
    assert mul.name() == "MulBackward0"
    assert x.to("float16").grad_fn.name() == "ToCopyBackward0"
    assert mul.next_functions[0][0].name() == "AccumulateGrad"
    assert x.grad_fn is None


# -- modes ----------------------------------------------------------
def test_no_grad_and_enable_grad():
    x = leaf(1.0)
    with cf.no_grad():
        assert not (x * 1.0).requires_grad and not cf.is_grad_enabled()
        with cf.enable_grad():
            assert (x * 1.0).requires_grad
        assert not cf.is_grad_enabled()
    assert cf.is_grad_enabled()


def test_modes_end_with_exceptions_and_nest_on_one_object():
    mode = cf.no_grad()
    with mode:
        with mode:
            assert not cf.is_grad_enabled()
        assert not cf.is_grad_enabled()
        with pytest.raises(KeyError), cf.enable_grad():
            raise KeyError
        assert not cf.is_grad_enabled()
    assert cf.is_grad_enabled()


def test_set_grad_enabled_as_a_call_a_context_and_a_decorator():
    cf.set_grad_enabled(False)
    assert not cf.is_grad_enabled()
    cf.set_grad_enabled(True)
    assert cf.is_grad_enabled()
    with cf.set_grad_enabled(False):
        assert not cf.is_grad_enabled()
    assert cf.is_grad_enabled()

    @cf.set_grad_enabled(False)
    def inside():
        return cf.is_grad_enabled()

    assert cf.is_grad_enabled()
    assert inside() is False
    assert cf.is_grad_enabled()


@pytest.mark.parametrize("make", [cf.no_grad, cf.inference_mode, lambda: cf.no_grad])
def test_modes_decorate_functions(make):
    @make()
    def f(x, *, k=2.0):
        """Doc."""
        return x * k

    assert not f(leaf(1.0)).requires_grad
    assert not f(leaf(1.0), k=3.0).requires_grad
    assert f.__name__ == "f" and f.__doc__ == "Doc."
    assert cf.is_grad_enabled()


def test_mode_without_parentheses_decorates_recursive_functions():
    @cf.no_grad()
    def depth(n):
        return [cf.is_grad_enabled()] + (depth(n - 1) if n else [])

    assert depth(3) == [False] * 4
    assert cf.is_grad_enabled()


def test_modes_decorate_generators():
    @cf.no_grad()
    def numbers():
        try:
            received = yield cf.is_grad_enabled()
            yield received, cf.is_grad_enabled()
            raise ValueError("end")
        finally:
            seen.append(cf.is_grad_enabled())

    seen = []
    running = numbers()
    assert next(running) is False and cf.is_grad_enabled()
    assert running.send(5) == (5, False) and cf.is_grad_enabled()
    with pytest.raises(ValueError, match="end"):
        next(running)
    assert seen == [False] and cf.is_grad_enabled()


def test_generator_receives_exceptions_and_closing():
    @cf.no_grad()
    def numbers():
        try:
            yield 1
        except KeyError:
            yield cf.is_grad_enabled()
        finally:
            seen.append(cf.is_grad_enabled())

    seen = []
    running = numbers()
    next(running)
    assert running.throw(KeyError()) is False
    running.close()
    running = numbers()
    next(running)
    running.close()
    assert seen == [False, False] and cf.is_grad_enabled()


def test_generator_return_value():
    @cf.no_grad()
    def numbers():
        yield 1
        return 2

    def outer():
        return (yield from numbers())

    running = outer()
    next(running)
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value == 2


def test_mode_decorates_coroutines():
    @cf.no_grad()
    async def work():
        await asyncio.sleep(0)
        return cf.is_grad_enabled()

    assert asyncio.run(work()) is False
    assert cf.is_grad_enabled()


def test_inference_mode():
    x = leaf(1.0)
    with cf.inference_mode():
        assert cf.is_inference_mode_enabled() and not cf.is_grad_enabled()
        assert not (x * 1.0).requires_grad
        with pytest.raises(RuntimeError, match="inference_mode"):
            cf.ones(1).requires_grad_()
        with cf.enable_grad():
            assert not (x * 1.0).requires_grad
        with cf.inference_mode(False):
            assert not cf.is_inference_mode_enabled() and (x * 1.0).requires_grad
    assert not cf.is_inference_mode_enabled() and cf.is_grad_enabled()


def test_a_new_thread_records():
    seen = []

    def work():
        seen.append(cf.is_grad_enabled())
        cf.set_grad_enabled(False)

    with cf.no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [True] and cf.is_grad_enabled()


# -- anomaly mode ---------------------------------------------------
def nan_is_born_here(x):
    return cf.sqrt(x)


def test_forward_nan_names_operation_and_line():
    with cf.autograd.detect_anomaly(), pytest.raises(RuntimeError) as error:
        nan_is_born_here(leaf(-1.0))
    text = str(error.value)
    assert "sqrt gave NaN in the forward pass" in text
    assert "test_autograd.py" in text and "return cf.sqrt(x)" in text and "nan_is_born_here" in text
    assert not cf.autograd.is_anomaly_enabled()


def test_backward_nan_names_operation_and_line_of_its_forward():
    bad = Op("bad", lambda g, needs: (g * float("nan"),), ())

    def somewhere(x):
        return record(x.array * 1, bad, (x,), ())

    with cf.autograd.detect_anomaly():
        y = somewhere(leaf(1.0)) * 2.0
        with pytest.raises(RuntimeError, match="the gradient of bad for input 0 is NaN") as error:
            y.backward()
    assert "in somewhere" in str(error.value)


def test_nan_that_came_in_is_not_blamed_on_the_next_operation():
    x = leaf(1.0)
    with cf.autograd.detect_anomaly():
        y = x * 2.0
        with pytest.raises(RuntimeError, match="mul|seed") as error:
            (y * leaf(float("nan"))).backward()
    assert "forward" in str(error.value)


def test_anomaly_mode_without_nan_search_and_by_function():
    with cf.autograd.detect_anomaly(check_nan=False):
        assert np.isnan(nan_is_born_here(leaf(-1.0)).item())
    cf.autograd.set_detect_anomaly(True)
    try:
        assert cf.autograd.is_anomaly_enabled()
        with pytest.raises(RuntimeError, match="anomaly: sqrt"):
            nan_is_born_here(leaf(-1.0))
    finally:
        cf.autograd.set_detect_anomaly(False)


def test_anomaly_mode_looks_into_gradients_of_slices():
    bad = Op("bad", lambda g, needs: (Region(g * float("nan"), (3,), slice(0, 1)),), ())
    with cf.autograd.detect_anomaly():
        y = record(np.ones(1), bad, (leaf(1.0, 2.0, 3.0),), ())
        with pytest.raises(RuntimeError, match="the gradient of bad for input 0 is NaN"):
            y.backward()


def test_anomaly_mode_covers_several_outputs():
    op = Op("two", lambda g, needs: (g[0],), ())
    x = leaf(1.0)
    with cf.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="two gave NaN"):
        record_outputs((x.array, x.array * float("nan")), op, (x,), ())


# -- gradcheck ------------------------------------------------------
def crooked(factor=1.1, name="crooked"):
    op = Op(name, lambda g, needs, x: (g * x * 2.0 * factor,), (0,))
    return lambda x: record(x.array * x.array, op, (x,), (x.array,))


@pytest.mark.parametrize("fast_mode", [False, True])
def test_gradcheck_finds_a_wrong_gradient(fast_mode):
    x = leaf(1.0, 2.0, 3.0)
    assert gradcheck(crooked(1.0), x, fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="output 0 with respect to input 0 is wrong"):
        gradcheck(crooked(), x, fast_mode=fast_mode)
    assert gradcheck(crooked(), x, fast_mode=fast_mode, raise_exception=False) is False
    assert gradcheck(crooked(), x, fast_mode=fast_mode, rtol=0.2)


def test_gradcheck_message():
    x, y = leaf(1.0), leaf(1.0, 2.0)
    wrong = crooked(2.0)
    with pytest.raises(GradcheckError) as error:
        gradcheck(lambda x, y: (x * 1.0, wrong(y)), (x, y))
    text = str(error.value)
    assert "output 1 with respect to input 1" in text
    assert "(1, 1)" in text and "numerical 4, " in text and "analytical 8" in text
    assert "largest difference 4" in text and "2 of 4 values" in text


def test_gradcheck_finds_a_wrong_second_gradient():
    def vjp(g, needs, x):
        return (
            (g * cf.Tensor((x if isinstance(x, np.ndarray) else x.array) * 2.0),)
            if isinstance(g, cf.Tensor)
            else (g * x * 2.0,)
        )

    op = Op("cut", vjp, (0,))  # under create_graph the dependence on x is lost
    x = leaf(1.0, 2.0)

    def cut(x):
        return record(x.array * x.array, op, (x,), (x.array,))

    assert gradcheck(cut, x)
    with pytest.raises(GradcheckError):
        gradgradcheck(cut, x)
    assert gradgradcheck(lambda x: x * x, x)


def test_gradgradcheck_with_given_weights():
    x = leaf(1.0, 2.0)
    weights = cf.tensor([0.5, -3.0], dtype="float64")
    assert gradgradcheck(lambda x: x * x * x, x, weights)
    with pytest.raises(RuntimeError, match="must have shape"):
        gradgradcheck(lambda x: x * x * x, x, cf.ones(3, dtype="float64"))


def test_gradcheck_finds_random_gradients():
    rng = np.random.default_rng(0)
    op = Op("noisy", lambda g, needs: (g * (1 + 1e-9 * rng.standard_normal()),), ())
    noisy = lambda x: record(x.array * 1, op, (x,), ())  # noqa: E731
    x = leaf(1.0, 2.0)
    with pytest.raises(GradcheckError, match="not deterministic"):
        gradcheck(noisy, x)
    assert gradcheck(noisy, x, nondet_tol=1e-6)


def test_gradcheck_finds_wrong_shapes_and_dtypes():
    x = leaf(1.0, 2.0)
    low = Op("low", lambda g, needs: (g.astype(np.float32),), ())
    y = lambda x: record(x.array * 1, low, (x * 1.0,), ())  # noqa: E731
    assert gradcheck(y, x)
    lowest = lambda x: record(x.array * 1, low, (x,), ())  # noqa: E731
    with pytest.raises(GradcheckError, match="is float32, expected float64"):
        gradcheck(lowest, x, check_grad_dtypes=True)


def test_gradcheck_of_undefined_gradients():
    def vjp(g, needs):
        first = g[0] if g[0] is not None else 1.0  # forgets that left out means zero
        return (first * 1.0 if g[1] is None else first + g[1],)

    op = Op("forgetful", vjp, ())
    x = leaf(1.0, 2.0)

    def forgetful(x):
        return tuple(record_outputs((x.array * 1, x.array * 1), op, (x,), ()))

    with pytest.raises(GradcheckError):
        gradcheck(forgetful, x)


def test_gradcheck_of_functions_without_gradient():
    x = leaf(1.0, 2.0)
    assert gradcheck(lambda x: cf.tensor([3.0]), x)
    with pytest.raises(GradcheckError, match="requires no gradient but depends on input 0"):
        gradcheck(lambda x: x.detach() * 2.0, x)


def test_gradcheck_restores_inputs_and_takes_other_arguments():
    x = leaf(1.0, 2.0)
    before = host(x)
    assert gradcheck(lambda x, k, t: x * k + t, (x, 3.0, cf.ones(2, dtype="float64")))
    assert host(x) == before and x.grad is None


@pytest.mark.parametrize(
    "inputs, error, message",
    [
        ((cf.ones(2),), ValueError, "at least one input must be a Tensor that requires a gradient"),
        ((3.0,), ValueError, "at least one input"),
        ((leaf(1.0).expand(3),), RuntimeError, r"inputs\[0\] has elements that share memory"),
    ],
)
def test_gradcheck_bad_inputs(inputs, error, message):
    with pytest.raises(error, match=message):
        gradcheck(lambda x: x * 1.0, inputs)


def test_gradcheck_warns_of_low_precision():
    with pytest.warns(UserWarning, match=r"inputs\[0\] is float32"):
        gradcheck(lambda x: x * 1.0, leaf(1.0, dtype="float32"), atol=0.1)
    with pytest.raises(ValueError, match="eps must be positive"):
        gradcheck(lambda x: x, leaf(1.0), eps=0.0)


def test_gradcheck_of_zero_size_and_zero_dimensional_inputs():
    assert gradcheck(lambda x: x * 2.0, leaf())
    assert gradcheck(lambda x: x * 2.0, leaf(), fast_mode=True)
    assert gradcheck(lambda x: x * x, cf.tensor(3.0, dtype="float64", requires_grad=True))


def test_gradcheck_of_noncontiguous_inputs():
    x = cf.Tensor(np.arange(6.0).reshape(2, 3).T).requires_grad_()
    y = cf.Tensor(np.arange(6.0)[::-2]).requires_grad_()
    assert gradcheck(lambda x, y: (x * x).sum() * y, (x, y))
