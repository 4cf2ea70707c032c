"""Names, defaults and promotion of dtypes, and devices."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import cuframe as cf

ORDER = ("bool", "uint8", "int8", "int16", "int32", "int64", "bfloat16", "float16", "float32", "float64")
# Row by column, in the order above: what an operation on two tensors of these dtypes works in.
PROMOTED = """
bool     uint8    int8     int16    int32    int64    bfloat16 float16  float32  float64
uint8    uint8    int16    int16    int32    int64    bfloat16 float16  float32  float64
int8     int16    int8     int16    int32    int64    bfloat16 float16  float32  float64
int16    int16    int16    int16    int32    int64    bfloat16 float16  float32  float64
int32    int32    int32    int32    int32    int64    bfloat16 float16  float32  float64
int64    int64    int64    int64    int64    int64    bfloat16 float16  float32  float64
bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 float32  float32  float64
float16  float16  float16  float16  float16  float16  float32  float16  float32  float64
float32  float32  float32  float32  float32  float32  float32  float32  float32  float64
float64  float64  float64  float64  float64  float64  float64  float64  float64  float64
"""
TABLE = {
    (a, b): word
    for a, line in zip(ORDER, PROMOTED.strip().splitlines())
    for b, word in zip(ORDER, line.split())
}


@pytest.mark.parametrize("a, b", list(itertools.product(ORDER, ORDER)))
def test_promotion(a, b):
    expected = TABLE[a, b]
    assert cf.promote_types(a, b).name == expected
    x, y = cf.ones(2, dtype=a), cf.ones(2, dtype=b)
    assert cf.result_type(x, y).name == expected
    assert (x * y).dtype.name == expected


@pytest.mark.parametrize(
    "values, expected",
    [
        (lambda: (cf.ones(2, dtype="float16"), 2.5), "float16"),
        (lambda: (cf.ones(2, dtype="int32"), 2), "int32"),
        (lambda: (cf.ones(2, dtype="int32"), 2.5), "float32"),
        (lambda: (cf.ones(2, dtype="bool"), 2), "int64"),
        (lambda: (cf.ones(2, dtype="bool"), True), "bool"),
        (lambda: (cf.ones(2, dtype="bfloat16"), cf.tensor(1.0, dtype="float64")), "bfloat16"),
        (lambda: (cf.ones(2, dtype="int8"), cf.tensor(1, dtype="int64")), "int8"),
        (lambda: (cf.ones(2, dtype="int8"), cf.tensor(1.0, dtype="float64")), "float64"),
        (lambda: (cf.tensor(1, dtype="int8"), 5), "int8"),
        (lambda: (cf.tensor(1.0, dtype="float64"), cf.tensor(1.0, dtype="float32")), "float64"),
        (lambda: (1, 2.0), "float32"),
    ],
)
def test_numbers_and_zero_dimensional_tensors_yield(values, expected):
    values = values()
    assert cf.result_type(*values).name == expected
    if any(isinstance(v, cf.Tensor) for v in values):
        assert (values[0] * values[1]).dtype.name == expected


def test_result_type_needs_values():
    with pytest.raises(TypeError, match="at least one"):
        cf.result_type()
    with pytest.raises(TypeError, match="expected a tensor or a number, got str"):
        cf.result_type("float32")


@pytest.mark.parametrize(
    "given, expected",
    [
        ("float32", "float32"),
        ("torch.float64", "float64"),
        ("half", "float16"),
        ("double", "float64"),
        ("long", "int64"),
        ("bool", "bool"),
        ("bfloat16", "bfloat16"),
        (np.float16, "float16"),
        (np.dtype(np.int8), "int8"),
        (cf.bfloat16, "bfloat16"),
        (ml_dtypes.bfloat16, "bfloat16"),
        (int, "int64"),
        (float, "float32"),
        (bool, "bool"),
    ],
)
def test_as_dtype(given, expected):
    assert cf.as_dtype(given).name == expected


@pytest.mark.parametrize("bad", ["float31", "tensor", object(), 3.0])
def test_as_dtype_of_something_else(bad):
    with pytest.raises(TypeError, match="is not a dtype"):
        cf.as_dtype(bad)


def test_dtypes_are_those_of_numpy():
    assert cf.float32 is np.float32 and cf.int64 is np.int64
    assert cf.ones(2).dtype == np.float32 == cf.float32
    assert np.ones(2, cf.bfloat16).dtype == cf.bfloat16


@pytest.mark.parametrize("name", ORDER)
def test_is_floating(name):
    assert cf.is_floating(cf.as_dtype(name)) is (name in ORDER[6:])


def test_default_dtype():
    assert cf.get_default_dtype() == np.float32
    cf.set_default_dtype("float64")
    try:
        assert cf.tensor([1.0]).dtype == np.float64 and cf.ones(1).dtype == np.float64
        assert cf.as_dtype(float) == np.float64
        assert (cf.tensor([1]) / 2).dtype == np.float64
    finally:
        cf.set_default_dtype(cf.float32)
    assert cf.tensor([1.0]).dtype == np.float32
    with pytest.raises(TypeError, match="needs a floating point dtype, got int64"):
        cf.set_default_dtype("int64")


@pytest.mark.parametrize(
    "name, eps, largest",
    [("bfloat16", 2.0**-7, 3.3895e38), ("float16", 2.0**-10, 65504.0), ("float32", 2.0**-23, 3.4028e38)],
)
def test_finfo(name, eps, largest):
    info = cf.finfo(name)
    assert float(info.eps) == eps
    assert float(info.max) == pytest.approx(largest, rel=1e-4)
    assert float(info.min) == -float(info.max)


def test_iinfo():
    assert (cf.iinfo("int8").min, cf.iinfo("int8").max, cf.iinfo(cf.uint8).max) == (-128, 127, 255)


# -- devices --------------------------------------------------------
def test_device():
    cpu = cf.device("cpu")
    assert (cpu.type, cpu.index) == ("cpu", None)
    assert cpu == "cpu" and cpu == cf.Device("cpu:0") and hash(cpu) == hash(cf.Device("cpu:0"))
    assert cpu != "cuda" and cpu != 3
    assert cf.Device("cuda") == "cuda:0" and cf.Device("cuda", 1).index == 1
    assert str(cf.Device("cuda:1")) == "cuda:1" and repr(cf.Device("cuda:1")) == "device(type='cuda', index=1)"
    assert cf.ones(2).device == cpu and cf.ones(2, device=cpu).device == "cpu"


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("gpu",), ValueError, "unknown type 'gpu'"),
        (("cuda:x",), ValueError, "'cuda:x'"),
        (("cuda:-1",), ValueError, "'cuda:-1'"),
        (("cpu:1",), ValueError, "one CPU device"),
        (("cuda:0", 1), ValueError, "twice"),
        ((3,), TypeError, "got 3"),
    ],
)
def test_bad_devices(arguments, error, message):
    with pytest.raises(error, match=message):
        cf.Device(*arguments)
