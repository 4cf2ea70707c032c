// Which CUDA thread runs next, and how to get there.
#pragma once

#include "races.h"
#include "state.h"

namespace sim {

constexpr size_t MAX_SHARED = 256 << 10;

bool others_are_running();
void thread_left(Thread* thread);
[[noreturn]] void report_interrupt();
[[noreturn]] void report_deadlock(Launch& launch, const char* kind);

inline uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b) {
        uint64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

inline void order_threads(Block& block) {
    Launch& launch = *block.launch;
    unsigned n = launch.threads;
    for (unsigned i = 0; i < n; ++i) block.order[i] = launch.order == Order::reverse ? n - 1 - i : i;
    if (launch.order == Order::random)
        for (unsigned i = n; i > 1; --i) {
            unsigned j = launch.draw(i);
            uint16_t swapped = block.order[i - 1];
            block.order[i - 1] = block.order[j];
            block.order[j] = swapped;
        }
    if (launch.order == Order::ahead) {
        uint8_t warps[MAX_THREADS / 32];
        unsigned count = (n + 31) / 32, rank = 0;
        for (unsigned w = 0; w < count; ++w) warps[w] = static_cast<uint8_t>(w);
        for (unsigned w = 0; w < count; ++w) {
            unsigned j = w + launch.draw(count - w);
            uint8_t chosen = warps[j];
            warps[j] = warps[w];
            for (unsigned i = chosen * 32; i < n && i < chosen * 32 + 32; ++i) block.order[rank++] = static_cast<uint16_t>(i);
        }
    }
    for (unsigned i = 0; i < n; ++i) block.rank[block.order[i]] = i;
}

inline void mark_all(Block& block) {
    unsigned n = block.launch->threads;
    for (unsigned w = 0; w < MAX_THREADS / 64; ++w)
        block.ready[w] = n <= w * 64 ? 0 : n - w * 64 >= 64 ? ~uint64_t(0) : (uint64_t(1) << (n - w * 64)) - 1;
}

inline void begin_block(Block& block, Index3 index) {
    Launch& launch = *block.launch;
    unsigned n = launch.threads;
    block.index = index;
    ++block.turn;
    block.live = block.expected = n;
    block.deserted = block.arrived = block.cluster_arrived = block.cluster_passed = 0;
    block.votes = 0;
    block.barrier.file = nullptr;
    block.cursor = 0;
    if (launch.order >= Order::random) order_threads(block);
    mark_all(block);
    for (unsigned w = 0; w * 32 < n; ++w) {
        unsigned lanes = n - w * 32;
        block.warps[w].alive = lanes >= 32 ? ~0u : (1u << lanes) - 1;
        block.warps[w].open = nullptr;
    }
    for (unsigned i = 0; i < n; ++i) {
        Thread& thread = block.threads[i];
        thread.fiber = nullptr;
        thread.where = Where::not_started;
        thread.excused = false;
        thread.copies.count = thread.copies.group = 0;
    }
    block.array_count = 0;
    block.arena_used = GAP;
    block.static_bytes = 0;
    ++launch.live_blocks;
}

inline Thread* take_ready(Block& block) {
    unsigned word = block.cursor >> 6;
    constexpr unsigned WORDS = MAX_THREADS / 64;
    if (word >= WORDS) return nullptr;
    uint64_t bits = block.ready[word] & (~uint64_t(0) << (block.cursor & 63));
    while (!bits) {
        if (++word == WORDS) return nullptr;
        bits = block.ready[word];
    }
    unsigned rank = word * 64 + __builtin_ctzll(bits);
    block.ready[word] &= ~(bits & -bits);
    block.cursor = rank + 1;
    return &block.threads[block.order[rank]];
}

// The next thread to run, or null when all have left. Each round goes once through a block's ready threads in their order.
inline Thread* next_thread(Launch& launch) {
    if (worker->interrupted && worker->running) report_interrupt();
    if (Thread* thread = take_ready(*launch.blocks[launch.current])) return thread;
    for (size_t tried = 0; tried < launch.block_count; ++tried) {
        launch.current = launch.current + 1 < launch.block_count ? launch.current + 1 : 0;
        Block& block = *launch.blocks[launch.current];
        block.cursor = 0;
        if (Thread* thread = take_ready(block)) return thread;
    }
    if (launch.live_blocks) report_deadlock(launch, "deadlock");
    return nullptr;
}

// Makes `thread`, which has a fiber, the one that runs; its fiber is switched to next.
inline void enter(Thread* thread) {
    worker->running = thread;
    sim_now.thread = thread->index;
    sim_now.block = thread->block->index;
    sim_now.lane = thread->number & 31;
    sim_now.atomics = 0;
    if constexpr (RACES)
        if (thread->clock) __tsan_switch_to_fiber(thread->clock, 1);
}

// Lets other threads run until somebody marks this one ready.
inline void wait(Thread* self) {
    Thread* next = next_thread(*worker->launch);
    if (next == self) return;
    if (!next->fiber) next->fiber = stack_for(next);
    Fiber *from = self->fiber, *to = next->fiber;
    enter(next);
    if constexpr (ADDRESS) __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, STACK_BYTES);
    sim_switch(&from->stack_pointer, to->stack_pointer);
    if constexpr (ADDRESS) __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
}

// Leaves this fiber for good: for another thread's, or for the launching stack.
[[noreturn]] inline void depart(Thread* next) {
    void *to = nullptr, *unused;
    Launch& launch = *worker->launch;
    if (next) {
        if constexpr (ADDRESS) __sanitizer_start_switch_fiber(nullptr, next->fiber->stack, STACK_BYTES);
        to = next->fiber->stack_pointer;
    } else {
        if constexpr (ADDRESS) __sanitizer_start_switch_fiber(nullptr, launch.main_stack, launch.main_stack_bytes);
        to = launch.main_stack_pointer;
    }
    sim_switch(&unused, to);
    __builtin_unreachable();
}

inline void begin_thread(Thread* thread) {
    thread->where = Where::running;
    worker->launch->idle_polls = 0;
    if (worker->interrupted) report_interrupt();
    begin_clock(thread);
}

}  // namespace sim

extern "C" void sim_fiber_main() {
    using namespace sim;
    Thread* thread = worker->running;
    if constexpr (ADDRESS) {
        Launch& launch = *worker->launch;
        const void* bottom;
        size_t bytes;
        __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
        if (!launch.main_stack) launch.main_stack = bottom, launch.main_stack_bytes = bytes;
    }
    for (;;) {
        begin_thread(thread);
        worker->launch->entry(worker->launch->args);
        thread_left(thread);
        Fiber* fiber = thread->fiber;
        thread->fiber = nullptr;
        Thread* next = next_thread(*worker->launch);
        if (RACES || !next || next->fiber) {
            free_stack(fiber);
            if (next && !next->fiber) next->fiber = stack_for(next);
            if (next) enter(next);
            depart(next);
        }
        next->fiber = fiber;
        enter(next);
        thread = next;
    }
}
