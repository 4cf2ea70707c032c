"""Convolution over many blocks and threads, its memory, and the modules."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

import cuframe as cf
import cuframe.nn.functional as F
from cuframe import nn
from cuframe.backend import backend_for
from cuframe.cpu import conv as cpu
from cuframe.cpu import conv_compiled, jit, threads
from cuframe.ops import correlation


def windows(kernel, out, stride=1, lo=0, dilation=1, groups=1):
    d = len(kernel)
    return cpu.Windows(kernel, (stride,) * d, (dilation,) * d, (lo,) * d, out, groups)


def integers(*shape, dtype="float64"):
    """Small integers, whose sums are exact in any order."""
    return np.random.default_rng(math.prod(shape)).integers(-3, 4, shape).astype(dtype)


BLOCKED = {
    "several images a block": ((9, 4, 5, 5), (6, 4, 3, 3), windows((3, 3), (5, 5), lo=1)),
    "parts of an image, last dimension too": ((2, 3, 4, 90), (20, 3, 3, 3), windows((3, 3), (4, 90), lo=1)),
    "rows in one run, parts of an image": ((2, 4, 40, 30), (4, 4, 3, 3), windows((3, 3), (40, 30), lo=1)),
    "groups in several blocks": ((3, 12, 9, 8), (12, 1, 3, 3), windows((3, 3), (9, 8), lo=1, groups=12)),
    "two groups with stride": ((3, 8, 30, 21), (40, 4, 3, 3), windows((3, 3), (15, 11), stride=2, lo=1, groups=2)),
    "stride beyond the kernel": ((2, 3, 30, 21), (3, 3, 2, 2), windows((2, 2), (10, 7), stride=3)),
    "stride and dilation": ((2, 3, 30, 21), (5, 3, 3, 2), windows((3, 2), (14, 9), stride=2, lo=2, dilation=3)),
    "stride, wholly outside": ((2, 3, 2, 2), (5, 3, 3, 3), windows((3, 3), (9, 9), stride=2, lo=7)),
    "dilation": ((2, 3, 30, 21), (3, 3, 2, 3), windows((2, 3), (27, 15), dilation=3)),
    "one tap": ((3, 5, 20, 20), (30, 5, 1, 1), windows((1, 1), (20, 20))),
    "one tap with stride": ((3, 5, 20, 20), (30, 5, 1, 1), windows((1, 1), (10, 10), stride=2)),
    "a sequence": ((3, 5, 300), (30, 5, 4), windows((4,), (300,), lo=2)),
    "a sequence in blocks": ((2, 5, 1500), (3, 5, 4), windows((4,), (1500,), lo=2)),
    "volumes": ((2, 3, 6, 7, 8), (4, 3, 3, 3, 3), windows((3, 3, 3), (6, 7, 8), lo=1)),
    "windows wholly outside": ((2, 3, 2, 2), (20, 3, 3, 3), windows((3, 3), (9, 9), lo=5)),
    "a part of the source": ((2, 3, 40, 9), (20, 3, 2, 2), windows((2, 2), (30, 6), lo=-2)),
    "no images": ((0, 3, 4, 4), (2, 3, 3, 3), windows((3, 3), (4, 4), lo=1)),
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks are made small, so that every way of cutting occurs; three shares whatever the machine has."""
    monkeypatch.setattr(cpu, "_ELEMENTS", 4000)
    monkeypatch.setattr(cpu, "_COLUMNS", 16)
    monkeypatch.setattr(cpu, "_WORTH", 0)
    monkeypatch.setattr(cpu, "_COMPILE", 1)
    monkeypatch.setattr(conv_compiled, "_ELEMENTS", 4000)
    monkeypatch.setattr(conv_compiled, "_POSITIONS", 16)
    monkeypatch.setattr(conv_compiled, "_LARGE", 0)
    monkeypatch.setattr(jit, "cpus", lambda: 3)
    conv_compiled._plan.cache_clear()
    yield monkeypatch
    conv_compiled._plan.cache_clear()


def need_compiler():
    if not jit.available():
        pytest.skip("llvmlite is not installed, or switched off")


@pytest.mark.parametrize("code", ["NumPy", "NumPy in runs", "compiled"])
@pytest.mark.parametrize("case", BLOCKED)
def test_blocks_equal_one_product_a_tap(case, code, small_blocks):
    if code == "compiled":
        need_compiler()
    small_blocks.setattr(cpu, "_FEW", 0 if code == "NumPy" else 1000)
    small_blocks.setattr(jit, "available", lambda: code == "compiled")
    shape, weight, win = BLOCKED[case]
    x, w, b = (integers(*s, dtype="float32") for s in (shape, weight, weight[:1]))
    other = integers(shape[0], weight[0], *win.out, dtype="float32")
    expected, grad = correlation._gather(x, w, b, other, win)
    calls = []
    convolve = conv_compiled.convolve
    small_blocks.setattr(conv_compiled, "convolve", lambda *args: (calls.append(args), convolve(*args)))
    out, gw = cpu.gather(x, w, b, other, win)
    assert bool(calls) == (code == "compiled" and shape[0] > 0 and math.prod(win.kernel) > 1)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(gw, grad)
    filled = np.full((*out.shape, 2), 7, np.float32)
    assert cpu.gather(x, w, None, None, win, filled[..., 0])[1] is None
    np.testing.assert_array_equal(filled[..., 0], expected - b.reshape(-1, *(1,) * len(win.out)))
    assert (filled[..., 1] == 7).all()
    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    held = np.full((*gw.shape, 2), 7, np.float32)
    ((none, gw),) = cpu.gathers(strided, [cpu.Product(None, None, other, win, grad=held[..., 1])])
    assert none is None and gw.base is held
    np.testing.assert_array_equal(gw, grad)
    assert (held[..., 0] == 7).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (4, 2, 1), (4, 3, 2), (2, 2, 1), (2, 3, 1)])
def test_residues_in_one_call(kernel, stride, dilation, groups, small_blocks):
    """A transposed convolution and its gradients, all residues from one copy of the source, against NumPy."""
    need_compiler()
    win = windows((kernel,) * 2, (9, 8), stride, 1, dilation, groups)
    size = tuple((n - 1) * stride + dilation * (kernel - 1) for n in win.out)
    y, w, b = (integers(*s, dtype="float32") for s in ((3, 6, 9, 8), (6, 10, kernel, kernel), (10 * groups,)))
    other = integers(3, 10 * groups, *size, dtype="float32")
    out, grad = correlation._spread(y, w, b, other, win, size)
    small_blocks.setattr(jit, "available", lambda: False)
    expected, expected_grad = correlation._spread(y, w, b, other, win, size)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(grad, expected_grad)


@pytest.mark.parametrize("rows", [1, 3, 7, 8, 13, 40, 100])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 16), (1, 100)])
def test_compiled_tiles(rows, size):
    """Rows, taps and positions that fill tiles, and that do not; NaN of an earlier call does no harm."""
    need_compiler()
    inside, kernel = 2, (2, 5)
    taps = tuple(tuple(range(k)) for k in (1, *kernel))
    shape = (1, *(n + k - 1 for n, k in zip(size, kernel)))
    x, weight = integers(3, inside, *shape, dtype="float32"), integers(rows, inside, 1, *kernel, dtype="float32")
    other = integers(3, rows, 1, *size, dtype="float32")
    for source in (np.full_like(x, np.nan), x):
        out, grad = np.empty_like(other), np.empty_like(weight)
        part = conv_compiled.Part(taps, rows, (1, *size), weight, None, out, other, grad)
        conv_compiled.convolve(source, [part], (1, 1, 1), 1, 2)
        assert np.isnan(out).all() == np.isnan(grad).all() == (source is not x)
    seen = np.lib.stride_tricks.sliding_window_view(x, (1, *kernel), (2, 3, 4))
    np.testing.assert_array_equal(out, np.einsum("ncdhwijk,ocijk->nodhw", seen, weight))
    np.testing.assert_array_equal(grad, np.einsum("ncdhwijk,nodhw->ocijk", seen, other))


@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (1, 3, 64), (4, 1, 70), (2, 9, 1)])
def test_sums_of_channels(shape, small_blocks):
    need_compiler()
    small_blocks.setattr(cpu, "_COMPILE", 0)
    x = integers(*shape, dtype="float32")
    for a in (x, x.swapaxes(0, 1)):
        np.testing.assert_array_equal(cpu.channel_sums(a), a.sum(axis=(0, *range(2, a.ndim))))


@pytest.mark.parametrize(
    ("n", "inside", "groups", "rows", "out"),
    [(5, 9, 50, 1, (1, 28, 28)), (2, 300, 1, 4, (9, 17, 30)), (1, 1, 3, 2, (1, 1, 999)), (3, 1, 1, 1, (1, 40, 40))],
)
def test_compiled_blocks_hold_every_position_once(n, inside, groups, rows, out):
    """Also where neither groups nor sizes are multiples of a block's; both threads get as much to within a quarter."""
    need_compiler()
    shape = conv_compiled._Shape(n, inside, groups, (1, 1, 1), ((((0,), (0,), (0,)), rows, out),))
    plan = conv_compiled._plan(shape, 2)
    seen = np.zeros((2, n, groups, *out), int)
    for share, blocks in enumerate(plan.blocks):
        for i, g, end, d, h, w, *sizes in blocks.tolist():
            seen[share, i, g:end, d : d + sizes[0], h : h + sizes[1], w : w + sizes[2]] += 1
            assert math.prod(sizes) <= max(256, (3 << 16) // (inside + rows))
    assert (seen.sum(axis=0) == 1).all()
    assert (seen.reshape(2, -1).mean(axis=1) > 0.375).all()


def test_blocks_hold_every_position_once():
    """Also where neither groups nor sizes are multiples of a block's."""
    for n, width, win in ((5, 9, windows((3, 3), (28, 28), groups=50)), (2, 3000, windows((3, 3), (17, 300)))):
        seen = np.zeros((n, win.groups, *win.out), int)
        for block in cpu._blocks(n, width, win):
            part = tuple(slice(a, a + s) for a, s in zip(block.start, block.sizes))
            seen[(block.images, block.groups, *part)] += 1
            columns = len(range(n)[block.images]) * math.prod(block.sizes)
            assert columns * len(range(win.groups)[block.groups]) <= max(256, (3 << 16) // width)
        assert (seen == 1).all()


@pytest.mark.parametrize("size", [1, 2, 7, 10])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_residues_name_every_pair_once(size, kernel, stride, dilation):
    """Position, tap and window of the result belong together exactly where the definition says."""
    for lo in (-1, 0, 2):
        found = []
        for where, taps, d, shift in correlation._residues(size, kernel, stride, dilation, lo):
            held = list(range(kernel)[taps])[::-1]
            found += [
                (x, k, j + m * d - shift) for j, x in enumerate(range(size)[where]) for m, k in enumerate(held)
            ]
        wanted = [
            (x, k, (x + lo - k * dilation) // stride)
            for x in range(size) for k in range(kernel) if (x + lo - k * dilation) % stride == 0
        ]  # fmt: skip
        assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("groups", [1, 16])
def test_memory_is_that_of_the_results_and_some_blocks(groups):
    """The columns of all windows would be 9 times the input: 57 MB."""
    x = cf.randn(24, 16, 64, 64).requires_grad_()
    w = cf.randn(16, 16 // groups, 3, 3).requires_grad_()
    F.conv2d(x[:1], w, padding=1, groups=groups).sum().backward()
    tracemalloc.start()
    try:
        out = F.conv2d(x, w, padding=1, groups=groups)
        forward = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        out.backward(cf.ones_like(out))
        backward = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    blocks = 4e6 * min(jit.cpus(), 8)
    assert forward < out.nbytes + blocks
    assert backward < 2 * x.nbytes + out.nbytes + blocks  # the ones, the gradient, and .grad's own


@pytest.mark.parametrize("compiled", [False, True])
def test_bits_do_not_depend_on_free_threads(compiled, small_blocks):
    """The threads are taken while the second run works."""
    if compiled:
        need_compiler()
    small_blocks.setattr(jit, "available", lambda: compiled)
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((9, 16, 20, 20), dtype=np.float32) for _ in range(2))
    w = rng.standard_normal((16, 16, 3, 3), dtype=np.float32)
    win = windows((3, 3), (20, 20), lo=1)
    first = cpu.gather(x, w, None, g, win)
    assert threads.take()
    try:
        second = cpu.gather(x, w, None, g, win)
    finally:
        threads.give_back()
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]


def test_empty_batch():
    layer = nn.Conv2d(3, 4, 3)
    x = cf.zeros(0, 3, 5, 5).requires_grad_()
    out = layer(x)
    assert out.shape == (0, 4, 3, 3)
    out.sum().backward()
    assert x.grad.shape == (0, 3, 5, 5)
    assert (layer.weight.grad.array == 0).all() and layer.weight.grad.shape == (4, 3, 3, 3)
    up = nn.ConvTranspose2d(3, 4, 3, stride=2)
    assert up(x).shape == (0, 4, 11, 11)


def test_only_what_is_needed_is_kept():
    """A weight that needs no gradient does not keep the input, and the other way round."""
    x, w = cf.ones(1, 2, 5).requires_grad_(), cf.ones(2, 2, 3)
    assert F.conv1d(x, w).grad_fn.saved[0] == (1, 2, 5)
    assert F.conv_transpose1d(x, w).grad_fn.saved[0] == (1, 2, 5)
    assert F.conv1d(x.detach(), w.requires_grad_()).grad_fn.saved[1] == (2, 2, 3)


def test_a_changed_input_is_noticed():
    x, w = cf.ones(1, 2, 5), cf.ones(2, 2, 3).requires_grad_()
    out = F.conv1d(x, w)
    x.add_(1)
    with pytest.raises(RuntimeError, match=r"convolution.*changed in place by add_"):
        out.sum().backward()


def test_fold_undoes_unfold_but_for_overlaps():
    x = cf.Tensor(integers(2, 3, 6, 7))
    settings = {"dilation": (1, 2), "padding": (1, 0), "stride": (2, 1)}
    times = F.fold(F.unfold(cf.ones_like(x), (3, 2), **settings), (6, 7), (3, 2), **settings)
    back = F.fold(F.unfold(x, (3, 2), **settings), (6, 7), (3, 2), **settings)
    np.testing.assert_array_equal(back.array, (x * times).array)


def test_unfold_times_weight_is_convolution():
    x, w = cf.Tensor(integers(2, 3, 6, 7)), cf.Tensor(integers(4, 3, 2, 3))
    columns = nn.Unfold((2, 3), padding=1, stride=2)(x)
    out = (w.reshape(4, 18) @ columns).reshape(2, 4, 4, 4)
    np.testing.assert_array_equal(out.array, F.conv2d(x, w, padding=1, stride=2).array)
    images = nn.Fold((6, 7), (2, 3), padding=1, stride=2)(columns)
    assert images.shape == (2, 3, 6, 7)


# -- modules ------------------------------------------------------------------------------------------------------
LAYERS = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


@pytest.mark.parametrize("kind", LAYERS, ids=lambda k: k.__name__)
def test_module_is_function_of_its_settings(kind):
    transposed = "Transpose" in kind.__name__
    dims = int(kind.__name__[-2])
    kwargs = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    layer = kind(4, 6, 3, **kwargs).double()
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.weight.shape == ((4, 3) if transposed else (6, 2)) + (3,) * dims
    x = cf.Tensor(np.random.default_rng(0).standard_normal((2, 4, *range(6, 6 + dims))))
    function = getattr(F, f"conv_transpose{dims}d" if transposed else f"conv{dims}d")
    np.testing.assert_array_equal(layer(x).array, function(x, layer.weight, layer.bias, **kwargs).array)
    np.testing.assert_allclose(layer(x[1]).array, layer(x).array[1], 1e-12, 1e-12)
    bare = kind(4, 6, 3, bias=False, dtype="float64")
    assert bare.bias is None and list(bare.state_dict()) == ["weight"]
    np.testing.assert_array_equal(bare(x).array, function(x, bare.weight).array)


@pytest.mark.parametrize("kind", LAYERS, ids=lambda k: k.__name__)
def test_initial_values_fill_their_range(kind):
    cf.manual_seed(0)
    layer = kind(24, 36, 5, groups=2)
    bound = 1 / math.sqrt(math.prod(layer.weight.shape[1:]))
    for p in (layer.weight.array, layer.bias.array):
        assert np.abs(p).max() <= bound
        assert np.abs(p).max() > 0.9 * bound
        assert abs(p.mean()) < 0.25 * bound


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["same", 2, (1, 2), "valid"])
def test_padding_modes(mode, padding):
    layer = nn.Conv2d(2, 3, (3, 4), padding=padding, padding_mode=mode, dilation=(2, 1), dtype="float64")
    x = cf.Tensor(np.random.default_rng(0).standard_normal((2, 2, 6, 7)))
    before, after = {
        "same": ((2, 1), (2, 2)), 2: ((2, 2), (2, 2)), (1, 2): ((1, 2), (1, 2)), "valid": ((0, 0), (0, 0)),
    }[padding]  # fmt: skip
    how = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    wide = np.pad(x.array, [(0, 0), (0, 0), *zip(before, after)], how)
    expected = F.conv2d(cf.Tensor(wide), layer.weight, layer.bias, dilation=(2, 1))
    np.testing.assert_allclose(layer(x).array, expected.array, 1e-12)
    assert layer(x).shape[2:] == ((6, 7) if padding == "same" else expected.shape[2:])


def test_padding_mode_of_sequences_and_volumes():
    x = cf.Tensor(integers(1, 1, 5))
    layer = nn.Conv1d(1, 1, 3, padding="same", padding_mode="circular", bias=False, dtype="float64")
    layer.weight.data = cf.ones(1, 1, 3, dtype="float64")
    np.testing.assert_array_equal(layer(x).array, x.array + np.roll(x.array, 1, 2) + np.roll(x.array, -1, 2))
    volume = nn.Conv3d(1, 1, 1, padding=1, padding_mode="replicate", bias=False)
    volume.weight.data = cf.ones(1, 1, 1, 1, 1)
    y = cf.randn(1, 1, 2, 3, 2)
    np.testing.assert_array_equal(volume(y).array, np.pad(y.array, [(0, 0)] * 2 + [(1, 1)] * 3, "edge"))


def test_output_size():
    up = nn.ConvTranspose2d(2, 3, 3, stride=(3, 2), padding=1)
    x = cf.randn(1, 2, 4, 5)
    assert up(x).shape == (1, 3, 10, 9)
    for size in ((10, 9), (12, 10), (11, 9)):
        extra = (size[0] - 10, size[1] - 9)
        expected = F.conv_transpose2d(x, up.weight, up.bias, (3, 2), 1, extra).array
        for given in (size, [1, 3, *size], cf.Size((1, 3, *size))):
            np.testing.assert_array_equal(up(x, given).array, expected)
    assert up(x[0], (3, 12, 10)).shape == (3, 12, 10)
    with pytest.raises(ValueError, match=r"output_size must be from \(10, 9\) to \(12, 10\) .* got \(13, 9\)"):
        up(x, (13, 9))
    with pytest.raises(ValueError, match=r"output_size must have 2 or 4 numbers, got \(9,\)"):
        up(x, (9,))


def test_repr():
    shown = {
        nn.Conv1d(2, 4, 3): "Conv1d(2, 4, kernel_size=(3,), stride=(1,))",
        nn.Conv2d(2, 4, 3, padding="same", bias=False): (
            "Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), padding='same', bias=False)"
        ),
        nn.Conv3d(2, 4, (1, 2, 3), 2, (0, 1, 1), 2, 2, padding_mode="circular"): (
            "Conv3d(2, 4, kernel_size=(1, 2, 3), stride=(2, 2, 2), padding=(0, 1, 1), dilation=(2, 2, 2), groups=2, "
            "padding_mode=circular)"
        ),
        nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1): (
            "ConvTranspose2d(2, 4, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1))"
        ),
        nn.Fold((4, 5), 2, stride=2): "Fold(output_size=(4, 5), kernel_size=2, dilation=1, padding=0, stride=2)",
        nn.Unfold((2, 3)): "Unfold(kernel_size=(2, 3), dilation=1, padding=0, stride=1)",
    }
    for module, text in shown.items():
        assert repr(module) == text


@pytest.mark.parametrize(
    ("make", "exception", "match"),
    [
        (lambda: nn.Conv1d(3, 4, 3, groups=2), ValueError, "Conv1d: in_channels must be a multiple of groups 2"),
        (lambda: nn.Conv1d(4, 3, 3, groups=2), ValueError, "out_channels must be a multiple of groups 2, got 3"),
        (lambda: nn.Conv2d(4, 4, 3, groups=0), ValueError, "Conv2d: groups must be positive, got 0"),
        (lambda: nn.Conv2d(4, 4, 3, padding="full"), ValueError, "Conv2d: padding must be .* got 'full'"),
        (lambda: nn.Conv2d(4, 4, 3, 2, "same"), ValueError, r"Conv2d: padding='same' needs stride 1, got \(2, 2\)"),
        (lambda: nn.Conv2d(4, 4, 3, padding_mode="zero"), ValueError, "reflect, replicate, circular, got 'zero'"),
        (lambda: nn.Conv3d(4, 4, (3, 3)), TypeError, r"Conv3d: kernel_size must be an int or 3 ints, got \(3, 3\)"),
        (lambda: nn.Conv3d(4, 4, 0), RuntimeError, "Conv3d: kernel_size must be at least 1, got 0"),
        (lambda: nn.ConvTranspose1d(4, 4, 3, padding_mode="reflect"), ValueError, "must be one of zeros, got"),
        (lambda: nn.ConvTranspose1d(4, 4, 3, padding="same"), TypeError, "ConvTranspose1d: padding must be numbers"),
    ],
)  # fmt: skip
def test_constructor_errors(make, exception, match):
    with pytest.raises(exception, match=match):
        make()


def test_a_small_network_learns():
    """Convolution, stride and transposed convolution: an autoencoder's loss falls to a tenth."""
    cf.manual_seed(0)
    x = cf.randn(4, 1, 6, 6)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
    )  # fmt: skip
    optimizer = cf.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_the_cpu_serves_convolution():
    assert backend_for("cpu").kernel("conv") is cpu
