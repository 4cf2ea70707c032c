"""Layers that normalise channels and may keep running statistics: BatchNorm and InstanceNorm."""

from __future__ import annotations

import warnings
from typing import Any

from ...ops.create import empty, ones, tensor, zeros
from ...tensor import Parameter, Tensor
from .. import functional as F
from ..module import Module
from .checks import check_sizes_of
from .normalization import ones_and_zeros

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "SyncBatchNorm",
]  # fmt: skip


class _ChannelNorm(Module):
    """Parameters and running statistics of one number for each channel."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    dims: tuple[int, ...]  # how many dimensions an input may have

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        device: Any, dtype: Any, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes_of(type(self).__name__, num_features=num_features)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            value = Parameter(empty(num_features, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, value)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(num_features, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to zeros, the variance to ones and the count of batches to 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Reset the running statistics, and weight to ones and bias to zeros."""
        self.reset_running_stats()
        ones_and_zeros(self.weight, self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.dims:
            wanted = " or ".join(f"{n}D" for n in self.dims)
            raise ValueError(
                f"{type(self).__name__}: input must be {wanted}, got {input.ndim}D of shape {tuple(input.shape)}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
    """Normalises each channel over the batch and all positions, then scales and shifts it.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Ioffe and Szegedy, Batch Normalization (2015). In training, or where nothing is tracked, mean and variance are those
    of the batch; in evaluation the running statistics `running_mean` and `running_var` (num_features,).

    Args:
        num_features: the number of channels.
        eps: added to the variance.
        momentum: the weight of each new batch in the running statistics; None makes them the mean over all batches.
        affine: have `weight`, which starts as ones, and `bias`, which starts as zeros, both (num_features,).
        track_running_stats: keep running statistics and `num_batches_tracked`.
        device, dtype: of parameters and statistics.
        bias: have a bias, where there is a weight.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        shape = input.array.shape
        if shape[1] != self.num_features and (self.affine or self.track_running_stats):
            name = type(self).__name__
            raise RuntimeError(f"{name}: input must have {self.num_features} channels, got shape {tuple(shape)}")
        factor = 0.0 if self.momentum is None else self.momentum
        counted = self.num_batches_tracked
        if self.training and self.track_running_stats and counted is not None:
            counted.add_(1)
            if self.momentum is None:
                return self._averaged(input, counted)
        own = self.training or (self.running_mean is None and self.running_var is None)
        keep = not self.training or self.track_running_stats
        return self._normalized(
            input, self.running_mean if keep else None, self.running_var if keep else None, own, factor
        )

    def _averaged(self, input: Tensor, counted: Tensor) -> Tensor:
        """The running statistics are means over `counted` batches, a number for which the host does not wait."""
        running = [r for r in (self.running_mean, self.running_var) if r is not None]
        own = [r.clone() for r in running]
        mean, var = own if len(own) == 2 else (None, None)
        out = self._normalized(input, mean, var, True, 1.0)
        for total, batch in zip(running, own):
            total.add_((batch - total) / counted)
        return out

    def _normalized(self, input: Tensor, mean: Tensor | None, var: Tensor | None, own: bool, factor: float) -> Tensor:
        return F.batch_norm(input, mean, var, self.weight, self.bias, own, factor, self.eps)


class BatchNorm1d(_BatchNorm):
    """BatchNorm of a (N, C) or (N, C, L) input.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Mean and variance are those of each channel over the batch and all positions in training, the running ones in
    evaluation. Arguments: num_features (C), eps, momentum (None: the mean over all batches), affine,
    track_running_stats, device, dtype, bias.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.BatchNorm1d(1, affine=False)(cf.tensor([[1.0], [3.0]]))
    tensor([[-1.0000],
            [ 1.0000]])
    """

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """BatchNorm of a (N, C, H, W) input; see `BatchNorm1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.BatchNorm2d(3)
    BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    dims = (4,)


class BatchNorm3d(_BatchNorm):
    """BatchNorm of a (N, C, D, H, W) input; see `BatchNorm1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> bn = nn.BatchNorm3d(3)
    >>> bn(cf.ones(1, 3, 2, 2, 2)).shape, bn.running_mean
    (cuframe.Size([1, 3, 2, 2, 2]), tensor([0.1000, 0.1000, 0.1000]))
    """

    dims = (5,)


class SyncBatchNorm(_BatchNorm):
    """BatchNorm of a (N, C, ...) input over the batches of all processes of a group.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    In training, mean and variance are those of all ranks' batches together, which may differ in size. In evaluation,
    and where no process group was joined, it is BatchNorm for any number of positions; parameters and `state_dict` are
    the same. Arguments: num_features (C), eps, momentum (None: the mean over all batches), affine, track_running_stats,
    process_group (None: all ranks of the job), device, dtype, bias.

    Raises:
        TypeError: process_group is none.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.SyncBatchNorm(1, affine=False)(cf.tensor([[1.0], [3.0]]))
    tensor([[-1.0000],
            [ 1.0000]])
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, process_group: Any = None, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        if process_group is not None:
            from ...distributed import NON_GROUP_MEMBER, ProcessGroup

            if not isinstance(process_group, (ProcessGroup, type(NON_GROUP_MEMBER))):
                raise TypeError(
                    f"SyncBatchNorm: process_group must be a ProcessGroup or None, got {type(process_group).__name__}"
                )
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(
                f"SyncBatchNorm: input must have at least 2 dimensions, got {input.ndim}D of shape {tuple(input.shape)}"
            )

    def _normalized(self, input: Tensor, mean: Tensor | None, var: Tensor | None, own: bool, factor: float) -> Tensor:
        if own:
            from ...distributed.group import is_initialized, resolve

            group = resolve("SyncBatchNorm", self.process_group) if self.process_group or is_initialized() else None
            if group is not None and group.size > 1:
                from ..parallel.sync_norm import sync_batch_norm

                return sync_batch_norm(input, mean, var, self.weight, self.bias, factor, self.eps, group)
        return super()._normalized(input, mean, var, own, factor)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """A model whose BatchNorm layers are all SyncBatchNorm, with the same parameters and statistics.

        Args:
            module: the model; its BatchNorm layers are replaced in place.
            process_group: for the new layers.

        Returns:
            The module, or the new layer if it is a BatchNorm layer itself.

        >>> from cuframe import nn
        >>> nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(2)))
        Sequential(
          (0): SyncBatchNorm(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
        )
        """
        result = module
        if isinstance(module, _BatchNorm):
            result = cls(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats,
                process_group,
            )  # fmt: skip
            # The very tensors, so that an optimizer that has them goes on with them.
            result._parameters.update(module._parameters)
            result._buffers.update(module._buffers)
            result.training = module.training
        for name, child in module._modules.items():
            if child is not None:
                result.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return result


class _InstanceNorm(_ChannelNorm):
    """Normalises each channel of each sample; a batch dimension may be missing."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        batched = input.ndim == self.dims[-1]
        x = input if batched else input.unsqueeze(0)
        if x.shape[1] != self.num_features:
            shape = tuple(input.shape)
            text = f"{type(self).__name__}: input must have {self.num_features} channels, got shape {shape}"
            if self.affine or self.track_running_stats:
                raise ValueError(text)
            warnings.warn(f"{text}; without affine and statistics num_features is not used", stacklevel=2)
        out = F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, 0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip
        return out if batched else out.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """InstanceNorm of a (N, C, L) or (C, L) input.

        out = (input - mean) / sqrt(var + eps) * weight + bias

    Ulyanov et al., Instance Normalization (2016). Mean and variance are those of each channel of each sample, or in
    evaluation the running ones, if they are tracked. Arguments: num_features (C), eps, momentum, affine (False),
    track_running_stats (False), device, dtype.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.InstanceNorm1d(1)(cf.tensor([[1.0, 3.0]]))
    tensor([[-1.0000,  1.0000]])
    """

    dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """InstanceNorm of a (N, C, H, W) or (C, H, W) input; see `InstanceNorm1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.InstanceNorm2d(1)(cf.tensor([[[1.0, 3.0], [3.0, 1.0]]]))
    tensor([[[-1.0000,  1.0000],
             [ 1.0000, -1.0000]]])
    """

    dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """InstanceNorm of a (N, C, D, H, W) or (C, D, H, W) input; see `InstanceNorm1d`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.InstanceNorm3d(1)(cf.tensor([[[[1.0, 3.0]]]]))
    tensor([[[[-1.0000,  1.0000]]]])
    """

    dims = (4, 5)
