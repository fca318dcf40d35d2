// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap edition of slot "calc": fnv, FNV-1a, byte by byte.
 *
 * Purpose: one of the editions that swaps cycle through; see include/hs_algorithms.h for what it computes.
 *
 * Usage: insmod hs_ed_fnv.ko version=2
 */
#include "edition.h"

static noinline int fnv_call(const struct hs_edition *self, struct hs_call *call)
{
	u64 x = edition_argument(self, call->arg);

	edition_pause(call);
	call->result = hs_fnv(x, version);
	return 0;
}

HS_CALC_EDITION(fnv, HS_FNV, "FNV-1a, byte by byte");
