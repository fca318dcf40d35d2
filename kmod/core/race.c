// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap core: race points.
 *
 * Purpose: HS_RACE("name") marks an instant where order matters. While race_us is 0 it is a nop in the code; else each
 * pass waits between 0 and race_us microseconds, spinning, so that it works with preemption or interrupts off. The
 * waits of a point follow from race_seed, the point's name and how often it was passed, so that a schedule can be had again.
 *
 * Usage: insmod hs_core.ko race_us=2000 race_seed=7 race_point=refcount.lookup
 *	  cat /sys/kernel/debug/hotswap/race
 */

#include <linux/delay.h>
#include <linux/spinlock.h>
#include "core.h"

#define POINTS	32
#define MAX_US	100000

DEFINE_STATIC_KEY_FALSE(hs_race_key);
EXPORT_SYMBOL_GPL(hs_race_key);

static char *race_point = "";
module_param(race_point, charp, 0444);
MODULE_PARM_DESC(race_point, "delay only points whose names begin so");

static ulong race_seed = 1;
module_param(race_seed, ulong, 0444);
MODULE_PARM_DESC(race_seed, "which schedule of delays");

static uint race_us;

static int set_race_us(const char *text, const struct kernel_param *param)
{
	int err = param_set_uint_minmax(text, param, 0, MAX_US);

	if (err)
		return err;
	if (race_us)
		static_branch_enable(&hs_race_key);
	else
		static_branch_disable(&hs_race_key);
	return 0;
}

static const struct kernel_param_ops race_us_ops = {
	.set = set_race_us,
	.get = param_get_uint,
};
module_param_cb(race_us, &race_us_ops, &race_us, 0644);
MODULE_PARM_DESC(race_us, "longest delay at a race point, in microseconds; 0 is off");

/* Guards points. Raw and with interrupts off: a race point may be anywhere but in an NMI. */
static DEFINE_RAW_SPINLOCK(points_lock);
static struct {
	char name[HS_NAME_LEN];
	u64 hits;
} points[POINTS];

/* Count one pass of @point; 0 when the table is full or the caller is an NMI. */
static notrace u64 count_hit(const char *point)
{
	unsigned long flags;
	u64 hits = 0;
	int i;

	if (in_nmi())
		return 0;
	raw_spin_lock_irqsave(&points_lock, flags);
	for (i = 0; i < POINTS && points[i].name[0]; i++)
		if (!strcmp(points[i].name, point))
			break;
	if (i < POINTS) {
		if (!points[i].name[0])
			strscpy(points[i].name, point, sizeof(points[i].name));
		hits = ++points[i].hits;
	}
	raw_spin_unlock_irqrestore(&points_lock, flags);
	return hits;
}

/**
 * hs_race_hit - a race point was passed while race_us is not 0
 * @point: its name
 *
 * Context: any; spins for up to race_us microseconds.
 */
notrace void hs_race_hit(const char *point)
{
	u64 random = hs_hash(point) ^ (race_seed * 0x9e3779b97f4a7c15ULL);
	u64 hits = count_hit(point);
	uint limit = READ_ONCE(race_us);

	if (!hits || !limit || strncmp(point, race_point, strlen(race_point)))
		return;
	random = (random + hits * 0xbf58476d1ce4e5b9ULL) | 1;
	hs_random(&random);
	limit = hs_random(&random) % (limit + 1);
	for (; limit > 1000; limit -= 1000)
		udelay(1000);
	udelay(limit);
}
EXPORT_SYMBOL_GPL(hs_race_hit);

void hs_race_show(struct seq_file *seq)
{
	int i;

	seq_printf(seq, "{\"us\":%u,\"seed\":%lu,\"points\":{", race_us, race_seed);
	for (i = 0; i < POINTS && points[i].name[0]; i++)
		seq_printf(seq, "%s\"%s\":%llu", i ? "," : "", points[i].name, points[i].hits);
	seq_puts(seq, "}}\n");
}
