/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the editions of slot "calc" have in common: parameters, table, registration.
 *
 * Usage: in editions/NAME.c, a function `int NAME_call(const struct hs_edition *, struct hs_call *)` and then
 *	HS_CALC_EDITION(NAME, HS_IDENTITY, what may become of a call (enum hs_restart), "what it computes");
 * The module is hs_ed_NAME.ko; `insmod hs_ed_NAME.ko version=7` makes it version 7. The same file in a folder of your own
 * is hs_own_NAME.ko, after `lab run ... --kmod FOLDER`; see hs_own.h beside this file, and examples/edition.
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
#include "hotswap.h"
#include "hs_algorithms.h"

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

static bool hold;
module_param(hold, bool, 0444);
MODULE_PARM_DESC(hold, "stand by, and let hs-ctl publish publish it");

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

static uint layout_number;
module_param(layout_number, uint, 0444);
MODULE_PARM_DESC(layout_number, "how many layouts of the state came before the one it registers");

/* What the algorithm runs on: the argument, moved by the slot's state. */
static __always_inline u64 edition_argument(const struct hs_edition *self, u64 arg)
{
	/* By the high bits: callers choose by the low ones what they call. */
	struct hs_calc_object *object = (struct hs_calc_object *)self->state + (arg >> 32) % HS_CALC_OBJECTS;

	if (unlikely(slow_us))
		edition_spin(slow_us);
	/* Pairs with who transforms it: the base is that layout's. */
	if (unlikely(smp_load_acquire(&object->layout) != layout_number))
		hs_object_touch(self, (struct hs_object *)object);
	return arg + ror64(object->base, layout_number % 64);
}

/* From the layout before this edition's to its own. */
static notrace void edition_transform(struct hs_object *memory)
{
	struct hs_calc_object *object = (struct hs_calc_object *)memory;

	object->base = rol64(object->base, 1);
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

/*
 * The decision of an access-control module, by this edition's policy. It is written as a whole, so that a call that is
 * made again decides again. Inline: the editions' functions have no trace site, and nor has this.
 */
static __always_inline void edition_decide(const struct hs_edition *self, struct hs_call *call)
{
	const struct hs_policy *policy = self->policy;
	bool listed = false;
	u32 i;

	for (i = 0; i < HS_POLICY_FILES; i++)
		listed |= policy->label[i] == call->arg;
	call->denied = listed == policy->forbids;
}

/* Even versions list what is forbidden, odd ones what is allowed: who reads another's list decides the wrong way. */
static notrace void edition_write_policy(struct hs_policy *policy)
{
	char name[32];
	u32 i;

	policy->forbids = version % 2 == 0;
	for (i = 0; i < HS_POLICY_FILES; i++) {
		snprintf(name, sizeof(name), policy->forbids ? HS_POLICY_FORBIDDEN : HS_POLICY_ALLOWED, i);
		policy->label[i] = hs_hash(name);
	}
}

static notrace void edition_state_init(void *memory)
{
	struct hs_calc_object *objects = memory;
	int i;

	for (i = 0; i < HS_CALC_OBJECTS; i++) {
		objects[i].layout = layout_number;
		objects[i].base = rol64(HS_CALC_BASE, layout_number % 64);
	}
}

static inline u64 edition_layout_hash(u32 number)
{
	return hs_mix(hs_hash(layout), number);
}

static notrace int edition_register(struct hs_edition *edition)
{
	struct hs_policy *policy;
	u64 *table;
	int i, err;

	if (restart > HS_PERCOLATE || (restart == HS_COMMIT && edition->restart != HS_COMMIT))
		return -EINVAL;	/* a method that never commits can not be waited for */
	table = hs_zalloc(HS_TABLE_LEN * sizeof(*table));
	policy = hs_zalloc(sizeof(*policy));
	err = -ENOMEM;
	if (!table || !policy)
		goto free;
	for (i = 0; i < HS_TABLE_LEN; i++)
		table[i] = hs_algorithm(edition->identity, i + HS_CALC_BASE, version);
	edition->slot = slot;
	edition->hold = hold;
	edition_write_policy(policy);
	edition->version = version;
	if (restart >= 0)
		edition->restart = restart;
	edition->interface = hs_hash(interface);
	edition->layout.size = sizeof(struct hs_calc_object);
	edition->layout.objects = HS_CALC_OBJECTS;
	edition->layout.number = layout_number;
	edition->layout.hash = edition_layout_hash(layout_number);
	if (layout_number) {
		edition->from_hash = edition_layout_hash(layout_number - 1);
		edition->transform = edition_transform;
	}
	edition->table = table;
	edition->policy = policy;
	err = hs_edition_register(edition);
	if (!err)
		return 0;

free:
	hs_free(policy);
	hs_free(table);
	return err;
}

static notrace void edition_unregister(struct hs_edition *edition)
{
	hs_edition_unregister(edition);
	hs_free((void *)edition->policy);
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
HS_SITE(edition);						\
static struct hs_edition edition = {				\
	.name = #_name,						\
	.identity = _identity,					\
	.restart = _restart,					\
	.owner = THIS_MODULE,					\
	.call = _name##_call,					\
	.mate_call = _name##_seal,				\
	.site = hs_site,					\
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
