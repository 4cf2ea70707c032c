// Shared memory: an arena for each block, laid out as the block's threads first come to its arrays.
#pragma once

#include "report.h"
#include "scheduler.h"

namespace sim {

inline void fill(char* target, unsigned char value, size_t bytes) {
    if constexpr (!RACES) {
        memset(target, value, bytes);
        return;
    }
    // Thread sanitizer replaces memset by one that it watches.
    for (size_t i = 0; i < bytes; ++i) {
        target[i] = static_cast<char>(value);
        asm volatile("" ::: "memory");
    }
}

// The array's bytes are poisoned, and watched gaps stand on either side of it.
inline char* lay_out(Block& block, SharedSite* site, size_t bytes, size_t align, const char* name, Place place) {
    if (block.array_count == MAX_ARRAYS)
        fail_at(worker->running, place.file, place.line, "more than %u shared arrays in one block", MAX_ARRAYS);
    if (align < 16) align = 16;
    size_t offset = (block.arena_used + align - 1) / align * align;
    if constexpr (!ADDRESS) fill(block.arena + block.arena_used - GAP, GAP_FILL, GAP + offset - block.arena_used);
    block.arrays[block.array_count++] = {site, name, place, offset, bytes};
    allow(block.arena + offset, bytes);
    fill(block.arena + offset, POISON, bytes);
    if constexpr (!ADDRESS) fill(block.arena + offset + bytes, GAP_FILL, GAP);
    block.arena_used = offset + bytes + GAP;
    return block.arena + offset;
}

inline bool intact(const char* gap) {
    for (size_t i = 0; i < GAP; ++i)
        if (static_cast<unsigned char>(gap[i]) != GAP_FILL) return false;
    return true;
}

// Notes in the worker's report if a kernel wrote next to one of its arrays.
inline void check_gaps(Block& block) {
    Launch& launch = *block.launch;
    for (unsigned i = 0; i < block.array_count && !launch.failed; ++i) {
        const SharedArray& array = block.arrays[i];
        const char* start = block.arena + array.offset;
        bool before = !intact(start - GAP), after = !intact(start + array.bytes);
        if (!before && !after) continue;
        Report& report = worker->report;
        snprintf(report.message, sizeof report.message,
                 "the block wrote %s shared array %s of %zu bytes; `cuframe sim run --sanitize address` finds the line",
                 before ? "before" : "past the end of", array.name, array.bytes);
        snprintf(report.file, sizeof report.file, "%s", array.place.file);
        report.line = array.place.line;
        report.block = block.index;
        report.thread = {0, 0, 0};
        launch.failed = true;
    }
}

inline void end_block(Block& block) {
    Launch& launch = *block.launch;
    if constexpr (!ADDRESS) check_gaps(block);
    forbid(block.arena, block.arena_bytes);
    for (unsigned i = 0; i < launch.threads; ++i) {
        Thread& thread = block.threads[i];
        if (!thread.fiber) continue;
        allow(thread.fiber->stack, STACK_BYTES);
        free_stack(thread.fiber);
        if (thread.where != Where::not_started) end_clock(&thread);
        thread.fiber = nullptr;
    }
    for (Warp& warp : block.warps)
        while (warp.open) {
            Meeting* meeting = warp.open;
            warp.open = meeting->next;
            meeting->next = warp.unused;
            warp.unused = meeting;
        }
}

}  // namespace sim
