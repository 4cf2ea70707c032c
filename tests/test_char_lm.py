"""The training script, run as a user runs it."""

import os
import re
import resource
import shutil
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


def command(*options, launcher=()):
    return [sys.executable, *launcher, str(ROOT / "examples" / "char_lm.py"), *SMALL, *map(str, options)]


def environment():
    # On the small disk of a test below Python would leave truncated byte code, which nothing imports any more.
    writes = {"PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | writes | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}


def run(*options, code=0, launcher=(), **more):
    done = subprocess.run(
        command(*options, launcher=launcher), text=True, capture_output=True, env=environment(), timeout=120, **more
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def start(*options, out, launcher=()):
    """A run that has just written its first checkpoint, wherever that is in its epoch."""
    before = changed(out)
    process = subprocess.Popen(
        command(*options, "--out", out, "--save-every", "0.05", launcher=launcher), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while changed(out) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def changed(folder):
    """When its checkpoint was written, 0 where there is none."""
    path = folder / "checkpoint.safetensors"
    return path.stat().st_mtime_ns if path.exists() else 0


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


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """A run to the end: its options, and the folder with what it left."""
    folder, options = tmp_path_factory.mktemp("whole"), ["--text", text, "--epochs", 5]
    run(*options, "--out", folder)
    return options, folder


def test_interrupted_and_resumed_is_bit_identical(whole, tmp_path):
    options, whole = whole
    parts = tmp_path / "parts"
    process = start(*options, out=parts)
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


LAUNCHER = ["-m", "cuframe", "run", "--nproc-per-node", "2", "--max-restarts", "1"]
needs_launcher = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the launcher needs Linux")


def same_curve(folder, other):
    a, b = (cf.load(f / "checkpoint.safetensors") for f in (folder, other))
    np.testing.assert_allclose(a["losses"], b["losses"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(a["validation"], b["validation"], atol=1e-5, rtol=0)
    assert [s.shape for s in a["state"]] == [s.shape for s in b["state"]]


@needs_launcher
def test_two_processes_one_of_which_is_killed_have_the_curve_of_one(whole, tmp_path):
    options, whole = whole
    shutil.copy(whole / "checkpoint.safetensors", tmp_path)  # that of an older run is not taken up
    process = start(*options, out=tmp_path, launcher=LAUNCHER)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = [int(c) for c in children if b"char_lm.py" in Path(f"/proc/{c}/cmdline").read_bytes()]
    os.kill(ranks[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0 and re.search(r"rank 1 .* died of SIGKILL at step \d", output), output
    assert len(re.findall(r"resuming after step [1-9]", output)) == len(re.findall("5/5: training", output)) == 1
    assert len(re.findall(r"^validation .* bits/char after 5 epochs", output, flags=re.MULTILINE)) == 1
    same_curve(tmp_path, whole)


@needs_launcher
def test_ctrl_c_in_two_processes_and_one_that_resumes(whole, tmp_path):
    options, whole = whole
    process = start(*options, out=tmp_path, launcher=LAUNCHER)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and output.count("stopped by SIGINT") == 1, output
    assert "restart" not in output and "Traceback" not in output
    assert 0 < cf.load(tmp_path / "checkpoint.safetensors")["step"] < 500
    run(*options, "--out", tmp_path, "--resume")
    same_curve(tmp_path, whole)
    out = run(*options, "--out", tmp_path, "--batch-size", 5, code=2, launcher=LAUNCHER[:-2])
    assert out.count("error: --batch-size: 2 processes cannot have equal shares of 5 streams") == 1


def test_without_matplotlib_it_says_what_to_install(text, tmp_path):
    hide = (
        "import runpy, sys; sys.modules['matplotlib'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    out = run("--text", text, "--out", tmp_path, "--epochs", 1, launcher=("-c", hide))
    assert "(pip install -e '.[plot]' draws the loss curve, too)" in out and not (tmp_path / "loss.png").exists()


def test_resume_refuses_other_settings(whole):
    options, whole = whole
    out = run(*options, "--out", whole, "--resume", "--lr", 1e-3, code=2)
    assert "lr was 0.004" in out and "now it is 0.001" in out


def test_a_full_disk_keeps_the_old_checkpoint(whole, tmp_path):
    options, whole = whole
    shutil.copy(whole / "checkpoint.safetensors", tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    out = run(*options, "--out", tmp_path, "--epochs", 6, "--resume", code=1, preexec_fn=small_disk)
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
