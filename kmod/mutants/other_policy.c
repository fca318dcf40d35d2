// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: other_policy.
 *
 * Purpose: edition crc takes its policy's list for one of the other kind in every 50th decision, as code would that
 * reads another edition's list: what is forbidden is opened, what is allowed refused. Its results are right all the
 * same. Oracle 7 (a forbidden open never succeeds, an allowed one never fails) must notice.
 */
#include <hs_edition.h>

static DEFINE_PER_CPU(unsigned int, decisions);

static __always_inline void decide_wrongly(const struct hs_edition *self, struct hs_call *call)
{
	edition_decide(self, call);
	call->denied ^= this_cpu_inc_return(decisions) % 50 == 0;
}

#define edition_decide(self, call) decide_wrongly(self, call)
#include "../editions/crc.c"
MODULE_INFO(replaces, "hs_ed_crc");
