"""Gradients against finite differences: what autograd says beside what the function does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .engine import grad
from .modes import enable_grad

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """A gradient that autograd computed is not the function's derivative.

    >>> import cuframe as cf
    >>> x = cf.tensor([1.0], dtype=cf.float64, requires_grad=True)
    >>> try:
    ...     cf.autograd.gradcheck(lambda x: x.detach() * x, (x,))
    ... except cf.autograd.GradcheckError as error:
    ...     print(str(error).splitlines()[0])
    gradcheck: the gradient of output 0 with respect to input 0 is wrong at ...: numerical 2, analytical 1, ...
    """


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    fast_mode: bool = False,
) -> bool:
    """Compare the gradients of `func` with central differences, `(f(x + eps) - f(x - eps)) / 2 eps`.

    Args:
        func: takes the inputs, returns a Tensor or a tuple of them.
        inputs: a Tensor or a sequence; those that require a gradient are checked and should be float64.
        eps: the step.
        atol: absolute tolerance.
        rtol: relative tolerance, of the numerical value.
        raise_exception: raise GradcheckError; otherwise return False.
        nondet_tol: how far two backward passes over one graph may differ.
        check_undefined_grad: a gradient left out for one of several outputs must act like zeros.
        check_grad_dtypes: gradients must have their input's dtype.
        fast_mode: compare one random projection of the Jacobian instead of every entry.

    Returns:
        True if everything agrees.

    Raises:
        GradcheckError: it does not; the message names output, input, entry and both numbers.
        ValueError: no input requires a gradient.

    >>> import cuframe as cf
    >>> x = cf.tensor([0.5, 2.0], dtype=cf.float64, requires_grad=True)
    >>> cf.autograd.gradcheck(lambda x: x * x, (x,))
    True
    """
    args: tuple = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    _check_arguments(args, eps)
    settings = (eps, atol, rtol)
    try:
        outputs = _outputs(func, args)
        if not outputs:
            _check_not_differentiable(func, args, settings)
            return True
        check = _check_fast if fast_mode else _check_slow
        for j in [k for k, x in enumerate(args) if _differentiable(x)]:
            check(func, args, outputs, j, settings, nondet_tol, check_grad_dtypes)
        if check_undefined_grad and len(outputs) > 1:
            _check_undefined(args, outputs, atol, rtol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    fast_mode: bool = False,
) -> bool:
    """Compare the gradients of `func`'s gradients, in the inputs and in `grad_outputs`, with central
    differences.

    Args:
        grad_outputs: one tensor for each differentiable output; random by default.

    The other arguments, result and errors are those of `gradcheck`.

    >>> import cuframe as cf
    >>> x = cf.tensor([0.5, 2.0], dtype=cf.float64, requires_grad=True)
    >>> cf.autograd.gradgradcheck(lambda x: x * x * x, (x,))
    True
    """
    args: tuple = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    _check_arguments(args, eps)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        seeds = [
            Tensor(backend_of(o.array).asarray(rng.standard_normal(o.array.shape).astype(o.dtype), o.array))
            for o in _outputs(func, args)
        ]
    else:
        seeds = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    for seed in seeds:
        if not seed.requires_grad:
            seed.requires_grad_()
    count = len(seeds)
    which = [j for j, x in enumerate(args) if _differentiable(x)]

    def first_gradients(*both: Any) -> tuple[Tensor, ...]:
        given, weights = both[: len(both) - count], both[len(both) - count :]
        outputs = _outputs(func, given)
        grads = grad(outputs, [given[j] for j in which], weights, create_graph=True, allow_unused=True)
        return tuple(g for g in grads if g is not None)

    return gradcheck(
        first_gradients, (*args, *seeds), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
        nondet_tol=nondet_tol, check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,
        fast_mode=fast_mode,
    )  # fmt: skip


def _differentiable(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _check_arguments(args: tuple, eps: float) -> None:
    if not eps > 0:
        raise ValueError(f"gradcheck: eps must be positive, got {eps}")
    if not any(_differentiable(x) for x in args):
        raise ValueError("gradcheck: at least one input must be a Tensor that requires a gradient")
    for j, x in enumerate(args):
        if not _differentiable(x):
            continue
        if x.dtype.kind == "c":
            raise TypeError(f"gradcheck: inputs[{j}] must be real, got {x.dtype.name}")
        if x.dtype != np.float64:
            warnings.warn(
                f"gradcheck: inputs[{j}] is {x.dtype.name}; differences need float64 to be exact enough",
                stacklevel=3,
            )
        strides = getattr(x.array, "strides", ())
        if x.array.size and any(step == 0 and size > 1 for step, size in zip(strides, x.array.shape)):
            raise RuntimeError(
                f"gradcheck: inputs[{j}] has elements that share memory (expanded); pass a copy"
            )


def _outputs(func: Callable, args: tuple) -> list[Tensor]:
    """The differentiable outputs."""
    with enable_grad():
        result = func(*args)
    listed = list(result) if isinstance(result, (tuple, list)) else [result]
    return [o for o in listed if isinstance(o, Tensor) and o.requires_grad and o.dtype.kind != "c"]


def _host(value: Any) -> np.ndarray:
    """A float64 copy on the host."""
    if getattr(value, "is_sparse", False):
        value = value.to_dense()
    return np.array(backend_of(value.array).to_host(value.array), dtype=np.float64)


def _values(func: Callable, args: tuple, count: int) -> list[np.ndarray]:
    outputs = _outputs(func, args)
    if len(outputs) != count:
        raise GradcheckError(
            f"gradcheck: the function gave {count} differentiable outputs once and {len(outputs)} then"
        )
    return [_host(o) for o in outputs]


def _difference(
    func: Callable, args: tuple, x: Tensor, count: int, step: Any, eps: float
) -> list[np.ndarray]:
    """Central difference of all outputs when `x` moves along `step`, an index or an array."""
    array = x.array
    before = array.copy()
    moved = []
    try:
        for sign in (1.0, -1.0):
            if isinstance(step, tuple):
                array[step] = before[step] + sign * eps
            else:
                array[...] = before + sign * eps * step
            moved.append(_values(func, args, count))
    finally:
        array[...] = before
    return [(hi - lo) / (2 * eps) for hi, lo in zip(*moved)]


def _gradient(output: Tensor, x: Tensor, weight: np.ndarray) -> Any:
    seed = Tensor(backend_of(output.array).asarray(weight.astype(output.dtype), output.array))
    return grad(output, x, seed, retain_graph=True, allow_unused=True)[0]


def _backward(
    output: Tensor, x: Tensor, weight: np.ndarray, i: int, j: int, nondet: float, dtypes: bool
) -> np.ndarray:
    """The gradient of output i for input j, checked for shape, dtype and repeatability."""
    first, second = _gradient(output, x, weight), _gradient(output, x, weight)
    if first is None:
        return np.zeros(x.array.shape)
    where = f"output {i} with respect to input {j}"
    if tuple(first.shape) != tuple(x.shape):
        raise GradcheckError(
            f"gradcheck: the gradient of {where} has shape {tuple(first.shape)}, expected {tuple(x.shape)}"
        )
    if dtypes and first.dtype != x.dtype:
        raise GradcheckError(
            f"gradcheck: the gradient of {where} is {first.dtype.name}, expected {x.dtype.name}"
        )
    a, b = _host(first), _host(second)
    if not np.array_equal(a, b, equal_nan=True):
        gap = np.abs(a - b).max()
        if not gap <= nondet:
            raise GradcheckError(
                f"gradcheck: backward is not deterministic: two passes for {where} differ by up to {gap:.3g}"
            )
    return a


def _compare(
    numeric: np.ndarray, analytic: np.ndarray, i: int, j: int, atol: float, rtol: float, what: str
) -> None:
    gap = np.abs(numeric - analytic)
    wrong = ~(gap <= atol + rtol * np.abs(numeric)) & ~(np.isnan(numeric) & np.isnan(analytic))
    if not wrong.any():
        return
    worst = np.unravel_index(
        np.argmax(np.where(wrong, np.where(np.isnan(gap), np.inf, gap), -1.0)), gap.shape
    )
    place = f" at {what} {tuple(int(k) for k in worst)}" if what else ""
    raise GradcheckError(
        f"gradcheck: the gradient of output {i} with respect to input {j} is wrong{place}: "
        f"numerical {numeric[worst]:.9g}, analytical {analytic[worst]:.9g}, "
        f"largest difference {gap[worst]:.3g} "
        f"({int(wrong.sum())} of {wrong.size} values beyond atol={atol:g}, rtol={rtol:g})"
    )


def _check_slow(
    func: Callable, args: tuple, outputs: list, j: int, settings: tuple, nondet: float, dtypes: bool
) -> None:
    """Every entry of the Jacobians of input j; axes: those of the output, then those of the input."""
    eps, atol, rtol = settings
    x = args[j]
    shape = tuple(x.array.shape)
    numeric = [np.zeros((*o.array.shape, *shape)) for o in outputs]
    for index in np.ndindex(shape):
        for i, column in enumerate(_difference(func, args, x, len(outputs), index, eps)):
            numeric[i][(..., *index)] = column
    for i, output in enumerate(outputs):
        analytic = np.zeros_like(numeric[i])
        weight = np.zeros(output.array.shape)
        for index in np.ndindex(weight.shape):
            weight[index] = 1.0
            analytic[index] = _backward(output, x, weight, i, j, nondet, dtypes)
            weight[index] = 0.0
        _compare(numeric[i], analytic, i, j, atol, rtol, "(output index, input index)")


def _check_fast(
    func: Callable, args: tuple, outputs: list, j: int, settings: tuple, nondet: float, dtypes: bool
) -> None:
    """One number a Jacobian: v . J u for random unit vectors u and v."""
    eps, atol, rtol = settings
    x = args[j]
    if not x.array.size:
        return
    rng = np.random.default_rng(j)
    u = rng.standard_normal(x.array.shape)
    u /= np.linalg.norm(u)
    differences = _difference(func, args, x, len(outputs), backend_of(x.array).asarray(u, x.array), eps)
    for i, (output, along_u) in enumerate(zip(outputs, differences)):
        if not along_u.size:
            continue
        v = rng.standard_normal(along_u.shape)
        v /= np.linalg.norm(v)
        analytic = (_backward(output, x, v, i, j, nondet, dtypes) * u).sum()
        # An error of atol in each entry adds up to this much.
        bound = atol * float(np.abs(u).sum() * np.abs(v).sum())
        _compare(np.asarray((along_u * v).sum()), np.asarray(analytic), i, j, bound, rtol, "")


def _check_not_differentiable(func: Callable, args: tuple, settings: tuple) -> None:
    """A function whose outputs require no gradient must not depend on its inputs."""
    eps, atol, rtol = settings

    def plain(*given: Any) -> tuple:
        result = func(*given)
        listed = list(result) if isinstance(result, (tuple, list)) else [result]
        return tuple(
            Tensor(o.array).requires_grad_() for o in listed if isinstance(o, Tensor) and o.dtype.kind == "f"
        )

    count = len(plain(*args))
    if not count:
        return
    for j, x in enumerate(args):
        if not _differentiable(x):
            continue
        for index in np.ndindex(tuple(x.array.shape)):
            for i, column in enumerate(_difference(plain, args, x, count, index, eps)):
                if np.abs(column).max(initial=0.0) > atol:
                    raise GradcheckError(
                        f"gradcheck: output {i} requires no gradient but depends on input {j}: "
                        f"numerical derivative {column.flat[np.abs(column).argmax()]:.9g}, expected 0"
                    )


def _check_undefined(args: tuple, outputs: list, atol: float, rtol: float) -> None:
    """Leaving out the gradient of all outputs but one is the same as passing zeros for them."""
    targets = [x for x in args if _differentiable(x)]
    places = [j for j, x in enumerate(args) if _differentiable(x)]
    rng = np.random.default_rng(0)
    weights = [
        backend_of(o.array).asarray(rng.standard_normal(o.array.shape).astype(o.dtype), o.array)
        for o in outputs
    ]
    for i, output in enumerate(outputs):
        zeros = [Tensor(w if k == i else w * 0) for k, w in enumerate(weights)]
        alone = grad(output, targets, Tensor(weights[i]), retain_graph=True, allow_unused=True)
        filled = grad(outputs, targets, zeros, retain_graph=True, allow_unused=True)
        for j, a, b in zip(places, alone, filled):
            full = np.zeros(args[j].array.shape)
            left = full if a is None else _host(a)
            right = full if b is None else _host(b)
            if not np.allclose(left, right, rtol=rtol, atol=atol, equal_nan=True):
                raise GradcheckError(
                    f"gradcheck: with only output {i} given a gradient, that of input {j} differs by "
                    f"{np.abs(left - right).max():.3g} from the one with zeros for the other outputs"
                )
