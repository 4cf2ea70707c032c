"""cuframe: deep learning on NumPy and CuPy, with PyTorch's names and CUDA kernels that can be read.

>>> import cuframe as cf
>>> x = cf.tensor([1.0, 2.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4.])
"""

# Where this process is `cuframe run`, it goes no further.
from . import _start  # noqa: F401  # isort: skip
from importlib import import_module as _import
from typing import TYPE_CHECKING, Any

from . import autograd, nn, ops, optim
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
from .tensor import Parameter, Size, Tensor
from .tensor_repr import set_printoptions

if TYPE_CHECKING:
    from . import cuda, data, distributed, utils
    from .serialization import CheckpointError, load, load_torch, save

# what a model and its training step do without is imported when it is first asked for
_LATER = {"cuda": "", "data": "", "distributed": "", "utils": "", "CheckpointError": "serialization",
          "load": "serialization", "load_torch": "serialization", "save": "serialization"}

__all__ = [
    "CheckpointError", "Device", "Generator", "Parameter", "Size", "Tensor", "__version__", "autograd", "cuda",
    "data", "default_generator", "device", "distributed", "enable_grad", "get_rng_state", "inference_mode",
    "initial_seed", "is_grad_enabled", "is_inference_mode_enabled", "load", "load_torch", "manual_seed", "nn",
    "no_grad", "optim", "save", "seed", "set_grad_enabled", "set_printoptions", "set_rng_state", "utils",
]  # fmt: skip
__all__ += _dtype_names
__all__ += ops.__all__

# PyTorch's short names of dtypes. Not in __all__: a star import must not replace Python's float, int and bool.
half, float, double = float16, float32, float64  # noqa: F405
short, int, long, bool = int16, int32, int64, bool_  # noqa: F405


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'cuframe' has no attribute {name!r}")
    home = _LATER[name]
    found = _import(f"cuframe.{home or name}")
    globals()[name] = value = getattr(found, name) if home else found
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
