// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: stale_edition.
 *
 * Purpose: for 20 ms after a new edition is published every other look-up still finds the old one. Nothing is unloaded
 * too early, every result is right for its edition, but callers see an older edition after a newer one. Oracle 2 must
 * notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include "../core/core.h"

static struct hs_ref *old_ref;
static DEFINE_PER_CPU(unsigned int, looks);

static __always_inline struct hs_ref *every_other(struct hs_slot *slot)
{
	struct hs_ref *old = READ_ONCE(old_ref);

	return old && this_cpu_inc_return(looks) % 2 ? old : hs_slot_newest(slot);
}

static inline void replace(struct hs_slot *slot, struct hs_ref *new)
{
	WRITE_ONCE(old_ref, slot->ref);
	hs_slot_set(slot, new);
}

/* The window closes before the grace period that nobody may enter after. */
static void late_grace_period(void)
{
	if (old_ref)
		msleep(20);
	WRITE_ONCE(old_ref, NULL);
	synchronize_rcu_expedited();
}

#define hs_slot_newest(slot) every_other(slot)
#define hs_slot_set(slot, ref) replace(slot, ref)
#define synchronize_rcu_expedited() late_grace_period()
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
