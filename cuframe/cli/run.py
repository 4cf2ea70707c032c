"""Run a script in several processes that train together; when one fails, all end, and the message says why."""

import argparse
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cuframe.distributed.launcher import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--nproc-per-node", "--nproc_per_node", default="1", metavar="N|auto|gpu|cpu",
        help="processes on this host; auto: one a GPU, or one a core where there is no GPU (default: 1)")
    add("--nnodes", default="1", metavar="N", help="hosts (default: 1); start `cuframe run` on each of them")
    add("--node-rank", "--node_rank", type=int, default=0, metavar="N", help="which host this is, from 0")
    add("--master-addr", "--master_addr", metavar="HOST", help="address of host 0 (default: 127.0.0.1)")
    add("--master-port", "--master_port", type=int, metavar="PORT",
        help="port of the store on host 0 (default: one that is free; 29500 with several hosts)")
    add("--rdzv-endpoint", "--rdzv_endpoint", metavar="HOST[:PORT]", help="the same as --master-addr and --master-port")
    add("--rdzv-backend", "--rdzv_backend", choices=("static", "c10d"), help="accepted; there is one way to meet")
    add("--rdzv-id", "--rdzv_id", metavar="ID", help="accepted; runs are told apart by themselves")
    add("--standalone", action="store_true", help="one host, and a free port whatever else is given")
    add("--max-restarts", "--max_restarts", type=int, default=0, metavar="N",
        help="start the job again after a failure, on all hosts, at most so often")
    add("--log-dir", "--log_dir", metavar="DIR", help="write every rank's stdout and stderr to files there as well")
    add("-r", "--redirects", default="0", metavar="0-3",
        help="1: stdout to files only, 2: stderr, 3: both; or RANK:N,...")
    add("-t", "--tee", default="0", metavar="0-3", help="the same to files and, with a prefix, to the terminal")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("-m", "--module", action="store_true", help="SCRIPT is a module's name")
    kind.add_argument("--no-python", "--no_python", action="store_true", help="SCRIPT is a program of another kind")
    add("script", metavar="SCRIPT")
    add("args", nargs=argparse.REMAINDER, metavar="...", help="the script's own arguments")


def run(args: argparse.Namespace) -> int:
    from cuframe.distributed.errors import DistributedError
    from cuframe.distributed.launcher import launch

    try:
        return launch(_plan(args))
    except (DistributedError, ValueError) as error:
        print(f"cuframe run: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cuframe run: {error.filename or args.script}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _plan(args: argparse.Namespace) -> "Plan":
    from cuframe.distributed.launcher import Plan

    ranks, nodes = _processes(args.nproc_per_node), _hosts(args.nnodes)
    host, port = args.master_addr, args.master_port
    if args.rdzv_endpoint:
        name, _, number = args.rdzv_endpoint.partition(":")
        if number and not number.isdigit():
            raise ValueError(f"--rdzv-endpoint must be HOST:PORT, got {args.rdzv_endpoint!r}")
        host, port = host or name, port if port is not None else int(number) if number else None
    if args.standalone:
        nodes, host, port = 1, None, None
    if not 0 <= args.node_rank < nodes:
        raise ValueError(f"--node-rank must be from 0 to {nodes - 1}, got {args.node_rank}")
    if nodes > 1 and not host:
        raise ValueError("--nnodes above 1 needs --master-addr, the address of host 0")
    if args.max_restarts < 0:
        raise ValueError(f"--max-restarts must not be negative, got {args.max_restarts}")
    if port is None:
        port = 29500 if nodes > 1 else 0
    if not 0 <= port < 65536:
        raise ValueError(f"--master-port must be from 0 to 65535, got {port}")
    redirects, tee = _streams("--redirects", args.redirects, ranks), _streams("--tee", args.tee, ranks)
    log_dir = args.log_dir or ("runs/logs" if any(redirects.values()) else None)
    start = [] if args.no_python else [sys.executable, "-u", *(["-m"] if args.module else [])]
    return Plan(
        [*start, args.script, *args.args], ranks, nodes, args.node_rank, host or "127.0.0.1", port,
        args.max_restarts, log_dir, redirects, tee,
    )  # fmt: skip


def _processes(text: str) -> int:
    if text.isdigit() and int(text) > 0:
        return int(text)
    if text not in ("auto", "gpu", "cpu"):
        raise ValueError(f"--nproc-per-node must be a number above 0, auto, gpu or cpu, got {text!r}")
    cores = len(os.sched_getaffinity(0))
    if text == "cpu":
        return cores
    from cuframe.cli._driver import find_driver

    driver = find_driver()
    gpus = len(driver.gpus) if driver is not None else 0
    if text == "gpu" and not gpus:
        raise ValueError("--nproc-per-node gpu: there is no GPU here")
    return gpus or cores


def _hosts(text: str) -> int:
    low, _, high = text.partition(":")  # torchrun's MIN:MAX
    if not low.isdigit() or int(low) < 1 or (high and high != low):
        raise ValueError(f"--nnodes must be a number above 0, got {text!r}")
    return int(low)


def _streams(option: str, text: str, ranks: int) -> dict[int, set[str]]:
    """`3`, or `0:3,1:2`: the streams of each local rank."""
    streams: dict[str, set[str]] = {"0": set(), "1": {"stdout"}, "2": {"stderr"}, "3": {"stdout", "stderr"}}
    if text in streams:
        return dict.fromkeys(range(ranks), streams[text])
    found = {}
    for part in text.split(","):
        rank, colon, number = part.partition(":")
        if not colon or not rank.isdigit() or number not in streams:
            raise ValueError(f"{option} must be 0, 1, 2, 3 or RANK:N,..., got {text!r}")
        found[int(rank)] = streams[number]
    return found
