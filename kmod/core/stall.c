// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: when the machine itself stood still.
 *
 * Purpose: tell a blackout that a swap made from one that the host made. A virtual CPU that its host does not run
 * completes no calls either, and on a busy host such pauses are longer than the gaps we look for. So while the
 * sources run, each CPU has a witness: a timer pinned to it that fires every millisecond in hard-interrupt context and
 * calls nobody. Where the witness is late, its CPU did not run or had interrupts off: that interval is a stall.
 *
 * A code path that only keeps preemption off does not delay a hard interrupt, so it is never mistaken for a stall. One
 * that keeps interrupts off for longer than HS_STALL_NS, as stop_machine() does on every CPU, makes the witness late
 * too, and that time is excluded as well although the mechanism caused it. From here the two look the same, so the
 * reports tell the gap as it was seen beside the one without stalls.
 */

#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/percpu.h>
#include <linux/smp.h>
#include "../compat.h"
#include "core.h"

#define HS_WITNESS_NS	NSEC_PER_MSEC
#define HS_STALL_NS	(2 * HS_WITNESS_NS)	/* shorter ones are the timer's own jitter */
#define HS_STALLS	1024

/*
 * struct witness - one CPU's; written by its own timer only
 * @timer:	fires every HS_WITNESS_NS
 * @last_ns:	when it fired last, by ktime_get_ns()
 * @floor_ns:	shortest stall that is kept; doubles when @stall is full
 * @stalls:	used entries of @stall, each {start, end}
 */
struct witness {
	struct hrtimer timer;
	u64 last_ns;
	u64 floor_ns;
	u32 stalls;
	struct hs_pair stall[HS_STALLS];
};

static struct witness __percpu *witnesses;
static bool watching;

static notrace void keep(struct witness *self, u64 start, u64 end)
{
	u32 i, kept = 0;

	if (self->stalls == HS_STALLS) {
		self->floor_ns *= 2;
		for (i = 0; i < HS_STALLS; i++)
			if (self->stall[i].b - self->stall[i].a >= self->floor_ns)
				self->stall[kept++] = self->stall[i];
		self->stalls = kept;
	}
	if (end - start < self->floor_ns || self->stalls == HS_STALLS)
		return;
	self->stall[self->stalls].a = start;
	self->stall[self->stalls++].b = end;
}

static enum hrtimer_restart witness_fired(struct hrtimer *timer)
{
	struct witness *self = container_of(timer, struct witness, timer);
	u64 now = ktime_get_ns();

	if (now - self->last_ns >= HS_STALL_NS)
		keep(self, self->last_ns + HS_WITNESS_NS, now);
	self->last_ns = now;
	hrtimer_forward_now(timer, ns_to_ktime(HS_WITNESS_NS));
	return HRTIMER_RESTART;
}

/* Runs on the CPU that it watches, so that the timer is pinned there. */
static void witness_start(void *unused)
{
	struct witness *self = this_cpu_ptr(witnesses);

	self->last_ns = ktime_get_ns();
	self->floor_ns = HS_WITNESS_NS;
	self->stalls = 0;
	hrtimer_start(&self->timer, ns_to_ktime(HS_WITNESS_NS), HRTIMER_MODE_REL_PINNED_HARD);
}

/* Context: process, may sleep; never beside hs_stall_stop(). */
void hs_stall_start(void)
{
	on_each_cpu(witness_start, NULL, 1);
	watching = true;
}

/* Context: process, may sleep. What was seen stays until the next start. */
void hs_stall_stop(void)
{
	int cpu;

	if (watching)
		for_each_possible_cpu(cpu)
			hrtimer_cancel(&per_cpu_ptr(witnesses, cpu)->timer);
	watching = false;
}

/* Context: process, may sleep. Return: 0 or -ENOMEM. */
int hs_stall_init(void)
{
	int cpu;

	witnesses = alloc_percpu(struct witness);
	if (!witnesses)
		return -ENOMEM;
	for_each_possible_cpu(cpu)
		hrtimer_setup(&per_cpu_ptr(witnesses, cpu)->timer, witness_fired, CLOCK_MONOTONIC,
			      HRTIMER_MODE_REL_PINNED_HARD);
	return 0;
}

/* Context: process, may sleep. */
void hs_stall_exit(void)
{
	hs_stall_stop();
	free_percpu(witnesses);
}

/* As JSON members; exact once the sources are stopped. */
void hs_stall_show(struct seq_file *seq)
{
	const char *separator = "";
	const struct witness *self;
	u32 i;
	int cpu;

	seq_puts(seq, "\"stalls\":[");
	for_each_online_cpu(cpu) {
		self = per_cpu_ptr(witnesses, cpu);
		seq_printf(seq, "%s{\"cpu\":%d,\"floor_ns\":%llu,\"stalls\":[", separator, cpu, self->floor_ns);
		for (i = 0; i < self->stalls; i++)
			seq_printf(seq, "%s[%llu,%llu]", i ? "," : "", self->stall[i].a, self->stall[i].b);
		seq_puts(seq, "]}");
		separator = ",";
	}
	seq_puts(seq, "]");
}
