// Connectionist temporal classification: the loss and its gradient, from log probabilities or from logits.
//
//   A target of S labels becomes L = 2S + 1 states, a blank around every label.
//   alpha[t][s] = e[t][s] + log(exp alpha[t-1][s] + exp alpha[t-1][s-1] + exp alpha[t-1][s-2])
//       the last term only past a blank between two different labels; e[t][s] is the log probability of state s's class
//   beta        the same recursion on the sequence read backwards
//   loss        -log(exp alpha[T-1][L-1] + exp alpha[T-1][L-2])
//   gradient    g (softmax(x)[t][c] - sum over states s of class c of exp(alpha + beta - e + loss)), of the logits
//   Graves et al., "Connectionist temporal classification", 2006, equations 6 to 16.
//
// Layout     x, grad: [T, N, C]; paths: [2, N, T, L] (alpha, then beta with its states and steps in the order of alpha's);
//            base: [2, N, T]; all row-major.  Target n is targets[offsets[n] ... offsets[n] + sizes[n]).
// Parallel   ctc_paths: a block for each sequence and direction, so that alpha and beta run at once; a thread has K states, L
//            apart by the block's width; the row of states is exchanged through two buffers in shared memory, one barrier a
//            step; the next step's emissions are on their way before the barrier.
//            ctc_gradient: a block for each row of x.  The states of one class are a chain, walked by one thread in a fixed
//            order: no atomics, the same bits each time.
// Numbers    Logarithms in fp32 (fp64 for fp64): every 8 steps the best state is set back to 0 and what was taken off is kept
//            in fp64, so that the states that matter keep their digits however long the sequence.
// Saved      paths and base; and log sum exp of each row where x holds logits.
// Bounds     A label that is no class makes its target impossible and is never used as an index.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/normalizer.cuh"

constexpr double ZERO = -1e30;  // log 0: differences of two are no NaN
constexpr double NEVER = -1e29; // below this, a logarithm is one of zero
constexpr int REBASE = 8;

// log sum exp of each row: what turns logits into log probabilities.
template <class T, int GROUP>
__global__ void ctc_normalizers(const T* __restrict__ x,   // [rows, C]
                                acc_t<T>* __restrict__ lse, // [rows]
                                int64 rows, int32 C) {
    typedef acc_t<T> A;
    int64 row = blockIdx.x * static_cast<int64>(blockDim.x / GROUP) + threadIdx.x / GROUP;
    if (row >= rows) return; // whole groups leave
    Normalizer<A> mine;
    for (int32 i = threadIdx.x % GROUP; i < C; i += GROUP) mine.add(to_acc(x[row * C + i]));
    Normalizer<A> all = merge<GROUP>(mine);
    if (threadIdx.x % GROUP == 0) lse[row] = all.m + log(all.s);
}

// chain[n][s]: the next label of target n that is the same as label s, or -1; `first`: whether none before it is.
__global__ void ctc_chains(const int64* __restrict__ targets, const int64* __restrict__ offsets, // [N]
                           const int64* __restrict__ sizes,                                     // [N]
                           int32* __restrict__ chain,                                           // [N, most]
                           bool* __restrict__ first,                                            // [N, most]
                           int32 most) {
    int64 n = blockIdx.y;
    int32 s = blockIdx.x * blockDim.x + threadIdx.x;
    int64 size = sizes[n];
    if (size > most || s >= size) return;
    const int64* target = targets + offsets[n];
    int32 next = -1;
    for (int32 k = s + 1; k < size && next < 0; ++k)
        if (target[k] == target[s]) next = k;
    bool before = false;
    for (int32 k = 0; k < s && !before; ++k) before = target[k] == target[s];
    chain[n * most + s] = next;
    first[n * most + s] = !before;
}

template <class A> __device__ __forceinline__ A log_add(A a, A b, A c) {
    A m = a < b ? b : a;
    m = m < c ? c : m;
    return m + log(exp(a - m) + exp(b - m) + exp(c - m));
}

template <class T, int K>
__global__ void __launch_bounds__(sizeof(acc_t<T>) == 8 ? 512 : 1024, 1) ctc_paths(const T* __restrict__ x,           // [T, N, C]
                          const acc_t<T>* __restrict__ lse,  // [T, N] or null: x holds log probabilities
                          const int64* __restrict__ targets, const int64* __restrict__ offsets, // [N]
                          const int64* __restrict__ sizes,                                     // [N]
                          const int64* __restrict__ lengths,                                   // [N]
                          acc_t<T>* __restrict__ paths, // [2, N, T, L] or null
                          double* __restrict__ base,    // [2, N, T] or null
                          double* __restrict__ loss,    // [N]
                          int32 steps, int32 N, int32 C, int32 L, int32 blank) {
    typedef acc_t<T> A;
    DYNAMIC_SHARED(A, shared); // two rows of L + 2 states, the first two never reached
    int32 n = blockIdx.x, way = blockIdx.y, width = blockDim.x;
    int64 size = sizes[n], length = lengths[n];
    int32 states = static_cast<int32>(2 * size + 1);
    if (length > steps) length = steps;
    if (size < 0 || 2 * size + 1 > L || length <= 0) { // more labels than steps, or no steps; the whole block leaves
        if (way == 0 && threadIdx.x == 0) loss[n] = size == 0 ? 0.0 : INFINITY;
        return;
    }
    const int64* target = targets + offsets[n];
    if (threadIdx.x < 4) shared[threadIdx.x / 2 * (L + 2) + threadIdx.x % 2] = A(ZERO);

    // What belongs to each state: seen in this direction, state s is state s or states - 1 - s of alpha.
    int32 column[K]; // the class, ~class where the way from two states before is open, or C for no class
    A next[K];
    auto emission = [&](int64 step, int32 mark) {
        int32 c = mark < 0 ? ~mark : mark;
        if (c == C) return A(ZERO);
        int64 line = (way ? length - 1 - step : step) * N + n;
        A e = to_acc(x[line * C + c]) - (lse ? lse[line] : A(0));
        return e < A(ZERO) ? A(ZERO) : e; // NaN stays
    };
#pragma unroll
    for (int k = 0; k < K; ++k) {
        int32 s = threadIdx.x + k * width;
        column[k] = C;
        next[k] = A(ZERO);
        if (s >= states) continue;
        int32 at = way ? states - 1 - s : s;
        int64 c = at % 2 ? target[at / 2] : blank;
        bool open = s % 2 && s >= 2 && c != target[(way ? at + 2 : at - 2) / 2];
        if (c >= 0 && c < C) column[k] = open ? ~static_cast<int32>(c) : static_cast<int32>(c);
        next[k] = emission(0, column[k]);
    }

    double taken = 0;
    for (int64 step = 0; step < length; ++step) {
        A* now = shared + (step % 2 ? L + 4 : 2);
        const A* old = shared + (step % 2 ? 2 : L + 4);
        A value[K], best = A(ZERO);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            int32 s = threadIdx.x + k * width;
            value[k] = A(ZERO);
            if (s >= states) continue;
            if (step > 0)
                value[k] = next[k] + log_add(old[s], old[s - 1], column[k] < 0 ? old[s - 2] : A(ZERO));
            else if (s < 2)
                value[k] = next[k];
            if (step + 1 < length) next[k] = emission(step + 1, column[k]);
            best = best < value[k] ? value[k] : best;
        }
        if (step % REBASE == 0) {
            best = block_max(best);
            if (best > A(NEVER)) {
                taken += best;
#pragma unroll
                for (int k = 0; k < K; ++k) value[k] -= best;
            }
        }
        int64 line = (static_cast<int64>(way) * N + n) * steps + (way ? length - 1 - step : step);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            int32 s = threadIdx.x + k * width;
            if (s >= states) continue;
            now[s] = value[k];
            if (paths) paths[line * L + (way ? states - 1 - s : s)] = value[k];
        }
        if (base && threadIdx.x == 0) base[line] = taken;
        __syncthreads();
    }
    if (way == 0 && threadIdx.x == 0) {
        const A* last = shared + ((length - 1) % 2 ? L + 4 : 2);
        double a = last[states - 1], b = size ? last[states - 2] : ZERO, m = a < b ? b : a;
        double total = m + log(exp(a - m) + exp(b - m)) + taken;
        loss[n] = m < NEVER ? INFINITY : total == 0 ? 0.0 : -total; // never -0
    }
}

template <class T>
__global__ void ctc_gradient(const T* __restrict__ x,          // [T, N, C]
                             const acc_t<T>* __restrict__ lse, // [T, N] or null
                             const int64* __restrict__ targets, const int64* __restrict__ offsets, // [N]
                             const int64* __restrict__ sizes,                                     // [N]
                             const int64* __restrict__ lengths,                                   // [N]
                             const int32* __restrict__ chain,                                     // [N, most]
                             const bool* __restrict__ first,                                      // [N, most]
                             const acc_t<T>* __restrict__ paths,                                  // [2, N, T, L]
                             const double* __restrict__ base,                                     // [2, N, T]
                             const double* __restrict__ loss,                                     // [N]
                             const acc_t<T>* __restrict__ g,                                      // [N]
                             T* __restrict__ grad,                                                // [T, N, C]
                             int32 steps, int32 N, int32 C, int32 L, int32 most, int32 blank) {
    typedef acc_t<T> A;
    int64 line = blockIdx.x; // t * N + n
    int32 n = static_cast<int32>(line % N);
    int64 t = line / N, size = sizes[n];
    x += line * C;
    grad += line * C;
    A scale = g[n];
    if (t >= lengths[n] || scale == A(0) || isinf(loss[n])) {
        A fill = t < lengths[n] && scale != A(0) ? A(NAN) : A(0); // impossible, and yet asked for
        for (int32 c = threadIdx.x; c < C; c += blockDim.x) grad[c] = convert<T>(fill);
        return;
    }
    A norm = lse ? lse[line] : A(0);
    auto log_p = [&](int64 c) { return to_acc(x[c]) - norm; };
    for (int32 c = threadIdx.x; c < C; c += blockDim.x) grad[c] = convert<T>(scale * exp(log_p(c)));

    int64 ahead = static_cast<int64>(n) * steps + t, behind = (static_cast<int64>(N) + n) * steps + t;
    const A* alpha = paths + ahead * L;
    const A* beta = paths + behind * L;
    A shift = static_cast<A>(base[ahead] + base[behind] + loss[n]);
    const int64* target = targets + offsets[n];
    auto posterior = [&](int64 s, A e) { return exp(alpha[s] + beta[s] - (e < A(ZERO) ? A(ZERO) : e) + shift); };
    A blanks = 0, e_blank = log_p(blank);
    for (int64 s = threadIdx.x; s <= size; s += blockDim.x) {
        blanks += posterior(2 * s, e_blank);
        if (s < size && target[s] == blank) blanks += posterior(2 * s + 1, e_blank);
    }
    blanks = block_sum(blanks);
    __syncthreads(); // the softmax stands in grad; below, some of it is replaced
    for (int64 s = threadIdx.x; s < size; s += blockDim.x) {
        int64 c = target[s];
        if (!first[n * most + s] || c == blank || c < 0 || c >= C) continue;
        A e = log_p(c), sum = 0;
        for (int64 k = s; k >= 0; k = chain[n * most + k]) sum += posterior(2 * k + 1, e);
        grad[c] = convert<T>(scale * (exp(e) - sum));
    }
    if (threadIdx.x == 0) grad[blank] = convert<T>(scale * (exp(e_blank) - blanks));
}
