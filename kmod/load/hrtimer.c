// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap load: high-resolution timers.
 *
 * Purpose: two timers, each about a thousand times a second, that call slot "calc": one from the hard interrupt, one from
 * the soft interrupt (on PREEMPT_RT a task). An interrupt is raised when a timer is armed and handled when its callback
 * runs; periods that passed while the machine was late were never armed and are counted as overruns.
 *
 * Usage: insmod hs_load.ko from=hrtimer period_us=1000
 */

#include <linux/hrtimer.h>
#include "../compat.h"
#include "../core/core.h"

/* Armed, due this long ago and not yet served: it was lost, not late. */
#define TIMER_LOST_NS (2 * NSEC_PER_SEC)

static uint period_us = 1000;
module_param(period_us, uint, 0444);
MODULE_PARM_DESC(period_us, "time between two interrupts");

struct timer_source {
	struct hs_source source;
	struct hrtimer timer;
	enum hrtimer_mode mode;
};

static enum hrtimer_restart timer_fired(struct hrtimer *timer)
{
	struct timer_source *self = container_of(timer, struct timer_source, timer);
	struct hs_source *source = &self->source;

	hs_source_call(source, NULL, HS_OP_CALC);
	WRITE_ONCE(source->handled, source->handled + 1);
	source->overruns += hrtimer_forward_now(timer, ns_to_ktime((u64)period_us * NSEC_PER_USEC)) - 1;
	source->raised++;
	return HRTIMER_RESTART;
}

static int timer_start(struct hs_source *source)
{
	struct timer_source *self = container_of(source, struct timer_source, source);

	source->raised++;
	hrtimer_start(&self->timer, ns_to_ktime((u64)period_us * NSEC_PER_USEC), self->mode);
	return 0;
}

/* A timer that is taken back before it is due was not raised. */
static void timer_stop(struct hs_source *source)
{
	struct timer_source *self = container_of(source, struct timer_source, source);
	ktime_t lost = ktime_add_ns(hrtimer_get_expires(&self->timer), TIMER_LOST_NS);

	if (hrtimer_cancel(&self->timer) && ktime_before(ktime_get(), lost))
		source->raised--;
}

static struct timer_source timer_sources[] = {
	{
		.source = { .name = "hrtimer", .start = timer_start, .stop = timer_stop },
		.mode = HRTIMER_MODE_REL_HARD,
	},
	{
		.source = { .name = "softirq", .start = timer_start, .stop = timer_stop },
		.mode = HRTIMER_MODE_REL_SOFT,
	},
};

static void timer_free(struct timer_source *self)
{
	hs_source_unregister(&self->source);
	hs_slot_put(self->source.slot);
}

static int timer_make(struct timer_source *self)
{
	int err;

	hrtimer_setup(&self->timer, timer_fired, CLOCK_MONOTONIC, self->mode);
	self->source.slot = hs_slot_get(HS_CALC_SLOT);
	if (IS_ERR(self->source.slot))
		return PTR_ERR(self->source.slot);
	err = hs_source_register(&self->source);
	if (err)
		hs_slot_put(self->source.slot);
	return err;
}

static void timer_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(timer_sources); i++)
		timer_free(&timer_sources[i]);
}

static int timer_init(void)
{
	int i, err = period_us ? 0 : -EINVAL;

	for (i = 0; !err && i < ARRAY_SIZE(timer_sources); i++)
		err = timer_make(&timer_sources[i]);
	if (err)
		for (i -= 2; i >= 0; i--)
			timer_free(&timer_sources[i]);
	return err;
}
