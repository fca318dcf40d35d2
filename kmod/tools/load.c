// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-load: the calls that go on while editions are swapped.
 *
 * Purpose: threads that call as fast as they can, check every result and record latencies, and the interrupt sources
 * started for the same time. It ends when the phase page says so, and then prints one line of JSON.
 *
 * Usage: ./hs-load --load syscall|irq|exception|policy|mixed|stuck [--threads 4] [--seed 1] [--deadline-ms N]
 *	  [--stay KIND --stay-us N]
 *
 * Threads call by ioctls (`syscall`), by page faults (`exception`, see faults.c) or by opens (`policy`, see opens.c).
 * Each has its own recorder and its own seeded arguments. Of the ioctls one in 8 looks the table up, one in 256 sleeps
 * for up to half a millisecond inside the edition, and one in 16 begins a round: two calls that belong together.
 *
 * Load `mixed` has threads of ioctls, one more of page faults, and interrupts. Load `stuck` is `mixed` with two threads
 * more, of which one sleeps and one spins for four seconds inside the edition in each of its calls; --stay and
 * --stay-us make the latter stay otherwise. Nobody waits for these two to make progress.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "load.h"

#define STUCK		2	/* threads more, with load `stuck` */
#define STUCK_US	4000000

static struct phase_page *page;

void begin_call(struct caller *caller, struct timing *timing)
{
	caller->rec.issued++;
	timing->phase = page->phase;
	timing->start_ns = now_ns();
}

__u32 end_call(struct caller *caller, const struct timing *timing, const struct hs_call *call, int err, bool right)
{
	struct hs_recorder *rec = &caller->rec;

	rec->retried += call->retried;
	rec->recovered += call->recovered;
	if (err) {
		rec->failed++;
		caller->errors[err < ERRNO_MAX ? err : 0]++;
		return 0;
	}
	hs_record_done(rec, timing->phase, timing->start_ns, timing->end_ns, call->op == HS_OP_SEAL, call->version,
		       right && call->result == hs_expected(call->identity, call->version, call->op, call->arg));
	if (!caller->stay_us)
		page->thread[caller->id].completed = rec->completed;
	return call->version;
}

/* Make it, time it, check it, record it. Returns the version that answered, 0 if none did. */
static __u32 make_call(struct caller *caller, struct hs_call *call)
{
	struct timing timing;
	int err;

	begin_call(caller, &timing);
	err = ioctl(caller->fd, HS_CALL, call) ? errno : 0;
	timing.end_ns = now_ns();
	return end_call(caller, &timing, call, err, true);
}

/* The slot's function and its mate's, as one: where there are transactions, one edition answers both. */
static void one_round(struct caller *caller, __u64 random)
{
	struct hs_call calc = { .arg = random }, seal = { .arg = ~random, .op = HS_OP_SEAL };
	__u32 first, second;

	if (random % 256 == 2)
		calc.stay_us = 1 + (random >> 32) % 500;
	if (ioctl(caller->fd, HS_BEGIN))
		die("HS_BEGIN: %s", strerror(errno));
	first = make_call(caller, &calc);
	second = make_call(caller, &seal);
	if (ioctl(caller->fd, HS_END))
		die("HS_END: %s", strerror(errno));
	if (!first || !second)
		return;
	caller->rec.rounds++;
	caller->rec.torn += first != second;
}

static void one_call(struct caller *caller)
{
	__u64 random = hs_random(&caller->random);
	struct hs_call call = { .arg = random };

	if (caller->stay_us) {
		call.stay = caller->stay;
		call.stay_us = caller->stay_us;
	} else if (random % 8 == 0) {
		call.op = HS_OP_LOOKUP;
	} else if (random % 16 == 2) {
		one_round(caller, random);
		return;
	} else if (random % 256 == 1) {
		call.stay_us = 1 + (random >> 32) % 500;
	}
	make_call(caller, &call);
}

static void begin_syscalls(struct caller *caller)
{
	caller->fd = open_device("/dev/hotswap", O_RDWR);
}

static const struct kind syscalls = { .name = "syscall", .begin = begin_syscalls, .call = one_call };

int open_device(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static void *run_caller(void *argument)
{
	const struct sched_param first = { .sched_priority = 1 };
	struct caller *caller = argument;

	/*
	 * Who keeps interrupts off owes everybody else the time afterwards, and would never be inside when a swap, which
	 * must interrupt every CPU to load a module, gets to its end. So it goes first.
	 */
	if (caller->stay == HS_STAY_SPIN_IRQOFF && pthread_setschedparam(pthread_self(), SCHED_FIFO, &first))
		die("cannot schedule thread %u first", caller->id);
	caller->kind->begin(caller);
	while (page->phase != HS_STOP)
		caller->kind->call(caller);
	return NULL;
}

static const char * const stays[HS_STAY_NR] = { "sleep", "doze", "spin", "irqoff", "atomic", "nest" };

/* How the stuck callers stay: the first sleeps; the last does as @kind says, else it spins. */
static void stay_stuck(struct caller callers[STUCK], const char *kind, __u32 stay_us)
{
	for (unsigned int i = 0; i < STUCK; i++) {
		callers[i].stay_us = stay_us;
		callers[i].stay = i ? HS_STAY_SPIN : HS_STAY_SLEEP;
	}
	for (__u32 stay = 0; kind && stay < HS_STAY_NR; stay++)
		if (!strcmp(kind, stays[stay]))
			callers[STUCK - 1].stay = stay;
}

/* A load's threads: of one kind as many as --threads says, then some more. */
static const struct load {
	const char *name;
	const struct kind *kind;	/* NULL: none */
	unsigned int faulting;		/* threads of page faults more */
	unsigned int stuck;		/* and threads that stay, which are of @kind and come last */
} loads[] = {
	{ "syscall", &syscalls, 0, 0 },
	{ "irq", NULL, 0, 0 },
	{ "exception", &faults, 0, 0 },
	{ "policy", &opens, 0, 0 },
	{ "mixed", &syscalls, 1, 0 },
	{ "stuck", &syscalls, 1, STUCK },
};

static const struct load *find_load(const char *name)
{
	for (size_t i = 0; name && i < sizeof(loads) / sizeof(loads[0]); i++)
		if (!strcmp(name, loads[i].name))
			return &loads[i];
	die("--load wants syscall, irq, exception, policy, mixed or stuck");
}

/* @threads of the load's own kind, then the others. */
static struct caller *make_callers(const struct load *load, unsigned int threads)
{
	unsigned int all = threads + load->faulting + load->stuck;
	struct caller *callers = calloc(all ?: 1, sizeof(*callers));

	if (!callers)
		die("no memory");
	for (unsigned int i = 0; i < all; i++)
		callers[i].kind = i < threads || i >= threads + load->faulting ? load->kind : &faults;
	return callers;
}

static void start_callers(struct caller *callers, unsigned int threads, __u64 seed)
{
	for (unsigned int i = 0; i < threads; i++) {
		callers[i].id = i;
		callers[i].random = hs_mix(seed, i + 1) | 1;
		callers[i].rec.gap_floor_ns = HS_GAP_FLOOR_NS;
		/* The recorder's memory is touched now: no page fault in the loop. */
		memset(callers[i].rec.gap, 0, sizeof(callers[i].rec.gap));
		memset(callers[i].rec.version, 0, sizeof(callers[i].rec.version));
		if (pthread_create(&callers[i].thread, NULL, run_caller, &callers[i]))
			die("cannot start thread %u", i);
	}
}

static __u64 count_calls(unsigned int threads, int ctl)
{
	__u64 sum = irq_progress(ctl);

	for (unsigned int i = 0; i < threads; i++)
		sum += page->thread[i].completed;
	return sum;
}

/* A line twice a second until the phase page says stop. No call completed for a whole deadline is an error. */
static void beat_until_stop(unsigned int threads, int ctl)
{
	static const struct timespec pause = { .tv_nsec = 10000000 };
	__u64 calls = 0, moved_ns = now_ns(), next_ns = 0;

	while (page->phase != HS_STOP) {
		__u64 now = now_ns();

		if (now >= next_ns) {
			__u64 count = count_calls(threads, ctl);

			printf("{\"progress\":%llu}\n", count);
			fflush(stdout);
			if (count != calls)
				moved_ns = now;
			calls = count;
			next_ns = now + 500000000;
		}
		if (now - moved_ns > deadline_ms() * 1000000ULL)
			die("no call completed within %u ms", deadline_ms());
		nanosleep(&pause, NULL);
	}
}

static void print_caller(const struct caller *caller)
{
	const char *separator = "";

	printf("{\"id\":%u,\"kind\":\"%s\",\"errors\":{", caller->id, caller->kind->name);
	for (int i = 0; i < ERRNO_MAX; i++) {
		if (!caller->errors[i])
			continue;
		printf("%s\"%s\":%llu", separator, errno_name(i), caller->errors[i]);
		separator = ",";
	}
	printf("},");
	if (caller->kind->print)
		caller->kind->print(caller);
	hs_recorder_json(fprintf, stdout, &caller->rec);
	printf("}");
}

int main(int argc, char **argv)
{
	const struct load *load = find_load(option(argc, argv, "--load"));
	unsigned int threads = option_number(argc, argv, "--threads", 4), brisk;
	const char *stay = option(argc, argv, "--stay");
	__u64 seed = option_number(argc, argv, "--seed", 1);
	__u64 started, ended;
	struct caller *callers;
	int ctl;

	if (threads < 1 || threads + load->faulting > THREADS_MAX)
		die("--threads wants 1 to %d", THREADS_MAX - load->faulting);
	callers = make_callers(load, load->kind ? threads : 0);
	brisk = load->kind ? threads + load->faulting : 0;
	threads = brisk + load->stuck;
	set_deadline(argc, argv);
	page = open_phase_page(false);
	ctl = open_ctl();

	if (page->ended) {	/* another load was here before, and was stopped */
		page->phase = HS_BEFORE;
		page->running = page->ended = 0;
	}
	started = now_ns();
	page->threads = brisk;
	if (ioctl(ctl, HS_CTL_START))
		die("HS_CTL_START: %s", strerror(errno));
	if (threads > brisk)
		stay_stuck(callers + brisk, stay, option_number(argc, argv, "--stay-us", STUCK_US));
	start_callers(callers, threads, seed);
	page->running = 1;
	beat_until_stop(brisk, ctl);
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(callers[i].thread, NULL);
	if (ioctl(ctl, HS_CTL_STOP))
		die("HS_CTL_STOP: %s", strerror(errno));
	ended = now_ns();

	printf("{\"load\":{\"clock\":\"CLOCK_MONOTONIC\",\"started_ns\":%llu,\"ended_ns\":%llu,\"sub_bits\":%d,",
	       started, ended, HS_SUB_BITS);
	printf("\"threads\":[");
	for (unsigned int i = 0; i < threads; i++) {
		printf("%s", i ? "," : "");
		print_caller(&callers[i]);
	}
	printf("]}}\n");
	fflush(stdout);
	page->ended = 1;
	return 0;
}
