/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The newest kernel API, on older kernels.
 *
 * Purpose: the only place that knows kernel versions. Each entry names the commit that brought the new form, so that it
 * can go when the oldest supported kernel (6.1) has it.
 */
#ifndef HS_COMPAT_H
#define HS_COMPAT_H

#include <linux/hrtimer.h>
#include <linux/module.h>
#include <linux/version.h>
#ifdef CONFIG_X86_64
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0)
#include <asm/processor.h>
#else
#include <asm/cpuid/api.h>	/* 968e30006807 ("x86/cpuid: Set <asm/cpuid/api.h> as the main CPUID header"): cpuid() */
#endif
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
/* 908a1d775422 ("hrtimers: Introduce hrtimer_setup() to replace hrtimer_init()") */
static inline void hrtimer_setup(struct hrtimer *timer, enum hrtimer_restart (*function)(struct hrtimer *),
				 clockid_t clock_id, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock_id, mode);
	timer->function = function;
}
#endif

/* ac3b43283923 ("module: replace module_layout with module_memory"), 6.4 */
static inline void hs_module_text(const struct module *module, const void **base, unsigned int *size)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
	*base = module->core_layout.base;
	*size = module->core_layout.text_size;
#else
	*base = module->mem[MOD_TEXT].base;
	*size = module->mem[MOD_TEXT].size;
#endif
}

#endif /* HS_COMPAT_H */
