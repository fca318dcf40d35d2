// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: wrong_result.
 *
 * Purpose: edition fnv gives every 50th caller the result for another argument. Oracle 2 must notice.
 */
#include <hs_edition.h>

static DEFINE_PER_CPU(unsigned int, calls);

static inline u64 other_argument(const struct hs_edition *self, u64 arg)
{
	return edition_argument(self, arg) + (this_cpu_inc_return(calls) % 50 == 0);
}

#define edition_argument(self, arg) other_argument(self, arg)
#include "../editions/fnv.c"
MODULE_INFO(replaces, "hs_ed_fnv");
