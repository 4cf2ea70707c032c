"""What the simulator says of broken kernels: the mistake, the file and line, the block and thread."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading

import numpy as np
import pytest

from cuframe.cuda import sim
from cuframe.cuda.launch import CLUSTERS
from cuframe.cuda.sim import build
from tests.sim_helpers import BROKEN, ORDERS, f32, i32, launch, line_of, needs_compiler

pytestmark = needs_compiler


def report(file: str, kernel: str, *args, **sizes) -> sim.SimError:
    """The error that a launch ends with, after which a sound kernel still runs."""
    with pytest.raises(sim.SimError) as caught:
        launch(BROKEN / file, kernel, *args, **sizes)
    y = np.zeros(32, np.float32)
    launch(BROKEN / "divergent_barrier.cu", "announced_return", y, i32(20), beside=DIVERGENT)
    assert y.sum() == 20
    assert caught.value.kernel == kernel
    return caught.value


DIVERGENT = ("two_places", "one_branch", "early_return", "announced_return")


@pytest.fixture(params=ORDERS)
def any_order(request):
    with sim.order(request.param):
        yield request.param


def test_a_missing_barrier_shows_in_some_order():
    x, right = np.arange(1, 65, dtype=np.float32), {}
    for order in ORDERS:
        with sim.order(order):
            y = np.zeros(64, np.float32)
            launch(BROKEN / "missing_barrier.cu", "shift", x, y, block=64)
            right[order] = bool((y == [0, *x[:-1]]).all())
    del right["ahead:1"]  # whether it shows there depends on the warps' order
    assert right == {"forward": True, "reverse": False, "random:1": False, "random:2": False}


def test_a_warp_that_does_not_wait_for_others_shows_when_it_goes_ahead():
    x, right = np.arange(1, 65, dtype=np.float32), {}
    for order in ORDERS:
        with sim.order(order):
            y = np.zeros(64, np.float32)
            launch(BROKEN / "warp_barrier_only.cu", "turn_round", x, y, block=64)
            right[order] = bool((y == x[::-1]).all())
    assert right.pop("ahead:1") is False and right["forward"]


def test_barriers_in_two_places(any_order):
    error = report("divergent_barrier.cu", "two_places", np.zeros(32, np.float32), beside=DIVERGENT)
    places = [line_of("divergent_barrier.cu", "__syncthreads", k) for k in (0, 1)]
    assert error.line in places and error.file == str(BROKEN / "divergent_barrier.cu")
    for line in places:
        assert f"divergent_barrier.cu:{line}: in __syncthreads: block (0,0,0) thread (" in str(error)


@pytest.mark.parametrize("kernel, args, left", [("one_branch", (), 16), ("early_return", (i32(20),), 12)])
def test_a_barrier_that_some_threads_never_reach(any_order, kernel, args, left):
    error = report("divergent_barrier.cu", kernel, np.zeros(32, np.float32), *args, beside=DIVERGENT)
    assert "divergent __syncthreads" in str(error) and f"{left} threads have left the kernel" in str(error)
    assert error.line == line_of("divergent_barrier.cu", "__syncthreads", DIVERGENT.index(kernel) + 1)
    assert error.block == (0, 0, 0) and error.thread[0] < 32 - left


def test_a_thread_past_leave_barriers_has_none(any_order):
    error = report("divergent_barrier.cu", "comes_back", np.zeros(32, np.float32))
    assert "after leave_barriers()" in str(error) and error.thread == (3, 0, 0)


SHARED = ("static_memory", "both_kinds", "none_given")


@pytest.mark.parametrize("kernel, shared, text", [
    ("static_memory", 0, r"SHARED_ARRAY tile: 49156 bytes of static .* the limit is 49152; use DYNAMIC_SHARED"),
    ("both_kinds", 200000, r"49152 bytes of static and 200000 of dynamic shared memory, a block may have 232448"),
    ("none_given", 0, r"DYNAMIC_SHARED more: launched with 0 bytes"),
])
def test_too_much_shared_memory(kernel, shared, text):
    error = report("too_much_shared.cu", kernel, np.zeros(32, np.float32), shared=shared, beside=SHARED)
    error_line = line_of("too_much_shared.cu", "SHARED_ARRAY" if kernel != "none_given" else "DYNAMIC_SHARED",
                         {"static_memory": 0, "both_kinds": 1, "none_given": 1}[kernel])
    assert error.line == error_line and error.thread == (0, 0, 0)
    with pytest.raises(sim.SimError, match=text):
        raise error


def test_more_dynamic_shared_memory_than_the_gpu_has():
    with pytest.raises(sim.SimError, match="300000 bytes of dynamic shared memory, a block of sm_90 may have 232448"):
        launch(BROKEN / "too_much_shared.cu", "both_kinds", np.zeros(32, np.float32), shared=300000, beside=SHARED)


GRID = ("last_block_stays_away", "all_come", "wait_for_flag")


def test_a_grid_barrier_with_too_few_blocks(any_order):
    error = report("deadlocked_grid.cu", "last_block_stays_away", np.zeros(1, np.uint32), grid=4, cooperative=True,
                   beside=GRID)
    assert "deadlock" in str(error) and error.line == line_of("deadlocked_grid.cu", "grid_barrier")
    assert "in grid_barrier: block (" in str(error) and "and 2 more" in str(error)
    assert "in __syncthreads: block (" in str(error) and "32 threads have left the kernel" in str(error)


def test_a_flag_that_nobody_sets(any_order):
    error = report("deadlocked_grid.cu", "wait_for_flag", np.zeros(1, np.uint32), grid=2, cooperative=True, beside=GRID)
    assert "deadlock" in str(error) and "in spin_until" in str(error) and "and 63 more" in str(error)
    assert error.line == line_of("deadlocked_grid.cu", "spin_until")


def test_a_grid_barrier_in_an_ordinary_launch():
    error = report("deadlocked_grid.cu", "all_come", np.zeros(1, np.uint32), grid=4, beside=GRID)
    assert "a launch whose blocks wait for each other must be cooperative" in str(error)


def test_a_cooperative_launch_must_fit():
    with pytest.raises(sim.SimError, match="4000 blocks of 32 threads, of which the simulated GPU runs 128 at once"):
        launch(BROKEN / "deadlocked_grid.cu", "all_come", np.zeros(1, np.uint32), grid=4000, cooperative=True,
               beside=GRID)


WAITS = ("doubled<true>", "doubled<false>", "wrong_group", "no_wait")


def test_a_missing_wait_for_copies(any_order):
    x = np.arange(128, dtype=np.float32)
    for kernel, right in (("doubled<true>", True), ("doubled<false>", False), ("wrong_group", False)):
        y = np.zeros(128, np.float32)
        launch(BROKEN / "missing_wait.cu", kernel, x, y, beside=WAITS)
        assert bool((y == 2 * x[::-1]).all()) == right
        assert bool(np.isnan(y).any()) == (not right)


def test_copies_that_outlive_their_thread():
    x = np.arange(128, dtype=np.float32)
    error = report("missing_wait.cu", "no_wait", x, np.zeros(128, np.float32), beside=WAITS)
    assert error.line == line_of("missing_wait.cu", "cp_async_16", 1)
    assert "the thread ends while 1 of its copies are under way" in str(error)


LANES = ("shuffle_in_branch", "lane_that_left", "not_in_mask", "different_collectives")


@pytest.mark.parametrize("kernel, text, lines", [
    ("shuffle_in_branch", r"deadlock(.|\n)*:6: in __shfl_xor_sync: .* and 30 more\n.*:7: in __syncthreads: .*\(3,0,0\)",
     [6]),
    ("lane_that_left", r"__shfl_xor_sync: lane 2 reads lane 3, which has left the kernel", [14]),
    ("not_in_mask", r"mask 0x0000ffff does not name the calling lane (1[6-9]|2\d|3[01])", [18]),
    ("different_collectives", r"lanes of one warp are in different collectives", [23, 25]),
])
def test_warp_collectives_with_a_missing_lane(any_order, kernel, text, lines):
    error = report("missing_lane.cu", kernel, np.zeros(32, np.float32), beside=LANES)
    assert error.line in lines
    with pytest.raises(sim.SimError, match=text):
        raise error


OUTSIDE = ("global_write", "shared_write", "wild_pointer", "deep_recursion", "divide")


def test_a_write_past_a_shared_array_is_noticed_without_a_sanitizer(any_order):
    error = report("out_of_bounds.cu", "shared_write", np.zeros(32, np.float32), beside=OUTSIDE)
    assert "past the end of shared array tile of 124 bytes" in str(error)
    assert error.line == line_of("out_of_bounds.cu", "SHARED_ARRAY")


def test_a_wild_pointer_is_a_report(any_order):
    error = report("out_of_bounds.cu", "wild_pointer", np.zeros(32, np.float32), beside=OUTSIDE)
    assert "access to invalid address 0x40" in str(error)
    assert error.line == line_of("out_of_bounds.cu", "(64)") and error.thread == (5, 0, 0)


def test_a_full_stack_is_a_report():
    error = report("out_of_bounds.cu", "deep_recursion", np.zeros(32, np.float32), i32(100000), beside=OUTSIDE)
    assert "bytes of stack" in str(error)


def test_division_by_zero_is_a_report():
    error = report("out_of_bounds.cu", "divide", np.zeros(32, np.int32), i32(0), beside=OUTSIDE)
    assert "division by zero" in str(error) and error.line == line_of("out_of_bounds.cu", "/= by")


def test_a_failed_assertion():
    x = np.ones(64, np.float32)
    x[37] = 0
    error = report("failed_assertion.cu", "positive", x, i32(64), grid=2)
    assert (error.block, error.thread, error.line) == ((1, 0, 0), (5, 0, 0), line_of("failed_assertion.cu", "assert"))
    where = f"{error.file}:{error.line}: positive: block (1,0,0) thread (5,0,0)"
    assert str(error) == f"{where}: assertion failed: x[i] > 0"


ENDLESS = ("own_spin", "forever", "many_barriers")


def test_polling_by_hand_is_a_report():
    error = report("endless_poll.cu", "own_spin", np.zeros(1, np.uint32), grid=2, cooperative=True,
                   beside=ENDLESS)
    assert "spin_until" in str(error) and error.line == line_of("endless_poll.cu", "atomicAdd")


@pytest.mark.parametrize("kernel", ["forever", "many_barriers"])
def test_interrupts_end_a_launch(kernel):
    """A loop without an end, in the kernel's own code or over barriers."""
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    y = np.zeros(64, np.float32)
    # compiled before the timer starts
    launch(BROKEN / "endless_poll.cu", "own_spin", np.ones(1, np.uint32), beside=ENDLESS)
    # a shell that starts the tests in the background has them ignore interrupts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            launch(BROKEN / "endless_poll.cu", kernel, y, block=64, beside=ENDLESS)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def test_raw_shared_memory_does_not_compile():
    with pytest.raises(sim.CompileError, match="use SHARED_ARRAY"):
        launch(BROKEN / "raw_shared.cu", "raw", np.zeros(32, np.float32))


def test_compile_errors_name_file_and_line():
    with pytest.raises(sim.CompileError, match=r"failed_assertion.cu \(no_such\) does not compile(.|\n)*no_such"):
        sim.load(BROKEN / "failed_assertion.cu", ["no_such"])


@pytest.mark.parametrize("sizes, text", [
    ({"block": 1025}, "1 to 1024 threads"), ({"block": 0}, "1 to 1024 threads"),
    ({"block": (1, 1, 65)}, "at most 64 in z"),
    ({"grid": 0}, "the grid must be within"), ({"grid": (1, 65536)}, "the grid must be within"),
])
def test_sizes_out_of_range(sizes, text):
    with pytest.raises(sim.SimError, match=text):
        launch(BROKEN / "failed_assertion.cu", "positive", np.ones(1, np.float32), i32(1), **sizes)


def test_arguments_of_other_sizes():
    with pytest.raises(sim.SimError, match=r"takes 2 arguments of \[8, 4\] bytes, got 1 of \[4\]"):
        launch(BROKEN / "failed_assertion.cu", "positive", f32(1))


def test_binaries_come_from_the_cache(monkeypatch):
    launch(BROKEN / "failed_assertion.cu", "positive", np.ones(1, np.float32), i32(1))
    monkeypatch.setattr(build.subprocess, "run", lambda *a, **k: pytest.fail("the compiler was started"))
    again = sim.load(BROKEN / "failed_assertion.cu", ["positive"])
    assert again.path == build.build_kernels(BROKEN / "failed_assertion.cu", ["positive"], ())


def test_two_that_want_the_same_kernel_compile_it_once(tmp_path, monkeypatch):
    path = tmp_path / "once.cu"
    path.write_text(f'#include "common/platform.cuh"\n__global__ void once() {{}}  // {tmp_path}\n')
    started, run = [], subprocess.run

    def counted(command, **options):
        started.append(command)
        return run(command, **options)

    build.compiler()
    monkeypatch.setattr(build.subprocess, "run", counted)
    found = []
    threads = [threading.Thread(target=lambda: found.append(build.build_kernels(path, ["once"], ()))) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(started) == 1 and len(set(found)) == 1 and found[0].is_file()


def test_the_cache_key_covers_included_files(tmp_path):
    (tmp_path / "part.cuh").write_text("constexpr float VALUE = 1;\n")
    (tmp_path / "whole.cu").write_text('#include "common/platform.cuh"\n#include "part.cuh"\n'
                                       "__global__ void set(float* y) { *y = VALUE; }\n")
    y = np.zeros(1, np.float32)
    for value in (1, 2):
        (tmp_path / "part.cuh").write_text(f"constexpr float VALUE = {value};\n")
        program = sim.load(tmp_path / "whole.cu", ["set"])
        program.launch("set", (1, 1, 1), (1, 1, 1), 0, [ctypes.c_void_p(y.ctypes.data)])
        assert y[0] == value


def test_without_a_compiler_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "dnf" else None)
    monkeypatch.delenv("CXX", raising=False)
    build.compiler.cache_clear()
    try:
        hint = r"g\+\+ or clang\+\+ was not found. Install it with: dnf install gcc-c\+\+"
        with pytest.raises(RuntimeError, match=hint):
            build.compiler()
    finally:
        build.compiler.cache_clear()


@pytest.mark.parametrize("text", ["backward", "random:x", "reverse:1", ""])
def test_orders_that_are_none(text):
    with pytest.raises(ValueError, match="order must be forward, reverse, random:SEED or ahead:SEED"):
        sim.set_order(text)


CLUSTER = ("pass_on", "reads_at_once", "ends_before_it_is_read", "odd_address", "no_such_block", "one_block_stays_away")


def test_blocks_of_a_cluster_read_each_others_shared_memory(any_order):
    values = np.arange(4 * 32, dtype=np.uint32)
    launch(BROKEN / "cluster.cu", "pass_on", values, i32(7), grid=4, cooperative=CLUSTERS, beside=CLUSTER)
    assert values.reshape(4, 32).tolist() == [[(b + 7) % 4 * 32 + i + 7 for i in range(32)] for b in range(4)]


@pytest.mark.parametrize(("kernel", "message", "text"), [
    ("reads_at_once", "block 1 has not come to its shared memory; a barrier of the cluster must", "too early"),
    ("ends_before_it_is_read", "block 1 has left, and its shared memory with it", "gone"),
    ("odd_address", "the address must be aligned to 16 bytes", "+ 1), 0"),
    ("no_such_block", "rank 4 of a cluster of 4", "box, 4")])
def test_what_a_cluster_must_not_do(kernel, message, text):
    error = report("cluster.cu", kernel, np.zeros(4 * 32, np.uint32), grid=4, cooperative=CLUSTERS, beside=CLUSTER)
    assert f"load_peer: {message}" in str(error) and error.line == line_of("cluster.cu", text)


def test_a_block_that_does_not_come_to_its_cluster():
    error = report("cluster.cu", "one_block_stays_away", np.zeros(1, np.uint32), grid=4, cooperative=CLUSTERS,
                   beside=CLUSTER)
    assert "deadlock" in str(error) and "in cluster_barrier" in str(error)


def test_a_cluster_in_an_ordinary_launch():
    for cooperative in (False, True):
        error = report("cluster.cu", "pass_on", np.zeros(4 * 32, np.uint32), i32(1), grid=4, cooperative=cooperative,
                       beside=CLUSTER)
        assert "cluster_barrier: the launch makes no clusters" in str(error)
    with pytest.raises(sim.SimError, match="a cluster has at most 8 blocks, got rows of 9"):
        launch(BROKEN / "cluster.cu", "pass_on", np.zeros(9 * 32, np.uint32), i32(1), grid=9, cooperative=CLUSTERS,
               beside=CLUSTER)
