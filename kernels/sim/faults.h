// Turns a wild pointer, a division by zero or a full stack in a kernel into a report. The sanitizers have handlers of their own.
#pragma once

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include "report.h"

namespace sim {

struct Fault {
    int signal;
    const void* address;
    const void* code;
};

inline struct sigaction previous_action[65];
inline __thread Fault fault;

// Runs on the faulting fiber's stack, from its top: nothing there is needed any more.
[[noreturn]] inline void report_fault() {
    Thread* thread = worker->running;
    char place[1200] = "";
    Dl_info info;
    if (dladdr(fault.code, &info) && info.dli_fname)
        snprintf(place, sizeof place, " [%s+0x%zx]", info.dli_fname,
                 static_cast<size_t>(static_cast<const char*>(fault.code) - static_cast<const char*>(info.dli_fbase)));
    if (fault.signal == SIGFPE) fail_at(thread, nullptr, 0, "integer division by zero, or its result overflowed%s", place);
    if (worker->fibers.in_guard_page(fault.address))
        fail_at(thread, nullptr, 0, "a CUDA thread used more than %zu bytes of stack%s", STACK_BYTES, place);
    fail_at(thread, nullptr, 0, "access to invalid address %p%s", fault.address, place);
}

inline void on_fault(int signal, siginfo_t* info, void* context) {
    if (!worker || !worker->running) {
        sigaction(signal, &previous_action[signal], nullptr);
        return;  // happens again, to whoever was there before
    }
    auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
    auto top = reinterpret_cast<uintptr_t>(worker->running->fiber->stack) + STACK_BYTES - 64;
#if defined(__x86_64__) && defined(__linux__)
    fault = {signal, info->si_addr, reinterpret_cast<void*>(machine.gregs[REG_RIP])};
    machine.gregs[REG_RSP] = static_cast<greg_t>(top - 8);
    machine.gregs[REG_RIP] = reinterpret_cast<greg_t>(report_fault);
#elif defined(__aarch64__) && defined(__linux__)
    fault = {signal, info->si_addr, reinterpret_cast<void*>(machine.pc)};
    machine.sp = top;
    machine.pc = reinterpret_cast<uintptr_t>(report_fault);
#elif defined(__x86_64__)
    fault = {signal, info->si_addr, reinterpret_cast<void*>(machine->__ss.__rip)};
    machine->__ss.__rsp = top - 8;
    machine->__ss.__rip = reinterpret_cast<uintptr_t>(report_fault);
#else
    fault = {signal, info->si_addr, reinterpret_cast<void*>(machine->__ss.__pc)};
    machine->__ss.__sp = top;
    machine->__ss.__pc = reinterpret_cast<uintptr_t>(report_fault);
#endif
}

inline void on_death() {
    if (!worker || !worker->running) return;
    Index3 b = worker->running->block->index, t = worker->running->index;
    fprintf(stderr, "cuframe simulator: in kernel %s, block (%u,%u,%u) thread (%u,%u,%u)\n", worker->launch->name, b.x, b.y, b.z,
            t.x, t.y, t.z);
}

// Python's own handlers may come and go, so the process's state is looked at before every launch.
inline void catch_faults() {
    if constexpr (ADDRESS) {
        __sanitizer_set_death_callback(on_death);
        return;
    }
    if constexpr (RACES) return;
    static thread_local struct AlternateStack {
        AlternateStack() {
            stack_t present;
            if (sigaltstack(nullptr, &present) == 0 && !(present.ss_flags & SS_DISABLE)) return;
            stack_t mine{};
            mine.ss_size = 64 << 10;
            mine.ss_sp = memory = malloc(mine.ss_size);
            sigaltstack(&mine, nullptr);
        }
        ~AlternateStack() {
            if (!memory) return;
            stack_t none{};
            none.ss_flags = SS_DISABLE;
            sigaltstack(&none, nullptr);
            free(memory);
        }
        void* memory = nullptr;
    } alternate;
    (void)alternate;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE};
    for (int signal : signals) {
        struct sigaction present;
        sigaction(signal, nullptr, &present);
        if ((present.sa_flags & SA_SIGINFO) && present.sa_sigaction == on_fault) continue;
        pthread_mutex_lock(&lock);
        previous_action[signal] = present;
        struct sigaction mine{};
        mine.sa_sigaction = on_fault;
        mine.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(signal, &mine, nullptr);
        pthread_mutex_unlock(&lock);
    }
}

}  // namespace sim
