// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mechanism: refcount, the reference manager.
 *
 * Purpose: swap an edition without first taking it out of the kernel. Each edition has a counter of its own; a new
 * reference goes to the newest edition, an old one ends on the edition where it began, and an edition is unloaded when
 * its count is zero. The idea is "Dynamic update of pluggable modules using a reference manager", [0009]-[0022].
 *
 * Usage: insmod hs_core.ko mechanism=refcount
 *
 * The fast path. A reference is the sequence of instructions that serves a system call, an exception or an interrupt,
 * so taking one must work in any context and cost little. Each CPU has two counters per edition, enter and exit, both of
 * which only rise. Look-up and enter happen in one section with preemption off; so do exit and the test of `draining`.
 * this_cpu_inc() is one instruction on x86 and an atomic on arm64, so an interrupt between its load and its store can
 * not lose a count; a plain load-add-store could, since the interrupt's own enter does not come down again.
 *
 * The swap.
 *
 *	publish:  old->draining = true
 *		  slot->ref = new			(release)
 *	drain:	  grace period 1
 *		  wait until sum(enter) == sum(exit)
 *		  grace period 2
 *	release:  module_put(), counters freed
 *
 * Why it is safe. A section with preemption off is an RCU reader, and so is every interrupt handler.
 *
 * (1) After grace period 1 nobody can enter any more. Who looked the old edition up did so before publish, in a section
 *     that has ended since, and that section also holds the increment. So sum(enter) is fixed and seen by the waiter,
 *     and every reference taken in a hard or soft interrupt is over, for it lay inside such a section as a whole. (On
 *     PREEMPT_RT soft interrupts are tasks; they count as sleepers.) What is left are tasks asleep in the edition.
 * (2) No wake-up is lost. An exit section either sees draining == true and kicks the waiter after its increment; or it
 *     does not, then it began before grace period 1 and its increment was visible before the first test. A kick takes
 *     the wait queue's lock, so it comes either before the waiter queues itself, whose test then sees the increment, or
 *     after, and wakes it.
 * (3) The sum can not be zero by accident. sum(enter) is fixed and exits only rise towards it, whichever CPU the task
 *     was on when it entered and whichever when it left.
 * (4) After grace period 2 nobody touches the record. The task whose exit made the sum zero may still stand between its
 *     increment and the end of its section, about to read `draining` or to kick; and on weakly ordered CPUs the
 *     edition's last loads and stores may become visible after the increment, which is not a release. The grace period
 *     waits for the one and orders the other.
 *
 * What it does not survive: a task that never returns from the edition (the drain times out and can be repeated; the
 * slot works on with the new edition), and a task killed inside without unwinding its stack (an oops): its count stays.
 */

#include <linux/module.h>
#include <linux/preempt.h>
#include "../core/core.h"
#include "../core/policy.h"

/* Take a reference to the newest edition; NULL if there is none. */
static notrace struct hs_ref *refcount_get(struct hs_slot *slot)
{
	struct hs_ref *ref;

	preempt_disable_notrace();
	ref = hs_slot_newest(slot);
	if (likely(ref)) {
		HS_RACE("refcount.lookup");
		hs_ref_enter(ref);
	}
	preempt_enable_notrace();
	return ref;
}

/* Drop it. The swapper is kicked only during a drain; an NMI is never the last reference (see (1)) and may not kick. */
static notrace void refcount_put(struct hs_ref *ref)
{
	preempt_disable_notrace();
	HS_RACE("refcount.return");
	hs_ref_exit(ref);
	HS_RACE("refcount.kick");
	/* The increment and this read are ordered for the waiter by grace period 1; see (2). */
	if (unlikely(READ_ONCE(ref->draining)) && !in_nmi())
		swake_up_one(&ref->drained);
	preempt_enable_notrace();
}

/* Outside the edition's text, so that the count covers its last instruction. */
static notrace int refcount_call(struct hs_slot *slot, struct hs_call *call)
{
	struct hs_ref *ref = refcount_get(slot);
	int err;

	if (unlikely(!ref))
		return hs_slot_empty(slot);
	err = hs_ref_call(ref, slot, call);
	refcount_put(ref);
	return err;
}

/* The module stays in place until the record is released. */
static int refcount_adopt(struct hs_slot *slot, struct hs_ref *ref)
{
	return try_module_get(ref->edition->owner) ? 0 : -ENODEV;
}

static void refcount_release(struct hs_slot *slot, struct hs_ref *ref)
{
	module_put(ref->edition->owner);
}

static int refcount_publish(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	if (old)
		WRITE_ONCE(old->draining, true);
	hs_slot_set(slot, new);
	HS_RACE("refcount.published");
	return 0;
}

static int refcount_drain(struct hs_slot *slot, struct hs_ref *old, unsigned int timeout_ms,
			  struct hs_drained *figures)
{
	long left;

	synchronize_rcu_expedited();	/* grace period 1: no more entries */
	left = swait_event_interruptible_timeout_exclusive(old->drained, !hs_ref_outstanding(old),
							   msecs_to_jiffies(timeout_ms));
	if (!left)
		return -ETIMEDOUT;
	if (left < 0)
		return -EINTR;
	HS_RACE("refcount.drained");
	synchronize_rcu_expedited();	/* grace period 2: nobody looks at the record */
	return 0;
}

static struct hs_mechanism refcount = {
	.name = "refcount",
	.owner = THIS_MODULE,
	.order = HS_NEW_FIRST,
	.call = refcount_call,
	.admit = hs_policy_check,
	.adopt = refcount_adopt,
	.publish = refcount_publish,
	.drain = refcount_drain,
	.release = refcount_release,
};
