"""Differentiable operations, one file a family. What stands here is what `cuframe` and Tensor's methods offer."""

import sys as _sys
import warnings as _warnings

from . import arithmetic as _arithmetic
from . import compare as _compare
from . import convert as _convert
from . import create as _create
from . import cumulative as _cumulative
from . import elementwise as _elementwise
from . import gather as _gather
from . import index as _index
from . import join as _join
from . import mask as _mask
from . import matmul as _matmul
from . import methods as _methods
from . import numpy_shape as _numpy_shape  # noqa: F401  (registers NumPy's names)
from . import pairs as _pairs
from . import pick as _pick
from . import random as _random
from . import rearrange as _rearrange
from . import reduce as _reduce
from . import scatter_reduce as _scatter_reduce
from . import shape as _shape
from . import softmax as _softmax
from . import sort as _sort
from . import strided as _strided
from . import typed as _typed
from . import window as _window
from .arithmetic import *  # noqa: F403
from .compare import *  # noqa: F403
from .convert import *  # noqa: F403
from .create import *  # noqa: F403
from .cumulative import *  # noqa: F403
from .elementwise import *  # noqa: F403
from .gather import *  # noqa: F403
from .index import *  # noqa: F403
from .join import *  # noqa: F403
from .mask import *  # noqa: F403
from .matmul import *  # noqa: F403
from .pairs import *  # noqa: F403
from .pick import *  # noqa: F403
from .random import *  # noqa: F403
from .rearrange import *  # noqa: F403
from .reduce import *  # noqa: F403
from .scatter_reduce import *  # noqa: F403
from .shape import *  # noqa: F403
from .softmax import *  # noqa: F403
from .sort import *  # noqa: F403
from .strided import *  # noqa: F403
from .typed import *  # noqa: F403
from .window import *  # noqa: F403

# The names of activation, embedding, dropout, loss and rnn belong to `cuframe.nn.functional` and are not offered here.
_FAMILIES = (
    _arithmetic, _compare, _convert, _create, _cumulative, _elementwise, _gather, _index, _join, _mask, _matmul, _pairs,
    _pick, _random, _rearrange, _reduce, _scatter_reduce, _shape, _softmax, _sort, _strided, _typed,
    _window,
)  # fmt: skip
__all__ = sorted({name for family in _FAMILIES for name in family.__all__})

# See Note [Warnings] in define.py.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"cuframe\.(ops|optim|cpu|autograd)\b")
_methods.attach(_sys.modules[__name__])
