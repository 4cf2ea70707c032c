"""weight_norm and spectral_norm against PyTorch's, by hooks and as parametrizations: values, gradients, state_dicts."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import cuframe as cf
from tests.parity.bridge import host

pytestmark = pytest.mark.parity

LAYERS: dict[str, tuple[str, tuple, str, tuple]] = {
    "Linear": ("Linear", (3, 4), "weight", (2, 3)),
    "Bilinear": ("Bilinear", (3, 2, 4), "weight", (2, 3)),
    "Conv2d": ("Conv2d", (3, 4, 2), "weight", (2, 3, 4, 3)),
    "ConvTranspose1d": ("ConvTranspose1d", (3, 4, 2), "weight", (2, 3, 3)),
    "LSTM": ("LSTM", (3, 4), "weight_hh_l0", (5, 2, 3)),
    "GRU": ("GRU", (3, 4), "weight_ih_l0", (5, 2, 3)),
    "Embedding": ("Embedding", (5, 3), "weight", (2, 2)),
}
FUNCTIONS = {
    "weight_norm": lambda lib, m, name, **kw: lib.nn.utils.weight_norm(m, name, **kw),
    "spectral_norm": lambda lib, m, name, **kw: lib.nn.utils.spectral_norm(m, name, **kw),
    "parametrizations.weight_norm": lambda lib, m, name, **kw: lib.nn.utils.parametrizations.weight_norm(m, name, **kw),
    "parametrizations.spectral_norm": lambda lib, m, name, **kw: lib.nn.utils.parametrizations.spectral_norm(
        m, name, **kw
    ),
}


def both(layer: str, function: str, **kwargs: Any) -> tuple[Any, Any]:
    kind, args, name, _ = LAYERS[layer]
    torch.manual_seed(0)
    modules = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's hook-style weight_norm is deprecated there
        for lib in (torch, cf):
            module = getattr(lib.nn, kind)(*args).double()
            modules.append(FUNCTIONS[function](lib, module, name, **kwargs))
    return modules[0], modules[1]


def state_of(module: Any) -> dict[str, np.ndarray]:
    return {key: host(value) for key, value in module.state_dict().items()}


def run(layer: str, theirs: Any, ours: Any) -> None:
    """Forward and backward in both; outputs, gradients and buffers must agree."""
    shape = LAYERS[layer][3]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, shape) if layer == "Embedding" else rng.standard_normal(shape)
    args = (x, x[:, :2].copy()) if layer == "Bilinear" else (x,)
    results = []
    for lib, module in ((torch, theirs), (cf, ours)):
        module.zero_grad()
        out = module(*(lib.tensor(a) for a in args))
        out = out[0] if isinstance(out, tuple) else out
        (out * out).sum().backward()
        results.append((out, {k: p.grad for k, p in module.named_parameters()}))
    np.testing.assert_allclose(host(results[1][0].detach()), host(results[0][0]), 1e-9, 1e-12)
    assert results[0][1].keys() == results[1][1].keys()
    for key, g in results[0][1].items():
        np.testing.assert_allclose(host(results[1][1][key]), host(g), 1e-7, 1e-10, err_msg=key)
    expected = state_of(theirs)
    for key, value in state_of(ours).items():
        np.testing.assert_allclose(value, expected[key], 1e-9, 1e-12, err_msg=key)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("layer", LAYERS)
def test_layer(layer: str, function: str) -> None:
    theirs, ours = both(layer, function)
    state = state_of(theirs)
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(theirs.state_dict())
    for key, value in state_of(ours).items():
        np.testing.assert_array_equal(value, state[key], err_msg=key)
    # PyTorch reads a recurrent weight several times a forward, and each reading is a step of the power method.
    if function != "parametrizations.spectral_norm" or layer not in ("LSTM", "GRU"):
        run(layer, theirs, ours)
        run(layer, theirs, ours)
    run(layer, theirs.eval(), ours.eval())
    # and back
    other, _ = both(layer, function)
    other.load_state_dict({k: torch.from_numpy(v) for k, v in state_of(ours).items()})
    run(layer, other.eval(), ours)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, None])
@pytest.mark.parametrize("function", ["weight_norm", "parametrizations.weight_norm"])
def test_dimensions_of_weight_norm(function: str, dim: int | None) -> None:
    theirs, ours = both("Bilinear", function, dim=dim)
    ours.load_state_dict(theirs.state_dict())
    run("Bilinear", theirs, ours)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("function", ["spectral_norm", "parametrizations.spectral_norm"])
def test_dimensions_of_spectral_norm(function: str, dim: int) -> None:
    theirs, ours = both("Bilinear", function, dim=dim, n_power_iterations=3, eps=1e-6)
    ours.load_state_dict(theirs.state_dict())
    run("Bilinear", theirs, ours)


@pytest.mark.parametrize("trivial", [True, False])
@pytest.mark.parametrize("name", ["matrix_exp", "cayley", "householder", None])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3), (1, 1)])
def test_orthogonal(shape: tuple, name: str | None, trivial: bool) -> None:
    torch.manual_seed(0)
    given = torch.randn(*shape, dtype=torch.float64)
    theirs: Any = torch.nn.ParameterDict({"w": torch.nn.Parameter(given.clone())})
    ours: Any = cf.nn.ParameterDict({"w": cf.Tensor(given.numpy().copy())})
    torch.nn.utils.parametrizations.orthogonal(theirs, "w", name, use_trivialization=trivial)
    cf.nn.utils.parametrizations.orthogonal(ours, "w", name, use_trivialization=trivial)
    start = theirs.parametrizations.w.original
    if not trivial:
        np.testing.assert_allclose(ours.parametrizations.w.original.detach().array, host(start.detach()), 1e-9, 1e-12)
    with torch.no_grad():
        start.add_(torch.randn(*shape, dtype=torch.float64).tril(-1))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_allclose(ours.w.detach().array, host(theirs.w.detach()), 1e-9, 1e-11)
    weights = np.random.default_rng(0).standard_normal(shape)
    theirs.w.backward(torch.from_numpy(weights))
    ours.w.backward(cf.Tensor(weights))
    np.testing.assert_allclose(ours.parametrizations.w.original.grad.array, host(start.grad), 1e-7, 1e-10)


def test_spectral_norm_of_a_vector() -> None:
    theirs = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 4).double(), "bias")
    ours = cf.nn.utils.parametrizations.spectral_norm(cf.nn.Linear(3, 4).double(), "bias")
    ours.load_state_dict(theirs.state_dict())
    run("Linear", theirs, ours)


def test_hooks_state_loads_into_the_parametrization() -> None:
    theirs, _ = both("Linear", "weight_norm")
    _, ours = both("Linear", "parametrizations.weight_norm")
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_allclose(ours.weight.detach().array, host(theirs.weight.detach()), 1e-12)


def test_spectral_norm_of_before_version_1() -> None:
    theirs, ours = both("Linear", "spectral_norm")
    for _ in range(3):
        theirs(torch.ones(1, 3, dtype=torch.float64))
    old = theirs.state_dict()
    del old["weight_v"], old._metadata
    old["weight"] = theirs.weight.detach()
    ours.load_state_dict(old)
    ours.eval()(cf.ones(1, 3, dtype="float64"))
    np.testing.assert_allclose(ours.weight.detach().array, host(theirs.weight.detach()), 1e-9)
