"""How long `cuframe run` takes to start ranks and end, against torchrun where PyTorch is installed.

    python benchmarks/launcher.py [--trials 15] [--ranks 4]

Two scripts: `hello` prints RANK and imports nothing; `all-reduce` imports the framework, joins the group, adds up one
number and leaves. Launchers take turns. Printed in seconds: the least and the median time until the launcher has ended,
what it took over the same script in one process without a launcher, and its processes' processor time (least).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "hello": 'import os; print(os.environ.get("RANK"))',
    "all-reduce": """
import cuframe as cf, cuframe.distributed as dist
dist.init_process_group()
x = cf.ones(1)
dist.all_reduce(x)
assert x.item() == dist.get_world_size()
dist.destroy_process_group()
""",
    "all-reduce (PyTorch)": """
import os
import torch, torch.distributed as dist
if "RANK" in os.environ:
    dist.init_process_group("gloo")
    x = torch.ones(1)
    dist.all_reduce(x)
    assert x.item() == dist.get_world_size()
    dist.destroy_process_group()
""",
}
# what is printed, script, command between `python` and the script; None: no launcher
CUFRAME, TORCHRUN = ["-m", "cuframe", "run"], ["-m", "torch.distributed.run", "--standalone"]
RUNS: list[tuple[str, str, list[str] | None]] = [
    ("python", "hello", None),
    ("cuframe run", "hello", CUFRAME),
    ("torchrun", "hello", TORCHRUN),
    ("python", "all-reduce", None),
    ("cuframe run", "all-reduce", CUFRAME),
    ("python", "all-reduce (PyTorch)", None),
    ("torchrun", "all-reduce (PyTorch)", TORCHRUN),
]


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds until a command has ended, and processor time of all its processes."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    own, began = spent(), time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began, spent() - own


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument("--ranks", type=int, default=4)
    args = parser.parse_args()
    torch = importlib.util.find_spec("torch") is not None
    runs = [run for run in RUNS if torch or run[2] is not TORCHRUN and "PyTorch" not in run[1]]
    ranks = ["--nproc-per-node", str(args.ranks)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    found: list[list[tuple[float, float]]] = [[] for _ in runs]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in SCRIPTS.items():
            (Path(folder) / f"{name}.py").write_text(text)
        for _ in range(args.trials):
            for times, (_, script, launcher) in zip(found, runs):
                start = [] if launcher is None else [*launcher, *ranks]
                times.append(measure([sys.executable, *start, f"{folder}/{script}.py"], environment))
    print(f"{args.ranks} ranks, {args.trials} trials, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; seconds")
    print(f"{'':<14}{'script':<22}{'least':>8}{'half':>8}{'over: least':>13}{'half':>8}{'cpu':>8}")
    alone = (0.0, 0.0)
    for times, (name, script, launcher) in zip(found, runs):
        walls = [wall for wall, _ in times]
        least, half, own = min(walls), statistics.median(walls), min(cpu for _, cpu in times)
        if launcher is None:
            alone = least, half
        over = f"{least - alone[0]:>13.3f}{half - alone[1]:>8.3f}"
        print(f"{name:<14}{script:<22}{least:>8.3f}{half:>8.3f}{over}{own:>8.3f}")


if __name__ == "__main__":
    main()
