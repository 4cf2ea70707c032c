// What thread sanitizer is told of CUDA threads.
//
// Note [Races] Each CUDA thread has a clock, a "fiber" to the sanitizer, which learns of another's only where the kernel makes
// them meet: in a barrier, a collective, an atomic. Memory that two threads use one after the other without the kernel's
// doing would look like a race, so under this sanitizer a CUDA thread has a stack of its own, and blocks that follow each
// other have shared memory of their own. To bound all that, an ordinary launch takes turns with four blocks: a thread has
// the clock and the stack of the thread of the same number four blocks before, and a block's threads know all that those
// of the block four before did. So races inside a block are always seen, and those between two blocks unless a multiple of
// four lies between them.
#pragma once

#include <cstdio>

#include "state.h"

namespace sim {

inline unsigned clocks_made = 0;

inline Fiber* stack_for(Thread* thread) {
    if constexpr (!RACES) return worker->fibers.take();
    if (thread->stack)
        thread->stack->rewind();
    else
        thread->stack = worker->fibers.take();
    return thread->stack;
}

inline void free_stack(Fiber* fiber) {
    if constexpr (!RACES) worker->fibers.give_back(fiber);
}

// Called on the thread's own stack, before it enters the kernel.
inline void begin_clock(Thread* thread) {
    if constexpr (!RACES) return;
    Launch& launch = *worker->launch;
    if (!thread->clock) {
        if (__atomic_add_fetch(&clocks_made, 1, __ATOMIC_RELAXED) > MAX_CLOCKS)
            fail_at(thread, nullptr, 0, "the thread sanitizer follows at most %u CUDA threads of a process", MAX_CLOCKS);
        // What makes a clock comes before it, so that must not be another CUDA thread.
        __tsan_switch_to_fiber(launch.main_clock, 1);
        thread->clock = __tsan_create_fiber(0);
    }
    Index3 b = thread->block->index, t = thread->index;
    char name[96];
    snprintf(name, sizeof name, "block (%u,%u,%u) thread (%u,%u,%u)", b.x, b.y, b.z, t.x, t.y, t.z);
    __tsan_set_fiber_name(thread->clock, name);
    __tsan_switch_to_fiber(thread->clock, 1);
    happens_after(&launch.started);
    happens_after(&thread->block->turn_events[thread->block->turn & 1]);
}

inline void forget_clocks(Block& block) {
    if constexpr (!RACES) return;
    for (Thread& thread : block.threads) {
        if (!thread.clock) continue;
        __tsan_destroy_fiber(thread.clock);
        __atomic_sub_fetch(&clocks_made, 1, __ATOMIC_RELAXED);
    }
}

// What the thread did comes before the launch's end and the block's next turn.
inline void end_clock(Thread* thread) {
    if constexpr (!RACES) return;
    if (!thread->clock) return;
    __tsan_switch_to_fiber(thread->clock, 1);
    happens_before(&thread->block->turn_events[(thread->block->turn + 1) & 1]);
    happens_before(&thread->block->launch->finished);
}

}  // namespace sim
