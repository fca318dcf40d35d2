// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: what an edition may do about being replaced while it runs.
 *
 * Purpose: sleep so that it can be woken, and say from which point on a call must not be made again. Editions are
 * written against these whatever the mechanism; only one that cuts calls off ever revokes an edition.
 */

#include <linux/hrtimer.h>
#include <linux/sched.h>
#include <linux/swait.h>
#include "core.h"

/* Calls that editions made of their own slot, from inside a call. */
static DEFINE_PER_CPU(struct {
	unsigned long issued;	/* such calls */
	unsigned long again;	/* how often they were cut off and made again */
}, nested);

/**
 * hs_commit - from here on the call must not be made again
 * @self: the edition, declared HS_COMMIT
 *
 * The calls that this lets pass are waited for when the edition is replaced, so their work is done once. It pairs with
 * hs_ref_revoke(): either the swapper sees this call committed, or the call sees the edition revoked.
 *
 * Context: any. Return: true, then the call goes on and returns 0; or false, then it returns at once and is made again.
 */
notrace bool hs_commit(const struct hs_edition *self)
{
	struct hs_ref *ref = self->ref;
	bool granted;

	if (ref->restart != HS_COMMIT)
		return true;	/* it is never cut off, or at any instruction: nobody asks how often it did its work */
	preempt_disable_notrace();
	this_cpu_inc(ref->count->committed);
	smp_mb();	/* see hs_ref_revoke() */
	granted = !READ_ONCE(ref->revoked);
	if (unlikely(!granted))
		this_cpu_dec(ref->count->committed);
	preempt_enable_notrace();
	if (granted)
		HS_RACE("restart.committed");
	return granted;
}
EXPORT_SYMBOL_GPL(hs_commit);

/**
 * hs_sleep - sleep inside an edition, until time is up or the edition is replaced
 * @self: the edition
 * @us: microseconds
 *
 * Context: process.
 */
void hs_sleep(const struct hs_edition *self, u32 us)
{
	struct hs_ref *ref = self->ref;
	ktime_t until = ktime_add_us(ktime_get(), us);
	DECLARE_SWAITQUEUE(wait);

	for (;;) {
		prepare_to_swait_exclusive(&ref->asleep, &wait, TASK_UNINTERRUPTIBLE);
		if (READ_ONCE(ref->revoked))
			break;
		if (!schedule_hrtimeout_range(&until, (u64)us * NSEC_PER_USEC / 8, HRTIMER_MODE_ABS))
			break;
	}
	finish_swait(&ref->asleep, &wait);
}
EXPORT_SYMBOL_GPL(hs_sleep);

/**
 * hs_nest - call the edition's own slot from inside a call
 * @self: the edition
 * @call: the second call
 *
 * Context: as the first call. Return: what the slot's newest edition answers.
 */
notrace int hs_nest(const struct hs_edition *self, struct hs_call *call)
{
	struct hs_slot *slot = self->ref->slot;
	int err;

	this_cpu_inc(nested.issued);
	if (slot->mechanism->nest)
		return slot->mechanism->nest(self->ref, slot, call);
	err = hs_dispatch_recovering(slot, call);
	this_cpu_add(nested.again, call->retried + call->recovered);
	return err;
}
EXPORT_SYMBOL_GPL(hs_nest);

void hs_nested_show(struct seq_file *seq)
{
	unsigned long issued = 0, again = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		issued += READ_ONCE(per_cpu(nested.issued, cpu));
		again += READ_ONCE(per_cpu(nested.again, cpu));
	}
	seq_printf(seq, "\"nested\":{\"issued\":%lu,\"again\":%lu}", issued, again);
}

/* The edition is to be left: nobody commits or falls asleep in it any more, and who sleeps wakes. Context: process. */
void hs_ref_revoke(struct hs_ref *ref)
{
	WRITE_ONCE(ref->revoked, true);
	smp_mb();	/* see hs_commit(); the queue's lock orders it for sleepers */
	swake_up_all(&ref->asleep);
}
