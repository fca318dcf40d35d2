// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mechanism: invalidate - recovery records.
 *
 * Purpose: from the task that faults, find the call that must be cut off, in any context and without a lock.
 *
 * A record lies on its caller's stack. The records of one task form a stack of their own: a nested call, or a call from
 * an interrupt, is pushed after and popped before the one it came upon. So only the task itself and the interrupts on
 * top of it ever touch its list, in an order that leaves it as it was, and the innermost record is the one that a fault
 * belongs to. The list's head is an entry of a table, claimed by the task's first record and given back by it. An interrupt
 * that comes upon a task without an entry claims and gives back one of its own.
 */

#include <linux/hash.h>
#include <linux/irqflags.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include "guard.h"

#define SETS_BITS	9
#define WAYS		8	/* of tasks inside editions at one time, so many may share a set */

/*
 * struct hs_guarded - a task that is inside an edition
 * @task:	who; NULL for a free entry
 * @top:	its innermost record
 * @ref:	the edition that its outermost call is in, for reports
 */
struct hs_guarded {
	struct task_struct *task;
	struct hs_guard *top;
	struct hs_ref *ref;
};

static struct hs_guarded guarded[1 << SETS_BITS][WAYS];

/* State that had to be put right by force after a landing; the landing itself restores everything. */
static atomic_t misrestored;

static __always_inline struct hs_guarded *task_set(const struct task_struct *task)
{
	return guarded[hash_ptr(task, SETS_BITS)];
}

static __always_inline struct hs_guarded *find_guarded(const struct task_struct *task)
{
	struct hs_guarded *set = task_set(task);
	int i;

	for (i = 0; i < WAYS; i++)
		if (READ_ONCE(set[i].task) == task)
			return &set[i];
	return NULL;
}

static __always_inline int rcu_depth(void)
{
#ifdef CONFIG_PREEMPT_RCU
	return current->rcu_read_lock_nesting;
#else
	return 0;
#endif
}

/* Make @guard the task's innermost record. Return: false if the task's set is full. */
static notrace bool push_guard(struct hs_guard *guard)
{
	struct task_struct *task = current;
	struct hs_guarded *at = find_guarded(task), *set = task_set(task);
	int i;

	guard->owner = !at;
	for (i = 0; !at && i < WAYS; i++)
		if (!READ_ONCE(set[i].task) && !cmpxchg(&set[i].task, NULL, task))
			at = &set[i];
	if (!at)
		return false;
	guard->at = at;
	guard->below = READ_ONCE(at->top);
	if (guard->owner)
		WRITE_ONCE(at->ref, guard->ref);
	guard->preempt = preempt_count();
	guard->rcu = rcu_depth();
	local_save_flags(guard->flags);
	barrier();	/* an interrupt sees the record whole or not at all */
	WRITE_ONCE(at->top, guard);
	barrier();
	return true;
}

/* The record that is the innermost again. A macro where a mutant may put another. */
#ifndef HS_BELOW
#define HS_BELOW(guard) ((guard)->below)
#endif

static notrace void pop_guard(struct hs_guard *guard)
{
	WRITE_ONCE(guard->at->top, HS_BELOW(guard));
	if (guard->owner)
		smp_store_release(&guard->at->task, NULL); /* the next owner finds top empty */
}

/*
 * What the edition had changed when it was cut off. A restartable edition holds no lock at any point where it can be
 * cut off (that is what it declares), so a raised count can only be a plain preempt_disable() or rcu_read_lock(), and
 * is put back. Interrupt flags came back with the landing's own registers.
 */
static notrace void restore_context(const struct hs_guard *guard)
{
	unsigned long flags;
	int more;

	local_save_flags(flags);
	if (irqs_disabled_flags(flags) != irqs_disabled_flags(guard->flags)) {
		atomic_inc(&misrestored);
		local_irq_restore(guard->flags);
	}
	while (rcu_depth() > guard->rcu)
		rcu_read_unlock();
	more = preempt_count() - guard->preempt;
	if (more)
		preempt_count_sub(more);
	if (preempt_count() != guard->preempt || rcu_depth() != guard->rcu)
		atomic_inc(&misrestored);
}

/* One call of the edition. Return: its answer, HS_AGAIN if it was cut off, -EUSERS if there is no room for a record. */
static notrace int guarded_call(struct hs_guard *guard, struct hs_ref *ref, unsigned int entry,
				struct hs_call *call)
{
	int err;

	guard->ref = ref;
	if (!push_guard(guard))
		return -EUSERS;
	err = hs_guard_call(guard, ref->call[entry], ref->edition, call);
	if (err == HS_AGAIN)
		restore_context(guard);
	pop_guard(guard);
	return err;
}

/*
 * The record of the call that faulted at @ip with the stack at @sp: the innermost one of this task, if that call's
 * edition lies at @ip and is to be cut off, and its frame is above on the same stack.
 * Context: any. Return: the record, or NULL: the fault is none of ours.
 */
static notrace struct hs_guard *guard_of_fault(unsigned long ip, unsigned long sp)
{
	struct hs_guarded *at = find_guarded(current);
	struct hs_guard *guard = at ? READ_ONCE(at->top) : NULL;
	const struct hs_text *text;

	if (!guard)
		return NULL;
	text = guard->ref->own;
	if (!READ_ONCE(text->cut) || ip - text->base >= (unsigned long)text->pages << PAGE_SHIFT)
		return NULL;
	if (guard->sp - sp >= THREAD_SIZE)	/* another stack; x86's interrupt stacks are aligned to pages only */
		return NULL;
	return guard;
}
