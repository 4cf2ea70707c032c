"""autograd.functional: Jacobians, Hessians and products with vectors."""

from __future__ import annotations

import numpy as np
import pytest

import cuframe as cf
from cuframe.autograd.functional import hessian, hvp, jacobian, jvp, vhp, vjp


def vector(*values):
    return cf.tensor(list(values), dtype="float64")


W = cf.tensor([[1.0, 2.0, -1.0], [0.5, -3.0, 4.0]], dtype="float64")
X = vector(0.3, -0.7, 1.1)


def curved(x):
    return (W * x.exp()).sum(1)


CURVED_JACOBIAN = W.array * np.exp(X.array)


def test_jacobian():
    j = jacobian(curved, X)
    np.testing.assert_allclose(j.array, CURVED_JACOBIAN, 1e-12)
    assert not j.requires_grad and not X.requires_grad


def test_jacobian_of_several_inputs_and_outputs():
    y = vector(2.0, 3.0, 4.0)
    (sx, sy), (px, py) = jacobian(lambda x, y: (x.sum() + 0 * y.sum(), x * y), (X, y))
    assert sx.shape == (3,) and sy.shape == (3,) and px.shape == (3, 3)
    np.testing.assert_allclose(sx.array, np.ones(3))
    np.testing.assert_allclose(sy.array, np.zeros(3))
    np.testing.assert_allclose(px.array, np.diag(y.array))
    np.testing.assert_allclose(py.array, np.diag(X.array))


def test_shapes_are_those_of_outputs_then_inputs():
    x = cf.ones(2, 3, dtype="float64")
    assert jacobian(lambda x: x.reshape(3, 2, 1), x).shape == (3, 2, 1, 2, 3)
    assert jacobian(lambda x: x.sum(), x).shape == (2, 3)
    assert jacobian(lambda x: x[:0], x).shape == (0, 3, 2, 3)
    assert hessian(lambda x: (x * x).sum(), x).shape == (2, 3, 2, 3)


def test_jacobian_can_be_differentiated():
    x = vector(0.3, -0.7, 1.1).requires_grad_()
    jacobian(curved, x, create_graph=True).sum().backward()
    np.testing.assert_allclose(x.grad.array, CURVED_JACOBIAN.sum(0), 1e-12)


def test_vjp_and_jvp():
    v, u = vector(1.0, -2.0), vector(1.0, 0.5, 2.0)
    out, back = vjp(curved, X, v)
    np.testing.assert_allclose(out.array, curved(X).array)
    np.testing.assert_allclose(back.array, v.array @ CURVED_JACOBIAN, 1e-12)
    out, forth = jvp(curved, X, u)
    np.testing.assert_allclose(out.array, curved(X).array)
    np.testing.assert_allclose(forth.array, CURVED_JACOBIAN @ u.array, 1e-12)


def test_jvp_of_linear_and_constant_functions():
    _, forth = jvp(lambda x: x * 2.0, X, X)
    np.testing.assert_allclose(forth.array, 2 * X.array)
    _, forth = jvp(lambda x: vector(1.0, 2.0), X, X)
    assert forth.array.tolist() == [0.0, 0.0]


def test_hessian_and_products():
    def f(x):
        return (x * x * x).sum() + x[0] * x[1]

    expected = np.diag(6 * X.array)
    expected[0, 1] = expected[1, 0] = 1
    np.testing.assert_allclose(hessian(f, X).array, expected)
    v = vector(1.0, 2.0, 3.0)
    for product in (vhp, hvp):
        out, got = product(f, X, v)
        np.testing.assert_allclose(out.array, f(X).array)
        np.testing.assert_allclose(got.array, expected @ v.array)


def test_hessian_of_several_inputs():
    x, y = vector(1.0, 2.0), vector(3.0)
    (xx, xy), (yx, yy) = hessian(lambda x, y: (x * x * y).sum(), (x, y))
    assert xx.array.tolist() == [[6.0, 0.0], [0.0, 6.0]]
    assert xy.array.tolist() == [[2.0], [4.0]] and yx.array.tolist() == [[2.0, 4.0]]
    assert yy.array.tolist() == [[0.0]]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: jacobian(curved, 3.0), TypeError, r"jacobian: inputs\[0\] must be a Tensor, got float"),
        (lambda: jacobian(lambda x: 3.0, X), TypeError, "jacobian: output 0 of the function must be a Tensor"),
        (lambda: jacobian(curved, (3.0,)), TypeError, r"jacobian: inputs\[0\] must be a Tensor, got float"),
        (lambda: jacobian(lambda x: [3.0], X), TypeError, "jacobian: output 0 of the function must be a Tensor"),
        (lambda: hessian(curved, X), RuntimeError, r"hessian: the function must give one element, got shapes \(2,\)"),
        (lambda: vjp(curved, X), RuntimeError, "vjp: v can be left out only for a single element"),
        (lambda: vjp(curved, X, X), RuntimeError, r"vjp: v\[0\] must have shape \(2,\), got \(3,\)"),
        (lambda: jvp(curved, X, (X, X)), RuntimeError, r"jvp: v must have 1 tensor\(s\), got 2"),
        (lambda: jacobian(lambda x, y: x * 1.0, (X, X), strict=True), RuntimeError, r"do not depend on inputs\[1\]"),
        (lambda: jacobian(lambda x: vector(1.0), X, strict=True), RuntimeError, "an output does not depend"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
