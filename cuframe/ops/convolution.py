"""Convolutions in one, two and three dimensions, as `cuframe.nn.functional` offers them."""

from __future__ import annotations

from math import prod
from typing import Any

from ..tensor import Tensor
from .correlation import Windows, convolve, convolve_transposed
from .define import check_floating, need_tensor
from .einsum import same_kind

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def per_dimension(name: str, argument: str, value: Any, dims: int, least: int) -> tuple[int, ...]:
    """An int, or a sequence of one or of `dims` ints, as `dims` ints, none of them below `least`."""
    values = (value,) * dims if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else None
    if values is not None and len(values) == 1:
        values *= dims
    if values is None or len(values) != dims or not all(isinstance(v, int) for v in values):
        what = "an int" if dims == 1 else f"an int or {dims} ints"
        raise TypeError(f"{name}: {argument} must be {what}, got {value!r}")
    if min(values) < least:
        raise RuntimeError(f"{name}: {argument} must be at least {least}, got {value!r}")
    return values


def _operands(name: str, dims: int, input: Any, weight: Any, bias: Any) -> None:
    """Types, dtypes, devices and numbers of dimensions."""
    check_floating(name, "input", input)
    need_tensor(name, "weight", weight)
    named = [("input", input), ("weight", weight)]
    if bias is not None:
        need_tensor(name, "bias", bias)
        named.append(("bias", bias))
    same_kind(name, *named)
    sizes = ", ".join("DHW"[3 - dims :] if dims > 1 else "L")
    if input.array.ndim not in (dims + 1, dims + 2):
        raise RuntimeError(f"{name}: input must be (N, C, {sizes}) or (C, {sizes}), got {tuple(input.array.shape)}")
    if weight.array.ndim != dims + 2:
        raise RuntimeError(f"{name}: weight must have {dims + 2} dimensions, got {tuple(weight.array.shape)}")
    if 0 in weight.array.shape[2:]:
        raise RuntimeError(f"{name}: the kernel must not be empty, got weight {tuple(weight.array.shape)}")


def _check_bias(name: str, bias: Tensor | None, channels: int) -> None:
    if bias is not None and bias.array.shape != (channels,):
        raise RuntimeError(f"{name}: bias must be ({channels},), got {tuple(bias.array.shape)}")


def _padding(name: str, padding: Any, kernel: tuple, stride: tuple, dilation: tuple) -> tuple[tuple, tuple]:
    """What stands before and after the input in each dimension."""
    dims = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * dims, (0,) * dims
        if padding != "same":
            raise RuntimeError(f"{name}: padding must be an int, a tuple, 'same' or 'valid', got {padding!r}")
        if any(s != 1 for s in stride):
            raise RuntimeError(f"{name}: padding='same' needs stride 1, got {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    both = per_dimension(name, "padding", padding, dims, 0)
    return both, both


def _conv(
    dims: int, input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    name = f"conv{dims}d"
    _operands(name, dims, input, weight, bias)
    stride = per_dimension(name, "stride", stride, dims, 1)
    dilation = per_dimension(name, "dilation", dilation, dims, 1)
    w = weight.array.shape
    lo, hi = _padding(name, padding, w[2:], stride, dilation)
    shape = input.array.shape
    channels, sizes = shape[-dims - 1], shape[-dims:]
    if groups < 1:
        raise RuntimeError(f"{name}: groups must be at least 1, got {groups}")
    if channels != w[1] * groups:
        raise RuntimeError(
            f"{name}: input must have {w[1] * groups} channels for weight {tuple(w)} and groups {groups}, "
            f"got {channels} in {tuple(shape)}"
        )
    if w[0] % groups:
        raise RuntimeError(f"{name}: weight must have a multiple of {groups} (groups) output channels, got {tuple(w)}")
    _check_bias(name, bias, w[0])
    padded = tuple(s + a + b for s, a, b in zip(sizes, lo, hi))
    reach = tuple((k - 1) * d + 1 for k, d in zip(w[2:], dilation))
    if any(p < r for p, r in zip(padded, reach)):
        raise RuntimeError(f"{name}: input {padded}, with its padding, is smaller than the kernel, which spans {reach}")
    out = tuple((p - r) // s + 1 for p, r, s in zip(padded, reach, stride))
    win = Windows(tuple(w[2:]), stride, dilation, lo, out, groups)
    if len(shape) == dims + 1:
        return convolve(input.unsqueeze(0), weight, bias, win).squeeze(0)
    return convolve(input, weight, bias, win)


def _conv_transpose(
    dims: int, input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: int,
    dilation: Any,
) -> Tensor:  # fmt: skip
    name = f"conv_transpose{dims}d"
    _operands(name, dims, input, weight, bias)
    stride = per_dimension(name, "stride", stride, dims, 1)
    dilation = per_dimension(name, "dilation", dilation, dims, 1)
    lo = per_dimension(name, "padding", padding, dims, 0)
    extra = per_dimension(name, "output_padding", output_padding, dims, 0)
    w = weight.array.shape
    shape = input.array.shape
    channels, sizes = shape[-dims - 1], shape[-dims:]
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        raise RuntimeError(
            f"{name}: output_padding must be smaller than stride or dilation, got {extra} with stride {stride} and "
            f"dilation {dilation}"
        )
    if groups < 1:
        raise RuntimeError(f"{name}: groups must be at least 1, got {groups}")
    if channels != w[0]:
        raise RuntimeError(f"{name}: input must have {w[0]} channels for weight {tuple(w)}, got {channels} in {shape}")
    if channels % groups:
        raise RuntimeError(f"{name}: input must have a multiple of {groups} (groups) channels, got {shape}")
    _check_bias(name, bias, w[1] * groups)
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(sizes, stride, lo, dilation, w[2:], extra)
    )
    if prod(shape) and min(size) < 1:
        raise RuntimeError(f"{name}: the result would have the size {size}: the padding {lo} is too large for {shape}")
    win = Windows(tuple(w[2:]), stride, dilation, lo, tuple(sizes), groups)
    if len(shape) == dims + 1:
        return convolve_transposed(input.unsqueeze(0), weight, bias, win, size).squeeze(0)
    return convolve_transposed(input, weight, bias, win, size)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide a kernel over a sequence: the products of the kernel with what lies under it, summed over channels.

        out[n, o, t] = bias[o] + sum_{c, k} weight[o, c, k] input[n, c, t * stride + k * dilation - padding]

    Args:
        input: (N, C, L) or (C, L), floating point; zero outside.
        weight: (O, C / groups, K), of the same dtype.
        bias: (O,) or None.
        stride: the distance between neighbouring positions of the kernel.
        padding: zeros on both sides; `"valid"` for none, `"same"` for so many that the length stays (stride 1 only;
            the last of an odd number is at the end).
        dilation: the distance between neighbouring taps of the kernel.
        groups: cuts both kinds of channels into groups that do not see each other.

    Returns:
        (N, O, L') or (O, L') with L' = (L + 2 padding - dilation (K - 1) - 1) // stride + 1; 16-bit floats are summed
        in float32. Backward keeps `input` and `weight`, each where the other needs a gradient.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree, or the kernel is larger than the padded input.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.conv1d(cf.tensor([[[1.0, 2.0, 3.0, 4.0]]]), cf.tensor([[[1.0, 10.0]]]))
    tensor([[[21., 32., 43.]]])
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide a kernel over images; `conv1d` in two dimensions.

        out[n, o, p] = bias[o] + sum_{c, k} weight[o, c, k] input[n, c, p * stride + k * dilation - padding]

    Args:
        input: (N, C, H, W) or (C, H, W), floating point.
        weight: (O, C / groups, KH, KW), of the same dtype.
        bias: (O,) or None.
        stride, padding, dilation, groups: as for `conv1d`; an int, or one for each dimension.

    Returns:
        (N, O, H', W') or (O, H', W'), each size as in `conv1d`.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree, or the kernel is larger than the padded input.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.conv2d(cf.ones(1, 1, 3, 3), cf.ones(1, 1, 3, 3), padding=1)
    tensor([[[[4., 6., 4.],
              [6., 9., 6.],
              [4., 6., 4.]]]])
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide a kernel over volumes; `conv1d` in three dimensions.

        out[n, o, p] = bias[o] + sum_{c, k} weight[o, c, k] input[n, c, p * stride + k * dilation - padding]

    Args:
        input: (N, C, D, H, W) or (C, D, H, W), floating point.
        weight: (O, C / groups, KD, KH, KW), of the same dtype.
        bias: (O,) or None.
        stride, padding, dilation, groups: as for `conv1d`; an int, or one for each dimension.

    Returns:
        (N, O, D', H', W') or (O, D', H', W'), each size as in `conv1d`.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree, or the kernel is larger than the padded input.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.conv3d(cf.ones(2, 1, 4, 5, 6), cf.ones(3, 1, 2, 2, 2), stride=(1, 1, 2)).shape
    cuframe.Size([2, 3, 3, 4, 3])
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    output_padding: int | tuple[int, ...] = 0,
    groups: int = 1,
    dilation: int | tuple[int, ...] = 1,
) -> Tensor:
    """The transpose of `conv1d`: every element adds a multiple of the kernel to the result.

        out[n, o, t * stride + k * dilation - padding] += weight[c, o, k] input[n, c, t],  then  + bias[o]

    It is the gradient of `conv1d` with respect to its input, and undoes its shapes.

    Args:
        input: (N, C, L) or (C, L), floating point.
        weight: (C, O / groups, K), of the same dtype.
        bias: (O,) or None.
        stride: the distance in the result between the kernels of neighbouring elements.
        padding: how much is cut off the result on both sides.
        output_padding: how much longer the result is at its end; less than stride or dilation.
        groups: cuts both kinds of channels into groups that do not see each other.
        dilation: the distance between neighbouring taps of the kernel.

    Returns:
        (N, O, L') or (O, L') with L' = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1; 16-bit
        floats are summed in float32. Nothing is added at positions that repeat, so the bits do not vary.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree, or nothing would be left of the result.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.conv_transpose1d(cf.tensor([[[1.0, 2.0]]]), cf.tensor([[[1.0, 1.0, 1.0]]]), stride=2)
    tensor([[[1., 1., 3., 2., 2.]]])
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    output_padding: int | tuple[int, ...] = 0,
    groups: int = 1,
    dilation: int | tuple[int, ...] = 1,
) -> Tensor:
    """The transpose of `conv2d`; `conv_transpose1d` in two dimensions.

        out[n, o, p * stride + k * dilation - padding] += weight[c, o, k] input[n, c, p],  then  + bias[o]

    Args:
        input: (N, C, H, W) or (C, H, W), floating point.
        weight: (C, O / groups, KH, KW), of the same dtype.
        bias: (O,) or None.
        stride, padding, output_padding, groups, dilation: as for `conv_transpose1d`; an int, or one for each dimension.

    Returns:
        (N, O, H', W') or (O, H', W'), each size as in `conv_transpose1d`.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree, or nothing would be left of the result.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.conv_transpose2d(cf.ones(1, 1, 2, 2), cf.ones(1, 1, 2, 2))
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    output_padding: int | tuple[int, ...] = 0,
    groups: int = 1,
    dilation: int | tuple[int, ...] = 1,
) -> Tensor:
    """The transpose of `conv3d`; `conv_transpose1d` in three dimensions.

        out[n, o, p * stride + k * dilation - padding] += weight[c, o, k] input[n, c, p],  then  + bias[o]

    Args:
        input: (N, C, D, H, W) or (C, D, H, W), floating point.
        weight: (C, O / groups, KD, KH, KW), of the same dtype.
        bias: (O,) or None.
        stride, padding, output_padding, groups, dilation: as for `conv_transpose1d`; an int, or one for each dimension.

    Returns:
        (N, O, D', H', W') or (O, D', H', W'), each size as in `conv_transpose1d`.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree, or nothing would be left of the result.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.conv_transpose3d(cf.ones(2, 3, 2, 3, 4), cf.ones(3, 5, 2, 2, 2), stride=2).shape
    cuframe.Size([2, 5, 4, 6, 8])
    """
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
