// Fibers: a stack and a context switch of fifteen instructions (ucontext's makes two system calls, 500 ns).
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

// Saves the callee-saved registers on this stack, its pointer in *save, and goes on where `load` was saved.
extern "C" void sim_switch(void** save, void* load);
extern "C" void sim_fiber_main();

#if defined(__APPLE__)
#define SIM_SYMBOL(name) "_" name
#define SIM_TYPE(name) ""
#else
#define SIM_SYMBOL(name) name
#define SIM_TYPE(name) ".type " name ", %function\n"
#endif

#if defined(__x86_64__)
// The floating-point control words are not saved: no kernel changes them. `ret` is predicted: fibers switch from the same few
// places, so the address on top of the processor's return stack is nearly always that of the other fiber, too.
asm(".text\n.globl " SIM_SYMBOL("sim_switch") "\n" SIM_TYPE("sim_switch") SIM_SYMBOL("sim_switch") ":\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");
constexpr int FRAME_WORDS = 8, FRAME_RETURN = 6;  // the word above the return address keeps the stack aligned
#elif defined(__aarch64__)
asm(".text\n.p2align 2\n.globl " SIM_SYMBOL("sim_switch") "\n" SIM_TYPE("sim_switch") SIM_SYMBOL("sim_switch") ":\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n  ret\n");
constexpr int FRAME_WORDS = 20, FRAME_RETURN = 11;
#else
#error "the simulator's context switch is written for x86-64 and aarch64 alone"
#endif

namespace sim {

#if defined(SIM_ADDRESS)
constexpr size_t STACK_BYTES = 256 << 10;  // instrumented frames are several times larger
#else
constexpr size_t STACK_BYTES = 64 << 10;
#endif

// Every guard page is a mapping of its own, and Linux allows 65,530 of them to a process.
constexpr unsigned MAX_GUARDED = 16384;

struct Thread;

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    Fiber* next_free = nullptr;
    void* fake_stack = nullptr;  // address sanitizer's
    unsigned offset = 0;

    // Makes the next switch to this fiber enter sim_fiber_main on an empty stack.
    void rewind() {
        auto top = reinterpret_cast<void**>(stack + STACK_BYTES - offset) - 2;
        void** frame = top - FRAME_WORDS;
        memset(frame, 0, (FRAME_WORDS + 2) * sizeof(void*));
        frame[FRAME_RETURN] = reinterpret_cast<void*>(sim_fiber_main);
        stack_pointer = frame;
    }
};

// The fibers of one OS thread, which never leave it; the stack freed last is taken first, for it is in the cache.
class FiberPool {
  public:
    Fiber* take() {
        if (!free_) grow();
        Fiber* fiber = free_;
        free_ = fiber->next_free;
        fiber->rewind();
        return fiber;
    }

    void give_back(Fiber* fiber) {
        fiber->next_free = free_;
        free_ = fiber;
    }

    bool in_guard_page(const void* address) const {
        size_t page = getpagesize();
        for (Slab* slab = slabs_; slab; slab = slab->next) {
            auto offset = static_cast<const char*>(address) - slab->base;
            if (offset >= 0 && offset < static_cast<ptrdiff_t>(slab->bytes))
                return static_cast<size_t>(offset) % (STACK_BYTES + page) < page;
        }
        return false;
    }

    ~FiberPool() {
        while (slabs_) {
            Slab* slab = slabs_;
            slabs_ = slab->next;
            munmap(slab->base, slab->bytes);
            delete[] slab->fibers;
            delete slab;
        }
    }

  private:
    struct Slab {
        char* base;
        size_t bytes;
        Fiber* fibers;
        Slab* next;
    };

    void grow() {
        constexpr unsigned COUNT = 64;
        size_t page = getpagesize(), step = STACK_BYTES + page;
        void* base = mmap(nullptr, COUNT * step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) {
            static const char text[] = "cuframe simulator: no memory for the stacks of CUDA threads\n";
            (void)!write(2, text, sizeof text - 1);
            abort();
        }
        auto slab = new Slab{static_cast<char*>(base), COUNT * step, new Fiber[COUNT], slabs_};
        slabs_ = slab;
        for (unsigned i = COUNT; i-- > 0;) {
            char* guard = slab->base + i * step;
            if (guarded_ < MAX_GUARDED && mprotect(guard, page, PROT_NONE) == 0) ++guarded_;
            slab->fibers[i].stack = guard + page;
            // Stacks that began at the same place in their pages would compete for the same few lines of the cache.
            slab->fibers[i].offset = i * 320 % 4096 & ~63u;
            give_back(&slab->fibers[i]);
        }
    }

    Fiber* free_ = nullptr;
    Slab* slabs_ = nullptr;
    unsigned guarded_ = 0;
};

}  // namespace sim
