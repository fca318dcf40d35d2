// SPDX-License-Identifier: GPL-2.0-only
/*
 * hs-ctl swap: what the swapper does.
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

/* One swap in so many changes the layout of the state, where the mechanism has transformers. */
#define LAYOUT_EVERY	4

enum outcome { DONE, REFUSED, FAILED };

void open_swapper(struct swapper *swapper, int argc, char **argv)
{
	__u64 seed = option_number(argc, argv, "--seed", 1);
	__u32 sources;

	/* The load takes every CPU it can get; the swapper's own steps should not wait for its time slices. */
	if (setpriority(PRIO_PROCESS, 0, -20))
		die("setpriority: %s", strerror(errno));
	swapper->ctl = open_ctl();
	swapper->page = open_phase_page(false);
	swapper->random = hs_mix(seed, 2) | 1;
	swapper->edition = option(argc, argv, "--edition") ?: "";
	fill_ring(&swapper->ring, seed);
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

/* The edition after the live one in the ring; not one that stands by, if there is another. */
static const char *next_edition(const struct swapper *swapper, const char *live)
{
	const struct ring *ring = &swapper->ring;
	unsigned int at, ahead = 1;

	for (at = 0; at < ring->length - 1 && strcmp(ring->module[at], live); at++)
		;
	while (ahead < ring->length && is_loaded(ring->module[(at + ahead) % ring->length]))
		ahead++;
	return ring->module[(at + ahead) % ring->length];
}

int insert_version(const char *module, unsigned int version, unsigned int layout, const char *more)
{
	char parameters[160];

	snprintf(parameters, sizeof(parameters), "version=%u layout_number=%u %s", version, layout, more);
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

/* A figure, or null where the mechanism has none. */
static void print_figure(const char *name, __u64 ns)
{
	if (ns)
		printf("\"%s\":%llu,", name, ns);
	else
		printf("\"%s\":null,", name);
}

/* @drain is NULL where nothing is drained. */
static void print_swap(unsigned int number, const struct hs_ctl_info *now, __u64 start, __u64 load_ns,
		       const struct hs_ctl_drain *drain, __u64 unload_ns, unsigned int attempts)
{
	const struct hs_ctl_drain none = { 0 }, *drained = drain ?: &none;

	printf("{\"swap\":%u,\"edition\":\"%s\",\"version\":%u,\"start_ns\":%llu,\"load_ns\":%llu,\"publish_ns\":%llu,",
	       number, now->edition, now->version, start, (load_ns - now->publish_ns), now->publish_ns);
	print_figure("drain_ns", drained->drain_ns);
	print_figure("retire_ns", drained->retire_ns);
	print_figure("flush_ns", drained->flush_ns);
	print_figure("fault_ns", drained->fault_ns);
	print_figure("unload_ns", unload_ns);
	printf("\"end_ns\":%llu,\"attempts\":%u}\n", now_ns(), attempts);
	fflush(stdout);
}

/* Wait for the old edition's last reference and unload it. Returns 0 or an errno; *step says where. */
int drain_old(struct swapper *swapper, const char **step, struct hs_ctl_drain *drain, __u64 *unload_ns,
	      unsigned int *attempts)
{
	struct hs_ctl_info now;
	__u64 start;
	int err;

	*drain = (struct hs_ctl_drain) { .slot = SLOT, .timeout_ms = deadline_ms() };
	*step = "drain";
	if (ioctl(swapper->ctl, HS_CTL_DRAIN, drain))
		return errno;
	/* Side by side, a slot that has room for one more keeps them all. */
	if (!drain->module[0] && slot_info(swapper->ctl, &now) && now.order == HS_SIDE_BY_SIDE) {
		*unload_ns = *attempts = 0;
		return 0;
	}
	*step = "unload";
	start = now_ns();
	err = remove_module_patiently(drain->module, REMOVE_LIMIT, REMOVE_PAUSE_US, attempts);
	*unload_ns = now_ns() - start;
	return err;
}

static enum outcome swap_new_first(struct swapper *swapper, unsigned int number, const struct hs_ctl_info *old)
{
	const char *next = next_edition(swapper, old->module);
	__u64 start = now_ns(), load_ns, unload_ns;
	struct hs_ctl_drain drain;
	const char *step = "load";
	struct hs_ctl_info now;
	unsigned int attempts;
	int err;

	err = insert_version(next, old->newest + 1,
			     old->layout + (old->transforms && number % LAYOUT_EVERY == 0), swapper->edition);
	load_ns = now_ns() - start;
	/* The new edition and those before it answer side by side, before the oldest goes. */
	if (!err && old->order == HS_SIDE_BY_SIDE)
		wait_for_sample(swapper, 1 + hs_random(&swapper->random) % 16, 1);
	if (!err)
		err = drain_old(swapper, &step, &drain, &unload_ns, &attempts);
	if (err)
		return no_swap(number, step, err);
	slot_info(swapper->ctl, &now);
	print_swap(number, &now, start, load_ns, &drain, unload_ns, attempts);
	return DONE;
}

static enum outcome swap_old_first(struct swapper *swapper, unsigned int number, const struct hs_ctl_info *old)
{
	const char *next = next_edition(swapper, old->module);
	__u64 start = now_ns(), unload_ns, load_ns;
	struct hs_ctl_info now;
	unsigned int attempts;
	int err;

	err = remove_module_patiently(old->module, REMOVE_LIMIT, REMOVE_PAUSE_US, &attempts);
	unload_ns = now_ns() - start;
	if (err)
		return no_swap(number, "unload", err);
	load_ns = now_ns();
	err = insert_version(next, old->newest + 1, old->layout, swapper->edition);
	load_ns = now_ns() - load_ns;
	if (err)
		return no_swap(number, "load", err);
	slot_info(swapper->ctl, &now);
	print_swap(number, &now, start, load_ns, NULL, unload_ns, attempts);
	return DONE;
}

static enum outcome swap_once(struct swapper *swapper, unsigned int number)
{
	struct hs_ctl_info old;

	if (!slot_info(swapper->ctl, &old) || !old.module[0])
		return no_swap(number, "find", ENODEV);
	if (old.order == HS_OLD_FIRST)
		return swap_old_first(swapper, number, &old);
	return swap_new_first(swapper, number, &old);
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
