"""Whole derivatives of functions: Jacobians, Hessians, and their products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..tensor import Tensor
from .engine import _listed, grad
from .modes import enable_grad

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors = Tensor | Sequence[Tensor]


def vjp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs of `func`, and `v^T J`, the gradients of its outputs weighted by `v`.

    Args:
        func: takes Tensors, returns a Tensor or a tuple of them.
        inputs: a Tensor or a tuple.
        v: like the outputs; may be left out for one output of one element.
        create_graph: record, so that the result can be differentiated.
        strict: raise if an output does not depend on an input, instead of giving zeros.

    Raises:
        RuntimeError: `v` has a wrong shape, or `strict` and something is independent.

    >>> import cuframe as cf
    >>> x = cf.tensor([1.0, 2.0])
    >>> cf.autograd.functional.vjp(lambda x: x * x, x, cf.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    with enable_grad():
        xs, single_in = _inputs("vjp", inputs, create_graph)
        outputs, single_out = _call("vjp", func, xs)
        weights = _vectors("vjp", v, outputs, single_out)
        grads = _grad("vjp", outputs, xs, weights, create_graph, strict)
    return _packed(outputs, single_out, create_graph), _packed(grads, single_in, create_graph)


def jvp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs of `func`, and `J v`, their derivative in the direction `v` of the inputs.

    It differentiates the gradient with respect to its weights, so `func` must be differentiable twice.

    Args:
        v: like the inputs; may be left out for one input of one element.

    The other arguments and errors are those of `vjp`.

    >>> import cuframe as cf
    >>> x = cf.tensor([1.0, 2.0])
    >>> cf.autograd.functional.jvp(lambda x: (x * x).sum(), x, cf.tensor([1.0, 10.0]))
    (tensor(5.), tensor(42.))
    """
    with enable_grad():
        xs, single_in = _inputs("jvp", inputs, create_graph)
        directions = _vectors("jvp", v, xs, single_in)
        outputs, single_out = _call("jvp", func, xs)
        weights = [Tensor(np.zeros_like(o.array)).requires_grad_() for o in outputs]
        grads = _grad("jvp", outputs, xs, weights, True, strict)
        pairs = [(g, d) for g, d in zip(grads, directions) if g.requires_grad]
        products: Sequence[Any] = [Tensor(np.zeros_like(o.array)) for o in outputs]
        if pairs:
            products = grad(
                [g for g, _ in pairs],
                weights,
                [d for _, d in pairs],
                create_graph=create_graph,
                materialize_grads=True,
            )
    return _packed(outputs, single_out, create_graph), _packed(products, single_out, create_graph)


def jacobian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False
) -> Any:
    """All derivatives of the outputs of `func`: `J[i, j] = d output[i] / d input[j]`.

    Args:
        func: takes Tensors, returns a Tensor or a tuple of them.
        inputs: a Tensor or a tuple.
        create_graph: record, so that the result can be differentiated.
        strict: raise if an output does not depend on an input, instead of giving zeros.

    Returns:
        A Tensor of the output's shape followed by the input's; a tuple over inputs if `inputs` is a tuple, and a
        tuple over outputs of that if `func` returns a tuple.

    >>> import cuframe as cf
    >>> cf.autograd.functional.jacobian(lambda x: x * x, cf.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    from ..ops.join import stack
    from ..ops.shape import reshape

    with enable_grad():
        xs, single_in = _inputs("jacobian", inputs, create_graph)
        outputs, single_out = _call("jacobian", func, xs)
        table = []
        for output in outputs:
            rows: list[tuple] = []
            weight = np.zeros_like(output.array)
            for index in np.ndindex(tuple(output.shape)):
                weight[index] = 1
                rows.append(_grad("jacobian", [output], xs, [Tensor(weight.copy())], create_graph, strict))
                weight[index] = 0
            entry = []
            for j, x in enumerate(xs):
                shape = (*output.shape, *x.shape)
                whole = stack([row[j] for row in rows]) if rows else Tensor(np.zeros_like(x.array, shape=shape))
                entry.append(reshape(whole, shape))
            table.append(_packed(entry, single_in, create_graph))
    return table[0] if single_out else tuple(table)


def hessian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False
) -> Any:
    """All second derivatives of a function with one output of one element.

    The arguments are those of `jacobian`.

    Returns:
        A Tensor of the input's shape twice; for a tuple of inputs a tuple of tuples.

    Raises:
        RuntimeError: the function gives more than one element.

    >>> import cuframe as cf
    >>> cf.autograd.functional.hessian(lambda x: (x * x * x).sum(), cf.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """

    def gradient(*xs: Tensor) -> Any:
        outputs = _scalar("hessian", func, xs)
        grads = _grad("hessian", outputs, xs, [None], True, strict)
        return grads[0] if isinstance(inputs, Tensor) else grads

    return jacobian(gradient, inputs, create_graph=create_graph, strict=strict)


def vhp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The output of `func`, and `v^T H` with its matrix of second derivatives; `v` is like the inputs.

    Args:
        func: takes Tensors, returns a Tensor of one element.
        inputs: a Tensor or a tuple.
        v: like the inputs; may be left out for one input of one element.
        create_graph: record, so that the result can be differentiated.
        strict: raise if the output does not depend on an input, instead of giving zeros.

    >>> import cuframe as cf
    >>> x = cf.tensor([1.0, 2.0])
    >>> cf.autograd.functional.vhp(lambda x: (x * x * x).sum(), x, cf.tensor([1.0, 10.0]))
    (tensor(9.), tensor([  6., 120.]))
    """
    with enable_grad():
        xs, single = _inputs("vhp", inputs, create_graph)
        directions = _vectors("vhp", v, xs, single)
        outputs = _scalar("vhp", func, xs)
        grads = _grad("vhp", outputs, xs, [None], True, strict)
        products = _grad("vhp", grads, xs, directions, create_graph, strict)
    return _packed(outputs, True, create_graph), _packed(products, single, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The output of `func`, and `H v`; as H is symmetric, this is `vhp`.

    Args:
        func, inputs, v, create_graph, strict: as in `vhp`.

    >>> import cuframe as cf
    >>> x = cf.tensor([1.0, 2.0])
    >>> cf.autograd.functional.hvp(lambda x: (x * x * x).sum(), x, cf.tensor([1.0, 10.0]))
    (tensor(9.), tensor([  6., 120.]))
    """
    return vhp(func, inputs, v, create_graph, strict)


def _inputs(name: str, inputs: Any, create_graph: bool) -> tuple[list[Tensor], bool]:
    """Inputs to differentiate by: cut off the graph, or under `create_graph` copies that stay in it."""
    single = isinstance(inputs, Tensor)
    xs = []
    for i, x in enumerate(_listed(inputs)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: inputs[{i}] must be a Tensor, got {type(x).__name__}")
        connected = create_graph and x.requires_grad
        xs.append(x.clone() if connected else x.detach().requires_grad_())  # type: ignore[attr-defined]
    return xs, single


def _call(name: str, func: Callable, xs: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    result = func(*xs)
    single = isinstance(result, Tensor)
    outputs = _listed(result)
    for i, o in enumerate(outputs):
        if not isinstance(o, Tensor):
            raise TypeError(f"{name}: output {i} of the function must be a Tensor, got {type(o).__name__}")
    return outputs, single


def _scalar(name: str, func: Callable, xs: Sequence[Tensor]) -> list[Tensor]:
    outputs, _ = _call(name, func, xs)
    if len(outputs) != 1 or outputs[0].array.size != 1:
        shapes = ", ".join(str(tuple(o.shape)) for o in outputs)
        raise RuntimeError(f"{name}: the function must give one element, got shapes {shapes}")
    return outputs


def _vectors(name: str, v: Any, like: Sequence[Tensor], single: bool) -> list[Tensor]:
    """`v` as a list that fits `like`."""
    if v is None:
        if len(like) != 1 or like[0].array.size != 1:
            raise RuntimeError(f"{name}: v can be left out only for a single element")
        return [Tensor(np.ones_like(like[0].array))]
    vectors = _listed(v)
    if len(vectors) != len(like):
        raise RuntimeError(f"{name}: v must have {len(like)} tensor(s), got {len(vectors)}")
    for i, (given, t) in enumerate(zip(vectors, like)):
        if tuple(given.shape) != tuple(t.shape):
            raise RuntimeError(f"{name}: v[{i}] must have shape {tuple(t.shape)}, got {tuple(given.shape)}")
    return vectors


def _grad(
    name: str, outputs: Sequence[Tensor], xs: Sequence[Tensor], weights: Any, create_graph: bool, strict: bool
) -> tuple:
    """Gradients with zeros for what is independent; outputs without a gradient contribute nothing."""
    pairs = [(o, w) for o, w in zip(outputs, weights) if o.requires_grad]
    if strict and len(pairs) < len(outputs):
        raise RuntimeError(f"{name}: an output does not depend on the inputs")
    found: Sequence[Any] = [None] * len(xs)
    if pairs:
        found = grad(
            [o for o, _ in pairs],
            xs,
            [w for _, w in pairs],
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
        )
    if strict and any(g is None for g in found):
        raise RuntimeError(f"{name}: the outputs do not depend on inputs[{[g is None for g in found].index(True)}]")
    return tuple([Tensor(np.zeros_like(x.array)) if g is None else g for g, x in zip(found, xs)])


def _packed(tensors: Sequence[Tensor], single: bool, create_graph: bool) -> Any:
    kept = tensors if create_graph else [t.detach() for t in tensors]
    return kept[0] if single else tuple(kept)
