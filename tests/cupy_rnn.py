"""Recurrent layers on CuPy without a GPU, where shapes, dtypes and errors are real and values are not.

Run by tests/test_cupy_recurrent.py, with the plugin tests.cupy_without_gpu.
"""

from __future__ import annotations

import pytest

import cuframe as cf
from cuframe.cuda import tune


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layers(kind: str, bidirectional: bool, recompute: bool, dtype: str) -> None:
    """Two layers of 160 steps: beside one another, or in two directions at once."""
    layer = getattr(cf.nn, kind)(5, 16, num_layers=2, bidirectional=bidirectional, recompute=recompute)
    layer = layer.to("cuda").to(getattr(cf, dtype))
    x = cf.zeros(160, 2, 5, dtype=dtype).to("cuda").requires_grad_()
    for lengths in (None, [160, 3]):
        y, _ = layer(x, lengths=lengths)
        assert tuple(y.shape) == (160, 2, 32 if bidirectional else 16) and y.device.type == "cuda"
        y.sum().backward()
        for p in (*layer.parameters(), x):
            assert p.grad.shape == p.shape and p.grad.dtype == p.dtype


def test_what_is_measured() -> None:
    bench = tune.GpuBench(cf.zeros(1).to("cuda").array, lambda work: (work(), 1.0)[1], (16, 2, 40), repeats=1, steps=3)
    chosen = [tune.Case("lstm", "float16", 32, 2, 2), tune.Case("gru", "tf32", 32, 2, 1)]
    assert len(tune.search(bench, 100, chosen)[0]["measured"]) == 2
