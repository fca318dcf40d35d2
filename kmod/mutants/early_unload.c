// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: early_unload.
 *
 * Purpose: the swapper does not wait for the old edition's references. Tasks that sleep in it wake up in freed text;
 * they sleep for 0.3 s, so that the module is gone by then. The kernel must crash, and oracle 5 (no splat) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static __always_inline int call_for_long(struct hs_ref *ref, const struct hs_slot *slot, struct hs_call *call)
{
	if (call->stay_us)
		call->stay_us = 300000;
	return hs_ref_call(ref, slot, call);
}

#define hs_ref_call(ref, slot, call) call_for_long(ref, slot, call)
#define hs_ref_outstanding(ref) 0
#include "../mechanisms/refcount.c"
#include "mechanism.h"

HS_MUTANT_OF(refcount);
