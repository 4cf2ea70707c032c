// Scaled dot-product attention without tensor cores, forward and backward; nothing of size L x S is stored.
//
//   forward   S = scale Q K^T + mask, P = softmax(S), O = dropout(P) V                       (Dao et al. 2022, eq. 1)
//   backward  dV = dropout(P)^T dO, dP = dropout'(dO V^T), delta = rowsum(dO * O),
//             dS = P * (dP - delta), dQ = scale dS K, dK = scale dS^T Q, dbias = dS          (ibid., appendix B.2)
//   Dao et al., "FlashAttention: fast and memory-efficient exact attention with IO-awareness", arXiv 2205.14135;
//   Dao, "FlashAttention-2", arXiv 2307.08691, from which the order of the loops is.
//
// Layout     any strides along batch, heads and rows, the width without gaps: [B, H, L, E] and [B, L, H, E] alike.  Masks
//            have strides in all dimensions, 0 where they are broadcast.  `group` heads of q share a head of k and v.
// Parallel   forward: M queries a block, keys pass by, and the maximum and the sum of exponentials are corrected as they do
//            (2307.08691, section 3.1); the division comes once at the end.  backward: one kernel for M queries, one for M
//            keys, each of which makes the probabilities again, so that no two blocks add to one number: five products
//            become seven, and no atomics are needed.  Tiles with causal zeros alone are skipped.
// Tiles      attention/tiles.cuh: M x N of 64 x 64 (fp32, width to 64), 64 x 32 (to 128), 32 x 32 (to 256); backward has two
//            resident tiles and half the rows.  32 KB resident, 16 KB passing, up to 16 KB for the weights, which go
//            through shared memory from the threads that made them to those that multiply with them; two blocks a
//            multiprocessor, or one where 128 registers do not hold the accumulators.
//            Every shape fits sm_75's 64 KB but the backward of fp64 beyond a width of 128, which takes 87.
// Saved      out and lse = log2 sum exp2(S log2 e), [B, H, L] in fp32 (fp64): the rounding of p is then that of lse alone.
// Floor      4 L S E operations forward, 14 backward as done here (10 by the formula), half of it where causal; bytes: q,
//            k, v and out once, k and v once more for each M queries, from L2 unless S E is large.  Arithmetic decides.
// On a GPU   to be decided by measurement: M x N, one or two blocks a multiprocessor in backward, cp.async for the passing
//            tile, how many keys are worth a split.
//
// 1  2026-11  first version; not yet run on a GPU
// 2  2026-11  aligned rows are loaded without a branch between the loads of a thread; not yet run on a GPU
// 3  2026-11  nothing is read behind a sample's last key; not yet run on a GPU
#include "common/platform.cuh"

#include "attention/problem.cuh"
#include "attention/tiles.cuh"

// The passing tile's columns of part c, once all threads are done with what was there before.
#define PASS(ys, from, stride, rows, columns, vector, c)                                                      \
    __syncthreads();                                                                                          \
    load_tile<Own::N, Own::WIDTH, Own::LD_Y, Own::AHEAD>(ys, (from) + (c) * Own::WIDTH, stride, rows,         \
                                                         (columns) - (c) * Own::WIDTH, vector);               \
    __syncthreads()

// A block: M queries of a head, and `span` of their keys: all of them, or where there are few queries a split.
template <class T, int D>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? 2 : 1) attention_forward(
    const T* __restrict__ q,       // [batch, heads, L, E], strides q_*
    const T* __restrict__ k,       // [batch, heads / group, S, E], strides k_*
    const T* __restrict__ v,       // [batch, heads / group, S, EV], strides v_*
    const bool* __restrict__ keep, // [batch, heads, L, S], strides mask_*, or null
    const T* __restrict__ bias,    // as keep
    const int64* __restrict__ lengths, // [batch], or null: keys of each sample
    T* __restrict__ out,           // [splits, batch, heads, L, EV], strides out_*
    T* __restrict__ lse,           // [splits, batch, heads, L]
    int64 q_batch, int64 q_head, int64 q_row, int64 k_batch, int64 k_head, int64 k_row, int64 v_batch, int64 v_head,
    int64 v_row, int64 out_batch, int64 out_head, int64 out_row, int64 out_split, int64 lse_split, int32 splits, int32 span,
    ATTENTION_SCALARS) {
    typedef Tiles<T, D, 1> Own;
    constexpr int M = Own::M, N = Own::N, RM = Own::RM, RN = Own::RN, RD = Own::RD;
    DYNAMIC_SHARED(T, memory);
    T *xs = memory, *ys = xs + Own::X, *ps = ys + Own::Y;
    SHARED_ARRAY(uint8, bits, M * N / 8);
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    const int32 tiles = (L + M - 1) / M, l0 = (tiles - 1 - static_cast<int32>(blockIdx.x % tiles)) * M;
    const int32 split = blockIdx.x / tiles % splits, head = blockIdx.x / tiles / splits, b = head / heads, h = head % heads;
    q += b * q_batch + h * q_head + l0 * q_row;
    k += b * k_batch + h / group * k_head;
    v += b * v_batch + h / group * v_head;
    const Dropout drop = {seed, offset, limit, S};
    S = keys_of(lengths, b, S);
    const Mask<T> mask = mask_of(keep, bias, b * mask_batch + h * mask_head, mask_row, mask_column, L, S, causal);
    const bool k_packs = in_packs(k, k_row, E), v_packs = in_packs(v, v_row, EV);
    load_tile<M, D, Own::LD_X, Own::AHEAD>(xs, q, q_row, L - l0, E, in_packs(q, q_row, E));

    T o[RM][RD] = {}, top[RM], total[RM];
#pragma unroll
    for (int i = 0; i < RM; ++i) top[i] = T(-INFINITY), total[i] = 0;
    // keys of this split; a multiple of N, which is why nothing else has to know of it
    const int32 begin = split * span, stop = min(causal ? min(S, l0 + M) : S, begin + span);
    out += split * out_split;
    lse += split * lse_split;
    for (int32 s0 = begin; s0 < stop; s0 += N) {
        T p[RM][RN] = {};
        if (drop.any()) drop.template draw<M, N, THREADS>(bits, static_cast<int64>(head) * L + l0, s0);
#pragma unroll 1
        for (int c = 0; c == 0 || (c < Own::PARTS && c * Own::WIDTH < E); ++c) {
            PASS(ys, k + s0 * k_row, k_row, S - s0, E, k_packs, c);
            multiply_rows<Own::LD_X, Own::LD_Y>(p, xs + c * Own::WIDTH, ys, min(Own::WIDTH, E - c * Own::WIDTH));
        }
#pragma unroll
        for (int i = 0; i < RM; ++i) {
            T most = top[i];
#pragma unroll
            for (int j = 0; j < RN; ++j) {
                p[i][j] = mask(p[i][j] * T(scale * LOG2_E), l0 + ty + SIDE * i, s0 + tx + SIDE * j);
                most = p[i][j] > most ? p[i][j] : most;
            }
            most = row_maximum<SIDE>(most);
            // nothing is subtracted in a row of -inf, whose exponentials are 0
            T shift = most == T(-INFINITY) ? T(0) : most, fade = exp2(top[i] - shift);
            top[i] = most;
            total[i] *= fade;
#pragma unroll
            for (int d = 0; d < RD; ++d) o[i][d] *= fade;
#pragma unroll
            for (int j = 0; j < RN; ++j) {
                T e = exp2(p[i][j] - shift);
                total[i] += e;
                bool dropped = drop.any() && !kept<N>(bits, ty + SIDE * i, tx + SIDE * j);
                ps[(ty + SIDE * i) * Own::LD_P + tx + SIDE * j] = dropped ? T(0) : e;
            }
        }
#pragma unroll
        for (int c = 0; c < Own::PARTS; ++c)
            if (c == 0 || c * Own::WIDTH < EV) {
                PASS(ys, v + s0 * v_row, v_row, S - s0, EV, v_packs, c);
                multiply_columns<N, Own::WIDTH, Own::LD_P, Own::LD_Y>(o, c * (Own::WIDTH / SIDE), ps, ys);
            }
    }
#pragma unroll
    for (int i = 0; i < RM; ++i) {
        int32 l = l0 + ty + SIDE * i;
        T sum = row_sum<SIDE>(total[i]);
        if (l >= L) continue;
        T factor = sum == T(0) ? T(0) : T(inverse) / sum;
        store_row(out + b * out_batch + h * out_head + l * out_row, o[i], factor, EV);
        if (tx == 0) lse[static_cast<int64>(head) * L + l] = sum == T(0) ? T(NO_KEYS) : top[i] + log2(sum);
    }
}

// Few queries leave most multiprocessors idle, so the keys are split among blocks; here their results come together:
//   lse = log2 sum_i exp2(lse_i),  out = sum_i exp2(lse_i - lse) out_i      (Dao et al., "Flash-Decoding", 2023)
// A warp: a row.
template <class T>
__global__ void attention_join(const T* __restrict__ parts,          // [splits, batch, heads, L, EV]
                               const acc_t<T>* __restrict__ part_lse, // [splits, batch, heads, L]
                               T* __restrict__ out,                  // [batch, heads, L, EV], strides out_*
                               acc_t<T>* __restrict__ lse,           // [batch, heads, L]
                               int64 out_batch, int64 out_head, int64 out_row, int64 rows, int32 splits, int32 heads,
                               int32 L, int32 EV) {
    typedef acc_t<T> A;
    int64 row = blockIdx.x * static_cast<int64>(blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return; // whole warps
    int64 b = row / L / heads, h = row / L % heads, l = row % L;
    out += b * out_batch + h * out_head + l * out_row;
    A top = A(-INFINITY), total = 0;
    for (int32 i = 0; i < splits; ++i) {
        A one = part_lse[i * rows + row];
        if (one != A(NO_KEYS) && !(one <= top)) top = one; // NaN stays
    }
    for (int32 i = 0; i < splits; ++i) {
        A one = part_lse[i * rows + row];
        if (one != A(NO_KEYS)) total += exp2(one - top);
    }
    for (int32 d = threadIdx.x % 32; d < EV; d += 32) {
        A sum = 0;
        for (int32 i = 0; i < splits; ++i) {
            A one = part_lse[i * rows + row];
            if (one != A(NO_KEYS)) sum += exp2(one - top) / total * to_acc(parts[(i * rows + row) * EV + d]);
        }
        out[d] = convert<T>(sum);
    }
    if (threadIdx.x % 32 == 0) lse[row] = total == A(0) ? A(NO_KEYS) : top + log2(total);
}

// lengths[b] = 1 + the last key that a mask lets a sample see, 0 if there is none: keys behind it need not be read.
// A block: a sample.
__global__ void attention_lengths(const bool* __restrict__ keep, // [batch, 1, 1, S], strides mask_*
                                  int64* __restrict__ lengths,   // [batch]
                                  int64 mask_batch, int64 mask_column, int32 S) {
    int32 last = 0;
    keep += blockIdx.x * mask_batch;
    for (int32 s = threadIdx.x; s < S; s += blockDim.x) last = keep[s * mask_column] ? s + 1 : last;
    last = block_reduce(last, Maximum(), 0);
    if (threadIdx.x == 0) lengths[blockIdx.x] = last;
}

// delta = sum over the width of g out, which is also sum over s of p dp.  A warp: a row.
template <class T>
__global__ void attention_delta(const T* __restrict__ g,     // [batch, heads, L, EV], strides g_*
                                const T* __restrict__ out,   // [batch, heads, L, EV], strides out_*
                                acc_t<T>* __restrict__ delta, // [batch, heads, L]
                                int64 g_batch, int64 g_head, int64 g_row, int64 out_batch, int64 out_head, int64 out_row,
                                int64 rows, int32 heads, int32 L, int32 EV) {
    int64 row = blockIdx.x * static_cast<int64>(blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return; // whole warps
    int64 b = row / L / heads, h = row / L % heads, l = row % L;
    g += b * g_batch + h * g_head + l * g_row;
    out += b * out_batch + h * out_head + l * out_row;
    acc_t<T> sum = 0;
    for (int32 d = threadIdx.x % 32; d < EV; d += 32) sum += to_acc(g[d]) * to_acc(out[d]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[row] = sum;
}

// KEYS false: a block has M queries, and adds up their gradient over the keys.
// KEYS true:  a block has M keys with their values, and adds up both gradients over the queries of all heads that share
//             them.  Scores are transposed: its rows are keys.
// So nothing is added to by two blocks, and the order of every sum is fixed.
template <class T, int D, bool KEYS>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 && !(D == 64 && KEYS) ? 2 : 1) attention_backward(
    const T* __restrict__ q,       // [batch, heads, L, E], strides q_*
    const T* __restrict__ k,       // [batch, heads / group, S, E], strides k_*
    const T* __restrict__ v,       // [batch, heads / group, S, EV], strides v_*
    const T* __restrict__ g,       // [batch, heads, L, EV], strides g_*
    const bool* __restrict__ keep, // [batch, heads, L, S], strides mask_*, or null
    const T* __restrict__ bias,    // as keep
    const int64* __restrict__ lengths, // [batch], or null: keys of each sample
    const T* __restrict__ lse,     // [batch, heads, L]
    const T* __restrict__ delta,   // [batch, heads, L]
    T* __restrict__ grad,          // of q, or of k: its shape, strides grad_*
    T* __restrict__ grad_v,        // of v, strides gv_*; with KEYS
    int64 q_batch, int64 q_head, int64 q_row, int64 k_batch, int64 k_head, int64 k_row, int64 v_batch, int64 v_head,
    int64 v_row, int64 g_batch, int64 g_head, int64 g_row, int64 grad_batch, int64 grad_head, int64 grad_row,
    int64 gv_batch, int64 gv_head, int64 gv_row, ATTENTION_SCALARS) {
    typedef Tiles<T, D, 2> Own;
    constexpr int M = Own::M, N = Own::N, RM = Own::RM, RN = Own::RN, RD = Own::RD;
    constexpr int COLUMNS = KEYS ? M : N; // keys of a tile of scores
    DYNAMIC_SHARED(T, memory);
    T *x1 = memory, *x2 = x1 + Own::X, *ys = x2 + Own::X, *ps = ys + Own::Y;
    SHARED_ARRAY(uint8, bits, M * N / 8);
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    const int32 length = KEYS ? S : L, tiles = (length + M - 1) / M;
    // the longest first: with causal these are the last queries and the first keys
    const int32 tile = blockIdx.x % tiles, r0 = (KEYS ? tile : tiles - 1 - tile) * M;
    const int32 own_heads = KEYS ? heads / group : heads, own = blockIdx.x / tiles, b = own / own_heads, h = own % own_heads;
    const int32 first_head = KEYS ? h * group : h, shared_head = KEYS ? h : h / group;
    k += b * k_batch + shared_head * k_head;
    v += b * v_batch + shared_head * v_head;
    q += b * q_batch;
    g += b * g_batch;
    const Dropout drop = {seed, offset, limit, S};
    S = keys_of(lengths, b, S);
    const int32 present = (KEYS ? S : L) - r0, others = KEYS ? (present > 0 ? L : 0) : S;
    const T* first = KEYS ? k : q + first_head * q_head;
    const T* second = KEYS ? v : g + first_head * g_head;
    const int64 first_row = KEYS ? k_row : q_row, second_row = KEYS ? v_row : g_row;
    load_tile<M, D, Own::LD_X, Own::AHEAD>(x1, first + r0 * first_row, first_row, present, E,
                                           in_packs(first, first_row, E));
    load_tile<M, D, Own::LD_X, Own::AHEAD>(x2, second + r0 * second_row, second_row, present, EV,
                                           in_packs(second, second_row, EV));

    T sum[RM][RD] = {}, sum_v[KEYS ? RM : 1][RD] = {};
    const int32 start = KEYS && causal ? r0 / N * N : 0, stop = !KEYS && causal ? min(others, r0 + M) : others;
    for (int32 at = first_head; at < first_head + (KEYS ? group : 1); ++at) {
        const int64 rows = (static_cast<int64>(b) * heads + at) * L;
        const Mask<T> mask = mask_of(keep, bias, b * mask_batch + at * mask_head, mask_row, mask_column, L, S, causal);
        const T* y1 = KEYS ? q + at * q_head : k;
        const T* y2 = KEYS ? g + at * g_head : v;
        const int64 y1_row = KEYS ? q_row : k_row, y2_row = KEYS ? g_row : v_row;
        const bool y1_packs = in_packs(y1, y1_row, E), y2_packs = in_packs(y2, y2_row, EV);
        for (int32 n0 = start; n0 < stop; n0 += N) {
            T p[RM][RN] = {}, dp[RM][RN] = {};
            if (drop.any())
                drop.template draw<KEYS ? N : M, COLUMNS, THREADS>(bits, rows + (KEYS ? n0 : r0), KEYS ? r0 : n0);
#pragma unroll 1
            for (int c = 0; c == 0 || (c < Own::PARTS && c * Own::WIDTH < E); ++c) {
                PASS(ys, y1 + n0 * y1_row, y1_row, others - n0, E, y1_packs, c);
                multiply_rows<Own::LD_X, Own::LD_Y>(p, x1 + c * Own::WIDTH, ys, min(Own::WIDTH, E - c * Own::WIDTH));
            }
#pragma unroll
            for (int i = 0; i < RM; ++i)
#pragma unroll
                for (int j = 0; j < RN; ++j) {
                    int row = ty + SIDE * i, column = tx + SIDE * j;
                    int32 l = KEYS ? n0 + column : r0 + row, s = KEYS ? r0 + row : n0 + column;
                    T score = mask(p[i][j] * T(scale * LOG2_E), l, s);
                    p[i][j] = l < L ? exp2(score - lse[rows + l]) : T(0);
                    if (KEYS) {
                        bool stays = !drop.any() || kept<COLUMNS>(bits, column, row);
                        ps[row * Own::LD_P + column] = stays ? p[i][j] * T(inverse) : T(0);
                    }
                }
#pragma unroll
            for (int c = 0; c < Own::PARTS; ++c)
                if (c == 0 || c * Own::WIDTH < EV) {
                    PASS(ys, y2 + n0 * y2_row, y2_row, others - n0, EV, y2_packs, c);
                    multiply_rows<Own::LD_X, Own::LD_Y>(dp, x2 + c * Own::WIDTH, ys, min(Own::WIDTH, EV - c * Own::WIDTH));
                    if constexpr (KEYS)
                        multiply_columns<N, Own::WIDTH, Own::LD_P, Own::LD_Y>(sum_v, c * (Own::WIDTH / SIDE), ps, ys);
                }
            if (KEYS) __syncthreads(); // before the weights are written over
#pragma unroll
            for (int i = 0; i < RM; ++i)
#pragma unroll
                for (int j = 0; j < RN; ++j) {
                    int row = ty + SIDE * i, column = tx + SIDE * j;
                    int32 l = KEYS ? n0 + column : r0 + row;
                    bool stays = !drop.any() || kept<COLUMNS>(bits, KEYS ? column : row, KEYS ? row : column);
                    T weight = stays ? dp[i][j] * T(inverse) : T(0);
                    ps[row * Own::LD_P + column] = l < L ? p[i][j] * (weight - delta[rows + l]) : T(0);
                }
#pragma unroll
            for (int c = 0; c < Own::PARTS; ++c)
                if (c == 0 || c * Own::WIDTH < E) {
                    PASS(ys, y1 + n0 * y1_row, y1_row, others - n0, E, y1_packs, c);
                    multiply_columns<N, Own::WIDTH, Own::LD_P, Own::LD_Y>(sum, c * (Own::WIDTH / SIDE), ps, ys);
                }
        }
    }
#pragma unroll
    for (int i = 0; i < RM; ++i) {
        int32 row = r0 + ty + SIDE * i;
        if (row >= length) continue;
        store_row(grad + b * grad_batch + h * grad_head + row * grad_row, sum[i], T(scale), E);
        if constexpr (KEYS) store_row(grad_v + b * gv_batch + h * gv_head + row * gv_row, sum_v[i], T(1), EV);
    }
}

// The gradient of a mask of numbers: a block has a tile of it and adds up over the samples and heads that it serves, those
// along which the mask has the size 1.
template <class T, int D>
__global__ void __launch_bounds__(THREADS, 1) attention_bias_backward(
    const T* __restrict__ q,     // [batch, heads, L, E], strides q_*
    const T* __restrict__ k,     // [batch, heads / group, S, E], strides k_*
    const T* __restrict__ v,     // [batch, heads / group, S, EV], strides v_*
    const T* __restrict__ g,     // [batch, heads, L, EV], strides g_*
    const T* __restrict__ bias,  // [batch, heads, L, S], strides mask_*
    const int64* __restrict__ lengths, // [batch], or null: keys of each sample
    const T* __restrict__ lse,   // [batch, heads, L]
    const T* __restrict__ delta, // [batch, heads, L]
    T* __restrict__ grad,        // [bias_batch, bias_heads, L, S] row-major
    int64 q_batch, int64 q_head, int64 q_row, int64 k_batch, int64 k_head, int64 k_row, int64 v_batch, int64 v_head,
    int64 v_row, int64 g_batch, int64 g_head, int64 g_row, int32 batch, int32 bias_batch, int32 bias_heads,
    ATTENTION_SCALARS) {
    typedef Tiles<T, D, 1> Own;
    constexpr int M = Own::M, N = Own::N, RM = Own::RM, RN = Own::RN;
    DYNAMIC_SHARED(T, memory);
    T *xs = memory, *ys = xs + Own::X;
    SHARED_ARRAY(uint8, bits, M * N / 8);
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    const int32 across = (S + N - 1) / N, tiles = (L + M - 1) / M * across, tile = blockIdx.x % tiles;
    const int32 l0 = tile / across * M, s0 = tile % across * N, own = blockIdx.x / tiles;
    const int32 first_b = own / bias_heads, first_h = own % bias_heads;
    const int32 last_b = bias_batch == 1 ? batch : first_b + 1, last_h = bias_heads == 1 ? heads : first_h + 1;
    const Dropout drop = {seed, offset, limit, S};
    T sum[RM][RN] = {};
    for (int32 b = first_b; b < last_b; ++b)
        for (int32 h = first_h; h < last_h; ++h) {
            const int64 rows = (static_cast<int64>(b) * heads + h) * L;
            const int32 present = keys_of(lengths, b, S);
            if (s0 >= present) continue;
            const Mask<T> mask =
                mask_of<T>(nullptr, bias, b * mask_batch + h * mask_head, mask_row, mask_column, L, present, causal);
            T p[RM][RN] = {}, dp[RM][RN] = {};
            if (drop.any()) drop.template draw<M, N, THREADS>(bits, rows + l0, s0);
#pragma unroll 1
            for (int second = 0; second < 2; ++second) {
                const T* x = second ? g + b * g_batch + h * g_head : q + b * q_batch + h * q_head;
                const T* y = second ? v + b * v_batch + h / group * v_head : k + b * k_batch + h / group * k_head;
                const int64 x_row = second ? g_row : q_row, y_row = second ? v_row : k_row;
                const int32 width = second ? EV : E;
                const bool y_packs = in_packs(y, y_row, width);
                __syncthreads();
                load_tile<M, D, Own::LD_X, Own::AHEAD>(xs, x + l0 * x_row, x_row, L - l0, width,
                                                       in_packs(x, x_row, width));
#pragma unroll 1
                for (int c = 0; c == 0 || (c < Own::PARTS && c * Own::WIDTH < width); ++c) {
                    PASS(ys, y + s0 * y_row, y_row, present - s0, width, y_packs, c);
                    multiply_rows<Own::LD_X, Own::LD_Y>(dp, xs + c * Own::WIDTH, ys,
                                                        min(Own::WIDTH, width - c * Own::WIDTH));
                }
#pragma unroll
                for (int i = 0; i < RM; ++i)
#pragma unroll
                    for (int j = 0; j < RN; ++j) {
                        int32 l = l0 + ty + SIDE * i, s = s0 + tx + SIDE * j;
                        if (!second) {
                            T score = mask(dp[i][j] * T(scale * LOG2_E), l, s);
                            p[i][j] = l < L ? exp2(score - lse[rows + l]) : T(0);
                            dp[i][j] = 0;
                        } else if (l < L) {
                            bool stays = !drop.any() || kept<N>(bits, ty + SIDE * i, tx + SIDE * j);
                            sum[i][j] += p[i][j] * ((stays ? dp[i][j] * T(inverse) : T(0)) - delta[rows + l]);
                        }
                    }
            }
            __syncthreads(); // before other bits are drawn
        }
    grad += static_cast<int64>(own) * L * S;
#pragma unroll
    for (int i = 0; i < RM; ++i)
#pragma unroll
        for (int j = 0; j < RN; ++j) {
            int32 l = l0 + ty + SIDE * i, s = s0 + tx + SIDE * j;
            if (l < L && s < S) grad[static_cast<int64>(l) * S + s] = sum[i][j];
        }
}
