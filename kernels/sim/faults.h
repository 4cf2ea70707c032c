// Turns a wild pointer, a division by zero or a full stack in a kernel into a report, and Ctrl-C into the end of a launch.
// The sanitizers have handlers of their own.
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

#if defined(__x86_64__) && defined(__linux__)
#define SIM_PC(context) static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]
#define SIM_SP(context) static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RSP]
#elif defined(__aarch64__) && defined(__linux__)
#define SIM_PC(context) static_cast<ucontext_t*>(context)->uc_mcontext.pc
#define SIM_SP(context) static_cast<ucontext_t*>(context)->uc_mcontext.sp
#elif defined(__x86_64__)
#define SIM_PC(context) static_cast<ucontext_t*>(context)->uc_mcontext->__ss.__rip
#define SIM_SP(context) static_cast<ucontext_t*>(context)->uc_mcontext->__ss.__rsp
#else
#define SIM_PC(context) static_cast<ucontext_t*>(context)->uc_mcontext->__ss.__pc
#define SIM_SP(context) static_cast<ucontext_t*>(context)->uc_mcontext->__ss.__sp
#endif

// Makes the interrupted code go on in `target`, on the running fiber's stack from its top.
inline void divert(void* context, void (*target)()) {
    auto top = reinterpret_cast<uintptr_t>(worker->running->fiber->stack) + STACK_BYTES - 64;
#if defined(__x86_64__)
    top -= 8;  // as after a call
#endif
    SIM_SP(context) = top;
    SIM_PC(context) = reinterpret_cast<uintptr_t>(target);
}

inline void on_fault(int signal, siginfo_t* info, void* context) {
    if (!worker || !worker->running) {
        sigaction(signal, &previous_action[signal], nullptr);
        return;  // happens again, to whoever was there before
    }
    fault = {signal, info->si_addr, reinterpret_cast<const void*>(SIM_PC(context))};
    divert(context, report_fault);
}

void report_interrupt() { fail_at(worker->running, nullptr, 0, "interrupted"); }

inline bool in_main_thread() {
#if defined(__APPLE__)
    return pthread_main_np();
#else
    return getpid() == gettid();
#endif
}

inline pthread_t main_thread;
inline volatile bool main_thread_launches = false;

// Ctrl-C: Python's handler notes it, for its main thread. A launch of that thread then ends as soon as that is safe:
// between two CUDA threads, or at once where the kernel's own code was interrupted. The system hands the signal to any
// thread, which passes it on.
inline void on_interrupt(int signal, siginfo_t* info, void* context) {
    bool here = in_main_thread();
    if (!here && main_thread_launches) {
        pthread_kill(main_thread, signal);
        return;
    }
    auto& before = previous_action[signal];
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(signal, info, context);
    else
        before.sa_handler(signal);
    if (!here || !main_thread_launches) return;
    worker->interrupted = true;
    if (!worker->running) return;
    Dl_info place, kernel;
    auto code = reinterpret_cast<const void*>(SIM_PC(context)), entry = reinterpret_cast<const void*>(worker->launch->entry);
    if (dladdr(code, &place) && dladdr(entry, &kernel) && place.dli_fbase == kernel.dli_fbase)
        divert(context, report_interrupt);
}

inline void on_death() {
    if (!worker || !worker->running) return;
    Index3 b = worker->running->block->index, t = worker->running->index;
    fprintf(stderr, "cuframe simulator: in kernel %s, block (%u,%u,%u) thread (%u,%u,%u)\n", worker->launch->name, b.x, b.y, b.z,
            t.x, t.y, t.z);
}

constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE};

inline void handle(int signal, void (*handler)(int, siginfo_t*, void*)) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction present;
    sigaction(signal, nullptr, &present);
    if ((present.sa_flags & SA_SIGINFO) && present.sa_sigaction == handler) return;
    pthread_mutex_lock(&lock);
    previous_action[signal] = present;
    struct sigaction mine{};
    mine.sa_sigaction = handler;
    mine.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(signal, &mine, nullptr);
    pthread_mutex_unlock(&lock);
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
    for (int signal : FAULTS) handle(signal, on_fault);
    struct sigaction present;
    sigaction(SIGINT, nullptr, &present);
    if ((present.sa_flags & SA_SIGINFO) || (present.sa_handler != SIG_DFL && present.sa_handler != SIG_IGN))
        handle(SIGINT, on_interrupt);
}

}  // namespace sim
