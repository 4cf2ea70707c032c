"""Process group `nccl` and what is installed: CuPy has the names it uses, NCCL the functions. No GPU is needed."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cuframe.distributed import nccl_library
from cuframe.distributed.nccl_library import OLDEST, Nccl, library_path
from cuframe.distributed.reduction import REDUCTIONS
from tests.ranks import ROOT

pytestmark = pytest.mark.cupy

DEVICE = """
import tests.cupy_without_gpu
import cupy, numpy as np
from cuframe.distributed.nccl_device import CudaDevice
device = CudaDevice.of_rank(1)  # the only GPU it sees
assert device.index == 0 and device.xp is cupy and str(device.where) == "cuda:0"
stream, event = device.stream(), device.event()
assert isinstance(stream.ptr, int) and stream.ptr != 0
with device.active():
    event.record(device.current())
    stream.wait_event(event)
    assert event.done in (True, False)
stream.synchronize()
array = device.from_host(np.arange(6, dtype=np.float32).reshape(2, 3))
assert isinstance(array, cupy.ndarray) and isinstance(device.pointer(array), int)
assert device.complaint(array) is None and device.complaint(np.zeros(2)) == "lives in host memory"
assert device.pointer(array[1:]) - device.pointer(array) == 12
assert len(device.identity().split()) >= 1
try:
    CudaDevice(1)
except ValueError as error:
    assert str(error) == "nccl: there is no GPU 1; this process sees 1"
else:
    raise AssertionError
# what the group asks of arrays
xp = device.xp
for made in (xp.ascontiguousarray(array[:, ::2]), xp.empty((2, 3), "float32"), array.astype("int32"), array.copy()):
    assert made.flags.c_contiguous and made.nbytes and made.size and made.dtype.name
print("well")
"""


def test_the_device_is_cupys():
    done = subprocess.run(
        [sys.executable, "-c", DEVICE], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.stdout == "well\n", done.stderr


def header() -> str:
    """NCCL's own, as its pip package brings it."""
    path = Path(library_path()).parent.parent / "include" / "nccl.h"
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)


def test_the_library_has_all_functions_with_these_parameters():
    assert Nccl(library_path()).version >= OLDEST
    text = header()
    for name, parameters in nccl_library._FUNCTIONS.items():
        found = re.search(rf"\b{name}\s*\(([^)]*)\)\s*;", text)
        assert found, name
        given = [p.strip() for p in found[1].split(",") if p.strip() not in ("", "void")]
        assert len(given) == len(parameters), (name, given)
        for word, kind in zip(given, parameters):
            pointer = "*" in word or "ncclComm_t" in word or "cudaStream_t" in word
            if pointer:
                assert kind is ctypes.c_void_p or issubclass(kind, ctypes._Pointer), (name, word)
            elif "size_t" in word:
                assert kind is ctypes.c_size_t, (name, word)
            elif "ncclUniqueId" not in word:
                assert kind is ctypes.c_int, (name, word)


def test_numbers_of_types_operations_and_errors():
    text = header()
    operations = {op.value: reduction.nccl for op, reduction in REDUCTIONS.items()}
    for name, number in (nccl_library.TYPES | operations).items():
        short = {"product": "Prod"}.get(name, name.capitalize())
        assert re.search(rf"\bnccl{short}\s*=\s*{number}\b", text), (name, number)
    assert re.search(rf"\bncclInProgress\s*=\s*{nccl_library.IN_PROGRESS}\b", text)
    fields = re.search(r"typedef struct ncclConfig\w*\s*\{(.*?)\}", text, re.DOTALL)
    assert fields
    order = re.findall(r"(\w+)\s*;", fields[1])
    assert order[:4] == ["size", "magic", "version", "blocking"] == [f for f, _ in nccl_library._Config._fields_]
