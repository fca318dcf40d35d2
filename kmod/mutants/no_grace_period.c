// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: no_grace_period.
 *
 * Purpose: the swapper does not wait for callers that have looked the old edition up and not yet counted themselves.
 * One caller in 64 stops there until the edition it found is gone, or for 100 ms. That edition has no references then,
 * its record is folded, and the caller runs what is no longer there. The kernel must crash, and oracle 5 (no splat) must
 * notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/percpu.h>
#include "../core/core.h"

static DEFINE_PER_CPU(unsigned int, calls);

/* Between the look-up and the count. */
static __always_inline void enter_late(struct hs_ref *ref)
{
	int ms;

	if (this_cpu_inc_return(calls) % 64 == 0)
		for (ms = 0; ms < 100 && READ_ONCE(ref->state) != HS_GONE; ms++)
			mdelay(1);
	hs_ref_enter(ref);
}

#define hs_ref_enter(ref) enter_late(ref)
#define synchronize_rcu_expedited() do { } while (0)
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
