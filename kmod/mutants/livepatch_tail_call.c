// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: livepatch_tail_call.
 *
 * Purpose: the function that livepatch puts in place leaves the stack before edition mix runs, so livepatch, which
 * looks for it there, moves tasks that sleep in the edition, and lets the module go. They sleep for 0.3 s and wake up in
 * freed text. The kernel must crash, and oracle 5 (no splat) must notice.
 */
#include <hs_edition.h>

#undef HS_SITE
#define HS_SITE(_edition)							\
static struct hs_edition _edition;						\
static notrace noinline int hs_site(struct hs_slot *slot, struct hs_call *call)	\
{										\
	if (call->stay_us)							\
		call->stay_us = 300000;						\
	return hs_site_call(&(_edition), slot, call);				\
}										\
MODULE_INFO(Livepatch, "Y")
#include "../editions/mix.c"
MODULE_INFO(replaces, "hs_ed_mix");
