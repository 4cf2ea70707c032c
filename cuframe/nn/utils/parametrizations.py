"""Parametrizations in common use."""

from __future__ import annotations

from typing import Any, TypeVar

from ...ops.distance import normalize
from ...tensor import Tensor
from ..module import Module
from .computed import check_dim
from .orthogonal import MAPS, Orthogonal
from .parametrize import register_parametrization
from .spectral_norm import check_iterations, default_dim, divided, matrix_of, power_iteration, random_unit
from .weight_norm import norm_except

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


class _WeightNorm(Module):
    """w = g * v / |v|, with g and v as originals."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """The weight from its length and direction."""
        return v * (g / norm_except(v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Length and direction of a weight."""
        return norm_except(weight, self.dim), weight


class _FromHooks:
    """Reads the state_dict of a module with the hook of the same name: `weight_g` and `weight_v`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        given = [f"{prefix}{self.name}_{letter}" for letter in "gv"]
        if all(key in state_dict for key in given):
            for i, key in enumerate(given):
                state_dict[f"{prefix}parametrizations.{self.name}.original{i}"] = state_dict.pop(key)


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Train the length and the direction of a weight apart (Salimans and Kingma 2016): w = g * v / |v|.

    Args:
        module: that has the weight.
        name: the parameter's name; g and v are `parametrizations.<name>.original0` and `original1`. The state_dict of
            a module with `nn.utils.weight_norm` can be loaded, too.
        dim: the norm is taken over all other dimensions; over all of them for None or, as in PyTorch, -1.

    Returns:
        The module.

    >>> from cuframe import nn
    >>> m = nn.utils.parametrizations.weight_norm(nn.Linear(20, 40))
    >>> m.parametrizations.weight.original0.shape
    cuframe.Size([40, 1])
    """
    if name in module._parameters:
        check_dim("weight_norm", dim, getattr(module._parameters[name], "ndim", 1))
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    module.register_load_state_dict_pre_hook(_FromHooks(name))
    return module


class _SpectralNorm(Module):
    """w = original / sigma, sigma estimated by a power method that goes on whenever it is asked for in training."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        self.n_power_iterations = n_power_iterations
        self.dim = dim % max(weight.ndim, 1)
        self.eps = eps
        if weight.ndim > 1:
            matrix = matrix_of(weight.array, self.dim)
            self.register_buffer("_u", random_unit(matrix.shape[0], weight, eps))
            self.register_buffer("_v", random_unit(matrix.shape[1], weight, eps))
            power_iteration(matrix.T, self._v, self._u, 15, eps)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight divided by its largest singular value; a vector by its length."""
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        if self.training:
            # PyTorch's parametrization takes u from v first, its hook v from u.
            matrix = matrix_of(weight.array, self.dim)
            power_iteration(matrix.T, self._v, self._u, self.n_power_iterations, self.eps)
        return divided(weight, self.dim, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        """What is assigned is taken as the weight before its division."""
        return value


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divide a weight by its largest singular value (Miyato et al. 2018), whenever it is read.

        w = original / sigma(original)

    Args:
        module: that has the weight.
        name: the parameter's name; `parametrizations.<name>.original` is trained, and the buffers `_u` and `_v` of
            `parametrizations.<name>[0]` hold the singular vectors. In training each reading takes a step of the power
            method, in evaluation they stay as they are.
        n_power_iterations: steps of the power method for each reading.
        eps: the least norm that is divided by.
        dim: the dimension of the weight's outputs; by default 1 for transposed convolutions, else 0.

    Returns:
        The module.

    Raises:
        ValueError: the module has no such parameter, or `n_power_iterations` is not positive.
        IndexError: the weight has no such dimension.

    >>> import numpy as np
    >>> from cuframe import nn
    >>> m = nn.utils.parametrizations.spectral_norm(nn.Linear(20, 40))
    >>> bool(abs(np.linalg.norm(m.weight.detach().numpy(), 2) - 1) < 0.1)
    True
    """
    check_iterations("spectral_norm", n_power_iterations)
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"spectral_norm: {type(module).__name__} has no parameter or buffer {name!r}")
    dim = default_dim(module) if dim is None else dim
    check_dim("spectral_norm", dim, weight.ndim)
    return register_parametrization(  # type: ignore[return-value]
        module, name, _SpectralNorm(weight, n_power_iterations, dim, eps)
    )


def orthogonal(
    module: M, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> M:
    """Keep a matrix, or a batch of matrices, orthogonal: Q^T Q = I, or Q Q^T = I where it has more columns than rows.

    Args:
        module: that has the weight.
        name: the parameter's name; `parametrizations.<name>.original` is trained.
        orthogonal_map: `"matrix_exp"` (the exponential of a skew-symmetric matrix), `"cayley"`
            ((I - A/2)^-1 (I + A/2) of one) or `"householder"` (a product of reflections); by default the first for
            square matrices and the last for others.
        use_trivialization: multiply by a fixed orthogonal matrix, the buffer `base`, so that training begins at the
            matrix that is assigned (Lezcano-Casado 2019). Without it only `"householder"` can be assigned to.

    Returns:
        The module.

    Raises:
        ValueError: the module has no such parameter, it has fewer than 2 dimensions, or the map is unknown.

    >>> import numpy as np
    >>> from cuframe import nn
    >>> q = nn.utils.parametrizations.orthogonal(nn.Linear(20, 40)).weight.detach().numpy()
    >>> bool(np.abs(q.T @ q - np.eye(20)).max() < 1e-5)
    True
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"orthogonal: {type(module).__name__} has no parameter or buffer {name!r}")
    if weight.ndim < 2:
        raise ValueError(f"orthogonal: {name!r} must have at least 2 dimensions, got shape {tuple(weight.shape)}")
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    if orthogonal_map not in MAPS:
        known = ", ".join(map(repr, MAPS))
        raise ValueError(f"orthogonal: orthogonal_map must be one of {known}, got {orthogonal_map!r}")
    parametrization = Orthogonal(weight, orthogonal_map, use_trivialization)
    return register_parametrization(module, name, parametrization, unsafe=True)  # type: ignore[return-value]
