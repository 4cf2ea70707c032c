"""The wheel, the sdist, an editable install and a bare checkout all carry the kernels and run."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CALL_HOOK = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout with two kernels and a test added; building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("cuframe", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "kernels/common").mkdir(exist_ok=True)
    (copy / "kernels/probe.cu").write_text('#include "common/probe.cuh"\n')
    (copy / "kernels/common/probe.cuh").write_text("// probe\n")
    (copy / "tests").mkdir()
    (copy / "tests/test_probe.py").touch()
    return copy


def build(hook: str, source: Path, to: Path) -> Path:
    """Call one of setuptools' build hooks in `source` and return the archive it made in `to`."""
    command = [sys.executable, "-W", "ignore", "-c", CALL_HOOK, hook, str(to)]
    done = subprocess.run(command, cwd=source, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return to / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build("build_wheel", source, tmp_path_factory.mktemp("wheel"))


def info(python, cwd, **env):
    """What `python -m cuframe info --json` says when started in `cwd`."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(python), "-m", "cuframe", "info", "--json"]
    done = subprocess.run(command, cwd=cwd, env=clean | env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kernel_files(source):
    folder = source / "kernels"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return files - {"resources.json"}  # which builds in a checkout are held against


def test_wheel_carries_all_kernels_and_nothing_else_beside_the_package(source, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        probe = archive.read("cuframe/_kernels/common/probe.cuh")
    packed = {n.removeprefix("cuframe/_kernels/") for n in names if n.startswith("cuframe/_kernels/")}
    assert packed == kernel_files(source)
    assert probe == b"// probe\n"
    assert {n.partition("/")[0].partition("-")[0] for n in names} == {"cuframe"}
    assert not [n for n in names if "test_" in n]
    assert "cuframe/py.typed" in names


def test_wheel_is_below_one_megabyte(wheel):
    assert wheel.stat().st_size < 1 << 20


def test_every_module_of_the_package_is_in_the_wheel(source, wheel):
    modules = {p.relative_to(source).as_posix() for p in (source / "cuframe").rglob("*.py")}
    assert modules <= set(zipfile.ZipFile(wheel).namelist())


def test_unpacked_wheel_runs_and_finds_its_kernels(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    found = info(sys.executable, empty, PYTHONPATH=str(site))
    assert found["location"] == str(site / "cuframe")
    assert found["kernels"]["answer"] == str(site / "cuframe" / "_kernels")


def test_checkout_runs_with_nothing_installed(source):
    found = info(sys.executable, source)
    assert found["location"] == str(source / "cuframe")
    assert found["kernels"]["answer"] == str(source / "kernels")


def test_editable_install_uses_the_checkout(source, tmp_path):
    environment, empty = tmp_path / "env", tmp_path / "empty"
    empty.mkdir()
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    zipfile.ZipFile(build("build_editable", source, tmp_path)).extractall(site)
    # The dependencies come from where this test found them; a .pth line adds that path, not its .pth files.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    found = info(python, empty)
    assert found["location"] == str(source / "cuframe")
    assert found["kernels"]["answer"] == str(source / "kernels")


def test_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    sdist = build("build_sdist", source, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (tree,) = (tmp_path / "unpacked").iterdir()
    again = build("build_wheel", tree, tmp_path)
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_missing_kernels_are_named(monkeypatch, tmp_path):
    from cuframe import _paths

    monkeypatch.setattr(_paths, "_PACKAGE", tmp_path / "cuframe")
    with pytest.raises(
        FileNotFoundError, match="kernels_dir: no kernel sources in .*_kernels or .*kernels; "
    ):
        _paths.kernels_dir()


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    from cuframe import _paths

    monkeypatch.delenv("CUFRAME_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _paths.cache_dir() == tmp_path / ".cache" / "cuframe"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _paths.cache_dir() == tmp_path / "xdg" / "cuframe"
    monkeypatch.setenv("CUFRAME_CACHE_DIR", str(tmp_path / "own"))
    assert _paths.kernel_cache_dir() == tmp_path / "own" / "kernels"
