// Scaled dot-product attention of fp16 and bf16, and of fp32 in TF32 to a width of 128, by tensor cores (sm_80), forward and
// backward.
//
// The formulas, the order of loops, masks and what is saved are those of attention.cu; sources: Dao et al. 2022,
// arXiv 2205.14135 (algorithms 1, 2 and 4), and Dao 2023, arXiv 2307.08691 (algorithms 1 and 2, section 3).
//
// Parallel   4 warps a block; a warp has 16 or 32 whole rows of scores, so that a row's maximum and sum are a matter of four
//            lanes, and the weights go from one product to the next in registers (fragments.cuh).
//            backward: dQ by blocks of queries, dK and dV by blocks of keys, whose scores are transposed; each makes the
//            weights again. No two blocks add to one number: no atomics, the same bits each time.
// Tiles      forward: 128 queries x 64 keys (width 64), 128 x 32 (128), 64 x 64 (256).  backward: 64 rows against 64
//            (width 64; dQ at 128), else 32.  At width 256 dK and dV are two launches, since 2 x 128 registers do not
//            hold both sums.
// Shared     queries M x D, keys and values N x D each, swizzled (fragments.cuh): 32, 48, 96 KB; backward 40, 56 to 80,
//            at most 96 KB: one block or more on every architecture from sm_80 to sm_120.  Floats: twice as much, so that
//            at width 128 all of backward has 32 passing rows, in one buffer.
// Copies     forward: values come while scores are computed, the next keys while values are multiplied.  backward: the next
//            tile of what is needed first and last in a buffer of its own, of the other one as soon as all are done with it.
// Rounding   sums, maxima, exponentials and lse in fp32; weights and dS are rounded to 16 bits for the second product; floats
//            to TF32 before each product, to nearest: inputs in shared memory, once a tile.
// Floor      4 L S E operations forward, 14 backward (10 by the formula), half of it where causal, by tensor cores; the
//            exponentials of L S scores at 16 a clock and multiprocessor cost as much as the products at width 64 on sm_90.
// On a GPU   to be decided by measurement: the tiles, above all 32 rows a warp in backward at width 64; whether queries
//            should stay in registers; whether mma.sync is enough on sm_90, which has wgmma.
//
// 1  2026-11  first version; not yet run on a GPU
// 2  2026-11  a row's bounds and masks are worked out once for all of its scores; not yet run on a GPU
// 3  2026-11  nothing is read behind a sample's last key, and floats are multiplied in TF32; not yet run on a GPU
#include "common/platform.cuh"

#include "attention/problem.cuh"
#include "attention/fragments.cuh"
#include "common/fast.cuh"

// A block: 64 TALL queries of a head, and the keys of a split.
template <class T, int D>
__global__ void __launch_bounds__(MMA_THREADS) attention_mma_forward(
    const T* __restrict__ q,       // [batch, heads, L, E], strides q_*
    const T* __restrict__ k,       // [batch, heads / group, S, E], strides k_*
    const T* __restrict__ v,       // [batch, heads / group, S, EV], strides v_*
    const bool* __restrict__ keep, // [batch, heads, L, S], strides mask_*, or null
    const T* __restrict__ bias,    // as keep
    const int64* __restrict__ lengths, // [batch], or null: keys of each sample
    T* __restrict__ out,           // [splits, batch, heads, L, EV], strides out_*
    float* __restrict__ lse,       // [splits, batch, heads, L]
    int64 q_batch, int64 q_head, int64 q_row, int64 k_batch, int64 k_head, int64 k_row, int64 v_batch, int64 v_head,
    int64 v_row, int64 out_batch, int64 out_head, int64 out_row, int64 out_split, int64 lse_split, int32 splits, int32 span,
    ATTENTION_SCALARS) {
    constexpr int TALL = D == 256 ? 1 : 2, M = 16 * WARPS * TALL, WIDE = D == 128 ? 4 : 8;
    constexpr int N = 8 * WIDE; // 64 by the side of 128 queries of width 128 would spill registers
    DYNAMIC_SHARED(T, memory);
    T *qs = memory, *ks = qs + M * D, *vs = ks + N * D;
    SHARED_ARRAY(uint8, bits, M * N / 8);
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * TALL;
    const int32 tiles = (L + M - 1) / M, l0 = (tiles - 1 - static_cast<int32>(blockIdx.x % tiles)) * M;
    const int32 split = blockIdx.x / tiles % splits, head = blockIdx.x / tiles / splits, b = head / heads, h = head % heads;
    q += b * q_batch + h * q_head + l0 * q_row;
    k += b * k_batch + h / group * k_head;
    v += b * v_batch + h / group * v_head;
    const Dropout drop = {seed, offset, limit, S};
    S = keys_of(lengths, b, S);
    const Mask<T> mask = mask_of(keep, bias, b * mask_batch + h * mask_head, mask_row, mask_column, L, S, causal);
    const bool k_packs = in_chunks(k, k_row, E), v_packs = in_chunks(v, v_row, EV);
    const float unit = static_cast<float>(scale * LOG2_E);
    // keys of this split; a multiple of N, which is why nothing else has to know of it
    const int32 begin = split * span, stop = min(causal ? min(S, l0 + M) : S, begin + span);
    begin_tile<M, D>(qs, q, q_row, L - l0, E, in_chunks(q, q_row, E));
    if (begin < stop) begin_tile<N, D>(ks, k + begin * k_row, k_row, S - begin, E, k_packs);
    cp_async_commit();

    float o[TALL][D / 8][4] = {}, top[TALL][2], total[TALL][2];
#pragma unroll
    for (int i = 0; i < TALL; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) top[i][half] = -INFINITY, total[i][half] = 0;
    for (int32 s0 = begin; s0 < stop; s0 += N) {
        cp_async_wait<0>();
        if (s0 == begin) round_tile<M, D>(qs);
        round_tile<N, D>(ks);
        __syncthreads(); // the keys are here, and nobody reads the values before them any more
        begin_tile<N, D>(vs, v + s0 * v_row, v_row, S - s0, EV, v_packs);
        cp_async_commit();
        if (drop.any()) drop.template draw<M, N, MMA_THREADS>(bits, static_cast<int64>(head) * L + l0, s0);
        float p[TALL][WIDE][4] = {};
        multiply_rows<D>(p, qs, first, ks, E);
        cp_async_wait<0>();
        round_tile<N, D>(vs);
        __syncthreads(); // the values are here, and nobody reads these keys any more
        if (s0 + N < stop) begin_tile<N, D>(ks, k + (s0 + N) * k_row, k_row, S - s0 - N, E, k_packs);
        cp_async_commit();
        const bool whole = !keep && !bias && s0 + N <= S && (!causal || s0 + N - 1 <= l0 + first);
#pragma unroll
        for (int i = 0; i < TALL; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = first + 16 * i + lane / 4 + 8 * half;
                const typename Mask<T>::Row seen = mask.of(l0 + row);
                float most = top[i][half];
#pragma unroll
                for (int j = 0; j < 2 * WIDE; ++j) {
                    float& x = p[i][j / 2][2 * half + j % 2];
                    x = whole ? x * unit : seen(x * unit, s0 + j / 2 * 8 + lane % 4 * 2 + j % 2);
                    most = x > most ? x : most;
                }
                most = row_maximum<4>(most);
                // nothing is subtracted in a row of -inf, whose exponentials are 0
                const float shift = most == -INFINITY ? 0.0f : most, fade = fast_exp2(top[i][half] - shift);
                float sum = 0;
#pragma unroll
                for (int j = 0; j < 2 * WIDE; ++j) {
                    float& x = p[i][j / 2][2 * half + j % 2];
                    x = fast_exp2(x - shift);
                    sum += x;
                    if (drop.any() && !kept<N>(bits, row, j / 2 * 8 + lane % 4 * 2 + j % 2)) x = 0;
                }
                top[i][half] = most;
                total[i][half] = total[i][half] * fade + sum;
#pragma unroll
                for (int j = 0; j < D / 8; ++j) o[i][j][2 * half] *= fade, o[i][j][2 * half + 1] *= fade;
            }
        multiply_columns<T, D>(o, p, vs, EV);
    }
    cp_async_wait<0>();
    if (begin >= stop) __syncthreads(); // the queries, which are written over below, have come
    float factor[TALL][2];
    out += split * out_split + b * out_batch + h * out_head + (l0 + first) * out_row;
    lse += split * lse_split + static_cast<int64>(head) * L;
#pragma unroll
    for (int i = 0; i < TALL; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int32 l = l0 + first + 16 * i + lane / 4 + 8 * half;
            const float sum = row_sum<4>(total[i][half]);
            factor[i][half] = sum == 0 ? 0.0f : static_cast<float>(inverse) / sum;
            if (lane % 4 == 0 && l < L)
                lse[l] = sum == 0 ? NO_KEYS : top[i][half] + log2f(sum);
        }
    store_tile<D>(out, out_row, L - l0 - first, EV, qs, first, o, factor);
}

// PART 0: a block has 64 queries, and adds up their gradient over the keys.
// PART 1: a block has 64 keys with their values, and adds up both gradients over the queries of all heads that share them.
//         Scores are transposed: its rows are keys.  2: that of values alone; 3: that of keys alone.
template <class T, int D, int PART>
__global__ void __launch_bounds__(MMA_THREADS) attention_mma_backward(
    const T* __restrict__ q,         // [batch, heads, L, E], strides q_*
    const T* __restrict__ k,         // [batch, heads / group, S, E], strides k_*
    const T* __restrict__ v,         // [batch, heads / group, S, EV], strides v_*
    const T* __restrict__ g,         // [batch, heads, L, EV], strides g_*
    const bool* __restrict__ keep,   // [batch, heads, L, S], strides mask_*, or null
    const T* __restrict__ bias,      // as keep
    const int64* __restrict__ lengths, // [batch], or null: keys of each sample
    const float* __restrict__ lse,   // [batch, heads, L]
    const float* __restrict__ delta, // [batch, heads, L]
    T* __restrict__ grad,            // of q, or of k: its shape, strides grad_*
    T* __restrict__ grad_v,          // of v, strides gv_*
    int64 q_batch, int64 q_head, int64 q_row, int64 k_batch, int64 k_head, int64 k_row, int64 v_batch, int64 v_head,
    int64 v_row, int64 g_batch, int64 g_head, int64 g_row, int64 grad_batch, int64 grad_head, int64 grad_row,
    int64 gv_batch, int64 gv_head, int64 gv_row, ATTENTION_SCALARS) {
    constexpr bool KEYS = PART > 0, FIRST = PART != 2, VALUES = PART == 1 || PART == 2;
    constexpr int M = 16 * WARPS, N = D == 64 || (D == 128 && !KEYS && !IS_TF32<T>) ? 64 : 32,
                  WIDE = N / 8;
    constexpr int COLUMNS = KEYS ? M : N;    // keys of a tile of scores
    constexpr int STAGES = D * sizeof(T) == 512 ? 1 : 2; // of what is read first and last
    DYNAMIC_SHARED(T, memory);
    T *x1 = memory, *x2 = x1 + M * D, *ys = FIRST ? x2 + M * D : x2, *y2 = ys + STAGES * N * D;
    SHARED_ARRAY(uint8, bits, M * N / 8);
    SHARED_ARRAY(float, rows, 2 * N); // lse and delta of passing queries
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16;
    const int32 length = KEYS ? S : L, tiles = (length + M - 1) / M;
    // the longest first: with causal these are the last queries and the first keys
    const int32 tile = blockIdx.x % tiles, r0 = (KEYS ? tile : tiles - 1 - tile) * M;
    const int32 own_heads = KEYS ? heads / group : heads, own = blockIdx.x / tiles, b = own / own_heads, h = own % own_heads;
    const int32 first_head = KEYS ? h * group : h, shared_head = KEYS ? h : h / group;
    const float unit = static_cast<float>(scale * LOG2_E), again = static_cast<float>(inverse);
    k += b * k_batch + shared_head * k_head;
    v += b * v_batch + shared_head * v_head;
    q += b * q_batch + first_head * q_head;
    g += b * g_batch + first_head * g_head;
    const int64 start_row = (static_cast<int64>(b) * heads + first_head) * L;
    const Dropout drop = {seed, offset, limit, S};
    S = keys_of(lengths, b, S);
    const int32 present = (KEYS ? S : L) - r0, others = KEYS ? (present > 0 ? L : 0) : S;
    const int64 y1_row = KEYS ? q_row : k_row, y2_row = KEYS ? g_row : v_row;
    const int64 y1_head = KEYS ? q_head : 0, y2_head = KEYS ? g_head : 0;
    const T *y1_from = KEYS ? q : k, *y2_from = KEYS ? g : v;
    const int32 begin = KEYS && causal ? r0 / N * N : 0, end = !KEYS && causal ? min(others, r0 + M) : others;
    // passing tiles of a head, and of all heads one after another
    const int32 each = end > begin ? (end - begin + N - 1) / N : 0, count = each * (KEYS ? group : 1);

    // each tile's copies in two lots, as soon as their places are free
    auto begin_first = [&](int32 i) {
        if (i >= count) return;
        const int32 n0 = begin + i % each * N;
        const T* from = y1_from + i / each * y1_head;
        begin_tile<N, D>(ys + i % STAGES * N * D, from + n0 * y1_row, y1_row, others - n0, E, in_chunks(from, y1_row, E));
    };
    auto begin_second = [&](int32 i) {
        if (i >= count) return;
        const int32 n0 = begin + i % each * N;
        const T* from = y2_from + i / each * y2_head;
        begin_tile<N, D>(y2, from + n0 * y2_row, y2_row, others - n0, EV, in_chunks(from, y2_row, EV));
        const int64 row = start_row + static_cast<int64>(i / each) * L;
        if (KEYS)
            for (int c = threadIdx.x; c < N; c += MMA_THREADS) {
                rows[c] = n0 + c < L ? lse[row + n0 + c] : NO_KEYS;
                rows[N + c] = n0 + c < L ? delta[row + n0 + c] : 0.0f;
            }
        if (drop.any())
            drop.template draw<KEYS ? N : M, COLUMNS, MMA_THREADS>(bits, row + (KEYS ? n0 : r0), KEYS ? r0 : n0);
    };
    {
        const T *one = KEYS ? k : q, *two = KEYS ? v : g;
        const int64 one_row = KEYS ? k_row : q_row, two_row = KEYS ? v_row : g_row;
        begin_tile<M, D>(x1, one + r0 * one_row, one_row, present, E, in_chunks(one, one_row, E));
        if (FIRST) begin_tile<M, D>(x2, two + r0 * two_row, two_row, present, EV, in_chunks(two, two_row, EV));
    }
    begin_first(0);
    begin_second(0);
    cp_async_commit();
    float row_lse[2] = {}, row_delta[2] = {};
    if (!KEYS)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int32 l = r0 + first + lane / 4 + 8 * half;
            row_lse[half] = l < L ? lse[start_row + l] : NO_KEYS;
            row_delta[half] = l < L ? delta[start_row + l] : 0.0f;
        }

    float sum[1][FIRST ? D / 8 : 1][4] = {}, sum_v[1][VALUES ? D / 8 : 1][4] = {};
    for (int32 i = 0; i < count; ++i) {
        const int32 n0 = begin + i % each * N, at = first_head + i / each;
        const T* y1 = ys + i % STAGES * N * D;
        const Mask<T> mask = mask_of(keep, bias, b * mask_batch + at * mask_head, mask_row, mask_column, L, S, causal);
        cp_async_wait<0>();
        if (i == 0) {
            round_tile<M, D>(x1);
            if (FIRST) round_tile<M, D>(x2);
        }
        round_tile<N, D>(ys + i % STAGES * N * D);
        round_tile<N, D>(y2);
        __syncthreads(); // this tile is here, and nobody reads the last one any more
        if (STAGES == 2) begin_first(i + 1);
        cp_async_commit();
        float p[1][WIDE][4] = {}, dp[1][WIDE][4] = {};
        multiply_rows<D>(p, x1, first, y1, E);
        if (FIRST) multiply_rows<D>(dp, x2, first, y2, EV);
        const int32 last_key = KEYS ? r0 + M - 1 : n0 + N - 1, first_query = KEYS ? n0 : r0;
        const bool whole = !keep && !bias && last_key < S && (!causal || last_key <= first_query);
#pragma unroll
        for (int j = 0; j < 4 * WIDE; ++j) {
            const int half = j % 4 / 2, row = first + lane / 4 + 8 * half, column = j / 4 * 8 + lane % 4 * 2 + j % 2;
            float &x = p[0][j / 4][j % 4], &y = dp[0][j / 4][j % 4];
            x *= unit;
            if (!whole) x = mask(x, KEYS ? n0 + column : r0 + row, KEYS ? r0 + row : n0 + column);
            x = fast_exp2(x - (KEYS ? rows[column] : row_lse[half]));
            const bool stays = !drop.any() || kept<COLUMNS>(bits, KEYS ? column : row, KEYS ? row : column);
            if (FIRST) y = x * ((stays ? y * again : 0.0f) - (KEYS ? rows[N + column] : row_delta[half]));
            if (VALUES && !stays) x = 0;
        }
        if constexpr (VALUES) multiply_columns<T, D>(sum_v, p, y2, EV);
        __syncthreads(); // nobody reads the second tile any more
        begin_second(i + 1);
        cp_async_commit();
        if constexpr (FIRST) multiply_columns<T, D>(sum, dp, y1, E);
        if (STAGES == 1) {
            __syncthreads();
            begin_first(i + 1);
            cp_async_commit();
        }
    }
    cp_async_wait<0>();
    if (count == 0) __syncthreads(); // the block's own rows, which are written over below, have come
    const float scales[1][2] = {{static_cast<float>(scale), static_cast<float>(scale)}}, ones[1][2] = {{again, again}};
    if constexpr (FIRST)
        store_tile<D>(grad + b * grad_batch + h * grad_head + (r0 + first) * grad_row, grad_row, length - r0 - first, E, x1,
                      first, sum, scales);
    if constexpr (VALUES)
        store_tile<D>(grad_v + b * gv_batch + h * gv_head + (r0 + first) * gv_row, gv_row, length - r0 - first, EV, x1, first,
                      sum_v, ones);
}
