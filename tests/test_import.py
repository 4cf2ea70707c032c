"""`import cuframe` is quick, because what a model and its training step do without waits until it is asked for."""

import subprocess
import sys

import pytest

import cuframe as cf

DEAR = ["cupy", "hashlib", "llvmlite", "multiprocessing", "numpy.random", "rich", "safetensors", "scipy", "tempfile"]


def test_dear_modules_are_left_out():
    script = f"import cuframe, sys; print([m for m in {DEAR} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert [name for name in cf.__all__ if not hasattr(cf, name) or name not in dir(cf)] == []


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(cf, "no_such_name")  # noqa: B009
