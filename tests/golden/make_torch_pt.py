"""Writes the PyTorch checkpoints that tests/test_torch_pt.py reads: `python tests/golden/make_torch_pt.py`.

It needs torch. Values are simple formulas, so that the tests know them without it.
"""

import argparse
import io
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16",
    "bfloat16",
          "float32", "float64", "complex64", "complex128"]  # fmt: skip


def rewrite(name, source, change, compression=zipfile.ZIP_STORED):
    """A copy of a checkpoint with `change` applied to each entry's bytes."""
    with zipfile.ZipFile(HERE / source) as old, zipfile.ZipFile(HERE / name, "w", compression) as new:
        for entry in old.namelist():
            new.writestr(zipfile.ZipInfo(entry), change(entry, old.read(entry)), compression)


def state_dict():
    """A module's state_dict, with _metadata and a tied weight."""
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(3, 2, bias=False)
    )
    model[2].weight = model[0].weight
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(torch.arange(p.numel()).reshape(p.shape) + 10 * k)
    return model.state_dict()


def training():
    """What training scripts put beside the model."""
    weight = torch.nn.Parameter(torch.arange(4.0))
    optimizer = torch.optim.Adam([weight], lr=0.5)
    weight.grad = torch.ones(4)
    optimizer.step()
    marked = torch.nn.Parameter(torch.arange(2.0))
    marked.sharded = True
    tagged = torch.arange(3)
    tagged.tag = "x"
    return {
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "args": argparse.Namespace(lr=0.5, name="run"), "groups": defaultdict(list, {"a": [1]}),
        "set": {1, 2},
        "frozen": frozenset(["f"]), "bytes": b"\x00\xffab", "no_bytes": b"", "complex": 1 - 2j,
        "big": -(2**80),
        "size": torch.Size([2, 3]), "dtype": torch.bfloat16, "device": torch.device("cuda", 1),
        "cpu": torch.device("cpu"), "loss": np.float32(0.5), "flag": np.bool_(True), "count": np.int64(-7),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3), "fortran": np.asfortranarray(np.eye(2, 3)),
        "swapped": np.arange(3, dtype=">i4"), "no_array": np.zeros((0, 2)),
        "tuple": (None, True, False, 1.5, "é"),
        "parameter": weight.detach().clone().requires_grad_(), "with_state": marked, "tagged": tagged,
        "buffer": torch.nn.Buffer(torch.ones(1)), "keys": {1: "a", None: "b", (1, "x"): "c", 2.5: "d"},
        "empty": [OrderedDict(), {}, [], (), set()],
    }  # fmt: skip


def views():
    """Tensors that look at one storage in different ways."""
    base = torch.arange(24.0)
    square = base.reshape(4, 6)
    return {
        "base": base, "offset": base[3:9], "transposed": square.t(), "step": square[1::2, ::3],
        "expanded": base[5].expand(3, 2), "scalar": base[7], "none": base[24:], "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(base[:2]), "other": torch.arange(24.0),
    }  # fmt: skip


def dtypes():
    return {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in DTYPES}


def legacy():
    file = io.BytesIO()
    torch.save({"w": torch.ones(1)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def to_big_endian(entry, data):
    if entry.endswith("/byteorder"):
        return b"big"
    if "/data/" not in entry:
        return data
    width = WIDTHS[int(entry.rpartition("/")[2])]
    return np.frombuffer(data, f"u{width}").byteswap().tobytes()


WIDTHS = [
    torch.empty(0, dtype=getattr(torch, n)).element_size() // (1 + n.startswith("complex")) for n in DTYPES
]

if __name__ == "__main__":
    torch.save(state_dict(), HERE / "torch_state_dict.pt")
    torch.save(training(), HERE / "torch_training.pt")
    torch.save(views(), HERE / "torch_views.pt")
    torch.save(dtypes(), HERE / "torch_dtypes.pt")
    torch.save(views(), HERE / "torch_protocol4.pt", pickle_protocol=4)
    torch.save(torch.eye(2).to_sparse(), HERE / "torch_sparse.pt")
    rewrite("torch_big_endian.pt", "torch_dtypes.pt", to_big_endian)
    rewrite("torch_deflated.pt", "torch_training.pt", lambda _, data: data, zipfile.ZIP_DEFLATED)
    (HERE / "torch_legacy.pt").write_bytes(legacy())
