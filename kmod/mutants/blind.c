// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: blind.
 *
 * Purpose: every 100th look-up finds nobody, and the call fails as it would in a gap. Every count still adds up, but
 * refcount promises that no call fails: oracle 7 (what the mechanism promises) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static __always_inline struct hs_ref *newest_or_nobody(struct hs_slot *slot)
{
	static atomic_t lookups;

	return atomic_inc_return(&lookups) % 100 ? hs_slot_newest(slot) : NULL;
}

#define hs_slot_newest(slot) newest_or_nobody(slot)
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
