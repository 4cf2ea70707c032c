"""How long `cuframe run` takes from a fault until nothing of the job is left, and what it says.

    python benchmarks/faults.py [--trials 20] [--ranks 4] [--only NAME]

Each trial starts a job whose ranks all-reduce in a loop (process group `shm`), each with a child in its session and one
in a session of its own. The clock starts in the process that fails, and stops when the launcher and all those processes
have ended; after a restart, when the first step behind the last checkpoint begins. At the end: what is left in
/dev/shm.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.wire import Wire  # noqa: E402

RANK = """
import os, signal, subprocess, sys, time
folder, fault = sys.argv[1:]
rank = int(os.environ["RANK"])

def note(name, value):
    with open(f"{folder}/.{name}", "w") as f:
        f.write(str(value))
    os.rename(f"{folder}/.{name}", f"{folder}/{name}")

def now():
    note("began", time.monotonic())

import cuframe as cf
import cuframe.distributed as dist

if fault == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
note(f"pid{rank}", os.getpid())
note(f"pid{rank}child", subprocess.Popen(["sleep", "1000"]).pid)
note(f"pid{rank}daemon", subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
if fault == "quiet":
    note(f"running{rank}", "")
    time.sleep(1000)
dist.init_process_group(timeout=2 if fault == "hang" else 60)
x = cf.ones(1 << 16)
for step in range(10**9):
    dist.mark_step(step)
    if rank == 1 and step == 200:
        if fault == "kill":
            now()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "raise":
            now()
            raise ValueError("boom")
        if fault == "exit":
            now()
            os._exit(0)
        if fault == "hang":
            now()
            time.sleep(1000)
    if step == 200:
        note(f"running{rank}", "")
    dist.all_reduce(x)
"""

# Killed at a random step, or not: the numbers at the end must be the same to the bit.
RESUMING = """
import os, signal, sys, time
import numpy as np
import cuframe as cf
import cuframe.distributed as dist
from cuframe.distributed import checkpoint

folder, fatal = sys.argv[1], int(sys.argv[2])
dist.init_process_group()
rank, file = dist.get_rank(), f"{folder}/checkpoint"
step, w = 0, np.ones(1 << 14, np.float32)
if checkpoint.exists(file):
    state = checkpoint.load(file)
    step, w = state["step"], state["w"].numpy()
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
while step < 60:
    dist.mark_step(step)
    if not first and rank == 0 and not os.path.exists(f"{folder}/resumed"):
        with open(f"{folder}/resumed", "w") as f:
            f.write(f"{time.monotonic()} {step}")
    if first and step == fatal and rank == 1:
        with open(f"{folder}/began", "w") as f:
            f.write(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
    g = cf.tensor(np.random.default_rng([rank, step]).standard_normal(w.size, np.float32))
    dist.all_reduce(g, "avg")
    w = np.float32(0.9) * w + g.numpy()
    step += 1
    if step % 10 == 0:
        checkpoint.save({"step": step, "w": cf.tensor(w)}, file)
if rank == 0:
    with open(f"{folder}/result", "wb") as f:
        f.write(w.tobytes())
"""

# One of many jobs at a time, each with a port that its launcher chose.
NEIGHBOUR = """
import os, socket, sys, time
folder, jobs = sys.argv[1], int(sys.argv[2])
port = int(os.environ["MASTER_PORT"])
socket.create_connection(("127.0.0.1", port), timeout=10).close()
open(f"{folder}/{port}.{os.getpid()}", "w").close()
deadline = time.monotonic() + 120
while len(os.listdir(folder)) < jobs:
    assert time.monotonic() < deadline
    time.sleep(0.02)
"""


def start(folder: str, fault: str, ranks: int, *options: str) -> subprocess.Popen:
    script = Path(folder) / "rank.py"
    script.write_text(RANK)
    launcher = [sys.executable, "-m", "cuframe", "run", "--nproc-per-node", str(ranks), *options]
    command = [*launcher, str(script), folder, fault]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUFRAME_STORE_TOKEN": "faults"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes(folder: str) -> list[int]:
    return [int(p.read_text()) for p in Path(folder).glob("pid*")]


def fault(name: str, ranks: int) -> tuple[float, str]:
    """Seconds from the fault to the end of everything, and the launcher's last words."""
    with tempfile.TemporaryDirectory() as folder:
        job = start(folder, name, ranks)
        if name in ("deaf", "launcher"):
            while len(list(Path(folder).glob("running*"))) < ranks:
                time.sleep(0.01)
            began = time.monotonic()
            job.send_signal(signal.SIGTERM if name == "deaf" else signal.SIGKILL)
        job.wait()
        while any(map(alive, processes(folder))):
            time.sleep(0.002)
        ended = time.monotonic()
        assert job.stderr
        said = job.stderr.read()
        job.stderr.close()
        if name not in ("deaf", "launcher"):
            began = float((Path(folder) / "began").read_text())
        assert len(processes(folder)) == 3 * ranks
        return ended - began, said


def hosts(count: int) -> list[list[str]]:
    """The options of launchers on this machine, as on several hosts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--nnodes", str(count), "--master-addr", "127.0.0.1", "--master-port", str(free.getsockname()[1])]
    return [[*place, "--node-rank", str(node)] for node in range(count)]


def host_lost(ranks: int) -> tuple[float, str]:
    """Two launchers, as on two hosts, with half of the ranks each; that of the second is killed."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [start(folder, "none", ranks // 2, *place) for place in hosts(2)]
        while len(list(Path(folder).glob("running*"))) < ranks:
            time.sleep(0.01)
        began = time.monotonic()
        jobs[1].kill()
        said = jobs[0].communicate()[1]
        jobs[1].communicate()
        while any(map(alive, processes(folder))):
            time.sleep(0.002)
        return time.monotonic() - began, said


def power_lost(ranks: int) -> tuple[float, str]:
    """The same without a kill: from now on, nothing comes through between the two; both must end."""
    with tempfile.TemporaryDirectory() as folder:

        def running(count: int) -> None:
            while len(list(Path(folder).glob("running*"))) < count:
                time.sleep(0.01)

        (place, other), port = hosts(2), "--master-port"
        jobs = [start(folder, "quiet", ranks // 2, *place)]
        running(ranks // 2)
        wire = Wire(int(place[place.index(port) + 1]))
        other[other.index(port) + 1] = str(wire.port)
        jobs.append(start(folder, "quiet", ranks // 2, *other))
        running(ranks)
        wire.dead.set()
        began = time.monotonic()
        said = "".join(job.communicate()[1] for job in jobs)
        while any(map(alive, processes(folder))):
            time.sleep(0.002)
        ended = time.monotonic()
        wire.close()
        return ended - began, said


def port_taken(ranks: int) -> tuple[float, str]:
    with socket.socket() as stranger, tempfile.TemporaryDirectory() as folder:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        began = time.monotonic()
        job = start(folder, "none", ranks, "--master-port", str(stranger.getsockname()[1]))
        said = job.communicate()[1]
        return time.monotonic() - began, said


def restart(ranks: int, launchers: int = 1) -> tuple[float, str]:
    """A job that is started again resumes from its last checkpoint; its last words get a line on the result."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "rank.py"
        script.write_text(RESUMING)
        results = []
        for fatal in (-1, random.randrange(60)):
            home = Path(folder) / str(fatal)
            home.mkdir()
            run = [sys.executable, "-m", "cuframe", "run", "--nproc-per-node", str(ranks // launchers)]
            jobs = [
                subprocess.Popen(
                    [*run, "--max-restarts", "1", *place, str(script), str(home), str(fatal)],
                    env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
                ) for place in (hosts(launchers) if launchers > 1 else [[]])
            ]  # fmt: skip
            said = "".join(job.communicate()[1] for job in jobs)
            results.append((home / "result").read_bytes() if (home / "result").exists() else said.encode())
        began = float((home / "began").read_text())
        resumed, step = (home / "resumed").read_text().split()
        same = "the same bits" if results[0] == results[1] else "other bits"
        return float(resumed) - began, f"{said}resumed at {int(step) - fatal // 10 * 10}: {same}"


def many_ports(ranks: int, jobs: int = 50) -> tuple[float, str]:
    """Jobs of one rank each, all at once; seconds until the last has ended."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as ports:
        script = Path(folder) / "rank.py"
        script.write_text(NEIGHBOUR)
        command = [sys.executable, "-m", "cuframe", "run", str(script), ports, str(jobs)]
        began = time.monotonic()
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(jobs)]
        said = "".join(job.communicate()[1] for job in running)
        taken = {name.partition(".")[0] for name in os.listdir(ports)}
        return time.monotonic() - began, f"{said}{len(taken)} ports"


def hello(ranks: int) -> tuple[float, str]:
    """Four times `print("hello")`, less the same without a launcher."""

    def seconds(command: list[str]) -> float:
        began = time.monotonic()
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - began

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "hello.py"
        script.write_text("print('hello')")
        own = seconds([sys.executable, str(script)])
        run = [sys.executable, "-m", "cuframe", "run", "--nproc-per-node", str(ranks), str(script)]
        return seconds(run) - own, ""


# name: what happens, what the last words must hold, seconds it may take (0: no bar), how it is done
ROWS: dict[str, tuple[str, str, float, Callable[[int], tuple[float, str]]]] = {
    "kill": ("kill -9 of a rank", r"rank 1 \(pid \d+, host \S+\) died of SIGKILL at step 200 after all_reduce #200\n$",
             0.5, lambda n: fault("kill", n)),
    "raise": ("a rank raises", r"rank 1 .* exited with code 1 at step 200 .*\nTraceback(?!(.|\n)*Traceback)(.|\n)*boom",
              1.0, lambda n: fault("raise", n)),
    "exit": ("a rank exits with 0 early", r"rank 1 \(pid \d+, host \S+\) had exited with code 0 at step 200", 1.0,
             lambda n: fault("exit", n)),
    "hang": ("a rank hangs (timeout 2 s)", r"all_reduce #201: rank 1 did not come within 2 s", 3.0,
             lambda n: fault("hang", n)),
    "deaf": ("SIGTERM is ignored", "^$", 5.5, lambda n: fault("deaf", n)),
    "launcher": ("kill -9 of the launcher", "", 1.0, lambda n: fault("launcher", n)),
    "host": ("kill -9 of another host's", r"the launcher of node 1 \(pid \d+, host \S+\) has gone\n", 1.0, host_lost),
    "power": ("another host loses its power", r"launcher of node 1 \(pid \d+, host \S+\) has been silent for 15 s\n"
              r"(.|\n)*launcher of node 0 \(host \S+\) has been silent for 15 s\n", 20.0, power_lost),
    "port": ("the port is taken", "port .* is taken by another process", 5.0, port_taken),
    "restart": ("a restart after kill -9", r"restart 1 of 1\n(.|\n)*resumed at 0: the same bits$", 0.0, restart),
    "restart2": ("the same on two hosts", r"(restart 1 of 1\n(.|\n)*){2}resumed at 0: the same bits$", 0.0,
                 lambda n: restart(n, 2)),
    "ports": ("50 jobs at once", r"^50 ports$", 0.0, many_ports),
    "hello": ("hello, over Python's own", "", 0.3, hello),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--only", choices=ROWS, action="append")
    args = parser.parse_args()
    before = set(os.listdir("/dev/shm"))
    load = os.getloadavg()[0]
    print(f"{args.ranks} ranks, {args.trials} trials, {os.cpu_count()} cores, load {load:.1f} before; seconds")
    print(f"{'fault':<28}{'p50':>8}{'p99':>8}{'target':>8}  right message")
    for name in args.only or ROWS:
        what, pattern, target, trial = ROWS[name]
        if name == "power":  # of idle processes, which mostly wait: ten at a time
            with ThreadPoolExecutor(10) as pool:
                found = list(pool.map(trial, [args.ranks] * args.trials))
        else:
            found = [trial(args.ranks) for _ in range(args.trials if name != "ports" else max(1, args.trials // 10))]
        times = sorted(t for t, _ in found)
        right = sum(re.search(pattern, said) is not None for _, said in found)
        p99 = times[min(len(times) - 1, round(0.99 * len(times)))]
        row = f"{what:<28}{times[len(times) // 2]:>8.3f}{p99:>8.3f}{target or '-':>8}"
        print(f"{row}  {right} of {len(found)}", flush=True)
        wrong = [said for _, said in found if not re.search(pattern, said)]
        if wrong:
            print(wrong[0], file=sys.stderr)
    print(f"left in /dev/shm: {sorted(set(os.listdir('/dev/shm')) - before)}")


if __name__ == "__main__":
    main()
