// SPDX-License-Identifier: GPL-2.0-only
/*
 * hotswap mutant: invalidate_irqs_off.
 *
 * Purpose: the landing leaves interrupts off, as they are in the fault. Oracle 7 (every caller gets its context back)
 * must notice.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#ifdef CONFIG_ARM64
#define HS_LANDING_FLAGS(guard) ((guard)->flags | PSR_I_BIT)
#else
#define HS_LANDING_FLAGS(guard) ((guard)->flags & ~X86_EFLAGS_IF)
#endif
#include "../mechanisms/invalidate/invalidate.c"
#include "mechanism.h"

HS_MUTANT_OF(invalidate);
