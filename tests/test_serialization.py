"""Checkpoints in safetensors files: what goes in comes back, and a bad file or a full disk loses nothing."""

import errno
import json
import math
import os
import stat
import struct
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import cuframe as cf
from cuframe.serialization import CheckpointError, load, read_metadata, save
from cuframe.serialization import files as files_module

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16",
    "float32", "float64", "complex64",
]  # fmt: skip


def dt(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def same(a, b):
    """Equal in type, dtype, shape and bits, all the way down."""
    if isinstance(b, np.ndarray):
        return (
            type(a) is np.ndarray and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        )
    if isinstance(b, dict):
        return type(a) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(b, float):
        # Text has one NaN: its sign and payload are not kept.
        return type(a) is float and (struct.pack("d", a) == struct.pack("d", b) or (a != a and b != b))
    return type(a) is type(b) and a == b


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def run_python(code, *args):
    """What a fresh interpreter that sees the same packages prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def trip(obj, path):
    save(obj, path)
    return load(path)


# -- round trips --


def test_a_training_checkpoint(path):
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    checkpoint = {
        "model": {"lstm.weight": w, "bias": np.zeros(3)},
        "optimizer": {"state": {0: {"step": 5, "m": w * 2}, 1: {"step": 5, "m": w[0]}},
            "betas": (0.9, 0.999)},
        "epoch": 3, "best": math.inf, "last": None, "done": False, "name": "é\n\x00\ud800",
        "raw": b"\x00\xff",
        "history": [1.5, -0.0, math.nan, [], (), {}], "big": -(2**200), ("a", 1, None): "tuple key",
        None: 0, 1.5: 1, False: 2, math.inf: 3,
    }  # fmt: skip
    assert same(trip(checkpoint, path), checkpoint)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (3, 5)])
def test_dtypes_and_shapes(name, shape, path):
    a = np.random.default_rng(0).integers(0, 2, shape).astype(dt(name))
    back = trip({"x": a}, path)["x"]
    assert same(back, a) and back.flags.writeable and back.flags.c_contiguous


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_special_values_keep_their_bits(name, path):
    width = dt(name).itemsize
    bits = np.array([0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, 2 ** (8 * width - 1) - 1], f"u{width}")
    assert same(trip([bits.view(dt(name))], path), [bits.view(dt(name))])


def test_arrays_that_are_not_contiguous_or_native(path):
    a = np.arange(24.0).reshape(2, 3, 4)
    views = {
        "t": a.T,
        "step": a[:, ::-2],
        "broadcast": np.broadcast_to(a[0, 0], (5, 4)),
        "f": np.asfortranarray(a),
    }
    back = trip({**views, "big": a.astype(">f8"), "big16": a.astype(">i2")}, path)
    for name, view in views.items():
        assert same(back[name], np.ascontiguousarray(view))
    assert same(back["big"], a) and same(back["big16"], a.astype("i2"))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda node: (
        st.lists(node, max_size=4)
        | st.lists(node, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.booleans() | st.none(), node, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=40, deadline=None)
@given(obj=plain)
def test_any_plain_tree(obj, tmp_path_factory):
    assert same(trip(obj, tmp_path_factory.mktemp("tree") / "c"), obj)


@pytest.mark.parametrize("obj", [None, 3, "text", [], {}, (1,), np.arange(3), np.float32(0.5)])
def test_the_root_may_be_anything(obj, path):
    expected = obj.item() if isinstance(obj, np.generic) else obj
    assert same(trip(obj, path), expected)


def test_numpy_scalars_become_python_numbers(path):
    scalars = [
        np.float32(0.1),
        np.float64(0.1),
        np.int64(-3),
        np.uint64(2**64 - 1),
        np.bool_(True),
        dt("bfloat16").type(1.5),
    ]
    assert same(trip(scalars, path), [float(np.float32(0.1)), 0.1, -3, 2**64 - 1, True, 1.5])
    assert same(trip({np.int32(3): np.float32("nan")}, path), {3: math.nan})
    assert same(trip([np.str_("a"), np.bytes_(b"b")], path), ["a", b"b"])


def test_subclasses_come_back_as_their_base(path):
    from collections import OrderedDict, defaultdict, namedtuple

    point = namedtuple("point", "x y")
    obj = [OrderedDict(b=1, a=2), defaultdict(list, {3: [4]}), point(1, 2)]
    assert same(trip(obj, path), [{"b": 1, "a": 2}, {3: [4]}, (1, 2)])


def test_arrays_on_the_same_memory_are_stored_once_and_shared_again(path):
    w = np.arange(1000.0)
    back = trip({"encoder": w, "decoder": w, "view": w[:], "half": w[:500], "equal": w.copy()}, path)
    assert back["encoder"] is back["decoder"] is back["view"]
    assert back["half"] is not back["encoder"] and back["equal"] is not back["encoder"]
    assert set(safetensors.numpy.load_file(path)) == {"encoder", "half", "equal"}
    assert path.stat().st_size < 8000 + 4000 + 8000 + 1000
    a, b = np.zeros(0), np.zeros(0)
    back = trip([a, b, a], path)
    assert back[0] is back[2] and back[0] is not back[1]
    c = np.arange(6)
    back = trip([c.reshape(2, 3), c.reshape(3, 2), c.view(np.uint64)], path)
    assert [x.shape for x in back] == [(2, 3), (3, 2), (6,)] and back[2].dtype == np.uint64


def test_tensors_come_back_as_tensors(path):
    t = cf.from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))
    back = trip({"t": t, "same": t, "array": t.numpy(), 0: [t]}, path)
    assert isinstance(back["t"], cf.Tensor) and type(back["array"]) is np.ndarray
    assert back["t"] is back["same"] is back[0][0]
    assert back["t"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(back["t"].numpy(), back["array"])
    assert load(path, device="cpu")["t"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_parameter_that_requires_grad_is_saved(path):
    p = cf.Parameter(cf.from_numpy(np.ones(2, np.float32)))
    back = trip({"p": p}, path)["p"]
    assert isinstance(back, cf.Tensor) and not back.requires_grad and back.numpy().tolist() == [1, 1]


# -- the file as others see it --


def test_a_flat_dict_is_a_plain_safetensors_file(path):
    arrays = {
        "a.b.c": np.arange(3),
        "": np.ones(2, np.float32),
        "ü": np.array(3.0),
        "bf": np.ones(2, dt("bfloat16")),
    }
    save(arrays, path, metadata={"format": "np"})
    other = safetensors.numpy.load_file(path)
    assert set(other) == {"a.b.c", "tensor", "ü", "bf"} and other["bf"].dtype == dt("bfloat16")
    for name in ("a.b.c", "ü", "bf"):
        assert same(other[name], arrays[name])
    assert same(load(path), arrays)
    assert read_metadata(path) == {"format": "np"}


def test_names_of_nested_arrays_are_their_paths(path):
    a = [np.full(1, i) for i in range(6)]
    tree = {"m": {"w": a[0], "x.y": a[1], "x": {"y": a[2]}}, "m.w": a[3], "__metadata__": a[4], 0: [a[5]]}
    assert same(trip(tree, path), tree)
    assert {k: int(v[0]) for k, v in safetensors.numpy.load_file(path).items()} == {
        "m.w": 0, "m.x.y": 1, "m.x.y~2": 2, "m.w~2": 3, "__metadata__~2": 4, "0.0": 5}  # fmt: skip


def test_a_file_from_elsewhere_is_a_flat_dict_of_tensors(path):
    arrays = {"layer.weight": np.arange(6.0).reshape(2, 3), "n": np.array(2, np.int8)}
    safetensors.numpy.save_file(arrays, path, metadata={"who": "else"})
    back = load(path)
    assert set(back) == set(arrays) and all(isinstance(t, cf.Tensor) for t in back.values())
    assert all(same(back[k].numpy(), arrays[k]) for k in arrays)
    assert read_metadata(path) == {"who": "else"}


def test_the_same_tree_gives_the_same_bytes(path, tmp_path):
    tree = {"x": np.arange(3), "m": {"a": 1.5}}
    save(tree, path, metadata={"b": "1", "a": "2", "c": "3"})
    save(tree, tmp_path / "again", metadata={"c": "3", "a": "2", "b": "1"})
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_tensors_are_aligned_to_their_elements(path):
    save({"a": np.ones(3, bool), "b": np.ones(3, np.float64), "c": np.ones(3, np.int16)}, path)
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    assert n % 8 == 0
    for name, width in (("a", 1), ("b", 8), ("c", 2)):
        assert header[name]["data_offsets"][0] % width == 0


def test_metadata_is_text(path):
    with pytest.raises(TypeError, match="metadata must map str to str, got 'epoch': int"):
        save({}, path, metadata={"epoch": 3})
    with pytest.raises(ValueError, match="must not start with 'cuframe.'"):
        save({}, path, metadata={"cuframe.tree": "{}"})
    assert not path.exists()


# -- what cannot be saved --


class Thing:
    pass


def cyclic_list():
    a = [1]
    a.append({"b": a})
    return {"top": a}


def deep(n):
    a = []
    for _ in range(n):
        a = [a]
    return a


@pytest.mark.parametrize(
    "obj, message",
    [
        (
            {"model": {"w": [1, Thing()]}},
            r"\['model'\]\['w'\]\[1\] is of type .*Thing; a checkpoint holds Tensors",
        ),
        (Thing(), "save: the object is of type .*Thing"),
        ({"s": {1, 2}}, r"\['s'\] is of type set"),
        ({"f": len}, r"\['f'\] is of type builtin_function_or_method"),
        ({"c": 1j}, r"\['c'\] is of type complex"),
        ({b"k": 1}, "the object has a key of type bytes; keys are str"),
        ({"a": {(1, b""): 1}}, r"\['a'\] has a key of type bytes"),
        ({"a": np.array([None])}, r"\['a'\] has dtype object, which safetensors does not hold"),
        ({"a": np.array(["x"])}, r"\['a'\] has dtype <U1"),
        ({"a": np.ones(2, np.complex128)}, "has dtype complex128"),
        ({"a": np.ma.masked_array([1])}, "is of type numpy.*MaskedArray"),
        ({"a": np.complex64(1)}, "is a NumPy scalar of dtype complex64"),
        ({"a": np.datetime64("2020")}, "is a NumPy scalar of dtype datetime64"),
        ({"a": 1 << 10_001}, "is an int of 10002 bits"),
        (cyclic_list(), r"\['top'\]\[1\]\['b'\] is a list that contains itself"),
        (deep(101), "is nested deeper than 100 levels"),
        (
            {"a": {((((((((((((),),),),),),),),),),),): 1}},
            r"\['a'\] has a key of tuples nested deeper than 10",
        ),
    ],
)
def test_what_a_checkpoint_does_not_hold(obj, message, path):
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match=message):
        save(obj, path)
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


def test_depth_at_the_limit(path):
    assert same(trip(deep(99), path), deep(99))
    key = ((((((((((1,),),),),),),),),),)
    assert same(trip({key: 2}, path), {key: 2})


def test_a_container_used_twice_is_no_cycle(path):
    shared = [1]
    assert same(trip({"a": shared, "b": [shared, shared]}, path), {"a": [1], "b": [[1], [1]]})


def test_path_types(path):
    with pytest.raises(TypeError, match="save: path must be a str or os.PathLike, got BytesIO"):
        import io

        save({}, io.BytesIO())
    with pytest.raises(TypeError, match="load: path must be a str or os.PathLike, got int"):
        load(3)
    save({"a": 1}, str(path))
    assert load(str(path)) == {"a": 1}


# -- failures while writing --


class FullDisk:
    """A file on a disk that has room for `room` bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if len(data) > self.room:
            self.file.write(bytes(data[: self.room]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        return self.file.write(data)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 4, 100, 5000])
def test_a_full_disk_leaves_the_old_checkpoint(room, path, monkeypatch):
    save({"old": np.arange(10)}, path)
    before = path.read_bytes()
    fdopen = os.fdopen
    monkeypatch.setattr(files_module.os, "fdopen", lambda *a: FullDisk(fdopen(*a), room))
    with pytest.raises(OSError, match="save: cannot write, nothing was changed: No space left") as error:
        save({"new": np.arange(1000)}, path)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failing_sync_or_rename_or_an_interrupt_leaves_the_old_checkpoint(
    function, error, path, monkeypatch
):
    save({"old": 1}, path)

    def fail(*_):
        raise error

    monkeypatch.setattr(files_module.os, function, fail)
    with pytest.raises(type(error)):
        save({"new": 2}, path)
    monkeypatch.undo()
    assert load(path) == {"old": 1} and os.listdir(path.parent) == [path.name]


def test_a_file_size_limit_of_the_system(path):
    """The operating system itself refuses the write, in a process of its own."""
    save({"old": 1}, path)
    code = (
        "import resource, sys, numpy as np\n"
        "from cuframe.serialization import save\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    save({'new': np.zeros(1_000_000)}, sys.argv[1])\n"
        "except OSError as e:\n    print(e)\n"
    )
    assert "save: cannot write, nothing was changed: File too large" in run_python(code, path)
    assert load(path) == {"old": 1} and os.listdir(path.parent) == [path.name]


def test_the_file_is_synced_before_it_is_renamed_and_the_folder_after(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(fd):
        calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def log_replace(a, b):
        calls.append("rename")
        replace(a, b)

    monkeypatch.setattr(files_module.os, "fsync", log_fsync)
    monkeypatch.setattr(files_module.os, "replace", log_replace)
    save({"a": np.ones(3)}, path)
    assert calls == ["file", "rename", "folder"]


def test_folders_and_special_files(tmp_path):
    with pytest.raises(IsADirectoryError, match="save: the path is a folder"):
        save({}, tmp_path)
    with pytest.raises(FileNotFoundError, match="save: cannot write, nothing was changed: No such file"):
        save({}, tmp_path / "none" / "a")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="save: the path is not a regular file"):
        save({}, tmp_path / "fifo")
    with pytest.raises(IsADirectoryError, match="load: cannot open"):
        load(tmp_path)
    long = tmp_path / ("n" * 250)
    assert trip({"a": 1}, long) == {"a": 1}


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(umask, mode, path):
    old = os.umask(umask)
    try:
        save({}, path)
        save({}, path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "real", tmp_path / "latest"
    link.symlink_to("far/real")
    for value in (1, 2):  # the first time the link dangles
        save({"a": value}, link)
        assert link.is_symlink() and load(target) == {"a": value} and load(link) == {"a": value}
    assert os.listdir(tmp_path / "far") == ["real"]


def test_a_reader_sees_the_old_or_the_new_file_never_a_part(path):
    save({"v": 0, "x": np.zeros(20_000)}, path)
    stop, bad = threading.Event(), []

    def read():
        while not stop.is_set():
            got = load(path)
            if (got["x"] != got["v"]).any():
                bad.append(got["v"])

    thread = threading.Thread(target=read)
    thread.start()
    for v in range(1, 30):
        save({"v": v, "x": np.full(20_000, float(v))}, path)
    stop.set()
    thread.join()
    assert not bad


# -- bad files --


def entry(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def write_raw(path, header, data=b"\0" * 16, length=None):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + data)


BAD = {
    "empty": (b"", "0 bytes long, too short"),
    "short": (b"\x01\x00", "2 bytes long, too short"),
    "text": (
        b"hello world, this is no checkpoint",
        "truncated or not a safetensors file: it begins with a header",
    ),
    "zip": (b"PK\x03\x04" + b"\0" * 40, "is a zip archive, as torch.save writes; cf.load_torch reads those"),
    "pickle": (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.", "is a pickle, not a safetensors file"),
}
BAD_HEADERS = {
    "header longer than the file": (({}, b"", 1000), "header length of 1000, 2 bytes follow"),
    "header of 2**63": (({}, b"", 2**63), "header length of 9223372036854775808"),
    "not json": ((b'{"a"', b""), "damaged"),
    "not utf-8": ((b"\xff\xfe", b""), "damaged"),
    "deep": ((b"[" * 100_000, b""), "damaged"),
    "a list": (([], b""), "damaged"),
    "overlap": (({"a": entry(), "b": entry(offsets=(8, 24))}, b"\0" * 24), "damaged.*invalid offset"),
    "hole": (({"a": entry(), "b": entry(offsets=(20, 36))}, b"\0" * 36), "damaged.*invalid offset"),
    "truncated data": (({"a": entry()}, b"\0" * 10), "damaged.*not fully covered"),
    "data after the end": (({"a": entry()}, b"\0" * 17), "damaged.*not fully covered"),
    "negative shape": (({"a": entry(shape=(-4,))},), "damaged"),
    "wrong shape": (({"a": entry(shape=(5,))},), "damaged"),
    "overflowing shape": (({"a": entry(shape=(2**40, 2**40))},), "damaged.*overflow"),
    "unknown dtype": (({"a": entry(dtype="F99")},), "damaged.*F99"),
    "float8": (
        ({"a": entry(dtype="F8_E4M3", shape=(16,))},),
        "tensor 'a' has dtype F8_E4M3, which cuframe does not",
    ),
    "bool": (
        ({"a": entry(dtype="BOOL", shape=(16,))}, b"\x01" * 15 + b"\x02"),
        "bool and holds bytes other than",
    ),
    "metadata not text": (({"__metadata__": {"a": 1}}, b""), "damaged"),
}


@pytest.mark.parametrize("case", [*BAD, *BAD_HEADERS])
def test_bad_files(case, path):
    if case in BAD:
        data, message = BAD[case]
        path.write_bytes(data)
    else:
        args, message = BAD_HEADERS[case]
        write_raw(path, *args)
    with pytest.raises(CheckpointError, match=message) as error:
        load(path)
    assert str(path) in str(error.value) and isinstance(error.value, ValueError)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=f"load: cannot open: No such file or directory: '{path}'"):
        load(path)
    with pytest.raises(FileNotFoundError, match="checkpoint.safetensors"):
        read_metadata(path)


def test_a_file_cut_anywhere_is_refused(path):
    save({"a": np.arange(5), "b": [1, 2, {"c": np.ones(3)}]}, path)
    data = path.read_bytes()
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(CheckpointError):
            load(path)


def test_a_damaged_byte_is_refused_or_gives_other_values_but_never_another_error(path):
    save({"a": np.arange(3, dtype=np.int16), "b": (1, {"c": True, 2: b"x"})}, path)
    data = bytearray(path.read_bytes())
    refused = 0
    for n in range(len(data) - 6):
        for flip in (0x01, 0x20, 0x80):
            data[n] ^= flip
            path.write_bytes(data)
            try:
                load(path)
            except CheckpointError:
                refused += 1
            data[n] ^= flip
    assert refused > len(data)


@pytest.mark.parametrize(
    "tree, message",
    [
        ('{"array":"nope"}', "names a tensor 'nope' that the file does not have"),
        ('{"tensor":"nope"}', "names a tensor 'nope'"),
        ('{"array":["a"]}', "a node that is none of ours"),
        ('{"__class__":"os.system"}', "a node that is none of ours: {'__class__'"),
        ("{}", "a node that is none of ours: {}"),
        ('{"dict":{},"tuple":[]}', "a node that is none of ours"),
        ('{"items":[[1]]}', "a node that is none of ours"),
        ('{"items":[[[1],2]]}', "a dict key that is none of ours"),
        ('{"items":[[{"array":"a"},2]]}', "a dict key that is none of ours"),
        ('{"float":"1e5"}', "a node that is none of ours"),
        ('{"bytes":"?"}', "bytes that are not base64"),
        ("[" * 100_000, "not usable JSON"),
        ('{"no":' * 900 + "1" + "}" * 900, "a node that is none of ours: {'no': {'no'"),
        ("[" * 150 + "]" * 150, "nested deeper than 100 levels"),
        ("9" * 5000, "not usable JSON"),
        ('{"items":[[' + '{"tuple":[' * 40 + "]}" * 40 + ",1]]}", "a dict key that is none of ours"),
        ("[1", "not usable JSON"),
    ],
)
def test_hostile_trees(tree, message, path):
    write_raw(path, {"__metadata__": {"cuframe.format": "1", "cuframe.tree": tree}, "a": entry()})
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_newer_format_is_refused(path):
    write_raw(path, {"__metadata__": {"cuframe.format": "2", "cuframe.tree": "1"}}, b"")
    with pytest.raises(CheckpointError, match="format '2' is not one this version reads"):
        load(path)


def test_loading_holds_one_copy(path):
    """The peak memory of a process that loads 96 MiB rises by less than two copies of it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read from /proc, which only Linux has")
    save([np.zeros(4 << 20, np.float64) for _ in range(3)], path)
    code = (
        "import re, sys\n"
        "from cuframe.serialization import load\n"
        "def peak():\n"
        "    return int(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "load(sys.argv[1])\n"
        "print(peak() - before)\n"
    )
    assert 90 < int(run_python(code, path)) / 1024 < 140
