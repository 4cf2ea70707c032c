"""The examples of the documentation of torch.nn 1.2 that need convolution or resizing."""

from __future__ import annotations

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
