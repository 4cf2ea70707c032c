"""Images in the documentation of torch.nn 1.2: its examples, and what it says; normalised weights of their kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import cuframe as torch
from cuframe import nn
from tests.test_reference_examples import shows


def test_nll() -> None:
    m = nn.LogSoftmax(dim=1)
    loss = nn.NLLLoss()
    # input is of size N x C = 3 x 5
    input = torch.randn(3, 5, requires_grad=True)
    # each element in target has to have 0 <= value < C
    target = torch.tensor([1, 0, 4])
    output = loss(m(input), target)
    output.backward()
    assert input.grad.shape == (3, 5)

    # 2D loss example (used, for example, with image inputs)
    N, C = 5, 4
    loss = nn.NLLLoss()
    # input is of size N x C x height x width
    data = torch.randn(N, 16, 10, 10)
    conv = nn.Conv2d(16, C, (3, 3))
    m = nn.LogSoftmax(dim=1)
    # each element in target has to have 0 <= value < C
    target = torch.empty(N, 8, 8, dtype=torch.long).random_(0, C)
    output = loss(m(conv(data)), target)
    output.backward()
    assert conv.weight.grad.shape == (C, 16, 3, 3)


def test_pixel_shuffle() -> None:
    pixel_shuffle = nn.PixelShuffle(3)
    input = torch.randn(1, 9, 4, 4)
    output = pixel_shuffle(input)
    assert output.size() == torch.Size([1, 1, 12, 12])


NEAREST = [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0], [3.0, 3.0, 4.0, 4.0]]
BILINEAR = [
    [1.0000, 1.2500, 1.7500, 2.0000],
    [1.5000, 1.7500, 2.2500, 2.5000],
    [2.5000, 2.7500, 3.2500, 3.5000],
    [3.0000, 3.2500, 3.7500, 4.0000],
]
ALIGNED = [
    [1.0000, 1.3333, 1.6667, 2.0000],
    [1.6667, 2.0000, 2.3333, 2.6667],
    [2.3333, 2.6667, 3.0000, 3.3333],
    [3.0000, 3.3333, 3.6667, 4.0000],
]
LARGER = [
    [1.0000, 1.2500, 1.7500, 1.5000, 0.5000, 0.0000],
    [1.5000, 1.7500, 2.2500, 1.8750, 0.6250, 0.0000],
    [2.5000, 2.7500, 3.2500, 2.6250, 0.8750, 0.0000],
    [2.2500, 2.4375, 2.8125, 2.2500, 0.7500, 0.0000],
    [0.7500, 0.8125, 0.9375, 0.7500, 0.2500, 0.0000],
    [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
]
LARGER_ALIGNED = [
    [1.0000, 1.4000, 1.8000, 1.6000, 0.8000, 0.0000],
    [1.8000, 2.2000, 2.6000, 2.2400, 1.1200, 0.0000],
    [2.6000, 3.0000, 3.4000, 2.8800, 1.4400, 0.0000],
    [2.4000, 2.7200, 3.0400, 2.5600, 1.2800, 0.0000],
    [1.2000, 1.3600, 1.5200, 1.2800, 0.6400, 0.0000],
    [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
]


def test_upsample() -> None:
    input = torch.arange(1, 5, dtype=torch.float32).view(1, 1, 2, 2)
    shows(input, [[[[1.0, 2.0], [3.0, 4.0]]]])
    m = nn.Upsample(scale_factor=2, mode="nearest")
    shows(m(input), [[NEAREST]])
    m = nn.Upsample(scale_factor=2, mode="bilinear")  # align_corners=False
    shows(m(input), [[BILINEAR]])
    m = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    shows(m(input), [[ALIGNED]])
    # Try scaling the same data in a larger tensor
    input_3x3 = torch.zeros(3, 3).view(1, 1, 3, 3)
    shows(input_3x3[:, :, :2, :2].copy_(input), [[[[1.0, 2.0], [3.0, 4.0]]]])
    shows(input_3x3, [[[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]]])
    m = nn.Upsample(scale_factor=2, mode="bilinear")  # align_corners=False
    # Notice that values in top left corner are the same with the small input (except at boundary)
    shows(m(input_3x3), [[LARGER]])
    m = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    # Notice that values in top left corner are now changed
    shows(m(input_3x3), [[LARGER_ALIGNED]])


def test_upsampling_nearest_2d() -> None:
    input = torch.arange(1, 5, dtype=torch.float32).view(1, 1, 2, 2)
    m = nn.UpsamplingNearest2d(scale_factor=2)
    shows(m(input), [[NEAREST]])


def test_upsampling_bilinear_2d() -> None:
    input = torch.arange(1, 5, dtype=torch.float32).view(1, 1, 2, 2)
    m = nn.UpsamplingBilinear2d(scale_factor=2)
    shows(m(input), [[ALIGNED]])


# -- what is said of them -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_pixel_shuffle_of_any_leading_dimensions(lead: tuple) -> None:
    """out[c, h r + i, w r + j] = input[c r^2 + i r + j, h, w]."""
    input = torch.randn(*lead, 8, 3, 5)
    output = nn.PixelShuffle(2)(input)
    assert output.shape == (*lead, 2, 6, 10)
    for i, j in np.ndindex(2, 2):
        assert torch.equal(output[..., 1, i::2, j::2], input[..., 4 + 2 * i + j, :, :])


@pytest.mark.parametrize(("mode", "dims"), [("nearest", 1), ("nearest", 2), ("nearest", 3), ("linear", 1),
                                            ("bilinear", 2), ("bicubic", 2), ("trilinear", 3)])  # fmt: skip
def test_upsample_sizes(mode: str, dims: int) -> None:
    """Sizes are those of the input times the factor, rounded down; or they are given."""
    input = torch.randn(2, 3, *(5, 4, 3)[:dims])
    scaled = tuple(int(n * 1.7) for n in input.shape[2:])
    assert nn.Upsample(scale_factor=1.7, mode=mode)(input).shape == (2, 3, *scaled)
    assert nn.Upsample(size=7, mode=mode)(input).shape == (2, 3, *(7,) * dims)
    assert nn.Upsample(size=tuple(range(4, 4 + dims)), mode=mode)(input).shape == (2, 3, *range(4, 4 + dims))


@pytest.mark.parametrize("make", [lambda: nn.Upsample(size=4, scale_factor=2), lambda: nn.Upsample()])
def test_upsample_takes_size_or_factor(make: Callable) -> None:
    with pytest.raises(ValueError, match="size|scale_factor"):
        make()(torch.randn(1, 1, 2, 2))


def test_upsampling_bilinear_is_interpolation_with_aligned_corners() -> None:
    input = torch.randn(2, 3, 4, 5)
    expected = nn.functional.interpolate(input, (7, 6), mode="bilinear", align_corners=True)
    assert torch.equal(nn.UpsamplingBilinear2d((7, 6))(input), expected)
    assert torch.equal(expected[..., 0, 0], input[..., 0, 0]) and torch.equal(expected[..., -1, -1], input[..., -1, -1])


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_formula(dim: int | None) -> None:
    """w = g v / |v|, computed anew before each call; a norm for each index of `dim`, or one of the whole weight."""
    m = nn.utils.weight_norm(nn.Linear(4, 3), dim=dim)
    with torch.no_grad():
        m.weight_g.mul_(2.0)
    m(torch.randn(2, 4))
    v = m.weight_v.detach().numpy()
    norm = np.linalg.norm(v) if dim is None else np.linalg.norm(v, axis=1 - dim, keepdims=True)
    np.testing.assert_allclose(m.weight_g.detach().numpy(), 2 * norm, rtol=1e-5)
    np.testing.assert_allclose(m.weight.detach().numpy(), 2 * v, rtol=1e-5)
    assert m.weight_g.numel() == {0: 3, 1: 4, None: 1}[dim]


@pytest.mark.parametrize(("layer", "dim"), [(lambda: nn.Linear(6, 4), 0), (lambda: nn.Conv2d(3, 4, 2), 0),
                                            (lambda: nn.ConvTranspose2d(4, 3, 2), 1)])  # fmt: skip
def test_spectral_norm_of_matrices_and_kernels(layer: Callable, dim: int) -> None:
    """The largest singular value becomes 1, of the weight with all but `dim` flattened; 1 for transposed kernels."""
    m = nn.utils.spectral_norm(layer(), n_power_iterations=200)
    m(torch.randn(2, m.weight.shape[0] if dim else m.weight.shape[1], *(5,) * (m.weight.ndim - 2)))
    weight = np.moveaxis(m.weight.detach().numpy(), dim, 0)
    assert abs(np.linalg.svd(weight.reshape(weight.shape[0], -1))[1][0] - 1) < 1e-4
    assert m.weight_u.shape == (weight.shape[0],)


def test_conversion_to_sync_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.3), nn.Sequential(nn.BatchNorm1d(6)))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(converted[1], nn.SyncBatchNorm) and isinstance(converted[2][0], nn.SyncBatchNorm)
    assert converted[1].momentum == 0.3 and list(converted.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in converted.state_dict().items())
