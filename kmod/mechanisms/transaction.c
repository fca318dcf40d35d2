// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mechanism: transaction, version consistency.
 *
 * Purpose: calls between two marks, of a slot and of its mate, in one system call or across several, in a top half and in
 * its bottom half, are all answered by the edition that was current at the first mark; so code and data never meet
 * another version of themselves. The marks belong to an open file or to an interrupt; they nest, and the outermost pair counts. There is no commit, rollback or log: an old edition simply stays until the transactions
 * that began with it are over. The idea is "Dynamic Software Updating for the Linux Kernel" (transactions, type safety).
 *
 * Usage: insmod hs_core.ko mechanism=transaction [first_touch=0|1] [update_wait_ms=10000]
 *
 * When is an update safe? One that keeps the layout of the slot's state: at once, for old transactions go on with old code
 * and all code reads the same data; only the update before it must be over. One that changes the layout and brings a transformer: when no transaction is open,
 * since old code must not see new data. Then
 *
 *	gate:	   tasks that begin a transaction wait; interrupts, page faults and dying tasks do not, and begin theirs with
 *		   the old edition
 *	quiesce:   wait until every transaction, of tasks, interrupts and bottom halves, is over
 *	switch:	   with every CPU stopped, look again; if one has begun, wait again; else transform the objects or leave each
 *		   to its first touch by new code, and publish
 *	open:	   the tasks go on, with the new edition
 *
 * If the transactions do not end in update_wait_ms the update is refused, nothing has changed, and the kernel log names who
 * was in the way. A plain call is a transaction of one call, and a call that an edition makes by hs_nest() is part of its
 * caller's. A call that belongs to a transaction never waits; a task that makes a plain one while a file of its own has a
 * transaction open waits for itself, until the update is refused.
 *
 * References are counted as refcount counts them, and what is said there holds: see mechanisms/refcount.c. Transactions have
 * a pair of counters of their own, for an open one may enter the old edition long after nobody else can; sums are read in
 * an order in which they can not show zero too early, see hs_ref_sum().
 */

#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/spinlock.h>
#include <linux/stop_machine.h>
#include <linux/wait.h>
#include "../core/core.h"
#include "../core/policy.h"

/* A macro where a mutant may put another: whether an update leaves the objects to their first touch. */
#ifndef HS_FIRST_TOUCH
#define HS_FIRST_TOUCH -1
#endif

static int first_touch = HS_FIRST_TOUCH;
module_param(first_touch, int, 0444);
MODULE_PARM_DESC(first_touch, "transform objects at their first touch (1), all at the switch (0), or in turn (-1)");

static uint update_wait_ms = 10000;
module_param(update_wait_ms, uint, 0444);
MODULE_PARM_DESC(update_wait_ms, "how long an update that changes the layout waits for open transactions");

/* Closed while an update with another layout waits; written under hs_lock. */
static bool gate_closed;
static DECLARE_WAIT_QUEUE_HEAD(gate_queue);

/* Guards open_rounds and their number. Taken in any context but NMI. */
static DEFINE_RAW_SPINLOCK(rounds_lock);
static LIST_HEAD(open_rounds);
static unsigned int open_count;

/* Updates that changed the layout, objects transformed, tasks that waited at the gate, switches tried again. */
static unsigned long layout_changes, layout_retries;
static atomic_long_t gate_waits;

/* A macro where a mutant may put another: whether the gate holds callers back. */
#ifndef HS_GATE
#define HS_GATE READ_ONCE(gate_closed)
#endif

/*
 * The newest edition, counted as a call or as a transaction. Gate, look-up and count lie in one section with preemption off:
 * a grace period after the gate has closed, every task that passed it is counted.
 */
static notrace struct hs_ref *transaction_get(struct hs_slot *slot, u32 flags, bool round)
{
	struct hs_ref *ref;

	for (;;) {
		preempt_disable_notrace();
		if (likely(!HS_GATE || !(flags & HS_CALL_MAY_WAIT)))
			break;
		preempt_enable_notrace();
		atomic_long_inc(&gate_waits);
		if (wait_event_killable(gate_queue, !READ_ONCE(gate_closed)))
			flags &= ~HS_CALL_MAY_WAIT;	/* it may be who the gate waits for */
	}
	ref = hs_slot_newest(slot);
	if (likely(ref)) {
		HS_RACE("transaction.lookup");
		if (round)
			this_cpu_inc(ref->count->begun);
		else
			hs_ref_enter(ref);
	}
	preempt_enable_notrace();
	return ref;
}

static notrace void transaction_kick(struct hs_ref *ref)
{
	if (unlikely(READ_ONCE(ref->draining)) && !in_nmi())
		swake_up_one(&ref->drained);
}

static notrace void transaction_put(struct hs_ref *ref)
{
	preempt_disable_notrace();
	HS_RACE("transaction.return");
	hs_ref_exit(ref);
	transaction_kick(ref);
	preempt_enable_notrace();
}

static notrace int transaction_call(struct hs_slot *slot, struct hs_call *call)
{
	struct hs_ref *ref = transaction_get(slot, call->flags, false);
	int err;

	if (unlikely(!ref))
		return hs_slot_empty(slot);
	err = hs_ref_call(ref, slot, call);
	transaction_put(ref);
	return err;
}

/* A call of an edition that an open transaction, or a call that has not returned, keeps in place. */
static notrace int transaction_nest(struct hs_ref *ref, struct hs_slot *slot, struct hs_call *call)
{
	int err;

	if (!ref->call[slot->entry])
		return hs_slot_empty(slot);
	preempt_disable_notrace();
	hs_ref_enter(ref);
	preempt_enable_notrace();
	err = hs_ref_call(ref, slot, call);
	transaction_put(ref);
	return err;
}

static notrace int transaction_begin(struct hs_round *round)
{
	unsigned long flags;

	round->ref = transaction_get(round->slot, round->flags, true);
	if (!round->ref)
		return -ENODEV;
	strscpy(round->task, round->who ?: current->comm, sizeof(round->task));
	round->pid = round->who ? 0 : current->pid;
	round->since_ns = ktime_get_ns();
	raw_spin_lock_irqsave(&rounds_lock, flags);
	list_add_tail(&round->node, &open_rounds);
	open_count++;
	raw_spin_unlock_irqrestore(&rounds_lock, flags);
	return 0;
}

static notrace void transaction_end(struct hs_round *round)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&rounds_lock, flags);
	list_del(&round->node);
	open_count--;
	raw_spin_unlock_irqrestore(&rounds_lock, flags);
	preempt_disable_notrace();
	smp_wmb();	/* the counts of its calls before that of its end; pairs with hs_ref_sum() */
	this_cpu_inc(round->ref->count->ended);
	transaction_kick(round->ref);
	preempt_enable_notrace();
}

/* A macro where a mutant may put another: which edition answers a call in a transaction. */
#ifndef HS_ROUND_REF
#define HS_ROUND_REF(round) ((round)->ref)
#endif

static notrace int transaction_join(struct hs_round *round, struct hs_slot *slot, struct hs_call *call)
{
	struct hs_ref *ref = HS_ROUND_REF(round);

	if (WARN_ON_ONCE(slot != round->slot && slot != round->slot->mate))
		return -EINVAL;
	HS_RACE("transaction.join");
	call->flags &= ~HS_CALL_MAY_WAIT;
	return ref ? transaction_nest(ref, slot, call) : transaction_call(slot, call);
}

/* A macro where a mutant may put another: whether every call and transaction of an edition is over. */
#ifndef HS_QUIESCENT
#define HS_QUIESCENT(ref) (!hs_ref_outstanding(ref))
#endif

/* A macro where a mutant may put another: the transformer's way through all objects. */
#ifndef HS_TRANSFORM
#define HS_TRANSFORM(ref) hs_objects_transform(ref)
#endif

/* A macro where a mutant may put another: whether every layout is let in. */
#ifndef HS_ANY_LAYOUT
#define HS_ANY_LAYOUT false
#endif

/* Everything is decided before anything changes: the interface, and that the state's layout is known or can be made so. */
static int transaction_admit(const struct hs_slot *slot, const struct hs_edition *edition)
{
	int err = hs_policy_identity(slot, edition);

	if (err)
		return err;
	if (!slot->newest || hs_layout_same(&slot->layout, &edition->layout) || HS_ANY_LAYOUT)
		return hs_policy_busy(slot);
	if (edition->transform && edition->layout.number == slot->layout.number + 1 &&
	    edition->layout.objects == slot->layout.objects && edition->layout.size == slot->layout.size &&
	    edition->from_hash == slot->layout.hash)
		return hs_policy_busy(slot);
	pr_info("%s: %s version %u refused: no transformer from layout %u of the state to its own, %u\n", slot->name,
		edition->name, edition->version, slot->layout.number, edition->layout.number);
	return -EPROTO;
}

static int transaction_adopt(struct hs_slot *slot, struct hs_ref *ref)
{
	return try_module_get(ref->edition->owner) ? 0 : -ENODEV;
}

static void transaction_release(struct hs_slot *slot, struct hs_ref *ref)
{
	module_put(ref->edition->owner);
}

/*
 * Who has a transaction open: whoever began it, which a file handed on may have outlived. Return: how many there are; the
 * first @limit of them in @who. Context: any but NMI.
 */
static unsigned int list_rounds(struct hs_ctl_round *who, unsigned int limit)
{
	unsigned int found = 0, all;
	struct hs_round *round;
	u64 now = ktime_get_ns();
	unsigned long flags;

	raw_spin_lock_irqsave(&rounds_lock, flags);
	list_for_each_entry(round, &open_rounds, node) {
		if (found == limit)
			break;
		strscpy(who[found].task, round->task, sizeof(who->task));
		who[found].pid = round->pid;
		who[found].version = round->ref->version;
		who[found].age_ns = now - round->since_ns;
		found++;
	}
	all = open_count;
	raw_spin_unlock_irqrestore(&rounds_lock, flags);
	return all;
}

static void name_conflicts(const struct hs_ref *old, unsigned int waited_ms)
{
	struct hs_ctl_round who[4];
	unsigned int found = list_rounds(who, ARRAY_SIZE(who)), i;

	pr_info("%s version %u: %ld calls and transactions did not end in %u ms\n", old->name, old->version,
		hs_ref_outstanding(old), waited_ms);
	for (i = 0; i < min_t(unsigned int, found, ARRAY_SIZE(who)); i++)
		pr_info("%s version %u: in the way: %*pE[%u], since %llu ms\n", old->name, old->version,
			(int)strlen(who[i].task), who[i].task, who[i].pid, who[i].age_ns / NSEC_PER_MSEC);
}

struct change {
	struct hs_slot *slot;
	struct hs_ref *new, *old;
	bool lazy;
};

/* Every CPU is stopped: nobody is between look-up and count, so the sum is exact. */
static int switch_layout(void *data)
{
	struct change *change = data;

	if (!HS_QUIESCENT(change->old))
		return -EAGAIN;
	if (!change->lazy)
		HS_TRANSFORM(change->new);
	hs_slot_set(change->slot, change->new);
	return 0;
}

/* Return: 0; -EBUSY if open transactions did not end in time, and then nothing has changed. */
static int change_layout(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	struct change change = { .slot = slot, .new = new, .old = old };
	const unsigned long until = jiffies + msecs_to_jiffies(update_wait_ms);
	long left;
	int err;

	change.lazy = first_touch < 0 ? new->edition->layout.number % 2 : first_touch;
	WRITE_ONCE(old->draining, true);
	WRITE_ONCE(gate_closed, true);
	synchronize_rcu_expedited();	/* who passed the gate is counted, and will kick */
	do {
		left = max_t(long, until - jiffies, 0);
		left = swait_event_timeout_exclusive(old->drained, HS_QUIESCENT(old), left);
		err = left ? stop_machine(switch_layout, &change, NULL) : -EBUSY;
		layout_retries += err == -EAGAIN;
	} while (err == -EAGAIN && time_before(jiffies, until));
	if (err == -EAGAIN)
		err = -EBUSY;
	if (err) {
		WRITE_ONCE(old->draining, false);
		name_conflicts(old, update_wait_ms);
	} else {
		layout_changes++;
	}
	WRITE_ONCE(gate_closed, false);
	wake_up_all(&gate_queue);
	return err;
}

static int transaction_publish(struct hs_slot *slot, struct hs_ref *new, struct hs_ref *old)
{
	/* What nobody has touched yet is brought up to date while the transformer is still there. */
	if (old)
		HS_TRANSFORM(old);
	if (new && slot->newest && !hs_layout_same(&slot->layout, &new->edition->layout)) {
		if (old)
			return change_layout(slot, new, old);
		HS_TRANSFORM(new);	/* nobody is there to wait for */
		layout_changes++;
	}
	if (old)
		WRITE_ONCE(old->draining, true);
	hs_slot_set(slot, new);
	HS_RACE("transaction.published");
	return 0;
}

static int transaction_drain(struct hs_slot *slot, struct hs_ref *old, unsigned int timeout_ms,
			     struct hs_drained *figures)
{
	long left;

	synchronize_rcu_expedited();	/* no more entries but those of open transactions */
	left = swait_event_interruptible_timeout_exclusive(old->drained, !hs_ref_outstanding(old),
							   msecs_to_jiffies(timeout_ms));
	if (!left) {
		name_conflicts(old, timeout_ms);
		return -ETIMEDOUT;
	}
	if (left < 0)
		return -EINTR;
	synchronize_rcu_expedited();	/* nobody looks at the record */
	return 0;
}

static void transaction_ask(struct hs_ctl_ask *ask)
{
	ask->open = list_rounds(ask->who, ARRAY_SIZE(ask->who));
}

static void transaction_show(struct seq_file *seq)
{
	seq_printf(seq, "\"transaction\":{\"changes\":%lu,\"retries\":%lu,\"waited\":%ld,\"open\":%u,", layout_changes,
		   layout_retries, atomic_long_read(&gate_waits), list_rounds(NULL, 0));
	hs_objects_show(seq);
	seq_puts(seq, "}");
}

static struct hs_mechanism transaction = {
	.name = "transaction",
	.owner = THIS_MODULE,
	.order = HS_NEW_FIRST,
	.transforms = true,
	.call = transaction_call,
	.begin = transaction_begin,
	.end = transaction_end,
	.join = transaction_join,
	.nest = transaction_nest,
	.admit = transaction_admit,
	.adopt = transaction_adopt,
	.publish = transaction_publish,
	.drain = transaction_drain,
	.release = transaction_release,
	.ask = transaction_ask,
	.show = transaction_show,
};
