"""Weight normalisation by a hook, with the `state_dict` names `weight_g` and `weight_v`."""

from __future__ import annotations

from typing import TypeVar

from ...autograd.modes import no_grad
from ...tensor import Parameter, Tensor
from ..module import Module
from .computed import ComputedWeight, check_dim

__all__ = ["remove_weight_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """The Euclidean norm over all dimensions but one, kept with size 1; over all, as a 0-d tensor, for None or -1."""
    if dim is None or dim == -1:
        return (v * v).sum().sqrt()  # type: ignore[attr-defined]
    others = tuple(i for i in range(v.ndim) if i != dim % v.ndim)
    return (v * v).sum(dim=others, keepdim=True).sqrt() if others else abs(v)  # type: ignore[attr-defined]


class WeightNorm(ComputedWeight):
    """w = g * v / |v|"""

    kind = "weight_norm"

    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = dim

    def compute_weight(self, module: Module) -> Tensor:
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        return v * (g / norm_except(v, self.dim))


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Train the length and the direction of a weight apart: w = g * v / |v|.

    Salimans and Kingma, Weight Normalization (2016). The parameter makes way for `<name>_g`, its norm, and `<name>_v`,
    itself; a hook computes the weight from them before every forward. `parametrizations.weight_norm` does the same
    whenever the weight is read.

    Args:
        module: that has the weight; recurrent layers too, with names such as `"weight_hh_l0"`.
        name: the parameter's name.
        dim: the norm is taken over all other dimensions; over all of them for None or, as in PyTorch, -1.

    Returns:
        The module.

    Raises:
        AttributeError: the module has no such parameter.
        RuntimeError: it is normalised already.

    >>> from cuframe import nn
    >>> m = nn.utils.weight_norm(nn.Linear(20, 40))
    >>> m.weight_g.shape, m.weight_v.shape
    (cuframe.Size([40, 1]), cuframe.Size([40, 20]))
    """
    hook = WeightNorm(name, dim)
    check_dim("weight_norm", dim, getattr(module._parameters.get(name), "ndim", 1))
    weight = hook.take(module)
    with no_grad():
        norm = norm_except(weight, dim)
    module.register_parameter(name + "_g", Parameter(norm, requires_grad=weight.requires_grad))
    module.register_parameter(name + "_v", weight)
    hook(module, ())
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Undo `weight_norm`: the weight becomes a parameter again, with the value it has now.

    Raises:
        ValueError: the weight is not normalised.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> m = nn.utils.weight_norm(nn.Linear(2, 3))
    >>> sorted(name for name, _ in m.named_parameters())
    ['bias', 'weight_g', 'weight_v']
    >>> sorted(name for name, _ in nn.utils.remove_weight_norm(m).named_parameters())
    ['bias', 'weight']
    """
    hook = WeightNorm.detach_from(module, name)
    with no_grad():
        weight = hook.compute_weight(module)
    trained = getattr(module, name + "_v").requires_grad
    delattr(module, name + "_g")
    delattr(module, name + "_v")
    module.register_parameter(name, Parameter(weight, requires_grad=trained))
    return module
