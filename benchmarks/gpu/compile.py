"""Compiles every kernel for one architecture into the cache, so that no later stage waits for it.

    python -m benchmarks.gpu.compile sm_90 [--pattern softmax]
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.gpu.runner import Rows
from cuframe import cli


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("arch")
    parser.add_argument("--pattern", default="", help="only kernels whose instance contains this")
    parser.add_argument("--rows")
    args = parser.parse_args(argv)
    code = cli.main(["kernels", "build", args.pattern, "--arch", args.arch])
    Rows(args.rows).add(args.arch, exit=code)
    return code


if __name__ == "__main__":
    sys.exit(main())
