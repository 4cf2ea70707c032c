"""`cuframe run`: what ranks are told, and that a fault ends everything, quickly and with the right name.

The scripts import nothing of cuframe where they need not: importing it takes longer than these tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from cuframe.cli import main
from cuframe.cli import run as run_command
from cuframe.distributed.output import Pump, Screen, same_size
from tests.wire import Wire

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the launcher needs Linux")

# A rank that says where its processes are, so that a test can see that all of them have ended.
START = """
import os, signal, subprocess, sys, time
rank = int(os.environ["RANK"])
folder = sys.argv[1]
def here(pid, name):
    with open(f"{folder}/{name}.tmp", "w") as f:
        f.write(str(pid))
    os.rename(f"{folder}/{name}.tmp", f"{folder}/{name}.pid")
def together(count):
    while len([f for f in os.listdir(folder) if f.endswith(".pid")]) < count:
        time.sleep(0.01)
"""


def start(tmp_path: Path, body: str, *options: str) -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(START + body)
    folder = tmp_path / "pids"
    folder.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cuframe", "run", *options, str(script), str(folder)]
    return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=-1, stderr=-1, text=True)


def run(tmp_path: Path, body: str, *options: str) -> tuple[int, str, str]:
    job = start(tmp_path, body, *options)
    out, err = job.communicate(timeout=100)
    return job.returncode, out, err


def pids(tmp_path: Path) -> dict[str, int]:
    return {p.stem: int(p.read_text()) for p in (tmp_path / "pids").glob("*.pid")}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(tmp_path: Path, within: float) -> bool:
    deadline = time.monotonic() + within
    while any(map(alive, pids(tmp_path).values())):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def wait_for(tmp_path: Path, count: int) -> dict[str, int]:
    deadline = time.monotonic() + 60
    while len(found := pids(tmp_path)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


GRANDCHILDREN = """
here(os.getpid(), f"rank{rank}")
here(subprocess.Popen(["sleep", "1000"]).pid, f"child{rank}")
here(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid, f"daemon{rank}")
"""


def test_ranks_are_told_what_torchrun_tells_them(tmp_path):
    names = (
        "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK ROLE_WORLD_SIZE ROLE_NAME "
        "MASTER_ADDR TORCHELASTIC_RESTART_COUNT TORCHELASTIC_MAX_RESTARTS OMP_NUM_THREADS"
    )
    body = f'os.write(1, (" ".join(os.environ[k] for k in "{names}".split()) + chr(10)).encode())'
    code, out, err = run(tmp_path, body, "--nproc-per-node=2", "--standalone", "--max-restarts", "3")
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [f"{r} {r} 2 2 0 1 {r} 2 default 127.0.0.1 0 3 {threads}" for r in range(2)]


SCRIPT = """#!{python}
# as pip makes it
import sys
from cuframe.cli import main
if __name__ == '__main__':
    sys.exit(main())
"""


@pytest.mark.parametrize("how", ["module", "script"])
def test_the_launcher_imports_nothing_that_takes_time(tmp_path, how):
    script = tmp_path / "cuframe"
    script.write_text(SCRIPT.format(python=sys.executable))
    start = ["-m", "cuframe"] if how == "module" else [str(script)]

    def imports(*command: str, says: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout == says, done.stderr
        return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    # less what Python's start imports: how the package was installed may add to that
    modules = imports(*start, "run", "--no-python", "echo", "a rank", says="a rank\n") - imports("-c", "", says="")
    heavy = {"numpy", "rich", "cuframe.tensor", "typing", "dataclasses", "pathlib", "json", "hashlib", "shutil"}
    assert "cuframe.distributed.launcher" in modules and not heavy & modules, heavy & modules


def test_other_scripts_of_the_same_name_are_not_the_launcher(tmp_path):
    script = tmp_path / "cuframe"
    script.write_text("import cuframe as cf; print(cf.ones(2).sum().item())")
    done = subprocess.run(
        [sys.executable, str(script), "run"], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "2.0\n", done.stderr


def test_a_killed_rank_ends_all_and_is_named(tmp_path):
    body = GRANDCHILDREN + """
together(9)
if rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(1000)
"""
    code, _, err = run(tmp_path, body, "--nproc-per-node", "3")
    assert code == 128 + signal.SIGKILL
    assert re.fullmatch(r"cuframe run: rank 1 \(pid \d+, host \S+\) died of SIGKILL\n", err)
    assert f"pid {pids(tmp_path)['rank1']}," in err
    assert len(pids(tmp_path)) == 9 and all_gone(tmp_path, 0)


def test_an_exception_is_shown_once_and_last(tmp_path):
    """Others fail because of the first: what they say is not shown. SIGTERM does not impress them."""
    body = """
signal.signal(signal.SIGTERM, lambda *_: 1 / 0)
here(os.getpid(), f"rank{rank}")
together(3)
if rank == 2:
    print("a warning", file=sys.stderr)
    raise ValueError("boom")
try:
    time.sleep(1000)
finally:
    print("cleaned up", file=sys.stderr)
"""
    code, _, err = run(tmp_path, body, "--nproc-per-node", "3")
    assert code == 1 and err.count("Traceback") == 1 and "ZeroDivisionError" not in err
    assert err.startswith("a warning\n") and err.endswith("ValueError: boom\n") and all_gone(tmp_path, 0)
    assert re.search(r"\ncuframe run: rank 2 \(pid \d+, host \S+\) exited with code 1\nTraceback", err)


def test_step_and_collective_are_named(tmp_path):
    body = """
import cuframe as cf, cuframe.distributed as dist
dist.init_process_group(timeout=60)
for step in range(10):
    dist.mark_step(step)
    if step == 6 and rank == 1:
        dist.all_reduce(cf.ones(2), async_op=True)
        dist.all_reduce(cf.ones(2), async_op=True).wait()
    dist.all_reduce(cf.ones(2))
    if step == 6 and rank == 0:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    code, _, err = run(tmp_path, body, "--nproc-per-node", "2")
    assert code == 128 + signal.SIGKILL
    assert re.search(r"rank 0 \(pid \d+, host \S+\) died of SIGKILL at step 6 after all_reduce #7\n", err), err


def test_a_rank_that_leaves_early_is_named(tmp_path):
    body = """
import cuframe as cf, cuframe.distributed as dist
dist.init_process_group(timeout=60)
dist.barrier()
if rank == 1:
    os._exit(0)
dist.all_reduce(cf.ones(2))
"""
    code, _, err = run(tmp_path, body, "--nproc-per-node", "2")
    assert code == 1 and re.search(r"rank 1 \(pid \d+, host \S+\) had exited with code 0 after barrier #1\n", err)
    assert re.search(r"DistributedError: rank 1 \(pid \d+\) .* before it came to all_reduce #2\n$", err)


def test_the_users_sigterm_reaches_the_ranks(tmp_path):
    body = """
def leave(*_):
    os.write(1, f"rank {rank} saves\\n".encode())
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
here(os.getpid(), f"rank{rank}")
time.sleep(1000)
"""
    job = start(tmp_path, body, "--nproc-per-node", "2")
    wait_for(tmp_path, 2)
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=60)
    assert (job.returncode, sorted(out.splitlines()), err) == (143, ["rank 0 saves", "rank 1 saves"], "")


def test_who_ignores_sigterm_is_killed(tmp_path):
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + GRANDCHILDREN + "time.sleep(1000)"
    job = start(tmp_path, body, "--nproc-per-node", "2")
    wait_for(tmp_path, 6)
    job.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert job.poll() is None
    job.send_signal(signal.SIGTERM)  # asked twice: no waiting
    job.communicate(timeout=60)
    assert job.returncode == 143 and all_gone(tmp_path, 0)


def test_ranks_do_not_outlive_a_killed_launcher(tmp_path):
    job = start(tmp_path, GRANDCHILDREN + "time.sleep(1000)", "--nproc-per-node", "2")
    wait_for(tmp_path, 6)
    time.sleep(0.1)
    job.kill()
    job.communicate(timeout=60)
    assert all_gone(tmp_path, 10)


def test_what_a_job_started_ends_with_it(tmp_path):
    code, _, err = run(tmp_path, GRANDCHILDREN, "--nproc-per-node", "2")
    assert (code, err) == (0, "") and len(pids(tmp_path)) == 6 and all_gone(tmp_path, 0)


def test_a_failed_job_is_started_again(tmp_path):
    body = """
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
os.write(1, f"{rank} {attempt}\\n".encode())  # print writes in pieces, and the other rank's may come between
if attempt < 2:
    sys.exit(3 if rank else time.sleep(1000))
"""
    code, out, err = run(tmp_path, body, "--nproc-per-node", "2", "--max-restarts", "2")
    assert code == 0 and sorted(out.splitlines())[-1] == "1 2" and "cuframe run: restart 2 of 2" in err
    assert err.count("exited with code 3") == 2
    code, _, err = run(tmp_path, body, "--nproc-per-node", "2", "--max-restarts", "1")
    assert code == 3 and err.count("exited with code 3") == 2


def test_output_goes_where_it_was_told(tmp_path):
    body = 'print("out", rank); print("err", rank, file=sys.stderr)'
    options = ("--nproc-per-node", "2", "--log-dir", str(tmp_path / "logs"), "--tee", "0:1", "--redirects", "1:3")
    code, out, err = run(tmp_path, body, *options)
    assert (code, out, err) == (0, "[rank 0] out 0\n", "err 0\n")
    logs = {str(p.relative_to(tmp_path / "logs")).split("/", 1)[1]: p.read_text() for p in tmp_path.rglob("*.log")}
    assert logs == {f"attempt_0/{r}/std{s}.log": f"{s} {r}\n" for r in range(2) for s in ("out", "err")}


def test_modules_and_programs(tmp_path, capfd):
    assert main(["run", "-m", "this"]) == 0
    assert "The Zen of Python" in capfd.readouterr().out
    assert main(["run", "--nproc-per-node", "2", "--no-python", "sh", "-c", "echo rank $RANK"]) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["rank 0", "rank 1"]
    assert main(["run", "--no-python", "no-such-program"]) == 127
    assert "no-such-program: No such file" in capfd.readouterr().err


def hosts(tmp_path: Path, body: str, *options: str, count: int = 2) -> list[subprocess.Popen]:
    """Launchers on this machine, as on several hosts; that of node 0 starts last."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = ("--nnodes", str(count), "--master-addr", "127.0.0.1", "--master-port", port)
    return [start(tmp_path, body, *place, "--node-rank", str(n), *options) for n in reversed(range(count))][::-1]


def ends(jobs: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    errors = [job.communicate(timeout=100)[1] for job in jobs]
    return [job.returncode for job in jobs], errors


def test_two_hosts_meet_at_the_first(tmp_path):
    """The failure of one ends the other, and both say which rank it was."""
    body = 'here(os.getpid(), f"rank{rank}"); together(2); sys.exit(5 if rank == 1 else time.sleep(1000))'
    codes, errors = ends(hosts(tmp_path, body))
    assert codes == [1, 5] and all_gone(tmp_path, 0)
    assert all(re.search(r"rank 1 \(pid \d+, host \S+\) exited with code 5\n", e) for e in errors), errors


def test_all_hosts_start_again_together(tmp_path):
    """Each time a rank of another host fails; the one whose ranks have ended well comes along."""
    body = """
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
here(os.getpid(), f"attempt{attempt}rank{rank}")
together(6 * (attempt + 1))
if attempt < 2:
    sys.exit(3 if rank == [4, 0][attempt] else 0 if rank == 3 else time.sleep(1000))
here(os.environ["CUFRAME_STORE_TOKEN"], f"token{rank}")
"""
    jobs = hosts(tmp_path, body, "--nproc-per-node", "2", "--max-restarts", "2", count=3)
    codes, errors = ends(jobs)
    assert codes == [0, 0, 0], errors
    for error in errors:
        lines = [re.sub(r" \(pid .*?\)", "", line) for line in error.splitlines()]
        assert [line for line in lines if line != "cuframe run: rank 3 had exited with code 0"] == [
            "cuframe run: rank 4 exited with code 3", "cuframe run: restart 1 of 2",
            "cuframe run: rank 0 exited with code 3", "cuframe run: restart 2 of 2",
        ]  # fmt: skip
    tokens = {(tmp_path / "pids" / f"token{r}.pid").read_text() for r in range(6)}
    assert len(tokens) == 1


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_a_launcher_that_is_gone_ends_the_others_at_once(tmp_path, node, how):
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + GRANDCHILDREN + "time.sleep(1000)"
    jobs = hosts(tmp_path, body, "--max-restarts", "5")
    wait_for(tmp_path, 6)
    time.sleep(0.1)
    jobs[node].send_signal(getattr(signal, how))
    begin = time.monotonic()
    error = jobs[1 - node].communicate(timeout=60)[1]
    assert time.monotonic() - begin < 10
    text = f"the launcher of node {node} (pid {jobs[node].pid}, host {socket.gethostname()})"
    if how == "SIGTERM":
        text += " was ended by SIGTERM"
    else:
        text = text + " has gone" if node else "the launcher of node 0 (host 127.0.0.1) has gone"
    assert error == f"cuframe run: {text}\n" and jobs[1 - node].returncode == 1
    jobs[node].communicate(timeout=60)
    assert jobs[node].returncode == (-9 if how == "SIGKILL" else 143) and all_gone(tmp_path, 10)


# `cuframe run` whose launchers give signs of life ten times a second.
LIVELY = """
import sys
from cuframe.cli import main
from cuframe.distributed import launcher, store
for module in (launcher, store):
    module.BEAT, module.SILENCE = 0.1, 2.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("fails", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_host_that_is_silent_ends_the_others(tmp_path, fails):
    """As after a loss of power: nothing comes any more, and no connection ends. A rank that fails then is named."""
    (tmp_path / "script.py").write_text(START + """
here(os.getpid(), f"rank{rank}")
while not (rank and os.path.exists(f"{folder}/fail")):
    time.sleep(0.01)
sys.exit(7)
""")  # fmt: skip
    (tmp_path / "pids").mkdir()

    def launcher(node: int, port: int) -> subprocess.Popen:
        place = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(port), "--node-rank", str(node)]
        command = [sys.executable, "-c", LIVELY, "run", *place, "--max-restarts", "3"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "CUFRAME_STORE_TOKEN": "secret"}
        command += [str(tmp_path / "script.py"), str(tmp_path / "pids")]
        return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = [launcher(0, port)]
    wait_for(tmp_path, 1)
    wire = Wire(port)
    jobs.append(launcher(1, wire.port))
    wait_for(tmp_path, 2)
    time.sleep(2.5)  # longer than the silence that they would not put up with
    assert [job.poll() for job in jobs] == [None, None]
    wire.dead.set()
    if fails:
        (tmp_path / "pids" / "fail").touch()
    begin = time.monotonic()
    codes, errors = ends(jobs)
    assert 1 < time.monotonic() - begin < 30 and all_gone(tmp_path, 0)
    wire.close()
    node1 = rf"cuframe run: the launcher of node 1 \(pid {jobs[1].pid}, host \S+\) has been silent for 2 s\n"
    assert re.fullmatch(node1, errors[0]), errors
    if fails:
        assert re.fullmatch(r"cuframe run: rank 1 \(pid \d+, host \S+\) exited with code 7\n", errors[1]), errors
    else:
        assert errors[1] == "cuframe run: the launcher of node 0 (host 127.0.0.1) has been silent for 2 s\n"
    assert codes == [1, 7 if fails else 1]


def test_hosts_with_different_options_are_told(tmp_path):
    jobs = hosts(tmp_path, "time.sleep(1000)")
    jobs[1].kill()
    jobs[1].communicate(timeout=60)
    port = jobs[0].args[jobs[0].args.index("--master-port") + 1]
    place = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port, "--node-rank", "1")
    codes, errors = ends([start(tmp_path, "", *place, "--nproc-per-node", "3"), jobs[0]])
    assert codes == [2, 1]
    text = "all hosts must be given the same: node 1 has --nnodes 2 --nproc-per-node 3 --max-restarts 0, node 0 "
    assert all(text in error for error in errors), errors


def test_waiting_for_the_first_host_can_be_ended(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        place = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(silent.getsockname()[1]))
        job = start(tmp_path, "", *place, "--node-rank", "1")
        time.sleep(0.5)
        job.send_signal(signal.SIGINT)
        assert job.communicate(timeout=20) == ("", "") and job.returncode == 128 + signal.SIGINT


def test_children_of_who_launches_are_left_alone(tmp_path):
    """The launcher kills its children at the end, but not those that its process had before."""
    own = subprocess.Popen(["sleep", "1000"])
    ended = subprocess.Popen(["sh", "-c", "exit 7"])
    assert main(["run", "--nproc-per-node", "2", "--no-python", "sh", "-c", "sleep 1000 & sleep 0.2"]) == 0
    assert own.poll() is None and ended.wait(timeout=30) == 7
    own.kill()
    own.wait()


def test_a_taken_port_is_named(capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["run", "--master-port", str(port), "script.py"]) == 2
    assert f"cuframe run: store: port {port} of 127.0.0.1 is taken by another process" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--nproc-per-node", "0"], "--nproc-per-node must be a number above 0, auto, gpu or cpu, got '0'"),
        (["--nproc-per-node", "some"], "got 'some'"),
        (["--nnodes", "1:4"], "--nnodes must be a number above 0, got '1:4'"),
        (["--nnodes", "2"], "needs --master-addr"),
        (["--nnodes", "2", "--master-addr", "a", "--node-rank", "2"], "--node-rank must be from 0 to 1, got 2"),
        (["--max-restarts", "-1"], "must not be negative, got -1"),
        (["--master-port", "70000"], "--master-port must be from 0 to 65535, got 70000"),
        (["--rdzv-endpoint", "a:b"], "--rdzv-endpoint must be HOST:PORT, got 'a:b'"),
        (["--tee", "4"], "--tee must be 0, 1, 2, 3 or RANK:N,..., got '4'"),
    ],
)
def test_options_are_checked(options, text, capfd):
    assert main(["run", *options, "script.py"]) == 2
    assert text in capfd.readouterr().err


def test_processes_can_be_counted_by_the_machine(monkeypatch):
    assert run_command._processes("cpu") == len(os.sched_getaffinity(0))
    monkeypatch.setattr("cuframe.cli._driver.find_driver", lambda: None)
    assert run_command._processes("auto") == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="there is no GPU here"):
        run_command._processes("gpu")


def test_tracebacks_are_held_back_until_it_is_clear_whose_counts(tmp_path):
    target = os.open(tmp_path / "terminal", os.O_RDWR | os.O_CREAT)
    reader, writer = os.pipe()
    pump = Pump(reader, Screen(target), None, "", hold=True)

    def shown() -> str:
        return (tmp_path / "terminal").read_bytes().decode()

    head = b"Traceback (most recent call last):"
    for part in (b"\r50%", b"\r60%\n", b"Trace", b"s of nuts\n", b"before\n" + head + b"\n  F", b"ile\n"):
        os.write(writer, part)
        pump.pump()
    assert shown() == "\r50%\r60%\nTraces of nuts\nbefore\n" and pump.due() is not None
    pump.release()  # the process lived on: it had caught the exception
    assert shown().endswith("before\nTraceback (most recent call last):\n  File\n") and pump.due() is None
    os.write(writer, b"Traceback (most recent call last):\nKeyError\n")
    pump.pump()
    assert pump.take() == "Traceback (most recent call last):\nKeyError\n" and "KeyError" not in shown()
    os.close(writer)
    assert not pump.pump()
    pump.close()
    os.close(target)


def test_rank_0_has_a_terminal_where_the_launcher_has_one(tmp_path):
    """Its bar stays on the last line, and what the others say comes above it."""
    script = tmp_path / "script.py"
    script.write_text(START + """
size = tuple(os.get_terminal_size(2)) if os.isatty(2) else os.environ.get("COLUMNS")
here((os.isatty(1), os.isatty(2), size, os.environ.get("TQDM_DISABLE")), f"rank{rank}")
together(2)
if rank == 0:
    os.write(2, b"\\r40%\\r50%")
    together(4)
    os.write(2, b"\\r60%\\r100%\\n")
else:
    together(3)
    os.write(2, b"\\r1%\\r2%")
    print("a line", flush=True)
    together(5)
    os.write(2, b"\\r3%\\n")
""")
    ours, theirs = os.openpty()
    folder = tmp_path / "pids"
    folder.mkdir()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 30, 77, 0, 0))
    command = [sys.executable, "-m", "cuframe", "run", "--nproc-per-node", "2", str(script), str(folder)]
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    patience = threading.Timer(60, job.kill)
    patience.start()
    shown, wiped = b"", b"\r\x1b[K"
    screens = [b"\r40%\r50%"]
    screens.append(screens[-1] + wiped + b"a line\r\n\r50%")
    screens.append(screens[-1] + b"\r60%\r100%\r\n")
    with contextlib.suppress(OSError):  # how the end of a terminal's output is told
        while data := os.read(ours, 1 << 16):
            shown += data
            for i, screen in enumerate(screens):  # each lets the ranks go on that wait for it
                if shown == screen:
                    (folder / f"seen{i}.pid").touch()
    patience.cancel()
    assert job.wait(timeout=60) == 0, shown
    facts = [(folder / f"rank{r}.pid").read_text() for r in range(2)]
    assert facts == ["(True, True, (77, 30), None)", "(False, False, '77', '1')"]
    assert shown == screens[-1] + b"3%\r\n"
    os.close(ours)


def test_a_bar_of_one_screen_is_drawn_again(tmp_path):
    ours, theirs = os.openpty()
    same_size(theirs, ours)
    screen, bar, other = Screen(theirs), object(), object()
    for owner, data, want in (
        (bar, b"start\n\r\x1b[2K10%", b"start\r\n\r\x1b[2K10%"),
        (bar, b"\r\x1b[2K20", b"\r\x1b[2K20"),
        (bar, b"%", b"%"),
        (other, b"x\n", b"\r\x1b[Kx\r\n\r\x1b[2K20%"),
        (other, b"no end", b"\r\x1b[Kno end"),
        (bar, b"\rback", b"\r\x1b[K\rback"),
        (bar, b"\n", b"\r\n"),
        (bar, b"\x1b[?25h", b"\x1b[?25h"),  # no bar
        (other, b"y\n", b"y\r\n"),
    ):
        screen.write(owner, data)
        shown = b""
        while len(shown) < len(want):  # a terminal may hand over what was written in parts
            shown += os.read(ours, 1 << 16)
        assert shown == want
    screen.end_line()
    screen.write(bar, b"z")
    screen.end_line()
    assert os.read(ours, 1 << 16) == b"z\r\n"
    os.close(ours)
    os.close(theirs)
