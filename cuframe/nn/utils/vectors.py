"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from ...autograd import versions
from ...ops.join import cat
from ...tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other, as one vector; gradients flow through.

    Raises:
        ValueError: there are none.

    >>> import cuframe as cf
    >>> from cuframe.nn.utils import parameters_to_vector
    >>> parameters_to_vector([cf.tensor([[1.0], [2.0]]), cf.tensor(3.0)])
    tensor([1., 2., 3.])
    """
    flat = [p.reshape(-1) for p in parameters]  # type: ignore[attr-defined]
    if not flat:
        raise ValueError("parameters_to_vector: got no parameters")
    return cat(flat)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the elements of a vector into the parameters, in the order of `parameters_to_vector`.

    Raises:
        TypeError: it is not a Tensor.
        ValueError: it does not have as many elements as the parameters together; nothing is changed.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> layer = nn.Linear(2, 1)
    >>> nn.utils.vector_to_parameters(cf.tensor([1.0, 2.0, 3.0]), layer.parameters())
    >>> layer.weight.tolist(), layer.bias.tolist()
    ([[1.0, 2.0]], [3.0])
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: vec must be a Tensor, got {type(vec).__name__}")
    targets = list(parameters)
    total = sum(p.array.size for p in targets)
    if vec.array.ndim != 1 or vec.array.size != total:
        raise ValueError(f"vector_to_parameters: vec must have shape ({total},), got {tuple(vec.array.shape)}")
    start = 0
    for p in targets:
        stop = start + p.array.size
        p.array[...] = vec.array[start:stop].reshape(p.array.shape)
        versions.written(p.array, "vector_to_parameters")
        start = stop
