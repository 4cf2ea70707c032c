"""What all tests share: parity modules stay unread unless they are asked for, and their tables are printed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import cuframe as cf
from tests.parity import summary

# a tool for tests with CuPy, which doctests would import without it
collect_ignore = ["cupy_without_gpu.py"]
PARITY = Path(__file__).parent / "parity"


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same numbers, whichever ran before it in its process."""
    cf.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts what runs in the background deaf to Ctrl-C, of which there are tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="sim", choices=["sim", "cuda"],
                     help="where the tests of kernels and devices run (default: the simulator)")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The device that kernels are tested on."""
    return request.config.getoption("--device")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Reading PyTorch's tables takes seconds, so `-m "not parity"` must not get as far as that."""
    if "not parity" in config.getoption("markexpr") and PARITY in (collection_path, *collection_path.parents):
        return True
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """After the parity tests: samples passed of all, for each entry of PyTorch's lists."""
    summary.write(terminalreporter, summary.read(terminalreporter.stats))
