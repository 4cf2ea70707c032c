"""Padding as modules."""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor
from .. import functional as F
from ..module import Module

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    """What all of them share.

    Args:
        padding: one number for all sides, or (before, after) of the last dimension, then of the one before it, ...
            A negative number removes elements.

    Raises:
        ValueError: padding has another length than twice the number of dimensions.
    """

    _dims = 0
    _mode = "constant"

    def __init__(self, padding: Any) -> None:
        super().__init__()
        count = 2 * self._dims
        given = (padding,) * count if isinstance(padding, int) else tuple(padding)
        if len(given) != count:
            raise ValueError(f"{type(self).__name__}: padding must be an int or {count} ints, got {padding}")
        self.padding = given

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Surrounds the last dimension with a value, see `F.pad`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ConstantPad1d((1, 2), 7.0)(cf.ones(1, 2))
    tensor([[7., 1., 1., 7., 7.]])
    """

    _dims = 1


class ConstantPad2d(_ConstantPad):
    """Surrounds the last two dimensions with a value: padding is (left, right, top, bottom), see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom). A negative number removes elements.
        value: what to put there.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ConstantPad2d((1, 0, 0, 1), 7.0)(cf.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[7., 1., 2.],
             [7., 3., 4.],
             [7., 7., 7.]]])
    """

    _dims = 2


class ConstantPad3d(_ConstantPad):
    """Surrounds the last three dimensions with a value, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom, front, back). A negative number removes elements.
        value: what to put there.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ConstantPad3d((0, 0, 0, 0, 1, 0), 7.0)(cf.ones(1, 1, 2)).tolist()
    [[[7.0, 7.0]], [[1.0, 1.0]]]
    """

    _dims = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """Surrounds the last dimension with zeros, see `F.pad`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ZeroPad1d(1)(cf.ones(1, 2))
    tensor([[0., 1., 1., 0.]])
    """


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """Surrounds the last two dimensions with zeros: padding is (left, right, top, bottom), see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom). A negative number removes elements.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ZeroPad2d((1, 0, 0, 1))(cf.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[0., 1., 2.],
             [0., 3., 4.],
             [0., 0., 0.]]])
    """


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """Surrounds the last three dimensions with zeros, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom, front, back). A negative number removes elements.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ZeroPad3d((1, 1, 0, 0, 1, 0))(cf.ones(1, 1, 2)).tolist()
    [[[0.0, 0.0, 0.0, 0.0]], [[0.0, 1.0, 1.0, 0.0]]]
    """


class ReflectionPad1d(_Pad):
    """Surrounds a (N, C, W) or (C, W) input with its own mirror image, without the edge, see `F.pad`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReflectionPad1d(2)(cf.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 2., 1., 2., 3., 2., 1.]])
    """

    _dims = 1
    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """Surrounds a (N, C, H, W) or (C, H, W) input with its own mirror image, without the edge, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom). A negative number removes elements.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReflectionPad2d((1, 1, 0, 1))(cf.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[2., 1., 2., 1.],
             [4., 3., 4., 3.],
             [2., 1., 2., 1.]]])
    """

    _dims = 2
    _mode = "reflect"


class ReflectionPad3d(_Pad):
    """Surrounds a (N, C, D, H, W) or (C, D, H, W) input with its own mirror image, without the edge, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom, front, back). A negative number removes elements.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReflectionPad3d((1, 1, 0, 0, 0, 0))(cf.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[2., 1., 2., 1.]]]])
    """

    _dims = 3
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """Repeats the edges of a (N, C, W) or (C, W) input, see `F.pad`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReplicationPad1d((2, 1))(cf.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 1., 1., 2., 3., 3.]])
    """

    _dims = 1
    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """Repeats the edges of a (N, C, H, W) or (C, H, W) input, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom). A negative number removes elements.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReplicationPad2d((2, 0, 0, 1))(cf.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[1., 1., 1., 2.],
             [3., 3., 3., 4.],
             [3., 3., 3., 4.]]])
    """

    _dims = 2
    _mode = "replicate"


class ReplicationPad3d(_Pad):
    """Repeats the edges of a (N, C, D, H, W) or (C, D, H, W) input, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom, front, back). A negative number removes elements.

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.ReplicationPad3d((2, 1, 0, 0, 0, 0))(cf.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 1., 2., 2.]]]])
    """

    _dims = 3
    _mode = "replicate"


class _CircularPad(_Pad):
    _mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (self._dims + 1, self._dims + 2):
            raise ValueError(
                f"{type(self).__name__}: input must be {self._dims + 1}-d or {self._dims + 2}-d, "
                f"got shape {tuple(input.shape)}"
            )
        return F.pad(input, self.padding, self._mode)


class CircularPad1d(_CircularPad):
    """Surrounds a (N, C, W) or (C, W) input with elements from the other end, see `F.pad`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.CircularPad1d((2, 1))(cf.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 3., 1., 2., 3., 1.]])
    """

    _dims = 1


class CircularPad2d(_CircularPad):
    """Surrounds a (N, C, H, W) or (C, H, W) input with elements from the other ends, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom).

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.CircularPad2d((1, 0, 0, 1))(cf.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[2., 1., 2.],
             [4., 3., 4.],
             [2., 1., 2.]]])
    """

    _dims = 2


class CircularPad3d(_CircularPad):
    """Surrounds a (N, C, D, H, W) or (C, D, H, W) input with elements from the other ends, see `F.pad`.

    Args:
        padding: an int for all sides, or (left, right, top, bottom, front, back).

    Raises:
        ValueError: padding has another number of entries.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.CircularPad3d((1, 2, 0, 0, 0, 0))(cf.tensor([[[[1.0, 2.0, 3.0]]]]))
    tensor([[[[3., 1., 2., 3., 1., 2.]]]])
    """

    _dims = 3
