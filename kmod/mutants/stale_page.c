// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: stale_page.
 *
 * Purpose: every 100th page fault is answered with the page of an earlier one. Its call was made, and every count adds
 * up; oracle 2 (every result is the one for its argument) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static int dispatch_and_forget(struct hs_call *call);

#define HS_FAULT_DISPATCH(call) dispatch_and_forget(call)
#include "../load/load.c"
MODULE_INFO(replaces, "hs_load");

static DEFINE_PER_CPU(unsigned int, faults);

static int dispatch_and_forget(struct hs_call *call)
{
	struct hs_call earlier = *call;
	int err;

	if (this_cpu_inc_return(faults) % 100)
		return hs_dispatch_recovering(fault_slot, call);
	earlier.arg++;
	err = hs_dispatch_recovering(fault_slot, &earlier);
	*call = earlier;
	return err;
}
