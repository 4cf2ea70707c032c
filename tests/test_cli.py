"""The `cuframe` command: dispatch, and `info` on machines with, without and with a half-broken CUDA."""

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy
import pytest

from cuframe import _paths, cli
from cuframe._version import __version__
from cuframe.cli import _driver, _facts
from cuframe.cli import info as info_command

ROOT = Path(__file__).resolve().parent.parent

# Two GPUs, the second with another capability and unknown to NVML.
FAKE_LIBCUDA = r"""
#include <stdio.h>
#include <string.h>
int cuDriverGetVersion(int *v) { *v = DRIVER; return 0; }
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *d, int i) { *d = i + 40; return 0; }
int cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "Fake GPU %d", d - 40); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 + (d - 40) : a == 76 ? 6 : -1; return 0; }
int cuDeviceTotalMem_v2(size_t *b, int d) { *b = (size_t)(d - 39) << 34; return 0; }
int cuDeviceGetPCIBusId(char *s, int n, int d) { snprintf(s, n, "0000:%02d:00.0", d); return 0; }
"""
FAKE_NVML = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "570.86.15", n); return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **h) {
  *h = (void *)7;
  return strcmp(id, "0000:40:00.0");
}
int nvmlDeviceGetMemoryInfo(void *h, Memory *m) { m->free = 3ull << 30; return h != (void *)7; }
"""


@pytest.fixture
def fake_driver(tmp_path):
    """Compiles a stand-in libcuda and NVML and returns the environment that makes ctypes find them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler to make a stand-in libcuda")

    def make(driver: int, init: int = 0, nvml: bool = True) -> dict[str, str]:
        libraries = {"libcuda.so.1": FAKE_LIBCUDA} | ({"libnvidia-ml.so.1": FAKE_NVML} if nvml else {})
        for name, code in libraries.items():
            command = [compiler, "-shared", "-fPIC", f"-DDRIVER={driver}", f"-DINIT={init}", "-xc", "-"]
            subprocess.run([*command, "-o", str(tmp_path / name)], input=code, text=True, check=True)
        return {"LD_LIBRARY_PATH": str(tmp_path)}

    return make


def run(*args, **env):
    command = [sys.executable, "-m", "cuframe", *args]
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, text=True, capture_output=True)


def facts_with(**env):
    done = run("info", "--json", **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fake_cupy(folder, code, *distributions):
    """Puts an importable `cupy` with this code, and the metadata of these distributions, into `folder`."""
    if any(_facts._version(name) for name in _facts._CUPY_NAMES):
        pytest.skip("a real CuPy is installed, and its metadata would show beside the stand-in's")
    (folder / "cupy").mkdir(parents=True)
    (folder / "cupy" / "__init__.py").write_text(code)
    for name in distributions:
        meta = folder / f"{name.replace('-', '_')}-14.0.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.0.0\n")
    return {"PYTHONPATH": str(folder)}


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cuframe {__version__}\n"
    assert cli.main([]) == cli.main(["--help"]) == 0
    bare, asked = capsys.readouterr().out.split("usage: ")[1:]
    assert bare == asked
    for name in cli.command_names():
        assert f"\n  {name} " in asked


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("inof", "cuframe: unknown command 'inof'; did you mean 'info'?"),
        ("--vresion", "cuframe: unknown option '--vresion'; did you mean '--version'?"),
        ("zzzzzz", "cuframe: unknown command 'zzzzzz'; one of: "),
    ],
)
def test_unknown_command_suggests_the_nearest(capsys, given, expected):
    assert cli.main([given]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(expected)
    assert captured.out == ""


def test_helper_modules_are_no_commands(capsys):
    assert "info" in cli.command_names()
    assert cli.main(["_facts"]) == 2


def test_the_cli_itself_imports_nothing_heavy():
    code = (
        "import sys, types; package = types.ModuleType('cuframe'); package.__path__ = ['cuframe'];"
        "sys.modules['cuframe'] = package; from cuframe.cli import main; main(['--help']);"
        "print(sorted({'numpy', 'rich', 'scipy', 'cupy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "cuframe", "info"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (0, "")


def test_info_reports_versions_cpu_and_cache(tmp_path):
    cache = tmp_path / "kernels"
    cache.mkdir()
    (cache / "a.cubin").write_bytes(b"x" * 2048)
    found = facts_with(CUFRAME_CACHE_DIR=str(tmp_path), OPENBLAS_NUM_THREADS="1")
    assert found["cuframe"] == __version__
    assert found["packages"]["numpy"] == numpy.__version__
    assert found["cpu"]["cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]["memory_bytes"] >= found["cpu"]["available_bytes"] > 0
    assert found["kernel_cache"] == {"path": str(cache), "files": 1, "bytes": 2048}
    assert found["blas"]["threads"] in (1, None)  # None: a BLAS that does not tell


def test_info_in_plain_text_names_every_section():
    done = run("info")
    assert done.returncode == 0, done.stderr
    for title in ("Versions", "Devices", "CUDA", "Kernels"):
        assert f"{title}\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_info_on_a_terminal_prints_brackets_as_they_are():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    found = [("Versions", [("cuframe", "1.2.3 in [somewhere]")])]
    with redirect_stdout(Terminal()) as out:
        info_command._print_rich(found)
    assert "cuframe" in out.getvalue() and "1.2.3 in [somewhere]" in out.getvalue()


def test_info_without_a_driver_is_friendly(monkeypatch):
    monkeypatch.setattr(_facts, "find_driver", lambda: None)
    monkeypatch.setattr(_facts, "_cupy", lambda: None)
    found = _facts.collect()
    assert found["driver"] is None and found["gpus"] == []
    text = info_command.plain(info_command.sections(found))
    assert "no NVIDIA driver found; everything runs on the CPU" in text
    assert not [m for m in found["missing"] if "CuPy" in m["what"]]


@pytest.mark.parametrize(("version", "extra"), [(12040, "cuda12"), (13000, "cuda13"), (14010, "cuda13")])
def test_driver_chooses_the_extra(fake_driver, version, extra):
    command = [sys.executable, "-I", str(ROOT / "cuframe/cli/_driver.py")]
    done = subprocess.run(command, env=os.environ | fake_driver(version), text=True, capture_output=True)
    assert (done.stdout, done.stderr) == (f"{extra}\n", "")


@pytest.mark.parametrize(
    ("version", "init", "reason"),
    [
        (11080, 0, "it runs CUDA 11.8, cuframe needs 12 or newer"),
        (12080, 100, "it sees no GPU"),
        (12080, 999, "cuInit failed with CUDA error 999"),
    ],
)
def test_unusable_driver_chooses_no_extra_and_says_why(fake_driver, version, init, reason):
    command = [sys.executable, "-I", str(ROOT / "cuframe/cli/_driver.py")]
    done = subprocess.run(
        command, env=os.environ | fake_driver(version, init), text=True, capture_output=True
    )
    assert (done.stdout, done.stderr) == ("", f"NVIDIA driver found but not used: {reason}\n")


def test_info_lists_gpus(fake_driver):
    env = fake_driver(12080)
    found = facts_with(**env)
    assert found["driver"] == {"version": "570.86.15", "cuda": "12.8", "problem": None}
    assert found["gpus"] == [
        {
            "device": "cuda:0",
            "name": "Fake GPU 0",
            "capability": "8.6",
            "memory_bytes": 16 << 30,
            "free_bytes": 3 << 30,
        },
        {
            "device": "cuda:1",
            "name": "Fake GPU 1",
            "capability": "9.6",
            "memory_bytes": 32 << 30,
            "free_bytes": None,
        },
    ]
    text = run("info", **env).stdout
    assert "cuda:0  Fake GPU 0, compute capability 8.6, 16.0 GiB, 3.0 GiB free\n" in text
    assert "cuda:1  Fake GPU 1, compute capability 9.6, 32.0 GiB\n" in text


def test_info_without_nvml_still_lists_gpus(fake_driver):
    found = facts_with(**fake_driver(13010, nvml=False))
    assert found["driver"]["version"] is None
    assert [g["free_bytes"] for g in found["gpus"]] == [None, None]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise ImportError('libcublas.so.12: cannot open')", "ImportError: libcublas.so.12: cannot open"),
        ("raise SystemError", "SystemError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_info_survives_a_cupy_that_cannot_be_imported(tmp_path, code, problem):
    found = facts_with(**fake_cupy(tmp_path, code, "cupy-cuda13x"))
    assert found["cupy"]["problem"] == problem
    (needed,) = [m for m in found["missing"] if "CuPy" in m["what"]]
    assert needed["what"] == "a CuPy that can be imported: `pip uninstall cupy-cuda13x`, then"
    assert needed["install"].startswith("pip install ") and "[cuda13]" in needed["install"]


def test_info_names_the_cuda_libraries_that_do_not_load(tmp_path):
    code = """
import types
__version__ = "14.0.0"
def fail(): raise RuntimeError("\\n====\\nlibnvrtc.so.12 not found\\n====")
cuda = types.SimpleNamespace(
    runtime=types.SimpleNamespace(runtimeGetVersion=lambda: 12090),
    nvrtc=types.SimpleNamespace(getVersion=fail),
)
"""
    found = facts_with(**fake_cupy(tmp_path, code, "cupy-cuda12x"))
    assert found["cupy"]["runtime"] == {"answer": "12.9", "problem": None}
    assert found["cupy"]["nvrtc"] == {"answer": None, "problem": "RuntimeError: libnvrtc.so.12 not found"}
    (needed,) = [m for m in found["missing"] if "NVRTC" in m["what"]]
    assert needed["what"] == "NVRTC, cuBLAS, NCCL" and "[cuda12]" in needed["install"]


def test_info_reports_two_cupys(tmp_path):
    found = facts_with(**fake_cupy(tmp_path, "__version__ = '14.0.0'", "cupy-cuda12x", "cupy-cuda13x"))
    assert any(
        m["what"] == "one CuPy instead of 2: `pip uninstall cupy-cuda12x cupy-cuda13x`, then"
        for m in found["missing"]
    )


def test_a_driver_without_cupy_asks_for_the_extra_that_fits():
    driver = _driver.Driver((13, 0), "580.1", (_driver.Gpu(0, "Fake", (9, 0), 1, None),), None)
    facts = {"cupy": None, "packages": {"matplotlib": "3"}}
    assert _facts._missing(facts, driver) == [
        {"what": "CuPy, to use the GPU", "install": _paths.install_command("cuda13")}
    ]


def test_a_cupy_too_new_for_the_driver_is_reported():
    driver = _driver.Driver((12, 4), "550.1", (_driver.Gpu(0, "Fake", (9, 0), 1, None),), None)
    facts = {
        "cupy": {"distributions": {"cupy-cuda13x": "14.0.0"}, "problem": None},
        "packages": {"matplotlib": "3"},
    }
    (needed,) = _facts._missing(facts, driver)
    assert needed["what"] == "a CuPy that this driver can run: `pip uninstall cupy-cuda13x`, then"
    assert needed["install"] == _paths.install_command("cuda12")


def test_install_command_fits_the_installation(monkeypatch):
    assert _paths.install_command("plot") == f"pip install -e '{ROOT}[plot]'"
    monkeypatch.setattr(_paths, "checkout_root", lambda: None)
    monkeypatch.setattr(_paths, "installed_from", lambda: ROOT)  # by `pip install .`
    assert _paths.install_command("plot") == f"pip install '{ROOT}[plot]'"
    monkeypatch.setattr(_paths, "installed_from", lambda: None)
    assert _paths.install_command("plot") == "pip install 'cuframe[plot]'"


@pytest.mark.parametrize(
    "record, found",
    [
        (f'{{"url": "file://{ROOT}", "dir_info": {{}}}}', ROOT),
        ('{"url": "file:///nowhere", "dir_info": {}}', None),
        ('{"url": "https://example.org/cuframe.whl"}', None),
        (None, None),
    ],
)
def test_an_installation_knows_its_checkout(monkeypatch, record, found):
    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return record

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution())
    assert _paths.installed_from() == found


def test_a_cuda_device_without_cupy_says_what_info_says(monkeypatch):
    from cuframe.backend.cuda import CudaBackend

    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="device 'cuda' needs CuPy") as error:
        CudaBackend()
    assert _paths.install_command("cuda12") in str(error.value)
