"""Between PyTorch and cuframe: the same call with the tensors of each, and the comparison of the results."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import cuframe as cf

# (rtol, atol); float32 results of two libraries differ by a few roundings.
TOLERANCES = {"float64": (1e-7, 1e-7), "float32": (1e-5, 1e-5)}


class Unsupported(Exception):
    """The call uses something that cuframe does not offer by design; the message says what."""


def quietly(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call PyTorch without its warnings, which pytest would make errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def to_dtype(dtype: torch.dtype) -> np.dtype:
    name = str(dtype).removeprefix("torch.")
    if dtype.is_complex:
        raise Unsupported("complex numbers")
    try:
        return cf.as_dtype(name)
    except TypeError:
        raise Unsupported(f"dtype {name}") from None


def to_cuframe(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """`value` with torch's objects replaced; equal tensors stay one tensor, strides stay."""
    memo = {} if memo is None else memo
    if isinstance(value, torch.Tensor):
        if id(value) not in memo:
            memo[id(value)] = _tensor(value)
        return memo[id(value)]
    if isinstance(value, torch.dtype):
        return to_dtype(value)
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, (torch.layout, torch.memory_format, torch.Generator, torch.qscheme)):
        raise Unsupported(f"{type(value).__name__} arguments")
    if isinstance(value, complex):
        raise Unsupported("complex numbers")
    if callable(value) and getattr(value, "__module__", "") in ("torch._C._nn", "torch.nn.functional"):
        return getattr(cf.nn.functional, value.__name__)  # an activation
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        return _encoder_layer(value)
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_cuframe(v, memo) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(to_cuframe(v, memo) for v in value)
    if isinstance(value, dict):
        return {k: to_cuframe(v, memo) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(to_cuframe(v, memo) for v in (value.start, value.stop, value.step)))
    return value


def _tensor(value: torch.Tensor) -> cf.Tensor:
    if value.layout is not torch.strided or value.is_quantized:
        raise Unsupported("sparse and quantized tensors")
    to_dtype(value.dtype)
    plain = value.detach().resolve_neg().clone()
    if value.dtype is torch.bfloat16:
        t = cf.Tensor(plain.float().numpy().astype(cf.bfloat16))
    else:
        t = cf.Tensor(plain.numpy())
    return t.requires_grad_() if value.requires_grad else t


def _encoder_layer(theirs: torch.nn.TransformerEncoderLayer) -> cf.nn.Module:
    """A layer of the same settings; its parameters are loaded with those of the stack that copies it."""
    attention = theirs.self_attn
    return cf.nn.TransformerEncoderLayer(
        attention.embed_dim, attention.num_heads, theirs.linear1.out_features, theirs.dropout.p,
        to_cuframe(theirs.activation), theirs.norm1.eps, attention.batch_first, theirs.norm_first,
        theirs.linear1.bias is not None,
    )  # fmt: skip


def flat(value: Any) -> list[Any]:
    """The leaves of nested sequences and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return [leaf for v in value for leaf in flat(v)]
    return [value]


def host(t: Any) -> np.ndarray:
    """A tensor of either library, or a number, as a NumPy array."""
    if isinstance(t, torch.Tensor):
        t = t.detach().resolve_conj().resolve_neg().clone()  # a clone has memory, a lazy zero has not
        return t.float().numpy() if t.dtype is torch.bfloat16 else t.numpy()
    array = np.asarray(t.array if isinstance(t, cf.Tensor) else t)
    return array.astype(np.float32) if array.dtype == cf.bfloat16 else array


def dtype_name(t: Any) -> str:
    if isinstance(t, torch.Tensor):
        return str(t.dtype).removeprefix("torch.")
    return t.dtype.name if isinstance(t, cf.Tensor) else ""


def compare(
    actual: Any, expected: Any, what: str, tolerance: tuple[float, float], values: bool = True
) -> None:
    """Raise AssertionError unless structure, shapes, dtypes and values agree."""
    if isinstance(expected, torch.Size):
        actual, expected = [list(actual)], [list(expected)]
    ours, theirs = flat(actual), flat(expected)
    assert len(ours) == len(theirs), f"{what}: {len(ours)} results, expected {len(theirs)}"
    for i, (a, e) in enumerate(zip(ours, theirs)):
        label = f"{what} {i}" if len(ours) > 1 else what
        if e is None or isinstance(e, (str, torch.dtype, torch.device, torch.Size)):
            wanted = to_cuframe(e)
            assert (tuple(a) if isinstance(e, torch.Size) else a) == wanted, (
                f"{label}: {a!r}, expected {wanted!r}"
            )
            continue
        if isinstance(e, torch.Tensor):
            assert isinstance(a, cf.Tensor), f"{label}: {type(a).__name__}, expected a Tensor"
            assert dtype_name(a) == dtype_name(e), f"{label}: {dtype_name(a)}, expected {dtype_name(e)}"
        x, y = host(a), host(e)
        assert x.shape == y.shape, f"{label}: shape {x.shape}, expected {y.shape}"
        if values:
            rtol, atol = tolerance if y.dtype.kind in "fc" else (0.0, 0.0)
            np.testing.assert_allclose(x.astype(np.float64), y.astype(np.float64), rtol, atol, err_msg=label)


def compare_gradients(
    ours: Any, theirs: Any, our_inputs: list[cf.Tensor], their_inputs: list[torch.Tensor], what: str
) -> None:
    """Gradients of fixed weightings of all differentiable outputs."""
    pairs = [
        (a, e)
        for a, e in zip(flat(ours), flat(theirs))
        if isinstance(e, torch.Tensor) and e.requires_grad and e.dtype.is_floating_point
    ]
    for a, _ in pairs:
        assert a.requires_grad, f"{what}: the result requires no gradient"
    for a, e in zip(flat(ours), flat(theirs)):
        if isinstance(e, torch.Tensor) and isinstance(a, cf.Tensor):
            assert e.requires_grad or not a.requires_grad, f"{what}: the result must not require a gradient"
    if not pairs or not their_inputs:
        return
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.5, 1.5, tuple(e.shape)) for _, e in pairs]
    expected = quietly(
        torch.autograd.grad,
        [e for _, e in pairs], their_inputs,
        [torch.from_numpy(np.asarray(w)).to(e.dtype) for w, (_, e) in zip(weights, pairs)],
        allow_unused=True,
    )  # fmt: skip
    actual = cf.autograd.grad(
        [a for a, _ in pairs], our_inputs,
        [cf.Tensor(np.asarray(w).astype(a.dtype)) for w, (a, _) in zip(weights, pairs)],
        allow_unused=True,
    )  # fmt: skip
    for i, (a, e, x) in enumerate(zip(actual, expected, our_inputs)):
        zeros = np.zeros(x.array.shape)
        left = zeros if a is None else host(a.to_dense() if getattr(a, "is_sparse", False) else a)
        right = zeros if e is None else host(e.to_dense())
        np.testing.assert_allclose(left, right, 1e-6, 1e-8, err_msg=f"{what}: gradient of input {i}")
