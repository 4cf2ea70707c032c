"""Pooling. The references visit every window, as the formulas are written."""

import numpy as np

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

ALL = (*FLOATS, *HALVES)


def each(value, dims):
    value = value if isinstance(value, (tuple, list)) else (value,)
    return value * dims if len(value) == 1 else value


def starts(n, k, s, p, d, ceil_mode):
    size = n + 2 * p - d * (k - 1) - 1
    first = [i * s - p for i in range((-(-size // s) if ceil_mode else size // s) + 1)]
    return [f for f in first if not ceil_mode or f < n]


def over_windows(x, dims, firsts, taps, reduce):
    """`reduce(values, count of positions, flat positions)` of each window, for all samples and channels."""
    spatial = x.shape[-dims:]
    results = []
    for corner in np.ndindex(*(len(f) for f in firsts)):
        inside = []
        for offset in np.ndindex(*(len(t) for t in taps)):
            place = [f[c] + t[o] for f, c, t, o in zip(firsts, corner, taps, offset)]
            if all(0 <= i < n for i, n in zip(place, spatial)):
                inside.append(place)
        values = np.stack([x[(..., *place)] for place in inside], axis=-1)
        flat = np.asarray([np.ravel_multi_index(place, spatial) for place in inside])
        results.append(reduce(values, [f[c] for f, c in zip(firsts, corner)], flat))
    shape = x.shape[:-dims] + tuple(len(f) for f in firsts)
    return [np.stack(part, axis=-1).reshape(shape) for part in zip(*results)]


def maximum(values, corner, flat):
    top = values.argmax(axis=-1)
    return np.take_along_axis(values, top[..., None], -1)[..., 0], flat[top]


def max_pool(dims):
    def reference(x, k, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        k, p, d = (each(v, dims) for v in (k, padding, dilation))
        s = k if stride is None else each(stride, dims)
        firsts = [starts(*w, ceil_mode) for w in zip(x.shape[-dims:], k, s, p, d)]
        taps = [[j * step for j in range(n)] for n, step in zip(k, d)]
        out = over_windows(x, dims, firsts, taps, maximum)
        return out if return_indices else out[0]

    return reference


def avg_pool(dims):
    def reference(x, k, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
        k, p = each(k, dims), each(padding, dims)
        s = k if stride is None else each(stride, dims)
        spatial = x.shape[-dims:]

        def mean(values, corner, flat):
            padded = np.prod([min(c + n, size + q) - c for c, n, size, q in zip(corner, k, spatial, p)])
            count = divisor_override or (padded if count_include_pad else values.shape[-1])
            return (values.sum(axis=-1) / values.dtype.type(count),)

        firsts = [starts(n, j, t, q, 1, ceil_mode) for n, j, t, q in zip(spatial, k, s, p)]
        return over_windows(x, dims, firsts, [range(j) for j in k], mean)[0]

    return reference


def lp_pool(dims):
    def reference(x, norm, k, stride=None, ceil_mode=False):
        mean = avg_pool(dims)(x**norm, k, stride, 0, ceil_mode)
        return (mean * np.prod(each(k, dims))) ** np.asarray(1 / norm, x.dtype)

    return reference


def adaptive(dims, kind):
    def reference(x, output_size, return_indices=False):
        spatial = x.shape[-dims:]
        sizes = [n if o is None else o for n, o in zip(spatial, each(output_size, dims))]
        parts = [[(i * n // o, -(-(i + 1) * n // o)) for i in range(o)] for n, o in zip(spatial, sizes)]
        out, index = np.zeros((*x.shape[:-dims], *sizes), x.dtype), np.zeros((*x.shape[:-dims], *sizes), np.int64)
        places = np.arange(np.prod(spatial)).reshape(spatial)
        for corner in np.ndindex(*sizes):
            window = tuple(slice(*part[c]) for part, c in zip(parts, corner))
            values = x[(..., *window)]
            values = values.reshape((*x.shape[:-dims], places[window].size))
            if kind == "avg":
                out[(..., *corner)] = values.mean(axis=-1)
            else:
                out[(..., *corner)], index[(..., *corner)] = maximum(values, None, places[window].reshape(-1))
        return (out, index) if return_indices else out

    return reference


def fractional(dims):
    def reference(x, k, size=None, ratio=None, return_indices=False, _random_samples=None):
        spatial = x.shape[-dims:]
        k = each(k, dims)
        size = each(size, dims) if ratio is None else [int(n * r) for n, r in zip(spatial, each(ratio, dims))]
        lead = x.shape[:-dims]
        samples = _random_samples.reshape((*lead, dims)).astype(np.float64)
        out, index = np.zeros((*lead, *size), x.dtype), np.zeros((*lead, *size), np.int64)
        for where in np.ndindex(*lead):
            u = samples[where] if dims == 3 else samples[where][::-1]
            firsts = []
            for n, j, o, v in zip(spatial, k, size, u):
                step = (n - j) / (o - 1) if o > 1 else 0
                firsts.append([int((i + v) * step) - int(v * step) for i in range(o - 1)] + [n - j])
            part = over_windows(x[where][None], dims, firsts, [range(j) for j in k], maximum)
            out[where], index[where] = part[0][0], part[1][0]
        return (out, index) if return_indices else out

    return reference


def unpool(dims):
    def reference(x, index, k, stride=None, padding=0, output_size=None):
        k, p = each(k, dims), each(padding, dims)
        s = k if stride is None else each(stride, dims)
        spatial = tuple((n - 1) * t - 2 * q + j for n, j, t, q in zip(x.shape[-dims:], k, s, p))
        spatial = spatial if output_size is None else tuple(output_size)[-dims:]
        out = np.zeros((*x.shape[:-dims], np.prod(spatial)), x.dtype)
        np.put_along_axis(out, index.reshape((*x.shape[:-dims], -1)), x.reshape((*x.shape[:-dims], -1)), -1)
        return out.reshape((*x.shape[:-dims], *spatial))

    return reference


SHAPES = {1: (7,), 2: (4, 5), 3: (2, 3, 4)}


def distinct(make, *shape):
    """Values at least 0.01 apart, so that finite differences do not change which is the largest."""
    t = make(*shape)
    values = make.rng.permutation(t.array.size) * 0.05 - 0.02 * t.array.size
    t.array[...] = values.reshape(shape).astype(t.array.dtype)
    return t


def max_samples(dims, indices=True):
    def samples(make):
        more = {"return_indices": True} if indices else {}
        n = SHAPES[dims]
        yield Sample((distinct(make, 1, 2, *n), 2))
        yield Sample((distinct(make, 2, *n), 3 if dims < 3 else 2, 1, 1), more)
        yield Sample((distinct(make, 1, *n), 2, 3), {"padding": 1, "ceil_mode": True, **more})
        yield Sample((distinct(make, 1, *(m + 1 for m in n)), (2, 2, 1)[:dims]), {"stride": 1, "dilation": 2})
        yield Sample((make(0, 1, *n), 2))

    return samples


def max_errors(dims, name):
    def errors(make):
        n = SHAPES[dims]
        x = make(1, 2, *n)
        yield ErrorInput((make(3), 2), {}, RuntimeError, rf"{name}: input must be .* got shape \(3,\)")
        yield ErrorInput((make(2, 0, *n), 2), {}, RuntimeError, f"{name}: only the batch dimension .*may have size 0")
        yield ErrorInput((x, 0), {}, RuntimeError, f"{name}: kernel_size must be at least 1")
        yield ErrorInput((x, 2, 0), {}, RuntimeError, f"{name}: stride must be at least 1")
        yield ErrorInput((x, 2, 1, -1), {}, RuntimeError, f"{name}: padding must be at least 0")
        yield ErrorInput((x, 2, 1, 2), {}, RuntimeError, rf"{name}: padding must be at most half of .*\(2\), got 2")
        yield ErrorInput((x, 9), {}, RuntimeError, rf"{name}: the window \(9\) must fit into the padded input")
        yield ErrorInput((x, (2,) * (dims + 1)), {}, RuntimeError, f"{name}: kernel_size must be an int or {dims} ints")
        yield ErrorInput((x, 2.5), {}, TypeError, f"{name}: kernel_size must be an int, got float")
        yield ErrorInput((make(1, 2, *n, dtype="int64"), 2), {}, TypeError, f"{name}: input must be floating point")

    return errors


def avg_samples(dims):
    def samples(make):
        n = SHAPES[dims]
        yield Sample((make(1, 2, *n), 2))
        yield Sample((make(2, *n), 3 if dims < 3 else 2, 1, 1))
        yield Sample((make(1, *n), 2, 3), {"padding": 1, "ceil_mode": True})
        yield Sample((make(1, *n), (2, 3, 2)[:dims], 2, (1,), True, False))
        yield Sample((make(0, 1, *n), 2))
        if dims > 1:
            yield Sample((make(1, *n), 2), {"padding": 1, "divisor_override": 3})

    return samples


def avg_errors(dims, name):
    def errors(make):
        x = make(1, 2, *SHAPES[dims])
        yield ErrorInput((make(3), 2), {}, RuntimeError, rf"{name}: input must be .* got shape \(3,\)")
        yield ErrorInput((x, 2, 1, 2), {}, RuntimeError, rf"{name}: padding must be at most half of .*\(2\), got 2")
        yield ErrorInput((x, 9), {}, RuntimeError, rf"{name}: the window \(9\) must fit into the padded input")
        if dims > 1:
            more = {"divisor_override": 0}
            yield ErrorInput((x, 2), more, RuntimeError, f"{name}: divisor_override must not be 0")

    return errors


def lp_samples(dims):
    def samples(make):
        n = SHAPES[dims]
        yield Sample((make(1, 2, *n, low=0.1), 2, 2))
        yield Sample((make(1, *n, low=0.1), 1.5, (2, 3, 2)[:dims], 1))
        yield Sample((make(1, *n, low=0.1), 1, 2), {"ceil_mode": True})
        yield Sample((make(1, *n), 2.0, 2, 2, True))

    return samples


def lp_errors(dims, name):
    def errors(make):
        yield ErrorInput((make(3), 2, 2), {}, RuntimeError, rf"{name}: input must be .* got shape \(3,\)")
        yield ErrorInput((make(1, *SHAPES[dims]), 0, 2), {}, ValueError, f"{name}: norm_type must not be 0")

    return errors


def adaptive_samples(dims, kind):
    def samples(make):
        n = SHAPES[dims]
        more = {"return_indices": True} if kind == "max" else {}
        yield Sample((distinct(make, 1, 2, *n), (3, 2, 3)[:dims]), more)
        yield Sample((distinct(make, 2, *n), 1))
        yield Sample((distinct(make, 1, *n), 2), more)
        yield Sample((distinct(make, 1, *n), tuple(m + 1 for m in n)))
        yield Sample((make(0, 1, *n), 2))
        if dims > 1:
            yield Sample((distinct(make, 1, *n), (None, 3, 2)[:dims]))

    return samples


def adaptive_errors(dims, name):
    def errors(make):
        x = make(1, 2, *SHAPES[dims])
        yield ErrorInput((make(3), 2), {}, ValueError, rf"{name}: input must be .* got shape \(3,\)")
        yield ErrorInput((x, (2,) * (dims + 1)), {}, RuntimeError, f"{name}: output_size must be an int or {dims} of")
        yield ErrorInput((x, -1), {}, RuntimeError, f"{name}: output_size must not be negative")

    return errors


def fractional_samples(dims):
    def samples(make):
        n = SHAPES[dims] if dims == 2 else (3, 4, 4)
        draws = {"_random_samples": make(1, 2, dims, low=0, high=1, requires_grad=False)}
        yield Sample((distinct(make, 1, 2, *n), 2, (2, 3, 3)[:dims]), {"return_indices": True, **draws})
        yield Sample((distinct(make, 2, *n), (2, 1, 2)[:dims], None, 0.5), draws)
        yield Sample((distinct(make, 1, 2, *n), 2, 1), draws)

    return samples


def fractional_errors(dims, name):
    def errors(make):
        x = make(1, 2, *SHAPES[dims])
        yield ErrorInput((x, 2), {}, ValueError, f"{name}: needs either output_size or output_ratio")
        yield ErrorInput((x, 2), {"output_ratio": 1.5}, ValueError, rf"{name}: output_ratio must be .*\(0, 1\).*1.5")
        yield ErrorInput((x, 2, 9), {}, RuntimeError, f"{name}: 9 different windows of 2 must fit")
        bad = {"_random_samples": make(1, 2, dims + 1)}
        yield ErrorInput((x, 1, 1), bad, RuntimeError, rf"{name}: _random_samples must be \(1, 2, {dims}\)")

    return errors


def unpool_samples(dims):
    def samples(make):
        def index(*shape, total):
            import cuframe as cf

            rows = [make.rng.permutation(total)[: np.prod(shape[-dims:])] for _ in range(np.prod(shape[:-dims]))]
            return cf.Tensor(np.stack(rows).reshape(shape))

        small = (2, 2, 1)[:dims]
        yield Sample((make(2, *small), index(2, *small, total=2 * 2**dims), 2))
        yield Sample((make(1, 2, *small), index(1, 2, *small, total=int(np.prod(small)) + 1), 2, 1))
        larger = tuple(2 * m + 1 for m in small)
        yield Sample((make(1, *small), index(1, *small, total=6), 2), {"output_size": (1, 1, *larger)})

    return samples


def unpool_errors(dims, name):
    def errors(make):
        x, index = make(1, *(2,) * dims), make(1, *(2,) * dims, low=0, dtype="int64")
        short = make(1, *(2,) * dims, dtype="int32")
        yield ErrorInput((x, short, 2), {}, RuntimeError, f"{name}: indices must be int64, got int32")
        wrong = make(1, *(1,) * dims, dtype="int64")
        yield ErrorInput((x, wrong, 2), {}, RuntimeError, f"{name}: indices must have the shape of input")
        yield ErrorInput((x, index, 2), {"output_size": (9,) * dims}, ValueError, f"{name}: output_size must lie")
        yield ErrorInput((x, index, 2), {"output_size": (9,) * 9}, ValueError, f"{name}: output_size must have")
        yield ErrorInput((x, index + 999, 2), {}, IndexError, f"{name}: indices must be in")

    return errors


def entry(name, samples, reference, errors):
    return OpInfo(
        f"nn.functional.{name}", samples=samples, reference=reference, dtypes=ALL, errors=errors,
        zero_size=False,
    )  # fmt: skip


def with_indices(reference):
    return lambda *args, **kwargs: reference(*args, **{**kwargs, "return_indices": True})


OPS = []
for D in (1, 2, 3):
    MAX, AVG, LP = f"max_pool{D}d", f"avg_pool{D}d", f"lp_pool{D}d"
    OPS += [
        entry(MAX, max_samples(D), max_pool(D), max_errors(D, MAX)),
        entry(f"{MAX}_with_indices", max_samples(D, False), with_indices(max_pool(D)), max_errors(D, MAX)),
        entry(AVG, avg_samples(D), avg_pool(D), avg_errors(D, AVG)),
        entry(LP, lp_samples(D), lp_pool(D), lp_errors(D, LP)),
        entry(f"max_un{MAX[4:]}", unpool_samples(D), unpool(D), unpool_errors(D, f"max_un{MAX[4:]}")),
    ]
    for KIND in ("avg", "max"):
        NAME = f"adaptive_{KIND}_pool{D}d"
        OPS.append(entry(NAME, adaptive_samples(D, KIND), adaptive(D, KIND), adaptive_errors(D, NAME)))
        if KIND == "max":
            REFERENCE = with_indices(adaptive(D, KIND))
            OPS.append(entry(f"{NAME}_with_indices", adaptive_samples(D, "any"), REFERENCE, adaptive_errors(D, NAME)))
    if D > 1:
        NAME = f"fractional_max_pool{D}d"
        OPS.append(entry(NAME, fractional_samples(D), fractional(D), fractional_errors(D, NAME)))
        REFERENCE = with_indices(fractional(D))
        OPS.append(entry(f"{NAME}_with_indices", fractional_samples(D), REFERENCE, fractional_errors(D, NAME)))
