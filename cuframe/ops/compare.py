"""Comparisons and logic: results are bool, or integer for bitwise operations; none of them has a gradient."""

from __future__ import annotations

import numpy as np

from .define import binary

__all__ = ["eq", "ge", "gt", "le", "lt", "ne"]

eq = binary("eq", np.equal, None)
ne = binary("ne", np.not_equal, None)
lt = binary("lt", np.less, None)
le = binary("le", np.less_equal, None)
gt = binary("gt", np.greater, None)
ge = binary("ge", np.greater_equal, None)
