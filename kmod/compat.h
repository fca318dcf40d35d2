/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The newest kernel API, on older kernels.
 *
 * Purpose: the only place that knows kernel versions. Each entry names the commit that brought the new form, so that it
 * can go when the oldest supported kernel (6.1) has it.
 */
#ifndef HS_COMPAT_H
#define HS_COMPAT_H

#include <linux/file.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/stacktrace.h>
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

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
/* bc292ab00f6c ("mm: introduce vma->vm_flags wrapper functions") */
static inline void vm_flags_mod(struct vm_area_struct *vma, vm_flags_t set, vm_flags_t clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#endif

/* 1da91ea87aef ("introduce fd_file(), convert all accessors to it."), 6.12 */
#ifndef fd_file
#define fd_file(descriptor) ((descriptor).file)
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

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
/* stack_trace_save_tsk() was not exported; found by name, and called by pointer: these kernels have no IBT */
unsigned long hs_find_symbol(const char *name);

static unsigned int (*hs_save_stack_at)(struct task_struct *, unsigned long *, unsigned int, unsigned int) __maybe_unused;

#define hs_save_stack_init() do {								\
	if (!hs_save_stack_at)									\
		hs_save_stack_at = (void *)hs_find_symbol("stack_trace_save_tsk");		\
} while (0)
#define hs_save_stack(task, store, size) (hs_save_stack_at ? hs_save_stack_at(task, store, size, 0) : 0)
#else
#define hs_save_stack_init() do { } while (0)
#define hs_save_stack(task, store, size) stack_trace_save_tsk(task, store, size, 0)
#endif

#endif /* HS_COMPAT_H */
