"""The modules of resizing, old names, and what the table does not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn import functional as F

CALLS: list[tuple[Any, Any, str]] = [
    (nn.PixelShuffle(2), lambda x: F.pixel_shuffle(x, 2), "PixelShuffle(upscale_factor=2)"),
    (nn.PixelUnshuffle(2), lambda x: F.pixel_unshuffle(x, 2), "PixelUnshuffle(downscale_factor=2)"),
    (nn.ChannelShuffle(4), lambda x: F.channel_shuffle(x, 4), "ChannelShuffle(groups=4)"),
    (nn.Upsample(scale_factor=2), lambda x: F.interpolate(x, scale_factor=2),
     "Upsample(scale_factor=2.0, mode='nearest')"),
    (nn.Upsample((3, 5), mode="bicubic", align_corners=True), lambda x: F.interpolate(x, (3, 5), None, "bicubic", True),
     "Upsample(size=(3, 5), mode='bicubic')"),
    (nn.Upsample(scale_factor=(1.3, 2), mode="bilinear", recompute_scale_factor=True),
     lambda x: F.interpolate(x, None, (1.3, 2), "bilinear", None, True),
     "Upsample(scale_factor=(1.3, 2.0), mode='bilinear')"),
    (nn.UpsamplingNearest2d(3), lambda x: F.interpolate(x, 3), "UpsamplingNearest2d(size=3, mode='nearest')"),
    (nn.UpsamplingBilinear2d(scale_factor=2), lambda x: F.interpolate(x, None, 2, "bilinear", True),
     "UpsamplingBilinear2d(scale_factor=2.0, mode='bilinear')"),
]  # fmt: skip


@pytest.mark.parametrize("module, function, shown", CALLS, ids=lambda v: type(v).__name__ if callable(v) else "")
def test_module_is_function(module: nn.Module, function: Any, shown: str) -> None:
    x = cf.randn(2, 8, 2, 4)
    np.testing.assert_array_equal(module(x).numpy(), function(x).numpy())
    assert repr(module) == shown
    assert not module.state_dict()


def test_old_names_warn() -> None:
    x = cf.arange(4.0).reshape(1, 1, 2, 2)
    with pytest.warns(DeprecationWarning, match="upsample is deprecated; use interpolate") as caught:
        F.upsample(x, 3)
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="upsample_nearest is deprecated"):
        F.upsample_nearest(x, 3)
    with pytest.warns(DeprecationWarning, match="upsample_bilinear is deprecated"):
        F.upsample_bilinear(x, 3)


def test_shuffle_and_back() -> None:
    x = cf.randn(2, 9, 2, 3)
    np.testing.assert_array_equal(F.pixel_unshuffle(F.pixel_shuffle(x, 3), 3).numpy(), x.numpy())
    c = cf.randn(2, 6, 3)
    np.testing.assert_array_equal(F.channel_shuffle(F.channel_shuffle(c, 2), 3).numpy(), c.numpy())


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
def test_constants_stay(mode: str) -> None:
    x = cf.full((1, 1, 7, 5), 3.0)
    for size in ((3, 11), (14, 1)):
        np.testing.assert_allclose(F.interpolate(x, size, mode=mode).numpy(), 3, 1e-6)
        if mode[:2] == "bi":
            np.testing.assert_allclose(F.interpolate(x, size, mode=mode, antialias=True).numpy(), 3, 1e-6)


def test_infinity_stays_where_it_is() -> None:
    x = np.zeros((1, 1, 6), np.float32)
    x[0, 0, 1] = np.inf
    out = F.interpolate(cf.tensor(x), 12, mode="linear").numpy()[0, 0]
    assert np.isfinite(out[5:]).all()
    np.testing.assert_array_equal(np.flatnonzero(F.interpolate(cf.tensor(x), 3).numpy() == np.inf), [])
    np.testing.assert_array_equal(np.flatnonzero(F.interpolate(cf.tensor(x), 12).numpy() == np.inf), [2, 3])


def test_scale_factor_gives_the_positions_unless_recomputed() -> None:
    x = cf.arange(4.0).reshape(1, 1, 4)
    given = F.interpolate(x, scale_factor=1.7, mode="linear").numpy()
    recomputed = F.interpolate(x, scale_factor=1.7, mode="linear", recompute_scale_factor=True).numpy()
    np.testing.assert_array_equal(recomputed, F.interpolate(x, 6, mode="linear").numpy())
    np.testing.assert_allclose(given[0, 0], np.clip((np.arange(6) + 0.5) / 1.7 - 0.5, 0, 3), 1e-6)
    assert abs(given - recomputed).max() > 0.01
