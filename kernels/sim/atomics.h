// Atomics. They are real, since launches of several OS threads may share memory, and stronger in order than the GPU's:
// the simulator shows nothing about memory ordering.
#pragma once

namespace sim {

template <class T, class Bits, class Change>
inline T atomic_change(T* address, Change change, const char* file, int line) {
    count_atomic(file, line);
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

#define SIM_SIMPLE(name, T, builtin)                         \
    inline T name(T* address, T value, SIM_PLACE) {          \
        ::sim::count_atomic(file, line);                     \
        return builtin(address, value, __ATOMIC_ACQ_REL);    \
    }
#define SIM_CHANGE(name, T, Bits, expression)                                                                        \
    inline T name(T* address, T value, SIM_PLACE) {                                                                  \
        return ::sim::atomic_change<T, Bits>(address, [value](T old) -> T { return expression; }, file, line);       \
    }
#define SIM_ATOMICS(T)                                                                                               \
    SIM_SIMPLE(atomicAdd, T, __atomic_fetch_add)                                                                     \
    SIM_SIMPLE(atomicAnd, T, __atomic_fetch_and)                                                                     \
    SIM_SIMPLE(atomicOr, T, __atomic_fetch_or)                                                                       \
    SIM_SIMPLE(atomicXor, T, __atomic_fetch_xor)                                                                     \
    SIM_SIMPLE(atomicExch, T, __atomic_exchange_n)                                                                   \
    SIM_CHANGE(atomicMin, T, T, old < value ? old : value)                                                           \
    SIM_CHANGE(atomicMax, T, T, old > value ? old : value)                                                           \
    inline T atomicCAS(T* address, T expected, T value, SIM_PLACE) {                                                 \
        ::sim::count_atomic(file, line);                                                                             \
        __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);           \
        return expected;                                                                                             \
    }

SIM_ATOMICS(int)
SIM_ATOMICS(unsigned)
SIM_ATOMICS(long long)
SIM_ATOMICS(unsigned long long)
SIM_SIMPLE(atomicSub, int, __atomic_fetch_sub)
SIM_SIMPLE(atomicSub, unsigned, __atomic_fetch_sub)
SIM_CHANGE(atomicInc, unsigned, unsigned, old >= value ? 0 : old + 1)
SIM_CHANGE(atomicDec, unsigned, unsigned, old == 0 || old > value ? value : old - 1)
SIM_CHANGE(atomicAdd, float, unsigned, old + value)
SIM_CHANGE(atomicAdd, double, unsigned long long, old + value)
SIM_CHANGE(atomicExch, float, unsigned, (void(old), value))
#undef SIM_ATOMICS
#undef SIM_CHANGE
#undef SIM_SIMPLE

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
