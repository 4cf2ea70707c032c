// What kernels and the simulator's runtime know of each other. Kernels are compiled against this file and the headers
// beside it alone, with no header of the C++ library: that is what keeps compiling one under a second.
//
// Blocking calls take the place in the source they were made from as default arguments, so that every report can name it.
#pragma once

namespace sim {

struct Index3 { unsigned x, y, z; };

template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits_as changes the type, not the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

// What the CUDA thread that runs now sees of itself. The scheduler rewrites it at every switch.
struct Now {
    Index3 thread, block, block_dim, grid_dim;
    unsigned lane;
    unsigned atomics;  // done since the last switch
};
}  // namespace sim

// Outside of the namespace, so that debuggers find it by its name.
extern "C" __attribute__((visibility("default"))) __thread sim::Now sim_now __attribute__((tls_model("initial-exec")));

namespace sim {

// A warp's lanes meet here: each publishes `size` bytes at data + lane * size, and all read once all have come.
constexpr unsigned MAX_PUBLISHED = 64;
struct Meeting {
    unsigned mask, present;  // lanes named by the caller; lanes that came (the others have left the kernel)
    unsigned size, readers;
    bool combined;  // data holds results, made by the first lane that read
    const char* what;
    const char* file;
    int line;
    Meeting* next;
    alignas(64) unsigned char data[32 * MAX_PUBLISHED];
};

// Identity of one SHARED_ARRAY declaration.
struct SharedSite { char unused; };

struct Place {
    const char* file;
    int line;
};

#pragma GCC visibility push(default)
extern "C" {
[[noreturn]] void sim_fail(const char* file, int line, const char* format, ...) __attribute__((format(printf, 3, 4)));
// mode 0: none, 1: how many threads gave a true predicate; 2: all of them; 3: any of them
int sim_syncthreads(int mode, int predicate, const char* what, const char* file, int line);
Meeting* sim_meet(const char* what, unsigned mask, const void* value, unsigned size, const char* file, int line);
void sim_part(Meeting* meeting);
unsigned sim_active_mask();
void sim_leave_barriers();
[[noreturn]] void sim_endless(const char* file, int line);
void sim_spin(const char* what, const char* file, int line);
void sim_spin_end();
void sim_cluster_barrier(const char* file, int line);
const void* sim_peer(const void* address, unsigned rank, unsigned bytes, const char* file, int line);
void* sim_shared(SharedSite* site, unsigned long bytes, unsigned long align, const char* name, const char* file, int line);
void* sim_dynamic_shared(unsigned long element, unsigned long align, const char* name, const char* file, int line);
bool sim_is_shared(const void* address);
void sim_async_copy(void* target, const void* source, unsigned bytes, unsigned filled, const char* file, int line);
void sim_async_commit();
void sim_async_wait(unsigned groups_left, void (*copy)(void* target, const void* source, unsigned bytes, unsigned filled));
int sim_print(const char* format, ...) __attribute__((format(printf, 1, 2)));
unsigned long long sim_clock();
}
#pragma GCC visibility pop

}  // namespace sim

namespace sim {

// No other thread runs while this one polls, unless it polls in spin_until.
constexpr unsigned MAX_ATOMICS = 1 << 24;
__attribute__((no_sanitize("thread"))) inline void count_atomic(const char* file, int line) {
    if (++sim_now.atomics == MAX_ATOMICS) sim_endless(file, line);
}

}  // namespace sim

#define SIM_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
