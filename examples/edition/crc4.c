// SPDX-License-Identifier: GPL-2.0-only
/*
 * An edition of slot "calc", kept out of the lab's tree: crc4, CRC-64/ECMA-182 four bits at a time.
 *
 * Purpose: a faster way to compute what hs_algorithms.h defines. Its identity is HS_CRC, so its callers check each result
 * by the lab's own bit-by-bit definition.
 *
 * Usage: lab run cell aarch64/trixie/refcount/mixed --kmod examples/edition
 */
#include <hs_edition.h>

/* The CRC of each nibble. */
static const u64 crc4_table[16] = {
	0x0000000000000000ULL, 0x42f0e1eba9ea3693ULL, 0x85e1c3d753d46d26ULL, 0xc711223cfa3e5bb5ULL,
	0x493366450e42ecdfULL, 0x0bc387aea7a8da4cULL, 0xccd2a5925d9681f9ULL, 0x8e224479f47cb76aULL,
	0x9266cc8a1c85d9beULL, 0xd0962d61b56fef2dULL, 0x17870f5d4f51b498ULL, 0x5577eeb6e6bb820bULL,
	0xdb55aacf12c73561ULL, 0x99a54b24bb2d03f2ULL, 0x5eb4691841135847ULL, 0x1c4488f3e8f96ed4ULL,
};

static HS_EDITION_TEXT int crc4_call(const struct hs_edition *self, struct hs_call *call)
{
	u64 crc = ~(u64)version ^ edition_argument(self, call->arg);
	int i;

	if (call->stay_us)
		edition_stay(self, call);
	if (call->op == HS_OP_OPEN)
		edition_decide(self, call);
	for (i = 0; i < 16; i++)
		crc = (crc << 4) ^ crc4_table[crc >> 60];
	call->result = crc;
	return 0;
}

HS_CALC_EDITION(crc4, HS_CRC, HS_RESTART, "CRC-64/ECMA-182, four bits at a time");
