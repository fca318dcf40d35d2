/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the editions of slot "calc" have in common: parameters, table, registration.
 *
 * Usage: in editions/NAME.c, a function `int NAME_call(const struct hs_edition *, struct hs_call *)` and then
 *	HS_CALC_EDITION(NAME, HS_IDENTITY, "what it computes");
 * The module is hs_ed_NAME.ko; `insmod hs_ed_NAME.ko version=7` makes it version 7.
 */
#ifndef HS_EDITION_H
#define HS_EDITION_H

#include <linux/delay.h>
#include <linux/init.h>
#include "../include/hotswap.h"
#include "../include/hs_algorithms.h"

static uint version = 1;
module_param(version, uint, 0444);
MODULE_PARM_DESC(version, "version it registers as");

static char *interface = HS_CALC_INTERFACE;
module_param(interface, charp, 0444);
MODULE_PARM_DESC(interface, "interface it registers, by its text");

static char *layout = HS_CALC_LAYOUT;
module_param(layout, charp, 0444);
MODULE_PARM_DESC(layout, "layout of the slot's state it registers, by its text");

/* What the algorithm runs on: the argument, moved by the slot's state. */
static inline u64 edition_argument(const struct hs_edition *self, u64 arg)
{
	const struct hs_calc_state *state = self->state;

	return arg + state->base;
}

/* A call that waits for something in the middle, as calls in process context do. */
static inline void edition_pause(const struct hs_call *call)
{
	if (call->sleep_us)
		usleep_range(call->sleep_us, call->sleep_us + call->sleep_us / 8 + 1);
}

static void edition_state_init(void *memory)
{
	struct hs_calc_state *state = memory;

	state->base = HS_CALC_BASE;
}

static int edition_register(struct hs_edition *edition)
{
	u64 *table;
	int i, err;

	table = hs_zalloc(HS_TABLE_LEN * sizeof(*table));
	if (!table)
		return -ENOMEM;
	for (i = 0; i < HS_TABLE_LEN; i++)
		table[i] = hs_algorithm(edition->identity, i + HS_CALC_BASE, version);
	edition->version = version;
	edition->interface = hs_hash(interface);
	edition->layout.size = sizeof(struct hs_calc_state);
	edition->layout.hash = hs_hash(layout);
	edition->table = table;
	err = hs_edition_register(edition);
	if (err)
		hs_free(table);
	return err;
}

static void edition_unregister(struct hs_edition *edition)
{
	hs_edition_unregister(edition);
	hs_free((void *)edition->table);
}

#define HS_CALC_EDITION(_name, _identity, _summary)		\
static struct hs_edition edition = {				\
	.slot = HS_CALC_SLOT,					\
	.name = #_name,						\
	.identity = _identity,					\
	.owner = THIS_MODULE,					\
	.call = _name##_call,					\
	.state_init = edition_state_init,			\
};								\
static int __init edition_init(void)				\
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
