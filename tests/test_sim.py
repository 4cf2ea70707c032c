"""The simulator runs kernels as a GPU does: coordinates, memory, collectives, atomics, types, random numbers."""

from __future__ import annotations

import ctypes
import threading

import ml_dtypes
import numpy as np
import pytest

from cuframe.cpu import philox
from cuframe.cuda import sim
from tests.sim_helpers import KERNELS, ORDERS, f32, i32, i64, launch, needs_compiler, u64

pytestmark = needs_compiler

FLOATS = {"float": np.float32, "double": np.float64, "half": np.float16, "bf16": ml_dtypes.bfloat16}
ALL = (
    "coordinates", *(f"to_floats<{t}>" for t in ("half", "bf16")),
    *(f"converted<{t}, {f}>" for t in ("half", "bf16") for f in ("float", "double")),
    "block_sums", "shared_kinds", "votes", "collectives", *(f"reductions<{t}>" for t in FLOATS), "butterflies",
    "atomics", "bits", "philox", *(f"product<{t}, {tr}>" for t in ("half", "bf16") for tr in ("false", "true")),
    "product_tf32", "pipelined_sum", "relay", "token", *(f"packs<{t}>" for t in FLOATS), "many_types", "greeting",
)  # fmt: skip


def run(expression, *args, **sizes):
    launch(KERNELS / "features.cu", expression, *args, beside=ALL, **sizes)


@pytest.fixture(params=ORDERS)
def any_order(request):
    with sim.order(request.param):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_coordinates(any_order):
    where = np.zeros((4 * 3 * 2, 5 * 3 * 2, 6), np.uint32)
    run("coordinates", where, grid=(4, 3, 2), block=(5, 3, 2))
    for b in range(24):
        for t in range(30):
            assert where[b, t].tolist() == [t % 5, t // 5 % 3, t // 15, b % 4, b // 4 % 3, b // 12]


@pytest.mark.parametrize("ctype", ["half", "bf16"])
def test_every_16_bit_float_converts_exactly(ctype):
    x = np.arange(65536).astype(np.uint16).view(FLOATS[ctype])
    y = np.zeros(65536, np.float32)
    run(f"to_floats<{ctype}>", x, y, i64(x.size), grid=256, block=256)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(y, x.astype(np.float32))


@pytest.mark.parametrize("ctype", ["half", "bf16"])
@pytest.mark.parametrize("source", ["float", "double"])
def test_conversion_rounds_to_nearest_even(ctype, source, rng):
    """Random bits, all 16-bit values, the points half way between them, and their neighbours."""
    with np.errstate(all="ignore"):
        grid = np.arange(65536).astype(np.uint16).view(FLOATS[ctype]).astype(FLOATS[source])
        grid = np.sort(grid[np.isfinite(grid)])
        middle = (grid[1:] + grid[:-1]) / 2
        bits = rng.integers(0, 2**32, 40000, dtype=np.uint32).view(np.float32).astype(FLOATS[source])
        x = np.concatenate([grid, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), bits,
                            np.array([np.inf, -np.inf, np.nan, 65519.99, 65520, 3.39e38, 1e-8, -0.0], FLOATS[source])])
        x = x.astype(FLOATS[source])
        # ml_dtypes rounds a double to float first, so the reference for bf16 is made of two exact comparisons
        expected = x.astype(FLOATS[ctype]) if (ctype, source) != ("bf16", "double") else nearest_bf16(x)
    y = np.zeros(x.size, FLOATS[ctype])
    run(f"converted<{ctype}, {source}>", x, y, i64(x.size), grid=-(-x.size // 256), block=256)
    nan = np.isnan(x)
    assert np.isnan(y[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(y[~nan].view(np.uint16), expected[~nan].view(np.uint16))


def nearest_bf16(x):
    """Doubles to bfloat16 in one rounding: the nearer of the two neighbours, the even one in a tie."""
    values = np.arange(0x7F81, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float64)
    values[-1] = 2.0**128  # infinity stands where the next number would
    above = np.clip(np.searchsorted(values, abs(x)), 1, len(values) - 1)
    up, down = values[above] - abs(x), abs(x) - values[above - 1]
    bits = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, above - 1)
    return (bits | np.signbit(x) << 15).astype(np.uint16).view(ml_dtypes.bfloat16)


def test_block_sums_with_barriers(any_order, rng):
    x = rng.standard_normal((7, 256)).astype(np.float32)
    y = np.zeros(7, np.float32)
    run("block_sums", x, y, grid=7, block=256)
    np.testing.assert_allclose(y, x.sum(1), atol=1e-4)


def test_shared_memory_is_poisoned_and_apart(any_order):
    y = np.zeros(96, np.float32)
    for _ in range(2):
        run("shared_kinds", y, shared=32 * 4)
        assert np.isnan(y[:64]).all()
        np.testing.assert_array_equal(y[64:], 6)


@pytest.mark.parametrize("threads", [1, 31, 33, 96, 1024])
def test_votes_of_a_block(any_order, threads):
    y = np.zeros((threads, 4), np.int32)
    run("votes", y, block=threads)
    np.testing.assert_array_equal(y, [[threads // 2, threads <= 1000, threads > 1, 0]] * threads)


def test_warp_collectives(any_order):
    lane = np.arange(32)
    expected = [
        np.full(32, 5), lane // 8 * 8 + (lane + 1) % 8, np.where(lane < 3, lane, lane - 3),
        np.where(lane % 8 < 3, lane, lane - 3), np.where(lane > 28, lane, lane + 3),
        np.where(lane % 8 > 4, lane, lane + 3), lane ^ 6,
        np.where((lane ^ 9) >= lane // 8 * 8 + 8, lane, lane ^ 9),
        np.full(32, sum(1 << i for i in range(0, 32, 3)), np.uint32).view(np.int32),
        np.full(32, 1), np.full(32, 1), np.full(32, 496), np.full(32, -7 + 2400),
        np.array([sum(1 << j for j in range(32) if j // 5 == i // 5) for i in lane], np.uint32).view(np.int32),
        4 * (31 - lane) + 1, np.where(lane < 16, (lane ^ 1) + (lane ^ 2) + (lane ^ 4), lane ^ 15),
    ]  # fmt: skip
    y = np.zeros((16, 32), np.int32)
    run("collectives", y)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("ctype", FLOATS)
@pytest.mark.parametrize("threads", [(32,), (128,), (16, 4, 3), (1024,)])
def test_block_reductions(any_order, ctype, threads, rng):
    x = rng.integers(-8, 9, 1000).astype(FLOATS[ctype])
    y = np.zeros(3, FLOATS[ctype])
    run(f"reductions<{ctype}>", x, y, i64(x.size), block=threads)
    wide = x.astype(np.float64)
    assert y.astype(np.float64).tolist() == [float(wide.sum().astype(FLOATS[ctype])), wide.max(), wide.min()]


def test_warp_reduce_is_the_butterfly_to_the_bit(any_order, rng):
    x, y = rng.standard_normal(32).astype(np.float32), np.zeros((2, 32), np.float32)
    run("butterflies", x, y)
    np.testing.assert_array_equal(y[0], y[1])
    assert len(np.unique(y)) > 16


def test_atomics(any_order):
    i, u, long = np.array([0, 99, 0, 0, 0], np.int32), np.zeros(5, np.uint32), np.zeros(2, np.uint64)
    f, d = np.zeros(1, np.float32), np.zeros(1)
    run("atomics", i, u, long, f, d, grid=3, block=40)
    assert i.tolist() == [7140, -5, 119, 2**31 - 1, -120]
    ones = [sum(t % 32 == b for t in range(120)) % 2 for b in range(32)]
    assert u.tolist() == [120, 0, sum(bit << b for b, bit in enumerate(ones)), 7, 240]
    assert long.tolist() == [120 << 32, 119 << 33]
    assert (f[0], d[0]) == (60, 30)


def test_bits_and_conversions():
    y = np.zeros(23, np.int32)
    run("bits", y, block=1)
    assert y.tolist() == [31, 32, 63, 8, 64, 4, 0, 1, 1, 3, -1, 3, 3, 0, 1, 1, 2, -2, 2**31 - 1, 0, 1023, 1, 6]


@pytest.mark.parametrize("seed, offset", [(0, 0), (77, 2**63 + 5), (2**64 - 1, 2**64 - 31)])
def test_philox_gives_the_numbers_of_the_cpu(seed, offset):
    n, p = 30, 0.3
    words, d = np.zeros(4 * n, np.uint64), np.zeros(4 * n)
    u, kept = np.zeros(8 * n, np.float32), np.zeros(8 * n, np.uint8)
    run("philox", u64(seed), u64(offset), u64(int(p * 2**32)), words, u, d, kept, block=n)
    np.testing.assert_array_equal(words, philox.philox_words(seed, offset, 4 * n))
    np.testing.assert_array_equal(u, philox.uniform(seed, offset, 8 * n))
    np.testing.assert_array_equal(d, philox.uniform(seed, offset, 4 * n, np.float64))
    np.testing.assert_array_equal(kept, philox.bernoulli(seed, offset, 8 * n, p))


@pytest.mark.parametrize("ctype", ["half", "bf16"])
@pytest.mark.parametrize("transposed", [False, True])
def test_tensor_core_product(any_order, ctype, transposed, rng):
    a = rng.standard_normal((16, 16)).astype(FLOATS[ctype])
    b = rng.standard_normal((16, 8) if transposed else (8, 16)).astype(FLOATS[ctype])
    c = np.zeros((16, 8), np.float32)
    run(f"product<{ctype}, {str(transposed).lower()}>", a, b, c)
    right = b.astype(np.float32) if transposed else b.astype(np.float32).T
    np.testing.assert_allclose(c, a.astype(np.float32) @ right, atol=1e-5)


def test_tf32_product_rounds_its_operands(any_order, rng):
    a, b = rng.standard_normal((16, 8)).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)
    c = np.zeros((16, 8), np.float32)
    run("product_tf32", a, b, c)

    def rounded(x):
        return ((x.view(np.uint32) + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)

    np.testing.assert_allclose(c, rounded(a) @ rounded(b), atol=1e-5)
    assert abs(c - a @ b).max() > 1e-5


@pytest.mark.parametrize("n", [4, 128, 132, 1000])
def test_async_copies_in_two_stages(any_order, n, rng):
    x, y = rng.standard_normal(n).astype(np.float32), np.zeros(1, np.float32)
    run("pipelined_sum", x, y, i32(n))
    np.testing.assert_allclose(y[0], x.sum(), atol=1e-4)


def test_grid_barrier(any_order):
    blocks, rounds = 8, 13
    state = np.zeros(1, np.uint32)
    for _ in range(2):  # the barrier's counter serves the next launch as it is
        values = np.zeros((2, blocks), np.int32)
        values[0] = range(blocks)
        run("relay", state, values, i32(rounds), grid=blocks, block=64, cooperative=True)
        assert values[rounds % 2].tolist() == [(b + rounds) % blocks + rounds for b in range(blocks)]


def test_blocks_that_wait_for_each_other(any_order):
    flags, order = np.zeros(20, np.uint32), np.zeros(20, np.int32)
    run("token", flags, order, grid=20, cooperative=True)
    assert order.tolist() == list(range(20))


@pytest.mark.parametrize("ctype", FLOATS)
def test_packs(ctype, rng):
    n = 16 // np.dtype(FLOATS[ctype]).itemsize
    x = rng.standard_normal((32, n)).astype(FLOATS[ctype])
    y = np.zeros_like(x)
    run(f"packs<{ctype}>", x, y)
    np.testing.assert_array_equal(y.view(np.uint8), np.ascontiguousarray(x[:, ::-1]).view(np.uint8))


class Settings(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_float), ("n", ctypes.c_int64)]


def test_arguments_of_many_types():
    x, y = np.arange(5, dtype=np.float32), np.zeros(6, np.float32)
    run("many_types", Settings(2.0, 5), x, y, ctypes.c_double(0.5), ctypes.c_bool(True), ctypes.c_uint8(3))
    assert y.tolist() == [3.5, 1.5, -0.5, -2.5, -4.5, 0]


def test_a_kernel_in_plain_cuda():
    x = np.arange(40, dtype=np.float32)
    launch(KERNELS / "plain.cu", "scale", x, f32(2.0), ctypes.c_size_t(39), grid=2)
    assert x.tolist() == [*(2.0 * i for i in range(39)), 39.0]


def test_printf(capfd):
    run("greeting", i32(2))
    assert capfd.readouterr().out == "thread 0 of greeting\nthread 1 of greeting\n"


def test_launches_from_several_threads(rng):
    """ctypes lets go of the GIL, so these run at once."""
    x = rng.standard_normal((16, 256)).astype(np.float32)
    results = np.zeros((4, 16), np.float32)

    def work(i):
        for _ in range(20):
            run("block_sums", x, results[i], grid=16, block=256)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_allclose(results, [x.sum(1)] * 4, atol=1e-4)
