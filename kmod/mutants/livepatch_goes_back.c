// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: livepatch_goes_back.
 *
 * Purpose: as long as a transition lasts, every other call that does not sleep goes to the old edition, past
 * livepatch. Nothing is unloaded too early and every result is right, but tasks that were moved find the old edition
 * again. Oracle 2 (no caller sees an older edition after a newer one) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static struct hs_ref *old_ref;
static DEFINE_PER_CPU(unsigned int, looks);

static inline void replace(struct hs_slot *slot, struct hs_ref *new)
{
	WRITE_ONCE(old_ref, new ? slot->ref : NULL);
	hs_slot_set(slot, new);
}

/* The transition is over: so is this, before the old edition goes. */
static inline long close_window(struct hs_ref *old)
{
	WRITE_ONCE(old_ref, NULL);
	synchronize_rcu_expedited();
	return hs_ref_outstanding(old);
}

static int call_either(struct hs_slot *slot, struct hs_call *call);

#define hs_slot_set(slot, new) replace(slot, new)
#define hs_ref_outstanding(ref) close_window(ref)
#define HS_LIVEPATCH_CALL call_either
#include "../peers/livepatch.c"
#include "mechanism.h"

/* By pointer: the compiler must not think that it knows what a function does that is going to be patched. */
static int (*site)(struct hs_slot *slot, struct hs_call *call) = hs_livepatch_site;

static int call_either(struct hs_slot *slot, struct hs_call *call)
{
	struct hs_ref *old;
	int err;

	preempt_disable_notrace();
	old = READ_ONCE(old_ref);
	if (old && !call->stay_us && this_cpu_inc_return(looks) % 2) {
		err = old->edition->site(slot, call);
		preempt_enable_notrace();
		return err;
	}
	preempt_enable_notrace();
	return READ_ONCE(site)(slot, call);
}

HS_MUTANT_OF(livepatch);
