"""The `cuframe` command.

A subcommand is one module of this package. The first line of its docstring is the help line,
`add_arguments(parser)` declares its options, and `run(args)` does the work and returns the exit status.
Modules whose name starts with an underscore are helpers. Command modules import what is heavy inside `run`,
so that `cuframe --help` stays quick.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from cuframe._version import __version__

USAGE = "usage: cuframe [--help] [--version] COMMAND [ARGS]"


def command_names() -> list[str]:
    """Return the names of all subcommands, sorted."""
    names = (name[:-3] for name in os.listdir(os.path.dirname(__file__)) if name.endswith(".py"))
    return sorted(name for name in names if not name.startswith("_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `cuframe` command on `argv` (default: the process's own) and return its exit status.

    >>> main(["--version"])
    cuframe ...
    0
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader left (`cuframe info | head -1`): give the interpreter's last flush somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return 0
    name, rest = args[0], args[1:]
    if name in ("-V", "--version"):
        print(f"cuframe {__version__}")
        return 0
    if name not in command_names():
        return _unknown(name)
    module = import_module(f"{__name__}.{name}")
    parser = argparse.ArgumentParser(
        prog=f"cuframe {name}", description=_summary(module.__doc__), formatter_class=_Formatter
    )
    module.add_arguments(parser)
    return module.run(parser.parse_args(rest))


class _Formatter(argparse.HelpFormatter):
    """Lines as wide as the terminal, as argparse's, which imports archives and compression to learn it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size().columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _help() -> str:
    lines = [USAGE, "", "commands:"]
    for name in command_names():
        lines.append(f"  {name:<10}{_summary(import_module(f'{__name__}.{name}').__doc__)}")
    lines += ["", "`cuframe COMMAND --help` lists a command's options."]
    return "\n".join(lines)


def _summary(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _unknown(name: str) -> int:
    import difflib

    kind = "option" if name.startswith("-") else "command"
    known = ["--help", "--version"] if kind == "option" else command_names()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(known)}"
    print(f"cuframe: unknown {kind} {name!r}; {hint}\n{USAGE}", file=sys.stderr)
    return 2
