/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hotswap mechanism: invalidate - what its parts know of each other.
 *
 *	guard.c		the recovery record of a call, and the way back out of one that was cut off
 *	guard_*.S	the call itself, and the landing
 *	fault.c		the hook in the kernel's fault path
 *	text_*.h	making an edition's text non-executable, on every CPU
 *
 * A call that was cut off returns HS_AGAIN to its dispatcher, as an edition does that was not allowed to commit.
 */
#ifndef HS_GUARD_H
#define HS_GUARD_H

#ifndef __ASSEMBLY__

#include "../../core/core.h"

struct pt_regs;

/**
 * struct hs_guard - the recovery record of one call, on the caller's stack
 * @sp:		where hs_guard_call() saved the registers that a call keeps; first, for the assembly
 * @below:	the record of the call that this one interrupts or is nested in, on the same task
 * @ref:	the edition that is called
 * @flags:	interrupt flags at the call
 * @preempt:	preempt_count() at the call
 * @rcu:	depth of RCU read sections at the call
 * @owner:	the task's first record: it gives the table's entry back
 * @probe:	a call that has to fault: the isolation proof
 * @at:		the table's entry
 */
struct hs_guard {
	unsigned long sp;
	struct hs_guard *below;
	struct hs_ref *ref;
	unsigned long flags;
	int preempt;
	int rcu;
	bool owner;
	bool probe;
	struct hs_guarded *at;
};

/**
 * struct hs_text - where an edition's code lies; hs_ref->own
 * @base:	first byte, at the start of a page
 * @pages:	whole pages
 * @cut:	faults in it are ours: set before it is cut, until it is mended
 * @done:	it was cut on every CPU
 */
struct hs_text {
	unsigned long base;
	unsigned int pages;
	bool cut;
	bool done;
};

/* guard_*.S. Whatever the fault handler puts into the registers, these return to the caller of hs_guard_call(). */
asmlinkage int hs_guard_call(struct hs_guard *guard,
			     int (*function)(const struct hs_edition *self, struct hs_call *call),
			     const struct hs_edition *self, struct hs_call *call);
asmlinkage void hs_guard_landing(void);
asmlinkage void hs_guard_return(void);

#endif /* __ASSEMBLY__ */
#endif /* HS_GUARD_H */
