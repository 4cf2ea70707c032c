// Losses of class indices: cross entropy from logits, and negative log likelihood, forward and backward.
//
//   cross entropy  p = softmax(x),  loss = w_t (1 - e) (-log p_t) + e / C sum_c w_c (-log p_c)
//                  gx_c = g (p_c W - w_t (1 - e) [c = t] - e / C w_c),  W = w_t (1 - e) + e / C sum_c w_c
//   likelihood     loss = -w_t x_t,  gx_c = -g w_t [c = t]
//   with e the label smoothing.  "mean" divides the sum of the losses by that of w_t, also the gradient.
//   Targets equal to `ignore` count for nothing.  Targets that are no class give NaN, and zero gradient: an index is never
//   followed out of bounds.
//
// Layout     x, gx: [outer, classes, inner] row-major; targets, losses: [outer, inner] = [rows].
// Parallel   GROUP threads share a row - a block, a warp, or with inner > 1 or a dozen classes a thread - and keep maximum
//            and sum together while they read it once ("Online normalizer calculation for softmax", arXiv 1805.02867),
//            in packs of 16 bytes wherever the row begins.  Rows whose target is ignored are not read.
//            Blocks go on to further rows and leave one pair of sums each, which loss_total adds up in fixed order.
// Saved      the logits, the maximum m of each row and log sum exp(x - m): two numbers a row, no probability.
// Floor      cross entropy: 1 value moved an element forward, 2 backward; likelihood: 1 backward, the zeros.  Label
//            smoothing reads each row once more, from cache where it is short.
// To measure the number of blocks, against one a row, for vocabularies; whether exp or the memory decides for fp16.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/index.cuh"
#include "common/normalizer.cuh"

// The row of a group of threads, as one of its threads sees it.  Those past the last row see it again, and store nothing.
template <class T> struct LossRow {
    int64 start, step; // where the row begins, and from one class to the next
    int32 target;
    bool live, counts, valid;
    acc_t<T> weight;
};

template <class T, int GROUP>
__device__ __forceinline__ LossRow<T> loss_row(int64 row, int64 rows, int32 classes, int64 inner, const int64* targets,
                                               const T* w, int64 ignore) {
    LossRow<T> r;
    r.live = row < rows;
    if (!r.live) row = rows - 1;
    int64 target = targets[row], outer = GROUP == 1 ? quotient(row, inner) : row;
    r.step = GROUP == 1 ? inner : 1;
    r.start = GROUP == 1 ? outer * classes * inner + (row - outer * inner) : row * classes;
    r.counts = target != ignore;
    r.valid = r.counts && target >= 0 && target < classes;
    r.target = r.valid ? static_cast<int32>(target) : 0;
    r.weight = !r.valid ? acc_t<T>(0) : w ? to_acc(w[target]) : acc_t<T>(1);
    return r;
}

// f(values, first class) for the classes of a thread: packs, and one by one what lies before and behind whole packs.  The
// rows of 50257 classes begin anywhere.  Without `packs`, or where a row is not in one piece, all are taken one by one.
template <int GROUP, class T, class F>
__device__ __forceinline__ void each_class(const T* x, int64 step, int32 classes, uint32 lane, bool packs, F f) {
    constexpr int N = pack_size<T>;
    uint32 size = classes, begin = 0, end = 0;
    if (GROUP > 1 && packs) {
        begin = (16 - reinterpret_cast<uint64>(x) % 16) % 16 / sizeof(T);
        begin = begin < size ? begin : size;
        end = begin + (size - begin) / N * N;
        for (uint32 c = begin + lane * N; c < end; c += GROUP * N) f(load_pack<N>(x + c), c);
        if (lane < begin) f(load_pack<1>(x + lane), lane);
    }
    for (uint32 c = end + lane; c < size; c += GROUP) f(load_pack<1>(x + c * step), c);
}

template <class A, class T, int N> __device__ __forceinline__ void add_pack(Normalizer<A>& all, const Pack<T, N>& p) {
    A top = to_acc(p[0]);
    for (int j = 1; j < N; ++j) top = top < to_acc(p[j]) ? to_acc(p[j]) : top;
    if (top > all.m) {
        all.s *= exp(all.m - top);
        all.m = top;
    }
    A m = all.m == A(-INFINITY) ? A(0) : all.m; // -inf - -inf would make NaN of what counts nothing
    for (int j = 0; j < N; ++j) all.s += exp(to_acc(p[j]) - m);
}

template <class T, int GROUP>
__device__ __forceinline__ Normalizer<acc_t<T>> normalizer_of(const T* x, int64 step, int32 classes, int32 lane) {
    Normalizer<acc_t<T>> mine;
    each_class<GROUP>(x, step, classes, lane, true, [&](const auto& p, int32) { add_pack(mine, p); });
    if constexpr (GROUP == 1) return mine;
    else return merge<GROUP>(mine);
}

// The sum of w_c (-log p_c) over all classes.
template <class T, int GROUP>
__device__ __forceinline__ acc_t<T> spread_of(const T* x, int64 step, int32 classes, int32 lane, const T* w, acc_t<T> m,
                                              acc_t<T> log_sum) {
    typedef acc_t<T> A;
    A sum = 0;
    each_class<GROUP>(x, step, classes, lane, true, [&](const auto& p, int32 c) {
        constexpr int N = sizeof(p) / sizeof(T);
        for (int j = 0; j < N; ++j) sum += (w ? to_acc(w[c + j]) : A(1)) * (log_sum + (m - to_acc(p[j])));
    });
    if constexpr (GROUP == 1) return sum;
    else return group_sum<GROUP>(sum);
}

// The sums of a block: of losses, then of weights.
template <class A> __device__ __forceinline__ void store_sums(A loss, A weight, A* sums) {
    loss = block_sum(loss);
    weight = block_sum(weight);
    if (threadIdx.x != 0) return;
    sums[blockIdx.x] = loss;
    sums[gridDim.x + blockIdx.x] = weight;
}

template <class T, int GROUP>
__global__ void cross_entropy_forward(const T* __restrict__ x,           // [outer, classes, inner]
                                      const int64* __restrict__ targets, // [rows]
                                      const T* __restrict__ w,           // [classes] or null: 1
                                      acc_t<T>* __restrict__ norms,      // [2, rows]: m, log sum; not where ignored
                                      T* __restrict__ losses,            // [rows] or null
                                      acc_t<T>* __restrict__ sums,       // [2, gridDim.x] or null
                                      int64 rows, int32 classes, int64 inner, int64 ignore, double smoothing) {
    typedef acc_t<T> A;
    int32 lane = threadIdx.x % GROUP, each = blockDim.x / GROUP;
    A loss_sum = 0, weight_sum = 0;
    for (int64 first = blockIdx.x * int64(each); first < rows; first += int64(gridDim.x) * each) {
        int64 row = first + threadIdx.x / GROUP;
        LossRow<T> r = loss_row<T, GROUP>(row, rows, classes, inner, targets, w, ignore);
        A loss = 0;
        if (r.counts) { // the same for all threads of the row, and those are all that meet below
            const T* at = x + r.start;
            Normalizer<A> all = normalizer_of<T, GROUP>(at, r.step, classes, lane);
            A log_sum = log(all.s);
            loss = r.valid ? r.weight * (log_sum + (all.m - to_acc(at[r.target * r.step]))) : A(NAN);
            if (smoothing != 0) {
                A spread = spread_of<T, GROUP>(at, r.step, classes, lane, w, all.m, log_sum);
                loss = loss * A(1 - smoothing) + spread * A(smoothing / classes);
            }
            if (r.live && lane == 0) {
                norms[row] = all.m;
                norms[rows + row] = log_sum;
            }
        }
        if (r.live && lane == 0) {
            if (losses) losses[row] = convert<T>(loss);
            loss_sum += loss;
            weight_sum += r.weight;
        }
    }
    if (sums) store_sums(loss_sum, weight_sum, sums);
}

// The gradient of the loss of a row.
template <class T>
__device__ __forceinline__ acc_t<T> slope_of(const T* g, const acc_t<T>* total, bool each, int64 row) {
    acc_t<T> slope = to_acc(g[each ? row : 0]);
    return total && *total != acc_t<T>(0) ? slope / *total : slope; // where nothing counts no logit has a part in the loss
}

template <class T, int GROUP>
__global__ void cross_entropy_backward(const T* __restrict__ g,             // [rows] with `each`, else [1]
                                       const T* __restrict__ x,             // [outer, classes, inner]
                                       const int64* __restrict__ targets,   // [rows]
                                       const T* __restrict__ w,             // [classes] or null: 1
                                       const acc_t<T>* __restrict__ norms,  // [2, rows]
                                       const acc_t<T>* __restrict__ total,  // [1]: what a mean divides by, or null
                                       const acc_t<T>* __restrict__ w_sum,  // [1] or null: classes
                                       T* __restrict__ gx,                  // [outer, classes, inner]
                                       int64 rows, int32 classes, int64 inner, int64 ignore, double smoothing, bool each) {
    typedef acc_t<T> A;
    int32 lane = threadIdx.x % GROUP, many = blockDim.x / GROUP;
    bool packs = (reinterpret_cast<uint64>(x) ^ reinterpret_cast<uint64>(gx)) % 16 == 0;
    for (int64 first = blockIdx.x * int64(many); first < rows; first += int64(gridDim.x) * many) {
        int64 row = first + threadIdx.x / GROUP;
        LossRow<T> r = loss_row<T, GROUP>(row, rows, classes, inner, targets, w, ignore);
        if (!r.live) return; // nothing is waited for
        const T* at = x + r.start;
        T* out = gx + r.start;
        if (!r.valid) { // no logit is read
            each_class<GROUP>(out, r.step, classes, lane, true, [&](const auto& p, int32 c) {
                Pack<T, sizeof(p) / sizeof(T)> zero;
                for (int j = 0; j < int(sizeof(p) / sizeof(T)); ++j) zero[j] = convert<T>(A(0));
                store_pack(out + c * r.step, zero);
            });
            continue;
        }
        A m = norms[row], log_sum = norms[rows + row], slope = slope_of<T>(g, total, each, row);
        A at_target = slope * r.weight * A(1 - smoothing), spread = slope * A(smoothing / classes);
        A whole = at_target + spread * (w_sum ? *w_sum : A(classes));
        each_class<GROUP>(at, r.step, classes, lane, packs, [&](const auto& p, int32 c) {
            constexpr int N = sizeof(p) / sizeof(T);
            Pack<T, N> d;
            for (int j = 0; j < N; ++j) {
                A v = exp((to_acc(p[j]) - m) - log_sum) * whole;
                if (smoothing != 0) v -= w ? spread * to_acc(w[c + j]) : spread;
                if (c + j == r.target) v -= at_target;
                d[j] = convert<T>(v);
            }
            store_pack(out + c * r.step, d);
        });
    }
}

template <class T>
__global__ void nll_forward(const T* __restrict__ x,           // [outer, classes, inner]
                            const int64* __restrict__ targets, // [rows]
                            const T* __restrict__ w,           // [classes] or null: 1
                            T* __restrict__ losses,            // [rows] or null
                            acc_t<T>* __restrict__ sums,       // [2, gridDim.x] or null
                            int64 rows, int32 classes, int64 inner, int64 ignore) {
    typedef acc_t<T> A;
    A loss_sum = 0, weight_sum = 0;
    for (int64 row = blockIdx.x * int64(blockDim.x) + threadIdx.x; row < rows; row += int64(gridDim.x) * blockDim.x) {
        LossRow<T> r = loss_row<T, 1>(row, rows, classes, inner, targets, w, ignore);
        A loss = r.valid ? -r.weight * to_acc(x[r.start + r.target * r.step]) : r.counts ? A(NAN) : A(0);
        if (losses) losses[row] = convert<T>(loss);
        loss_sum += loss;
        weight_sum += r.weight;
    }
    if (sums) store_sums(loss_sum, weight_sum, sums);
}

template <class T>
__global__ void nll_backward(const T* __restrict__ g,            // [rows] with `each`, else [1]
                             const int64* __restrict__ targets,  // [rows]
                             const T* __restrict__ w,            // [classes] or null: 1
                             const acc_t<T>* __restrict__ total, // [1]: what a mean divides by, or null
                             T* __restrict__ gx,                 // [outer, classes, inner], zeros
                             int64 rows, int32 classes, int64 inner, int64 ignore, bool each) {
    int64 row = blockIdx.x * int64(blockDim.x) + threadIdx.x;
    if (row >= rows) return;
    LossRow<T> r = loss_row<T, 1>(row, rows, classes, inner, targets, w, ignore);
    if (r.valid) gx[r.start + r.target * r.step] = convert<T>(-slope_of<T>(g, total, each, row) * r.weight);
}

// The loss of all rows from the sums of blocks, in one block; and what a mean divides by.
template <class T>
__global__ void loss_total(T* __restrict__ loss,                // [1]
                           const acc_t<T>* __restrict__ sums,   // [2, parts]
                           acc_t<T>* __restrict__ total,        // [1]
                           int32 parts, bool mean) {
    typedef acc_t<T> A;
    A sum = 0, weight = 0;
    for (int32 i = threadIdx.x; i < parts; i += blockDim.x) {
        sum += sums[i];
        weight += sums[parts + i];
    }
    sum = block_sum(sum);
    weight = block_sum(weight);
    if (threadIdx.x != 0) return;
    *total = weight;
    *loss = convert<T>(mean ? sum / weight : sum);
}
