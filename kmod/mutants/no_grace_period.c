// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: no_grace_period.
 *
 * Purpose: the swapper does not wait for callers that have looked the old edition up and not yet counted themselves;
 * the race point between the two always takes 3 ms. The old edition then has no references, its record is folded, and
 * the caller runs what is no longer there. The kernel must crash, and oracle 5 (no splat) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include "../core/core.h"

static __always_inline void slow_point(const char *point)
{
	if (!strcmp(point, "refcount.lookup"))
		mdelay(3); /* longer than the swapper needs from publish to the end of its drain */
}

#undef HS_RACE
#define HS_RACE(point) slow_point(point)
#define synchronize_rcu_expedited() do { } while (0)
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
