// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: invalidate_no_flush.
 *
 * Purpose: one CPU is left out when the old text is cut off. It holds the old translation, in an interrupt that begins
 * before the cut, and calls the old address after it. On arm64, where the CPU itself broadcasts the flush, the page table
 * is left as it was. Oracle 7 (no call through an old address runs) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/smp.h>
#include "../core/core.h"

#define HS_FLUSH_OTHER(cpu) (per_cpu(flush_done, cpu) = wanted)
#define HS_CUT(old) cut_but_one(old)

static int cut_but_one(struct hs_ref *old);

#include "../mechanisms/invalidate/invalidate.c"
#include "mechanism.h"

struct holder {
	struct hs_ref *old;
	atomic_t step;	/* 1: it has run the old text; 2: that was cut; 3: it has run it again */
};

/* Context: hard interrupt. */
static void hold_translation(void *argument)
{
	struct holder *holder = argument;
	struct hs_guard guard = { .probe = true };
	struct hs_call call = { };

	guarded_call(&guard, holder->old, 0, &call);
	atomic_set(&holder->step, 1);
	while (atomic_read(&holder->step) != 2)
		cpu_relax();
	probe_old(holder->old);
	atomic_set(&holder->step, 3);
}

static int cut_but_one(struct hs_ref *old)
{
	struct holder holder = { .old = old };
	int other, err = 0;

	other = cpumask_any_but(cpu_online_mask, get_cpu());
	smp_call_function_single(other, hold_translation, &holder, 0);
	put_cpu();
	while (atomic_read(&holder.step) != 1)
		cpu_relax();
	if (IS_ENABLED(CONFIG_X86_64))
		err = text_cut(old->own);
	atomic_set(&holder.step, 2);
	while (atomic_read(&holder.step) != 3)
		cpu_relax();
	return err;
}

HS_MUTANT_OF(invalidate);
