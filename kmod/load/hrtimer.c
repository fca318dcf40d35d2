// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: a high-resolution timer.
 *
 * Purpose: timer interrupts, about a thousand a second, that call slot "calc" from the hard interrupt. An interrupt is
 * raised when the timer is armed and handled when its callback runs; periods that passed while the machine was late
 * were never armed and are counted as overruns.
 *
 * Usage: insmod hs_load.ko from=hrtimer period_us=1000
 */

#include <linux/hrtimer.h>
#include "../compat.h"
#include "../core/core.h"

static uint period_us = 1000;
module_param(period_us, uint, 0444);
MODULE_PARM_DESC(period_us, "time between two interrupts");

static struct hs_source timer_source;
static struct hrtimer timer;

static enum hrtimer_restart timer_fired(struct hrtimer *unused)
{
	hs_source_call(&timer_source);
	WRITE_ONCE(timer_source.handled, timer_source.handled + 1);
	timer_source.overruns += hrtimer_forward_now(&timer, ns_to_ktime((u64)period_us * NSEC_PER_USEC)) - 1;
	timer_source.raised++;
	return HRTIMER_RESTART;
}

static int timer_start(struct hs_source *unused)
{
	timer_source.raised++;
	hrtimer_start(&timer, ns_to_ktime((u64)period_us * NSEC_PER_USEC), HRTIMER_MODE_REL_HARD);
	return 0;
}

/* An armed timer that is taken back before it is due was not raised. */
static void timer_stop(struct hs_source *unused)
{
	if (hrtimer_cancel(&timer))
		timer_source.raised--;
}

static struct hs_source timer_source = {
	.name = "hrtimer",
	.start = timer_start,
	.stop = timer_stop,
};

static int timer_init(void)
{
	int err;

	if (!period_us)
		return -EINVAL;
	hrtimer_setup(&timer, timer_fired, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	timer_source.slot = hs_slot_get(HS_CALC_SLOT);
	if (IS_ERR(timer_source.slot))
		return PTR_ERR(timer_source.slot);
	err = hs_source_register(&timer_source);
	if (err)
		hs_slot_put(timer_source.slot);
	return err;
}

static void timer_exit(void)
{
	hs_source_unregister(&timer_source);
	hs_slot_put(timer_source.slot);
}
