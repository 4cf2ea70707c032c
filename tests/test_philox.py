"""The Philox stream, the recipes built on it, and the Generator that hands out positions."""

import math
import struct
import threading

import ml_dtypes
import numpy as np
import pytest
import scipy.stats

from cuframe.cpu import philox
from cuframe.random import Generator, default_generator, initial_seed, manual_seed, seed

MASK = 2**64 - 1
FLOATS = ["float16", "bfloat16", "float32", "float64"]
BF16 = np.dtype(ml_dtypes.bfloat16)


def dt(name):
    return BF16 if name == "bfloat16" else np.dtype(name)


def philox4x64_10(counter, key):
    """The definition (Salmon et al. 2011, section 4.3), in Python integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(p1 >> 64) ^ c[1] ^ k0, p1 & MASK, (p0 >> 64) ^ c[3] ^ k1, p0 & MASK]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return c


def words(seed, offset, n):
    out = []
    for b in range(-(-n // 4)):
        out += philox4x64_10([offset + b, 0, 0, 0], [seed, 0])
    return out[:n]


def halves(seed, offset, n):
    return [half for w in words(seed, offset, -(-n // 2)) for half in (w & 0xFFFFFFFF, w >> 32)][:n]


@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ([0] * 4, [0] * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ([MASK] * 4, [MASK] * 2, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
        (
            [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
            [0x452821E638D01377, 0xBE5466CF34E90C6C],
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_the_definition_gives_the_known_answers_of_random123(counter, key, expected):
    assert philox4x64_10(counter, key) == [int(w, 16) for w in expected.split()]


@pytest.mark.parametrize("seed", [0, 1, 0xDEADBEEF, MASK])
@pytest.mark.parametrize("offset", [0, 1, 12345, 2**63 + 5, 2**64 - 3])
@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_words_are_the_definition(seed, offset, n):
    got = philox.philox_words(seed, offset, n)
    assert got.dtype == np.uint64 and got.tolist() == words(seed, offset, n)


def test_words_do_not_depend_on_what_was_drawn_before():
    whole = philox.philox_words(3, 10, 40)
    philox.philox_words(3, 0, 5)
    assert philox.philox_words(3, 12, 8).tolist() == whole[8:16].tolist()
    assert philox.philox_words(3, 14, 8).tolist() == whole[16:24].tolist()  # continues
    philox.philox_words(4, 16, 8)  # other seed, next block
    assert philox.philox_words(3, 16, 8).tolist() == whole[24:32].tolist()


def test_an_interrupted_draw_leaves_no_false_position(monkeypatch):
    class Interrupted:
        state = None

        def random_raw(self, n):
            raise KeyboardInterrupt

    good = philox._source.bits
    philox.philox_words(5, 0, 4)
    philox._source.bits = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        philox.philox_words(5, 1, 4)
    philox._source.bits = good
    good.random_raw(3)
    assert philox.philox_words(5, 1, 4).tolist() == words(5, 1, 4)


def test_words_in_threads():
    expected = [words(9, 7 * k, 50) for k in range(8)]
    got = [None] * 8

    def draw(k):
        got[k] = [philox.philox_words(9, 7 * k, 50).tolist() for _ in range(20)]

    threads = [threading.Thread(target=draw, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(run == expected[k] for k in range(8) for run in got[k])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: philox.philox_words(-1, 0, 1), r"philox_words: seed must be in \[0, 2\*\*64\), got -1"),
        (lambda: philox.philox_words(2**64, 0, 1), "seed must be in"),
        (lambda: philox.philox_words(0, 0, -1), "n must be >= 0, got -1"),
        (lambda: philox.philox_words(0, 2**64 - 1, 5), "offset must be in .* to draw 2 blocks"),
        (lambda: philox.uniform(0, -1, 5), "uniform: offset must be in"),
        (lambda: philox.bernoulli(0, 0, 5, 1.5), r"p must be in \[0, 1\], got 1.5"),
        (lambda: philox.bernoulli(0, 0, 2, np.array([0.5, np.nan])), r"p must be in \[0, 1\], got nan"),
        (lambda: philox.bernoulli(0, 0, 5, np.ones(3)), r"shape \(5,\), got shape \(3,\)"),
        (lambda: philox.randint(0, 0, 5, 3, 3), "low must be less than high, got low=3, high=3"),
        (lambda: philox.randint(0, 0, 5, 0, 257, np.uint8), r"\[0, 257\) must fit uint8"),
        (lambda: philox.randint(0, 0, 5, -1, 5, np.uint64), "must fit uint64"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("recipe", [philox.uniform, philox.normal, philox.exponential])
def test_float_recipes_refuse_other_dtypes(recipe):
    with pytest.raises(TypeError, match=f"{recipe.__name__}: dtype must be float16, bfloat16, .* got int32"):
        recipe(0, 0, 3, np.int32)
    with pytest.raises(TypeError, match="randint: dtype must be an integer type, got float32"):
        philox.randint(0, 0, 3, 0, 2, np.float32)


# -- the recipes, element by element -------------------------------------------------------------------------


def log_recipe(bits, dtype):
    """-ln(u) with NumPy scalars only: what one GPU thread does."""
    F = np.dtype(dtype).type
    if F is np.float32:
        a, s, fmt, root, width, terms = F(bits | 1), 32, "<fI", 0x3F3504F3, 23, 4
    else:
        a, s, fmt, root, width, terms = F((bits >> 11) + 1), 53, "<dQ", 0x3FE6A09E667F3BCD, 52, 9
    raw = struct.unpack("<" + fmt[2], struct.pack(fmt[:2], a))[0] - root
    k = raw >> width
    m = F(struct.unpack(fmt[:2], struct.pack("<" + fmt[2], (raw & ((1 << width) - 1)) + root))[0])
    f = m - F(1)
    t = f / (f + F(2))
    z = t * t
    p = z * F(1 / (2 * terms + 1))
    for j in range(terms - 1, 0, -1):
        p = p + F(1 / (2 * j + 1))
        if j > 1:
            p = p * z
    p = p * z * t + t
    return F(s - k) * F(math.log(2)) - (p + p)


def box_muller_recipe(radius, angle, dtype):
    F = np.dtype(dtype).type
    width = 32 if F is np.float32 else 64
    rho = np.sqrt(log_recipe(radius, dtype))
    j = (angle << 2) % 2**width
    j -= (j >> (width - 1)) << width
    x = F(j) * F(math.pi / 2 * 2.0**-32) if width == 32 else F(j >> 11) * F(math.pi / 2 * 2.0**-53)
    y = x * x

    def series(coefficients):
        acc = y * F(coefficients[-1])
        for c in coefficients[-2:0:-1]:
            acc = (acc + F(c)) * y
        return (acc + F(coefficients[0])) * y

    ns, nc = (4, 4) if width == 32 else (7, 8)
    sin = series([(-1) ** k / math.factorial(2 * k + 1) for k in range(1, ns + 1)]) * x + x
    cos = series([(-1) ** k / math.factorial(2 * k) for k in range(1, nc + 1)]) + F(1)
    z0, z1 = (cos - sin) * rho, (cos + sin) * rho
    return (-z0 if angle >> (width - 1) & 1 else z0), (-z1 if angle >> (width - 2) & 1 else z1)


def reference(recipe, seed, offset, n, name):
    """Element i from the bits that the table in the module's docstring gives it."""
    if name in ("float16", "bfloat16") and recipe != "uniform":
        return reference(recipe, seed, offset, n, "float32").astype(dt(name))
    wide = name == "float64"
    bits = words(seed, offset, n + n % 2) if wide else halves(seed, offset, n + n % 2)
    if recipe == "uniform":
        p = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[name]
        return np.array([(b >> ((64 if wide else 32) - p)) / 2**p for b in bits[:n]]).astype(dt(name))
    if recipe == "exponential":
        return np.array([log_recipe(b, name) for b in bits[:n]], name)
    pairs = [box_muller_recipe(r, a, name) for r, a in zip(bits[0::2], bits[1::2])]
    return np.array(pairs, name).reshape(-1)[:n]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("recipe", ["uniform", "normal", "exponential"])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 301])
def test_float_recipes_bit_for_bit(recipe, name, n):
    got = getattr(philox, recipe)(11, 5, n, dt(name))
    assert got.dtype == dt(name) and got.shape == (n,)
    assert got.tobytes() == reference(recipe, 11, 5, n, name).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_logarithm_recipe_at_its_ends(dtype):
    top = 2**32 - 1 if dtype == "float32" else MASK
    bits = [0, 1, top, top // 2, top // 2 + 1, top - 1, 3 << (20 if dtype == "float32" else 50)]
    got = philox._minus_log(np.array(bits, np.uint32 if dtype == "float32" else np.uint64))
    assert got.tolist() == [float(log_recipe(b, dtype)) for b in bits]
    u = [float(np.float32(b | 1)) / 2**32 if dtype == "float32" else ((b >> 11) + 1) / 2**53 for b in bits]
    np.testing.assert_allclose(got, [-math.log(v) for v in u], rtol=3 * np.finfo(dtype).eps, atol=0)
    assert got[2] == 0 and not np.signbit(got[2])


@pytest.mark.parametrize("dtype, bits", [("float32", "halves"), ("float64", "words")])
def test_the_arithmetic_recipes_are_as_accurate_as_library_functions(dtype, bits):
    raw = np.array(*((halves(2, 0, 4000), np.uint32) if bits == "halves" else (words(2, 0, 4000), np.uint64)))
    eps = np.finfo(dtype).eps
    r, a = raw[0::2], raw[1::2]
    wide = np.longdouble
    u = (
        (r | np.uint32(1)).astype(np.float32).astype(wide) / 2**32
        if bits == "halves"
        else ((r >> np.uint64(11)).astype(wide) + 1) / wide(2) ** 53
    )
    np.testing.assert_allclose(philox._minus_log(r).astype(wide), -np.log(u), rtol=4 * eps)
    width = 32 if bits == "halves" else 64
    top = a >> a.dtype.type(width - 2)
    x = (a << a.dtype.type(2)).view(f"i{width // 8}").astype(wide) * (wide(np.pi) / 2 / wide(2) ** width)
    z = np.empty(4000, dtype)
    philox._box_muller(z, r, a)
    radius = np.sqrt(-2 * np.log(u))
    expect0 = radius * np.cos(np.pi / 4 + x) * np.where(top & 2, -1, 1)
    expect1 = radius * np.sin(np.pi / 4 + x) * np.where(top & 1, -1, 1)
    assert np.abs(z[0::2] - expect0).max() < 6 * eps * 5 and np.abs(z[1::2] - expect1).max() < 6 * eps * 5


@pytest.mark.parametrize("p", [0.0, 2.0**-33, 0.1, 0.5, 1 - 2.0**-33, 1.0])
def test_bernoulli_bit_for_bit(p):
    expected = [h < math.floor(p * 2**32) for h in halves(4, 2, 301)]
    assert philox.bernoulli(4, 2, 301, p).tolist() == expected
    assert philox.bernoulli(4, 2, 301, np.full(301, p)).tolist() == expected


@pytest.mark.parametrize(
    "low, high, dtype",
    [
        (0, 1, "int64"),
        (0, 10, "int64"),
        (-5, 250, "int16"),
        (0, 256, "uint8"),
        (-128, 128, "int8"),
        (7, 7 + 2**32 - 1, "int64"),
        (-1, 2**32 - 1, "int64"),
        (0, 2**32, "uint32"),
        (0, 2**32 + 1, "int64"),
        (-(2**40), 3**30, "int64"),
        (-(2**63), 2**63, "int64"),
        (-(2**63), 2**63 - 1, "int64"),
        (0, 2**64, "uint64"),
        (2**63, 2**64 - 1, "uint64"),
    ],
)
def test_randint_bit_for_bit(low, high, dtype):
    n, span = 203, high - low
    if span <= 2**32:
        expected = [low + ((w * span) >> 64) for w in words(6, 3, n)]
    else:
        w = words(6, 3, 2 * n)
        expected = [low + (((w[2 * i + 1] * 2**64 + w[2 * i]) * span) >> 128) for i in range(n)]
    got = philox.randint(6, 3, n, low, high, dtype)
    assert got.dtype == dtype and got.tolist() == expected


def test_wide_multiply_carries():
    a = np.array([0, 1, MASK, MASK - 1, 2**32, 2**32 - 1, 0x8000000080000000], np.uint64)
    for b in a:
        assert philox._multiply_high(a, b).tolist() == [int(x) * int(b) >> 64 for x in a]
        pairs = np.array([[x, y] for x in a for y in a], np.uint64).reshape(-1)
        if b:
            expected = [(int(y) * 2**64 + int(x)) * int(b) >> 128 for x in a for y in a]
            assert philox._scale_wide(pairs, int(b)).tolist() == expected


def test_permutation_bit_for_bit():
    w = words(8, 1, 100)
    assert philox.permutation(8, 1, 100).tolist() == sorted(range(100), key=lambda i: w[i])
    assert philox.permutation(8, 1, 0).shape == (0,)


RECIPES = {
    **{
        f"{r}-{name}": (
            lambda o, n, r=r, name=name: getattr(philox, r)(1, o, n, dt(name)),
            lambda n, name=name: philox.float_blocks(dt(name), n),
        )
        for r in ("uniform", "normal", "exponential")
        for name in FLOATS
    },
    "bernoulli": (lambda o, n: philox.bernoulli(1, o, n, 0.4), philox.bernoulli_blocks),
    "randint": (lambda o, n: philox.randint(1, o, n, 0, 1000), lambda n: philox.randint_blocks(0, 1000, n)),
    "randint-wide": (
        lambda o, n: philox.randint(1, o, n, 0, 2**40),
        lambda n: philox.randint_blocks(0, 2**40, n),
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_element_depends_on_its_index_only(recipe):
    draw, blocks = RECIPES[recipe]
    n = 4 * philox._CHUNK * 8 // 4 + 77  # more than one chunk of the widest layout
    whole = draw(0, n)
    assert draw(0, 13).tobytes() == whole[:13].tobytes()
    per_block = next(k for k in range(1, 10) if blocks(k + 1) == 2)
    for b in (1, philox._CHUNK - 1, philox._CHUNK, blocks(n) - 1):
        tail = draw(b, n - b * per_block)
        assert tail.tobytes() == whole[b * per_block :].tobytes()
    assert blocks(0) == 0 and blocks(n) == -(-n // per_block)


# -- distributions -------------------------------------------------------------------------------------------

N = 200_000


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(
    "recipe, cdf, mean, var",
    [
        ("uniform", scipy.stats.uniform.cdf, 0.5, 1 / 12),
        ("normal", scipy.stats.norm.cdf, 0.0, 1.0),
        ("exponential", scipy.stats.expon.cdf, 1.0, 1.0),
    ],
)
def test_distributions(recipe, cdf, mean, var, name):
    x = getattr(philox, recipe)(2024, 0, N, dt(name)).astype(np.float64)
    p = {"float16": 11, "bfloat16": 8}.get(name, 24)
    if recipe == "uniform":
        assert x.min() >= 0 and x.max() < 1
        x += 2.0 ** -(p + 1)  # the middle of the cell that was rounded down
    assert abs(x.mean() - mean) < 4 * math.sqrt(var / N) + 2.0**-p / 8
    assert abs(x.var() - var) < 0.02 * var
    if p == 24:
        assert scipy.stats.kstest(x, cdf).pvalue > 0.01
    if recipe == "normal":
        assert abs(scipy.stats.skew(x)) < 0.03 and abs(scipy.stats.kurtosis(x)) < 0.06
        assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 0.01
        assert abs(np.corrcoef(x[0::2] ** 2, x[1::2] ** 2)[0, 1]) < 0.01
        assert 4 < np.abs(x).max() < 6.7
        quadrants = np.bincount((x[0::2] < 0) * 2 + (x[1::2] < 0), minlength=4)
        assert scipy.stats.chisquare(quadrants).pvalue > 0.01


def test_discrete_distributions():
    counts = np.bincount(philox.randint(1, 0, N, 0, 7), minlength=7)
    assert len(counts) == 7 and scipy.stats.chisquare(counts).pvalue > 0.01
    wide = philox.randint(1, 0, N, 0, 3 * 2**61, np.int64).astype(np.float64) / (3 * 2**61)
    assert scipy.stats.kstest(wide, "uniform").pvalue > 0.01
    for p in (0.01, 0.3, 0.9):
        assert scipy.stats.binomtest(int(philox.bernoulli(1, 0, N, p).sum()), N, p).pvalue > 0.01
    orders = [tuple(philox.permutation(1, b, 3)) for b in range(6000)]
    counts = [orders.count(o) for o in sorted(set(orders))]
    assert len(counts) == 6 and scipy.stats.chisquare(counts).pvalue > 0.01


def test_streams_of_neighbouring_seeds_are_unrelated():
    x = np.stack([philox.normal(s, 0, 20_000) for s in range(8)])
    c = np.corrcoef(x)
    assert np.abs(c - np.eye(8)).max() < 0.03


# -- Generator -----------------------------------------------------------------------------------------------


def test_generator_advances_by_the_blocks_of_each_recipe():
    g = Generator(42)
    a = g.uniform((3, 3))
    b = g.normal(5, dtype=np.float64)
    c = g.randint(0, 2**40, 3)
    d = g.bernoulli(0.5, 9)
    e = g.permutation(5)
    f = g.exponential(())
    assert a.tobytes() == philox.uniform(42, 0, 9).tobytes() and a.shape == (3, 3)
    assert b.tobytes() == philox.normal(42, 2, 5, np.float64).tobytes()
    assert c.tobytes() == philox.randint(42, 4, 3, 0, 2**40).tobytes()
    assert d.tobytes() == philox.bernoulli(42, 6, 9, 0.5).tobytes()
    assert e.tobytes() == philox.permutation(42, 8, 5).tobytes()
    assert f.shape == () and f == philox.exponential(42, 10, 1)[0]
    assert g.offset == 11 and repr(g) == "Generator(seed=42, offset=11)"


def test_generator_parameters():
    u, z, e = philox.uniform(3, 0, 100), philox.normal(3, 0, 100), philox.exponential(3, 0, 100)
    assert Generator(3).uniform(100, -2, 3).tobytes() == (u * np.float32(5) + np.float32(-2)).tobytes()
    assert Generator(3).normal(100, 2, 0.5).tobytes() == (z * np.float32(0.5) + np.float32(2)).tobytes()
    assert Generator(3).exponential(100, 4.0).tobytes() == (e / np.float32(4)).tobytes()
    assert Generator(3).uniform(4, 2, 2).tolist() == [2, 2, 2, 2]
    assert Generator(3).normal(4, 2, 0).tolist() == [2, 2, 2, 2]
    p = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert Generator(3).bernoulli(p).tolist() == [[False, True], [True, False]]
    assert Generator(3).bernoulli(1.0).shape == ()


@pytest.mark.parametrize("name", FLOATS)
def test_uniform_never_returns_high(name):
    for low, high in [(1.0, 1.1), (-1.0, 1e-3), (1000.0, 1010.0)]:
        x = Generator(0).uniform(20_000, low, high, dtype=dt(name))
        assert x.dtype == dt(name) and (x < x.dtype.type(high)).all()


def test_generator_seeds_and_state():
    g = Generator(5)
    assert g.initial_seed() == 5 and Generator(-1).initial_seed() == MASK
    assert Generator(np.int64(7)).initial_seed() == 7
    g.uniform(10)
    state = g.get_state()
    assert state == {"algorithm": "philox4x64-10", "seed": 5, "offset": 2}
    a = g.normal(10)
    g.set_state(state)
    assert g.normal(10).tobytes() == a.tobytes()
    other = Generator()
    other.set_state(state)
    assert other.normal(10).tobytes() == a.tobytes()
    assert g.manual_seed(5) is g and g.offset == 0
    first, second = g.seed(), g.seed()
    assert first != second and g.initial_seed() == second


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"algorithm": "mt19937", "seed": 0, "offset": 0},
        {"algorithm": "philox4x64-10", "seed": 0},
        {"algorithm": "philox4x64-10", "seed": -1, "offset": 0},
        {"algorithm": "philox4x64-10", "seed": 0, "offset": True},
        {"algorithm": "philox4x64-10", "seed": 0, "offset": 2**64},
    ],
)
def test_set_state_refuses_what_is_not_a_state(state):
    g = Generator(5)
    with pytest.raises(ValueError, match="set_state: "):
        g.set_state(state)
    assert g.get_state()["seed"] == 5


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda g: g.manual_seed(1.5), TypeError, "manual_seed: seed must be an int, got float"),
        (lambda g: g.manual_seed(2**64), ValueError, "manual_seed: seed must be in"),
        (lambda g: g.uniform((2, -1)), ValueError, r"uniform: size must not be negative, got \(2, -1\)"),
        (lambda g: g.uniform(2, 1, 0), ValueError, "uniform: low and high must be finite with low <= high"),
        (lambda g: g.uniform(2, 0, math.inf), ValueError, "uniform: low and high must be finite"),
        (lambda g: g.uniform(2, dtype=np.int32), TypeError, "got int32"),
        (lambda g: g.normal(2, std=-1), ValueError, "normal: std must be >= 0, got -1"),
        (lambda g: g.normal(2, std=math.nan), ValueError, "normal: std must be >= 0, got nan"),
        (lambda g: g.exponential(2, 0), ValueError, "exponential: rate must be > 0, got 0"),
        (lambda g: g.randint(0, 300, 2, np.uint8), ValueError, "must fit uint8"),
        (lambda g: g.bernoulli(-0.1, 3), ValueError, "bernoulli: p must be in"),
        (lambda g: g.bernoulli(np.zeros(3), 3), ValueError, "with size, p must be a number"),
        (lambda g: g.permutation(-1), ValueError, "permutation: size must not be negative"),
        (lambda g: g.reserve(-1), ValueError, "reserve: blocks must be in"),
    ],
)
def test_generator_bad_arguments_consume_nothing(call, error, message):
    g = Generator(5)
    with pytest.raises(error, match=message):
        call(g)
    assert g.get_state() == {"algorithm": "philox4x64-10", "seed": 5, "offset": 0}


def test_generator_shared_by_threads_gives_every_block_once():
    g = Generator(1)
    drawn = []

    def work():
        for _ in range(200):
            drawn.append(tuple(g.uniform(8)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert g.offset == 800
    assert sorted(drawn) == sorted(map(tuple, philox.uniform(1, 0, 6400).reshape(800, 8)))


def test_generator_is_not_pickled():
    with pytest.raises(TypeError, match="use get_state"):
        Generator(0).__reduce__()


def test_default_generator():
    state = default_generator.get_state()
    try:
        assert manual_seed(12) is default_generator and initial_seed() == 12
        assert seed() == initial_seed()
    finally:
        default_generator.set_state(state)
