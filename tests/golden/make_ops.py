"""Write ops.npz and modules.npz: what PyTorch 2.13 gives for a few of its own sample inputs, and their gradients.

    python tests/golden/make_ops.py

`tests/test_golden.py` replays them where PyTorch is not installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.parity import test_module_db, test_op_db  # noqa: E402
from tests.parity.bridge import Unsupported, flat, host, quietly, to_cuframe  # noqa: E402
from tests.parity.exclusions import ADAPTED, RANDOM, excluded_module_sample, excluded_sample  # noqa: E402

LARGEST = 64  # elements of all tensors of a call


class Store:
    """Cases as JSON, with the arrays beside it."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.cases: list[dict] = []

    def array(self, value: np.ndarray) -> int:
        self.arrays[f"a{len(self.arrays)}"] = value
        return len(self.arrays) - 1

    def encode(self, value: Any) -> Any:
        """JSON for a value; tensors and other objects become one-entry dicts."""
        if isinstance(value, torch.Tensor):
            to_cuframe(value)  # refuses what cuframe has not
            return {"tensor": self.array(host(value)), "grad": value.requires_grad}
        if isinstance(value, torch.dtype):
            return {"dtype": to_cuframe(value).name}
        if isinstance(value, slice):
            return {"slice": [self.encode(v) for v in (value.start, value.stop, value.step)]}
        if value is Ellipsis:
            return {"ellipsis": 1}
        if isinstance(value, dict):
            return {"dict": {k: self.encode(v) for k, v in value.items()}}
        if isinstance(value, tuple):
            return {"tuple": [self.encode(v) for v in value]}
        if isinstance(value, list):
            return [self.encode(v) for v in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise Unsupported(f"{type(value).__name__} arguments")

    def save(self, name: str) -> None:
        cases = np.frombuffer(json.dumps(self.cases).encode(), np.uint8)
        np.savez_compressed(HERE / name, cases=cases, **self.arrays)
        print(f"{name}: {len(self.cases)} cases, {(HERE / name).stat().st_size} bytes")


def size(value: Any) -> int:
    return sum(t.numel() for t in flat(value) if isinstance(t, torch.Tensor))


def results(outputs: Any, inputs: list[torch.Tensor], store: Store) -> dict:
    """Outputs, and the gradients of all differentiable ones weighted by a fixed random sequence."""
    found = [o for o in flat(outputs) if isinstance(o, torch.Tensor)]
    pairs = [o for o in found if o.requires_grad]
    rng = np.random.default_rng(0)
    weights = [torch.from_numpy(np.asarray(rng.uniform(0.5, 1.5, tuple(o.shape)))).to(o.dtype) for o in pairs]
    grads: tuple = ()
    if pairs and inputs:
        grads = quietly(torch.autograd.grad, pairs, inputs, weights, allow_unused=True)
    return {
        "outputs": [store.array(host(o)) for o in found],
        "grads": [None if g is None else store.array(host(g.to_dense())) for g in grads],
    }


def chosen(samples: list[Any], whole: Any) -> list[Any]:
    """The first small sample, and the small one with most arguments."""
    small = [s for s in samples if 2 <= size(whole(s)) <= LARGEST]
    rich = sorted(small, key=lambda s: -len(flat(whole(s))))
    return small[:1] + [s for s in rich[:1] if s is not small[0]]


def make_ops() -> None:
    store = Store()
    for op in test_op_db.PRESENT:
        name = test_op_db.full_name(op)
        if name in RANDOM or name in ADAPTED or op.name in ADAPTED or torch.float64 not in op.dtypes:
            continue
        if name == "bfloat16":
            continue  # no dtype of NumPy's file format
        samples = quietly(
            lambda op: list(op.sample_inputs("cpu", torch.float64, requires_grad=op.supports_autograd)), op
        )
        for sample in chosen(samples, lambda s: [s.input, *s.args, s.kwargs]):
            if excluded_sample(name, sample):
                continue
            kwargs = {k: v for k, v in sample.kwargs.items() if k != "device"}
            try:
                call = [store.encode(sample.input), *[store.encode(a) for a in sample.args]]
                case = {"name": op.name, "args": call, "kwargs": store.encode(kwargs)}
                outputs = quietly(op.op, sample.input, *sample.args, **sample.kwargs)
                to_cuframe(outputs)
            except Unsupported:
                continue
            inputs = [t for t in flat([sample.input, *sample.args, kwargs]) if isinstance(t, torch.Tensor)]
            inputs = list({id(t): t for t in inputs if t.requires_grad}.values())
            store.cases.append(case | results(outputs, inputs, store))
    store.save("ops.npz")


def make_modules() -> None:
    store = Store()
    for info in test_module_db.PRESENT:
        name = test_module_db.plain(info)
        if "Dropout" in name or name == "RReLU":
            continue
        samples = quietly(
            info.module_inputs_func,
            info,
            device="cpu",
            dtype=torch.float64,
            requires_grad=True,
            training=True,
        )
        for sample in chosen([s for s in samples if s.forward_input], lambda s: [s.forward_input.args]):
            made, called = sample.constructor_input, sample.forward_input
            if excluded_module_sample(name, made, called):
                continue
            torch.manual_seed(0)
            module = quietly(info.module_cls, *made.args, **made.kwargs).double()
            if sum(p.numel() for p in module.parameters()) > 8 * LARGEST:
                continue
            try:
                case = {
                    "name": name,
                    "made": [store.encode(made.args), store.encode(made.kwargs)],
                    "args": [store.encode(a) for a in called.args],
                    "kwargs": store.encode(called.kwargs),
                    "state": {k: store.array(host(v)) for k, v in module.state_dict().items()},
                }
            except Unsupported:
                continue
            outputs = quietly(module, *called.args, **called.kwargs)
            inputs = [t for t in flat([called.args, called.kwargs]) if isinstance(t, torch.Tensor)]
            inputs = [t for t in inputs if t.requires_grad] + list(module.parameters())
            store.cases.append(case | results(outputs, inputs, store))
    store.save("modules.npz")


if __name__ == "__main__":
    torch.manual_seed(0)
    make_ops()
    make_modules()
