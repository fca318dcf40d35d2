// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mechanism: adaptive, editions side by side.
 *
 * Purpose: several editions of a function live at once, and an adaptation handler chooses for each call which of them
 * answers. The function is redirected where it begins, so it need not have been written to be swapped. The idea is
 * "Dynamic and Adaptive Updates of Non-Quiescent Subsystems in Commodity Operating System Kernels" (DynAMOS).
 *
 * Usage: insmod hs_core.ko mechanism=adaptive [adapt=all-new|percent|task|cpu|latency|cycle] [adapt_percent=25]
 *	  [adapt_keep=3]
 *
 * A call. Whoever calls a slot calls hs_adaptive_site(), an ordinary function that answers nobody. ftrace sends it on
 * to the handler, adaptive_call(), which looks the set of editions up, decides, takes a reference to the edition it
 * chose, and drops that when the edition has returned. `cycle` goes on to the next policy with each edition that comes.
 *
 * A round. A slot and its mate are a group, which changes as one. A round decides once, when it begins, and holds its
 * edition until it ends; its calls all go there. So who sees two functions of the group sees both old or both new, at
 * any moment, and although other callers see others.
 *
 * The swap.
 *
 *	publish:  a set with the new edition; or one without that which leaves, whose draining = true
 *		  newest->own->set = set; slot->ref = newest		(both release)
 *	drain:	  grace period 1
 *		  wait until no round holds it, then until sum(enter) == sum(exit)
 *		  grace period 2
 *		  no task's stack has its text on it
 *	release:  module_put(), counters freed
 *
 * Why it is safe. mechanisms/refcount.c (1) to (4) hold for each edition; its increments lie in the section that looked
 * the set up. What is new:
 *
 * (5) A round's calls enter after grace period 1, but only under the round's hold, and holds only fall. A hold that has
 *     ended is seen after its round's calls have: they were the same caller's, and its kick takes the queue's lock.
 * (6) A set is never freed while the mechanism is in use, so who still has an old one finds it whole. What it names is
 *     there: it was found in a section, and an edition goes a grace period after it is in no set that is found.
 * (7) Slot and mate are published one after the other, and in between two callers find two sets. Both are right: only a
 *     round makes one of two calls.
 *
 * The newest edition can be taken back, as the oldest can be retired: the one before is then the newest, and the version
 * taken back is not used again.
 */

#include <linux/module.h>
#include <linux/preempt.h>
#include "../../compat.h"
#include "../../core/hook.h"
#include "../../core/policy.h"
#include "choose.h"

static char *adapt = "cycle";
module_param(adapt, charp, 0444);
MODULE_PARM_DESC(adapt, "which edition answers a call: by all-new, percent, task, cpu, latency; or cycle");

static uint adapt_keep = 3;
module_param(adapt_keep, uint, 0444);
MODULE_PARM_DESC(adapt_keep, "how many editions stay side by side");

static struct hs_mechanism adaptive;

/* All guarded by hs_lock, but for what a drain counts. */
static LIST_HEAD(adapt_editions);
static enum adapt adapt_policy;
static bool adapt_cycles;
static unsigned int adapt_generation, adapt_at_once;
static unsigned int stack_checks, stack_found;

/* Where a mutant has another edition answer than the one that was chosen. */
#ifndef HS_ADAPT_ANSWERS
#define HS_ADAPT_ANSWERS(set, chosen) ((set)->edition[chosen])
#endif

/*
 * Choose an edition and take a reference: for a round a hold, else a call's. NULL if there is none.
 * @by: by which policy
 */
static __always_inline struct hs_ref *adaptive_get(struct hs_slot *slot, bool round, enum adapt *by)
{
	const struct adapt_set *set;
	struct hs_ref *ref;
	unsigned int chosen;

	preempt_disable_notrace();
	ref = hs_slot_newest(slot);
	if (likely(ref)) {
		HS_RACE("adaptive.lookup");
		set = smp_load_acquire(&adapt_of(ref)->set);	/* pairs with adaptive_publish() */
		chosen = decide(set);
		this_cpu_inc(adapt_of(set->edition[chosen])->count->decided[set->policy]);
		HS_RACE("adaptive.chosen");
		ref = HS_ADAPT_ANSWERS(set, chosen);
		if (round)
			this_cpu_inc(adapt_of(ref)->count->held);
		else
			hs_ref_enter(ref);
		witness(set, ref);
		*by = set->policy;
	}
	preempt_enable_notrace();
	return ref;
}

static __always_inline void kick(struct hs_ref *ref)
{
	if (unlikely(READ_ONCE(ref->draining)) && !in_nmi())
		swake_up_one(&ref->drained);
}

static notrace void adaptive_put(struct hs_ref *ref)
{
	preempt_disable_notrace();
	hs_ref_exit(ref);
	kick(ref);
	preempt_enable_notrace();
}

/* The adaptation handler: what runs in place of the site. Context: any. */
static notrace int adaptive_call(struct hs_slot *slot, struct hs_call *call)
{
	enum adapt by = ADAPT_ALL_NEW;
	struct hs_ref *ref = adaptive_get(slot, false, &by);
	u64 start;
	int err;

	if (unlikely(!ref))
		return hs_slot_empty(slot);
	if (by != ADAPT_LATENCY || call->stay_us || call->op == HS_OP_LOOKUP) {
		err = hs_ref_call(ref, slot, call);
	} else {
		start = ktime_get_mono_fast_ns();
		err = hs_ref_call(ref, slot, call);
		preempt_disable_notrace();
		measured(ref, ktime_get_mono_fast_ns() - start);
		preempt_enable_notrace();
	}
	adaptive_put(ref);
	return err;
}

/* What is called: a function that knows of no editions. Nobody stands behind it unless it is redirected. */
static noinline int hs_adaptive_site(struct hs_slot *slot, struct hs_call *call)
{
	return hs_slot_empty(slot);
}

static struct hs_hook site_hook = {
	.function = KBUILD_MODNAME ":hs_adaptive_site",	/* a mutant has its own */
	.to = adaptive_call,
};

static notrace int adaptive_begin(struct hs_round *round)
{
	enum adapt by;

	round->ref = adaptive_get(round->slot, true, &by);
	return 0;
}

static notrace void adaptive_end(struct hs_round *round)
{
	struct hs_ref *ref = round->ref;

	if (!ref)
		return;
	round->ref = NULL;
	preempt_disable_notrace();
	this_cpu_inc(adapt_of(ref)->count->let_go);
	kick(ref);
	preempt_enable_notrace();
}

/* Where a mutant has the group change half. */
#ifndef HS_ADAPT_ROUND
#define HS_ADAPT_ROUND(round, slot) ((round)->ref)
#endif

static notrace int adaptive_join(struct hs_round *round, struct hs_slot *slot, struct hs_call *call)
{
	struct hs_ref *ref = HS_ADAPT_ROUND(round, slot);
	int err;

	if (unlikely(!ref))
		return hs_slot_empty(slot);
	preempt_disable_notrace();
	this_cpu_inc(adapt_of(ref)->count->joined);
	hs_ref_enter(ref);
	preempt_enable_notrace();
	err = hs_ref_call(ref, slot, call);
	adaptive_put(ref);
	return err;
}

static void sum_counts(const struct adapt_edition *edition, struct adapt_count *sum)
{
	const struct adapt_count *count;
	int cpu, i;

	*sum = edition->total;
	if (!edition->count)
		return;
	for_each_possible_cpu(cpu) {
		count = per_cpu_ptr(edition->count, cpu);
		for (i = 0; i < ADAPT_NR; i++)
			sum->decided[i] += READ_ONCE(count->decided[i]);
		sum->let_go += READ_ONCE(count->let_go);
		sum->joined += READ_ONCE(count->joined);
	}
	smp_rmb(); /* what ends before what begins; see hs_ref_sum() */
	for_each_possible_cpu(cpu)
		sum->held += READ_ONCE(per_cpu_ptr(edition->count, cpu)->held);
}

/* Rounds and calls that have it; see (5). */
static bool is_held(const struct hs_ref *ref)
{
	struct adapt_count sum;

	sum_counts(adapt_of(ref), &sum);
	if (sum.held != sum.let_go)
		return true;
	smp_rmb(); /* no hold, then no call */
	return hs_ref_outstanding(ref);
}

/* Editions of a slot are a group's or they are not; the module stays until the record is released. */
static int adaptive_admit(const struct hs_slot *slot, const struct hs_edition *edition)
{
	if (slot->ref && !slot->ref->call[1] != !edition->mate_call)
		return -EPROTOTYPE;
	return hs_policy_check(slot, edition);
}

static int adaptive_adopt(struct hs_slot *slot, struct hs_ref *ref)
{
	struct adapt_edition *edition = hs_zalloc(sizeof(*edition));

	if (!edition)
		return -ENOMEM;
	edition->count = hs_alloc_percpu(sizeof(*edition->count));
	if (!edition->count || !try_module_get(ref->edition->owner)) {
		hs_free_percpu(edition->count);
		hs_free(edition);
		return -ENODEV;
	}
	edition->version = ref->version;
	strscpy(edition->slot, slot->name, sizeof(edition->slot));
	list_add_tail(&edition->node, &adapt_editions);
	ref->own = edition;
	return 0;
}

static void adaptive_release(struct hs_slot *slot, struct hs_ref *ref)
{
	struct adapt_edition *edition = adapt_of(ref);
	struct adapt_count sum;

	sum_counts(edition, &sum);
	hs_free_percpu(edition->count);
	edition->count = NULL;
	edition->total = sum;
	module_put(ref->edition->owner);
}

static void fill_set(struct adapt_set *set, struct hs_slot *slot, const struct hs_ref *old)
{
	struct hs_ref *ref;

	list_for_each_entry_reverse(ref, &slot->refs, node)
		if (ref->state == HS_LIVE && ref != old && set->live < ADAPT_MAX)
			set->edition[set->live++] = ref;
	set->generation = ++adapt_generation;
	set->policy = adapt_policy;
	adapt_at_once = max(adapt_at_once, set->live);
}

static int adaptive_publish(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	struct adapt_set *set = old ? &adapt_of(old)->leaving : &adapt_of(new)->joining;

	if (!old && adapt_cycles)
		adapt_policy = (adapt_policy + 1) % ADAPT_NR;
	if (old)
		WRITE_ONCE(old->draining, true);
	if (new) {
		fill_set(set, slot, old);
		smp_store_release(&adapt_of(new)->set, set);	/* pairs with adaptive_get() */
	}
	HS_RACE("adaptive.filled");
	hs_slot_set(slot, new);
	HS_RACE("adaptive.published");
	return 0;
}

/* The references say that nobody is left; the stacks must not say otherwise. */
static int ask_stacks(const struct hs_ref *old, unsigned int timeout_ms)
{
	struct hs_stack_range text;
	const void *base;
	unsigned int size;
	int found;

	hs_module_text(old->edition->owner, &base, &size);
	text.base = (unsigned long)base;
	text.size = size;
	stack_checks++;
	found = hs_stack_wait(&text, timeout_ms);
	stack_found += found != 0;
	return min(found, 0);
}

static int adaptive_drain(struct hs_slot *slot, struct hs_ref *old, unsigned int timeout_ms, struct hs_drained *figures)
{
	long left;

	synchronize_rcu_expedited();	/* grace period 1: nobody finds it any more */
	left = swait_event_interruptible_timeout_exclusive(old->drained, !is_held(old), msecs_to_jiffies(timeout_ms));
	if (!left)
		return -ETIMEDOUT;
	if (left < 0)
		return -EINTR;
	HS_RACE("adaptive.drained");
	synchronize_rcu_expedited();	/* grace period 2: nobody looks at the record */
	figures->gone_ns = ktime_get_ns();
	return ask_stacks(old, timeout_ms);
}

/* One array of numbers by CPU. */
#define show_turns(seq, field) do {							\
	int cpu_;									\
											\
	seq_puts(seq, ",\"" #field "\":[");						\
	for_each_possible_cpu(cpu_)							\
		seq_printf(seq, "%s%lu", cpu_ ? "," : "", READ_ONCE(per_cpu(adapt_turns, cpu_).field));	\
	seq_puts(seq, "]");								\
} while (0)

static void adaptive_show(struct seq_file *seq)
{
	struct adapt_edition *edition;
	const char *separator = "";
	struct adapt_count sum;
	int i;

	seq_printf(seq, "\"adaptive\":{\"policy\":\"%s\",\"keep\":%u,\"at_once\":%u,\"dwell_calls\":%u,\"share\":%u",
		   adapt, adaptive.keep, adapt_at_once, ADAPT_DWELL, adapt_percent);
	show_turns(seq, percent);
	show_turns(seq, newest);
	show_turns(seq, latency);
	show_turns(seq, switches);
	show_turns(seq, astray);
	seq_printf(seq, ",\"stack_checks\":%u,\"stack_found\":%u,\"editions\":[", stack_checks, stack_found);
	list_for_each_entry(edition, &adapt_editions, node) {
		sum_counts(edition, &sum);
		seq_printf(seq, "%s{\"slot\":\"%s\",\"version\":%u,\"decided\":{", separator, edition->slot,
			   edition->version);
		for (i = 0; i < ADAPT_NR; i++)
			seq_printf(seq, "%s\"%s\":%lu", i ? "," : "", adapt_names[i], sum.decided[i]);
		seq_printf(seq, "},\"rounds\":%lu,\"open\":%ld,\"joined\":%lu}", sum.held,
			   (long)(sum.held - sum.let_go), sum.joined);
		separator = ",";
	}
	seq_puts(seq, "]}");
}

static int adaptive_init(void)
{
	int policy = match_string(adapt_names, ADAPT_NR, adapt);

	adapt_cycles = !strcmp(adapt, "cycle");
	/* There must be room for one more while a swap goes on. */
	if ((policy < 0 && !adapt_cycles) || adapt_percent > 100 || !adapt_keep || adapt_keep >= ADAPT_MAX)
		return -EINVAL;
	adapt_policy = adapt_cycles ? ADAPT_ALL_NEW : policy;
	adaptive.keep = adapt_keep;
	return hs_hook_install(&site_hook);
}

static void adaptive_exit(void)
{
	struct adapt_edition *edition, *next;

	hs_hook_remove(&site_hook);
	list_for_each_entry_safe(edition, next, &adapt_editions, node) {
		list_del(&edition->node);
		hs_free(edition);
	}
}

static struct hs_mechanism adaptive = {
	.name = "adaptive",
	.owner = THIS_MODULE,
	.order = HS_SIDE_BY_SIDE,
	.init = adaptive_init,
	.exit = adaptive_exit,
	.call = hs_adaptive_site,
	.begin = adaptive_begin,
	.end = adaptive_end,
	.join = adaptive_join,
	.admit = adaptive_admit,
	.adopt = adaptive_adopt,
	.publish = adaptive_publish,
	.drain = adaptive_drain,
	.release = adaptive_release,
	.show = adaptive_show,
};
