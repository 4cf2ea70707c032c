// Atomics. They are real, since launches of several OS threads may share memory, and stronger in order than the GPU's:
// the simulator shows nothing about memory ordering.
#pragma once

namespace sim {

template <class T, class Bits, class Change>
inline T atomic_change(T* address, Change change) {
    auto raw = reinterpret_cast<Bits*>(address);
    Bits old = __atomic_load_n(raw, __ATOMIC_RELAXED);
    for (;;) {
        T before = bits_as<T>(old);
        if (__atomic_compare_exchange_n(raw, &old, bits_as<Bits>(change(before)), false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return before;
    }
}

}  // namespace sim

#define SIM_ATOMICS(T)                                                                                                 \
    inline T atomicAdd(T* a, T v) { return __atomic_fetch_add(a, v, __ATOMIC_ACQ_REL); }                               \
    inline T atomicAnd(T* a, T v) { return __atomic_fetch_and(a, v, __ATOMIC_ACQ_REL); }                               \
    inline T atomicOr(T* a, T v) { return __atomic_fetch_or(a, v, __ATOMIC_ACQ_REL); }                                 \
    inline T atomicXor(T* a, T v) { return __atomic_fetch_xor(a, v, __ATOMIC_ACQ_REL); }                               \
    inline T atomicExch(T* a, T v) { return __atomic_exchange_n(a, v, __ATOMIC_ACQ_REL); }                             \
    inline T atomicMin(T* a, T v) { return ::sim::atomic_change<T, T>(a, [v](T o) { return o < v ? o : v; }); }        \
    inline T atomicMax(T* a, T v) { return ::sim::atomic_change<T, T>(a, [v](T o) { return o > v ? o : v; }); }        \
    inline T atomicCAS(T* a, T expected, T v) {                                                                        \
        __atomic_compare_exchange_n(a, &expected, v, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);                       \
        return expected;                                                                                               \
    }

SIM_ATOMICS(int)
SIM_ATOMICS(unsigned)
SIM_ATOMICS(long long)
SIM_ATOMICS(unsigned long long)
#undef SIM_ATOMICS

inline int atomicSub(int* a, int v) { return __atomic_fetch_sub(a, v, __ATOMIC_ACQ_REL); }
inline unsigned atomicSub(unsigned* a, unsigned v) { return __atomic_fetch_sub(a, v, __ATOMIC_ACQ_REL); }
inline unsigned atomicInc(unsigned* a, unsigned limit) {
    return ::sim::atomic_change<unsigned, unsigned>(a, [limit](unsigned o) { return o >= limit ? 0 : o + 1; });
}
inline unsigned atomicDec(unsigned* a, unsigned limit) {
    return ::sim::atomic_change<unsigned, unsigned>(a, [limit](unsigned o) { return o == 0 || o > limit ? limit : o - 1; });
}
inline float atomicAdd(float* a, float v) {
    return ::sim::atomic_change<float, unsigned>(a, [v](float o) { return o + v; });
}
inline double atomicAdd(double* a, double v) {
    return ::sim::atomic_change<double, unsigned long long>(a, [v](double o) { return o + v; });
}
inline float atomicExch(float* a, float v) {
    return ::sim::atomic_change<float, unsigned>(a, [v](float) { return v; });
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
