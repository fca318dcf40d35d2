/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel counts of a source of calls that user space drives. The callers count for themselves, and the two
 * must agree.
 */
#ifndef HS_TALLY_H
#define HS_TALLY_H

#include <linux/percpu.h>
#include <linux/types.h>

/* struct hs_tally - one CPU's share */
struct hs_tally {
	unsigned long issued;
	unsigned long completed;
	unsigned long failed;
};

static inline void hs_tally_sum(struct hs_tally __percpu *tally, u64 *issued, u64 *completed, u64 *failed)
{
	const struct hs_tally *one;
	int cpu;

	*issued = *completed = *failed = 0;
	for_each_possible_cpu(cpu) {
		one = per_cpu_ptr(tally, cpu);
		*issued += one->issued;
		*completed += one->completed;
		*failed += one->failed;
	}
}

#endif /* HS_TALLY_H */
