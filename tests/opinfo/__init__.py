"""The test table: every public operation, one module a family. `OP_DB` is all of it.

`CUFRAME_OPINFO=shape,index pytest tests/test_ops.py` loads these families only.
"""

import importlib
import os
import pkgutil

from .core import ErrorInput, OpInfo, Sample

__all__ = ["OP_DB", "ErrorInput", "OpInfo", "Sample"]

_wanted = os.environ.get("CUFRAME_OPINFO", "").split(",")
FAMILIES = {
    name: importlib.import_module(f"{__name__}.{name}")
    for name in sorted(m.name for m in pkgutil.iter_modules(__path__))
    if name != "core" and (_wanted == [""] or name in _wanted)
}
OP_DB: list[OpInfo] = [info for family in FAMILIES.values() for info in family.OPS]
