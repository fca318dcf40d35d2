// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: busy_once.
 *
 * Purpose: the third swap is refused as if another swap were in progress, and the swapper goes on with the next.
 * Nothing is lost, wrong or left behind, but one swap that was asked for never happened: oracle 8 (calls and swaps
 * really happened) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"
#include "../core/policy.h"

static int check_or_busy(const struct hs_slot *slot, const struct hs_edition *edition)
{
	static bool refused;
	int err = hs_policy_check(slot, edition);

	if (err || refused || slot->swaps != 2)
		return err;
	refused = true;
	return -EBUSY;
}

#define hs_policy_check check_or_busy
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
