// The state of a launch: its blocks, warps and CUDA threads.
#pragma once

#include "fiber.h"
#include "runtime.h"
#include "sanitizer.h"

namespace sim {

constexpr unsigned MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32, MAX_ARRAYS = 128;
constexpr size_t GAP = 64;             // bytes watched on either side of every shared array
constexpr unsigned char GAP_FILL = 0xA5;
constexpr unsigned char POISON = 0xFF;  // a NaN in every floating-point type, -1 in every integer

// Thread sanitizer has room for 8,128 threads and fibers.
constexpr unsigned MAX_CLOCKS = 8000;

// Blocks that an ordinary launch has in use, in turn. Note [Races] in races.h says why these are several.
constexpr unsigned ORDINARY_BLOCKS = RACES ? 4 : 1;

enum class Order : int { forward, reverse, random, ahead };

struct Block;
struct Launch;

struct AsyncCopy {
    void* target;
    const void* source;
    unsigned bytes, filled, group;
};

struct AsyncCopies {
    AsyncCopy* items = nullptr;
    unsigned count = 0, capacity = 0, group = 0;
    Place latest = {};
    ~AsyncCopies() { free(items); }
};

enum class Where : unsigned char { not_started, running, waiting, spinning, left };

// The first cache line is what a switch needs.
struct alignas(64) Thread {
    Fiber* fiber;
    Block* block;
    Index3 index;
    unsigned number;
    Where where;
    bool excused;  // takes no part in block barriers any more
    const char* what;
    Place place;
    AsyncCopies copies;
    void* clock;   // thread sanitizer's: Note [Races]
    Fiber* stack;  // likewise
};

// A warp keeps its meetings for itself: one that another warp used before would, to the thread sanitizer, have made the two
// meet.
struct Warp {
    unsigned alive;
    Meeting *open, *unused;
};

struct SharedArray {
    SharedSite* site;  // null for the dynamic one
    const char* name;
    Place place;
    size_t offset, bytes;
};

struct Block {
    Launch* launch;
    Index3 index;
    unsigned live;      // threads that have not left the kernel
    unsigned expected;  // threads that block barriers wait for
    unsigned deserted;  // threads that left without leave_barriers()
    unsigned arrived;
    int votes;
    int result;
    int barrier_mode;
    unsigned barriers_passed;
    unsigned turn;
    char barrier_events[2], turn_events[2];  // addresses that stand for events in thread sanitizer's order
    const char* barrier_what;
    Place barrier;
    unsigned cluster_arrived, cluster_passed;  // of its row of blocks, in the row's first
    char cluster_events[2];
    unsigned cursor;
    uint64_t ready[MAX_THREADS / 64];  // one bit a rank
    uint16_t order[MAX_THREADS];       // rank -> thread
    uint16_t rank[MAX_THREADS];        // thread -> rank
    Warp warps[MAX_WARPS];
    char* arena;
    size_t arena_bytes, arena_used, static_bytes;
    unsigned array_count;
    SharedArray arrays[MAX_ARRAYS];
    Thread threads[MAX_THREADS];

    void mark(unsigned thread) { ready[rank[thread] >> 6] |= uint64_t(1) << (rank[thread] & 63); }
};

struct Report {
    char message[6144];
    char file[1024];
    int line;
    Index3 block, thread;
};

struct Launch {
    void (*entry)(void**);
    void** args;
    Index3 grid, dim;
    unsigned threads;  // a block
    size_t dynamic_bytes, static_limit, total_limit;
    bool cooperative, clusters;  // all blocks are there at once; each row of the grid is a cluster
    Order order;
    uint64_t random;
    const char* name;

    Block** blocks;  // a cooperative launch has all of them, an ordinary one the first
    size_t block_count, current;
    unsigned live_blocks;
    unsigned spinners;   // threads that poll
    uint64_t idle_polls;  // polls since anything else happened
    bool failed;
    void* main_stack_pointer;
    void* main_fake_stack;
    const void* main_stack;
    size_t main_stack_bytes;
    void* main_clock;
    char started, finished;  // their addresses stand for "launched" and "left" in thread sanitizer's order of events

    unsigned draw(unsigned below) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        return static_cast<unsigned>((random >> 32) * below >> 32);
    }
};

// What an OS thread keeps from launch to launch.
struct Worker {
    FiberPool fibers;
    Launch* launch = nullptr;
    Thread* running = nullptr;
    Block** blocks = nullptr;
    size_t block_capacity = 0;
    bool printed = false;
    volatile bool interrupted = false;
    Report report;

    Worker() = default;
    Worker(const Worker&) = delete;
    ~Worker();
};

// The worker of this OS thread; a plain pointer, since every access to an object with a destructor asks whether it was made.
extern __thread Worker* worker __attribute__((tls_model("initial-exec")));

[[noreturn]] void fail_at(Thread* thread, const char* file, int line, const char* format, ...)
    __attribute__((format(printf, 4, 5)));

}  // namespace sim
