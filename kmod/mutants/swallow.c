// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: swallow.
 *
 * Purpose: the edu driver acknowledges every 50th interrupt and does nothing more with it. Oracle 4 (no interrupt is
 * lost) must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/interrupt.h>

static irqreturn_t swallow(int irq, void *data);

#define request_irq(irq, handler, flags, name, data) request_irq(irq, swallow, flags, name, data)
#include "../load/load.c"
MODULE_INFO(replaces, "hs_load");

static irqreturn_t swallow(int irq, void *data)
{
	static unsigned int interrupts;
	struct edu *edu = data;

	if (++interrupts % 50)
		return edu_interrupt(irq, data);
	edu_acknowledge(edu, ioread32(edu->bar + EDU_STATUS));
	return IRQ_HANDLED;
}
