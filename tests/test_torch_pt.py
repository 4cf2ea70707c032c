"""PyTorch checkpoints are read without torch, and hostile ones are refused."""

import io
import math
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import cuframe as cf
from cuframe.serialization import CheckpointError, load_torch, pickle_machine, torch_pt
from cuframe.serialization.torch_pt import read_torch

GOLDEN = Path(__file__).parent / "golden"
BF16 = np.dtype(ml_dtypes.bfloat16)


def read(path):
    return read_torch(path, lambda array: array)


def golden(name):
    return read(GOLDEN / f"torch_{name}.pt")


def dt(name):
    return np.dtype(getattr(ml_dtypes, name, name))


# -- golden files: what torch.save wrote --


def test_a_state_dict():
    got = golden("state_dict")
    assert type(got) is OrderedDict
    assert list(got) == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
                         "1.num_batches_tracked", "2.weight"]  # fmt: skip
    assert got["0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]] and got["0.weight"].dtype == np.float32
    assert got["0.bias"].tolist() == [10, 11] and got["1.running_var"].tolist() == [1, 1]
    assert got["1.num_batches_tracked"].shape == () and got["1.num_batches_tracked"].dtype == np.int64
    assert np.shares_memory(got["0.weight"], got["2.weight"])
    assert got["0.weight"].flags.writeable


@pytest.mark.parametrize("name", ["training", "deflated"])
def test_a_training_checkpoint(name):
    got = golden(name)
    state = got["optimizer"]["state"]
    assert list(state) == [0] and state[0]["step"].tolist() == 1
    np.testing.assert_allclose(state[0]["exp_avg"], np.full(4, 0.1, np.float32), rtol=1e-6)
    group = got["optimizer"]["param_groups"][0]
    assert group["lr"] == 0.5 and group["betas"] == (0.9, 0.999) and group["params"] == [0]
    assert got["scheduler"]["step_size"] == 3 and got["scheduler"]["last_epoch"] == 0
    values = {
        "args": {"lr": 0.5, "name": "run"}, "groups": {"a": [1]}, "set": {1, 2}, "frozen": frozenset(["f"]),
        "bytes": b"\x00\xffab", "no_bytes": b"", "complex": 1 - 2j, "big": -(2**80), "size": (2, 3),
        "dtype": BF16,
        "device": "cuda:1", "cpu": "cpu", "loss": 0.5, "flag": True, "count": -7,
        "tuple": (None, True, False, 1.5, "é"), "keys": {1: "a", None: "b", (1, "x"): "c", 2.5: "d"},
        "empty": [OrderedDict(), {}, [], (), set()],
    }  # fmt: skip
    for key, value in values.items():
        assert got[key] == value and type(got[key]) is type(value), key
    arrays = {
        "array": np.arange(6, dtype=np.int16).reshape(2, 3), "fortran": np.eye(2, 3),
        "no_array": np.zeros((0, 2)),
        "swapped": np.arange(3, dtype=np.int32), "parameter": np.array([-0.5, 0.5, 1.5, 2.5], np.float32),
        "with_state": np.arange(2, dtype=np.float32), "tagged": np.arange(3),
        "buffer": np.ones(1, np.float32),
    }  # fmt: skip
    for key, value in arrays.items():
        assert got[key].dtype == value.dtype and got[key].dtype.isnative and got[key].shape == value.shape, (
            key
        )
        np.testing.assert_allclose(got[key], value, rtol=1e-6, err_msg=key)
    assert set(got) == {"optimizer", "scheduler", *values, *arrays}


@pytest.mark.parametrize("name", ["views", "protocol4"])
def test_views_share_their_storage(name):
    got = golden(name)
    base = np.arange(24, dtype=np.float32)
    square = base.reshape(4, 6)
    expected = {
        "base": base, "offset": base[3:9], "transposed": square.T, "step": square[1::2, ::3],
        "expanded": np.broadcast_to(base[5], (3, 2)), "scalar": base[7], "none": base[24:],
        "empty": np.empty((0, 3)), "parameter": base[:2], "other": base,
    }  # fmt: skip
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert got[key].shape == value.shape and got[key].tolist() == value.tolist(), key
    assert got["transposed"].strides == (4, 24) and got["expanded"].strides == (0, 0)
    for key in ("offset", "transposed", "step", "expanded", "scalar", "parameter"):
        assert np.shares_memory(got["base"], got[key]), key
    assert not np.shares_memory(got["base"], got["other"])
    got["base"][5] = 100
    assert got["expanded"].tolist() == [[100, 100]] * 3 and got["offset"][2] == 100


@pytest.mark.parametrize("name", ["dtypes", "big_endian"])
def test_dtypes_and_byte_order(name):
    got = golden(name)
    assert len(got) == 15
    for key, value in got.items():
        assert value.dtype == dt(key) and value.dtype.isnative
        assert value.tolist() == np.arange(6).reshape(2, 3).astype(dt(key)).tolist()


def test_the_public_function_gives_tensors_that_share_memory():
    got = load_torch(str(GOLDEN / "torch_views.pt"))
    assert all(isinstance(t, cf.Tensor) for t in got.values())
    assert got["transposed"].shape == (6, 4) and got["transposed"].numpy()[5, 3] == 23
    assert np.shares_memory(got["base"].numpy(), got["offset"].numpy())
    got = load_torch(GOLDEN / "torch_training.pt", device="cpu")
    assert isinstance(got["parameter"], cf.Tensor) and type(got["array"]) is np.ndarray
    assert got["with_state"].numpy().tolist() == [0, 1]


def test_torch_is_not_imported():
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        "from cuframe.serialization.torch_pt import read_torch\n"
        "print(read_torch(sys.argv[1], lambda a: a)['offset'].tolist())"
    )
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    command = [sys.executable, "-W", "ignore", "-c", code, str(GOLDEN / "torch_views.pt")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert run.stdout.strip() == "[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]"


def test_no_unpickler_is_ever_made(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("unpickling")

    for name in ("Unpickler", "_Unpickler", "load", "loads", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, fail)
    assert golden("training")["count"] == -7


# -- files that are something else --


def test_other_files(tmp_path):
    def check(data, message):
        path = tmp_path / "x.pt"
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)

    check(b"", "is empty")
    check(b"hello", "is not a zip archive")
    check(pickle.dumps({"a": 1}), "is a plain pickle")
    check(
        (16).to_bytes(8, "little") + b'{"a":1}         ', "looks like a safetensors file; cf.load reads those"
    )
    check(
        (GOLDEN / "torch_legacy.pt").read_bytes(),
        "format from before 1.6; load it in PyTorch and torch.save it",
    )
    npz = io.BytesIO()
    np.savez(npz, a=np.ones(3))
    check(npz.getvalue(), "is a zip archive but not a PyTorch checkpoint")
    check(archive({"x/constants.pkl": b""}), "TorchScript program; save its state_dict")
    with pytest.raises(FileNotFoundError, match="load_torch: cannot open: .*none.pt"):
        load_torch(tmp_path / "none.pt")
    with pytest.raises(TypeError, match="load_torch: path must be a str or os.PathLike, got BytesIO"):
        load_torch(npz)


def test_a_sparse_tensor_is_refused_by_name():
    with pytest.raises(
        CheckpointError, match="asks for `torch._utils._rebuild_sparse_tensor`, which is not on the"
    ):
        golden("sparse")


def test_a_file_cut_or_damaged_anywhere_gives_our_error(tmp_path):
    data = (GOLDEN / "torch_views.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for n in range(0, len(data), 13):
        path.write_bytes(data[:n])
        with pytest.raises(CheckpointError):
            read(path)
    start = data.index(b"data.pkl")
    for n in [*range(90), *range(start, start + 400), *range(len(data) - 500, len(data))]:
        path.write_bytes(data[:n] + bytes([data[n] ^ 0x21]) + data[n + 1 :])
        try:
            read(path)
        except CheckpointError:
            pass


# -- hand-made pickles --


def archive(entries=None, pickle_bytes=b"N.", prefix="x/", **options):
    """A checkpoint with this data.pkl and these other entries."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns about the duplicate names that a test wants
        with zipfile.ZipFile(out, "w", **options) as zf:
            zf.writestr(prefix + "data.pkl", pickle_bytes)
            for name, data in (entries or {}).items():
                zf.writestr(name.removesuffix("#2"), data)
    return out.getvalue()


@pytest.fixture
def run(tmp_path):
    def run(pickle_bytes, entries=None, **options):
        path = tmp_path / "hand.pt"
        path.write_bytes(archive(entries, pickle_bytes, **options))
        return read(path)

    return run


def g(name):
    """GLOBAL."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def num(n):
    return b"\x8a\x08" + struct.pack("<q", n)


def tup(*items):
    return b"(" + b"".join(items) + b"t"


def nums(*ns):
    return tup(*map(num, ns))


def storage(count, kind="torch.FloatStorage", key="0"):
    return tup(text("storage"), g(kind), text(key), text("cpu"), num(count)) + b"Q"


def tensor(offset, size, stride, count=6, kind="torch.FloatStorage", key="0"):
    args = tup(
        storage(count, kind, key),
        num(offset),
        nums(*size),
        nums(*stride),
        b"\x89",
        g("collections.OrderedDict") + b")R",
    )
    return g("torch._utils._rebuild_tensor_v2") + args + b"R"


DATA = {"x/data/0": np.arange(6, dtype=np.float32).tobytes()}


def test_a_hand_made_tensor(run):
    assert run(tensor(1, (2, 2), (2, 1)) + b".", DATA).tolist() == [[1, 2], [3, 4]]
    assert run(tensor(0, (6,), (1,)) + b".", {**DATA, "x/byteorder": b"big"}).tolist() == (
        np.arange(6, dtype=np.float32).byteswap().tolist()
    )
    old = g("torch._utils._rebuild_tensor") + tup(storage(6), num(4), nums(2), nums(1)) + b"R."
    assert run(old, DATA).tolist() == [4, 5]


@pytest.mark.parametrize("name", [
    "os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__",
    "__builtin__.eval",
    "subprocess.Popen", "torch.load", "torch._utils._rebuild_qtensor", "torch.nn.modules.linear.Linear",
    "__main__.Model",
    "numpy.load", "numpy.core.multiarray.fromfile", "copyreg._reconstructor", "operator.attrgetter",
    "torch.QInt8Storage",
    "torch.float8_e4m3fn", "_codecs.decode", "builtins.set.__init__", "collections.OrderedDict.fromkeys",
])  # fmt: skip
def test_a_global_that_is_not_on_the_allow_list_is_named(name, run):
    message = f"asks for `{name}`, which is not on the allow-list"
    with pytest.raises(CheckpointError, match=message):
        run(g(name) + tup(text("echo hacked")) + b"R.")
    module, _, attribute = name.rpartition(".")
    with pytest.raises(CheckpointError, match=message):
        run(b"\x80\x04" + text(module) + text(attribute) + b"\x93)\x81.")
    with pytest.raises(CheckpointError, match=message):  # even when nothing calls it
        run(g(name) + b"0N.")


def test_nothing_runs(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    for protocol in range(6):
        with pytest.raises(
            CheckpointError, match="`(_?io|__builtin__|builtins).open`, which is not on the allow-list"
        ):
            run(pickle.dumps({"w": Evil()}, protocol))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(protocol, run):
    data = {
        "a": [1, -2.5, None, True, "é\n"],
        "b": (1, 2, (3, 4, 5, 6)),
        3: [2**70, -1, 300, 70_000],
        "n": math.inf,
    }
    if protocol >= 3:
        data |= {"bytes": b"\x00" * 300, "set": {1, "x"}, "frozen": frozenset([2])}
    assert run(pickle.dumps(data, protocol)) == data


OPCODES = {
    b"(i__main__\nModel\n.": "INST", b"(cos\nsystem\no.": "`os.system`", b"\x82\x01.": "EXT1",
    b"P1\n.": "PERSID",
    b"\x96" + struct.pack("<Q", 1) + b"a.": "BYTEARRAY8", b"\x97.": "NEXT_BUFFER", b"(No.": "OBJ",
    b")})\x92.": "NEWOBJ_EX",
}  # fmt: skip


@pytest.mark.parametrize("program", OPCODES)
def test_opcodes_that_no_checkpoint_uses(program, run):
    with pytest.raises(CheckpointError, match=OPCODES[program] + ".*not on the allow-list"):
        run(program)


DAMAGED = {
    "no end": (b"N", "damaged pickle"),
    "nothing": (b"", "damaged pickle"),
    "empty stack": (b".", "does not end with one object"),
    "two objects": (b"NN.", "does not end with one object"),
    "open mark": (b"(N.", "does not end with one object"),
    "pop": (b"0.", "a mark is missing"),
    "pop mark": (b"1.", "a mark is missing"),
    "tuple": (b"N\x87.", "empty stack"),
    "dup": (b"2.", "DUP without"),
    "memo": (b"h\x05.", "memo entry 5 was never stored"),
    "put": (b"q\x05.", "PUT without"),
    "append": (b"}Na.", "APPEND without a list"),
    "append to nothing": (b"Na.", "APPEND without a list"),
    "setitem": (b"]NNs.", "SETITEM without a dict"),
    "odd setitems": (b"}(NNNu.", "a key without a value"),
    "additems": (b"](Nt.", "does not end with one object"),
    "add to a list": (b"](N\x90.", "ADDITEMS? without a set"),
    "long string": (b"X\xff\xff\xff\x7fabc.", "damaged pickle"),
    "longer string": (b"\x8d" + b"\xff" * 8 + b"abc.", "damaged pickle"),
    "long number": (b"\x8b\xff\xff\xff\x7f.", "damaged pickle"),
    "not utf-8": (b"X\x01\x00\x00\x00\xff.", "damaged pickle"),
    "unknown opcode": (b"\xfe.", "damaged pickle"),
    "decimal": (b"I" + b"9" * 5000 + b"\n.", "damaged pickle"),
    "global without a name": (b"cos\n", "damaged pickle"),
    "stack global of numbers": (b"K\x01K\x02\x93.", "`1.2`, which is not on the allow-list"),
    "call of a number": (b"K\x01)R.", "it calls int with a tuple"),
    "call with a list": (g("torch.Size") + b"]R.", "calls torch.Size with a list"),
    "call of a type": (g("torch.FloatStorage") + b")R.", "calls torch.FloatStorage"),
    "build a list": (b"]}b.", "sets the state of a list"),
    "build a namespace": (g("argparse.Namespace") + b")\x81]b.", "sets the state of a namespace"),
    "namespace arguments": (g("argparse.Namespace") + tup(b"N") + b"\x81.",
        "makes an object of argparse.Namespace"),
    "new tensor": (g("torch.Tensor") + b")\x81.", "makes an object of torch.Tensor"),
    "list as key": (b"}]Ns.", "dict key or set element of type list"),
    "tuple of tuples as key": (b"}" + tup(b")") + b"Ns.", "dict key or set element of type tuple"),
    "dict in a set": (g("builtins.set") + tup(b"]}a") + b"R.", "dict key or set element of type dict"),
    "size": (g("torch.Size") + tup(tup(text("a"))) + b"R.", "torch.Size of something"),
    "device": (g("torch.device") + tup(b"N") + b"R.", "torch.device of something"),
    "codec": (g("_codecs.encode") + tup(text("a"), text("rot13")) + b"R.", "not latin1 text"),
    "not latin1": (g("_codecs.encode") + tup(text("€"), text("latin1")) + b"R.", "damaged pickle"),
    "arguments": (g("torch._utils._rebuild_tensor_v2") + b")R.", "with 0 arguments"),
    "pairs": (g("collections.OrderedDict") + tup(b"](Ne") + b"R.", "not a list of pairs"),
    "bytes": (g("builtins.bytes") + nums(1 << 40) + b"R.", "bytes with 1 arguments"),
    "complex": (g("builtins.complex") + tup(text("1"), text("2")) + b"R.", "not two floats"),
    "dtype as value": (b"]" + g("torch.FloatStorage") + b"a.",
        "holds torch.FloatStorage where a value is expected"),
    "function as value": (g("torch.Size") + b".", "holds torch.Size where a value is expected"),
    "parameter": (g("torch._utils._rebuild_parameter") + tup(b"N", b"\x88", b"N") + b"R.", "not a tensor"),
    "subclass": (g("torch._tensor._rebuild_from_type_v2") + tup(g("torch.Size"), g("torch.Tensor"),
                     b")", b"N")
                 + b"R.",
                 "a subclass that is not on the allow-list"),
    "object array": (g("numpy.dtype") + tup(text("O8"), b"\x89", b"\x88") + b"R.", "NumPy dtype 'O8'"),
    "dtype left over": (g("numpy.dtype") + tup(text("f8"), b"\x89", b"\x88") + b"R.",
        "holds a bare _numpydtype"),
    "matrix": (g("numpy.core.multiarray._reconstruct") + tup(g("builtins.list"), nums(0), text("b")) + b"R.",
               "NumPy array of a subclass"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_pickles(case, run):
    program, message = DAMAGED[case]
    with pytest.raises(CheckpointError, match=message):
        run(program)


def numpy_array(shape, code, data):
    dtype = g("numpy.dtype") + tup(text(code), b"\x89", b"\x88") + b"R"
    make = g("numpy.core.multiarray._reconstruct") + tup(g("numpy.ndarray"), nums(0), text("b")) + b"R"
    raw = b"B" + struct.pack("<I", len(data)) + data
    return make + tup(num(1), nums(*shape), dtype, b"\x89", raw) + b"b."


def test_numpy_arrays_are_checked(run):
    assert run(numpy_array((2,), "i4", struct.pack("<ii", 7, 8))).tolist() == [7, 8]
    for shape, data in (((3,), b"a" * 8), ((2**40, 2**40), b""), ((-1,), b"a" * 8), ((1,), b"a" * 5)):
        with pytest.raises(CheckpointError, match="holds a NumPy array"):
            run(numpy_array(shape, "i4", data))


TENSORS = {
    "offset": (tensor(6, (1,), (1,)), "needs 7 elements of a storage that has 6"),
    "size": (tensor(0, (7,), (1,)), "needs 7 elements of a storage that has 6"),
    "stride": (tensor(0, (2, 2), (5, 1)), "needs 7 elements"),
    "negative offset": (tensor(-1, (1,), (1,)), "impossible layout: offset -1"),
    "negative stride": (tensor(5, (2,), (-1,)), "impossible layout"),
    "negative size": (tensor(0, (-2,), (1,)), "impossible layout"),
    "lengths": (tensor(0, (2,), (1, 1)), "impossible layout"),
    "dimensions": (tensor(0, (1,) * 65, (1,) * 65), "impossible layout"),
    "huge size": (tensor(0, (2**62,), (1,)), "impossible layout"),
    "overflowing product": (tensor(0, (2**59, 2**59), (2**59, 1)), "needs 332306998946228968"),
    "expanded": (tensor(0, (2**40,), (0,)), "expanded too far"),
    "empty at a far offset": (tensor(7, (0,), (1,)), "needs 7 elements"),
    "storage shorter than claimed": (tensor(0, (6,), (1,), count=7), "should hold 28 bytes and holds 24"),
    "storage of another type": (
        tensor(0, (4,), (1,), count=4, kind="torch.DoubleStorage"),
        "should hold 32 bytes",
    ),
    "negative storage": (tensor(0, (1,), (1,), count=-1), "storage of -1 elements"),
    "huge storage": (tensor(0, (1,), (1,), count=2**62), "storage of 4611686018427387904 elements"),
    "missing storage": (tensor(0, (1,), (1,), key="1"), "has no entry 'x/data/1'"),
    "path traversal": (tensor(0, (1,), (1,), key="../../etc/passwd"), "the key '../../etc/passwd'"),
    "key of the pickle": (tensor(0, (1,), (1,), key="../data.pkl"), "the key '../data.pkl'"),
    "untyped storage": (
        tensor(0, (1,), (1,), kind="torch.storage.UntypedStorage"),
        "without a storage or a dtype",
    ),
    "storage type": (tensor(0, (1,), (1,), kind="torch.Size"), "a storage is of a type that is none"),
    "storage as value": (storage(6), "holds a bare _storage"),
    "persistent id": (b"NQ", "a persistent id is not that of a storage"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_hostile_tensors(case, run):
    program, message = TENSORS[case]
    with pytest.raises(CheckpointError, match=message):
        run(program + b".", DATA)


def test_a_storage_of_the_other_byte_order_used_in_two_widths(run):
    two = tup(tensor(0, (6,), (1,)), tensor(0, (3,), (1,), count=3, kind="torch.DoubleStorage")) + b"."
    assert len(run(two, DATA)) == 2
    with pytest.raises(CheckpointError, match="used as elements of 4 and 8 bytes"):
        run(two, {**DATA, "x/byteorder": b"big"})
    with pytest.raises(CheckpointError, match="has byteorder b'middle'"):
        run(two, {**DATA, "x/byteorder": b"middle"})


def test_cycles_and_depth(run):
    assert run(b"]" * 150 + b"a" * 149 + b".")
    for program, message in [
        (b"]q\x00h\x00a.", "holds a list that contains itself"),
        (b"}q\x00K\x01h\x00s.", "holds a dict that contains itself"),
        (b"]q\x00}K\x01h\x00sa.", "holds a list that contains itself"),
        (b"]q\x00(h\x00ta.", "holds a list that contains itself"),
        (b"]" * 300 + b"a" * 299 + b".", "nested deeper than 200 levels"),
        (b")" + b"\x85" * 100_000 + b".", "nested deeper than 200 levels"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            run(program)
    shared = run(b"]q\x00(h\x00h\x00t.".replace(b"]q\x00(", b"(]q\x00"))
    assert shared[0] is shared[1] is shared[2]


def test_a_memo_bomb_is_neither_expanded_nor_hashed(run):
    """Sixty levels of pairs of the same object: 2**60 leaves for whoever walks the tree."""
    program = b"K\x01q\x00" + b"0h\x00h\x00\x86q\x00" * 60
    start = time.perf_counter()
    result = run(program + b".")
    assert result[0] is result[1]
    with pytest.raises(CheckpointError, match="dict key"):
        run(program + b"0}h\x00Ns.")
    assert time.perf_counter() - start < 5


def test_calls_that_copy_a_long_string_again_and_again(run):
    call = g("_codecs.encode") + b"h\x00h\x01\x86R0"
    program = text("a" * 50_000) + b"q\x000" + text("latin1") + b"q\x010" + call * 1000 + b"N."
    with pytest.raises(CheckpointError, match="makes too much"):
        run(program)
    grow = g("builtins.set") + b"h\x00\x85R0"
    items = b"](" + b"".join(num(n) for n in range(3_000)) + b"eq\x000"
    with pytest.raises(CheckpointError, match="makes too much"):
        run(items + grow * 1000 + b"N.")


def test_too_many_objects(run, monkeypatch):
    monkeypatch.setattr(pickle_machine, "_MAX_NEW", 1000)
    assert len(run(b"(" + b"]" * 900 + b"t.")) == 900
    with pytest.raises(CheckpointError, match="makes too much: 1001 objects"):
        run(b"(" + b"]" * 1100 + b"t.")


def test_zip_tricks(run, monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match="two entries named 'x/data/0'"):
        run(b"N.", {"x/data/0": b"a", "x/data/0#2": b"b"})
    with pytest.raises(CheckpointError, match="has 2 data.pkl, not one"):
        run(b"N.", {"y/data.pkl": b"N."})
    with pytest.raises(CheckpointError, match="has 0 data.pkl, not one"):
        run(b"N.", prefix="x/y/")
    with pytest.raises(CheckpointError, match="method other than deflate"):
        run(b"N.", compression=zipfile.ZIP_BZIP2)
    with pytest.raises(CheckpointError, match="zip bomb"):
        run(b"N.", {"x/data/0": bytes(80 << 20)}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch_pt, "_MAX_PICKLE", 100)
    with pytest.raises(CheckpointError, match="'x/data.pkl' of 104 bytes, more than the 100 allowed"):
        run(b"N0" * 51 + b"N.")


def change_sizes(data, name, file_size):
    """Rewrites an entry's size in both of the zip's headers."""
    data = bytearray(data)
    for signature, at_size, at_name in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        at = 0
        while (at := data.find(signature, at)) >= 0:
            if data[at + at_name :].startswith(name.encode()):
                data[at + at_size : at + at_size + 4] = struct.pack("<I", file_size)
            at += 4
    return bytes(data)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("claim", [12, 36, 2**31])
def test_an_entry_that_lies_about_its_size(claim, compression, tmp_path):
    data = archive(DATA, tensor(0, (claim // 4,), (1,), count=claim // 4) + b".", compression=compression)
    path = tmp_path / "lie.pt"
    path.write_bytes(change_sizes(data, "x/data/0", claim))
    with pytest.raises(CheckpointError):
        read(path)


def test_overlapping_entries(tmp_path):
    """Two names for one run of bytes, each claiming all of it."""
    data = bytearray(archive({"x/data/0": bytes(5000), "x/data/1": b""}, b"N."))
    central = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1) + 1)
    data[central + 20 : central + 28] = struct.pack("<II", 5000, 5000)
    path = tmp_path / "overlap.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="they overlap, or the file is damaged"):
        read(path)


def test_a_storage_with_a_wrong_checksum(tmp_path):
    data = archive(DATA, tensor(0, (6,), (1,)) + b".")
    at = data.index(DATA["x/data/0"])
    path = tmp_path / "crc.pt"
    path.write_bytes(data[:at] + b"\x01" + data[at + 1 :])
    with pytest.raises(CheckpointError, match="truncated or damaged: Bad CRC-32"):
        read(path)


def test_an_encrypted_entry(tmp_path):
    data = bytearray(archive(DATA, b"N."))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(signature) + at] |= 1
    path = tmp_path / "secret.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="encrypted entry 'x/data/0'"):
        read(path)


def test_random_programs_give_a_value_or_our_error(run):
    """Mutated pickles of real checkpoints."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(GOLDEN / "torch_training.pt") as zf:
        program = zf.read(next(n for n in zf.namelist() if n.endswith("data.pkl")))
    boundaries = [pos for _, _, pos in pickletools.genops(program)]
    refused = 0
    for _ in range(400):
        mutant = bytearray(program)
        for _ in range(rng.integers(1, 4)):
            mutant[rng.choice(boundaries) if rng.random() < 0.5 else rng.integers(len(mutant))] = (
                rng.integers(256)
            )
        try:
            run(bytes(mutant), {f"x/data/{k}": bytes(64) for k in range(9)})
        except CheckpointError:
            refused += 1
    assert 200 < refused < 400


# -- against torch itself --


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: the golden files stand for it")


@pytest.mark.parity
def test_the_golden_files_are_what_this_torch_reads(torch):
    for name in ("state_dict", "views", "dtypes"):
        expected = torch.load(GOLDEN / f"torch_{name}.pt", weights_only=True)
        got = golden(name)
        assert list(got) == list(expected)
        for key, t in expected.items():
            assert got[key].shape == tuple(t.shape)
            assert got[key].tolist() == t.tolist()
            if t.numel():
                assert [s // got[key].itemsize for s in got[key].strides] == list(t.stride())


@pytest.mark.parity
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_this_torch_saves(protocol, torch, tmp_path):
    model = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 1, 3))[0].sum().backward()
    optimizer.step()
    path = tmp_path / "now.pt"
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path, pickle_protocol=protocol
    )
    got = read(path)
    for name, value in model.state_dict().items():
        assert got["model"][name].tobytes() == value.numpy().tobytes()
    for k, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert got["optimizer"]["state"][k][name].tobytes() == value.numpy().tobytes()


@pytest.mark.parity
def test_what_torch_saves_that_is_refused(torch, tmp_path):
    path = tmp_path / "no.pt"
    for obj, name in [
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (torch.empty(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        (torch.Generator, "torch._C.Generator"),
    ]:
        torch.save(obj, path)
        with pytest.raises(CheckpointError, match=f"asks for `{name}`, which is not on the allow-list"):
            read(path)
    torch.save(torch.ones(2, dtype=torch.complex64).conj(), path)
    with pytest.raises(CheckpointError, match="conjugate or negative bit set"):
        read(path)
    torch.save(torch.ones(2).untyped_storage(), path)
    with pytest.raises(CheckpointError, match="holds a bare _storage"):
        read(path)
