"""Differentiable operations, one file a family. What stands here is what `cuframe` and Tensor's methods offer."""

import sys as _sys
import warnings as _warnings

from . import (
    arithmetic, compare, create, cumulative, dropout, elementwise, embedding, index, loss, matmul, methods, random,
    reduce, rnn, shape, softmax, sort,
)  # fmt: skip
from .arithmetic import *  # noqa: F403
from .compare import *  # noqa: F403
from .create import *  # noqa: F403
from .cumulative import *  # noqa: F403
from .elementwise import *  # noqa: F403
from .index import *  # noqa: F403
from .matmul import *  # noqa: F403
from .random import *  # noqa: F403
from .reduce import *  # noqa: F403
from .shape import *  # noqa: F403
from .softmax import *  # noqa: F403
from .sort import *  # noqa: F403

# Families whose names belong to `cuframe.nn.functional` (loss, embedding, dropout, rnn) are not re-exported here.
__all__ = sorted(
    {
        name
        for family in (arithmetic, compare, create, cumulative, elementwise, index, matmul, random, reduce, shape,
                       softmax, sort)
        for name in family.__all__
    }
)  # fmt: skip

# See Note [Warnings] in define.py.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"cuframe\.(ops|optim|cpu|autograd)\b")
methods.attach(_sys.modules[__name__])
