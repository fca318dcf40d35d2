// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: adaptive_disobey.
 *
 * Purpose: one call in 512 on each CPU goes to another edition than the handler chose. Every result is right for its edition.
 * Oracle 7 (the policy is obeyed to the call) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/percpu.h>

static DEFINE_PER_CPU(unsigned int, choices);

#define HS_ADAPT_ANSWERS(set, chosen) \
	((set)->edition[(this_cpu_inc_return(choices) % 512 ? (chosen) : (chosen) + 1) % (set)->live])
#include "../mechanisms/adaptive/adaptive.c"
#include "mechanism.h"

HS_MUTANT_OF(adaptive);
