"""Device `sim`: as strict as a GPU's arrays, several devices, and training on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import cuframe as cf
from cuframe.backend.sim import SimArray


@pytest.fixture
def two_devices() -> Iterator[None]:
    cf.cuda.set_sim_device_count(2)
    yield
    cf.cuda.set_sim_device_count(1)


def test_count(two_devices: None) -> None:
    assert cf.cuda.sim_device_count() == 2
    assert cf.ones(2, device="sim:1").device == cf.Device("sim:1")
    with pytest.raises(RuntimeError, match=r"device 'sim:2': there are 2 simulated GPU\(s\); set CUFRAME_SIM_DEVICES"):
        cf.ones(2, device="sim:2")
    with pytest.raises(ValueError, match="count must be from 1 to 64, got 0"):
        cf.cuda.set_sim_device_count(0)


def test_cuda_is_no_sim() -> None:
    assert cf.cuda.is_available() == (cf.cuda.device_count() > 0)


def test_results_stay_on_the_device(two_devices: None) -> None:
    x = cf.arange(6.0).reshape(2, 3).to("sim:1")
    for r in (x + 1, x.sum(), x[0], x[0, 0], x.T, x @ x.T, x > 2, x.argmax(), x.nonzero(), cf.zeros_like(x)):
        assert isinstance(r.array, SimArray)
        assert r.device == cf.Device("sim:1")
    assert x.cpu().device.type == "cpu"
    np.testing.assert_array_equal(x.cpu().numpy(), np.arange(6.0, dtype=np.float32).reshape(2, 3))


def test_memory_is_not_shared_with_the_host() -> None:
    host = np.ones(3, np.float32)
    x = cf.from_numpy(host).to("sim")
    x += 1
    back = x.cpu()
    back += 1
    assert host.tolist() == [1, 1, 1] and x.tolist() == [2, 2, 2] and back.tolist() == [3, 3, 3]


def test_an_element_is_a_view_of_its_array() -> None:
    x = cf.zeros(3, device="sim")
    x[1].fill_(5)
    assert x.tolist() == [0, 5, 0]


@pytest.mark.parametrize(
    "use",
    [
        lambda x: np.add(x, np.ones(3)),
        lambda x: np.where(x > 0, x, np.ones(3)),
        lambda x: np.concatenate([x, np.ones(3)]),
        lambda x: x.__setitem__(slice(None), np.ones(3)),
    ],
    ids=["ufunc", "function", "list", "setitem"],
)
def test_host_arrays_are_refused(use: object) -> None:
    with pytest.raises(TypeError, match="host array"):
        use(cf.zeros(3, device="sim").array)  # type: ignore[operator]


def test_two_devices_are_not_mixed(two_devices: None) -> None:
    a, b = cf.ones(2, device="sim:0"), cf.ones(2, device="sim:1")
    with pytest.raises(ValueError, match="add: arrays on devices sim:0 and sim:1"):
        np.add(a.array, b.array)
    with pytest.raises(RuntimeError, match="add: tensors must be on one device, got sim:0 and cpu"):
        a + cf.ones(2)


def test_training_equals_the_cpu() -> None:
    def train(device: str) -> tuple[list[float], dict]:
        cf.manual_seed(0)
        model = cf.nn.Sequential(cf.nn.Linear(4, 8), cf.nn.LayerNorm(8), cf.nn.Tanh(), cf.nn.Linear(8, 3)).to(device)
        optimizer = cf.optim.AdamW(model.parameters(), lr=0.05)
        x, t = cf.randn(16, 4).to(device), cf.arange(16).to(device) % 3
        losses = []
        for _ in range(5):
            loss = cf.nn.functional.cross_entropy(model(x), t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, model.state_dict()

    (here, ours), (there, theirs) = train("cpu"), train("sim")
    assert here[-1] < here[0]
    np.testing.assert_allclose(there, here, rtol=1e-5)
    for name, value in ours.items():
        assert theirs[name].device.type == "sim"
        np.testing.assert_allclose(theirs[name].cpu().numpy(), value.numpy(), rtol=1e-4, atol=1e-6)


def test_numpy_needs_the_host() -> None:
    x = cf.ones(2, device="sim")
    with pytest.raises(RuntimeError, match=r"numpy: the tensor is on sim:0; use t.cpu\(\).numpy\(\)"):
        x.numpy()
    assert x.numpy(force=True).tolist() == [1, 1]
