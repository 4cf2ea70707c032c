"""`examples/own_kernel.py`: the kernel that users are shown how to write."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import cuframe as cf
from tests.kernels import FLOATS, MANY_ROWS, assert_near, numbers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
import own_kernel


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [0, 1, 257, MANY_ROWS])
def test_forward(n: int, dtype: str, device: str) -> None:
    a, b = (numbers(n, dtype=dtype, seed=s) for s in (0, 1))
    y = own_kernel.SwiGLU.apply(*(cf.tensor(x, device=device) for x in (a, b)))
    x = a.astype(np.float64)
    assert_near(y.array, x / (1 + np.exp(-x)) * b.astype(np.float64), dtype, 2)


def test_check(device: str) -> None:
    assert own_kernel.check(device) < 1e-14


def test_training_learns(device: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    model, losses = own_kernel.train(device, 50)
    assert losses[-1] < losses[0] / 20
    assert capsys.readouterr().out.startswith("step   50  loss")
    picture = tmp_path / "new" / "learned.png"
    assert own_kernel.evaluate(model, device, picture, losses) < losses[0] / 20
    assert picture.stat().st_size > 10_000 and str(picture) in capsys.readouterr().out


def test_without_matplotlib_there_is_no_picture(device, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    model = own_kernel.Model().to(device)
    assert own_kernel.evaluate(model, device, tmp_path / "learned.png", [1.0]) > 0
    assert "pip install -e '.[plot]'" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_host_tensors_are_refused() -> None:
    with pytest.raises(TypeError, match="swiglu_forward: runs on arrays of a 'cuda' or 'sim' device, got ndarray"):
        own_kernel.SwiGLU.apply(cf.ones(2), cf.ones(2))
