"""Layers, models and what is needed to build them."""

from importlib import import_module as _import
from typing import TYPE_CHECKING, Any

from ..tensor import Parameter
from . import containers, functional, hooks, init, modules, utils
from .containers import *  # noqa: F403
from .module import Module
from .modules.activation import *  # noqa: F403
from .modules.adaptive import *  # noqa: F403
from .modules.attention import *  # noqa: F403
from .modules.batchnorm import *  # noqa: F403
from .modules.conv import *  # noqa: F403
from .modules.ctc import *  # noqa: F403
from .modules.distance import *  # noqa: F403
from .modules.dropout import *  # noqa: F403
from .modules.embedding import *  # noqa: F403
from .modules.flatten import *  # noqa: F403
from .modules.linear import *  # noqa: F403
from .modules.loss import *  # noqa: F403
from .modules.multi_label import *  # noqa: F403
from .modules.normalization import *  # noqa: F403
from .modules.padding import *  # noqa: F403
from .modules.pooling import *  # noqa: F403
from .modules.rnn import *  # noqa: F403
from .modules.transformer import *  # noqa: F403
from .modules.vision import *  # noqa: F403

if TYPE_CHECKING:
    from . import parallel
    from .parallel import DataParallel

__all__ = ["DataParallel", "Module", "Parameter", "functional", "hooks", "init", "modules", "parallel", "utils"]
__all__ += containers.__all__
for _family in (
    modules.activation, modules.adaptive, modules.attention, modules.batchnorm, modules.conv, modules.ctc,
    modules.distance, modules.dropout, modules.embedding, modules.flatten, modules.linear, modules.loss,
    modules.multi_label, modules.normalization, modules.padding, modules.pooling, modules.rnn,
    modules.transformer, modules.vision,
):  # fmt: skip
    __all__ += _family.__all__


def __getattr__(name: str) -> Any:
    if name == "parallel":  # what one process does without is imported when it is first asked for
        return _import("cuframe.nn.parallel")
    if name == "DataParallel":  # of that as well
        return _import("cuframe.nn.parallel").DataParallel
    raise AttributeError(f"module 'cuframe.nn' has no attribute {name!r}")
