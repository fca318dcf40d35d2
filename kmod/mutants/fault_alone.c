// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: fault_alone.
 *
 * Purpose: every 100th page fault is counted but makes no call: the handler computes the result itself, as the last
 * edition to answer on this CPU would have. Every result is right; oracle 1 (as many calls entered an edition as were
 * issued) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "../core/core.h"

static int dispatch_or_compute(struct hs_call *call);

#define HS_FAULT_DISPATCH(call) dispatch_or_compute(call)
#include "../load/load.c"
MODULE_INFO(replaces, "hs_load");

static DEFINE_PER_CPU(struct hs_call, last_call);
static DEFINE_PER_CPU(unsigned int, faults);

static int dispatch_or_compute(struct hs_call *call)
{
	struct hs_call last = per_cpu(last_call, raw_smp_processor_id());
	int err;

	if (last.version && this_cpu_inc_return(faults) % 100 == 0) {
		call->version = last.version;
		call->identity = last.identity;
		call->result = hs_expected(last.identity, last.version, HS_OP_CALC, call->arg);
		return 0;
	}
	err = hs_dispatch_recovering(fault_slot, call);
	if (!err)
		per_cpu(last_call, raw_smp_processor_id()) = *call;
	return err;
}
