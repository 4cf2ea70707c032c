// What is said when a kernel goes wrong, and the way out of it.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "scheduler.h"

namespace sim {

// Ends the launch: no thread of it runs again, and what stands on their stacks is forgotten.
[[noreturn]] inline void abandon(Thread* thread, const char* file, int line) {
    Launch& launch = *worker->launch;
    Report& report = worker->report;
    snprintf(report.file, sizeof report.file, "%s", file ? file : "");
    report.line = line;
    report.block = thread ? thread->block->index : Index3{0, 0, 0};
    report.thread = thread ? thread->index : Index3{0, 0, 0};
    launch.failed = true;
    depart(nullptr);
}

void fail_at(Thread* thread, const char* file, int line, const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(worker->report.message, sizeof worker->report.message, format, list);
    va_end(list);
    abandon(thread, file, line);
}

class Text {
  public:
    explicit Text(Report& report) : next_(report.message), end_(report.message + sizeof report.message) {}

    void add(const char* format, ...) __attribute__((format(printf, 2, 3))) {
        va_list list;
        va_start(list, format);
        int written = vsnprintf(next_, end_ - next_, format, list);
        va_end(list);
        next_ += written < end_ - next_ ? written : end_ - next_ - 1;
    }

    void thread(const Thread& thread, bool with_block) {
        if (with_block) add("block (%u,%u,%u) ", thread.block->index.x, thread.block->index.y, thread.block->index.z);
        add("thread (%u,%u,%u)", thread.index.x, thread.index.y, thread.index.z);
    }

  private:
    char *next_, *end_;
};

// One line for each place where live threads of the blocks stand, the largest crowd's first thread named.
inline void add_standings(Text& text, Launch& launch, Block** blocks, size_t count) {
    struct Crowd {
        const Thread* first;
        unsigned threads;
    } crowds[16];
    unsigned found = 0, left = 0, elsewhere = 0;
    for (size_t b = 0; b < count; ++b)
        for (unsigned i = 0; i < launch.threads; ++i) {
            const Thread& thread = blocks[b]->threads[i];
            if (thread.where == Where::left) {
                ++left;
                continue;
            }
            if (thread.where == Where::not_started || thread.where == Where::running) continue;
            unsigned c = 0;
            while (c < found && !(crowds[c].first->what == thread.what && crowds[c].first->place.line == thread.place.line &&
                                  strcmp(crowds[c].first->place.file, thread.place.file) == 0))
                ++c;
            if (c == found) {
                if (found == 16) {
                    ++elsewhere;
                    continue;
                }
                crowds[found++] = {&thread, 0};
            }
            ++crowds[c].threads;
        }
    for (unsigned c = 0; c < found; ++c) {
        const Thread& first = *crowds[c].first;
        text.add("\n  %s:%d: in %s: ", first.place.file, first.place.line, first.what);
        text.thread(first, true);
        if (crowds[c].threads > 1) text.add(" and %u more", crowds[c].threads - 1);
    }
    if (elsewhere) text.add("\n  %u more threads wait at other places", elsewhere);
    if (left) text.add("\n  %u threads have left the kernel", left);
}

inline const Thread* first_waiting(Launch& launch) {
    for (size_t b = 0; b < launch.block_count; ++b)
        for (unsigned i = 0; i < launch.threads; ++i) {
            const Thread& thread = launch.blocks[b]->threads[i];
            if (thread.where == Where::waiting || thread.where == Where::spinning) return &thread;
        }
    return nullptr;
}

void report_deadlock(Launch& launch, const char* kind) {
    Text text(worker->report);
    text.add("%s: no thread can go on", kind);
    add_standings(text, launch, launch.blocks, launch.block_count);
    auto first = const_cast<Thread*>(first_waiting(launch));
    if (!launch.cooperative && launch.spinners)
        text.add("\n  blocks of an ordinary launch run one after another here: a launch whose blocks wait for each other "
                 "must be cooperative");
    abandon(first, first ? first->place.file : nullptr, first ? first->place.line : 0);
}

// Every thread that could run polls, and nothing changed in two rounds of all of them. Only a launch on another OS thread
// could still change what they wait for, so while there is one they get some time.
inline void poll_in_vain(Launch& launch) {
    static thread_local unsigned long long since;
    auto now = sim_clock();
    if (!others_are_running()) report_deadlock(launch, "deadlock");
    if (launch.idle_polls == 2ull * launch.spinners + 3) since = now;
    if (now - since > 10'000'000'000ull) report_deadlock(launch, "deadlock (10 s without progress)");
    usleep(50);
}

[[noreturn]] inline void report_divergence(Block& block, Thread* thread) {
    Text text(worker->report);
    text.add("divergent __syncthreads: threads of one block wait at different places");
    Block* one = &block;
    add_standings(text, *block.launch, &one, 1);
    abandon(thread, thread->place.file, thread->place.line);
}

[[noreturn]] inline void report_deserted(Block& block, Thread* thread) {
    Text text(worker->report);
    text.add("divergent __syncthreads: threads of the block wait for others that have left the kernel; a thread that "
             "returns early calls leave_barriers() first");
    Block* one = &block;
    add_standings(text, *block.launch, &one, 1);
    if (thread->where == Where::left)
        for (unsigned i = 0; i < block.launch->threads && thread->where != Where::waiting; ++i) thread = &block.threads[i];
    abandon(thread, block.barrier.file, block.barrier.line);
}

}  // namespace sim
