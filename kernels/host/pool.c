// Threads of the CPU backend that share out loops written in C, and matrix products by NumPy's BLAS in parts.
//
// Python's threads take 50 to 200 us to begin: each sleeps until the interpreter lock is free. These wait actively for a
// while after each job, and take no lock of Python's. A job is a function and a count: whoever is free takes the next
// number, the calling thread too. One job runs at a time; who comes meanwhile does the job alone.

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

typedef int64_t i64;
typedef uint64_t u64;
typedef void (*Task)(const void *context, i64 number);

#define API __attribute__((visibility("default")))
#define MOST_THREADS 256
#define CLOSED 0xffffffffu

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER;  // of the workers: held during a job
static pthread_mutex_t bed = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;

// Number of the job (even; odd while it is written) in the upper half, next number to take in the lower.
static _Atomic u64 cursor = CLOSED;
static _Atomic(Task) function;
static _Atomic(const void *) context;
static _Atomic i64 count, done;
static _Atomic int asleep, workers, begun;  // workers: how many may take part; begun: how many there are
static _Atomic i64 patience = 200000;       // ns that an idle worker waits actively

static u64 job_of(u64 x) { return x >> 32; }

// Do numbers of the job `job` until none is left. The job's fields are read before a number is taken: taking one
// succeeds only if the cursor, and so the job, is still the same, and then it cannot end before that number is done.
static void take_part(u64 job) {
    for (;;) {
        u64 now = atomic_load(&cursor);
        Task f = atomic_load(&function);
        const void *c = atomic_load(&context);
        i64 number = (i64)(now & CLOSED), n = atomic_load(&count);
        if (job_of(now) != job || number >= n) return;
        if (!atomic_compare_exchange_weak(&cursor, &now, now + 1)) continue;
        f(c, number);
        atomic_fetch_add(&done, 1);
    }
}

static i64 nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (i64)t.tv_sec * 1000000000 + t.tv_nsec;
}

// The number of a job that is not `seen`, for the worker `me`; waits until there is one.
static u64 next_job(u64 seen, int me) {
    i64 until = nanoseconds() + atomic_load(&patience);
    for (int k = 0;; k++) {
        u64 job = job_of(atomic_load(&cursor));
        if (job != seen && !(job & 1) && me < atomic_load(&workers)) return job;
        PAUSE();
        if (k % 64 || nanoseconds() < until) continue;
        pthread_mutex_lock(&bed);
        atomic_fetch_add(&asleep, 1);
        for (;;) {
            job = job_of(atomic_load(&cursor));
            if (job != seen && !(job & 1) && me < atomic_load(&workers)) break;
            pthread_cond_wait(&bell, &bed);
        }
        atomic_fetch_sub(&asleep, 1);
        pthread_mutex_unlock(&bed);
        return job;
    }
}

static void *work(void *me) {
    u64 seen = 0;
    for (;;) take_part(seen = next_job(seen, (int)(intptr_t)me));
    return 0;
}

// Start the workers that are wanted and not there. Signals are for Python's threads.
static void begin(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (begun < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, 0, work, (void *)(intptr_t)begun)) break;
        pthread_detach(thread);
        begun++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

// In a forked child none of the workers is there, and locks may be held by threads that are not either.
static void forked(void) {
    owner = bed = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    bell = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    begun = asleep = 0;
    cursor = CLOSED;
}

__attribute__((constructor)) static void loaded(void) { pthread_atfork(0, 0, forked); }

API void gg_pool_size(i64 threads) { workers = threads > MOST_THREADS ? MOST_THREADS - 1 : (int)threads - 1; }
API void gg_pool_patience(i64 ns) { patience = ns; }

API void gg_share(Task f, const void *c, i64 n) {
    if (n < 2 || workers < 1 || n >= CLOSED || pthread_mutex_trylock(&owner)) {
        for (i64 i = 0; i < n; i++) f(c, i);
        return;
    }
    if (begun < workers) begin(workers);
    u64 job = job_of(cursor) | 1;
    cursor = job << 32 | CLOSED;
    function = f;
    context = c;
    count = n;
    done = 0;
    cursor = ++job << 32;
    if (asleep) {
        pthread_mutex_lock(&bed);
        if (n > asleep)
            pthread_cond_broadcast(&bell);
        else
            for (i64 i = 1; i < n; i++) pthread_cond_signal(&bell);
        pthread_mutex_unlock(&bed);
    }
    take_part(job);
    for (int k = 0; done < n; k++) {
        PAUSE();
        if (k > 10000) sched_yield();
    }
    pthread_mutex_unlock(&owner);
}

// -- kernels, and loops of compiled programs ----------------------------------------------------------------

typedef struct {
    void (*run)(void *const *arguments, long long first, long long last);  // items of a kernel
    void *const *arguments;
    i64 first, last;
} Items;

static void run_items(const void *parts, i64 i) {
    const Items *p = (const Items *)parts + i;
    p->run(p->arguments, p->first, p->last);
}

API void gg_share_items(const Items *parts, i64 n) { gg_share(run_items, parts, n); }

typedef struct {
    void (*run)(char *const *pointers, const double *numbers, i64 range);
    char *const *pointers;
    const double *numbers;
} Ranges;

static void run_range(const void *ranges, i64 i) {
    const Ranges *r = ranges;
    r->run(r->pointers, r->numbers, i);
}

API void gg_share_ranges(const Ranges *r, i64 n) { gg_share(run_range, r, n); }
