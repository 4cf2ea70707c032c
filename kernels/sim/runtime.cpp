// The simulator's runtime: compiled once for each sanitizer, loaded before the kernels, which call it.
//
// Every CUDA thread runs on a fiber until it has to wait; then it picks the thread to go on with and switches there
// itself. A thread that ends goes on as the next thread on the same stack, so a kernel that never waits costs a function
// call a thread. Blocks of an ordinary launch run one after another, those of a cooperative launch take turns.
#include <cstdarg>
#include <cstdio>
#include <ctime>

#include "scheduler.h"

#include "calls.h"
#include "faults.h"

extern "C" {
__thread sim::Now sim_now;
}

namespace sim {

__thread Worker* worker = nullptr;

Worker::~Worker() {
    for (size_t i = 0; i < block_capacity; ++i) {
        Block& block = *blocks[i];
        forget_clocks(block);
        for (Warp& warp : block.warps)
            while (Meeting* meeting = warp.unused) {
                warp.unused = meeting->next;
                delete meeting;
            }
        allow(block.arena, block.arena_bytes);
        munmap(block.arena, block.arena_bytes);
        delete &block;
    }
    free(blocks);
}

static unsigned long long active_launches = 0;

bool others_are_running() { return __atomic_load_n(&active_launches, __ATOMIC_RELAXED) > 1; }

static void prepare(Worker& w, Launch& launch, size_t blocks) {
    if (w.block_capacity < blocks) {
        w.blocks = static_cast<Block**>(realloc(w.blocks, blocks * sizeof(Block*)));
        for (; w.block_capacity < blocks; ++w.block_capacity) {
            auto block = new Block();
            block->arena_bytes = MAX_SHARED + (MAX_ARRAYS + 1) * 2 * GAP;
            void* arena = mmap(nullptr, block->arena_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            block->arena = static_cast<char*>(arena);
            forbid(block->arena, block->arena_bytes);
            w.blocks[w.block_capacity] = block;
        }
    }
    for (size_t b = 0; b < blocks; ++b) {
        Block* block = w.blocks[b];
        block->launch = &launch;
        Index3 at{0, 0, 0};
        for (unsigned i = 0; i < launch.threads; ++i) {
            Thread& thread = block->threads[i];
            thread.block = block;
            thread.number = i;
            thread.index = at;
            if (++at.x == launch.dim.x) at.x = 0, ++at.y;
            if (at.y == launch.dim.y) at.y = 0, ++at.z;
        }
        order_threads(*block);
    }
}

static Index3 block_index(const Launch& launch, uint64_t number) {
    return {static_cast<unsigned>(number % launch.grid.x), static_cast<unsigned>(number / launch.grid.x % launch.grid.y),
            static_cast<unsigned>(number / launch.grid.x / launch.grid.y)};
}

// Runs until the blocks that were begun have ended, or something was reported.
static void run(Worker& w, Launch& launch) {
    Thread* first = next_thread(launch);
    if (!first) return;
    first->fiber = stack_for(first);
    enter(first);
    if constexpr (ADDRESS)
        __sanitizer_start_switch_fiber(&launch.main_fake_stack, first->fiber->stack, STACK_BYTES);
    sim_switch(&launch.main_stack_pointer, first->fiber->stack_pointer);
    w.running = nullptr;
    if constexpr (ADDRESS) __sanitizer_finish_switch_fiber(launch.main_fake_stack, nullptr, nullptr);
    if constexpr (RACES) __tsan_switch_to_fiber(launch.main_clock, 1);
}

static void run_ordinary(Worker& w, Launch& launch, uint64_t count) {
    // A shuffled order of so many blocks would need memory for each; steps of a size coprime to their number visit all.
    uint64_t number = 0, step = 1;
    if (launch.order == Order::reverse) number = count - 1, step = count - 1;
    if (launch.order >= Order::random && count > 1) {
        number = launch.random % count;
        step = 1 + launch.draw(~0u) % (count - 1);
        while (common_divisor(step, count) != 1) ++step;
    }
    for (uint64_t i = 0; i < count && !launch.failed; ++i) {
        launch.blocks = w.blocks + i % ORDINARY_BLOCKS;
        begin_block(*launch.blocks[0], block_index(launch, number));
        run(w, launch);
        end_block(*launch.blocks[0]);
        number = (number + step) % count;
    }
}

static void run_cooperative(Worker& w, Launch& launch, uint64_t count) {
    launch.blocks = w.blocks;
    for (uint64_t b = 0; b < count; ++b) begin_block(*launch.blocks[b], block_index(launch, b));
    run(w, launch);
    for (uint64_t b = 0; b < count; ++b) end_block(*launch.blocks[b]);
}

}  // namespace sim

#pragma GCC visibility push(default)
extern "C" {

// What the last launch of this OS thread reported.
const sim::Report* sim_report() { return &sim::worker->report; }

// Returns 0, or 1 if something was reported: sim_report() then says what, until this OS thread launches again.
int sim_launch(void (*entry)(void**), void** args, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
               unsigned block_y, unsigned block_z, unsigned long shared_bytes, unsigned long static_limit,
               unsigned long total_limit, int cooperative, int order, unsigned long long seed, const char* name) {
    using namespace sim;
    // On the heap: the loader has only some hundred bytes for thread-local variables of libraries loaded late.
    static thread_local struct Owner {
        Worker* worker = new Worker;
        ~Owner() { delete worker; }
    } owner;
    Worker& own = *owner.worker;
    // A signal handler or a callback could launch from inside a kernel; the state of this thread is taken then.
    if (own.launch) {
        snprintf(own.report.message, sizeof own.report.message, "a kernel cannot launch another in the simulator");
        return 1;
    }
    worker = &own;
    catch_faults();
    Launch launch{};
    launch.entry = entry;
    launch.args = args;
    launch.grid = {grid_x, grid_y, grid_z};
    launch.dim = {block_x, block_y, block_z};
    launch.threads = block_x * block_y * block_z;
    launch.dynamic_bytes = shared_bytes;
    launch.static_limit = static_limit;
    launch.total_limit = total_limit;
    launch.cooperative = cooperative;
    launch.clusters = cooperative == 2;
    launch.order = static_cast<Order>(order);
    launch.random = (seed + 1) * 0x9E3779B97F4A7C15ull | 1;
    launch.name = name;
    own.launch = &launch;
    own.printed = own.interrupted = false;
    sim_now.block_dim = launch.dim;
    sim_now.grid_dim = launch.grid;

    uint64_t count = uint64_t(grid_x) * grid_y * grid_z;
    launch.block_count = cooperative ? count : 1;
    prepare(own, launch, cooperative ? count : ORDINARY_BLOCKS);
    if constexpr (RACES) launch.main_clock = __tsan_get_current_fiber();
    happens_before(&launch.started);
    __atomic_fetch_add(&active_launches, 1, __ATOMIC_RELAXED);
    bool main = in_main_thread();
    if (main) main_thread = pthread_self(), main_thread_launches = true;
    (cooperative ? run_cooperative : run_ordinary)(own, launch, count);
    if (main) main_thread_launches = false;
    if constexpr (RACES) __tsan_switch_to_fiber(launch.main_clock, 1);
    happens_after(&launch.finished);
    __atomic_fetch_sub(&active_launches, 1, __ATOMIC_RELAXED);
    own.launch = nullptr;
    if (own.printed) fflush(stdout);
    return launch.failed;
}

}  // extern "C"
#pragma GCC visibility pop
