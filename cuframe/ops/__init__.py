"""Differentiable operations, one file a family. What stands here is what `cuframe` and Tensor's methods offer."""

import sys as _sys
import warnings as _warnings

from . import (
    arithmetic,
    compare,
    convert,
    create,
    cumulative,
    dropout,
    elementwise,
    embedding,
    index,
    join,
    loss,
    mask,
    matmul,
    methods,
    pick,
    random,
    rearrange,
    reduce,
    rnn,
    scatter_reduce,
    shape,
    softmax,
    sort,
)  # fmt: skip

# Before the star imports: some functions carry their family's name. The names of loss, embedding, dropout and rnn
# belong to `cuframe.nn.functional` and are not offered here.
_FAMILIES = (
    arithmetic, compare, convert, create, cumulative, elementwise, index, join, mask, matmul, pick, random, rearrange,
    reduce, scatter_reduce, shape, softmax, sort,
)  # fmt: skip
from .arithmetic import *  # noqa: E402, F403
from .compare import *  # noqa: E402, F403
from .convert import *  # noqa: E402, F403
from .create import *  # noqa: E402, F403
from .cumulative import *  # noqa: E402, F403
from .elementwise import *  # noqa: E402, F403
from .index import *  # noqa: E402, F403
from .join import *  # noqa: E402, F403
from .mask import *  # noqa: E402, F403
from .matmul import *  # noqa: E402, F403
from .pick import *  # noqa: E402, F403
from .random import *  # noqa: E402, F403
from .rearrange import *  # noqa: E402, F403
from .reduce import *  # noqa: E402, F403
from .scatter_reduce import *  # noqa: E402, F403
from .shape import *  # noqa: E402, F403
from .softmax import *  # noqa: E402, F403
from .sort import *  # noqa: E402, F403

__all__ = sorted({name for family in _FAMILIES for name in family.__all__})

# See Note [Warnings] in define.py.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"cuframe\.(ops|optim|cpu|autograd)\b")
methods.attach(_sys.modules[__name__])
