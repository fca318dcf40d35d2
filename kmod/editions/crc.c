// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap edition of slot "calc": crc, CRC-64, bit by bit.
 *
 * Purpose: one of the editions that swaps cycle through; see include/hs_algorithms.h for what it computes.
 *
 * Usage: insmod hs_ed_crc.ko version=2
 */
#include "edition.h"

static noinline int crc_call(const struct hs_edition *self, struct hs_call *call)
{
	u64 x = edition_argument(self, call->arg);

	edition_pause(call);
	call->result = hs_crc(x, version);
	return 0;
}

HS_CALC_EDITION(crc, HS_CRC, "CRC-64, bit by bit");
