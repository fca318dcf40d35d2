// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mechanism: invalidate, isolation by error injection.
 *
 * Purpose: swap an edition without waiting for the calls in it. They are cut off, retried through the module table, and
 * complete on the new edition; the old edition's text is made non-executable, and a call through a hard-coded address
 * proves that nothing can run there. The idea is US 8,689,206, "Isolating operating system in-memory modules using error
 * injection".
 *
 * Usage: insmod hs_core.ko mechanism=invalidate [invalidate_unmap=1]
 *
 * The swap, with the patent's operations and claims.
 *
 *	admit:	  versions compared, an older one refused (operation 240, claim 12); similarity: interface and layout
 *		  equal (claim 11)
 *	publish:  the new edition lies at an address unused before; the module table names it (claim 3)
 *	drain:	  revoke: who sleeps in the old edition wakes, who is about to commit is told to start again
 *		  wait for the calls that have committed: a few instructions each
 *		  cut: text non-executable or not present (claims 7, 14 to 16), flushed on every CPU
 *		  from here on nobody executes the old edition: its calls fault as they come back to it, and each is
 *		  retried through the module table, or by its caller's recovery routine
 *		  probe the old address from a task and from a hard interrupt on every CPU: each probe must fault
 *		  wait until the last cut-off call has let go (the reference count is reset)
 *		  mend the text: module_exit() lies in it
 *	release:  the module may be unloaded
 *
 * What may be cut off is the edition's to say (enum hs_restart): one that says nothing is drained first, as refcount
 * does it, and only then cut. A call that sleeps somewhere else than in hs_sleep() faults when it wakes; it is named in
 * the kernel log.
 */

#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/smp.h>
#include <linux/swait.h>
#include "../../compat.h"
#include "../../core/policy.h"
#include "guard.h"

static bool invalidate_unmap;
module_param(invalidate_unmap, bool, 0444);
MODULE_PARM_DESC(invalidate_unmap, "make old text not present rather than non-executable");

/* Calls through the old address from the swapper's task. */
#define HS_PROBES	4

/* Asleep longer than this after the cut: a sleeper that nobody can wake is reported. */
#define HS_REPORT_MS	100

#include "guard.c"
#ifdef CONFIG_ARM64
#include "text_arm64.h"
#else
#include "text_x86.h"
#endif
#include "fault.c"

/* The isolation proof: calls through the old address, how many faulted and how many ran. */
static atomic_t probes, probes_escaped;
static atomic_t sleepers_reported;

static notrace struct hs_ref *invalidate_get(struct hs_slot *slot)
{
	struct hs_ref *ref;

	preempt_disable_notrace();
	ref = hs_slot_newest(slot);
	if (likely(ref)) {
		HS_RACE("invalidate.lookup");
		hs_ref_enter(ref);
	}
	preempt_enable_notrace();
	return ref;
}

/* How a reference ends. */
enum ending { COMPLETED, CUT_OFF, REFUSED };

/* The counter is raised and the waiter kicked in one section; see mechanisms/refcount.c (2). */
static notrace void end_reference(struct hs_ref *ref, enum ending how)
{
	preempt_disable_notrace();
	if (how == COMPLETED)
		hs_ref_exit(ref);
	else if (how == CUT_OFF)
		hs_ref_aborted(ref);
	else
		this_cpu_inc(ref->count->failed);
	if (unlikely(READ_ONCE(ref->draining)) && !in_nmi())
		swake_up_one(&ref->drained);
	preempt_enable_notrace();
}

#ifndef HS_MAY_RETRY
#define HS_MAY_RETRY true
#endif

/* Context: any but NMI, where a fault could not be told from the one it interrupts. */
static notrace int invalidate_call(struct hs_slot *slot, struct hs_call *call)
{
	enum hs_restart restart;
	struct hs_guard guard = { };
	struct hs_ref *ref;
	int err;

	if (in_nmi())
		return hs_slot_empty(slot);
	for (;;) {
		ref = invalidate_get(slot);
		if (unlikely(!ref))
			return hs_slot_empty(slot);
		if (call->op == HS_OP_LOOKUP) {
			err = hs_ref_look(ref, call);
			end_reference(ref, COMPLETED);
			return err;
		}
		call->version = ref->version;
		call->identity = ref->identity;
		restart = ref->restart;
		err = guarded_call(&guard, ref, slot->entry, call);
		if (likely(err != HS_AGAIN && err != -EUSERS)) {
			if (restart == HS_COMMIT && !err)
				this_cpu_inc(ref->count->settled);
			end_reference(ref, COMPLETED);
			return err;
		}
		end_reference(ref, err == HS_AGAIN ? CUT_OFF : REFUSED);
		if (err != HS_AGAIN || !HS_MAY_RETRY)
			return err == HS_AGAIN ? -EAGAIN : err;
		if (restart == HS_PERCOLATE)
			return -ERESTART;
		call->retried++;
		HS_RACE("invalidate.retry");
	}
}

static void invalidate_release(struct hs_slot *slot, struct hs_ref *ref)
{
	module_put(ref->edition->owner);
	hs_free(ref->own);
	ref->own = NULL;
}

/* The edition's function must lie in its module's text, or cutting that would cut off nothing. */
static int invalidate_adopt(struct hs_slot *slot, struct hs_ref *ref)
{
	unsigned long call = (unsigned long)ref->call[0], mate = (unsigned long)ref->call[1];
	struct hs_text *text = hs_zalloc(sizeof(*text));
	unsigned int size;
	const void *base;
	int err;

	if (!text)
		return -ENOMEM;
	hs_module_text(ref->edition->owner, &base, &size);
	text->base = (unsigned long)base;
	text->pages = DIV_ROUND_UP(size, PAGE_SIZE);
	err = -EFAULT;
	if (call - text->base >= size || (mate && mate - text->base >= size) || !PAGE_ALIGNED(base))
		goto free;
	err = text_prepare(text);
	if (err)
		goto free;
	err = -ENODEV;
	if (!try_module_get(ref->edition->owner))
		goto free;
	ref->own = text;
	return 0;

free:
	hs_free(text);
	return err;
}

static int invalidate_publish(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	if (old)
		WRITE_ONCE(old->draining, true);
	hs_slot_set(slot, new);
	HS_RACE("invalidate.published");
	return 0;
}

/* Wait until every reference is dropped. Return: 0, -ETIMEDOUT, -EINTR. */
static int wait_for_references(struct hs_ref *old, unsigned int timeout_ms)
{
	long left;

	synchronize_rcu_expedited();	/* nobody can enter any more; see mechanisms/refcount.c (1) */
	left = swait_event_interruptible_timeout_exclusive(old->drained, !hs_ref_outstanding(old),
							   msecs_to_jiffies(timeout_ms));
	if (left < 0)
		return -EINTR;
	return left ? 0 : -ETIMEDOUT;
}

/* Calls that committed before the edition was revoked and have not left its text: no call joins them any more. */
static unsigned long committed_calls(const struct hs_ref *old)
{
	unsigned long settled = 0, committed = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		settled += READ_ONCE(per_cpu_ptr(old->count, cpu)->settled);
	smp_rmb(); /* what has settled before what has committed: the difference is never too small */
	for_each_possible_cpu(cpu)
		committed += READ_ONCE(per_cpu_ptr(old->count, cpu)->committed);
	return committed - settled;
}

/* Return: 0 or -ETIMEDOUT. */
static int __maybe_unused wait_for_commits(const struct hs_ref *old, unsigned int timeout_ms)
{
	const unsigned long until = jiffies + msecs_to_jiffies(timeout_ms);

	while (committed_calls(old)) {
		if (time_after(jiffies, until))
			return -ETIMEDOUT;
		usleep_range(20, 50);
	}
	return 0;
}

/* One call through the hard-coded address. Context: any but NMI. */
static notrace void probe_old(void *old)
{
	struct hs_guard guard = { .probe = true };
	struct hs_call call = { };

	atomic_inc(&probes);
	if (guarded_call(&guard, old, 0, &call) != HS_AGAIN)
		atomic_inc(&probes_escaped);
}

/*
 * From this task, and from a hard interrupt on every CPU. Return: ns that a contained fault takes, from the call to the
 * landing: the shortest of a few, for others meet cold caches, which under emulation means code not yet translated.
 */
static u64 prove_isolation(struct hs_ref *old)
{
	u64 start, best = U64_MAX;
	int i;

	for (i = 0; i < HS_PROBES; i++) {
		start = ktime_get_ns();
		probe_old(old);
		best = min(best, ktime_get_ns() - start);
	}
	on_each_cpu(probe_old, old, 1);
	return best;
}

#ifndef HS_WAIT_FOR_COMMITS
#define HS_WAIT_FOR_COMMITS wait_for_commits
#endif

static void report_sleepers(const struct hs_ref *old)
{
	struct task_struct *task;
	struct hs_guarded *at;
	int i;

	rcu_read_lock();	/* a task that is seen in the table is freed a grace period after it left */
	for (i = 0; i < ARRAY_SIZE(guarded) * WAYS; i++) {
		at = &guarded[i / WAYS][i % WAYS];
		task = READ_ONCE(at->task);
		if (!task || READ_ONCE(at->ref) != old)
			continue;
		atomic_inc(&sleepers_reported);
		pr_info("%s: %s[%d] has not come back; it is cut off when it does\n", old->name, task->comm, task->pid);
	}
	rcu_read_unlock();
}

#ifndef HS_CUT
#define HS_CUT(old) text_cut((old)->own)
#endif

/* Cut the old edition's calls off. Return: 0 or -errno; afterwards nobody executes its text. */
static int cut_off(struct hs_ref *old, unsigned int timeout_ms, struct hs_drained *figures)
{
	struct hs_text *text = old->own;
	u64 start;
	int err;

	/* Its module_init() may still be on its way back through it. */
	if (READ_ONCE(old->edition->owner->state) != MODULE_STATE_LIVE)
		return -EBUSY;
	hs_ref_revoke(old);
	err = HS_WAIT_FOR_COMMITS(old, timeout_ms);
	/* A module loaded since its registration may have joined its pages with others. */
	err = err ?: text_prepare(text);
	if (err)
		return err;
	WRITE_ONCE(text->cut, true);
	smp_mb();	/* a fault on another CPU finds it set */
	start = ktime_get_ns();
	err = HS_CUT(old);
	figures->flush_ns = ktime_get_ns() - start;
	text->done = !err;
	HS_RACE("invalidate.cut");
	return err;
}

/* May be called again after an error: what is cut stays cut. */
static int invalidate_drain(struct hs_slot *slot, struct hs_ref *old, unsigned int timeout_ms,
			    struct hs_drained *figures)
{
	struct hs_text *text = old->own;
	int err = 0;

	if (old->restart == HS_DRAIN)
		err = wait_for_references(old, timeout_ms);
	if (!err && !text->done)
		err = cut_off(old, timeout_ms, figures);
	if (err)
		return err;
	figures->gone_ns = ktime_get_ns();
	figures->fault_ns = prove_isolation(old);
	err = wait_for_references(old, min_t(unsigned int, timeout_ms, HS_REPORT_MS));
	if (err == -ETIMEDOUT) {
		report_sleepers(old);
		err = wait_for_references(old, timeout_ms);
	}
	if (err)
		return err;
	synchronize_rcu_expedited();	/* nobody looks at the record; see mechanisms/refcount.c (4) */
	err = text_mend(text);
	if (err)
		return err;
	WRITE_ONCE(text->cut, false);
	text->done = false;
	return 0;
}

static void invalidate_show(struct seq_file *seq)
{
	seq_printf(seq, "\"invalidate\":{\"by\":\"%s\",\"faults\":%lu,\"probes\":%d,\"contained\":%lu,\"escaped\":%d,"
		   "\"misrestored\":%d,\"sleepers\":%d}",
		   by_nx() ? "nx" : "unmap", sum_faults(&fault_aborts), atomic_read(&probes),
		   sum_faults(&fault_probes), atomic_read(&probes_escaped), atomic_read(&misrestored),
		   atomic_read(&sleepers_reported));
}

static int invalidate_init(void)
{
	int err;

	err = text_init();
	if (err)
		return err;
	err = fault_init();
	if (err)
		text_exit();
	return err;
}

static void invalidate_exit(void)
{
	fault_exit();
	text_exit();
}

static struct hs_mechanism invalidate = {
	.name = "invalidate",
	.owner = THIS_MODULE,
	.order = HS_NEW_FIRST,
	.init = invalidate_init,
	.exit = invalidate_exit,
	.call = invalidate_call,
	.admit = hs_policy_check,
	.adopt = invalidate_adopt,
	.publish = invalidate_publish,
	.drain = invalidate_drain,
	.release = invalidate_release,
	.show = invalidate_show,
};
