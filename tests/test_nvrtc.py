"""Where NVRTC and the CUDA headers are found: pip's packages of CUDA 12 and 13, conda, toolkits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cuframe.cuda import nvrtc

LAYOUTS = {  # name: library, headers
    "pip 12": ("nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "nvidia/cuda_runtime/include"),
    "pip 13": ("nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/include"),
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with nothing of CUDA: what is asked once is asked again."""
    asked = (nvrtc._library_path, nvrtc._library, nvrtc.version, nvrtc.architectures, nvrtc.header_dir)
    for f in asked:
        f.cache_clear()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "conda"))
    for name in ("CUDA_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nvrtc, "_wanted_major", lambda: None)
    yield tmp_path
    for f in asked:
        f.cache_clear()


def lay(root: Path, library: str, headers: str) -> None:
    major = library.rpartition(".")[2]
    for file, text in ((library, ""), (f"{headers}/cuda_fp16.h", ""),
                       (f"{headers}/cuda.h", f"#define CUDA_VERSION {major}000\n")):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pip_packages(layout: str, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, headers = LAYOUTS[layout]
    lay(machine, library, headers)
    assert nvrtc._library_path() == str(machine / library)
    monkeypatch.setattr(nvrtc, "version", lambda: (int(library[-2:]), 0))
    assert nvrtc.header_dir() == machine / headers


def test_of_two_the_one_that_cupy_is_built_for_with_its_own_headers(
        machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library, headers in LAYOUTS.values():
        lay(machine, library, headers)
    for major in (12, 13):
        nvrtc._library_path.cache_clear(), nvrtc.header_dir.cache_clear()
        monkeypatch.setattr(nvrtc, "_wanted_major", lambda major=major: major)
        monkeypatch.setattr(nvrtc, "version", lambda major=major: (major, 0))
        library, headers = LAYOUTS[f"pip {major}"]
        assert nvrtc._library_path() == str(machine / library)
        assert nvrtc.header_dir() == machine / headers


def test_a_toolkit_named_by_the_environment(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(machine, "toolkit/lib64/libnvrtc.so.13", "toolkit/targets/x86_64-linux/include")
    monkeypatch.setenv("CUDA_HOME", str(machine / "toolkit"))
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    monkeypatch.setattr(nvrtc, "_TARGET", "targets/x86_64-linux")
    assert nvrtc._library_path() == str(machine / "toolkit/lib64/libnvrtc.so.13")
    assert nvrtc.header_dir() == machine / "toolkit/targets/x86_64-linux/include"


def test_the_builtins_are_loaded_from_beside_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA 13's NVRTC asks for them by their bare name, and has no path to its folder."""
    library, headers = LAYOUTS["pip 13"]
    lay(machine, library, headers)
    folder = (machine / library).parent
    for name in ("libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0", "libnvrtc-builtins.so.12.9"):
        (folder / name).touch()
    opened: list[str] = []
    monkeypatch.setattr(nvrtc.ctypes, "CDLL", lambda path: (opened.append(Path(path).name), SimpleNamespace())[1])
    nvrtc._open(str(machine / library))
    assert opened == ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"]
