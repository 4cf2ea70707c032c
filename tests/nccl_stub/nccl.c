// NCCL's C interface without a GPU: ranks are processes (or threads) of one host, device memory is the host's.
//
// Streams are queues, each with a thread, and events are places in them; so calls return before their work is done, work
// waits for other streams only where an event says so, and a rank that does not come lets the others' streams hang.  The
// unique id names a memfd that all ranks of a communicator map.  stub_* functions make faults and tell what was called.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RANKS 8
#define CHUNK 65536
#define EXPORT __attribute__((visibility("default")))
enum { OK, CUDA, SYSTEM, INTERNAL, ARGUMENT, USAGE, REMOTE, IN_PROGRESS, TIMEOUT };
enum { SUM, PROD, MAX, MIN, AVG };
enum { ALL_REDUCE, REDUCE, BROADCAST, ALL_GATHER, REDUCE_SCATTER, SEND, RECV };

static void nap(long us) { struct timespec t = {us / 1000000, us % 1000000 * 1000}; nanosleep(&t, NULL); }

// -- what was called ------------------------------------------------------------------------------------------------
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[1 << 20];
static size_t log_length;
static __thread int depth;

static void note(const char* format, ...) {
    va_list args;
    pthread_mutex_lock(&log_lock);
    if (log_length + 512 < sizeof log_text) {
        va_start(args, format);
        log_length += vsnprintf(log_text + log_length, 256, format, args);
        va_end(args);
        log_length += snprintf(log_text + log_length, 64, " depth=%d\n", depth);
    }
    pthread_mutex_unlock(&log_lock);
}
EXPORT const char* stub_log(void) { return log_text; }
EXPORT void stub_log_clear(void) { log_length = 0; log_text[0] = 0; }

// -- faults ---------------------------------------------------------------------------------------------------------
static int version = 22800, fail_code, slow_init_us, slow_us, lazy;
static _Atomic int async_code;          // what the newest communicator of this process reports
static void* newest;
EXPORT void stub_version(int code) { version = code; }
EXPORT void stub_fail_next(int code) { fail_code = code; }
EXPORT void stub_async_error(int code) { async_code = code; }
EXPORT void stub_delay(int us) { slow_us = us; }
EXPORT void stub_delay_init(int us) { slow_init_us = us; }
// the first call connects the ranks, and is in progress until all have come
EXPORT void stub_lazy(int yes) { lazy = yes; }

// -- streams and events ---------------------------------------------------------------------------------------------
typedef struct task { struct task* next; void (*run)(void*); void* data; } task;
typedef struct stream { struct stream* next; pthread_mutex_t lock; pthread_cond_t wake; task *first, *last; } stream;
typedef struct { _Atomic uint64_t recorded, reached; } event;
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;
static stream* streams;

static void* serve(void* data) {
    stream* s = data;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!s->first) pthread_cond_wait(&s->wake, &s->lock);
        task* t = s->first;
        if (!(s->first = t->next)) s->last = NULL;
        pthread_mutex_unlock(&s->lock);
        t->run(t->data);
        free(t);
    }
    return NULL;
}
EXPORT void* stub_stream_create(void) {
    stream* s = calloc(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    pthread_mutex_lock(&streams_lock);
    s->next = streams; streams = s;
    pthread_mutex_unlock(&streams_lock);
    pthread_t thread;
    pthread_create(&thread, NULL, serve, s);
    pthread_detach(thread);
    return s;
}
// A handle that is none of ours has no queue: the work is done at once, in the caller.
static void enqueue(void* handle, void (*run)(void*), void* data) {
    pthread_mutex_lock(&streams_lock);
    stream* s = streams;
    while (s && s != handle) s = s->next;
    pthread_mutex_unlock(&streams_lock);
    if (!s) { run(data); return; }
    task* t = calloc(1, sizeof *t);
    t->run = run; t->data = data;
    pthread_mutex_lock(&s->lock);
    if (s->last) s->last->next = t; else s->first = t;
    s->last = t;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}
typedef struct { event* e; uint64_t number; } mark;
static void reach(void* data) { mark* m = data; m->e->reached = m->number; free(m); }
static void await(void* data) { mark* m = data; while (m->e->reached < m->number) nap(20); free(m); }
static mark* mark_of(event* e) { mark* m = malloc(sizeof *m); m->e = e; m->number = e->recorded; return m; }
EXPORT void* stub_event_create(void) { return calloc(1, sizeof(event)); }
EXPORT void stub_event_record(event* e, void* s) { e->recorded++; enqueue(s, reach, mark_of(e)); }
EXPORT int stub_event_done(event* e) { return e->reached >= e->recorded; }
EXPORT void stub_stream_wait(void* s, event* e) { enqueue(s, await, mark_of(e)); }

typedef struct { float* to; const float* from; size_t n; float add; long us; } kernel;
static void run_kernel(void* data) {
    kernel* k = data;
    nap(k->us);
    for (size_t i = 0; i < k->n; i++) k->to[i] = (k->from ? k->from[i] : 0) + k->add;
    free(k);
}
// to[i] = from[i] + add, or add, after some time
EXPORT void stub_kernel(void* s, float* to, const float* from, size_t n, float add, long us) {
    kernel* k = malloc(sizeof *k);
    *k = (kernel){to, from, n, add, us};
    enqueue(s, run_kernel, k);
}

// -- communicators --------------------------------------------------------------------------------------------------
typedef struct { _Atomic uint32_t sent, taken; char data[CHUNK]; } box;
typedef struct {
    _Atomic int joined, connected;
    _Atomic uint64_t clock[RANKS];
    char slots[2][RANKS][CHUNK];
    box boxes[RANKS][RANKS];
} shared;
typedef struct { char magic[8]; int pid, fd; char rest[112]; } unique_id;
typedef struct { size_t size; unsigned magic, version; int blocking; } config;
typedef struct { int rank, size, connects; shared* m; _Atomic int code, aborted; uint64_t clock; } comm;

EXPORT int ncclGetVersion(int* v) { *v = version; return OK; }
EXPORT const char* ncclGetErrorString(int code) { (void)code; return "an error of the stub"; }
EXPORT const char* ncclGetLastError(comm* c) { (void)c; return "the stub was told to fail"; }
EXPORT int ncclGetUniqueId(unique_id* id) {
    memset(id, 0, sizeof *id);
    memcpy(id->magic, "stub", 5);
    id->pid = getpid();
    id->fd = memfd_create("nccl stub", 0);
    return ftruncate(id->fd, sizeof(shared)) ? SYSTEM : OK;
}
static void* join(void* data) {
    comm* c = data;
    nap(slow_init_us);
    c->m->joined++;
    while (c->m->joined < c->size && !c->aborted) nap(50);
    if (c->code == IN_PROGRESS) c->code = OK;
    return NULL;
}
static void* connect_all(void* data) {
    comm* c = data;
    c->m->connected++;
    while (c->m->connected < c->size && !c->aborted) nap(50);
    c->code = OK;
    return NULL;
}
EXPORT int ncclCommInitRankConfig(comm** out, int size, unique_id id, int rank, config* g) {
    char path[64];
    note("init size=%d rank=%d blocking=%d", size, rank, g ? g->blocking : 1);
    if (size > RANKS || memcmp(id.magic, "stub", 5) || (g && g->magic != 0xcafebeef)) return ARGUMENT;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", id.pid, id.fd);
    int fd = open(path, O_RDWR);
    if (fd < 0) return SYSTEM;
    comm* c = calloc(1, sizeof *c);
    c->rank = rank; c->size = size;
    c->m = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    c->code = IN_PROGRESS;
    newest = *out = c;
    if (g && !g->blocking) {
        pthread_t thread;
        pthread_create(&thread, NULL, join, c);
        pthread_detach(thread);
        return IN_PROGRESS;
    }
    join(c);
    return OK;
}
EXPORT int ncclCommGetAsyncError(comm* c, int* code) {
    *code = async_code && c == newest ? async_code : c->code;
    return OK;
}
// Work that is under way may still look at a communicator that is gone, so its memory stays.
EXPORT int ncclCommAbort(comm* c) { note("abort"); c->aborted = 1; return OK; }
EXPORT int ncclCommFinalize(comm* c) { (void)c; note("finalize"); return OK; }
EXPORT int ncclCommDestroy(comm* c) { (void)c; note("destroy"); return OK; }

// -- arithmetic -----------------------------------------------------------------------------------------------------
static const int widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
static float from_bf16(uint16_t v) { union { uint32_t u; float f; } x = {(uint32_t)v << 16}; return x.f; }
static uint16_t to_bf16(float v) {
    union { float f; uint32_t u; } x = {v};
    return (uint16_t)((x.u + 0x7fff + (x.u >> 16 & 1)) >> 16);
}
#define COMBINE(a, b, op) \
    ((op) == PROD ? (a) * (b) : (op) == MAX ? ((a) > (b) ? (a) : (b)) : (op) == MIN ? ((a) < (b) ? (a) : (b)) : (a) + (b))
#define LOOP(T) do { T* x = to; const T* y = from; for (size_t i = 0; i < n; i++) x[i] = COMBINE(x[i], y[i], op); } while (0)
static void combine(void* to, const void* from, size_t n, int type, int op) {
    switch (type) {
        case 0: LOOP(int8_t); break;
        case 1: LOOP(uint8_t); break;
        case 2: LOOP(int32_t); break;
        case 3: LOOP(uint32_t); break;
        case 4: LOOP(int64_t); break;
        case 5: LOOP(uint64_t); break;
        case 6: LOOP(_Float16); break;
        case 7: LOOP(float); break;
        case 8: LOOP(double); break;
        case 9: {
            uint16_t* x = to; const uint16_t* y = from;
            for (size_t i = 0; i < n; i++) { float a = from_bf16(x[i]), b = from_bf16(y[i]); x[i] = to_bf16(COMBINE(a, b, op)); }
        }
    }
}
static void divide(void* to, size_t n, int type, int by) {
    for (size_t i = 0; i < n; i++) switch (type) {
        case 6: ((_Float16*)to)[i] /= by; break;
        case 7: ((float*)to)[i] /= by; break;
        case 8: ((double*)to)[i] /= by; break;
        case 9: ((uint16_t*)to)[i] = to_bf16(from_bf16(((uint16_t*)to)[i]) / by); break;
    }
}

// -- collectives ----------------------------------------------------------------------------------------------------
typedef struct { int kind; const char* send; char* recv; size_t count; int type, op, peer; size_t at; } operation;
typedef struct { comm* c; int n, us; operation ops[64]; } batch;

// Announce what was written to the slots; the index of the slots to read, or -1 after an abort.
static int phase(comm* c) {
    uint64_t now = ++c->clock;
    c->m->clock[c->rank] = now;
    for (int r = 0; r < c->size; r++)
        while (c->m->clock[r] < now) { if (c->aborted) return -1; nap(20); }
    return now & 1;
}
static void collect(comm* c, operation* o) {
    int w = widths[o->type], n = c->size, parts = o->kind == REDUCE_SCATTER ? n : 1;
    size_t step = CHUNK / parts / w;
    for (size_t i = 0; i < o->count; i += step) {
        size_t m = o->count - i < step ? o->count - i : step, room = step * w;
        char* slot = c->m->slots[(c->clock + 1) & 1][c->rank];
        if (o->kind != BROADCAST || o->peer == c->rank)
            for (int p = 0; p < parts; p++) memcpy(slot + p * room, o->send + (p * o->count + i) * w, m * w);
        int now = phase(c);
        if (now < 0) return;
        char (*slots)[CHUNK] = c->m->slots[now];
        char* to = o->recv + i * w;
        switch (o->kind) {
            case BROADCAST: memcpy(to, slots[o->peer], m * w); break;
            case ALL_GATHER: for (int r = 0; r < n; r++) memcpy(to + r * o->count * w, slots[r], m * w); break;
            default: {
                if (o->kind == REDUCE && o->peer != c->rank) break;
                size_t at = o->kind == REDUCE_SCATTER ? c->rank * room : 0;
                memcpy(to, slots[0] + at, m * w);
                for (int r = 1; r < n; r++) combine(to, slots[r] + at, m, o->type, o->op);
                if (o->op == AVG) divide(to, m, o->type, n);
            }
        }
    }
}
// A piece of a message, where there is room or something came; 1 once the message is over.
static int progress(comm* c, operation* o) {
    size_t total = o->count * widths[o->type], left = total - o->at, m = left < CHUNK ? left : CHUNK;
    box* b = o->kind == SEND ? &c->m->boxes[c->rank][o->peer] : &c->m->boxes[o->peer][c->rank];
    if (o->kind == SEND) {
        if (b->sent != b->taken) return 0;
        memcpy(b->data, o->send + o->at, m);
        b->sent++;
    } else {
        if (b->sent == b->taken) return 0;
        memcpy(o->recv + o->at, b->data, m);
        b->taken++;
    }
    return (o->at += m) == total;
}
static void run_batch(void* data) {
    batch* b = data;
    nap(b->us);
    int left = 0, over[64] = {0};
    for (int i = 0; i < b->n; i++) {
        if (b->ops[i].kind < SEND) { if (b->ops[i].count) collect(b->c, &b->ops[i]); over[i] = 1; }
        else left += !(over[i] = !b->ops[i].count);
    }
    while (left && !b->c->aborted) {
        char busy[2][RANKS] = {{0}};
        int before = left;
        for (int i = 0; i < b->n; i++) {
            operation* o = &b->ops[i];
            if (over[i] || busy[o->kind == SEND][o->peer]) continue;
            busy[o->kind == SEND][o->peer] = 1;
            size_t at = o->at;
            if (progress(b->c, o)) { over[i] = 1; left--; }
            before += at != o->at;
        }
        if (before == left) nap(20);
    }
    free(b);
}

static __thread batch* open_batch;
static __thread void* open_stream;
static int launch(comm* c, void* s, operation o) {
    if (fail_code) { int code = fail_code; fail_code = 0; return code; }
    if (o.type < 0 || o.type > 9 || o.op < 0 || o.op > 4 || o.peer < 0 || o.peer >= c->size) return ARGUMENT;
    if (lazy && !c->connects) {
        pthread_t thread;
        c->connects = 1;
        c->code = IN_PROGRESS;
        pthread_create(&thread, NULL, connect_all, c);
        pthread_detach(thread);
    }
    batch* b = open_batch;
    if (!b) { b = calloc(1, sizeof *b); b->c = c; }
    if (b->c && (b->c != c || b->n == 64)) return USAGE;
    b->c = c;
    b->us = slow_us;
    b->ops[b->n++] = o;
    if (depth) open_stream = s; else enqueue(s, run_batch, b);
    return OK;
}
EXPORT int ncclGroupStart(void) {
    if (!depth++) open_batch = calloc(1, sizeof *open_batch);
    return OK;
}
EXPORT int ncclGroupEnd(void) {
    if (!depth) return USAGE;
    if (--depth) return OK;
    batch* b = open_batch;
    open_batch = NULL;
    if (b->n) enqueue(open_stream, run_batch, b); else free(b);
    return OK;
}
EXPORT int ncclAllReduce(const void* in, void* out, size_t n, int type, int op, comm* c, void* s) {
    note("all_reduce count=%zu type=%d op=%d stream=%p", n, type, op, s);
    return launch(c, s, (operation){ALL_REDUCE, in, out, n, type, op, 0, 0});
}
EXPORT int ncclReduce(const void* in, void* out, size_t n, int type, int op, int root, comm* c, void* s) {
    note("reduce count=%zu type=%d op=%d root=%d stream=%p", n, type, op, root, s);
    return launch(c, s, (operation){REDUCE, in, out, n, type, op, root, 0});
}
EXPORT int ncclBroadcast(const void* in, void* out, size_t n, int type, int root, comm* c, void* s) {
    note("broadcast count=%zu type=%d root=%d stream=%p", n, type, root, s);
    return launch(c, s, (operation){BROADCAST, in, out, n, type, 0, root, 0});
}
EXPORT int ncclAllGather(const void* in, void* out, size_t n, int type, comm* c, void* s) {
    note("all_gather count=%zu type=%d stream=%p", n, type, s);
    return launch(c, s, (operation){ALL_GATHER, in, out, n, type, 0, 0, 0});
}
EXPORT int ncclReduceScatter(const void* in, void* out, size_t n, int type, int op, comm* c, void* s) {
    note("reduce_scatter count=%zu type=%d op=%d stream=%p", n, type, op, s);
    return launch(c, s, (operation){REDUCE_SCATTER, in, out, n, type, op, 0, 0});
}
EXPORT int ncclSend(const void* in, size_t n, int type, int peer, comm* c, void* s) {
    note("send count=%zu type=%d peer=%d stream=%p", n, type, peer, s);
    return launch(c, s, (operation){SEND, in, NULL, n, type, 0, peer, 0});
}
EXPORT int ncclRecv(void* out, size_t n, int type, int peer, comm* c, void* s) {
    note("recv count=%zu type=%d peer=%d stream=%p", n, type, peer, s);
    return launch(c, s, (operation){RECV, NULL, out, n, type, 0, peer, 0});
}
