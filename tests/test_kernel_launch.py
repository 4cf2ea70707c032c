"""The typed launch wrapper, on a launcher that only writes down what it is asked."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pytest

from cuframe.cuda import launch as launch_module
from cuframe.cuda.launch import Kernel
from cuframe.cuda.sources import Source, text_source


class Array(np.ndarray):
    """A kind of array of its own, with the device that its test gives it."""

    device_index = 0


class Recorder:
    """Loads nothing, and remembers launches."""

    look = attrgetter("dtype", "size", "flags.c_contiguous", "device_index")

    def __init__(self) -> None:
        self.loads: list[tuple[str, int]] = []
        self.launches: list[tuple] = []

    def device(self, array: Array) -> int:
        return array.device_index

    def address(self, array: Array) -> int:
        return array.ctypes.data

    def facts(self, device: int) -> tuple[str, int, int]:
        return "sm_90a", 132, 232448

    def load(self, source: Source, expression: str, device: int, options: tuple[str, ...],
             siblings: Sequence[str]) -> Any:
        self.loads.append((expression, device))

        def launch(grid: tuple, block: tuple, shared: int, params: int, cooperative: bool) -> None:
            self.launches.append((grid, block, shared, params, cooperative))

        return launch

    def slot(self, index: int, ctype: Any) -> Any:
        """The argument at `index` of the last launch, read as the driver reads it."""
        params = ctypes.cast(self.launches[-1][3], ctypes.POINTER(ctypes.c_void_p))
        return ctypes.cast(params[index], ctypes.POINTER(ctype)).contents.value  # type: ignore[arg-type]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Recorder:
    monkeypatch.setenv("CUFRAME_CACHE_DIR", str(tmp_path))
    made = Recorder()
    monkeypatch.setitem(launch_module._launchers, Array, made)
    return made


def array(*shape: int, dtype: str = "float32") -> Array:
    return np.zeros(shape, dtype).view(Array)


def scale(**kwargs: Any) -> Kernel:
    args = ("const T* x[rows, cols]", "T* y[rows, cols]", "const float* bias?[cols]", "float factor", "int64 rows",
            "int32 cols", "bool flag")
    types = {"T": ("float32", "float16")}
    return Kernel(text_source("// nothing"), "scale", args, types=types, declare=False, **kwargs)


def test_arguments_arrive_as_declared(recorder: Recorder) -> None:
    x, y, b = array(2, 3), array(2, 3), array(3)
    k = scale()
    k(4, (32, 2), x, y, b, 0.5, 2, 3, True, shared=64)
    grid, block, shared, _, cooperative = recorder.launches[-1]
    assert (grid, block, shared, cooperative) == ((4, 1, 1), (32, 2, 1), 64, False)
    assert [recorder.slot(i, ctypes.c_void_p) for i in range(3)] == [a.ctypes.data for a in (x, y, b)]
    assert recorder.slot(3, ctypes.c_float) == 0.5
    assert recorder.slot(4, ctypes.c_int64) == 2
    assert recorder.slot(5, ctypes.c_int32) == 3
    assert recorder.slot(6, ctypes.c_bool) is True


def test_optional_array(recorder: Recorder) -> None:
    k = scale()
    k(1, 32, array(2, 3), array(2, 3), None, 0.5, 2, 3, False)
    assert recorder.slot(2, ctypes.c_uint64) == 0


def test_instances_are_chosen_by_dtype_and_loaded_once(recorder: Recorder) -> None:
    k = scale(constants={"WIDE": (1, 4)})
    assert list(k.instances()) == ["scale<float, 1>", "scale<float, 4>", "scale<half, 1>", "scale<half, 4>"]
    for _ in range(2):
        for dtype in ("float32", "float16"):
            x = array(2, 3, dtype=dtype)
            k(1, 32, x, x, None, 0.5, 2, 3, False, WIDE=4)
    assert recorder.loads == [("scale<float, 4>", 0), ("scale<half, 4>", 0)]


def test_instances_of_an_architecture() -> None:
    assert list(scale(least=80).instances("sm_75")) == []
    some = scale(least={"float16": 80})
    assert list(some.instances("sm_75")) == ["scale<float>"]
    assert list(some.instances("sm_90a")) == list(some.instances()) == ["scale<float>", "scale<half>"]


def call(k: Kernel, **changes: Any) -> None:
    values = {"x": array(2, 3), "y": array(2, 3), "bias": array(3), "factor": 0.5, "rows": 2, "cols": 3, "flag": False}
    values.update(changes)
    k(1, 32, *values.values())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": None}, TypeError, "scale: x must be an array, got None"),
        ({"x": array(2, 3, dtype="float64")}, TypeError, "scale: x must be one of float32, float16, got float64"),
        ({"y": array(2, 3, dtype="float16")}, TypeError, "scale: y must be float32, got float16"),
        ({"bias": array(3, dtype="float64")}, TypeError, "scale: bias must be float32, got float64"),
        ({"y": array(3, 2).T}, ValueError, r"scale: y must be C-contiguous, got shape \(2, 3\) with strides \(4, 8\)"),
        ({"y": array(2, 4)}, ValueError, r"scale: y must have shape \(2, 3\), that is 6 elements, got \(2, 4\)"),
        ({"y": np.zeros((2, 3), "f4")}, TypeError, "scale: y must be Array, as the others are, got ndarray"),
        ({"factor": "a"}, TypeError, "scale: factor must be float, got 'a'"),
        ({"cols": 3.0, "x": array(2, 3)}, TypeError, "scale: cols must be int32, got 3.0"),
        ({"x": np.zeros((2, 3), "f4")}, TypeError, "scale: runs on arrays of a 'cuda' or 'sim' device, got ndarray"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_bad_arguments_launch_nothing(recorder: Recorder, changes: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(scale(), **changes)
    assert recorder.launches == []


def test_what_passed_once_lets_nothing_else_pass(recorder: Recorder) -> None:
    """Note [Launch cost]: each thing that the checks look at must tell launches apart."""
    k = scale(constants={"WIDE": (1, 4)})
    x, w, other = array(2, 3), array(3), array(2, 3)
    other.device_index = 1
    good = (x, x, w, 0.5, 2, 3, True)
    bad = {
        "dtype": (x, array(2, 3, dtype="float16"), w, 0.5, 2, 3, True), "size": (x, array(7), w, 0.5, 2, 3, True),
        "contiguity": (x, array(3, 2).T, w, 0.5, 2, 3, True), "device": (x, other, w, 0.5, 2, 3, True),
        "kind": (x, np.zeros((2, 3), "f4"), w, 0.5, 2, 3, True), "None": (x, None, w, 0.5, 2, 3, True),
        "extent": (x, x, w, 0.5, 3, 2, True), "scalar": (x, x, w, None, 2, 3, True),
    }
    for _ in range(2):
        k(1, 32, *good, WIDE=4)
        for what, values in bad.items():
            with pytest.raises((TypeError, ValueError)):
                k(1, 32, *values, WIDE=4)
                pytest.fail(what)
        with pytest.raises(TypeError, match="constants must be WIDE"):
            k(1, 32, *good, DEEP=4)
    assert len(recorder.launches) == 2
    assert recorder.loads == [("scale<float, 4>", 0)]


def test_new_sizes_are_compared_without_the_other_checks(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note [Launch cost]: whatever the shapes, and only where nothing else is new."""
    args = ("float* one[n]", "float* two[n, m]", "float* three[2*n, m, m]", "float* four[8]", "float* any", "int32 n",
            "int32 m")
    kernels = [Kernel(text_source("//"), "f", args, declare=False),
               Kernel(text_source("//"), "g", (args[0], args[0].replace("one", "other"), args[5]), declare=False)]
    checked = []
    true = Kernel._check

    def check(k: Kernel, *given: Any) -> Any:
        checked.append(k.name)
        return true(k, *given)

    monkeypatch.setattr(Kernel, "_check", check)
    for n in (3, 4, 5):
        kernels[0](1, 32, array(n), array(n, 2), array(2 * n, 2, 2), array(8), array(n, 7), n, 2)
        kernels[1](1, 32, array(n), array(n), n)
    assert checked == ["f", "g"]
    for wrong in range(4):
        sizes = [(6,), (6, 2), (12, 2, 2), (8,), (1,)]
        sizes[wrong] = (1, 1)
        with pytest.raises(ValueError, match=f"f: {'one two three four'.split()[wrong]} must have shape"):
            kernels[0](1, 32, *(array(*s) for s in sizes), 6, 2)
    with pytest.raises(TypeError, match="g: one must be float32"):
        kernels[1](1, 32, array(7, dtype="float16"), array(7), 7)
    assert len(recorder.launches) == 6


def test_which_array_is_left_out(recorder: Recorder) -> None:
    k = Kernel(text_source("//"), "f", ("float* x", "float* a?[2]", "float* b?[3]"), declare=False)
    x, two, three = array(1), array(2), array(3)
    k(1, 32, x, two, None)
    assert recorder.slot(1, ctypes.c_uint64) == two.ctypes.data and recorder.slot(2, ctypes.c_uint64) == 0
    with pytest.raises(ValueError, match=r"f: b must have shape \(3\)"):
        k(1, 32, x, None, two)
    k(1, 32, x, None, three)
    assert recorder.slot(1, ctypes.c_uint64) == 0 and recorder.slot(2, ctypes.c_uint64) == three.ctypes.data


def test_keys_are_forgotten_in_the_end(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module, "_MOST_PASSED", 3)
    k = Kernel(text_source("//"), "f", ("float* x[n]", "int64 n"), declare=False)
    for n in range(1, 9):
        k(1, 32, array(n), n)
    assert len(k._passed) <= 3 and len(recorder.launches) == 8


def test_two_devices(recorder: Recorder) -> None:
    other = array(2, 3)
    other.device_index = 1
    with pytest.raises(ValueError, match="scale: y is on device 1, the first array on 0"):
        call(scale(), y=other)


def test_scalar_out_of_range(recorder: Recorder) -> None:
    k = Kernel(text_source("//"), "f", ("float* x", "int32 n"), declare=False)
    with pytest.raises(TypeError, match="f: n must be int32, got 4294967296"):
        k(1, 32, array(1), 2**32)


def test_wrong_count_and_constants(recorder: Recorder) -> None:
    k = scale(constants={"WIDE": (1, 4)})
    with pytest.raises(TypeError, match=r"scale: takes 7 arguments \(x, y, bias, .*\), got 1"):
        k(1, 32, array(2, 3))
    with pytest.raises(TypeError, match="scale: template constants must be WIDE, got none"):
        call(k)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("float x y z", "cannot read the argument"),
        ("quad n", "unknown type 'quad'"),
        ("U* x", "unknown type 'U'"),
        ("float* x[rows]", "'rows' in .* is no scalar argument; there are: none"),
    ],
)
def test_bad_declarations(argument: str, message: str, recorder: Recorder) -> None:
    with pytest.raises(ValueError, match=f"f: {message}"):
        Kernel(text_source("//"), "f", (argument,), declare=False)
