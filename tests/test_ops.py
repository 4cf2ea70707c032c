"""Every operation of the table against its reference, finite differences, and itself in other clothes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe.autograd import gradcheck, gradgradcheck
from cuframe.dtypes import as_dtype, is_floating
from cuframe.random import manual_seed
from tests.opinfo import OP_DB, OpInfo
from tests.opinfo.core import FLOATS, HALVES, Sample, flatten, tree_map


def per_op(*flags: str) -> pytest.MarkDecorator:
    chosen = [
        i for i in OP_DB if all(getattr(i, f)() if f.startswith("is_") else getattr(i, f) for f in flags)
    ]
    return pytest.mark.parametrize("info", chosen, ids=lambda i: i.id)


def per_op_and_dtype(*flags: str, among: tuple[str, ...] | None = None) -> pytest.MarkDecorator:
    cases = [
        pytest.param(info, dtype, id=f"{info.id}-{dtype}")
        for info in OP_DB
        for dtype in info.dtypes
        if (among is None or dtype in among) and all(getattr(info, flag) for flag in flags)
    ]
    return pytest.mark.parametrize("info, dtype", cases)


def call(info: OpInfo, sample: Sample) -> Any:
    return info.function(*sample.args, **sample.kwargs)


def arrays(result: Any) -> list[np.ndarray]:
    return [r.array if isinstance(r, cf.Tensor) else np.asarray(r) for r in flatten(result)]


def widened(array: np.ndarray) -> np.ndarray:
    """Half precision as float32: NumPy computes little in bfloat16, and float16 results round once."""
    return array.astype(np.float32) if array.dtype.name in HALVES else array


def assert_close(actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float, what: str) -> None:
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if actual.dtype.kind in "biu" and expected.dtype.kind in "biu":
        rtol = atol = 0.0
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    if actual.dtype.kind in "iu" and expected.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
    else:
        np.testing.assert_allclose(actual.astype(wide), expected.astype(wide), rtol, atol, err_msg=what)


def category(dtype: np.dtype) -> str:
    return (
        "bool"
        if dtype.kind == "b"
        else "int"
        if dtype.kind in "iu"
        else "complex"
        if dtype.kind == "c"
        else "float"
    )


def reference_of(info: OpInfo, sample: Sample, half: bool) -> Any:
    args, kwargs = tree_map(lambda t: widened(t.array) if half else t.array, (sample.args, sample.kwargs))
    with np.errstate(all="ignore"):
        return info.reference(*args, **kwargs)  # type: ignore[misc]


@per_op_and_dtype()
def test_reference(info: OpInfo, dtype: str) -> None:
    half = dtype in HALVES
    for sample in info.each(dtype):
        before = [t.array.copy() for t in sample.tensors()]
        result = call(info, sample)
        for t, old in zip(sample.tensors(), before):
            assert np.array_equal(widened(t.array), widened(old), equal_nan=t.dtype.kind not in "biu"), (
                f"{info.id}{sample} changed its input"
            )
        actual = arrays(result)
        for leaf in flatten(result):
            if isinstance(leaf, cf.Tensor):
                assert isinstance(leaf.array, np.ndarray), (
                    f"{info.id}{sample} holds a {type(leaf.array).__name__}"
                )
        if info.reference is None:
            continue
        expected = [np.asarray(e) for e in flatten(reference_of(info, sample, half))]
        assert len(actual) == len(expected), (
            f"{info.id}{sample} gave {len(actual)} results, not {len(expected)}"
        )
        rtol, atol = info.tolerance(dtype)
        if not is_floating(as_dtype(dtype)):
            rtol, atol = info.tolerance("float32")  # floating results of integers are float32
        for i, (a, e) in enumerate(zip(actual, expected)):
            what = f"{info.id}{sample} result {i}"
            assert_close(a, e, rtol, atol, what)
            assert category(a.dtype) == category(e.dtype), f"{what}: {a.dtype}, expected like {e.dtype}"
            if "dtype" not in sample.kwargs and is_floating(a.dtype):
                floats = {t.dtype for t in sample.tensors() if is_floating(t.dtype)}
                if len(floats) == 1:
                    assert {a.dtype} == floats, f"{what}: {a.dtype.name} from {dtype}"
                elif not floats and sample.tensors():
                    assert a.dtype == cf.get_default_dtype(), f"{what}: {a.dtype.name} from {dtype}"


def floating_outputs(result: Any) -> list[cf.Tensor]:
    return [r for r in flatten(result) if isinstance(r, cf.Tensor) and r.requires_grad]


def gradients(info: OpInfo, sample: Sample) -> list[np.ndarray]:
    """Gradients of the tensors that require one, for fixed output weights."""
    outputs = floating_outputs(call(info, sample))
    leaves = [t for t in sample.tensors() if t.requires_grad]
    rng = np.random.default_rng(0)
    seeds = [cf.Tensor(np.asarray(rng.uniform(0.5, 1.5, o.array.shape)).astype(o.dtype)) for o in outputs]
    grads = cf.autograd.grad(outputs, leaves, seeds, materialize_grads=True)
    return [g.to_dense().array if getattr(g, "is_sparse", False) else g.array for g in grads]


@per_op_and_dtype("gradient", among=(*FLOATS, *HALVES))
def test_gradient_dtype_and_determinism(info: OpInfo, dtype: str) -> None:
    for sample in info.each(dtype):
        leaves = [t for t in sample.tensors() if t.requires_grad]
        if not leaves:
            continue
        first, second = gradients(info, sample), gradients(info, sample)
        for i, (t, a, b) in enumerate(zip(leaves, first, second)):
            what = f"{info.id}{sample} gradient {i}"
            assert a.dtype == t.dtype, f"{what}: {a.dtype.name} for an input of {t.dtype.name}"
            assert a.shape == t.array.shape, f"{what}: shape {a.shape} for an input of {t.array.shape}"
            assert a.tobytes() == b.tobytes(), f"{what}: two passes differ"
        if dtype in HALVES:
            wide = sample.map(lambda t: _like(t, widened(t.array)))
            rtol, atol = info.tolerance(dtype)
            for i, (a, e) in enumerate(zip(first, gradients(info, wide))):
                # A gradient is a chain of several rounded operations on weights near 1, which may cancel.
                scale = np.abs(e).max(initial=1.0)
                assert_close(a, e, 4 * rtol, 4 * atol + 2 * rtol * scale, f"{info.id}{sample} gradient {i}")


def _like(t: cf.Tensor, array: np.ndarray) -> cf.Tensor:
    fresh = cf.Tensor(array)
    return fresh.requires_grad_() if t.requires_grad else fresh


def rebuilt(info: OpInfo, sample: Sample) -> tuple[Any, list[cf.Tensor]]:
    """The call as a function of its differentiable tensors alone."""
    leaves = [t for t in sample.tensors() if t.requires_grad]
    place = {id(t): i for i, t in enumerate(leaves)}

    def function(*given: cf.Tensor) -> tuple:
        fresh = sample.map(lambda t: given[place[id(t)]] if id(t) in place else t)
        return tuple(flatten(call(info, fresh)))

    return function, leaves


def large(leaves: list[cf.Tensor]) -> bool:
    return sum(t.array.size for t in leaves) > 24


@per_op("gradient")
def test_gradcheck(info: OpInfo) -> None:
    checked = 0
    for sample in info.each("float64"):
        function, leaves = rebuilt(info, sample)
        if leaves:
            checked += 1
            try:
                gradcheck(function, leaves, fast_mode=large(leaves), check_grad_dtypes=True)
            except Exception as error:
                raise AssertionError(f"{info.id}{sample}: {error}") from error
    assert checked, f"{info.id}: no sample has a tensor that requires a gradient"


@per_op("gradient", "double_gradient")
def test_gradgradcheck(info: OpInfo) -> None:
    for sample in info.each("float64"):
        function, leaves = rebuilt(info, sample)
        if leaves:
            try:
                gradgradcheck(function, leaves, fast_mode=True, check_undefined_grad=False)
            except Exception as error:
                raise AssertionError(f"{info.id}{sample}: {error}") from error


def transposed(a: np.ndarray) -> np.ndarray:
    return np.asfortranarray(a)


def strided(a: np.ndarray) -> np.ndarray:
    return np.repeat(a, 2, axis=-1)[..., ::2]


def reversed_(a: np.ndarray) -> np.ndarray:
    return np.flip(np.flip(a).copy())


@pytest.mark.parametrize("layout", [transposed, strided, reversed_], ids=lambda f: f.__name__.strip("_"))
@per_op()
def test_noncontiguous(info: OpInfo, layout: Any) -> None:
    dtype = "float64" if "float64" in info.dtypes else info.dtypes[0]
    rtol, atol = info.tolerance(dtype)
    for sample in info.each(dtype):
        other = sample.map(lambda t: _like(t, layout(t.array) if t.array.ndim else t.array))
        if info.reference is not None:
            for i, (a, e) in enumerate(
                zip(arrays(call(info, other)), arrays(call(info, sample)), strict=True)
            ):
                assert_close(a, e, rtol, atol, f"{info.id}{sample} result {i} of {layout.__name__} input")
            if info.gradient and any(t.requires_grad for t in sample.tensors()):
                for i, (a, e) in enumerate(zip(gradients(info, other), gradients(info, sample), strict=True)):
                    assert_close(
                        a, e, rtol, atol, f"{info.id}{sample} gradient {i} of {layout.__name__} input"
                    )
        else:
            for a, e in zip(arrays(call(info, other)), arrays(call(info, sample)), strict=True):
                assert a.shape == e.shape and a.dtype == e.dtype


@per_op("zero_size")
def test_zero_size(info: OpInfo) -> None:
    """Where all tensors of a call and its results have one shape, they do with an empty first dimension."""
    dtype = info.dtypes[0]
    for sample in info.each(dtype):
        shapes = {t.array.shape for t in sample.tensors()}
        if (
            len(shapes) != 1
            or not (shape := shapes.pop())
            or any(a.shape != shape for a in arrays(call(info, sample)))
        ):
            continue
        empty = sample.map(lambda t: _like(t, t.array[:0]))
        result = call(info, empty)
        for a in arrays(result):
            assert a.shape == (0, *shape[1:]), f"{info.id}{empty} has shape {a.shape}"
        if info.gradient and floating_outputs(result):
            for g in gradients(info, empty):
                assert g.shape == (0, *shape[1:])


@per_op("is_broadcasting")
def test_broadcasting(info: OpInfo) -> None:
    """(2, 1, 3) against (4, 1), (3,), () and (0, 1): as if both had been expanded before."""
    make = info.make("float64" if "float64" in info.dtypes else info.dtypes[0])
    sample = next(
        s for s in info.each(make.dtype.name) if len(s.args) > 1 and isinstance(s.args[1], cf.Tensor)
    )
    pool = [np.abs(a) if (a > 0).all() else a for a in (t.array.reshape(-1) for t in sample.args[:2])]
    pairs = [
        ((2, 1, 3), (4, 1)),
        ((2, 1, 3), (3,)),
        ((3,), (2, 1, 3)),
        ((2, 3), ()),
        ((), (2,)),
        ((2, 1), (0, 1, 1)),
    ]
    for left, right in pairs:
        x, y = (_like(t, np.resize(p, s)) for t, p, s in zip(sample.args, pool, (left, right)))
        shape = np.broadcast_shapes(left, right)
        x_full, y_full = (_like(t, np.broadcast_to(t.array, shape).copy()) for t in (x, y))
        rest = sample.args[2:]
        apart, full = Sample((x, y, *rest), sample.kwargs), Sample((x_full, y_full, *rest), sample.kwargs)
        result = call(info, apart)
        np.testing.assert_array_equal(result.array, call(info, full).array)
        if info.gradient and result.requires_grad:
            (gx, gy), (fx, fy) = gradients(info, apart), gradients(info, full)
            for g, f, s in ((gx, fx, left), (gy, fy, right)):
                axes = tuple(range(len(shape) - len(s)))
                f = f.sum(axis=axes)
                axes = tuple(k for k, n in enumerate(s) if n == 1 and f.shape[k] != 1)
                np.testing.assert_allclose(g, f.sum(axis=axes, keepdims=True) if axes else f, 1e-9, 1e-12)
    with pytest.raises(RuntimeError, match=r"shapes? .*\(2,\).*\(3,\)"):
        call(info, Sample((cf.Tensor(pool[0][:1].repeat(2)), cf.Tensor(pool[1][:1].repeat(3)))))


@per_op("is_method")
def test_method_is_function(info: OpInfo) -> None:
    dtype = "float64" if "float64" in info.dtypes else info.dtypes[0]
    name = info.name.rpartition(".")[2]
    called = 0
    for sample in info.each(dtype):
        if not sample.args or not isinstance(sample.args[0], cf.Tensor):
            continue
        called += 1
        manual_seed(0)
        expected = arrays(call(info, sample))
        manual_seed(0)
        actual = arrays(getattr(sample.args[0], name)(*sample.args[1:], **sample.kwargs))
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == e.dtype and a.shape == e.shape
            if "empty" not in name:
                np.testing.assert_array_equal(a, e)
    assert called, f"{info.id}: no sample has a Tensor first"


RESHAPING = ("t_", "transpose_", "squeeze_", "unsqueeze_", "swapaxes_")


@per_op("is_inplace")
def test_inplace_is_function(info: OpInfo) -> None:
    dtype = "float64" if "float64" in info.dtypes else info.dtypes[0]
    name = info.name.rpartition(".")[2] + "_"
    written = 0
    for sample in info.each(dtype):
        x = sample.args[0]
        expected = call(info, sample)
        base = cf.Tensor(x.array.copy())
        if expected.array.shape != x.array.shape and name not in RESHAPING:
            with pytest.raises(RuntimeError, match=name):
                getattr(base, name)(*sample.args[1:], **sample.kwargs)
            np.testing.assert_array_equal(base.array, x.array)
            continue
        written += 1
        fresh = Sample(((x * 1 if x.requires_grad else base), *sample.args[1:]), sample.kwargs)
        target = fresh.args[0]
        result = getattr(target, name)(*fresh.args[1:], **fresh.kwargs)
        assert result is target
        np.testing.assert_array_equal(target.array, expected.array)
        assert target.dtype == x.dtype
        if expected.requires_grad and expected.dtype == x.dtype:
            leaves = [t for t in sample.tensors() if t.requires_grad]
            seed = cf.Tensor(np.linspace(0.5, 1.5, expected.array.size).reshape(expected.array.shape))
            a = cf.autograd.grad(target, leaves, seed, materialize_grads=True)
            e = cf.autograd.grad(expected, leaves, seed, materialize_grads=True)
            for i, (ga, ge) in enumerate(zip(a, e)):
                np.testing.assert_allclose(
                    ga.array, ge.array, 1e-12, 0, err_msg=f"{name}{sample} gradient {i}"
                )
    assert written, f"{info.id}: no sample fits in place"


@per_op("errors")
def test_errors(info: OpInfo) -> None:
    name = info.name.rpartition(".")[2]
    for error in info.errors(info.make(info.dtypes[0])):  # type: ignore[misc]
        shown = Sample(error.args, error.kwargs)
        try:
            result = info.function(*error.args, **error.kwargs)
        except error.exception as raised:
            assert re.search(error.match, str(raised)), (
                f"{name}{shown}: {raised!s} does not match {error.match!r}"
            )
        except Exception as raised:
            raise AssertionError(
                f"{name}{shown} raised {raised!r}, expected {error.exception.__name__}"
            ) from raised
        else:
            raise AssertionError(f"{name}{shown} gave {result!r}, expected {error.exception.__name__}")
