/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap mechanism: adaptive - which edition answers.
 *
 * Purpose: the adaptation handler's policies, and a witness who knows what each policy promises but not how it is
 * kept, and counts the calls that went astray.
 *
 * Everything here is a CPU's own, works in any context, and runs with preemption off; an interrupt that splits a decision
 * makes its own, whole one. Nothing is shared but the witness's notes, which are single words.
 */
#ifndef HS_ADAPTIVE_CHOOSE_H
#define HS_ADAPTIVE_CHOOSE_H

#include <linux/ktime.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include "../../core/core.h"

#define ADAPT_MAX	8	/* editions of a slot that live at once */
#define ADAPT_EXPLORE	16	/* by latency: one call in so many is an edition's in turn, to be measured */
#define ADAPT_SAMPLES	16	/* measured calls before an edition's latency is believed */
#define ADAPT_DWELL	512	/* calls on a CPU between two changes of mind */

enum adapt {
	ADAPT_ALL_NEW,		/* the newest */
	ADAPT_PERCENT,		/* so many of each hundred calls on a CPU the newest, the others in turn */
	ADAPT_TASK,		/* a task always the same; interrupts the newest */
	ADAPT_CPU,		/* a CPU always the same */
	ADAPT_LATENCY,		/* the fastest, on this CPU; another one only if it is much faster */
	ADAPT_NR,
};

static const char * const adapt_names[ADAPT_NR] = { "all-new", "percent", "task", "cpu", "latency" };

/**
 * struct adapt_set - the editions that share a slot's calls, and by which policy; does not change once published
 * @generation:	no two sets have the same
 * @policy:	how to choose
 * @live:	used entries of @edition
 * @edition:	newest first
 */
struct adapt_set {
	u32 generation;
	enum adapt policy;
	unsigned int live;
	struct hs_ref *edition[ADAPT_MAX];
};

/**
 * struct adapt_count - one CPU's share of an edition's figures
 * @decided:	how often it was chosen, by policy
 * @held:	rounds begun on it
 * @let_go:	rounds ended
 * @joined:	calls of rounds
 * @median_ns:	running median of the latency of its calls
 * @samples:	measured calls
 * @favourite:	version of the edition that is preferred by latency while this one is the newest; 0: this one
 * @dwell:	calls since @favourite changed
 */
struct adapt_count {
	unsigned long decided[ADAPT_NR];
	unsigned long held;
	unsigned long let_go;
	unsigned long joined;
	u32 median_ns;
	u32 samples;
	u32 favourite;
	u32 dwell;
};

/**
 * struct adapt_edition - what the mechanism knows of an edition; stays until the last slot goes
 * @set:	who answers while this edition is the newest
 * @joining:	the set that its coming makes
 * @leaving:	the set that its going makes
 * @count:	its figures; NULL once folded into @total
 * @total:	their sums, once gone
 * @node:	in the list of all
 * @version:	its version
 * @slot:	its slot's name
 */
struct adapt_edition {
	struct adapt_set *set;
	struct adapt_set joining, leaving;
	struct adapt_count __percpu *count;
	struct adapt_count total;
	struct list_head node;
	u32 version;
	char slot[HS_NAME_LEN];
};

static uint adapt_percent = 25;
module_param(adapt_percent, uint, 0444);
MODULE_PARM_DESC(adapt_percent, "adapt=percent: how many of a hundred calls the newest edition answers");

/* One CPU's turns, over all slots. */
static DEFINE_PER_CPU(struct adapt_turns {
	unsigned long percent;	/* calls that were shared out by percentage */
	unsigned long newest;	/* of those, what the newest answered, by the witness's count */
	unsigned long latency;	/* calls that were shared out by latency */
	unsigned long switches;	/* changes of mind among them */
	unsigned long astray;	/* calls that an edition answered which the policy did not choose */
}, adapt_turns);

static __always_inline struct adapt_edition *adapt_of(const struct hs_ref *ref)
{
	return ref->own;
}

/* Spread as evenly as can be: of any hundred calls in a row, so many. Return: index of the edition. */
static __always_inline unsigned int by_percentage(const struct adapt_set *set)
{
	unsigned long turn = this_cpu_inc_return(adapt_turns.percent) - 1, before = turn % 100 * adapt_percent / 100;

	if ((turn % 100 + 1) * adapt_percent / 100 > before)
		return 0;
	/* The how manieth turn that is not the newest's: the others have these one after the other. */
	return 1 + (turn / 100 * (100 - adapt_percent) + turn % 100 - before) % (set->live - 1);
}

static __always_inline unsigned int index_of(const struct adapt_set *set, u32 version)
{
	unsigned int i;

	for (i = 0; i < set->live; i++)
		if (set->edition[i]->version == version)
			return i;
	return 0;
}

static __always_inline u32 median_of(const struct adapt_set *set, unsigned int i)
{
	struct adapt_count *count = this_cpu_ptr(adapt_of(set->edition[i])->count);

	return READ_ONCE(count->samples) < ADAPT_SAMPLES ? 0 : READ_ONCE(count->median_ns);
}

/*
 * The favourite of this CPU, unless another edition takes less than half of its time; and so no change of mind
 * before ADAPT_DWELL more calls. A new edition has the first turns, and is then left or kept by what was measured.
 */
static __always_inline unsigned int by_latency(const struct adapt_set *set)
{
	struct adapt_count *newest = this_cpu_ptr(adapt_of(set->edition[0])->count);
	unsigned long turn = this_cpu_inc_return(adapt_turns.latency);
	unsigned int i, favourite, best;
	u32 dwell, median;

	favourite = best = index_of(set, READ_ONCE(newest->favourite));
	if (turn % ADAPT_EXPLORE == 0)
		return turn / ADAPT_EXPLORE % set->live;
	dwell = this_cpu_inc_return(adapt_of(set->edition[0])->count->dwell);
	if (likely(dwell < ADAPT_DWELL))
		return favourite;
	for (i = 0; i < set->live; i++) {
		median = median_of(set, i);
		if (median && median < median_of(set, best))
			best = i;
	}
	if (best == favourite || median_of(set, best) >= median_of(set, favourite) / 2)
		return favourite;
	/* Of two who change it at once, on a task and in an interrupt, one does. */
	if (this_cpu_cmpxchg(adapt_of(set->edition[0])->count->dwell, dwell, 0) != dwell)
		return favourite;
	WRITE_ONCE(newest->favourite, set->edition[best]->version);
	this_cpu_inc(adapt_turns.switches);
	return best;
}

/* A call of this edition took so long. A running median: single calls that were interrupted do not move it far. */
static __always_inline void measured(const struct hs_ref *ref, u64 ns)
{
	struct adapt_count *count = this_cpu_ptr(adapt_of(ref)->count);
	u32 median = READ_ONCE(count->median_ns), step = median / 32 + 1;

	if (!count->samples)
		median = min_t(u64, ns, U32_MAX / 2);
	else if (ns > median)
		median += step;
	else if (median > step)
		median -= step;
	WRITE_ONCE(count->median_ns, median);
	WRITE_ONCE(count->samples, count->samples + 1);
}

/* A macro where a mutant may put another: which edition a task's calls get; interrupts have no task of their own. */
#ifndef HS_ADAPT_TASK
#define HS_ADAPT_TASK(set) (in_task() ? current->pid % (set)->live : 0)
#endif

/* Which edition answers. Context: any, preemption off. Return: its index in the set. */
static __always_inline unsigned int decide(const struct adapt_set *set)
{
	if (set->live == 1)
		return 0;
	switch (set->policy) {
	case ADAPT_PERCENT:
		return by_percentage(set);
	case ADAPT_TASK:
		return HS_ADAPT_TASK(set);
	case ADAPT_CPU:
		return smp_processor_id() % set->live;
	case ADAPT_LATENCY:
		return by_latency(set);
	default:
		return 0;
	}
}

/* Whom a task or CPU met last, and in which set: generation, task or CPU, version, in one word. */
static u64 adapt_seen[256];

static __always_inline bool met_another(const struct adapt_set *set, u32 whose, u32 version)
{
	u64 *seen = &adapt_seen[(whose ^ set->generation) % ARRAY_SIZE(adapt_seen)];
	u64 mine = (u64)set->generation << 44 | (u64)(whose & GENMASK(21, 0)) << 22;
	u64 before = READ_ONCE(*seen);

	version &= GENMASK(21, 0);
	WRITE_ONCE(*seen, mine | version);
	return (before & ~(u64)GENMASK(21, 0)) == mine && (before & GENMASK(21, 0)) != version;
}

/* The witness: this edition is about to answer. Context: any, preemption off. */
static __always_inline void witness(const struct adapt_set *set, const struct hs_ref *ref)
{
	bool newest = ref == set->edition[0], astray = false;

	switch (set->policy) {
	case ADAPT_ALL_NEW:
		astray = !newest;
		break;
	case ADAPT_PERCENT:
		if (newest && set->live > 1)
			this_cpu_inc(adapt_turns.newest);
		break;
	case ADAPT_TASK:
		astray = ref != set->edition[in_task() ? current->pid % set->live : 0];
		if (in_task())
			astray |= met_another(set, current->pid, ref->version);
		break;
	case ADAPT_CPU:
		astray = ref != set->edition[smp_processor_id() % set->live];
		astray |= met_another(set, smp_processor_id(), ref->version);
		break;
	default:
		break;
	}
	if (astray)
		this_cpu_inc(adapt_turns.astray);
}

#endif /* HS_ADAPTIVE_CHOOSE_H */
