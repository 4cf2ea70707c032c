"""The cases of `cuframe bench` on a device: what the small ones launch, which are repeated and sanitized there."""

from __future__ import annotations

import pytest

import cuframe as cf
from cuframe.bench.case import Side, passes
from cuframe.bench.families import family
from cuframe.bench.resources import launched


@pytest.mark.parametrize(("name", "kernel", "instance"), [
    ("lstm", "rnn_persistent", "<float, 0, false>"), ("gru_bidirectional", "rnn_persistent", "<float, 1, false>"),
    ("lstm_lengths", "rnn_persistent", "<float, 0, false>"), ("lstm_tf32", "rnn_persistent", "<float, 0, true>"),
    ("lstm_stacked", "rnn_persistent", "<float, 0, false>"), ("attention_tf32", "attention_mma", "<float, 64"),
    ("attention_lengths", "attention", "<float, 64")])
def test_small_cases_launch_what_the_large_ones_launch(device: str, name: str, kernel: str, instance: str) -> None:
    """Whatever the tuned table says: what is repeated and sanitized are the kernels that are meant."""
    work = family(name).build(Side(cf, device, "float32"), *family(name).small)
    for mode, call in passes(work, cf).items():
        with launched() as found:
            call()
        made = [x.expression for x in found]
        for way in ("forward", "backward") if mode == "training" else ("forward",):
            assert any(f"{kernel}_{way}{instance}" in e for e in made), (mode, made)
        assert not any("rnn_cell" in e for e in made), made
