// What kernels call: barriers, warp collectives, polling, shared memory, asynchronous copies, reports.
#pragma once

#include "report.h"
#include "shared.h"

namespace sim {

inline Thread* self() { return worker->running; }

inline void stand(Thread* thread, Where where, const char* what, const char* file, int line) {
    thread->where = where;
    thread->what = what;
    thread->place = {file, line};
}

// Literals of one object file are one; those of several are compared.
inline bool same_text(const char* a, const char* b) { return a == b || strcmp(a, b) == 0; }

inline bool same_place(Place a, const char* file, int line) { return a.line == line && same_text(a.file, file); }

inline void go_on(Thread* thread) {
    thread->where = Where::running;
    worker->launch->idle_polls = 0;
}

inline void wake(Thread& thread) {
    thread.where = Where::running;
    thread.block->mark(thread.number);
}

// Shuffles the order of a block's threads and keeps which of them are ready.
inline void shuffle(Block& block) {
    uint64_t ready[MAX_THREADS / 64] = {};
    unsigned n = block.launch->threads;
    for (unsigned rank = 0; rank < n; ++rank)
        if (block.ready[rank >> 6] >> (rank & 63) & 1) ready[block.order[rank] >> 6] |= uint64_t(1) << (block.order[rank] & 63);
    memset(block.ready, 0, sizeof block.ready);
    order_threads(block);
    for (unsigned i = 0; i < n; ++i)
        if (ready[i >> 6] >> (i & 63) & 1) block.mark(i);
}

inline void release_barrier(Block& block) {
    int mode = block.barrier_mode;
    block.result = mode == 1 ? block.votes : mode == 2 ? block.votes == static_cast<int>(block.arrived) : block.votes > 0;
    block.arrived = 0;
    block.votes = 0;
    block.barrier.file = nullptr;
    ++block.barriers_passed;
    unsigned n = block.launch->threads;
    if (block.expected == n)
        mark_all(block);
    else
        for (unsigned i = 0; i < n; ++i) {
            Thread& thread = block.threads[i];
            if (thread.where == Where::waiting && thread.what == block.barrier_what) wake(thread);
        }
    if (block.launch->order >= Order::random) shuffle(block);
    block.cursor = 0;
}

inline void close_meeting(Warp& warp, Meeting* meeting, Block& block, unsigned first_thread) {
    for (Meeting** link = &warp.open; *link; link = &(*link)->next)
        if (*link == meeting) {
            *link = meeting->next;
            break;
        }
    meeting->readers = __builtin_popcount(meeting->present);
    for (unsigned lanes = meeting->present; lanes; lanes &= lanes - 1)
        wake(block.threads[first_thread + __builtin_ctz(lanes)]);
    // the warp goes on before others have come as far
    if (block.launch->order == Order::ahead) block.cursor = block.rank[first_thread];
}

void thread_left(Thread* thread) {
    Block& block = *thread->block;
    Launch& launch = *block.launch;
    if (AsyncCopies& copies = thread->copies; copies.count)
        fail_at(thread, copies.latest.file, copies.latest.line,
                "cp_async: the thread ends while %u of its copies are under way", copies.count);
    end_clock(thread);
    thread->where = Where::left;
    launch.idle_polls = 0;
    if (--block.live == 0) --launch.live_blocks;
    unsigned first = thread->number & ~31u;
    Warp& warp = block.warps[thread->number >> 5];
    warp.alive &= ~(1u << (thread->number & 31));
    for (Meeting* meeting = warp.open; meeting;) {
        Meeting* next = meeting->next;
        if (meeting->present == (meeting->mask & warp.alive)) close_meeting(warp, meeting, block, first);
        meeting = next;
    }
    if (thread->excused) return;
    ++block.deserted;
    if (block.arrived && block.arrived + block.deserted == block.expected) report_deserted(block, thread);
}

// A block of this one's row of the grid, which is a cluster.
inline Block* peer_block(unsigned rank, const char* what, const char* file, int line) {
    Launch& launch = *worker->launch;
    Thread* thread = self();
    if (!launch.clusters) fail_at(thread, file, line, "%s: the launch makes no clusters", what);
    if (rank >= launch.grid.x) fail_at(thread, file, line, "%s: rank %u of a cluster of %u", what, rank, launch.grid.x);
    Index3 at = thread->block->index;
    return launch.blocks[rank + launch.grid.x * (at.y + static_cast<size_t>(launch.grid.y) * at.z)];
}

}  // namespace sim

#pragma GCC visibility push(default)
extern "C" {

void sim_fail(const char* file, int line, const char* format, ...) {
    using namespace sim;
    va_list list;
    va_start(list, format);
    vsnprintf(worker->report.message, sizeof worker->report.message, format, list);
    va_end(list);
    abandon(self(), file, line);
}

int sim_syncthreads(int mode, int predicate, const char* what, const char* file, int line) {
    using namespace sim;
    Thread* thread = self();
    Block& block = *thread->block;
    if (thread->excused) fail_at(thread, file, line, "%s after leave_barriers()", what);
    if (!block.barrier.file) {
        block.barrier = {file, line};
        block.barrier_what = what;
        block.barrier_mode = mode;
    } else if (!same_place(block.barrier, file, line)) {
        stand(thread, Where::waiting, what, file, line);
        report_divergence(block, thread);
    }
    stand(thread, Where::waiting, block.barrier_what, file, line);
    block.votes += predicate != 0;
    // Two events in turn: a thread that already waits for the next barrier must not seem to come before one that has
    // still to leave this one.
    char* event = &block.barrier_events[block.barriers_passed & 1];
    happens_before(event);
    if (++block.arrived == block.expected)
        release_barrier(block);
    else if (block.arrived + block.deserted == block.expected)
        report_deserted(block, thread);
    wait(thread);
    go_on(thread);
    happens_after(event);
    return block.result;
}

void sim_leave_barriers() {
    using namespace sim;
    Thread* thread = self();
    if (thread->excused) return;
    Block& block = *thread->block;
    thread->excused = true;
    --block.expected;
    if (block.arrived && block.arrived == block.expected) release_barrier(block);
}

sim::Meeting* sim_meet(const char* what, unsigned mask, const void* value, unsigned size, const char* file, int line) {
    using namespace sim;
    Thread* thread = self();
    Block& block = *thread->block;
    unsigned lane = thread->number & 31, first = thread->number - lane;
    Warp& warp = block.warps[thread->number >> 5];
    if (!(mask >> lane & 1)) fail_at(thread, file, line, "%s: mask 0x%08x does not name the calling lane %u", what, mask, lane);
    Meeting* meeting = warp.open;
    while (meeting && meeting->mask != mask) meeting = meeting->next;
    if (!meeting) {
        meeting = warp.unused;
        if (meeting)
            warp.unused = meeting->next;
        else
            meeting = new Meeting;
        meeting->mask = mask;
        meeting->present = 0;
        meeting->size = size;
        meeting->combined = false;
        meeting->what = what;
        meeting->file = file;
        meeting->line = line;
        meeting->next = warp.open;
        warp.open = meeting;
    } else if (!same_text(meeting->what, what) ||
               (size && !(meeting->line == line && same_text(meeting->file, file)))) {
        fail_at(thread, file, line,
                "lanes of one warp are in different collectives: this one in %s, lanes 0x%08x in %s at %s:%d", what,
                meeting->present, meeting->what, meeting->file, meeting->line);
    }
    auto target = reinterpret_cast<uint32_t*>(meeting->data + lane * size);
    auto source = static_cast<const uint32_t*>(value);
    for (unsigned i = 0; i < size / 4; ++i) target[i] = source[i];
    stand(thread, Where::waiting, what, file, line);
    meeting->present |= 1u << lane;
    happens_before(meeting);
    if (meeting->present == (mask & warp.alive)) close_meeting(warp, meeting, block, first);
    wait(thread);
    go_on(thread);
    happens_after(meeting);
    return meeting;
}

void sim_part(sim::Meeting* meeting) {
    using namespace sim;
    if (--meeting->readers) return;
    Thread* thread = self();
    Warp& warp = thread->block->warps[thread->number >> 5];
    meeting->next = warp.unused;
    warp.unused = meeting;
}

unsigned sim_active_mask() {
    using namespace sim;
    Thread* thread = self();
    Block& block = *thread->block;
    unsigned mask = 0, first = thread->number & ~31u;
    for (unsigned lanes = block.warps[thread->number >> 5].alive; lanes; lanes &= lanes - 1) {
        Where where = block.threads[first + __builtin_ctz(lanes)].where;
        if (where == Where::running || where == Where::not_started) mask |= lanes & -lanes;
    }
    return mask;
}

void sim_endless(const char* file, int line) {
    sim_fail(file, line, "%u atomic operations of one thread, and nothing that lets others run; a thread that waits for "
             "another polls with spin_until (common/grid.cuh)", sim::MAX_ATOMICS);
}

void sim_spin(const char* what, const char* file, int line) {
    using namespace sim;
    Thread* thread = self();
    Launch& launch = *worker->launch;
    if (thread->where != Where::spinning) {
        ++launch.spinners;
        launch.idle_polls = 0;
    } else if (++launch.idle_polls > 2ull * launch.spinners + 2) {
        poll_in_vain(launch);
    }
    stand(thread, Where::spinning, what, file, line);
    thread->block->mark(thread->number);
    wait(thread);
}

void sim_spin_end() {
    using namespace sim;
    --worker->launch->spinners;
    go_on(self());
}

void sim_cluster_barrier(const char* file, int line) {
    using namespace sim;
    Launch& launch = *worker->launch;
    Block& first = *peer_block(0, "cluster_barrier", file, line);
    unsigned round = first.cluster_passed;
    char* event = &first.cluster_events[round & 1];
    happens_before(event);
    if (++first.cluster_arrived == launch.grid.x * launch.threads) {
        first.cluster_arrived = 0;
        ++first.cluster_passed;
        launch.idle_polls = 0;
    } else {
        do sim_spin("cluster_barrier", file, line);
        while (first.cluster_passed == round);
        sim_spin_end();
    }
    happens_after(event);
}

const void* sim_peer(const void* address, unsigned rank, unsigned bytes, const char* file, int line) {
    using namespace sim;
    Thread* thread = self();
    Block& peer = *peer_block(rank, "load_peer", file, line);
    if (!sim_is_shared(address)) fail_at(thread, file, line, "load_peer: the address is not in shared memory");
    if (reinterpret_cast<uintptr_t>(address) % bytes)
        fail_at(thread, file, line, "load_peer: the address must be aligned to %u bytes", bytes);
    auto offset = static_cast<size_t>(static_cast<const char*>(address) - thread->block->arena);
    if (offset + bytes > peer.arena_used)
        fail_at(thread, file, line, "load_peer: block %u has not come to its shared memory; a barrier of the cluster must "
                "come before", rank);
    if (!peer.live)
        fail_at(thread, file, line, "load_peer: block %u has left, and its shared memory with it; a barrier of the cluster "
                "must come before a block ends", rank);
    return peer.arena + offset;
}

void* sim_shared(sim::SharedSite* site, unsigned long bytes, unsigned long align, const char* name, const char* file,
                 int line) {
    using namespace sim;
    Thread* thread = self();
    Block& block = *thread->block;
    for (unsigned i = 0; i < block.array_count; ++i)
        if (block.arrays[i].site == site) return block.arena + block.arrays[i].offset;
    Launch& launch = *block.launch;
    block.static_bytes = (block.static_bytes + align - 1) / align * align + bytes;
    if (block.static_bytes > launch.static_limit)
        fail_at(thread, file, line, "SHARED_ARRAY %s: %zu bytes of static shared memory in one block, the limit is %zu; "
                "use DYNAMIC_SHARED for more", name, block.static_bytes, launch.static_limit);
    if (block.static_bytes + launch.dynamic_bytes > launch.total_limit)
        fail_at(thread, file, line, "SHARED_ARRAY %s: %zu bytes of static and %zu of dynamic shared memory, "
                "a block may have %zu in all", name, block.static_bytes, launch.dynamic_bytes, launch.total_limit);
    return lay_out(block, site, bytes, align, name, {file, line});
}

void* sim_dynamic_shared(unsigned long element, unsigned long align, const char* name, const char* file, int line) {
    using namespace sim;
    Thread* thread = self();
    Block& block = *thread->block;
    for (unsigned i = 0; i < block.array_count; ++i)
        if (!block.arrays[i].site) return block.arena + block.arrays[i].offset;
    if (block.launch->dynamic_bytes < element)
        fail_at(thread, file, line, "DYNAMIC_SHARED %s: launched with %zu bytes of dynamic shared memory", name,
                block.launch->dynamic_bytes);
    return lay_out(block, nullptr, block.launch->dynamic_bytes, align < 128 ? 128 : align, name, {file, line});
}

bool sim_is_shared(const void* address) {
    using namespace sim;
    Block& block = *self()->block;
    auto offset = static_cast<const char*>(address) - block.arena;
    return offset >= 0 && offset < static_cast<ptrdiff_t>(block.arena_used);
}

void sim_async_copy(void* target, const void* source, unsigned bytes, unsigned filled, const char* file, int line) {
    using namespace sim;
    Thread* thread = self();
    if (!sim_is_shared(target)) fail_at(thread, file, line, "cp_async: the target is not in shared memory");
    if (reinterpret_cast<uintptr_t>(target) % bytes || reinterpret_cast<uintptr_t>(source) % bytes)
        fail_at(thread, file, line, "cp_async: target and source must be aligned to %u bytes", bytes);
    AsyncCopies& copies = thread->copies;
    if (copies.count == copies.capacity) {
        copies.capacity = copies.capacity ? 2 * copies.capacity : 8;
        copies.items = static_cast<AsyncCopy*>(realloc(copies.items, copies.capacity * sizeof(AsyncCopy)));
    }
    copies.items[copies.count++] = {target, source, bytes, filled, copies.group};
    copies.latest = {file, line};
}

void sim_async_commit() { ++sim::self()->copies.group; }

void sim_async_wait(unsigned groups_left, void (*copy)(void*, const void*, unsigned, unsigned)) {
    using namespace sim;
    AsyncCopies& copies = self()->copies;
    unsigned done = 0;
    while (done < copies.count && copies.items[done].group + groups_left < copies.group) {
        AsyncCopy& item = copies.items[done++];
        copy(item.target, item.source, item.bytes, item.filled);
    }
    copies.count -= done;
    memmove(copies.items, copies.items + done, copies.count * sizeof(AsyncCopy));
}

int sim_print(const char* format, ...) {
    sim::worker->printed = true;
    va_list list;
    va_start(list, format);
    int written = vprintf(format, list);
    va_end(list);
    return written;
}

unsigned long long sim_clock() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

}  // extern "C"
#pragma GCC visibility pop
