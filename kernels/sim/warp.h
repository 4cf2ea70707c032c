// Barriers, warp collectives and polling.
#pragma once

inline void __syncthreads(SIM_PLACE) { ::sim::sim_syncthreads(0, 0, "__syncthreads", file, line); }
inline int __syncthreads_count(int predicate, SIM_PLACE) {
    return ::sim::sim_syncthreads(1, predicate, "__syncthreads_count", file, line);
}
inline int __syncthreads_and(int predicate, SIM_PLACE) {
    return ::sim::sim_syncthreads(2, predicate, "__syncthreads_and", file, line);
}
inline int __syncthreads_or(int predicate, SIM_PLACE) {
    return ::sim::sim_syncthreads(3, predicate, "__syncthreads_or", file, line);
}

inline void __syncwarp(unsigned mask = ~0u, SIM_PLACE) {
    ::sim::sim_part(::sim::sim_meet("__syncwarp", mask, nullptr, 0, file, line));
}

inline unsigned __activemask() { return ::sim::sim_active_mask(); }

namespace sim {

// The value lane `source` published, or the caller's own where the source lies outside its segment.
template <class T>
inline T exchange(const char* what, unsigned mask, T value, unsigned source, bool inside, const char* file, int line) {
    static_assert(sizeof(T) <= 16, "shuffles move values of at most 16 bytes");
    constexpr unsigned WORDS = (sizeof(T) + 3) / 4;
    unsigned words[WORDS] = {};
    __builtin_memcpy(words, &value, sizeof(T));
    Meeting* meeting = sim_meet(what, mask, words, sizeof words, file, line);
    if (inside) {
        if (!(meeting->present >> source & 1))
            sim_fail(file, line, "%s: lane %u reads lane %u, which %s", what, sim_now.lane, source,
                     mask >> source & 1 ? "has left the kernel or does not exist" : "the mask does not name");
        __builtin_memcpy(&value, meeting->data + source * sizeof words, sizeof(T));
    }
    sim_part(meeting);
    return value;
}

template <class T, class Combine>
inline T reduce(const char* what, unsigned mask, T value, Combine combine, const char* file, int line) {
    Meeting* meeting = sim_meet(what, mask, &value, sizeof(T), file, line);
    auto values = reinterpret_cast<const T*>(meeting->data);
    unsigned lanes = meeting->present;
    T result = values[__builtin_ctz(lanes)];
    for (lanes &= lanes - 1; lanes; lanes &= lanes - 1) result = combine(result, values[__builtin_ctz(lanes)]);
    sim_part(meeting);
    return result;
}

// Every lane's result of the butterfly v = combine(v, __shfl_xor_sync(..., v, offset)) for offset = width / 2 ... 1, to the
// bit, in one meeting instead of five. No race sanitizer: the meeting orders all lanes.
template <int width, class T, class Combine>
__attribute__((noinline, no_sanitize("thread")))
T butterfly(T value, Combine combine, const char* file, int line) {
    static_assert(sizeof(T) % 4 == 0 && sizeof(T) <= MAX_PUBLISHED, "reductions move values of 4, 8, ... 64 bytes");
    Meeting* meeting = sim_meet("warp_reduce", ~0u, &value, sizeof(T), file, line);
    if (meeting->present != ~0u)
        sim_fail(file, line, "warp_reduce: all 32 lanes take part, came 0x%08x", meeting->present);
    auto values = reinterpret_cast<T*>(meeting->data);
    if (!meeting->combined) {
        meeting->combined = true;
        for (int offset = width / 2; offset > 0; offset /= 2)
            for (int lane = 0; lane < 32; ++lane)
                if (!(lane & offset)) {
                    T low = values[lane], high = values[lane ^ offset];
                    values[lane] = combine(low, high);
                    values[lane ^ offset] = combine(high, low);
                }
    }
    value = values[sim_now.lane];
    sim_part(meeting);
    return value;
}

inline unsigned ballot(const char* what, unsigned mask, int predicate, unsigned& present, const char* file, int line) {
    unsigned value = predicate != 0, votes = 0;
    Meeting* meeting = sim_meet(what, mask, &value, sizeof value, file, line);
    auto values = reinterpret_cast<const unsigned*>(meeting->data);
    for (unsigned lanes = meeting->present; lanes; lanes &= lanes - 1)
        if (values[__builtin_ctz(lanes)]) votes |= lanes & -lanes;
    present = meeting->present;
    sim_part(meeting);
    return votes;
}

}  // namespace sim

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIM_PLACE) {
    unsigned base = sim_now.lane & ~(width - 1u);
    return ::sim::exchange("__shfl_sync", mask, value, base + (source & (width - 1)), true, file, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIM_PLACE) {
    unsigned lane = sim_now.lane, base = lane & ~(width - 1u);
    return ::sim::exchange("__shfl_up_sync", mask, value, lane - delta, lane >= base + delta, file, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIM_PLACE) {
    unsigned lane = sim_now.lane, base = lane & ~(width - 1u);
    return ::sim::exchange("__shfl_down_sync", mask, value, lane + delta, lane + delta < base + width, file, line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIM_PLACE) {
    unsigned lane = sim_now.lane, base = lane & ~(width - 1u), source = lane ^ static_cast<unsigned>(lanes);
    return ::sim::exchange("__shfl_xor_sync", mask, value, source, source < base + width, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIM_PLACE) {
    unsigned present;
    return ::sim::ballot("__ballot_sync", mask, predicate, present, file, line);
}
inline int __any_sync(unsigned mask, int predicate, SIM_PLACE) {
    unsigned present;
    return ::sim::ballot("__any_sync", mask, predicate, present, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIM_PLACE) {
    unsigned present, votes = ::sim::ballot("__all_sync", mask, predicate, present, file, line);
    return votes == present;
}

#define SIM_REDUCE(name, T, expression) \
    inline T name(unsigned mask, T value, SIM_PLACE) { \
        return ::sim::reduce(#name, mask, value, [](T a, T b) -> T { return expression; }, file, line); \
    }
SIM_REDUCE(__reduce_add_sync, int, static_cast<int>(static_cast<unsigned>(a) + static_cast<unsigned>(b)))
SIM_REDUCE(__reduce_add_sync, unsigned, a + b)
SIM_REDUCE(__reduce_min_sync, int, a < b ? a : b)
SIM_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
SIM_REDUCE(__reduce_max_sync, int, a > b ? a : b)
SIM_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
SIM_REDUCE(__reduce_and_sync, unsigned, a & b)
SIM_REDUCE(__reduce_or_sync, unsigned, a | b)
SIM_REDUCE(__reduce_xor_sync, unsigned, a ^ b)
#undef SIM_REDUCE

// The lanes of the mask that hold the caller's value.
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, SIM_PLACE) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "__match_any_sync compares values of 4 or 8 bytes");
    ::sim::Meeting* meeting = ::sim::sim_meet("__match_any_sync", mask, &value, sizeof(T), file, line);
    unsigned same = 0;
    for (unsigned lanes = meeting->present; lanes; lanes &= lanes - 1)
        if (__builtin_memcmp(meeting->data + __builtin_ctz(lanes) * sizeof(T), &value, sizeof(T)) == 0) same |= lanes & -lanes;
    ::sim::sim_part(meeting);
    return same;
}
