"""Runs `cuframe run` before the package is imported.

Note [The launcher starts first]
    Python imports a package before any of its modules, so `cuframe run` would wait a quarter of a second for arrays
    and layers, which it needs none of, and its ranks would wait with it. So the first line of the package's
    `__init__` comes here, and where this process is the launcher, it is run and ended here.
"""

import os
import sys

__all__ = ["launches"]


def launches(argv: list[str], original: list[str]) -> bool:
    """Whether a process is `cuframe run`, by its `sys.argv` and `sys.orig_argv`.

    >>> launches(["-m", "run", "train.py"], ["python", "-m", "cuframe", "run", "train.py"])
    True
    >>> launches(["-m", "run", "train.py"], ["python", "-m", "other", "run", "train.py"])
    False
    """
    if argv[1:2] != ["run"]:
        return False
    if argv[0] == "-m":  # until Python puts the module's file there
        return original[-len(argv)] == "cuframe"
    if os.path.basename(argv[0]) != "cuframe":
        return False
    try:
        with open(argv[0], "rb") as script:
            return b"from cuframe.cli import main" in script.read(1024)  # pip's script, not another of that name
    except OSError:
        return False


if launches(getattr(sys, "argv", []), sys.orig_argv):
    from .cli import main

    sys.exit(main(sys.argv[1:]))
