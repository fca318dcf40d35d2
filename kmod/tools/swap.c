// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-ctl swap and refuse: what the swapper does, and what it must not be allowed to do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include "common.h"
#include "ctl.h"
#include "hs_recorder.h"
#include "modules.h"

/* rmmod of a module in use fails at once and is tried again: so many times, with such a pause. */
#define REMOVE_LIMIT	20000
#define REMOVE_PAUSE_US	200

struct swapper {
	int ctl;
	struct phase_page *page;
	const char *ring[RING];
	__u64 random;
	unsigned int irq_sources;
	/* what wait_until() compares with */
	__u64 base[THREADS_MAX];
	__u64 base_irq;
	__u64 wanted, wanted_irq;
};

enum outcome { DONE, REFUSED, FAILED };

static void open_swapper(struct swapper *swapper, int argc, char **argv)
{
	__u64 seed = option_number(argc, argv, "--seed", 1);
	__u32 sources;

	/* The load takes every CPU it can get; the swapper's own steps should not wait for its time slices. */
	if (setpriority(PRIO_PROCESS, 0, -20))
		die("setpriority: %s", strerror(errno));
	swapper->ctl = open_ctl();
	swapper->page = open_phase_page(false);
	swapper->random = hs_mix(seed, 2) | 1;
	fill_ring(swapper->ring, seed);
	if (ioctl(swapper->ctl, HS_CTL_SOURCES, &sources))
		die("HS_CTL_SOURCES: %s", strerror(errno));
	swapper->irq_sources = sources;
}

static void set_phase(struct swapper *swapper, __u32 phase)
{
	swapper->page->phase = phase;
	if (ioctl(swapper->ctl, HS_CTL_PHASE, &phase))
		die("HS_CTL_PHASE: %s", strerror(errno));
}

static bool is_running(void *argument)
{
	const struct phase_page *page = argument;

	return page->running;
}

/* Every thread has made so many more calls, and the interrupt sources together so many. */
static bool has_sample(void *argument)
{
	struct swapper *swapper = argument;

	for (unsigned int i = 0; i < swapper->page->threads; i++)
		if (swapper->page->thread[i].completed - swapper->base[i] < swapper->wanted)
			return false;
	return !swapper->irq_sources || irq_progress(swapper->ctl) - swapper->base_irq >= swapper->wanted_irq;
}

static void wait_for_sample(struct swapper *swapper, __u64 calls, __u64 irqs)
{
	for (unsigned int i = 0; i < swapper->page->threads; i++)
		swapper->base[i] = swapper->page->thread[i].completed;
	swapper->base_irq = irq_progress(swapper->ctl);
	swapper->wanted = calls;
	swapper->wanted_irq = irqs;
	wait_until(has_sample, swapper, "calls to be answered");
}

/* The edition after the live one in the ring. */
static const char *next_edition(const struct swapper *swapper, const char *live, unsigned int ahead)
{
	for (unsigned int i = 0; i < RING; i++)
		if (!strcmp(swapper->ring[i], live))
			return swapper->ring[(i + ahead) % RING];
	return swapper->ring[ahead % RING];
}

static int insert_version(const char *module, unsigned int version, const char *more)
{
	char parameters[128];

	snprintf(parameters, sizeof(parameters), "version=%u %s", version, more);
	return insert_module(module, parameters);
}

static bool is_refusal(int err)
{
	return err == ESTALE || err == ENOTUNIQ || err == EPROTOTYPE || err == EPROTO || err == EBUSY;
}

static enum outcome no_swap(unsigned int number, const char *step, int err)
{
	printf("{\"swap\":%u,\"step\":\"%s\",\"error\":\"%s\"}\n", number, step, errno_name(err));
	fflush(stdout);
	return !strcmp(step, "load") && is_refusal(err) ? REFUSED : FAILED;
}

static void print_swap(unsigned int number, const struct hs_ctl_info *now, __u64 start, __u64 load_ns,
		       const char *drain_ns, __u64 unload_ns, unsigned int attempts)
{
	printf("{\"swap\":%u,\"edition\":\"%s\",\"version\":%u,\"start_ns\":%llu,\"load_ns\":%llu,\"publish_ns\":%llu,"
	       "\"drain_ns\":%s,\"unload_ns\":%llu,\"end_ns\":%llu,\"attempts\":%u}\n",
	       number, now->edition, now->version, start,
	       (load_ns - now->publish_ns), now->publish_ns, drain_ns,
	       unload_ns, now_ns(), attempts);
	fflush(stdout);
}

/* Wait for the old edition's last reference and unload it. Returns 0 or an errno; *step says where. */
static int drain_old(struct swapper *swapper, const char **step, __u64 *drain_ns, __u64 *unload_ns,
		     unsigned int *attempts)
{
	struct hs_ctl_drain drain = { .slot = SLOT, .timeout_ms = deadline_ms() };
	__u64 start;
	int err;

	*step = "drain";
	if (ioctl(swapper->ctl, HS_CTL_DRAIN, &drain))
		return errno;
	*drain_ns = drain.drain_ns;
	*step = "unload";
	start = now_ns();
	err = remove_module_patiently(drain.module, REMOVE_LIMIT, REMOVE_PAUSE_US, attempts);
	*unload_ns = now_ns() - start;
	return err;
}

static enum outcome swap_new_first(struct swapper *swapper, unsigned int number, const struct hs_ctl_info *old)
{
	__u64 start = now_ns(), load_ns, drain_ns, unload_ns;
	const char *step = "load";
	struct hs_ctl_info now;
	unsigned int attempts;
	char drain[24];
	int err;

	err = insert_version(next_edition(swapper, old->module, 1), old->newest + 1, "");
	load_ns = now_ns() - start;
	if (!err)
		err = drain_old(swapper, &step, &drain_ns, &unload_ns, &attempts);
	if (err)
		return no_swap(number, step, err);
	slot_info(swapper->ctl, &now);
	snprintf(drain, sizeof(drain), "%llu", drain_ns);
	print_swap(number, &now, start, load_ns, drain, unload_ns, attempts);
	return DONE;
}

static enum outcome swap_old_first(struct swapper *swapper, unsigned int number, const struct hs_ctl_info *old)
{
	__u64 start = now_ns(), unload_ns, load_ns;
	struct hs_ctl_info now;
	unsigned int attempts;
	int err;

	err = remove_module_patiently(old->module, REMOVE_LIMIT, REMOVE_PAUSE_US, &attempts);
	unload_ns = now_ns() - start;
	if (err)
		return no_swap(number, "unload", err);
	load_ns = now_ns();
	err = insert_version(next_edition(swapper, old->module, 1), old->newest + 1, "");
	load_ns = now_ns() - load_ns;
	if (err)
		return no_swap(number, "load", err);
	slot_info(swapper->ctl, &now);
	print_swap(number, &now, start, load_ns, "null", unload_ns, attempts);
	return DONE;
}

static enum outcome swap_once(struct swapper *swapper, unsigned int number)
{
	struct hs_ctl_info old;

	if (!slot_info(swapper->ctl, &old) || !old.module[0])
		return no_swap(number, "find", ENODEV);
	return old.order == HS_OLD_FIRST ? swap_old_first(swapper, number, &old) : swap_new_first(swapper, number, &old);
}

int swap_command(int argc, char **argv)
{
	unsigned int count = option_number(argc, argv, "--count", 1), outcomes[3] = { 0 };
	struct swapper swapper = { 0 };

	open_swapper(&swapper, argc, argv);
	wait_until(is_running, swapper.page, "hs-load");
	wait_for_sample(&swapper, SAMPLE_CALLS, SAMPLE_IRQS);
	set_phase(&swapper, HS_DURING);
	for (unsigned int i = 1; i <= count && !outcomes[FAILED]; i++) {
		outcomes[swap_once(&swapper, i)]++;
		/* No edition passes without answering: the next swap comes after a seeded number of calls. */
		if (!outcomes[FAILED])
			wait_for_sample(&swapper, 1 + hs_random(&swapper.random) % 16, 1);
	}
	set_phase(&swapper, HS_AFTER);
	if (!outcomes[FAILED])
		wait_for_sample(&swapper, SAMPLE_CALLS, SAMPLE_IRQS);
	printf("{\"swaps\":{\"requested\":%u,\"done\":%u,\"refused\":%u,\"failed\":%u}}\n", count, outcomes[DONE],
	       outcomes[REFUSED], count - outcomes[DONE] - outcomes[REFUSED]);
	return 0;
}

/* The table and the modules as text: what a refusal must leave as it was. */
static char *read_state(void)
{
	char names[MODULES_MAX][NAME_MAX_LEN], *table = read_file(STATE_FILE), *state;
	size_t found = loaded_modules(names), used;

	if (!table)
		die(STATE_FILE ": %s", strerror(errno));
	used = strlen(table);
	state = realloc(table, used + found * (NAME_MAX_LEN + 1) + 1);
	if (!state)
		die("no memory");
	for (size_t i = 0; i < found; i++)
		used += sprintf(state + used, "%s\n", names[i]);
	return state;
}

static const struct refusal {
	const char *name;
	int expected;
	int version;		/* relative to the live one */
	const char *more;	/* module parameters */
} refusals[] = {
	{ "older", ESTALE, -1, "" },
	{ "duplicate", ENOTUNIQ, 0, "" },
	{ "dissimilar", EPROTOTYPE, 1, "interface=other" },
	{ "layout", EPROTO, 1, "layout=other" },
	{ "second-swapper", EBUSY, 1, "" },
};

/* One attempt that must be refused; if it is not, the swap that began is brought to its end. */
static void try_refusal(struct swapper *swapper, const struct refusal *refusal, const char *module,
			unsigned int version, bool first)
{
	char *before = read_state(), *after;
	__u64 unused_ns;
	unsigned int unused;
	const char *step;
	int err;

	err = insert_version(module, version, refusal->more);
	after = read_state();
	printf("%s{\"case\":\"%s\",\"expected\":\"%s\",\"got\":\"%s\",\"refused\":%s,\"same\":%s}", first ? "" : ",",
	       refusal->name, errno_name(refusal->expected), errno_name(err), err ? "true" : "false",
	       strcmp(before, after) ? "false" : "true");
	free(before);
	free(after);
	if (!err && drain_old(swapper, &step, &unused_ns, &unused_ns, &unused))
		die("%s was accepted, and then its swap did not end", refusal->name);
}

/* A swap is held open between its halves while another edition knocks. */
static void try_second_swapper(struct swapper *swapper, const struct refusal *refusal, const struct hs_ctl_info *info)
{
	const char *module = next_edition(swapper, info->module, 1), *step;
	unsigned int version = info->newest + 1, unused;
	__u64 unused_ns;
	int err;

	if (info->order == HS_NEW_FIRST) {
		err = insert_version(module, version++, "");
		if (err)
			die("first swapper: %s", strerror(err));
		module = next_edition(swapper, info->module, 2);
	}
	try_refusal(swapper, refusal, module, version, false);
	if (info->order == HS_NEW_FIRST && drain_old(swapper, &step, &unused_ns, &unused_ns, &unused))
		die("the first swapper's %s failed", step);
}

int refuse_command(int argc, char **argv)
{
	const struct refusal *refusal = refusals;
	struct swapper swapper = { 0 };
	struct hs_ctl_info info;

	open_swapper(&swapper, argc, argv);
	if (!slot_info(swapper.ctl, &info) || !info.module[0])
		die("slot " SLOT " is empty");
	if (info.version < 2)
		die("refuse wants a slot that was swapped at least once");
	printf("{\"refusals\":[");
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++, refusal++) {
		slot_info(swapper.ctl, &info);
		if (refusal->expected == EBUSY)
			try_second_swapper(&swapper, refusal, &info);
		else
			try_refusal(&swapper, refusal, next_edition(&swapper, info.module, 1),
				    info.version + refusal->version, i == 0);
	}
	printf("]}\n");
	return 0;
}
