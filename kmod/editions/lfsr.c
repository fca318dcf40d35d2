// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap edition of slot "calc": lfsr, a shift register stepped by its version.
 *
 * Purpose: one of the editions that swaps cycle through; see include/hs_algorithms.h for what it computes.
 *
 * Usage: insmod hs_ed_lfsr.ko version=2
 */
#include <hs_edition.h>

static HS_EDITION_TEXT int lfsr_call(const struct hs_edition *self, struct hs_call *call)
{
	u64 x = edition_argument(self, call->arg);

	if (call->stay_us)
		edition_stay(self, call);
	if (call->op == HS_OP_OPEN)
		edition_decide(self, call);
	call->result = hs_lfsr(x, version);
	return 0;
}

HS_CALC_EDITION(lfsr, HS_LFSR, HS_PERCOLATE, "a shift register stepped by its version");
