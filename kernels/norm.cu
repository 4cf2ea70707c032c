// Normalisation, forward and backward: LayerNorm and RMSNorm, and the statistics and applications of BatchNorm, GroupNorm
// and InstanceNorm.
//
//   h = (x - mean) rstd,  rstd = 1 / sqrt(var + eps),  y = h w + b
//   gx = rstd (k - mean(k) - h mean(k h)) with k = g w;  gw = sum g h,  gb = sum g
//   RMSNorm has no mean: h = x rstd, gx = rstd (k - h mean(k h)).
//
// Sources    Ba et al., "Layer Normalization", 2016; Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019;
//            Ioffe and Szegedy, "Batch Normalization", 2015; Wu and He, "Group Normalization", 2018.
// Layout     rows: x, g, y, gx [rows, size] row-major, w and b [size].
//            channels: x [N * C, size], w and b [C]; row r is sample r / C, channel r % C, and its statistics are those
//            of channel r % C (batches, per = 0) or of r / per, where per = C / groups adjacent rows share them.
// Parallel   rows: GROUP threads share a row - 8 or 32 lanes, or a block - and hold its beginning in registers, so that
//            the mean, then the squares about it, then y are computed of what was read once; longer rows are read again,
//            from cache.
//            columns, for the gradients of w and b: a block of 32 x 8 threads takes 32 packs of columns and some rows,
//            and leaves partial sums; a second launch adds those up.  No atomics: the order of additions is fixed by the
//            sizes alone.
//            channels: moments and sums of rows as above, few long rows being cut into parts; they are joined by Chan's formula ("Updating
//            formulae and a pairwise algorithm for computing sample variances", 1979, equation 2.1), so nothing cancels.
//            The application takes the array as flat, a pack a thread.
// Saved      x, mean and rstd.  fp16 and bf16 are computed in fp32; their w and b may be fp32, too.
// Floor      rows: 2 values moved an element forward, 3 backward.  Backward moves 5 where w or b have gradients, since
//            the columns are a pass of their own.  Channels: 3 forward (statistics, then application), 5 backward.
// To measure 5 moves against a fused pass that holds gw and gb in registers, at an occupancy of a quarter; the lengths at
//            which a row passes from 8 lanes to 32 and to a block; into how many parts few long rows are best cut.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/index.cuh"
#include "common/reduce.cuh"

// The sum over GROUP threads: lanes of a warp, or a block.  All lanes of a warp take part, also those past the last row.
template <int GROUP, class A> __device__ __forceinline__ A sum_of(A x AND_CALLER) {
    if constexpr (GROUP <= 32) return warp_reduce<GROUP>(x, Sum() AND_PASS_CALLER);
    else return block_sum(x AND_PASS_CALLER);
}

// A weight or bias: of the elements' type, or of what they accumulate in, or none.
template <class T> struct Factor {
    typedef acc_t<T> A;
    const T* narrow;
    const A* wide;

    template <int N> __device__ __forceinline__ bool aligned() const {
        constexpr int M = N * sizeof(A) <= 16 ? N : 16 / sizeof(A);
        return pack_aligned<N>(narrow) && pack_aligned<M>(wide);
    }
    // Elements i ... i+N-1, or `neutral`.
    template <int N> __device__ __forceinline__ void load(int64 i, A neutral, A (&out)[N]) const {
        constexpr int M = N * sizeof(A) <= 16 ? N : 16 / sizeof(A);
        if (narrow) {
            Pack<T, N> p = load_pack<N>(narrow + i);
            for (int j = 0; j < N; ++j) out[j] = to_acc(p[j]);
        } else if (wide) {
            for (int k = 0; k < N; k += M) {
                Pack<A, M> p = load_pack<M>(wide + i + k);
                for (int j = 0; j < M; ++j) out[k + j] = p[j];
            }
        } else {
            for (int j = 0; j < N; ++j) out[j] = neutral;
        }
    }
    __device__ __forceinline__ A at(int64 i, A neutral) const {
        return narrow ? to_acc(narrow[i]) : wide ? wide[i] : neutral;
    }
};

// A row as its GROUP threads see it: packs lane, lane + GROUP, ...; the first HELD of each thread stay in registers.
template <class T, int N, int GROUP, int HELD> struct Row {
    const T* x;
    uint32 size, lane;
    Pack<T, N> held[HELD];

    __device__ __forceinline__ Row(const T* x, uint32 size, uint32 lane) : x(x), size(size), lane(lane) {
#pragma unroll
        for (int k = 0; k < HELD; ++k) {
            uint32 i = (k * GROUP + lane) * N;
            if (i < size) held[k] = load_pack<N>(x + i);
        }
    }
    template <class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll
        for (int k = 0; k < HELD; ++k) {
            uint32 i = (k * GROUP + lane) * N;
            if (i < size) f(held[k], i);
        }
        for (uint32 i = (HELD * GROUP + lane) * N; i < size; i += GROUP * N) f(load_pack<N>(x + i), i);
    }
    // The packs of this row and of another one at the same places.
    template <class F> __device__ __forceinline__ void with(const Row& other, F f) const {
#pragma unroll
        for (int k = 0; k < HELD; ++k) {
            uint32 i = (k * GROUP + lane) * N;
            if (i < size) f(held[k], other.held[k], i);
        }
        for (uint32 i = (HELD * GROUP + lane) * N; i < size; i += GROUP * N)
            f(load_pack<N>(x + i), load_pack<N>(other.x + i), i);
    }
    // The mean, and the sum of squares about it: two passes, so that nothing cancels.
    __device__ __forceinline__ void moments(bool centred, acc_t<T>& mean, acc_t<T>& squares) const {
        typedef acc_t<T> A;
        A m = 0, s = 0;
        if (centred) {
            each([&](const Pack<T, N>& p, uint32) {
                for (int j = 0; j < N; ++j) m += to_acc(p[j]);
            });
            m = sum_of<GROUP>(m) / A(size);
        }
        each([&](const Pack<T, N>& p, uint32) {
            for (int j = 0; j < N; ++j) {
                A d = to_acc(p[j]) - m;
                s += d * d;
            }
        });
        mean = m;
        squares = sum_of<GROUP>(s);
    }
};

// The row of a group of threads.  Those past the last one compute it again, for the collectives, and store nothing.
struct Place {
    int64 row;
    uint32 lane;
    bool live;
};
template <int GROUP> __device__ __forceinline__ Place place(int64 rows) {
    int64 row = blockIdx.x * static_cast<int64>(blockDim.x / GROUP) + threadIdx.x / GROUP;
    return {row < rows ? row : rows - 1, threadIdx.x % GROUP, row < rows};
}

// -- rows ----------------------------------------------------------------------------------------------------------------
template <class T, int N, int GROUP>
__device__ __forceinline__ void row_forward(const T* x, Factor<T> w, Factor<T> b, T* y, acc_t<T>* mean, acc_t<T>* rstd,
                                            Place at, uint32 size, acc_t<T> eps) {
    typedef acc_t<T> A;
    Row<T, N, GROUP, GROUP <= 32 ? 8 : 4> row(x + at.row * size, size, at.lane);
    A m, squares;
    row.moments(mean != nullptr, m, squares);
    A r = A(1) / sqrt(squares / A(size) + eps);
    if (!at.live) return;
    y += at.row * size;
    row.each([&](const Pack<T, N>& p, uint32 i) {
        Pack<T, N> out;
        A wi[N], bi[N];
        w.load(i, A(1), wi);
        b.load(i, A(0), bi);
        for (int j = 0; j < N; ++j) out[j] = convert<T>((to_acc(p[j]) - m) * r * wi[j] + bi[j]);
        store_pack(y + i, out);
    });
    if (at.lane == 0) {
        if (mean) mean[at.row] = m;
        rstd[at.row] = r;
    }
}

template <class T, int GROUP>
__global__ void norm_rows_forward(const T* __restrict__ x,              // [rows, size]
                                  const T* __restrict__ w,              // [size] or null
                                  const acc_t<T>* __restrict__ w_wide,  // [size] or null: in place of w
                                  const T* __restrict__ b,              // [size] or null
                                  const acc_t<T>* __restrict__ b_wide,  // [size] or null
                                  T* __restrict__ y,                    // [rows, size]
                                  acc_t<T>* __restrict__ mean,          // [rows], or null: not centred
                                  acc_t<T>* __restrict__ rstd,          // [rows]
                                  int64 rows, int32 size, double eps) {
    constexpr int N = pack_size<T>;
    Factor<T> weight{w, w_wide}, bias{b, b_wide};
    Place at = place<GROUP>(rows);
    if (size % N == 0 && pack_aligned<N>(x) && pack_aligned<N>(y) && weight.template aligned<N>() && bias.template aligned<N>())
        row_forward<T, N, GROUP>(x, weight, bias, y, mean, rstd, at, size, eps);
    else
        row_forward<T, 1, GROUP>(x, weight, bias, y, mean, rstd, at, size, eps);
}

template <class T, int N, int GROUP>
__device__ __forceinline__ void row_backward(const T* g, const T* x, Factor<T> w, const acc_t<T>* mean, const acc_t<T>* rstd,
                                             T* gx, Place at, uint32 size) {
    typedef acc_t<T> A;
    Row<T, N, GROUP, 4> gs(g + at.row * size, size, at.lane), xs(x + at.row * size, size, at.lane);
    A m = mean ? mean[at.row] : A(0), r = rstd[at.row], s1 = 0, s2 = 0;
    gs.with(xs, [&](const Pack<T, N>& gp, const Pack<T, N>& xp, uint32 i) {
        A wi[N];
        w.load(i, A(1), wi);
        for (int j = 0; j < N; ++j) {
            A k = to_acc(gp[j]) * wi[j];
            s1 += k;
            s2 += k * (to_acc(xp[j]) - m);
        }
    });
    s1 = mean ? sum_of<GROUP>(s1) / A(size) : A(0);
    s2 = sum_of<GROUP>(s2) / A(size) * r * r;
    if (!at.live) return;
    gx += at.row * size;
    gs.with(xs, [&](const Pack<T, N>& gp, const Pack<T, N>& xp, uint32 i) {
        A wi[N];
        Pack<T, N> out;
        w.load(i, A(1), wi);
        for (int j = 0; j < N; ++j) out[j] = convert<T>(r * (to_acc(gp[j]) * wi[j] - s1 - (to_acc(xp[j]) - m) * s2));
        store_pack(gx + i, out);
    });
}

template <class T, int GROUP>
__global__ void norm_rows_backward(const T* __restrict__ g,              // [rows, size]
                                   const T* __restrict__ x,              // [rows, size]
                                   const T* __restrict__ w,              // [size] or null
                                   const acc_t<T>* __restrict__ w_wide,  // [size] or null: in place of w
                                   const acc_t<T>* __restrict__ mean,    // [rows], or null: not centred
                                   const acc_t<T>* __restrict__ rstd,    // [rows]
                                   T* __restrict__ gx,                   // [rows, size]
                                   int64 rows, int32 size) {
    constexpr int N = pack_size<T>;
    Factor<T> weight{w, w_wide};
    Place at = place<GROUP>(rows);
    if (size % N == 0 && pack_aligned<N>(g) && pack_aligned<N>(x) && pack_aligned<N>(gx) && weight.template aligned<N>())
        row_backward<T, N, GROUP>(g, x, weight, mean, rstd, gx, at, size);
    else
        row_backward<T, 1, GROUP>(g, x, weight, mean, rstd, gx, at, size);
}

// -- sums over rows ------------------------------------------------------------------------------------------------------
// Partial sums of g and of g h over the rows of a chunk, for each column.  A block of 32 x 8 threads has 32 * N columns:
// N adjacent ones a thread where packs can be loaded, else every 32nd.
template <class T, bool BY_COLUMN>
__global__ void norm_columns(const T* __restrict__ g,           // [rows, size]
                             const T* __restrict__ x,           // [rows, size]
                             const acc_t<T>* __restrict__ mean, // [rows], or [size] with BY_COLUMN; or null: 0
                             const acc_t<T>* __restrict__ rstd, // [rows], or [size]
                             acc_t<T>* __restrict__ sum_g,      // [gridDim.y, size]
                             acc_t<T>* __restrict__ sum_gh,     // [gridDim.y, size]
                             int64 rows, int64 size, int64 per) {
    typedef acc_t<T> A;
    constexpr int N = pack_size<T> < 4 ? pack_size<T> : 4; // packs of 16 bytes of a 16-bit type took 124 registers
    SHARED_ARRAY(A, partial, 8 * 32 * N);
    int32 tx = threadIdx.x, ty = threadIdx.y;
    bool packed = size % N == 0 && pack_aligned<N>(g) && pack_aligned<N>(x);
    int64 first = blockIdx.x * int64(32 * N) + (packed ? tx * N : tx), step = packed ? 1 : 32;
    A s1[N], s2[N], m[N], r[N];
    for (int j = 0; j < N; ++j) {
        int64 column = first + j * step;
        s1[j] = s2[j] = m[j] = r[j] = A(0);
        if (BY_COLUMN && column < size) {
            m[j] = mean ? mean[column] : A(0);
            r[j] = rstd[column];
        }
    }
    int64 start = blockIdx.y * per, stop = start + per < rows ? start + per : rows;
    for (int64 row = start + ty; row < stop; row += 8) {
        Pack<T, N> gp, xp;
        if (packed) {
            if (first >= size) break;
            gp = load_pack<N>(g + row * size + first);
            xp = load_pack<N>(x + row * size + first);
        } else {
            for (int j = 0; j < N; ++j) {
                int64 column = first + j * step;
                gp[j] = column < size ? g[row * size + column] : convert<T>(A(0));
                xp[j] = column < size ? x[row * size + column] : convert<T>(A(0));
            }
        }
        A mr = BY_COLUMN || !mean ? A(0) : mean[row], rr = BY_COLUMN ? A(0) : rstd[row];
        for (int j = 0; j < N; ++j) {
            A d = to_acc(gp[j]);
            s1[j] += d;
            s2[j] += d * ((to_acc(xp[j]) - (BY_COLUMN ? m[j] : mr)) * (BY_COLUMN ? r[j] : rr));
        }
    }
    int64 column = first + ty * step; // of the thread's place in the block's columns, now as (tx, j = ty)
    for (int which = 0; which < 2; ++which) {
        __syncthreads();
        for (int j = 0; j < N; ++j) partial[(ty * N + j) * 32 + tx] = which ? s2[j] : s1[j];
        __syncthreads();
        if (ty < N && column < size) {
            A sum = 0;
            for (int y = 0; y < 8; ++y) sum += partial[(y * N + ty) * 32 + tx];
            (which ? sum_gh : sum_g)[blockIdx.y * size + column] = sum;
        }
    }
}

// The sums of partial sums over `count` rows: gradients of w and b, and what application needs of batch statistics.  T is
// the dtype of the gradients, which wait for a launch with one block in y.
template <class T>
__global__ void norm_finish(T* __restrict__ gw,                  // [size]
                            T* __restrict__ gb,                  // [size]
                            const T* __restrict__ w,             // [size] or null: 1
                            const acc_t<T>* __restrict__ sum_g,  // [count, size]
                            const acc_t<T>* __restrict__ sum_gh, // [count, size]
                            acc_t<T>* __restrict__ k1,           // [gridDim.y, size] or null: sums of g, times scale and w
                            acc_t<T>* __restrict__ k2,           // [gridDim.y, size] or null: sums of g h, times scale and w
                            int64 count, int64 size, int64 per, double scale) {
    typedef acc_t<T> A;
    SHARED_ARRAY(A, first, 8 * 32);
    SHARED_ARRAY(A, second, 8 * 32);
    int32 tx = threadIdx.x, ty = threadIdx.y;
    int64 column = blockIdx.x * int64(32) + tx;
    int64 start = blockIdx.y * per, stop = start + per < count ? start + per : count;
    A s1 = 0, s2 = 0;
    if (column < size) {
#pragma unroll 4
        for (int64 row = start + ty; row < stop; row += 8) {
            s1 += sum_g[row * size + column];
            s2 += sum_gh[row * size + column];
        }
    }
    first[ty * 32 + tx] = s1;
    second[ty * 32 + tx] = s2;
    __syncthreads();
    if (ty != 0 || column >= size) return;
    for (int y = 1; y < 8; ++y) {
        s1 += first[y * 32 + tx];
        s2 += second[y * 32 + tx];
    }
    if (gridDim.y == 1) {
        gw[column] = convert<T>(s2);
        gb[column] = convert<T>(s1);
    }
    if (k1) {
        A factor = A(scale) * (w ? to_acc(w[column]) : A(1));
        k1[blockIdx.y * size + column] = s1 * factor;
        k2[blockIdx.y * size + column] = s2 * factor;
    }
}

// -- channels ------------------------------------------------------------------------------------------------------------
// The mean of each row, and the sum of squares about it; or, where those are asked for, the variance and its rstd.
template <class T, int GROUP>
__global__ void norm_moments(const T* __restrict__ x,        // [rows, size]
                             acc_t<T>* __restrict__ mean,    // [rows]
                             acc_t<T>* __restrict__ squares, // [rows] or null
                             acc_t<T>* __restrict__ var,     // [rows] or null
                             acc_t<T>* __restrict__ rstd,    // [rows] or null
                             int64 rows, int32 size, double eps) {
    typedef acc_t<T> A;
    constexpr int N = pack_size<T>, HELD = GROUP <= 32 ? 8 : 4;
    Place at = place<GROUP>(rows);
    A m, s;
    if (size % N == 0 && pack_aligned<N>(x))
        Row<T, N, GROUP, HELD>(x + at.row * size, size, at.lane).moments(true, m, s);
    else
        Row<T, 1, GROUP, HELD>(x + at.row * size, size, at.lane).moments(true, m, s);
    if (!at.live || at.lane != 0) return;
    mean[at.row] = m;
    if (squares) squares[at.row] = s;
    if (var) {
        var[at.row] = s / A(size);
        rstd[at.row] = A(1) / sqrt(s / A(size) + A(eps));
    }
}

// How many numbers, their mean, and the sum of squares about it.
template <class A> struct Moments {
    A n, mean, squares;

    __device__ __forceinline__ void join(A n2, A mean2, A squares2) {
        if (n2 == A(0)) return;
        A all = n + n2, d = mean2 - mean, share = n2 / all;
        mean += d * share;
        squares += squares2 + d * d * n * share;
        n = all;
    }
};

// Joins moments [outer, count, inner] over count, a block of 32 x 8 threads for 32 of the results [outer, inner].  Each
// stands for `each` numbers of `unit` rows of `total`; the last may stand for fewer.  With several blocks in y, each joins
// `per` of them to moments again; one gives the variance and rstd.
template <class T>
__global__ void norm_join(const T* __restrict__ mean,            // [outer, count, inner]
                          const acc_t<T>* __restrict__ squares,  // [outer, count, inner], or null: 0
                          acc_t<T>* __restrict__ joined,         // [gridDim.y, outer, inner]
                          acc_t<T>* __restrict__ spread,         // [gridDim.y, outer, inner]: squares, or the variance
                          acc_t<T>* __restrict__ rstd,           // [outer, inner]; null: of squares there
                          int64 outer, int64 count, int64 inner, int64 per, int64 unit, int64 total, int64 each, double eps) {
    typedef acc_t<T> A;
    SHARED_ARRAY(A, shared, 3 * 8 * 32);
    int32 tx = threadIdx.x, ty = threadIdx.y;
    int64 place = blockIdx.x * int64(32) + tx, places = outer * inner;
    Moments<A> mine{A(0), A(0), A(0)};
    if (place < places) {
        int64 o = quotient(place, inner), base = o * count * inner + (place - o * inner);
        int64 start = blockIdx.y * per, stop = start + per < count ? start + per : count;
        for (int64 k = start + ty; k < stop; k += 8) {
            int64 left = total - k * unit;
            A n = static_cast<A>((left < unit ? left : unit) * each);
            mine.join(n, to_acc(mean[base + k * inner]), squares ? squares[base + k * inner] : A(0));
        }
    }
    A* slot = shared + ty * 32 + tx;
    slot[0] = mine.n, slot[256] = mine.mean, slot[512] = mine.squares;
    __syncthreads();
    if (ty != 0 || place >= places) return;
    for (int y = 1; y < 8; ++y) {
        slot += 32;
        mine.join(slot[0], slot[256], slot[512]);
    }
    int64 at = blockIdx.y * places + place;
    joined[at] = mine.mean;
    A var = mine.squares / mine.n;
    spread[at] = rstd ? var : mine.squares;
    if (rstd) rstd[at] = A(1) / sqrt(var + A(eps));
}

// Where the statistics of a row stand.
__device__ __forceinline__ int64 statistics_of(int64 row, int64 channel, int64 per) { return per ? quotient(row, per) : channel; }

// The sums of g and of g h of each row, or of each of the `split` parts of a row.
template <class T, int GROUP>
__global__ void norm_sums(const T* __restrict__ g,           // [rows, size]: parts are rows here
                          const T* __restrict__ x,           // [rows, size]
                          const acc_t<T>* __restrict__ mean, // of the row's statistics
                          const acc_t<T>* __restrict__ rstd, // of the row's statistics
                          acc_t<T>* __restrict__ sum_g,      // [rows]
                          acc_t<T>* __restrict__ sum_gh,     // [rows]
                          int64 rows, int32 size, int64 channels, int64 per, int64 split) {
    typedef acc_t<T> A;
    constexpr int N = pack_size<T>;
    Place at = place<GROUP>(rows);
    int64 row = quotient(at.row, split), s = statistics_of(row, row - quotient(row, channels) * channels, per);
    A m = mean[s], r = rstd[s], s1 = 0, s2 = 0;
    g += at.row * size;
    x += at.row * size;
    if (size % N == 0 && pack_aligned<N>(g) && pack_aligned<N>(x)) {
#pragma unroll 2
        for (uint32 i = at.lane * N; i < uint32(size); i += GROUP * N) {
            Pack<T, N> gp = load_pack<N>(g + i), xp = load_pack<N>(x + i);
            for (int j = 0; j < N; ++j) {
                s1 += to_acc(gp[j]);
                s2 += to_acc(gp[j]) * (to_acc(xp[j]) - m);
            }
        }
    } else {
#pragma unroll 4
        for (uint32 i = at.lane; i < uint32(size); i += GROUP) {
            s1 += to_acc(g[i]);
            s2 += to_acc(g[i]) * (to_acc(x[i]) - m);
        }
    }
    s1 = sum_of<GROUP>(s1);
    s2 = sum_of<GROUP>(s2) * r;
    if (!at.live || at.lane != 0) return;
    sum_g[at.row] = s1;
    sum_gh[at.row] = s2;
}

// The means of w g and w g h over the `per` channels of each group, a warp each.
template <class T>
__global__ void norm_group_means(const T* __restrict__ w,             // [channels]
                                 const acc_t<T>* __restrict__ sum_g,  // [groups, per]
                                 const acc_t<T>* __restrict__ sum_gh, // [groups, per]
                                 acc_t<T>* __restrict__ k1,           // [groups]
                                 acc_t<T>* __restrict__ k2,           // [groups]
                                 int64 groups, int64 channels, int64 per, double scale) {
    typedef acc_t<T> A;
    Place at = place<32>(groups);
    int64 first = at.row * per, channel = first - quotient(first, channels) * channels;
    A s1 = 0, s2 = 0;
    for (int64 i = at.lane; i < per; i += 32) {
        A f = to_acc(w[channel + i]);
        s1 += f * sum_g[first + i];
        s2 += f * sum_gh[first + i];
    }
    s1 = warp_sum(s1);
    s2 = warp_sum(s2);
    if (!at.live || at.lane != 0) return;
    k1[at.row] = s1 * A(scale);
    k2[at.row] = s2 * A(scale);
}

template <class T, int N>
__device__ __forceinline__ void apply(const T* x, Factor<T> w, Factor<T> b, const acc_t<T>* mean, const acc_t<T>* rstd, T* y,
                                      int64 rows, int64 size, int64 channels, int64 per) {
    typedef acc_t<T> A;
    int64 width = size / N, stride = int64(gridDim.x) * blockDim.x;
    for (int64 i = blockIdx.x * int64(blockDim.x) + threadIdx.x; i < rows * width; i += stride) {
        int64 row = quotient(i, width), c = row - quotient(row, channels) * channels, s = statistics_of(row, c, per);
        A m = mean[s], a = rstd[s] * w.at(c, A(1)), shift = b.at(c, A(0));
        Pack<T, N> p = load_pack<N>(x + i * N);
        for (int j = 0; j < N; ++j) p[j] = convert<T>((to_acc(p[j]) - m) * a + shift);
        store_pack(y + i * N, p);
    }
}

template <class T>
__global__ void norm_apply(const T* __restrict__ x,             // [rows, size]
                           const T* __restrict__ w,             // [channels] or null
                           const acc_t<T>* __restrict__ w_wide, // [channels] or null: in place of w
                           const T* __restrict__ b,             // [channels] or null
                           const acc_t<T>* __restrict__ b_wide, // [channels] or null
                           const acc_t<T>* __restrict__ mean,   // of the rows' statistics
                           const acc_t<T>* __restrict__ rstd,   // of the rows' statistics
                           T* __restrict__ y,                   // [rows, size]
                           int64 rows, int64 size, int64 channels, int64 per) {
    constexpr int N = pack_size<T>;
    Factor<T> weight{w, w_wide}, bias{b, b_wide};
    if (size % N == 0 && pack_aligned<N>(x) && pack_aligned<N>(y))
        apply<T, N>(x, weight, bias, mean, rstd, y, rows, size, channels, per);
    else
        apply<T, 1>(x, weight, bias, mean, rstd, y, rows, size, channels, per);
}

template <class T, int N>
__device__ __forceinline__ void apply_backward(const T* g, const T* x, Factor<T> w, const acc_t<T>* mean, const acc_t<T>* rstd,
                                               const acc_t<T>* k1, const acc_t<T>* k2, T* gx, int64 rows, int64 size,
                                               int64 channels, int64 per) {
    typedef acc_t<T> A;
    int64 width = size / N, stride = int64(gridDim.x) * blockDim.x;
    for (int64 i = blockIdx.x * int64(blockDim.x) + threadIdx.x; i < rows * width; i += stride) {
        int64 row = quotient(i, width), c = row - quotient(row, channels) * channels, s = statistics_of(row, c, per);
        A r = rstd[s], f = w.at(c, A(1));
        Pack<T, N> p = load_pack<N>(g + i * N);
        if (k1) {
            A m = mean[s], shift = k1[s], slope = k2[s] * r;
            Pack<T, N> xp = load_pack<N>(x + i * N);
            for (int j = 0; j < N; ++j) p[j] = convert<T>(r * (to_acc(p[j]) * f - shift - (to_acc(xp[j]) - m) * slope));
        } else {
            for (int j = 0; j < N; ++j) p[j] = convert<T>(to_acc(p[j]) * (r * f));
        }
        store_pack(gx + i * N, p);
    }
}

template <class T>
__global__ void norm_apply_backward(const T* __restrict__ g,             // [rows, size]
                                    const T* __restrict__ x,             // [rows, size]
                                    const T* __restrict__ w,             // [channels] or null
                                    const acc_t<T>* __restrict__ w_wide, // [channels] or null: in place of w
                                    const acc_t<T>* __restrict__ mean,   // of the rows' statistics
                                    const acc_t<T>* __restrict__ rstd,   // of the rows' statistics
                                    const acc_t<T>* __restrict__ k1,     // mean(w g), or null: statistics that are fixed
                                    const acc_t<T>* __restrict__ k2,     // mean(w g h), or null
                                    T* __restrict__ gx,                  // [rows, size]
                                    int64 rows, int64 size, int64 channels, int64 per) {
    constexpr int N = pack_size<T>;
    Factor<T> weight{w, w_wide};
    if (size % N == 0 && pack_aligned<N>(g) && pack_aligned<N>(x) && pack_aligned<N>(gx))
        apply_backward<T, N>(g, x, weight, mean, rstd, k1, k2, gx, rows, size, channels, per);
    else
        apply_backward<T, 1>(g, x, weight, mean, rstd, k1, k2, gx, rows, size, channels, per);
}

// Running statistics: running = (1 - momentum) running + momentum scale mean of values over n.
template <class T, class V>
__global__ void norm_follow(T* __restrict__ running,      // [channels], `step` elements apart
                            const V* __restrict__ values, // [n, channels]
                            int64 n, int64 channels, int64 step, double momentum, double scale) {
    int64 c = blockIdx.x * int64(blockDim.x) + threadIdx.x;
    if (c >= channels) return;
    V sum = 0;
    for (int64 i = 0; i < n; ++i) sum += values[i * channels + c];
    V before = static_cast<V>(to_acc(running[c * step]));
    running[c * step] = convert<T>(before * V(1 - momentum) + sum / V(n) * V(scale * momentum));
}
