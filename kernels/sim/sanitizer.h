// Tells the address and thread sanitizers of stacks and of CUDA threads. The runtime itself is never instrumented: its
// own bookkeeping is no business of theirs, and only kernels should appear in reports.
#pragma once

#include <cstddef>

extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
void __sanitizer_set_death_callback(void (*callback)());
void __asan_poison_memory_region(const void* address, size_t size);
void __asan_unpoison_memory_region(const void* address, size_t size);
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_set_fiber_name(void* fiber, const char* name);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}

namespace sim {

#if defined(SIM_ADDRESS)
constexpr bool ADDRESS = true;
#else
constexpr bool ADDRESS = false;
#endif
#if defined(SIM_THREAD)
constexpr bool RACES = true;
#else
constexpr bool RACES = false;
#endif

// `if constexpr` keeps calls out of the builds whose sanitizer does not offer them.
inline void forbid(const void* address, size_t bytes) {
    if constexpr (ADDRESS) __asan_poison_memory_region(address, bytes);
}

inline void allow(const void* address, size_t bytes) {
    if constexpr (ADDRESS) __asan_unpoison_memory_region(address, bytes);
}

inline void happens_before(void* event) {
    if constexpr (RACES) __tsan_release(event);
}

inline void happens_after(void* event) {
    if constexpr (RACES) __tsan_acquire(event);
}

}  // namespace sim
