"""Printing: character for character what PyTorch 2.13 printed (`cuframe` for `torch`), and settings of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import cuframe as cf

# (tensor, what PyTorch prints for it)
GOLDEN: list[tuple[Callable, str]] = [
    (lambda: cf.tensor(1.5), "tensor(1.5000)"),
    (lambda: cf.tensor(2.0), "tensor(2.)"),
    (lambda: cf.tensor(7), "tensor(7)"),
    (lambda: cf.tensor(True), "tensor(True)"),
    (lambda: cf.tensor([]), "tensor([])"),
    (lambda: cf.zeros(0, 3), "tensor([], size=(0, 3))"),
    (lambda: cf.zeros(2, 0, dtype=cf.int64), "tensor([], size=(2, 0), dtype=cuframe.int64)"),
    (lambda: cf.tensor([], dtype=cf.float64), "tensor([], dtype=cuframe.float64)"),
    (lambda: cf.tensor([1.0, 2.5, -3.0]), "tensor([ 1.0000,  2.5000, -3.0000])"),
    (lambda: cf.tensor([1.0, 2.0]), "tensor([1., 2.])"),
    (lambda: cf.tensor([0.0, -0.0, 1.0]), "tensor([0., -0., 1.])"),
    (lambda: cf.tensor([1, -20, 300]), "tensor([  1, -20, 300])"),
    (lambda: cf.tensor([True, False]), "tensor([ True, False])"),
    (lambda: cf.tensor([1e-5, 1.0]), "tensor([1.0000e-05, 1.0000e+00])"),
    (lambda: cf.tensor([1e9, 1.0]), "tensor([1.0000e+09, 1.0000e+00])"),
    (lambda: cf.tensor([100000.0, 1.5]), "tensor([1.0000e+05, 1.5000e+00])"),
    (lambda: cf.tensor([1e10]), "tensor([1.0000e+10])"),
    (lambda: cf.tensor([123456789.0]), "tensor([1.2346e+08])"),
    (lambda: cf.tensor([float("nan"), 1.0, float("inf"), -float("inf")]), "tensor([nan, 1., inf, -inf])"),
    (lambda: cf.tensor([float("nan"), 0.0]), "tensor([nan, 0.])"),
    (lambda: cf.tensor([float("inf"), 1.5]), "tensor([   inf, 1.5000])"),
    (
        lambda: cf.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=cf.float64),
        "tensor([[1., 2.],\n        [3., 4.]], dtype=cuframe.float64)",
    ),
    (
        lambda: cf.tensor([[1, 2], [3, 4]], dtype=cf.int32),
        "tensor([[1, 2],\n        [3, 4]], dtype=cuframe.int32)",
    ),
    (lambda: cf.tensor([1.5, 2.25], dtype=cf.float16), "tensor([1.5000, 2.2500], dtype=cuframe.float16)"),
    (lambda: cf.tensor([1.5, 2.25], dtype=cf.bfloat16), "tensor([1.5000, 2.2500], dtype=cuframe.bfloat16)"),
    (lambda: cf.tensor([1, 2], dtype=cf.uint8), "tensor([1, 2], dtype=cuframe.uint8)"),
    (lambda: cf.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
    (lambda: cf.tensor([1.0, 2.0], requires_grad=True) * 2, "tensor([2., 4.], grad_fn=<MulBackward0>)"),
    (lambda: (cf.tensor([1.0], requires_grad=True) * 2).exp(), "tensor([7.3891], grad_fn=<ExpBackward0>)"),
    (
        lambda: cf.tensor(0.5, dtype=cf.float64, requires_grad=True),
        "tensor(0.5000, dtype=cuframe.float64, requires_grad=True)",
    ),
    (
        lambda: cf.arange(30.0).reshape(3, 10) / 7,
        "tensor([[0.0000, 0.1429, 0.2857, 0.4286, 0.5714, 0.7143, 0.8571, 1.0000, 1.1429,\n"
        "         1.2857],\n"
        "        [1.4286, 1.5714, 1.7143, 1.8571, 2.0000, 2.1429, 2.2857, 2.4286, 2.5714,\n"
        "         2.7143],\n"
        "        [2.8571, 3.0000, 3.1429, 3.2857, 3.4286, 3.5714, 3.7143, 3.8571, 4.0000,\n"
        "         4.1429]])",
    ),
    (
        lambda: cf.arange(24).reshape(2, 3, 4),
        "tensor([[[ 0,  1,  2,  3],\n"
        "         [ 4,  5,  6,  7],\n"
        "         [ 8,  9, 10, 11]],\n"
        "\n"
        "        [[12, 13, 14, 15],\n"
        "         [16, 17, 18, 19],\n"
        "         [20, 21, 22, 23]]])",
    ),
    (
        lambda: cf.arange(24).reshape(2, 3, 2, 2),
        "tensor([[[[ 0,  1],\n"
        "          [ 2,  3]],\n"
        "\n"
        "         [[ 4,  5],\n"
        "          [ 6,  7]],\n"
        "\n"
        "         [[ 8,  9],\n"
        "          [10, 11]]],\n"
        "\n"
        "\n"
        "        [[[12, 13],\n"
        "          [14, 15]],\n"
        "\n"
        "         [[16, 17],\n"
        "          [18, 19]],\n"
        "\n"
        "         [[20, 21],\n"
        "          [22, 23]]]])",
    ),
    (
        lambda: cf.arange(40.0) * 100,
        "tensor([   0.,  100.,  200.,  300.,  400.,  500.,  600.,  700.,  800.,  900.,\n"
        "        1000., 1100., 1200., 1300., 1400., 1500., 1600., 1700., 1800., 1900.,\n"
        "        2000., 2100., 2200., 2300., 2400., 2500., 2600., 2700., 2800., 2900.,\n"
        "        3000., 3100., 3200., 3300., 3400., 3500., 3600., 3700., 3800., 3900.])",
    ),
    (lambda: cf.arange(1200), "tensor([   0,    1,    2,  ..., 1197, 1198, 1199])"),
    (
        lambda: cf.arange(1200.0).reshape(30, 40),
        "tensor([[0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 3.7000e+01, 3.8000e+01,\n"
        "         3.9000e+01],\n"
        "        [4.0000e+01, 4.1000e+01, 4.2000e+01,  ..., 7.7000e+01, 7.8000e+01,\n"
        "         7.9000e+01],\n"
        "        [8.0000e+01, 8.1000e+01, 8.2000e+01,  ..., 1.1700e+02, 1.1800e+02,\n"
        "         1.1900e+02],\n"
        "        ...,\n"
        "        [1.0800e+03, 1.0810e+03, 1.0820e+03,  ..., 1.1170e+03, 1.1180e+03,\n"
        "         1.1190e+03],\n"
        "        [1.1200e+03, 1.1210e+03, 1.1220e+03,  ..., 1.1570e+03, 1.1580e+03,\n"
        "         1.1590e+03],\n"
        "        [1.1600e+03, 1.1610e+03, 1.1620e+03,  ..., 1.1970e+03, 1.1980e+03,\n"
        "         1.1990e+03]])",
    ),
    (
        lambda: cf.arange(4000.0).reshape(20, 10, 20) / 3,
        "tensor([[[0.0000e+00, 3.3333e-01, 6.6667e-01,  ..., 5.6667e+00,\n"
        "          6.0000e+00, 6.3333e+00],\n"
        "         [6.6667e+00, 7.0000e+00, 7.3333e+00,  ..., 1.2333e+01,\n"
        "          1.2667e+01, 1.3000e+01],\n"
        "         [1.3333e+01, 1.3667e+01, 1.4000e+01,  ..., 1.9000e+01,\n"
        "          1.9333e+01, 1.9667e+01],\n"
        "         ...,\n"
        "         [4.6667e+01, 4.7000e+01, 4.7333e+01,  ..., 5.2333e+01,\n"
        "          5.2667e+01, 5.3000e+01],\n"
        "         [5.3333e+01, 5.3667e+01, 5.4000e+01,  ..., 5.9000e+01,\n"
        "          5.9333e+01, 5.9667e+01],\n"
        "         [6.0000e+01, 6.0333e+01, 6.0667e+01,  ..., 6.5667e+01,\n"
        "          6.6000e+01, 6.6333e+01]],\n"
        "\n"
        "        [[6.6667e+01, 6.7000e+01, 6.7333e+01,  ..., 7.2333e+01,\n"
        "          7.2667e+01, 7.3000e+01],\n"
        "         [7.3333e+01, 7.3667e+01, 7.4000e+01,  ..., 7.9000e+01,\n"
        "          7.9333e+01, 7.9667e+01],\n"
        "         [8.0000e+01, 8.0333e+01, 8.0667e+01,  ..., 8.5667e+01,\n"
        "          8.6000e+01, 8.6333e+01],\n"
        "         ...,\n"
        "         [1.1333e+02, 1.1367e+02, 1.1400e+02,  ..., 1.1900e+02,\n"
        "          1.1933e+02, 1.1967e+02],\n"
        "         [1.2000e+02, 1.2033e+02, 1.2067e+02,  ..., 1.2567e+02,\n"
        "          1.2600e+02, 1.2633e+02],\n"
        "         [1.2667e+02, 1.2700e+02, 1.2733e+02,  ..., 1.3233e+02,\n"
        "          1.3267e+02, 1.3300e+02]],\n"
        "\n"
        "        [[1.3333e+02, 1.3367e+02, 1.3400e+02,  ..., 1.3900e+02,\n"
        "          1.3933e+02, 1.3967e+02],\n"
        "         [1.4000e+02, 1.4033e+02, 1.4067e+02,  ..., 1.4567e+02,\n"
        "          1.4600e+02, 1.4633e+02],\n"
        "         [1.4667e+02, 1.4700e+02, 1.4733e+02,  ..., 1.5233e+02,\n"
        "          1.5267e+02, 1.5300e+02],\n"
        "         ...,\n"
        "         [1.8000e+02, 1.8033e+02, 1.8067e+02,  ..., 1.8567e+02,\n"
        "          1.8600e+02, 1.8633e+02],\n"
        "         [1.8667e+02, 1.8700e+02, 1.8733e+02,  ..., 1.9233e+02,\n"
        "          1.9267e+02, 1.9300e+02],\n"
        "         [1.9333e+02, 1.9367e+02, 1.9400e+02,  ..., 1.9900e+02,\n"
        "          1.9933e+02, 1.9967e+02]],\n"
        "\n"
        "        ...,\n"
        "\n"
        "        [[1.1333e+03, 1.1337e+03, 1.1340e+03,  ..., 1.1390e+03,\n"
        "          1.1393e+03, 1.1397e+03],\n"
        "         [1.1400e+03, 1.1403e+03, 1.1407e+03,  ..., 1.1457e+03,\n"
        "          1.1460e+03, 1.1463e+03],\n"
        "         [1.1467e+03, 1.1470e+03, 1.1473e+03,  ..., 1.1523e+03,\n"
        "          1.1527e+03, 1.1530e+03],\n"
        "         ...,\n"
        "         [1.1800e+03, 1.1803e+03, 1.1807e+03,  ..., 1.1857e+03,\n"
        "          1.1860e+03, 1.1863e+03],\n"
        "         [1.1867e+03, 1.1870e+03, 1.1873e+03,  ..., 1.1923e+03,\n"
        "          1.1927e+03, 1.1930e+03],\n"
        "         [1.1933e+03, 1.1937e+03, 1.1940e+03,  ..., 1.1990e+03,\n"
        "          1.1993e+03, 1.1997e+03]],\n"
        "\n"
        "        [[1.2000e+03, 1.2003e+03, 1.2007e+03,  ..., 1.2057e+03,\n"
        "          1.2060e+03, 1.2063e+03],\n"
        "         [1.2067e+03, 1.2070e+03, 1.2073e+03,  ..., 1.2123e+03,\n"
        "          1.2127e+03, 1.2130e+03],\n"
        "         [1.2133e+03, 1.2137e+03, 1.2140e+03,  ..., 1.2190e+03,\n"
        "          1.2193e+03, 1.2197e+03],\n"
        "         ...,\n"
        "         [1.2467e+03, 1.2470e+03, 1.2473e+03,  ..., 1.2523e+03,\n"
        "          1.2527e+03, 1.2530e+03],\n"
        "         [1.2533e+03, 1.2537e+03, 1.2540e+03,  ..., 1.2590e+03,\n"
        "          1.2593e+03, 1.2597e+03],\n"
        "         [1.2600e+03, 1.2603e+03, 1.2607e+03,  ..., 1.2657e+03,\n"
        "          1.2660e+03, 1.2663e+03]],\n"
        "\n"
        "        [[1.2667e+03, 1.2670e+03, 1.2673e+03,  ..., 1.2723e+03,\n"
        "          1.2727e+03, 1.2730e+03],\n"
        "         [1.2733e+03, 1.2737e+03, 1.2740e+03,  ..., 1.2790e+03,\n"
        "          1.2793e+03, 1.2797e+03],\n"
        "         [1.2800e+03, 1.2803e+03, 1.2807e+03,  ..., 1.2857e+03,\n"
        "          1.2860e+03, 1.2863e+03],\n"
        "         ...,\n"
        "         [1.3133e+03, 1.3137e+03, 1.3140e+03,  ..., 1.3190e+03,\n"
        "          1.3193e+03, 1.3197e+03],\n"
        "         [1.3200e+03, 1.3203e+03, 1.3207e+03,  ..., 1.3257e+03,\n"
        "          1.3260e+03, 1.3263e+03],\n"
        "         [1.3267e+03, 1.3270e+03, 1.3273e+03,  ..., 1.3323e+03,\n"
        "          1.3327e+03, 1.3330e+03]]])",
    ),
    (
        lambda: (cf.arange(100.0, requires_grad=True) * 1.5)[:20],
        "tensor([ 0.0000,  1.5000,  3.0000,  4.5000,  6.0000,  7.5000,  9.0000, 10.5000,\n"
        "        12.0000, 13.5000, 15.0000, 16.5000, 18.0000, 19.5000, 21.0000, 22.5000,\n"
        "        24.0000, 25.5000, 27.0000, 28.5000], grad_fn=<SliceBackward0>)",
    ),
    (
        lambda: cf.arange(14.0, requires_grad=True) + 0.123,
        "tensor([ 0.1230,  1.1230,  2.1230,  3.1230,  4.1230,  5.1230,  6.1230,  7.1230,\n"
        "         8.1230,  9.1230, 10.1230, 11.1230, 12.1230, 13.1230],\n"
        "       grad_fn=<AddBackward0>)",
    ),
    (
        lambda: cf.zeros(3, 3) + cf.tensor(0.1),
        "tensor([[0.1000, 0.1000, 0.1000],\n        [0.1000, 0.1000, 0.1000],\n        [0.1000, 0.1000, 0.1000]])",
    ),
    (
        lambda: cf.tensor([[1e-8, 1.0], [1e8, 2.0]]),
        "tensor([[1.0000e-08, 1.0000e+00],\n        [1.0000e+08, 2.0000e+00]])",
    ),
    (lambda: cf.tensor([0.00011, 0.5]), "tensor([1.1000e-04, 5.0000e-01])"),
    (lambda: cf.tensor([0.00009, 0.5]), "tensor([9.0000e-05, 5.0000e-01])"),
    (lambda: cf.tensor([999.5, 1.0]), "tensor([999.5000,   1.0000])"),
    (lambda: cf.tensor([1001.5, 1.0]), "tensor([1.0015e+03, 1.0000e+00])"),
]


@contextlib.contextmanager
def printing(**options: object) -> Iterator[None]:
    cf.set_printoptions(**options)
    try:
        yield
    finally:
        cf.set_printoptions(profile="default")


@pytest.mark.parametrize("make, expected", GOLDEN)
def test_golden(make: Callable, expected: str) -> None:
    assert repr(make()) == expected


def test_parameter_and_views() -> None:
    p = cf.Parameter(cf.tensor([1.0, 2.0]))
    assert repr(p) == "Parameter containing:\ntensor([1., 2.], requires_grad=True)"
    x = cf.tensor([[1.0, 2.0]], requires_grad=True)
    assert repr(x.t()) == "tensor([[1.],\n        [2.]], grad_fn=<TBackward0>)"
    assert repr(x.detach()) == "tensor([[1., 2.]])"
    assert str(x) == repr(x)


def test_default_dtype_needs_no_mention() -> None:
    cf.set_default_dtype(cf.float64)
    try:
        assert repr(cf.tensor([1.0])) == "tensor([1.])"
        assert repr(cf.tensor([1.0], dtype=cf.float32)) == "tensor([1.], dtype=cuframe.float32)"
    finally:
        cf.set_default_dtype(cf.float32)


def test_options() -> None:
    x = cf.tensor([0.123456, 100.0])
    with printing(precision=2):
        assert repr(x) == "tensor([  0.12, 100.00])"
    with printing(sci_mode=True):
        assert repr(x) == "tensor([1.2346e-01, 1.0000e+02])"
    with printing(sci_mode=False):
        assert repr(cf.tensor([1e-6, 1.0])) == "tensor([0.0000, 1.0000])"
    with printing(threshold=4, edgeitems=1):
        assert repr(cf.arange(5)) == "tensor([0,  ..., 4])"
        assert repr(cf.arange(9).reshape(3, 3)) == "tensor([[0,  ..., 2],\n        ...,\n        [6,  ..., 8]])"
    with printing(linewidth=20):
        assert repr(cf.arange(6)) == "tensor([0, 1, 2, 3,\n        4, 5])"
    with printing(profile="full"):
        assert "..." not in repr(cf.arange(1500))
    with printing(profile="short"):
        assert repr(cf.tensor([0.12345])) == "tensor([0.12])"
    with pytest.raises(ValueError, match="profile must be one of default, short, full, got 'loud'"):
        cf.set_printoptions(profile="loud")
    assert repr(x) == "tensor([  0.1235, 100.0000])"


def test_against_torch() -> None:
    """Values of all sizes and shapes; dtypes that PyTorch does not mention, for `torch.` is shorter than `cuframe.`."""
    torch = pytest.importorskip("torch", reason="PyTorch, the reference of this test, is not installed")
    rng = np.random.default_rng(0)
    draws = [
        lambda s: rng.integers(-100, 100, s),
        lambda s: rng.integers(0, 2, s).astype(bool),
        lambda s: (rng.normal(size=s) * 10.0 ** rng.integers(-8, 10)).astype(np.float32),
        lambda s: np.round(rng.normal(size=s) * 10.0 ** rng.integers(-2, 10)).astype(np.float32),
        lambda s: np.where(rng.random(s) < 0.3, rng.choice([np.nan, np.inf, -np.inf, 0.0], s), rng.normal(size=s)),
    ]
    for i in range(300):
        n = int(rng.integers(0, 5))
        shape = tuple(rng.integers(0 if rng.random() < 0.1 else 1, [1, 30, 12, 9, 5][n] + 1, n))
        array = np.asarray(draws[i % 5](shape))
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        if not array.size and array.dtype != np.float32:
            continue  # empty tensors mention every dtype but float32
        ours, theirs = cf.from_numpy(array), torch.from_numpy(array.copy())
        if array.dtype == np.float32 and rng.random() < 0.5:
            ours, theirs = ours.requires_grad_(), theirs.requires_grad_()
            if rng.random() < 0.5:
                ours, theirs = ours * 1, theirs * 1
        assert repr(ours) == repr(theirs)
