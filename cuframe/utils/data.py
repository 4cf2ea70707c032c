"""`cuframe.data` under PyTorch's name: `from cuframe.utils.data import DataLoader`."""

from ..data import *  # noqa: F403
from ..data import __all__  # noqa: F401
