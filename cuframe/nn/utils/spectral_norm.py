"""Spectral normalisation by a hook, with the `state_dict` names `weight_orig`, `weight_u` and `weight_v`."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from ...autograd import versions
from ...autograd.modes import no_grad
from ...ops.random import randn
from ...tensor import Parameter, Tensor
from ..module import Module
from ..state import array_of
from .computed import Computed, ComputedWeight, check_dim

__all__ = ["remove_spectral_norm", "spectral_norm"]

M = TypeVar("M", bound=Module)


def matrix_of(weight: Any, dim: int) -> Any:
    """A weight (an array or a Tensor) as a matrix with a row for each index of dimension `dim`."""
    return np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)


def check_iterations(name: str, n: int) -> None:
    """Raise ValueError unless the power method is to take a step at least."""
    if n <= 0:
        raise ValueError(f"{name}: n_power_iterations must be positive, got {n}")


def default_dim(module: Module) -> int:
    """The dimension of a weight's outputs: 1 for transposed convolutions, else 0."""
    return int(bool(getattr(module, "transposed", False)))


def random_unit(n: int, like: Tensor, eps: float) -> Tensor:
    """A random direction."""
    dtype = like.dtype
    x = randn(n, device=like.device, dtype=np.float32 if dtype.itemsize == 2 else dtype)
    return Tensor(_unit(x.array, eps).astype(dtype))


def _unit(x: Any, eps: float) -> Any:
    return x / max(float(np.sqrt(x.dot(x))), eps)


def power_iteration(matrix: Any, u: Tensor, v: Tensor, n: int, eps: float) -> None:
    """`n` steps of the power method towards the first singular vectors of an array (H, W): u (H,), v (W,), in place.

    Each step takes v from u and then u from v; exchanged, with the transposed matrix, it begins with u.
    """
    wide = matrix.astype(np.float32) if matrix.dtype.itemsize == 2 else matrix
    left = u.array.astype(wide.dtype)
    for _ in range(n):
        right = _unit(left @ wide, eps)
        left = _unit(wide @ right, eps)
    for t, value in ((u, left), (v, right)):
        t.array[...] = value
        versions.written(t.array, "spectral_norm")


def divided(weight: Tensor, dim: int, u: Tensor, v: Tensor) -> Tensor:
    """A weight divided by its largest singular value u . W v, as that is estimated; gradients pass through both."""
    # Copies: the next forward's iteration changes u and v while this one's backward is still to come.
    left, right = Tensor(u.array.copy()), Tensor(v.array.copy())
    sigma = left.dot(matrix_of(weight, dim).mv(right))  # type: ignore[attr-defined]
    return weight / sigma


class SpectralNorm(ComputedWeight):
    """w = w_orig / sigma, sigma estimated by a power method that goes on in every training forward."""

    kind = "spectral_norm"

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__(name)
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def compute_weight(self, module: Module) -> Tensor:
        weight, u, v = (getattr(module, self.name + end) for end in ("_orig", "_u", "_v"))
        return divided(weight, self.dim, u, v)

    def __call__(self, module: Module, args: tuple) -> None:
        if module.training:
            weight, u, v = (getattr(module, self.name + end) for end in ("_orig", "_u", "_v"))
            power_iteration(matrix_of(weight.array, self.dim), u, v, self.n_power_iterations, self.eps)
        super().__call__(module, args)

    def read_older(self, module: Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Bring a state_dict from before PyTorch 1.0, which had `weight` and no `weight_v`, into today's form.

        What it had satisfied u = W v / |W v| and weight = W / sigma, from which v is found.
        """
        key = prefix + self.name
        needed = [array_of(state_dict.get(key + end)) for end in ("", "_orig", "_u")]
        if key + "_v" in state_dict or any(part is None for part in needed):
            return
        weight, original, u = (part.astype(np.float64) for part in needed)
        del state_dict[key]
        matrix = matrix_of(original, self.dim)
        used = weight != 0
        sigma = (original[used] / weight[used]).mean()
        v = np.linalg.lstsq(matrix, u)[0]
        state_dict[key + "_v"] = v * (sigma / (u @ matrix @ v))


def spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> M:
    """Divide a weight by its largest singular value: w = w_orig / sigma(w_orig).

    Miyato et al., Spectral Normalization (2018). The parameter becomes `<name>_orig`; the buffers `<name>_u` and
    `<name>_v` hold the singular vectors, which every forward in training brings nearer to the true ones and evaluation
    leaves alone. `parametrizations.spectral_norm` does the same whenever the weight is read.

    Args:
        module: that has the weight.
        name: the parameter's name.
        n_power_iterations: steps of the power method in each forward.
        eps: the least norm that is divided by.
        dim: the dimension of the weight's outputs; by default 1 for transposed convolutions, else 0.

    Returns:
        The module.

    Raises:
        AttributeError: the module has no such parameter.
        RuntimeError: it is normalised already.
        ValueError: `n_power_iterations` is not positive.

    >>> from cuframe import nn
    >>> m = nn.utils.spectral_norm(nn.Linear(20, 40))
    >>> m.weight_u.shape, m.weight_v.shape
    (cuframe.Size([40]), cuframe.Size([20]))
    """
    check_iterations("spectral_norm", n_power_iterations)
    dim = default_dim(module) if dim is None else dim
    check_dim("spectral_norm", dim, getattr(module._parameters.get(name), "ndim", dim + 1))
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    weight = hook.take(module)
    rows, columns = matrix_of(weight.array, dim).shape
    module.register_parameter(name + "_orig", weight)
    module.register_buffer(name + "_u", random_unit(rows, weight, eps))
    module.register_buffer(name + "_v", random_unit(columns, weight, eps))
    setattr(module, name, Computed(weight.array))
    module.register_forward_pre_hook(hook)
    module.register_load_state_dict_pre_hook(hook.read_older)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Undo `spectral_norm`: the weight becomes a parameter again, with the value it has now.

    Raises:
        ValueError: the weight is not normalised.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> m = nn.utils.spectral_norm(nn.Linear(2, 3))
    >>> sorted(name for name, _ in nn.utils.remove_spectral_norm(m).named_parameters())
    ['bias', 'weight']
    """
    hook = SpectralNorm.detach_from(module, name)
    with no_grad():
        weight = hook.compute_weight(module)
    trained = getattr(module, name + "_orig").requires_grad
    for end in ("_orig", "_u", "_v"):
        delattr(module, name + end)
    module.register_parameter(name, Parameter(weight, requires_grad=trained))
    return module
