"""Run scripts on the simulated GPU, with sanitizers, another thread order, or a debugger."""

import argparse
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run_parser = commands.add_parser(
        "run", help="run a Python script whose kernels are watched",
        description="Run SCRIPT in a Python of its own; what it puts on device 'sim' runs as asked for here.")
    run_parser.add_argument("--sanitize", choices=("address", "thread"),
                            help="address: accesses out of bounds or after free; thread: races between CUDA threads")
    run_parser.add_argument("--order", type=_order, metavar="forward|reverse|random:SEED|ahead:SEED",
                            help="in which order the threads of a block run")
    run_parser.add_argument("--gdb", action="store_true", help="run under gdb, kernels compiled without optimisation")
    run_parser.add_argument("script", metavar="SCRIPT")
    run_parser.add_argument("args", nargs=argparse.REMAINDER, metavar="...", help="the script's own arguments")


def _order(text: str) -> str:
    from cuframe.cuda.sim.settings import parse_order

    try:
        parse_order(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def run(args: argparse.Namespace) -> int:
    from cuframe.cuda.sim.sanitizers import prepared, without_randomised_addresses

    environment = dict(os.environ)
    if args.order:
        environment["CUFRAME_SIM_ORDER"] = args.order
    command = [sys.executable, args.script, *args.args]
    if args.gdb:
        environment["CUFRAME_SIM_DEBUG"] = "1"
    try:
        if args.sanitize:
            environment = prepared(args.sanitize, environment)
        if args.gdb:
            # the sanitizer's library belongs into Python, not into gdb
            preload = environment.pop("LD_PRELOAD", None)
            # kernels are not there yet when breakpoints are set
            pending = ["-iex", "set breakpoint pending on"]
            inside = ["-iex", f"set exec-wrapper env LD_PRELOAD={preload}"] if preload else []
            command = ["gdb", "-q", *pending, *inside, "--args", *command]
        if args.sanitize == "thread":
            without_randomised_addresses()
        sys.stdout.flush()
        # in place of this process, so that signals and the exit status are the script's own
        os.execvpe(command[0], command, environment)
    except FileNotFoundError:
        print(f"cuframe sim: {command[0]} was not found", file=sys.stderr)
        return 127
    except RuntimeError as error:
        print(f"cuframe sim: {error}", file=sys.stderr)
        return 2
