"""The cases of `cuframe bench` on a device: what the small ones launch, which are repeated and sanitized there."""

from __future__ import annotations

import pytest

import cuframe as cf
from cuframe import _paths
from cuframe.bench.case import Side, passes
from cuframe.bench.families import family
from cuframe.bench.resources import launched
from cuframe.cuda import tuned
from cuframe.gpu import _rnn_persistent as persistent
from tests.kernels import exchanges_of


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


def test_a_cluster_is_noted_as_any_launch(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "cluster" not in exchanges_of(device):
        pytest.skip("clusters are of sm_90")
    table = tuned.read(_paths.kernels_dir() / "tuned" / "default.json")
    monkeypatch.setattr(persistent, "table", lambda arch: table._replace(default=tuned.Choice("cluster", 8, 0)))
    work = family("gru").build(Side(cf, device, "float32"), *family("gru").small)
    plans = []
    true = persistent.run_forward
    monkeypatch.setattr(persistent, "run_forward", lambda cell, plan, *a: (plans.append(plan), true(cell, plan, *a)))
    with launched() as found:
        passes(work, cf)["training"]()
    assert len(found) == 2 and {plan.exchange for plan in plans} == {"cluster"}
