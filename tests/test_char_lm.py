"""The training script, run as a user runs it."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cuframe as cf

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--batch-size", "4", "--steps", "16", "--hidden", "16", "--embedding", "8", "--sample", "40"]


def command(*options):
    return [sys.executable, str(ROOT / "examples" / "char_lm.py"), *SMALL, *map(str, options)]


def environment():
    # On the small disk of a test below Python would leave truncated byte code, which nothing imports any more.
    writes = {"PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | writes | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}


def run(*options, code=0, **more):
    done = subprocess.run(command(*options), text=True, capture_output=True, env=environment(), timeout=120, **more)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    rng = np.random.default_rng(0)
    words = ["naïve", "café", "the", "loss", "falls", "while", "we", "watch", "[red]"]
    path.write_text(" ".join(rng.choice(words, 1500)), encoding="utf-8")
    return path


def test_trains_and_leaves_everything_promised(text, tmp_path):
    out = run("--text", text, "--out", tmp_path, "--epochs", 2, "--prompt", "the ")
    (last,) = re.findall(r"^validation (\d\.\d\d) bits/char after 2 epochs, \d+ s$", out, flags=re.MULTILINE)
    saved = cf.load(tmp_path / "checkpoint.safetensors")
    assert f"{saved['validation'][-1]:.2f}" == last
    losses = saved["losses"]
    assert losses[-10:].mean() < 0.8 * losses[:10].mean()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "sample.txt").read_text(encoding="utf-8").strip("\n")) == 44
    assert {"model", "optimizer", "rng", "step", "state"} <= saved.keys()


def test_interrupted_and_resumed_is_bit_identical(text, tmp_path):
    options = ["--text", text, "--epochs", 40]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(*options, "--out", whole)
    # The second run is interrupted as soon as it has a checkpoint, wherever that is in its epoch.
    process = subprocess.Popen(
        command(*options, "--out", parts, "--save-every", "0.05"), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (parts / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped by SIGINT" in output, output
    stopped = cf.load(parts / "checkpoint.safetensors")
    full = cf.load(whole / "checkpoint.safetensors")
    assert 0 < stopped["step"] < full["step"]
    run(*options, "--out", parts, "--resume")
    resumed = cf.load(parts / "checkpoint.safetensors")
    np.testing.assert_array_equal(resumed["losses"], full["losses"])
    assert resumed["validation"] == full["validation"]
    for name, value in full["model"].items():
        np.testing.assert_array_equal(resumed["model"][name].numpy(), value.numpy())
    assert (parts / "sample.txt").read_text() == (whole / "sample.txt").read_text()


def test_resume_refuses_other_settings(text, tmp_path):
    run("--text", text, "--out", tmp_path, "--epochs", 1)
    out = run("--text", text, "--out", tmp_path, "--epochs", 2, "--resume", "--lr", 1e-3, code=2)
    assert "lr was 0.004" in out and "now it is 0.001" in out


def test_a_full_disk_keeps_the_old_checkpoint(text, tmp_path):
    run("--text", text, "--out", tmp_path, "--epochs", 1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    out = run("--text", text, "--out", tmp_path, "--epochs", 2, "--resume", code=1, preexec_fn=small_disk)
    assert re.search(r"checkpoint.safetensors: .*cannot write, nothing was changed: File too large", out)
    assert "Traceback" not in out
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        (b"", "is empty"),
        (b"caf\xe9 " * 500, "is not UTF-8 (byte 3)"),
        (b"too short", "the text has 9 characters; this batch size and number of steps need"),
    ],
    ids=["missing", "empty", "latin-1", "short"],
)
def test_bad_text(content, message, tmp_path):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    out = run("--text", path, "--out", tmp_path / "run", code=2)
    assert message in out and "Traceback" not in out
    assert not (tmp_path / "run").exists()


def test_bad_options(tmp_path):
    assert "must be positive, got -1" in run("--epochs", -1, code=2)
    assert "there is no" in run("--resume", "--out", tmp_path / "none", code=2)
