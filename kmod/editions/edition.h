/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the editions of slot "calc" have in common: parameters, table, registration.
 *
 * Usage: in editions/NAME.c, a function `int NAME_call(const struct hs_edition *, struct hs_call *)` and then
 *	HS_CALC_EDITION(NAME, HS_IDENTITY, what may become of a call (enum hs_restart), "what it computes");
 * The module is hs_ed_NAME.ko; `insmod hs_ed_NAME.ko version=7` makes it version 7.
 */
#ifndef HS_EDITION_H
#define HS_EDITION_H

#include <linux/delay.h>
#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include "../include/hotswap.h"
#include "../include/hs_algorithms.h"

static uint version = 1;
module_param(version, uint, 0444);
MODULE_PARM_DESC(version, "version it registers as");

static char *interface = HS_CALC_INTERFACE;
module_param(interface, charp, 0444);
MODULE_PARM_DESC(interface, "interface it registers, by its text");

static int restart = -1;
module_param(restart, int, 0444);
MODULE_PARM_DESC(restart, "what may become of a call in it, by enum hs_restart; -1: as the edition says");

static char *layout = HS_CALC_LAYOUT;
module_param(layout, charp, 0444);
MODULE_PARM_DESC(layout, "layout of the slot's state it registers, by its text");

static uint slow_us;
module_param(slow_us, uint, 0444);
MODULE_PARM_DESC(slow_us, "microseconds that each call takes more than it needs");

static char *slot = HS_CALC_SLOT;
module_param(slot, charp, 0444);
MODULE_PARM_DESC(slot, "slot it stands behind");

/* Keep the CPU and give it to nobody, in this text. */
static __always_inline void edition_spin(u32 us)
{
	const u64 until = ktime_get_ns() + (u64)us * NSEC_PER_USEC;

	while (ktime_get_ns() < until)
		cpu_relax();
}

/* What the algorithm runs on: the argument, moved by the slot's state. */
static __always_inline u64 edition_argument(const struct hs_edition *self, u64 arg)
{
	const struct hs_calc_state *state = self->state;

	if (unlikely(slow_us))
		edition_spin(slow_us);
	return arg + state->base;
}

/*
 * Functions of an edition: not traced and not probed, since a call that is cut off never returns through what
 * kretprobes and the function-graph tracer put on the stack. The rest is not traced either: ftrace reads the place of a
 * trace in text that may not be present, and where only init functions have one, insmod waits for a grace period on its way
 * back, which hides what a mechanism forgot to wait for.
 */
#define HS_EDITION_TEXT notrace noinline

/* Stay in the middle of a call, as calls do that wait for something. */
static HS_EDITION_TEXT void edition_stay(const struct hs_edition *self, const struct hs_call *call)
{
	struct hs_call inner = { .arg = call->arg, .stay_us = call->stay_us };
	unsigned long flags;
	u64 until;

	switch (call->stay) {
	case HS_STAY_SLEEP:
		hs_sleep(self, call->stay_us);
		break;
	case HS_STAY_DOZE:
		usleep_range(call->stay_us, call->stay_us + call->stay_us / 8 + 1);
		break;
	case HS_STAY_SPIN:
		until = ktime_get_ns() + (u64)call->stay_us * NSEC_PER_USEC;
		while (ktime_get_ns() < until)
			cond_resched();	/* or a kernel without preemption would wait for it everywhere */
		break;
	case HS_STAY_SPIN_IRQOFF:
		local_irq_save(flags);
		edition_spin(call->stay_us);
		local_irq_restore(flags);
		break;
	case HS_STAY_SPIN_ATOMIC:
		rcu_read_lock();
		preempt_disable();
		edition_spin(call->stay_us);
		preempt_enable();
		rcu_read_unlock();
		break;
	case HS_STAY_NEST:
		hs_nest(self, &inner);
		break;
	}
}
NOKPROBE_SYMBOL(edition_stay);

static notrace void edition_state_init(void *memory)
{
	struct hs_calc_state *state = memory;

	state->base = HS_CALC_BASE;
}

static notrace int edition_register(struct hs_edition *edition)
{
	u64 *table;
	int i, err;

	if (restart > HS_PERCOLATE || (restart == HS_COMMIT && edition->restart != HS_COMMIT))
		return -EINVAL;	/* a method that never commits can not be waited for */
	table = hs_zalloc(HS_TABLE_LEN * sizeof(*table));
	if (!table)
		return -ENOMEM;
	for (i = 0; i < HS_TABLE_LEN; i++)
		table[i] = hs_algorithm(edition->identity, i + HS_CALC_BASE, version);
	edition->slot = slot;
	edition->version = version;
	if (restart >= 0)
		edition->restart = restart;
	edition->interface = hs_hash(interface);
	edition->layout.size = sizeof(struct hs_calc_state);
	edition->layout.hash = hs_hash(layout);
	edition->table = table;
	err = hs_edition_register(edition);
	if (err)
		hs_free(table);
	return err;
}

static notrace void edition_unregister(struct hs_edition *edition)
{
	hs_edition_unregister(edition);
	hs_free((void *)edition->table);
}

#define HS_CALC_EDITION(_name, _identity, _restart, _summary)	\
NOKPROBE_SYMBOL(_name##_call);					\
static HS_EDITION_TEXT int _name##_seal(const struct hs_edition *self, struct hs_call *call) \
{								\
	u64 x = edition_argument(self, ~call->arg);		\
								\
	if (_restart == HS_COMMIT && !hs_commit(self))		\
		return HS_AGAIN;				\
	call->result = hs_algorithm(_identity, x, version);	\
	return 0;						\
}								\
NOKPROBE_SYMBOL(_name##_seal);					\
static struct hs_edition edition = {				\
	.name = #_name,						\
	.identity = _identity,					\
	.restart = _restart,					\
	.owner = THIS_MODULE,					\
	.call = _name##_call,					\
	.mate_call = _name##_seal,				\
	.state_init = edition_state_init,			\
};								\
static notrace int __init edition_init(void)			\
{								\
	return edition_register(&edition);			\
}								\
module_init(edition_init);					\
static void __exit edition_exit(void)				\
{								\
	edition_unregister(&edition);				\
}								\
module_exit(edition_exit);					\
MODULE_DESCRIPTION("hotswap edition: " _summary);		\
MODULE_LICENSE("GPL")

#endif /* HS_EDITION_H */
