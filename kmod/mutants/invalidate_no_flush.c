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
#include <linux/ktime.h>
#include <linux/smp.h>
#include "../core/core.h"

#define HS_FLUSH_OTHER(cpu) (per_cpu(flush_done, cpu) = wanted)
#define HS_CUT(old) cut_but_one(old)

static int cut_but_one(struct hs_ref *old);

#include "../mechanisms/invalidate/invalidate.c"
#include "mechanism.h"

struct holder {
	struct hs_ref *old;
	atomic_t step;	/* 1: it has run the old text; 2: that was cut; 3: it has run it again, or waited too long */
};

/*
 * Whoever was interrupted may hold a lock that the swapper's CPU spins for, in a softirq or another task: then the cut
 * does not end before the holder lets go. Far below what the kernel takes for a stall.
 */
#define HOLD_NS (5 * NSEC_PER_SEC)

/* Context: hard interrupt. */
static void hold_translation(void *argument)
{
	struct holder *holder = argument;
	struct hs_guard guard = { .probe = true };
	struct hs_call call = { };
	const u64 until = ktime_get_ns() + HOLD_NS;

	guarded_call(&guard, holder->old, 0, &call);
	atomic_set(&holder->step, 1);
	while (atomic_read(&holder->step) != 2 && ktime_get_ns() < until)
		cpu_relax();
	if (atomic_cmpxchg(&holder->step, 1, 3) == 2) {
		probe_old(holder->old);
		atomic_set(&holder->step, 3);
	}
}

static int cut_but_one(struct hs_ref *old)
{
	struct holder holder = { .old = old };
	int other, err = 0;

	other = cpumask_any_but(cpu_online_mask, get_cpu());
	smp_call_function_single(other, hold_translation, &holder, 0);
	put_cpu();
	while (!atomic_read(&holder.step))
		cpu_relax();
	if (IS_ENABLED(CONFIG_X86_64))
		err = text_cut(old->own);
	atomic_cmpxchg(&holder.step, 1, 2);
	while (atomic_read(&holder.step) != 3)
		cpu_relax();
	return err;
}

HS_MUTANT_OF(invalidate);
