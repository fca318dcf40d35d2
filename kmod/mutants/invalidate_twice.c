// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: invalidate_twice.
 *
 * Purpose: the swapper does not wait for the calls that have committed, so they are cut off after their work and do it
 * again. Oracle 7 (as many did their work as returned) must notice; a race point holds calls in that place.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static inline int wait_for_nobody(const struct hs_ref *old, unsigned int timeout_ms)
{
	return 0;
}

#define HS_WAIT_FOR_COMMITS wait_for_nobody
#include "../mechanisms/invalidate/invalidate.c"
#include "mechanism.h"

HS_MUTANT_OF(invalidate);
