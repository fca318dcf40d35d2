// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: double_count.
 *
 * Purpose: the reference manager counts every 100th reference twice, in and out, so that it still drains but says it
 * served calls that nobody made. Oracle 1 (conservation, edition by edition) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static DEFINE_PER_CPU(unsigned int, calls);

static __always_inline void count_twice(struct hs_ref *ref)
{
	if (this_cpu_inc_return(calls) % 100 == 0) {
		hs_ref_enter(ref);
		hs_ref_exit(ref);
	}
	hs_ref_exit(ref);
}

#define hs_ref_exit(ref) count_twice(ref)
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
