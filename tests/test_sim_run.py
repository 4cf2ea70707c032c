"""`cuframe sim run`: sanitizers that name the CUDA thread, thread orders, the debugger, the script's own status."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim_helpers import BROKEN, line_of, needs_compiler

pytestmark = needs_compiler

SCRIPT = """
import ctypes, sys
from pathlib import Path
import numpy as np
from cuframe.cuda import sim
file, kernel, count, threads, sizes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
arrays = [np.zeros(count, np.float32) for _ in sizes if _ == "array"]
pointers = iter(arrays)
args = [ctypes.c_void_p(next(pointers).ctypes.data) if s == "array" else ctypes.c_int(int(s)) for s in sizes]
sim.load(file, [kernel]).launch(kernel, (2, 1, 1), (threads, 1, 1), 0, args)
print("ended", arrays[0][:3].tolist())
"""


def watched(options: list[str], script: Path, *args: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "cuframe", "sim", "run", *options, str(script), *map(str, args)],
                          capture_output=True, text=True, check=False)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("kernel, threads, text, who", [
    ("global_write", 32, "heap-buffer-overflow", "block (1,0,0) thread (31,0,0)"),
    ("shared_write", 32, "use-after-poison", "block (0,0,0) thread (31,0,0)"),
])
def test_address_sanitizer(script, kernel, threads, text, who):
    sizes = ["array", 63] if kernel == "global_write" else ["array"]
    done = watched(["--sanitize", "address"], script, BROKEN / "out_of_bounds.cu", kernel, 63, threads, *sizes)
    assert done.returncode == 66 and "ended" not in done.stdout
    assert text in done.stderr and f"in kernel {kernel}, {who}" in done.stderr
    line = line_of("out_of_bounds.cu", "y[i] = 1.0f" if kernel == "global_write" else "tile[threadIdx.x] =")
    assert f"out_of_bounds.cu:{line}" in done.stderr


@pytest.mark.parametrize("file, kernel, args, lines", [
    ("shared_race.cu", "count", ["array"], ("total[0] += 1", "total[0] += 1")),
    ("missing_barrier.cu", "shift", ["array", "array"], ("= threadIdx.x ?", "= x[threadIdx.x]")),
])
def test_thread_sanitizer(script, file, kernel, args, lines):
    done = watched(["--sanitize", "thread"], script, BROKEN / file, kernel, 64, 8, *args)
    assert done.returncode == 66 and "data race" in done.stderr
    for text in lines:
        assert f"{file}:{line_of(file, text)}" in done.stderr
    assert "'block (0,0,0) thread (0,0,0)'" in done.stderr and "'block (0,0,0) thread (1,0,0)'" in done.stderr


def test_thread_sanitizer_between_blocks(script):
    done = watched(["--sanitize", "thread"], script, BROKEN / "shared_race.cu", "count_blocks", 1, 8, "array")
    assert done.returncode == 66 and f"shared_race.cu:{line_of('shared_race.cu', 'y[0] += 1')}" in done.stderr
    assert "'block (0,0,0) thread (0,0,0)'" in done.stderr and "'block (1,0,0) thread (0,0,0)'" in done.stderr


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_find_nothing_in_a_sound_kernel(script, sanitizer):
    done = watched(["--sanitize", sanitizer, "--order", "random:3"], script, BROKEN / "shared_race.cu",
                   "count_atomically", 2, 64, "array")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("ended")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_find_nothing_in_the_feature_kernels(sanitizer):
    """test_sim.py run under the sanitizer, but for launches of so many CUDA threads that it would take minutes."""
    done = watched(["--sanitize", sanitizer], Path(pytest.__file__).with_name("__main__.py"), "-q",
                   "-p", "no:cacheprovider", Path(__file__).with_name("test_sim.py"),
                   "-k", "not converts and not conversion and not several")
    assert done.returncode == 0, done.stdout + done.stderr


def test_run_passes_order_and_status_on(tmp_path):
    path = tmp_path / "order.py"
    path.write_text("import sys\nfrom cuframe.cuda.sim.settings import current_order\n"
                    "print(current_order(), sys.argv[1:])\nsys.exit(3)\n")
    done = watched(["--order", "random:5"], path, "--some", "option")
    assert (done.returncode, done.stdout) == (3, "(2, 5) ['--some', 'option']\n")
    done = watched(["--order", "sideways"], path)
    assert done.returncode == 2
    assert "order must be forward, reverse, random:SEED or ahead:SEED, got 'sideways'" in done.stderr


def test_a_missing_debugger_is_named(script, tmp_path):
    done = subprocess.run([sys.executable, "-m", "cuframe", "sim", "run", "--gdb", str(script)], check=False,
                          capture_output=True, text=True, env={**os.environ, "PATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (127, "cuframe sim: gdb was not found\n")


def test_a_sanitizer_must_be_there_from_the_start(script):
    done = subprocess.run([sys.executable, str(script), BROKEN / "shared_race.cu", "count", "2", "8", "array"],
                          check=False, capture_output=True, text=True,
                          env={**os.environ, "CUFRAME_SIM_SANITIZE": "thread"})
    assert done.returncode == 1 and "`cuframe sim run --sanitize thread SCRIPT`" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_stops_in_one_cuda_thread(script):
    commands = "break shared_race.cu:8 if threadIdx.x == 3\nrun\nprint threadIdx\nprint total[0]\nkill\nquit\n"
    done = subprocess.run([sys.executable, "-m", "cuframe", "sim", "run", "--gdb", str(script),
                           str(BROKEN / "shared_race.cu"), "count", "2", "8", "array"],
                          capture_output=True, text=True, check=False, timeout=300, input=commands)
    if "ptrace" in done.stderr:
        pytest.skip(f"gdb may not run programs here: {done.stderr.strip()}")
    assert "$1 = {x = 3, y = 0, z = 0}" in done.stdout and "$2 = 3" in done.stdout
