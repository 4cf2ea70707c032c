"""LLVM IR of the threads that compiled kernels share: Note [Native threads] in `pool`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir

__all__ = ["FIRST", "FUNCTIONS", "WORKER", "build"]

_I64, _I32, _I1, _VOID = ir.IntType(64), ir.IntType(32), ir.IntType(1), ir.VoidType()
_PTR = ir.IntType(8).as_pointer()
_KERNEL = ir.FunctionType(_VOID, [_PTR, _I64, _I64]).as_pointer()

# Of the C library, for a thread that sleeps; their addresses are compiled in.
FUNCTIONS = ("pthread_mutex_lock", "pthread_mutex_unlock", "pthread_cond_wait", "pthread_cond_signal", "sched_yield")
# Shared memory in 8-byte words. What different threads write lies in different lines of the cache.
JOB = ("kernel", "words", "stride", "calls", "room", "room_step")
_NEXT, _DONE, FIRST = 16, 32, 48  # the next call, how many workers are through, where the part of the first begins
WORKER = {"posted": 0, "asleep": 16, "mutex": 32, "condition": 48, "end": 64}
# Turns of waiting: at first with the core kept, 50 us where a pause takes 12 ns and 0.2 ms where it takes 40; then for
# a millisecond or two with the core offered to others; then asleep.
_KEPT, _OFFERED = 1 << 12, 1 << 11


class _Function:
    """One function of the module, and shorthands."""

    def __init__(self, module: ir.Module, name: str, arguments: tuple[str, ...], result: Any = _VOID) -> None:
        self.function = ir.Function(module, ir.FunctionType(result, [_I64] * len(arguments)), name)
        self.module, self.b = module, ir.IRBuilder(self.function.append_basic_block("entry"))
        self.a = dict(zip(arguments, self.function.args))

    def block(self, name: str) -> Any:
        return self.function.append_basic_block(name)

    def at(self, base: Any, word: int) -> Any:
        return self.b.inttoptr(self.b.add(base, _I64(8 * word)), _I64.as_pointer())

    def read(self, base: Any, word: int) -> Any:
        return self.b.load_atomic(self.at(base, word), "seq_cst", 8)

    def write(self, value: Any, base: Any, word: int) -> None:
        self.b.store_atomic(value, self.at(base, word), "seq_cst", 8)

    def exchange(self, value: int, base: Any, word: int) -> Any:
        return self.b.atomic_rmw("xchg", self.at(base, word), _I64(value), "seq_cst")

    def count(self, base: Any, word: int) -> Any:
        return self.b.atomic_rmw("add", self.at(base, word), _I64(1), "seq_cst")

    def call(self, address: int, *arguments: Any) -> None:
        kind = ir.FunctionType(_I32, [_I64] * len(arguments)).as_pointer()
        self.b.call(self.b.inttoptr(_I64(address), kind), arguments)

    def pause(self) -> None:
        if "86" in binding.get_default_triple().split("-")[0]:
            name = "llvm.x86.sse2.pause"
            f = self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(_VOID, []), name)
            self.b.call(f, [])

    def spin(self, ready: Callable[[], Any], turns: int | None, between: Callable[[], None]) -> Any:
        """Run `between` until `ready()`; after so many turns, if any, leave for the block returned."""
        b, head, wait, done, late = self.b, *map(self.block, ("spin", "wait", "ready", "late"))
        entry = b.block
        b.branch(head)
        b.position_at_end(head)
        turn = b.phi(_I64)
        turn.add_incoming(_I64(0), entry)
        b.cbranch(ready(), done, wait)
        b.position_at_end(wait)
        between()
        more = b.add(turn, _I64(1))
        turn.add_incoming(more, b.block)
        b.cbranch(_I1(1) if turns is None else b.icmp_signed("<", more, _I64(turns)), head, late)
        b.position_at_end(done)
        return late

    def wait(self, ready: Callable[[], Any], offered: int | None, offer: Callable[[], None]) -> Any:
        """`spin` with the core kept, then with it offered for so many turns; then leave for the block returned."""
        b, done = self.b, self.block("done")
        for turns, between in ((_KEPT, self.pause), (offered, offer)):
            late = self.spin(ready, turns, between)
            b.branch(done)
            b.position_at_end(late)
        if offered is None:
            b.unreachable()
        b.position_at_end(done)
        return late

    def workers(self, body: Callable[[Any], Any], total: Any) -> Any:
        """`total` after `body(worker's part)` was added to it for each worker but the caller."""
        b, head, inside, done = self.b, self.block("workers"), self.block("worker"), self.block("all")
        entry, stop = b.block, b.mul(b.sub(self.a["threads"], _I64(1)), _I64(8 * WORKER["end"]))
        b.branch(head)
        b.position_at_end(head)
        place, sum_ = b.phi(_I64), b.phi(_I64)
        place.add_incoming(_I64(0), entry)
        sum_.add_incoming(total, entry)
        b.cbranch(b.icmp_signed("<", place, stop), inside, done)
        b.position_at_end(inside)
        added = body(b.add(b.add(self.a["mail"], _I64(8 * FIRST)), place))
        sum_.add_incoming(b.add(sum_, added), b.block)
        place.add_incoming(b.add(place, _I64(8 * WORKER["end"])), b.block)
        b.branch(head)
        b.position_at_end(done)
        return sum_


def build(addresses: dict[str, int]) -> ir.Module:
    """The functions "alone", "together" and "serve"; `addresses` are those of FUNCTIONS."""
    module = ir.Module("pool")
    _alone(module)
    calls = _calls(module)
    _together(module, calls, addresses)
    _serve(module, calls, addresses)
    return module


def _kernel_call(f: _Function, kernel: Any, words: Any, call: Any, room: Any) -> None:
    f.b.call(f.b.inttoptr(kernel, _KERNEL), [f.b.inttoptr(words, _PTR), call, room])


def _alone(module: ir.Module) -> None:
    """All calls, one after another."""
    f = _Function(module, "alone", (*JOB[:-1],))
    b, a, head, body, done = f.b, f.a, f.block("head"), f.block("body"), f.block("done")
    entry = b.block
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(_I64)
    i.add_incoming(_I64(0), entry)
    b.cbranch(b.icmp_signed("<", i, a["calls"]), body, done)
    b.position_at_end(body)
    _kernel_call(f, a["kernel"], b.add(a["words"], b.mul(i, a["stride"])), i, a["room"])
    i.add_incoming(b.add(i, _I64(1)), b.block)
    b.branch(head)
    b.position_at_end(done)
    b.ret_void()


def _calls(module: ir.Module) -> ir.Function:
    """The calls that nobody else has begun, as thread number `thread`."""
    f = _Function(module, "calls", ("mail", "thread"))
    b, mail, head, body, done = f.b, f.a["mail"], f.block("head"), f.block("body"), f.block("done")
    job = {name: b.load(f.at(mail, i)) for i, name in enumerate(JOB)}
    room = b.add(job["room"], b.mul(f.a["thread"], job["room_step"]))
    b.branch(head)
    b.position_at_end(head)
    i = f.count(mail, _NEXT)
    b.cbranch(b.icmp_signed("<", i, job["calls"]), body, done)
    b.position_at_end(body)
    _kernel_call(f, job["kernel"], b.add(job["words"], b.mul(i, job["stride"])), i, room)
    b.branch(head)
    b.position_at_end(done)
    b.ret_void()
    return f.function


def _together(module: ir.Module, calls: ir.Function, addresses: dict[str, int]) -> None:
    """Post a job to the workers, take part in it, withdraw it from those who have not come, wait for the others."""
    f = _Function(module, "together", ("mail", *JOB, "threads"))
    b, mail = f.b, f.a["mail"]
    for i, name in enumerate(JOB):
        b.store(f.a[name], f.at(mail, i))
    f.write(_I64(0), mail, _NEXT)
    f.write(_I64(0), mail, _DONE)

    def post(worker: Any) -> Any:
        f.exchange(1, worker, WORKER["posted"])
        with b.if_then(b.icmp_signed("!=", f.read(worker, WORKER["asleep"]), _I64(0))):
            mutex, condition = (b.add(worker, _I64(8 * WORKER[k])) for k in ("mutex", "condition"))
            f.call(addresses["pthread_mutex_lock"], mutex)
            f.call(addresses["pthread_cond_signal"], condition)
            f.call(addresses["pthread_mutex_unlock"], mutex)
        return _I64(0)

    f.workers(post, _I64(0))
    b.call(calls, [mail, _I64(0)])
    took = f.workers(lambda worker: b.sub(_I64(1), f.exchange(0, worker, WORKER["posted"])), _I64(0))
    f.wait(lambda: b.icmp_signed("==", f.read(mail, _DONE), took), None, lambda: f.call(addresses["sched_yield"]))
    b.ret_void()


def _serve(module: ir.Module, calls: ir.Function, addresses: dict[str, int]) -> None:
    """A worker's life: wait for a job, at first awake; take part in it. Never returns."""
    f = _Function(module, "serve", ("mail", "worker", "thread"))
    b, worker, idle, taken = f.b, f.a["worker"], f.block("idle"), f.block("taken")
    b.branch(idle)
    b.position_at_end(idle)
    late = f.wait(lambda: b.icmp_signed("!=", b.load_atomic(f.at(worker, 0), "acquire", 8), _I64(0)), _OFFERED,
                  lambda: f.call(addresses["sched_yield"]))  # fmt: skip
    b.branch(taken)

    b.position_at_end(late)
    mutex, condition = (b.add(worker, _I64(8 * WORKER[k])) for k in ("mutex", "condition"))
    again, sleep, awake = f.block("again"), f.block("sleep"), f.block("awake")
    f.call(addresses["pthread_mutex_lock"], mutex)
    f.write(_I64(1), worker, WORKER["asleep"])  # whoever posts afterwards sees it, and wakes this thread
    b.branch(again)
    b.position_at_end(again)
    b.cbranch(b.icmp_signed("==", f.read(worker, WORKER["posted"]), _I64(0)), sleep, awake)
    b.position_at_end(sleep)
    f.call(addresses["pthread_cond_wait"], condition, mutex)
    b.branch(again)
    b.position_at_end(awake)
    f.write(_I64(0), worker, WORKER["asleep"])
    f.call(addresses["pthread_mutex_unlock"], mutex)
    b.branch(taken)

    b.position_at_end(taken)
    with b.if_then(b.icmp_signed("!=", f.exchange(0, worker, WORKER["posted"]), _I64(0))):
        b.call(calls, [f.a["mail"], f.a["thread"]])
        f.count(f.a["mail"], _DONE)
    b.branch(idle)
