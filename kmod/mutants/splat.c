// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: splat.
 *
 * Purpose: edition mix warns once, after its 100th call on a CPU. Oracle 5 (no splat) must notice.
 */
#include "../editions/edition.h"

static DEFINE_PER_CPU(unsigned int, calls);

static noinline void splat_pause(const struct hs_call *call)
{
	WARN_ONCE(this_cpu_inc_return(calls) == 100, "hotswap mutant: splat\n");
	edition_pause(call);
}

#define edition_pause(call) splat_pause(call)
#include "../editions/mix.c"
MODULE_INFO(replaces, "hs_ed_mix");
