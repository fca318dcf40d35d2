// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: splat.
 *
 * Purpose: edition mix warns once, after its 100th call on a CPU. Oracle 5 (no splat) must notice.
 */
#include <hs_edition.h>

static DEFINE_PER_CPU(unsigned int, calls);

static noinline u64 splat_argument(const struct hs_edition *self, u64 arg)
{
	WARN_ONCE(this_cpu_inc_return(calls) == 100, "hotswap mutant: splat\n");
	return edition_argument(self, arg);
}

#define edition_argument(self, arg) splat_argument(self, arg)
#include "../editions/mix.c"
MODULE_INFO(replaces, "hs_ed_mix");
