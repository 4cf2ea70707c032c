"""cuframe: deep learning on NumPy and CuPy, with PyTorch's names and CUDA kernels that can be read.

>>> import cuframe as cf
>>> x = cf.tensor([1.0, 2.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4.])
"""

from . import autograd, cuda, data, nn, ops, optim, utils
from ._version import __version__
from .autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .backend import Device, device
from .dtypes import *  # noqa: F403
from .dtypes import __all__ as _dtype_names
from .ops import *  # noqa: F403
from .random import Generator, default_generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from .serialization import CheckpointError, load, load_torch, save
from .tensor import Parameter, Size, Tensor
from .tensor_repr import set_printoptions

__all__ = [
    "CheckpointError", "Device", "Generator", "Parameter", "Size", "Tensor", "__version__", "autograd", "cuda",
    "data", "default_generator", "device", "enable_grad", "get_rng_state", "inference_mode", "initial_seed",
    "is_grad_enabled", "is_inference_mode_enabled", "load", "load_torch", "manual_seed", "nn", "no_grad", "optim",
    "save", "seed", "set_grad_enabled", "set_printoptions", "set_rng_state", "utils",
]  # fmt: skip
__all__ += _dtype_names
__all__ += ops.__all__

# PyTorch's short names of dtypes. Not in __all__: a star import must not replace Python's float, int and bool.
half, float, double = float16, float32, float64  # noqa: F405
short, int, long, bool = int16, int32, int64, bool_  # noqa: F405
