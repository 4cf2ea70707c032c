"""Freed memory stays with the process, and compiled kernels keep to the threads they are given."""

import os
import platform
import subprocess
import sys

import pytest

from cuframe.cpu import jit

FAULTS = """
import resource
import numpy as np
from cuframe.cpu import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        arrays = [np.ones(400_000) for _ in range(8)]  # each below the size from which NumPy asks for huge pages
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(memory.keep(), faults())
"""


def run(code: str, **variables: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "OMP_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_arrays_cost_page_faults_once():
    kept, count = run(FAULTS)
    assert kept == "True" and int(count) < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibcs_own_variables_are_left_alone():
    kept, count = run(FAULTS, MALLOC_MMAP_THRESHOLD_="65536")
    assert kept == "False" and int(count) > 10_000


@pytest.mark.parametrize(("given", "threads"), [("1", 1), ("1,2", 1), ("10000", None), ("", None), ("0", None)])
def test_threads_are_as_many_as_openmp_may_have(given, threads):
    (found,) = run("from cuframe.cpu import jit; print(jit.cpus())", OMP_NUM_THREADS=given)
    assert int(found) == (threads or min(8, len(os.sched_getaffinity(0)), jit._quota() or 8))


@pytest.mark.parametrize(("text", "threads"), [("150000 100000\n", 1), ("400000 100000\n", 4), ("20000 100000\n", 1),
                                               ("max 100000\n", 6), ("", 6), (None, 6)])
def test_threads_are_as_many_as_a_container_has_time_for(text, threads, tmp_path, monkeypatch):
    file = tmp_path / "cpu.max"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(jit, "_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert jit.cpus.__wrapped__() == threads
