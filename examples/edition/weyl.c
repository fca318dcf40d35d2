// SPDX-License-Identifier: GPL-2.0-only
/*
 * An edition of slot "calc", kept out of the lab's tree: weyl, an algorithm that only hs_own.h beside it knows.
 *
 * Usage: lab run cell aarch64/trixie/refcount/mixed --kmod examples/edition
 */
#include <hs_edition.h>

static HS_EDITION_TEXT int weyl_call(const struct hs_edition *self, struct hs_call *call)
{
	u64 x = edition_argument(self, call->arg);

	if (call->stay_us)
		edition_stay(self, call);
	if (call->op == HS_OP_OPEN)
		edition_decide(self, call);
	if (!hs_commit(self))
		return HS_AGAIN;
	call->result = own_weyl(x, version);
	return 0;
}

HS_CALC_EDITION(weyl, OWN_WEYL, HS_COMMIT, "the middle of a Weyl sequence's square");
